package certstore

import (
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/gopcua/opcua/ua"
)

// State is in which list a certificate is.
type State string

// The lists.
const (
	Trusted  State = "trusted"
	Issuer   State = "issuer"
	Rejected State = "rejected"
)

// Entry is a certificate in the folders.
type Entry struct {
	State State
	// File is the path of the file that holds it.
	File        string
	Fingerprint string
	Certificate *x509.Certificate
}

// minPrefix is the least of a fingerprint that names a certificate.
const minPrefix = 8

// List returns the certificates in the folders: trusted, issuers, rejected, each by file name.
func (s *Store) List() ([]Entry, error) {
	var all []Entry
	for _, f := range []struct {
		state  State
		folder string
	}{{Trusted, trustedCerts}, {Issuer, issuersCerts}, {Rejected, rejectedCerts}} {
		entries, err := s.list(f.state, f.folder)
		if err != nil {
			return nil, err
		}
		all = append(all, entries...)
	}
	return all, nil
}

func (s *Store) list(state State, folder string) ([]Entry, error) {
	dir := filepath.Join(s.dir, folder)
	files, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("certstore: %w", err)
	}
	var entries []Entry
	for _, f := range files[:min(len(files), MaxFiles)] {
		path := filepath.Join(dir, f.Name())
		info, err := os.Stat(path)
		if err != nil || !info.Mode().IsRegular() {
			continue
		}
		content, err := readFile(path)
		if errors.Is(err, fs.ErrNotExist) {
			continue // It was moved a moment ago.
		}
		if err != nil {
			return nil, fmt.Errorf("certstore: %w", err)
		}
		certificates, _ := parse(content)
		for _, c := range certificates {
			entries = append(entries, Entry{state, path, Fingerprint(c.Raw), c})
		}
	}
	return entries, nil
}

// Trust moves the rejected certificate whose fingerprint begins so to the trusted ones, and returns it.
func (s *Store) Trust(fingerprint string) (Entry, error) {
	return s.move(fingerprint, Rejected, rejectedCerts, trustedCerts)
}

// Reject moves the trusted certificate whose fingerprint begins so to the rejected ones, and returns it.
func (s *Store) Reject(fingerprint string) (Entry, error) {
	return s.move(fingerprint, Trusted, trustedCerts, rejectedCerts)
}

// Add puts a certificate (DER) among the trusted ones, whether or not it was ever shown.
func (s *Store) Add(der []byte) (Entry, error) {
	c, err := x509.ParseCertificate(der)
	if err != nil {
		return Entry{}, fmt.Errorf("certstore: %w", err)
	}
	e := Entry{Trusted, s.file(trustedCerts, c.Raw), Fingerprint(c.Raw), c}
	if err := write(e.File, c.Raw); err != nil {
		return Entry{}, fmt.Errorf("certstore: %w", err)
	}
	err = os.Remove(s.file(rejectedCerts, c.Raw))
	if errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	return e, err
}

// move moves a certificate from one folder to the other. Of a file with several, all move.
func (s *Store) move(fingerprint string, state State, from, to string) (Entry, error) {
	prefix := strings.ToLower(strings.ReplaceAll(fingerprint, ":", ""))
	if len(prefix) < minPrefix {
		return Entry{}, fmt.Errorf("certstore: fingerprint: %q has less than %d digits", fingerprint, minPrefix)
	}
	entries, err := s.list(state, from)
	if err != nil {
		return Entry{}, err
	}
	entries = slices.DeleteFunc(entries, func(e Entry) bool { return !strings.HasPrefix(e.Fingerprint, prefix) })
	if len(entries) == 0 {
		return Entry{}, fmt.Errorf("certstore: fingerprint %s among the %s: %w", fingerprint, state, ErrUnknown)
	}
	e := entries[0]
	for _, other := range entries[1:] {
		if other.Fingerprint != e.Fingerprint {
			return Entry{}, fmt.Errorf("certstore: fingerprint %s: %w", fingerprint, ErrAmbiguous)
		}
	}
	for _, same := range entries { // Two files may hold the same, and neither may be left behind.
		e.File = s.file(to, same.Certificate.Raw)
		if err := os.Rename(same.File, e.File); err != nil {
			return Entry{}, fmt.Errorf("certstore: %w", err)
		}
	}
	now := s.o.Now()
	_ = os.Chtimes(e.File, now, now) // So that it is the newest of the rejected; nothing depends on it.
	e.State = Trusted
	if to == rejectedCerts {
		e.State = Rejected
	}
	return e, nil
}

func (s *Store) file(folder string, der []byte) string {
	return filepath.Join(s.dir, folder, Fingerprint(der)+".der")
}

// refused logs what was refused, since the peer is told less, and keeps what is not trusted for an administrator to look at.
func (s *Store) refused(c *x509.Certificate, status ua.StatusCode) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.o.Now()
	if s.lines.spend(now) {
		s.o.Logger.Warn("a certificate is refused", "status", status, "subject", c.Subject.String(), "fingerprint", Fingerprint(c.Raw))
	}
	if status != ua.StatusBadCertificateUntrusted && status != ua.StatusBadCertificateChainIncomplete {
		return
	}
	file := s.file(rejectedCerts, c.Raw)
	if _, err := os.Stat(file); err == nil || !s.files.spend(now) {
		return
	}
	if err := errors.Join(s.makeRoom(), write(file, c.Raw)); err != nil {
		s.o.Logger.Error("an unknown certificate is not kept", "error", err)
	}
}

// makeRoom removes the oldest of the rejected until there is a place for another.
func (s *Store) makeRoom() error {
	dir := filepath.Join(s.dir, rejectedCerts)
	files, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	type aged struct {
		name string
		at   time.Time
	}
	var list []aged
	for _, f := range files {
		if info, err := f.Info(); err == nil && info.Mode().IsRegular() {
			list = append(list, aged{f.Name(), info.ModTime()})
		}
	}
	slices.SortFunc(list, func(a, b aged) int { return a.at.Compare(b.at) })
	for ; len(list) >= MaxRejected; list = list[1:] {
		if err := os.Remove(filepath.Join(dir, list[0].name)); err != nil {
			return err
		}
	}
	return nil
}

// write makes a file whole or not at all.
func write(file string, content []byte) (err error) {
	// What begins with a dot in a folder is looked at like all else, so the unfinished file is made beside the folders.
	temporary, err := os.CreateTemp(filepath.Dir(filepath.Dir(filepath.Dir(file))), ".new-*")
	if err != nil {
		return err
	}
	_, writeErr := temporary.Write(content)
	// Certificates are public, and whoever trusts one may be another user of this machine than the server.
	if err := errors.Join(writeErr, temporary.Chmod(0o644), temporary.Close()); err != nil {
		return errors.Join(err, os.Remove(temporary.Name()))
	}
	if err := os.Rename(temporary.Name(), file); err != nil {
		return errors.Join(err, os.Remove(temporary.Name()))
	}
	return nil
}
