package node

import "time"

// Clock gives the readings that a leader stamps on entries (platform.md §2).
type Clock interface {
	// Elapsed is a monotonic reading since some fixed moment: only differences mean anything.
	Elapsed() time.Duration
	// Wall is the wall time, recorded for people only.
	Wall() time.Time
}

type systemClock struct{ start time.Time }

// NewSystemClock returns the machine's clock. Its Elapsed doesn't follow changes of the wall clock.
func NewSystemClock() Clock { return systemClock{start: time.Now()} }

func (c systemClock) Elapsed() time.Duration { return time.Since(c.start) }
func (c systemClock) Wall() time.Time        { return time.Now() }
