package rpc

import (
	"context"
	"fmt"
	"sync"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"

	"quorate/fsm"
	"quorate/node"
	quoratev1 "quorate/proto/quorate/v1"
)

func TestPublishPlanHistoryAndRollback(t *testing.T) {
	h := serve(t, Config{Node: openNode(t, node.Limits{})})
	topologies := quoratev1.NewTopologyServiceClient(h.dial(t, nil))
	ctx := testContext(t)

	empty, err := topologies.GetTopology(ctx, &quoratev1.GetTopologyRequest{})
	if err != nil || empty.GetGeneration() != nil || empty.GetHeader().GetGeneration() != 0 || empty.GetHeader().GetMember() != "m1" {
		t.Fatalf("before the first publish: %v, %v", empty, err)
	}
	plan, err := topologies.PlanTopology(ctx, &quoratev1.PlanTopologyRequest{Topology: lineA(), ExpectedGeneration: proto.Uint64(0)})
	if err != nil {
		t.Fatal(err)
	}
	levels := make(map[string]uint32)
	for _, level := range plan.GetLevels() {
		levels[level.GetSet()+" "+level.GetServer()+" "+level.GetRole()] = level.GetLevel()
	}
	if levels["line-a m1 Primary"] != 255 || levels["line-a m2 Backup"] != 100 || len(levels) != 2 {
		t.Errorf("planned levels %v", levels)
	}
	if plan.GetNextGeneration() != 1 || len(plan.GetChanges()) == 0 || plan.GetHeader().GetGeneration() != 0 {
		t.Errorf("plan %v", plan)
	}
	published, err := topologies.PublishTopology(ctx, publish("p1", 0, lineA()))
	if err != nil {
		t.Fatal(err)
	}
	generation := published.GetGeneration()
	if generation.GetNumber() != 1 || generation.GetDigest() != plan.GetDigest() || generation.GetPublishRequestId() != "p1" ||
		generation.GetActor().GetName() != "anonymous" || generation.GetPublishedAt() == nil {
		t.Errorf("published %v, planned %v", generation, plan)
	}
	if published.GetHeader().GetRevision() != generation.GetRevision() || published.GetHeader().GetGeneration() != 1 {
		t.Errorf("header %v", published.GetHeader())
	}

	swapped := lineA()
	swapped.Sets[0].Servers[0].Role, swapped.Sets[0].Servers[1].Role = "Backup", "Primary"
	if _, err := topologies.PublishTopology(ctx, publish("p2", 1, swapped)); err != nil {
		t.Fatal(err)
	}
	diff, err := topologies.DiffTopology(ctx, &quoratev1.DiffTopologyRequest{From: 1})
	if err != nil || diff.GetTo() != 2 || len(diff.GetChanges()) != 2 {
		t.Errorf("diff %v, %v", diff, err)
	}
	if diff, err = topologies.DiffTopology(ctx, &quoratev1.DiffTopologyRequest{To: 1}); err != nil || len(diff.GetChanges()) == 0 {
		t.Errorf("diff from the empty topology: %v, %v", diff, err)
	}
	back, err := topologies.RollbackTopology(ctx, &quoratev1.RollbackTopologyRequest{RequestId: "r1", ExpectedGeneration: proto.Uint64(2), To: 1})
	if err != nil || back.GetGeneration().GetNumber() != 3 || back.GetGeneration().GetRollbackOf() != 1 || back.GetGeneration().GetDigest() != generation.GetDigest() {
		t.Errorf("rollback %v, %v", back, err)
	}
	history, err := topologies.ListGenerations(ctx, &quoratev1.ListGenerationsRequest{})
	if err != nil || len(history.GetGenerations()) != 3 || history.GetGenerations()[0].GetNumber() != 3 {
		t.Errorf("history %v, %v", history, err)
	}
	old, err := topologies.GetTopology(ctx, &quoratev1.GetTopologyRequest{Generation: 2})
	if err != nil || old.GetGeneration().GetTopology().GetSets()[0].GetServers()[0].GetRole() != "Backup" {
		t.Errorf("generation 2: %v, %v", old, err)
	}
	_, err = topologies.GetTopology(ctx, &quoratev1.GetTopologyRequest{Generation: 9})
	assertRefused(t, err, codes.NotFound, fsm.ReasonUnknownGeneration, detailsOf(err).field())
}

func TestDiffBeforeTheFirstPublish(t *testing.T) {
	h := serve(t, Config{Node: &scripted{read: func(context.Context) (node.View, error) { return node.View{State: fsm.New()}, nil }}})
	topologies := quoratev1.NewTopologyServiceClient(h.dial(t, nil))
	if diff, err := topologies.DiffTopology(testContext(t), &quoratev1.DiffTopologyRequest{}); err != nil || diff.GetTo() != 0 || len(diff.GetChanges()) != 0 {
		t.Errorf("diff %v, %v", diff, err)
	}
	_, err := topologies.DiffTopology(testContext(t), &quoratev1.DiffTopologyRequest{To: 1})
	assertRefused(t, err, codes.NotFound, fsm.ReasonUnknownGeneration, "generation")
}

