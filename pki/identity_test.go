package pki

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"net/url"
	"strings"
	"testing"
)

func certificateWith(t *testing.T, commonName string, uris ...string) *x509.Certificate {
	t.Helper()
	certificate := &x509.Certificate{Subject: pkix.Name{CommonName: commonName}}
	for _, text := range uris {
		u, err := url.Parse(text)
		if err != nil {
			t.Fatal(err)
		}
		certificate.URIs = append(certificate.URIs, u)
	}
	return certificate
}

func TestIdentityOf(t *testing.T) {
	for text, want := range map[string]Identity{
		"spiffe://demo/member/m1":                 {Site: "demo", Name: "m1", Role: RoleViewer, Member: true},
		"spiffe://plant.example/role/viewer":      {Site: "plant.example", Name: "Alice Example", Role: RoleViewer},
		"spiffe://demo/role/operator":             {Site: "demo", Name: "Alice Example", Role: RoleOperator},
		"spiffe://demo/role/administrator":        {Site: "demo", Name: "Alice Example", Role: RoleAdministrator},
		"spiffe://demo/member/a.b-c_d0123456789z": {Site: "demo", Name: "a.b-c_d0123456789z", Role: RoleViewer, Member: true},
	} {
		got, err := IdentityOf(certificateWith(t, "Alice Example", text))
		if err != nil || got != want {
			t.Errorf("%s: %+v, %v; want %+v", text, got, err, want)
		}
		if got.URI().String() != text {
			t.Errorf("%s: its URI is %s", text, got.URI())
		}
	}
}

func TestIdentityOfRefuses(t *testing.T) {
	for _, text := range []string{
		"https://demo/member/m1", "spiffe://demo/member/", "spiffe://demo/member/M1", "spiffe://demo/member/m1/x",
		"spiffe://demo/member/m1?x=1", "spiffe://demo/member/m1#x", "spiffe://u@demo/member/m1", "spiffe://demo:1/member/m1",
		"spiffe:///member/m1", "spiffe://Demo/member/m1", "spiffe://demo/role/root", "spiffe://demo/role/Operator",
		"spiffe://demo/role/none", "spiffe://demo/role/", "spiffe://demo/", "spiffe://demo", "spiffe://demo/member/m%2F1",
		"spiffe://demo/role/operator/", "spiffe://demo//role/operator", "spiffe:demo/role/operator", "spiffe://demo/%72ole/operator",
		"spiffe://demo/role/operator?",
	} {
		if got, err := IdentityOf(certificateWith(t, "alice", text)); err == nil {
			t.Errorf("%s: accepted as %+v", text, got)
		}
	}
	if _, err := IdentityOf(certificateWith(t, "alice")); err == nil {
		t.Error("no URI name: accepted")
	}
	if _, err := IdentityOf(certificateWith(t, "alice", "spiffe://demo/role/viewer", "spiffe://demo/role/operator")); err == nil {
		t.Error("two URI names: accepted")
	}
	for _, name := range []string{"", "a\nb", "a\x00", "\xff", strings.Repeat("a", maxNameBytes+1), "a\u202eb"} {
		if got, err := IdentityOf(certificateWith(t, name, "spiffe://demo/role/viewer")); err == nil {
			t.Errorf("common name %q: accepted as %+v", name, got)
		}
	}
	if _, err := IdentityOf(nil); err == nil {
		t.Error("no certificate: accepted")
	}
}

func TestRoles(t *testing.T) {
	for _, role := range []Role{RoleViewer, RoleOperator, RoleAdministrator} {
		if got, err := ParseRole(role.String()); err != nil || got != role {
			t.Errorf("ParseRole(%q) = %v, %v", role, got, err)
		}
	}
	if _, err := ParseRole("none"); err == nil {
		t.Error("none is no role that can be given")
	}
}

// FuzzIdentity checks that whatever is accepted is written back as it came: no two spellings of one identity.
func FuzzIdentity(f *testing.F) {
	f.Add("spiffe://demo/member/m1", "x")
	f.Add("spiffe://demo/role/operator", "alice")
	f.Add("spiffe://demo/role/%6Fperator", "alice")
	f.Add("Spiffe://demo/member/m1", "x")
	f.Add("spiffe://demo/member/m1#", "x")
	f.Fuzz(func(t *testing.T, text, name string) {
		u, err := url.Parse(text)
		if err != nil {
			return
		}
		identity, err := IdentityOf(&x509.Certificate{Subject: pkix.Name{CommonName: name}, URIs: []*url.URL{u}})
		if err != nil {
			return
		}
		// The parser, which crypto/x509 uses too, has folded the scheme's case (RFC 3986 §3.1) and dropped an empty fragment.
		if got := identity.URI().String(); got != u.String() {
			t.Errorf("%q is accepted, and is written %q", u, got)
		}
		if identity.Name == "" || identity.Role == RoleNone || identity.Site == "" {
			t.Errorf("%q, %q: incomplete %+v", text, name, identity)
		}
	})
}
