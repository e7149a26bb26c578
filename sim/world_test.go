package sim

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"quorate/fsm"
	"quorate/node"
	logv1 "quorate/proto/quorate/log/v1"
	quoratev1 "quorate/proto/quorate/v1"
)

// start starts a world and closes it at the end.
func start(t *testing.T, size int, timing node.Timing, limits node.Limits) *World {
	t.Helper()
	w := NewWorld(size, timing, limits)
	w.Logger = logger()
	for _, id := range w.IDs() {
		if err := w.Start(id, NewClock(0, 1, 0)); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() {
		if err := w.Close(); err != nil {
			t.Error(err)
		}
	})
	if !w.Ready(10 * time.Second) {
		t.Fatal("not ready")
	}
	return w
}

func tick() *logv1.Command { return &logv1.Command{Body: &logv1.Command_Tick{Tick: &logv1.Tick{}}} }

func propose(t *testing.T, n *node.Node, c *logv1.Command) *logv1.Outcome {
	t.Helper()
	o, err := n.Propose(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	return o
}

func withID(request string, c *logv1.Command) *logv1.Command {
	c.RequestId = request
	return c
}

// TestReadsOfADeposedLeader lets a leader go on believing in itself while the others elect another one: answers that were under way for a second
// keep renewing its lease. This is how raft's VerifyLeader is fooled. The mutant asks nobody, and must be caught.
func TestReadsOfADeposedLeader(t *testing.T) {
	for name, mutant := range map[string]bool{"confirmed": false, "mutant": true} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				timing := node.LAN
				timing.RPC = 10 * time.Second
				w := start(t, 3, timing, node.Limits{})
				h := NewHistory(0)
				old := w.Leader(time.Second)
				// The answers' way grows slowly, so that the lease never runs out on the way there.
				for delay := 20 * time.Millisecond; delay < time.Second; delay += 20 * time.Millisecond {
					for _, id := range w.IDs() {
						w.Network.Slow(id, old, delay, 0)
					}
					time.Sleep(100 * time.Millisecond)
				}
				if now := w.Leader(time.Second); now != old {
					t.Fatalf("%s leads instead of %s", now, old)
				}
				for _, id := range w.IDs() {
					w.Network.Cut(old, id)
				}
				var successor string
				if !Until(900*time.Millisecond, func() bool {
					for _, id := range w.IDs() {
						if id != old && w.Node(id).IsLeader() {
							successor = id
						}
					}
					return successor != ""
				}) {
					t.Fatal("no other leader")
				}
				asked := time.Now()
				h.Wrote("", asked, propose(t, w.Node(successor), tick()))
				if !w.Node(old).IsLeader() {
					t.Fatal("the old leader knows already: the scenario proves nothing")
				}
				w.Network.TrustOwnTerm.Store(mutant)
				ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
				defer cancel()
				floor := h.Floor()
				v, err := w.Node(old).Read(ctx, nil)
				switch {
				case mutant && err != nil:
					t.Fatal(err)
				case mutant:
					h.Read(old, floor, v.State.Revision())
					if p := h.Problems(); len(p) == 0 || !strings.Contains(p[0], "stale read") {
						t.Errorf("the mutant wasn't caught: %v", p)
					}
				case err == nil:
					t.Errorf("a leader that can ask nobody answered with revision %d, floor %d", v.State.Revision(), floor)
				}
				w.Network.TrustOwnTerm.Store(false)
			})
		})
	}
}

// TestFastClockIsCaught proves that the history would notice cluster time running fast.
func TestFastClockIsCaught(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h, err := Run(Scenario{Seed: 1, Members: 3, For: 20 * time.Second, Clients: 2, Think: 100 * time.Millisecond, Timing: node.LAN, Gain: 0.1})
		if err != nil {
			t.Fatal(err)
		}
		if p := strings.Join(h.Problems(), "\n"); !strings.Contains(p, "ran fast") {
			t.Errorf("not caught: %v", p)
		}
	})
}

