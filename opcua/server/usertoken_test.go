package server

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/gopcua/opcua"
	"github.com/gopcua/opcua/ua"
	"github.com/gopcua/opcua/uapolicy"

	"quorate/opcua/channel"
)

// withUsers lets ada in, by her password or by the key of a certificate, on endpoints of all policies.
func withUsers(ada identity) func(*Config) {
	return func(c *Config) {
		c.Offers = nil
		for _, uri := range channel.Policies() {
			mode := ua.MessageSecurityModeSignAndEncrypt
			if uri == ua.SecurityPolicyURINone {
				mode = ua.MessageSecurityModeNone
			}
			c.Offers = append(c.Offers, channel.SecurityOffer{PolicyURI: uri, Mode: mode})
		}
		c.UserTokens = []*ua.UserTokenPolicy{
			{PolicyID: "user", TokenType: ua.UserTokenTypeUserName}, {PolicyID: "certificate", TokenType: ua.UserTokenTypeCertificate},
		}
		c.Authenticate = func(given Credentials) (Identity, ua.StatusCode) {
			if given.UserName == "ada" && string(given.Password) == "lovelace" || bytes.Equal(given.Certificate, ada.der) {
				return Identity{Name: "ada", Role: RoleOperator}, ua.StatusOK
			}
			return Identity{}, ua.StatusBadUserAccessDenied
		}
	}
}

// login opens a session as a client does that takes all it needs from the server's list of endpoints.
func (s *served) login(t *testing.T, policyURI string, kind ua.UserTokenType, opts ...opcua.Option) error {
	t.Helper()
	endpoints, err := opcua.GetEndpoints(t.Context(), s.url)
	if err != nil {
		t.Fatal(err)
	}
	i := slices.IndexFunc(endpoints, func(e *ua.EndpointDescription) bool { return e.SecurityPolicyURI == policyURI })
	if i < 0 {
		t.Fatalf("no endpoint of %s", policyURI)
	}
	// Options of gopcua work in order: the token first, then the policy under which it is sent.
	all := slices.Concat([]opcua.Option{opcua.Certificate(clientIdentity().der), opcua.PrivateKey(clientIdentity().key)}, opts,
		[]opcua.Option{opcua.SecurityFromEndpoint(endpoints[i], kind)})
	c := s.client(t, all...)
	err = c.Connect(t.Context())
	if err == nil {
		_, err = c.Node(levelKey.NodeID()).Value(t.Context())
	}
	_ = c.Close(context.Background())
	return err
}

func TestUsersLogInUnderEachPolicy(t *testing.T) {
	ada, eve := newIdentity(t, "urn:demo:ada"), newIdentity(t, "urn:demo:eve")
	s := serve(t, withUsers(ada))
	for _, uri := range channel.Policies() {
		t.Run(uri, func(t *testing.T) {
			for _, x := range []struct {
				name string
				err  error
				want error
			}{
				{"right password", s.login(t, uri, ua.UserTokenTypeUserName, opcua.AuthUsername("ada", "lovelace")), nil},
				{"wrong password", s.login(t, uri, ua.UserTokenTypeUserName, opcua.AuthUsername("ada", "byron")), ua.StatusBadUserAccessDenied},
				{"no name", s.login(t, uri, ua.UserTokenTypeUserName, opcua.AuthUsername("", "lovelace")), ua.StatusBadIdentityTokenInvalid},
				{"certificate", s.login(t, uri, ua.UserTokenTypeCertificate, opcua.AuthCertificate(ada.der), opcua.AuthPrivateKey(ada.key)), nil},
				{"another's certificate", s.login(t, uri, ua.UserTokenTypeCertificate, opcua.AuthCertificate(eve.der), opcua.AuthPrivateKey(eve.key)), ua.StatusBadUserAccessDenied},
				{"stolen certificate", s.login(t, uri, ua.UserTokenTypeCertificate, opcua.AuthCertificate(ada.der), opcua.AuthPrivateKey(eve.key)), ua.StatusBadUserSignatureInvalid},
				{"nobody", s.login(t, uri, ua.UserTokenTypeAnonymous), ua.StatusBadIdentityTokenRejected},
			} {
				if !errors.Is(x.err, x.want) {
					t.Errorf("%s: %v, want %v", x.name, x.err, x.want)
				}
			}
		})
	}
}

func TestTokensOfAnEndpointWithoutSecurity(t *testing.T) {
	s := serve(t, withUsers(clientIdentity()))
	for _, p := range s.services.userTokens(ua.SecurityPolicyURINone) {
		if p.SecurityPolicyURI != tokenSecurity || !strings.HasSuffix(p.PolicyID, tokenSecurityID) {
			t.Errorf("a secret would go in clear: %+v", p)
		}
	}
	s.services.cfg.Certificate = nil
	if got := s.services.userTokens(ua.SecurityPolicyURINone); len(got) != 0 {
		t.Errorf("without a certificate: %+v", got)
	}
}

