package devgroup

import (
	"context"
	"flag"
	"fmt"
	"path/filepath"
	"slices"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc"

	quoratev1 "quorate/proto/quorate/v1"
)

var publishes = flag.Int("publishes", 50, "how many publishes TestPublishesInARow makes; the long form is 1000")

const rolloutPort = 18400

// rolling is a group whose applies the test holds.
type rolling struct {
	*Wired
	t     *testing.T
	ctx   context.Context
	hooks *Hooks
	conns clients // in the order of the members
	count int
}

func startRolling(ctx context.Context, t *testing.T, withHook bool) *rolling {
	t.Helper()
	dir := t.TempDir()
	binary, err := Built()
	if err != nil {
		t.Fatal(err)
	}
	redundancy := map[string]any{"probeInterval": "500ms", "probeTimeout": "500ms", "recoverDwell": "200ms"}
	hooks, err := NewHooks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	if withHook {
		redundancy["applyHook"] = map[string]any{"command": []string{hooks.Command()}}
	}
	var log Output
	w, err := StartWired(ctx, Options{Binary: binary, Data: filepath.Join(dir, "group"), BasePort: rolloutPort, Log: &log}, map[string]any{"redundancy": redundancy})
	if err != nil {
		t.Fatalf("%v\n%s", err, log.String())
	}
	r := &rolling{Wired: w, t: t, ctx: ctx, hooks: hooks}
	t.Cleanup(func() {
		for _, m := range []string{"m1", "m2"} {
			r.release(m)
		}
		if err := w.Stop(); err != nil {
			t.Error(err)
		}
		if t.Failed() {
			t.Logf("the members said:\n%s", log.String())
		}
	})
	r.conns = dialAll(t, w.Members)
	return r
}

func (r *rolling) must(err error) {
	if err != nil {
		r.t.Helper()
		r.t.Fatal(err)
	}
}

func (r *rolling) hold(member string)      { r.t.Helper(); r.must(r.hooks.Hold(member)) }
func (r *rolling) release(member string)   { r.t.Helper(); r.must(r.hooks.Release(member)) }
func (r *rolling) begun(member string) int { return r.hooks.Begun(member) }

func (r *rolling) await(what string, holds func() bool) {
	r.t.Helper()
	if err := waitUntil(r.ctx, what, holds); err != nil {
		r.t.Fatal(err)
	}
}

// ask asks member after member; a refusal ends the test.
func ask[R any](r *rolling, call func(ctx context.Context, conn *grpc.ClientConn) (R, error)) R {
	r.t.Helper()
	answer, err := Ask(r.ctx, r.conns, call)
	r.must(err)
	return answer
}

// publish publishes a set, and forces a roll-out of it.
func (r *rolling) publish(set *quoratev1.RedundantSet, expected uint64) uint64 {
	r.t.Helper()
	r.count++
	request := &quoratev1.PublishTopologyRequest{
		RequestId: fmt.Sprintf("publish-%d", r.count), ExpectedGeneration: &expected, Force: true,
		Topology: &quoratev1.Topology{Sets: []*quoratev1.RedundantSet{set}},
	}
	return ask(r, func(ctx context.Context, c *grpc.ClientConn) (*quoratev1.PublishTopologyResponse, error) {
		return quoratev1.NewTopologyServiceClient(c).PublishTopology(ctx, request)
	}).GetGeneration().GetNumber()
}

func (r *rolling) rollout() *quoratev1.Rollout {
	list := ask(r, func(ctx context.Context, c *grpc.ClientConn) (*quoratev1.GetApplyStatusResponse, error) {
		return quoratev1.NewApplyServiceClient(c).GetApplyStatus(ctx, &quoratev1.GetApplyStatusRequest{})
	}).GetRollouts()
	if len(list) != 1 {
		return nil
	}
	return list[0]
}

// settled waits until a generation is applied by all servers, and then wants the same of every member: one generation, and no lease open.
func (r *rolling) settled(generation uint64) {
	r.t.Helper()
	r.await(fmt.Sprintf("generation %d is rolled out", generation), func() bool {
		o := r.rollout()
		if o.GetState() == quoratev1.RolloutState_ROLLOUT_STATE_STOPPED {
			r.t.Fatalf("the roll-out was stopped: %v", o)
		}
		return o.GetState() == quoratev1.RolloutState_ROLLOUT_STATE_DONE && o.GetGeneration() >= generation
	})
	for i, conn := range r.conns {
		r.await(r.Members[i].ID+" shows that all is settled", func() bool {
			ctx, cancel := context.WithTimeout(r.ctx, 2*time.Second)
			defer cancel()
			leases, err := quoratev1.NewLeaseServiceClient(conn).ListLeases(ctx, &quoratev1.ListLeasesRequest{})
			if err != nil || len(leases.GetLeases()) != 0 {
				return false
			}
			members, err := quoratev1.NewMemberServiceClient(conn).ListMembers(ctx, &quoratev1.ListMembersRequest{})
			if err != nil {
				return false
			}
			for _, m := range members.GetMembers() {
				if m.GetSet() != "" && (m.GetAdoptedGeneration() != generation || m.GetAppliedGeneration() != generation) {
					return false
				}
			}
			return true
		})
	}
}

