package channel

import (
	"bytes"
	"crypto/cipher"
	"encoding/binary"
	"fmt"
	"io"
	"math"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gopcua/opcua/ua"
)

// clock is a time that tests set.
type clock struct {
	mu sync.Mutex
	t  time.Time
}

func (c *clock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.t
}

func (c *clock) advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.t = c.t.Add(d)
}

// sentToken reads a response and returns the id of the token it was sent with.
func (r *raw) sentToken() uint32 {
	r.t.Helper()
	r.send(r.chunk("MSGF", 1, readRequest(r.t, 2)))
	return binary.LittleEndian.Uint32(r.expect("MSGF")[4:])
}

// TestRenewal follows the tokens through a renewal: fresh ids, the old one valid
// both ways until the new one is used, and not after (Part 4 §5.5.2.1).
func TestRenewal(t *testing.T) {
	_, addr := start(t, Config{}, &echo{})
	r := connect(t, addr)
	old, channelID := r.tokenID, r.channelID
	r.open(ua.SecurityTokenRequestTypeRenew, time.Hour)
	renewed := r.tokenID
	if renewed == old || renewed == 0 || r.channelID != channelID {
		t.Fatalf("token %d of channel %d renewed as %d of %d", old, channelID, renewed, r.channelID)
	}
	r.tokenID = old
	if got := r.sentToken(); got != old {
		t.Errorf("before the new token is used, a response came with %d, want %d", got, old)
	}
	r.tokenID = renewed
	if got := r.sentToken(); got != renewed {
		t.Errorf("after the new token was used, a response came with %d, want %d", got, renewed)
	}
	r.tokenID = old
	r.send(r.chunk("MSGF", 1, readRequest(t, 2)))
	r.expectError(ua.StatusBadSecureChannelTokenUnknown)
}

// TestRenewalTwice proves that only the newest of two unused tokens counts.
func TestRenewalTwice(t *testing.T) {
	_, addr := start(t, Config{}, &echo{})
	r := connect(t, addr)
	old := r.tokenID
	r.open(ua.SecurityTokenRequestTypeRenew, time.Hour)
	first := r.tokenID
	r.open(ua.SecurityTokenRequestTypeRenew, time.Hour)
	if second := r.tokenID; second == first || second == old {
		t.Errorf("token ids %d, %d, %d", old, first, second)
	}
	r.alive()
	r.tokenID = first
	r.send(r.chunk("MSGF", 1, readRequest(t, 2)))
	r.expectError(ua.StatusBadSecureChannelTokenUnknown)
}

// TestTokenLifetime proves how the life time is revised, that a token is
// accepted for a quarter of it more, and that a renewed token is sent with once
// the old one expires.
func TestTokenLifetime(t *testing.T) {
	clk := &clock{t: time.Now()}
	_, addr := start(t, Config{Now: clk.now, Limits: Limits{MinTokenLifetime: 10 * time.Second, MaxTokenLifetime: time.Minute}}, &echo{})
	for asked, want := range map[time.Duration]uint32{0: 60_000, time.Second: 10_000, 20 * time.Second: 20_000, time.Hour: 60_000} {
		r := dialRaw(t, addr).hello()
		if got := r.open(ua.SecurityTokenRequestTypeIssue, asked).SecurityToken.RevisedLifetime; got != want {
			t.Errorf("asked for %v, got %d ms, want %d", asked, got, want)
		}
	}
	r := dialRaw(t, addr).hello()
	r.open(ua.SecurityTokenRequestTypeIssue, 40*time.Second)
	old := r.tokenID
	r.open(ua.SecurityTokenRequestTypeRenew, 40*time.Second)
	renewed := r.tokenID
	clk.advance(45 * time.Second)
	r.tokenID = old
	if got := r.sentToken(); got != renewed {
		t.Errorf("with the old token expired, a response came with %d, want %d", got, renewed)
	}
	clk.advance(6 * time.Second)
	r.send(r.chunk("MSGF", 1, readRequest(t, 2)))
	r.expectError(ua.StatusBadSecureChannelTokenUnknown)
}

