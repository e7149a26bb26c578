package node

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/raft"

	logv1 "quorate/proto/quorate/log/v1"
)

func maintenanceCommand(request string, active bool) *logv1.Command {
	return &logv1.Command{RequestId: request, Actor: testActor, Body: &logv1.Command_SetMaintenance{SetMaintenance: &logv1.SetMaintenance{
		Server: "m1", Active: active, Reason: "test",
	}}}
}

func cancelled() context.Context {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	return ctx
}

// TestFirstWriteAfterTheLeaderIsGone measures what redundancy.md and platform.md §1 bound: 600 ms at the median. The lost leader's sockets close, as
// those of a killed process do, and it says nothing to anyone.
func TestFirstWriteAfterTheLeaderIsGone(t *testing.T) {
	g := startGroup(t, 3, nil)
	g.ready()
	if _, err := g.leader().Propose(t.Context(), publishCommand("r1", 0)); err != nil {
		t.Fatal(err)
	}
	var gaps []time.Duration
	for round := range 5 {
		old := g.leader()
		writer := g.follower()
		// Nothing may be under way between the other two that would hide the election.
		if _, err := writer.Propose(t.Context(), maintenanceCommand(fmt.Sprintf("before-%d", round), true)); err != nil {
			t.Fatal(err)
		}
		lost := time.Now()
		if err := old.Shutdown(cancelled()); err != nil {
			t.Fatal(err)
		}
		for attempt := 0; ; attempt++ {
			_, err := writer.Propose(t.Context(), maintenanceCommand(fmt.Sprintf("after-%d", round), false))
			if err == nil {
				break
			}
			if attempt > 100 {
				t.Fatal(err)
			}
		}
		gaps = append(gaps, time.Since(lost))
		g.restart(old.ID())
		g.ready()
	}
	slices.Sort(gaps)
	t.Logf("gaps: %v", gaps)
	if median := gaps[len(gaps)/2]; median > 600*time.Millisecond {
		t.Errorf("median %v, at most 600ms", median)
	}
}

// TestPlannedChangesLoseNothing hands over and restarts leaders under load: no caller sees more than a pause.
func TestPlannedChangesLoseNothing(t *testing.T) {
	g := startGroup(t, 3, nil)
	g.ready()
	if _, err := g.leader().Propose(t.Context(), publishCommand("r1", 0)); err != nil {
		t.Fatal(err)
	}
	// The member that takes the calls stays; the leadership goes round among all.
	front := g.nodes["m1"]
	stop := make(chan struct{})
	var callers sync.WaitGroup
	var writes atomic.Int64
	for c := range 8 {
		callers.Go(func() {
			for i := 0; ; i++ {
				select {
				case <-stop:
					return
				default:
				}
				if _, err := front.Propose(t.Context(), maintenanceCommand(fmt.Sprintf("c%d-%d", c, i), i%2 == 0)); err != nil {
					t.Error(err)
					return
				}
				writes.Add(1)
			}
		})
	}
	progress := func() {
		target := writes.Load() + 20
		eventually(t, "writes go on", func() bool { return writes.Load() >= target || t.Failed() })
	}
	for _, to := range []string{"m2", "m3", "m1", "m3", "m2"} {
		if _, err := front.TransferLeadership(t.Context(), to); err != nil {
			t.Error(err)
		}
		progress()
	}
	for _, id := range []string{"m2", "m3"} {
		if _, err := front.TransferLeadership(t.Context(), id); err != nil {
			t.Error(err)
		}
		if err := g.nodes[id].Shutdown(t.Context()); err != nil {
			t.Error(err)
		}
		progress()
		g.restart(id)
		g.ready()
		progress()
	}
	close(stop)
	callers.Wait()
	t.Logf("%d writes", writes.Load())
}

// TestPlannedHandOver measures the first write after a transfer was asked for: 20 ms at the median on an idle machine, here with room for a busy one.
func TestPlannedHandOver(t *testing.T) {
	g := startGroup(t, 3, nil)
	g.ready()
	var gaps []time.Duration
	for range 7 {
		old := g.leader()
		began := time.Now()
		leader, err := old.TransferLeadership(t.Context(), "")
		if err != nil {
			t.Fatal(err)
		}
		if leader == old.ID() {
			t.Fatalf("%s still leads", leader)
		}
		if _, err := g.nodes[leader].Propose(t.Context(), &logv1.Command{Body: &logv1.Command_Tick{Tick: &logv1.Tick{}}}); err != nil {
			t.Fatal(err)
		}
		gaps = append(gaps, time.Since(began))
	}
	slices.Sort(gaps)
	t.Logf("gaps: %v", gaps)
	if median := gaps[len(gaps)/2]; median > 200*time.Millisecond {
		t.Errorf("median %v", median)
	}
}

