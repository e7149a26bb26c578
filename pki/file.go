package pki

import (
	"crypto"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
)

const (
	certificateBlock = "CERTIFICATE"
	keyBlock         = "PRIVATE KEY"
	// Only the owner reads a key; a certificate is public.
	keyMode         os.FileMode = 0o600
	certificateMode os.FileMode = 0o644
	dirMode         os.FileMode = 0o700
)

// writePair writes a certificate and its key, neither of which may exist. The key goes first: a certificate without its
// key would look like a success.
func writePair(certFile, keyFile string, der []byte, key crypto.Signer) error {
	if _, err := os.Lstat(certFile); err == nil {
		return fmt.Errorf("pki: %s: %w", certFile, os.ErrExist)
	}
	if err := writeKey(keyFile, key); err != nil {
		return err
	}
	if err := writeNew(certFile, certificateMode, encodeCertificate(der)); err != nil {
		return errors.Join(err, os.Remove(keyFile))
	}
	return nil
}

func encodeCertificate(der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: certificateBlock, Bytes: der})
}

func writeKey(file string, key crypto.Signer) error {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return fmt.Errorf("pki: encode the key: %w", err)
	}
	return writeNew(file, keyMode, pem.EncodeToMemory(&pem.Block{Type: keyBlock, Bytes: der}))
}

// writeNew makes a file whole or not at all, and never replaces one: the content is synced under another name, which is
// then linked to the right one, and a link fails where something is.
func writeNew(file string, mode os.FileMode, content []byte) (err error) {
	dir := filepath.Dir(file)
	if err := os.MkdirAll(dir, dirMode); err != nil {
		return fmt.Errorf("pki: %w", err)
	}
	// CreateTemp makes the file readable by its owner alone, so that a key is never seen by others, not even for a moment.
	temporary, err := os.CreateTemp(dir, ".new-*")
	if err != nil {
		return fmt.Errorf("pki: %w", err)
	}
	defer func() {
		err = errors.Join(err, os.Remove(temporary.Name()))
	}()
	_, writeErr := temporary.Write(content)
	if err := errors.Join(writeErr, temporary.Chmod(mode), temporary.Sync(), temporary.Close()); err != nil {
		return fmt.Errorf("pki: write %s: %w", file, err)
	}
	if err := os.Link(temporary.Name(), file); err != nil {
		return fmt.Errorf("pki: %w", err)
	}
	return syncDir(dir)
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return fmt.Errorf("pki: %w", err)
	}
	if err := errors.Join(d.Sync(), d.Close()); err != nil {
		return fmt.Errorf("pki: sync %s: %w", dir, err)
	}
	return nil
}

func readFile(file string) ([]byte, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, fmt.Errorf("pki: %w", err)
	}
	content, readErr := io.ReadAll(io.LimitReader(f, MaxFileBytes+1))
	if err := errors.Join(readErr, f.Close()); err != nil {
		return nil, fmt.Errorf("pki: read %s: %w", file, err)
	}
	if len(content) > MaxFileBytes {
		return nil, fmt.Errorf("pki: %s is larger than %d bytes", file, MaxFileBytes)
	}
	return content, nil
}

// readCertificates returns the certificates of a PEM file, at least one.
func readCertificates(file string) ([]*x509.Certificate, error) {
	rest, err := readFile(file)
	if err != nil {
		return nil, err
	}
	var certificates []*x509.Certificate
	for {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		if block.Type != certificateBlock {
			continue
		}
		certificate, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("pki: %s: %w", file, err)
		}
		certificates = append(certificates, certificate)
	}
	if len(certificates) == 0 {
		return nil, fmt.Errorf("pki: %s holds no certificate", file)
	}
	return certificates, nil
}

// readKey returns the private key of a PKCS #8 PEM file. No error of it repeats the content.
func readKey(file string) (crypto.Signer, error) {
	content, err := readFile(file)
	if err != nil {
		return nil, err
	}
	block, _ := pem.Decode(content)
	if block == nil || block.Type != keyBlock {
		return nil, fmt.Errorf("pki: %s holds no PKCS #8 private key", file)
	}
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("pki: %s holds no readable private key", file)
	}
	signer, ok := key.(crypto.Signer)
	if !ok {
		return nil, fmt.Errorf("pki: %s holds a key that cannot sign", file)
	}
	return signer, nil
}
