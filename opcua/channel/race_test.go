//go:build race

package channel

// raceEnabled says that the race detector is on.
const raceEnabled = true
