package login

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var (
	roles = []string{"viewer", "operator"}
	ada   = User{"ada", "operator"}
)

const (
	right = "lovelace"
	home  = "192.0.2.1:40000"
)

// adaHash is made once: it takes long, most of all under the race detector.
var adaHash = sync.OnceValue(func() string { return newHash([]byte(right)).String() })

// cheapHash is what other tools might write, and fast.
func cheapHash() string { return hash{8, 1, 1, make([]byte, 8), make([]byte, 8)}.String() }

// opened are users whose clock the test sets.
type opened struct {
	*Users
	now time.Time
}

func open(t *testing.T, lines ...string) *opened {
	t.Helper()
	file := filepath.Join(t.TempDir(), "users")
	if err := os.WriteFile(file, []byte(strings.Join(lines, "\n")), 0o600); err != nil {
		t.Fatal(err)
	}
	u := &opened{now: time.Now()}
	var err error
	if u.Users, err = Open(file, Options{Roles: roles, Now: func() time.Time { return u.now }}); err != nil {
		t.Fatal(err)
	}
	return u
}

func (u *opened) try(t *testing.T, name, password, address string, want error) {
	t.Helper()
	got, err := u.Password(name, []byte(password), address)
	if !errors.Is(err, want) || err == nil && got.Name != name {
		t.Errorf("%s from %s: %v, %v, want %v", name, address, got, err, want)
	}
}

func TestPasswords(t *testing.T) {
	u := open(t, "# People of the plant", "", "ada:operator:"+adaHash(), "bob:viewer:"+certificatePrefix+strings.Repeat("0a", 32))
	if got, err := u.Password("ada", []byte(right), home); err != nil || got != ada {
		t.Errorf("%v, %v", got, err)
	}
	u.try(t, "ada", "byron", home, ErrDenied)
	u.try(t, "bob", "", home, ErrDenied)
	u.try(t, "eve", right, home, ErrDenied)
	u.try(t, "", right, home, ErrDenied)
	u.try(t, strings.Repeat("n", MaxNameBytes+1), right, home, ErrDenied)
	u.try(t, "ada", strings.Repeat("p", MaxPasswordBytes+1), home, ErrDenied)
	if got, ok := u.Certificate(strings.Repeat("0a", 32)); !ok || got != (User{"bob", "viewer"}) {
		t.Errorf("%v, %v", got, ok)
	}
	if _, ok := u.Certificate(strings.Repeat("0b", 32)); ok {
		t.Error("an unknown certificate is somebody's")
	}
}

func TestFileIsReadAgain(t *testing.T) {
	file := filepath.Join(t.TempDir(), "below", "users")
	u, err := Open(file, Options{Roles: roles})
	if err != nil {
		t.Fatal(err)
	}
	try := func(password string, want error) {
		t.Helper()
		if _, err := u.Password("ada", []byte(password), home); !errors.Is(err, want) {
			t.Errorf("%q: %v, want %v", password, err, want)
		}
	}
	try(right, ErrDenied)
	if err := Add(file, roles, ada, []byte(right)); err != nil {
		t.Fatal(err)
	}
	try(right, nil)
	try(right, nil) // From memory.
	if len(u.remembered) != 1 {
		t.Errorf("%d remembered", len(u.remembered))
	}
	if err := os.WriteFile(file, []byte("ada:king:nonsense"), 0o600); err != nil {
		t.Fatal(err)
	}
	try(right, nil) // The list before stays.
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	if err := Add(file, roles, ada, []byte("countess")); err != nil {
		t.Fatal(err)
	}
	try(right, ErrDenied)
	try("countess", nil)
	if err := Remove(file, roles, "ada"); err != nil {
		t.Fatal(err)
	}
	try("countess", ErrDenied)
}

