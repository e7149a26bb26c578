package login

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestMistakesAreNamed(t *testing.T) {
	print64 := strings.Repeat("ab", 32)
	for line, want := range map[string]string{
		"ada":                                    "line 1: is not NAME:ROLE:SECRET",
		"ada:viewer:a:b":                         "line 1: is not NAME:ROLE:SECRET",
		":viewer:" + cheapHash():                 "name: want",
		"a\x00b:viewer:" + cheapHash():           "name: want",
		strings.Repeat("n", 257) + ":viewer:x":   "name: want",
		"ada:king:" + cheapHash():                `role: want one of viewer, operator, got "king"`,
		"ada:viewer:secret":                      "the hash is not of the form",
		"ada:viewer:$argon2i$v=19$m=8,t=1,p=1$A": "the hash is not of the form",
		"ada:viewer:$argon2id$v=18$m=8,t=1,p=1$AAAAAAAAAAA$AAAAAAAAAAA":         "the hash is not of the form",
		"ada:viewer:$argon2id$v=19$m=8,t=1,p=01$AAAAAAAAAAA$AAAAAAAAAAA":        "the hash is not of the form",
		"ada:viewer:$argon2id$v=19$m=8,t=1,p=1$AAAA$AAAAAAAAAAA":                "the hash is not of the form",
		"ada:viewer:$argon2id$v=19$m=131073,t=1,p=1$AAAAAAAAAAA$AAAAAAAAAAA":    "the hash asks for more than",
		"ada:viewer:$argon2id$v=19$m=8,t=9,p=1$AAAAAAAAAAA$AAAAAAAAAAA":         "the hash asks for more than",
		"ada:viewer:$argon2id$v=19$m=8,t=1,p=0$AAAAAAAAAAA$AAAAAAAAAAA":         "the hash asks for more than",
		"# fine\nada:viewer:x509-sha256=AB":                                     "line 2: the certificate's SHA-256",
		"ada:viewer:x509-sha256=" + strings.ToUpper(print64):                    "the certificate's SHA-256",
		"a:viewer:x509-sha256=" + print64 + "\nb:viewer:x509-sha256=" + print64: "line 2: the certificate is that of another line",
		"ada:viewer:" + cheapHash() + "\nada:operator:" + cheapHash():           "line 2: ada has a password already",
		strings.Repeat("x", MaxFileBytes+1):                                     "is larger than",
	} {
		file := filepath.Join(t.TempDir(), "users")
		if err := os.WriteFile(file, []byte(line), 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := Open(file, Options{Roles: roles})
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.60q: %v, want %s", line, err, want)
		}
		if err != nil && strings.Contains(err.Error(), "secret") {
			t.Errorf("the error tells the secret: %v", err)
		}
	}
}

func TestUsersAreBounded(t *testing.T) {
	var b strings.Builder
	for i := range MaxUsers {
		fmt.Fprintf(&b, "user%d:viewer:%s\n", i, cheapHash())
	}
	if l, err := parseList([]byte(b.String()), roles); err != nil || len(l.passwords) != MaxUsers {
		t.Error(err)
	}
	fmt.Fprintf(&b, "another:viewer:%s\n", cheapHash())
	if _, err := parseList([]byte(b.String()), roles); err == nil || !strings.Contains(err.Error(), "more than") {
		t.Error(err)
	}
}

func TestChangingTheFile(t *testing.T) {
	file := filepath.Join(t.TempDir(), "users")
	fingerprint := strings.Repeat("0c", 32)
	for _, err := range []error{
		Add(file, roles, ada, []byte("countess")),
		Add(file, roles, User{"bob", "viewer"}, []byte("12345678")),
		AddCertificate(file, roles, ada, fingerprint),
		Add(file, roles, User{"ada", "viewer"}, []byte(right)), // Another password and role.
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	got, err := List(file, roles)
	want := []Entry{{User{"ada", "viewer"}, ""}, {ada, fingerprint}, {User{"bob", "viewer"}, ""}}
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("%+v, %v", got, err)
	}
	if info, err := os.Stat(file); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
	before, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	for name, err := range map[string]error{
		"short password":   Add(file, roles, ada, []byte("1234567")),
		"long password":    Add(file, roles, ada, make([]byte, MaxPasswordBytes+1)),
		"unknown role":     Add(file, roles, User{"ada", "king"}, []byte(right)),
		"name with colon":  Add(file, roles, User{"a:b", "viewer"}, []byte(right)),
		"name of a remark": Add(file, roles, User{"#a", "viewer"}, []byte(right)),
		"no fingerprint":   AddCertificate(file, roles, ada, "x"),
		"nobody":           Remove(file, roles, "eve"),
		"no name":          Remove(file, roles, ""),
	} {
		if err == nil {
			t.Errorf("%s was taken", name)
		}
	}
	if after, err := os.ReadFile(file); err != nil || string(after) != string(before) {
		t.Error("a refused change has changed the file")
	}
	if err := Remove(file, roles, "ada"); err != nil {
		t.Fatal(err)
	}
	if got, err := List(file, roles); err != nil || len(got) != 1 || got[0].Name != "bob" {
		t.Errorf("%+v, %v", got, err)
	}
	if err := Remove(file, roles, "ada"); !errors.Is(err, ErrUnknown) {
		t.Error(err)
	}
}

func FuzzList(f *testing.F) {
	f.Add("# people\nada:operator:" + cheapHash() + "\n")
	f.Add("bob:viewer:x509-sha256=" + strings.Repeat("00", 32))
	f.Add("a:viewer:$argon2id$v=19$m=4294967296,t=1,p=256$$")
	f.Fuzz(func(t *testing.T, content string) {
		l, err := parseList([]byte(content), roles)
		if err != nil {
			return
		}
		for name, e := range l.passwords {
			if again, err := parseHash(e.hash.String()); err != nil || again.String() != e.hash.String() {
				t.Errorf("%s: %v", name, err)
			}
			if e.hash.memory > maxHashMemory || e.hash.time > maxHashTime || !slices.Contains(roles, e.Role) {
				t.Errorf("%+v", e)
			}
		}
	})
}
