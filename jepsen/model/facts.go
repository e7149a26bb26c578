package model

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"quorate/jepsen/history"
	quoratev1 "quorate/proto/quorate/v1"
)

// facts are what the whole history tells that the calls of one key don't.
type facts struct {
	// members are those that any topology names.
	members []string
	// requests are the request ids of the generations that somebody has seen.
	requests map[uint64]string
	// servers are those of each set, as far as any topology tells.
	servers map[string][]string
	// events are those of apply leases that roll-outs hold, in their order.
	events []*leaseEvent
	// swaps are the generations that no client published.
	swaps map[uint64]swap
	// withdrawn are the ends of maintenance that came with a member's leaving, by request id of what took it away.
	withdrawn []*withdrawal
	// asked are the request ids of maintenance that clients set.
	asked map[string]bool
	// known is when each event was seen first, by revision and sequence.
	known map[[2]uint64]*time.Duration
	// complete says that there were watches, which are told of every event or are found wanting themselves.
	complete bool
	// moments are the calls and returns of operations by the revision that they came to.
	moments []moment
}

// swap is a generation by which the group itself swapped roles, and when it was seen first.
type swap struct {
	generation *quoratev1.Generation
	seen       time.Duration
}

// withdrawal is an event of a server's maintenance that ends, and when it was seen first.
type withdrawal struct {
	event *quoratev1.Event
	seen  time.Duration
}

// leaseEvent is an event of a lease that the group itself began or ended.
type leaseEvent struct {
	event *quoratev1.Event
	lease *quoratev1.ApplyLease
	began bool
	// seen is when the first watch showed it.
	seen time.Duration
}

// moment is that an entry of a revision committed between these times.
type moment struct {
	revision uint64
	from, to time.Duration
}

// gather reads the facts.
func gather(h history.History) (*facts, error) {
	f := &facts{requests: map[uint64]string{}, servers: map[string][]string{}, known: map[[2]uint64]*time.Duration{}, swaps: map[uint64]swap{}, asked: map[string]bool{}}
	for i := range h.Ops {
		if err := f.gatherOp(&h.Ops[i]); err != nil {
			return nil, err
		}
	}
	for _, m := range h.Marks {
		switch m.Kind {
		case "event":
			if err := f.gatherEvent(m); err != nil {
				return nil, err
			}
		case "run":
			var run struct {
				Workloads []string `json:"workloads"`
			}
			if err := json.Unmarshal(m.Data, &run); err != nil {
				return nil, fmt.Errorf("run: %w", err)
			}
			f.complete = slices.Contains(run.Workloads, "watch")
		}
	}
	slices.Sort(f.members)
	f.order()
	return f, nil
}

func (f *facts) gatherOp(op *history.Op) error {
	var header struct {
		Header struct {
			Revision uint64 `json:"revision,string"`
		} `json:"header"`
	}
	var asked struct {
		Read struct {
			Consistency string `json:"consistency"`
		} `json:"read"`
	}
	_ = json.Unmarshal(op.Input, &asked) // None is none.
	if op.Outcome == history.OK && json.Unmarshal(op.Output, &header) == nil && header.Header.Revision > 0 {
		m := moment{header.Header.Revision, op.Call, op.Return}
		if c := quoratev1.Consistency_value[asked.Read.Consistency]; c > int32(quoratev1.Consistency_CONSISTENCY_LINEARIZABLE) {
			m.from = 0 // What was committed before such a read was called, it may not show.
		}
		f.moments = append(f.moments, m)
	}
	if op.Noun == "maintenance" && op.Kind == "set" {
		r := &quoratev1.SetMaintenanceRequest{}
		if err := unmarshal(op.Input, r); err != nil {
			return fmt.Errorf("operation %d: %w", op.ID, err)
		}
		f.asked[r.GetRequestId()] = true
	}
	if op.Noun != "topology" {
		return nil
	}
	request, answer := &quoratev1.PublishTopologyRequest{}, &quoratev1.PublishTopologyResponse{}
	switch op.Kind {
	case "publish":
		if err := decode(op, request, answer); err != nil {
			return fmt.Errorf("operation %d: %w", op.ID, err)
		}
		f.gatherTopology(request.GetTopology())
	case "rollback", "get":
		if err := decode(op, &quoratev1.RollbackTopologyRequest{}, answer); err != nil {
			return fmt.Errorf("operation %d: %w", op.ID, err)
		}
	}
	f.gatherGeneration(answer.GetGeneration(), op.Return)
	return nil
}

