package channel

import (
	"errors"
	"fmt"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gopcua/opcua/ua"
)

// TestIdleAndReset proves that neither an idle connection nor one that is reset
// keeps others from being accepted (opcua.md §1).
func TestIdleAndReset(t *testing.T) {
	_, addr := start(t, Config{}, &echo{})
	dialRaw(t, addr)                     // says nothing
	dialRaw(t, addr).send([]byte("HEL")) // stops in the middle
	for range 20 {
		nc, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		_ = nc.(*net.TCPConn).SetLinger(0) // Close sends a reset
		nc.Close()
	}
	alive(t, addr)
}

// TestReverseHello proves that the server dials nobody.
func TestReverseHello(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	var dialled atomic.Bool
	go func() {
		if nc, err := l.Accept(); err == nil {
			dialled.Store(true)
			nc.Close()
		}
	}()
	got := make(rejects, 9)
	_, addr := start(t, Config{Events: got.events()}, &echo{})
	target := l.Addr().String()
	rhe := frame("RHEF", appendField(appendField(nil, []byte(target)), []byte("opc.tcp://"+addr)))
	r := dialRaw(t, addr)
	r.send(rhe)
	r.expectError(ua.StatusBadTCPMessageTypeInvalid)
	got.expect(t, "reverse_hello BadTCPMessageTypeInvalid")
	r = connect(t, addr)
	r.send(rhe)
	r.expectError(ua.StatusBadTCPMessageTypeInvalid)
	alive(t, addr)
	if dialled.Load() {
		t.Error("the server dialled out")
	}
}

