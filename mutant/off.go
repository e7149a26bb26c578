//go:build !mutant

package mutant

// The rules; names are in on.go.
const (
	// NoSync doesn't wait for the disk before it acknowledges.
	NoSync = false
	// Unconfirmed lets a leader answer without asking a majority whether it still is the leader.
	Unconfirmed = false
	// NoBarrier completes migrations before the drain barrier has passed.
	NoBarrier = false
	// WallClock lets cluster time follow the wall clock.
	WallClock = false
	// ServingForEver lets a server go on as if its serving lease never ran out.
	ServingForEver = false
	// OpenGates lets the leader commit transitions without waiting for the gate leases on the former epoch.
	OpenGates = false
)

// Name returns the rule that is broken: none.
func Name() string { return "" }
