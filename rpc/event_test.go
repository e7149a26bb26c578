package rpc

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	"quorate/node"
	quoratev1 "quorate/proto/quorate/v1"
)

func TestWatchEvents(t *testing.T) {
	h := serve(t, Config{Node: openNode(t, node.Limits{WatchProgress: 20 * time.Millisecond})})
	conn := h.dial(t, nil)
	first := mustPublish(t, conn, "p1", 0, lineA())
	events := quoratev1.NewEventServiceClient(conn)
	stream, err := events.WatchEvents(testContext(t), &quoratev1.WatchEventsRequest{FromRevision: first.GetRevision(), Kinds: []string{"topology_published"}})
	if err != nil {
		t.Fatal(err)
	}
	mustPublish(t, conn, "p2", 1, lineA())
	mustPublish(t, conn, "p3", 2, lineA())
	last := mustPublish(t, conn, "p4", 3, lineA())
	var numbers []uint64
	for progress := false; len(numbers) < 4 || !progress; {
		message, err := stream.Recv()
		if err != nil {
			t.Fatal(err)
		}
		for _, event := range message.GetEvents() {
			if event.GetTopologyPublished() == nil {
				t.Errorf("unwanted %v", event)
			}
			numbers = append(numbers, event.GetTopologyPublished().GetNumber())
		}
		header := message.GetHeader()
		if header.GetMember() != "m1" || header.GetRevision() == 0 {
			t.Errorf("header %v", header)
		}
		progress = len(message.GetEvents()) == 0 && header.GetRevision() >= last.GetRevision()
	}
	if fmt.Sprint(numbers) != "[1 2 3 4]" {
		t.Errorf("generations %v", numbers)
	}
}

// TestWatchesOfPartitions tells of the partitions that are watched and of nothing else, however many were created with them.
func TestWatchesOfPartitions(t *testing.T) {
	h, partitions := openPartitions(t, Limits{MaxPageBytes: 1000})
	conn := h.dial(t, nil)
	var ids []string
	for i := range 1000 {
		ids = append(ids, fmt.Sprintf("p%03d", i))
	}
	created := mustCreate(t, partitions, "a", ids...)
	mustCreate(t, partitions, "b", "q1", "q2")
	for _, id := range []string{"p007", "p008", "q1"} {
		if _, err := partitions.BeginMigration(testContext(t), &quoratev1.BeginMigrationRequest{RequestId: "begin-" + id, Partition: id, To: "c"}); err != nil {
			t.Fatal(err)
		}
	}
	gates := quoratev1.NewGateServiceClient(conn)
	last := register(t, gates, "i1", session).GetHeader().GetRevision()
	for _, test := range []struct {
		name       string
		partitions []string
		kinds      []string
		want       []string
	}{
		{"some", []string{"p999", "p007", "q1", "none"}, nil, []string{"a [p007 p999]", "b [q1]", "p007", "q1"}},
		{"one kind", []string{"p007", "q1"}, []string{"partition_changed", "instance_changed"}, []string{"p007", "q1"}},
		{"all of a batch", ids, []string{"partitions_created"}, []string{fmt.Sprint("a ", ids)}},
		{"none", []string{"none"}, nil, nil},
	} {
		t.Run(test.name, func(t *testing.T) {
			stream, err := quoratev1.NewEventServiceClient(conn).WatchEvents(testContext(t), &quoratev1.WatchEventsRequest{
				FromRevision: created.GetHeader().GetRevision(), Partitions: test.partitions, Kinds: test.kinds,
			})
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for revision := uint64(0); revision < last; {
				message, err := stream.Recv()
				if err != nil {
					t.Fatal(err)
				}
				for _, event := range message.GetEvents() {
					switch body := event.GetBody().(type) {
					case *quoratev1.Event_PartitionsCreated:
						got = append(got, fmt.Sprint(body.PartitionsCreated.GetPlacement(), " ", body.PartitionsCreated.GetIds()))
					case *quoratev1.Event_PartitionChanged:
						got = append(got, body.PartitionChanged.GetPartition().GetId())
					default:
						t.Errorf("unwanted %v", event)
					}
				}
				revision = message.GetHeader().GetRevision()
			}
			if !slices.Equal(got, test.want) {
				t.Errorf("got  %q\nwant %q", got, test.want)
			}
		})
	}
	// What one watch was told in part is whole for all others.
	stream, err := quoratev1.NewEventServiceClient(conn).WatchEvents(testContext(t), &quoratev1.WatchEventsRequest{FromRevision: created.GetHeader().GetRevision()})
	if err != nil {
		t.Fatal(err)
	}
	message, err := stream.Recv()
	if err != nil || len(message.GetEvents()) == 0 || len(message.GetEvents()[0].GetPartitionsCreated().GetIds()) != 1000 {
		t.Errorf("the first event is %v, %v", message, err)
	}
}

