package pki

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"net/url"
	"os"
	"path/filepath"
	"sync"
	"time"
)

// The files of the authority for OPC UA applications, within the directory of the site's. It is made with the first
// application certificate. Applications' certificates are in applications/, each as NAME.pem with its key beside it as NAME.key.
const (
	ApplicationAuthorityFile   = "opcua-ca.pem"
	ApplicationRevocationFile  = "opcua-ca.crl"
	applicationAuthorityKey    = "opcua-ca.key"
	applicationsDir            = "applications"
	applicationAuthorityBits   = 3072
	applicationAuthorityPrefix = "Quorate OPC UA authority of "
)

// ApplicationURI is the ApplicationUri of a member unless its settings give another.
func ApplicationURI(site, member string) string { return "urn:quorate:" + site + ":" + member }

// ApplicationRequest says what application certificate to issue.
type ApplicationRequest struct {
	// Member is the id of the member, which names the files.
	Member string
	// ApplicationURI is that of the member's settings; empty means ApplicationURI of site and member.
	ApplicationURI string
	// Hosts are the DNS names and IP addresses under which the endpoint is reached, 1 to MaxHosts.
	Hosts []string
	// Validity is how long it lasts: 0 means DefaultValidity. It never outlasts the authority.
	Validity time.Duration
	// Now is when it begins to be valid (less Backdating): zero means the present.
	Now time.Time
}

// IssueApplication signs an OPC UA application instance certificate and returns the files that it wrote, which must not exist yet.
//
// An authority of its own signs them, with an RSA key: the site's has an elliptic one, and the security policies with RSA
// want RSA signatures on certificates too (Part 7, CertificateSignatureAlgorithm), so other stacks may refuse such a chain.
// Whoever trusts this authority trusts the OPC UA applications of all members, and can't be reached by the certificates of people.
func IssueApplication(dir string, r ApplicationRequest) (certFile, keyFile string, err error) {
	site, _, err := openAuthority(dir)
	if err != nil {
		return "", "", err
	}
	if !memberForm.MatchString(r.Member) {
		return "", "", fmt.Errorf("pki: member: %q does not match %s", r.Member, memberForm)
	}
	if r.ApplicationURI == "" {
		r.ApplicationURI = ApplicationURI(site.URIs[0].Host, r.Member)
	}
	uri, err := parseApplicationURI(r.ApplicationURI)
	if err != nil {
		return "", "", err
	}
	if r.Validity != 0 && r.Validity < MinValidity {
		return "", "", fmt.Errorf("pki: validity: %s is below %s", r.Validity, MinValidity)
	}
	now := r.Now
	if now.IsZero() {
		now = time.Now()
	}
	template, err := applicationTemplate("Quorate "+r.Member, uri, r.Hosts, now)
	if err != nil {
		return "", "", err
	}
	authority, signer, err := ensureApplicationAuthority(dir, site.URIs[0].Host, now)
	if err != nil {
		return "", "", err
	}
	if !now.Before(authority.NotAfter) {
		return "", "", fmt.Errorf("pki: the authority for applications expired on %s", authority.NotAfter.Format(time.DateOnly))
	}
	validity := r.Validity
	if validity == 0 {
		validity = DefaultValidity
	}
	if template.NotAfter = now.Add(validity); template.NotAfter.After(authority.NotAfter) {
		template.NotAfter = authority.NotAfter
	}
	key, err := rsa.GenerateKey(rand.Reader, applicationKeyBits)
	if err != nil {
		return "", "", fmt.Errorf("pki: make a key: %w", err)
	}
	if template.SubjectKeyId, err = keyID(key); err != nil {
		return "", "", err
	}
	der, err := x509.CreateCertificate(rand.Reader, template, authority, key.Public(), signer)
	if err != nil {
		return "", "", fmt.Errorf("pki: sign: %w", err)
	}
	base := filepath.Join(dir, applicationsDir, r.Member)
	certFile, keyFile = base+".pem", base+".key"
	return certFile, keyFile, writePair(certFile, keyFile, der, key)
}

// ensureApplicationAuthority returns the authority for applications, and makes what is missing of it: the key first, so that
// whatever stopped the last attempt, this one goes on from there. Its empty revocation list is for clients that want one.
func ensureApplicationAuthority(dir, site string, now time.Time) (*x509.Certificate, *rsa.PrivateKey, error) {
	file := filepath.Join(dir, ApplicationAuthorityFile)
	key, err := ensureRSAKey(filepath.Join(dir, applicationAuthorityKey), applicationAuthorityBits)
	if err != nil {
		return nil, nil, err
	}
	if _, err := os.Lstat(file); errors.Is(err, fs.ErrNotExist) {
		if err := makeApplicationAuthority(file, site, now, key); err != nil {
			return nil, nil, err
		}
	}
	certificates, err := readCertificates(file)
	if err != nil {
		return nil, nil, err
	}
	authority := certificates[0]
	if public, ok := authority.PublicKey.(*rsa.PublicKey); !ok || !public.Equal(key.Public()) || !authority.IsCA {
		return nil, nil, fmt.Errorf("pki: %s is not the authority whose key is beside it", file)
	}
	list := filepath.Join(dir, ApplicationRevocationFile)
	if _, err := os.Lstat(list); errors.Is(err, fs.ErrNotExist) {
		der, err := x509.CreateRevocationList(rand.Reader, &x509.RevocationList{
			Number: big.NewInt(1), ThisUpdate: now.Add(-Backdating), NextUpdate: authority.NotAfter,
		}, authority, key)
		if err != nil {
			return nil, nil, fmt.Errorf("pki: sign the revocation list: %w", err)
		}
		if err := writeNew(list, certificateMode, der); err != nil {
			return nil, nil, err
		}
	}
	return authority, key, nil
}

