package pki

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"path/filepath"
	"strings"
	"time"
)

// The files of the OPC UA application instance certificate, within a member's directory.
const (
	applicationDir      = "own"
	applicationCertFile = "application.der"
	applicationKeyFile  = "application.key"
	applicationKeyBits  = 2048
	// maxApplicationURIBytes bounds the ApplicationUri, which clients compare byte for byte.
	maxApplicationURIBytes = 1024
)

// EnsureApplicationCertificate returns the OPC UA application instance certificate in dir/own and makes it if there is
// none: self-signed, RSA 2048 with SHA-256, with the ApplicationUri and the hosts as alternative names and the key usages
// of OPC UA Part 6 §6.2.2. One that is there is never replaced, because clients trust it by its thumbprint; if it has
// expired, or is for another ApplicationUri, the error says which file to move away. Other hosts than it was made for
// are not an error.
func EnsureApplicationCertificate(dir, applicationURI string, hosts []string, now time.Time) (certDER []byte, key *rsa.PrivateKey, err error) {
	uri, err := parseApplicationURI(applicationURI)
	if err != nil {
		return nil, nil, err
	}
	certFile := filepath.Join(dir, applicationDir, applicationCertFile)
	key, err = ensureRSAKey(filepath.Join(dir, applicationDir, applicationKeyFile), applicationKeyBits)
	if err != nil {
		return nil, nil, err
	}
	certDER, err = readFile(certFile)
	if errors.Is(err, fs.ErrNotExist) {
		// The key is on disk before the certificate, so whatever stopped the last attempt, this one goes on from there.
		certDER, err = makeApplicationCertificate(certFile, uri, hosts, now, key)
	}
	if err != nil {
		return nil, nil, err
	}
	if err := checkApplicationCertificate(certDER, applicationURI, now, key); err != nil {
		return nil, nil, fmt.Errorf("pki: %s: %w; move it away to have a new one made, which clients must trust again", certFile, err)
	}
	return certDER, key, nil
}

func parseApplicationURI(text string) (*url.URL, error) {
	uri, err := url.Parse(text)
	// RFC 3986 §2 has no blanks, control characters or anything beyond ASCII in a URI.
	strange := strings.ContainsFunc(text, func(r rune) bool { return r <= ' ' || r >= 0x7f })
	if err != nil || strange || uri.Scheme == "" || len(text) > maxApplicationURIBytes || uri.String() != text {
		return nil, fmt.Errorf("pki: application URI: %q is not a URI of at most %d bytes, such as urn:plant:line-a:m1", text, maxApplicationURIBytes)
	}
	return uri, nil
}

// ReadRSAKey returns the RSA key of a PKCS #8 PEM file. No error of it repeats the content.
func ReadRSAKey(file string) (*rsa.PrivateKey, error) {
	signer, err := readKey(file)
	if err != nil {
		return nil, err
	}
	key, ok := signer.(*rsa.PrivateKey)
	if !ok {
		return nil, fmt.Errorf("pki: %s holds no RSA key", file)
	}
	return key, nil
}

func ensureRSAKey(file string, bits int) (*rsa.PrivateKey, error) {
	key, err := ReadRSAKey(file)
	if errors.Is(err, fs.ErrNotExist) {
		made, makeErr := rsa.GenerateKey(rand.Reader, bits)
		if makeErr != nil {
			return nil, fmt.Errorf("pki: make the application's key: %w", makeErr)
		}
		return made, writeKey(file, made)
	}
	return key, err
}

func makeApplicationCertificate(file string, uri *url.URL, hosts []string, now time.Time, key *rsa.PrivateKey) ([]byte, error) {
	template, err := applicationTemplate("Quorate", uri, hosts, now)
	if err != nil {
		return nil, err
	}
	template.NotAfter = now.Add(ApplicationValidity)
	// It is its own issuer, so Part 6 §6.2.2 asks for keyCertSign too.
	template.KeyUsage |= x509.KeyUsageCertSign
	template.SubjectKeyId, err = keyID(key)
	if err != nil {
		return nil, err
	}
	template.AuthorityKeyId = template.SubjectKeyId
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, fmt.Errorf("pki: sign the application's certificate: %w", err)
	}
	return der, writeNew(file, certificateMode, der)
}

func checkApplicationCertificate(der []byte, applicationURI string, now time.Time, key *rsa.PrivateKey) error {
	certificate, err := x509.ParseCertificate(der)
	if err != nil {
		return err
	}
	switch public, ok := certificate.PublicKey.(*rsa.PublicKey); {
	case !ok || !public.Equal(key.Public()):
		return errors.New("the key beside it is not its own")
	case len(certificate.URIs) != 1 || certificate.URIs[0].String() != applicationURI:
		return fmt.Errorf("it is for application URI %v, not %q", certificate.URIs, applicationURI)
	case now.After(certificate.NotAfter):
		return fmt.Errorf("it expired on %s", certificate.NotAfter.Format(time.DateOnly))
	case now.Before(certificate.NotBefore):
		return fmt.Errorf("it is not valid before %s: is the clock right?", certificate.NotBefore.Format(time.RFC3339))
	}
	return nil
}

// keyID follows RFC 7093 §2: the leftmost 160 bits of the SHA-256 hash of the public key.
func keyID(key *rsa.PrivateKey) ([]byte, error) {
	der, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		return nil, fmt.Errorf("pki: encode the public key: %w", err)
	}
	sum := sha256.Sum256(der)
	return sum[:20], nil
}
