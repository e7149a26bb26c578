package redundancy

import (
	"context"
	"errors"
	"time"

	"quorate/fsm"
	logv1 "quorate/proto/quorate/log/v1"
)

const (
	// catchUpTimeout bounds one attempt to see the group's state as of now.
	catchUpTimeout = 5 * time.Second
	// proposeTimeout bounds one proposal.
	proposeTimeout = 5 * time.Second
	// retryInterval is between attempts.
	retryInterval = 200 * time.Millisecond
)

// adopt first waits until this member knows the state of the group as of now, and then records each generation that it works
// under in the log.
func (m *Manager) adopt(ctx context.Context) {
	if !m.catchUp(ctx) {
		return
	}
	var settled uint64 // the generation that was recorded last, which the local state may not show yet
	for {
		changed := m.group.Changed()
		st, next := m.standings.get()
		var retry <-chan time.Time
		// That it was adopted releases what the server had before, so its level is made, and told, under the new generation first.
		if g := adoptable(m.group.Local().State, m.member); g > settled && g == st.generation && st.ready {
			if err := m.recordAdoption(ctx, g); err != nil {
				// A new leader, an unknown outcome, a newer generation: the command is idempotent, so it is proposed again.
				m.log.Debug("adoption not recorded yet", "generation", g, "error", err)
				changed, next, retry = nil, nil, time.After(retryInterval)
			} else {
				settled = g
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-changed:
		case <-next:
		case <-retry:
		}
	}
}

// catchUp waits for a linearizable read. Before it, the local state may be that of an old snapshot, so a member
// couldn't tell its first start ever from a restart. A restarted member that had adopted a generation had served, so it
// goes through Recovering; one that never did goes straight to Authoritative.
func (m *Manager) catchUp(ctx context.Context) bool {
	for ctx.Err() == nil {
		reading, cancel := context.WithTimeout(ctx, catchUpTimeout)
		view, err := m.group.Read(reading, nil)
		cancel()
		if err == nil {
			if r, ok := view.State.Member(m.member); ok && r.GetAdoptedGeneration() > 0 {
				m.recovery.fault()
			}
			m.initialised.Store(true)
			m.wake()
			return true
		}
		m.log.Debug("the state of the group is not known yet", "error", err)
		select {
		case <-ctx.Done():
		case <-time.After(retryInterval):
		}
	}
	return false
}

// adoptable returns the current generation if it is to be recorded as adopted, or 0. A generation concerns a member that is in
// it, or that leaves an earlier one.
func adoptable(state *fsm.State, member string) uint64 {
	current := state.CurrentGeneration()
	record, known := state.Member(member)
	if current == nil || !known || record.GetAdoptedGeneration() >= current.GetNumber() {
		return 0
	}
	if _, _, in := state.Server(member); !in && record.GetAdoptedGeneration() == 0 {
		return 0
	}
	return current.GetNumber()
}

// recordAdoption proposes that this member works under a generation.
func (m *Manager) recordAdoption(ctx context.Context, generation uint64) error {
	_, err := m.propose(ctx, &logv1.Command{Body: &logv1.Command_AdoptGeneration{AdoptGeneration: &logv1.AdoptGeneration{
		Member: m.member, Generation: generation,
	}}})
	return err
}

// propose proposes one of the group's own commands, once. A refusal is an error of type *refusedError.
func (m *Manager) propose(ctx context.Context, command *logv1.Command) (*logv1.Outcome, error) {
	ctx, cancel := context.WithTimeout(ctx, proposeTimeout)
	defer cancel()
	outcome, err := m.group.Propose(ctx, command)
	if err != nil {
		return nil, err
	}
	if r := outcome.GetRefusal(); r != nil {
		return nil, &refusedError{r}
	}
	return outcome, nil
}

// refusedError is a refusal of the state machine.
type refusedError struct{ refusal *logv1.Refusal }

func (e *refusedError) Error() string { return e.refusal.GetReason() + ": " + e.refusal.GetMessage() }

// refusedAs tells whether an error is a refusal of that kind.
func refusedAs(err error, kind logv1.Kind) bool {
	var refused *refusedError
	return errors.As(err, &refused) && refused.refusal.GetKind() == kind
}
