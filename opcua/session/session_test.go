package session

import (
	"crypto/rsa"
	"strings"
	"testing"

	"github.com/gopcua/opcua/ua"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func endpoint(policy string, mode ua.MessageSecurityMode, tokens ...*ua.UserTokenPolicy) *ua.EndpointDescription {
	return &ua.EndpointDescription{SecurityPolicyURI: ua.SecurityPolicyURIPrefix + policy, SecurityMode: mode, UserIdentityTokens: tokens}
}

var (
	none      = endpoint("None", ua.MessageSecurityModeNone)
	sign      = endpoint("Basic256Sha256", ua.MessageSecurityModeSign)
	encrypt   = endpoint("Basic256Sha256", ua.MessageSecurityModeSignAndEncrypt)
	other     = endpoint("Aes256_Sha256_RsaPss", ua.MessageSecurityModeSignAndEncrypt)
	anonymous = &ua.UserTokenPolicy{PolicyID: "a", TokenType: ua.UserTokenTypeAnonymous}
	user      = &ua.UserTokenPolicy{PolicyID: "u", TokenType: ua.UserTokenTypeUserName}
	sealed    = &ua.UserTokenPolicy{PolicyID: "s", TokenType: ua.UserTokenTypeUserName, SecurityPolicyURI: ua.SecurityPolicyURIBasic256Sha256}
)

func TestChoose(t *testing.T) {
	for _, c := range []struct {
		policy  string
		offered []*ua.EndpointDescription
		want    *ua.EndpointDescription
		err     string
	}{
		{"", []*ua.EndpointDescription{encrypt, none}, none, ""},
		{"", []*ua.EndpointDescription{other, sign, encrypt}, encrypt, ""},
		{"", []*ua.EndpointDescription{other, sign}, nil, "among the 2 offered"},
		{"", nil, nil, "among the 0 offered"},
		{None, []*ua.EndpointDescription{encrypt}, nil, "None"},
		{Basic256Sha256, []*ua.EndpointDescription{none, encrypt}, encrypt, ""},
		{"Basic128", []*ua.EndpointDescription{none}, nil, `policy: "Basic128" is neither`},
	} {
		got, err := Options{Policy: c.policy}.choose(c.offered)
		if got != c.want || (err == nil) != (c.err == "") || err != nil && !strings.Contains(err.Error(), c.err) {
			t.Errorf("%q of %d: %v, %v", c.policy, len(c.offered), got, err)
		}
	}
}

func TestLoginNeverSendsAPasswordInClear(t *testing.T) {
	person := Options{User: "ada", Password: "secret"}
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
