package certstore

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"slices"
	"testing"
	"time"

	"github.com/gopcua/opcua/ua"
)

func TestStepsOfVerification(t *testing.T) {
	root := make509(t, "root", nil, keys[0](), authority)
	middle := make509(t, "middle", &root, keys[1](), authority)
	leaf := make509(t, "leaf", &middle, keys[2]())
	self := make509(t, "self", nil, keys[0]())
	with := func(change func(*x509.Certificate)) party { return make509(t, "self", nil, keys[0](), change) }
	late := with(expired)
	broken := slices.Clone(self.Raw)
	broken[len(broken)-1] ^= 1
	impostor := make509(t, "root", nil, keys[2](), authority) // The name of root, and another key.
	forger := make509(t, "root", nil, keys[2](), authority, func(c *x509.Certificate) { c.SubjectKeyId = root.SubjectKeyId })
	oldRoot := make509(t, "old", nil, keys[0](), authority, expired)
	plain := make509(t, "plain", nil, keys[0]()) // No authority, yet it signs.
	strictRoot := make509(t, "short", nil, keys[0](), authority, func(c *x509.Certificate) { c.MaxPathLenZero = true })
	below := make509(t, "below", &strictRoot, keys[1](), authority)

	trust := func(list ...party) func(*opened) {
		return func(s *opened) {
			for _, p := range list {
				s.put(t, trustedCerts, Fingerprint(p.Raw), p.Raw)
			}
		}
	}
	issue := func(p party) func(*opened) {
		return func(s *opened) {
			s.put(t, issuersCerts, "issuer.pem", pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: p.Raw}))
		}
	}
	list := func(folder string, der []byte) func(*opened) {
		return func(s *opened) { s.put(t, folder, "list.crl", der) }
	}
	type setup = []func(*opened)
	for name, x := range map[string]struct {
		setup setup
		shown []byte
		o     Options
		want  ua.StatusCode
	}{
		"nothing":                 {nil, nil, Options{}, ua.StatusBadCertificateInvalid},
		"nonsense":                {nil, []byte("x"), Options{}, ua.StatusBadCertificateInvalid},
		"too long":                {nil, make([]byte, MaxChainBytes+1), Options{}, ua.StatusBadCertificateInvalid},
		"too many":                {setup{trust(self)}, slices.Repeat(self.Raw, MaxChain+1), Options{}, ua.StatusBadCertificateInvalid},
		"as many as may be":       {setup{trust(self)}, slices.Repeat(self.Raw, MaxChain), Options{}, ua.StatusOK},
		"broken signature":        {setup{trust(self)}, broken, Options{}, ua.StatusBadCertificateInvalid},
		"not trusted":             {nil, self.Raw, Options{}, ua.StatusBadCertificateUntrusted},
		"not trusted and expired": {nil, late.Raw, Options{}, ua.StatusBadCertificateUntrusted},
		"trusted":                 {setup{trust(self)}, self.Raw, Options{}, ua.StatusOK},
		"expired":                 {setup{trust(late)}, late.Raw, Options{}, ua.StatusBadCertificateTimeInvalid},

		"no issuer known":         {setup{trust(leaf)}, leaf.Raw, Options{}, ua.StatusBadCertificateChainIncomplete},
		"root unknown":            {setup{trust(middle)}, leaf.Raw, Options{}, ua.StatusBadCertificateChainIncomplete},
		"chain shown, root known": {setup{trust(root)}, slices.Concat(leaf.Raw, middle.Raw), Options{}, ua.StatusOK},
		"whole chain shown":       {nil, slices.Concat(leaf.Raw, middle.Raw, root.Raw), Options{}, ua.StatusBadCertificateUntrusted},
		"chain on disk":           {setup{trust(root), issue(middle)}, leaf.Raw, Options{}, ua.StatusOK},
		"issuer is no trust":      {setup{issue(root)}, slices.Concat(leaf.Raw, middle.Raw), Options{}, ua.StatusBadCertificateUntrusted},
		"only the leaf trusted":   {setup{trust(leaf), issue(root)}, slices.Concat(leaf.Raw, middle.Raw), Options{}, ua.StatusOK},
		"issuer of the same name": {setup{trust(impostor)}, slices.Concat(leaf.Raw, middle.Raw), Options{}, ua.StatusBadCertificateChainIncomplete},
		"issuer of the same id":   {setup{trust(forger)}, slices.Concat(leaf.Raw, middle.Raw), Options{}, ua.StatusBadCertificateInvalid},
		"issuer expired":          {setup{trust(oldRoot)}, make509(t, "l", &oldRoot, keys[2]()).Raw, Options{}, ua.StatusBadCertificateIssuerTimeInvalid},
		"issuer is no authority":  {setup{trust(plain)}, make509(t, "l", &plain, keys[2]()).Raw, Options{}, ua.StatusBadCertificateIssuerUseNotAllowed},
		"path too long":           {setup{trust(strictRoot)}, slices.Concat(make509(t, "l", &below, keys[2]()).Raw, below.Raw), Options{}, ua.StatusBadCertificateIssuerUseNotAllowed},

		"revoked":                      {setup{trust(root), issue(middle), list(issuersCRLs, crl(t, middle, now.Add(time.Hour), leaf))}, leaf.Raw, Options{}, ua.StatusBadCertificateRevoked},
		"revoked by an old list":       {setup{trust(root), issue(middle), list(issuersCRLs, crl(t, middle, now.Add(-time.Hour), leaf))}, leaf.Raw, Options{}, ua.StatusBadCertificateRevoked},
		"issuer revoked":               {setup{trust(root), issue(middle), list(trustedCRLs, crl(t, root, now.Add(time.Hour), middle))}, leaf.Raw, Options{}, ua.StatusBadCertificateIssuerRevoked},
		"revoked by an impostor":       {setup{trust(root), issue(middle), list(trustedCRLs, crl(t, impostor, now.Add(time.Hour), middle))}, leaf.Raw, Options{}, ua.StatusOK},
		"another revoked":              {setup{trust(root), issue(middle), list(issuersCRLs, crl(t, middle, now.Add(time.Hour), self))}, leaf.Raw, Options{}, ua.StatusOK},
		"no list where one is needed":  {setup{trust(root), issue(middle)}, leaf.Raw, Options{RequireRevocationLists: true}, ua.StatusBadCertificateRevocationUnknown},
		"only the leaf's list":         {setup{trust(root), issue(middle), list(issuersCRLs, crl(t, middle, now.Add(time.Hour)))}, leaf.Raw, Options{RequireRevocationLists: true}, ua.StatusBadCertificateIssuerRevocationUnknown},
		"old list where one is needed": {setup{trust(root), issue(middle), list(issuersCRLs, crl(t, middle, now.Add(-time.Hour)))}, leaf.Raw, Options{RequireRevocationLists: true}, ua.StatusBadCertificateRevocationUnknown},
		"self-signed needs no list":    {setup{trust(self)}, self.Raw, Options{RequireRevocationLists: true}, ua.StatusOK},
	} {
		t.Run(name, func(t *testing.T) {
			s := open(t, x.o)
			for _, f := range x.setup {
				f(s)
			}
			if got := s.Verify(x.shown); got != x.want {
				t.Errorf("%v, want %v", got, x.want)
			}
		})
	}
}

