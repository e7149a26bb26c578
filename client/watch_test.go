package client

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"

	quoratev1 "quorate/proto/quorate/v1"
)

// fakeLog has the events of a group, as all of its members tell them.
type fakeLog struct {
	mu     sync.Mutex
	events []*quoratev1.Event
	// revision is that of the last command, of which there may be no events, and dropped that of the last event that is no longer kept.
	revision, dropped uint64
	grown             chan struct{}
	random            *rand.Rand
	// breaks says whether a stream breaks now and then.
	breaks bool
}

func newFakeLog(seed uint64) *fakeLog {
	return &fakeLog{grown: make(chan struct{}), random: rand.New(rand.NewPCG(seed, 0))}
}

// add adds a command with its events.
func (l *fakeLog) add(bodies ...*quoratev1.Event) uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.revision++
	for i, e := range bodies {
		e.Revision, e.Sequence = l.revision, uint32(i)
		l.events = append(l.events, e)
	}
	close(l.grown)
	l.grown = make(chan struct{})
	return l.revision
}

// next returns some of the events of a revision and later that come after a number of them, as one message.
func (l *fakeLog) next(from uint64, sent int) (resp *quoratev1.WatchEventsResponse, grown chan struct{}, cut bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	i := slices.IndexFunc(l.events, func(e *quoratev1.Event) bool { return e.GetRevision() >= from })
	if i < 0 {
		i = len(l.events)
	}
	rest := l.events[min(i+sent, len(l.events)):]
	n := len(rest)
	if n > 0 {
		n = 1 + l.random.IntN(min(n, 4))
	}
	resp = &quoratev1.WatchEventsResponse{Header: &quoratev1.ResponseHeader{Revision: l.revision}, Events: rest[:n]}
	if n < len(rest) {
		// Only what lies before the next event's revision is complete.
		resp.Header.Revision = rest[n].GetRevision() - 1
	}
	return resp, l.grown, l.breaks && l.random.IntN(3) == 0
}

// watch serves a watch as a member does.
func (l *fakeLog) watch(req *quoratev1.WatchEventsRequest, stream grpc.ServerStreamingServer[quoratev1.WatchEventsResponse]) error {
	l.mu.Lock()
	dropped, revision := l.dropped, l.revision
	l.mu.Unlock()
	if req.GetFromRevision() <= dropped {
		return refusal(codes.OutOfRange, ReasonCompacted, "compacted", map[string]string{"revision": fmt.Sprint(revision)})
	}
	for sent := 0; ; {
		resp, grown, cut := l.next(req.GetFromRevision(), sent)
		if cut {
			return broken
		}
		if err := stream.Send(resp); err != nil {
			return err
		}
		if sent += len(resp.GetEvents()); len(resp.GetEvents()) > 0 {
			continue
		}
		select {
		case <-grown:
		case <-stream.Context().Done():
			return stream.Context().Err()
		}
	}
}

func watchGroup(t *testing.T, size int, l *fakeLog) []*fakeMember {
	group := fakeGroup(t, size)
	for _, m := range group {
		m.watch = l.watch
	}
	return group
}

func someEvents(n int) []*quoratev1.Event {
	all := make([]*quoratev1.Event, n)
	for i := range all {
		all[i] = &quoratev1.Event{}
	}
	return all
}

// collect takes events until it has as many, or the watch ends.
func collect(ctx context.Context, w *Watch, n int) (found []string, err error) {
	for e, err := range w.Events(ctx) {
		if err != nil {
			return found, err
		}
		if found = append(found, fmt.Sprintf("%d.%d", e.GetRevision(), e.GetSequence())); len(found) == n {
			break
		}
	}
	return found, nil
}

