package fsm

import (
	"fmt"

	quoratev1 "quorate/proto/quorate/v1"
)

// checkLeases is the invariant of the apply leases.
func (s *State) checkLeases() error {
	if s.leases.open.Len() != s.leases.deadlines.Len() {
		return fmt.Errorf("%d open leases have %d deadlines", s.leases.open.Len(), s.leases.deadlines.Len())
	}
	for key, l := range s.leases.open.All() {
		if keyOf(l) != key || !s.leases.deadlines.Has(deadlineOf(l)) {
			return fmt.Errorf("open lease %v: its indexes disagree", key)
		}
		if err := s.checkOpenLease(l); err != nil {
			return fmt.Errorf("open lease %v: %w", key, err)
		}
		if n := len(s.openLeases(key.server)); n > MaxOpenLeases {
			return fmt.Errorf("server %s holds %d leases", key.server, n)
		}
		for _, set := range []string{l.GetSet(), s.setOf(key.server)} {
			if first, second := s.midApplyIn(set, s.setOf); set != "" && second != "" {
				return fmt.Errorf("servers %s and %s of set %s are both mid-apply", first, second, set)
			}
		}
	}
	for key, l := range s.leases.ended.All() {
		if keyOf(l).server != key.server || len(s.leases.endedOf(key.server)) > MaxEndedLeases {
			return fmt.Errorf("ended lease %v is misplaced, or one of too many", key)
		}
		if err := s.checkEndedLease(l); err != nil {
			return fmt.Errorf("ended lease %v: %w", key, err)
		}
	}
	return nil
}

func (s *State) checkOpenLease(l *quoratev1.ApplyLease) error {
	switch begun := l.GetBegun().AsDuration(); {
	case l.GetState() != quoratev1.LeaseState_LEASE_STATE_OPEN:
		return fmt.Errorf("its state is %d", l.GetState())
	case l.GetWindows() == 0 || l.GetWindows() > MaxLeaseWindows:
		return fmt.Errorf("it has %d windows", l.GetWindows())
	case begun < 0 || begun > s.clock.now || l.GetDeadline().AsDuration() != begun+ApplyMaxDuration:
		return fmt.Errorf("it began at %d of %d and has deadline %d", begun, s.clock.now, l.GetDeadline().AsDuration())
	case keyOf(l).generation == 0 || keyOf(l).generation > s.generationNumber():
		return fmt.Errorf("generation %d is the current one", s.generationNumber())
	case l.GetSet() == "" || keyOf(l).publish == "" || keyOf(l).server == "" || l.GetEnded() != nil:
		return fmt.Errorf("it has no set, server or publish request id, or an end")
	}
	return nil
}

func (s *State) checkEndedLease(l *quoratev1.ApplyLease) error {
	ended := l.GetState() == quoratev1.LeaseState_LEASE_STATE_ENDED
	abandoned := l.GetState() == quoratev1.LeaseState_LEASE_STATE_ABANDONED
	switch begun, end := l.GetBegun().AsDuration(), l.GetEnded().AsDuration(); {
	case !ended && !abandoned || l.GetWindows() != 0 || l.GetRollout():
		return fmt.Errorf("its state is %d with %d windows", l.GetState(), l.GetWindows())
	case begun < 0 || end < begun || end > s.clock.now || abandoned && end < l.GetDeadline().AsDuration():
		return fmt.Errorf("it lasted from %d to %d of %d", begun, end, s.clock.now)
	}
	if _, ok := s.Member(keyOf(l).server); !ok {
		return fmt.Errorf("its member is not known")
	}
	return nil
}