// TestInterruptedRollouts breaks in on a roll-out at each of its steps, in every way: it is carried through all the same, each server in its turn.
func TestInterruptedRollouts(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), testLimit)
	defer cancel()
	r := startRolling(ctx, t, true)
	set := r.Set("line-a", "WARM", nil)
	generation := r.publish(set, 0)
	r.settled(generation)
	restart := func(id string) {
		r.must(r.Kill(ctx, id))
		r.must(r.Restart(id))
		r.must(r.Ready(ctx, id))
	}
	another := func(id string) {
		r.await("there is another leader than "+id, func() bool {
			for _, m := range r.Members {
				if leader, err := leaderBy(ctx, m); m.ID != id && err == nil && leader != "" && leader != id {
					return true
				}
			}
			return false
		})
	}
	leader := func() string {
		m, err := r.Leader(ctx)
		r.must(err)
		return m.ID
	}
	ways := []struct {
		name string
		do   func(server string)
	}{
		{"kill of the server", restart},
		{"kill of the leader", func(string) { restart(leader()) }},
		{"pause of the leader", func(string) {
			id := leader()
			r.must(r.Signal(id, syscall.SIGSTOP))
			another(id)
			r.must(r.Signal(id, syscall.SIGCONT))
		}},
		{"cut-off of the server", func(server string) {
			before := leader()
			r.Isolate(server)
			if before == server {
				another(server)
			}
			// What the server ends meanwhile can't get into the log.
			r.release(server)
			m, err := r.Member(server)
			r.must(err)
			r.await(server+" has lost the group", func() bool {
				id, err := leaderBy(ctx, m)
				return err != nil || id == "" // It answers no more than what is confirmed by a majority.
			})
			r.Mend()
		}},
	}
	for _, way := range ways {
		for _, step := range []string{"before", "m2", "m1"} { // The Backup comes first.
			r.hold("m1")
			r.hold("m2")
			m1, m2 := r.begun("m1"), r.begun("m2")
			if step == "before" {
				way.do("m2")
			}
			generation = r.publish(set, generation)
			for _, server := range []string{"m2", "m1"} {
				before := map[string]int{"m1": m1, "m2": m2}[server]
				r.await(server+" applies", func() bool { return r.begun(server) > before })
				if server == "m2" && r.begun("m1") > m1 {
					t.Errorf("%s at %s: m1 applied out of its turn", way.name, step)
				}
				if step == server {
					way.do(server)
				}
				r.release(server)
			}
			r.settled(generation)
			t.Logf("%s, %s: generation %d, %d and %d attempts, leader %s", way.name, step, generation, r.begun("m2")-m2, r.begun("m1")-m1, leader())
		}
	}
}

// TestFailedRollout has an apply fail: the roll-out stops, and goes on when it is resumed.
func TestFailedRollout(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), testLimit)
	defer cancel()
	r := startRolling(ctx, t, true)
	set := r.Set("line-a", "WARM", nil)
	generation := r.publish(set, 0)
	r.settled(generation)
	r.must(r.hooks.Fail("m2"))
	began := r.begun("m1")
	generation = r.publish(set, generation)
	r.await("the roll-out is stopped", func() bool { return r.rollout().GetState() == quoratev1.RolloutState_ROLLOUT_STATE_STOPPED })
	states := func() (all []string) {
		for _, s := range r.rollout().GetServers() {
			all = append(all, s.GetServer()+" "+s.GetState().String())
		}
		return all
	}
	if got, want := states(), []string{"m2 APPLY_STATE_FAILED", "m1 APPLY_STATE_PENDING"}; !slices.Equal(got, want) {
		t.Errorf("the servers are %v, want %v", got, want)
	}
	if r.begun("m1") != began {
		t.Error("m1 applied after m2 had failed to")
	}
	r.must(r.hooks.Heal("m2"))
	ask(r, func(ctx context.Context, c *grpc.ClientConn) (*quoratev1.ResumeApplyResponse, error) {
		return quoratev1.NewApplyServiceClient(c).ResumeApply(ctx, &quoratev1.ResumeApplyRequest{RequestId: "resume", Set: "line-a"})
	})
	r.settled(generation)
}

// TestPublishesInARow publishes without waiting for anything: now the roles are swapped, now the roll-out is forced.
func TestPublishesInARow(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), testLimit+time.Duration(*publishes)*100*time.Millisecond)
	defer cancel()
	r := startRolling(ctx, t, false)
	var generation uint64
	set := r.Set("line-a", "WARM", nil)
	began := time.Now()
	for i := range *publishes {
		if i%2 == 1 {
			set.Servers[0].Role, set.Servers[1].Role = set.Servers[1].Role, set.Servers[0].Role
		}
		generation = r.publish(set, generation)
	}
	t.Logf("%d publishes in %v", *publishes, time.Since(began))
	if generation != uint64(*publishes) {
		t.Errorf("the last generation is %d, want %d", generation, *publishes)
	}
	r.settled(generation)
	t.Logf("settled after %v", time.Since(began))
}
