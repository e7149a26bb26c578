package migration

import (
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	logv1 "quorate/proto/quorate/log/v1"
	quoratev1 "quorate/proto/quorate/v1"
)

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
