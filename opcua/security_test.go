package opcua

import (
	"context"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/binary"
	"errors"
	"io"
	"math/big"
	"net"
	"net/url"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	gopcua "github.com/gopcua/opcua"
	"github.com/gopcua/opcua/id"
	"github.com/gopcua/opcua/ua"

	"quorate/opcua/certstore"
	"quorate/opcua/channel"
	"quorate/opcua/login"
	"quorate/opcua/server"
	"quorate/redundancy"
)

// guarded is a member's endpoint that trusts nobody yet.
type guarded struct {
	url                 string
	group               *group
	applications, users *certstore.Store
	list                string // the file of users
}

func guard(t *testing.T, change ...func(*Config)) *guarded {
	t.Helper()
	g := newGroup(t, "m1", "m2", "m3")
	f := &fitness{}
	f.move(redundancy.Inputs{})
	dir := t.TempDir()
	s := &guarded{group: g, list: filepath.Join(dir, "users", "list")}
	var err error
	if s.applications, err = certstore.Open(dir, certstore.Options{}); err != nil {
		t.Fatal(err)
	}
	if s.users, err = certstore.Open(filepath.Join(dir, "users"), certstore.Options{Use: certstore.User}); err != nil {
		t.Fatal(err)
	}
	list, err := login.Open(s.list, login.Options{Roles: server.RoleNames()})
	if err != nil {
		t.Fatal(err)
	}
	_, cfg := serve(t, listen(t), "m1", g, f, append([]func(*Config){func(c *Config) {
		c.AllowNone, c.AllowAnonymous = false, false
		c.Applications, c.Users, c.UserCertificates = s.applications, list, s.users
	}}, change...)...)
	s.url = cfg.Endpoint
	return s
}

// variant is a certificate for the key of another, self-signed and changed.
func variant(t *testing.T, of certificate, change func(*x509.Certificate)) certificate {
	t.Helper()
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: "client"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), URIs: []*url.URL{{Scheme: "urn", Opaque: "demo:client"}},
		KeyUsage:    x509.KeyUsageDigitalSignature | x509.KeyUsageContentCommitment | x509.KeyUsageKeyEncipherment | x509.KeyUsageDataEncipherment,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}, BasicConstraintsValid: true,
	}
	change(template)
	der, err := x509.CreateCertificate(rand.Reader, template, template, of.key.Public(), of.key)
	if err != nil {
		t.Fatal(err)
	}
	return certificate{der, of.key}
}

func trust(t *testing.T, in *certstore.Store, c certificate) {
	t.Helper()
	if _, err := in.Add(c.der); err != nil {
		t.Fatal(err)
	}
}

// connect reads ServiceLevel with the gopcua client, as an application and, unless kind says anonymous, as a user.
func (s *guarded) connect(t *testing.T, app certificate, policyURI string, mode ua.MessageSecurityMode, kind ua.UserTokenType, opts ...gopcua.Option) error {
	t.Helper()
	relay := newRelay(t, s.url)
	endpoints, err := gopcua.GetEndpoints(within(t), relay.url)
	if err != nil {
		t.Fatal(err)
	}
	i := slices.IndexFunc(endpoints, func(e *ua.EndpointDescription) bool {
		return e.SecurityPolicyURI == policyURI && e.SecurityMode == mode
	})
	endpoint := &ua.EndpointDescription{SecurityPolicyURI: policyURI, SecurityMode: mode, ServerCertificate: endpoints[0].ServerCertificate}
	if i >= 0 {
		endpoint = endpoints[i]
	}
	all := []gopcua.Option{gopcua.AutoReconnect(false), gopcua.RequestTimeout(10 * time.Second)}
	if policyURI != ua.SecurityPolicyURINone {
		all = append(all, gopcua.Certificate(app.der), gopcua.PrivateKey(app.key))
	}
	all = append(append(all, opts...), gopcua.SecurityFromEndpoint(endpoint, kind))
	c, err := gopcua.NewClient(relay.url, all...)
	if err != nil {
		t.Fatal(err)
	}
	err = c.Connect(within(t))
	if err == nil {
		_, err = c.Node(ua.NewNumericNodeID(0, id.Server_ServiceLevel)).Value(within(t))
	}
	_ = c.Close(context.Background())
	if told := ua.StatusCode(relay.told.Load()); errors.Is(err, io.EOF) && told != 0 {
		return told
	}
	return err
}

// relay stands between client and server and looks for the server's Error messages (Part 6 §7.1.2.5), since gopcua's client says
// EOF in place of them.
type relay struct {
	url  string
	told atomic.Uint32
}

