package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"quorate/cmd/quorate/migration"
	quoratev1 "quorate/proto/quorate/v1"
	"quorate/rpc"
)

// watched is a member whose streams end when the test says so.
type watched struct {
	quoratev1.UnimplementedEventServiceServer
	quoratev1.UnimplementedPartitionServiceServer
	address string
	// serve is one stream, counted from 1 over all members.
	serve func(n int, request *quoratev1.WatchEventsRequest, send func(revision uint64, events ...*quoratev1.Event)) error
	seen  *seenWatches
}

type seenWatches struct {
	mu   sync.Mutex
	from []string
}

func (w *watched) GetPartitionSettings(context.Context, *quoratev1.GetPartitionSettingsRequest) (*quoratev1.GetPartitionSettingsResponse, error) {
	return &quoratev1.GetPartitionSettingsResponse{Header: &quoratev1.ResponseHeader{Revision: 6}}, nil
}

func (w *watched) WatchEvents(request *quoratev1.WatchEventsRequest, stream quoratev1.EventService_WatchEventsServer) error {
	w.seen.mu.Lock()
	w.seen.from = append(w.seen.from, fmt.Sprintf("%s from %d", w.address, request.GetFromRevision()))
	n := len(w.seen.from)
	w.seen.mu.Unlock()
	return w.serve(n, request, func(revision uint64, events ...*quoratev1.Event) {
		_ = stream.Send(&quoratev1.WatchEventsResponse{Header: &quoratev1.ResponseHeader{Revision: revision}, Events: events})
	})
}

func startWatched(t *testing.T, w *watched) {
	t.Helper()
	w.address = serveFor(t, func(server *grpc.Server) {
		quoratev1.RegisterEventServiceServer(server, w)
		quoratev1.RegisterPartitionServiceServer(server, w)
	})
}

func moveEvent(revision uint64, sequence uint32) *quoratev1.Event {
	return &quoratev1.Event{Revision: revision, Sequence: sequence, Body: &quoratev1.Event_PartitionChanged{PartitionChanged: &quoratev1.PartitionChange{
		Transition: quoratev1.PartitionTransition_PARTITION_TRANSITION_BEGIN,
		Partition:  &quoratev1.Partition{Id: fmt.Sprintf("r%d-%d", revision, sequence), Placement: "east", Epoch: 2},
	}}}
}

// TestWatchOutlivesItsMembers breaks a watch in the middle of a revision, before anything came, and for good at the second member.
func TestWatchOutlivesItsMembers(t *testing.T) {
	before := goleak.IgnoreCurrent()
	t.Cleanup(func() { goleak.VerifyNone(t, before) }) // After the members have ended.
	seen := &seenWatches{}
	serve := func(n int, _ *quoratev1.WatchEventsRequest, send func(uint64, ...*quoratev1.Event)) error {
		switch n {
		case 1:
			send(7, moveEvent(7, 0))
			send(8, moveEvent(9, 0)) // Of revision 9 there is more.
			return status.Error(codes.Unavailable, "going down")
		case 2:
			return status.Error(codes.Unavailable, "not yet")
		case 3:
			send(9, moveEvent(9, 0), moveEvent(9, 1))
			send(12)
			return nil // An orderly end is none either.
		default:
			send(14, moveEvent(13, 0), moveEvent(14, 0))
			return nil
		}
	}
	one, two := &watched{serve: serve, seen: seen}, &watched{serve: serve, seen: seen}
	startWatched(t, one)
	startWatched(t, two)
	var out, said bytes.Buffer
	o := &options{endpoints: []string{one.address, two.address}, timeout: 10 * time.Second, output: outputTable, std: streams{out: &out, err: &said}}
	group, err := o.connect()
	if err != nil {
		t.Fatal(err)
	}
	defer group.Close()
	w := &partitionWatch{o: o, count: 5}
	if err := w.run(t.Context(), group); err != nil {
		t.Fatal(err)
	}
	var ids []string
	for line := range strings.Lines(out.String()) {
		ids = append(ids, strings.Fields(line)[2])
	}
	if want := []string{"r7-0", "r9-0", "r9-1", "r13-0", "r14-0"}; !slices.Equal(ids, want) {
		t.Errorf("printed %v, want %v", ids, want)
	}
	seen.mu.Lock()
	defer seen.mu.Unlock()
	want := []string{one.address + " from 7", two.address + " from 9", one.address + " from 9", two.address + " from 13"}
	if !slices.Equal(seen.from, want) {
		t.Errorf("streams %q, want %q", seen.from, want)
	}
	if !strings.Contains(said.String(), "the watch is lost, and goes on at revision 9 as soon as a member answers: going down") {
		t.Errorf("said %q", said.String())
	}
}

