package pki

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"io"
	"math/big"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// credentialsFor issues a certificate and loads it.
func credentialsFor(t *testing.T, dir string, request IssueRequest) *Credentials {
	t.Helper()
	certFile, keyFile := mustIssue(t, dir, request)
	c, err := Load(certFile, keyFile, filepath.Join(dir, AuthorityFile))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// handshake connects the two over loopback and returns what each side made of the other. The server writes one byte, so
// that the client learns of a refusal that comes after its own handshake, as TLS 1.3 has it.
func handshake(t *testing.T, server, client *tls.Config) (atServer, atClient tls.ConnectionState, serverErr, clientErr error) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	done := make(chan struct{})
	go func() {
		defer close(done)
		raw, err := listener.Accept()
		if err != nil {
			serverErr = err
			return
		}
		defer raw.Close()
		conn := tls.Server(raw, server)
		if serverErr = conn.Handshake(); serverErr == nil {
			atServer = conn.ConnectionState()
			_, serverErr = conn.Write([]byte{1})
		}
	}()
	raw, err := net.Dial("tcp", listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer raw.Close()
	config := client.Clone()
	if config.ServerName == "" {
		config.ServerName = "127.0.0.1"
	}
	conn := tls.Client(raw, config)
	if clientErr = conn.Handshake(); clientErr == nil {
		atClient = conn.ConnectionState()
		_, clientErr = io.ReadFull(conn, make([]byte, 1))
	}
	raw.Close()
	<-done
	return atServer, atClient, serverErr, clientErr
}

func TestHandshakesThatShallWork(t *testing.T) {
	dir := newAuthority(t)
	hosts := []string{"127.0.0.1", "m1.plant"}
	m1 := credentialsFor(t, dir, IssueRequest{Member: "m1", Hosts: hosts})
	m2 := credentialsFor(t, dir, IssueRequest{Member: "m2"})
	alice := credentialsFor(t, dir, IssueRequest{Person: "alice", Role: RoleViewer})
	byName := alice.ClientTLS()
	byName.ServerName = "m1.plant"
	for name, test := range map[string]struct {
		server, client *tls.Config
		caller         string
	}{
		"person to public API":     {m1.ServerTLS(), alice.ClientTLS(), "alice"},
		"person by host name":      {m1.ServerTLS(), byName, "alice"},
		"member to public API":     {m1.ServerTLS(), m2.MemberClientTLS("m1"), "m2"},
		"member to raft":           {m1.MemberServerTLS(), m2.MemberClientTLS("m1"), "m2"},
		"member to any member":     {m1.MemberServerTLS(), m2.MemberClientTLS(""), "m2"},
		"member without hosts":     {m2.MemberServerTLS(), m1.MemberClientTLS("m2"), "m1"},
		"member as a plain client": {m1.ServerTLS(), m2.ClientTLS(), "m2"},
	} {
		t.Run(name, func(t *testing.T) {
			atServer, atClient, serverErr, clientErr := handshake(t, test.server, test.client)
			if serverErr != nil || clientErr != nil {
				t.Fatalf("server: %v, client: %v", serverErr, clientErr)
			}
			if atServer.Version != tls.VersionTLS13 {
				t.Errorf("TLS version %x", atServer.Version)
			}
			if atClient.DidResume {
				t.Error("resumed: every handshake shall be a full one")
			}
			if caller, err := IdentityOf(atServer.PeerCertificates[0]); err != nil || caller.Name != test.caller {
				t.Errorf("caller %+v, %v; want %s", caller, err, test.caller)
			}
		})
	}
}

func TestHandshakesThatShallFail(t *testing.T) {
	dir, foreign := newAuthority(t), newAuthority(t)
	local := []string{"127.0.0.1"}
	m1 := credentialsFor(t, dir, IssueRequest{Member: "m1", Hosts: local})
	m2 := credentialsFor(t, dir, IssueRequest{Member: "m2"})
	alice := credentialsFor(t, dir, IssueRequest{Person: "alice", Role: RoleAdministrator})
	stranger := credentialsFor(t, foreign, IssueRequest{Member: "m2", Hosts: local})
	otherSite := credentialsOfSite(t, dir, "elsewhere")
	old := m2.MemberClientTLS("m1")
	old.MinVersion, old.MaxVersion = tls.VersionTLS12, tls.VersionTLS12
	bare := m2.MemberClientTLS("m1")
	bare.GetClientCertificate = nil
	otherHost := alice.ClientTLS()
	otherHost.ServerName = "m9.plant"
	impostor := alice.base()
	impostor.ClientAuth = tls.RequireAnyClientCert

	for name, test := range map[string]struct {
		server, client *tls.Config
		at, want       string
	}{
		"person to raft":              {m1.MemberServerTLS(), alice.MemberClientTLS("m1"), "server", "not a member"},
		"authority unknown to server": {m1.ServerTLS(), insecure(stranger), "server", "unknown authority"},
		"authority unknown at raft":   {m1.MemberServerTLS(), insecure(stranger), "server", "unknown authority"},
		"authority unknown to client": {stranger.ServerTLS(), alice.ClientTLS(), "client", "unknown authority"},
		"unknown to a member":         {stranger.MemberServerTLS(), m1.MemberClientTLS("m2"), "client", "unknown authority"},
		"another site":                {m1.MemberServerTLS(), insecure(otherSite), "server", "of site"},
		"another member":              {m1.MemberServerTLS(), m2.MemberClientTLS("m3"), "client", `member "m1", not "m3"`},
		"another host":                {m1.ServerTLS(), otherHost, "client", "m9.plant"},
		"no certificate":              {m1.ServerTLS(), bare, "server", "certificate"},
		"TLS 1.2":                     {m1.ServerTLS(), old, "server", "version"},
		"person as server":            {impostor, m1.MemberClientTLS(""), "client", "incompatible key usage"},
	} {
		t.Run(name, func(t *testing.T) {
			_, _, serverErr, clientErr := handshake(t, test.server, test.client)
			err := serverErr
			if test.at == "client" {
				err = clientErr
			}
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("server: %v, client: %v; want %q at the %s", serverErr, clientErr, test.want, test.at)
			}
		})
	}
}

