package rpc

import (
	"fmt"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"

	"quorate/fsm"
	"quorate/node"
	logv1 "quorate/proto/quorate/log/v1"
	quoratev1 "quorate/proto/quorate/v1"
)

func TestOverviewIsOfOneRevision(t *testing.T) {
	n := openNode(t, node.Limits{})
	h := serve(t, Config{Node: n})
	conn := h.dial(t, nil)
	overviews := quoratev1.NewOverviewServiceClient(conn)
	change := func(command *logv1.Command) {
		t.Helper()
		if outcome, err := n.Propose(testContext(t), command); err != nil || refused(outcome) != nil {
			t.Fatal(err, refused(outcome))
		}
	}

	empty, err := overviews.GetOverview(testContext(t), &quoratev1.GetOverviewRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if empty.GetGeneration() != nil || len(empty.GetMembers()) != 2 || len(empty.GetRollouts()) != 0 {
		t.Errorf("before the first publish: %v", empty)
	}

	topology := lineA()
	lineB := proto.CloneOf(topology.GetSets()[0])
	lineB.Id, lineB.Mode = "line-b", "NONE"
	lineB.Servers = lineB.GetServers()[1:]
	lineB.Servers[0].Role = "Primary"
	topology.Sets[0].Servers, topology.Sets[0].Mode = topology.GetSets()[0].GetServers()[:1], "NONE"
	topology.Sets = append(topology.Sets, lineB)
	for _, server := range []string{"m1", "m2"} {
		change(&logv1.Command{Body: &logv1.Command_AnnounceMember{AnnounceMember: &logv1.AnnounceMember{Id: server, CommandVersion: fsm.CommandVersion}}})
	}
	published := mustPublish(t, conn, "p1", 0, topology)
	for _, server := range []string{"m1", "m2"} {
		if _, err := quoratev1.NewMaintenanceServiceClient(conn).SetMaintenance(testContext(t), &quoratev1.SetMaintenanceRequest{
			RequestId: "maintain-" + server, Server: server, Active: true,
		}); err != nil {
			t.Fatal(err)
		}
		if _, err := quoratev1.NewLeaseServiceClient(conn).BeginLease(testContext(t), &quoratev1.BeginLeaseRequest{RequestId: "lease-" + server, Server: server}); err != nil {
			t.Fatal(err)
		}
		var changes []*quoratev1.LevelChange
		for number := range uint64(3) {
			changes = append(changes, &quoratev1.LevelChange{Server: server, Number: number + 1, After: uint32(number), Set: "line-" + server, Role: "Primary"})
		}
		change(&logv1.Command{Body: &logv1.Command_RecordLevels{RecordLevels: &logv1.RecordLevels{Changes: changes}}})
	}

	whole, err := overviews.GetOverview(testContext(t), &quoratev1.GetOverviewRequest{LevelChanges: 1})
	if err != nil {
		t.Fatal(err)
	}
	if got, want := summary(whole), "rollouts [line-a line-b], leases [m1 m2], maintenance [m1 m2], levels [m1.3 m2.3]"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
	if whole.GetHeader().GetRevision() <= published.GetRevision() || whole.GetGeneration().GetNumber() != 1 || len(whole.GetMembers()) != 2 {
		t.Errorf("header %v, generation %v", whole.GetHeader(), whole.GetGeneration())
	}
	one, err := overviews.GetOverview(testContext(t), &quoratev1.GetOverviewRequest{Set: "line-b", LevelChanges: 2})
	if err != nil {
		t.Fatal(err)
	}
	if got, want := summary(one), "rollouts [line-b], leases [m2], maintenance [m2], levels [m2.3 m2.2]"; got != want {
		t.Errorf("%s, want %s", got, want)
	}

	_, err = overviews.GetOverview(testContext(t), &quoratev1.GetOverviewRequest{Set: "line-c"})
	assertRefused(t, err, codes.NotFound, ReasonUnknownSet, "set")
	_, err = overviews.GetOverview(testContext(t), &quoratev1.GetOverviewRequest{LevelChanges: 2})
	assertRefused(t, err, codes.InvalidArgument, ReasonInvalidArgument, "level_changes")
	_, err = overviews.GetOverview(testContext(t), &quoratev1.GetOverviewRequest{Set: "line-a", LevelChanges: 257})
	assertRefused(t, err, codes.InvalidArgument, ReasonInvalidArgument, "level_changes")
}

func TestAnOverviewOfTooManyLeasesIsRefused(t *testing.T) {
	h := serve(t, Config{Node: openNode(t, node.Limits{}), Limits: Limits{MaxListedLeases: 1}})
	conn := h.dial(t, nil)
	mustPublish(t, conn, "p1", 0, lineA())
	begin := func(id, server, publish string) {
		t.Helper()
		if _, err := quoratev1.NewLeaseServiceClient(conn).BeginLease(testContext(t), &quoratev1.BeginLeaseRequest{RequestId: id, Server: server, PublishRequestId: publish}); err != nil {
			t.Fatal(err)
		}
	}
	begin("l1", "m1", "")
	overviews := quoratev1.NewOverviewServiceClient(conn)
	if _, err := overviews.GetOverview(testContext(t), &quoratev1.GetOverviewRequest{}); err != nil {
		t.Fatal(err)
	}
	begin("l2", "m1", "another")
	_, err := overviews.GetOverview(testContext(t), &quoratev1.GetOverviewRequest{})
	assertRefused(t, err, codes.ResourceExhausted, ReasonAnswerTooLarge, "")
}

// summary says in one line what an overview holds.
func summary(o *quoratev1.GetOverviewResponse) string {
	var rollouts, leases, maintenance, levels []string
	for _, r := range o.GetRollouts() {
		rollouts = append(rollouts, r.GetSet())
	}
	for _, l := range o.GetLeases() {
		leases = append(leases, l.GetKey().GetServer())
	}
	for _, m := range o.GetMaintenance() {
		maintenance = append(maintenance, m.GetServer())
	}
	for _, c := range o.GetLevelChanges() {
		levels = append(levels, fmt.Sprintf("%s.%d", c.GetServer(), c.GetNumber()))
	}
	return fmt.Sprintf("rollouts %v, leases %v, maintenance %v, levels %v", rollouts, leases, maintenance, levels)
}