// TestWatchMissesNothing breaks streams all the time, in the middle of revisions too, and stops and goes on taking events.
func TestWatchMissesNothing(t *testing.T) {
	l := newFakeLog(1)
	l.breaks = true
	c := openOn(t, watchGroup(t, 3, l), nil)
	var want []string
	add := func(rounds int) {
		for range rounds {
			n := l.random.IntN(6) // None, often.
			revision := l.add(someEvents(n)...)
			for i := range n {
				want = append(want, fmt.Sprintf("%d.%d", revision, i))
			}
		}
	}
	l.mu.Lock()
	random := rand.New(rand.NewPCG(2, 0))
	l.mu.Unlock()
	add(100)
	w := c.Watch(WatchOptions{FromRevision: 1})
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	var got []string
	for len(got) < len(want) {
		some, err := collect(ctx, w, min(1+random.IntN(40), len(want)-len(got)))
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, some...)
	}
	if !slices.Equal(got, want) {
		t.Errorf("told\n%v\nwant\n%v", got, want)
	}
	// What comes later is told as it comes.
	done := make(chan []string)
	go func() {
		some, err := collect(ctx, w, 1)
		if err != nil {
			t.Error(err)
		}
		done <- some
	}()
	revision := l.add(&quoratev1.Event{})
	if some := <-done; !slices.Equal(some, []string{fmt.Sprintf("%d.0", revision)}) {
		t.Errorf("told %v, want the one of revision %d", some, revision)
	}
}

func TestWatchFromNowOn(t *testing.T) {
	l := newFakeLog(1)
	for range 10 {
		l.add(someEvents(1)...)
	}
	group := watchGroup(t, 2, l)
	for _, m := range group {
		m.now = 10
	}
	// The first stream breaks before it tells anything, and meanwhile something happens.
	group[0].answer = first("WatchEvents", func(context.Context) error {
		l.add(someEvents(1)...)
		return broken
	})
	w := openOn(t, group, nil).Watch(WatchOptions{})
	if w.Revision() != 0 {
		t.Errorf("revision %d before anything was asked", w.Revision())
	}
	got, err := collect(t.Context(), w, 1)
	if err != nil || !slices.Equal(got, []string{"11.0"}) {
		t.Errorf("told %v, error %v", got, err)
	}
}

// TestWatchRevision shows that whoever keeps the revision, and starts anew from the next, misses nothing.
func TestWatchRevision(t *testing.T) {
	l := newFakeLog(1)
	l.add(someEvents(3)...)
	l.add()
	l.add()
	c := openOn(t, watchGroup(t, 1, l), nil)
	w := c.Watch(WatchOptions{FromRevision: 1})
	if _, err := collect(t.Context(), w, 2); err != nil || w.Revision() != 0 {
		t.Errorf("revision %d in the middle of the first, error %v", w.Revision(), err)
	}
	l.add(someEvents(2)...)
	if _, err := collect(t.Context(), w, 2); err != nil || w.Revision() != 3 {
		t.Errorf("revision %d in the middle of the fourth, error %v", w.Revision(), err)
	}
	got, err := collect(t.Context(), c.Watch(WatchOptions{FromRevision: w.Revision() + 1}), 2)
	if err != nil || !slices.Equal(got, []string{"4.0", "4.1"}) {
		t.Errorf("told %v, error %v", got, err)
	}
}

func TestWatchOfWhatIsNoLongerKept(t *testing.T) {
	l := newFakeLog(1)
	for range 10 {
		l.add(someEvents(1)...)
	}
	l.dropped = 5
	group := watchGroup(t, 2, l)
	c := openOn(t, group, nil)
	_, err := collect(t.Context(), c.Watch(WatchOptions{FromRevision: 3}), 1)
	if e := wantError[*CompactedError](t, err, "list again at revision 10 or later"); e.Revision != 10 {
		t.Errorf("revision %d", e.Revision)
	}
	if one, two := len(group[0].calls("WatchEvents")), len(group[1].calls("WatchEvents")); one != 1 || two != 1 {
		t.Errorf("the members were asked %d and %d times", one, two)
	}
	// One that was started anew keeps less than the others.
	short := newFakeLog(1)
	short.revision, short.dropped = 10, 10
	group[0].watch = short.watch
	c.mu.Lock()
	c.current = c.endpoints[0]
	c.mu.Unlock()
	got, err := collect(t.Context(), c.Watch(WatchOptions{FromRevision: 6}), 5)
	if err != nil || len(got) != 5 {
		t.Errorf("told %v, error %v", got, err)
	}
}