func TestExpiry(t *testing.T) {
	dir := newAuthority(t)
	now := time.Now()
	certFile, keyFile := mustIssue(t, dir, IssueRequest{Member: "m1", Hosts: []string{"127.0.0.1"}, Validity: time.Hour, Now: now})
	caFile := filepath.Join(dir, AuthorityFile)
	at := now
	clock := func() time.Time { return at }
	m1, err := load(certFile, keyFile, caFile, clock)
	if err != nil {
		t.Fatal(err)
	}
	certFile2, keyFile2 := mustIssue(t, dir, IssueRequest{Member: "m2", Validity: 3 * time.Hour})
	m2, err := load(certFile2, keyFile2, caFile, clock)
	if err != nil {
		t.Fatal(err)
	}
	if _, _, serverErr, clientErr := handshake(t, m2.MemberServerTLS(), m1.MemberClientTLS("m2")); serverErr != nil || clientErr != nil {
		t.Fatalf("before expiry: %v, %v", serverErr, clientErr)
	}
	at = now.Add(2 * time.Hour)
	if _, _, serverErr, _ := handshake(t, m2.MemberServerTLS(), m1.MemberClientTLS("m2")); serverErr == nil || !strings.Contains(serverErr.Error(), "expired") {
		t.Errorf("an expired client: %v", serverErr)
	}
	if _, _, _, clientErr := handshake(t, m1.MemberServerTLS(), m2.MemberClientTLS("m1")); clientErr == nil || !strings.Contains(clientErr.Error(), "expired") {
		t.Errorf("an expired server: %v", clientErr)
	}
	if _, err := load(certFile, keyFile, caFile, clock); err == nil || !strings.Contains(err.Error(), "expired") {
		t.Errorf("loading an expired certificate: %v", err)
	}
	at = now.Add(-time.Hour)
	if _, err := load(certFile, keyFile, caFile, clock); err == nil || !strings.Contains(err.Error(), "not yet valid") {
		t.Errorf("loading one of the future: %v", err)
	}
}

func TestLoadRefuses(t *testing.T) {
	dir, foreign := newAuthority(t), newAuthority(t)
	certFile, keyFile := mustIssue(t, dir, IssueRequest{Member: "m1"})
	_, otherKey := mustIssue(t, dir, IssueRequest{Member: "m2"})
	caFile := filepath.Join(dir, AuthorityFile)
	for name, test := range map[string]struct{ cert, key, ca, want string }{
		"missing":            {certFile, keyFile, filepath.Join(dir, "none"), "no such file"},
		"another's key":      {certFile, otherKey, caFile, "does not belong"},
		"another authority":  {certFile, keyFile, filepath.Join(foreign, AuthorityFile), "unknown authority"},
		"certificate as key": {certFile, certFile, caFile, "private key"},
		"key as certificate": {keyFile, keyFile, caFile, "no certificate"},
		"no identity":        {caFile, filepath.Join(dir, authorityKeyFile), caFile, "URI name"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := Load(test.cert, test.key, test.ca)
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("%v, want %q", err, test.want)
			}
			if err != nil && strings.Contains(err.Error(), "BEGIN") {
				t.Errorf("the error repeats the file: %v", err)
			}
		})
	}
}

