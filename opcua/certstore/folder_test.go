package certstore

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/gopcua/opcua/ua"
)

func TestTrustTakesEffectAtOnce(t *testing.T) {
	s := open(t, Options{})
	p := make509(t, "client", nil, keys[0]())
	if got := s.Verify(p.Raw); got != ua.StatusBadCertificateUntrusted {
		t.Fatal(got)
	}
	if got := s.files(t, rejectedCerts); len(got) != 1 || got[0] != Fingerprint(p.Raw)+".der" {
		t.Fatalf("rejected: %v", got)
	}
	e, err := s.Trust(strings.ToUpper(Fingerprint(p.Raw)[:minPrefix]))
	if err != nil || e.State != Trusted || e.Certificate.Subject.CommonName != "client" {
		t.Fatalf("%+v, %v", e, err)
	}
	if got := s.Verify(p.Raw); got != ua.StatusOK {
		t.Errorf("after trust: %v", got)
	}
	if e, err = s.Reject(Fingerprint(p.Raw)); err != nil || e.State != Rejected {
		t.Fatalf("%+v, %v", e, err)
	}
	if got := s.Verify(p.Raw); got != ua.StatusBadCertificateUntrusted {
		t.Errorf("after reject: %v", got)
	}
	// By hand, as administrators do.
	if err := os.Rename(e.File, filepath.Join(s.dir, trustedCerts, "by hand")); err != nil {
		t.Fatal(err)
	}
	if got := s.Verify(p.Raw); got != ua.StatusOK {
		t.Errorf("after a move by hand: %v", got)
	}
	list, err := s.List()
	if err != nil || len(list) != 1 || list[0].State != Trusted || list[0].Fingerprint != Fingerprint(p.Raw) {
		t.Errorf("list %+v, %v", list, err)
	}
}

func TestAFileChangedInPlaceIsSeen(t *testing.T) {
	root := make509(t, "root", nil, keys[0](), authority)
	leaf := make509(t, "leaf", &root, keys[1]())
	s := open(t, Options{})
	s.put(t, trustedCerts, "root", root.Raw)
	s.put(t, trustedCRLs, "list", crl(t, root, now.Add(time.Hour)))
	if got := s.Verify(leaf.Raw); got != ua.StatusOK {
		t.Fatal(got)
	}
	s.put(t, trustedCRLs, "list", crl(t, root, now.Add(time.Hour), leaf))
	if got := s.Verify(leaf.Raw); got != ua.StatusBadCertificateRevoked {
		t.Errorf("after the list changed: %v", got)
	}
}

