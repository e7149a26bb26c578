package client

import (
	"context"
	"errors"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
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
		time.Sleep(1500 * time.Millisecond) // The question is on its way.
		s.grant(&quoratev1.RenewGateResponse{Revision: 10})
		learned(s, g, "p")
		time.Sleep(500*time.Millisecond - time.Nanosecond)
		fromMemory(t, g, "p", "b1", 1)
		time.Sleep(time.Nanosecond)
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

func TestGateReportsDrainedOnlyWhenNothingIsInFlight(t *testing.T) {
	drain := []*quoratev1.PartitionEpoch{{Partition: "p", Epoch: 3}}
	inCutover := []*quoratev1.Resolution{at("p", cutover, "b1", 3, 19)}
	told := func(s *scripted) bool {
		return slices.ContainsFunc(s.asked().GetDrained(), func(d *quoratev1.PartitionEpoch) bool { return d.GetPartition() == "p" && d.GetEpoch() == 3 })
	}
	t.Run("of memory", func(t *testing.T) {
		scriptedGate(t, GateOptions{}, func(t *testing.T, s *scripted, g *Gate) {
			learned(s, g, "p")
			one, two := enter(g, "p").want(t, "b1", 1), enter(g, "p").want(t, "b1", 1)
			s.grant(&quoratev1.RenewGateResponse{Revision: 20, Changed: inCutover, Drain: drain})
			for _, p := range []Pass{one, two} {
				if told(s) {
					t.Fatal("drained while a write is in flight")
				}
				p.Done()
				s.grant(&quoratev1.RenewGateResponse{Revision: 20, Drain: drain})
			}
			if !told(s) {
				t.Error("nothing is in flight, and that is not reported")
			}
		})
	})
	t.Run("of before the first lease", func(t *testing.T) {
		scriptedGate(t, GateOptions{}, func(t *testing.T, s *scripted, g *Gate) {
			e := enter(g, "p")
			s.read(1).serve(10, at("p", active, "b1", 1, 5))
			p := e.want(t, "b1", 1)
			s.grant(&quoratev1.RenewGateResponse{Revision: 20, Drain: drain})
			if told(s) {
				t.Fatal("drained while a write is in flight")
			}
			p.Done()
			s.grant(&quoratev1.RenewGateResponse{Revision: 20, Drain: drain})
			if !told(s) {
				t.Error("nothing is in flight, and that is not reported")
			}
		})
	})
	t.Run("of a read under way", func(t *testing.T) {
		scriptedGate(t, GateOptions{}, func(t *testing.T, s *scripted, g *Gate) {
			s.grant(&quoratev1.RenewGateResponse{Revision: 10})
			e := enter(g, "p")
			read := s.read(1)
			// The cutover is in the state already, and not yet among what changed: its gates are closed.
			s.grant(&quoratev1.RenewGateResponse{Revision: 10, Closed: []string{"p"}, Drain: drain})
			if !told(s) {
				t.Fatal("nothing is in flight, and that is not reported")
			}
			read.serve(10, at("p", draining, "b1", 2, 9))
			if !e.waits() {
				t.Fatal("let in after it was reported that nothing is in flight")
			}
			s.read(2).serve(20, at("p", cutover, "b1", 3, 19))
			if e.waits() {
				t.Fatal("it waits on")
			}
			wantError[*CutoverError](t, e.err, "")
		})
	})
	t.Run("of a read of a former session", func(t *testing.T) {
		scriptedGate(t, GateOptions{}, func(t *testing.T, s *scripted, g *Gate) {
			s.grant(&quoratev1.RenewGateResponse{Revision: 10})
			e := enter(g, "p")
			read := s.read(1)
			s.grant(&quoratev1.RenewGateResponse{Revision: 10, Closed: []string{"p"}, Drain: drain})
			s.refuse(ErrUnregistered)
			time.Sleep(time.Second)
			read.serve(10, at("p", draining, "b1", 2, 9))
			if !e.waits() {
				t.Fatal("let in after it was reported that nothing is in flight")
			}
			s.read(2).serve(20, at("p", cutover, "b1", 3, 19))
			wantError[*CutoverError](t, e.err, "")
		})
	})
}

func TestGateRegistersAnew(t *testing.T) {
	scriptedGate(t, GateOptions{}, func(t *testing.T, s *scripted, g *Gate) {
		learned(s, g, "p")
		p := enter(g, "p").want(t, "b1", 1)
		s.refuse(ErrUnregistered)
		e := enter(g, "p")
		if !e.waits() {
			t.Fatal("answered from the memory of a former session")
		}
		s.read(2).serve(10, at("p", active, "b1", 1, 5))
		e.want(t, "b1", 1).Done()
		time.Sleep(time.Second)
		if r := s.asked(); len(s.sessions()) != 2 || s.sessions()[0] == s.sessions()[1] || r.GetSession() != s.sessions()[1] ||
			r.GetGrant() != 0 || r.GetTerm() != 0 || r.GetRevision() != 0 {
			t.Errorf("sessions %q, question %v", s.sessions(), r.RenewGateRequest)
		}
		if n := g.Stats().Registered; n != 2 {
			t.Errorf("registered %d times", n)
		}
		// What the former session let in is in flight all the same.
		s.grant(&quoratev1.RenewGateResponse{Revision: 20, Drain: []*quoratev1.PartitionEpoch{{Partition: "p", Epoch: 3}}})
		if n := len(s.asked().GetDrained()); n != 0 {
			t.Error("drained while a write is in flight")
		}
		p.Done()
	})
}

// TestTwoGatesOfOneID lets another process take the id again and again: that must not become a storm of writes to the log.
func TestTwoGatesOfOneID(t *testing.T) {
	scriptedGate(t, GateOptions{}, func(t *testing.T, s *scripted, _ *Gate) {
		for end := time.Now().Add(time.Minute); time.Now().Before(end); time.Sleep(time.Millisecond) {
			switch r := s.asked(); {
			case r.answered:
			case r.GetGrant() == 0:
				s.grant(&quoratev1.RenewGateResponse{Revision: 10})
			default:
				s.refuse(ErrUnregistered)
			}
		}
		synctest.Wait()
		if n := len(s.sessions()); n > 75 || n < 30 {
			t.Errorf("registered %d times in a minute", n)
		}
		// One that lasted is followed by a short pause again.
		time.Sleep(2 * gatePauseMost)
		for range 30 {
			time.Sleep(ttl / 4)
			s.grant(&quoratev1.RenewGateResponse{Revision: 10})
		}
		s.refuse(ErrUnregistered)
		before := len(s.sessions())
		time.Sleep(2 * gatePause)
		synctest.Wait()
		if len(s.sessions()) != before+1 {
			t.Error("the pause is as long as if the session had not lasted")
		}
	})
}

func TestGateRegistrationFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		taken := errors.New("taken")
		if _, err := OpenGate(t.Context(), &scripted{t: t, taken: taken}, GateOptions{ID: "proxy-1"}); !errors.Is(err, taken) {
			t.Errorf("error %v", err)
		}
	})
	scriptedGate(t, GateOptions{}, func(t *testing.T, s *scripted, g *Gate) {
		s.asked()
		s.taken = errors.New("taken")
		s.refuse(ErrUnregistered)
		time.Sleep(time.Second)
		if err := g.Stats().Failure; !errors.Is(err, s.taken) {
			t.Errorf("failure %v", err)
		}
		s.taken = nil
		s.refuse(ErrUnregistered)
		time.Sleep(2 * time.Second)
		s.grant(&quoratev1.RenewGateResponse{Revision: 10})
		if stats := g.Stats(); stats.Failure != nil || stats.Lease <= 0 {
			t.Errorf("stats %+v", stats)
		}
	})
}

