package session

import (
	"bytes"
	"crypto/rsa"
	"strings"
	"testing"
	"time"

	"github.com/gopcua/opcua/ua"
	"go.uber.org/goleak"

	"quorate/pki"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func endpoint(policy string, mode ua.MessageSecurityMode, tokens ...*ua.UserTokenPolicy) *ua.EndpointDescription {
	return &ua.EndpointDescription{SecurityPolicyURI: ua.SecurityPolicyURIPrefix + policy, SecurityMode: mode, UserIdentityTokens: tokens}
}

var (
	none    = endpoint("None", ua.MessageSecurityModeNone, anonymous)
	users   = endpoint("None", ua.MessageSecurityModeNone, sealed)
	sign    = endpoint("Basic256Sha256", ua.MessageSecurityModeSign)
	encrypt = endpoint("Basic256Sha256", ua.MessageSecurityModeSignAndEncrypt)
	aes128  = endpoint("Aes128_Sha256_RsaOaep", ua.MessageSecurityModeSignAndEncrypt)
	aes256  = endpoint("Aes256_Sha256_RsaPss", ua.MessageSecurityModeSignAndEncrypt)
	sign256 = endpoint("Aes256_Sha256_RsaPss", ua.MessageSecurityModeSign)
	broken  = endpoint("Basic256", ua.MessageSecurityModeSignAndEncrypt)
	untrue  = endpoint("None", ua.MessageSecurityModeSignAndEncrypt)
	unsafe  = endpoint("Aes256_Sha256_RsaPss", ua.MessageSecurityModeNone)
	https   = &ua.EndpointDescription{
		SecurityPolicyURI: ua.SecurityPolicyURIAes256Sha256RsaPss, SecurityMode: ua.MessageSecurityModeSignAndEncrypt,
		TransportProfileURI: "http://opcfoundation.org/UA-Profile/Transport/https-uabinary",
	}
	anonymous = &ua.UserTokenPolicy{PolicyID: "a", TokenType: ua.UserTokenTypeAnonymous}
	user      = &ua.UserTokenPolicy{PolicyID: "u", TokenType: ua.UserTokenTypeUserName}
	card      = &ua.UserTokenPolicy{PolicyID: "c", TokenType: ua.UserTokenTypeCertificate}
	odd       = &ua.UserTokenPolicy{PolicyID: "o", TokenType: ua.UserTokenTypeUserName, SecurityPolicyURI: ua.SecurityPolicyURIPrefix + "Basic256"}
	sealed    = &ua.UserTokenPolicy{PolicyID: "s", TokenType: ua.UserTokenTypeUserName, SecurityPolicyURI: ua.SecurityPolicyURIBasic256Sha256}
)

func TestChoose(t *testing.T) {
	all := []*ua.EndpointDescription{none, nil, sign, aes128, encrypt, sign256, aes256, broken, untrue, unsafe, https}
	known := Options{Certificate: []byte("x")}
	asked := func(policy, mode string) Options {
		return Options{Policy: policy, Mode: mode, Certificate: known.Certificate}
	}
	for _, c := range []struct {
		name    string
		options Options
		offered []*ua.EndpointDescription
		want    *ua.EndpointDescription
		err     string
	}{
		{"the strongest of all", known, all, aes256, ""},
		{"in any order", known, []*ua.EndpointDescription{aes256, none}, aes256, ""},
		{"encryption before a stronger policy", known, []*ua.EndpointDescription{sign256, encrypt, sign}, encrypt, ""},
		{"a longer key of two with one mode", known, []*ua.EndpointDescription{aes128, encrypt}, encrypt, ""},
		{"the only one", known, []*ua.EndpointDescription{none}, none, ""},
		{"without a certificate", Options{}, all, none, ""},
		{"without a certificate, where that is refused", Options{}, []*ua.EndpointDescription{sign, encrypt}, encrypt, ""},
		{"None for who prefers it", Options{PreferNone: true, Certificate: known.Certificate}, all, none, ""},
		{"None takes users only", Options{PreferNone: true, Certificate: known.Certificate}, []*ua.EndpointDescription{users, sign, encrypt}, encrypt, ""},
		{"None for who prefers it and does not get it", Options{PreferNone: true, Certificate: known.Certificate}, []*ua.EndpointDescription{sign, encrypt}, encrypt, ""},
		{"a policy", asked(Basic256Sha256, ""), all, encrypt, ""},
		{"a policy and a mode", asked(Basic256Sha256, Sign), all, sign, ""},
		{"a mode", asked("", Sign), all, sign256, ""},
		{"None", asked(None, ""), all, none, ""},
		{"a policy that isn't offered", asked(Aes128Sha256RsaOaep, ""), []*ua.EndpointDescription{none, encrypt}, nil, "policy Aes128_Sha256_RsaOaep among the 2 offered"},
		{"a mode that isn't offered", asked("", Sign), []*ua.EndpointDescription{none, encrypt}, nil, "policy Sign among the 2 offered"},
		{"None that isn't offered", asked(None, ""), []*ua.EndpointDescription{encrypt}, nil, "policy None among the 1 offered"},
		{"what can't be used", known, []*ua.EndpointDescription{nil, broken, untrue, unsafe, https}, nil, "that this client knows among the 5 offered"},
		{"nothing", known, nil, nil, "among the 0 offered"},
	} {
		got, err := c.options.choose(c.offered)
		if got != c.want || (err == nil) != (c.err == "") || err != nil && !strings.Contains(err.Error(), c.err) {
			t.Errorf("%s: %+v, %v", c.name, got, err)
		}
	}
}

func TestOptionsThatContradictThemselvesAreNamed(t *testing.T) {
	ada, adasKey := certificateOf(t)
	_, evesKey := certificateOf(t)
	for want, o := range map[string]Options{
		`policy: "Basic128" is none of None, `:        {Policy: "Basic128"},
		`mode: "Encrypt" is none of Sign, `:           {Mode: "Encrypt"},
		`mode: policy None has none, got "Sign"`:      {Policy: None, Mode: Sign},
		"user certificate: the key is not its own":    {UserCertificate: ada, UserKey: evesKey},
		"user certificate: x509: malformed":           {UserKey: adasKey},
		"user: a name and a certificate are two ways": {User: "ada", UserCertificate: ada, UserKey: adasKey},
	} {
		// Nobody is asked: there is no such address.
		if _, err := Open(t.Context(), "nowhere", o); err == nil || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("%v, want %s", err, want)
		}
	}
	if _, err := Open(t.Context(), "nowhere", Options{UserCertificate: ada}); err == nil || err.Error() != "user certificate: the key is not its own" {
		t.Errorf("a certificate without a key: %v", err)
	}
}