// TestChangeOfLeaderKeepsContact hands the leadership round and round, with real connections. Who is in contact with the group stays so, the new leaders too: bounded
// reads go by their age of contact. What it is exactly, and where a leader is none any more before it was one, is for sim (TestContactIsWhatWasHeard).
func TestChangeOfLeaderKeepsContact(t *testing.T) {
	g := startGroup(t, 3, nil)
	g.ready()
	eventually(t, "all are in contact", func() bool {
		for _, n := range g.nodes {
			if n.QuorumContact() > time.Second {
				return false
			}
		}
		return true
	})
	const most = 3 * time.Second
	stop := make(chan struct{})
	var watching sync.WaitGroup
	for _, n := range g.nodes {
		watching.Go(func() {
			// Often enough to see a new leader before its term is open, which takes several writes; without a pause, it would keep the members
			// from the processors that they need to stay in contact.
			look := time.NewTicker(time.Millisecond)
			defer look.Stop()
			for {
				select {
				case <-stop:
					return
				case <-look.C:
				}
				if age := n.QuorumContact(); age > most {
					t.Errorf("%s: last contact %v ago", n.ID(), age)
					return
				}
			}
		})
	}
	for range 10 {
		if _, err := g.leader().TransferLeadership(t.Context(), ""); err != nil {
			t.Error(err)
		}
		g.ready()
	}
	close(stop)
	watching.Wait()
}

// deaf is a transport whose member can't ask another one to stand for election, so many times.
type deaf struct {
	Transport
	times *atomic.Int32
}

func (d deaf) TimeoutNow(id raft.ServerID, to raft.ServerAddress, args *raft.TimeoutNowRequest, resp *raft.TimeoutNowResponse) error {
	if d.times.Add(-1) >= 0 {
		return errors.New("it doesn't hear")
	}
	return d.Transport.TimeoutNow(id, to, args, resp)
}

func TestHandOverIsTriedAgain(t *testing.T) {
	var times atomic.Int32
	g := startGroup(t, 3, func(c *Config) { c.Transport = deaf{c.Transport, &times} })
	g.ready()
	old := g.leader()
	times.Store(handOverAttempts)
	var e *Error
	if _, err := old.TransferLeadership(t.Context(), ""); !errors.As(err, &e) || e.Kind != NotReady {
		t.Fatalf("after all attempts: %v", err)
	}
	if left := times.Load(); left != 0 || !old.IsLeader() {
		t.Fatalf("%d attempts left, leads: %v", left, old.IsLeader())
	}
	if _, err := old.Propose(t.Context(), publishCommand("r1", 0)); err != nil {
		t.Fatalf("a write after a hand-over that failed: %v", err)
	}
	times.Store(handOverAttempts - 1)
	leader, err := old.TransferLeadership(t.Context(), "")
	if err != nil || leader == old.ID() {
		t.Fatalf("the last attempt: %q, %v", leader, err)
	}
}

// TestHandOverToADeadMember asks for one again and again, by name and not. Raft would wait for the member's log to catch up, and take no write meanwhile.
func TestHandOverToADeadMember(t *testing.T) {
	g := startGroup(t, 3, nil)
	g.ready()
	leader := g.leader()
	var others []string
	for id := range g.nodes {
		if id != leader.ID() {
			others = append(others, id)
		}
	}
	dead, alive := others[0], others[1]
	over, cancel := context.WithCancel(t.Context())
	cancel()
	if err := g.nodes[dead].Shutdown(over); err != nil {
		t.Fatal(err)
	}
	delete(g.nodes, dead)
	if _, err := leader.Propose(t.Context(), publishCommand("r1", 0)); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		var e *Error
		if _, err := leader.TransferLeadership(t.Context(), dead); !errors.As(err, &e) || e.Kind != NotReady {
			t.Fatalf("to %s, which is dead: %v", dead, err)
		}
	}
	ctx, stop := context.WithTimeout(t.Context(), 5*time.Second)
	defer stop()
	if _, err := leader.Propose(ctx, publishCommand("r2", 1)); err != nil {
		t.Fatalf("a write after hand-overs that failed: %v", err)
	}
	if now, err := leader.TransferLeadership(t.Context(), ""); err != nil || now != alive {
		t.Errorf("to whomever: %q, %v; want %s", now, err, alive)
	}
}