// TestManyIssuersOfOneName fills the trust list with impostors, and reaches the limit of signatures.
func TestManyIssuersOfOneName(t *testing.T) {
	noID := func(c *x509.Certificate) { c.SubjectKeyId = []byte{1} }
	root := make509(t, "root", nil, keys[0](), authority, noID)
	leaf := make509(t, "leaf", &root, keys[1]())
	s := open(t, Options{})
	s.put(t, trustedCerts, "z", root.Raw) // Files are looked at in the order of their names.
	for i := range maxSignatures - 1 {
		s.put(t, trustedCerts, string(rune('a'+i)), make509(t, "root", nil, keys[2](), authority, noID).Raw)
	}
	if got := s.Verify(leaf.Raw); got != ua.StatusOK {
		t.Errorf("at the limit, less the root's own signature: %v", got)
	}
	s.put(t, trustedCerts, "y", make509(t, "root", nil, keys[2](), authority, noID).Raw)
	if got := s.Verify(leaf.Raw); got != ua.StatusBadCertificateInvalid {
		t.Errorf("beyond the limit: %v", got)
	}
}

func TestKeysAndUsages(t *testing.T) {
	s := open(t, Options{})
	users := open(t, Options{Use: User})
	verify := func(on *opened, p party) ua.StatusCode {
		on.put(t, trustedCerts, "it", p.Raw)
		return on.Verify(p.Raw)
	}
	self := func(change ...func(*x509.Certificate)) party { return make509(t, "self", nil, keys[0](), change...) }
	noUsage := self(func(c *x509.Certificate) { c.KeyUsage = 0 })
	onlySigns := self(func(c *x509.Certificate) { c.KeyUsage = x509.KeyUsageDigitalSignature })
	server := self(func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth} })
	free := self(func(c *x509.Certificate) { c.ExtKeyUsage = nil })
	encipher := self(func(c *x509.Certificate) { c.KeyUsage = x509.KeyUsageKeyEncipherment })
	for name, x := range map[string]struct {
		on   *opened
		p    party
		want ua.StatusCode
	}{
		"no usages":              {s, noUsage, ua.StatusBadCertificateUseNotAllowed},
		"signs only":             {s, onlySigns, ua.StatusBadCertificateUseNotAllowed},
		"a server's":             {s, server, ua.StatusBadCertificateUseNotAllowed},
		"no extended usage":      {s, free, ua.StatusOK},
		"user without usages":    {users, noUsage, ua.StatusOK},
		"user that signs":        {users, onlySigns, ua.StatusOK},
		"user that can't sign":   {users, encipher, ua.StatusBadCertificateUseNotAllowed},
		"SHA-1":                  {s, sha1Certificate(t), ua.StatusBadCertificatePolicyCheckFailed},
		"key that takes seconds": {s, largeKey(t), ua.StatusBadCertificatePolicyCheckFailed},
	} {
		if got := verify(x.on, x.p); got != x.want {
			t.Errorf("%s: %v, want %v", name, got, x.want)
		}
	}
}

