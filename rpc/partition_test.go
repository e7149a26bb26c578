package rpc

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/durationpb"

	"quorate/fsm"
	"quorate/node"
	logv1 "quorate/proto/quorate/log/v1"
	quoratev1 "quorate/proto/quorate/v1"
)

// openPartitions serves a real member with partitions at placement a.
func openPartitions(t *testing.T, limits Limits, ids ...string) (*harness, quoratev1.PartitionServiceClient) {
	t.Helper()
	h := serve(t, Config{Node: openGroup(t, 1, node.Limits{})[0], Limits: limits})
	partitions := quoratev1.NewPartitionServiceClient(h.dial(t, nil))
	if len(ids) > 0 {
		mustCreate(t, partitions, "a", ids...)
	}
	return h, partitions
}

func mustCreate(t *testing.T, partitions quoratev1.PartitionServiceClient, placement string, ids ...string) *quoratev1.CreatePartitionsResponse {
	t.Helper()
	answer, err := partitions.CreatePartitions(testContext(t), &quoratev1.CreatePartitionsRequest{
		RequestId: "create-" + ids[0], Ids: ids, Placement: placement, Note: "by a test",
	})
	if err != nil {
		t.Fatal(err)
	}
	return answer
}

// TestWallTimeIsTheNodes has the service's clock, by which it judges certificates, say something else than the node's, which may be shifted.
func TestWallTimeIsTheNodes(t *testing.T) {
	h := serve(t, Config{Node: openGroup(t, 1, node.Limits{})[0], Now: func() time.Time { return time.Now().Add(-time.Hour) }})
	partitions := quoratev1.NewPartitionServiceClient(h.dial(t, nil))
	mustCreate(t, partitions, "a", "p1")
	begun, err := partitions.BeginMigration(testContext(t), &quoratev1.BeginMigrationRequest{RequestId: "begin", Partition: "p1", To: "b"})
	if at := begun.GetPartition().GetMigration().GetBegunAt(); err != nil || time.Since(at.AsTime()).Abs() > time.Minute {
		t.Errorf("begun at %v, want the node's time; error %v", at.AsTime(), err)
	}
}

