package server

import (
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gopcua/opcua/ua"

	"quorate/opcua/space"
)

// maxSampleRounds is how often in a row one goroutine reads a value that goes on changing under it. After that the rest
// is left to the schedule, so that whoever changed the value is not kept by the changes of others.
const maxSampleRounds = 8

// watchKey is what monitored items must have in common to share the reading of their value.
type watchKey struct {
	node       space.Key
	attribute  ua.AttributeID
	indexRange string
	encoding   ua.QualifiedName
	timestamps ua.TimestampsToReturn
	interval   time.Duration // of sampling; 0: the value is pushed, or never changes
}

// hub has the watches of a server. A thousand sessions that monitor one node are one watch: the node is read once.
type hub struct {
	engine *engine

	mu      sync.Mutex // held while a watch begins or ends and while items join and leave, never while a value is read
	watches map[watchKey]*watch
	rate    float64 // samples per second of all watches
}

// afford returns the interval at which a value can be sampled: that of its key, or a multiple of it if the server samples too
// much already. A value that is sampled at that interval for another item costs nothing more.
func (h *hub) afford(key watchKey) time.Duration {
	limits := &h.engine.limits
	h.mu.Lock()
	defer h.mu.Unlock()
	for key.interval < limits.MaxSamplingInterval && h.watches[key] == nil && h.rate+key.rate() > float64(limits.MaxSamplesPerSecond) {
		key.interval = min(10*key.interval, limits.MaxSamplingInterval)
	}
	return key.interval
}

// rate is how often per second the value is sampled.
func (k *watchKey) rate() float64 {
	if k.interval == 0 {
		return 0
	}
	return float64(time.Second) / float64(k.interval)
}

// watch reads one attribute of one node when it changes, or at an interval, and hands each change to its items.
type watch struct {
	hub    *hub
	key    watchKey
	cancel func() // ends the subscription to the space
	timer  timer
	closed bool          // under hub.mu
	next   time.Duration // when the next sample is due, if interval is not 0; under hub.mu

	// changes counts those that no sample has covered. Who takes it from 0 to 1 samples for all: so samples are handed out in the
	// order in which they were read, and nobody waits for anybody.
	changes atomic.Int64

	// sampling is held by who samples, for others to wait; it never waits for them, since they hold nothing while they do (see refresh).
	sampling sync.Mutex

	mu    sync.Mutex // items' queue locks are taken under it
	items []*item
	fresh int // how many of items have had no value yet
	last  *ua.DataValue
}

// joined are the watches that the items of one call have joined. A sample is handed to every item of a watch, so there is one for
// each watch at the end of the call: one for each item would cost the square of their number.
type joined map[*watch]struct{}

// sample gives the items their current values.
func (j joined) sample() {
	for w := range j {
		w.changed()
	}
}

// join adds an item to the watch of its key, which begins with it if it is the first.
func (h *hub) join(it *item, key watchKey, j joined) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if it.left || it.watch != nil {
		return
	}
	if it.hears {
		h.engine.listen(it)
		return
	}
	w := h.watches[key]
	if w == nil {
		w = &watch{hub: h, key: key}
		w.timer = timer{order: orderSample, fire: w.tick}
		h.watches[key] = w
		h.rate += key.rate()
		w.cancel = h.engine.space.Subscribe(key.node, w.changed)
		if key.interval > 0 {
			w.next = h.engine.schedule.now() + key.interval
			h.engine.schedule.set(&w.timer, w.next)
		}
	}
	it.watch = w
	w.mu.Lock()
	it.slot, it.fresh = len(w.items), true
	w.items = append(w.items, it)
	w.fresh++
	w.mu.Unlock()
	j[w] = struct{}{}
}

// leave takes an item from its watch, which ends with its last item. An item that leaves for good never joins again.
func (h *hub) leave(it *item, forGood bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	it.left = it.left || forGood
	if it.hears {
		h.engine.ignore(it)
		return
	}
	w := it.watch
	if w == nil {
		return
	}
	it.watch = nil
	w.mu.Lock()
	last := len(w.items) - 1
	w.items[it.slot] = w.items[last]
	w.items[it.slot].slot = it.slot
	w.items[last] = nil
	w.items = w.items[:last]
	if it.fresh {
		w.fresh--
		it.fresh = false
	}
	w.mu.Unlock()
	if last > 0 {
		return
	}
	w.closed = true
	w.cancel()
	h.engine.schedule.stop(&w.timer)
	delete(h.watches, w.key)
	if h.rate -= w.key.rate(); len(h.watches) == 0 {
		h.rate = 0 // What rounding has left.
	}
}

// tick samples, and arms the timer for the next sample unless the watch has ended.
func (w *watch) tick(now time.Duration) {
	if w.key.interval > 0 {
		w.hub.mu.Lock()
		if !w.closed {
			if w.next <= now { // It may be here early, to go on with what changed left to it.
				w.next = after(w.next, w.key.interval, now)
			}
			w.hub.engine.schedule.set(&w.timer, w.next)
		}
		w.hub.mu.Unlock()
	}
	w.changed()
}

// changed reads the value and hands it to the items, unless another goroutine is at it, which then reads again.
func (w *watch) changed() { w.elected() }

// elected does so, and says whether it was this goroutine that did.
func (w *watch) elected() bool {
	if w.changes.Add(1) > 1 {
		return false
	}
	w.sampling.Lock()
	defer w.sampling.Unlock()
	for range maxSampleRounds {
		seen := w.changes.Load()
		w.sample()
		if w.changes.CompareAndSwap(seen, 0) {
			return true
		}
	}
	w.changes.Store(0)
	w.hub.mu.Lock()
	defer w.hub.mu.Unlock()
	if !w.closed {
		w.hub.engine.schedule.set(&w.timer, w.hub.engine.schedule.now())
	}
	return true
}

// refresh returns when the value has been read and handed out by a reading that began after the call. Where another goroutine is at it, that one is waited for:
// it may have read the value before the process was stopped. What goes on changing is read all the time, and isn't waited for without end.
func (w *watch) refresh() {
	for range maxSampleRounds {
		if w.elected() {
			return
		}
		w.sampling.Lock()
		w.sampling.Unlock() //nolint:staticcheck // Nothing is done under it.
		runtime.Gosched()   // It may have been elected, and not be there yet.
	}
}

// refresh reads the values of items anew, and returns when they have them.
func (h *hub) refresh(items []*item) {
	watches := joined{}
	h.mu.Lock()
	for _, it := range items {
		if it.watch != nil {
			watches[it.watch] = struct{}{}
		}
	}
	h.mu.Unlock()
	for w := range watches {
		w.refresh()
	}
}

func (w *watch) sample() {
	e := w.hub.engine
	dv := new(ua.DataValue)
	var enc *ua.QualifiedName
	if w.key.encoding != (ua.QualifiedName{}) {
		enc = &w.key.encoding
	}
	e.space.Read(space.ReadContext{Now: e.wall()}, dv, w.key.node, w.key.attribute, w.key.indexRange, enc, w.key.timestamps)

	w.mu.Lock()
	defer w.mu.Unlock()
	c := changeStatus | changeValue | changeTimestamp
	if w.last != nil {
		c = compare(w.last, dv)
	}
	w.last = dv
	if c == 0 && w.fresh == 0 {
		return
	}
	for _, it := range w.items {
		if it.fresh || it.filter.passes(c, it.reference, dv) {
			it.fresh, it.reference = false, dv
			it.push(dv)
		}
	}
	w.fresh = 0
}
