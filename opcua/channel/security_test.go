package channel

import (
	"bytes"
	"errors"
	"testing"

	"github.com/gopcua/opcua/ua"
	"github.com/gopcua/opcua/uapolicy"
)

// TestSessionSecurity proves that signatures and secrets fit together with those
// of uapolicy, both ways, and what is refused.
func TestSessionSecurity(t *testing.T) {
	client, server := newIdentity(t, "client", 2048), newIdentity(t, "server", 3072)
	data := []byte("certificate and nonce")
	for _, uri := range Policies()[1:] {
		theirs, err := uapolicy.Asymmetric(uri, client.key, &server.key.PublicKey)
		if err != nil {
			t.Fatal(err)
		}
		sig, err := theirs.Signature(data)
		if err != nil {
			t.Fatal(err)
		}
		good := &ua.SignatureData{Algorithm: theirs.SignatureURI(), Signature: sig}
		if err := Verify(uri, client.cert, data, good); err != nil {
			t.Errorf("%s: their signature: %v", uri, err)
		}
		for name, bad := range map[string]error{
			"data":        Verify(uri, client.cert, data[1:], good),
			"certificate": Verify(uri, server.cert, data, good),
			"algorithm":   Verify(uri, client.cert, data, &ua.SignatureData{Algorithm: "x", Signature: sig}),
			"none":        Verify(uri, client.cert, data, nil),
		} {
			if !errors.Is(bad, ua.StatusBadApplicationSignatureInvalid) {
				t.Errorf("%s: wrong %s: %v", uri, name, bad)
			}
		}
		if err := Verify(uri, []byte("x"), data, good); !errors.Is(err, ua.StatusBadCertificateInvalid) {
			t.Errorf("%s: no certificate: %v", uri, err)
		}
		ours, err := Sign(uri, server.key, data)
		if err != nil || ours.Algorithm != theirs.SignatureURI() || theirs.VerifySignature(data, ours.Signature) != nil {
			t.Errorf("%s: our signature: %v", uri, err)
		}
		secret := bytes.Repeat([]byte("secret"), 100) // more than one block
		encrypted, err := theirs.Encrypt(secret)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := Decrypt(uri, server.key, encrypted); err != nil || !bytes.Equal(got, secret) {
			t.Errorf("%s: decrypted %q, %v", uri, got, err)
		}
		if EncryptionAlgorithm(uri) != theirs.EncryptionURI() {
			t.Errorf("%s: algorithm %s", uri, EncryptionAlgorithm(uri))
		}
		for name, b := range map[string][]byte{
			"empty": nil, "cut": encrypted[1:], "changed": append([]byte{encrypted[0] ^ 1}, encrypted[1:]...),
			"too many blocks": bytes.Repeat(encrypted[:server.key.Size()], maxBlocks+1),
		} {
			if _, err := Decrypt(uri, server.key, b); !errors.Is(err, ua.StatusBadSecurityChecksFailed) {
				t.Errorf("%s: %s secret: %v", uri, name, err)
			}
		}
		if _, err := Sign(uri, nil, data); err == nil {
			t.Errorf("%s: signed without a key", uri)
		}
		if _, err := Decrypt(uri, nil, encrypted); err == nil {
			t.Errorf("%s: decrypted without a key", uri)
		}
	}
	// The limit itself is allowed.
	p := policyByURI(ua.SecurityPolicyURIBasic256Sha256)
	full, err := p.encrypt(&server.key.PublicKey, make([]byte, maxBlocks*p.plainBlock(&server.key.PublicKey)))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.decrypt(server.key, full); err != nil {
		t.Errorf("%d blocks: %v", maxBlocks, err)
	}
}

// TestNoSecurity proves what the policies None and unknown ones do.
func TestNoSecurity(t *testing.T) {
	if sig, err := Sign(ua.SecurityPolicyURINone, nil, nil); err != nil || sig.Algorithm != "" || sig.Signature != nil {
		t.Errorf("signature %+v, %v", sig, err)
	}
	if err := Verify(ua.SecurityPolicyURINone, nil, nil, nil); err != nil {
		t.Error(err)
	}
	if got, err := Decrypt(ua.SecurityPolicyURINone, nil, []byte("x")); err != nil || string(got) != "x" {
		t.Errorf("%q, %v", got, err)
	}
	if _, err := Sign("x", nil, nil); !errors.Is(err, ua.StatusBadSecurityPolicyRejected) {
		t.Error(err)
	}
	if err := Verify("x", nil, nil, nil); !errors.Is(err, ua.StatusBadSecurityPolicyRejected) {
		t.Error(err)
	}
	if _, err := Decrypt("x", nil, nil); !errors.Is(err, ua.StatusBadSecurityPolicyRejected) {
		t.Error(err)
	}
	if EncryptionAlgorithm("x") != "" || EncryptionAlgorithm(ua.SecurityPolicyURINone) != "" {
		t.Error("an algorithm for no encryption")
	}
}
