package node

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/hashicorp/raft"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	"quorate/fsm"
	logv1 "quorate/proto/quorate/log/v1"
	peerv1 "quorate/proto/quorate/peer/v1"
	quoratev1 "quorate/proto/quorate/v1"
)

// setClock is a clock that a test moves.
type setClock struct{ at time.Duration }

func (c *setClock) Elapsed() time.Duration { return c.at }
func (c *setClock) Wall() time.Time        { return time.Time{} }

// book is a leader's book on a state machine without raft.
type book struct {
	*servings
	t     *testing.T
	m     *machine
	clock *setClock
	index uint64
}

func newBook(t *testing.T, policies *quoratev1.RedundancyPolicies) *book {
	b := &book{t: t, m: newMachine(Limits{}.withDefaults(), func(err error) { t.Error(err) }), clock: &setClock{at: time.Hour}}
	sync := &logv1.SyncMembers{}
	for _, id := range []string{"m1", "m2", "m3"} {
		sync.Members = append(sync.Members, &logv1.SyncMembers_Member{Id: id, RaftAddress: id + ":7301", Voter: true})
	}
	b.apply(&logv1.Command{Body: &logv1.Command_OpenTerm{OpenTerm: &logv1.OpenTerm{Term: 1, Leader: "m3"}}})
	b.apply(&logv1.Command{Body: &logv1.Command_SyncMembers{SyncMembers: sync}})
	for _, id := range []string{"m1", "m2", "m3"} {
		b.apply(&logv1.Command{Body: &logv1.Command_AnnounceMember{AnnounceMember: &logv1.AnnounceMember{Id: id, CommandVersion: fsm.CommandVersion}}})
	}
	b.publish(0, "m1", policies)
	// A term that began long ago: what an earlier leader granted has run out.
	b.servings = newServings(b.clock.at - time.Minute)
	return b
}

func (b *book) apply(c *logv1.Command) {
	b.t.Helper()
	b.index++
	data, err := proto.Marshal(&logv1.Entry{Clock: b.index, Term: 1, Commands: []*logv1.Command{c}})
	if err != nil {
		b.t.Fatal(err)
	}
	result, ok := b.m.Apply(&raft.Log{Index: b.index, Term: 1, Data: data}).(*entryResult)
	if !ok {
		b.t.Fatal("not applied")
	}
	if r := fsm.RefusalOf(result.outcomes[0]); r != nil {
		b.t.Fatalf("%T: %v", c.GetBody(), r)
	}
}

func (b *book) publish(expected uint64, primary string, policies *quoratev1.RedundancyPolicies) {
	c := publishCommand(fmt.Sprintf("p%d", expected), expected)
	set := c.GetPublishTopology().GetTopology().GetSets()[0]
	if set.Policies = policies; policies.GetHotBackupsHealthy() {
		set.Mode = fsm.ModeHot
	}
	for _, s := range set.GetServers() {
		s.Role = fsm.RoleBackup
		if s.GetMember() == primary {
			s.Role = fsm.RolePrimary
		}
	}
	b.apply(c)
}

func (b *book) state() *fsm.State { return b.m.latest.Load().state }

// ask has a question answered, and does the moves that it causes.
func (b *book) ask(req *peerv1.RenewServingRequest, conn uint64) *peerv1.RenewServingResponse {
	b.t.Helper()
	b.hear(b.t.Context(), req, conn, b.clock.at)
	v := b.decide(b.m, b.clock, req, conn)
	for v.begin != nil {
		b.apply(v.begin.command)
		b.ended(v.begin, nil)
		v = b.decide(b.m, b.clock, req, conn)
	}
	return v.resp
}

func wants(member string, generation uint64, holds bool) *peerv1.RenewServingRequest {
	return &peerv1.RenewServingRequest{Member: member, Generation: generation, WantsHealthy: true, HoldsHealthy: holds, Fit: true}
}

func cannotReach(req *peerv1.RenewServingRequest, server string, age time.Duration) *peerv1.RenewServingRequest {
	req.Unreachable = append(req.Unreachable, &peerv1.UnreachableServer{Server: server, Age: durationpb.New(age)})
	return req
}