func newRelay(t *testing.T, to string) *relay {
	t.Helper()
	target, err := url.Parse(to)
	if err != nil {
		t.Fatal(err)
	}
	l := listen(t)
	r := &relay{url: "opc.tcp://" + l.Addr().String()}
	var running sync.WaitGroup
	running.Go(func() {
		for {
			client, err := l.Accept()
			if err != nil {
				return
			}
			running.Go(func() { r.pass(client, target.Host) })
		}
	})
	t.Cleanup(func() {
		l.Close()
		running.Wait()
	})
	return r
}

// pass ends when either side does.
func (r *relay) pass(client net.Conn, target string) {
	defer client.Close()
	server, err := net.Dial("tcp", target)
	if err != nil {
		return
	}
	defer server.Close()
	var up sync.WaitGroup
	defer up.Wait()
	up.Go(func() {
		_, _ = io.Copy(server, client)
		server.Close()
	})
	defer client.Close()
	for header := make([]byte, 8); ; {
		if _, err := io.ReadFull(server, header); err != nil {
			return
		}
		body := make([]byte, binary.LittleEndian.Uint32(header[4:])-8)
		if _, err := io.ReadFull(server, body); err != nil {
			return
		}
		if string(header[:4]) == "ERRF" {
			r.told.Store(binary.LittleEndian.Uint32(body))
		}
		if _, err := client.Write(append(slices.Clone(header), body...)); err != nil {
			return
		}
	}
}

const (
	basic   = ua.SecurityPolicyURIBasic256Sha256
	encrypt = ua.MessageSecurityModeSignAndEncrypt
)

func TestApplicationsMustBeTrusted(t *testing.T) {
	s := guard(t, func(c *Config) { c.AllowAnonymous = true })
	app := certificateOf(t, "urn:demo:client")
	anonymous := func(c certificate, opts ...gopcua.Option) error {
		return s.connect(t, c, basic, encrypt, ua.UserTokenTypeAnonymous, opts...)
	}
	if err := anonymous(app); !errors.Is(err, ua.StatusBadSecurityChecksFailed) {
		t.Errorf("untrusted: %v", err)
	}
	if _, err := s.applications.Trust(certstore.Fingerprint(app.der)); err != nil {
		t.Fatal(err)
	}
	for _, o := range (&Config{}).offers() {
		if err := s.connect(t, app, o.PolicyURI, o.Mode, ua.UserTokenTypeAnonymous); err != nil {
			t.Errorf("trusted, %v: %v", o, err)
		}
	}
	if err := anonymous(app, gopcua.ApplicationURI("urn:demo:another")); !errors.Is(err, ua.StatusBadCertificateURIInvalid) {
		t.Errorf("wrong ApplicationUri: %v", err)
	}
	late := variant(t, app, func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Minute) })
	if err := anonymous(late); !errors.Is(err, ua.StatusBadSecurityChecksFailed) {
		t.Errorf("expired and untrusted: %v", err)
	}
	trust(t, s.applications, late)
	if err := anonymous(late); !errors.Is(err, ua.StatusBadCertificateTimeInvalid) {
		t.Errorf("expired: %v", err)
	}
	wrong := variant(t, app, func(c *x509.Certificate) { c.KeyUsage = x509.KeyUsageDigitalSignature })
	trust(t, s.applications, wrong)
	if err := anonymous(wrong); !errors.Is(err, ua.StatusBadCertificateUseNotAllowed) {
		t.Errorf("of another use: %v", err)
	}
	if _, err := s.applications.Reject(certstore.Fingerprint(app.der)); err != nil {
		t.Fatal(err)
	}
	if err := anonymous(app); !errors.Is(err, ua.StatusBadSecurityChecksFailed) {
		t.Errorf("rejected again: %v", err)
	}
	if err := anonymous(certificateOf(t, uriOf("m1"))); err != nil {
		t.Errorf("the member itself: %v", err)
	}
}

func TestPolicyDowngradeIsRefused(t *testing.T) {
	s := guard(t, func(c *Config) { c.AllowAnonymous = true })
	app := certificateOf(t, "urn:demo:client")
	trust(t, s.applications, app)
	for _, x := range []struct {
		policy string
		mode   ua.MessageSecurityMode
		want   ua.StatusCode
	}{
		{ua.SecurityPolicyURINone, ua.MessageSecurityModeNone, ua.StatusBadSecurityPolicyRejected},
		{ua.SecurityPolicyURIBasic128Rsa15, encrypt, ua.StatusBadSecurityPolicyRejected},
		{ua.SecurityPolicyURIBasic256, encrypt, ua.StatusBadSecurityPolicyRejected},
	} {
		if err := s.connect(t, app, x.policy, x.mode, ua.UserTokenTypeAnonymous); !errors.Is(err, x.want) {
			t.Errorf("%s: %v, want %v", x.policy, err, x.want)
		}
	}
}

