package client

import (
	"crypto/rsa"
	"encoding/binary"
	"errors"
	"io"
	"os"
	"time"

	"github.com/gopcua/opcua/ua"
	"github.com/gopcua/opcua/uapolicy"

	"quorate/opcua/wire"
	"quorate/pki"
)

// Identity is an application certificate with its key. It has a JSON form, for processes that are told whom to be.
type Identity struct {
	Certificate []byte // DER
	Key         *rsa.PrivateKey
}

// NewIdentity makes one for the application of a name.
func NewIdentity(name string) (*Identity, error) {
	dir, err := os.MkdirTemp("", "bench-"+name+"-client-")
	if err != nil {
		return nil, err
	}
	der, key, err := pki.EnsureApplicationCertificate(dir, ApplicationURI(name), []string{"localhost"}, time.Now())
	if err := errors.Join(err, os.RemoveAll(dir)); err != nil {
		return nil, err
	}
	return &Identity{Certificate: der, Key: key}, nil
}

// OpenMessage is the first message to a server by which somebody opens a channel with Basic256Sha256 and SignAndEncrypt. It may be sent on any connection,
// and more than once.
func OpenMessage(who *Identity, server []byte) ([]byte, error) {
	b, _, err := appendOpen(nil, who, server, 0, 1, newOpenRequest(who, ua.SecurityTokenRequestTypeIssue))
	return b, err
}

func newOpenRequest(who *Identity, kind ua.SecurityTokenRequestType) *ua.OpenSecureChannelRequest {
	req := &ua.OpenSecureChannelRequest{
		RequestHeader: new(ua.RequestHeader), RequestType: kind, SecurityMode: ua.MessageSecurityModeNone,
		RequestedLifetime: uint32(lifetime.Milliseconds()),
	}
	if who != nil {
		req.SecurityMode, req.ClientNonce = ua.MessageSecurityModeSignAndEncrypt, newNonce()
	}
	return req
}

// appendOpen appends an OpenSecureChannel message of somebody to a server (Part 6 §6.7.2). Nobody needs no security; else it returns the
// algorithm by which the answer is read.
func appendOpen(b []byte, who *Identity, server []byte, channelID, sequence uint32, req *ua.OpenSecureChannelRequest) ([]byte, *uapolicy.EncryptionAlgorithm, error) {
	body, err := wire.AppendMessage(nil, req)
	if err != nil {
		return b, nil, err
	}
	uri := ua.SecurityPolicyURINone
	var certificate, thumbprint []byte
	var alg *uapolicy.EncryptionAlgorithm
	if who != nil {
		key, err := uapolicy.PublicKey(server)
		if err != nil {
			return b, nil, err
		}
		if alg, err = uapolicy.Asymmetric(policy, who.Key, key); err != nil {
			return b, nil, err
		}
		uri, certificate, thumbprint = policy, who.Certificate, uapolicy.Thumbprint(server)
	}
	start := len(b)
	b = append(b, Frame("OPNF", Words(channelID), Field([]byte(uri)), Field(certificate), Field(thumbprint))...)
	b, err = protect(alg, b, start, sequence, body)
	return b, alg, err
}

// protect completes a message of one chunk, which begins at start as its headers: it appends the sequence number, twice, since it
// serves as the request id too, the body, padding and signature; sets the size; and encrypts what the headers don't say
// (Part 6 §6.7.2). Without an algorithm it only sets the size.
func protect(alg *uapolicy.EncryptionAlgorithm, b []byte, start int, sequence uint32, body []byte) ([]byte, error) {
	clear := len(b)
	b = binary.LittleEndian.AppendUint32(b, sequence)
	b = binary.LittleEndian.AppendUint32(b, sequence)
	b = append(b, body...)
	if alg == nil {
		binary.LittleEndian.PutUint32(b[start+4:], uint32(len(b)-start))
		return b, nil
	}
	block := alg.PlaintextBlockSize()
	padding := (block - (len(b)-clear+1+alg.SignatureLength())%block) % block
	for range padding + 1 {
		b = append(b, byte(padding))
	}
	blocks := (len(b) - clear + alg.SignatureLength()) / block
	binary.LittleEndian.PutUint32(b[start+4:], uint32(clear-start+blocks*alg.BlockSize()))
	signature, err := alg.Signature(b[start:])
	if err != nil {
		return b, err
	}
	encrypted, err := alg.Encrypt(append(b, signature...)[clear:])
	if err != nil {
		return b, err
	}
	return append(b[:clear], encrypted...), nil
}

// unprotect checks and decrypts a message whose headers have the length clear, and returns its body.
func unprotect(alg *uapolicy.EncryptionAlgorithm, b []byte, clear int) ([]byte, error) {
	if len(b) < clear+SequenceLength {
		return nil, io.ErrUnexpectedEOF
	}
	if alg == nil {
		return b[clear+SequenceLength:], nil
	}
	plain, err := alg.Decrypt(b[clear:])
	if err != nil {
		return nil, err
	}
	signed := len(plain) - alg.RemoteSignatureLength()
	if signed <= SequenceLength {
		return nil, io.ErrUnexpectedEOF
	}
	// What was decrypted is never longer than what it was decrypted from, so the signed message fits where the message was.
	whole := append(b[:clear], plain[:signed]...)
	if err := alg.VerifySignature(whole, plain[signed:]); err != nil {
		return nil, err
	}
	end := len(whole) - 1 - int(whole[len(whole)-1])
	if end < clear+SequenceLength {
		return nil, io.ErrUnexpectedEOF
	}
	return whole[clear+SequenceLength : end], nil
}

// Frame puts the header of a message in front of its parts.
func Frame(kind string, parts ...[]byte) []byte {
	b := append([]byte(kind), 0, 0, 0, 0)
	for _, part := range parts {
		b = append(b, part...)
	}
	binary.LittleEndian.PutUint32(b[4:], uint32(len(b)))
	return b
}

// Words puts numbers one after the other, as Part 6 §5.2.2.2 has them.
func Words(values ...uint32) (b []byte) {
	for _, v := range values {
		b = binary.LittleEndian.AppendUint32(b, v)
	}
	return b
}

// Field is a ByteString, null if it is nil (Part 6 §5.2.2.7).
func Field(b []byte) []byte {
	if b == nil {
		return Words(0xffffffff)
	}
	return append(Words(uint32(len(b))), b...)
}

// skipField returns where the ByteString ends that begins at n.
func skipField(b []byte, n int) (int, error) {
	if len(b) < n+4 {
		return 0, io.ErrUnexpectedEOF
	}
	length := int(int32(binary.LittleEndian.Uint32(b[n:])))
	if n += 4 + max(length, 0); n > len(b) {
		return 0, io.ErrUnexpectedEOF
	}
	return n, nil
}