// TestRightMovesAfterRelease swaps the roles: the new Primary waits until the former one adopted the generation or its lease has run out.
func TestRightMovesAfterRelease(t *testing.T) {
	for _, adopted := range []bool{true, false} {
		b := newBook(t, nil)
		if r := b.ask(wants("m1", 1, false), 1); !r.GetConfirmed() || !r.GetHealthy() {
			t.Fatalf("the Primary: %v", r)
		}
		if r := b.ask(wants("m2", 1, false), 2); !r.GetConfirmed() || r.GetHealthy() {
			t.Errorf("a Backup: %v", r)
		}
		b.publish(1, "m2", nil)
		if r := b.ask(wants("m2", 2, false), 2); !r.GetConfirmed() || r.GetHealthy() {
			t.Errorf("granted beside another lease: %v", r)
		}
		if r := b.ask(wants("m1", 1, true), 1); r.GetConfirmed() || r.GetHealthy() || !r.GetStepDown() {
			t.Errorf("the former Primary: %v", r)
		}
		if adopted {
			b.apply(&logv1.Command{Body: &logv1.Command_AdoptGeneration{AdoptGeneration: &logv1.AdoptGeneration{Member: "m1", Generation: 2}}})
		} else {
			b.clock.at += ServingLeaseTTL + servingDrift - time.Millisecond
			if r := b.ask(wants("m2", 2, false), 2); r.GetHealthy() {
				t.Errorf("granted before the margin was over: %v", r)
			}
			b.clock.at += time.Millisecond
		}
		if r := b.ask(wants("m2", 2, false), 2); !r.GetHealthy() || r.GetGeneration() != 2 {
			t.Errorf("adopted %t: %v", adopted, r)
		}
	}
}

// TestNewLeaderWaits: it renews at once what the log says, and waits one TTL before it takes the right from anyone.
func TestNewLeaderWaits(t *testing.T) {
	b := newBook(t, nil)
	b.ask(wants("m1", 1, false), 1)
	b.servings = newServings(b.clock.at)
	if r := b.ask(wants("m1", 1, true), 1); !r.GetHealthy() {
		t.Errorf("the holder: %v", r)
	}
	b.servings = newServings(b.clock.at)
	b.publish(1, "m2", nil)
	b.clock.at += ServingLeaseTTL
	if r := b.ask(wants("m2", 2, false), 2); r.GetHealthy() {
		t.Errorf("granted although an earlier leader may have granted: %v", r)
	}
	b.clock.at += servingDrift
	if r := b.ask(wants("m2", 2, false), 2); !r.GetHealthy() {
		t.Errorf("after the wait: %v", r)
	}
}

// TestBarredWhileMoving: between the claim that a lease has run out and the fate of the command built on it, its server gets none.
func TestBarredWhileMoving(t *testing.T) {
	b := newBook(t, nil)
	b.ask(wants("m1", 1, false), 1)
	b.publish(1, "m2", nil)
	b.clock.at += 2 * ServingLeaseTTL
	claim := b.decide(b.m, b.clock, wants("m2", 2, false), 2)
	if claim.begin == nil {
		t.Fatalf("nothing to commit: %v", claim.resp)
	}
	b.publish(2, "m1", nil)
	again := b.decide(b.m, b.clock, wants("m1", 3, false), 1)
	if again.resp.GetHealthy() {
		t.Errorf("granted while its right is on the way to another: %v", again.resp)
	}
	// The fate never becomes known: m1 stays without a lease for as long as this leadership lasts.
	b.ended(claim.begin, &Error{Kind: UnknownOutcome})
	if again.begin == nil {
		t.Fatal("no claim of m1")
	}
	b.apply(again.begin.command)
	b.ended(again.begin, nil)
	if v := b.decide(b.m, b.clock, wants("m1", 3, false), 1); v.resp.GetHealthy() {
		t.Errorf("granted although the command may yet be applied: %v", v.resp)
	}
}

// TestRefreshAfterPublish: a lease is granted only once the right is of the current generation, so that no adoption on its way can drop it.
func TestRefreshAfterPublish(t *testing.T) {
	b := newBook(t, nil)
	b.ask(wants("m1", 1, false), 1)
	b.publish(1, "m2", nil)
	b.publish(2, "m1", nil)
	if v := b.decide(b.m, b.clock, wants("m1", 1, true), 1); v.resp.GetHealthy() || v.begin == nil {
		t.Fatalf("granted with a right of generation 1: %v", v.resp)
	} else {
		b.apply(v.begin.command)
		b.ended(v.begin, nil)
	}
	if r := b.ask(wants("m1", 1, true), 1); !r.GetHealthy() {
		t.Errorf("the holder: %v", r)
	}
	b.apply(&logv1.Command{Body: &logv1.Command_AdoptGeneration{AdoptGeneration: &logv1.AdoptGeneration{Member: "m1", Generation: 2}}})
	if right, ok := b.state().Serving("m1"); !ok || right.GetGeneration() != 3 {
		t.Errorf("a late adoption dropped the right: %v", right)
	}
	if r := b.ask(wants("m1", 1, false), 1); r.GetHealthy() || !r.GetConfirmed() {
		t.Errorf("became Healthy under an old generation: %v", r)
	}
}

