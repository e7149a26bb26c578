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
	since     time.Time
	faults    uint64 // counts faults, so that a read that began before the last one does not count
	witnessed bool
}

func newRecovery(dwell time.Duration) *recovery {
	return &recovery{dwell: dwell, begun: make(chan struct{}, 1)}
}

// fault begins a recovery, or begins it anew: a new fault resets both conditions.
func (r *recovery) fault(now time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.on {
		r.version.Add(1)
	}
	r.on, r.since, r.witnessed = true, now, false
	r.faults++
	select {
	case r.begun <- struct{}{}:
	default:
	}
}

// look ends the recovery if both conditions are met.
func (r *recovery) look(now time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.on && r.witnessed && now.Sub(r.since) >= r.dwell {
		r.on = false
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
	return r.faults, r.on && !r.witnessed
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
