package channel

import (
	"crypto"
	"crypto/hmac"
	"crypto/rand"
	"crypto/rsa"
	_ "crypto/sha1" // OAEP of Basic256Sha256 and Aes128_Sha256_RsaOaep, and thumbprints
	"crypto/sha256"
	"errors"

	"github.com/gopcua/opcua/ua"
)

// policy is a row of the table of security policies (Part 7 §6.6). All of them
// derive symmetric keys with P_SHA256, sign with HMAC-SHA256 and encrypt with
// AES in CBC mode; they differ in the rest.
type policy struct {
	uri                 string
	minKeyBits          int // of RSA keys
	maxKeyBits          int
	nonceLength         int
	symmetricKeyLength  int         // of AES, in bytes
	oaep                crypto.Hash // hash of the OAEP padding
	pss                 bool        // signs with PSS instead of PKCS #1 v1.5
	signatureAlgorithm  string
	encryptionAlgorithm string
	secure              bool // false for None only
}

const (
	signatureKeyLength = 32 // of HMAC-SHA256, in bytes
	signatureLength    = sha256.Size
	blockLength        = 16 // of AES
)

var policies = []*policy{
	{uri: ua.SecurityPolicyURINone},
	{
		uri:        ua.SecurityPolicyURIBasic256Sha256,
		minKeyBits: 2048, maxKeyBits: 4096, nonceLength: 32, symmetricKeyLength: 32, oaep: crypto.SHA1,
		signatureAlgorithm:  "http://www.w3.org/2001/04/xmldsig-more#rsa-sha256",
		encryptionAlgorithm: "http://www.w3.org/2001/04/xmlenc#rsa-oaep",
		secure:              true,
	},
	{
		uri:        ua.SecurityPolicyURIAes128Sha256RsaOaep,
		minKeyBits: 2048, maxKeyBits: 4096, nonceLength: 32, symmetricKeyLength: 16, oaep: crypto.SHA1,
		signatureAlgorithm:  "http://www.w3.org/2001/04/xmldsig-more#rsa-sha256",
		encryptionAlgorithm: "http://www.w3.org/2001/04/xmlenc#rsa-oaep",
		secure:              true,
	},
	{
		uri:        ua.SecurityPolicyURIAes256Sha256RsaPss,
		minKeyBits: 2048, maxKeyBits: 4096, nonceLength: 32, symmetricKeyLength: 32, oaep: crypto.SHA256, pss: true,
		signatureAlgorithm:  "http://opcfoundation.org/UA/security/rsa-pss-sha2-256",
		encryptionAlgorithm: "http://opcfoundation.org/UA/security/rsa-oaep-sha2-256",
		secure:              true,
	},
}

// policyByURI gives the row of a policy, or nil.
func policyByURI(uri string) *policy {
	for _, p := range policies {
		if p.uri == uri {
			return p
		}
	}
	return nil
}

func (p *policy) acceptsKey(k *rsa.PublicKey) bool {
	bits := k.N.BitLen()
	return bits >= p.minKeyBits && bits <= p.maxKeyBits
}

func (p *policy) sign(key *rsa.PrivateKey, data []byte) ([]byte, error) {
	sum := sha256.Sum256(data)
	if p.pss {
		return rsa.SignPSS(rand.Reader, key, crypto.SHA256, sum[:], &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash})
	}
	return rsa.SignPKCS1v15(rand.Reader, key, crypto.SHA256, sum[:])
}

func (p *policy) verify(key *rsa.PublicKey, data, sig []byte) error {
	sum := sha256.Sum256(data)
	if p.pss {
		return rsa.VerifyPSS(key, crypto.SHA256, sum[:], sig, nil)
	}
	return rsa.VerifyPKCS1v15(key, crypto.SHA256, sum[:], sig)
}

// plainBlock is how many bytes one RSA block can hold.
func (p *policy) plainBlock(key *rsa.PublicKey) int { return key.Size() - 2*p.oaep.Size() - 2 }

func (p *policy) encrypt(key *rsa.PublicKey, plain []byte) ([]byte, error) {
	size := p.plainBlock(key)
	out := make([]byte, 0, (len(plain)/size+1)*key.Size())
	for len(plain) > 0 {
		n := min(size, len(plain))
		block, err := rsa.EncryptOAEP(p.oaep.New(), rand.Reader, key, plain[:n], nil)
		if err != nil {
			return nil, err
		}
		out, plain = append(out, block...), plain[n:]
	}
	return out, nil
}

var errCipherLength = errors.New("channel: encrypted data is not a whole number of blocks, or has too many")

// maxBlocks bounds the RSA blocks of one message: each costs about a
// millisecond. An OpenSecureChannel request with the largest keys has six.
const maxBlocks = 16

func (p *policy) decrypt(key *rsa.PrivateKey, data []byte) ([]byte, error) {
	size := key.Size()
	if len(data) == 0 || len(data)%size != 0 || len(data)/size > maxBlocks {
		return nil, errCipherLength
	}
	out := make([]byte, 0, len(data))
	for ; len(data) > 0; data = data[size:] {
		block, err := rsa.DecryptOAEP(p.oaep.New(), nil, key, data[:size], nil)
		if err != nil {
			return nil, err
		}
		out = append(out, block...)
	}
	return out, nil
}

// derive is P_SHA256 (RFC 5246 §5), with which both sides make symmetric keys of
// their nonces (Part 6 §6.7.5).
func derive(secret, seed []byte, length int) []byte {
	mac := hmac.New(sha256.New, secret)
	sum := func(parts ...[]byte) []byte {
		mac.Reset()
		for _, b := range parts {
			mac.Write(b)
		}
		return mac.Sum(nil)
	}
	var out []byte
	for a := sum(seed); len(out) < length; a = sum(a) {
		out = append(out, sum(a, seed)...)
	}
	return out[:length]
}
