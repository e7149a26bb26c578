package client

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"time"
)

// tlsFromFiles is mutual TLS as members want it: the member's certificate is good for the host that was dialled, and says that it is a member.
func tlsFromFiles(caFile, certFile, keyFile string) (*tls.Config, error) {
	for _, f := range []struct{ name, value string }{{"CAFile", caFile}, {"CertFile", certFile}, {"KeyFile", keyFile}} {
		if f.value == "" {
			return nil, fmt.Errorf("client: Options.%s: missing; CAFile, CertFile and KeyFile are given together", f.name)
		}
	}
	pem, err := os.ReadFile(caFile)
	if err != nil {
		return nil, fmt.Errorf("client: Options.CAFile: %w", err)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("client: Options.CAFile: %s holds no certificate", caFile)
	}
	pair := &pairFiles{certFile: certFile, keyFile: keyFile}
	if _, err := pair.get(nil); err != nil {
		return nil, err
	}
	return &tls.Config{MinVersion: tls.VersionTLS13, RootCAs: roots, GetClientCertificate: pair.get, VerifyConnection: mustBeMember}, nil
}

// mustBeMember refuses a server whose certificate is not that of a member, spiffe://SITE/member/ID: a person's is of the same authority.
func mustBeMember(state tls.ConnectionState) error {
	for _, uri := range state.PeerCertificates[0].URIs {
		if uri.Scheme == "spiffe" && strings.HasPrefix(uri.Path, "/member/") {
			return nil
		}
	}
	return errors.New("client: the server's certificate is not that of a member")
}

// pairFiles is a certificate with its key, which are read again when a file has changed.
type pairFiles struct {
	certFile, keyFile string

	mu     sync.Mutex
	pair   *tls.Certificate
	stamps [2]time.Time
}

// get implements tls.Config.GetClientCertificate. While the files can't be read, or don't fit together because only one has been replaced yet, the pair
// that was read last stays in use.
func (p *pairFiles) get(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	stamps, err := p.look()
	if err == nil && (p.pair == nil || stamps != p.stamps) {
		var pair tls.Certificate
		if pair, err = tls.LoadX509KeyPair(p.certFile, p.keyFile); err == nil {
			p.pair, p.stamps = &pair, stamps
		}
	}
	if p.pair == nil {
		return nil, fmt.Errorf("client: Options.CertFile, KeyFile: %w", err)
	}
	return p.pair, nil
}

func (p *pairFiles) look() (stamps [2]time.Time, err error) {
	for i, file := range []string{p.certFile, p.keyFile} {
		info, err := os.Stat(file)
		if err != nil {
			return stamps, err
		}
		stamps[i] = info.ModTime()
	}
	return stamps, nil
}
