package sim

import (
	"sync"
	"time"
)

// Clock is one member's clock. Its monotonic reading begins anywhere and may run slow or stand still; its wall time may be set to anything.
type Clock struct {
	mu sync.Mutex
	// since and reading are where the present rate began.
	since   time.Time
	reading time.Duration
	rate    float64
	shift   time.Duration
	// followWall is a mutant: the reading is that of the wall clock, which can be set.
	followWall bool
}

// NewClock makes a clock that begins at reading and gains rate seconds in each real one. A rate above 1 is a clock that breaks what the group relies on.
func NewClock(reading time.Duration, rate float64, shift time.Duration) *Clock {
	return &Clock{since: time.Now(), reading: reading, rate: rate, shift: shift}
}

// Elapsed implements node.Clock.
func (c *Clock) Elapsed() time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.elapsed()
}

func (c *Clock) elapsed() time.Duration {
	if c.followWall {
		return time.Since(c.since) + c.shift + c.reading
	}
	return c.reading + time.Duration(float64(time.Since(c.since))*c.rate)
}

// Wall implements node.Clock.
func (c *Clock) Wall() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return time.Now().Add(c.shift)
}

// SetRate changes the speed from now on; 0 stops the clock.
func (c *Clock) SetRate(rate float64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.reading, c.since, c.rate = c.elapsed(), time.Now(), rate
}

// SetWall sets the wall time to be off by shift.
func (c *Clock) SetWall(shift time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.shift = shift
}

// Skip puts the reading forward at once, as no clock that the group relies on may do.
func (c *Clock) Skip(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.reading, c.since = c.elapsed()+d, time.Now()
}

// FollowWall makes the reading follow the wall clock, wherever that is set.
func (c *Clock) FollowWall() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.followWall = true
}
