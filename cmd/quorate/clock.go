package main

import (
	"os"
	"strings"
	"time"

	"quorate/mutant"
	"quorate/node"
)

// shiftedClock is the machine's clock with a wall time that is off by what a file says now.
type shiftedClock struct {
	node.Clock
	file string
}

// memberClock is the clock of a member; with a file its wall time can be shifted while it runs.
func memberClock(file string) node.Clock {
	if file == "" {
		return node.NewSystemClock()
	}
	return shiftedClock{Clock: node.NewSystemClock(), file: file}
}

// Elapsed implements node.Clock.
func (c shiftedClock) Elapsed() time.Duration {
	if mutant.WallClock {
		return c.Wall().Sub(time.Unix(0, 0))
	}
	return c.Clock.Elapsed()
}

// Wall implements node.Clock.
func (c shiftedClock) Wall() time.Time {
	text, _ := os.ReadFile(c.file)
	offset, _ := time.ParseDuration(strings.TrimSpace(string(text)))
	return c.Clock.Wall().Add(offset)
}
