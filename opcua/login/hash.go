package login

import (
	"crypto/rand"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"

	"golang.org/x/crypto/argon2"
)

// The parameters of new hashes: the first choice of the OWASP Password Storage Cheat Sheet, about 30 ms and 19 MiB.
const (
	hashMemory  = 19 * 1024 // KiB
	hashTime    = 2
	hashThreads = 1
	saltBytes   = 16
	keyBytes    = 32
)

// The most that a line of the file may ask for: each login takes it.
const (
	maxHashMemory  = 128 * 1024 // KiB
	maxHashTime    = 8
	maxHashThreads = 4
	maxHashBytes   = 64 // of salt and key
	minHashBytes   = 8
)

// hash is an argon2id hash of a password.
type hash struct {
	memory, time uint32
	threads      uint8
	salt, key    []byte
}

// nobody is compared with where there is no user. No password is known that gives a key of zeros.
var nobody = hash{hashMemory, hashTime, hashThreads, make([]byte, saltBytes), make([]byte, keyBytes)}

func newHash(password []byte) hash {
	h := hash{hashMemory, hashTime, hashThreads, make([]byte, saltBytes), nil}
	_, _ = rand.Read(h.salt) // Never fails; see crypto/rand.
	h.key = argon2.IDKey(password, h.salt, h.time, h.memory, h.threads, keyBytes)
	return h
}

func (h hash) matches(password []byte) bool {
	key := argon2.IDKey(password, h.salt, h.time, h.memory, h.threads, uint32(len(h.key)))
	return subtle.ConstantTimeCompare(key, h.key) == 1
}

// String is the usual text form, which other tools write too.
func (h hash) String() string {
	encode := base64.RawStdEncoding.EncodeToString
	return fmt.Sprintf("$argon2id$v=%d$m=%d,t=%d,p=%d$%s$%s", argon2.Version, h.memory, h.time, h.threads, encode(h.salt), encode(h.key))
}

var errHash = errors.New("is not of the form $argon2id$v=19$m=…,t=…,p=…$SALT$KEY")

func parseHash(text string) (h hash, err error) {
	parts := strings.Split(text, "$")
	if len(parts) != 6 || parts[0] != "" || parts[1] != "argon2id" {
		return hash{}, errHash
	}
	if parts[2] != fmt.Sprintf("v=%d", argon2.Version) {
		return hash{}, errHash
	}
	if _, err := fmt.Sscanf(parts[3], "m=%d,t=%d,p=%d", &h.memory, &h.time, &h.threads); err != nil {
		return hash{}, errHash
	}
	if parts[3] != fmt.Sprintf("m=%d,t=%d,p=%d", h.memory, h.time, h.threads) {
		return hash{}, errHash
	}
	if h.memory < 8*uint32(h.threads) || h.memory > maxHashMemory || h.time < 1 || h.time > maxHashTime || h.threads < 1 || h.threads > maxHashThreads {
		return hash{}, fmt.Errorf("asks for more than m=%d,t=%d,p=%d, or for nothing", maxHashMemory, maxHashTime, maxHashThreads)
	}
	for i, into := range []*[]byte{&h.salt, &h.key} {
		b, err := base64.RawStdEncoding.Strict().DecodeString(parts[4+i])
		if err != nil || len(b) < minHashBytes || len(b) > maxHashBytes {
			return hash{}, errHash
		}
		*into = b
	}
	return h, nil
}