// TestMalformed sends what is no proper conversation, and expects the status.
func TestMalformed(t *testing.T) {
	_, addr := start(t, Config{Limits: Limits{MaxChunkSize: 16384, MaxMessageSize: 11000, MaxChunkCount: 3}}, &echo{})
	big := make([]byte, 9000)
	tests := []struct {
		name   string
		open   bool
		send   func(r *raw) []byte
		status ua.StatusCode
	}{
		{"http", false, func(*raw) []byte { return []byte("GET / HTTP/1.1\r\nHost: x\r\n\r\n") }, ua.StatusBadTCPMessageTooLarge},
		{"zero size", false, func(*raw) []byte { return []byte("HELF\x00\x00\x00\x00") }, ua.StatusBadTCPMessageTypeInvalid},
		{"huge size", false, func(*raw) []byte { return []byte("HELF\xff\xff\xff\xff") }, ua.StatusBadTCPMessageTooLarge},
		{"unknown type", false, func(*raw) []byte { return frame("XYZF", u32s(1, 2, 3)) }, ua.StatusBadTCPMessageTypeInvalid},
		{"hello in chunks", false, func(*raw) []byte { return frame("HELC", u32s(0, 1, 2, 3, 4, 0xffffffff)) }, ua.StatusBadTCPMessageTypeInvalid},
		{"short hello", false, func(*raw) []byte { return frame("HELF", u32s(0, 1, 2)) }, ua.StatusBadDecodingError},
		{"negative url length", false, func(*raw) []byte { return frame("HELF", u32s(0, 65536, 65536, 0, 0, 0xfffffffe), []byte("x")) }, ua.StatusBadTCPEndpointURLInvalid},
		{"long url length", false, func(*raw) []byte { return frame("HELF", u32s(0, 65536, 65536, 0, 0, 0x7fffffff), []byte("x")) }, ua.StatusBadTCPEndpointURLInvalid},
		{"long url", false, func(*raw) []byte { return helloFrame(65536, 65536, 0, 0, strings.Repeat("x", 4097)) }, ua.StatusBadTCPMessageTooLarge},
		{"small buffers", false, func(*raw) []byte { return helloFrame(8191, 65536, 0, 0, "") }, ua.StatusBadTCPNotEnoughResources},
		{"message before hello", false, func(r *raw) []byte { return r.chunk("MSGF", 1, nil) }, ua.StatusBadTCPMessageTypeInvalid},
		{"second hello", true, func(*raw) []byte { return helloFrame(65536, 65536, 0, 0, "") }, ua.StatusBadTCPMessageTypeInvalid},
		{"short message", true, func(*raw) []byte { return frame("MSGF", u32s(1)) }, ua.StatusBadTCPMessageTypeInvalid},
		{"short open", true, func(*raw) []byte { return frame("OPNF") }, ua.StatusBadTCPMessageTypeInvalid},
		{"open without header", true, func(r *raw) []byte { return frame("OPNF", u32s(r.channelID)) }, ua.StatusBadDecodingError},
		{"open with negative length", true, func(r *raw) []byte { return frame("OPNF", u32s(r.channelID, 0x80000000, 0, 0)) }, ua.StatusBadDecodingError},
		{"open with long length", true, func(r *raw) []byte { return frame("OPNF", u32s(r.channelID, 0x7fffffff, 0, 0)) }, ua.StatusBadDecodingError},
		{"unknown chunk type", true, func(r *raw) []byte { return r.chunk("MSGX", 1, nil) }, ua.StatusBadTCPMessageTypeInvalid},
		{"other channel", true, func(r *raw) []byte { r.channelID++; return r.chunk("MSGF", 1, nil) }, ua.StatusBadTCPSecureChannelUnknown},
		{"unknown token", true, func(r *raw) []byte { r.tokenID++; return r.chunk("MSGF", 1, nil) }, ua.StatusBadSecureChannelTokenUnknown},
		{"repeated sequence number", true, func(r *raw) []byte { r.sequence--; return r.chunk("MSGF", 1, nil) }, ua.StatusBadSequenceNumberInvalid},
		{"skipped sequence number", true, func(r *raw) []byte { r.sequence++; return r.chunk("MSGF", 1, nil) }, ua.StatusBadSequenceNumberInvalid},
		{"chunk beyond the buffer", true, func(r *raw) []byte { return r.chunk("MSGF", 1, make([]byte, 16384)) }, ua.StatusBadTCPMessageTooLarge},
		{"mixed chunks", true, func(r *raw) []byte { return append(r.chunk("MSGC", 1, nil), r.chunk("MSGC", 2, nil)...) }, ua.StatusBadTCPMessageTypeInvalid},
		{"too large in chunks", true, func(r *raw) []byte {
			return append(append(r.chunk("MSGC", 1, big), r.chunk("MSGC", 1, big)...), r.chunk("MSGC", 1, big)...)
		}, ua.StatusBadTCPMessageTooLarge},
		{"too large in one", true, func(r *raw) []byte { return r.chunk("MSGF", 1, make([]byte, 12000)) }, ua.StatusBadTCPMessageTooLarge},
		{"long policy", true, func(r *raw) []byte {
			return r.openFrame(ua.SecurityTokenRequestTypeRenew, strings.Repeat("x", maxPolicyURI+1), ua.MessageSecurityModeNone, 0)
		}, ua.StatusBadDecodingError},
		{"chunk flood", true, func(r *raw) (b []byte) {
			for range 4 {
				b = append(b, r.chunk("MSGC", 1, []byte("x"))...)
			}
			return b
		}, ua.StatusBadTCPMessageTooLarge},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := dialRaw(t, addr)
			if tt.open {
				r.hello().open(ua.SecurityTokenRequestTypeIssue, time.Hour)
			}
			r.send(tt.send(r))
			r.expectError(tt.status)
		})
	}
	alive(t, addr)
}

// TestPartialBytes proves that incomplete requests of all connections together
// are limited, and that the memory is given back.
func TestPartialBytes(t *testing.T) {
	s, addr := start(t, Config{Limits: Limits{MaxPartialBytes: 10000}}, &echo{})
	first, second := connect(t, addr), connect(t, addr)
	first.send(first.chunk("MSGC", 1, make([]byte, 6000)))
	eventually(t, "first chunk held", func() bool { return s.partialBytes.Load() == 6000 })
	second.send(second.chunk("MSGC", 1, make([]byte, 6000)))
	second.expectError(ua.StatusBadTCPNotEnoughResources)
	if got := s.partialBytes.Load(); got != 6000 {
		t.Errorf("%d bytes held", got)
	}
	// An abort frees what is held, and the connection goes on.
	first.send(first.chunk("MSGA", 1, u32s(uint32(ua.StatusBadTimeout), 0xffffffff)))
	first.alive()
	if got := s.partialBytes.Load(); got != 0 {
		t.Errorf("%d bytes held after an abort", got)
	}
	first.send(first.chunk("MSGC", 1, make([]byte, 6000)))
	eventually(t, "chunk held", func() bool { return s.partialBytes.Load() == 6000 })
	first.Close()
	eventually(t, "memory given back", func() bool { return s.partialBytes.Load() == 0 })
}

