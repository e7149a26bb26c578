package client

import (
	"context"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"quorate/fsm"
	quoratev1 "quorate/proto/quorate/v1"
)

// least is what a group tells whose least barrier is this.
func least(barrier time.Duration) *quoratev1.RenewGateResponse {
	return &quoratev1.RenewGateResponse{Revision: 10, MinDrainBarrier: durationpb.New(barrier)}
}

// wantDeadline ends a write, and fails if its deadline is not so long after a moment.
func wantDeadline(t *testing.T, p Pass, after time.Time, want time.Duration) {
	t.Helper()
	p.Done()
	if got := p.Deadline.Sub(after); got != want {
		t.Errorf("the write has to land within %v, want %v", got, want)
	}
}

// TestPassDeadline shows that a write may last as long as the group's least barrier, counted from a moment at which no cutover can have committed.
func TestPassDeadline(t *testing.T) {
	const limit = 29400 * time.Millisecond // 30 s, less what the leader's clock may gain.
	scriptedGate(t, GateOptions{}, func(t *testing.T, s *scripted, g *Gate) {
		s.grant(least(30 * time.Second))
		learned(s, g, "p")
		if told := g.Stats().WriteTimeout; told != limit {
			t.Errorf("a write may last %v, want %v", told, limit)
		}
		elapse(time.Second)
		wantDeadline(t, enter(g, "p").want(t, "b1", 1), time.Now(), limit)

		// Where the group is asked, a cutover may commit as soon as it has answered, so the answer's way back counts too.
		began := time.Now()
		e := enter(g, "q")
		elapse(500 * time.Millisecond)
		s.read(2).serve(10, at("q", active, "b1", 1, 5))
		wantDeadline(t, e.want(t, "b1", 1), began, limit)

		// So does what was read in vain before.
		began = time.Now()
		e = enter(g, "r")
		elapse(100 * time.Millisecond)
		s.grant(&quoratev1.RenewGateResponse{
			Revision: 20, MinDrainBarrier: durationpb.New(30 * time.Second), Changed: []*quoratev1.Resolution{at("r", active, "b2", 4, 20)},
		})
		s.read(3).serve(12, at("r", active, "b1", 1, 5))
		s.read(4).serve(21, at("r", active, "b2", 4, 20))
		wantDeadline(t, e.want(t, "b2", 4), began, limit)
	})
}

// TestPassDeadlineFollowsTheGroup has the least barrier change, and looks at what counts before it is known and where the options say something else.
func TestPassDeadlineFollowsTheGroup(t *testing.T) {
	for name, c := range map[string]struct {
		own  time.Duration
		want map[time.Duration]time.Duration // by the least barrier, 0 being before the first lease
	}{
		"as long as the group allows": {0, map[time.Duration]time.Duration{
			0: 98 * time.Millisecond, 30 * time.Second: 29400 * time.Millisecond, time.Second: 980 * time.Millisecond,
		}},
		"less than that": {5 * time.Second, map[time.Duration]time.Duration{
			0: 98 * time.Millisecond, 30 * time.Second: 5 * time.Second, time.Second: 980 * time.Millisecond,
		}},
		"less than any group allows": {10 * time.Millisecond, map[time.Duration]time.Duration{
			0: 10 * time.Millisecond, 30 * time.Second: 10 * time.Millisecond, time.Second: 10 * time.Millisecond,
		}},
	} {
		t.Run(name, func(t *testing.T) {
			scriptedGate(t, GateOptions{WriteTimeout: c.own}, func(t *testing.T, s *scripted, g *Gate) {
				e := enter(g, "p")
				s.read(1).serve(10, at("p", active, "b1", 1, 5))
				wantDeadline(t, e.want(t, "b1", 1), time.Now(), c.want[0])
				for i, barrier := range []time.Duration{30 * time.Second, time.Second, 30 * time.Second} {
					s.grant(least(barrier))
					if i == 0 {
						learned(s, g, "p")
					}
					wantDeadline(t, enter(g, "p").want(t, "b1", 1), time.Now(), c.want[barrier])
				}
			})
		})
	}
	if leastDrainBarrier != fsm.MinDrainBarrier {
		t.Errorf("a group's least barrier may be %v, and the gate takes %v for it", fsm.MinDrainBarrier, leastDrainBarrier)
	}
}

// TestPassDeadlineByAnotherClock has the gate go by a clock of its own, which says something else than the machine's.
func TestPassDeadlineByAnotherClock(t *testing.T) {
	began := time.Unix(946684800, 0) // When a bubble begins.
	options := GateOptions{Elapsed: func() time.Duration { return time.Since(began) + 1000*time.Hour }}
	scriptedGate(t, options, func(t *testing.T, s *scripted, g *Gate) {
		s.grant(least(10 * time.Second))
		learned(s, g, "p")
		elapse(time.Second)
		wantDeadline(t, enter(g, "p").want(t, "b1", 1), time.Now(), 9800*time.Millisecond)
	})
}

func TestGateAllocatesNothingFromMemory(t *testing.T) {
	scriptedGate(t, GateOptions{}, func(t *testing.T, s *scripted, g *Gate) {
		learned(s, g, "p")
		allocated := testing.AllocsPerRun(1000, func() {
			p, err := g.Enter(context.Background(), "p")
			if err != nil || !time.Now().Before(p.Deadline) {
				t.Errorf("deadline %v, error %v", p.Deadline, err)
			}
			p.Done()
		})
		if stats := g.Stats(); allocated != 0 || stats.Misses != 1 {
			t.Errorf("%v allocations for each answer, and %d answers of the group", allocated, stats.Misses)
		}
	})
}

func TestGateRefusesANegativeWriteTimeout(t *testing.T) {
	if _, err := OpenGate(context.Background(), calmLink{}, GateOptions{ID: "proxy-1", WriteTimeout: -1}); err == nil ||
		err.Error() != "client: GateOptions.WriteTimeout: -1ns is negative" {
		t.Errorf("error %v", err)
	}
}
