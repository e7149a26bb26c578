package session

import (
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/gopcua/opcua"
	"github.com/gopcua/opcua/ua"
	"github.com/gopcua/opcua/uasc"
)

// Security policies that can be asked for.
const (
	None                = "None"
	Aes128Sha256RsaOaep = "Aes128_Sha256_RsaOaep"
	Basic256Sha256      = "Basic256Sha256"
	Aes256Sha256RsaPss  = "Aes256_Sha256_RsaPss"
)

// Security modes that can be asked for.
const (
	Sign           = "Sign"
	SignAndEncrypt = "SignAndEncrypt"
)

// binaryTransport is the transport that this client speaks (Part 7, UA-TCP UA-SC UA-Binary).
const binaryTransport = "http://opcfoundation.org/UA-Profile/Transport/uatcp-uasc-uabinary"

// policies are sorted by strength, and modes have their values in that order.
var (
	policies = []string{None, Aes128Sha256RsaOaep, Basic256Sha256, Aes256Sha256RsaPss}
	modes    = map[string]ua.MessageSecurityMode{Sign: ua.MessageSecurityModeSign, SignAndEncrypt: ua.MessageSecurityModeSignAndEncrypt}
)

// PolicyNames returns the names of the policies that can be asked for, from the weakest to the strongest.
func PolicyNames() []string { return slices.Clone(policies) }

// ModeNames returns the names of the modes that can be asked for.
func ModeNames() []string { return []string{Sign, SignAndEncrypt} }

// check says what is wrong with the options by themselves, whatever the server offers.
func (o Options) check() error {
	if o.Policy != "" && !slices.Contains(policies, o.Policy) {
		return fmt.Errorf("policy: %q is none of %s", o.Policy, strings.Join(policies, ", "))
	}
	if _, ok := modes[o.Mode]; o.Mode != "" && !ok {
		return fmt.Errorf("mode: %q is none of %s", o.Mode, strings.Join(ModeNames(), ", "))
	}
	if o.Mode != "" && o.Policy == None {
		return fmt.Errorf("mode: policy %s has none, got %q", None, o.Mode)
	}
	if len(o.UserCertificate) == 0 && o.UserKey == nil {
		return nil
	}
	if o.User != "" {
		return errors.New("user: a name and a certificate are two ways to log in, and only one can be used")
	}
	certificate, err := x509.ParseCertificate(o.UserCertificate)
	if err != nil {
		return fmt.Errorf("user certificate: %w", err)
	}
	if o.UserKey == nil || !o.UserKey.PublicKey.Equal(certificate.PublicKey) {
		return errors.New("user certificate: the key is not its own")
	}
	return nil
}

// choose picks the endpoint to use.
func (o Options) choose(endpoints []*ua.EndpointDescription) (*ua.EndpointDescription, error) {
	var best *ua.EndpointDescription
	most := 0
	for _, e := range endpoints {
		if e == nil {
			continue
		}
		if r := o.rank(e); r > most {
			best, most = e, r
		}
	}
	if best == nil {
		wanted := strings.TrimSpace(o.Policy + " " + o.Mode)
		if wanted == "" {
			wanted = "that this client knows"
		}
		return nil, fmt.Errorf("no endpoint with policy %s among the %d offered", wanted, len(endpoints))
	}
	return best, nil
}

// rank is how much an endpoint is wanted: 0 is not at all. What a server says of the strength of its endpoints is not asked, since
// anybody could have said it.
func (o Options) rank(e *ua.EndpointDescription) int {
	name, known := strings.CutPrefix(e.SecurityPolicyURI, ua.SecurityPolicyURIPrefix)
	strength := slices.Index(policies, name)
	overTCP := e.TransportProfileURI == "" || e.TransportProfileURI == binaryTransport
	switch {
	case !known || strength < 0 || !overTCP, o.Policy != "" && name != o.Policy, o.Mode != "" && e.SecurityMode != modes[o.Mode]:
		return 0
	case name != None && (e.SecurityMode == ua.MessageSecurityModeSign || e.SecurityMode == ua.MessageSecurityModeSignAndEncrypt):
		return int(e.SecurityMode)*len(policies) + strength
	case name != None || e.SecurityMode != ua.MessageSecurityModeNone:
		return 0 // It contradicts itself.
	case o.PreferNone && takesAnybody(e) || len(o.Certificate) == 0:
		return int(ua.MessageSecurityModeSignAndEncrypt+1) * len(policies) // Above all others.
	}
	return 1
}