func TestARepeatedRequestGetsTheFirstAnswer(t *testing.T) {
	h := serve(t, Config{Node: openNode(t, node.Limits{})})
	topologies := quoratev1.NewTopologyServiceClient(h.dial(t, nil))
	ctx := testContext(t)
	first, err := topologies.PublishTopology(ctx, publish("p1", 0, lineA()))
	if err != nil {
		t.Fatal(err)
	}
	again, err := topologies.PublishTopology(ctx, publish("p1", 0, lineA()))
	if err != nil || !proto.Equal(first.GetGeneration(), again.GetGeneration()) || again.GetHeader().GetRevision() != first.GetHeader().GetRevision() {
		t.Errorf("again: %v, %v; first: %v", again, err, first)
	}
	_, err = topologies.PublishTopology(ctx, publish("p1", 1, lineA()))
	if detailsOf(err).info.GetReason() != fsm.ReasonRequestIDReused {
		t.Errorf("the same id for another request: %v", err)
	}
}

func TestTwoPublishersRace(t *testing.T) {
	h := serve(t, Config{Node: openNode(t, node.Limits{})})
	for round := range uint64(10) {
		var racing sync.WaitGroup
		errs := make([]error, 2)
		for i := range errs {
			conn := h.dial(t, nil)
			racing.Go(func() {
				request := publish(fmt.Sprintf("race-%d-%d", round, i), round, lineA())
				_, errs[i] = quoratev1.NewTopologyServiceClient(conn).PublishTopology(testContext(t), request)
			})
		}
		racing.Wait()
		if (errs[0] == nil) == (errs[1] == nil) {
			t.Fatalf("round %d: %v and %v: exactly one shall win", round, errs[0], errs[1])
		}
		lost := errs[0]
		if lost == nil {
			lost = errs[1]
		}
		assertRefused(t, lost, codes.FailedPrecondition, fsm.ReasonGenerationConflict, detailsOf(lost).field())
		if got := detailsOf(lost).info.GetMetadata()["current_generation"]; got != fmt.Sprint(round+1) {
			t.Errorf("round %d: current_generation %q", round, got)
		}
	}
}

func TestInvalidTopologiesNameTheField(t *testing.T) {
	h := serve(t, Config{Node: openNode(t, node.Limits{})})
	conn := h.dial(t, nil)
	topologies := quoratev1.NewTopologyServiceClient(conn)
	good := mustPublish(t, conn, "good", 0, lineA())
	for name, test := range map[string]struct {
		spoil         func(*quoratev1.Topology)
		reason, field string
	}{
		"transparent": {func(d *quoratev1.Topology) { d.Sets[0].Mode = "TRANSPARENT" }, fsm.ReasonModeRefused, "topology.sets[0].mode"},
		"two Primaries": {
			func(d *quoratev1.Topology) { d.Sets[0].Servers[1].Role = "Primary" }, fsm.ReasonTwoPrimaries, "topology.sets[0].servers[1].role",
		},
		"one ApplicationUri twice": {
			func(d *quoratev1.Topology) { d.Sets[0].Servers[1].ApplicationUri = "urn:demo:m1" },
			fsm.ReasonDuplicateApplicationURI, "topology.sets[0].servers[1].application_uri",
		},
		"one endpoint twice": {
			func(d *quoratev1.Topology) { d.Sets[0].Servers[1].EndpointUrl = "opc.tcp://127.0.0.1:4841" },
			fsm.ReasonDuplicateEndpointURL, "topology.sets[0].servers[1].endpoint_url",
		},
		"unknown member": {
			func(d *quoratev1.Topology) { d.Sets[0].Servers[1].Member = "m9" }, fsm.ReasonUnknownMember, "topology.sets[0].servers[1].member",
		},
	} {
		t.Run(name, func(t *testing.T) {
			draft := lineA()
			test.spoil(draft)
			_, err := topologies.PublishTopology(testContext(t), publish("bad "+name, 1, draft))
			assertRefused(t, err, codes.InvalidArgument, test.reason, test.field)
			_, err = topologies.PlanTopology(testContext(t), &quoratev1.PlanTopologyRequest{Topology: draft})
			assertRefused(t, err, codes.InvalidArgument, test.reason, test.field)
		})
	}
	_, err := topologies.PlanTopology(testContext(t), &quoratev1.PlanTopologyRequest{Topology: lineA(), ExpectedGeneration: proto.Uint64(7)})
	if detailsOf(err).info.GetMetadata()["current_generation"] != "1" {
		t.Errorf("a plan on another generation: %v", err)
	}
	current, err := topologies.GetTopology(testContext(t), &quoratev1.GetTopologyRequest{})
	if err != nil || !proto.Equal(current.GetGeneration(), good) {
		t.Errorf("current %v, %v: the last good generation shall stay", current, err)
	}
}

func TestPagesOfTheHistoryHaveALimit(t *testing.T) {
	h := serve(t, Config{Node: openNode(t, node.Limits{}), Limits: Limits{MaxPageBytes: 1}})
	conn := h.dial(t, nil)
	for i := range uint64(3) {
		mustPublish(t, conn, fmt.Sprint("p", i), i, lineA())
	}
	var numbers []uint64
	for before := uint64(0); ; {
		page, err := quoratev1.NewTopologyServiceClient(conn).ListGenerations(testContext(t), &quoratev1.ListGenerationsRequest{Before: before})
		if err != nil {
			t.Fatal(err)
		}
		if len(page.GetGenerations()) != 1 {
			t.Fatalf("a page of %d generations", len(page.GetGenerations()))
		}
		before = page.GetGenerations()[0].GetNumber()
		if numbers = append(numbers, before); before == 1 {
			break
		}
	}
	if fmt.Sprint(numbers) != "[3 2 1]" {
		t.Errorf("pages %v", numbers)
	}
}