// TestGateRenewsElsewhereInTime lets an answer fail to come: the next question is asked while the lease lasts.
func TestGateRenewsElsewhereInTime(t *testing.T) {
	scriptedGate(t, GateOptions{}, func(t *testing.T, s *scripted, g *Gate) {
		learned(s, g, "p")
		asked := s.asked()
		time.Sleep(ttl/2 + 2*gatePause)
		if s.asked() == asked {
			t.Fatal("it waits for an answer that does not come")
		}
		if err := g.Stats().Failure; !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("failure %v", err)
		}
		fromMemory(t, g, "p", "b1", 1)
		s.grant(&quoratev1.RenewGateResponse{Revision: 10})
		if left := g.Stats().Lease; left < ttl-2*gatePause {
			t.Errorf("%v are left of the lease", left)
		}
	})
}

// TestGatePausesBetweenFailures counts the questions in half a minute in which nobody answers.
func TestGatePausesBetweenFailures(t *testing.T) {
	scriptedGate(t, GateOptions{}, func(t *testing.T, s *scripted, g *Gate) {
		refused := errors.New("refused")
		for end := time.Now().Add(30 * time.Second); time.Now().Before(end); time.Sleep(time.Millisecond) {
			if !s.asked().answered {
				s.refuse(refused)
			}
		}
		synctest.Wait()
		if n := len(s.renewals); n < 20 || n > 45 {
			t.Errorf("asked %d times", n)
		}
		if !errors.Is(g.Stats().Failure, refused) {
			t.Errorf("failure %v", g.Stats().Failure)
		}
	})
}

func TestGateRemembersNoMoreThanItMay(t *testing.T) {
	scriptedGate(t, GateOptions{MaxEntries: 2}, func(t *testing.T, s *scripted, g *Gate) {
		for _, p := range []string{"a", "b", "c", "c"} {
			learned(s, g, p) // It fails if c is answered from memory.
		}
		fromMemory(t, g, "a", "b1", 1)
		if n := g.Stats().Remembered; n != 2 {
			t.Errorf("%d are remembered", n)
		}
		// What is forgotten makes room.
		s.grant(&quoratev1.RenewGateResponse{Revision: 11, Closed: []string{"a"}})
		learned(s, g, "c")
		fromMemory(t, g, "c", "b1", 1)
	})
}

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
