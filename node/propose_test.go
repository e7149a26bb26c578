package node

import (
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"quorate/fsm"
	logv1 "quorate/proto/quorate/log/v1"
)

// TestRepeatIsAnsweredBeforeTheGate has a member join that has not told its version yet: the group takes no command that this member might not know, and still
// says of one that took effect that it did.
func TestRepeatIsAnsweredBeforeTheGate(t *testing.T) {
	b := newBook(t, nil)
	create := func(request, partition string) *logv1.Command {
		return &logv1.Command{RequestId: request, Actor: publishCommand("p", 0).GetActor(), Body: &logv1.Command_CreatePartitions{CreatePartitions: &logv1.CreatePartitions{
			Placement: "a", Ids: []string{partition},
		}}}
	}
	b.apply(create("done", "p1"))
	first := b.m.latest.Load().state
	if o := unaccepted(first, create("new", "p2")); o != nil {
		t.Fatalf("the group takes no command: %v", o)
	}
	joined := &logv1.SyncMembers{}
	for _, id := range []string{"m1", "m2", "m3", "m4"} {
		joined.Members = append(joined.Members, &logv1.SyncMembers_Member{Id: id, RaftAddress: id + ":7301", Voter: id != "m4"})
	}
	b.apply(&logv1.Command{Body: &logv1.Command_SyncMembers{SyncMembers: joined}})
	state := b.m.latest.Load().state
	if o := unaccepted(state, create("done", "p1")); fsm.RefusalOf(o) != nil || o.GetRevision() != first.Revision() {
		t.Errorf("the repeat of what took effect is answered by %v", o)
	}
	for name, c := range map[string]*logv1.Command{"another": create("new", "p2"), "another under the same id": create("done", "p2")} {
		if o := unaccepted(state, c); fsm.RefusalOf(o).GetReason() != fsm.ReasonNotYetSupported {
			t.Errorf("%s is answered by %v", name, o)
		}
	}
	someone := proto.CloneOf(create("done", "p1"))
	someone.Actor.Name = "someone else"
	if o := unaccepted(state, someone); fsm.RefusalOf(o).GetReason() != fsm.ReasonNotYetSupported {
		t.Errorf("somebody else's id is answered by %v", o)
	}
}

// TestCommandsWaitForAnnouncements has a group so new that nobody has said what he can apply, and then a member that joins and never does.
func TestCommandsWaitForAnnouncements(t *testing.T) {
	n := startGroup(t, 1, nil).leader()
	create := func(request, partition string) (*logv1.Outcome, time.Duration) {
		began := time.Now()
		o, err := n.Propose(t.Context(), &logv1.Command{RequestId: request, Actor: publishCommand("p", 0).GetActor(), Body: &logv1.Command_CreatePartitions{
			CreatePartitions: &logv1.CreatePartitions{Placement: "a", Ids: []string{partition}},
		}})
		if err != nil {
			t.Fatal(err)
		}
		return o, time.Since(began)
	}
	if o, _ := create("c1", "p1"); fsm.RefusalOf(o) != nil {
		t.Errorf("in a new group: %v", o)
	}
	if err := n.AddLearner(t.Context(), "m2", "127.0.0.1:1"); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the learner in the state", func() bool {
		_, ok := n.Local().State.Member("m2")
		return ok
	})
	if o, took := create("c2", "p2"); fsm.RefusalOf(o).GetReason() != fsm.ReasonNotYetSupported || took < announceWait {
		t.Errorf("with a member that never says what it can apply: %v after %v", o, took)
	}
	if o, took := create("c1", "p1"); fsm.RefusalOf(o) != nil || took >= announceWait {
		t.Errorf("the repeat of what took effect: %v after %v", o, took)
	}
}
