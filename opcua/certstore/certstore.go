// Package certstore decides which certificates of OPC UA applications, or of their users, are believed: by folders that
// administrators know from other OPC UA servers, and in the order of Part 4 §6.1.3.
//
//	trusted/certs   certificates that are trusted: of applications, or of authorities and so all that they issue
//	trusted/crl     revocation lists of these authorities
//	issuers/certs   authorities that complete a chain, and are not trusted for themselves
//	issuers/crl     their revocation lists
//	rejected/certs  what was shown and is not trusted: the newest MaxRejected
//	own             this application's own certificate and key, which this package leaves alone
//
// Files are DER or PEM, of any name. To trust a certificate is to move it from rejected to trusted, with any tool or by
// [Store.Trust]; folders are looked at on each verification, and read again when something in them changed.
//
// [Store.Verify] says exactly what is wrong, for logs and metrics. What a stranger is told is less: see [OnWire].
package certstore

import (
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/gopcua/opcua/ua"
)

// The limits of a store.
const (
	// MaxFileBytes bounds a file in a folder; larger ones are left out, with a warning.
	MaxFileBytes = 1 << 20
	// MaxFiles bounds the files of each folder that are read.
	MaxFiles = 1_000
	// MaxChainBytes and MaxChain bound what a peer may show: bytes, and certificates from the leaf to the root.
	MaxChainBytes = 32 << 10
	MaxChain      = 6
	// MaxKeyBits bounds the RSA keys that are ever calculated with: larger ones take seconds.
	MaxKeyBits = 4096
	// MaxRejected is how many certificates rejected/certs keeps; the oldest make room.
	MaxRejected = 100
	// MaxRejectedPerMinute bounds what strangers make this machine write: files, and lines of the log.
	MaxRejectedPerMinute = 30
	// maxSignatures bounds the signatures that one verification checks: many issuers may have the same name.
	maxSignatures = 12
)

// Use is what certificates are used for, which decides the key usages that they need.
type Use int

// The uses.
const (
	// ClientApplication is a client's application instance certificate (Part 6 §6.2.2).
	ClientApplication Use = iota
	// User is the certificate of a user token (Part 6 §6.2.4).
	User
)

// Options are how a store judges. The zero Options are for client applications.
type Options struct {
	Use Use
	// Authorities are files, DER or PEM, whose certificates are trusted as if they were in trusted/certs. One that can't be
	// read is an error of Open; one that is gone later trusts nobody.
	Authorities []string
	// RequireRevocationLists refuses certificates of an authority of which there is no list that is up to date
	// (Part 4 §6.1.3: this check may be suppressed). A list that is there counts in any case.
	RequireRevocationLists bool
	// Logger gets what an administrator should know; nil is silence.
	Logger *slog.Logger
	// Now is the time by which certificates are valid or not; nil means time.Now.
	Now func() time.Time
}

// Store is a set of folders. It may be used by many goroutines.
type Store struct {
	dir string
	o   Options

	mu    sync.Mutex
	seen  []fileMark // what the folders held when they were last read
	lists *lists

	files, lines budget
}

// budget is MaxRejectedPerMinute.
type budget struct {
	since time.Time
	spent int
}

func (b *budget) spend(now time.Time) bool {
	if age := now.Sub(b.since); age < 0 || age >= time.Minute {
		*b = budget{since: now}
	}
	if b.spent == MaxRejectedPerMinute {
		return false
	}
	b.spent++
	return true
}

// The folders, below the store's directory.
const (
	trustedCerts  = "trusted/certs"
	trustedCRLs   = "trusted/crl"
	issuersCerts  = "issuers/certs"
	issuersCRLs   = "issuers/crl"
	rejectedCerts = "rejected/certs"
	ownDir        = "own"
)

// Open makes the folders below dir, where they are missing, and reads them.
func Open(dir string, o Options) (*Store, error) {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	for _, folder := range []string{trustedCerts, trustedCRLs, issuersCerts, issuersCRLs, rejectedCerts, ownDir} {
		if err := os.MkdirAll(filepath.Join(dir, folder), 0o755); err != nil {
			return nil, fmt.Errorf("certstore: %w", err)
		}
	}
	for _, file := range o.Authorities {
		if _, err := ReadCertificates(file); err != nil {
			return nil, err
		}
	}
	s := &Store{dir: dir, o: o}
	s.current()
	return s, nil
}

// Verify judges what a peer showed: a DER certificate, and possibly its issuers after it. It is StatusOK, or the status of
// the first step of Part 4 §6.1.3 that failed. One that is merely not trusted, or whose issuers are unknown, is kept in
// rejected/certs.
func (s *Store) Verify(chain []byte) ua.StatusCode {
	if len(chain) > MaxChainBytes {
		return ua.StatusBadCertificateInvalid
	}
	certificates, err := x509.ParseCertificates(chain)
	if err != nil || len(certificates) == 0 || len(certificates) > MaxChain {
		return ua.StatusBadCertificateInvalid
	}
	status := s.current().judge(certificates, s.o.Now(), s.o.Use, s.o.RequireRevocationLists)
	if status != ua.StatusOK {
		s.refused(certificates[0], status)
	}
	return status
}

// OnWire is what a peer is told of a status of Verify. Part 4 §6.1.3 and §5.5.2.2: only one whose structure, signatures and
// trust are right learns what else is wrong; for all others it is BadSecurityChecksFailed, so that a stranger can't find
// out whom we trust.
func OnWire(status ua.StatusCode) ua.StatusCode {
	switch status {
	case ua.StatusOK,
		ua.StatusBadCertificateTimeInvalid, ua.StatusBadCertificateIssuerTimeInvalid,
		ua.StatusBadCertificateUseNotAllowed, ua.StatusBadCertificateIssuerUseNotAllowed,
		ua.StatusBadCertificateURIInvalid, ua.StatusBadCertificateHostNameInvalid,
		ua.StatusBadCertificateRevocationUnknown, ua.StatusBadCertificateIssuerRevocationUnknown:
		return status
	}
	return ua.StatusBadSecurityChecksFailed
}

// Fingerprint is the SHA-256 of a DER certificate in lower-case hex, by which this package names certificates. The SHA-1
// thumbprint that OPC UA messages carry is not used, since two certificates can be made that share one.
func Fingerprint(der []byte) string {
	sum := sha256.Sum256(der)
	return hex.EncodeToString(sum[:])
}

var (
	// ErrUnknown says that no certificate has that fingerprint.
	ErrUnknown = errors.New("no such certificate")
	// ErrAmbiguous says that more than one certificate begins with it.
	ErrAmbiguous = errors.New("more than one certificate begins so")
)
