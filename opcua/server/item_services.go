package server

import (
	"math"
	"time"

	"github.com/gopcua/opcua/ua"

	"quorate/opcua/space"
)

// The MonitoredItem service set (Part 4 §5.13).

// createItems makes monitored items. Values are read and watches begun without the publisher's lock, so that a call with
// many items holds up no publishing cycle.
func (p *publisher) createItems(r *ua.CreateMonitoredItemsRequest) (ua.Response, ua.StatusCode) {
	e := p.engine
	if status := e.operations(len(r.ItemsToCreate)); status != ua.StatusOK {
		return nil, status
	}
	if !validTimestamps(r.TimestampsToReturn) {
		return nil, ua.StatusBadTimestampsToReturnInvalid
	}
	s, interval := p.subscription(r.SubscriptionID)
	if s == nil {
		return nil, ua.StatusBadSubscriptionIDInvalid
	}
	for int(e.items.Load())+len(r.ItemsToCreate) > e.limits.MaxMonitoredItems && e.registry.evictOldest() {
	}
	block := make([]ua.MonitoredItemCreateResult, len(r.ItemsToCreate))
	results := make([]*ua.MonitoredItemCreateResult, len(block))
	watches := joined{}
	for i, c := range r.ItemsToCreate {
		results[i] = &block[i]
		it, result, status := e.newItem(s, c, r.TimestampsToReturn, interval)
		if status != ua.StatusOK {
			block[i].StatusCode, block[i].FilterResult = status, result
			continue
		}
		key := it.read // Once it is added, the item is under the lock.
		block[i] = p.add(it)
		block[i].FilterResult = result
		if block[i].StatusCode == ua.StatusOK && c.MonitoringMode != ua.MonitoringModeDisabled {
			e.hub.join(it, key, watches)
		}
	}
	watches.sample()
	return &ua.CreateMonitoredItemsResponse{Results: results}, ua.StatusOK
}

// newItem checks a request for an item, and makes the item. It has no id yet, and the queue size that was asked for. The result is
// that of an event filter, if it has one.
func (e *engine) newItem(s *subscription, c *ua.MonitoredItemCreateRequest, ts ua.TimestampsToReturn, publishing time.Duration) (it *item, result *ua.ExtensionObject, status ua.StatusCode) {
	read, params := c.ItemToMonitor, c.RequestedParameters
	if !validMode(c.MonitoringMode) {
		return nil, nil, ua.StatusBadMonitoringModeInvalid
	}
	key := watchKey{
		node:       space.KeyOf(read.NodeID),
		attribute:  read.AttributeID,
		indexRange: read.IndexRange,
		timestamps: ts,
	}
	if read.DataEncoding != nil {
		key.encoding = *read.DataEncoding
	}
	if status := e.probe(key); status != ua.StatusOK {
		return nil, nil, status
	}
	it = &item{
		sub:    s,
		handle: params.ClientHandle,
		mode:   c.MonitoringMode,
		queue:  valueQueue{size: int(min(params.QueueSize, math.MaxInt32)), discardOldest: params.DiscardOldest},
	}
	if key.attribute == ua.AttributeIDEventNotifier {
		if key.node != serverObject {
			return nil, nil, ua.StatusBadNotSupported
		}
		it.hears = true
		it.events, result, status = e.parseEventFilter(params.Filter)
	} else {
		it.filter, status = e.parseFilter(params.Filter, key)
		node, _ := e.space.Node(key.node) // The probe has found it.
		it.momentary = node != nil && node.Momentary && key.attribute == ua.AttributeIDValue
	}
	if status != ua.StatusOK {
		return nil, result, status
	}
	key.interval = e.reviseSampling(params.SamplingInterval, publishing, key)
	it.read = key
	return it, result, ua.StatusOK
}

// add puts an item into its subscription, if the limits allow.
func (p *publisher) add(it *item) ua.MonitoredItemCreateResult {
	e, s := p.engine, it.sub
	p.mu.Lock()
	defer p.mu.Unlock()
	if s.ended || s.owner.Load() != p {
		return ua.MonitoredItemCreateResult{StatusCode: ua.StatusBadSubscriptionIDInvalid}
	}
	s.alive()
	if len(s.items) >= e.limits.MaxItemsPerSubscription || !take(&e.items, 1, e.limits.MaxMonitoredItems) {
		return ua.MonitoredItemCreateResult{StatusCode: ua.StatusBadTooManyMonitoredItems}
	}
	if it.hears && !take(&e.eventItems, 1, e.limits.MaxEventItems) {
		e.items.Add(-1)
		return ua.MonitoredItemCreateResult{StatusCode: ua.StatusBadTooManyMonitoredItems}
	}
	if it.id = nextID(&e.lastItem); it.id == 0 {
		e.forget(it)
		return ua.MonitoredItemCreateResult{StatusCode: ua.StatusBadTooManyMonitoredItems}
	}
	it.queue.size = e.takeQueue(it, it.queue.size)
	s.items[it.id] = it
	return ua.MonitoredItemCreateResult{
		MonitoredItemID:         it.id,
		RevisedSamplingInterval: milliseconds(it.read.interval),
		RevisedQueueSize:        uint32(it.queue.size),
	}
}