// TestChunkedRequest proves that a request may come in pieces.
func TestChunkedRequest(t *testing.T) {
	_, addr := start(t, Config{}, &echo{})
	r := connect(t, addr)
	body := readRequest(t, 6, "i=2258", "ns=1;s=abc")
	r.send(r.chunk("MSGC", 9, body[:10]))
	r.send(r.chunk("MSGC", 9, body[10:30]))
	r.send(r.chunk("MSGF", 9, body[30:]))
	if id, msg := r.response(); id != 9 || len(msg.(*ua.ReadResponse).Results) != 2 {
		t.Errorf("request %d answered with %+v", id, msg)
	}
	r.alive()
}

// TestUndecodable proves that what cannot be decoded is answered with a fault
// that bears the handle, and that the connection goes on.
func TestUndecodable(t *testing.T) {
	h := &echo{}
	_, addr := start(t, Config{}, h)
	r := connect(t, addr)
	unknown := readRequest(t, 42)
	unknown[2], unknown[3] = 0xfe, 0xff
	r.send(r.chunk("MSGF", 1, unknown))
	r.expectFault(1, 42, ua.StatusBadServiceUnsupported)
	r.send(r.chunk("MSGF", 2, append(readRequest(t, 43), 0)))
	r.expectFault(2, 43, ua.StatusBadDecodingError)
	r.send(r.chunk("MSGF", 3, nil))
	r.expectFault(3, 0, ua.StatusBadDecodingError)
	r.send(r.chunk("MSGF", 4, encode(t, &ua.CloseSecureChannelRequest{RequestHeader: &ua.RequestHeader{RequestHandle: 44}})))
	r.expectFault(4, 44, ua.StatusBadServiceUnsupported)
	if h.served.Load() != 0 {
		t.Errorf("%d of them reached the handler", h.served.Load())
	}
	r.alive()
	r.send(r.chunk("CLOF", 5, encode(t, &ua.CloseSecureChannelRequest{})))
	r.expectEnd()
	eventually(t, "handler told", func() bool { return h.closed.Load() == 1 })
}

// TestSlowReader proves that a client that reads nothing is disconnected, by
// each of the limits, and that Send never waits for it.
func TestSlowReader(t *testing.T) {
	value := &ua.DataValue{EncodingMask: ua.DataValueValue, Value: ua.MustVariant(strings.Repeat("x", 4000))}
	resp := &ua.ReadResponse{Results: []*ua.DataValue{value}}
	tests := []struct {
		name   string
		limits Limits
	}{
		{"bytes", Limits{MaxQueueBytes: 1 << 20}},
		{"messages", Limits{MaxQueueMessages: 100}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got := make(rejects, 9)
			h := &echo{}
			_, addr := start(t, Config{Limits: tt.limits, Events: got.events()}, h)
			slow := connect(t, addr)
			slow.alive()
			ch := h.last.Load()
			var err error
			n := 0
			for ; err == nil && n < 1_000_000; n++ {
				err = ch.Send(uint32(n), resp)
				if n == 50 {
					alive(t, addr) // with the queue half full
				}
			}
			if !errors.Is(err, ErrSlow) {
				t.Errorf("%d messages sent, then: %v", n, err)
			}
			got.expect(t, "slow Good")
			eventually(t, "handler told", func() bool { return h.closed.Load() == 1 })
			if err := ch.Send(1, resp); !errors.Is(err, ErrClosed) {
				t.Errorf("Send after the end: %v", err)
			}
			alive(t, addr)
		})
	}
}

// TestBackPressure proves that the requests of a client that does not read its
// answers are not read either, and that all is answered once it does.
func TestBackPressure(t *testing.T) {
	const requests, size = 300, 200_000
	value := &ua.DataValue{EncodingMask: ua.DataValueValue, Value: ua.MustVariant(strings.Repeat("x", size))}
	h := &echo{serve: func(ch *Channel, requestID uint32, req ua.Request) {
		_ = ch.Send(requestID, &ua.ReadResponse{ResponseHeader: readResponse(req).ResponseHeader, Results: []*ua.DataValue{value}})
	}}
	_, addr := start(t, Config{Limits: Limits{MaxQueueBytes: 4 << 20, MaxChunkSize: 1 << 20}}, h)
	r := dialRaw(t, addr)
	r.send(helloFrame(1<<20, 1<<20, 0, 0, ""))
	r.expect("ACKF")
	r.open(ua.SecurityTokenRequestTypeIssue, time.Hour)
	go func() {
		for i := range uint32(requests) {
			if _, err := r.Write(r.chunk("MSGF", i, readRequest(t, i, "i=1"))); err != nil {
				return
			}
		}
	}()
	eventually(t, "some are served", func() bool { return h.served.Load() > 20 })
	for i := range uint32(requests) {
		if id, _ := r.response(); id != i {
			t.Fatalf("response %d came in place of %d", id, i)
		}
	}
}

