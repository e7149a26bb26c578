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
)

// timer is one entry of a schedule. Its fields belong to the schedule.
type timer struct {
	fire  func(now time.Duration) // on the schedule's goroutine, without any lock held
	order uint8
	armed bool
	index int
	at    time.Duration
	set   uint64 // by this the earlier set comes first, where all else is equal
}

// schedule runs all timers of a server on one goroutine, in the order of their times. Time is what passed since the
// schedule was made, by the monotonic clock, so that setting the wall clock neither hastens nor delays anything.
type schedule struct {
	start time.Time
	wake  chan struct{}

	mu     sync.Mutex // a leaf: nothing else is locked under it
	timers timerHeap
	sets   uint64
	until  time.Duration // what run sleeps for; asleep says whether it does
	asleep bool
}

func newSchedule() *schedule {
	return &schedule{start: time.Now(), wake: make(chan struct{}, 1)}
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
	s.sets++
	t.at, t.set = at, s.sets
	if t.armed {
		heap.Fix(&s.timers, t.index)
	} else {
		t.armed = true
		heap.Push(&s.timers, t)
	}
	wake := s.asleep && s.timers[0].at < s.until
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
	if t.armed {
		heap.Remove(&s.timers, t.index)
	}
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
	for len(s.timers) > 0 && s.timers[0].at <= now {
		due = append(due, heap.Pop(&s.timers).(*timer))
	}
	return due
}

// sleep waits for the first timer, for an earlier one to be set, or for the end of ctx.
func (s *schedule) sleep(ctx context.Context, alarm *time.Timer) {
	const idle = time.Hour // Sleeping at all needs an end; waking in vain once an hour costs nothing.
	s.mu.Lock()
	now := s.now()
	s.until = now + idle
	if len(s.timers) > 0 {
		s.until = s.timers[0].at
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

type timerHeap []*timer

func (h timerHeap) Len() int { return len(h) }

func (h timerHeap) Less(i, j int) bool {
	if h[i].at != h[j].at {
		return h[i].at < h[j].at
	}
	if h[i].order != h[j].order {
		return h[i].order < h[j].order
	}
	return h[i].set < h[j].set
}

func (h timerHeap) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].index, h[j].index = i, j
}

func (h *timerHeap) Push(x any) {
	t := x.(*timer)
	t.index = len(*h)
	*h = append(*h, t)
}

func (h *timerHeap) Pop() any {
	old := *h
	t := old[len(old)-1]
	old[len(old)-1] = nil
	*h = old[:len(old)-1]
	t.armed = false
	return t
}
