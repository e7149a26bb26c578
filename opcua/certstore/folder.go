package certstore

import (
	"crypto/sha256"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"time"
)

// fileMark tells one state of a file from another.
type fileMark struct {
	path    string
	trusted bool // what it holds is trusted
	size    int64
	mtime   time.Time
}

// lists are what the folders held at one time. They are never modified.
type lists struct {
	trusted map[[sha256.Size]byte]struct{}
	// issuers are all that may complete a chain, by subject; the trusted ones first.
	issuers map[string][]*x509.Certificate
	// revoked are the revocation lists, by issuer.
	revoked map[string][]*revocationList
}

type revocationList struct {
	*x509.RevocationList
	serials map[string]struct{}
}

// current returns the lists of now: it looks at the folders, and reads them if any file in them is another.
func (s *Store) current() *lists {
	s.mu.Lock()
	defer s.mu.Unlock()
	seen := s.look() // Before reading, so that what is replaced in between is seen as new next time.
	if s.lists == nil || !slices.Equal(seen, s.seen) {
		s.seen, s.lists = seen, s.read(seen)
	}
	return s.lists
}

// look marks all files that count. A folder that can't be read counts as empty: nobody is trusted by accident.
func (s *Store) look() []fileMark {
	var marks []fileMark
	for _, folder := range []string{trustedCerts, issuersCerts, trustedCRLs, issuersCRLs} {
		entries, err := os.ReadDir(filepath.Join(s.dir, folder))
		if err != nil {
			s.o.Logger.Error("a certificate folder can't be read", "folder", folder, "error", err)
		}
		if len(entries) > MaxFiles {
			s.o.Logger.Error("a certificate folder has too many files, the last ones don't count", "folder", folder, "most", MaxFiles)
			entries = entries[:MaxFiles]
		}
		for _, e := range entries {
			marks = mark(marks, filepath.Join(s.dir, folder, e.Name()), folder == trustedCerts)
		}
	}
	for _, file := range s.o.Authorities {
		marks = mark(marks, file, true)
	}
	return marks
}

func mark(marks []fileMark, path string, trusted bool) []fileMark {
	info, err := os.Stat(path) // Follows links, as those that deploy certificates like to make.
	if err != nil || !info.Mode().IsRegular() {
		return marks
	}
	return append(marks, fileMark{path, trusted, info.Size(), info.ModTime()})
}

// read reads what was marked. Files that hold nothing of use are named in the log once for each change.
func (s *Store) read(marks []fileMark) *lists {
	l := &lists{trusted: map[[sha256.Size]byte]struct{}{}, issuers: map[string][]*x509.Certificate{}, revoked: map[string][]*revocationList{}}
	for _, m := range marks {
		content, err := readFile(m.path)
		if err != nil {
			s.o.Logger.Error("a certificate file can't be read", "error", err)
			continue
		}
		certificates, revocations := parse(content)
		if len(certificates)+len(revocations) == 0 {
			s.o.Logger.Warn("a certificate file holds neither certificate nor revocation list", "file", m.path)
		}
		for _, c := range certificates {
			if m.trusted {
				l.trusted[sha256.Sum256(c.Raw)] = struct{}{}
			}
			l.issuers[string(c.RawSubject)] = append(l.issuers[string(c.RawSubject)], c)
		}
		for _, r := range revocations {
			list := &revocationList{r, make(map[string]struct{}, len(r.RevokedCertificateEntries))}
			for _, e := range r.RevokedCertificateEntries {
				list.serials[string(e.SerialNumber.Bytes())] = struct{}{}
			}
			l.revoked[string(r.RawIssuer)] = append(l.revoked[string(r.RawIssuer)], list)
		}
	}
	return l
}

// parse returns the certificates and revocation lists of a file, DER or PEM; what is neither is left out.
func parse(content []byte) (certificates []*x509.Certificate, revocations []*x509.RevocationList) {
	take := func(der []byte) {
		if list, err := x509.ParseCertificates(der); err == nil {
			certificates = append(certificates, list...)
		} else if r, err := x509.ParseRevocationList(der); err == nil {
			revocations = append(revocations, r)
		}
	}
	block, rest := pem.Decode(content)
	if block == nil {
		take(content)
		return certificates, revocations
	}
	for ; block != nil; block, rest = pem.Decode(rest) {
		take(block.Bytes)
	}
	return certificates, revocations
}

func readFile(name string) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	content, readErr := io.ReadAll(io.LimitReader(f, MaxFileBytes+1))
	if err := errors.Join(readErr, f.Close()); err != nil {
		return nil, err
	}
	if len(content) > MaxFileBytes {
		return nil, fmt.Errorf("%s is larger than %d bytes", name, MaxFileBytes)
	}
	return content, nil
}

// ReadCertificates returns the certificates in a file, DER or PEM, at least one.
func ReadCertificates(name string) ([]*x509.Certificate, error) {
	content, err := readFile(name)
	if err != nil {
		return nil, fmt.Errorf("certstore: %w", err)
	}
	certificates, _ := parse(content)
	if len(certificates) == 0 {
		return nil, fmt.Errorf("certstore: %s holds no certificate", name)
	}
	return certificates, nil
}
