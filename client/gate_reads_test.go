package client

import (
	"context"
	"errors"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	quoratev1 "quorate/proto/quorate/v1"
)

func TestGateAsksForManyAtOnce(t *testing.T) {
	const partitions = 10_500
	scriptedGate(t, GateOptions{}, func(t *testing.T, s *scripted, g *Gate) {
		s.grant(&quoratev1.RenewGateResponse{Revision: 10})
		first := enter(g, "first")
		var calls []*entering
		for _, p := range names(partitions) {
			e := &entering{done: make(chan struct{})}
			calls = append(calls, e)
			go func() {
				defer close(e.done)
				e.pass, e.err = g.Enter(context.Background(), p)
			}()
		}
		served := 0
		for served < partitions+1 {
			synctest.Wait()
			s.mu.Lock()
			waiting := slices.Clone(s.reads)
			s.mu.Unlock()
			for _, r := range waiting {
				if len(r.partitions) > gateBatch {
					t.Fatalf("one question for %d partitions", len(r.partitions))
				}
				if r.answer == nil {
					continue
				}
				served += len(r.partitions)
				var all []*quoratev1.Resolution
				for _, p := range r.partitions {
					all = append(all, at(p, active, "b1", 1, 5))
				}
				answer := r.answer
				r.answer = nil
				answer <- found{all, 10}
			}
		}
		first.want(t, "b1", 1).Done()
		for _, e := range calls {
			e.want(t, "b1", 1).Done()
		}
		if n := len(s.reads); n < 12 || n > 16 {
			t.Errorf("asked in %d questions", n)
		}
		if s.readsAtOnce != gateAsks {
			t.Errorf("%d questions at once", s.readsAtOnce)
		}
		if n := g.Stats().Remembered; n != partitions+1 {
			t.Errorf("%d are remembered", n)
		}
	})
}

// TestGateSharesReads lets many ask for one partition at one time.
func TestGateSharesReads(t *testing.T) {
	scriptedGate(t, GateOptions{}, func(t *testing.T, s *scripted, g *Gate) {
		// While as many questions as may are under way, the others gather.
		var calls []*entering
		for range gateAsks {
			calls = append(calls, enter(g, "p"))
		}
		for range 100 {
			calls = append(calls, enter(g, "p"))
		}
		s.read(gateAsks) // Not one of them was sent.
		for n := 1; n <= gateAsks; n++ {
			s.reads[n-1].serve(10, at("p", active, "b1", 1, 5))
		}
		s.read(gateAsks+1).serve(10, at("p", active, "b1", 1, 5))
		for _, e := range calls {
			e.want(t, "b1", 1)
		}
		if n := g.lingering["p"][0].inFlight.Load(); n != int64(len(calls)) {
			t.Errorf("%d writes are in flight, want %d", n, len(calls))
		}
		for _, e := range calls {
			e.pass.Done()
		}
	})
}

// TestGateCallerGivesUp cancels callers that wait, before and after the answer: none of them may count as a write in flight.
func TestGateCallerGivesUp(t *testing.T) {
	scriptedGate(t, GateOptions{}, func(t *testing.T, s *scripted, g *Gate) {
		s.grant(&quoratev1.RenewGateResponse{Revision: 10})
		ctx, cancel := context.WithCancel(t.Context())
		e := enterCtx(ctx, g, "p")
		read := s.read(1)
		cancel()
		if e.waits() || !errors.Is(e.err, context.Canceled) {
			t.Fatalf("error %v", e.err)
		}
		e.pass.Done() // Whoever defers it before he looks at the error does no harm.
		read.serve(10, at("p", active, "b1", 1, 5))
		_, remembered := g.memory.find("p")
		if remembered == nil || remembered.inFlight.Load() != 0 {
			t.Fatalf("remembered %+v", remembered)
		}
		// One of two that share a read.
		g.mu.Lock()
		g.forget("p")
		g.mu.Unlock()
		block := []*entering{enter(g, "a"), enter(g, "b"), enter(g, "c"), enter(g, "d")}
		ctx, cancel = context.WithCancel(t.Context())
		gone, stays := enterCtx(ctx, g, "p"), enter(g, "p")
		cancel()
		if gone.waits() || !stays.waits() {
			t.Fatal("the one that was cancelled returns, and the other doesn't")
		}
		for i, p := range []string{"a", "b", "c", "d"} {
			s.reads[1+i].serve(10, at(p, active, "b1", 1, 5))
			block[i].want(t, "b1", 1).Done()
		}
		s.read(6).serve(10, at("p", active, "b1", 1, 5))
		p := stays.want(t, "b1", 1)
		if _, e := g.memory.find("p"); e.inFlight.Load() != 1 {
			t.Errorf("%d writes are in flight", e.inFlight.Load())
		}
		p.Done()
	})
}

