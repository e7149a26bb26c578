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
