package migration

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	quoratev1 "quorate/proto/quorate/v1"
)

// TestInterruptedAtAnyMoment ends the driver after each 100 ms of a migration. What is left is one of the phases, is what it says, and a
// second run goes on from there without doing twice what was done.
func TestInterruptedAtAnyMoment(t *testing.T) {
	phases := map[quoratev1.PartitionPhase]int{}
	for after := time.Duration(0); after <= whole; after += 100 * time.Millisecond {
		synctest.Test(t, func(t *testing.T) {
			g := newGroup(t)
			o, copier, verifier, final := hooks()
			d, _ := g.driver(o)
			ctx, cancel := context.WithTimeout(t.Context(), after)
			defer cancel()
			first := d.Run(ctx, west)
			now := g.partition("p1")
			phases[now.GetPhase()]++
			if first.Result == Done {
				g.checkWhole("p1")
				return
			}
			if first.Result != Interrupted || first.Unsure || first.Last.GetEpoch() != now.GetEpoch() || first.Last.GetPhase() != now.GetPhase() {
				t.Fatalf("after %v: %+v, and the group says %v", after, first, now)
			}
			if copier.begun != copier.done+copier.gone || final.begun != final.done+final.gone {
				t.Errorf("after %v a hook was left running", after)
			}
			copied := Copied(now.GetMigration())
			if copied != (copier.done > 0) {
				t.Errorf("after %v copied is %v, and %d copies have ended well", after, copied, copier.done)
			}
			d, _ = g.driver(o)
			if second := d.Run(t.Context(), resumed(west)); second.Result != Done {
				t.Fatalf("after %v, resumed: %+v", after, second)
			}
			g.checkWhole("p1")
			if copier.done != 1 || verifier.done != 1 || final.done < 1 {
				t.Errorf("after %v the hooks ended well %d, %d and %d times", after, copier.done, verifier.done, final.done)
			}
		})
	}
	for _, phase := range []quoratev1.PartitionPhase{active, draining, cutover} {
		if phases[phase] == 0 {
			t.Errorf("no interruption left the partition in %v", phase)
		}
	}
}

// TestInterruptedInACall ends the driver while each of its calls is under way and hangs, or has lost its answer.
func TestInterruptedInACall(t *testing.T) {
	clean := cleanCalls(t)
	for n := 1; n <= clean; n++ {
		for _, what := range []fate{hangs, answerLost} {
			synctest.Test(t, func(t *testing.T) {
				g := newGroup(t)
				o, _, _, _ := hooks()
				d, _ := g.driver(o)
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				g.fate = func(i int, _ string) fate {
					if i != n {
						return answered
					}
					cancel()
					return what
				}
				began := time.Now()
				first := d.Run(ctx, west)
				if first.Result != Interrupted || time.Since(began) > whole+2*settleTime {
					t.Fatalf("call %d: %+v after %v", n, first, time.Since(began))
				}
				// It has looked once more, and so knows what became of a change whose answer was lost.
				if now := g.partition("p1"); what == answerLost && (first.Unsure && now.GetEpoch() != 1 || first.Last.GetEpoch() != now.GetEpoch()) {
					t.Errorf("call %d: %+v, and the group says %v", n, first, now)
				}
				g.fate = nil
				d, _ = g.driver(o)
				if second := d.Run(t.Context(), resumed(west)); second.Result != Done {
					t.Fatalf("call %d, resumed: %+v", n, second)
				}
				g.checkWhole("p1")
			})
		}
	}
}

// cleanCalls is how many calls a migration takes where nothing goes wrong.
func cleanCalls(t *testing.T) (n int) {
	synctest.Test(t, func(t *testing.T) {
		g := newGroup(t)
		o, _, _, _ := hooks()
		d, _ := g.driver(o)
		if o := d.Run(t.Context(), west); o.Result != Done {
			t.Fatal(o.Err)
		}
		n = len(g.calls)
	})
	if n < 20 {
		t.Fatalf("a migration took only %d calls", n)
	}
	return n
}

// TestLostCalls loses each call, or its answer, for some time, as when leaders change. The driver goes on by itself, under the same request id.
func TestLostCalls(t *testing.T) {
	clean := cleanCalls(t)
	for n := 1; n <= clean; n++ {
		for _, what := range []fate{lost, answerLost} {
			synctest.Test(t, func(t *testing.T) {
				g := newGroup(t)
				o, _, _, _ := hooks()
				d, events := g.driver(o)
				g.fate = func(i int, _ string) fate {
					if i >= n && i < n+3 {
						return what
					}
					return answered
				}
				if o := d.Run(t.Context(), west); o.Result != Done {
					t.Fatalf("call %d: %+v", n, o)
				}
				g.checkWhole("p1")
				for _, method := range []string{"begin", "cutover", "complete"} {
					ids := g.ids(method)
					if len(unique(ids)) != 1 {
						t.Errorf("call %d: %s was made under %q", n, method, ids)
					}
				}
				method := g.calls[n-1].method
				if said := strings.Contains(events.texts(), "no answer, and so asked again: "); !said && method != "get" && method != "report" {
					t.Errorf("call %d: that %s was not answered is not said:\n%s", n, method, events.texts())
				}
			})
		}
	}
}

func TestPatienceEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGroup(t)
		d, events := g.driver(Options{NothingToCopy: true})
		g.fate = func(_ int, method string) fate {
			if method == "cutover" {
				return lost
			}
			return answered
		}
		began := time.Now()
		o := d.Run(t.Context(), west)
		var unanswered *Unanswered
		if !errors.As(o.Err, &unanswered) || o.Result != Failed || !o.Unsure || o.Last.GetPhase() != draining {
			t.Fatalf("outcome %+v", o)
		}
		if took := time.Since(began); took < DefaultPatience || took > DefaultPatience+2*maxPause {
			t.Errorf("it gave up after %v", took)
		}
		// A reason is said once, not with each attempt.
		if n := strings.Count(events.texts(), "no leader"); n != 1 {
			t.Errorf("it is said %d times", n)
		}
		if n := len(unique(g.ids("cutover"))); n != 1 {
			t.Errorf("%d request ids", n)
		}
	})
}
