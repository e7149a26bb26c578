package pki

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// newAuthority makes an authority of site demo in a directory of its own.
func newAuthority(t *testing.T) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "pki")
	if err := Init(dir, "demo"); err != nil {
		t.Fatal(err)
	}
	return dir
}

func mustIssue(t *testing.T, dir string, request IssueRequest) (certFile, keyFile string) {
	t.Helper()
	certFile, keyFile, err := Issue(dir, request)
	if err != nil {
		t.Fatal(err)
	}
	return certFile, keyFile
}

func leafOf(t *testing.T, certFile string) *x509.Certificate {
	t.Helper()
	certificates, err := readCertificates(certFile)
	if err != nil {
		t.Fatal(err)
	}
	return certificates[0]
}

func TestInitMakesAnAuthorityThatSignsOnlyLeaves(t *testing.T) {
	dir := newAuthority(t)
	authority := leafOf(t, filepath.Join(dir, AuthorityFile))
	public, ok := authority.PublicKey.(*ecdsa.PublicKey)
	if !ok || public.Curve != elliptic.P256() {
		t.Errorf("key is %T, want ECDSA P-256", authority.PublicKey)
	}
	if !authority.IsCA || authority.MaxPathLen != 0 || !authority.MaxPathLenZero {
		t.Errorf("IsCA %v, path length %d: want an authority with path length 0", authority.IsCA, authority.MaxPathLen)
	}
	if authority.KeyUsage != x509.KeyUsageCertSign|x509.KeyUsageCRLSign {
		t.Errorf("key usage %b", authority.KeyUsage)
	}
	assertMode(t, filepath.Join(dir, authorityKeyFile), 0o600)
	assertMode(t, dir, 0o700|fs.ModeDir)
}

func TestInitRefusesWhatItWouldReplace(t *testing.T) {
	dir := newAuthority(t)
	before := leafOf(t, filepath.Join(dir, AuthorityFile))
	if err := Init(dir, "demo"); !errors.Is(err, fs.ErrExist) {
		t.Fatalf("second Init: %v, want ErrExist", err)
	}
	if after := leafOf(t, filepath.Join(dir, AuthorityFile)); !after.Equal(before) {
		t.Error("the authority changed")
	}
	// A key whose certificate was lost is not replaced either: what it signed is still out there.
	if err := os.Remove(filepath.Join(dir, AuthorityFile)); err != nil {
		t.Fatal(err)
	}
	if err := Init(dir, "demo"); !errors.Is(err, fs.ErrExist) {
		t.Fatalf("Init over a lone key: %v, want ErrExist", err)
	}
}

func TestInitRefusesBadSites(t *testing.T) {
	for _, site := range []string{"", "Demo", "a/b", "a..b", ".a", "a.", "-a", "a_b", "a b", strings.Repeat("a", maxSiteBytes+1)} {
		dir := filepath.Join(t.TempDir(), "pki")
		if err := Init(dir, site); err == nil || !strings.Contains(err.Error(), "site") {
			t.Errorf("Init(%q) = %v, want an error that names the site", site, err)
		}
		if _, err := os.Stat(dir); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("Init(%q) left something behind", site)
		}
	}
}

func TestIssueMember(t *testing.T) {
	dir := newAuthority(t)
	now := time.Now()
	certFile, keyFile := mustIssue(t, dir, IssueRequest{Member: "m1", Hosts: []string{"m1.plant", "127.0.0.1", "::1"}, Now: now})
	leaf := leafOf(t, certFile)
	if got := leaf.URIs[0].String(); got != "spiffe://demo/member/m1" {
		t.Errorf("URI name %q", got)
	}
	if !slices.Equal(leaf.DNSNames, []string{"m1.plant"}) || len(leaf.IPAddresses) != 2 {
		t.Errorf("names %v, addresses %v", leaf.DNSNames, leaf.IPAddresses)
	}
	if !slices.Contains(leaf.ExtKeyUsage, x509.ExtKeyUsageServerAuth) || !slices.Contains(leaf.ExtKeyUsage, x509.ExtKeyUsageClientAuth) {
		t.Errorf("extended key usages %v: a member is both server and client", leaf.ExtKeyUsage)
	}
	if leaf.IsCA || leaf.KeyUsage != x509.KeyUsageDigitalSignature {
		t.Errorf("IsCA %v, key usage %b", leaf.IsCA, leaf.KeyUsage)
	}
	if want := now.Add(DefaultValidity); leaf.NotAfter.Sub(want).Abs() > time.Second {
		t.Errorf("valid until %s, want %s", leaf.NotAfter, want)
	}
	assertMode(t, keyFile, 0o600)
	identity, err := IdentityOf(leaf)
	if err != nil || identity != (Identity{Site: "demo", Name: "m1", Role: RoleViewer, Member: true}) {
		t.Errorf("identity %+v, %v", identity, err)
	}
}