func TestAbout(t *testing.T) {
	wanted := map[string]bool{"p1": true, "p3": true}
	event := &quoratev1.Event{
		Revision: 9, Sequence: 2, RequestId: "r", Generation: 4, Actor: &quoratev1.Actor{Name: "otto"}, ClusterTime: durationpb.New(1),
		Body: &quoratev1.Event_PartitionsCreated{PartitionsCreated: &quoratev1.PartitionsCreated{Ids: []string{"p1", "p2", "p3"}, Placement: "a", Epoch: 5, Note: "n"}},
	}
	whole := proto.CloneOf(event)
	part := about(wanted, event)
	if !proto.Equal(event, whole) {
		t.Errorf("the event itself became %v", event)
	}
	// But for the ids the part says what the whole does.
	whole.GetPartitionsCreated().Ids = []string{"p1", "p3"}
	if !proto.Equal(part, whole) {
		t.Errorf("the part is %v", part)
	}
	if about(map[string]bool{"p1": true, "p2": true, "p3": true, "p4": true}, event) != event {
		t.Error("an event of which all is wanted was copied")
	}
	for _, none := range []*quoratev1.Event{
		{Body: &quoratev1.Event_PartitionsCreated{PartitionsCreated: &quoratev1.PartitionsCreated{Ids: []string{"p2"}}}},
		{Body: &quoratev1.Event_PartitionChanged{PartitionChanged: &quoratev1.PartitionChange{Partition: &quoratev1.Partition{Id: "p2"}}}},
		{Body: &quoratev1.Event_PartitionSettingsChanged{}}, {Body: &quoratev1.Event_InstanceChanged{}}, {Body: &quoratev1.Event_TopologyPublished{}}, {},
	} {
		if got := about(wanted, none); got != nil {
			t.Errorf("about p1 or p3: %v", got)
		}
	}
}

func TestWatchEventsRefusesUnknownKinds(t *testing.T) {
	h := serve(t, Config{Node: &scripted{}})
	stream, err := quoratev1.NewEventServiceClient(h.dial(t, nil)).WatchEvents(testContext(t),
		&quoratev1.WatchEventsRequest{Kinds: []string{"lease_begun", "lease_lost"}})
	if err != nil {
		t.Fatal(err)
	}
	_, err = stream.Recv()
	assertRefused(t, err, codes.InvalidArgument, ReasonInvalidArgument, "kinds[1]")
}

func TestACompactedWatchNamesTheRevision(t *testing.T) {
	h := serve(t, Config{Node: openNode(t, node.Limits{WatchEvents: 2})})
	conn := h.dial(t, nil)
	for i := range uint64(4) {
		mustPublish(t, conn, fmt.Sprint("p", i), i, lineA())
	}
	stream, err := quoratev1.NewEventServiceClient(conn).WatchEvents(testContext(t), &quoratev1.WatchEventsRequest{FromRevision: 1})
	if err != nil {
		t.Fatal(err)
	}
	_, err = stream.Recv()
	assertRefused(t, err, codes.OutOfRange, ReasonCompacted, "")
	if revision := detailsOf(err).info.GetMetadata()["revision"]; revision == "" || revision == "0" {
		t.Errorf("metadata %v", detailsOf(err).info.GetMetadata())
	}
}

func TestMessagesOfAWatchHaveALimit(t *testing.T) {
	h := serve(t, Config{Node: openNode(t, node.Limits{}), Limits: Limits{MaxPageBytes: 1}})
	conn := h.dial(t, nil)
	first := mustPublish(t, conn, "p1", 0, lineA())
	second := mustPublish(t, conn, "p2", 1, lineA())
	stream, err := quoratev1.NewEventServiceClient(conn).WatchEvents(testContext(t), &quoratev1.WatchEventsRequest{FromRevision: first.GetRevision()})
	if err != nil {
		t.Fatal(err)
	}
	for seen := uint64(0); seen < second.GetRevision(); {
		message, err := stream.Recv()
		if err != nil {
			t.Fatal(err)
		}
		if len(message.GetEvents()) > 1 {
			t.Fatalf("%d events in a message for which one is too large", len(message.GetEvents()))
		}
		for _, event := range message.GetEvents() {
			if event.GetRevision() < seen {
				t.Errorf("revision %d after %d", event.GetRevision(), seen)
			}
			seen = event.GetRevision()
		}
	}
}

