package main

import (
	"crypto/rsa"
	"encoding/binary"
	"errors"
	"os"
	"time"

	"github.com/gopcua/opcua/uapolicy"

	"quorate/pki"
)

// identity is the application certificate of the load generator, one for all its clients.
type identity struct {
	certificate []byte // DER
	key         *rsa.PrivateKey
}

func newIdentity() (*identity, error) {
	dir, err := os.MkdirTemp("", "bench-opcua-client-")
	if err != nil {
		return nil, err
	}
	der, key, err := pki.EnsureApplicationCertificate(dir, clientURI, []string{"localhost"}, time.Now())
	if err := errors.Join(err, os.RemoveAll(dir)); err != nil {
		return nil, err
	}
	return &identity{certificate: der, key: key}, nil
}

// protect completes a message of one chunk, which begins as its headers: it appends the sequence number, twice, since it
// serves as the request id too, the body, padding and signature; sets the size; and encrypts what the headers don't say
// (Part 6 §6.7.2). Without an algorithm it only sets the size.
func protect(alg *uapolicy.EncryptionAlgorithm, b []byte, sequence uint32, body []byte) ([]byte, error) {
	clear := len(b)
	b = binary.LittleEndian.AppendUint32(b, sequence)
	b = binary.LittleEndian.AppendUint32(b, sequence)
	b = append(b, body...)
	if alg == nil {
		binary.LittleEndian.PutUint32(b[4:], uint32(len(b)))
		return b, nil
	}
	block := alg.PlaintextBlockSize()
	padding := block - (len(b)-clear+1+alg.SignatureLength())%block
	if padding == block {
		padding = 0
	}
	for range padding + 1 {
		b = append(b, byte(padding))
	}
	blocks := (len(b) - clear + alg.SignatureLength()) / block
	binary.LittleEndian.PutUint32(b[4:], uint32(clear+blocks*alg.BlockSize()))
	signature, err := alg.Signature(b)
	if err != nil {
		return b, err
	}
	encrypted, err := alg.Encrypt(append(b, signature...)[clear:])
	if err != nil {
		return b, err
	}
	return append(b[:clear], encrypted...), nil
}

var errShort = errors.New("message is too short")

// unprotect checks and decrypts a message whose headers have the length clear, and returns its body.
func unprotect(alg *uapolicy.EncryptionAlgorithm, b []byte, clear int) ([]byte, error) {
	if len(b) < clear+sequenceLength {
		return nil, errShort
	}
	if alg == nil {
		return b[clear+sequenceLength:], nil
	}
	plain, err := alg.Decrypt(b[clear:])
	if err != nil {
		return nil, err
	}
	signed := len(plain) - alg.RemoteSignatureLength()
	if signed <= sequenceLength {
		return nil, errShort
	}
	// What was decrypted is never longer than what it was decrypted from, so the signed message fits where the message was.
	whole := append(b[:clear], plain[:signed]...)
	if err := alg.VerifySignature(whole, plain[signed:]); err != nil {
		return nil, err
	}
	end := len(whole) - 1 - int(whole[len(whole)-1])
	if end < clear+sequenceLength {
		return nil, errShort
	}
	return whole[clear+sequenceLength : end], nil
}

// appendField appends a ByteString, which is null if it is nil (Part 6 §5.2.2.7).
func appendField(b, field []byte) []byte {
	if field == nil {
		return append(b, 0xff, 0xff, 0xff, 0xff)
	}
	return append(binary.LittleEndian.AppendUint32(b, uint32(len(field))), field...)
}

// skipField returns where the ByteString ends that begins at n.
func skipField(b []byte, n int) (int, error) {
	if len(b) < n+4 {
		return 0, errShort
	}
	length := int(int32(binary.LittleEndian.Uint32(b[n:])))
	n += 4 + max(length, 0)
	if n > len(b) {
		return 0, errShort
	}
	return n, nil
}
