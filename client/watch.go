package client

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"strconv"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"

	quoratev1 "quorate/proto/quorate/v1"
)

// watchSilence is after what time without a word a watch goes on at another member. A member tells every 5 s that nothing happened.
const watchSilence = 15 * time.Second

// watchDesc is that of EventService.WatchEvents.
var watchDesc = &quoratev1.EventService_ServiceDesc.Streams[0]

// CompactedError means that no member keeps the events any more that a watch asked for. What they told has to be listed; a watch from the revision of the
// list, plus one, goes on from there.
type CompactedError struct {
	// Revision is a revision of the group from which on there are events: a list that reflects it misses nothing.
	Revision uint64
}

// Error implements error.
func (e *CompactedError) Error() string {
	return fmt.Sprintf("client: the events asked for are no longer kept; list again at revision %d or later", e.Revision)
}

// WatchOptions say which events a watch is of.
type WatchOptions struct {
	// FromRevision is the first revision of which events are wanted; 0 means whatever happens after Events was called.
	FromRevision uint64
	// Kinds are names of fields of quoratev1.Event's body, such as partition_changed; empty means all. At most 32.
	Kinds []string
	// Partitions restricts the watch to events of these; empty means all events. At most 1000.
	Partitions []string
}

// Watch is a place in the stream of events. It is used by one goroutine at a time.
type Watch struct {
	client  *Client
	options WatchOptions
	// next is the first revision of which not all events were told; 0 before it is known.
	next uint64
	// revision and sequence are those of the last event that was.
	revision uint64
	sequence uint32
	told     bool
}

// Watch prepares a watch. Nothing is asked for before Events.
func (c *Client) Watch(options WatchOptions) *Watch {
	return &Watch{client: c, options: options, next: options.FromRevision}
}

// Revision is the one up to which all events have been told, those included of which the watch was not; 0 before that is known. A watch from the next one
// misses nothing.
func (w *Watch) Revision() uint64 {
	if w.next == 0 {
		return 0
	}
	return w.next - 1
}

// Events tells events in order, none left out and none twice, and goes on at another member for as long as ctx lets it. The last pair has the error that
// ended it, which is ctx's, a *CompactedError, or an *Error that no member would give differently. After a break, Events goes on where it stopped. Nothing is
// read ahead but what is under way: a caller who is slower than the group for long ends up with a *CompactedError.
func (w *Watch) Events(ctx context.Context) iter.Seq2[*quoratev1.Event, error] {
	return func(yield func(*quoratev1.Event, error) bool) {
		pause := pauseLeast
		compacted := map[*endpoint]bool{}
		for {
			progress, err := w.once(ctx, compacted, yield)
			switch {
			case err == nil:
				return // The caller has had enough.
			case ctx.Err() != nil:
				yield(nil, ctx.Err())
				return
			case isFinal(err):
				yield(nil, err)
				return
			}
			if progress {
				pause = pauseLeast
				clear(compacted)
			}
			rest(ctx, pause)
			pause = min(2*pause, pauseMost)
		}
	}
}

// isFinal says whether a watch that failed would fail elsewhere too.
func isFinal(err error) bool {
	var compacted *CompactedError
	if errors.As(err, &compacted) || errors.Is(err, errClientClosed) {
		return true
	}
	e := AsError(err)
	return e != nil && e.Code != codes.OutOfRange && verdictOf(e) == final
}

// once watches at one member until that fails. No error means that the caller has had enough, and progress that something was learned.
func (w *Watch) once(ctx context.Context, compacted map[*endpoint]bool, yield func(*quoratev1.Event, error) bool) (progress bool, err error) {
	if w.next == 0 {
		if w.next, err = w.client.now(ctx); err != nil {
			return false, err
		}
		w.next++
	}
	// Whatever becomes of it, the stream does not outlive this.
	streaming, cancel := context.WithCancel(ctx)
	defer cancel()
	silence := time.AfterFunc(watchSilence, cancel)
	defer silence.Stop()
	stream, e, err := w.open(streaming, compacted)
	if err != nil {
		return false, err
	}
	for {
		resp := &quoratev1.WatchEventsResponse{}
		silence.Reset(watchSilence)
		err := stream.RecvMsg(resp)
		silence.Stop()
		switch {
		case err == nil:
		case errors.Is(err, io.EOF):
			return progress, io.ErrUnexpectedEOF // A member ends a watch with a reason only.
		case ReasonOf(err) == ReasonCompacted:
			return progress, w.client.compacted(e, compacted, err)
		case streaming.Err() != nil && ctx.Err() == nil:
			w.client.failed(e)
			return progress, err
		default:
			return progress, err
		}
		progress = true
		for _, event := range resp.GetEvents() {
			if w.told && (event.GetRevision() < w.revision || event.GetRevision() == w.revision && event.GetSequence() <= w.sequence) {
				continue
			}
			w.told, w.revision, w.sequence = true, event.GetRevision(), event.GetSequence()
			w.next = max(w.next, event.GetRevision())
			if !yield(event, nil) {
				return true, nil
			}
		}
		w.next = max(w.next, resp.GetHeader().GetRevision()+1)
	}
}

// open opens the stream at a member that has not said yet that it no longer keeps the events.
func (w *Watch) open(ctx context.Context, compacted map[*endpoint]bool) (grpc.ClientStream, *endpoint, error) {
	stream, e, err := w.client.stream(ctx, compacted, watchDesc, quoratev1.EventService_WatchEvents_FullMethodName)
	if err != nil {
		return nil, nil, err
	}
	err = stream.SendMsg(&quoratev1.WatchEventsRequest{FromRevision: w.next, Kinds: w.options.Kinds, Partitions: w.options.Partitions})
	if err == nil {
		err = stream.CloseSend()
	}
	if errors.Is(err, io.EOF) {
		err = nil // The stream has ended already, and receiving says why.
	}
	return stream, e, err
}

// compacted notes that a member no longer keeps the events, and returns what the watch makes of it: a *CompactedError once nobody is left to ask. One
// that was started anew keeps less than others.
func (c *Client) compacted(at *endpoint, by map[*endpoint]bool, err error) error {
	by[at] = true
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, e := range c.endpoints {
		if e.ready && !by[e] {
			return err
		}
	}
	revision, _ := strconv.ParseUint(AsError(err).Details["revision"], 10, 64)
	return &CompactedError{Revision: revision}
}

// now returns the group's revision, by the cheapest linearizable read that everybody may make.
func (c *Client) now(ctx context.Context) (uint64, error) {
	settings, err := c.Partitions().GetPartitionSettings(ctx, &quoratev1.GetPartitionSettingsRequest{})
	return settings.GetHeader().GetRevision(), err
}