func TestFitting(t *testing.T) {
	event := &quoratev1.Event{RequestId: "0123456789"} // 12 bytes
	events := []*quoratev1.Event{event, event, event}
	for limit, want := range map[int]int{0: 1, 12: 1, 23: 1, 24: 2, 36: 3, 1000: 3} {
		if got := fitting(events, limit); got != want {
			t.Errorf("fitting in %d bytes: %d, want %d", limit, got, want)
		}
	}
	if fitting[*quoratev1.Event](nil, 10) != 0 {
		t.Error("of nothing, something fits")
	}
}

func TestWatchesAreLimitedAndEndWithTheServer(t *testing.T) {
	h := serve(t, Config{Node: openNode(t, node.Limits{}), Limits: Limits{MaxWatches: 1}})
	conn := h.dial(t, nil)
	events := quoratev1.NewEventServiceClient(conn)
	published := mustPublish(t, conn, "p1", 0, lineA())
	open := func(ctx context.Context) quoratev1.EventService_WatchEventsClient {
		t.Helper()
		stream, err := events.WatchEvents(ctx, &quoratev1.WatchEventsRequest{FromRevision: published.GetRevision()})
		if err != nil {
			t.Fatal(err)
		}
		return stream
	}
	first := open(testContext(t))
	if _, err := first.Recv(); err != nil {
		t.Fatal(err)
	}
	_, err := open(testContext(t)).Recv()
	assertRefused(t, err, codes.ResourceExhausted, ReasonTooManyWatches, "")
	h.stop()
	for err = nil; err == nil; {
		_, err = first.Recv()
	}
	assertRefused(t, err, codes.Unavailable, ReasonShuttingDown, "")
}

func TestListEventsGoesBackPageByPage(t *testing.T) {
	h := serve(t, Config{Node: openNode(t, node.Limits{})})
	conn := h.dial(t, nil)
	events := quoratev1.NewEventServiceClient(conn)
	for i := range uint64(3) {
		mustPublish(t, conn, fmt.Sprint("p", i), i, lineA())
	}
	all, err := events.ListEvents(testContext(t), &quoratev1.ListEventsRequest{Limit: 1000})
	if err != nil {
		t.Fatal(err)
	}
	if !all.GetComplete() || all.GetKnownFrom() != 1 || len(all.GetEvents()) < 5 || all.GetHeader().GetRevision() < all.GetEvents()[0].GetRevision() {
		t.Fatalf("%d events, complete %v from %d, header %v", len(all.GetEvents()), all.GetComplete(), all.GetKnownFrom(), all.GetHeader())
	}
	var paged []*quoratev1.Event
	request := &quoratev1.ListEventsRequest{Limit: 2}
	for complete := false; !complete; {
		page, err := events.ListEvents(testContext(t), request)
		if err != nil {
			t.Fatal(err)
		}
		if n := len(page.GetEvents()); n == 0 || n > 2 || n < 2 && !page.GetComplete() {
			t.Fatalf("a page of %d", n)
		}
		paged = append(paged, page.GetEvents()...)
		last := page.GetEvents()[len(page.GetEvents())-1]
		request.BeforeRevision, request.BeforeSequence = last.GetRevision(), last.GetSequence()
		complete = page.GetComplete()
	}
	if len(paged) != len(all.GetEvents()) {
		t.Fatalf("%d events in pages, %d in one list", len(paged), len(all.GetEvents()))
	}
	for i := range paged {
		if !proto.Equal(paged[i], all.GetEvents()[i]) {
			t.Errorf("event %d: %v in a page, %v in the list", i, paged[i], all.GetEvents()[i])
		}
	}
}

