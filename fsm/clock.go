package fsm

import (
	"fmt"
	"time"

	logv1 "quorate/proto/quorate/log/v1"
)

// clock holds what is single in the state: cluster time, and where in the log we are.
//
// A stamp is taken before its entry commits, so a duration counted from the stamp of the entry that began it can be short by
// the time of the commit. A lease that its holder counts from before it asked needs no more. What must never be short, the
// drain barrier of partitions, starts at the first stamp whose leader_applied is at least the index of the entry that
// began it (platform.md §2): see beginBarriers.
type clock struct {
	now      time.Duration
	revision uint64
	term     uint64
	leader   string
}

// stamp takes the leader's reading if it is ahead of ours, so that cluster time never goes back.
func (c *clock) stamp(reading uint64) error {
	if reading > uint64(MaxClock) {
		return fmt.Errorf("%w: stamp of cluster time %d is above %d", ErrCorrupt, reading, int64(MaxClock))
	}
	c.now = max(c.now, time.Duration(reading))
	return nil
}

// openTerm notes a new leader. The log orders terms, so a term below ours can only come from a leader that read its term
// while losing it; that is harmless and ignored.
func (a *application) openTerm(c *logv1.OpenTerm) (*logv1.Outcome, *Refusal) {
	if r := checkID("open_term.leader", c.GetLeader()); r != nil {
		return nil, r
	}
	if c.GetTerm() >= a.clock.term {
		a.clock.term, a.clock.leader = c.GetTerm(), c.GetLeader()
	}
	return done(), nil
}

// pulse does what is due at the current cluster time.
func (a *application) pulse() (*logv1.Outcome, *Refusal) {
	a.abandonLeases()
	a.tellBarriers()
	return done(), nil
}