// TestAStuckHandOverEnds: raft waits for the replication to a member that has died in the middle, once more than it can tell, and takes no write until that has looked
// at it. Whoever asks for a write meanwhile has it look.
func TestAStuckHandOverEnds(t *testing.T) {
	g := startGroup(t, 3, nil)
	g.ready()
	leader := g.leader()
	var dead *Node
	for id, n := range g.nodes {
		if id != leader.ID() {
			dead = n
		}
	}
	target, ok := leader.server(dead.ID())
	if !ok {
		t.Fatalf("%s is no member", dead.ID())
	}
	over, cancel := context.WithCancel(t.Context())
	cancel()
	if err := dead.Shutdown(over); err != nil {
		t.Fatal(err)
	}
	delete(g.nodes, dead.ID())
	if _, err := leader.Propose(t.Context(), publishCommand("r1", 0)); err != nil {
		t.Fatal(err)
	}
	// Raft ends an attempt a moment after it has told; one that doesn't take writes for longer is stuck.
	takesWrites := func() bool {
		tick := time.NewTicker(10 * time.Millisecond)
		defer tick.Stop()
		for range 50 {
			if leader.raft.Apply(nil, time.Second).Error() == nil {
				return true
			}
			<-tick.C
		}
		return false
	}
	// The member died after it was chosen.
	for attempt := 1; takesWrites(); attempt++ {
		if err := leader.raft.LeadershipTransferToServer(target.ID, target.Address).Error(); err == nil || attempt > 5 {
			t.Fatalf("no hand-over to a dead member was stuck, so this shows nothing: %v", err)
		}
	}
	ctx, stop := context.WithTimeout(t.Context(), 5*time.Second)
	defer stop()
	if _, err := leader.Propose(ctx, publishCommand("r2", 1)); err != nil {
		t.Errorf("a write while raft hands over to a dead member: %v", err)
	}
}

// TestALeaderInsists opens its term though raft still hands over, as it may for a while, and ends the process where that has no end.
func TestALeaderInsists(t *testing.T) {
	for name, c := range map[string]struct {
		refuses time.Duration
		fails   bool
	}{
		"at once":  {0, false},
		"soon":     {time.Second, false},
		"for ever": {time.Hour, true},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := &Node{cfg: Config{Timing: LAN, Clock: NewSystemClock()}, logger: testLogger(), fatal: make(chan error, 1)}
				began := time.Now()
				err := n.insist(t.Context(), func() error {
					if time.Since(began) < c.refuses {
						return raft.ErrLeadershipTransferInProgress
					}
					return nil
				})
				limit := LAN.Election + 2*LAN.RPC
				if failed := len(n.fatal) > 0; failed != c.fails || (err != nil) != c.fails || time.Since(began) > limit+2*retryPause {
					t.Errorf("%v after %v; the process ends: %v", err, time.Since(began), failed)
				}
			})
		})
	}
}

// silent is a transport whose AppendEntries fail.
type silent struct{ Transport }

func (silent) AppendEntries(raft.ServerID, raft.ServerAddress, *raft.AppendEntriesRequest, *raft.AppendEntriesResponse) error {
	return errors.New("it doesn't answer")
}

// TestPatienceEnds holds a failed request back until the member is heard, the leadership is over, or a hand-over waits for it.
func TestPatienceEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		since := func() time.Duration { return time.Since(began) }
		const long = time.Minute
		var over, handing, others atomic.Bool
		for name, end := range map[string]func(p *patient){
			"it is heard":         func(p *patient) { p.beat("m2") },
			"it no longer leads":  func(*patient) { over.Store(true) },
			"a hand-over waits":   func(*patient) { handing.Store(true) },
			"one of others waits": func(*patient) { others.Store(true) },
			"another one's beats": nil,
		} {
			over.Store(false)
			handing.Store(false)
			others.Store(false)
			p := &patient{
				Transport: silent{}, hearts: &hearts{elapsed: since},
				leads:   func(uint64, raft.ServerID) bool { return !over.Load() && since() < 2*long },
				handing: func(id raft.ServerID) bool { return handing.Load() && id == "m2" || others.Load() && id != "m2" },
			}
			began = time.Now()
			ended := make(chan time.Duration, 1)
			go func() {
				if err := p.AppendEntries("m2", "", &raft.AppendEntriesRequest{Term: 1, PrevLogEntry: 1}, nil); err == nil {
					t.Errorf("%s: no error", name)
				}
				ended <- since()
			}()
			time.Sleep(long)
			synctest.Wait()
			p.beat("m3")
			want := 2 * long
			if end != nil {
				end(p)
			}
			if end != nil && !others.Load() {
				want = long
			}
			if took := <-ended; took < want || took > want+2*patiencePoll {
				t.Errorf("%s: after %v, want %v", name, took, want)
			}
		}
	})
}
