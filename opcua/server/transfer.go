package server

import (
	"bytes"
	"slices"
	"sync"

	"github.com/gopcua/opcua/ua"
)

// registry knows all subscriptions by their ids, and those that have outlived their sessions. Its lock is a leaf.
type registry struct {
	limits *Limits

	mu       sync.Mutex
	subs     map[uint32]*subscription
	detached []detached // that which was detached first comes first
}

// detached is a subscription whose session is closed. It waits for its lifetime to end, or for another session to take it.
type detached struct {
	sub    *subscription
	client string // by what its client is counted
}

func (r *registry) add(s *subscription) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.subs[s.id] = s
}

func (r *registry) countDetached() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.detached)
}

func (r *registry) find(id uint32) *subscription {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.subs[id]
}

// remove forgets a subscription that has ended.
func (r *registry) remove(s *subscription) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.subs, s.id)
	r.attach(s)
}

// taken notes that a session has taken a subscription.
func (r *registry) taken(s *subscription) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.attach(s)
}

func (r *registry) attach(s *subscription) {
	r.detached = slices.DeleteFunc(r.detached, func(d detached) bool { return d.sub == s })
}

// detach notes that a subscription has outlived its session. Where a limit is reached, others make room for it, the oldest
// first, and are returned to be evicted.
func (r *registry) detach(s *subscription, client string) (evicted []*subscription) {
	r.mu.Lock()
	defer r.mu.Unlock()
	drop := func(match func(detached) bool) {
		if i := slices.IndexFunc(r.detached, match); i >= 0 {
			evicted = append(evicted, r.detached[i].sub)
			r.detached = slices.Delete(r.detached, i, i+1)
		}
	}
	same := 0
	for _, d := range r.detached {
		if d.client == client {
			same++
		}
	}
	if same >= r.limits.MaxDetachedPerClient {
		drop(func(d detached) bool { return d.client == client })
	} else if len(r.detached) >= r.limits.MaxDetachedSubscriptions {
		drop(func(detached) bool { return true })
	}
	r.detached = append(r.detached, detached{s, client})
	return evicted
}

// evictOldest ends the subscription that has been without a session for the longest time, and reports whether there was one:
// whoever is there comes before those who may come back.
func (r *registry) evictOldest() bool {
	r.mu.Lock()
	if len(r.detached) == 0 {
		r.mu.Unlock()
		return false
	}
	s := r.detached[0].sub
	r.detached = slices.Delete(r.detached, 0, 1)
	r.mu.Unlock()
	s.evict()
	return true
}

// endDetached ends all subscriptions that have no session.
func (r *registry) endDetached() {
	for r.evictOldest() {
	}
}

// evict ends a subscription, unless a session has taken it meanwhile.
func (s *subscription) evict() {
	p := s.lock()
	defer p.mu.Unlock()
	if p.closed && !s.ended {
		p.end(s)
	}
}

// transfer takes subscriptions from other sessions, open or closed, of the same user (Part 4 §5.14.7). Messages that were not
// acknowledged come along, for Republish.
func (p *publisher) transfer(r *ua.TransferSubscriptionsRequest) (ua.Response, ua.StatusCode) {
	if status := p.engine.operations(len(r.SubscriptionIDs)); status != ua.StatusOK {
		return nil, status
	}
	results := make([]*ua.TransferResult, len(r.SubscriptionIDs))
	for i, id := range r.SubscriptionIDs {
		results[i] = &ua.TransferResult{StatusCode: ua.StatusBadSubscriptionIDInvalid}
		if s := p.engine.registry.find(id); s != nil {
			results[i].StatusCode = p.take(s, r.SendInitialValues, results[i])
		}
	}
	return &ua.TransferSubscriptionsResponse{Results: results}, ua.StatusOK
}

// take moves a subscription from its owner to p.
func (p *publisher) take(s *subscription, initialValues bool, result *ua.TransferResult) ua.StatusCode {
	from := p.lockWith(s)
	defer p.mu.Unlock()
	if from == p {
		return ua.StatusBadNothingToDo
	}
	defer from.mu.Unlock()
	switch {
	case s.ended:
		return ua.StatusBadSubscriptionIDInvalid
	case p.closed:
		return ua.StatusBadSessionClosed
	case !sameUser(from.session, p.session):
		return ua.StatusBadUserAccessDenied
	case len(p.subs) >= p.engine.limits.MaxSubscriptionsPerSession:
		return ua.StatusBadTooManySubscriptions
	}
	from.disown(s)
	from.bury(s, ua.StatusGoodSubscriptionTransferred)
	from.serveEnded()
	s.owner.Store(p)
	p.subs[s.id] = s
	p.engine.registry.taken(s)
	s.signs = p.signs // Each publisher counts its own.
	s.alive()
	s.keepAliveLeft = 1 // The first cycle sends something, as that of a new subscription does.
	result.AvailableSequenceNumbers = s.available(nil)
	if initialValues {
		s.resend()
	}
	return ua.StatusOK
}

// lockWith locks p and the owner of a subscription, which it returns, and which may be p.
func (p *publisher) lockWith(s *subscription) (owner *publisher) {
	for {
		owner = s.owner.Load()
		first, second := p, owner
		if owner.number < p.number {
			first, second = owner, p
		}
		first.mu.Lock()
		if second != first {
			second.mu.Lock()
		}
		if s.owner.Load() == owner {
			return owner
		}
		if second != first {
			second.mu.Unlock()
		}
		first.mu.Unlock()
	}
}

// sameUser reports whether two sessions act for the same user. Anonymous users are the same if their applications are, which a
// certificate has to prove where there is security.
func sameUser(a, b *session) bool {
	was, is := a.bound.Load(), b.bound.Load()
	if was == nil || is == nil || was.identity.Name != is.identity.Name {
		return false
	}
	return is.identity.Name != "" || a.application == b.application && bytes.Equal(leafOf(a.certificate), leafOf(b.certificate))
}

// resend makes the next message carry a value of every item that reports: the next one that is queued, or else the last one again
// (Part 4 §5.14.7.2, Part 5 §9.2). The owner is locked.
func (s *subscription) resend() {
	h := s.engine.hub
	for _, it := range s.items {
		h.mu.Lock()
		if w := it.watch; w != nil {
			w.mu.Lock()
			if w.last != nil {
				it.reference = w.last
				it.repeat(w.last)
			}
			w.mu.Unlock()
		}
		h.mu.Unlock()
	}
}

// repeat queues a value again, if nothing is queued.
func (it *item) repeat(dv *ua.DataValue) {
	it.sub.queueMu.Lock()
	defer it.sub.queueMu.Unlock()
	if it.mode == ua.MonitoringModeReporting && it.queue.length == 0 {
		it.queue.push(dv)
		it.enlist()
	}
}