func certificateOf(t *testing.T) ([]byte, *rsa.PrivateKey) {
	t.Helper()
	der, key, err := pki.EnsureApplicationCertificate(t.TempDir(), "urn:quorate:test", []string{"localhost"}, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	return der, key
}

func TestLoginNeverSendsAPasswordInClear(t *testing.T) {
	person := Options{User: "ada", Password: "secret"}
	owner := Options{UserCertificate: []byte("x")}
	for _, c := range []struct {
		name     string
		options  Options
		endpoint *ua.EndpointDescription
		token    any
		policy   string
		err      string
	}{
		{"anonymous", Options{}, endpoint("None", 1, user, anonymous), &ua.AnonymousIdentityToken{PolicyID: "a"}, "", ""},
		{"nobody is let in", Options{}, endpoint("None", 1, user, nil), nil, "", "user: "},
		{"in clear", person, endpoint("None", 1, anonymous, user), nil, "", "password: "},
		{"sealed by the token's policy", person, endpoint("None", 1, sealed), &ua.UserNameIdentityToken{PolicyID: "s", UserName: "ada"}, ua.SecurityPolicyURIBasic256Sha256, ""},
		{"sealed by the channel's policy", person, endpoint("Basic256Sha256", 3, user), &ua.UserNameIdentityToken{PolicyID: "u", UserName: "ada"}, ua.SecurityPolicyURIBasic256Sha256, ""},
		{"sealed by one of two", person, endpoint("None", 1, user, sealed), &ua.UserNameIdentityToken{PolicyID: "s", UserName: "ada"}, ua.SecurityPolicyURIBasic256Sha256, ""},
		{"sealed by what is unknown", person, endpoint("None", 1, odd), nil, "", "password: "},
		{"signed in clear", owner, endpoint("None", 1, anonymous, card), nil, "", "user certificate: "},
		{"signed by the channel's policy", owner, endpoint("Aes256_Sha256_RsaPss", 2, card), &ua.X509IdentityToken{PolicyID: "c", CertificateData: []byte("x")}, ua.SecurityPolicyURIAes256Sha256RsaPss, ""},
		{"no certificates", owner, endpoint("Basic256Sha256", 3, user), nil, "", "user certificate: "},
		{"no names", person, endpoint("Basic256Sha256", 3, anonymous), nil, "", "user: "},
		{"no certificate at all", Options{Certificate: []byte("x")}, endpoint("None", 1, anonymous), nil, "", "certificate: "},
	} {
		login, err := c.options.login(c.endpoint)
		if c.err != "" {
			if err == nil || !strings.HasPrefix(err.Error(), c.err) {
				t.Errorf("%s: %v, want %s", c.name, err, c.err)
			}
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		switch want := c.token.(type) {
		case *ua.AnonymousIdentityToken:
			if got, ok := login.UserIdentityToken.(*ua.AnonymousIdentityToken); !ok || *got != *want {
				t.Errorf("%s: %+v", c.name, login.UserIdentityToken)
			}
		case *ua.X509IdentityToken:
			got, ok := login.UserIdentityToken.(*ua.X509IdentityToken)
			if !ok || !bytes.Equal(got.CertificateData, want.CertificateData) || got.PolicyID != want.PolicyID || login.AuthPolicyURI != c.policy {
				t.Errorf("%s: %+v under %s", c.name, login.UserIdentityToken, login.AuthPolicyURI)
			}
		case *ua.UserNameIdentityToken:
			got, ok := login.UserIdentityToken.(*ua.UserNameIdentityToken)
			if !ok || got.UserName != want.UserName || got.PolicyID != want.PolicyID || login.AuthPolicyURI != c.policy {
				t.Errorf("%s: %+v under %s", c.name, login.UserIdentityToken, login.AuthPolicyURI)
			}
		}
	}
}

func TestEncryptionNeedsACertificate(t *testing.T) {
	for _, o := range []Options{{}, {Certificate: []byte("x")}, {Key: &rsa.PrivateKey{}}} {
		if _, err := o.channel(encrypt); err == nil || !strings.HasPrefix(err.Error(), "certificate: ") {
			t.Errorf("%+v: %v", o, err)
		}
	}
	if _, err := (Options{}).channel(none); err != nil {
		t.Error(err)
	}
}

func TestGuardTurnsAPanicIntoAnError(t *testing.T) {
	call := func() (err error) {
		defer guard(&err)
		panic("nil pointer")
	}
	if err := call(); err == nil || err.Error() != "the client panicked: nil pointer" {
		t.Errorf("%v", err)
	}
}
