package pki

import (
	"crypto"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"
	"time"
)

// Credentials are the certificate, key and authority that a process uses. Each handshake looks at the three files (a few
// microseconds beside a handshake's hundreds) and reads them again if one has changed.
type Credentials struct {
	files    [3]string // certificate, key, authority
	now      func() time.Time
	onReload func(error)

	mu      sync.Mutex
	current *material
	seen    [3]os.FileInfo // what was on disk when it was last read, well or badly
}

// material is one consistent set of what the files hold. It never changes.
type material struct {
	certificate tls.Certificate
	identity    Identity
	roots       *x509.CertPool
}

// Load reads a certificate (with intermediates after it, if any), its key and the certificates of the authority. It
// fails if they don't belong together, don't verify now, or name no identity.
func Load(certFile, keyFile, caFile string) (*Credentials, error) {
	return load(certFile, keyFile, caFile, time.Now)
}

func load(certFile, keyFile, caFile string, now func() time.Time) (*Credentials, error) {
	c := &Credentials{files: [3]string{certFile, keyFile, caFile}, now: now, onReload: func(error) {}}
	seen, err := c.look()
	if err != nil {
		return nil, err
	}
	c.seen = seen
	if c.current, err = c.read(); err != nil {
		return nil, err
	}
	return c, nil
}

// OnReload sets what is told of each reload: nil after a good one, or why the files were refused and the ones before are
// still in use. It must be set before the credentials are used, and must not call them.
func (c *Credentials) OnReload(f func(error)) { c.onReload = f }

// Identity returns who the certificate in use says that this process is.
func (c *Credentials) Identity() Identity { return c.get().identity }

// NotAfter returns when the certificate in use expires.
func (c *Credentials) NotAfter() time.Time { return c.get().certificate.Leaf.NotAfter }

// get returns what is on disk now, or what was there last and was good.
func (c *Credentials) get() *material {
	c.mu.Lock()
	defer c.mu.Unlock()
	// The files are looked at before they are read, so that one that is replaced in between is seen as new next time.
	seen, err := c.look()
	if err != nil || same(seen[:], c.seen[:]) {
		// A file that is missing is being replaced, or was removed: either way there is nothing better to use.
		return c.current
	}
	c.seen = seen
	next, err := c.read()
	if err == nil {
		c.current = next
	}
	c.onReload(err)
	return c.current
}

func (c *Credentials) look() (seen [3]os.FileInfo, err error) {
	for i, file := range c.files {
		if seen[i], err = os.Stat(file); err != nil {
			return seen, fmt.Errorf("pki: %w", err)
		}
	}
	return seen, nil
}

func same(a, b []os.FileInfo) bool {
	for i := range a {
		if !os.SameFile(a[i], b[i]) || !a[i].ModTime().Equal(b[i].ModTime()) || a[i].Size() != b[i].Size() {
			return false
		}
	}
	return true
}

func (c *Credentials) read() (*material, error) {
	certificates, err := readCertificates(c.files[0])
	if err != nil {
		return nil, err
	}
	key, err := readKey(c.files[1])
	if err != nil {
		return nil, err
	}
	authorities, err := readCertificates(c.files[2])
	if err != nil {
		return nil, err
	}
	m := &material{roots: x509.NewCertPool()}
	for _, authority := range authorities {
		m.roots.AddCert(authority)
	}
	leaf := certificates[0]
	if public, ok := leaf.PublicKey.(interface{ Equal(crypto.PublicKey) bool }); !ok || !public.Equal(key.Public()) {
		return nil, fmt.Errorf("pki: the key in %s does not belong to the certificate in %s", c.files[1], c.files[0])
	}
	m.certificate = tls.Certificate{PrivateKey: key, Leaf: leaf}
	for _, certificate := range certificates {
		m.certificate.Certificate = append(m.certificate.Certificate, certificate.Raw)
	}
	if m.identity, err = m.verify(certificates, c.now(), x509.ExtKeyUsageAny); err != nil {
		return nil, fmt.Errorf("%s: %w", c.files[0], err)
	}
	return m, nil
}

