package node

import (
	"context"
	"iter"
	"sort"
	"sync"
	"time"

	quoratev1 "quorate/proto/quorate/v1"
)

// history keeps the latest events in a ring that all watches share. A watch is only a place in it: one that lags loses its place and is told
// so, and holds up nobody.
type history struct {
	mu   sync.Mutex
	ring []*quoratev1.Event
	// first and end are the sequence numbers of the oldest event kept and of the next to come; an event's slot is its number modulo len(ring).
	first, end uint64
	// dropped is the highest revision of which an event is no longer kept, or was never seen here.
	dropped uint64
	// revision is the last applied one: every event up to it is in the ring or was dropped.
	revision uint64
	// grown is closed when revision moves.
	grown chan struct{}
}

func newHistory(size int) *history {
	return &history{ring: make([]*quoratev1.Event, size), grown: make(chan struct{})}
}

func (h *history) add(revision uint64, events []*quoratev1.Event) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if revision <= h.revision {
		return
	}
	for _, e := range events {
		if h.end-h.first == uint64(len(h.ring)) {
			h.dropped = h.at(h.first).Revision
			h.first++
		}
		h.ring[h.end%uint64(len(h.ring))] = e
		h.end++
	}
	h.revision = revision
	h.wake()
}

// reset forgets all events, after a snapshot took the place of the entries up to a revision.
func (h *history) reset(revision uint64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	clear(h.ring)
	// One number is skipped, so that even a watch that had seen everything finds itself behind.
	h.end++
	h.first, h.dropped, h.revision = h.end, revision, revision
	h.wake()
}

