package migration

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
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

// TestAbortedBySomebodyElse aborts the migration before each of the driver's calls. The driver stops its hook, says so, and never begins anew.
func TestAbortedBySomebodyElse(t *testing.T) {
	for n := 1; n <= cleanCalls(t); n++ {
		synctest.Test(t, func(t *testing.T) {
			g := newGroup(t)
			o, copier, _, final := hooks()
			d, _ := g.driver(o)
			aborted := false
			g.fate = func(i int, _ string) fate {
				if i >= n && !aborted {
					g.mu.Lock()
					defer g.mu.Unlock()
					if p, _ := g.state.Partition("p1"); p.GetMigration() != nil {
						g.must("abort", abortOf("p1"))
						aborted = true
					}
				}
				return answered
			}
			out := d.Run(t.Context(), west)
			if !aborted {
				if out.Result != Done {
					t.Fatalf("call %d: %+v", n, out)
				}
				return
			}
			var stopped *Stopped
			if !errors.As(out.Err, &stopped) || !strings.HasPrefix(out.Err.Error(), "partition p1 was aborted by somebody else: it is at east, epoch ") {
				t.Fatalf("call %d: %+v", n, out)
			}
			if p := g.partition("p1"); p.GetPhase() != active || p.GetPlacement() != "east" || len(unique(g.ids("begin"))) != 1 {
				t.Errorf("call %d: it is %v after %v", n, p, g.ids("begin"))
			}
			if copier.begun != copier.done+copier.gone || final.begun != final.done+final.gone {
				t.Errorf("call %d: a hook was left running", n)
			}
		})
	}
}

func TestMovedOnBySomebodyElse(t *testing.T) {
	at := func(g *group, method string, do func()) func(int, string) fate {
		done := false
		return func(_ int, m string) fate {
			if m == method && !done {
				done = true
				do()
			}
			return answered
		}
	}
	synctest.Test(t, func(t *testing.T) { // Completed just before.
		g := newGroup(t)
		d, events := g.driver(Options{NothingToCopy: true})
		g.fate = at(g, "complete", func() { g.somebody("complete", completeOf("p1")) })
		if o := d.Run(t.Context(), west); o.Result != Done {
			t.Fatalf("%+v", o)
		}
		g.checkWhole("p1")
		has(t, events.texts(), "was completed by somebody else: it is at west, epoch 4")
	})
	synctest.Test(t, func(t *testing.T) { // Cut over just before.
		g := newGroup(t)
		d, events := g.driver(Options{NothingToCopy: true})
		g.fate = at(g, "cutover", func() { g.somebody("cutover", cutoverOf("p1")) })
		if o := d.Run(t.Context(), west); o.Result != Done {
			t.Fatalf("%+v", o)
		}
		g.checkWhole("p1")
		has(t, events.texts(), "was cut over by somebody else, at epoch 3")
	})
	synctest.Test(t, func(t *testing.T) { // Cut over while the copy hook runs.
		g := newGroup(t)
		o, copier, _, _ := hooks()
		o.RequireVerified = false
		d, _ := g.driver(o)
		g.fate = at(g, "report", func() { g.somebody("cutover", cutoverOf("p1")) })
		out := d.Run(t.Context(), west)
		if out.Result != Failed || out.Err.Error() != "partition p1 was moved on by somebody else while the copy hook ran: look at what was copied" ||
			out.Last.GetPhase() != cutover || copier.gone != 1 {
			t.Fatalf("%+v, %d hooks were stopped", out, copier.gone)
		}
	})
	synctest.Test(t, func(t *testing.T) { // Begun just before: whoever may resume goes on, whoever may not does not.
		for _, resume := range []bool{true, false} {
			g := newGroup(t)
			d, _ := g.driver(Options{NothingToCopy: true})
			g.fate = at(g, "begin", func() {
				g.somebody("begin", &logv1.Command{Body: &logv1.Command_BeginMigration{BeginMigration: &logv1.BeginMigration{Partition: "p1", To: "west"}}})
			})
			out := d.Run(t.Context(), Job{Partition: "p1", To: "west", Resume: resume})
			if (out.Result == Done) != resume {
				t.Errorf("resume %v: %+v", resume, out)
			}
		}
	})
	synctest.Test(t, func(t *testing.T) { // Deleted just before.
		g := newGroup(t)
		d, _ := g.driver(Options{NothingToCopy: true})
		g.fate = at(g, "begin", func() {
			g.somebody("delete", &logv1.Command{Body: &logv1.Command_DeletePartition{DeletePartition: &logv1.DeletePartition{Partition: "p1"}}})
		})
		if out := d.Run(t.Context(), west); out.Result != Failed || refusal(out.Err).Reason != "UNKNOWN_PARTITION" {
			t.Errorf("%+v", out)
		}
	})
	synctest.Test(t, func(t *testing.T) { // Moved elsewhere just before.
		g := newGroup(t)
		d, _ := g.driver(Options{NothingToCopy: true})
		g.fate = at(g, "begin", func() {
			g.somebody("set", &logv1.Command{Body: &logv1.Command_SetPlacement{SetPlacement: &logv1.SetPlacement{Partition: "p1", Placement: "north"}}})
		})
		if out := d.Run(t.Context(), west); out.Result != Failed || out.Err.Error() != "partition p1 was moved by somebody else: it is at north, epoch 2" {
			t.Errorf("%+v", out)
		}
	})
}

func TestWaitsForOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGroup(t)
		d, events := g.driver(Options{RequireVerified: true})
		ended := make(chan Outcome, 1)
		go func() { ended <- d.Run(t.Context(), west) }()
		report := func(id string, done uint64, verified bool) {
			g.somebody(id, &logv1.Command{Body: &logv1.Command_ReportMigration{ReportMigration: &logv1.ReportMigration{
				Partition: "p1", Copy: &quoratev1.CopyProgress{Done: done, Total: 8}, Verified: verified,
			}}})
			time.Sleep(3 * time.Second)
		}
		time.Sleep(3 * time.Second)
		report("half", 4, false)
		if g.partition("p1").GetPhase() != draining {
			t.Error("it did not wait for the copy")
		}
		report("copied", 8, false)
		if g.partition("p1").GetPhase() != draining {
			t.Error("it did not wait for the verification")
		}
		report("verified", 8, true)
		if o := <-ended; o.Result != Done {
			t.Fatalf("%+v", o)
		}
		has(t, events.texts(), "copy: waits until its copy is reported as complete", "verify: waits until its copy is reported as verified")
		seen := false
		for _, e := range events.events {
			seen = seen || e.Progress != nil && *e.Progress == Progress{Done: 4, Total: 8}
		}
		if !seen {
			t.Error("the progress that somebody else reported is not told")
		}
	})
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

func TestWaitsWhileAServerIsMidApply(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGroup(t)
		g.must("publish", &logv1.Command{Body: &logv1.Command_PublishTopology{PublishTopology: &logv1.PublishTopology{Topology: &quoratev1.Topology{
			Sets: []*quoratev1.RedundantSet{{Id: "line", Mode: "WARM", Servers: []*quoratev1.RedundantServer{
				{Member: "m1", Role: "Primary", ApplicationUri: "urn:plant:m1", EndpointUrl: "opc.tcp://m1:4840", HealthUrl: "http://m1:80/healthz"},
				{Member: "m2", Role: "Backup", ApplicationUri: "urn:plant:m2", EndpointUrl: "opc.tcp://m2:4840", HealthUrl: "http://m2:80/healthz"},
			}}}},
		}}})
		g.must("lease", &logv1.Command{Body: &logv1.Command_BeginLease{BeginLease: &logv1.BeginLease{Server: "m2"}}})
		d, events := g.driver(Options{NothingToCopy: true, Servers: []string{"m2"}})
		timer := time.AfterFunc(7*time.Second, func() {
			g.somebody("end", &logv1.Command{Body: &logv1.Command_EndLease{EndLease: &logv1.EndLease{Server: "m2"}}})
		})
		defer timer.Stop()
		if o := d.Run(t.Context(), west); o.Result != Done || o.Took < 17*time.Second {
			t.Fatalf("%+v", o)
		}
		has(t, events.texts(), "cutover: waits until server m2 is no longer mid-apply")
		if ids := g.ids("cutover"); len(unique(ids)) != len(ids) || len(ids) < 7 {
			t.Errorf("the cutovers were %q", ids)
		}
	})
}
