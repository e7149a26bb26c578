package redundancy

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"quorate/fsm"
	logv1 "quorate/proto/quorate/log/v1"
	quoratev1 "quorate/proto/quorate/v1"
)

// applierFunc is an Applier.
type applierFunc func(context.Context, Apply) (string, error)

func (f applierFunc) Apply(ctx context.Context, a Apply) (string, error) { return f(ctx, a) }

func as(member string, applier Applier) func(*Config) {
	return func(c *Config) { c.Member, c.Applier = member, applier }
}

// journal notes what happens, in order.
type journal struct {
	mu    sync.Mutex
	lines []string
}

func (j *journal) note(format string, arguments ...any) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.lines = append(j.lines, fmt.Sprintf(format, arguments...))
}

func (j *journal) expect(t *testing.T, want ...string) {
	t.Helper()
	j.mu.Lock()
	defer j.mu.Unlock()
	if !slices.Equal(j.lines, want) {
		t.Errorf("%q, want %q", j.lines, want)
	}
	j.lines = nil
}

// applying notes each apply, which takes a second, and the level at its end: at the beginning of the first one the group may not have answered yet.
func (j *journal) applying(m **Manager) Applier {
	return applierFunc(func(_ context.Context, a Apply) (string, error) {
		time.Sleep(time.Second)
		j.note("%s applies %d of %s as %s at %d", a.Server, a.Generation, a.Set, a.Role, (*m).Level().Value)
		return "said " + a.Server, nil
	})
}

// rollout returns the one roll-out.
func (g *group) rollout(t *testing.T) *quoratev1.Rollout {
	t.Helper()
	r, ok := g.Local().State.Rollout("line-a")
	if !ok {
		t.Fatal("there is no roll-out")
	}
	return r
}

func states(r *quoratev1.Rollout) string {
	text := strings.TrimPrefix(r.GetState().String(), "ROLLOUT_STATE_")
	for _, s := range r.GetServers() {
		text += fmt.Sprintf(" %s:%s/%d", s.GetServer(), strings.TrimPrefix(s.GetState().String(), "APPLY_STATE_"), s.GetAppliedGeneration())
	}
	return text
}

func (g *group) expectRollout(t *testing.T, want string) {
	t.Helper()
	synctest.Wait()
	if got := states(g.rollout(t)); got != want {
		t.Errorf("the roll-out is %s, want %s", got, want)
	}
}

// change publishes the set with another policy, which changes it and none of its servers.
func (g *group) change(policies *quoratev1.RedundancyPolicies, servers ...*quoratev1.RedundantServer) {
	g.policies = policies
	g.publish(servers...)
}

func TestFirstGenerationWithoutAHookSettlesWithoutADip(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGroup(t, "m1", "m2")
		m1, m2 := start(t, g, newFakeProber()), start(t, g, newFakeProber(), as("m2", nil))
		one, two := values(m1), values(m2)
		g.publish(server("m1", Primary), server("m2", Backup))
		time.Sleep(5 * time.Second)
		g.expectRollout(t, "DONE m2:APPLIED/1 m1:APPLIED/1")
		if a, b := one(), two(); !slices.Equal(a, []byte{1, 255}) || !slices.Equal(b, []byte{1, 100}) {
			t.Errorf("the Primary showed %d, the Backup %d", a, b)
		}
	})
}

func TestBackupsApplyFirstAndOneAtATime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var j journal
		var m1, m2, m3 *Manager
		g := newGroup(t, "m1", "m2", "m3")
		servers := []*quoratev1.RedundantServer{server("m1", Primary), server("m2", Backup), server("m3", Backup)}
		m1 = start(t, g, newFakeProber(), as("m1", j.applying(&m1)))
		m2 = start(t, g, newFakeProber(), as("m2", j.applying(&m2)))
		m3 = start(t, g, newFakeProber(), as("m3", j.applying(&m3)))
		g.publish(servers...)
		time.Sleep(5 * time.Second)
		j.expect(t, "m2 applies 1 of line-a as Backup at 50", "m3 applies 1 of line-a as Backup at 50", "m1 applies 1 of line-a as Primary at 200")
		g.change(&quoratev1.RedundancyPolicies{EvictClients: fsm.EvictMaintenance}, servers...)
		time.Sleep(1500 * time.Millisecond)
		g.expectRollout(t, "RUNNING m2:APPLIED/2 m3:APPLYING/1 m1:PENDING/1")
		time.Sleep(3500 * time.Millisecond)
		j.expect(t, "m2 applies 2 of line-a as Backup at 50", "m3 applies 2 of line-a as Backup at 50", "m1 applies 2 of line-a as Primary at 200")
		g.expectRollout(t, "DONE m2:APPLIED/2 m3:APPLIED/2 m1:APPLIED/2")
		if last := g.rollout(t).GetServers()[2]; last.GetOutcome() != "ok" || last.GetOutput() != "said m1" || last.GetAttempts() != 1 {
			t.Errorf("the apply of m1 is recorded as %v", last)
		}
		if s := m1.Status(); s.GetAppliedGeneration() != 2 || s.GetServiceLevel() != 255 {
			t.Errorf("status %v", s)
		}
		for _, m := range []string{"m1", "m2", "m3"} {
			if g.Local().State.MidApply(m) {
				t.Errorf("%s is still mid-apply", m)
			}
		}
	})
}