func TestReload(t *testing.T) {
	dir := newAuthority(t)
	m2 := credentialsFor(t, dir, IssueRequest{Member: "m2"})
	certFile, keyFile := mustIssue(t, dir, IssueRequest{Member: "m1", Hosts: []string{"127.0.0.1"}})
	m1, err := Load(certFile, keyFile, filepath.Join(dir, AuthorityFile))
	if err != nil {
		t.Fatal(err)
	}
	var reloads []error
	m1.OnReload(func(err error) { reloads = append(reloads, err) })
	server, client := m1.MemberServerTLS(), m2.MemberClientTLS("m1")
	serial := func() *big.Int {
		t.Helper()
		_, atClient, serverErr, clientErr := handshake(t, server, client)
		if serverErr != nil || clientErr != nil {
			t.Fatalf("server: %v, client: %v", serverErr, clientErr)
		}
		return atClient.PeerCertificates[0].SerialNumber
	}
	first := serial()
	if len(reloads) != 0 {
		t.Fatalf("reloaded without a change: %v", reloads)
	}

	// A renewed key without its certificate yet: the pair before stays in use.
	if err := errors.Join(os.Rename(certFile, certFile+".old"), os.Rename(keyFile, keyFile+".old")); err != nil {
		t.Fatal(err)
	}
	if serial().Cmp(first) != 0 {
		t.Error("with the files gone, another certificate was shown")
	}
	mustIssue(t, dir, IssueRequest{Member: "m1", Hosts: []string{"127.0.0.1"}})
	if err := errors.Join(os.Rename(certFile, certFile+".new"), os.Rename(certFile+".old", certFile)); err != nil {
		t.Fatal(err)
	}
	if serial().Cmp(first) != 0 {
		t.Error("with half a pair, another certificate was shown")
	}
	if len(reloads) != 1 || reloads[0] == nil {
		t.Fatalf("half a pair was reported as %v", reloads)
	}
	if err := os.Rename(certFile+".new", certFile); err != nil {
		t.Fatal(err)
	}
	second := serial()
	if second.Cmp(first) == 0 {
		t.Error("the renewed certificate is not shown")
	}
	if len(reloads) != 2 || reloads[1] != nil {
		t.Fatalf("reloads %v", reloads)
	}
	if m1.Identity().Name != "m1" || !m1.NotAfter().After(time.Now()) {
		t.Errorf("identity %+v until %s", m1.Identity(), m1.NotAfter())
	}
}

func TestReloadOfTheAuthority(t *testing.T) {
	dir, next := newAuthority(t), newAuthority(t)
	caFile := filepath.Join(t.TempDir(), "bundle.pem")
	write := func(parts ...string) {
		t.Helper()
		// A rename, so that the file is replaced whole, as whoever rotates an authority shall do.
		if err := errors.Join(os.WriteFile(caFile+".tmp", []byte(strings.Join(parts, "")), 0o600), os.Rename(caFile+".tmp", caFile)); err != nil {
			t.Fatal(err)
		}
	}
	oldCA, newCA := content(t, filepath.Join(dir, AuthorityFile)), content(t, filepath.Join(next, AuthorityFile))
	write(oldCA)
	certFile, keyFile := mustIssue(t, dir, IssueRequest{Member: "m1"})
	m1, err := Load(certFile, keyFile, caFile)
	if err != nil {
		t.Fatal(err)
	}
	m2 := credentialsFor(t, next, IssueRequest{Member: "m2"})
	server, client := m1.MemberServerTLS(), insecure(m2)
	if _, _, serverErr, _ := handshake(t, server, client); serverErr == nil {
		t.Fatal("the next authority is trusted already")
	}
	write(oldCA, newCA)
	if _, _, serverErr, clientErr := handshake(t, server, client); serverErr != nil || clientErr != nil {
		t.Errorf("with both authorities: %v, %v", serverErr, clientErr)
	}
}

// insecure returns what a client without scruples would use: it shows its certificate and accepts any server.
func insecure(c *Credentials) *tls.Config {
	config := c.base()
	config.InsecureSkipVerify = true
	return config
}

// credentialsOfSite has the authority of dir sign a member of another site, as only a careless authority would.
func credentialsOfSite(t *testing.T, dir, site string) *Credentials {
	t.Helper()
	authority, signer, err := openAuthority(dir)
	if err != nil {
		t.Fatal(err)
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		Subject: pkix.Name{CommonName: "m1"}, URIs: []*url.URL{{Scheme: "spiffe", Host: site, Path: "/member/m1"}},
		NotBefore: time.Now().Add(-time.Minute), NotAfter: time.Now().Add(time.Hour),
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, authority, key.Public(), signer)
	if err != nil {
		t.Fatal(err)
	}
	certFile, keyFile := filepath.Join(dir, "other.pem"), filepath.Join(dir, "other.key")
	if err := writePair(certFile, keyFile, der, key); err != nil {
		t.Fatal(err)
	}
	c, err := Load(certFile, keyFile, filepath.Join(dir, AuthorityFile))
	if err != nil {
		t.Fatal(err)
	}
	return c
}