// TestPanic proves that a panic ends its connection, and no other.
func TestPanic(t *testing.T) {
	var panics atomic.Int64
	h := &echo{}
	h.serve = func(ch *Channel, requestID uint32, req ua.Request) {
		if req.Header().RequestHandle == 13 {
			panic("unlucky")
		}
		_ = ch.Send(requestID, readResponse(req))
	}
	_, addr := start(t, Config{Events: Events{Panicked: func(net.Addr, any) { panics.Add(1) }}}, h)
	other, r := connect(t, addr), connect(t, addr)
	r.send(r.chunk("MSGF", 1, readRequest(t, 13)))
	r.expectError(ua.StatusBadTCPInternalError)
	eventually(t, "handler told", func() bool { return h.closed.Load() == 1 })
	other.alive()
	if panics.Load() != 1 {
		t.Errorf("%d panics counted", panics.Load())
	}
}

// TestUnencodable proves that a response that cannot be encoded is replaced by a
// fault, even if the encoder panics.
func TestUnencodable(t *testing.T) {
	value := func(v any) *ua.ReadResponse {
		return &ua.ReadResponse{
			ResponseHeader: &ua.ResponseHeader{RequestHandle: 4},
			Results:        []*ua.DataValue{{EncodingMask: ua.DataValueValue, Value: ua.MustVariant(v)}},
		}
	}
	var none *ua.DataChangeNotification
	bad := []*ua.ReadResponse{
		value(&ua.GUID{}),
		value(&ua.ExtensionObject{EncodingMask: ua.ExtensionObjectBinary, Value: none}), // panics
	}
	var panics atomic.Int64
	errs := make(chan error, 1)
	h := &echo{}
	h.serve = func(ch *Channel, requestID uint32, _ ua.Request) { errs <- ch.Send(requestID, bad[requestID]) }
	_, addr := start(t, Config{Events: Events{Panicked: func(net.Addr, any) { panics.Add(1) }}}, h)
	r := connect(t, addr)
	for i := range bad {
		r.send(r.chunk("MSGF", uint32(i), readRequest(t, 4)))
		r.expectFault(uint32(i), 4, ua.StatusBadEncodingError)
		if err := <-errs; err == nil {
			t.Errorf("response %d: Send said nothing", i)
		}
	}
	if panics.Load() != 1 {
		t.Errorf("%d panics", panics.Load())
	}
}

// TestClientLimits proves that a response that exceeds the client's limits
// becomes a fault.
func TestClientLimits(t *testing.T) {
	_, addr := start(t, Config{}, &echo{})
	long := "ns=1;s=" + strings.Repeat("x", 5000)
	for _, limits := range [][2]uint32{{9000, 0}, {0, 1}} {
		r := dialRaw(t, addr)
		r.send(helloFrame(8192, 65536, limits[0], limits[1], ""))
		r.expect("ACKF")
		r.open(ua.SecurityTokenRequestTypeIssue, time.Hour)
		r.send(r.chunk("MSGF", 1, readRequest(t, 8, long, long)))
		r.expectFault(1, 8, ua.StatusBadResponseTooLarge)
		r.send(r.chunk("MSGF", 2, readRequest(t, 9, long)))
		if id, msg := r.response(); id != 2 || len(msg.(*ua.ReadResponse).Results) != 1 {
			t.Errorf("request %d answered with %+v", id, msg)
		}
	}
}

// TestResponseSize proves that no response takes more than half of the queue.
func TestResponseSize(t *testing.T) {
	_, addr := start(t, Config{Limits: Limits{MaxQueueBytes: 20000}}, &echo{})
	r := connect(t, addr)
	long := "ns=1;s=" + strings.Repeat("x", 5000)
	r.send(r.chunk("MSGF", 1, readRequest(t, 8, long, long)))
	r.expectFault(1, 8, ua.StatusBadResponseTooLarge)
	r.send(r.chunk("MSGF", 2, readRequest(t, 9, long)))
	if id, _ := r.response(); id != 2 {
		t.Errorf("request %d answered", id)
	}
}

