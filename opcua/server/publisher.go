package server

import (
	"slices"
	"sync"
	"time"

	"github.com/gopcua/opcua/ua"
)

// publisher has the subscriptions of one session, and the Publish requests that its client has parked for them. It outlives its
// session if subscriptions do.
//
// Locks are taken in this order: publisher.mu (of two, that with the lower number first), watch.sampling, hub.mu, watch.mu, subscription.queueMu; schedule.mu, registry.mu and those
// of the address space are leaves. Sending never blocks, so responses are sent under publisher.mu, which keeps them in order.
type publisher struct {
	engine  *engine
	session *session
	number  uint64 // by this two publishers are locked in order

	mu     sync.Mutex
	closed bool // the session is: nothing more is parked
	subs   map[uint32]*subscription
	signs  uint64          // counts Publish requests, of which each keeps all subscriptions alive
	parked []parkedPublish // oldest first
	late   []*subscription // that wait for a Publish request, the longest waiting first; if there are any, nothing is parked
	ended  []obituary      // not yet told to the client, oldest first
}

// parkedPublish is a Publish request that waits for something to be published.
type parkedPublish struct {
	ch       secureChannel
	id       uint32 // of the request, in the channel
	handle   uint32 // of the request, for the client
	results  []ua.StatusCode
	deadline time.Duration // by the client's TimeoutHint; 0 is none
}

// obituary is the last that a session hears of a subscription which it lost: to time, or to another session.
type obituary struct {
	sub     uint32
	message *ua.NotificationMessage
}

// publish takes a Publish request: its acknowledgements first, then it answers at once or parks the request (Part 4 §5.14.5).
func (p *publisher) publish(ch secureChannel, id uint32, req *ua.PublishRequest) {
	h := req.RequestHeader
	p.mu.Lock()
	defer p.mu.Unlock()
	now := p.engine.schedule.now()
	park := parkedPublish{ch: ch, id: id, handle: h.RequestHandle}
	switch {
	case p.closed:
		p.refuse(park, ua.StatusBadSessionClosed)
		return
	case len(req.SubscriptionAcknowledgements) > p.engine.limits.MaxOperations:
		p.refuse(park, ua.StatusBadTooManyOperations)
		return
	case len(p.subs) == 0 && len(p.ended) == 0:
		p.refuse(park, ua.StatusBadNoSubscription)
		return
	}
	if h.TimeoutHint > 0 {
		park.deadline = now + time.Duration(h.TimeoutHint)*time.Millisecond
	}
	park.results = p.acknowledge(req.SubscriptionAcknowledgements)
	p.signs++
	p.dropTimedOut(now)
	if len(p.parked) == p.engine.limits.MaxPublishRequests {
		p.refuse(p.unpark(), ua.StatusBadTooManyPublishRequests)
	}
	p.parked = append(p.parked, park)
	p.serveEnded()
	p.serveLate()
}

func (p *publisher) acknowledge(acks []*ua.SubscriptionAcknowledgement) []ua.StatusCode {
	if len(acks) == 0 {
		return nil
	}
	results := make([]ua.StatusCode, len(acks))
	for i, a := range acks {
		results[i] = ua.StatusBadSubscriptionIDInvalid
		if a == nil {
			continue
		}
		if s := p.subs[a.SubscriptionID]; s != nil {
			results[i] = s.acknowledge(a.SequenceNumber)
		}
	}
	return results
}

// serveLate sends messages while there are both subscriptions that have one and requests to carry it. Of several
// subscriptions the one of the highest priority comes first, and among equals the one that has waited longest.
func (p *publisher) serveLate() {
	for len(p.late) > 0 && len(p.parked) > 0 {
		best := 0
		for i, s := range p.late {
			if s.priority > p.late[best].priority {
				best = i
			}
		}
		s := p.late[best]
		p.late = slices.Delete(p.late, best, best+1)
		a := new(answer)
		now := p.engine.wall()
		msg, more := s.message(now)
		if s.late = more; more {
			p.late = append(p.late, s) // Behind its equals.
		}
		a.response.SubscriptionID, a.response.NotificationMessage, a.response.MoreNotifications = s.id, msg, more
		a.response.AvailableSequenceNumbers = s.available(a.number[:0])
		p.answer(a, now)
	}
}

// serveEnded tells the client of subscriptions that have ended.
func (p *publisher) serveEnded() {
	for len(p.ended) > 0 && len(p.parked) > 0 {
		o := p.ended[0]
		p.ended = slices.Delete(p.ended, 0, 1)
		p.answer(&answer{response: ua.PublishResponse{SubscriptionID: o.sub, NotificationMessage: o.message}}, p.engine.wall())
	}
	p.refuseIfNone()
}

// refuseIfNone answers the requests for which nothing will ever come.
func (p *publisher) refuseIfNone() {
	if len(p.subs) == 0 && len(p.ended) == 0 {
		p.refuseAll(ua.StatusBadNoSubscription)
	}
}

