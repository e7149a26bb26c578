package channel

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/binary"
	"hash"
	"time"

	"github.com/gopcua/opcua/ua"
)

// token is one security token of a channel: the keys of both directions for a
// while (Part 4 §5.5.2).
type token struct {
	id       uint32
	created  time.Time
	lifetime time.Duration
	receive  direction
	send     direction
}

// expired says whether the life time is over, after which the server may not
// send with the token any more.
func (t *token) expired(now time.Time) bool { return now.Sub(t.created) > t.lifetime }

// grace is how long a token is accepted: Part 4 §5.5.2.1 gives messages that are
// on their way a quarter of the life time more.
func (t *token) grace() time.Duration { return t.lifetime + t.lifetime/4 }

// direction holds the symmetric keys of one direction. The zero value has no
// security.
type direction struct {
	mac   hash.Hash
	sum   []byte
	crypt cipher.BlockMode // nil if messages are only signed
	iv    []byte
}

// resettable is what the standard library's CBC modes are; OPC UA starts each
// chunk with the same initialization vector.
type resettable interface{ SetIV(iv []byte) }

func newDirection(p *policy, mode ua.MessageSecurityMode, secret, seed []byte,
	crypt func(cipher.Block, []byte) cipher.BlockMode) (direction, error) {
	if mode == ua.MessageSecurityModeNone {
		return direction{}, nil
	}
	keys := derive(secret, seed, signatureKeyLength+p.symmetricKeyLength+blockLength)
	d := direction{
		mac: hmac.New(sha256.New, keys[:signatureKeyLength]),
		sum: make([]byte, 0, signatureLength),
	}
	if mode == ua.MessageSecurityModeSign {
		return d, nil
	}
	block, err := aes.NewCipher(keys[signatureKeyLength : signatureKeyLength+p.symmetricKeyLength])
	if err != nil {
		return direction{}, err
	}
	d.iv = keys[signatureKeyLength+p.symmetricKeyLength:]
	d.crypt = crypt(block, d.iv)
	return d, nil
}

// setKeys derives the keys of both directions from the nonces (Part 6 §6.7.5).
func (t *token) setKeys(p *policy, mode ua.MessageSecurityMode, clientNonce, serverNonce []byte) (err error) {
	if t.receive, err = newDirection(p, mode, serverNonce, clientNonce, cipher.NewCBCDecrypter); err != nil {
		return err
	}
	t.send, err = newDirection(p, mode, clientNonce, serverNonce, cipher.NewCBCEncrypter)
	return err
}

func (d *direction) sign(b []byte) []byte {
	d.mac.Reset()
	d.mac.Write(b)
	d.sum = d.mac.Sum(d.sum[:0])
	return d.sum
}

func (d *direction) cryptBlocks(b []byte) {
	d.crypt.(resettable).SetIV(d.iv)
	d.crypt.CryptBlocks(b, b)
}

// Layout of a symmetric chunk (Part 6 §6.7.2): message header with channel id,
// token id, then encrypted from here: sequence number, request id, body,
// padding, signature.
const (
	headerLength    = 12
	symmetricClear  = headerLength + 4
	sequenceLength  = 8
	symmetricHeader = symmetricClear + sequenceLength
)

// open checks the signature of a chunk, decrypts it in place, and returns what
// follows the token id without padding and signature.
func (d *direction) open(chunk []byte) ([]byte, bool) {
	if d.mac == nil {
		return chunk[symmetricClear:], len(chunk) >= symmetricHeader
	}
	if len(chunk) < symmetricHeader+signatureLength {
		return nil, false
	}
	if d.crypt != nil {
		if (len(chunk)-symmetricClear)%blockLength != 0 {
			return nil, false
		}
		d.cryptBlocks(chunk[symmetricClear:])
	}
	signed, sig := chunk[:len(chunk)-signatureLength], chunk[len(chunk)-signatureLength:]
	if subtle.ConstantTimeCompare(d.sign(signed), sig) != 1 {
		return nil, false
	}
	plain := signed[symmetricClear:]
	if d.crypt != nil {
		// The signature covers the padding, so its length can be trusted to be
		// what the sender wrote, though not to be right.
		padding := int(plain[len(plain)-1]) + 1
		if len(plain)-padding < sequenceLength {
			return nil, false
		}
		plain = plain[:len(plain)-padding]
	}
	return plain, true
}

// seal completes the chunk that starts at base: it sets the size, and appends
// padding and signature and encrypts as the keys ask.
func (d *direction) seal(b []byte, base int) []byte {
	if d.mac == nil {
		binary.LittleEndian.PutUint32(b[base+4:], uint32(len(b)-base))
		return b
	}
	if d.crypt != nil {
		length := len(b) - base - symmetricClear + 1 + signatureLength
		padding := (blockLength - length%blockLength) % blockLength
		for range padding + 1 {
			b = append(b, byte(padding))
		}
	}
	binary.LittleEndian.PutUint32(b[base+4:], uint32(len(b)-base+signatureLength))
	b = append(b, d.sign(b[base:])...)
	if d.crypt != nil {
		d.cryptBlocks(b[base+symmetricClear:])
	}
	return b
}

// maxBody is how many bytes of a message fit in a chunk (Part 6 §6.7.2.5).
func (d *direction) maxBody(chunkSize int) int {
	switch {
	case d.mac == nil:
		return chunkSize - symmetricHeader
	case d.crypt == nil:
		return chunkSize - symmetricHeader - signatureLength
	}
	return (chunkSize-symmetricClear)/blockLength*blockLength - sequenceLength - 1 - signatureLength
}
