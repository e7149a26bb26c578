package certstore

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"math/big"
	"net/url"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// now is when all tests take place.
var now = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// keys are made once: RSA keys take long.
var keys = [3]func() *rsa.PrivateKey{}

func init() {
	for i := range keys {
		keys[i] = sync.OnceValue(func() *rsa.PrivateKey {
			key, err := rsa.GenerateKey(rand.Reader, 2048)
			if err != nil {
				panic(err)
			}
			return key
		})
	}
}

// party is a certificate and its key.
type party struct {
	*x509.Certificate
	key crypto.Signer
}

var serial int64

// make makes a certificate: of issuer, or self-signed where that is nil.
func make509(t testing.TB, name string, issuer *party, key crypto.Signer, change ...func(*x509.Certificate)) party {
	t.Helper()
	serial++
	c := &x509.Certificate{
		SerialNumber: big.NewInt(serial), Subject: pkix.Name{CommonName: name},
		NotBefore: now.Add(-time.Hour), NotAfter: now.Add(time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageKeyEncipherment | x509.KeyUsageDataEncipherment | x509.KeyUsageContentCommitment,
		URIs:     []*url.URL{{Scheme: "urn", Opaque: "demo:" + name}}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
		BasicConstraintsValid: true,
	}
	for _, f := range change {
		f(c)
	}
	by := issuer
	if by == nil {
		by = &party{c, key}
	}
	der, err := x509.CreateCertificate(rand.Reader, c, by.Certificate, key.Public(), by.key)
	if err != nil {
		t.Fatal(err)
	}
	made, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return party{made, key}
}

func authority(c *x509.Certificate) {
	c.IsCA, c.ExtKeyUsage, c.URIs = true, nil, nil
	c.KeyUsage = x509.KeyUsageCertSign | x509.KeyUsageCRLSign
}

func expired(c *x509.Certificate) { c.NotAfter = now.Add(-time.Minute) }

func smallKey(t testing.TB) crypto.Signer {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// crl makes a list of an authority that revokes certificates.
func crl(t testing.TB, by party, until time.Time, revoked ...party) []byte {
	t.Helper()
	list := &x509.RevocationList{Number: big.NewInt(1), ThisUpdate: now.Add(-2 * time.Hour), NextUpdate: until}
	for _, p := range revoked {
		list.RevokedCertificateEntries = append(list.RevokedCertificateEntries, x509.RevocationListEntry{SerialNumber: p.SerialNumber, RevocationTime: now})
	}
	der, err := x509.CreateRevocationList(rand.Reader, list, by.Certificate, by.key)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

// opened is a store in a directory of its own, whose clock the test sets.
type opened struct {
	*Store
	dir string
	now time.Time
}

func open(t testing.TB, o Options) *opened {
	t.Helper()
	s := &opened{dir: t.TempDir(), now: now}
	o.Now = func() time.Time { return s.now }
	var err error
	if s.Store, err = Open(s.dir, o); err != nil {
		t.Fatal(err)
	}
	return s
}

func (s *opened) put(t testing.TB, folder, name string, content []byte) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(s.dir, folder, name), content, 0o600); err != nil {
		t.Fatal(err)
	}
}

func (s *opened) files(t testing.TB, folder string) (names []string) {
	t.Helper()
	entries, err := os.ReadDir(filepath.Join(s.dir, folder))
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}