func TestFailedApplyStopsTheRollOutAndRecovers(t *testing.T) {
	for name, c := range map[string]struct {
		fails   func() (string, error)
		outcome string
	}{
		"an error": {func() (string, error) { return "half done", errors.New("disk full") }, "disk full"},
		"a panic":  {func() (string, error) { panic("index out of range") }, "the apply panicked: index out of range"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				g := newGroup(t, "m1", "m2")
				fail := true
				m1 := start(t, g, newFakeProber(), as("m1", applierFunc(func(context.Context, Apply) (string, error) {
					if fail {
						return c.fails()
					}
					return "", nil
				})))
				start(t, g, newFakeProber(), as("m2", nil))
				told := values(m1)
				g.publish(server("m1", Primary), server("m2", Backup))
				time.Sleep(10 * time.Second)
				g.expectRollout(t, "STOPPED m2:APPLIED/1 m1:FAILED/0")
				expect(t, m1, 180, Recovering)
				if got := told(); slices.Index(got, 180) != len(got)-1 {
					t.Errorf("it showed %d: the level must not rise before the failure is known", got)
				}
				if a := g.rollout(t).GetServers()[1]; a.GetOutcome() != c.outcome || a.GetAttempts() != 1 {
					t.Errorf("it is recorded as %v", a)
				}
				if g.Local().State.MidApply("m1") {
					t.Error("the apply lease is still open")
				}
				fail = false
				g.apply(&logv1.Command{RequestId: "r", Body: &logv1.Command_ResumeApply{ResumeApply: &logv1.ResumeApply{Set: "line-a"}}})
				time.Sleep(time.Minute + time.Second)
				g.expectRollout(t, "DONE m2:APPLIED/1 m1:APPLIED/1")
				expect(t, m1, 255, Authoritative)
			})
		})
	}
}

func TestRoleIsHandedOverOnceTheBackupIsAuthoritativeAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var j journal
		var m1, m2 *Manager
		g := newGroup(t, "m1", "m2")
		p2 := newFakeProber()
		m1 = start(t, g, newFakeProber(), as("m1", j.applying(&m1)))
		m2 = start(t, g, p2, as("m2", j.applying(&m2)))
		g.publish(server("m1", Primary), server("m2", Backup))
		time.Sleep(5 * time.Second)
		g.expectRollout(t, "DONE m2:APPLIED/1 m1:APPLIED/1")
		j.expect(t, "m2 applies 1 of line-a as Backup at 50", "m1 applies 1 of line-a as Primary at 200")
		// The Backup sees nobody for a while: it is Isolated, and not fit to take over.
		p2.fail("m1", errRefused)
		time.Sleep(10 * time.Second)
		expect(t, m2, 80, Isolated)
		g.change(&quoratev1.RedundancyPolicies{Apply: fsm.ApplyHandover}, server("m1", Primary), server("m2", Backup))
		time.Sleep(time.Minute)
		g.expectRollout(t, "RUNNING m2:APPLIED/2 m1:PENDING/1")
		j.expect(t, "m2 applies 2 of line-a as Backup at 50")
		p2.good("m1")
		time.Sleep(2 * maxBackoff)
		if current := g.Local().State.CurrentGeneration(); current.GetNumber() != 3 || current.GetSwappedBy() != fsm.SwapHandover {
			t.Fatalf("generation %d was made by %q", current.GetNumber(), current.GetSwappedBy())
		}
		j.expect(t, "m1 applies 3 of line-a as Backup at 50")
		g.expectRollout(t, "DONE m1:APPLIED/3 m2:APPLIED/3")
		expect(t, m2, 255, Authoritative)
		expect(t, m1, 100, Authoritative)
	})
}

// run runs a manager that the test ends itself.
func run(t *testing.T, g *group, change func(*Config)) (m *Manager, stop func()) {
	t.Helper()
	cfg := Config{Member: "m1", Group: g, Prober: newFakeProber(), EndpointURL: "opc.tcp://127.0.0.1:4841", Logger: quiet}
	change(&cfg)
	m, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- m.Run(ctx) }()
	synctest.Wait()
	return m, func() {
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("Run: %v", err)
		}
	}
}

func TestInterruptedApplyBeginsAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGroup(t, "m1")
		g.publish(server("m1", Primary))
		hanging := applierFunc(func(ctx context.Context, _ Apply) (string, error) {
			<-ctx.Done()
			return "", ctx.Err()
		})
		_, stop := run(t, g, as("m1", hanging))
		time.Sleep(time.Second)
		g.expectRollout(t, "RUNNING m1:APPLYING/0")
		stop()
		g.expectRollout(t, "RUNNING m1:APPLYING/0")
		if !g.Local().State.MidApply("m1") {
			t.Error("the lease was closed, though the apply is not done")
		}
		start(t, g, newFakeProber(), as("m1", applierFunc(func(context.Context, Apply) (string, error) { return "", nil })))
		time.Sleep(5 * time.Second)
		g.expectRollout(t, "DONE m1:APPLIED/1")
		if a := g.rollout(t).GetServers()[0]; a.GetAttempts() != 2 {
			t.Errorf("recorded as %v", a)
		}
	})
}

func TestInterruptedAndSupersededApplyIsEnded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGroup(t, "m1")
		g.publish(server("m1", Primary))
		_, stop := run(t, g, as("m1", applierFunc(func(ctx context.Context, _ Apply) (string, error) {
			<-ctx.Done()
			return "", ctx.Err()
		})))
		time.Sleep(time.Second)
		stop()
		g.change(&quoratev1.RedundancyPolicies{EvictClients: fsm.EvictMaintenance}, server("m1", Primary))
		start(t, g, newFakeProber())
		time.Sleep(5 * time.Second)
		g.expectRollout(t, "DONE m1:APPLIED/2")
		for _, l := range g.Local().State.Leases("m1", true) {
			if l.GetState() == quoratev1.LeaseState_LEASE_STATE_OPEN {
				t.Errorf("lease %v is open", l)
			}
		}
	})
}

func TestApplyEndsWhenItsLeaseIsClosed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGroup(t, "m1")
		g.publish(server("m1", Primary))
		causes := make(chan error, 1)
		m := start(t, g, newFakeProber(), as("m1", applierFunc(func(ctx context.Context, _ Apply) (string, error) {
			<-ctx.Done()
			causes <- context.Cause(ctx)
			time.Sleep(hookPipeWait) // It takes its time to end.
			return "", nil
		})))
		time.Sleep(time.Second)
		told := values(m)
		g.apply(&logv1.Command{RequestId: "e", Body: &logv1.Command_EndLease{EndLease: &logv1.EndLease{Server: "m1", Outcome: "given up"}}})
		time.Sleep(5 * time.Second)
		if cause := <-causes; !errors.Is(cause, errAbandoned) {
			t.Errorf("the apply ended for %v", cause)
		}
		g.expectRollout(t, "STOPPED m1:FAILED/0")
		expect(t, m, 180, Recovering)
		if got := told(); !slices.Equal(got, []byte{200, 180}) {
			t.Errorf("it showed %d: the level must not rise while it is still touched", got)
		}
	})
}

// TestLateEndOfAnEarlierAttempt has the word of a server's last life come when it is applying again.
func TestLateEndOfAnEarlierAttempt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGroup(t, "m1")
		g.publish(server("m1", Primary))
		var late *logv1.Command
		g.intercept = func(c *logv1.Command) error {
			if c.GetEndApply() == nil {
				return nil
			}
			late = c
			return errNoLeader
		}
		_, stop := run(t, g, as("m1", applierFunc(func(context.Context, Apply) (string, error) { return "", nil })))
		time.Sleep(time.Second)
		stop()
		g.set(func() { g.intercept = nil })
		start(t, g, newFakeProber(), as("m1", applierFunc(func(ctx context.Context, _ Apply) (string, error) {
			select {
			case <-time.After(10 * time.Second):
			case <-ctx.Done():
			}
			return "", ctx.Err()
		})))
		time.Sleep(5 * time.Second)
		if o, err := g.commit(late); err != nil || o.GetRefusal().GetReason() != fsm.ReasonStaleAttempt {
			t.Errorf("the late end of attempt 1 is answered %v, %v", o, err)
		}
		g.expectRollout(t, "RUNNING m1:APPLYING/0")
		time.Sleep(10 * time.Second)
		g.expectRollout(t, "DONE m1:APPLIED/1")
	})
}

func TestEndOfAnApplyIsProposedUntilItIsKnown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGroup(t, "m1")
		g.publish(server("m1", Primary))
		m := start(t, g, newFakeProber(), as("m1", applierFunc(func(context.Context, Apply) (string, error) {
			g.set(func() { g.down = true })
			return "", nil
		})))
		time.Sleep(time.Minute)
		g.expectRollout(t, "RUNNING m1:APPLYING/0")
		expect(t, m, 190, Unconfirmed)
		g.set(func() { g.down = false })
		time.Sleep(maxApplyRetry)
		g.expectRollout(t, "DONE m1:APPLIED/1")
		time.Sleep(servingInterval)
		expect(t, m, 255, Authoritative)
	})
}