func TestUsersLogIn(t *testing.T) {
	s := guard(t, func(c *Config) { c.AllowNone = true })
	app, ada, eve := certificateOf(t, "urn:demo:client"), certificateOf(t, "urn:demo:ada"), certificateOf(t, "urn:demo:eve")
	trust(t, s.applications, app)
	password := func(policy, name, word string) error {
		mode := encrypt
		if policy == ua.SecurityPolicyURINone {
			mode = ua.MessageSecurityModeNone
		}
		return s.connect(t, app, policy, mode, ua.UserTokenTypeUserName, gopcua.AuthUsername(name, word))
	}
	certified := func(c certificate) error {
		return s.connect(t, app, basic, encrypt, ua.UserTokenTypeCertificate, gopcua.AuthCertificate(c.der), gopcua.AuthPrivateKey(c.key))
	}
	if err := password(basic, "ada", "lovelace"); !errors.Is(err, ua.StatusBadUserAccessDenied) {
		t.Errorf("without users: %v", err)
	}
	if err := login.Add(s.list, server.RoleNames(), login.User{Name: "ada", Role: "operator"}, []byte("lovelace")); err != nil {
		t.Fatal(err)
	}
	for _, policy := range channel.Policies() {
		if err := password(policy, "ada", "lovelace"); err != nil {
			t.Errorf("%s: right password: %v", policy, err)
		}
	}
	if err := password(basic, "ada", "byron"); !errors.Is(err, ua.StatusBadUserAccessDenied) {
		t.Errorf("wrong password: %v", err)
	}
	if err := certified(ada); !errors.Is(err, ua.StatusBadIdentityTokenRejected) {
		t.Errorf("unknown certificate: %v", err)
	}
	if _, err := s.users.Trust(certstore.Fingerprint(ada.der)); err != nil {
		t.Errorf("it is not among the rejected: %v", err)
	}
	if err := certified(ada); err != nil {
		t.Errorf("trusted certificate: %v", err)
	}
	if err := certified(certificate{ada.der, eve.key}); !errors.Is(err, ua.StatusBadUserSignatureInvalid) {
		t.Errorf("stolen certificate: %v", err)
	}
	if err := s.connect(t, app, ua.SecurityPolicyURINone, ua.MessageSecurityModeNone, ua.UserTokenTypeAnonymous); !errors.Is(err, ua.StatusBadIdentityTokenRejected) {
		t.Errorf("nobody, without security: %v", err)
	}
}

func TestIdentities(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "list")
	ada, bob := certificateOf(t, "urn:demo:ada"), certificateOf(t, "urn:demo:eve")
	for _, err := range []error{
		login.Add(file, server.RoleNames(), login.User{Name: "ada", Role: "administrator"}, []byte("lovelace")),
		login.AddCertificate(file, server.RoleNames(), login.User{Name: "ada", Role: "operator"}, certstore.Fingerprint(ada.der)),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	users, err := login.Open(file, login.Options{Roles: server.RoleNames()})
	if err != nil {
		t.Fatal(err)
	}
	store, err := certstore.Open(dir, certstore.Options{Use: certstore.User})
	if err != nil {
		t.Fatal(err)
	}
	trust(t, store, ada)
	trust(t, store, bob)
	c := &Config{Users: users, UserCertificates: store}
	from := net.JoinHostPort("192.0.2.1", "1")
	for name, x := range map[string]struct {
		given  server.Credentials
		want   server.Identity
		status ua.StatusCode
	}{
		"password":                   {server.Credentials{Kind: ua.UserTokenTypeUserName, UserName: "ada", Password: []byte("lovelace"), RemoteAddr: from}, server.Identity{Name: "ada", Role: server.RoleAdministrator}, ua.StatusOK},
		"certificate":                {server.Credentials{Kind: ua.UserTokenTypeCertificate, Certificate: ada.der}, server.Identity{Name: "ada", Role: server.RoleOperator}, ua.StatusOK},
		"certificate without a role": {server.Credentials{Kind: ua.UserTokenTypeCertificate, Certificate: bob.der}, server.Identity{Name: "Quorate", Role: server.RoleViewer}, ua.StatusOK},
		"anonymous":                  {server.Credentials{Kind: ua.UserTokenTypeAnonymous, PolicyURI: basic}, server.Identity{}, ua.StatusBadIdentityTokenRejected},
		"anonymous without security": {server.Credentials{Kind: ua.UserTokenTypeAnonymous, PolicyURI: ua.SecurityPolicyURINone}, server.Identity{}, ua.StatusBadIdentityTokenRejected},
		"issued token":               {server.Credentials{Kind: ua.UserTokenTypeIssuedToken}, server.Identity{}, ua.StatusBadIdentityTokenRejected},
	} {
		if got, status := c.authenticate(x.given); got != x.want || status != x.status {
			t.Errorf("%s: %+v, %v", name, got, status)
		}
	}
}