// answer is the response to a Publish request with what it points to, in one block.
type answer struct {
	response ua.PublishResponse
	header   ua.ResponseHeader
	number   [1]uint32 // that of the message, which mostly is the only one that is available
}

// answer sends a message with the oldest parked request. All that concerns the request is still to be filled in.
func (p *publisher) answer(a *answer, now time.Time) {
	r := p.unpark()
	p.engine.counts.answered(servicePublish, ua.StatusOK)
	a.header = ua.ResponseHeader{Timestamp: now, RequestHandle: r.handle}
	a.response.ResponseHeader, a.response.Results = &a.header, r.results
	// A client that can't be sent to is being disconnected by its channel; the message stays there for Republish.
	_ = r.ch.Send(r.id, &a.response)
}

func (p *publisher) countParked() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.parked)
}

func (p *publisher) unpark() parkedPublish {
	r := p.parked[0]
	p.parked = slices.Delete(p.parked, 0, 1)
	return r
}

func (p *publisher) refuse(r parkedPublish, status ua.StatusCode) {
	p.engine.counts.answered(servicePublish, status)
	_ = r.ch.Send(r.id, &ua.ServiceFault{ResponseHeader: p.engine.header(r.handle, status)})
}

func (p *publisher) refuseAll(status ua.StatusCode) {
	p.cancel(status, func(parkedPublish) bool { return true })
}

// cancel refuses those parked requests that match, and returns how many.
func (p *publisher) cancel(status ua.StatusCode, match func(parkedPublish) bool) int {
	before := len(p.parked)
	p.parked = slices.DeleteFunc(p.parked, func(r parkedPublish) bool {
		if !match(r) {
			return false
		}
		p.refuse(r, status)
		return true
	})
	return before - len(p.parked)
}

// dropTimedOut refuses the requests whose client has stopped waiting.
func (p *publisher) dropTimedOut(now time.Duration) {
	late := func(r *parkedPublish) bool { return r.deadline > 0 && r.deadline <= now }
	for i := range p.parked {
		if late(&p.parked[i]) {
			p.cancel(ua.StatusBadTimeout, func(r parkedPublish) bool { return late(&r) })
			return
		}
	}
}

// cancelHandle is the Cancel service: it cancels the parked requests of that handle.
func (p *publisher) cancelHandle(handle uint32) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.cancel(ua.StatusBadRequestCancelledByRequest, func(r parkedPublish) bool { return r.handle == handle })
}

// forsake drops the requests that came by a channel that the session has left.
func (p *publisher) forsake(ch secureChannel) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.cancel(ua.StatusBadSecureChannelClosed, func(r parkedPublish) bool { return r.ch == ch })
}

// expire ends a subscription whose client has given no sign for its lifetime, and leaves word of it (Part 4 §5.14.1.2,
// state CLOSED). p.mu is held.
func (p *publisher) expire(s *subscription) {
	p.bury(s, ua.StatusBadTimeout)
	p.end(s)
}

// bury leaves word that the session has lost a subscription. The oldest of too many is forgotten. p.mu is held.
func (p *publisher) bury(s *subscription, status ua.StatusCode) {
	if p.closed {
		return // Nobody is there to hear it.
	}
	p.ended = append(p.ended, obituary{sub: s.id, message: &ua.NotificationMessage{
		SequenceNumber:   s.sequence,
		PublishTime:      p.engine.wall(),
		NotificationData: []*ua.ExtensionObject{extension(statusChangeType, &ua.StatusChangeNotification{Status: status})},
	}})
	if len(p.ended) > p.engine.limits.MaxSubscriptionsPerSession {
		p.ended = slices.Delete(p.ended, 0, 1)
	}
}

// end takes a subscription and its items out of the server. p.mu is held.
func (p *publisher) end(s *subscription) {
	e := p.engine
	s.ended = true
	e.schedule.stop(&s.timer)
	e.registry.remove(s)
	p.disown(s)
	for _, it := range s.items {
		e.hub.leave(it, true)
		e.returnQueue(it)
		e.forget(it)
		e.links.Add(-int64(len(it.links)))
	}
	e.subscriptions.Add(-1)
	s.items = nil
}

// disown takes a subscription from the publisher. p.mu is held.
func (p *publisher) disown(s *subscription) {
	delete(p.subs, s.id)
	p.late = slices.DeleteFunc(p.late, func(o *subscription) bool { return o == s })
	s.late = false
}

// close refuses what is parked. It ends all subscriptions, or leaves them to their lifetime.
func (p *publisher) close(end bool) {
	p.mu.Lock()
	p.closed = true
	p.refuseAll(ua.StatusBadSessionClosed)
	p.ended = nil
	var evicted []*subscription
	for _, s := range p.subs {
		if end {
			p.end(s)
		} else {
			evicted = append(evicted, p.engine.registry.detach(s, p.session.client)...)
		}
	}
	p.mu.Unlock()
	for _, s := range evicted {
		s.evict()
	}
}