// TestStandIn goes from the Primary to the stand-in and back: by votes of most voters, after the lease, and by word.
func TestStandIn(t *testing.T) {
	b := newBook(t, &quoratev1.RedundancyPolicies{StandIn: 210})
	b.ask(wants("m1", 1, false), 1)
	one := func() *peerv1.RenewServingResponse { return b.ask(cannotReach(wants("m2", 1, false), "m1", 0), 2) }
	most := func() *peerv1.RenewServingResponse {
		b.ask(cannotReach(&peerv1.RenewServingRequest{Member: "m3", Generation: 1}, "m1", 0), 3)
		return one()
	}
	if r := one(); r.GetHealthy() {
		t.Errorf("one vote of three: %v", r)
	}
	if r := most(); r.GetHealthy() {
		t.Errorf("beside a lease: %v", r)
	}
	b.clock.at += ServingLeaseTTL + servingDrift
	if r := one(); r.GetHealthy() {
		t.Errorf("on an old vote: %v", r)
	}
	if r := most(); !r.GetHealthy() || !r.GetStandIn() {
		t.Fatalf("the Primary is gone: %v", r)
	}
	// The Primary is back, but most can't reach it yet.
	if r := b.ask(wants("m1", 1, false), 1); r.GetHealthy() {
		t.Errorf("beside the stand-in: %v", r)
	}
	holds := wants("m2", 1, true)
	if r := b.ask(cannotReach(holds, "m1", 0), 2); !r.GetHealthy() || r.GetStepDown() {
		t.Errorf("while the Primary can't be reached: %v", r)
	}
	if r := b.ask(wants("m2", 1, true), 2); r.GetHealthy() || !r.GetStepDown() {
		t.Fatalf("the Primary can be reached: %v", r)
	}
	if r := b.ask(wants("m2", 1, false), 7); r.GetHealthy() {
		t.Errorf("%v", r)
	}
	if r := b.ask(wants("m1", 1, false), 1); r.GetHealthy() {
		t.Errorf("on a word that came over another connection, and may be older than the lease: %v", r)
	}
	given, end := context.WithCancel(t.Context())
	end()
	b.hear(given, wants("m2", 1, false), 2, b.clock.at)
	if r := b.ask(wants("m1", 1, false), 1); r.GetHealthy() {
		t.Errorf("on the word of a question that was given up: %v", r)
	}
	b.ask(wants("m2", 1, false), 2)
	if r := b.ask(wants("m1", 1, false), 1); !r.GetHealthy() || r.GetStandIn() {
		t.Errorf("after the stand-in let go: %v", r)
	}
}

// TestFailover: most voters, for long enough, and a fit Backup.
func TestFailover(t *testing.T) {
	policies := &quoratev1.RedundancyPolicies{Failover: fsm.FailoverAutomatic, FailoverAfter: durationpb.New(8 * time.Second)}
	b := newBook(t, policies)
	to := func() string {
		return b.failover(b.state(), b.state().CurrentGeneration().GetTopology().GetSets()[0], b.clock.at)
	}
	hear := func(req *peerv1.RenewServingRequest) { b.hear(t.Context(), req, 0, b.clock.at) }
	hear(cannotReach(wants("m2", 1, false), "m1", 10*time.Second))
	if to() != "" {
		t.Error("on one vote of three")
	}
	hear(cannotReach(&peerv1.RenewServingRequest{Member: "m3"}, "m1", 7*time.Second))
	if to() != "" {
		t.Error("before its time")
	}
	b.clock.at += time.Second
	if got := to(); got != "m2" {
		t.Errorf("to %q", got)
	}
	b.clock.at += servingFresh
	if to() != "" {
		t.Error("on old votes")
	}
	hear(cannotReach(&peerv1.RenewServingRequest{Member: "m2"}, "m1", 20*time.Second))
	hear(cannotReach(&peerv1.RenewServingRequest{Member: "m3"}, "m1", 20*time.Second))
	if to() != "" {
		t.Error("to a Backup that isn't fit")
	}
	// A Primary that asks again is given the time to be seen by everybody, and no more. One that falls silent once more is not.
	votes := func() {
		hear(cannotReach(wants("m2", 1, false), "m1", 20*time.Second))
		hear(cannotReach(&peerv1.RenewServingRequest{Member: "m3"}, "m1", 20*time.Second))
	}
	began := b.clock.at
	for to() == "" {
		if b.clock.at-began > servingReturn {
			t.Fatal("a Primary that nobody can reach keeps its role because it asks")
		}
		b.clock.at += time.Second
		hear(wants("m1", 1, true))
		votes()
	}
	if b.clock.at-began < servingReturn {
		t.Errorf("the role of a Primary that came back was given away after %v", b.clock.at-began)
	}
	b.clock.at += servingFresh + time.Second
	hear(wants("m1", 1, true))
	votes()
	if to() != "" {
		t.Error("a Primary that came back once more has no time")
	}
	b.clock.at += servingFresh + time.Second
	votes()
	if to() != "m2" {
		t.Error("a Primary that fell silent keeps its role")
	}
}