func TestGuessingAtANameIsDelayed(t *testing.T) {
	u := open(t, "ada:operator:"+adaHash())
	from := func(i int) string { return fmt.Sprintf("192.0.2.%d:1", i) } // Each time from elsewhere.
	u.try(t, "ada", right, home, nil)
	for i := range freeNameFailures + 1 {
		u.try(t, "ada", "guess", from(i), ErrDenied)
	}
	u.try(t, "ada", right, home, ErrDenied) // Even if it is right, so that a guess can't be told to be.
	u.now = u.now.Add(firstDelay)
	u.try(t, "ada", "guess", from(100), ErrDenied)
	u.now = u.now.Add(firstDelay)
	u.try(t, "ada", right, home, ErrDenied) // It has doubled.
	u.now = u.now.Add(firstDelay)
	u.try(t, "ada", right, home, nil)
}

func TestGuessingFromAnAddressIsDelayed(t *testing.T) {
	u := open(t, "ada:operator:"+adaHash())
	for i := range freeAddressFailures + 1 {
		u.try(t, fmt.Sprintf("user%d", i), "guess", fmt.Sprintf("[2001:db8::%d]:%d", i, i), ErrDenied)
	}
	u.try(t, "ada", right, "[2001:db8::ffff]:1", ErrDenied)
	u.try(t, "ada", right, "[2001:db8:1::1]:1", nil)
	u.now = u.now.Add(firstDelay)
	u.try(t, "ada", right, "[2001:db8::ffff]:1", nil)
}

func TestDelaysAreBounded(t *testing.T) {
	g, now := newGuard(1, 10*time.Second), time.Now()
	for range 1000 {
		g.failed("k", now)
	}
	if g.open("k", now.Add(10*time.Second-1)) || !g.open("k", now.Add(10*time.Second)) {
		t.Error("the longest delay is another")
	}
	g.failed("k", now.Add(forgetAfter))
	if !g.open("k", now.Add(forgetAfter)) {
		t.Error("what is long ago still counts")
	}
	g = newGuard(1, time.Second)
	for i := range 2 * maxTracked {
		g.failed(fmt.Sprint(i), now.Add(time.Duration(i)))
	}
	if _, oldest := g.byKey[fmt.Sprint(maxTracked-1)]; len(g.byKey) != maxTracked || oldest {
		t.Errorf("%d tracked, the oldest %v", len(g.byKey), oldest)
	}
	g.failed("late", now.Add(2*forgetAfter))
	if len(g.byKey) != 1 {
		t.Errorf("%d tracked after a long time", len(g.byKey))
	}
}

func TestLoginsTakeTurns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		u := open(t, "ada:operator:"+adaHash())
		u.turn <- struct{}{} // Somebody's argon2 takes for ever.
		start := time.Now()
		u.try(t, "ada", right, home, ErrBusy)
		if waited := time.Since(start); waited != MaxHashWait {
			t.Errorf("waited %v", waited)
		}
		<-u.turn
		u.try(t, "ada", right, home, nil)
		u.turn <- struct{}{}
		u.try(t, "ada", right, home, nil) // What is remembered needs no turn.
		<-u.turn
	})
}

func TestTriesAtOnceCountOneByOne(t *testing.T) {
	u := open(t, "ada:operator:"+adaHash())
	var all sync.WaitGroup
	for i := range 3 * freeNameFailures {
		all.Go(func() { _, _ = u.Password("ada", []byte("guess"), fmt.Sprintf("192.0.2.%d", i)) })
	}
	all.Wait()
	if got := u.names.byKey["ada"].count; got != freeNameFailures+1 {
		t.Errorf("%d tries, want %d before the first delay", got, freeNameFailures+1)
	}
}

func TestMemoryIsBounded(t *testing.T) {
	u := open(t)
	for i := range maxRemembered + 1 {
		u.remember([32]byte{byte(i), byte(i >> 8)})
	}
	if len(u.remembered) != 1 {
		t.Errorf("%d remembered", len(u.remembered))
	}
}

func TestAddressKeys(t *testing.T) {
	for address, want := range map[string]string{
		"192.0.2.1:80": "192.0.2.1", "192.0.2.1": "192.0.2.1", "[::ffff:192.0.2.1]:80": "192.0.2.1",
		"[2001:db8::1]:80": "2001:db8::/64", "[fe80::1%eth0]:80": "fe80::/64", "pipe": "pipe",
	} {
		if got := addressKey(address); got != want {
			t.Errorf("%s: %s, want %s", address, got, want)
		}
	}
}
