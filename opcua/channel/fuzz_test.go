package channel

import (
	"context"
	"io"
	"net"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gopcua/opcua/ua"
)

// FuzzConnection throws bytes at a fresh connection, or at one with an open
// channel, and looks for panics, hangs, and memory that is not given back.
func FuzzConnection(f *testing.F) {
	const channelID, tokenID = 1, 1 // replaced in the input by the real ones
	r := &raw{t: f, channelID: channelID, tokenID: tokenID, sequence: 1}
	open := r.openFrame(ua.SecurityTokenRequestTypeIssue, ua.SecurityPolicyURINone, ua.MessageSecurityModeNone, time.Hour)
	secured := r.openFrame(ua.SecurityTokenRequestTypeIssue, ua.SecurityPolicyURIBasic256Sha256, ua.MessageSecurityModeSign, time.Hour)
	hello := helloFrame(65536, 65536, 0, 0, "opc.tcp://x")
	f.Add(false, hello)
	f.Add(false, append(hello[:len(hello):len(hello)], secured...))
	f.Add(false, append(hello[:len(hello):len(hello)], open...))
	r.sequence = 1
	f.Add(true, r.chunk("MSGF", 1, readRequest(f, 1, "i=2258")))
	r.sequence = 1
	f.Add(true, append(r.chunk("MSGC", 1, []byte("abc")), r.chunk("MSGF", 1, []byte("def"))...))
	r.sequence = 1
	f.Add(true, append(r.chunk("MSGC", 1, []byte("abc")), r.chunk("MSGA", 1, u32s(0, 0xffffffff))...))
	r.sequence = 1
	f.Add(true, r.openFrame(ua.SecurityTokenRequestTypeRenew, ua.SecurityPolicyURINone, ua.MessageSecurityModeNone, time.Hour))
	r.sequence = 1
	f.Add(true, r.chunk("CLOF", 1, nil))
	f.Add(true, frame("ERRF", u32s(0, 0xffffffff)))
	f.Add(true, frame("RHEF", u32s(0, 0)))

	var panics atomic.Int64
	id := newIdentity(f, "server", 2048)
	s, err := NewServer(Config{
		Offers:      []SecurityOffer{{ua.SecurityPolicyURIBasic256Sha256, ua.MessageSecurityModeSign}},
		Certificate: id.certificate,
		Limits:      Limits{MaxMessageSize: 1 << 16},
		Events:      Events{Panicked: func(net.Addr, any) { panics.Add(1) }},
	}, &echo{})
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { _ = s.Shutdown(context.Background()) })
	f.Fuzz(func(t *testing.T, opened bool, input []byte) {
		in, out := net.Pipe()
		c := newChannel(s, in, "fuzz", 1)
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			c.run()
		}()
		r := &raw{t: t, Conn: out}
		if opened {
			r.hello().open(ua.SecurityTokenRequestTypeIssue, time.Hour)
			if len(input) >= symmetricClear {
				copy(input[8:], u32s(r.channelID, r.tokenID))
			}
		}
		drained := make(chan struct{})
		go func() {
			defer close(drained)
			_, _ = io.Copy(io.Discard, out)
		}()
		_, _ = out.Write(input)
		out.Close()
		<-ended
		<-drained
		if panics.Load() != 0 {
			t.Fatal("panicked")
		}
		if held := s.partialBytes.Load(); held != 0 {
			t.Fatalf("%d bytes held", held)
		}
	})
}

// FuzzOpenHeader looks for security headers that crash, or that claim bytes which are not there.
func FuzzOpenHeader(f *testing.F) {
	r := &raw{t: f}
	f.Add(r.openFrame(ua.SecurityTokenRequestTypeIssue, ua.SecurityPolicyURINone, ua.MessageSecurityModeNone, time.Hour))
	f.Fuzz(func(t *testing.T, chunk []byte) {
		if len(chunk) < headerLength {
			return
		}
		if h, ok := parseAsymmetric(chunk); ok && (h.length > len(chunk) ||
			headerLength+12+len(h.policyURI)+len(h.certificate)+len(h.thumbprint) != h.length) {
			t.Fatalf("header of %d bytes in %d: %+v", h.length, len(chunk), h)
		}
	})
}