// reach waits until everything up to a revision is in the history.
func (h *history) reach(ctx context.Context, revision uint64) error {
	for {
		h.mu.Lock()
		reached, grown := h.revision >= revision, h.grown
		h.mu.Unlock()
		if reached {
			return nil
		}
		select {
		case <-grown:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// partitionsSince returns the partitions whose owner, phase or epoch changed after a revision, and the revision up to which that holds. It is not
// complete where the history doesn't reach back so far. What was created since is left out: nobody knows anything of it that could be wrong.
func (h *history) partitionsSince(revision uint64) (ids []string, upTo uint64, complete bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if revision < h.dropped {
		return nil, h.revision, false
	}
	first := h.first + uint64(sort.Search(int(h.end-h.first), func(i int) bool { return h.at(h.first+uint64(i)).Revision > revision }))
	known := map[string]bool{}
	for ; first < h.end; first++ {
		if id := h.at(first).GetPartitionChanged().GetPartition().GetId(); id != "" && !known[id] {
			known[id] = true
			ids = append(ids, id)
		}
	}
	return ids, h.revision, true
}

func (h *history) at(number uint64) *quoratev1.Event { return h.ring[number%uint64(len(h.ring))] }

// interrupt wakes every watch, so that it looks whether it may go on.
func (h *history) interrupt() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.wake()
}

func (h *history) wake() {
	close(h.grown)
	h.grown = make(chan struct{})
}

// older returns at most limit events with numbers below the given one, newest first.
func (h *history) older(before uint64, limit int) (events []*quoratev1.Event) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for number := before; number > h.first && len(events) < limit; number-- {
		events = append(events, h.at(number-1))
	}
	return events
}

// Kept is what a member remembered of the events at one moment.
type Kept struct {
	// Revision is the last one that is reflected, and From the first of which every event was kept.
	Revision, From uint64

	history *history
	end     uint64 // the number of the first event after it
}

// keptBatch is how many events are taken at once, so that a long way back never holds up what is applied meanwhile.
const keptBatch = 256

// Events returns what is kept of the events, once it reflects a revision. The error is one of kind Deadline if ctx ends before.
func (n *Node) Events(ctx context.Context, least uint64) (*Kept, error) {
	if err := n.usable("events"); err != nil {
		return nil, err
	}
	h := n.machine.events
	for {
		h.mu.Lock()
		kept, grown := &Kept{Revision: h.revision, From: h.dropped + 1, history: h, end: h.end}, h.grown
		h.mu.Unlock()
		if kept.Revision >= least {
			return kept, nil
		}
		select {
		case <-grown:
		case <-n.stopping:
			return nil, &Error{Op: "events", Kind: Shutdown}
		case <-ctx.Done():
			return nil, &Error{Op: "events", Kind: Deadline, Err: ctx.Err()}
		}
	}
}

// Backward goes through the events, newest first. What is forgotten meanwhile is left out.
func (k *Kept) Backward() iter.Seq[*quoratev1.Event] {
	return func(yield func(*quoratev1.Event) bool) {
		next := k.end
		for {
			events := k.history.older(next, keptBatch)
			for _, e := range events {
				if !yield(e) {
					return
				}
			}
			if len(events) == 0 {
				return
			}
			next -= uint64(len(events))
		}
	}
}

// Watch is a place in the stream of events. It is used by one goroutine at a time.
type Watch struct {
	node *Node
	// from is the first revision wanted.
	from uint64
	// next is the sequence number of the next event to look at.
	next   uint64
	limit  int
	silent time.Duration
	closed chan struct{}
	once   sync.Once
}

// Watch starts a watch of the events of revision from and later; 0 means from now on. If they are no longer kept, the error is a *CompactedError.
func (n *Node) Watch(from uint64) (*Watch, error) {
	if err := n.usable("watch"); err != nil {
		return nil, err
	}
	w := &Watch{node: n, from: from, limit: n.cfg.Limits.WatchBatch, silent: n.cfg.Limits.WatchProgress, closed: make(chan struct{})}
	h := n.machine.events
	h.mu.Lock()
	defer h.mu.Unlock()
	if from == 0 {
		w.from = h.revision + 1
	}
	if err := w.place(h); err != nil {
		n.counts.compaction(err)
		return nil, err
	}
	n.counts.watches.Add(1)
	return w, nil
}

// place finds the watch's first event. The history is locked.
func (w *Watch) place(h *history) error {
	if w.from <= h.dropped {
		return &CompactedError{Revision: h.revision}
	}
	w.next = h.first
	for w.next < h.end && h.at(w.next).Revision < w.from {
		w.next++
	}
	return nil
}

// Next returns the next events, in order, none left out and none twice, and the revision up to which everything has now been returned. No events
// means progress: nothing happened for Limits.WatchProgress. A *CompactedError ends the watch: the watcher fell behind what is kept, or this member
// took over a snapshot.
func (w *Watch) Next(ctx context.Context) (events []*quoratev1.Event, revision uint64, err error) {
	silence := time.NewTimer(w.silent)
	defer silence.Stop()
	h := w.node.machine.events
	for {
		if err := w.node.usable("watch"); err != nil {
			return nil, 0, err
		}
		h.mu.Lock()
		events, revision, err = w.collect(h)
		grown := h.grown
		h.mu.Unlock()
		w.node.counts.compaction(err)
		if err != nil || len(events) > 0 {
			return events, revision, err
		}
		select {
		case <-grown:
		case <-silence.C:
			return nil, revision, nil
		case <-w.closed:
			return nil, 0, &Error{Op: "watch", Kind: Shutdown}
		case <-w.node.stopping:
			return nil, 0, &Error{Op: "watch", Kind: Shutdown}
		case <-ctx.Done():
			return nil, 0, ctx.Err()
		}
	}
}

// collect takes what is there. The history is locked.
func (w *Watch) collect(h *history) ([]*quoratev1.Event, uint64, error) {
	if w.next < h.first {
		return nil, 0, &CompactedError{Revision: h.revision}
	}
	var events []*quoratev1.Event
	for ; w.next < h.end && len(events) < w.limit; w.next++ {
		if e := h.at(w.next); e.Revision >= w.from {
			events = append(events, e)
		}
	}
	if w.next < h.end {
		// There is more: only what lies before the next event's revision is complete.
		return events, h.at(w.next).Revision - 1, nil
	}
	// A watch from a revision that is yet to come has missed nothing before it, and must not be led back there when it resumes.
	return events, max(h.revision, w.from-1), nil
}

// Close ends the watch; a Next that waits returns.
func (w *Watch) Close() {
	w.once.Do(func() {
		w.node.counts.watches.Add(-1)
		close(w.closed)
	})
}
