package interop

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"math/big"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"
)

// identity is the certificate of an application or of a person, in a PKI folder as node-opcua has them.
type identity struct {
	uri  string
	der  []byte
	key  *rsa.PrivateKey
	pki  string
	cert string // file
	pem  string // file of the key
}

func newKey(t *testing.T, bits int) *rsa.PrivateKey {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, bits)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// newIdentity makes a self-signed certificate that a member would take once it is trusted, unless change makes it another.
func newIdentity(t *testing.T, uri string, key *rsa.PrivateKey, change func(*x509.Certificate)) identity {
	t.Helper()
	parsed, err := url.Parse(uri)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: uri}, URIs: []*url.URL{parsed}, DNSNames: []string{"localhost"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(365 * 24 * time.Hour),
		KeyUsage:    x509.KeyUsageDigitalSignature | x509.KeyUsageContentCommitment | x509.KeyUsageKeyEncipherment | x509.KeyUsageDataEncipherment | x509.KeyUsageCertSign,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}, BasicConstraintsValid: true, SignatureAlgorithm: x509.SHA256WithRSA,
	}
	if change != nil {
		change(template)
	}
	i := identity{uri: uri, key: key, pki: filepath.Join(t.TempDir(), "pki")}
	if i.der, err = x509.CreateCertificate(rand.Reader, template, template, key.Public(), key); err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	i.cert, i.pem = filepath.Join(i.pki, "own", "certs", "client_certificate.pem"), filepath.Join(i.pki, "own", "private", "private_key.pem")
	writePEM(t, i.cert, "CERTIFICATE", i.der)
	writePEM(t, i.pem, "PRIVATE KEY", private)
	return i
}

func writePEM(t *testing.T, file, kind string, content []byte) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: content}), 0o600); err != nil {
		t.Fatal(err)
	}
}

// administrator works at a member's data directory, with the command that operators use.
type administrator struct{ binary, dataDir string }

func (a administrator) quorate(t *testing.T, arguments ...string) []byte {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), a.binary, append(arguments, "--data-dir", a.dataDir)...).Output()
	if err != nil {
		t.Fatalf("%v: %v", arguments, err)
	}
	return out
}

// trust has the member trust applications, by their files or fingerprints.
func (a administrator) trust(t *testing.T, what ...string) {
	t.Helper()
	a.quorate(t, append([]string{"pki", "trust"}, what...)...)
}

// state is where the member has a certificate: trusted, rejected, or empty.
func (a administrator) state(t *testing.T, fingerprint string) string {
	t.Helper()
	var list struct {
		Certificates []struct{ State, Fingerprint string }
	}
	if err := json.Unmarshal(a.quorate(t, "pki", "list", "-o", "json"), &list); err != nil {
		t.Fatal(err)
	}
	for _, c := range list.Certificates {
		if c.Fingerprint == fingerprint {
			return c.State
		}
	}
	return ""
}

// addUser lets somebody log in by password.
func (a administrator) addUser(t *testing.T, name, role, password string) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "password")
	if err := os.WriteFile(file, []byte(password), 0o600); err != nil {
		t.Fatal(err)
	}
	a.quorate(t, "pki", "user", "add", name, "--role", role, "--password-file", file)
}

// addPerson lets somebody log in by certificate.
func (a administrator) addPerson(t *testing.T, name, role string, person identity) {
	t.Helper()
	a.quorate(t, "pki", "user", "add", name, "--role", role, "--certificate", person.cert)
}