func TestWatchThatIsRefused(t *testing.T) {
	l := newFakeLog(1)
	group := watchGroup(t, 2, l)
	group[0].answer = always("WatchEvents", refusal(codes.InvalidArgument, ReasonInvalidArgument, `kinds[0]: "x" is no kind of event`, nil))
	_, err := collect(t.Context(), openOn(t, group, nil).Watch(WatchOptions{FromRevision: 1, Kinds: []string{"x"}}), 1)
	if ReasonOf(err) != ReasonInvalidArgument || len(group[1].calls("WatchEvents")) != 0 {
		t.Errorf("error %v", err)
	}
}

// TestWatchOfASilentMember lets a member keep the stream open and say nothing.
func TestWatchOfASilentMember(t *testing.T) {
	l := newFakeLog(1)
	l.add(someEvents(1)...)
	group := watchGroup(t, 2, l)
	group[0].watch = func(_ *quoratev1.WatchEventsRequest, stream grpc.ServerStreamingServer[quoratev1.WatchEventsResponse]) error {
		return hangs(stream.Context())
	}
	w := openOn(t, group, nil).Watch(WatchOptions{FromRevision: 1})
	w.silence = 100 * time.Millisecond
	if got, err := collect(t.Context(), w, 1); err != nil || len(got) != 1 || len(group[1].calls("WatchEvents")) != 1 {
		t.Errorf("told %v, error %v", got, err)
	}
}

func TestWatchEndsWithItsContext(t *testing.T) {
	group := watchGroup(t, 1, newFakeLog(1))
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	c := openOn(t, group, nil)
	if _, err := collect(ctx, c.Watch(WatchOptions{FromRevision: 1}), 1); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("error %v", err)
	}
	if err := c.Close(); err != nil {
		t.Error(err)
	}
	if _, err := collect(t.Context(), c.Watch(WatchOptions{FromRevision: 1}), 1); !errors.Is(err, errClientClosed) {
		t.Errorf("error %v", err)
	}
}

func created(placement string, ids ...string) *quoratev1.Event {
	return &quoratev1.Event{Body: &quoratev1.Event_PartitionsCreated{PartitionsCreated: &quoratev1.PartitionsCreated{Ids: ids, Placement: placement, Epoch: 1}}}
}

func changed(transition quoratev1.PartitionTransition, id string, phase quoratev1.PartitionPhase, placement string, epoch, revision uint64) *quoratev1.Event {
	return &quoratev1.Event{Body: &quoratev1.Event_PartitionChanged{PartitionChanged: &quoratev1.PartitionChange{
		Transition: transition, Partition: &quoratev1.Partition{Id: id, Phase: phase, Placement: placement, Epoch: epoch, Revision: revision},
	}}}
}