func TestWatchGivesUpWithTheReason(t *testing.T) {
	for want, failure := range map[string]error{
		"--from 3: the members remember transitions after revision 40 only: list the partitions, and watch on from there": refusal(codes.OutOfRange, rpc.ReasonCompacted, "gone",
			map[string]string{"revision": "40"}, ""),
		"you may not": status.Error(codes.PermissionDenied, "you may not"),
	} {
		member := &watched{seen: &seenWatches{}, serve: func(int, *quoratev1.WatchEventsRequest, func(uint64, ...*quoratev1.Event)) error { return failure }}
		startWatched(t, member)
		o := &options{endpoints: []string{member.address}, timeout: time.Second, std: streams{out: &bytes.Buffer{}, err: &bytes.Buffer{}}}
		group, err := o.connect()
		if err != nil {
			t.Fatal(err)
		}
		defer group.Close()
		err = (&partitionWatch{o: o, from: 3}).run(t.Context(), group)
		if err == nil || err.Error() != want || exitCode(err) != exitRemote {
			t.Errorf("error %v, exit code %d", err, exitCode(err))
		}
	}
	// Nobody comes back within the time-out.
	member := &watched{seen: &seenWatches{}, serve: func(int, *quoratev1.WatchEventsRequest, func(uint64, ...*quoratev1.Event)) error {
		return status.Error(codes.Unavailable, "down")
	}}
	startWatched(t, member)
	o := &options{endpoints: []string{member.address}, timeout: 200 * time.Millisecond, std: streams{out: &bytes.Buffer{}, err: &bytes.Buffer{}}}
	group, err := o.connect()
	if err != nil {
		t.Fatal(err)
	}
	defer group.Close()
	if err := (&partitionWatch{o: o, from: 3}).run(t.Context(), group); status.Code(err) != codes.Unavailable {
		t.Errorf("error %v", err)
	}
}

// TestWhatTheDriverIsTold: only a final answer is a refusal; all else may be otherwise the next time.
func TestWhatTheDriverIsTold(t *testing.T) {
	pending := refusal(codes.FailedPrecondition, "BARRIER_PENDING", "wait", map[string]string{"remaining": "3s"}, "")
	for _, err := range []error{
		&remoteError{unreached: true, err: broken}, &remoteError{unknown: true, err: ambiguity}, &remoteError{err: noLeader}, &remoteError{err: broken},
		&remoteError{err: status.Error(codes.DeadlineExceeded, "no answer")},
	} {
		if r := refusalOf(err); r != nil {
			t.Errorf("%v is told as the refusal %+v", err, r)
		}
	}
	r := refusalOf(&remoteError{err: pending})
	if r == nil || r.Reason != "BARRIER_PENDING" || r.Facts["remaining"] != "3s" || exitCode(r) != exitPrecondition {
		t.Errorf("%+v", r)
	}
	if r := refusalOf(errors.New("local")); r == nil || exitCode(r) != exitLocal {
		t.Errorf("%+v", r)
	}
	for code, err := range map[int]error{
		exitPrecondition: &fleetError{errs: []error{&migration.Stopped{}, r}},
		exitRemote:       &fleetError{errs: []error{&migration.Stopped{}, &migration.Unanswered{Err: &remoteError{unknown: true, err: ambiguity}}}},
		exitLocal:        &fleetError{errs: []error{&migration.Stopped{}, &migration.HookError{Err: errors.New("exit status 1")}}},
	} {
		if got := exitCode(err); got != code {
			t.Errorf("%v: exit code %d, want %d", err, got, code)
		}
	}
}
