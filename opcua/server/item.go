package server

import (
	"slices"

	"github.com/gopcua/opcua/ua"
)

// item is a monitored item of a subscription (Part 4 §5.13.1).
type item struct {
	id   uint32 // never 0, and never that of another item of this server
	sub  *subscription
	read watchKey // what is watched; under sub.owner.mu

	watch *watch // under hub.mu; nil while the item is disabled
	left  bool   // under hub.mu
	slot  int    // place in watch.items; under watch.mu
	fresh bool   // has had no value since it joined; under watch.mu

	filter    dataFilter    // which changes count; under watch.mu
	reference *ua.DataValue // the value that was queued last, from which a dead-band counts; under watch.mu

	momentary bool // what is queued is read again before it is sent (space.Node); never changes

	hears  bool         // of events; else it has the values of an attribute
	events *eventFilter // which ones, and what of them; written under the lock of the listeners and sub.queueMu, read under either

	// Under sub.queueMu.
	handle     uint32 // the client's name for the item
	mode       ua.MonitoringMode
	queue      valueQueue // its size and policy are those of happenings too
	happenings eventQueue
	waiting    bool // is in sub.waiting

	// Of SetTriggering (Part 4 §5.13.1.6); under sub.queueMu too.
	links    map[*item]struct{} // items that this one triggers
	linkedBy map[*item]struct{} // items that trigger this one
	released int                // how many of the queued values a trigger has let go, where the mode is Sampling
}

// push queues a value. It is called on the goroutine of whoever changed the value, and waits for no client: queueMu is only
// ever held for moments.
func (it *item) push(dv *ua.DataValue) {
	s := it.sub
	s.queueMu.Lock()
	defer s.queueMu.Unlock()
	if it.mode == ua.MonitoringModeDisabled {
		return
	}
	if it.queue.push(dv) {
		s.engine.counts.lostValues.Add(1)
	}
	it.enlist()
	it.pull()
}

// enlist puts an item that has something to report among those that are waiting. sub.queueMu is held.
func (it *item) enlist() {
	if it.due() > 0 && !it.waiting {
		it.waiting = true
		it.sub.waiting = append(it.sub.waiting, it)
	}
}

// queued is how many values or events wait. sub.queueMu is held.
func (it *item) queued() int { return it.queue.length + it.happenings.length() }

// due is how many of those are to be reported. sub.queueMu is held.
func (it *item) due() int {
	if it.mode == ua.MonitoringModeReporting {
		return it.queued()
	}
	return min(it.released, it.queued())
}

// refresh reads again what is about to be sent and may have run out since it was queued. Whoever would have told of it may have been stopped as this goroutine
// was, and not be awake yet.
func (s *subscription) refresh() {
	var momentary []*item
	s.queueMu.Lock()
	for _, it := range s.waiting {
		if it.momentary {
			momentary = append(momentary, it)
		}
	}
	s.queueMu.Unlock()
	if len(momentary) > 0 {
		s.engine.hub.refresh(momentary)
	}
}

// drained is what one message has: values, and events with the items that they are for.
type drained struct {
	values []*ua.MonitoredItemNotification
	events []toldEvent
}

// toldEvent is an event on its way to a client. A nil event stands for those that were lost.
type toldEvent struct {
	event  *happening
	filter *eventFilter
	handle uint32
}

// draft is a message with what it points to, in one block. There is room for one value, which nearly all messages have.
type draft struct {
	message ua.NotificationMessage
	part    ua.ExtensionObject
	parts   [1]*ua.ExtensionObject
	change  ua.DataChangeNotification
	value   [1]ua.MonitoredItemNotification
	values  [1]*ua.MonitoredItemNotification
}

// drain takes at most limit values and events from the items that are waiting, in the order in which they began to wait.
// more reports whether some are left.
func (s *subscription) drain(limit int, m *draft) (d drained, more bool) {
	s.queueMu.Lock()
	defer s.queueMu.Unlock()
	n := 0
	for _, it := range s.waiting {
		n += it.due()
	}
	n = min(n, limit)
	if n == 0 {
		return drained{}, len(s.waiting) > 0
	}
	block := m.value[:]
	d.values = m.values[:0]
	if n > 1 {
		block = make([]ua.MonitoredItemNotification, n)
		d.values = make([]*ua.MonitoredItemNotification, 0, n)
	}
	done := 0
	for _, it := range s.waiting {
		for ; n > 0 && it.due() > 0; n-- {
			it.released = max(it.released-1, 0)
			if it.hears {
				d.events = append(d.events, toldEvent{it.happenings.pop(it.queue.discardOldest), it.events, it.handle})
				continue
			}
			block[len(d.values)] = ua.MonitoredItemNotification{ClientHandle: it.handle, Value: it.queue.pop()}
			d.values = append(d.values, &block[len(d.values)])
		}
		if it.due() > 0 {
			break
		}
		it.waiting = false
		done++
	}
	s.waiting = slices.Delete(s.waiting, 0, done)
	return d, len(s.waiting) > 0
}

// notifications are the parts of a message (Part 4 §7.26), nil if there are none.
func (d *drained) notifications(e *engine, m *draft) (parts []*ua.ExtensionObject) {
	if len(d.values) > 0 {
		m.change.MonitoredItems = d.values
		m.part = ua.ExtensionObject{EncodingMask: ua.ExtensionObjectBinary, TypeID: dataChangeType, Value: &m.change}
		m.parts[0] = &m.part
		parts = m.parts[:]
	}
	if len(d.events) > 0 {
		list := &ua.EventNotificationList{Events: make([]*ua.EventFieldList, len(d.events))}
		for i, t := range d.events {
			if t.event == nil {
				t.event = e.overflowEvent()
			}
			list.Events[i] = t.filter.list(t.event, t.handle, e.space)
		}
		parts = append(parts, extension(eventListType, list))
	}
	return parts
}

// pending reports whether a value waits to be published.
func (s *subscription) pending() bool {
	s.queueMu.Lock()
	defer s.queueMu.Unlock()
	return len(s.waiting) > 0
}

// prune takes from those that are waiting the items that have nothing to report any more. queueMu is held.
func (s *subscription) prune() {
	s.waiting = slices.DeleteFunc(s.waiting, func(it *item) bool {
		it.waiting = it.due() > 0
		return !it.waiting
	})
}
