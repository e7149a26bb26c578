package server

import (
	"github.com/gopcua/opcua/ua"
)

// setTriggering makes and removes links from one item to others: when the one has a new value, what the others have queued is
// reported, even if their mode is Sampling (Part 4 §5.13.5). Links are removed before others are added.
func (p *publisher) setTriggering(r *ua.SetTriggeringRequest) (ua.Response, ua.StatusCode) {
	if status := p.engine.operations(len(r.LinksToAdd) + len(r.LinksToRemove)); status != ua.StatusOK {
		return nil, status
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	s := p.subs[r.SubscriptionID]
	if s == nil {
		return nil, ua.StatusBadSubscriptionIDInvalid
	}
	s.alive()
	it := s.items[r.TriggeringItemID]
	if it == nil {
		return nil, ua.StatusBadMonitoredItemIDInvalid
	}
	s.queueMu.Lock()
	defer s.queueMu.Unlock()
	resp := &ua.SetTriggeringResponse{
		RemoveResults: make([]ua.StatusCode, len(r.LinksToRemove)),
		AddResults:    make([]ua.StatusCode, len(r.LinksToAdd)),
	}
	for i, id := range r.LinksToRemove {
		if !it.unlink(s.items[id]) {
			resp.RemoveResults[i] = ua.StatusBadMonitoredItemIDInvalid
		}
	}
	for i, id := range r.LinksToAdd {
		resp.AddResults[i] = it.link(s.items[id])
	}
	return resp, ua.StatusOK
}

// link makes it trigger another item; nil is one that there is not. sub.queueMu is held.
func (it *item) link(to *item) ua.StatusCode {
	if to == nil {
		return ua.StatusBadMonitoredItemIDInvalid
	}
	if _, ok := it.links[to]; ok {
		return ua.StatusOK
	}
	e := it.sub.engine
	if len(it.links) >= e.limits.MaxLinksPerItem || !take(&e.links, 1, e.limits.MaxTriggeringLinks) {
		return ua.StatusBadTooManyMonitoredItems
	}
	if it.links == nil {
		it.links = make(map[*item]struct{})
	}
	if to.linkedBy == nil {
		to.linkedBy = make(map[*item]struct{})
	}
	it.links[to], to.linkedBy[it] = struct{}{}, struct{}{}
	return ua.StatusOK
}

// unlink undoes link, and reports whether there was a link. sub.queueMu is held.
func (it *item) unlink(to *item) bool {
	if _, ok := it.links[to]; !ok {
		return false
	}
	delete(it.links, to)
	delete(to.linkedBy, it)
	it.sub.engine.links.Add(-1)
	return true
}

// unlinkAll removes all links to and from an item. sub.queueMu is held.
func (it *item) unlinkAll() {
	for to := range it.links {
		it.unlink(to)
	}
	for from := range it.linkedBy {
		from.unlink(it)
	}
}

// pull lets go what the linked items have queued up to now; what they queue later waits for the next trigger. A triggered
// item triggers no others. sub.queueMu is held.
func (it *item) pull() {
	for to := range it.links {
		to.released = to.queued()
		to.enlist()
	}
}
