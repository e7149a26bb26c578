package rpc

import (
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"

	"quorate/fsm"
	"quorate/node"
	logv1 "quorate/proto/quorate/log/v1"
	quoratev1 "quorate/proto/quorate/v1"
)

// appliers has the members of a real node say that they can apply roll-outs, and proposes what their servers would.
type appliers struct {
	t    *testing.T
	node *node.Node
}

func openAppliers(t *testing.T) *appliers {
	a := &appliers{t: t, node: openNode(t, node.Limits{})}
	if err := a.node.AddLearner(testContext(t), "m3", "127.0.0.1:2"); err != nil {
		t.Fatal(err)
	}
	eventually(t, "m3 is known", func() bool { _, ok := a.node.Local().State.Member("m3"); return ok })
	for _, id := range []string{"m1", "m2", "m3"} {
		a.propose(&logv1.Command{Body: &logv1.Command_AnnounceMember{AnnounceMember: &logv1.AnnounceMember{Id: id, CommandVersion: fsm.CommandVersion}}})
	}
	return a
}

func (a *appliers) propose(c *logv1.Command) {
	a.t.Helper()
	if o, err := a.node.Propose(testContext(a.t), c); err != nil || o.GetRefusal() != nil {
		a.t.Fatalf("%T: %v, %v", c.GetBody(), err, o.GetRefusal())
	}
}

// apply has a server apply a generation, well or not.
func (a *appliers) apply(server string, generation uint64, well bool) {
	a.t.Helper()
	a.propose(&logv1.Command{Body: &logv1.Command_BeginApply{BeginApply: &logv1.BeginApply{Server: server, Generation: generation}}})
	a.propose(&logv1.Command{Body: &logv1.Command_EndApply{EndApply: &logv1.EndApply{Server: server, Generation: generation, Succeeded: well, Attempt: 1}}})
}

// withM3 is lineA with one more Backup.
func withM3() *quoratev1.Topology {
	topology := lineA()
	topology.Sets[0].Policies = &quoratev1.RedundancyPolicies{MaxServers: 3}
	topology.Sets[0].Servers = append(topology.Sets[0].Servers, &quoratev1.RedundantServer{
		Member: "m3", ApplicationUri: "urn:demo:m3", EndpointUrl: "opc.tcp://127.0.0.1:4843", HealthUrl: "http://127.0.0.1:7203/healthz", Role: "Backup",
	})
	return topology
}

