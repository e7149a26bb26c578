package certstore

import (
	"bytes"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"time"

	"github.com/gopcua/opcua/ua"
)

// judge goes through the steps of Part 4 §6.1.3 in their order. The host name is for clients to check, and the
// ApplicationUri is checked when a session is created, since it is named only then.
func (l *lists) judge(shown []*x509.Certificate, now time.Time, use Use, strict bool) ua.StatusCode {
	for _, c := range shown {
		if status := checkKey(c); status != ua.StatusOK {
			return status
		}
	}
	path, status := l.path(shown)
	if status != ua.StatusOK {
		return status
	}
	if !l.trusts(path) {
		return ua.StatusBadCertificateUntrusted
	}
	for i, c := range path {
		if now.Before(c.NotBefore) || now.After(c.NotAfter) {
			return either(i, ua.StatusBadCertificateTimeInvalid, ua.StatusBadCertificateIssuerTimeInvalid)
		}
	}
	if !usable(path[0], use) {
		return ua.StatusBadCertificateUseNotAllowed
	}
	for i, issuer := range path[1:] {
		if !mayIssue(issuer, i) {
			return ua.StatusBadCertificateIssuerUseNotAllowed
		}
	}
	return l.revocation(path, now, strict)
}

// either tells the leaf's status from its issuers'.
func either(i int, leaf, issuer ua.StatusCode) ua.StatusCode {
	if i == 0 {
		return leaf
	}
	return issuer
}

// checkKey keeps keys away with which a signature would take long. The least that a security policy asks for is checked by the
// channel, which knows the policy.
func checkKey(c *x509.Certificate) ua.StatusCode {
	if key, ok := c.PublicKey.(*rsa.PublicKey); ok && key.N.BitLen() > MaxKeyBits {
		return ua.StatusBadCertificatePolicyCheckFailed
	}
	return ua.StatusOK
}

// path builds the chain from the leaf to its root, and checks each signature in it.
func (l *lists) path(shown []*x509.Certificate) ([]*x509.Certificate, ua.StatusCode) {
	path, left := shown[:1:1], maxSignatures
	for {
		c := path[len(path)-1]
		if bytes.Equal(c.RawIssuer, c.RawSubject) {
			return path, signatureStatus(c, c)
		}
		if len(path) == MaxChain {
			return nil, ua.StatusBadCertificateChainIncomplete
		}
		issuer, status := l.issuerOf(c, shown[1:], &left)
		if status != ua.StatusOK {
			return nil, status
		}
		path = append(path, issuer)
	}
}

// issuerOf finds who signed a certificate: among what is on disk first, then among what was shown. left is how many signatures may
// still be checked.
func (l *lists) issuerOf(c *x509.Certificate, shown []*x509.Certificate, left *int) (*x509.Certificate, ua.StatusCode) {
	worst := ua.StatusBadCertificateChainIncomplete
	for _, candidates := range [][]*x509.Certificate{l.issuers[string(c.RawIssuer)], shown} {
		for _, candidate := range candidates {
			if !bytes.Equal(candidate.RawSubject, c.RawIssuer) || checkKey(candidate) != ua.StatusOK ||
				len(c.AuthorityKeyId) > 0 && len(candidate.SubjectKeyId) > 0 && !bytes.Equal(c.AuthorityKeyId, candidate.SubjectKeyId) {
				continue
			}
			if *left == 0 {
				return nil, worst
			}
			*left--
			if worst = signatureStatus(c, candidate); worst == ua.StatusOK {
				return candidate, worst
			}
		}
	}
	return nil, worst
}

// signatureStatus checks a certificate's signature with its issuer's key. Algorithms that are broken are against all policies
// that are offered; CheckSignature would let SHA-1 pass.
func signatureStatus(c, issuer *x509.Certificate) ua.StatusCode {
	switch c.SignatureAlgorithm {
	case x509.MD2WithRSA, x509.MD5WithRSA, x509.SHA1WithRSA, x509.DSAWithSHA1, x509.ECDSAWithSHA1:
		return ua.StatusBadCertificatePolicyCheckFailed
	}
	if issuer.CheckSignature(c.SignatureAlgorithm, c.RawTBSCertificate, c.Signature) != nil {
		return ua.StatusBadCertificateInvalid
	}
	return ua.StatusOK
}

// trusts says whether any certificate of a chain is in the trust list.
func (l *lists) trusts(path []*x509.Certificate) bool {
	for _, c := range path {
		if _, ok := l.trusted[sha256.Sum256(c.Raw)]; ok {
			return true
		}
	}
	return false
}

// usable checks the key usages that Part 6 §6.2.2 asks of applications, and of users the one that they use. What has no
// such extensions is refused of applications, which need them.
func usable(c *x509.Certificate, use Use) bool {
	if use == User {
		return c.KeyUsage == 0 || c.KeyUsage&x509.KeyUsageDigitalSignature != 0
	}
	const encipherment = x509.KeyUsageKeyEncipherment | x509.KeyUsageDataEncipherment
	if c.KeyUsage&x509.KeyUsageDigitalSignature == 0 || c.KeyUsage&encipherment == 0 {
		return false
	}
	if len(c.ExtKeyUsage) == 0 {
		return len(c.UnknownExtKeyUsage) == 0
	}
	for _, u := range c.ExtKeyUsage {
		if u == x509.ExtKeyUsageClientAuth || u == x509.ExtKeyUsageAny {
			return true
		}
	}
	return false
}

// mayIssue says whether a certificate may be an issuer with that many issuers below it.
func mayIssue(c *x509.Certificate, below int) bool {
	limited := c.MaxPathLen > 0 || c.MaxPathLenZero
	return c.BasicConstraintsValid && c.IsCA && (!limited || below <= c.MaxPathLen) &&
		(c.KeyUsage == 0 || c.KeyUsage&x509.KeyUsageCertSign != 0)
}

// revocation checks each certificate but the root against the lists of its issuer. A list that is out of date still revokes, but
// does not show that something isn't revoked.
func (l *lists) revocation(path []*x509.Certificate, now time.Time, strict bool) ua.StatusCode {
	for i, c := range path[:len(path)-1] {
		issuer, known := path[i+1], false
		for _, r := range l.revoked[string(issuer.RawSubject)] {
			if r.CheckSignatureFrom(issuer) != nil {
				continue
			}
			if _, revoked := r.serials[string(c.SerialNumber.Bytes())]; revoked {
				return either(i, ua.StatusBadCertificateRevoked, ua.StatusBadCertificateIssuerRevoked)
			}
			known = known || r.NextUpdate.IsZero() || !now.After(r.NextUpdate)
		}
		if strict && !known {
			return either(i, ua.StatusBadCertificateRevocationUnknown, ua.StatusBadCertificateIssuerRevocationUnknown)
		}
	}
	return ua.StatusOK
}
