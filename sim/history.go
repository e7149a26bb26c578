package sim

import (
	"cmp"
	"fmt"
	"slices"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"

	"quorate/fsm"
	logv1 "quorate/proto/quorate/log/v1"
	quoratev1 "quorate/proto/quorate/v1"
)

// maxProblems bounds what is said about one run.
const maxProblems = 200

// History is what clients saw, and what was wrong with it.
type History struct {
	began time.Time
	// fastest is how much faster than real time the fastest clock runs: 0 where all keep to the rules.
	fastest float64

	mu       sync.Mutex
	problems []string
	// acked is the highest revision of an acknowledged write, seen the highest that a completed linearizable read returned.
	acked, seen uint64
	writes      []write
	published   map[string]uint64
	leases      map[string]time.Time
	Reads       int
	Unknown     int
	Faults      int
}

// write is one acknowledged request, from its first try to its answer.
type write struct {
	asked, answered time.Duration
	outcome         *logv1.Outcome
}

// NewHistory begins a history at this instant, which must be before the group's.
func NewHistory(fastest float64) *History {
	return &History{began: time.Now(), fastest: fastest, published: map[string]uint64{}, leases: map[string]time.Time{}}
}

func (h *History) problem(format string, args ...any) {
	if len(h.problems) < maxProblems {
		h.problems = append(h.problems, fmt.Sprintf("at %v: ", time.Since(h.began))+fmt.Sprintf(format, args...))
	}
}

// Report notes a problem found elsewhere.
func (h *History) Report(format string, args ...any) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.problem(format, args...)
}

// Problems returns everything that was wrong.
func (h *History) Problems() []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Clone(h.problems)
}

// Writes returns how many requests were acknowledged.
func (h *History) Writes() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(h.writes)
}

// Wrote notes an acknowledged request; asked is when it was sent first.
func (h *History) Wrote(request string, asked time.Time, o *logv1.Outcome) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.acked = max(h.acked, o.GetRevision())
	h.writes = append(h.writes, write{asked: asked.Sub(h.began), answered: time.Since(h.began), outcome: o})
	if g := o.GetGenerationPublished(); g != nil {
		h.published[request] = g.GetNumber()
	}
}

// Floor returns the least revision that a linearizable read which begins now may return.
func (h *History) Floor() uint64 {
	h.mu.Lock()
	defer h.mu.Unlock()
	return max(h.acked, h.seen)
}

// Read notes a linearizable read that began when the floor was floor.
func (h *History) Read(member string, floor, revision uint64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.Reads++
	h.seen = max(h.seen, revision)
	if revision < floor {
		h.problem("stale read: %s answered revision %d, though %d was acknowledged or read before it was asked", member, revision, floor)
	}
}

// Observe checks what one member's state says of itself right now.
func (h *History) Observe(member string, s *fsm.State) {
	real := time.Since(h.began)
	h.mu.Lock()
	defer h.mu.Unlock()
	if allowed := time.Duration(float64(real) * (1 + h.fastest)); s.Now() > allowed {
		h.problem("%s: cluster time %v, though only %v passed", member, s.Now(), real)
	}
	if err := s.Check(); err != nil {
		h.problem("%s: invariant at revision %d: %v", member, s.Revision(), err)
	}
}

// Event checks one watched event against the outside clock.
func (h *History) Event(e *quoratev1.Event) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if l := e.GetLeaseAbandoned(); l != nil {
		asked, ok := h.leases[l.GetKey().GetPublishRequestId()+l.GetKey().GetServer()]
		if ok && time.Duration(float64(time.Since(asked))*(1+h.fastest)) < fsm.ApplyMaxDuration {
			h.problem("lease of %s abandoned %v after it was asked for", l.GetKey().GetServer(), time.Since(asked))
		}
	}
}

