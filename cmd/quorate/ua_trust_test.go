package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"quorate/opcua/certstore"
	"quorate/pki"
)

// applicationIn makes a self-signed application certificate, and returns it with its file.
func applicationIn(t *testing.T, dir string, now time.Time) (der []byte, file string) {
	t.Helper()
	der, _, err := pki.EnsureApplicationCertificate(dir, "urn:test:server", []string{"plant"}, now)
	if err != nil {
		t.Fatal(err)
	}
	file = filepath.Join(dir, "server.der")
	if err := os.WriteFile(file, der, 0o600); err != nil {
		t.Fatal(err)
	}
	return der, file
}

func wantError(t *testing.T, err error, part string) {
	t.Helper()
	if part == "" && err != nil || part != "" && (err == nil || !strings.Contains(err.Error(), part)) {
		t.Errorf("error %v, want %q", err, part)
	}
}

func TestTrustOnFirstUse(t *testing.T) {
	dir := t.TempDir()
	first, _ := applicationIn(t, t.TempDir(), time.Now())
	other, _ := applicationIn(t, t.TempDir(), time.Now())
	var notices bytes.Buffer
	open := func() *serverTrust {
		trust, err := newServerTrust(nil, filepath.Join(dir, "client"), &notices)
		if err != nil {
			t.Fatal(err)
		}
		return trust
	}
	wantError(t, open().verify("opc.tcp://plant:4840", nil), "") // It never had security.
	wantError(t, open().verify("opc.tcp://plant:4840", first), "")
	if want := certstore.Fingerprint(first) + ", is trusted from now on"; strings.Count(notices.String(), want) != 1 {
		t.Errorf("said %q", notices.String())
	}
	wantError(t, open().verify("opc.tcp://PLANT:4840/path", first), "") // The same server.
	wantError(t, open().verify("opc.tcp://plant:4841", other), "")      // Another one.
	wantError(t, open().verify("opc.tcp://plant:4840", other), "another certificate than before: SHA-256 "+certstore.Fingerprint(other)+", not "+certstore.Fingerprint(first))
	wantError(t, open().verify("opc.tcp://plant:4840", nil), "offers no security now")
	wantError(t, open().verify("opc.tcp://plant:4840", []byte("no certificate")), "no certificate")
	for _, here := range []string{"opc.tcp://127.0.0.1:4840", "opc.tcp://localhost:4840", "opc.tcp://[::1]:4840"} {
		wantError(t, open().verify(here, first), "")
		wantError(t, open().verify(here, other), "")
	}
	if n := strings.Count(notices.String(), "\n"); n != 2 {
		t.Errorf("%d notices: %s", n, notices.String())
	}
	known := filepath.Join(dir, "client", knownServersFile)
	if info, err := os.Stat(known); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info, err)
	}
	// The file has a limit.
	var full strings.Builder
	for i := range maxKnownServers {
		fmt.Fprintf(&full, "opc.tcp://s%d:4840 00\n", i)
	}
	if err := os.WriteFile(known, []byte(full.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	wantError(t, open().verify("opc.tcp://plant:4840", first), "more are not added")
	// Without a place to remember nothing is asked.
	nowhere, err := newServerTrust(nil, "", &notices)
	if err != nil {
		t.Fatal(err)
	}
	wantError(t, nowhere.verify("opc.tcp://plant:4840", first), "")
}

func TestTrustByCertificate(t *testing.T) {
	server, file := applicationIn(t, t.TempDir(), time.Now())
	other, _ := applicationIn(t, t.TempDir(), time.Now())
	old, oldFile := applicationIn(t, t.TempDir(), time.Now().AddDate(-30, 0, 0))
	trust, err := newServerTrust([]string{file, oldFile}, t.TempDir(), nil)
	if err != nil {
		t.Fatal(err)
	}
	wantError(t, trust.verify("opc.tcp://plant:4840", server), "")
	wantError(t, trust.verify("opc.tcp://127.0.0.1:4840", other), "not among those of --trust")
	wantError(t, trust.verify("opc.tcp://plant:4840", nil), "offers no security")
	wantError(t, trust.verify("opc.tcp://plant:4840", old), "is good from")
	wantError(t, trust.verify("opc.tcp://plant:4840", []byte{1, 2}), "no certificate")
	_, err = newServerTrust([]string{"missing"}, "", nil)
	wantError(t, err, "--trust: ")
	_, err = newServerTrust(make([]string, maxTrustFiles+1), "", nil)
	wantError(t, err, "at most 100 files")
}
