package migration

import (
	"errors"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"google.golang.org/protobuf/types/known/durationpb"

	logv1 "quorate/proto/quorate/log/v1"
	quoratev1 "quorate/proto/quorate/v1"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var west = Job{Partition: "p1", To: "west"}

func resumed(j Job) Job {
	j.Resume = true
	return j
}

func TestAWholeMigration(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGroup(t)
		copier, verifier, final := &scriptedHook{lines: copyLines()}, &scriptedHook{lines: []string{"compared"}}, &scriptedHook{lines: []string{"rest"}}
		d, events := g.driver(Options{Copy: copier, Verify: verifier, Final: final, RequireVerified: true, Note: "why"})
		o := d.Run(t.Context(), west)
		if o.Result != Done || o.Err != nil || o.Unsure || o.Early {
			t.Fatalf("outcome %+v", o)
		}
		g.checkWhole("p1")
		has(t, events.texts(), "begin: east → west begun, epoch 2, barrier 10s", "copy: begins", "copy: copied", "verify: compared", "verify: verified",
			"cutover: cut over at epoch 3: nobody may write until it is completed or aborted", "final: rest", "complete: completed: it is at west, epoch 4")
		want := []About{{Partition: "p1", From: "east", To: "west", Epoch: 2, Request: d.Request, Stage: StageCopy}}
		if !slices.Equal(copier.abouts, want) {
			t.Errorf("the copy hook was told %+v", copier.abouts)
		}
		if final.abouts[0].Epoch != 3 || final.abouts[0].Stage != StageFinal {
			t.Errorf("the final hook was told %+v", final.abouts)
		}
		// The hook wrote two lines a second; the group was told once a second, and of the last step when the hook had ended.
		var last time.Duration
		for _, c := range g.calls {
			if c.method != "report" {
				continue
			}
			if c.at-last < pollInterval/2 {
				t.Errorf("a report at %v came %v after the one before", c.at, c.at-last)
			}
			last = c.at
		}
		if n := len(g.ids("report")); n < 5 || n > 8 {
			t.Errorf("%d reports of 5.5 s", n)
		}
		// The barrier is in cluster time, and was waited for before the final hook.
		at := map[string]time.Duration{}
		for _, c := range g.calls {
			at[c.method] = c.at
		}
		if waited := at["complete"] - at["cutover"]; waited < 10*time.Second || waited > 12*time.Second {
			t.Errorf("it was completed %v after the cutover, want a barrier of 10 s and the hook", waited)
		}
		var left []time.Duration
		for _, e := range events.events {
			if e.Whole != 0 {
				left = append(left, e.Left)
			}
		}
		if len(left) < 10 || left[0] != 10*time.Second || !slices.IsSortedFunc(left, func(a, b time.Duration) int { return int(b - a) }) {
			t.Errorf("the countdown was %v", left)
		}
		if again := d.Run(t.Context(), resumed(west)); again.Result != Done || again.Last.GetEpoch() != 4 {
			t.Errorf("once more: %+v", again)
		}
	})
}

// whole is how long a migration with these hooks takes.
const whole = 21 * time.Second

func hooks() (o Options, copier, verifier, final *scriptedHook) {
	copier, verifier, final = &scriptedHook{lines: copyLines()}, &scriptedHook{lines: []string{"compared"}}, &scriptedHook{lines: []string{"rest"}}
	return Options{Copy: copier, Verify: verifier, Final: final, RequireVerified: true}, copier, verifier, final
}

func TestFailedHooks(t *testing.T) {
	for _, c := range []struct {
		stage Stage
		phase quoratev1.PartitionPhase
	}{{StageCopy, draining}, {StageVerify, draining}, {StageFinal, cutover}} {
		synctest.Test(t, func(t *testing.T) {
			g := newGroup(t)
			o, copier, verifier, final := hooks()
			failing := map[Stage]*scriptedHook{StageCopy: copier, StageVerify: verifier, StageFinal: final}[c.stage]
			failing.err = errors.New("exit status 3")
			d, _ := g.driver(o)
			first := d.Run(t.Context(), west)
			var hook *HookError
			if !errors.As(first.Err, &hook) || hook.Stage != c.stage || first.Result != Failed || first.Last.GetPhase() != c.phase {
				t.Fatalf("%v: %+v", c.stage, first)
			}
			if want := fmt.Sprintf("the %s hook failed: exit status 3", c.stage); first.Err.Error() != want {
				t.Errorf("error %q", first.Err)
			}
			// Though the copy hook had written 10 of 10, a copy that failed isn't reported as complete.
			if c.stage == StageCopy && Copied(g.partition("p1").GetMigration()) {
				t.Error("the copy is reported as complete")
			}
			failing.err = nil
			d, _ = g.driver(o)
			if second := d.Run(t.Context(), resumed(west)); second.Result != Done {
				t.Fatalf("%v, resumed: %+v", c.stage, second)
			}
			g.checkWhole("p1")
		})
	}
}

func TestBarrierMayGrowAndEndEarly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) { // The least barrier is raised while it waits, after the last look.
		g := newGroup(t)
		d, _ := g.driver(Options{NothingToCopy: true})
		raised := false
		g.fate = func(_ int, method string) fate {
			if method == "complete" && !raised {
				raised = true
				g.somebody("raise", &logv1.Command{Body: &logv1.Command_SetPartitionSettings{SetPartitionSettings: &logv1.SetPartitionSettings{
					Settings: &quoratev1.PartitionSettings{MinDrainBarrier: durationpb.New(20 * time.Second), DrainBarrier: durationpb.New(20 * time.Second)},
				}}})
			}
			return answered
		}
		began := time.Now()
		if o := d.Run(t.Context(), west); o.Result != Done || time.Since(began) < 20*time.Second {
			t.Fatalf("%+v after %v", o, time.Since(began))
		}
		if ids := g.ids("complete"); len(unique(ids)) < 2 {
			t.Errorf("a refused completion was sent again under its id: %q", ids)
		}
	})
	for _, drainedAfter := range []time.Duration{0, 5 * time.Second, time.Minute} {
		synctest.Test(t, func(t *testing.T) {
			g := newGroup(t)
			d, _ := g.driver(Options{NothingToCopy: true, Early: true})
			timer := time.AfterFunc(drainedAfter, func() {
				g.mu.Lock()
				g.drained = true
				g.mu.Unlock()
			})
			defer timer.Stop()
			began := time.Now()
			o := d.Run(t.Context(), west)
			// Not before the floor of 3 s, soon after the word, and with the barrier of 10 s at the latest.
			want := min(max(drainedAfter, 3*time.Second), 10*time.Second)
			if took := time.Since(began); o.Result != Done || took < want || took > want+2*pollInterval || o.Early != (want < 10*time.Second) {
				t.Errorf("drained after %v: %+v", drainedAfter, o)
			}
		})
	}
	synctest.Test(t, func(t *testing.T) { // A final hook comes after the whole barrier, whatever may be early.
		g := newGroup(t)
		g.drained = true
		final := &scriptedHook{lines: []string{"rest"}}
		d, _ := g.driver(Options{NothingToCopy: true, Early: true, Final: final})
		if o := d.Run(t.Context(), west); o.Result != Done || o.Early || o.Took < 10*time.Second || final.done != 1 {
			t.Errorf("%+v, the final hook ran %d times", o, final.done)
		}
	})
}
