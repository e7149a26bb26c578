package server

import (
	"crypto/subtle"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"github.com/gopcua/opcua/ua"

	"quorate/opcua/channel"
)

// User identity tokens (Part 4 §7.41): what of them can be proven without knowing the users is proven here, so that
// Config.Authenticate has only to judge.

const (
	// MaxUserNameBytes bounds a user's name.
	MaxUserNameBytes = 256
	// MaxPasswordBytes bounds a password.
	MaxPasswordBytes = 1024
	// tokenSecurity protects user tokens on endpoints that have no security of their own; every client has it.
	tokenSecurity = ua.SecurityPolicyURIBasic256Sha256
	// tokenSecurityID tells these tokens' policies from those of the other endpoints.
	tokenSecurityID = "-basic256sha256"
)

// Role is what a session's user may do; each role includes the ones before it.
type Role uint8

// The roles. The zero Role may look, and change nothing.
const (
	RoleViewer Role = iota
	RoleOperator
	RoleAdministrator
)

var roleNames = [...]string{RoleViewer: "viewer", RoleOperator: "operator", RoleAdministrator: "administrator"}

// RoleNames returns the names of the roles, the least first.
func RoleNames() []string { return slices.Clone(roleNames[:]) }

func (r Role) String() string {
	if int(r) < len(roleNames) {
		return roleNames[r]
	}
	return fmt.Sprintf("role %d", uint8(r))
}

// ParseRole returns the role of that name.
func ParseRole(name string) (Role, error) {
	if i := slices.Index(roleNames[:], name); i >= 0 {
		return Role(i), nil
	}
	return RoleViewer, fmt.Errorf("role %q is none of %v", name, roleNames)
}

// Identity is who a session's user was found to be. The zero Identity is nobody in particular, who may look.
type Identity struct {
	Name string
	Role Role
	// OnlyRead lets a session use the Read service, and no other than those that end things.
	OnlyRead bool
}

// allows reports whether a session of that identity may make a request at all.
func (i Identity) allows(req ua.Request) bool {
	if !i.OnlyRead {
		return true
	}
	switch req.(type) {
	case *ua.ReadRequest, *ua.CancelRequest, *ua.CloseSessionRequest:
		return true
	}
	return false
}

// Credentials are what a client gave in ActivateSession to say who its user is.
type Credentials struct {
	// Kind says which of the others are set: UserName and Password, or Certificate, or none of them for anonymous users.
	Kind     ua.UserTokenType
	UserName string
	// Password is decrypted, and was sent for this session alone.
	Password []byte
	// Certificate is the user's (DER); the client has proven that it has the key. Whether it is trusted is for
	// Config.Authenticate to say.
	Certificate []byte
	// Application is the certificate (DER) of the client application, which has passed Config.Verify and proven that it has the key.
	// Nil on channels without security.
	Application []byte
	// PolicyURI is the channel's security policy.
	PolicyURI string
	// RemoteAddr is where the client is: HOST:PORT.
	RemoteAddr string
}

// userTokens are what endpoints with a security policy take. Where the channel protects nothing, tokens with a secret get a
// policy of their own, unless theirs says that they need none.
func (v *services) userTokens(policyURI string) []*ua.UserTokenPolicy {
	if policyURI != ua.SecurityPolicyURINone {
		return v.cfg.UserTokens
	}
	var tokens []*ua.UserTokenPolicy
	for _, p := range v.cfg.UserTokens {
		if p.TokenType == ua.UserTokenTypeAnonymous && v.cfg.AnonymousNeedsSecurity {
			continue
		}
		if p.TokenType != ua.UserTokenTypeAnonymous && p.SecurityPolicyURI == "" {
			if v.cfg.Certificate == nil {
				continue // Nothing to encrypt with.
			}
			own := *p
			own.PolicyID, own.SecurityPolicyURI = p.PolicyID+tokenSecurityID, tokenSecurity
			p = &own
		}
		tokens = append(tokens, p)
	}
	return tokens
}