// TestHotBackupsAreConfirmedUnderTheirPolicyOnly withdraws hotBackupsHealthy: a Backup that has not heard of it is Healthy beside its Primary for as long as its lease
// lasts, and no longer.
func TestHotBackupsAreConfirmedUnderTheirPolicyOnly(t *testing.T) {
	b := newBook(t, &quoratev1.RedundancyPolicies{HotBackupsHealthy: true}) // in mode HOT
	ask := func(member string, generation uint64) bool {
		t.Helper()
		return b.ask(&peerv1.RenewServingRequest{Member: member, Generation: generation}, 1).GetConfirmed()
	}
	if !ask("m2", 1) {
		t.Error("a hot Backup is not confirmed")
	}
	b.publish(1, "m1", &quoratev1.RedundancyPolicies{HotBackupsHealthy: true, EvictClients: fsm.EvictMaintenance})
	if !ask("m2", 1) {
		t.Error("not confirmed after a publish that leaves the policy as it was")
	}
	b.publish(2, "m1", nil)
	if ask("m2", 2) {
		t.Error("confirmed under a policy that was withdrawn")
	}
	if !ask("m2", 3) || !ask("m1", 2) {
		t.Error("not confirmed under the current policy, or as the Primary")
	}
}

// TestBookForgets: what is known of members that have left the group is dropped, and of their leases once those have run out.
func TestBookForgets(t *testing.T) {
	b := newBook(t, nil)
	b.ask(wants("m1", 1, false), 1)
	b.ask(wants("m2", 1, false), 2)
	b.said["m9"], b.grants["m9"] = b.said["m1"], b.grants["m1"]
	b.prune(b.state(), b.clock.at)
	if _, ok := b.said["m9"]; ok || len(b.said) != 2 || len(b.grants) != 2 {
		t.Errorf("said %v, grants %v", b.said, b.grants)
	}
	b.clock.at += ServingLeaseTTL + servingDrift
	b.prune(b.state(), b.clock.at)
	if _, ok := b.grants["m9"]; ok || len(b.grants) != 1 {
		t.Errorf("grants %v", b.grants)
	}
}

// TestRightsOfTheDepartedAreCleared: a server in no set loses its right once its lease has run out.
func TestRightsOfTheDepartedAreCleared(t *testing.T) {
	b := newBook(t, nil)
	b.ask(wants("m1", 1, false), 1)
	c := publishCommand("p", 1)
	c.GetPublishTopology().Topology = &quoratev1.Topology{}
	b.apply(c)
	if m := b.clearAway(b.state(), b.clock.at); m != nil {
		t.Fatal("a right whose lease may be in use was cleared")
	}
	b.clock.at += ServingLeaseTTL + servingDrift
	m := b.clearAway(b.state(), b.clock.at)
	if m == nil {
		t.Fatal("not cleared")
	}
	if b.clearAway(b.state(), b.clock.at) != nil {
		t.Error("cleared twice at a time")
	}
	b.apply(m.command)
	b.ended(m, nil)
	if _, ok := b.state().Serving("m1"); ok {
		t.Error("the right is still there")
	}
}

// TestDisowned: what a leader knew of leases under one term says nothing in an entry of another.
func TestDisowned(t *testing.T) {
	b := newBook(t, nil)
	b.ask(wants("m1", 1, false), 1)
	b.publish(1, "m2", nil)
	stale := func(c *logv1.Command) *logv1.Outcome {
		b.index++
		data, err := proto.Marshal(&logv1.Entry{Clock: b.index, Term: 1, Commands: []*logv1.Command{c}})
		if err != nil {
			t.Fatal(err)
		}
		result, ok := b.m.Apply(&raft.Log{Index: b.index, Term: 2, Data: data}).(*entryResult)
		if !ok {
			t.Fatal("not applied")
		}
		return result.outcomes[0]
	}
	o := stale(&logv1.Command{Body: &logv1.Command_AssignServing{AssignServing: &logv1.AssignServing{Server: "m2", Generation: 2, Lapsed: []string{"m1"}}}})
	if o.GetRefusal().GetReason() != fsm.ReasonServingHeld {
		t.Errorf("assigned: %v", o)
	}
	stale(&logv1.Command{Body: &logv1.Command_ReleaseServing{ReleaseServing: &logv1.ReleaseServing{Server: "m1", Generation: 1}}})
	if _, ok := b.state().Serving("m1"); !ok {
		t.Error("released")
	}
}
