package main

import (
	"bufio"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"quorate/opcua/certstore"
)

const (
	// knownServersFile is where this client remembers which certificate a server showed first. Like the file of that kind that SSH has, it is text: a line
	// is the server's URL, and the SHA-256 of its certificate.
	knownServersFile = "known_servers"
	// maxKnownServers bounds the lines of it that are read, and then added to.
	maxKnownServers = 10_000
	// maxTrustFiles bounds --trust.
	maxTrustFiles = 100
)

// serverTrust decides whether a server is the one that is meant, before anything is said to it.
type serverTrust struct {
	// trusted are the certificates of --trust: of servers, or of who signed them. With none the file of known servers decides.
	trusted []*x509.Certificate
	// known is that file; empty where there is no place for one.
	known string
	// notices is told of who is trusted from now on.
	notices io.Writer

	mu sync.Mutex // a failover client connects to several servers at a time
}

// newServerTrust reads the certificates that are to be trusted. A server at a loopback address is of this machine, and is asked for a certificate only by --trust.
func newServerTrust(files []string, dir string, notices io.Writer) (*serverTrust, error) {
	if len(files) > maxTrustFiles {
		return nil, fmt.Errorf("--trust: at most %d files, got %d", maxTrustFiles, len(files))
	}
	t := &serverTrust{notices: notices}
	if dir != "" {
		t.known = filepath.Join(dir, knownServersFile)
	}
	for _, file := range files {
		certificates, err := certstore.ReadCertificates(file)
		if err != nil {
			return nil, fmt.Errorf("--trust: %w", err)
		}
		t.trusted = append(t.trusted, certificates...)
	}
	return t, nil
}

// verify is session.Options.Verify.
func (t *serverTrust) verify(endpointURL string, shown []byte) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.trusted) > 0 {
		return t.verifyTrusted(shown, time.Now())
	}
	if t.known == "" || isLoopback(endpointURL) {
		return nil
	}
	return t.verifyKnown(endpointURL, shown)
}

// verifyTrusted wants a certificate of --trust, or one that such a certificate has signed.
func (t *serverTrust) verifyTrusted(shown []byte, now time.Time) error {
	if shown == nil {
		return errors.New("the server offers no security, and --trust asks for a certificate")
	}
	chain, err := x509.ParseCertificates(shown)
	if err != nil || len(chain) == 0 {
		return errors.New("the server shows something that is no certificate")
	}
	leaf := chain[0]
	if now.Before(leaf.NotBefore) || now.After(leaf.NotAfter) {
		return fmt.Errorf("the certificate of the server (SHA-256 %s) is good from %s to %s", certstore.Fingerprint(leaf.Raw),
			leaf.NotBefore.Format(time.DateOnly), leaf.NotAfter.Format(time.DateOnly))
	}
	roots, between := x509.NewCertPool(), x509.NewCertPool()
	for _, c := range t.trusted {
		if c.Equal(leaf) {
			return nil
		}
		roots.AddCert(c)
	}
	for _, c := range chain[1:min(len(chain), certstore.MaxChain)] {
		between.AddCert(c)
	}
	if _, err := leaf.Verify(x509.VerifyOptions{Roots: roots, Intermediates: between, CurrentTime: now, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}}); err != nil {
		return fmt.Errorf("the certificate of the server (SHA-256 %s) is not among those of --trust, nor signed by one of them", certstore.Fingerprint(leaf.Raw))
	}
	return nil
}

// verifyKnown wants the certificate that the server showed before, and remembers the first one.
func (t *serverTrust) verifyKnown(endpointURL string, shown []byte) error {
	before, count, err := t.look(endpointURL)
	if err != nil {
		return err
	}
	remedy := fmt.Sprintf("if that is as it should be, take its line out of %s, or name the certificate with --trust", t.known)
	switch {
	case shown == nil && before == "":
		return nil
	case shown == nil:
		return fmt.Errorf("the server had a certificate before, and offers no security now; %s, or ask for --policy None", remedy)
	}
	chain, err := x509.ParseCertificates(shown)
	if err != nil || len(chain) == 0 {
		return errors.New("the server shows something that is no certificate")
	}
	now := certstore.Fingerprint(chain[0].Raw)
	switch {
	case before == now:
		return nil
	case before != "":
		return fmt.Errorf("the server shows another certificate than before: SHA-256 %s, not %s; %s", now, before, remedy)
	case count >= maxKnownServers:
		return fmt.Errorf("%s has %d lines, and more are not added: name the certificate with --trust", t.known, count)
	}
	return t.remember(endpointURL, now)
}

// look returns the fingerprint that is remembered of a server, empty if none is, and how many lines there are.
func (t *serverTrust) look(endpointURL string) (fingerprint string, count int, err error) {
	file, err := os.Open(t.known)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return "", 0, nil
	case err != nil:
		return "", 0, err
	}
	defer func() { _ = file.Close() }() // It was only read.
	lines := bufio.NewScanner(file)
	for ; count < maxKnownServers && lines.Scan(); count++ {
		if server, of, ok := strings.Cut(strings.TrimSpace(lines.Text()), " "); ok && server == serverOf(endpointURL) {
			fingerprint = strings.ToLower(strings.TrimSpace(of))
		}
	}
	return fingerprint, count, lines.Err()
}

func (t *serverTrust) remember(endpointURL, fingerprint string) error {
	if err := os.MkdirAll(filepath.Dir(t.known), 0o700); err != nil {
		return err
	}
	file, err := os.OpenFile(t.known, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(file, "%s %s\n", serverOf(endpointURL), fingerprint)
	if err := errors.Join(err, file.Close()); err != nil {
		return err
	}
	// There is nobody left to tell if this fails.
	_, _ = fmt.Fprintf(t.notices, "quorate: the certificate of %s, SHA-256 %s, is trusted from now on (%s)\n", serverOf(endpointURL), fingerprint, t.known)
	return nil
}

// serverOf is what a server is remembered by: its host and port.
func serverOf(endpointURL string) string {
	u, err := url.Parse(endpointURL)
	if err != nil {
		return endpointURL
	}
	return u.Scheme + "://" + strings.ToLower(u.Host)
}

func isLoopback(endpointURL string) bool {
	u, err := url.Parse(endpointURL)
	if err != nil {
		return false
	}
	ip := net.ParseIP(u.Hostname())
	return u.Hostname() == "localhost" || ip != nil && ip.IsLoopback()
}
