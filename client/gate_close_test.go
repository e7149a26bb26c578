package client

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

func TestGateCloses(t *testing.T) {
	scriptedGate(t, GateOptions{}, func(t *testing.T, s *scripted, g *Gate) {
		learned(s, g, "p")
		p := enter(g, "p").want(t, "b1", 1)
		asking := enter(g, "q") // The answer never comes.
		closed := make(chan error, 1)
		go func() { closed <- g.Close(context.Background()) }()
		time.Sleep(time.Minute)
		synctest.Wait()
		if len(closed) > 0 || len(s.removed) > 0 {
			t.Fatal("closed while a write is in flight")
		}
		if last := s.renewals[len(s.renewals)-1]; !last.GetGiveBack() || last.GetSession() != s.sessions()[0] {
			t.Errorf("the last question was %v; want the lease given back before the wait", last.RenewGateRequest)
		}
		if asking.waits() || !errors.Is(asking.err, ErrClosed) {
			t.Errorf("who waited got %v", asking.err)
		}
		for _, partition := range []string{"p", "q"} {
			if _, err := g.Enter(t.Context(), partition); !errors.Is(err, ErrClosed) {
				t.Errorf("let in to %s by a closed gate, error %v", partition, err)
			}
		}
		if err := g.Close(t.Context()); !errors.Is(err, ErrClosed) {
			t.Errorf("closed twice: %v", err)
		}
		p.Done()
		if err := <-closed; err != nil {
			t.Error(err)
		}
		if len(s.removed) != 1 || s.removed[0] != s.sessions()[0] || !s.drained {
			t.Errorf("removed %q, drained %t", s.removed, s.drained)
		}
	})
}

func TestGateClosesWithWritesInFlight(t *testing.T) {
	scriptedGate(t, GateOptions{}, func(t *testing.T, s *scripted, g *Gate) {
		learned(s, g, "p")
		p := enter(g, "p").want(t, "b1", 1)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		err := g.Close(ctx)
		if !errors.Is(err, context.DeadlineExceeded) || err.Error() != "client: writes to 1 partitions are in flight: context deadline exceeded" {
			t.Errorf("error %v", err)
		}
		if len(s.removed) != 1 || s.drained {
			t.Errorf("removed %q, drained %t; want it removed without that word", s.removed, s.drained)
		}
		p.Done()
	})
}

func TestGateDoneTwice(t *testing.T) {
	scriptedGate(t, GateOptions{}, func(t *testing.T, s *scripted, g *Gate) {
		learned(s, g, "p")
		p := enter(g, "p").want(t, "b1", 1)
		p.Done()
		func() {
			defer func() {
				if recover() == nil {
					t.Error("the count of writes in flight is below zero, and nobody is told")
				}
			}()
			p.Done()
		}()
		_, e := g.memory.find("p")
		e.inFlight.Store(0)
	})
}
