package server

import (
	"container/heap"
	"context"
	"sync"
	"time"
)

// granularity is the grid that every timer's time is rounded up to. Thousands of subscriptions with phases of their own
// then wake the server 200 times a second at most, and each time for several of them, which is what makes them cheap.
const granularity = 5 * time.Millisecond

// Timers that are due together fire in this order, so that a value that is sampled at the rate at which it is published is
// always published fresh: exactly one sample falls between two cycles, however late the server wakes.
const (
	orderSample uint8 = iota
	orderPublish
	orderExpire
	orders
)

// maxFreeSlots is how many empty slots are kept for later ones: about as many as there are places on the grid in the
// intervals that clients choose.
const maxFreeSlots = 64

// timer is one entry of a schedule. Its fields belong to the schedule.
type timer struct {
	fire  func(now time.Duration) // on the schedule's goroutine, without any lock held
	order uint8
	slot  *slot // nil while it is not armed
	place int   // in its list of the slot
}

// slot has the timers of one place on the grid.
type slot struct {
	at    time.Duration
	index int // in the heap
	armed int // timers
	lists [orders]slotList
}

// slotList has the timers of one order, in the order in which they were set. It is nil where one was stopped.
type slotList struct {
	timers []*timer
	holes  int
}

// schedule runs all timers of a server on one goroutine, in the order of their times. Time is what passed since the
// schedule was made, by the monotonic clock, so that setting the wall clock neither hastens nor delays anything.
type schedule struct {
	start time.Time
	wake  chan struct{}

	mu     sync.Mutex // a leaf: nothing else is locked under it
	slots  slotHeap   // those with timers, the earliest first
	byTime map[time.Duration]*slot
	free   []*slot
	until  time.Duration // what run sleeps for; asleep says whether it does
	asleep bool
}

func newSchedule() *schedule {
	return &schedule{start: time.Now(), wake: make(chan struct{}, 1), byTime: make(map[time.Duration]*slot)}
}

// now returns the schedule's time.
func (s *schedule) now() time.Duration { return time.Since(s.start) }

// after returns the first time after now that is a whole number of intervals after due. Counting from what was due, not
// from now, keeps the phase; a pause of many intervals is made up for with one.
func after(due, interval, now time.Duration) time.Duration {
	due += interval
	if due <= now {
		due += (now - due + interval) / interval * interval
	}
	return due
}

// set arms t, or moves it if it is armed.
func (s *schedule) set(t *timer, at time.Duration) {
	if rest := at % granularity; rest > 0 {
		at += granularity - rest
	}
	s.mu.Lock()
	s.disarm(t)
	sl := s.slotAt(at)
	list := &sl.lists[t.order]
	t.slot, t.place = sl, len(list.timers)
	list.timers = append(list.timers, t)
	sl.armed++
	wake := s.asleep && s.slots[0].at < s.until
	s.mu.Unlock()
	if wake {
		select {
		case s.wake <- struct{}{}:
		default: // A wake-up is on its way already.
		}
	}
}

// stop disarms t. If t is due, it may fire once more, so what it fires must know by itself that it has ended.
func (s *schedule) stop(t *timer) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.disarm(t)
}

// slotAt returns the slot of a place on the grid. s.mu is held.
func (s *schedule) slotAt(at time.Duration) *slot {
	if sl := s.byTime[at]; sl != nil {
		return sl
	}
	var sl *slot
	if last := len(s.free) - 1; last >= 0 {
		sl, s.free[last] = s.free[last], nil
		s.free = s.free[:last]
	} else {
		sl = new(slot)
	}
	sl.at = at
	s.byTime[at] = sl
	heap.Push(&s.slots, sl)
	return sl
}

// disarm takes a timer out of its slot, and the slot away with its last timer. s.mu is held.
func (s *schedule) disarm(t *timer) {
	sl := t.slot
	if sl == nil {
		return
	}
	t.slot = nil
	sl.lists[t.order].remove(t.place)
	if sl.armed--; sl.armed == 0 {
		heap.Remove(&s.slots, sl.index)
		s.release(sl)
	}
}

// release keeps a slot that is no longer in the heap for a later one. s.mu is held.
func (s *schedule) release(sl *slot) {
	delete(s.byTime, sl.at)
	for i := range sl.lists {
		list := &sl.lists[i]
		clear(list.timers)
		list.timers, list.holes = list.timers[:0], 0
	}
	sl.armed = 0
	if len(s.free) < maxFreeSlots {
		s.free = append(s.free, sl)
	}
}

// remove leaves a hole, so that the others keep their order; when the most are holes, they are closed. So what a client sets and
// stops in a loop takes no more memory than what it leaves set.
func (l *slotList) remove(place int) {
	l.timers[place] = nil
	if l.holes++; 2*l.holes <= len(l.timers) {
		return
	}
	kept := l.timers[:0]
	for _, t := range l.timers {
		if t != nil {
			t.place = len(kept)
			kept = append(kept, t)
		}
	}
	clear(l.timers[len(kept):])
	l.timers, l.holes = kept, 0
}

// run fires timers until ctx ends.
func (s *schedule) run(ctx context.Context) {
	alarm := time.NewTimer(0)
	defer alarm.Stop()
	var due []*timer
	for ctx.Err() == nil {
		now := s.now()
		due = s.take(now, due[:0])
		for _, t := range due {
			t.fire(now)
		}
		clear(due) // What has ended can be freed.
		if len(due) > 0 {
			continue
		}
		s.sleep(ctx, alarm)
	}
}

// take removes the timers that are due and appends them to due.
func (s *schedule) take(now time.Duration, due []*timer) []*timer {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.asleep = false
	for len(s.slots) > 0 && s.slots[0].at <= now {
		sl := heap.Pop(&s.slots).(*slot)
		for _, list := range sl.lists {
			for _, t := range list.timers {
				if t != nil {
					t.slot = nil
					due = append(due, t)
				}
			}
		}
		s.release(sl)
	}
	return due
}

// sleep waits for the first timer, for an earlier one to be set, or for the end of ctx.
func (s *schedule) sleep(ctx context.Context, alarm *time.Timer) {
	const idle = time.Hour // Sleeping at all needs an end; waking in vain once an hour costs nothing.
	s.mu.Lock()
	now := s.now()
	s.until = now + idle
	if len(s.slots) > 0 {
		s.until = s.slots[0].at
	}
	s.asleep = true
	alarm.Reset(s.until - now)
	s.mu.Unlock()
	select {
	case <-alarm.C:
	case <-s.wake:
	case <-ctx.Done():
	}
}

type slotHeap []*slot

func (h slotHeap) Len() int { return len(h) }

func (h slotHeap) Less(i, j int) bool { return h[i].at < h[j].at }

func (h slotHeap) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].index, h[j].index = i, j
}

func (h *slotHeap) Push(x any) {
	sl := x.(*slot)
	sl.index = len(*h)
	*h = append(*h, sl)
}

func (h *slotHeap) Pop() any {
	old := *h
	sl := old[len(old)-1]
	old[len(old)-1] = nil
	*h = old[:len(old)-1]
	return sl
}