func (f *facts) gatherGeneration(g *quoratev1.Generation, seen time.Duration) {
	if g == nil {
		return
	}
	f.gatherTopology(g.GetTopology())
	if g.GetPublishRequestId() != "" {
		f.requests[g.GetNumber()] = g.GetPublishRequestId()
	}
	if s, ok := f.swaps[g.GetNumber()]; g.GetSwappedBy() != "" && g.GetTopology() != nil && (!ok || seen < s.seen) {
		f.swaps[g.GetNumber()] = swap{g, seen}
	}
}

func (f *facts) gatherTopology(t *quoratev1.Topology) {
	for _, set := range t.GetSets() {
		for _, server := range set.GetServers() {
			if !slices.Contains(f.members, server.GetMember()) {
				f.members = append(f.members, server.GetMember())
			}
			if !slices.Contains(f.servers[set.GetId()], server.GetMember()) {
				f.servers[set.GetId()] = append(f.servers[set.GetId()], server.GetMember())
			}
		}
	}
}

// gatherEvent keeps the first sight of each event that tells what the group itself did. Of a lease, an event says whose it is while it is open; its end is known by its key.
func (f *facts) gatherEvent(m history.Mark) error {
	var data struct {
		Event json.RawMessage `json:"event"`
	}
	e := &quoratev1.Event{}
	if err := errors.Join(json.Unmarshal(m.Data, &data), unmarshal(data.Event, e)); err != nil {
		return fmt.Errorf("event at %v: %w", m.At, err)
	}
	if g := e.GetTopologyPublished(); g != nil {
		f.gatherGeneration(g, m.At)
	}
	ended := e.GetMaintenanceChanged() != nil && !e.GetMaintenanceChanged().GetActive()
	lease := cmp.Or(e.GetLeaseBegun(), e.GetLeaseEnded(), e.GetLeaseAbandoned())
	if lease == nil && !ended {
		return nil
	}
	place := [2]uint64{e.GetRevision(), uint64(e.GetSequence())}
	if seen := f.known[place]; seen != nil {
		*seen = min(*seen, m.At)
		return nil
	}
	if ended {
		w := &withdrawal{e, m.At}
		f.withdrawn, f.known[place] = append(f.withdrawn, w), &w.seen
		return nil
	}
	l := &leaseEvent{event: e, lease: lease, began: e.GetLeaseBegun() != nil, seen: m.At}
	f.events, f.known[place] = append(f.events, l), &l.seen
	return nil
}

// order sorts what has a revision, and makes of the moments bounds: what has a higher revision than an operation took effect after its call, what has a
// lower one before its return.
func (f *facts) order() {
	slices.SortFunc(f.events, func(a, b *leaseEvent) int {
		return cmp.Or(cmp.Compare(a.event.GetRevision(), b.event.GetRevision()), cmp.Compare(a.event.GetSequence(), b.event.GetSequence()))
	})
	slices.SortFunc(f.moments, func(a, b moment) int { return cmp.Compare(a.revision, b.revision) })
	for i := 1; i < len(f.moments); i++ {
		f.moments[i].from = max(f.moments[i].from, f.moments[i-1].from)
	}
	for i := len(f.moments) - 2; i >= 0; i-- {
		f.moments[i].to = min(f.moments[i].to, f.moments[i+1].to)
	}
}

// during bounds the moment at which an event of a lease happened, which was not before some other.
func (f *facts) during(e *leaseEvent, earliest time.Duration) (from, to time.Duration) {
	from, to = f.when(e.event.GetRevision())
	from = max(from, earliest)
	return from, max(from, min(to, e.seen))
}

// when bounds the moment at which an entry committed.
func (f *facts) when(revision uint64) (from, to time.Duration) {
	i, _ := slices.BinarySearchFunc(f.moments, revision, func(m moment, r uint64) int { return cmp.Compare(m.revision, r) })
	if i > 0 {
		from = f.moments[i-1].from
	}
	for i < len(f.moments) && f.moments[i].revision == revision {
		i++
	}
	to = forever
	if i < len(f.moments) {
		to = f.moments[i].to
	}
	return from, to
}
