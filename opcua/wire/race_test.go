//go:build race

package wire

// raceEnabled says that the race detector makes allocations of its own.
const raceEnabled = true
