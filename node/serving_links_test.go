package node

import (
	"errors"
	"testing"
	"time"

	"quorate/fsm"
	logv1 "quorate/proto/quorate/log/v1"
	peerv1 "quorate/proto/quorate/peer/v1"
)

// TestRenewServing asks over the real links, by a follower and by the leader, and with what must be refused.
func TestRenewServing(t *testing.T) {
	g := startGroup(t, 3, nil)
	g.ready()
	if _, err := g.leader().Propose(t.Context(), publishCommand("r1", 0)); err != nil {
		t.Fatal(err)
	}
	for _, id := range []string{"m1", "m2", "m3"} {
		r, err := g.nodes[id].RenewServing(t.Context(), wants(id, 1, false))
		if err != nil {
			t.Fatal(err)
		}
		if !r.GetConfirmed() || r.GetHealthy() != (id == "m1") {
			t.Errorf("%s: %v", id, r)
		}
	}
	var e *Error
	if _, err := g.nodes["m1"].RenewServing(t.Context(), wants("m2", 1, false)); !errors.As(err, &e) || e.Kind != Invalid {
		t.Errorf("asked for another member: %v", err)
	}
	many := wants("m2", 1, false)
	for range maxUnreachable + 1 {
		cannotReach(many, "m1", 0)
	}
	if _, err := g.nodes["m2"].RenewServing(t.Context(), many); !errors.As(err, &e) || e.Kind != Invalid {
		t.Errorf("%d votes: %v", len(many.GetUnreachable()), err)
	}
	// Each waits for the former Primary, and no longer than until its next question.
	if _, err := g.leader().Propose(t.Context(), publishCommandFor("r2", 1, "m2")); err != nil {
		t.Fatal(err)
	}
	asked := time.Now()
	first := make(chan *peerv1.RenewServingResponse, 1)
	go func() {
		r, _ := g.nodes["m2"].RenewServing(t.Context(), wants("m2", 2, false))
		first <- r
	}()
	leader := g.leader().session.Load().servings
	eventually(t, "the question waits", func() bool {
		leader.mu.Lock()
		defer leader.mu.Unlock()
		return leader.asking["m2"] != nil
	})
	r, err := g.nodes["m2"].RenewServing(t.Context(), wants("m2", 2, false))
	if err != nil || r.GetHealthy() {
		t.Errorf("%v, %v", r, err)
	}
	if took := time.Since(asked); took < servingWait {
		t.Errorf("answered after %v", took)
	}
	if r := <-first; r.GetHealthy() || !r.GetConfirmed() {
		t.Errorf("the replaced question: %v", r)
	}
	if _, err := g.nodes["m1"].Propose(t.Context(), &logv1.Command{Body: &logv1.Command_AdoptGeneration{AdoptGeneration: &logv1.AdoptGeneration{
		Member: "m1", Generation: 2,
	}}}); err != nil {
		t.Fatal(err)
	}
	if r, err = g.nodes["m2"].RenewServing(t.Context(), wants("m2", 2, false)); err != nil || !r.GetHealthy() {
		t.Errorf("after the adoption: %v, %v", r, err)
	}
}

func publishCommandFor(request string, expected uint64, primary string) *logv1.Command {
	c := publishCommand(request, expected)
	for _, s := range c.GetPublishTopology().GetTopology().GetSets()[0].GetServers() {
		s.Role = fsm.RoleBackup
		if s.GetMember() == primary {
			s.Role = fsm.RolePrimary
		}
	}
	return c
}

// TestNobodyAsksForAnother: a member can't renew or give up the lease of another one.
func TestNobodyAsksForAnother(t *testing.T) {
	g := startSecuredGroup(t)
	leader, follower := g.leader(), g.follower()
	to, _ := leader.server(leader.ID())
	peer, err := follower.peer(leader.ID(), string(to.Address))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := peer.RenewServing(t.Context(), wants(follower.ID(), 0, false)); err != nil {
		t.Error(err)
	}
	_, err = peer.RenewServing(t.Context(), wants(leader.ID(), 0, false))
	expectKind(t, fromPeer(t.Context(), "renew serving", err), Invalid)
}
