package client

import (
	"sync/atomic"
	"testing"
	"time"

	quoratev1 "quorate/proto/quorate/v1"
)

func TestGateAnswersFromMemory(t *testing.T) {
	scriptedGate(t, GateOptions{}, func(t *testing.T, s *scripted, g *Gate) {
		learned(s, g, "p")
		for range 3 {
			fromMemory(t, g, "p", "b1", 1)
		}
		r, err := g.Resolve(t.Context(), "p")
		if err != nil || r.GetReadPlacement() != "b1" || r.GetEpoch() != 1 {
			t.Errorf("resolved to %v, error %v", r, err)
		}
		if _, err := g.EnterAt(t.Context(), "p", 2); wantError[*StaleEpochError](t, err, `partition "p" is at epoch 1 by now`).Current != 1 {
			t.Error("the current epoch is 1")
		}
		if p, err := g.EnterAt(t.Context(), "p", 1); err != nil {
			t.Error(err)
		} else {
			p.Done()
		}
		if stats := g.Stats(); stats.Hits != 6 || stats.Misses != 1 || stats.Remembered != 1 || stats.Lease <= 0 || stats.Registered != 1 || stats.Failure != nil {
			t.Errorf("stats %+v", stats)
		}
	})
}

func TestGateAsksEachTimeWithoutLease(t *testing.T) {
	scriptedGate(t, GateOptions{}, func(t *testing.T, s *scripted, g *Gate) {
		var passes []Pass
		for n := 1; n <= 3; n++ {
			e := enter(g, "p")
			s.read(n).serve(10, at("p", active, "b1", 1, 5))
			passes = append(passes, e.want(t, "b1", 1))
		}
		// What is in flight is counted all the same, in one place.
		if n := len(g.lingering["p"]); n != 1 || g.lingering["p"][0].inFlight.Load() != 3 || g.Stats().Remembered != 0 {
			t.Errorf("%d entries linger", n)
		}
		for _, p := range passes {
			p.Done()
		}
	})
}

// TestGateLeaseEnds shows that the end of the lease is judged at each answer, and counted from before the question.
func TestGateLeaseEnds(t *testing.T) {
	scriptedGate(t, GateOptions{}, func(t *testing.T, s *scripted, g *Gate) {
		s.asked()
		elapse(1500 * time.Millisecond) // The question is on its way.
		s.grant(&quoratev1.RenewGateResponse{Revision: 10})
		learned(s, g, "p")
		elapse(500*time.Millisecond - time.Nanosecond)
		fromMemory(t, g, "p", "b1", 1)
		elapse(time.Nanosecond)
		e := enter(g, "p")
		if !e.waits() {
			t.Fatal("answered from memory after the end of the lease")
		}
		s.read(2).serve(11, at("p", active, "b1", 1, 5))
		e.want(t, "b1", 1).Done()
		// The next lease makes what is remembered true again.
		s.grant(&quoratev1.RenewGateResponse{Revision: 12})
		fromMemory(t, g, "p", "b1", 1)
	})
}

// TestGateOfAStoppedProcess moves the process's clock on as if it had been stopped, while none of its goroutines ran.
func TestGateOfAStoppedProcess(t *testing.T) {
	var stopped atomic.Int64
	began := time.Unix(946684800, 0) // When a bubble begins.
	options := GateOptions{Elapsed: func() time.Duration { return time.Since(began) + time.Duration(stopped.Load()) }}
	scriptedGate(t, options, func(t *testing.T, s *scripted, g *Gate) {
		learned(s, g, "p")
		fromMemory(t, g, "p", "b1", 1)
		stopped.Store(int64(3 * ttl))
		e := enter(g, "p")
		if !e.waits() {
			t.Fatal("answered from memory after a stop")
		}
		s.read(2).serve(20, at("p", active, "b2", 4, 19))
		e.want(t, "b2", 4).Done()
	})
}