// takesAnybody reports whether an endpoint takes anonymous users.
func takesAnybody(e *ua.EndpointDescription) bool {
	token, _ := tokenPolicy(e, ua.UserTokenTypeAnonymous)
	return token != nil
}

// channel gives the client's options for the secure channel of an endpoint.
func (o Options) channel(e *ua.EndpointDescription) ([]opcua.Option, error) {
	options := []opcua.Option{
		opcua.AutoReconnect(false), opcua.RequestTimeout(o.RequestTimeout), opcua.SecurityFromEndpoint(e, ua.UserTokenTypeAnonymous),
	}
	if o.UserKey != nil {
		options = append(options, opcua.AuthPrivateKey(o.UserKey))
	}
	if e.SecurityPolicyURI == ua.SecurityPolicyURINone {
		return options, nil
	}
	if len(o.Certificate) == 0 || o.Key == nil {
		return nil, errors.New("certificate: an endpoint with security needs a certificate and its key")
	}
	return append(options, opcua.Certificate(o.Certificate), opcua.PrivateKey(o.Key)), nil
}

// login gives what the session itself says, under the token policy of the endpoint.
func (o Options) login(e *ua.EndpointDescription) (*uasc.SessionConfig, error) {
	cfg := &uasc.SessionConfig{
		ClientDescription: &ua.ApplicationDescription{
			ApplicationURI:  defaultApplicationURI,
			ProductURI:      "urn:quorate",
			ApplicationName: ua.NewLocalizedText("Quorate"),
			ApplicationType: ua.ApplicationTypeClient,
		},
		LocaleIDs:          []string{"en"},
		UserTokenSignature: &ua.SignatureData{},
		SessionName:        o.Name,
		SessionTimeout:     Timeout,
	}
	if len(o.Certificate) > 0 {
		// The URI must be the certificate's (Part 4 §5.7.2.2).
		certificate, err := x509.ParseCertificate(o.Certificate)
		if err != nil {
			return nil, fmt.Errorf("certificate: %w", err)
		}
		if len(certificate.URIs) > 0 {
			cfg.ClientDescription.ApplicationURI = certificate.URIs[0].String()
		}
	}
	switch {
	case len(o.UserCertificate) > 0:
		token, policy := tokenPolicy(e, ua.UserTokenTypeCertificate)
		switch {
		case token == nil:
			return nil, errors.New("user certificate: the endpoint takes none")
		case policy == "":
			return nil, errors.New("user certificate: the endpoint names no policy to sign with that this client knows")
		}
		cfg.AuthPolicyURI = policy
		cfg.UserIdentityToken = &ua.X509IdentityToken{PolicyID: token.PolicyID, CertificateData: o.UserCertificate}
	case o.User != "":
		token, policy := tokenPolicy(e, ua.UserTokenTypeUserName)
		switch {
		case token == nil:
			return nil, errors.New("user: the endpoint takes no user name")
		case policy == "":
			return nil, errors.New("password: the endpoint would have it sent in clear, or by a policy that this client doesn't know")
		}
		cfg.AuthPolicyURI, cfg.AuthPassword = policy, o.Password
		cfg.UserIdentityToken = &ua.UserNameIdentityToken{PolicyID: token.PolicyID, UserName: o.User}
	default:
		token, _ := tokenPolicy(e, ua.UserTokenTypeAnonymous)
		if token == nil {
			return nil, errors.New("user: the endpoint takes nobody who is anonymous")
		}
		cfg.UserIdentityToken = &ua.AnonymousIdentityToken{PolicyID: token.PolicyID}
	}
	return cfg, nil
}

// defaultApplicationURI is this client's where no certificate gives one.
const defaultApplicationURI = "urn:quorate:client"

// tokenPolicy returns the endpoint's policy for that type of token, nil if there is none, and the URI of the security policy that
// protects the token: the first one that does, and empty if none of them does.
func tokenPolicy(e *ua.EndpointDescription, of ua.UserTokenType) (token *ua.UserTokenPolicy, policyURI string) {
	for _, t := range e.UserIdentityTokens {
		if t == nil || t.TokenType != of {
			continue
		}
		uri := t.SecurityPolicyURI
		if uri == "" { // The channel's own counts (Part 4 §7.42).
			uri = e.SecurityPolicyURI
		}
		if name, ok := strings.CutPrefix(uri, ua.SecurityPolicyURIPrefix); ok && name != None && slices.Contains(policies, name) {
			return t, uri
		}
		if token == nil {
			token = t
		}
	}
	return token, ""
}
