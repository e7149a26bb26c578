package mutant

import "testing"

// TestProductHasNone is the reason for this package: without the tag no rule is broken, whatever the environment says.
func TestProductHasNone(t *testing.T) {
	t.Setenv("MUTANT", "no-sync")
	for name, broken := range map[string]bool{
		"no-sync": NoSync, "unconfirmed": Unconfirmed, "no-barrier": NoBarrier, "wall-clock": WallClock, "serving-for-ever": ServingForEver, "open-gates": OpenGates,
	} {
		if broken {
			t.Errorf("%s is broken in a build without the tag", name)
		}
	}
	if Name() != "" {
		t.Errorf("the broken rule is %s", Name())
	}
}