func TestIssuePerson(t *testing.T) {
	dir := newAuthority(t)
	certFile, keyFile := mustIssue(t, dir, IssueRequest{Person: "alice", Role: RoleOperator})
	leaf := leafOf(t, certFile)
	if got := leaf.URIs[0].String(); got != "spiffe://demo/role/operator" {
		t.Errorf("URI name %q", got)
	}
	if !slices.Equal(leaf.ExtKeyUsage, []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}) {
		t.Errorf("extended key usages %v: a person is no server", leaf.ExtKeyUsage)
	}
	assertMode(t, keyFile, 0o600)
	identity, err := IdentityOf(leaf)
	if err != nil || identity != (Identity{Site: "demo", Name: "alice", Role: RoleOperator}) {
		t.Errorf("identity %+v, %v", identity, err)
	}
}

func TestIssueRefusesBadRequests(t *testing.T) {
	dir := newAuthority(t)
	tooMany := slices.Repeat([]string{"h"}, MaxHosts+1)
	for name, test := range map[string]struct {
		request IssueRequest
		want    string
	}{
		"nobody":            {IssueRequest{}, "one of member and person"},
		"both":              {IssueRequest{Member: "m1", Person: "alice"}, "exclude"},
		"member form":       {IssueRequest{Member: "../m1"}, "member"},
		"member case":       {IssueRequest{Member: "M1"}, "member"},
		"member with role":  {IssueRequest{Member: "m1", Role: RoleViewer}, "role"},
		"person form":       {IssueRequest{Person: "a/b", Role: RoleViewer}, "person"},
		"person too long":   {IssueRequest{Person: strings.Repeat("a", 65), Role: RoleViewer}, "person"},
		"person, no role":   {IssueRequest{Person: "alice"}, "role"},
		"unknown role":      {IssueRequest{Person: "alice", Role: 9}, "role"},
		"person with hosts": {IssueRequest{Person: "alice", Role: RoleViewer, Hosts: []string{"h"}}, "hosts"},
		"bad host":          {IssueRequest{Member: "m1", Hosts: []string{"ok", "no way"}}, "hosts[1]"},
		"long host":         {IssueRequest{Member: "m1", Hosts: []string{strings.Repeat("a.", 127) + "a"}}, "hosts[0]"},
		"too many hosts":    {IssueRequest{Member: "m1", Hosts: tooMany}, "hosts"},
		"short validity":    {IssueRequest{Member: "m1", Validity: time.Second}, "validity"},
		"negative validity": {IssueRequest{Member: "m1", Validity: -time.Hour}, "validity"},
		"after authority":   {IssueRequest{Member: "m1", Now: time.Now().Add(2 * AuthorityValidity)}, "authority expired"},
	} {
		t.Run(name, func(t *testing.T) {
			if _, _, err := Issue(dir, test.request); err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("%v, want an error with %q", err, test.want)
			}
		})
	}
	if listed, err := List(dir); err != nil || len(listed) != 1 {
		t.Errorf("%d certificates, %v: refused requests left some behind", len(listed), err)
	}
	mustIssue(t, dir, IssueRequest{Member: "m1", Hosts: tooMany[:MaxHosts]})
}

func TestIssueNeverReplaces(t *testing.T) {
	dir := newAuthority(t)
	certFile, keyFile := mustIssue(t, dir, IssueRequest{Member: "m1"})
	cert, key := content(t, certFile), content(t, keyFile)
	if _, _, err := Issue(dir, IssueRequest{Member: "m1"}); !errors.Is(err, fs.ErrExist) {
		t.Fatalf("second Issue: %v, want ErrExist", err)
	}
	if content(t, certFile) != cert || content(t, keyFile) != key {
		t.Error("the files changed")
	}
	// A person of the same name is somebody else.
	mustIssue(t, dir, IssueRequest{Person: "m1", Role: RoleViewer})
	for _, sub := range []string{".", membersDir, peopleDir} {
		if left, _ := filepath.Glob(filepath.Join(dir, sub, ".new-*")); len(left) > 0 {
			t.Errorf("temporary files left: %v", left)
		}
	}
}