// TestOpenRefused proves what an OpenSecureChannel request is refused for.
func TestOpenRefused(t *testing.T) {
	none, sign := ua.MessageSecurityModeNone, ua.MessageSecurityModeSign
	issue, renew := ua.SecurityTokenRequestTypeIssue, ua.SecurityTokenRequestTypeRenew
	_, addr := start(t, Config{Offers: []SecurityOffer{{ua.SecurityPolicyURIBasic256Sha256, ua.MessageSecurityModeSignAndEncrypt}}}, &echo{})
	tests := []struct {
		name   string
		opened bool
		typ    ua.SecurityTokenRequestType
		policy string
		mode   ua.MessageSecurityMode
		status ua.StatusCode
	}{
		{"unknown policy", false, issue, "http://example.com/#Mine", none, ua.StatusBadSecurityPolicyRejected},
		{"policy not offered", false, issue, ua.SecurityPolicyURIAes256Sha256RsaPss, sign, ua.StatusBadSecurityPolicyRejected},
		{"obsolete policy", false, issue, ua.SecurityPolicyURIBasic128Rsa15, sign, ua.StatusBadSecurityPolicyRejected},
		{"mode without policy", false, issue, ua.SecurityPolicyURINone, sign, ua.StatusBadSecurityModeRejected},
		{"no certificate", false, issue, ua.SecurityPolicyURIBasic256Sha256, sign, ua.StatusBadCertificateInvalid},
		{"renewal of nothing", false, renew, ua.SecurityPolicyURINone, none, ua.StatusBadRequestTypeInvalid},
		{"second issue", true, issue, ua.SecurityPolicyURINone, none, ua.StatusBadRequestTypeInvalid},
		{"unknown request type", true, 7, ua.SecurityPolicyURINone, none, ua.StatusBadRequestTypeInvalid},
		{"renewal with another policy", true, renew, ua.SecurityPolicyURIBasic256Sha256, none, ua.StatusBadSecurityPolicyRejected},
		{"renewal with another mode", true, renew, ua.SecurityPolicyURINone, sign, ua.StatusBadSecurityModeRejected},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := dialRaw(t, addr).hello()
			if tt.opened {
				r.open(issue, time.Hour)
			}
			r.send(r.openFrame(tt.typ, tt.policy, tt.mode, time.Hour))
			r.expectError(tt.status)
		})
	}
	for _, id := range []uint32{1, math.MaxUint32} {
		r := dialRaw(t, addr).hello()
		r.channelID = id
		r.send(r.openFrame(issue, ua.SecurityPolicyURINone, none, time.Hour))
		r.expectError(ua.StatusBadTCPSecureChannelUnknown)
	}
	r := dialRaw(t, addr).hello()
	r.send(frame("OPNF", u32s(0), appendField(nil, []byte(ua.SecurityPolicyURINone)), u32s(0xffffffff, 0xffffffff, 1, 1), readRequest(t, 1)))
	r.expectError(ua.StatusBadTCPMessageTypeInvalid)
}

// TestDiscoveryOnly proves that None is let in without an offer, and marked.
func TestDiscoveryOnly(t *testing.T) {
	h := &echo{}
	_, addr := start(t, Config{Offers: []SecurityOffer{{ua.SecurityPolicyURIBasic256Sha256, ua.MessageSecurityModeSign}}}, h)
	alive(t, addr)
	if !h.last.Load().DiscoveryOnly() {
		t.Error("channel is not marked")
	}
	if cert, key := h.last.Load().ServerCertificate(); cert == nil || key == nil {
		t.Error("channel has no server certificate")
	}
}

// TestCertificates proves what certificates are refused for.
func TestCertificates(t *testing.T) {
	server, policyURI, mode := newIdentity(t, "server", 2048), ua.SecurityPolicyURIBasic256Sha256, ua.MessageSecurityModeSign
	var status atomic.Uint32
	_, addr := start(t, Config{Verify: func(cert []byte) ua.StatusCode {
		if !bytes.Equal(cert, newIdentity(t, "client", 2048).cert) {
			return ua.StatusBadInternalError
		}
		return ua.StatusCode(status.Load())
	}}, &echo{})
	client := newIdentity(t, "client", 2048)
	c, err := dial(t, addr, policyURI, mode, time.Hour, client, server)
	if err != nil {
		t.Fatal(err)
	}
	if err := c.read("i=1"); err != nil {
		t.Fatal(err)
	}
	status.Store(uint32(ua.StatusBadCertificateUntrusted))
	r := dialRaw(t, addr).hello()
	open := func(cert, thumbprint []byte) []byte {
		security := appendField(appendField(appendField(nil, []byte(policyURI)), cert), thumbprint)
		return frame("OPNF", u32s(0), security, make([]byte, 256))
	}
	_, print, good := leafKey(policyByURI(policyURI), server.cert)
	if good != ua.StatusOK {
		t.Fatal(good)
	}
	r.send(open(client.cert, print[:]))
	r.expectError(ua.StatusBadCertificateUntrusted)
	status.Store(0)
	for name, tt := range map[string]struct {
		frame  []byte
		status ua.StatusCode
	}{
		"not a certificate":    {open([]byte("x"), print[:]), ua.StatusBadCertificateInvalid},
		"short key":            {open(newIdentity(t, "short", 1024).cert, print[:]), ua.StatusBadCertificatePolicyCheckFailed},
		"other receiver":       {open(client.cert, make([]byte, 20)), ua.StatusBadCertificateInvalid},
		"not encrypted for us": {open(client.cert, print[:]), ua.StatusBadSecurityChecksFailed},
	} {
		t.Run(name, func(t *testing.T) {
			r := dialRaw(t, addr).hello()
			r.send(tt.frame)
			r.expectError(tt.status)
		})
	}
}

