package channel

import (
	"crypto/rsa"

	"github.com/gopcua/opcua/ua"
)

// Policies are the URIs of the security policies that are implemented.
func Policies() []string { return nil }

// Sign makes a signature as CreateSession and ActivateSession carry it (Part 4
// §7.36) with the asymmetric algorithm of a policy. With policy None it is empty.
func Sign(policyURI string, key *rsa.PrivateKey, data []byte) (*ua.SignatureData, error) {
	return nil, nil
}

// Verify checks such a signature of data against the key of a certificate (DER,
// leaf first), algorithm name included. Its error is a ua.StatusCode. With
// policy None everything is right.
func Verify(policyURI string, certificate, data []byte, sig *ua.SignatureData) error { return nil }

// Decrypt decrypts a secret that was encrypted for the key with the asymmetric
// algorithm of a policy, as the password of a UserNameIdentityToken (Part 4
// §7.41). With policy None it returns the data. Its error is a ua.StatusCode.
func Decrypt(policyURI string, key *rsa.PrivateKey, data []byte) ([]byte, error) { return nil, nil }

// EncryptionAlgorithm is the URI of the asymmetric encryption of a policy, as a
// user token names it; empty for None and for unknown policies.
func EncryptionAlgorithm(policyURI string) string { return "" }
