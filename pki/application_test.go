package pki

import (
	"bytes"
	"crypto/x509"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

const applicationURI = "urn:quorate:demo:m1"

func TestApplicationCertificate(t *testing.T) {
	dir, now := t.TempDir(), time.Now()
	der, key, err := EnsureApplicationCertificate(dir, applicationURI, []string{"m1.plant", "127.0.0.1"}, now)
	if err != nil {
		t.Fatal(err)
	}
	certificate, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	if key.N.BitLen() != 2048 || certificate.SignatureAlgorithm != x509.SHA256WithRSA || certificate.Version != 3 {
		t.Errorf("%d bits, %v, version %d", key.N.BitLen(), certificate.SignatureAlgorithm, certificate.Version)
	}
	if len(certificate.URIs) != 1 || certificate.URIs[0].String() != applicationURI {
		t.Errorf("URI names %v", certificate.URIs)
	}
	if !slices.Equal(certificate.DNSNames, []string{"m1.plant"}) || len(certificate.IPAddresses) != 1 {
		t.Errorf("names %v, addresses %v", certificate.DNSNames, certificate.IPAddresses)
	}
	for usage, name := range map[x509.KeyUsage]string{
		x509.KeyUsageDigitalSignature: "digitalSignature", x509.KeyUsageContentCommitment: "nonRepudiation",
		x509.KeyUsageKeyEncipherment: "keyEncipherment", x509.KeyUsageDataEncipherment: "dataEncipherment",
		x509.KeyUsageCertSign: "keyCertSign",
	} {
		if certificate.KeyUsage&usage == 0 {
			t.Errorf("no key usage %s (Part 6 §6.2.2)", name)
		}
	}
	if !slices.Equal(certificate.ExtKeyUsage, []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}) {
		t.Errorf("extended key usages %v", certificate.ExtKeyUsage)
	}
	if certificate.IsCA || !bytes.Equal(certificate.RawIssuer, certificate.RawSubject) || certificate.Subject.CommonName == "" {
		t.Errorf("authority %v, issuer %v, subject %v", certificate.IsCA, certificate.Issuer, certificate.Subject)
	}
	if err := certificate.CheckSignature(certificate.SignatureAlgorithm, certificate.RawTBSCertificate, certificate.Signature); err != nil {
		t.Errorf("its own signature: %v", err)
	}
	assertMode(t, filepath.Join(dir, "own", "application.key"), 0o600)

	again, sameKey, err := EnsureApplicationCertificate(dir, applicationURI, []string{"moved.plant"}, now.Add(time.Hour))
	if err != nil || !bytes.Equal(again, der) || !sameKey.Equal(key) {
		t.Errorf("the second time: %v, same certificate %v", err, bytes.Equal(again, der))
	}
}

func TestApplicationCertificateIsFinishedAfterACrash(t *testing.T) {
	dir, now := t.TempDir(), time.Now()
	der, key, err := EnsureApplicationCertificate(dir, applicationURI, []string{"127.0.0.1"}, now)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(filepath.Join(dir, "own", "application.der")); err != nil {
		t.Fatal(err)
	}
	again, sameKey, err := EnsureApplicationCertificate(dir, applicationURI, []string{"127.0.0.1"}, now)
	if err != nil || bytes.Equal(again, der) || !sameKey.Equal(key) {
		t.Errorf("%v, same certificate %v, same key %v", err, bytes.Equal(again, der), sameKey.Equal(key))
	}
}

func TestApplicationCertificateRefuses(t *testing.T) {
	now := time.Now()
	for name, test := range map[string]struct {
		uri, want string
		hosts     []string
		at        time.Time
	}{
		"no URI":         {"", "application URI", []string{"h"}, now},
		"not a URI":      {"m1", "application URI", []string{"h"}, now},
		"not canonical":  {"urn:a b", "application URI", []string{"h"}, now},
		"too long":       {"urn:" + strings.Repeat("a", maxApplicationURIBytes), "application URI", []string{"h"}, now},
		"no host":        {applicationURI, "hosts", nil, now},
		"bad host":       {applicationURI, "hosts[0]", []string{"a b"}, now},
		"too many hosts": {applicationURI, "hosts", slices.Repeat([]string{"h"}, MaxHosts+1), now},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			if _, _, err := EnsureApplicationCertificate(dir, test.uri, test.hosts, test.at); err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("%v, want %q", err, test.want)
			}
			if _, err := os.Stat(filepath.Join(dir, "own", "application.der")); !errors.Is(err, os.ErrNotExist) {
				t.Error("a certificate was made all the same")
			}
		})
	}
}

func TestApplicationCertificateIsNeverReplaced(t *testing.T) {
	dir, now := t.TempDir(), time.Now()
	hosts := []string{"127.0.0.1"}
	der, _, err := EnsureApplicationCertificate(dir, applicationURI, hosts, now)
	if err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]struct {
		uri, want string
		at        time.Time
	}{
		"another URI": {"urn:other", "it is for application URI", now},
		"expired":     {applicationURI, "expired", now.Add(ApplicationValidity + time.Hour)},
		"too early":   {applicationURI, "not valid before", now.Add(-time.Hour)},
	} {
		if _, _, err := EnsureApplicationCertificate(dir, test.uri, hosts, test.at); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: %v, want %q", name, err, test.want)
		}
	}
	// A key that isn't the certificate's is found out as well.
	other := t.TempDir()
	if _, _, err := EnsureApplicationCertificate(other, applicationURI, hosts, now); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(filepath.Join(other, "own", "application.key"), filepath.Join(dir, "own", "application.key")); err != nil {
		t.Fatal(err)
	}
	if _, _, err := EnsureApplicationCertificate(dir, applicationURI, hosts, now); err == nil || !strings.Contains(err.Error(), "not its own") {
		t.Errorf("another key: %v", err)
	}
	if content(t, filepath.Join(dir, "own", "application.der")) != string(der) {
		t.Error("the certificate changed")
	}
}
