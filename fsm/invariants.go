package fsm

import "fmt"

// Check returns the first invariant that the state breaks, nil if none. Tests call it after every command; a restore calls
// it before it returns a state.
func (s *State) Check() error {
	for _, slice := range []struct {
		name  string
		check func() error
	}{
		{"clock", s.checkClock},
		{"topology", s.checkTopology},
		{"lease", s.checkLeases},
		{"maintenance", s.checkMaintenance},
		{"member", s.checkMembers},
		{"request", s.checkRequests},
		{"serving", s.checkServing},
		{"rollout", s.checkRollouts},
		{"level", s.checkLevels},
		{"partition", s.checkPartitions},
		{"instance", s.checkInstances},
	} {
		if err := slice.check(); err != nil {
			return fmt.Errorf("invariant of %s: %w", slice.name, err)
		}
	}
	return nil
}

// checkClock is the invariant of the clock.
func (s *State) checkClock() error {
	if s.clock.now < 0 || s.clock.now > MaxClock {
		return fmt.Errorf("cluster time %d is out of range", s.clock.now)
	}
	return nil
}
