package login

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

// certificatePrefix begins the last field of who logs in by certificate.
const certificatePrefix = "x509-sha256="

// list is what a file holds. It is never modified.
type list struct {
	passwords    map[string]passwordEntry
	certificates map[string]User
}

type passwordEntry struct {
	User
	hash hash
}

// readList reads a file. One that isn't there is empty.
func readList(file string, roles []string) (*list, error) {
	content, err := readFile(file)
	if err != nil {
		return nil, err
	}
	l, err := parseList(content, roles)
	if err != nil {
		return nil, fmt.Errorf("login: %s: %w", file, err)
	}
	return l, nil
}

func readFile(file string) ([]byte, error) {
	f, err := os.Open(file)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("login: %w", err)
	}
	content, readErr := io.ReadAll(io.LimitReader(f, MaxFileBytes+1))
	if err := errors.Join(readErr, f.Close()); err != nil {
		return nil, fmt.Errorf("login: %w", err)
	}
	if len(content) > MaxFileBytes {
		return nil, fmt.Errorf("login: %s is larger than %d bytes", file, MaxFileBytes)
	}
	return content, nil
}

// parseList parses lines; blank ones and those that begin with # say nothing.
func parseList(content []byte, roles []string) (*list, error) {
	l := &list{passwords: map[string]passwordEntry{}, certificates: map[string]User{}}
	number := 0
	for line := range strings.Lines(string(content)) {
		number++
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' {
			continue
		}
		if len(l.passwords)+len(l.certificates) == MaxUsers {
			return nil, fmt.Errorf("line %d: more than %d users", number, MaxUsers)
		}
		if err := l.add(line, roles); err != nil {
			return nil, fmt.Errorf("line %d: %w", number, err)
		}
	}
	return l, nil
}

// add adds a line. Its errors don't quote what could be a secret.
func (l *list) add(line string, roles []string) error {
	fields := strings.Split(line, ":")
	if len(fields) != 3 {
		return errors.New("is not NAME:ROLE:SECRET")
	}
	user := User{Name: fields[0], Role: fields[1]}
	if err := user.check(roles); err != nil {
		return err
	}
	if fingerprint, ok := strings.CutPrefix(fields[2], certificatePrefix); ok {
		if b, err := hex.DecodeString(fingerprint); err != nil || len(b) != 32 || strings.ToLower(fingerprint) != fingerprint {
			return errors.New("the certificate's SHA-256 is not 64 lower-case hex digits")
		}
		if _, twice := l.certificates[fingerprint]; twice {
			return errors.New("the certificate is that of another line too")
		}
		l.certificates[fingerprint] = user
		return nil
	}
	h, err := parseHash(fields[2])
	if err != nil {
		return fmt.Errorf("the hash %w", err)
	}
	if _, twice := l.passwords[user.Name]; twice {
		return fmt.Errorf("%s has a password already", user.Name)
	}
	l.passwords[user.Name] = passwordEntry{user, h}
	return nil
}

func (u User) check(roles []string) error {
	if u.Name == "" || len(u.Name) > MaxNameBytes || !utf8.ValidString(u.Name) || u.Name[0] == '#' || strings.TrimSpace(u.Name) != u.Name ||
		strings.ContainsFunc(u.Name, func(r rune) bool { return r == ':' || !unicode.IsPrint(r) }) {
		return fmt.Errorf("name: want 1 to %d bytes of printable characters without a colon, got %q", MaxNameBytes, u.Name)
	}
	if !slices.Contains(roles, u.Role) {
		return fmt.Errorf("role: want one of %s, got %q", strings.Join(roles, ", "), u.Role)
	}
	return nil
}

// Entry is a line of the file.
type Entry struct {
	User
	// Fingerprint is that of the certificate by which the user logs in; empty for a password.
	Fingerprint string
}

// List returns the users of a file, by name.
func List(file string, roles []string) ([]Entry, error) {
	l, err := readList(file, roles)
	if err != nil {
		return nil, err
	}
	var entries []Entry
	for _, e := range l.passwords {
		entries = append(entries, Entry{User: e.User})
	}
	for fingerprint, user := range l.certificates {
		entries = append(entries, Entry{user, fingerprint})
	}
	slices.SortFunc(entries, func(a, b Entry) int {
		return strings.Compare(a.Name+"\x00"+a.Fingerprint, b.Name+"\x00"+b.Fingerprint)
	})
	return entries, nil
}

// Add gives a user a password, and a role in place of the one before, if there was any. The rest of the file stays as it is.
func Add(file string, roles []string, user User, password []byte) error {
	if len(password) < MinPasswordBytes || len(password) > MaxPasswordBytes {
		return fmt.Errorf("login: password: want %d to %d bytes, got %d", MinPasswordBytes, MaxPasswordBytes, len(password))
	}
	return put(file, roles, user, newHash(password).String(), func(line string) bool {
		return strings.HasPrefix(line, user.Name+":") && !strings.Contains(line, ":"+certificatePrefix)
	})
}

// AddCertificate lets a user log in by the certificate of that SHA-256, in lower-case hex.
func AddCertificate(file string, roles []string, user User, fingerprint string) error {
	secret := certificatePrefix + fingerprint
	return put(file, roles, user, secret, func(line string) bool { return strings.HasSuffix(line, ":"+secret) })
}

func put(file string, roles []string, user User, secret string, replaces func(line string) bool) error {
	if err := user.check(roles); err != nil {
		return fmt.Errorf("login: %w", err)
	}
	return rewrite(file, roles, func(lines []string) ([]string, error) {
		return append(slices.DeleteFunc(lines, replaces), user.Name+":"+user.Role+":"+secret), nil
	})
}

// ErrUnknown says that there is no user of that name.
var ErrUnknown = errors.New("no such user")

// Remove removes all lines of a user.
func Remove(file string, roles []string, name string) error {
	return rewrite(file, roles, func(lines []string) ([]string, error) {
		left := slices.DeleteFunc(slices.Clone(lines), func(line string) bool { return strings.HasPrefix(line, name+":") })
		if len(left) == len(lines) || name == "" {
			return nil, fmt.Errorf("login: %q: %w", name, ErrUnknown)
		}
		return left, nil
	})
}

// rewrite replaces a file by one with other lines, whole or not at all. Neither may have a mistake.
func rewrite(file string, roles []string, change func(lines []string) ([]string, error)) error {
	content, err := readFile(file)
	if err != nil {
		return err
	}
	if _, err := parseList(content, roles); err != nil {
		return fmt.Errorf("login: %s: %w", file, err)
	}
	var lines []string
	for line := range strings.Lines(string(content)) {
		lines = append(lines, strings.TrimSpace(line))
	}
	if lines, err = change(lines); err != nil {
		return err
	}
	content = []byte(strings.Join(append(lines, ""), "\n"))
	if _, err := parseList(content, roles); err != nil {
		return fmt.Errorf("login: %w", err)
	}
	return replace(file, content)
}

// replace writes a file that only its owner may read, under another name first.
func replace(file string, content []byte) error {
	dir := filepath.Dir(file)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("login: %w", err)
	}
	temporary, err := os.CreateTemp(dir, ".new-*") // Readable by its owner alone.
	if err != nil {
		return fmt.Errorf("login: %w", err)
	}
	_, copyErr := io.Copy(temporary, bytes.NewReader(content))
	err = errors.Join(copyErr, temporary.Sync(), temporary.Close())
	if err == nil {
		err = os.Rename(temporary.Name(), file)
	}
	if err != nil {
		return fmt.Errorf("login: %w", errors.Join(err, os.Remove(temporary.Name())))
	}
	return nil
}
