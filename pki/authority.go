package pki

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"time"
)

// The files of an authority, within its directory. Members' certificates are in members/, people's in people/, each as
// NAME.pem with its key beside it as NAME.key.
const (
	AuthorityFile    = "ca.pem"
	authorityKeyFile = "ca.key"
	membersDir       = "members"
	peopleDir        = "people"
)

// Init makes the development authority of a site in dir: an ECDSA P-256 key and a self-signed certificate that can sign
// leaves only (path length 0). It refuses to touch an authority that is there.
func Init(dir, site string) error {
	return initAt(dir, site, time.Now())
}

func initAt(dir, site string, now time.Time) error {
	if !validSite(site) {
		return fmt.Errorf("pki: site: %q is not a name of lower-case labels, at most %d bytes", site, maxSiteBytes)
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return fmt.Errorf("pki: make the authority's key: %w", err)
	}
	template := &x509.Certificate{
		Subject:               pkix.Name{CommonName: "Quorate development authority of " + site},
		URIs:                  []*url.URL{{Scheme: "spiffe", Host: site}},
		NotBefore:             now.Add(-Backdating),
		NotAfter:              now.Add(AuthorityValidity),
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
		BasicConstraintsValid: true,
		IsCA:                  true,
		MaxPathLenZero:        true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return fmt.Errorf("pki: sign the authority's certificate: %w", err)
	}
	return writePair(filepath.Join(dir, AuthorityFile), filepath.Join(dir, authorityKeyFile), der, key)
}

// IssueRequest says what certificate to issue. Exactly one of Member and Person is set.
type IssueRequest struct {
	// Member is the id of a member.
	Member string
	// Hosts are the DNS names and IP addresses under which a member is reached, at most MaxHosts.
	Hosts []string
	// Person is the name of a person.
	Person string
	// Role is what the person may do; a member has none.
	Role Role
	// Validity is how long it lasts: 0 means DefaultValidity. It never outlasts the authority.
	Validity time.Duration
	// Now is when it begins to be valid (less Backdating): zero means the present.
	Now time.Time
}

// Issue signs a certificate with the authority in dir and returns the files that it wrote, which must not exist yet.
func Issue(dir string, request IssueRequest) (certFile, keyFile string, err error) {
	if err := request.check(); err != nil {
		return "", "", err
	}
	authority, signer, err := openAuthority(dir)
	if err != nil {
		return "", "", err
	}
	template, err := request.template(authority)
	if err != nil {
		return "", "", err
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return "", "", fmt.Errorf("pki: make a key: %w", err)
	}
	der, err := x509.CreateCertificate(rand.Reader, template, authority, key.Public(), signer)
	if err != nil {
		return "", "", fmt.Errorf("pki: sign: %w", err)
	}
	base := filepath.Join(dir, peopleDir, request.Person)
	if request.Member != "" {
		base = filepath.Join(dir, membersDir, request.Member)
	}
	certFile, keyFile = base+".pem", base+".key"
	return certFile, keyFile, writePair(certFile, keyFile, der, key)
}

func (r *IssueRequest) check() error {
	switch {
	case r.Member == "" && r.Person == "":
		return errors.New("pki: one of member and person is needed")
	case r.Member != "" && r.Person != "":
		return errors.New("pki: member and person exclude each other")
	case r.Member != "" && !memberForm.MatchString(r.Member):
		return fmt.Errorf("pki: member: %q does not match %s", r.Member, memberForm)
	case r.Member != "" && r.Role != RoleNone:
		return errors.New("pki: role: a member has no role")
	case r.Person != "" && !personForm.MatchString(r.Person):
		return fmt.Errorf("pki: person: %q does not match %s", r.Person, personForm)
	case r.Person != "" && (r.Role < RoleViewer || r.Role > RoleAdministrator):
		return errors.New("pki: role: a person is viewer, operator or administrator")
	case r.Person != "" && len(r.Hosts) > 0:
		return errors.New("pki: hosts: a person has none")
	case r.Validity != 0 && r.Validity < MinValidity:
		return fmt.Errorf("pki: validity: %s is below %s", r.Validity, MinValidity)
	}
	return nil
}

func (r *IssueRequest) template(authority *x509.Certificate) (*x509.Certificate, error) {
	now, validity := r.Now, r.Validity
	if now.IsZero() {
		now = time.Now()
	}
	if validity == 0 {
		validity = DefaultValidity
	}
	end := now.Add(validity)
	if end.After(authority.NotAfter) {
		end = authority.NotAfter
	}
	if !now.Before(authority.NotAfter) {
		return nil, fmt.Errorf("pki: the authority expired on %s", authority.NotAfter.Format(time.DateOnly))
	}
	identity := Identity{Site: authority.URIs[0].Host, Name: r.Person, Role: r.Role}
	usages := []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
	if r.Member != "" {
		identity.Name, identity.Member = r.Member, true
		usages = append(usages, x509.ExtKeyUsageServerAuth)
	}
	names, addresses, err := splitHosts(r.Hosts)
	if err != nil {
		return nil, err
	}
	return &x509.Certificate{
		Subject:               pkix.Name{CommonName: identity.Name},
		URIs:                  []*url.URL{identity.URI()},
		DNSNames:              names,
		IPAddresses:           addresses,
		NotBefore:             now.Add(-Backdating),
		NotAfter:              end,
		KeyUsage:              x509.KeyUsageDigitalSignature,
		ExtKeyUsage:           usages,
		BasicConstraintsValid: true,
	}, nil
}

