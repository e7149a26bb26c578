//go:build mutant

package mutant

import (
	"fmt"
	"os"
	"slices"
)

var name = os.Getenv("MUTANT")

// The rules; off.go says what they are.
var (
	NoSync         = name == "no-sync"
	Unconfirmed    = name == "unconfirmed"
	NoBarrier      = name == "no-barrier"
	WallClock      = name == "wall-clock"
	ServingForEver = name == "serving-for-ever"
	OpenGates      = name == "open-gates"
)

func init() {
	if known := []string{"", "no-sync", "unconfirmed", "no-barrier", "wall-clock", "serving-for-ever", "open-gates"}; !slices.Contains(known, name) {
		fmt.Fprintf(os.Stderr, "MUTANT=%s is none of %q\n", name, known[1:])
		os.Exit(2)
	}
}

// Name returns the rule that is broken, empty if none is.
func Name() string { return name }
