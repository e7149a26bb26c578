package node

import (
	"errors"
	"testing"
	"time"

	"quorate/fsm"
	logv1 "quorate/proto/quorate/log/v1"
	peerv1 "quorate/proto/quorate/peer/v1"
)

// TestDivergedMemberIsTakenOutOfService gives one member another digest, as a bad disk or a bug would, and waits for the comparison.
func TestDivergedMemberIsTakenOutOfService(t *testing.T) {
	for _, victim := range []string{"follower", "leader"} {
		t.Run(victim, func(t *testing.T) {
			g := startGroup(t, 3, func(c *Config) { c.Limits.DigestInterval = 50 * time.Millisecond })
			g.ready()
			sick := g.leader()
			if victim == "follower" {
				sick = g.follower()
			}
			watch, err := sick.Watch(0)
			if err != nil {
				t.Fatal(err)
			}
			defer watch.Close()
			watched := make(chan error)
			go func() {
				for {
					if _, _, err := watch.Next(t.Context()); err != nil {
						watched <- err
						return
					}
				}
			}()
			sick.machine.marks.mu.Lock()
			sick.machine.marks.sum = func(*fsm.State) [32]byte { return [32]byte{1} }
			sick.machine.marks.mu.Unlock()
			for i := 0; !sick.Diverged(); i++ {
				if _, err := g.follower().Propose(t.Context(), &logv1.Command{Body: &logv1.Command_Tick{Tick: &logv1.Tick{}}}); err != nil && kindOf(err) != Diverged {
					t.Fatal(err)
				}
				if i > 20000 {
					t.Fatal("not noticed")
				}
			}
			expectKind(t, sick.Ready(), Diverged)
			_, err = sick.Read(t.Context(), nil)
			expectKind(t, err, Diverged)
			_, err = sick.Propose(t.Context(), publishCommand("r9", 0))
			expectKind(t, err, Diverged)
			expectKind(t, <-watched, Diverged)
			for _, n := range g.nodes {
				if n != sick && n.Diverged() {
					t.Errorf("%s is called diverged too", n.ID())
				}
			}
			eventually(t, "a healthy leader", func() bool { l := sick.Leader(); return l != "" && l != sick.ID() })
		})
	}
}

func TestReportOfAnotherDigestIsRefused(t *testing.T) {
	n := &Node{machine: newMachine(Limits{}.withDefaults(), nil)}
	m := n.machine
	m.marks.take(fsm.New())
	m.marks.compute()
	digest, revision := m.marks.latest()
	for name, r := range map[string]*peerv1.ReportDivergenceRequest{
		"another revision":  {Revision: revision + 1, Digest: digest, Expected: "x"},
		"not ours":          {Revision: revision, Digest: "x", Expected: digest},
		"no difference":     {Revision: revision, Digest: digest, Expected: digest},
		"nothing said ever": {},
	} {
		if n.diverge(r) || n.Diverged() {
			t.Errorf("%s: believed", name)
		}
	}
}

// TestOutcomeIsUnknownWhenTheLeaderIsLost: the entry may be in a follower's log or not; nobody can say.
func TestOutcomeIsUnknownWhenTheLeaderIsLost(t *testing.T) {
	g := startGroup(t, 3, nil)
	g.ready()
	leader := g.leader()
	for _, n := range g.nodes {
		if n != leader {
			if err := n.Shutdown(cancelled()); err != nil {
				t.Fatal(err)
			}
		}
	}
	_, err := leader.Propose(t.Context(), publishCommand("r1", 0))
	var e *Error
	if !errors.As(err, &e) || e.Kind != UnknownOutcome {
		t.Fatalf("%v", err)
	}
	for _, m := range g.members {
		if m.ID != leader.ID() {
			g.restart(m.ID)
		}
	}
	// The same request id says what became of it, once.
	o, err := g.follower().Propose(t.Context(), publishCommand("r1", 0))
	if err != nil || o.GetGenerationPublished().GetNumber() != 1 {
		t.Errorf("%v, %v", o, err)
	}
}
