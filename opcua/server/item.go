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

	// Under sub.queueMu.
	handle  uint32 // the client's name for the item
	mode    ua.MonitoringMode
	queue   valueQueue
	waiting bool // is in sub.waiting

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
	it.queue.push(dv)
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

// due is how many of the queued values are to be reported. sub.queueMu is held.
func (it *item) due() int {
	if it.mode == ua.MonitoringModeReporting {
		return it.queue.length
	}
	return min(it.released, it.queue.length)
}

// drain takes at most limit values from the items that are waiting, in the order in which they began to wait.
func (s *subscription) drain(limit int) []*ua.MonitoredItemNotification {
	s.queueMu.Lock()
	defer s.queueMu.Unlock()
	n := 0
	for _, it := range s.waiting {
		n += it.due()
	}
	n = min(n, limit)
	if n == 0 {
		return nil
	}
	block := make([]ua.MonitoredItemNotification, n)
	list := make([]*ua.MonitoredItemNotification, 0, n)
	done := 0
	for _, it := range s.waiting {
		for it.due() > 0 && len(list) < n {
			it.released = max(it.released-1, 0)
			block[len(list)] = ua.MonitoredItemNotification{ClientHandle: it.handle, Value: it.queue.pop()}
			list = append(list, &block[len(list)])
		}
		if it.due() > 0 {
			break
		}
		it.waiting = false
		done++
	}
	s.waiting = slices.Delete(s.waiting, 0, done)
	return list
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