var hostForm = regexp.MustCompile(`^(?i:[a-z0-9]([a-z0-9_-]{0,61}[a-z0-9])?)(\.(?i:[a-z0-9]([a-z0-9_-]{0,61}[a-z0-9])?))*$`)

// maxHostBytes is the most that DNS allows a name.
const maxHostBytes = 253

func splitHosts(hosts []string) (names []string, addresses []net.IP, err error) {
	if len(hosts) > MaxHosts {
		return nil, nil, fmt.Errorf("pki: hosts: %d are more than %d", len(hosts), MaxHosts)
	}
	for i, host := range hosts {
		if ip := net.ParseIP(host); ip != nil {
			addresses = append(addresses, ip)
			continue
		}
		if len(host) > maxHostBytes || !hostForm.MatchString(host) {
			return nil, nil, fmt.Errorf("pki: hosts[%d]: %q is neither a DNS name nor an IP address", i, host)
		}
		names = append(names, host)
	}
	return names, addresses, nil
}

func openAuthority(dir string) (*x509.Certificate, crypto.Signer, error) {
	certificates, err := readCertificates(filepath.Join(dir, AuthorityFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil, fmt.Errorf("pki: no authority in %s: make one with `quorate pki init`: %w", dir, err)
	}
	if err != nil {
		return nil, nil, err
	}
	authority := certificates[0]
	if !authority.IsCA || len(authority.URIs) != 1 || !validSite(authority.URIs[0].Host) {
		return nil, nil, fmt.Errorf("pki: %s is not the authority of a site", filepath.Join(dir, AuthorityFile))
	}
	key, err := readKey(filepath.Join(dir, authorityKeyFile))
	if err != nil {
		return nil, nil, err
	}
	if public, ok := authority.PublicKey.(*ecdsa.PublicKey); !ok || !public.Equal(key.Public()) {
		return nil, nil, fmt.Errorf("pki: the key in %s is not the authority's", dir)
	}
	return authority, key, nil
}

// Listed is one certificate of an authority's directory.
type Listed struct {
	// File is the path of the certificate.
	File string
	// Identity is whose it is; for the authority only Site is set.
	Identity Identity
	// Authority says that it is an authority's own.
	Authority bool
	// Application says that it is an OPC UA application's, or the authority of these; then Identity has Site and Name only.
	Application bool
	// ApplicationURI is an application's.
	ApplicationURI string
	// Hosts are its DNS names and IP addresses.
	Hosts []string
	// Serial is its serial number in hex.
	Serial              string
	NotBefore, NotAfter time.Time
}

// List returns the certificates in an authority's directory: the authority, then members, then people, each by name, and then
// the authority for OPC UA applications and these.
func List(dir string) ([]Listed, error) {
	authority, _, err := openAuthority(dir)
	if err != nil {
		return nil, err
	}
	site := authority.URIs[0].Host
	files := []string{filepath.Join(dir, AuthorityFile)}
	for _, sub := range []string{membersDir, peopleDir, applicationsDir} {
		if file := filepath.Join(dir, ApplicationAuthorityFile); sub == applicationsDir && exists(file) {
			files = append(files, file)
		}
		entries, err := os.ReadDir(filepath.Join(dir, sub))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("pki: list: %w", err)
		}
		for _, entry := range entries {
			if !strings.HasSuffix(entry.Name(), ".pem") {
				continue
			}
			if len(files) >= MaxListed {
				return nil, fmt.Errorf("pki: %s holds more than %d certificates", dir, MaxListed)
			}
			files = append(files, filepath.Join(dir, sub, entry.Name()))
		}
	}
	listed := make([]Listed, 0, len(files))
	for _, file := range files {
		item, err := listedFrom(file, site)
		if err != nil {
			return nil, err
		}
		listed = append(listed, item)
	}
	return listed, nil
}

func exists(file string) bool {
	_, err := os.Lstat(file)
	return err == nil
}

func listedFrom(file, site string) (Listed, error) {
	certificates, err := readCertificates(file)
	if err != nil {
		return Listed{}, err
	}
	leaf := certificates[0]
	item := Listed{
		File: file, Identity: Identity{Site: site}, Authority: leaf.IsCA, Hosts: append([]string(nil), leaf.DNSNames...),
		Serial: leaf.SerialNumber.Text(16), NotBefore: leaf.NotBefore, NotAfter: leaf.NotAfter,
	}
	for _, ip := range leaf.IPAddresses {
		item.Hosts = append(item.Hosts, ip.String())
	}
	switch {
	case filepath.Base(file) == ApplicationAuthorityFile:
		item.Application = true
	case filepath.Base(filepath.Dir(file)) == applicationsDir:
		item.Application, item.Identity.Name = true, strings.TrimSuffix(filepath.Base(file), ".pem")
		if len(leaf.URIs) > 0 {
			item.ApplicationURI = leaf.URIs[0].String()
		}
	case !item.Authority:
		if item.Identity, err = IdentityOf(leaf); err != nil {
			return Listed{}, fmt.Errorf("%s: %w", file, err)
		}
	}
	return item, nil
}
