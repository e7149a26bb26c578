package pki

import (
	"bytes"
	"crypto/x509"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func initSite(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	if err := Init(dir, "plant"); err != nil {
		t.Fatal(err)
	}
	return dir
}

func TestIssueApplication(t *testing.T) {
	dir, now := initSite(t), time.Now()
	certFile, keyFile, err := IssueApplication(dir, ApplicationRequest{Member: "m1", Hosts: []string{"127.0.0.1"}, Now: now})
	if err != nil {
		t.Fatal(err)
	}
	assertMode(t, keyFile, 0o600)
	assertMode(t, filepath.Join(dir, applicationAuthorityKey), 0o600)
	a, err := LoadApplication(certFile, keyFile, ApplicationURI("plant", "m1"))
	if err != nil {
		t.Fatal(err)
	}
	der, key := a.Certificate()
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	authorities, err := readCertificates(filepath.Join(dir, ApplicationAuthorityFile))
	if err != nil {
		t.Fatal(err)
	}
	if err := leaf.CheckSignatureFrom(authorities[0]); err != nil || leaf.SignatureAlgorithm != x509.SHA256WithRSA {
		t.Errorf("%v, %v", err, leaf.SignatureAlgorithm)
	}
	if key.N.BitLen() != 2048 || leaf.KeyUsage&x509.KeyUsageCertSign != 0 || leaf.IsCA || !bytes.Equal(leaf.AuthorityKeyId, authorities[0].SubjectKeyId) {
		t.Errorf("%d bits, usage %b, authority %v", key.N.BitLen(), leaf.KeyUsage, leaf.IsCA)
	}
	raw, err := os.ReadFile(filepath.Join(dir, ApplicationRevocationFile))
	if err != nil {
		t.Fatal(err)
	}
	list, err := x509.ParseRevocationList(raw)
	if err != nil || list.CheckSignatureFrom(authorities[0]) != nil {
		t.Errorf("revocation list: %v", err)
	}

	if _, _, err := IssueApplication(dir, ApplicationRequest{Member: "m1", Hosts: []string{"127.0.0.1"}}); !errors.Is(err, os.ErrExist) {
		t.Errorf("the second time: %v", err)
	}
	if _, _, err := IssueApplication(dir, ApplicationRequest{Member: "m2", ApplicationURI: "urn:x", Hosts: []string{"m2"}, Validity: 20 * 365 * 24 * time.Hour}); err != nil {
		t.Fatal(err)
	}
	listed, err := List(dir)
	if err != nil || len(listed) != 4 {
		t.Fatalf("%+v, %v", listed, err)
	}
	if ca := listed[1]; !ca.Authority || !ca.Application {
		t.Errorf("%+v", ca)
	}
	if m2 := listed[3]; !m2.Application || m2.Identity.Name != "m2" || m2.ApplicationURI != "urn:x" || m2.NotAfter.After(listed[1].NotAfter) {
		t.Errorf("%+v", m2)
	}
}

func TestIssueApplicationRefuses(t *testing.T) {
	dir := initSite(t)
	for want, r := range map[string]ApplicationRequest{
		"member: ":          {Member: "../m1", Hosts: []string{"h"}},
		"application URI: ": {Member: "m1", Hosts: []string{"h"}, ApplicationURI: "no URI"},
		"hosts: ":           {Member: "m1"},
		"hosts[0]: ":        {Member: "m1", Hosts: []string{"a b"}},
		"validity: ":        {Member: "m1", Hosts: []string{"h"}, Validity: time.Second},
	} {
		if _, _, err := IssueApplication(dir, r); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: %v, want %s", r, err, want)
		}
	}
	if exists(filepath.Join(dir, ApplicationAuthorityFile)) {
		t.Error("a refused request has made an authority")
	}
	if _, _, err := IssueApplication(t.TempDir(), ApplicationRequest{Member: "m1", Hosts: []string{"h"}}); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no site: %v", err)
	}
}

func TestApplicationAuthorityIsFinishedAfterACrash(t *testing.T) {
	dir := initSite(t)
	issue := func(member string) {
		t.Helper()
		if _, _, err := IssueApplication(dir, ApplicationRequest{Member: member, Hosts: []string{"h"}}); err != nil {
			t.Error(err)
		}
	}
	issue("m1")
	for i, file := range []string{ApplicationRevocationFile, ApplicationAuthorityFile} {
		if err := os.Remove(filepath.Join(dir, file)); err != nil {
			t.Fatal(err)
		}
		issue(string(rune('a' + i)))
		if !exists(filepath.Join(dir, file)) {
			t.Errorf("%s is not made again", file)
		}
	}
}

func TestApplicationReload(t *testing.T) {
	dir := initSite(t)
	cert, key, err := IssueApplication(dir, ApplicationRequest{Member: "m1", Hosts: []string{"h"}})
	if err != nil {
		t.Fatal(err)
	}
	other, otherKey, err := IssueApplication(dir, ApplicationRequest{Member: "m2", ApplicationURI: ApplicationURI("plant", "m1"), Hosts: []string{"h"}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := LoadApplication(cert, otherKey, ApplicationURI("plant", "m1")); err == nil {
		t.Error("another key was taken")
	}
	if _, err := LoadApplication(cert, key, "urn:x"); err == nil {
		t.Error("another ApplicationUri was taken")
	}
	late := func() time.Time { return time.Now().Add(2 * DefaultValidity) }
	if _, err := loadApplication(cert, key, ApplicationURI("plant", "m1"), late); err == nil {
		t.Error("an expired one was taken")
	}
	a, err := LoadApplication(cert, key, ApplicationURI("plant", "m1"))
	if err != nil {
		t.Fatal(err)
	}
	var told []error
	a.OnReload(func(err error) { told = append(told, err) })
	first, _ := a.Certificate()
	if err := os.Rename(other, cert); err != nil {
		t.Fatal(err)
	}
	if got, _ := a.Certificate(); !bytes.Equal(got, first) || len(told) != 1 || told[0] == nil {
		t.Errorf("half of a renewal was taken: %v", told)
	}
	if err := os.Rename(otherKey, key); err != nil {
		t.Fatal(err)
	}
	if got, _ := a.Certificate(); bytes.Equal(got, first) || len(told) != 2 || told[1] != nil {
		t.Errorf("the renewal was not taken: %v", told)
	}
}