// authenticate finds out who the user is. No token at all means anonymous (Part 4 §5.7.3.2).
func (v *services) authenticate(s *session, ch secureChannel, r *ua.ActivateSessionRequest) (Identity, ua.StatusCode) {
	var token any = &ua.AnonymousIdentityToken{}
	if x := r.UserIdentityToken; x != nil && x.Value != nil {
		token = x.Value
	} else if x != nil && x.EncodingMask != ua.ExtensionObjectEmpty {
		return Identity{}, ua.StatusBadIdentityTokenInvalid
	}
	kind, policyID, ok := tokenKind(token)
	if !ok {
		return Identity{}, ua.StatusBadIdentityTokenInvalid
	}
	offered := v.userTokens(s.policy)
	i := slices.IndexFunc(offered, func(p *ua.UserTokenPolicy) bool {
		// Clients make up the policy's name of an anonymous token, which says nothing that the name could change.
		return p.TokenType == kind && (p.PolicyID == policyID || kind == ua.UserTokenTypeAnonymous)
	})
	if i < 0 {
		return Identity{}, ua.StatusBadIdentityTokenRejected
	}
	if v.cfg.Authenticate == nil {
		return Identity{}, ua.StatusOK // New has made sure that nothing but anonymous is offered.
	}
	policyURI := offered[i].SecurityPolicyURI
	if policyURI == "" {
		policyURI = s.policy
	}
	given := Credentials{Kind: kind, PolicyURI: s.policy, RemoteAddr: ch.RemoteAddr().String()}
	if s.policy != ua.SecurityPolicyURINone {
		given.Application = leafOf(ch.ClientCertificate())
	}
	var status ua.StatusCode
	switch t := token.(type) {
	case *ua.UserNameIdentityToken:
		given.UserName = t.UserName
		given.Password, status = v.password(s, ch, policyURI, t)
	case *ua.X509IdentityToken:
		given.Certificate = t.CertificateData
		status = v.possession(s, policyURI, t, r.UserTokenSignature)
	case *ua.IssuedIdentityToken:
		status = ua.StatusBadIdentityTokenRejected
	}
	if status != ua.StatusOK {
		return Identity{}, status
	}
	return v.cfg.Authenticate(given)
}

func tokenKind(token any) (kind ua.UserTokenType, policy string, ok bool) {
	switch t := token.(type) {
	case *ua.AnonymousIdentityToken:
		return ua.UserTokenTypeAnonymous, t.PolicyID, true
	case *ua.UserNameIdentityToken:
		return ua.UserTokenTypeUserName, t.PolicyID, true
	case *ua.X509IdentityToken:
		return ua.UserTokenTypeCertificate, t.PolicyID, true
	case *ua.IssuedIdentityToken:
		return ua.UserTokenTypeIssuedToken, t.PolicyID, true
	}
	return 0, "", false
}

// password decrypts the password of a token. Whatever is wrong with it looks the same from outside.
func (v *services) password(s *session, ch secureChannel, policyURI string, t *ua.UserNameIdentityToken) ([]byte, ua.StatusCode) {
	if t.UserName == "" || len(t.UserName) > MaxUserNameBytes {
		return nil, ua.StatusBadIdentityTokenInvalid
	}
	secret := t.Password
	if policyURI != ua.SecurityPolicyURINone {
		if t.EncryptionAlgorithm != channel.EncryptionAlgorithm(policyURI) {
			return nil, ua.StatusBadIdentityTokenInvalid
		}
		_, key := ch.ServerCertificate()
		v.signing <- struct{}{}
		plain, err := channel.Decrypt(policyURI, key, t.Password)
		<-v.signing
		if err != nil {
			return nil, ua.StatusBadIdentityTokenInvalid
		}
		var ok bool
		if secret, ok = tokenSecret(plain, s.nonce); !ok {
			return nil, ua.StatusBadIdentityTokenInvalid
		}
	}
	if len(secret) > MaxPasswordBytes {
		return nil, ua.StatusBadIdentityTokenInvalid
	}
	return secret, ua.StatusOK
}

// tokenSecret takes a secret out of the legacy format (Part 4 §7.41.2.2): the length of what follows, the secret, and the
// server's nonce, by which the secret is good for one session only. Some stacks fill up the last block with zeros. The
// comparisons take the same time whatever the bytes are.
func tokenSecret(plain, nonce []byte) ([]byte, bool) {
	if len(plain) < 4 {
		return nil, false
	}
	length, body := uint64(binary.LittleEndian.Uint32(plain)), plain[4:]
	if length < uint64(len(nonce)) || length > uint64(len(body)) {
		return nil, false
	}
	fill, end := body[length:], length-uint64(len(nonce))
	good := subtle.ConstantTimeCompare(body[end:length], nonce) & subtle.ConstantTimeCompare(fill, make([]byte, len(fill)))
	return body[:end], good == 1
}

// possession checks that the client has the key of the certificate that it shows as its user's (Part 4 §7.41.5).
func (v *services) possession(s *session, policyURI string, t *ua.X509IdentityToken, signature *ua.SignatureData) ua.StatusCode {
	if len(t.CertificateData) == 0 {
		return ua.StatusBadIdentityTokenInvalid
	}
	if policyURI == ua.SecurityPolicyURINone {
		return ua.StatusBadIdentityTokenRejected // There would be no signature to check.
	}
	v.signing <- struct{}{}
	err := channel.Verify(policyURI, t.CertificateData, slices.Concat(s.serverCert, s.nonce), signature)
	<-v.signing
	switch {
	case err == nil:
		return ua.StatusOK
	case errors.Is(err, ua.StatusBadApplicationSignatureInvalid):
		return ua.StatusBadUserSignatureInvalid
	}
	return ua.StatusBadIdentityTokenInvalid // The certificate itself.
}