func TestStoppedRolloutIsRolledBack(t *testing.T) {
	a := openAppliers(t)
	h := serve(t, Config{Node: a.node})
	conn := h.dial(t, nil)
	service := quoratev1.NewApplyServiceClient(conn)
	ctx := testContext(t)
	rollback := func(id, set string, expected uint64) (*quoratev1.RollbackApplyResponse, error) {
		return service.RollbackApply(ctx, &quoratev1.RollbackApplyRequest{RequestId: id, Set: set, ExpectedGeneration: proto.Uint64(expected)})
	}
	refused := func(reason string, code codes.Code, err error) {
		t.Helper()
		assertRefused(t, err, code, reason, detailsOf(err).field())
	}
	mustPublish(t, conn, "p1", 0, lineA())
	_, err := rollback("b1", "line-b", 1)
	refused(ReasonUnknownSet, codes.NotFound, err)
	_, err = rollback("b2", "line-a", 7)
	refused(fsm.ReasonGenerationConflict, codes.FailedPrecondition, err)
	// Nobody has applied anything yet that there were to go back to.
	a.apply("m2", 1, false)
	_, err = rollback("b3", "line-a", 1)
	refused(ReasonNothingApplied, codes.FailedPrecondition, err)
	if _, err := service.ResumeApply(ctx, &quoratev1.ResumeApplyRequest{RequestId: "r1", Set: "line-a"}); err != nil {
		t.Fatal(err)
	}
	a.propose(&logv1.Command{Body: &logv1.Command_BeginApply{BeginApply: &logv1.BeginApply{Server: "m2", Generation: 1}}})
	a.propose(&logv1.Command{Body: &logv1.Command_EndApply{EndApply: &logv1.EndApply{Server: "m2", Generation: 1, Succeeded: true, Attempt: 2}}})
	a.apply("m1", 1, true)
	_, err = rollback("b4", "line-a", 1)
	refused(ReasonRolloutDone, codes.FailedPrecondition, err)

	// A server comes into the set, and fails. What the others had applied before is what the set goes back to, though the new one has applied nothing.
	mustPublish(t, conn, "p2", 1, withM3())
	a.apply("m2", 2, true)
	a.apply("m3", 2, false)
	back, err := rollback("b5", "line-a", 2)
	if err != nil || back.GetGeneration().GetNumber() != 3 || len(back.GetGeneration().GetTopology().GetSets()[0].GetServers()) != 2 {
		t.Fatalf("rolled back to %v, %v", back, err)
	}
	again, err := rollback("b5", "line-a", 2)
	if err != nil || !proto.Equal(again.GetGeneration(), back.GetGeneration()) {
		t.Errorf("again: %v, %v", again, err)
	}
	status, err := service.GetApplyStatus(ctx, &quoratev1.GetApplyStatusRequest{Set: "line-a"})
	if err != nil || len(status.GetRollouts()) != 1 || status.GetRollouts()[0].GetState() != quoratev1.RolloutState_ROLLOUT_STATE_RUNNING {
		t.Errorf("status %v, %v", status, err)
	}
	_, err = service.GetApplyStatus(ctx, &quoratev1.GetApplyStatusRequest{Set: "line-b"})
	refused(ReasonUnknownSet, codes.NotFound, err)
	_, err = service.ResumeApply(ctx, &quoratev1.ResumeApplyRequest{RequestId: "r2", Set: "line-a"})
	refused(fsm.ReasonApplyNotStopped, codes.FailedPrecondition, err)
}

// TestForcedRolloutIsRolledBack gives up a roll-out that was forced: the set is as it was before, and its servers apply it anew. Other sets don't.
func TestForcedRolloutIsRolledBack(t *testing.T) {
	a := openAppliers(t)
	conn := serve(t, Config{Node: a.node}).dial(t, nil)
	two := lineA()
	other := withM3().Sets[0]
	two.Sets = append(two.Sets, &quoratev1.RedundantSet{Id: "line-b", Mode: "WARM", Servers: other.Servers[2:]})
	two.Sets[1].Servers[0].Role = "Primary"
	mustPublish(t, conn, "p1", 0, two)
	for _, server := range []string{"m2", "m1", "m3"} {
		a.apply(server, 1, true)
	}
	forced := publish("p2", 1, two)
	forced.Force = true
	if _, err := quoratev1.NewTopologyServiceClient(conn).PublishTopology(testContext(t), forced); err != nil {
		t.Fatal(err)
	}
	a.apply("m3", 2, true)
	a.apply("m2", 2, false)
	back, err := quoratev1.NewApplyServiceClient(conn).RollbackApply(testContext(t), &quoratev1.RollbackApplyRequest{
		RequestId: "b", Set: "line-a", ExpectedGeneration: proto.Uint64(2),
	})
	if err != nil || back.GetGeneration().GetNumber() != 3 {
		t.Fatalf("rolled back to %v, %v", back, err)
	}
	a.apply("m2", 3, true)
	a.apply("m1", 3, true)
	for _, r := range a.node.Local().State.Rollouts() {
		if r.GetState() != quoratev1.RolloutState_ROLLOUT_STATE_DONE {
			t.Errorf("%v", r)
		}
	}
	if n := a.node.Local().State.Leases("m3", true); len(n) != 2 {
		t.Errorf("m3 had %d applies, want those of the generations 1 and 2", len(n))
	}
}
