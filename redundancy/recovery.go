package redundancy

import (
	"context"
	"sync"
	"sync/atomic"
	"time"
)

// recovery is the way back from a fault (redundancy.md §4): it lasts for the dwell and until the witness node was read once.
// It is off in a member that has never served.
type recovery struct {
	dwell   time.Duration
	version atomic.Uint64 // moves when active does
	// begun tells the witness that there is a recovery to end.
	begun chan struct{}

	mu        sync.Mutex
	on        bool
	standing  bool      // the fault has not ended yet
	since     time.Time // when it ended
	faults    uint64    // counts faults that ended, so that a read that began before the last one does not count
	witnessed bool
}

func newRecovery(dwell time.Duration) *recovery {
	return &recovery{dwell: dwell, begun: make(chan struct{}, 1)}
}

// fault notes a fault. It stands until look is told that there is none.
func (r *recovery) fault() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.standing = true
	r.turn(true)
}

// look begins the recovery when a fault has ended, and ends it when both of its conditions are met. A new fault resets both.
func (r *recovery) look(now time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case r.standing:
		r.standing, r.since, r.witnessed = false, now, false
		r.faults++
		select {
		case r.begun <- struct{}{}:
		default: // The witness has not taken the last word yet.
		}
	case r.on && r.witnessed && now.Sub(r.since) >= r.dwell:
		r.turn(false)
	}
}

func (r *recovery) turn(on bool) {
	if r.on != on {
		r.on = on
		r.version.Add(1)
	}
}

func (r *recovery) active() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.on
}

// wanted returns the fault whose recovery still needs a witness.
func (r *recovery) wanted() (fault uint64, ok bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.faults, r.on && !r.standing && !r.witnessed
}

// witness notes a successful read that began after that fault.
func (r *recovery) witness(fault uint64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.faults == fault {
		r.witnessed = true
	}
}

// witness reads the witness node through this member's own endpoint, as a client would, whenever a recovery needs it.
func (m *Manager) witness(ctx context.Context) {
	retry := time.NewTicker(m.settings.ProbeInterval)
	defer retry.Stop()
	for {
		if fault, ok := m.recovery.wanted(); ok {
			reading, cancel := context.WithTimeout(ctx, m.settings.ProbeTimeout)
			err := m.probes.prober.Witness(reading, m.endpointURL, m.settings.WitnessNode)
			cancel()
			if err == nil {
				m.recovery.witness(fault)
				m.wake()
			} else if ctx.Err() == nil {
				m.log.Debug("the witness node cannot be read", "node", m.settings.WitnessNode, "endpoint", m.endpointURL, "error", err)
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-m.recovery.begun:
		case <-retry.C:
		}
	}
}
