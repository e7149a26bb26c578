package fsm

import (
	"cmp"
	"crypto/sha256"
	"fmt"
	"strconv"
	"time"

	"quorate/fsm/tree"
	logv1 "quorate/proto/quorate/log/v1"
	quoratev1 "quorate/proto/quorate/v1"
)

// requests remembers the answers to request ids, so that a command that is sent again is not applied again.
//
// Refusals are remembered too. Otherwise a copy of a refused command that is still under way, say in a forward whose first
// try timed out, could be accepted later, after its client had been told that nothing changed. The price is that a client
// has to take a new request id for a new attempt, which is what a request id means. Only a refusal that comes before
// the memory is asked (a missing or reused request id, an actor that is too long) is not remembered.
type requests struct {
	byKey tree.Map[string, *request]
	byAge tree.Map[uint64, *request]
}

type request struct {
	age         uint64 // Its place in the order of remembering. It is made anew by a restore, and so is in no digest.
	key         string
	fingerprint [sha256.Size]byte
	outcome     *logv1.Outcome
}

func newRequests() requests {
	return requests{
		byKey: tree.NewStrings[*request](),
		byAge: tree.New[uint64, *request](cmp.Compare[uint64]),
	}
}

func (q *requests) snapshot() requests {
	return requests{byKey: q.byKey.Snapshot(), byAge: q.byAge.Snapshot()}
}

// requestKey joins the name of an actor and a request id such that no two pairs have the same key.
func requestKey(actor, id string) string {
	return strconv.Itoa(len(actor)) + ":" + actor + id
}

// outdated says whether an answer is past its time. It is judged at every use, so that it does not matter when the
// answer is removed.
func (r *request) outdated(now time.Duration) bool {
	return now-time.Duration(r.outcome.GetClock()) > RequestMemory
}

func (q *requests) find(key string, now time.Duration) (*request, bool) {
	r, ok := q.byKey.Get(key)
	if !ok || r.outdated(now) {
		return nil, false
	}
	return r, true
}

// remember keeps an answer, and forgets the oldest where there are too many.
func (q *requests) remember(key string, print [sha256.Size]byte, o *logv1.Outcome) {
	if old, ok := q.byKey.Get(key); ok {
		q.byAge.Delete(old.age)
	}
	age := uint64(0)
	if last, _, ok := q.byAge.Last(); ok {
		age = last + 1
	}
	r := &request{age: age, key: key, fingerprint: print, outcome: withoutDocument(o)}
	q.byKey.Set(key, r)
	q.byAge.Set(age, r)
	for q.byAge.Len() > MaxRequests {
		q.forgetOldest()
	}
}

// prune removes what is past its time, at most MaxForgetPerEntry answers.
func (q *requests) prune(now time.Duration) {
	for range MaxForgetPerEntry {
		if _, oldest, ok := q.byAge.First(); !ok || !oldest.outdated(now) {
			return
		}
		q.forgetOldest()
	}
}

func (q *requests) forgetOldest() {
	if age, oldest, ok := q.byAge.First(); ok {
		q.byAge.Delete(age)
		q.byKey.Delete(oldest.key)
	}
}

// withoutDocument is the form in which an answer is remembered: of a generation only the number is kept, since the history
// has the rest. Otherwise the memory could hold MaxRequests documents of MaxTopologyBytes.
func withoutDocument(o *logv1.Outcome) *logv1.Outcome {
	g := o.GetGenerationPublished()
	if g == nil {
		return o
	}
	return stampedLike(published(&quoratev1.Generation{Number: g.GetNumber()}), o)
}

// recall is the answer as it was given first. The document of a generation that has meanwhile left the history is absent.
func (s *State) recall(r *request) *logv1.Outcome {
	g, ok := s.Generation(r.outcome.GetGenerationPublished().GetNumber())
	if !ok {
		return r.outcome
	}
	return stampedLike(published(g), r.outcome)
}

// Answered is the answer that a command with a request id was given before, nil if none is remembered. The node asks where it refuses a command without an
// entry: a repeat of one that took effect must not be told that it did not.
func (s *State) Answered(c *logv1.Command) *logv1.Outcome {
	info, ok := describe(c)
	if !ok || !info.public {
		return nil
	}
	before, ok := s.requests.find(requestKey(c.GetActor().GetName(), c.GetRequestId()), s.clock.now)
	if !ok || before.fingerprint != fingerprint(c) {
		return nil
	}
	return s.recall(before)
}

// checkRequests is the invariant of the request memory.
func (s *State) checkRequests() error {
	q := &s.requests
	if q.byKey.Len() != q.byAge.Len() || q.byAge.Len() > MaxRequests {
		return fmt.Errorf("request memory: %d keys, %d ages, at most %d allowed", q.byKey.Len(), q.byAge.Len(), MaxRequests)
	}
	var revision, clock uint64
	for age, r := range q.byAge.All() {
		if known, _ := q.byKey.Get(r.key); known != r || r.age != age {
			return fmt.Errorf("request %q: its two indexes disagree", r.key)
		}
		o := r.outcome
		if o.GetResult() == nil || o.GetRevision() < revision || o.GetRevision() > s.clock.revision ||
			o.GetClock() < clock || o.GetClock() > uint64(s.clock.now) {
			return fmt.Errorf("request %q: its answer is empty, out of order or from the future", r.key)
		}
		revision, clock = o.GetRevision(), o.GetClock()
	}
	return nil
}
