package rpc

import (
	"context"
	"fmt"
	"testing"
	"time"

	"google.golang.org/grpc/codes"

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