// tamper forwards connections to addr, and lets change rewrite what clients send,
// message by message.
func tamper(t *testing.T, addr string, change func(n int, msg []byte) [][]byte) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	t.Cleanup(func() { l.Close(); wg.Wait() })
	wg.Go(func() {
		for {
			in, err := l.Accept()
			if err != nil {
				return
			}
			out, err := net.Dial("tcp", addr)
			if err != nil {
				in.Close()
				return
			}
			wg.Go(func() { _, _ = io.Copy(in, out); in.Close() })
			wg.Go(func() {
				defer out.Close()
				r := &raw{t: t, Conn: in}
				for n := 0; ; n++ {
					kind, rest, err := r.receive()
					if err != nil {
						return
					}
					for _, msg := range change(n, frame(kind, rest)) {
						if _, err := out.Write(msg); err != nil {
							return
						}
					}
				}
			})
		}
	})
	return l.Addr().String()
}

// TestTampering proves that a message that was changed, repeated or left out on
// its way ends the channel.
func TestTampering(t *testing.T) {
	const first = 2 // after Hello and OpenSecureChannel
	tests := []struct {
		name   string
		change func(n int, msg []byte) [][]byte
		want   string
	}{
		{"changed", func(n int, msg []byte) [][]byte {
			if n == first+1 {
				msg[len(msg)-40] ^= 1
			}
			return [][]byte{msg}
		}, "security BadSecurityChecksFailed"},
		{"repeated", func(n int, msg []byte) [][]byte {
			if n == first {
				return [][]byte{msg, msg}
			}
			return [][]byte{msg}
		}, "security BadSequenceNumberInvalid"},
		{"left out", func(n int, msg []byte) [][]byte {
			if n == first {
				return nil
			}
			return [][]byte{msg}
		}, "security BadSequenceNumberInvalid"},
		{"open changed", func(n int, msg []byte) [][]byte {
			if n == 1 {
				msg[len(msg)-1] ^= 1
			}
			return [][]byte{msg}
		}, "security BadSecurityChecksFailed"},
	}
	for _, tt := range tests {
		for _, mode := range []ua.MessageSecurityMode{ua.MessageSecurityModeSign, ua.MessageSecurityModeSignAndEncrypt} {
			t.Run(fmt.Sprint(tt.name, mode), func(t *testing.T) {
				got := make(rejects, 9)
				_, addr := start(t, Config{Events: got.events()}, &echo{})
				proxy := tamper(t, addr, tt.change)
				c, err := dial(t, proxy, ua.SecurityPolicyURIBasic256Sha256, mode, time.Hour, newIdentity(t, "client", 2048), newIdentity(t, "server", 2048))
				if err == nil {
					// Which of the requests fails first depends on the case.
					for range 2 {
						go func() { _ = c.read("i=1") }()
					}
				}
				got.expect(t, tt.want)
			})
		}
	}
}