// modifyItems changes items. An item whose way of being read changes gets its current value anew.
func (p *publisher) modifyItems(r *ua.ModifyMonitoredItemsRequest) (ua.Response, ua.StatusCode) {
	if status := p.engine.operations(len(r.ItemsToModify)); status != ua.StatusOK {
		return nil, status
	}
	if !validTimestamps(r.TimestampsToReturn) {
		return nil, ua.StatusBadTimestampsToReturnInvalid
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	s := p.subs[r.SubscriptionID]
	if s == nil {
		return nil, ua.StatusBadSubscriptionIDInvalid
	}
	s.alive()
	watches := joined{}
	results := make([]*ua.MonitoredItemModifyResult, len(r.ItemsToModify))
	for i, m := range r.ItemsToModify {
		results[i] = &ua.MonitoredItemModifyResult{StatusCode: ua.StatusBadMonitoredItemIDInvalid}
		if it := s.items[m.MonitoredItemID]; it != nil {
			results[i].StatusCode, results[i].FilterResult = s.modify(it, m.RequestedParameters, r.TimestampsToReturn, watches)
			results[i].RevisedSamplingInterval = milliseconds(it.read.interval)
			results[i].RevisedQueueSize = uint32(it.queue.size)
		}
	}
	watches.sample()
	return &ua.ModifyMonitoredItemsResponse{Results: results}, ua.StatusOK
}

// modify changes one item. owner.mu is held.
func (s *subscription) modify(it *item, params *ua.MonitoringParameters, ts ua.TimestampsToReturn, watches joined) (status ua.StatusCode, result *ua.ExtensionObject) {
	e := s.engine
	var filter dataFilter
	var events *eventFilter
	if it.hears {
		events, result, status = e.parseEventFilter(params.Filter)
	} else {
		filter, status = e.parseFilter(params.Filter, it.read)
	}
	if status != ua.StatusOK {
		return status, result
	}
	e.returnQueue(it)
	size := e.takeQueue(it, int(min(params.QueueSize, math.MaxInt32)))
	s.queueMu.Lock()
	it.handle = params.ClientHandle
	if size != it.queue.size || params.DiscardOldest != it.queue.discardOldest {
		it.queue.resize(size, params.DiscardOldest)
		it.happenings.resize(size, params.DiscardOldest)
	}
	disabled := it.mode == ua.MonitoringModeDisabled
	s.queueMu.Unlock()

	if it.hears {
		e.refilter(it, events)
		return ua.StatusOK, result
	}
	key := it.read
	key.timestamps = ts
	key.interval = e.reviseSampling(params.SamplingInterval, s.interval, key)
	if key == it.read && filter == it.filter {
		return ua.StatusOK, nil
	}
	e.hub.leave(it, false)
	it.read, it.filter = key, filter
	if !disabled {
		e.hub.join(it, key, watches)
	}
	return ua.StatusOK, nil
}

// setMode changes items between disabled, sampling and reporting (Part 4 §5.13.1.3).
func (p *publisher) setMode(r *ua.SetMonitoringModeRequest) (ua.Response, ua.StatusCode) {
	if status := p.engine.operations(len(r.MonitoredItemIDs)); status != ua.StatusOK {
		return nil, status
	}
	if !validMode(r.MonitoringMode) {
		return nil, ua.StatusBadMonitoringModeInvalid
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	s := p.subs[r.SubscriptionID]
	if s == nil {
		return nil, ua.StatusBadSubscriptionIDInvalid
	}
	s.alive()
	watches := joined{}
	results := each(r.MonitoredItemIDs, s.items, ua.StatusBadMonitoredItemIDInvalid, func(it *item) { s.setMode(it, r.MonitoringMode, watches) })
	watches.sample()
	s.queueMu.Lock()
	s.prune()
	s.queueMu.Unlock()
	return &ua.SetMonitoringModeResponse{Results: results}, ua.StatusOK
}

func (s *subscription) setMode(it *item, mode ua.MonitoringMode, watches joined) {
	hub := s.engine.hub
	s.queueMu.Lock()
	it.mode, it.released = mode, 0
	if mode == ua.MonitoringModeDisabled {
		it.happenings = eventQueue{}
		it.queue.clear() // Part 4 §5.13.1.3: disabling deletes what is queued.
	}
	it.enlist()
	s.queueMu.Unlock()
	if mode == ua.MonitoringModeDisabled {
		hub.leave(it, false)
	} else {
		hub.join(it, it.read, watches) // Does nothing if the item was not disabled.
	}
}

// deleteItems ends items. What they have queued is not sent any more.
func (p *publisher) deleteItems(r *ua.DeleteMonitoredItemsRequest) (ua.Response, ua.StatusCode) {
	e := p.engine
	if status := e.operations(len(r.MonitoredItemIDs)); status != ua.StatusOK {
		return nil, status
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	s := p.subs[r.SubscriptionID]
	if s == nil {
		return nil, ua.StatusBadSubscriptionIDInvalid
	}
	s.alive()
	results := each(r.MonitoredItemIDs, s.items, ua.StatusBadMonitoredItemIDInvalid, func(it *item) {
		delete(s.items, it.id)
		s.setMode(it, ua.MonitoringModeDisabled, nil)
		s.queueMu.Lock()
		it.unlinkAll()
		s.queueMu.Unlock()
		e.hub.leave(it, true)
		e.returnQueue(it)
		e.forget(it)
	})
	s.queueMu.Lock()
	s.prune()
	s.queueMu.Unlock()
	return &ua.DeleteMonitoredItemsResponse{Results: results}, ua.StatusOK
}

// subscription returns a subscription and its publishing interval, or nil.
func (p *publisher) subscription(id uint32) (*subscription, time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	s := p.subs[id]
	if s == nil {
		return nil, 0
	}
	return s, s.interval
}

// takeQueue reserves a queue, at most of the size that was asked for. Where no more is left, the queue is of one value,
// which every item may have.
func (e *engine) takeQueue(it *item, size int) int {
	if it.hears && size == 0 {
		size = e.limits.DefaultEventQueueSize
	}
	size = min(max(size, 1), e.limits.MaxQueueSize)
	if size > 1 && !take(&e.queued, size, e.limits.MaxQueuedValues) {
		return 1
	}
	return size
}

// forget counts an item no more.
func (e *engine) forget(it *item) {
	e.items.Add(-1)
	if it.hears {
		e.eventItems.Add(-1)
	}
}

func (e *engine) returnQueue(it *item) {
	if it.queue.size > 1 {
		e.queued.Add(-int64(it.queue.size))
	}
}

// probe reads what is to be monitored, to refuse what can never be read. A value that is bad for the moment is no reason.
func (e *engine) probe(key watchKey) ua.StatusCode {
	var dv ua.DataValue
	var enc *ua.QualifiedName
	if key.encoding != (ua.QualifiedName{}) {
		enc = &key.encoding
	}
	e.space.Read(space.ReadContext{Now: e.wall()}, &dv, key.node, key.attribute, key.indexRange, enc, key.timestamps)
	switch dv.Status {
	case ua.StatusBadNodeIDInvalid, ua.StatusBadNodeIDUnknown, ua.StatusBadAttributeIDInvalid, ua.StatusBadIndexRangeInvalid,
		ua.StatusBadDataEncodingInvalid, ua.StatusBadDataEncodingUnsupported, ua.StatusBadNotReadable:
		return dv.Status
	}
	return ua.StatusOK
}

// reviseSampling returns the interval at which a value is sampled: 0 for a value that is pushed (Part 3 §5.6.2: a
// MinimumSamplingInterval of 0), and for an attribute that is not a value, which does not change. A negative request
// means the publishing interval (Part 4 §7.21).
func (e *engine) reviseSampling(ms float64, publishing time.Duration, key watchKey) time.Duration {
	n, ok := e.space.Node(key.node)
	if !ok || key.attribute != ua.AttributeIDValue || n.MinimumSamplingInterval == 0 {
		return 0
	}
	if ms < 0 {
		ms = milliseconds(publishing)
	}
	least := reviseInterval(n.MinimumSamplingInterval, e.limits.MinSamplingInterval, e.limits.MaxSamplingInterval)
	key.interval = reviseInterval(ms, least, e.limits.MaxSamplingInterval)
	return e.hub.afford(key)
}

func validMode(m ua.MonitoringMode) bool { return m <= ua.MonitoringModeReporting }

func validTimestamps(ts ua.TimestampsToReturn) bool { return ts <= ua.TimestampsToReturnNeither }
