// Package session is a light OPC UA session on gopcua's client: it opens with the security that the server offers, reads,
// sends, and closes. Probes of peers use it, and so do the client commands.
//
// It exists because some ways of that client need a guard. [Open] builds the session step by step instead of calling
// Connect, which starts goroutines that reconnect behind our back, and which dereferences nil when a server's signature is
// wrong. Nothing here reconnects: a session that failed is closed, and its user opens a new one. Every call takes its
// deadline from its context, and [Session.Close] ends within CloseTimeout, so that a peer that hangs for hours holds
// one connection at most.
package session

import (
	"context"
	"crypto/rsa"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/gopcua/opcua"
	"github.com/gopcua/opcua/ua"
	"github.com/gopcua/opcua/uasc"
)

const (
	// CloseTimeout bounds Close: the server's answer is a courtesy that is not worth waiting for longer.
	CloseTimeout = 500 * time.Millisecond
	// DefaultRequestTimeout bounds each request where Options.RequestTimeout is 0.
	DefaultRequestTimeout = 10 * time.Second
	// Timeout is what is asked for as the session's time-out: after a crash of ours, a server soon forgets the session.
	Timeout = 30 * time.Second
)

// Security policies that can be asked for.
const (
	None           = "None"
	Basic256Sha256 = "Basic256Sha256"
)

// Options say how a session is opened. The zero Options is anonymous, with no certificate.
type Options struct {
	// Policy is None, Basic256Sha256 (with SignAndEncrypt), or empty: None where the server offers it, else Basic256Sha256.
	Policy string
	// Certificate (DER) and Key are this application's; needed for Basic256Sha256.
	Certificate []byte
	Key         *rsa.PrivateKey
	// User and Password log in by user name; an empty User is anonymous. A password never goes over an endpoint that
	// doesn't encrypt it.
	User, Password string
	// Name is the session's name, for people who look at the server.
	Name string
	// RequestTimeout bounds each request, whatever its context allows; 0 means the default. A Publish may have to wait long.
	RequestTimeout time.Duration
}

// Session is an open session. It may be used by many goroutines.
type Session struct {
	client *opcua.Client
	policy string
}

// Open connects and opens a session. The deadline of ctx bounds all of it.
func Open(ctx context.Context, endpointURL string, o Options) (s *Session, err error) {
	defer guard(&err)
	if o.RequestTimeout == 0 {
		o.RequestTimeout = DefaultRequestTimeout
	}
	endpoints, err := opcua.GetEndpoints(ctx, endpointURL, opcua.RequestTimeout(o.RequestTimeout))
	if err != nil {
		return nil, fmt.Errorf("get endpoints of %s: %w", endpointURL, err)
	}
	endpoint, err := o.choose(endpoints)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", endpointURL, err)
	}
	login, err := o.login(endpoint)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", endpointURL, err)
	}
	options, err := o.channel(endpoint)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", endpointURL, err)
	}
	client, err := opcua.NewClient(endpointURL, options...)
	if err != nil {
		return nil, fmt.Errorf("options for %s: %w", endpointURL, err)
	}
	s = &Session{client: client, policy: endpoint.SecurityPolicyURI}
	if err := s.open(ctx, login); err != nil {
		s.Close()
		return nil, fmt.Errorf("open a session at %s: %w", endpointURL, err)
	}
	return s, nil
}

func (s *Session) open(ctx context.Context, login *uasc.SessionConfig) (err error) {
	defer guard(&err)
	if err := s.client.Dial(ctx); err != nil {
		if errors.Is(err, io.EOF) && s.policy != ua.SecurityPolicyURINone {
			// The client drops the status that a server sends before it hangs up (Part 6 §7.1.2.5).
			return fmt.Errorf("the server hung up on the secure channel; most likely it does not trust this client's certificate: %w", err)
		}
		return err
	}
	created, err := s.client.CreateSession(ctx, login)
	if err != nil {
		return err
	}
	if created == nil { // The client only logs that the signature did not verify.
		return ua.StatusBadApplicationSignatureInvalid
	}
	if err := s.client.ActivateSession(ctx, created); err != nil {
		return err
	}
	if s.client.Session() == nil { // The client only logs that it could not sign.
		return ua.StatusBadSecurityChecksFailed
	}
	return nil
}

// Discover asks a server for the servers that it knows, and for its own endpoints. That needs no session and no security
// (Part 4 §5.5), so nothing of the answer can be trusted.
func Discover(ctx context.Context, endpointURL string) (servers []*ua.ApplicationDescription, endpoints []*ua.EndpointDescription, err error) {
	defer guard(&err)
	client, err := opcua.NewClient(endpointURL, opcua.AutoReconnect(false), opcua.RequestTimeout(DefaultRequestTimeout))
	if err != nil {
		return nil, nil, fmt.Errorf("options for %s: %w", endpointURL, err)
	}
	s := &Session{client: client}
	defer s.Close()
	if err := client.Dial(ctx); err != nil {
		return nil, nil, fmt.Errorf("connect to %s: %w", endpointURL, err)
	}
	found, err := Call[*ua.FindServersResponse](ctx, s, &ua.FindServersRequest{EndpointURL: endpointURL})
	if err != nil {
		return nil, nil, fmt.Errorf("find servers at %s: %w", endpointURL, err)
	}
	offered, err := Call[*ua.GetEndpointsResponse](ctx, s, &ua.GetEndpointsRequest{EndpointURL: endpointURL})
	if err != nil {
		return nil, nil, fmt.Errorf("get endpoints of %s: %w", endpointURL, err)
	}
	return found.Servers, offered.Endpoints, nil
}