// TestNoElectionUnderDelay adds 100 ms to each direction of each link, with jitter, and expects the leader to stay.
func TestNoElectionUnderDelay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := start(t, 3, node.LAN, node.Limits{})
		leader := w.Leader(time.Second)
		term := w.Node(leader).Local().State.Term()
		for _, from := range w.IDs() {
			for _, to := range w.IDs() {
				w.Network.Slow(from, to, 100*time.Millisecond, 20*time.Millisecond)
			}
		}
		// The change itself may cost the lease, once: whoever leads after it is to stay.
		time.Sleep(5 * time.Second)
		leader = w.Leader(10 * time.Second)
		if leader == "" {
			t.Fatal("no leader")
		}
		before := term
		propose(t, w.Node(leader), tick())
		term = w.Node(leader).Local().State.Term()
		t.Logf("term %d before the delay, %d after", before, term)
		for range 60 {
			propose(t, w.Node("m1"), tick())
			time.Sleep(time.Second)
		}
		if now := w.Node(leader).Local().State.Term(); now != term || !w.Node(leader).IsLeader() {
			t.Errorf("term %d, was %d", now, term)
		}
	})
}

// TestSilentLeader cuts the leader off, as a machine without power would be: nothing is closed and nothing refused, and silence has to do.
func TestSilentLeader(t *testing.T) {
	for name, profile := range map[string]struct {
		timing node.Timing
		limit  time.Duration
	}{"lan": {node.LAN, 2500 * time.Millisecond}, "wan": {node.WAN, 8 * time.Second}} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := start(t, 3, profile.timing, node.Limits{})
				leader := w.Leader(time.Second)
				other := w.IDs()[0]
				if other == leader {
					other = w.IDs()[1]
				}
				for _, id := range w.IDs() {
					w.Network.Cut(id, leader)
					w.Network.Cut(leader, id)
				}
				lost := time.Now()
				for {
					// What was forwarded to the silent leader waits for its own deadline.
					ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
					_, err := w.Node(other).Propose(ctx, tick())
					cancel()
					if err == nil {
						break
					}
				}
				if took := time.Since(lost); took > profile.limit {
					t.Errorf("first write after %v", took)
				} else {
					t.Logf("first write after %v", took)
				}
				// The old leader knows that it is alone.
				if age := w.Node(leader).QuorumContact(); age < time.Since(lost)-profile.timing.Heartbeat {
					t.Errorf("contact is %v old, after %v", age, time.Since(lost))
				}
			})
		})
	}
}

// TestReturnAfterLongAbsence expects a member that was away for an hour to have the log again within a second: raft by itself would let it wait
// for up to ten.
func TestReturnAfterLongAbsence(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := start(t, 3, node.LAN, node.Limits{})
		leader := w.Leader(time.Second)
		away := w.IDs()[0]
		if away == leader {
			away = w.IDs()[1]
		}
		w.Kill(away)
		for range 10 {
			propose(t, w.Node(leader), tick())
			time.Sleep(30 * time.Second)
		}
		o := propose(t, w.Node(leader), tick())
		if err := w.Start(away, NewClock(0, 1, 0)); err != nil {
			t.Fatal(err)
		}
		back := time.Now()
		if !Until(time.Second, func() bool { return w.Node(away).Local().State.Revision() >= o.GetRevision() }) {
			t.Errorf("at revision %d of %d after %v", w.Node(away).Local().State.Revision(), o.GetRevision(), time.Since(back))
		}
	})
}

// TestSnapshotInstallCompactsWatches lets a member fall behind further than the log reaches back.
func TestSnapshotInstallCompactsWatches(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := start(t, 3, node.LAN, node.Limits{SnapshotEntries: 20})
		leader := w.Leader(time.Second)
		away := w.IDs()[0]
		if away == leader {
			away = w.IDs()[1]
		}
		watch, err := w.Node(away).Watch(1)
		if err != nil {
			t.Fatal(err)
		}
		for _, id := range w.IDs() {
			w.Network.Cut(id, away)
			w.Network.Cut(away, id)
		}
		for range 100 {
			propose(t, w.Node(leader), tick())
			time.Sleep(2 * time.Second)
		}
		w.Network.Heal()
		var compacted *node.CompactedError
		for err == nil {
			_, _, err = watch.Next(t.Context())
		}
		if !errors.As(err, &compacted) {
			t.Fatalf("%v", err)
		}
		if got := w.Node(away).Local().State.Revision(); compacted.Revision == 0 || compacted.Revision > got {
			t.Errorf("to list from %d, at %d", compacted.Revision, got)
		}
		if _, err := w.Node(away).Watch(1); !errors.As(err, &compacted) {
			t.Errorf("a watch from before the snapshot: %v", err)
		}
	})
}

