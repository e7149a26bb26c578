package channel

import (
	"context"
	"errors"
	"net"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gopcua/opcua/ua"
)

// pipeListener accepts one end of each pipe that a test makes, and fails with
// the errors that it is told.
type pipeListener struct {
	conns  chan net.Conn
	errs   chan error
	closed chan struct{}
}

func newPipeListener() *pipeListener {
	return &pipeListener{make(chan net.Conn), make(chan error), make(chan struct{})}
}

func (l *pipeListener) Accept() (net.Conn, error) {
	select {
	case nc := <-l.conns:
		return nc, nil
	case err := <-l.errs:
		return nil, err
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

func (l *pipeListener) Close() error {
	select {
	case <-l.closed:
	default:
		close(l.closed)
	}
	return nil
}

func (l *pipeListener) Addr() net.Addr { return &net.UnixAddr{Name: "pipe", Net: "unix"} }

func (l *pipeListener) dial(t testing.TB) *raw {
	in, out := net.Pipe()
	l.conns <- in
	return &raw{t: t, Conn: out}
}

// inBubble runs a server in virtual time.
func inBubble(t *testing.T, limits Limits, f func(t *testing.T, s *Server, l *pipeListener, h *echo, got rejects)) {
	synctest.Test(t, func(t *testing.T) {
		got, h, l := make(rejects, 99), &echo{}, newPipeListener()
		s, err := NewServer(Config{Limits: limits, Events: got.events()}, h)
		if err != nil {
			t.Fatal(err)
		}
		served := make(chan error)
		go func() { served <- s.Serve(l) }()
		f(t, s, l, h, got)
		if err := s.Shutdown(context.Background()); err != nil {
			t.Error(err)
		}
		if err := <-served; err != nil {
			t.Error(err)
		}
	})
}

// endsAfter reads until the connection ends with a status, and checks when.
func (r *raw) endsAfter(want, late time.Duration, status ua.StatusCode) {
	r.t.Helper()
	start := time.Now()
	r.expectError(status)
	if got := time.Since(start); got < want || got > want+late+lingerTimeout {
		r.t.Errorf("ended after %v, want %v", got, want)
	}
}

func TestHandshakeTimeout(t *testing.T) {
	inBubble(t, Limits{HandshakeTimeout: 10 * time.Second}, func(t *testing.T, s *Server, l *pipeListener, h *echo, got rejects) {
		l.dial(t).endsAfter(10*time.Second, 0, ua.StatusBadTimeout)
		got.expect(t, "timeout BadTimeout")
		r := l.dial(t).hello()
		r.send([]byte("OPNF"))
		r.endsAfter(10*time.Second, 0, ua.StatusBadTimeout)
		if h.closed.Load() != 0 {
			t.Error("the handler was told of a channel that never was")
		}
	})
}

func TestMessageTimeout(t *testing.T) {
	inBubble(t, Limits{MessageTimeout: 30 * time.Second}, func(t *testing.T, s *Server, l *pipeListener, h *echo, got rejects) {
		// In the middle of a chunk, and between chunks.
		r := l.dial(t).hello()
		r.open(ua.SecurityTokenRequestTypeIssue, time.Hour)
		r.send(r.chunk("MSGF", 1, make([]byte, 100))[:50])
		r.endsAfter(30*time.Second, 0, ua.StatusBadTimeout)
		r = l.dial(t).hello()
		r.open(ua.SecurityTokenRequestTypeIssue, time.Hour)
		r.send(r.chunk("MSGC", 1, make([]byte, 100)))
		time.Sleep(20 * time.Second) // virtual
		r.send(r.chunk("MSGC", 1, make([]byte, 100)))
		r.endsAfter(10*time.Second, 0, ua.StatusBadTimeout)
		if s.partialBytes.Load() != 0 {
			t.Errorf("%d bytes held", s.partialBytes.Load())
		}
	})
}

func TestIdleTimeout(t *testing.T) {
	inBubble(t, Limits{IdleTimeout: time.Hour, MaxTokenLifetime: 10 * time.Hour}, func(t *testing.T, s *Server, l *pipeListener, h *echo, got rejects) {
		r := l.dial(t).hello()
		r.open(ua.SecurityTokenRequestTypeIssue, 10*time.Hour)
		for range 20 {
			time.Sleep(time.Hour - time.Millisecond) // virtual
			r.alive()
			if h.served.Load()%5 == 0 {
				r.open(ua.SecurityTokenRequestTypeRenew, 10*time.Hour)
			}
		}
		r.endsAfter(time.Hour, time.Hour/8, ua.StatusBadTimeout)
		synctest.Wait()
		if h.closed.Load() != 1 {
			t.Error("the handler was not told")
		}
	})
}

// TestTokenEnds proves that a channel that is not renewed ends by itself.
func TestTokenEnds(t *testing.T) {
	inBubble(t, Limits{}, func(t *testing.T, s *Server, l *pipeListener, h *echo, got rejects) {
		r := l.dial(t).hello()
		r.open(ua.SecurityTokenRequestTypeIssue, 40*time.Second)
		r.endsAfter(50*time.Second, 50*time.Second/8, ua.StatusBadTimeout)
	})
}

func TestWriteTimeout(t *testing.T) {
	inBubble(t, Limits{WriteTimeout: 10 * time.Second}, func(t *testing.T, s *Server, l *pipeListener, h *echo, got rejects) {
		r := l.dial(t).hello()
		r.open(ua.SecurityTokenRequestTypeIssue, time.Hour)
		r.alive()
		start := time.Now()
		if err := h.last.Load().Send(1, &ua.ReadResponse{}); err != nil {
			t.Fatal(err)
		}
		if !time.Now().Equal(start) {
			t.Error("Send waited")
		}
		got.expect(t, "slow Good")
		if since := time.Since(start); since != 10*time.Second {
			t.Errorf("disconnected after %v", since)
		}
	})
}

// TestAcceptErrors proves that no error of Accept but the last ends the loop,
// and that it pauses longer and longer, up to a second.
func TestAcceptErrors(t *testing.T) {
	inBubble(t, Limits{}, func(t *testing.T, s *Server, l *pipeListener, h *echo, got rejects) {
		start := time.Now()
		for range 20 {
			l.errs <- &net.OpError{Op: "accept", Err: syscall.EMFILE}
		}
		r := l.dial(t).hello()
		// 5+10+20+…+640 ms, and 12 more pauses of a second.
		if since, want := time.Since(start), 1275*time.Millisecond+12*time.Second; since != want {
			t.Errorf("paused %v, want %v", since, want)
		}
		r.open(ua.SecurityTokenRequestTypeIssue, time.Hour)
		r.alive()
	})
}

// TestHandshakeQueue proves that asymmetric cryptography is limited, and that
// who waits too long for it is told so.
func TestHandshakeQueue(t *testing.T) {
	inBubble(t, Limits{MaxHandshakes: 1, HandshakeTimeout: 10 * time.Second}, func(t *testing.T, s *Server, l *pipeListener, h *echo, got rejects) {
		release, err := s.enterHandshake()
		if err != nil {
			t.Fatal(err)
		}
		start := time.Now()
		var e ending
		if _, err := s.enterHandshake(); !errors.As(err, &e) || e.status != ua.StatusBadTCPServerTooBusy {
			t.Errorf("second handshake: %v", err)
		}
		if since := time.Since(start); since != 10*time.Second {
			t.Errorf("waited %v", since)
		}
		release()
		release, err = s.enterHandshake()
		if err != nil {
			t.Fatal(err)
		}
		release()
	})
}

// TestLargeRequests proves that only so many large requests are handled at a
// time, that small ones do not wait for them, and that who waits too long is
// told so.
func TestLargeRequests(t *testing.T) {
	inBubble(t, Limits{MaxLargeRequests: 1, MessageTimeout: 30 * time.Second}, func(t *testing.T, s *Server, l *pipeListener, h *echo, got rejects) {
		stuck := make(chan struct{})
		h.serve = func(ch *Channel, requestID uint32, req ua.Request) {
			if len(req.(*ua.ReadRequest).NodesToRead) > 1 {
				<-stuck
			}
			_ = ch.Send(requestID, &ua.ReadResponse{ResponseHeader: readResponse(req).ResponseHeader})
		}
		large := make([]string, 1000)
		for i := range large {
			large[i] = "i=2258"
		}
		open := func() *raw {
			r := l.dial(t).hello()
			r.open(ua.SecurityTokenRequestTypeIssue, time.Hour)
			return r
		}
		first, second, small := open(), open(), open()
		first.send(first.chunk("MSGF", 1, readRequest(t, 2, large...)))
		synctest.Wait()
		second.send(second.chunk("MSGF", 1, readRequest(t, 2, large...)))
		small.alive()
		if n := h.served.Load(); n != 2 {
			t.Errorf("%d requests at the handler", n)
		}
		second.endsAfter(30*time.Second, 0, ua.StatusBadTCPServerTooBusy)
		close(stuck)
		if id, _ := first.response(); id != 1 {
			t.Errorf("request %d answered", id)
		}
	})
}

// TestShutdown proves that clients are told, that handlers hear of it, and that
// nothing is accepted afterwards.
func TestShutdown(t *testing.T) {
	inBubble(t, Limits{}, func(t *testing.T, s *Server, l *pipeListener, h *echo, got rejects) {
		r := l.dial(t).hello()
		r.open(ua.SecurityTokenRequestTypeIssue, time.Hour)
		r.alive()
		done := make(chan error)
		go func() { done <- s.Shutdown(context.Background()) }()
		r.expectError(ua.StatusBadServerHalted)
		if err := <-done; err != nil {
			t.Error(err)
		}
		if h.closed.Load() != 1 {
			t.Error("the handler was not told")
		}
		if err := s.Serve(newPipeListener()); err != nil {
			t.Errorf("Serve after Shutdown: %v", err)
		}
		if _, err := s.enterHandshake(); err == nil {
			t.Error("handshake after Shutdown")
		}
	})
}

// TestShutdownCut proves that a handler that does not come back holds Shutdown up
// no longer than its context says.
func TestShutdownCut(t *testing.T) {
	inBubble(t, Limits{}, func(t *testing.T, s *Server, l *pipeListener, h *echo, got rejects) {
		stuck := make(chan struct{})
		h.serve = func(*Channel, uint32, ua.Request) { <-stuck }
		r := l.dial(t).hello()
		r.open(ua.SecurityTokenRequestTypeIssue, time.Hour)
		r.send(r.chunk("MSGF", 1, readRequest(t, 2)))
		ctx, cancel := context.WithTimeout(context.Background(), 3*time.Second)
		defer cancel()
		if err := s.Shutdown(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Shutdown: %v", err)
		}
		close(stuck)
	})
}

// TestConfig proves that what makes no sense is refused by name.
func TestConfig(t *testing.T) {
	sign := SecurityOffer{ua.SecurityPolicyURIBasic256Sha256, ua.MessageSecurityModeSign}
	for want, cfg := range map[string]Config{
		`channel: Limits.MaxConnections is negative`:                                  {Limits: Limits{MaxConnections: -1}},
		`channel: Limits.WriteTimeout is negative`:                                    {Limits: Limits{WriteTimeout: -1}},
		`channel: Limits.MaxChunkSize is 8191; it has to be at least 8192`:            {Limits: Limits{MaxChunkSize: 8191}},
		`channel: Limits.MinTokenLifetime is longer than MaxTokenLifetime`:            {Limits: Limits{MinTokenLifetime: 2 * time.Hour}},
		`channel: Limits.MaxTokenLifetime does not fit in 32 bits of milliseconds`:    {Limits: Limits{MaxTokenLifetime: 1200 * time.Hour}},
		`channel: Offers[0].PolicyURI "x" is not implemented`:                         {Offers: []SecurityOffer{{PolicyURI: "x"}}},
		`channel: Offers[0].Mode MessageSecurityModeSign does not go with its policy`: {Offers: []SecurityOffer{{ua.SecurityPolicyURINone, ua.MessageSecurityModeSign}}},
		`channel: Certificate is needed for Offers[0]`:                                {Offers: []SecurityOffer{sign}},
	} {
		if _, err := NewServer(cfg, &echo{}); err == nil || err.Error() != want {
			t.Errorf("got %v, want %s", err, want)
		}
	}
	if _, err := NewServer(Config{}, nil); err == nil {
		t.Error("a server without a handler")
	}
}

// TestDeadlineIsNotSetForEachRequest looks at the deadline as each of many requests sees it, while the end of the token, by which it
// goes, comes nearer.
func TestDeadlineIsNotSetForEachRequest(t *testing.T) {
	seen := make(chan time.Time, 100)
	h := &echo{serve: func(ch *Channel, requestID uint32, req ua.Request) {
		seen <- ch.deadline
		_ = ch.Send(requestID, readResponse(req))
	}}
	_, addr := start(t, Config{}, h)
	r := connect(t, addr)
	distinct := make(map[time.Time]bool)
	for range cap(seen) {
		r.alive()
		distinct[<-seen] = true
	}
	if len(distinct) != 1 {
		t.Errorf("%d requests had %d deadlines", cap(seen), len(distinct))
	}
}