func TestGateIsToldWhatChanged(t *testing.T) {
	scriptedGate(t, GateOptions{}, func(t *testing.T, s *scripted, g *Gate) {
		for _, p := range []string{"a", "b", "c", "d"} {
			learned(s, g, p)
		}
		s.grant(&quoratev1.RenewGateResponse{Revision: 20, Closed: []string{"d"}, Changed: []*quoratev1.Resolution{
			at("a", draining, "b1", 2, 18), at("b", cutover, "b1", 3, 19), {Partition: "c"}, at("unknown", active, "b1", 3, 20),
		}})
		fromMemory(t, g, "a", "b1", 2)
		if _, err := g.Enter(t.Context(), "b"); wantError[*CutoverError](t, err, `partition "b" is in cutover at epoch 3`).Epoch != 3 {
			t.Error("the epoch is 3")
		}
		if r, err := g.Resolve(t.Context(), "b"); err != nil || r.GetReadPlacement() != "b1" {
			t.Errorf("reads of b go to %v, error %v", r, err)
		}
		for i, p := range []string{"c", "d", "unknown"} {
			e := enter(g, p)
			if !e.waits() {
				t.Fatalf("%s is answered from memory", p)
			}
			s.read(5+i).serve(20, at(p, active, "b2", 7, 20))
			e.want(t, "b2", 7).Done()
		}
		// What is closed is good for one answer alone.
		fromMemory(t, g, "c", "b2", 7)
		e := enter(g, "d")
		s.read(8).serve(21, at("d", active, "b2", 7, 20))
		e.want(t, "b2", 7).Done()
		// Nothing newer is replaced by something older.
		s.grant(&quoratev1.RenewGateResponse{Revision: 30, Changed: []*quoratev1.Resolution{at("c", active, "b1", 6, 12)}})
		fromMemory(t, g, "c", "b2", 7)
		s.grant(&quoratev1.RenewGateResponse{Revision: 40, Reset_: true})
		if n := g.Stats().Remembered; n != 0 {
			t.Errorf("%d partitions are remembered after a reset", n)
		}
	})
}

// TestGateOfAGroupMadeAnew lets the revision go back, as after the restore of an old backup.
func TestGateOfAGroupMadeAnew(t *testing.T) {
	scriptedGate(t, GateOptions{}, func(t *testing.T, s *scripted, g *Gate) {
		learned(s, g, "p")
		e := enter(g, "q")
		s.grant(&quoratev1.RenewGateResponse{Revision: 3})
		if n := g.Stats().Remembered; n != 0 {
			t.Errorf("%d partitions of the former group are remembered", n)
		}
		s.read(2).serve(3, at("q", active, "b1", 1, 2))
		s.read(3).serve(3, at("q", active, "b1", 1, 2))
		e.want(t, "b1", 1).Done()
		fromMemory(t, g, "q", "b1", 1)
	})
}

// TestGateReadsThatComeTooLate lets a grant overtake the answer of a read, in each way in which one can.
func TestGateReadsThatComeTooLate(t *testing.T) {
	for name, c := range map[string]struct {
		grant *quoratev1.RenewGateResponse
		// again says that the partition has to be read again.
		again bool
	}{
		"it changed":          {&quoratev1.RenewGateResponse{Revision: 20, Changed: []*quoratev1.Resolution{at("p", active, "b2", 4, 20)}}, true},
		"everything changed":  {&quoratev1.RenewGateResponse{Revision: 20, Reset_: true}, true},
		"its cutover drains":  {&quoratev1.RenewGateResponse{Revision: 10, Closed: []string{"p"}, Drain: []*quoratev1.PartitionEpoch{{Partition: "p", Epoch: 4}}}, true},
		"another one changed": {&quoratev1.RenewGateResponse{Revision: 20, Changed: []*quoratev1.Resolution{at("q", active, "b2", 4, 20)}}, false},
		"nothing changed":     {&quoratev1.RenewGateResponse{Revision: 20}, false},
		"another one drains":  {&quoratev1.RenewGateResponse{Revision: 20, Drain: []*quoratev1.PartitionEpoch{{Partition: "q", Epoch: 4}}}, false},
	} {
		t.Run(name, func(t *testing.T) {
			scriptedGate(t, GateOptions{}, func(t *testing.T, s *scripted, g *Gate) {
				s.grant(&quoratev1.RenewGateResponse{Revision: 10})
				e := enter(g, "p")
				read := s.read(1)
				s.grant(c.grant)
				read.serve(12, at("p", active, "b1", 1, 5))
				if !c.again {
					e.want(t, "b1", 1).Done()
					fromMemory(t, g, "p", "b1", 1)
					return
				}
				if !e.waits() {
					t.Fatalf("let in by an answer of before the grant, error %v", e.err)
				}
				s.read(2).serve(21, at("p", active, "b2", 4, 20))
				e.want(t, "b2", 4).Done()
			})
		})
	}
}