// TestPlaces proves the limits of connections, in total and per host.
func TestPlaces(t *testing.T) {
	for name, limits := range map[string]Limits{"total": {MaxConnections: 3}, "host": {MaxConnectionsPerHost: 3}} {
		t.Run(name, func(t *testing.T) {
			h := &echo{}
			got := make(rejects, 9)
			_, addr := start(t, Config{Limits: limits, Events: got.events()}, h)
			var used []*raw
			idle := dialRaw(t, addr).hello()
			for range 2 {
				r := connect(t, addr)
				r.alive()
				h.last.Load().SetInUse(true)
				used = append(used, r)
			}
			// The idle one makes room for the next.
			r := connect(t, addr)
			idle.expectEvicted()
			got.expect(t, "too_many BadTCPServerTooBusy")
			r.alive()
			h.last.Load().SetInUse(true)
			// With all places in use, a new one is told so.
			dialRaw(t, addr).expectError(ua.StatusBadTCPServerTooBusy)
			got.expect(t, "too_many BadTCPServerTooBusy")
			used[0].Close()
			eventually(t, "a place is free", func() bool { return h.closed.Load() == 1 })
			alive(t, addr)
			used[1].alive()
		})
	}
}

// TestSparePlaces proves that where all places are in use there are some more, for those who are put to use all the same.
func TestSparePlaces(t *testing.T) {
	for name, limits := range map[string]Limits{"total": {MaxConnections: 2, SpareConnections: 2}, "host": {MaxConnectionsPerHost: 2, SpareConnections: 2}} {
		t.Run(name, func(t *testing.T) {
			h := &echo{}
			_, addr := start(t, Config{Limits: limits}, h)
			use := func(crowded bool) *raw {
				t.Helper()
				r := connect(t, addr)
				r.alive()
				if got := h.last.Load().Crowded(); got != crowded {
					t.Errorf("crowded: %t, want %t", got, crowded)
				}
				h.last.Load().SetInUse(true)
				if h.last.Load().Crowded() {
					t.Error("crowded though it is in use")
				}
				return r
			}
			first := use(false)
			use(false)
			// One that is not put to use makes room for the next.
			idle := connect(t, addr)
			idle.alive()
			use(true)
			idle.expectEvicted()
			use(true)
			dialRaw(t, addr).expectError(ua.StatusBadTCPServerTooBusy)
			first.alive()
		})
	}
}

// expectEvicted reads an Error message, which a cut connection may lose.
func (r *raw) expectEvicted() {
	r.t.Helper()
	kind, _, err := r.receive()
	if err == nil && kind != "ERRF" || err != nil && !ended(err) {
		r.t.Fatalf("got %s, %v", kind, err)
	}
}

// TestHandlerClose proves that Close tells the client, from any goroutine.
func TestHandlerClose(t *testing.T) {
	h := &echo{}
	_, addr := start(t, Config{}, h)
	r := connect(t, addr)
	r.alive()
	h.last.Load().Close(ua.StatusBadSecureChannelClosed)
	r.expectError(ua.StatusBadSecureChannelClosed)
	r = connect(t, addr)
	r.alive()
	h.last.Load().Close(ua.StatusOK)
	r.expectEnd()
	eventually(t, "handler told", func() bool { return h.closed.Load() == 2 })
}

// TestManyConnections opens and closes connections in all ways at a time, and ends
// where it began.
func TestManyConnections(t *testing.T) {
	s, addr := start(t, Config{Limits: Limits{MaxConnections: 20}}, &echo{})
	done := make(chan error)
	const clients = 50
	for i := range clients {
		go func() {
			nc, err := net.Dial("tcp", addr)
			if err != nil {
				done <- err
				return
			}
			defer nc.Close()
			_ = nc.SetDeadline(time.Now().Add(patience))
			switch i % 4 {
			case 0:
				_ = nc.(*net.TCPConn).SetLinger(0)
			case 1:
				_, _ = nc.Write(helloFrame(65536, 65536, 0, 0, ""))
			case 2:
				_, _ = fmt.Fprint(nc, "GET / HTTP/1.0")
			}
			done <- nil
		}()
	}
	for range clients {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	eventually(t, "all places are free", func() bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		return len(s.channels) == 0 && len(s.perHost) == 0
	})
}