// Policy returns the URI of the security policy that the session is under.
func (s *Session) Policy() string { return s.policy }

// Read reads the values of nodes, in one request, with both timestamps.
func (s *Session) Read(ctx context.Context, nodes ...*ua.NodeID) (values []*ua.DataValue, err error) {
	defer guard(&err)
	request := &ua.ReadRequest{TimestampsToReturn: ua.TimestampsToReturnBoth}
	for _, n := range nodes {
		request.NodesToRead = append(request.NodesToRead, &ua.ReadValueID{NodeID: n, AttributeID: ua.AttributeIDValue})
	}
	response, err := s.client.Read(ctx, request)
	if err != nil {
		return nil, err
	}
	if len(response.Results) != len(nodes) {
		return nil, fmt.Errorf("read of %d nodes gave %d results: %w", len(nodes), len(response.Results), ua.StatusBadUnknownResponse)
	}
	return response.Results, nil
}

// Call sends a request of any other service and returns its response, which is of type R or an error.
func Call[R ua.Response](ctx context.Context, s *Session, request ua.Request) (response R, err error) {
	defer guard(&err)
	err = s.client.Send(ctx, request, func(got ua.Response) error {
		r, ok := got.(R)
		if !ok {
			return fmt.Errorf("%T answered with %T: %w", request, got, ua.StatusBadUnknownResponse)
		}
		response = r
		return nil
	})
	return response, err
}

// Close ends the session and the connection, whatever state they are in, within CloseTimeout.
func (s *Session) Close() {
	var err error
	defer guard(&err)
	ctx, cancel := context.WithTimeout(context.Background(), CloseTimeout)
	defer cancel()
	_ = s.client.Close(ctx) // It has nothing to say: everything in it is best effort.
}

// choose picks the endpoint to use.
func (o Options) choose(endpoints []*ua.EndpointDescription) (*ua.EndpointDescription, error) {
	policies := []string{o.Policy}
	switch o.Policy {
	case "":
		policies = []string{None, Basic256Sha256}
	case None, Basic256Sha256:
	default:
		return nil, fmt.Errorf("policy: %q is neither %s nor %s", o.Policy, None, Basic256Sha256)
	}
	for _, policy := range policies {
		uri, mode := ua.FormatSecurityPolicyURI(policy), ua.MessageSecurityModeSignAndEncrypt
		if policy == None {
			mode = ua.MessageSecurityModeNone
		}
		for _, e := range endpoints {
			if e.SecurityPolicyURI == uri && e.SecurityMode == mode {
				return e, nil
			}
		}
	}
	return nil, fmt.Errorf("no endpoint with policy %v among the %d offered", policies, len(endpoints))
}

// channel gives the client's options for the secure channel of an endpoint.
func (o Options) channel(e *ua.EndpointDescription) ([]opcua.Option, error) {
	options := []opcua.Option{
		opcua.AutoReconnect(false), opcua.RequestTimeout(o.RequestTimeout), opcua.SecurityFromEndpoint(e, ua.UserTokenTypeAnonymous),
	}
	if e.SecurityPolicyURI == ua.SecurityPolicyURINone {
		return options, nil
	}
	if len(o.Certificate) == 0 || o.Key == nil {
		return nil, errors.New("certificate: an encrypted endpoint needs a certificate and its key")
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
	if o.User == "" {
		token, ok := tokenPolicy(e, ua.UserTokenTypeAnonymous)
		if !ok {
			return nil, errors.New("user: the endpoint takes nobody who is anonymous")
		}
		cfg.UserIdentityToken = &ua.AnonymousIdentityToken{PolicyID: token.PolicyID}
		return cfg, nil
	}
	token, ok := tokenPolicy(e, ua.UserTokenTypeUserName)
	if !ok {
		return nil, errors.New("user: the endpoint takes no user name")
	}
	cfg.AuthPolicyURI = token.SecurityPolicyURI
	if cfg.AuthPolicyURI == "" { // The channel's own counts (Part 4 §7.42).
		cfg.AuthPolicyURI = e.SecurityPolicyURI
	}
	if cfg.AuthPolicyURI == ua.SecurityPolicyURINone {
		return nil, errors.New("password: the endpoint would have it sent in clear")
	}
	cfg.AuthPassword = o.Password
	cfg.UserIdentityToken = &ua.UserNameIdentityToken{PolicyID: token.PolicyID, UserName: o.User}
	return cfg, nil
}

// defaultApplicationURI is this client's where no certificate gives one.
const defaultApplicationURI = "urn:quorate:client"

// tokenPolicy returns the endpoint's first policy for that type of token.
func tokenPolicy(e *ua.EndpointDescription, of ua.UserTokenType) (*ua.UserTokenPolicy, bool) {
	for _, t := range e.UserIdentityTokens {
		if t != nil && t.TokenType == of {
			return t, true
		}
	}
	return nil, false
}

// guard turns a panic of the client into an error: what a server answers must never end this process.
func guard(err *error) {
	if r := recover(); r != nil {
		*err = fmt.Errorf("the client panicked: %v", r)
	}
}