// TestLeaseIsAbandonedOnTime leaves a lease to the watchdog, through changes of leader, and compares with the outside clock.
func TestLeaseIsAbandonedOnTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := start(t, 3, node.LAN, node.Limits{})
		h := NewHistory(0)
		n := w.Node(w.Leader(time.Second))
		propose(t, n, withID("p1", publish(0, (&run{}).random(0))))
		watch, err := n.Watch(0)
		if err != nil {
			t.Fatal(err)
		}
		h.AskedLease("p1", "m1")
		asked := time.Now()
		propose(t, n, &logv1.Command{RequestId: "l1", Body: &logv1.Command_BeginLease{BeginLease: &logv1.BeginLease{Server: "m1", PublishRequestId: "p1"}}})
		// Each change of leader may cost up to a tick and the election; never does it gain.
		for range 4 {
			time.Sleep(time.Minute)
			if _, err := w.Node(w.Leader(time.Second)).TransferLeadership(t.Context(), ""); err != nil {
				t.Fatal(err)
			}
		}
		for {
			events, _, err := watch.Next(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			for _, e := range events {
				h.Event(e)
				if e.GetLeaseAbandoned() == nil {
					continue
				}
				if took := time.Since(asked); took > 10*time.Minute+15*time.Second {
					t.Errorf("abandoned only after %v", took)
				}
				for _, p := range h.Problems() {
					t.Error(p)
				}
				return
			}
		}
	})
}

// TestMembersJoinAndLeave adds a learner, promotes it, removes the leader and reads the list, always by way of a member that doesn't lead.
func TestMembersJoinAndLeave(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := start(t, 3, node.LAN, node.Limits{})
		// The topology that is published below needs m1 and m2.
		leader := "m3"
		if _, err := w.Node("m1").TransferLeadership(t.Context(), leader); err != nil {
			t.Fatal(err)
		}
		n := w.Node("m2")
		if err := w.Start("m4", NewClock(0, 1, 0)); err != nil {
			t.Fatal(err)
		}
		if err := n.AddLearner(t.Context(), "m4", addressOf("m4")); err != nil {
			t.Fatal(err)
		}
		o := propose(t, n, tick())
		if _, err := w.Node("m4").Read(t.Context(), &quoratev1.ReadOptions{MinRevision: o.GetRevision()}); err != nil {
			t.Fatalf("a learner's linearizable read: %v", err)
		}
		propose(t, w.Node("m4"), tick())
		if err := n.Promote(t.Context(), "m4"); err != nil {
			t.Fatal(err)
		}
		if err := n.Remove(t.Context(), leader); err != nil {
			t.Fatal(err)
		}
		if now := w.Leader(5 * time.Second); now == leader || now == "" {
			t.Errorf("%q leads", now)
		}
		members, err := n.Members(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		var ids []string
		for _, m := range members {
			ids = append(ids, m.Id)
			if !m.Reachable || m.Suffrage != quoratev1.Suffrage_SUFFRAGE_VOTER {
				t.Errorf("%v", m)
			}
		}
		if len(ids) != 3 {
			t.Errorf("members %v", ids)
		}
		if !Until(time.Second, func() bool { _, ok := n.Local().State.Member(leader); return !ok }) {
			t.Error("the removed member is still recorded")
		}
		if !Until(time.Second, func() bool { return w.Node(leader).Ready() != nil }) {
			t.Error("the removed member calls itself ready")
		}
		propose(t, n, withID("p1", publish(0, (&run{}).random(0))))
		for id, reason := range map[string]string{"nobody": fsm.ReasonUnknownMember, n.ID(): fsm.ReasonMemberInTopology} {
			var refused *fsm.Refusal
			if err := n.Remove(t.Context(), id); !errors.As(err, &refused) || refused.GetReason() != reason {
				t.Errorf("remove %s: %v", id, err)
			}
		}
	})
}