func makeApplicationAuthority(file, site string, now time.Time, key *rsa.PrivateKey) error {
	id, err := keyID(key)
	if err != nil {
		return err
	}
	template := &x509.Certificate{
		Subject:               pkix.Name{CommonName: applicationAuthorityPrefix + site, Organization: []string{"Quorate"}}, //nolint:misspell // the field of pkix has this spelling
		NotBefore:             now.Add(-Backdating),
		NotAfter:              now.Add(AuthorityValidity),
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
		BasicConstraintsValid: true,
		IsCA:                  true,
		MaxPathLenZero:        true,
		SubjectKeyId:          id,
		AuthorityKeyId:        id,
		SignatureAlgorithm:    x509.SHA256WithRSA,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return fmt.Errorf("pki: sign the authority for applications: %w", err)
	}
	return writeNew(file, certificateMode, encodeCertificate(der))
}

// applicationTemplate has what Part 6 §6.2.2 asks of an application instance certificate.
func applicationTemplate(name string, uri *url.URL, hosts []string, now time.Time) (*x509.Certificate, error) {
	names, addresses, err := splitHosts(hosts)
	if err != nil {
		return nil, err
	}
	if len(hosts) == 0 {
		return nil, errors.New("pki: hosts: a server's certificate names at least one (OPC UA Part 6 §6.2.2)")
	}
	return &x509.Certificate{
		Subject:     pkix.Name{CommonName: name, Organization: []string{"Quorate"}}, //nolint:misspell // the field of pkix has this spelling
		URIs:        []*url.URL{uri},
		DNSNames:    names,
		IPAddresses: addresses,
		NotBefore:   now.Add(-Backdating),
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageContentCommitment | x509.KeyUsageKeyEncipherment |
			x509.KeyUsageDataEncipherment,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		BasicConstraintsValid: true,
		SignatureAlgorithm:    x509.SHA256WithRSA,
	}, nil
}

// Application is an OPC UA application instance certificate in files that may be replaced while it is used: as with
// Credentials, they are looked at each time, and what is not good is refused.
type Application struct {
	files    [2]string // certificate, key
	uri      string
	now      func() time.Time
	onReload func(error)

	mu    sync.Mutex
	seen  [2]os.FileInfo
	chain []byte
	key   *rsa.PrivateKey
}

// LoadApplication reads a certificate (PEM, with its issuers after it, if any) and its key. It fails if they don't belong
// together, are not valid now, or are for another ApplicationUri.
func LoadApplication(certFile, keyFile, applicationURI string) (*Application, error) {
	return loadApplication(certFile, keyFile, applicationURI, time.Now)
}

func loadApplication(certFile, keyFile, applicationURI string, now func() time.Time) (*Application, error) {
	a := &Application{files: [2]string{certFile, keyFile}, uri: applicationURI, now: now, onReload: func(error) {}}
	if err := a.look(&a.seen); err != nil {
		return nil, err
	}
	var err error
	a.chain, a.key, err = a.read()
	return a, err
}

// OnReload sets what is told of each reload, as that of Credentials.
func (a *Application) OnReload(f func(error)) { a.onReload = f }

// Certificate returns the chain in DER, leaf first, and the key.
func (a *Application) Certificate() (chain []byte, key *rsa.PrivateKey) {
	a.mu.Lock()
	defer a.mu.Unlock()
	var seen [2]os.FileInfo
	if a.look(&seen) != nil || same(seen[:], a.seen[:]) {
		return a.chain, a.key
	}
	a.seen = seen
	chain, key, err := a.read()
	if err == nil {
		a.chain, a.key = chain, key
	}
	a.onReload(err)
	return a.chain, a.key
}

func (a *Application) look(seen *[2]os.FileInfo) (err error) {
	for i, file := range a.files {
		if seen[i], err = os.Stat(file); err != nil {
			return fmt.Errorf("pki: %w", err)
		}
	}
	return nil
}

func (a *Application) read() ([]byte, *rsa.PrivateKey, error) {
	certificates, err := readCertificates(a.files[0])
	if err != nil {
		return nil, nil, err
	}
	key, err := ReadRSAKey(a.files[1])
	if err != nil {
		return nil, nil, err
	}
	if err := checkApplicationCertificate(certificates[0].Raw, a.uri, a.now(), key); err != nil {
		return nil, nil, fmt.Errorf("pki: %s: %w", a.files[0], err)
	}
	var chain []byte
	for _, c := range certificates {
		chain = append(chain, c.Raw...)
	}
	return chain, key, nil
}