func TestIssueNeedsTheAuthoritysKey(t *testing.T) {
	if _, _, err := Issue(t.TempDir(), IssueRequest{Member: "m1"}); err == nil || !strings.Contains(err.Error(), "quorate pki init") {
		t.Errorf("without an authority: %v", err)
	}
	dir, other := newAuthority(t), newAuthority(t)
	if err := os.Rename(filepath.Join(other, authorityKeyFile), filepath.Join(dir, authorityKeyFile)); err != nil {
		t.Fatal(err)
	}
	if _, _, err := Issue(dir, IssueRequest{Member: "m1"}); err == nil || !strings.Contains(err.Error(), "not the authority's") {
		t.Errorf("with another's key: %v", err)
	}
}

func TestIssueNeverOutlastsTheAuthority(t *testing.T) {
	dir := newAuthority(t)
	authority := leafOf(t, filepath.Join(dir, AuthorityFile))
	certFile, _ := mustIssue(t, dir, IssueRequest{Member: "m1", Validity: 2 * AuthorityValidity})
	if leaf := leafOf(t, certFile); leaf.NotAfter.After(authority.NotAfter) {
		t.Errorf("valid until %s, the authority only until %s", leaf.NotAfter, authority.NotAfter)
	}
}

func TestList(t *testing.T) {
	dir := newAuthority(t)
	mustIssue(t, dir, IssueRequest{Person: "bob", Role: RoleAdministrator})
	mustIssue(t, dir, IssueRequest{Member: "m2", Hosts: []string{"m2.plant", "127.0.0.1"}})
	mustIssue(t, dir, IssueRequest{Member: "m1"})
	listed, err := List(dir)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, item := range listed {
		got = append(got, fmt.Sprint(item.Identity.Site, " ", item.Identity.Name, " ", item.Identity.Role, " ", item.Identity.Member, item.Hosts))
	}
	want := []string{
		"demo  none false []", "demo m1 viewer true []", "demo m2 viewer true [m2.plant 127.0.0.1]", "demo bob administrator false []",
	}
	if !slices.Equal(got, want) {
		t.Errorf("got  %q\nwant %q", got, want)
	}
	if !listed[0].Authority || listed[1].Authority || listed[1].Serial == "" || listed[1].Serial == listed[2].Serial {
		t.Errorf("listed %+v", listed)
	}
}

func TestListHasALimit(t *testing.T) {
	dir := newAuthority(t)
	certFile, _ := mustIssue(t, dir, IssueRequest{Member: "m1"})
	for i := range MaxListed - 2 {
		if err := os.Link(certFile, filepath.Join(dir, membersDir, fmt.Sprintf("x%d.pem", i))); err != nil {
			t.Fatal(err)
		}
	}
	if listed, err := List(dir); err != nil || len(listed) != MaxListed {
		t.Fatalf("%d listed, %v: want %d", len(listed), err, MaxListed)
	}
	mustIssue(t, dir, IssueRequest{Member: "m2"})
	if _, err := List(dir); err == nil || !strings.Contains(err.Error(), "more than") {
		t.Errorf("beyond the limit: %v", err)
	}
}

func TestFilesHaveALimit(t *testing.T) {
	file := filepath.Join(t.TempDir(), "f")
	if err := os.WriteFile(file, make([]byte, MaxFileBytes), 0o600); err != nil {
		t.Fatal(err)
	}
	if b, err := readFile(file); err != nil || len(b) != MaxFileBytes {
		t.Fatalf("%d bytes, %v", len(b), err)
	}
	if err := os.WriteFile(file, make([]byte, MaxFileBytes+1), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := readFile(file); err == nil || !strings.Contains(err.Error(), "larger") {
		t.Errorf("beyond the limit: %v", err)
	}
}

func assertMode(t *testing.T, file string, want fs.FileMode) {
	t.Helper()
	info, err := os.Stat(file)
	if err != nil {
		t.Fatal(err)
	}
	if info.Mode() != want {
		t.Errorf("%s has mode %v, want %v", file, info.Mode(), want)
	}
}

func content(t *testing.T, file string) string {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}
