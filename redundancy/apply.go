package redundancy

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"time"

	"quorate/fsm"
	logv1 "quorate/proto/quorate/log/v1"
	quoratev1 "quorate/proto/quorate/v1"
)

const (
	// applyLook is how often it is looked whether it is this server's turn while nothing announces it: a level that rises by itself makes a
	// hand-over due.
	applyLook = time.Second
	// maxApplyRetry is the longest time between two attempts to get a command of an apply into the log.
	maxApplyRetry = 5 * time.Second
	// noAttempt is of an apply that this process has not begun.
	noAttempt = 0
)

// Apply is one server's part in a roll-out.
type Apply struct {
	Generation        uint64
	Set, Server, Role string
}

// Applier puts a generation into effect in whatever depends on it outside of this process. What follows from the state inside, such as the address
// space, is live already.
type Applier interface {
	// Apply returns when it is done, or soon after ctx ended. output is what is worth keeping for people; an error means that the server
	// stays on what it had.
	Apply(ctx context.Context, a Apply) (output string, err error)
}

var (
	errAbandoned = errors.New("the apply lease was closed while the apply was running")
	errPanicked  = errors.New("the apply panicked")
	// errSuperseded is the outcome of an apply that was interrupted and never begun again, because another generation came.
	errSuperseded = errors.New("interrupted, and superseded by another generation")
)

// apply takes this server's turn in each roll-out, and hands roles over where that is due (redundancy.md §6).
func (m *Manager) apply(ctx context.Context) {
	look := time.NewTicker(applyLook)
	defer look.Stop()
	for ctx.Err() == nil {
		changed := m.group.Changed()
		st, next := m.standings.get()
		if st.ready {
			m.endSuperseded(ctx)
			if generation, _, ok := m.group.Local().State.MayApply(m.member); ok && generation <= st.generation {
				m.takeTurn(ctx, generation)
				// The local state may not show its end yet; looking again costs nothing where it does.
			}
			m.handOver(ctx)
		}
		select {
		case <-ctx.Done():
			return
		case <-changed:
		case <-next:
		case <-look.C:
		}
	}
}

// endSuperseded ends the leases of applies that an earlier process of this member began, and that are nobody's turn any more.
func (m *Manager) endSuperseded(ctx context.Context) {
	for _, generation := range m.group.Local().State.SupersededApplies(m.member) {
		m.endApply(ctx, generation, noAttempt, "", errSuperseded)
	}
}

// takeTurn applies a generation under the apply lease. Whatever way the apply ends, its lease ends with it; only where this process ends first, it stays
// open: then a restarted server begins again, and the watchdog of the state machine closes the lease of one that does not come back.
func (m *Manager) takeTurn(ctx context.Context, generation uint64) {
	state := m.group.Local().State
	set, server, ok := state.Server(m.member)
	if !ok {
		return
	}
	if m.applier == nil && state.AppliedGeneration(m.member) == 0 {
		// It has served nothing before, and has nothing to do: its first generation is in effect, with no dip.
		m.endApply(ctx, generation, noAttempt, "", nil)
		return
	}
	begun, err := m.propose(ctx, beginApply(m.member, generation))
	if err != nil {
		m.log.Debug("the apply has not begun", "generation", generation, "error", err)
		m.pause(ctx, retryInterval)
		return
	}
	if !m.awaitRevision(ctx, begun.GetRevision()) { // This server's own level shows the lease from then on.
		return
	}
	m.log.Info("apply begun", "generation", generation, "set", set.GetId())
	output, err := m.runApply(ctx, Apply{Generation: generation, Set: set.GetId(), Server: m.member, Role: server.GetRole()})
	if ctx.Err() != nil {
		m.log.Warn("the apply was interrupted; it begins again when this server does", "generation", generation)
		return
	}
	if err != nil {
		// Before the lease ends, so that the level goes down to Recovering and not up.
		m.recovery.fault()
		m.log.Error("apply failed", "generation", generation, "error", err)
	}
	m.endApply(ctx, generation, partOf(begun.GetRollout(), m.member).GetAttempts(), output, err)
}

// attempt is one of a server to apply a generation.
type attempt struct {
	generation uint64
	number     uint32
}

// failedApply returns the attempt of a server that has failed and was not resumed.
func failedApply(state *fsm.State, set, server string) (a attempt, failed bool) {
	r, _ := state.Rollout(set)
	part := partOf(r, server)
	return attempt{r.GetGeneration(), part.GetAttempts()}, part.GetState() == quoratev1.ApplyState_APPLY_STATE_FAILED
}