// verify checks a chain against the authority and returns the identity of its leaf.
func (m *material) verify(chain []*x509.Certificate, now time.Time, usage x509.ExtKeyUsage) (Identity, error) {
	if len(chain) == 0 {
		return Identity{}, errors.New("pki: the peer showed no certificate")
	}
	options := x509.VerifyOptions{
		Roots: m.roots, Intermediates: x509.NewCertPool(), CurrentTime: now, KeyUsages: []x509.ExtKeyUsage{usage},
	}
	for _, certificate := range chain[1:] {
		options.Intermediates.AddCert(certificate)
	}
	if _, err := chain[0].Verify(options); err != nil {
		return Identity{}, fmt.Errorf("pki: %w", err)
	}
	return IdentityOf(chain[0])
}

// ServerTLS is for listeners of the public APIs: the caller shows a certificate of this site, of a person or a member.
func (c *Credentials) ServerTLS() *tls.Config {
	return c.server(func(Identity) error { return nil })
}

// MemberServerTLS is for the raft listener: the caller is another member of this site.
func (c *Credentials) MemberServerTLS() *tls.Config {
	return c.server(mustBeMember)
}

// ClientTLS is for clients of the public APIs: the server's certificate is good for the host name that was dialled, as
// usual, and it is that of a member of this site. The authority is the one at the time of this call, so a client that
// lives long asks for a configuration with each connection.
func (c *Credentials) ClientTLS() *tls.Config {
	config := c.base()
	config.RootCAs = c.get().roots
	config.VerifyConnection = func(state tls.ConnectionState) error {
		return c.verifyPeer(state, x509.ExtKeyUsageServerAuth, mustBeMember)
	}
	return config
}

// MemberClientTLS is for a member that dials another: the peer shows the certificate of that member of this site, under
// whatever address it was reached. An empty id accepts any member, for the first contact with an address.
func (c *Credentials) MemberClientTLS(expectMember string) *tls.Config {
	config := c.base()
	// The host name doesn't matter here and the authority may change, so VerifyConnection does all of the verifying.
	config.InsecureSkipVerify = true
	config.VerifyConnection = func(state tls.ConnectionState) error {
		return c.verifyPeer(state, x509.ExtKeyUsageServerAuth, func(peer Identity) error {
			if err := mustBeMember(peer); err != nil {
				return err
			}
			if expectMember != "" && peer.Name != expectMember {
				return fmt.Errorf("pki: the peer is member %q, not %q", peer.Name, expectMember)
			}
			return nil
		})
	}
	return config
}

func (c *Credentials) server(allow func(Identity) error) *tls.Config {
	config := c.base()
	// The authority may change, so VerifyConnection does all of the verifying.
	config.ClientAuth = tls.RequireAnyClientCert
	config.VerifyConnection = func(state tls.ConnectionState) error {
		return c.verifyPeer(state, x509.ExtKeyUsageClientAuth, allow)
	}
	return config
}

func (c *Credentials) base() *tls.Config {
	return &tls.Config{
		MinVersion:             tls.VersionTLS13,
		SessionTicketsDisabled: true,
		Time:                   c.now,
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
			return &c.get().certificate, nil
		},
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			return &c.get().certificate, nil
		},
	}
}

func (c *Credentials) verifyPeer(state tls.ConnectionState, usage x509.ExtKeyUsage, allow func(Identity) error) error {
	m := c.get()
	peer, err := m.verify(slices.Clone(state.PeerCertificates), c.now(), usage)
	if err != nil {
		return err
	}
	if peer.Site != m.identity.Site {
		return fmt.Errorf("pki: the peer is of site %q, not %q", peer.Site, m.identity.Site)
	}
	return allow(peer)
}

func mustBeMember(peer Identity) error {
	if !peer.Member {
		return fmt.Errorf("pki: the peer is not a member, but %s %q", peer.Role, peer.Name)
	}
	return nil
}