func TestListEventsFilters(t *testing.T) {
	h := serve(t, Config{Node: openNode(t, node.Limits{})})
	conn := h.dial(t, nil)
	mustPublish(t, conn, "p1", 0, lineA())
	for _, server := range []string{"m1", "m2"} {
		if _, err := quoratev1.NewMaintenanceServiceClient(conn).SetMaintenance(testContext(t), &quoratev1.SetMaintenanceRequest{
			RequestId: "maintain-" + server, Server: server, Active: true,
		}); err != nil {
			t.Fatal(err)
		}
	}
	list := func(request *quoratev1.ListEventsRequest) (ids []string) {
		t.Helper()
		answer, err := quoratev1.NewEventServiceClient(conn).ListEvents(testContext(t), request)
		if err != nil {
			t.Fatal(err)
		}
		for _, event := range answer.GetEvents() {
			if event.GetRolloutChanged() == nil && event.GetMemberChanged() == nil {
				ids = append(ids, event.GetRequestId())
			}
		}
		return ids
	}
	for _, c := range []struct {
		request *quoratev1.ListEventsRequest
		want    string
	}{
		{&quoratev1.ListEventsRequest{Kinds: []string{"maintenance_changed"}}, "[maintain-m2 maintain-m1]"},
		{&quoratev1.ListEventsRequest{Kinds: []string{"maintenance_changed"}, Limit: 1}, "[maintain-m2]"},
		// A server's set is the one that it is in now, where the event names none.
		{&quoratev1.ListEventsRequest{Set: "line-a"}, "[maintain-m2 maintain-m1 p1]"},
		{&quoratev1.ListEventsRequest{Set: "line-b"}, "[]"},
		{&quoratev1.ListEventsRequest{Server: "m1"}, "[maintain-m1 p1]"},
		{&quoratev1.ListEventsRequest{Server: "m1", Set: "line-b"}, "[]"},
	} {
		if got := fmt.Sprint(list(c.request)); got != c.want {
			t.Errorf("%v: %s, want %s", c.request, got, c.want)
		}
	}
	_, err := quoratev1.NewEventServiceClient(conn).ListEvents(testContext(t), &quoratev1.ListEventsRequest{Kinds: []string{"lease_lost"}})
	assertRefused(t, err, codes.InvalidArgument, ReasonInvalidArgument, "kinds[0]")
}

func TestListEventsOfOnePartition(t *testing.T) {
	h, partitions := openPartitions(t, Limits{}, "p1", "p2", "p3")
	for _, id := range []string{"p2", "p1"} {
		if _, err := partitions.SetPlacement(testContext(t), &quoratev1.SetPlacementRequest{RequestId: "place-" + id, Partition: id, Placement: "b"}); err != nil {
			t.Fatal(err)
		}
	}
	answer, err := quoratev1.NewEventServiceClient(h.dial(t, nil)).ListEvents(testContext(t), &quoratev1.ListEventsRequest{Partition: "p1"})
	if err != nil {
		t.Fatal(err)
	}
	list := answer.GetEvents()
	if len(list) != 2 || list[0].GetRequestId() != "place-p1" || fmt.Sprint(list[1].GetPartitionsCreated().GetIds()) != "[p1]" || !answer.GetComplete() {
		t.Errorf("%v", answer)
	}
	_, err = quoratev1.NewEventServiceClient(h.dial(t, nil)).ListEvents(testContext(t), &quoratev1.ListEventsRequest{Partition: "?"})
	assertRefused(t, err, codes.InvalidArgument, ReasonInvalidArgument, "partition")
}

func TestListEventsTellsHowFarItKnows(t *testing.T) {
	h := serve(t, Config{Node: openNode(t, node.Limits{WatchEvents: 2}), Limits: Limits{MaxPageBytes: 1}})
	conn := h.dial(t, nil)
	first := mustPublish(t, conn, "p0", 0, lineA())
	for i := range uint64(3) {
		mustPublish(t, conn, fmt.Sprint("p", i+1), i+1, lineA())
	}
	answer, err := quoratev1.NewEventServiceClient(conn).ListEvents(testContext(t), &quoratev1.ListEventsRequest{})
	if err != nil {
		t.Fatal(err)
	}
	// One event is always sent, whatever its size, and the rest is the next page's.
	if len(answer.GetEvents()) != 1 || answer.GetComplete() || answer.GetKnownFrom() <= first.GetRevision() {
		t.Errorf("%d events, complete %v from %d", len(answer.GetEvents()), answer.GetComplete(), answer.GetKnownFrom())
	}
}