// TestBrokenSecrets sends what no client would, over a channel without security, where nothing else protects the password.
func TestBrokenSecrets(t *testing.T) {
	s := serve(t, withUsers(clientIdentity()))
	crypt, err := uapolicy.Asymmetric(tokenSecurity, clientIdentity().key, &serverIdentity().key.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	c := s.dial(t)
	session, err := c.CreateSession(t.Context(), sessionConfig())
	if err != nil {
		t.Fatal(err)
	}
	_ = session
	token := authenticationToken(t, s)
	nonce := func() []byte { return s.services.sessions.find(token).nonce }
	sealed := func(length int, parts ...[]byte) []byte {
		encrypted, err := crypt.Encrypt(append(binary.LittleEndian.AppendUint32(nil, uint32(length)), slices.Concat(parts...)...))
		if err != nil {
			t.Fatal(err)
		}
		return encrypted
	}
	activate := func(user *ua.UserNameIdentityToken) ua.StatusCode {
		req := &ua.ActivateSessionRequest{ClientSignature: &ua.SignatureData{}, UserIdentityToken: ua.NewExtensionObject(user), UserTokenSignature: &ua.SignatureData{}}
		var got ua.StatusCode
		err := c.SecureChannel().SendRequest(t.Context(), req, token, func(resp ua.Response) error {
			got = resp.Header().ServiceResult
			return nil
		})
		var status ua.StatusCode
		if errors.As(err, &status) {
			return status
		}
		return got
	}
	password, long := []byte("lovelace"), bytes.Repeat([]byte("x"), MaxPasswordBytes)
	named := strings.Repeat("n", MaxUserNameBytes)
	for _, x := range []struct {
		name   string
		user   string
		secret []byte
		want   ua.StatusCode
	}{
		{"not encrypted", "ada", password, ua.StatusBadIdentityTokenInvalid},
		{"nothing", "ada", nil, ua.StatusBadIdentityTokenInvalid},
		{"no nonce", "ada", sealed(8, password), ua.StatusBadIdentityTokenInvalid},
		{"another nonce", "ada", sealed(40, password, make([]byte, 32)), ua.StatusBadIdentityTokenInvalid},
		{"length beyond the end", "ada", sealed(41, password, nonce()), ua.StatusBadIdentityTokenInvalid},
		{"length that is negative", "ada", sealed(-1, password, nonce()), ua.StatusBadIdentityTokenInvalid},
		{"length that leaves some out", "ada", sealed(39, password, nonce()), ua.StatusBadIdentityTokenInvalid},
		{"longest password", "ada", sealed(MaxPasswordBytes+32, long, nonce()), ua.StatusBadUserAccessDenied},
		{"password too long", "ada", sealed(MaxPasswordBytes+33, long, []byte("x"), nonce()), ua.StatusBadIdentityTokenInvalid},
		{"longest name", named, sealed(40, password, nonce()), ua.StatusBadUserAccessDenied},
		{"name too long", named + "n", sealed(40, password, nonce()), ua.StatusBadIdentityTokenInvalid},
		{"as it should be, with fill", "ada", sealed(40, password, nonce(), make([]byte, 20)), ua.StatusOK},
	} {
		user := &ua.UserNameIdentityToken{PolicyID: "user" + tokenSecurityID, UserName: x.user, Password: x.secret, EncryptionAlgorithm: channel.EncryptionAlgorithm(tokenSecurity)}
		if got := activate(user); got != x.want {
			t.Errorf("%s: %v, want %v", x.name, got, x.want)
		}
	}
	good := sealed(40, password, nonce())
	if got := activate(&ua.UserNameIdentityToken{PolicyID: "user" + tokenSecurityID, UserName: "ada", Password: good, EncryptionAlgorithm: "x"}); got != ua.StatusBadIdentityTokenInvalid {
		t.Errorf("another algorithm: %v", got)
	}
	if got := s.services.sessions.find(token).bound.Load().identity; got != (Identity{Name: "ada", Role: RoleOperator}) {
		t.Errorf("identity %+v", got)
	}
}

func TestRoles(t *testing.T) {
	for i, name := range RoleNames() {
		if r, err := ParseRole(name); err != nil || r != Role(i) || r.String() != name {
			t.Errorf("%s: %v, %v", name, r, err)
		}
	}
	if r, err := ParseRole("root"); err == nil || r != RoleViewer {
		t.Errorf("root: %v, %v", r, err)
	}
	if got := Role(99).String(); got != "role 99" {
		t.Error(got)
	}
}

func FuzzTokenSecret(f *testing.F) {
	nonce := bytes.Repeat([]byte{7}, nonceLength)
	f.Add(append(append([]byte{33, 0, 0, 0}, 'p'), nonce...))
	f.Add(append([]byte{32, 0, 0, 0}, nonce...))
	f.Add([]byte{255, 255, 255, 255})
	f.Fuzz(func(t *testing.T, plain []byte) {
		secret, ok := tokenSecret(plain, nonce)
		if ok && !bytes.HasPrefix(plain[4+len(secret):], nonce) {
			t.Errorf("no nonce behind the secret of %x", plain)
		}
	})
}