// TestPartitions follows one partition through everything that can be done with it.
func TestPartitions(t *testing.T) {
	_, partitions := openPartitions(t, Limits{})
	ctx := testContext(t)
	ms := func(n int64) *durationpb.Duration { return durationpb.New(time.Duration(n) * time.Millisecond) }
	settings, err := partitions.SetPartitionSettings(ctx, &quoratev1.SetPartitionSettingsRequest{
		RequestId: "settings", Settings: &quoratev1.PartitionSettings{MinDrainBarrier: ms(200), DrainBarrier: ms(300), GateTtl: ms(200)},
	})
	if err != nil || settings.GetSettings().GetDrainBarrier().AsDuration() != 300*time.Millisecond || settings.GetSettings().GetEarlyFloor().AsDuration() != fsm.DefaultEarlyFloor {
		t.Fatalf("settings %v, %v", settings, err)
	}
	if got, err := partitions.GetPartitionSettings(ctx, &quoratev1.GetPartitionSettingsRequest{}); err != nil || got.GetSettings().GetGateTtl().AsDuration() != 200*time.Millisecond {
		t.Errorf("settings read back: %v, %v", got, err)
	}
	created := mustCreate(t, partitions, "a", "p1", "p2")
	if created.GetEpoch() != 1 || created.GetHeader().GetRevision() == 0 || created.GetHeader().GetMember() != "m1" {
		t.Errorf("created %v", created)
	}
	got, err := partitions.GetPartition(ctx, &quoratev1.GetPartitionRequest{Partition: "p1"})
	if p := got.GetPartition(); err != nil || p.GetPlacement() != "a" || p.GetEpoch() != 1 || p.GetPhase() != quoratev1.PartitionPhase_PARTITION_PHASE_ACTIVE {
		t.Fatalf("got %v, %v", got, err)
	}
	placed, err := partitions.SetPlacement(ctx, &quoratev1.SetPlacementRequest{RequestId: "place", Partition: "p1", Placement: "b", ExpectedEpoch: 1})
	if p := placed.GetPartition(); err != nil || p.GetPlacement() != "b" || p.GetPreviousPlacement() != "a" || p.GetEpoch() != 2 {
		t.Errorf("placed %v, %v", placed, err)
	}
	_, err = partitions.SetPlacement(ctx, &quoratev1.SetPlacementRequest{RequestId: "late", Partition: "p1", Placement: "c", ExpectedEpoch: 1})
	assertRefused(t, err, codes.Aborted, fsm.ReasonStaleEpoch, "expected_epoch")
	if facts := detailsOf(err).info.GetMetadata(); facts["current_epoch"] != "2" || facts["phase"] != "active" {
		t.Errorf("stale: %v", facts)
	}

	begun, err := partitions.BeginMigration(ctx, &quoratev1.BeginMigrationRequest{
		RequestId: "begin", Partition: "p1", To: "c", DrainBarrier: ms(200), VerificationRequired: true, EarlyCompletion: true, Note: "off b",
	})
	m := begun.GetPartition().GetMigration()
	if err != nil || m.GetFrom() != "b" || m.GetTo() != "c" || m.GetActor().GetName() != "anonymous" || !m.GetVerificationRequired() || !m.GetEarlyCompletion() || m.GetNote() != "off b" {
		t.Fatalf("begun %v, %v", begun, err)
	}
	_, err = partitions.CutoverMigration(ctx, &quoratev1.CutoverMigrationRequest{RequestId: "soon", Partition: "p1"})
	assertRefused(t, err, codes.FailedPrecondition, fsm.ReasonVerificationRequired, "partition")
	reported, err := partitions.ReportMigration(ctx, &quoratev1.ReportMigrationRequest{
		RequestId: "report", Partition: "p1", Verified: true, Copy: &quoratev1.CopyProgress{Done: 3, Total: 3, Text: "3 of 3"},
	})
	if c := reported.GetPartition().GetMigration().GetCopy(); err != nil || c.GetDone() != 3 || c.GetText() != "3 of 3" || c.GetAt() == nil {
		t.Errorf("reported %v, %v", reported, err)
	}
	cutOver, err := partitions.CutoverMigration(ctx, &quoratev1.CutoverMigrationRequest{RequestId: "cutover", Partition: "p1", ExpectedEpoch: 3})
	if p := cutOver.GetPartition(); err != nil || p.GetPhase() != quoratev1.PartitionPhase_PARTITION_PHASE_CUTOVER || p.GetMigration().GetCutoverEpoch() != 4 {
		t.Fatalf("cut over %v, %v", cutOver, err)
	}
	if moving, err := partitions.ListMigrations(ctx, &quoratev1.ListMigrationsRequest{Placement: "c"}); err != nil || len(moving.GetPartitions()) != 1 {
		t.Errorf("migrations %v, %v", moving, err)
	}
	placements, err := partitions.ListPlacements(ctx, &quoratev1.ListPlacementsRequest{})
	var at []string
	for _, p := range placements.GetPlacements() {
		at = append(at, fmt.Sprint(p.GetId(), p.GetPartitions(), p.GetLeaving(), p.GetComing()))
	}
	if want := []string{"a1 0 0", "b1 1 0", "c0 0 1"}; err != nil || !slices.Equal(at, want) {
		t.Errorf("placements %q, %v; want %q", at, err, want)
	}

	// The barrier says itself when to come again.
	_, err = partitions.CompleteMigration(ctx, &quoratev1.CompleteMigrationRequest{RequestId: "early", Partition: "p1"})
	assertRefused(t, err, codes.FailedPrecondition, fsm.ReasonBarrierPending, "")
	left, parsed := time.ParseDuration(detailsOf(err).info.GetMetadata()["remaining"])
	if parsed != nil || left <= 0 || left > 200*time.Millisecond || detailsOf(err).retry.GetRetryDelay().AsDuration() != left {
		t.Errorf("%s are left, %v; retry after %v", left, parsed, detailsOf(err).retry)
	}
	var completed *quoratev1.CompleteMigrationResponse
	attempt := 0
	eventually(t, "the barrier has passed", func() bool {
		attempt++
		completed, err = partitions.CompleteMigration(ctx, &quoratev1.CompleteMigrationRequest{RequestId: fmt.Sprint("complete-", attempt), Partition: "p1"})
		return err == nil
	})
	if p := completed.GetPartition(); p.GetPlacement() != "c" || p.GetEpoch() != 5 || p.GetMigration() != nil || completed.GetEarly() {
		t.Errorf("completed %v", completed)
	}
	if _, err := partitions.BeginMigration(ctx, &quoratev1.BeginMigrationRequest{RequestId: "back", Partition: "p1", To: "b"}); err != nil {
		t.Error(err)
	}
	aborted, err := partitions.AbortMigration(ctx, &quoratev1.AbortMigrationRequest{RequestId: "abort", Partition: "p1", ExpectedEpoch: 6})
	if p := aborted.GetPartition(); err != nil || p.GetPlacement() != "c" || p.GetEpoch() != 7 {
		t.Errorf("aborted %v, %v", aborted, err)
	}
	deleted, err := partitions.DeletePartition(ctx, &quoratev1.DeletePartitionRequest{RequestId: "delete", Partition: "p1", ExpectedEpoch: 7})
	if err != nil {
		t.Fatal(err)
	}
	_, err = partitions.GetPartition(ctx, &quoratev1.GetPartitionRequest{
		Read: &quoratev1.ReadOptions{Consistency: quoratev1.Consistency_CONSISTENCY_LOCAL, MinRevision: deleted.GetHeader().GetRevision()}, Partition: "p1",
	})
	assertRefused(t, err, codes.NotFound, fsm.ReasonUnknownPartition, "partition")
}