func TestAuthorities(t *testing.T) {
	root := make509(t, "root", nil, keys[0](), authority)
	leaf := make509(t, "leaf", &root, keys[1]())
	file := filepath.Join(t.TempDir(), "ca.der")
	if _, err := Open(t.TempDir(), Options{Authorities: []string{file}}); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no file: %v", err)
	}
	if err := os.WriteFile(file, []byte("nonsense"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(t.TempDir(), Options{Authorities: []string{file}}); err == nil || !strings.Contains(err.Error(), "holds no certificate") {
		t.Errorf("nonsense: %v", err)
	}
	if err := os.WriteFile(file, root.Raw, 0o600); err != nil {
		t.Fatal(err)
	}
	s := open(t, Options{Authorities: []string{file}})
	if got := s.Verify(leaf.Raw); got != ua.StatusOK {
		t.Error(got)
	}
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	if got := s.Verify(leaf.Raw); got != ua.StatusBadCertificateChainIncomplete {
		t.Errorf("without the file: %v", got)
	}
}

func TestWhatIsInTheWayDoesNoHarm(t *testing.T) {
	p := make509(t, "client", nil, keys[0]())
	s := open(t, Options{})
	s.put(t, trustedCerts, "README", []byte("Certificates go here."))
	s.put(t, trustedCerts, "huge", make([]byte, MaxFileBytes+1))
	if err := os.MkdirAll(filepath.Join(s.dir, trustedCerts, "folder"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("nowhere", filepath.Join(s.dir, trustedCerts, "link")); err != nil {
		t.Fatal(err)
	}
	s.put(t, trustedCerts, "it", p.Raw)
	if got := s.Verify(p.Raw); got != ua.StatusOK {
		t.Error(got)
	}
	for i := range MaxFiles { // They sort before it.
		s.put(t, trustedCerts, fmt.Sprintf("%04d", i), nil)
	}
	if got := s.Verify(p.Raw); got != ua.StatusBadCertificateUntrusted {
		t.Errorf("beyond the limit of files: %v", got)
	}
	if err := os.RemoveAll(filepath.Join(s.dir, trustedCerts)); err != nil {
		t.Fatal(err)
	}
	if got := s.Verify(p.Raw); got != ua.StatusBadCertificateUntrusted {
		t.Errorf("without the folder: %v", got)
	}
}

func TestRejectedAreBounded(t *testing.T) {
	s := open(t, Options{})
	signer := smallKey(t)
	var first, last string
	for i := range MaxRejected + 10 {
		p := make509(t, fmt.Sprintf("stranger %d", i), nil, signer)
		if i == 0 {
			first = Fingerprint(p.Raw) + ".der"
		}
		last = Fingerprint(p.Raw) + ".der"
		s.Verify(p.Raw)
		if i == 0 { // The files' times are of the same moment otherwise.
			old := time.Now().Add(-time.Hour)
			if err := os.Chtimes(filepath.Join(s.dir, rejectedCerts, first), old, old); err != nil {
				t.Fatal(err)
			}
		}
		if i%MaxRejectedPerMinute == MaxRejectedPerMinute-1 {
			s.now = s.now.Add(time.Minute)
		}
	}
	s.now = now
	got := s.files(t, rejectedCerts)
	if len(got) != MaxRejected || slices.Contains(got, first) || !slices.Contains(got, last) {
		t.Errorf("%d are kept; the oldest %v, the newest %v", len(got), slices.Contains(got, first), slices.Contains(got, last))
	}
}

func TestStrangersWriteSlowly(t *testing.T) {
	s := open(t, Options{})
	signer := smallKey(t)
	flood := func() {
		for range 2 * MaxRejectedPerMinute {
			if got := s.Verify(make509(t, "stranger", nil, signer).Raw); got != ua.StatusBadCertificateUntrusted {
				t.Fatal(got)
			}
		}
	}
	flood()
	if got := len(s.files(t, rejectedCerts)); got != MaxRejectedPerMinute {
		t.Errorf("%d written in the first minute", got)
	}
	s.now = s.now.Add(time.Minute)
	flood()
	if got := len(s.files(t, rejectedCerts)); got != 2*MaxRejectedPerMinute {
		t.Errorf("%d written in two minutes", got)
	}
}

func TestMovingWhatIsNotThere(t *testing.T) {
	s := open(t, Options{})
	p := make509(t, "client", nil, keys[0]())
	if _, err := s.Trust(Fingerprint(p.Raw)); !errors.Is(err, ErrUnknown) {
		t.Error(err)
	}
	if _, err := s.Trust(Fingerprint(p.Raw)[:minPrefix-1]); err == nil || !strings.Contains(err.Error(), "less than") {
		t.Error(err)
	}
	s.Verify(p.Raw)
	s.put(t, rejectedCerts, "copy", p.Raw)
	if _, err := s.Trust(Fingerprint(p.Raw)); err != nil {
		t.Error(err)
	}
	if got := s.files(t, rejectedCerts); len(got) != 0 {
		t.Errorf("a copy is left: %v", got)
	}
	other := make509(t, "other", nil, keys[1]())
	s.Verify(other.Raw)
	if _, err := s.Add([]byte("x")); err == nil {
		t.Error("nonsense was added")
	}
	if e, err := s.Add(other.Raw); err != nil || e.State != Trusted || len(s.files(t, rejectedCerts)) != 0 {
		t.Errorf("%+v, %v", e, err)
	}
	if got := s.Verify(other.Raw); got != ua.StatusOK {
		t.Error(got)
	}
}