// TestHours runs six hours with rare faults, so that leases are left to the watchdog and nothing happens for long.
func TestHours(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h, err := Run(Scenario{
			Seed: *first, Members: 3, For: 6 * time.Hour, Clients: 2, Think: 2 * time.Minute, Calm: 20 * time.Minute, Timing: relaxed,
		})
		expectClean(t, h, err)
	})
}

// cutOff leaves a member to itself.
func cutOff(w *World, id string) {
	for _, other := range w.IDs() {
		w.Network.Cut(id, other)
		w.Network.Cut(other, id)
	}
}

// TestContactIsWhatWasHeard cuts members off, and wants their age of contact to be that of the last word that they heard: what raft says of a member that loses its
// leadership is the moment at which it lost it.
func TestContactIsWhatWasHeard(t *testing.T) {
	for _, role := range []string{"leader", "follower"} {
		t.Run(role, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := start(t, 3, node.LAN, node.Limits{})
				id := w.Leader(time.Second)
				if role == "follower" {
					id = w.IDs()[(slices.Index(w.IDs(), id)+1)%3]
				}
				time.Sleep(5 * time.Second)
				if age := w.Node(id).QuorumContact(); age > time.Second {
					t.Errorf("%v ago, though all is well", age)
				}
				cutOff(w, id)
				for cut := time.Now(); time.Since(cut) < 10*time.Second; time.Sleep(time.Millisecond) {
					// A leader says 0 until its confirmation could be overdue; that is how it bounds what it says.
					least, most := time.Since(cut), time.Since(cut)+time.Second
					if least < 2*time.Second {
						least = 0
					}
					if age := w.Node(id).QuorumContact(); age < least || age > most {
						t.Fatalf("%v after the cut the last contact was %v ago", time.Since(cut), age)
					}
				}
			})
		})
	}
}

// TestLeaderOfAMomentKeepsItsContact has a member become the leader, and lose its place before it could commit anything: nobody has confirmed it, but it has not forgotten
// what it heard as a follower.
func TestLeaderOfAMomentKeepsItsContact(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := start(t, 3, node.LAN, node.Limits{})
		id := w.IDs()[(slices.Index(w.IDs(), w.Leader(time.Second))+1)%3]
		time.Sleep(5 * time.Second)
		for _, from := range w.IDs() {
			for _, to := range w.IDs() {
				w.Network.Slow(from, to, 20*time.Millisecond, 0) // Its votes come, and what it has to commit is on its way.
			}
		}
		time.Sleep(time.Second)
		asking, cancel := context.WithCancel(t.Context())
		asked := make(chan struct{})
		go func() {
			defer close(asked)
			_, _ = w.Node(w.Leader(time.Second)).TransferLeadership(asking, id)
		}()
		if !Until(2*time.Second, func() bool { return w.Node(id).Leader() == id }) {
			t.Fatal("it was not elected")
		}
		if w.Node(id).IsLeader() {
			t.Fatal("its term is open already: the scenario proves nothing")
		}
		cutOff(w, id)
		cancel() // Once is enough: raft keeps a goroutine for each hand-over to a member that it can't reach.
		<-asked
		for cut := time.Now(); time.Since(cut) < 5*time.Second; time.Sleep(time.Millisecond) {
			if age := w.Node(id).QuorumContact(); age > time.Since(cut)+time.Second {
				t.Fatalf("%v after the cut the last contact was %v ago", time.Since(cut), age)
			}
			if w.Node(id).IsLeader() {
				t.Fatal("its term was opened: the scenario proves nothing")
			}
		}
		w.Network.Heal()
		if w.Leader(5*time.Second) == "" {
			t.Error("no leader")
		}
	})
}
