package server

import (
	"context"
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

func TestScheduleOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSchedule()
		var fired []string
		var at []time.Duration
		add := func(name string, order uint8, due time.Duration) *timer {
			tm := &timer{order: order, fire: func(now time.Duration) {
				fired = append(fired, name)
				at = append(at, now)
			}}
			s.set(tm, due)
			return tm
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() {
			defer close(done)
			s.run(ctx)
		}()
		synctest.Wait() // It sleeps for an hour now: each earlier timer has to wake it.
		add("late", orderSample, time.Minute)
		synctest.Wait()
		add("publish", orderPublish, 100*time.Millisecond)
		add("publish 2", orderPublish, 99*time.Millisecond) // The same place on the grid.
		add("sample", orderSample, 98*time.Millisecond)
		stopped := add("stopped", orderSample, 50*time.Millisecond)
		moved := add("moved", orderSample, 200*time.Millisecond)
		s.set(moved, 30*time.Millisecond)
		s.stop(stopped)
		s.stop(stopped)
		<-time.After(2 * time.Minute)
		cancel()
		<-done
		if want := []string{"moved", "sample", "publish", "publish 2", "late"}; !slices.Equal(fired, want) {
			t.Errorf("fired %v, want %v", fired, want)
		}
		if want := []time.Duration{30 * time.Millisecond, 100 * time.Millisecond, 100 * time.Millisecond, 100 * time.Millisecond, time.Minute}; !slices.Equal(at, want) {
			t.Errorf("at %v, want %v", at, want)
		}
	})
}

// TestStoppedTimersLeaveNothing sets and stops timers at one place on the grid, as a client can that makes and closes sessions.
func TestStoppedTimersLeaveNothing(t *testing.T) {
	s := newSchedule()
	s.set(&timer{order: orderExpire}, time.Hour)
	for range 10_000 {
		tm := &timer{order: orderExpire}
		s.set(tm, time.Hour)
		s.stop(tm)
	}
	if n := cap(s.byTime[time.Hour].lists[orderExpire].timers); n > 8 {
		t.Errorf("room for %d timers where one is set", n)
	}
	for i := range 10 * maxFreeSlots {
		tm := &timer{}
		s.set(tm, time.Duration(i)*granularity)
	}
	for at := range s.byTime {
		for _, tm := range slices.Clone(s.byTime[at].lists[orderSample].timers) {
			s.stop(tm)
		}
	}
	if len(s.slots) != 1 || len(s.byTime) != 1 || len(s.free) != maxFreeSlots {
		t.Errorf("%d slots in the heap, %d in the map, %d free; want 1, 1 and %d", len(s.slots), len(s.byTime), len(s.free), maxFreeSlots)
	}
}

// TestOrderOutlastsHoles stops timers between others, which fire in the order in which they were set all the same.
func TestOrderOutlastsHoles(t *testing.T) {
	s := newSchedule()
	var timers []*timer
	for range 100 {
		tm := &timer{order: orderPublish}
		timers = append(timers, tm)
		s.set(tm, granularity)
	}
	var want []*timer
	for i, tm := range timers {
		if i%7 == 0 || i == 99 {
			want = append(want, tm)
		} else {
			s.stop(tm)
		}
	}
	s.set(want[0], granularity) // Again, so it is the last now.
	want = append(want[1:], want[0])
	if got := s.take(granularity, nil); !slices.Equal(got, want) {
		t.Errorf("%d timers are due in the wrong order, want %d", len(got), len(want))
	}
	if got := s.take(time.Hour, nil); len(got) != 0 {
		t.Errorf("%d timers are left", len(got))
	}
}

func TestAfterKeepsThePhase(t *testing.T) {
	for _, c := range []struct{ due, interval, now, want time.Duration }{
		{100, 10, 100, 110},
		{100, 10, 109, 110},
		{100, 10, 110, 120},
		{100, 10, 115, 120},
		{100, 10, 1_000_003, 1_000_010},
	} {
		if got := after(c.due, c.interval, c.now); got != c.want {
			t.Errorf("after(%d, %d, %d) = %d, want %d", c.due, c.interval, c.now, got, c.want)
		}
	}
}

func TestGridBoundsWakeUps(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		// A thousand timers of 100 ms with phases of their own wake the schedule once for each place on the grid.
		s := newSchedule()
		wakes, last := 0, time.Duration(-1)
		for i := range 1000 {
			tm := &timer{order: orderPublish}
			next := time.Duration(i) * 100 * time.Microsecond
			tm.fire = func(now time.Duration) {
				if now != last {
					wakes, last = wakes+1, now
				}
				next = after(next, 100*time.Millisecond, now)
				s.set(tm, next)
			}
			s.set(tm, next)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		s.run(ctx)
		if most := int(time.Second/granularity) + 1; wakes > most || wakes < most/2 {
			t.Errorf("%d wake-ups in a second, want at most %d", wakes, most)
		}
	})
}
