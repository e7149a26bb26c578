package channel

import (
	"crypto/rsa"
	"crypto/sha1"
	"crypto/x509"

	"github.com/gopcua/opcua/ua"
)

// Policies are the URIs of the security policies that are implemented.
func Policies() []string {
	uris := make([]string, len(policies))
	for i, p := range policies {
		uris[i] = p.uri
	}
	return uris
}

// Sign makes a signature as CreateSession and ActivateSession carry it (Part 4
// §7.36) with the asymmetric algorithm of a policy. With policy None it is empty.
func Sign(policyURI string, key *rsa.PrivateKey, data []byte) (*ua.SignatureData, error) {
	p := policyByURI(policyURI)
	switch {
	case p == nil:
		return nil, ua.StatusBadSecurityPolicyRejected
	case !p.secure:
		return &ua.SignatureData{}, nil
	case key == nil:
		return nil, ua.StatusBadSecurityChecksFailed
	}
	sig, err := p.sign(key, data)
	if err != nil {
		return nil, err
	}
	return &ua.SignatureData{Algorithm: p.signatureAlgorithm, Signature: sig}, nil
}

// Verify checks such a signature of data against the key of a certificate (DER,
// leaf first), algorithm name included. Its error is a ua.StatusCode. With
// policy None everything is right.
func Verify(policyURI string, certificate, data []byte, sig *ua.SignatureData) error {
	p := policyByURI(policyURI)
	if p == nil {
		return ua.StatusBadSecurityPolicyRejected
	}
	if !p.secure {
		return nil
	}
	key, _, status := leafKey(p, certificate)
	if status != ua.StatusOK {
		return status
	}
	if sig == nil || sig.Algorithm != p.signatureAlgorithm || p.verify(key, data, sig.Signature) != nil {
		return ua.StatusBadApplicationSignatureInvalid
	}
	return nil
}

// Decrypt decrypts a secret that was encrypted for the key with the asymmetric
// algorithm of a policy, as the password of a UserNameIdentityToken (Part 4
// §7.41). With policy None it returns the data. Its error is a ua.StatusCode.
func Decrypt(policyURI string, key *rsa.PrivateKey, data []byte) ([]byte, error) {
	p := policyByURI(policyURI)
	switch {
	case p == nil:
		return nil, ua.StatusBadSecurityPolicyRejected
	case !p.secure:
		return data, nil
	case key == nil:
		return nil, ua.StatusBadSecurityChecksFailed
	}
	plain, err := p.decrypt(key, data)
	if err != nil {
		return nil, ua.StatusBadSecurityChecksFailed
	}
	return plain, nil
}

// EncryptionAlgorithm is the URI of the asymmetric encryption of a policy, as a
// user token names it; empty for None and for unknown policies.
func EncryptionAlgorithm(policyURI string) string {
	if p := policyByURI(policyURI); p != nil {
		return p.encryptionAlgorithm
	}
	return ""
}

// leafKey gives the RSA key and the thumbprint of the first certificate of a
// chain, if the policy accepts the key; otherwise a status that is not StatusOK.
func leafKey(p *policy, chain []byte) (*rsa.PublicKey, [sha1.Size]byte, ua.StatusCode) {
	certs, err := x509.ParseCertificates(chain)
	if err != nil || len(certs) == 0 {
		return nil, [sha1.Size]byte{}, ua.StatusBadCertificateInvalid
	}
	key, ok := certs[0].PublicKey.(*rsa.PublicKey)
	if !ok || !p.acceptsKey(key) {
		return nil, [sha1.Size]byte{}, ua.StatusBadCertificatePolicyCheckFailed
	}
	return key, sha1.Sum(certs[0].Raw), ua.StatusOK
}
