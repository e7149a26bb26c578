// Package login knows the users of an OPC UA server: who they are, what they may do, and how they prove it.
//
// Users stand in a file, one on each line, which [Add], [Remove] and any editor may change while the server runs:
//
//	NAME:ROLE:$argon2id$v=19$m=19456,t=2,p=1$SALT$KEY   logs in by password
//	NAME:ROLE:x509-sha256=FINGERPRINT                   logs in by the certificate of that SHA-256
//
// Guessing passwords is made slow, and must not make anything else slow. A password is compared with argon2id (RFC 9106), one at
// a time, so that logins take one processor at most; others wait in a short queue. After some failures, an address has to
// wait longer and longer, and so has everyone who tries the same name; for names the longest wait is short, since otherwise a
// stranger could keep a user out. Refusals for any of these reasons look the same.
//
// Passwords that were right are remembered as a keyed hash, in memory only, so that a thousand sessions of one user that come
// back after a failover cost one argon2.
package login

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"sync"
	"time"
)

// The limits of logins.
const (
	// MaxFileBytes and MaxUsers bound the file.
	MaxFileBytes = 1 << 20
	MaxUsers     = 4_000
	// MaxNameBytes and MaxPasswordBytes bound a user's name and password.
	MaxNameBytes     = 256
	MaxPasswordBytes = 1024
	// MinPasswordBytes is the least that Add takes.
	MinPasswordBytes = 8
	// MaxHashWait is how long a login waits for its turn until it is told that the server is busy.
	MaxHashWait = 3 * time.Second
	// maxRemembered bounds the passwords that are remembered to be right.
	maxRemembered = 1_024
)

var (
	// ErrDenied says that there is no such user with such a password, or that it can't be tried yet.
	ErrDenied = errors.New("login: denied")
	// ErrBusy says that too many are logging in.
	ErrBusy = errors.New("login: too many are logging in")
)

// User is somebody who may log in.
type User struct {
	Name, Role string
}

// Options are how users are judged. Roles is required.
type Options struct {
	// Roles are the names that a line may have as role.
	Roles []string
	// Logger gets what an administrator should know, never a secret; nil is silence.
	Logger *slog.Logger
	// Now is the clock of the delays; nil means time.Now.
	Now func() time.Time
}

// Users are the users of a file. They may be used by many goroutines.
type Users struct {
	file string
	o    Options
	turn chan struct{} // held by whoever calculates an argon2

	addresses, names *guard

	mu         sync.Mutex
	seen       os.FileInfo // what was on disk when it was last read, well or badly; nil if nothing was
	list       *list
	secret     [sha256.Size]byte // the key of what is remembered
	remembered map[[sha256.Size]byte]struct{}
}

// Open reads the users of a file. One that isn't there has no users, and may be made later. The error names the line that is wrong.
func Open(file string, o Options) (*Users, error) {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	u := &Users{
		file: file, o: o, turn: make(chan struct{}, 1), list: &list{}, remembered: map[[sha256.Size]byte]struct{}{},
		addresses: newGuard(freeAddressFailures, maxAddressDelay), names: newGuard(freeNameFailures, maxNameDelay),
	}
	_, _ = rand.Read(u.secret[:]) // Never fails; see crypto/rand.
	u.seen, _ = os.Stat(file)
	l, err := readList(file, o.Roles)
	if err != nil {
		return nil, err
	}
	u.list = l
	return u, nil
}

// current returns the users of now: the file is looked at, and read again if it is another. One that has a mistake is
// refused as a whole, and the users before stay.
func (u *Users) current() *list {
	u.mu.Lock()
	defer u.mu.Unlock()
	seen, err := os.Stat(u.file)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return u.list
	}
	if same(seen, u.seen) {
		return u.list
	}
	u.seen = seen
	l, err := readList(u.file, u.o.Roles)
	if err != nil {
		u.o.Logger.Error("the changed list of users is refused, the one before stays in use", "error", err)
		return u.list
	}
	u.list = l
	return l
}

func same(a, b os.FileInfo) bool {
	if a == nil || b == nil {
		return a == nil && b == nil
	}
	return os.SameFile(a, b) && a.ModTime().Equal(b.ModTime()) && a.Size() == b.Size()
}

// Password returns the user of that name and password. address is where the attempt comes from: HOST or HOST:PORT. The
// error is ErrDenied or ErrBusy.
func (u *Users) Password(name string, password []byte, address string) (User, error) {
	address = addressKey(address)
	if len(name) > MaxNameBytes || len(password) > MaxPasswordBytes || !u.mayTry(name, address) {
		return User{}, ErrDenied
	}
	entry, known := u.current().passwords[name]
	key := u.memory(name, password, entry)
	if known && u.remembers(key) {
		return entry.User, nil
	}
	wait := time.NewTimer(MaxHashWait)
	defer wait.Stop()
	select {
	case u.turn <- struct{}{}:
		defer func() { <-u.turn }()
	case <-wait.C:
		return User{}, ErrBusy
	}
	// Whoever was before may have failed at the same name: nobody gets more tries by making them at once.
	if !u.mayTry(name, address) {
		return User{}, ErrDenied
	}
	hash := entry.hash
	if !known {
		hash = nobody // Takes as long, so that it can't be told whether there is such a user.
	}
	if right := hash.matches(password); !right || !known {
		now := u.o.Now()
		u.addresses.failed(address, now)
		u.names.failed(name, now)
		u.o.Logger.Warn("a login was refused", "user", name, "address", address)
		return User{}, ErrDenied
	}
	u.names.forget(name)
	// The address is not forgiven: it could have an account of its own to log in to between guesses at others.
	u.remember(key)
	return entry.User, nil
}

func (u *Users) mayTry(name, address string) bool {
	now := u.o.Now()
	return u.addresses.open(address, now) && u.names.open(name, now)
}

// Certificate returns the user of a certificate by its SHA-256 in lower-case hex. Whether the certificate itself is good is for others
// to say.
func (u *Users) Certificate(fingerprint string) (User, bool) {
	user, ok := u.current().certificates[fingerprint]
	return user, ok
}

// memory is by what a password that was right is remembered. The hash is in it, so a password that was changed is forgotten.
func (u *Users) memory(name string, password []byte, e passwordEntry) (key [sha256.Size]byte) {
	mac := hmac.New(sha256.New, u.secret[:])
	for _, part := range [][]byte{[]byte(name), e.hash.salt, e.hash.key, password} {
		sum := sha256.Sum256(part) // Of equal length, so that no two lists of parts look the same.
		mac.Write(sum[:])
	}
	mac.Sum(key[:0])
	return key
}

func (u *Users) remembers(key [sha256.Size]byte) bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	_, ok := u.remembered[key]
	return ok
}

func (u *Users) remember(key [sha256.Size]byte) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if len(u.remembered) >= maxRemembered {
		clear(u.remembered)
	}
	u.remembered[key] = struct{}{}
}
