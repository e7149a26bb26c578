package server

import (
	"github.com/gopcua/opcua/ua"
)

// The Subscription service set (Part 4 §5.14).

// createSubscription makes a subscription. Its first message, values or a keep-alive, comes with its first cycle.
func (p *publisher) createSubscription(r *ua.CreateSubscriptionRequest) (ua.Response, ua.StatusCode) {
	e := p.engine
	for int(e.subscriptions.Load()) >= e.limits.MaxSubscriptions && e.registry.evictOldest() {
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return nil, ua.StatusBadSessionClosed
	}
	if len(p.subs) >= e.limits.MaxSubscriptionsPerSession || !take(&e.subscriptions, 1, e.limits.MaxSubscriptions) {
		return nil, ua.StatusBadTooManySubscriptions
	}
	id := nextID(&e.lastSubscription)
	if id == 0 {
		e.subscriptions.Add(-1)
		return nil, ua.StatusBadTooManySubscriptions
	}
	s := &subscription{
		id:       id,
		engine:   e,
		enabled:  r.PublishingEnabled,
		sequence: 1,
		items:    make(map[uint32]*item),
	}
	s.owner.Store(p)
	s.timer = timer{order: orderPublish, fire: s.cycle}
	s.revise(r.RequestedPublishingInterval, r.RequestedLifetimeCount, r.RequestedMaxKeepAliveCount, r.MaxNotificationsPerPublish, r.Priority)
	s.keepAliveLeft = 1 // The first cycle sends something, so that the client knows that the subscription works.
	p.subs[id] = s
	e.registry.add(s)
	return &ua.CreateSubscriptionResponse{
		SubscriptionID:            id,
		RevisedPublishingInterval: milliseconds(s.interval),
		RevisedLifetimeCount:      s.lifetime,
		RevisedMaxKeepAliveCount:  s.keepAlive,
	}, ua.StatusOK
}

// revise sets what CreateSubscription and ModifySubscription ask for, within the limits, and starts a new publishing interval.
func (s *subscription) revise(interval float64, lifetime, keepAlive, perPublish uint32, priority uint8) {
	e := s.engine
	l := &e.limits
	s.interval = reviseInterval(interval, l.MinPublishingInterval, l.MaxPublishingInterval)
	if keepAlive == 0 {
		keepAlive = l.DefaultKeepAliveCount
	}
	s.keepAlive = min(keepAlive, l.MaxKeepAliveCount)
	s.keepAliveLeft = min(max(s.keepAliveLeft, 1), s.keepAlive)
	s.lifetime = max(min(lifetime, l.MaxLifetimeCount), 3*s.keepAlive)
	s.lifetimeLeft = s.lifetime
	s.limit = l.MaxNotificationsPerPublish
	if perPublish > 0 {
		s.limit = int(min(uint32(s.limit), perPublish))
	}
	s.priority = priority
	s.next = e.schedule.now() + s.interval
	e.schedule.set(&s.timer, s.next)
}

func (p *publisher) modifySubscription(r *ua.ModifySubscriptionRequest) (ua.Response, ua.StatusCode) {
	p.mu.Lock()
	defer p.mu.Unlock()
	s := p.subs[r.SubscriptionID]
	if s == nil {
		return nil, ua.StatusBadSubscriptionIDInvalid
	}
	s.revise(r.RequestedPublishingInterval, r.RequestedLifetimeCount, r.RequestedMaxKeepAliveCount, r.MaxNotificationsPerPublish, r.Priority)
	return &ua.ModifySubscriptionResponse{
		RevisedPublishingInterval: milliseconds(s.interval),
		RevisedLifetimeCount:      s.lifetime,
		RevisedMaxKeepAliveCount:  s.keepAlive,
	}, ua.StatusOK
}

// setPublishingMode switches the sending of values on or off; keep-alives go on.
func (p *publisher) setPublishingMode(r *ua.SetPublishingModeRequest) (ua.Response, ua.StatusCode) {
	if status := p.engine.operations(len(r.SubscriptionIDs)); status != ua.StatusOK {
		return nil, status
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	results := each(r.SubscriptionIDs, p.subs, ua.StatusBadSubscriptionIDInvalid, func(s *subscription) {
		s.enabled = r.PublishingEnabled
		s.alive()
	})
	return &ua.SetPublishingModeResponse{Results: results}, ua.StatusOK
}

// deleteSubscriptions ends subscriptions. Requests that are parked for none that is left are answered with BadNoSubscription.
func (p *publisher) deleteSubscriptions(r *ua.DeleteSubscriptionsRequest) (ua.Response, ua.StatusCode) {
	if status := p.engine.operations(len(r.SubscriptionIDs)); status != ua.StatusOK {
		return nil, status
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	results := each(r.SubscriptionIDs, p.subs, ua.StatusBadSubscriptionIDInvalid, p.end)
	p.refuseIfNone()
	return &ua.DeleteSubscriptionsResponse{Results: results}, ua.StatusOK
}

// republish gives again a message that the client has not acknowledged.
func (p *publisher) republish(r *ua.RepublishRequest) (ua.Response, ua.StatusCode) {
	p.mu.Lock()
	defer p.mu.Unlock()
	s := p.subs[r.SubscriptionID]
	if s == nil {
		return nil, ua.StatusBadSubscriptionIDInvalid
	}
	s.alive()
	i := s.find(r.RetransmitSequenceNumber)
	if i < 0 {
		return nil, ua.StatusBadMessageNotAvailable
	}
	return &ua.RepublishResponse{NotificationMessage: s.sent[i]}, ua.StatusOK
}

// each does something to each of these subscriptions, or of these items of one, and answers missing for those that there are not.
// The lock of the map is held.
func each[T any](ids []uint32, from map[uint32]*T, missing ua.StatusCode, do func(*T)) []ua.StatusCode {
	results := make([]ua.StatusCode, len(ids))
	for i, id := range ids {
		one := from[id]
		if one == nil {
			results[i] = missing
			continue
		}
		do(one)
	}
	return results
}

// operations checks how many operations a call has.
func (e *engine) operations(n int) ua.StatusCode {
	switch {
	case n == 0:
		return ua.StatusBadNothingToDo
	case n > e.limits.MaxOperations:
		return ua.StatusBadTooManyOperations
	}
	return ua.StatusOK
}
