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
// began it (platform.md §2): see beginBarriers, and moment.
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

// moment is when something was done last, where a duration is counted from its commit. That is known with the first stamp that the leader took after it had
// applied the entry; until then nothing has passed.
type moment struct {
	// revision is that of the entry until then, else 0.
	revision uint64
	at       time.Duration
	known    bool
}

// moment is that of the entry which is applied now.
func (c *clock) moment() moment { return moment{revision: c.revision} }

// settle makes a moment known, with what comes on top of it, once the leader that took the stamp of now had applied its entry.
func (m *moment) settle(leaderApplied uint64, now, later time.Duration) {
	if m.revision != 0 && m.revision <= leaderApplied {
		*m = moment{at: now + later, known: true}
	}
}

// ever says whether it was done at all.
func (m moment) ever() bool { return m.known || m.revision != 0 }

// since is for how long it has been done at least; 0 while that is not known.
func (m moment) since(now time.Duration) time.Duration {
	if !m.known {
		return 0
	}
	return max(now-m.at, 0)
}

// check is the invariant of a moment, which may be so much ahead.
func (m moment) check(c clock, later time.Duration) error {
	if m.known && m.revision != 0 || m.revision > c.revision || m.at < 0 || m.at > c.now+later || !m.known && m.at != 0 {
		return fmt.Errorf("a moment is at %v, or that of revision %d, of %v and %d", m.at, m.revision, c.now, c.revision)
	}
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
