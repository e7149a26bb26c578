package channel

import (
	"errors"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gopcua/opcua/ua"
)

// openOn opens a channel on a connection of a bubble.
func openOn(t *testing.T, l *pipeListener) *raw {
	r := l.dial(t).hello()
	r.open(ua.SecurityTokenRequestTypeIssue, time.Hour)
	return r
}

// nodes are so many nodes to read.
func nodes(n int) []string { return strings.Split(strings.Repeat("i=2258 ", n-1)+"i=2258", " ") }

// TestBusyConnectionsTakeTurns proves that a connection that is always at work waits for its turn, that one that does little never
// does, not even while the turn is taken, and that all is forgiven in time.
func TestBusyConnectionsTakeTurns(t *testing.T) {
	inBubble(t, Limits{MaxTurns: 1}, func(t *testing.T, s *Server, l *pipeListener, h *echo, _ rejects) {
		busy, light := openOn(t, l), openOn(t, l)
		light.alive()
		s.turns <- struct{}{} // Somebody else is at work.
		free := int(freeBurst / (chunkCost + 100*byteCost))
		for range free / 2 {
			busy.alive()
		}
		before := h.served.Load()
		answered := make(chan struct{})
		go func() {
			defer close(answered)
			for range free {
				busy.alive()
			}
		}()
		synctest.Wait()
		if n := int(h.served.Load() - before); n == 0 || n >= free {
			t.Fatalf("%d of %d requests were handled before it waited for a turn", n, free)
		}
		for range 20 {
			light.alive()
		}
		<-s.turns
		<-answered
		time.Sleep(freeShare * longestDebt)
		s.turns <- struct{}{}
		busy.alive()
		<-s.turns
	})
}

// TestCostlyRequestsTakeTurns proves that large requests, and those whose length says nothing of their cost, are handled one at a
// time, that a Handler that waits makes room for another, and that who waits too long is told so.
func TestCostlyRequestsTakeTurns(t *testing.T) {
	for name, wants := range map[string]struct {
		yield  bool
		served int64
	}{"at work": {false, 1}, "waiting": {true, 2}} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, Limits{MaxTurns: 1, MessageTimeout: 30 * time.Second}, func(t *testing.T, s *Server, l *pipeListener, h *echo, _ rejects) {
				stuck := make(chan struct{})
				h.serve = func(ch *Channel, requestID uint32, _ ua.Request) {
					if wants.yield {
						ch.Yield()
					}
					<-stuck
					_ = ch.Send(requestID, &ua.BrowseResponse{})
				}
				first, second := openOn(t, l), openOn(t, l)
				first.send(first.chunk("MSGF", 1, readRequest(t, 1, nodes(1000)...)))
				synctest.Wait()
				second.send(second.chunk("MSGF", 1, encode(t, &ua.BrowseRequest{})))
				synctest.Wait()
				if n := h.served.Load(); n != wants.served {
					t.Errorf("%d requests at the handler, want %d", n, wants.served)
				}
				if !wants.yield {
					second.endsAfter(30*time.Second, 0, ua.StatusBadTCPServerTooBusy)
				}
				close(stuck)
				if id, _ := first.response(); id != 1 {
					t.Errorf("request %d answered", id)
				}
				synctest.Wait()
				if n := len(s.turns); n != 0 {
					t.Errorf("%d turns were not given back", n)
				}
			})
		})
	}
}

// TestTurnsAreGivenBack proves that no connection takes its turn with it, or keeps it while it waits for the rest of a request.
func TestTurnsAreGivenBack(t *testing.T) {
	inBubble(t, Limits{MaxTurns: 1}, func(t *testing.T, s *Server, l *pipeListener, h *echo, _ rejects) {
		h.serve = func(ch *Channel, requestID uint32, req ua.Request) {
			if req.Header().RequestHandle == 13 {
				panic("unlucky")
			}
			_ = ch.Send(requestID, readResponse(req))
		}
		whole := func(r *raw, handle uint32) []byte { return r.chunk("MSGF", 1, readRequest(t, handle, nodes(1000)...)) }
		r := openOn(t, l)
		r.send(append(whole(r, 1), "MSGF"...)) // and a request that never ends
		r.response()
		synctest.Wait()
		if len(s.turns) != 0 {
			t.Error("a turn is kept by who waits for input")
		}
		r = openOn(t, l)
		r.send(whole(r, 13))
		r.expectError(ua.StatusBadTCPInternalError)
		synctest.Wait()
		if len(s.turns) != 0 {
			t.Error("a panic kept the turn")
		}
	})
}

// TestQueuedBytes proves that what is queued for all slow clients together is limited, that who has little queued is not
// disconnected for others, and that all is given back.
func TestQueuedBytes(t *testing.T) {
	const limit = 8 << 20
	got := make(rejects, 99)
	var last atomic.Pointer[Channel]
	h := &echo{serve: func(ch *Channel, requestID uint32, req ua.Request) {
		last.Store(ch)
		_ = ch.Send(requestID, readResponse(req))
	}}
	s, addr := start(t, Config{Limits: Limits{MaxQueuedBytes: limit}, Events: got.events()}, h)
	value := &ua.DataValue{EncodingMask: ua.DataValueValue, Value: ua.MustVariant(strings.Repeat("x", 1<<20))}
	resp := &ua.ReadResponse{Results: []*ua.DataValue{value}}
	// Each of them leaves unread what is far below its own limit, beside what the kernel takes.
	slow := 0
	for ; slow < 40; slow++ {
		r := connect(t, addr)
		r.alive()
		ch := last.Load()
		var err error
		for range 40 {
			if err = ch.Send(1, resp); err != nil || s.queuedBytes.Load() > int64(limit/8*(slow+1)) {
				break
			}
		}
		if errors.Is(err, ErrSlow) || errors.Is(err, ErrClosed) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if slow == 0 || slow == 40 {
		t.Fatalf("the limit was reached with %d slow clients", slow)
	}
	got.expect(t, "slow Good")
	alive(t, addr)
	s.mu.Lock()
	for c := range s.channels {
		_ = c.nc.(*net.TCPConn).SetLinger(0)
		_ = c.nc.Close()
	}
	s.mu.Unlock()
	eventually(t, "nothing is queued", func() bool { return s.queuedBytes.Load() == 0 })
}