func TestGateReadFromBeforeTheFirstLease(t *testing.T) {
	scriptedGate(t, GateOptions{}, func(t *testing.T, s *scripted, g *Gate) {
		e := enter(g, "p")
		read := s.read(1)
		s.grant(&quoratev1.RenewGateResponse{Revision: 20})
		read.serve(12, at("p", active, "b1", 1, 5))
		if !e.waits() {
			t.Fatal("nobody knows what changed between the read and the first lease")
		}
		s.read(2).serve(21, at("p", active, "b2", 4, 20))
		e.want(t, "b2", 4).Done()
		fromMemory(t, g, "p", "b2", 4)
	})
}

// TestGateClosedWhileReading closes a gate while it is read: the answer is good for whoever asked, and for nobody else.
func TestGateClosedWhileReading(t *testing.T) {
	scriptedGate(t, GateOptions{}, func(t *testing.T, s *scripted, g *Gate) {
		s.grant(&quoratev1.RenewGateResponse{Revision: 10})
		e := enter(g, "p")
		read := s.read(1)
		s.grant(&quoratev1.RenewGateResponse{Revision: 11, Closed: []string{"p"}})
		// It stays closed, as when another instance has to be waited for, while grants come and go.
		s.grant(&quoratev1.RenewGateResponse{Revision: 12, Closed: []string{"p"}})
		read.serve(10, at("p", active, "b1", 1, 5))
		first := e.want(t, "b1", 1)
		e = enter(g, "p")
		if !e.waits() {
			t.Fatal("a closed gate is answered from memory")
		}
		s.read(2).serve(13, at("p", active, "b1", 1, 5))
		e.want(t, "b1", 1).Done()
		first.Done()
		// It opens, and nothing had changed.
		s.grant(&quoratev1.RenewGateResponse{Revision: 14})
		learned(s, g, "p")
		fromMemory(t, g, "p", "b1", 1)
	})
}

func TestGateGivesUpOnAPartitionThatChangesAllTheTime(t *testing.T) {
	scriptedGate(t, GateOptions{}, func(t *testing.T, s *scripted, g *Gate) {
		s.grant(&quoratev1.RenewGateResponse{Revision: 10})
		e := enter(g, "p")
		for n := 1; n <= gateReads; n++ {
			read := s.read(n)
			revision := 10 + uint64(n)
			s.grant(&quoratev1.RenewGateResponse{Revision: revision, Changed: []*quoratev1.Resolution{at("p", active, "b2", revision, revision)}})
			read.serve(revision, at("p", active, "b1", revision, revision))
		}
		if e.waits() || e.err == nil || e.err.Error() != `client: partition "p" changed faster than it can be read` {
			t.Errorf("error %v", e.err)
		}
	})
}

// TestGateNewerThanRead lets two reads of one partition return in the other order.
func TestGateNewerThanRead(t *testing.T) {
	scriptedGate(t, GateOptions{}, func(t *testing.T, s *scripted, g *Gate) {
		s.grant(&quoratev1.RenewGateResponse{Revision: 10})
		first := enter(g, "p")
		one := s.read(1)
		second := enter(g, "p")
		two := s.read(2)
		two.serve(30, at("p", active, "b2", 4, 29))
		one.serve(20, at("p", active, "b1", 1, 5))
		second.want(t, "b2", 4).Done()
		first.want(t, "b2", 4).Done()
		fromMemory(t, g, "p", "b2", 4)
	})
}
