package client

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"

	"quorate/pki"
	quoratev1 "quorate/proto/quorate/v1"
)

func TestOptionsThatAreWrong(t *testing.T) {
	many := make([]string, MaxEndpoints+1)
	for i := range many {
		many[i] = strings.Repeat("h", i+1) + ":1"
	}
	one := []string{"127.0.0.1:1"}
	for want, o := range map[string]Options{
		"Options.Endpoints: 0 are given, and 1 to 32 are needed":     {},
		"Options.Endpoints: 33 are given, and 1 to 32 are needed":    {Endpoints: many},
		`Options.Endpoints[1]: "a:1" is empty or given twice`:        {Endpoints: []string{"a:1", "a:1"}},
		`Options.Endpoints[0]: "" is empty or given twice`:           {Endpoints: []string{""}},
		"Options.DialTimeout: -1ns is negative":                      {Endpoints: one, DialTimeout: -1},
		"Options.RefreshEvery: 1ms is less than 1 s":                 {Endpoints: one, RefreshEvery: time.Millisecond},
		"Options.TLS: it is given, and files as well":                {Endpoints: one, TLS: &tls.Config{}, CAFile: "ca"},
		"Options.KeyFile: missing; CAFile, CertFile and KeyFile are": {Endpoints: one, CAFile: "ca", CertFile: "cert"},
		"Options.CAFile: open nowhere: no such file or directory":    {Endpoints: one, CAFile: "nowhere", CertFile: "cert", KeyFile: "key"},
		"Options.CAFile: client_test.go holds no certificate":        {Endpoints: one, CAFile: "client_test.go", CertFile: "cert", KeyFile: "key"},
	} {
		if c, err := Open(t.Context(), o); c != nil || err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want %q", err, want)
		}
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Open(ended, Options{Endpoints: one}); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v", err)
	}
}

// site makes an authority with a member and a person.
func site(t *testing.T) (dir string) {
	t.Helper()
	dir = filepath.Join(t.TempDir(), "pki")
	if err := pki.Init(dir, "plant.example"); err != nil {
		t.Fatal(err)
	}
	for _, r := range []pki.IssueRequest{{Member: "m1", Hosts: []string{"127.0.0.1"}}, {Person: "ada", Role: pki.RoleOperator}, {Person: "bob", Role: pki.RoleViewer}} {
		if _, _, err := pki.Issue(dir, r); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func TestMutualTLS(t *testing.T) {
	dir := site(t)
	person := func(name string) (cert, key string) {
		return filepath.Join(dir, "people", name+".pem"), filepath.Join(dir, "people", name+".key")
	}
	server, err := pki.Load(filepath.Join(dir, "members", "m1.pem"), filepath.Join(dir, "members", "m1.key"), filepath.Join(dir, "ca.pem"))
	if err != nil {
		t.Fatal(err)
	}
	m := &fakeMember{id: "m1", leader: true}
	m.listen(t, "", credentials.NewTLS(server.ServerTLS()))
	cert, key := person("ada")
	c := openOn(t, []*fakeMember{m}, func(o *Options) { o.CAFile, o.CertFile, o.KeyFile = filepath.Join(dir, "ca.pem"), cert, key })
	if err := getPartition(t.Context(), c); err != nil {
		t.Fatal(err)
	}

	// A certificate that was renewed is used for the next connection; half a renewal isn't.
	pair := &pairFiles{certFile: cert, keyFile: key}
	before, err := pair.get(nil)
	if err != nil {
		t.Fatal(err)
	}
	replace := func(file, by string) {
		t.Helper()
		content, err := os.ReadFile(by)
		if err == nil {
			err = os.WriteFile(file, content, 0o600)
		}
		if err == nil {
			later := time.Now().Add(time.Minute)
			err = os.Chtimes(file, later, later)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	otherCert, otherKey := person("bob")
	replace(cert, otherCert)
	if now, err := pair.get(nil); err != nil || now != before {
		t.Errorf("half a renewal: error %v", err)
	}
	replace(key, otherKey)
	if now, err := pair.get(nil); err != nil || string(now.Certificate[0]) == string(before.Certificate[0]) {
		t.Errorf("a renewal is not seen, error %v", err)
	}

	// A member's own certificate is asked for: a person's is of the same authority.
	config, err := tlsFromFiles(filepath.Join(dir, "ca.pem"), cert, key)
	if err != nil {
		t.Fatal(err)
	}
	if err := config.VerifyConnection(tls.ConnectionState{PeerCertificates: parsed(t, cert)}); err == nil || !strings.Contains(err.Error(), "not that of a member") {
		t.Errorf("a person passes for a member, error %v", err)
	}
	// Nor is one of another authority believed.
	other := site(t)
	stranger, err := Open(t.Context(), Options{Endpoints: []string{m.address}, CAFile: filepath.Join(other, "ca.pem"), CertFile: cert, KeyFile: key})
	if err != nil {
		t.Fatal(err)
	}
	defer stranger.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
	defer cancel()
	if err := getPartition(ctx, stranger); err == nil || !strings.Contains(err.Error(), "certificate signed by unknown authority") {
		t.Errorf("error %v", err)
	}
}

// TestGateOverTheClient shows how the answers of members become what a gate wants to know.
func TestGateOverTheClient(t *testing.T) {
	group := fakeGroup(t, 1)
	l := link{openOn(t, group, nil)}
	if err := l.Register(t.Context(), "i", "s"); err != nil {
		t.Error(err)
	}
	for _, reason := range []string{ReasonUnknownInstance, ReasonStaleSession} {
		group[0].set(func() {
			group[0].answer = func(context.Context, string, int) error { return refusal(codes.FailedPrecondition, reason, "no", nil) }
		})
		if _, err := l.Renew(t.Context(), &quoratev1.RenewGateRequest{}); !errors.Is(err, ErrUnregistered) || ReasonOf(err) != reason {
			t.Errorf("error %v", err)
		}
		if err := l.Remove(t.Context(), "i", "s", true); !errors.Is(err, ErrUnregistered) {
			t.Errorf("error %v", err)
		}
		if err := l.Register(t.Context(), "i", "s"); errors.Is(err, ErrUnregistered) || ReasonOf(err) != reason {
			t.Errorf("error %v", err)
		}
	}
	group[0].set(func() { group[0].answer = nil })
	if _, err := l.Renew(t.Context(), &quoratev1.RenewGateRequest{}); err != nil {
		t.Error(err)
	}
}

// parsed reads the certificates in a file.
func parsed(t *testing.T, file string) []*x509.Certificate {
	t.Helper()
	content, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode(content)
	certificate, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	return []*x509.Certificate{certificate}
}