// AskedLease notes when a lease was first asked for.
func (h *History) AskedLease(publishRequest, server string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if _, ok := h.leases[publishRequest+server]; !ok {
		h.leases[publishRequest+server] = time.Now()
	}
}

// CheckClock checks that between any two acknowledged commands cluster time moved no more than real time did: from before the first was asked
// until after the second was answered. The first is stamped after it was asked, and the second before it was answered.
func (h *History) CheckClock() {
	h.mu.Lock()
	defer h.mu.Unlock()
	slices.SortFunc(h.writes, func(a, b write) int { return cmp.Compare(a.outcome.GetRevision(), b.outcome.GetRevision()) })
	// The earlier command that leaves the least room is the one with the smallest stamp − asked.
	var least time.Duration
	for i, w := range h.writes {
		stamp := time.Duration(w.outcome.GetClock())
		slack := time.Duration(float64(w.answered) * h.fastest)
		if i > 0 && stamp-w.answered-slack > least {
			h.problem("cluster time ran fast before revision %d: %v more than real time", w.outcome.GetRevision(), stamp-w.answered-least)
		}
		if early := stamp - w.asked; i == 0 || early < least {
			least = early
		}
	}
}

// CheckPublished checks that every acknowledged publish is there once, under its own number.
func (h *History) CheckPublished(s *fsm.State) {
	h.mu.Lock()
	defer h.mu.Unlock()
	last := s.CurrentGeneration().GetNumber()
	owners := map[string]uint64{}
	for n := last; n > 0; n-- {
		g, ok := s.Generation(n)
		if !ok {
			break
		}
		request := g.GetPublishRequestId()
		if other, twice := owners[request]; twice {
			h.problem("request %s was applied twice, as generations %d and %d", request, n, other)
		}
		owners[request] = n
	}
	for request, n := range h.published {
		if n > last {
			h.problem("lost: generation %d of request %s was acknowledged, and %d is the last", n, request, last)
		} else if g, ok := s.Generation(n); ok && g.GetPublishRequestId() != request {
			h.problem("generation %d was acknowledged for request %s, and belongs to %s", n, request, g.GetPublishRequestId())
		}
	}
}

// Log is what one watcher got, and the revisions up to which it had to skip.
type Log struct {
	Member string
	events []*quoratev1.Event
	// gaps are pairs: the last revision before a gap, and the last one in it.
	gaps [][2]uint64
}

// trim forgets the events of revision next and later.
func (l *Log) trim(next uint64) {
	for k := len(l.events); k > 0 && l.events[k-1].GetRevision() >= next; k-- {
		l.events = l.events[:k-1]
	}
}

// CheckLogs checks that all watchers got the same events, in order, none missed and none twice, up to a revision.
func (h *History) CheckLogs(logs []*Log, until uint64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	type place struct {
		revision uint64
		sequence uint32
	}
	all := map[place]*quoratev1.Event{}
	for _, l := range logs {
		var last place
		for i, e := range l.events {
			at := place{e.GetRevision(), e.GetSequence()}
			if i > 0 && (at.revision < last.revision || at.revision == last.revision && at.sequence <= last.sequence) {
				h.problem("watch on %s: %d/%d after %d/%d", l.Member, at.revision, at.sequence, last.revision, last.sequence)
			}
			last = at
			if same, ok := all[at]; ok && !proto.Equal(same, e) {
				h.problem("watch on %s: event %d/%d differs from another member's", l.Member, at.revision, at.sequence)
			}
			all[at] = e
		}
	}
	for _, l := range logs {
		have := map[place]bool{}
		for _, e := range l.events {
			have[place{e.GetRevision(), e.GetSequence()}] = true
		}
		for at := range all {
			if have[at] || at.revision > until || slices.ContainsFunc(l.gaps, func(g [2]uint64) bool { return at.revision > g[0] && at.revision <= g[1] }) {
				continue
			}
			h.problem("watch on %s: event %d/%d is missing", l.Member, at.revision, at.sequence)
		}
	}
}