func TestResolve(t *testing.T) {
	_, partitions := openPartitions(t, Limits{}, "p1", "p2")
	ctx := testContext(t)
	for _, id := range []string{"begin", "cutover"} {
		var err error
		if id == "begin" {
			_, err = partitions.BeginMigration(ctx, &quoratev1.BeginMigrationRequest{RequestId: id, Partition: "p2", To: "b"})
		} else {
			_, err = partitions.CutoverMigration(ctx, &quoratev1.CutoverMigrationRequest{RequestId: id, Partition: "p2"})
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	// What can't be an id is as one that isn't there: it may come from whoever is served, and must not fail what was asked for together with it.
	answer, err := partitions.Resolve(ctx, &quoratev1.ResolveRequest{Partitions: []string{"p2", "No Such/ä", "p1", "p2"}})
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, r := range answer.GetResolutions() {
		got = append(got, fmt.Sprint(r.GetPartition(), " ", r.GetPhase(), " ", r.GetReadPlacement(), " ", r.GetWritePlacement(), " ", r.GetEpoch(), " ", r.GetRevision() > 0))
	}
	want := []string{
		"p2 PARTITION_PHASE_CUTOVER a  3 true", "No Such/ä PARTITION_PHASE_UNSPECIFIED   0 false", "p1 PARTITION_PHASE_ACTIVE a a 1 true",
		"p2 PARTITION_PHASE_CUTOVER a  3 true",
	}
	if !slices.Equal(got, want) {
		t.Errorf("got  %q\nwant %q", got, want)
	}
	if answer.GetHeader().GetRevision() < answer.GetResolutions()[0].GetRevision() {
		t.Errorf("header %v", answer.GetHeader())
	}
}

func TestPagesOfPartitions(t *testing.T) {
	var ids []string
	for i := range 25 {
		ids = append(ids, fmt.Sprintf("p%02d", i))
	}
	list := func(t *testing.T, partitions quoratev1.PartitionServiceClient, request *quoratev1.ListPartitionsRequest, largest int) (all []string, pages int) {
		t.Helper()
		for {
			page, err := partitions.ListPartitions(testContext(t), request)
			if err != nil || len(page.GetPartitions()) > largest {
				t.Fatalf("%v: %d partitions, %v", request, len(page.GetPartitions()), err)
			}
			pages++
			for _, p := range page.GetPartitions() {
				all = append(all, p.GetId())
			}
			if request.PageToken = page.GetNextPageToken(); request.PageToken == "" {
				return all, pages
			}
			if pages > 100 {
				t.Fatal("the pages don't end")
			}
		}
	}
	_, partitions := openPartitions(t, Limits{}, ids...)
	mustCreate(t, partitions, "b", "q1", "q2")
	for _, test := range []struct {
		request        *quoratev1.ListPartitionsRequest
		want           []string
		largest, pages int
	}{
		{&quoratev1.ListPartitionsRequest{}, append(slices.Clone(ids), "q1", "q2"), 100, 1},
		{&quoratev1.ListPartitionsRequest{PageSize: 9}, append(slices.Clone(ids), "q1", "q2"), 9, 3},
		{&quoratev1.ListPartitionsRequest{PageSize: 10, Prefix: "p1"}, ids[10:20], 10, 1},
		{&quoratev1.ListPartitionsRequest{PageSize: 1, Placement: "b"}, []string{"q1", "q2"}, 1, 2},
		{&quoratev1.ListPartitionsRequest{PageToken: "p23"}, []string{"p24", "q1", "q2"}, 100, 1},
		{&quoratev1.ListPartitionsRequest{PageToken: "p23x", Prefix: "p"}, []string{"p24"}, 100, 1},
		{&quoratev1.ListPartitionsRequest{Prefix: "r"}, nil, 0, 1},
	} {
		name := fmt.Sprint(test.request)
		if got, pages := list(t, partitions, test.request, test.largest); !slices.Equal(got, test.want) || pages != test.pages {
			t.Errorf("%s: %d pages with %q; want %d with %q", name, pages, got, test.pages, test.want)
		}
	}

	for _, id := range ids[:3] {
		if _, err := partitions.BeginMigration(testContext(t), &quoratev1.BeginMigrationRequest{RequestId: "begin-" + id, Partition: id, To: "c"}); err != nil {
			t.Fatal(err)
		}
	}
	request := &quoratev1.ListMigrationsRequest{PageSize: 2}
	first, err := partitions.ListMigrations(testContext(t), request)
	if err != nil || len(first.GetPartitions()) != 2 || first.GetNextPageToken() != ids[1] {
		t.Fatalf("first page %v, %v", first, err)
	}
	request.PageToken = first.GetNextPageToken()
	if last, err := partitions.ListMigrations(testContext(t), request); err != nil || len(last.GetPartitions()) != 1 || last.GetNextPageToken() != "" {
		t.Errorf("last page %v, %v", last, err)
	}
}

// TestPagesOfPartitionsAreLimitedInBytes lets a page hold less than was asked for, in an answer of which the next begins where it ended.
func TestPagesOfPartitionsAreLimitedInBytes(t *testing.T) {
	_, partitions := openPartitions(t, Limits{MaxPageBytes: 60}, "p1", "p2", "p3", "p4", "p5")
	request := &quoratev1.ListPartitionsRequest{}
	var all []string
	for pages := 1; ; pages++ {
		page, err := partitions.ListPartitions(testContext(t), request)
		if err != nil || len(page.GetPartitions()) == 0 || len(page.GetPartitions()) > 4 || pages > 5 {
			t.Fatalf("page %d: %v, %v", pages, page, err)
		}
		for _, p := range page.GetPartitions() {
			all = append(all, p.GetId())
		}
		if request.PageToken = page.GetNextPageToken(); request.PageToken == "" {
			break
		}
	}
	if got := strings.Join(all, " "); got != "p1 p2 p3 p4 p5" {
		t.Errorf("all pages: %s", got)
	}
}

// TestAnEmptyPageMayHaveASuccessor asks for what comes after more partitions than one call looks at.
func TestAnEmptyPageMayHaveASuccessor(t *testing.T) {
	state := manyPartitions(t, fsm.MaxPartitionScan+1)
	h := serve(t, Config{Node: &scripted{read: func(context.Context) (node.View, error) { return node.View{State: state}, nil }}})
	partitions := quoratev1.NewPartitionServiceClient(h.dial(t, nil))
	page, err := partitions.ListPartitions(testContext(t), &quoratev1.ListPartitionsRequest{Placement: "last"})
	if err != nil || len(page.GetPartitions()) != 0 || page.GetNextPageToken() == "" {
		t.Fatalf("first page %v, %v", page, err)
	}
	page, err = partitions.ListPartitions(testContext(t), &quoratev1.ListPartitionsRequest{Placement: "last", PageToken: page.GetNextPageToken()})
	if err != nil || len(page.GetPartitions()) != 1 || page.GetNextPageToken() != "" {
		t.Errorf("second page %v, %v", page, err)
	}
}

// manyPartitions is a state with so many partitions, of which the last alone is at the placement "last".
func manyPartitions(t *testing.T, n int) *fsm.State {
	t.Helper()
	state := fsm.New()
	index := uint64(0)
	create := func(placement string, ids []string) {
		index++
		_, _, err := state.ApplyEntry(index, &logv1.Entry{Term: index, Commands: []*logv1.Command{{
			RequestId: strconv.FormatUint(index, 10), Body: &logv1.Command_CreatePartitions{CreatePartitions: &logv1.CreatePartitions{Ids: ids, Placement: placement}},
		}}})
		if err != nil {
			t.Fatal(err)
		}
	}
	for at := 0; at < n-1; {
		var ids []string
		for ; at < n-1 && len(ids) < fsm.MaxPartitionBatch; at++ {
			ids = append(ids, fmt.Sprintf("p%07d", at))
		}
		create("first", ids)
	}
	create("last", []string{"q"})
	if all, _ := state.PartitionCount(); all != n {
		t.Fatalf("%d partitions, want %d", all, n)
	}
	return state
}