// TestFollowPartitions changes things between the pages of the list, lets the events be dropped, and changes more.
func TestFollowPartitions(t *testing.T) {
	const (
		cutOver = quoratev1.PartitionTransition_PARTITION_TRANSITION_CUTOVER
		deleted = quoratev1.PartitionTransition_PARTITION_TRANSITION_DELETE
		report  = quoratev1.PartitionTransition_PARTITION_TRANSITION_REPORT
	)
	l := newFakeLog(1)
	l.add(created("b1", "a", "b", "c", "d", "x")) // 1
	group := watchGroup(t, 1, l)
	page := func(revision uint64, next string, partitions ...*quoratev1.Partition) *quoratev1.ListPartitionsResponse {
		return &quoratev1.ListPartitionsResponse{Header: &quoratev1.ResponseHeader{Revision: revision}, Partitions: partitions, NextPageToken: next}
	}
	partition := func(id string, phase quoratev1.PartitionPhase, placement string, epoch, revision uint64) *quoratev1.Partition {
		return &quoratev1.Partition{Id: id, Phase: phase, Placement: placement, Epoch: epoch, Revision: revision}
	}
	// After the first page a is changed, which the page doesn't know, and c, which the second one does; d is deleted.
	l.add(changed(report, "b", active, "b1", 1, 1))   // 2
	l.add(changed(cutOver, "a", cutover, "b1", 3, 3)) // 3
	l.add(changed(cutOver, "c", cutover, "b1", 4, 4)) // 4
	l.add(changed(deleted, "d", active, "b1", 1, 1))  // 5
	group[0].pages = []*quoratev1.ListPartitionsResponse{
		page(1, "b", partition("a", active, "b1", 1, 1), partition("b", active, "b1", 1, 1)),
		page(5, "", partition("c", cutover, "b1", 4, 4)),
	}
	c := openOn(t, group, nil)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	var synced []uint64
	var got []string
	for r, err := range c.FollowPartitions(ctx, FollowOptions{Synced: func(revision uint64) { synced = append(synced, revision) }}) {
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, fmt.Sprintf("%s %d %s/%s %d", r.GetPartition(), r.GetPhase(), r.GetReadPlacement(), r.GetWritePlacement(), r.GetRevision()))
		switch len(got) {
		case 4:
			l.add(created("b2", "e")) // 6
		case 5:
			// The stream breaks, and what it would go on from is no longer kept: c is gone, b has changed, and f is new.
			l.mu.Lock()
			l.dropped = 20
			l.revision = 20
			l.mu.Unlock()
			group[0].set(func() {
				group[0].pages = []*quoratev1.ListPartitionsResponse{page(20, "",
					partition("a", cutover, "b1", 3, 3), partition("b", draining, "b1", 9, 9), partition("e", active, "b2", 1, 6), partition("f", active, "b3", 1, 11))}
			})
			group[0].server.Stop()
			again := &fakeMember{id: "m1", members: group[0].members, pages: group[0].pages, watch: l.watch}
			again.listen(t, group[0].address, nil)
		case 8:
			l.add(changed(deleted, "b", active, "b1", 9, 9)) // 21
		}
		if len(got) == 9 {
			break
		}
	}
	slices.Sort(got[5:8])
	want := []string{
		"a 1 b1/b1 1", "b 1 b1/b1 1", "c 3 b1/ 4", "a 3 b1/ 3", "e 1 b2/b2 6",
		"b 2 b1/b1 9", "c 0 / 20", "f 1 b3/b3 11", "b 0 / 21",
	}
	if !slices.Equal(got, want) {
		t.Errorf("told\n%q\nwant\n%q", got, want)
	}
	if !slices.Equal(synced, []uint64{5, 20}) {
		t.Errorf("synced at %v", synced)
	}
}

func TestFollowSomePartitions(t *testing.T) {
	l := newFakeLog(1)
	l.add(created("b1", "x-1", "y-1"))
	group := watchGroup(t, 1, l)
	// The first list fails, which is no end.
	group[0].answer = first("ListPartitions", fails(noLeader))
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	n := 0
	for r, err := range openOn(t, group, nil).FollowPartitions(ctx, FollowOptions{Prefix: "x-"}) {
		if err != nil {
			if !errors.Is(err, context.Canceled) {
				t.Error(err)
			}
			continue
		}
		if n++; !proto.Equal(r, at("x-1", active, "b1", 1, 1)) {
			t.Errorf("told %v", r)
		}
		cancel()
	}
	if n != 1 {
		t.Errorf("told %d partitions", n)
	}
}