// TestGateCallerGivesUpAsTheAnswerComes cancels a caller at the moment in which the answer comes, which may go either way.
func TestGateCallerGivesUpAsTheAnswerComes(t *testing.T) {
	scriptedGate(t, GateOptions{}, func(t *testing.T, s *scripted, g *Gate) {
		outcomes := map[bool]int{}
		for n := 1; n <= 2000; n++ {
			ctx, cancel := context.WithCancel(t.Context())
			e := enterCtx(ctx, g, "p")
			read := s.read(n)
			go cancel()
			read.serve(10, at("p", active, "b1", 1, 5))
			if e.waits() {
				t.Fatal("it waits")
			}
			outcomes[e.err == nil]++
			e.pass.Done()
			g.mu.Lock()
			g.drained()
			left := len(g.lingering)
			g.mu.Unlock()
			if left != 0 {
				t.Fatalf("round %d, error %v: a write is in flight, and nobody makes it", n, e.err)
			}
		}
		t.Logf("let in: %d, given up: %d", outcomes[true], outcomes[false])
	})
}

func TestGateOfUnknownPartitions(t *testing.T) {
	scriptedGate(t, GateOptions{}, func(t *testing.T, s *scripted, g *Gate) {
		s.grant(&quoratev1.RenewGateResponse{Revision: 10})
		for n := 1; n <= 2; n++ {
			e := enter(g, "nowhere")
			s.read(n).serve(10, &quoratev1.Resolution{Partition: "nowhere"})
			if e.waits() || wantError[*UnknownPartitionError](t, e.err, `no partition "nowhere"`).Partition != "nowhere" {
				t.Errorf("error %v", e.err)
			}
		}
		if g.Stats().Remembered != 0 || len(g.lingering) != 0 {
			t.Errorf("%d are remembered, %d linger", g.Stats().Remembered, len(g.lingering))
		}
		// What can't be an id would make the group refuse what others ask in the same question.
		for _, bad := range []string{"", "-p", ".", "P", "p/q", "p\x00", "\xff", "p" + string(make([]byte, 64)), "ä"} {
			if _, err := g.Enter(t.Context(), bad); err == nil {
				t.Errorf("%q is let in", bad)
			} else {
				wantError[*UnknownPartitionError](t, err, "")
			}
		}
		s.read(2)
	})
}

func TestGateThatCannotAsk(t *testing.T) {
	scriptedGate(t, GateOptions{}, func(t *testing.T, s *scripted, g *Gate) {
		lost := errors.New("lost")
		e := enter(g, "p")
		s.read(1).answer <- lost
		if e.waits() || !errors.Is(e.err, lost) || e.err.Error() != "client: the gate could not ask the group: lost" {
			t.Errorf("error %v", e.err)
		}
		e = enter(g, "p")
		s.read(2).serve(10)
		if e.waits() || e.err == nil || e.err.Error() != "client: the group answered for another number of partitions than were asked for" {
			t.Errorf("error %v", e.err)
		}
		e = enter(g, "p")
		time.Sleep(gateTry)
		if e.waits() || !errors.Is(e.err, context.DeadlineExceeded) {
			t.Errorf("error %v", e.err)
		}
		// A link that reads what was so before the lease breaks its word, and is not believed.
		time.Sleep(2 * gatePause)
		s.grant(&quoratev1.RenewGateResponse{Revision: 10})
		e = enter(g, "p")
		for n := range gateReads {
			s.read(4+n).serve(9, at("p", active, "b1", 1, 5))
		}
		if e.waits() || e.err == nil {
			t.Errorf("error %v", e.err)
		}
	})
}
