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