// TestDirection proves that no bit of a chunk can be changed, and none be cut off.
func TestDirection(t *testing.T) {
	p := policyByURI(ua.SecurityPolicyURIBasic256Sha256)
	for _, mode := range []ua.MessageSecurityMode{ua.MessageSecurityModeSign, ua.MessageSecurityModeSignAndEncrypt} {
		secret, seed := []byte("secret"), []byte("seed")
		out, err := newDirection(p, mode, secret, seed, cipher.NewCBCEncrypter)
		if err != nil {
			t.Fatal(err)
		}
		in, err := newDirection(p, mode, secret, seed, cipher.NewCBCDecrypter)
		if err != nil {
			t.Fatal(err)
		}
		for size := range 40 {
			chunk := append(frame("MSGF", u32s(1, 2, 3, 4)), make([]byte, size)...)
			want := bytes.Clone(chunk[symmetricClear:])
			sealed := out.seal(chunk, 0)
			if binary.LittleEndian.Uint32(sealed[4:]) != uint32(len(sealed)) {
				t.Fatalf("size %d: header says %x", size, sealed[4:8])
			}
			if got, ok := in.open(bytes.Clone(sealed)); !ok || !bytes.Equal(got, want) {
				t.Fatalf("size %d: got %x, %v", size, got, ok)
			}
			for i := range sealed {
				bad := bytes.Clone(sealed)
				bad[i] ^= 0x10
				if _, ok := in.open(bad); ok {
					t.Fatalf("size %d: byte %d may be changed", size, i)
				}
				if _, ok := in.open(bytes.Clone(sealed[:i])); ok {
					t.Fatalf("size %d: may be cut to %d bytes", size, i)
				}
			}
		}
		if room := out.maxBody(MinChunkSize); len(out.seal(append(frame("MSGF", u32s(1, 2, 3, 4)), make([]byte, room)...), 0)) > MinChunkSize ||
			len(out.seal(append(frame("MSGF", u32s(1, 2, 3, 4)), make([]byte, room+1)...), 0)) <= MinChunkSize {
			t.Errorf("maxBody is %d, which is not what fits", room)
		}
	}
}

// TestPadding proves that a client that signs what it sends cannot make the
// server look for padding that is not there.
func TestPadding(t *testing.T) {
	p := policyByURI(ua.SecurityPolicyURIBasic256Sha256)
	out, err := newDirection(p, ua.MessageSecurityModeSignAndEncrypt, nil, nil, cipher.NewCBCEncrypter)
	if err != nil {
		t.Fatal(err)
	}
	in, err := newDirection(p, ua.MessageSecurityModeSignAndEncrypt, nil, nil, cipher.NewCBCDecrypter)
	if err != nil {
		t.Fatal(err)
	}
	// 8 bytes of sequence header, 7 of body, one of padding length: one block.
	for padding, want := range map[byte]bool{0: true, 7: true, 8: false, 15: false, 16: false, 255: false} {
		chunk := append(frame("MSGF", u32s(1, 2, 3, 4)), 0, 0, 0, 0, 0, 0, 0, padding)
		chunk = append(chunk, out.sign(chunk)...)
		out.cryptBlocks(chunk[symmetricClear:])
		if plain, ok := in.open(chunk); ok != want || ok && len(plain) != 15-int(padding) {
			t.Errorf("padding of %d: %x, %v", padding, plain, ok)
		}
	}
	for _, bits := range []int{2048, 3072} {
		client, server := newIdentity(t, "client", 2048), newIdentity(t, "server", bits)
		c := &Channel{policy: p, clientKey: &client.key.PublicKey, serverKey: server.key}
		header := frame("OPNF", u32s(0, 1, 2, 3))
		for padding, want := range map[uint16]bool{0: true, 3: true, 20: false, 255: false, 65535: false} {
			plain := append(u32s(1, 2, 3), byte(padding), byte(padding))
			if bits > 2048 {
				plain = append(plain, byte(padding>>8))
			} else if padding > 255 {
				continue
			}
			sig, err := p.sign(client.key, append(bytes.Clone(header), plain...))
			if err != nil {
				t.Fatal(err)
			}
			encrypted, err := p.encrypt(&server.key.PublicKey, append(plain, sig...))
			if err != nil {
				t.Fatal(err)
			}
			if _, err := c.openAsymmetric(append(bytes.Clone(header), encrypted...), len(header)); (err == nil) != want {
				t.Errorf("%d bits, padding of %d: %v", bits, padding, err)
			}
		}
	}
}

// TestSequenceWrap proves where sequence numbers start again.
func TestSequenceWrap(t *testing.T) {
	c := new(Channel)
	for _, tt := range []struct {
		last, next uint32
		ok         bool
	}{
		{5, 6, true}, {5, 7, false}, {5, 5, false}, {5, 1, false},
		{lastSequence - 1, 1, false}, {lastSequence, 1, true}, {lastSequence, 0, true}, {lastSequence, 1023, true},
		{lastSequence, 1024, false}, {lastSequence, lastSequence + 1, true}, {math.MaxUint32, 0, true}, {math.MaxUint32, 1024, false},
	} {
		c.sequence, c.sequenced = tt.last, true
		if err := c.checkSequence(tt.next); (err == nil) != tt.ok {
			t.Errorf("%d after %d: %v", tt.next, tt.last, err)
		}
	}
	o := outgoing{sequence: lastSequence - 1}
	if a, b := o.nextSequence(), o.nextSequence(); a != lastSequence || b != 1 {
		t.Errorf("sent %d, then %d", a, b)
	}
}