// sha1Certificate says that its signature is one of SHA-1, which nothing here can make any more.
func sha1Certificate(t *testing.T) party {
	p := make509(t, "old", nil, keys[0]())
	// sha256WithRSAEncryption and sha1WithRSAEncryption differ in the last byte of the object identifier.
	sha256RSA := []byte{0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x0b}
	raw := slices.Clone(p.Raw)
	for i := range len(raw) - len(sha256RSA) {
		if slices.Equal(raw[i:i+len(sha256RSA)], sha256RSA) {
			raw[i+len(sha256RSA)-1] = 0x05
		}
	}
	c, err := x509.ParseCertificate(raw)
	if err != nil {
		t.Fatal(err)
	}
	return party{c, p.key}
}

// largeKey has a key above the limit, signed by another, since making such a key takes long.
func largeKey(t *testing.T) party {
	public := &rsa.PublicKey{N: keys[0]().N, E: 65537}
	n := *public.N
	public.N = n.Lsh(&n, MaxKeyBits+1-uint(n.BitLen()))
	public.N.SetBit(public.N, 0, 1)
	serial++
	template := make509(t, "large", nil, keys[0]())
	der, err := x509.CreateCertificate(rand.Reader, template.Certificate, template.Certificate, public, template.key)
	if err != nil {
		t.Fatal(err)
	}
	c, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return party{c, nil}
}

func TestStrangersLearnNothing(t *testing.T) {
	for _, status := range []ua.StatusCode{
		ua.StatusBadCertificateInvalid, ua.StatusBadCertificateChainIncomplete, ua.StatusBadCertificateUntrusted,
		ua.StatusBadCertificatePolicyCheckFailed, ua.StatusBadCertificateRevoked, ua.StatusBadCertificateIssuerRevoked,
	} {
		if got := OnWire(status); got != ua.StatusBadSecurityChecksFailed {
			t.Errorf("%v is told as %v", status, got)
		}
	}
	for _, status := range []ua.StatusCode{ua.StatusOK, ua.StatusBadCertificateTimeInvalid, ua.StatusBadCertificateUseNotAllowed} {
		if got := OnWire(status); got != status {
			t.Errorf("%v is told as %v", status, got)
		}
	}
}

func FuzzVerify(f *testing.F) {
	root := make509(f, "root", nil, keys[0](), authority)
	leaf := make509(f, "leaf", &root, keys[1]())
	s := open(f, Options{})
	s.put(f, trustedCerts, "root.der", root.Raw)
	f.Add(leaf.Raw)
	f.Add(slices.Concat(leaf.Raw, root.Raw))
	f.Add(crl(f, root, now, leaf))
	f.Fuzz(func(t *testing.T, shown []byte) {
		if s.Verify(shown) != ua.StatusOK {
			return
		}
		if c, err := x509.ParseCertificates(shown); err != nil || c[0].CheckSignatureFrom(root.Certificate) != nil {
			t.Errorf("trusted without the signature of the one that is trusted: %x", shown)
		}
	})
}

func FuzzFile(f *testing.F) {
	root := make509(f, "root", nil, keys[0](), authority)
	f.Add(root.Raw)
	f.Add(crl(f, root, now, root))
	f.Add(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: root.Raw}))
	f.Fuzz(func(t *testing.T, content []byte) {
		certificates, revocations := parse(content)
		for _, c := range certificates {
			if len(c.Raw) == 0 {
				t.Error("a certificate of nothing")
			}
		}
		for _, r := range revocations {
			if len(r.Raw) == 0 {
				t.Error("a list of nothing")
			}
		}
	})
}