// partOf is a server's part in a roll-out, nil if it has none.
func partOf(r *quoratev1.Rollout, server string) *quoratev1.ServerApply {
	for _, p := range r.GetServers() {
		if p.GetServer() == server {
			return p
		}
	}
	return nil
}

// runApply runs the applier for as long as the lease is open. A panic of it is its error.
func (m *Manager) runApply(ctx context.Context, a Apply) (output string, err error) {
	if m.applier == nil {
		return "", nil
	}
	applying, cancel := context.WithCancelCause(ctx)
	watched := make(chan struct{})
	go func() {
		defer close(watched)
		m.cancelWhenClosed(applying, cancel, a.Generation)
	}()
	defer func() {
		if r := recover(); r != nil {
			m.log.Error("the apply panicked", "panic", r, "stack", string(debug.Stack()))
			err = fmt.Errorf("%w: %v", errPanicked, r)
		}
		cancel(nil)
		<-watched
	}()
	output, err = m.applier.Apply(applying, a)
	if cause := context.Cause(applying); cause != nil {
		err = cause // Whatever it came to: without its lease it does not count.
	}
	return output, err
}

// cancelWhenClosed ends an apply whose lease does not protect it any more.
func (m *Manager) cancelWhenClosed(ctx context.Context, cancel context.CancelCauseFunc, generation uint64) {
	for {
		changed := m.group.Changed()
		if !m.holdsApply(generation) {
			cancel(errAbandoned)
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-changed:
		}
	}
}

// holdsApply tells whether this server's own apply lease of a generation is open.
func (m *Manager) holdsApply(generation uint64) bool {
	for _, l := range m.group.Local().State.Leases(m.member, false) {
		if l.GetKey().GetGeneration() == generation {
			return true
		}
	}
	return false
}

// awaitRevision waits until the local state is as new as that; false means that ctx ended before.
func (m *Manager) awaitRevision(ctx context.Context, revision uint64) bool {
	for {
		changed := m.group.Changed()
		if m.group.Local().State.Revision() >= revision {
			return true
		}
		select {
		case <-ctx.Done():
			return false
		case <-changed:
		}
	}
}

func beginApply(server string, generation uint64) *logv1.Command {
	return &logv1.Command{Body: &logv1.Command_BeginApply{BeginApply: &logv1.BeginApply{Server: server, Generation: generation}}}
}

// endApply proposes the end of an apply until the outcome is known. To repeat it does no harm, and what comes late of an earlier attempt, even of an earlier
// process, ends nothing.
func (m *Manager) endApply(ctx context.Context, generation uint64, attempt uint32, output string, failure error) {
	end := &logv1.EndApply{
		Server: m.member, Generation: generation, Attempt: attempt, Succeeded: failure == nil, Outcome: "ok", Output: tail(output, fsm.MaxOutputBytes),
	}
	if failure != nil {
		end.Outcome = bounded(failure.Error(), fsm.MaxTextBytes)
	}
	for retry := retryInterval; ctx.Err() == nil; retry = min(2*retry, maxApplyRetry) {
		_, err := m.propose(ctx, &logv1.Command{Body: &logv1.Command_EndApply{EndApply: end}})
		if err == nil {
			m.log.Info("apply ended", "generation", generation, "outcome", end.GetOutcome())
			return
		}
		var refused *refusedError
		if errors.As(err, &refused) {
			// It has ended already: an attempt before got through without an answer, or the watchdog closed it.
			m.log.Info("the end of the apply is not taken", "generation", generation, "error", err)
			m.pause(ctx, retryInterval)
			return
		}
		m.pause(ctx, retry)
	}
}

// handOver proposes that this server takes the Primary's role, once it is its turn to and it is Authoritative again.
func (m *Manager) handOver(ctx context.Context) {
	state := m.group.Local().State
	set, _, ok := state.Server(m.member)
	if !ok {
		return
	}
	to, generation, due := state.HandOverDue(set.GetId())
	if !due || to != m.member {
		return
	}
	if l := m.Level(); l.Band != Authoritative || l.Generation != generation {
		return
	}
	_, err := m.propose(ctx, &logv1.Command{Body: &logv1.Command_SwapRoles{SwapRoles: &logv1.SwapRoles{
		Set: set.GetId(), ExpectedGeneration: generation, To: to, Why: fsm.SwapHandover,
	}}})
	if err != nil {
		m.log.Debug("the roles are not swapped yet", "set", set.GetId(), "error", err)
		m.pause(ctx, retryInterval)
	}
}

// pause waits, or until ctx ends.
func (m *Manager) pause(ctx context.Context, d time.Duration) {
	alarm := time.NewTimer(d)
	defer alarm.Stop()
	select {
	case <-ctx.Done():
	case <-alarm.C:
	}
}
