package rpc

import (
	"context"
	"fmt"
	"strings"
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

// TestOverviewHasPagesOfPartitions walks through everything that an overview has of partitions, page by page.
func TestOverviewHasPagesOfPartitions(t *testing.T) {
	h, partitions := openPartitions(t, Limits{}, "p1", "p2", "p3")
	mustCreate(t, partitions, "b", "q1", "q2")
	conn := h.dial(t, nil)
	for _, id := range []string{"p1", "p3", "q2"} {
		if _, err := partitions.BeginMigration(testContext(t), &quoratev1.BeginMigrationRequest{RequestId: "move-" + id, Partition: id, To: "c"}); err != nil {
			t.Fatal(err)
		}
	}
	for _, id := range []string{"i1", "i2"} {
		if _, err := quoratev1.NewGateServiceClient(conn).RegisterInstance(testContext(t), &quoratev1.RegisterInstanceRequest{RequestId: id, Id: id, Session: "0123456789abcdef"}); err != nil {
			t.Fatal(err)
		}
	}
	overviews := quoratev1.NewOverviewServiceClient(conn)
	look := func(selection *quoratev1.PartitionSelection) *quoratev1.PartitionOverview {
		t.Helper()
		answer, err := overviews.GetOverview(testContext(t), &quoratev1.GetOverviewRequest{Partitions: selection})
		if err != nil {
			t.Fatal(err)
		}
		return answer.GetPartitions()
	}
	page := func(size uint32, token string) *quoratev1.PageSelection {
		return &quoratev1.PageSelection{Size: size, Token: token}
	}
	counts := look(nil)
	if counts.GetSettings() == nil || counts.GetPartition() != nil || len(counts.GetPartitions())+len(counts.GetMigrations())+len(counts.GetPlacements())+len(counts.GetInstances()) != 0 {
		t.Errorf("without a selection: %v", counts)
	}
	if got, want := fmt.Sprint(counts.GetPartitionCount(), counts.GetPlacementCount(), counts.GetMigrationCount(), counts.GetInstanceCount()), "5 3 3 2"; got != want {
		t.Errorf("counts %s, want %s", got, want)
	}
	for _, c := range []struct {
		selection *quoratev1.PartitionSelection
		want      string
	}{
		{&quoratev1.PartitionSelection{Partition: "p1"}, "p1 partitions [] migrations [] placements [] instances []"},
		{&quoratev1.PartitionSelection{Partition: "p9"}, "partitions [] migrations [] placements [] instances []"},
		{&quoratev1.PartitionSelection{Partitions: page(9, ""), Migrations: page(9, ""), Placements: page(9, ""), Instances: page(9, "")},
			"partitions [p1 p2 p3 q1 q2] migrations [p1 p3 q2] placements [a b c] instances [i1 i2]"},
		{&quoratev1.PartitionSelection{Partitions: page(2, ""), Migrations: page(1, ""), Placements: page(2, ""), Instances: page(1, "")},
			"partitions [p1 p2] then p2 migrations [p1] then p1 placements [a b] then b instances [i1] then i1"},
		{&quoratev1.PartitionSelection{Partitions: page(3, "p2"), Migrations: page(2, "p1"), Placements: page(1, "b"), Instances: page(1, "i1")},
			"partitions [p3 q1 q2] migrations [p3 q2] placements [c] instances [i2]"},
		{&quoratev1.PartitionSelection{Placement: "b", Partitions: page(9, ""), Migrations: page(9, ""), Placements: page(1, "")},
			"partitions [q1 q2] migrations [q2] placements [a] then a instances []"},
		{&quoratev1.PartitionSelection{Prefix: "p", Partitions: page(9, "")}, "partitions [p1 p2 p3] migrations [] placements [] instances []"},
	} {
		if got := pages(look(c.selection)); got != c.want {
			t.Errorf("%v: %s, want %s", c.selection, got, c.want)
		}
	}
	for field, selection := range map[string]*quoratev1.PartitionSelection{
		"partitions.prefix": {Prefix: "P"}, "partitions.migrations.size": {Migrations: page(1001, "")}, "partitions.instances.size": {Instances: page(0, "")},
		"partitions.placements.token": {Placements: page(1, "?")},
	} {
		_, err := overviews.GetOverview(testContext(t), &quoratev1.GetOverviewRequest{Partitions: selection})
		assertRefused(t, err, codes.InvalidArgument, ReasonInvalidArgument, field)
	}
}

// The two long pages of an overview are cut to what one answer may hold.
func TestPagesOfAnOverviewAreCut(t *testing.T) {
	h, _ := openPartitions(t, Limits{MaxPageBytes: 2}, "p1", "p2")
	answer, err := quoratev1.NewOverviewServiceClient(h.dial(t, nil)).GetOverview(testContext(t), &quoratev1.GetOverviewRequest{
		Partitions: &quoratev1.PartitionSelection{Partitions: &quoratev1.PageSelection{Size: 10}},
	})
	if err != nil {
		t.Fatal(err)
	}
	if got, want := pages(answer.GetPartitions()), "partitions [p1] then p1 migrations [] placements [] instances []"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
}

// BenchmarkOverviewOfPartitions reads what the page of partitions shows, with 1,000,000 partitions and 1000 migrations: as it is, with a filter that nothing
// matches before as many were looked at as one page may look at, and of one partition.
func BenchmarkOverviewOfPartitions(b *testing.B) {
	n := openGroup(b, 1, node.Limits{})[0]
	fill(b, n)
	for i := range 1000 {
		outcome, err := n.Propose(context.Background(), &logv1.Command{RequestId: fmt.Sprint("move-", i), Body: &logv1.Command_BeginMigration{
			BeginMigration: &logv1.BeginMigration{Partition: benchPartition(i * 1000), To: "elsewhere"},
		}})
		if err != nil || refused(outcome) != nil {
			b.Fatal(err, refused(outcome))
		}
	}
	state := n.Local().State
	page := func(size uint32) *quoratev1.PageSelection { return &quoratev1.PageSelection{Size: size} }
	for name, selection := range map[string]*quoratev1.PartitionSelection{
		"counts": nil,
		"all":    {Partitions: page(50), Migrations: page(20), Placements: page(10), Instances: page(10)},
		"filter": {Placement: "elsewhere", Partitions: page(50), Migrations: page(20), Placements: page(10), Instances: page(10)},
		"one":    {Partition: benchPartition(500_000)},
	} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				partitionOverview(state, selection, 1<<20)
			}
		})
	}
}

// pages says in one line what an overview holds of partitions.
func pages(o *quoratev1.PartitionOverview) string {
	var said []string
	if o.GetPartition() != nil {
		said = append(said, o.GetPartition().GetId())
	}
	list := func(name, next string, n int, id func(int) string) {
		ids := make([]string, n)
		for i := range ids {
			ids[i] = id(i)
		}
		if said = append(said, fmt.Sprint(name, " ", ids)); next != "" {
			said = append(said, "then "+next)
		}
	}
	list("partitions", o.GetNextPartition(), len(o.GetPartitions()), func(i int) string { return o.GetPartitions()[i].GetId() })
	list("migrations", o.GetNextMigration(), len(o.GetMigrations()), func(i int) string { return o.GetMigrations()[i].GetId() })
	list("placements", o.GetNextPlacement(), len(o.GetPlacements()), func(i int) string { return o.GetPlacements()[i].GetId() })
	list("instances", o.GetNextInstance(), len(o.GetInstances()), func(i int) string { return o.GetInstances()[i].GetId() })
	return strings.Join(said, " ")
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
