package fsm

import (
	"cmp"
	"slices"
	"strings"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	"quorate/fsm/tree"
	logv1 "quorate/proto/quorate/log/v1"
	quoratev1 "quorate/proto/quorate/v1"
)

// rollouts holds, for each set of the current topology, how far the last generation that changed it (or was forced) has come: it is
// applied by one server after the other, Backups first (redundancy.md §6). apply_rollout.go says what a publish makes of them.
type rollouts struct {
	bySet tree.Map[string, *quoratev1.Rollout]
}

// Short names of the states.
const (
	rolloutRunning = quoratev1.RolloutState_ROLLOUT_STATE_RUNNING
	rolloutStopped = quoratev1.RolloutState_ROLLOUT_STATE_STOPPED
	rolloutDone    = quoratev1.RolloutState_ROLLOUT_STATE_DONE

	applyPending  = quoratev1.ApplyState_APPLY_STATE_PENDING
	applyApplying = quoratev1.ApplyState_APPLY_STATE_APPLYING
	applyApplied  = quoratev1.ApplyState_APPLY_STATE_APPLIED
	applyFailed   = quoratev1.ApplyState_APPLY_STATE_FAILED
)

// applyReason is the reason of an apply lease that a roll-out opens, for people, and the outcomes below are those of an apply that did
// not end by its server's EndApply.
const (
	applyReason    = "roll-out"
	applyAbandoned = "abandoned"
	applyCut       = "its apply lease was ended from outside"
)

func newRollouts() rollouts {
	return rollouts{bySet: tree.New[string, *quoratev1.Rollout](strings.Compare)}
}

func (r *rollouts) snapshot() rollouts { return rollouts{bySet: r.bySet.Snapshot()} }

// beginApply opens the apply lease of a server whose turn it is. The same server may repeat it, as it does when it was restarted: it
// counts another attempt, and the watchdog still counts from the first.
//
// Unlike a window of somebody else's, it may open under a generation that is no longer current: a publish that does not change
// the set leaves its roll-out as it is.
func (a *application) beginApply(c *logv1.BeginApply) (*logv1.Outcome, *Refusal) {
	before, part, r := a.findApply(c.GetServer(), c.GetGeneration())
	if r != nil {
		return nil, r
	}
	if r := a.checkDue(c.GetServer()); r != nil {
		return nil, r
	}
	if part.GetState() != applyApplying {
		if r := a.openApplyLease(before, c.GetServer()); r != nil {
			return nil, r
		}
	}
	return rolled(a.changeApply(before, c.GetServer(), func(p *quoratev1.ServerApply) {
		p.State = applyApplying
		p.Attempts++
		p.Begun, p.BegunAt, p.Ended = durationpb.New(a.clock.now), a.wallTime(), nil
		p.Outcome, p.Output = "", ""
	})), nil
}

// findApply returns a server's part in the roll-out of a generation that is not superseded.
func (s *State) findApply(server string, generation uint64) (*quoratev1.Rollout, *quoratev1.ServerApply, *Refusal) {
	if _, _, ok := s.Server(server); !ok {
		return nil, nil, s.unknownServer(server)
	}
	r, part := s.serverApply(server)
	switch {
	case generation == 0 || generation > s.generationNumber():
		return nil, nil, s.wrongGeneration(logv1.Kind_KIND_NOT_FOUND, ReasonUnknownGeneration, "generation",
			"there is no generation %d, the current one is %d", generation, s.generationNumber())
	case part == nil || generation > r.GetGeneration():
		return nil, nil, refuse(logv1.Kind_KIND_PRECONDITION, ReasonApplyNotDue, "generation",
			"generation %d is not rolled out to server %s: it does not change its set", generation, server)
	case generation < r.GetGeneration():
		return nil, nil, s.wrongGeneration(logv1.Kind_KIND_PRECONDITION, ReasonStaleGeneration, "generation",
			"generation %d is no longer rolled out to server %s, %d is", generation, server, r.GetGeneration())
	}
	return r, part, nil
}

// checkDue refuses a server whose turn it is not.
func (s *State) checkDue(server string) *Refusal {
	_, waitingFor, ok := s.MayApply(server)
	switch {
	case ok:
		return nil
	case waitingFor == "":
		return refuse(logv1.Kind_KIND_PRECONDITION, ReasonApplyNotDue, "server", "server %s has nothing to apply", server)
	default:
		return refuse(logv1.Kind_KIND_PRECONDITION, ReasonApplyNotDue, "server",
			"it is not the turn of server %s: it waits for %s", server, waitingFor).with("waiting_for", waitingFor)
	}
}

// applyKey is the key of the apply lease that a roll-out opens for a server; ok is false where its generation has left the history.
func (s *State) applyKey(server string, generation uint64) (key leaseKey, ok bool) {
	g, ok := s.Generation(generation)
	return leaseKey{server: server, generation: generation, publish: g.GetPublishRequestId()}, ok
}

// openApplyLease opens the lease, or one more window where somebody else has opened it.
func (a *application) openApplyLease(r *quoratev1.Rollout, server string) *Refusal {
	key, _ := a.applyKey(server, r.GetGeneration())
	refusal := (*Refusal)(nil)
	if open, ok := a.leases.open.Get(key); ok {
		_, refusal = a.openWindow(key, open, true)
	} else {
		_, refusal = a.openLease(key, r.GetSet(), applyReason, true)
	}
	return refusal
}

// endApply ends an apply, and its window of the lease. A failed one stops the roll-out. Repeating it changes nothing, nor does
// what comes after the watchdog. What an earlier attempt said, and comes late, does not end a later one: its apply goes on. Of a
// generation that was superseded only the lease is left to be ended.
//
// A server that has never applied anything may settle its first apply without a lease, where there is nothing that it has to do:
// nobody is served yet who could notice.
func (a *application) endApply(c *logv1.EndApply) (*logv1.Outcome, *Refusal) {
	if r := firstRefusal(
		checkText("server", c.GetServer(), MaxIDBytes),
		checkText("outcome", c.GetOutcome(), MaxTextBytes),
		checkText("output", c.GetOutput(), MaxOutputBytes),
	); r != nil {
		return nil, r
	}
	before, part := a.serverApply(c.GetServer())
	if part == nil || c.GetGeneration() != before.GetGeneration() {
		return a.endSuperseded(c)
	}
	switch part.GetState() {
	case applyApplied, applyFailed:
		return rolled(before), nil
	case applyPending:
		if r := a.checkSettles(c, part); r != nil {
			return nil, r
		}
	case applyApplying:
		if c.GetAttempt() != 0 && c.GetAttempt() != part.GetAttempts() {
			return nil, refuse(logv1.Kind_KIND_PRECONDITION, ReasonStaleAttempt, "attempt",
				"attempt %d of server %s to apply generation %d is over: attempt %d is under way", c.GetAttempt(), quote(c.GetServer()),
				c.GetGeneration(), part.GetAttempts())
		}
	}
	after := a.changeApply(before, c.GetServer(), func(p *quoratev1.ServerApply) {
		p.Ended = durationpb.New(a.clock.now)
		p.Output = c.GetOutput()
		if p.State = applyFailed; c.GetSucceeded() {
			p.State, p.AppliedGeneration = applyApplied, before.GetGeneration()
		}
		p.Outcome = applyOutcome(c)
	})
	if part.GetState() == applyApplying {
		a.endApplyLease(c)
	}
	return rolled(after), nil
}

func applyOutcome(c *logv1.EndApply) string {
	if c.GetSucceeded() {
		return cmp.Or(c.GetOutcome(), "ok")
	}
	return cmp.Or(c.GetOutcome(), "failed")
}

// checkSettles refuses the end of an apply that has not begun, unless it is the first of a server that has nothing to do for it.
func (s *State) checkSettles(c *logv1.EndApply, part *quoratev1.ServerApply) *Refusal {
	if !c.GetSucceeded() || part.GetAppliedGeneration() != 0 || c.GetAttempt() != 0 {
		return refuse(logv1.Kind_KIND_PRECONDITION, ReasonApplyNotBegun, "server",
			"server %s has not begun to apply generation %d", quote(c.GetServer()), c.GetGeneration())
	}
	return s.checkDue(c.GetServer())
}

// endSuperseded ends the lease of an apply that was still going on when another generation came.
func (a *application) endSuperseded(c *logv1.EndApply) (*logv1.Outcome, *Refusal) {
	if c.GetGeneration() == 0 || c.GetGeneration() > a.generationNumber() {
		return nil, a.wrongGeneration(logv1.Kind_KIND_NOT_FOUND, ReasonUnknownGeneration, "generation",
			"there is no generation %d, the current one is %d", c.GetGeneration(), a.generationNumber())
	}
	a.endApplyLease(c)
	return done(), nil
}

// endApplyLease closes the roll-out's window of an apply lease, once: what comes again must not close somebody else's.
func (a *application) endApplyLease(c *logv1.EndApply) {
	for _, open := range a.openLeases(c.GetServer()) {
		if open.GetRollout() && open.GetKey().GetGeneration() == c.GetGeneration() {
			open = proto.CloneOf(open)
			open.Rollout = false
			a.endWindow(open, applyOutcome(c))
			return
		}
	}
}

// loseApply fails the apply whose lease was closed by somebody else: by the watchdog, or by an operator who gives it up.
func (a *application) loseApply(key leaseKey, outcome string) {
	before, part := a.serverApply(key.server)
	if own, ok := a.applyKey(key.server, before.GetGeneration()); !ok || own != key || part.GetState() != applyApplying {
		return
	}
	a.changeApply(before, key.server, func(p *quoratev1.ServerApply) {
		p.State, p.Ended, p.Outcome = applyFailed, durationpb.New(a.clock.now), outcome
	})
}

// resumeApply lets the servers that failed apply again.
func (a *application) resumeApply(c *logv1.ResumeApply) (*logv1.Outcome, *Refusal) {
	before, ok := a.Rollout(c.GetSet())
	if !ok {
		return nil, unknownSet(c.GetSet())
	}
	if before.GetState() != rolloutStopped {
		return nil, refuse(logv1.Kind_KIND_PRECONDITION, ReasonApplyNotStopped, "set", "the roll-out of set %s is not stopped", c.GetSet())
	}
	after := proto.CloneOf(before)
	for _, p := range after.GetServers() {
		if p.GetState() == applyFailed {
			p.State = applyPending
		}
	}
	a.setRollout(after)
	return rolled(withoutOutput(after)), nil
}

// withoutOutput is the form in which an answer is remembered: what apply hooks wrote would make the memory large, and the roll-out
// itself has it.
func withoutOutput(r *quoratev1.Rollout) *quoratev1.Rollout {
	r = proto.CloneOf(r)
	for _, p := range r.GetServers() {
		p.Outcome, p.Output = "", ""
	}
	return r
}

func unknownSet(set string) *Refusal {
	return refuse(logv1.Kind_KIND_NOT_FOUND, ReasonUnknownSet, "set", "no set of the current topology is called %s", quote(set))
}

// changeApply changes a server's part in a roll-out.
func (a *application) changeApply(before *quoratev1.Rollout, server string, change func(p *quoratev1.ServerApply)) *quoratev1.Rollout {
	after := proto.CloneOf(before)
	for _, p := range after.GetServers() {
		if p.GetServer() == server {
			change(p)
		}
	}
	return a.setRollout(after)
}

// setRollout keeps a roll-out whose servers have changed, with the state that follows from theirs. Once all have applied, so is every
// generation that has come since and did not change the set.
func (a *application) setRollout(r *quoratev1.Rollout) *quoratev1.Rollout {
	if r.State = rolloutState(r.GetServers()); r.GetState() == rolloutDone {
		for _, p := range r.GetServers() {
			p.AppliedGeneration = a.generationNumber()
		}
	}
	a.rollouts.bySet.Set(r.GetSet(), r)
	a.emit(&quoratev1.Event{Body: &quoratev1.Event_RolloutChanged{RolloutChanged: r}})
	return r
}

func rolloutState(servers []*quoratev1.ServerApply) quoratev1.RolloutState {
	state := rolloutDone
	for _, p := range servers {
		switch p.GetState() {
		case applyFailed:
			return rolloutStopped
		case applyPending, applyApplying:
			state = rolloutRunning
		}
	}
	return state
}

// Rollout returns the roll-out of a set. A set that was published while some member could not yet apply roll-outs has none.
func (s *State) Rollout(set string) (*quoratev1.Rollout, bool) { return s.rollouts.bySet.Get(set) }

// Rollouts returns the roll-out of every set, in order of the sets.
func (s *State) Rollouts() []*quoratev1.Rollout {
	var all []*quoratev1.Rollout
	for _, r := range s.rollouts.bySet.All() {
		all = append(all, r)
	}
	return all
}

// serverApply returns the roll-out of a server's set and the server's part in it, nil if there is none.
func (s *State) serverApply(server string) (*quoratev1.Rollout, *quoratev1.ServerApply) {
	r, _ := s.Rollout(s.setOf(server))
	for _, p := range r.GetServers() {
		if p.GetServer() == server {
			return r, p
		}
	}
	return nil, nil
}

// AppliedGeneration returns the last generation that a server applied well, 0 if none.
func (s *State) AppliedGeneration(server string) uint64 {
	_, p := s.serverApply(server)
	return p.GetAppliedGeneration()
}

// LastApplied returns the last generation that every server of a set has applied: what RollbackApply goes back to. A server that has applied nothing
// keeps the others from going back only if it was in the set then: one that came later is taken out again.
func (s *State) LastApplied(set string) (generation uint64, ok bool) {
	r, _ := s.Rollout(set)
	for _, p := range r.GetServers() {
		if n := p.GetAppliedGeneration(); n != 0 && (generation == 0 || n < generation) {
			generation = n
		}
	}
	g, _ := s.Generation(generation)
	before := FindSet(g.GetTopology(), set)
	for _, p := range r.GetServers() {
		if p.GetAppliedGeneration() == 0 && (g.GetTopology() == nil || hasServer(before, p.GetServer())) {
			return 0, false
		}
	}
	return generation, generation != 0
}

func hasServer(set *quoratev1.RedundantSet, member string) bool {
	return slices.ContainsFunc(set.GetServers(), func(s *quoratev1.RedundantServer) bool { return s.GetMember() == member })
}

// SupersededApplies returns the generations of applies that a server has begun and not ended before another generation came. Their
// leases keep the set mid-apply until EndApply, so a server that is not busy with one any more, as after a restart, has to end it.
func (s *State) SupersededApplies(server string) []uint64 {
	var found []uint64
	r, part := s.serverApply(server)
	for _, l := range s.openLeases(server) {
		generation := l.GetKey().GetGeneration()
		current := part.GetState() == applyApplying && generation == r.GetGeneration()
		if l.GetRollout() && !current {
			found = append(found, generation)
		}
	}
	return found
}

// MayApply says whether it is a server's turn to apply, and which generation: BeginApply would be accepted. It is so, too, for a
// server that has begun and not ended, which a restarted one begins again. Where it has to wait, waitingFor is the server that it
// waits for: itself if its own apply failed and nobody has resumed, the Backup that takes over where it has to hand its role
// over first. waitingFor is empty where it has nothing to apply.
func (s *State) MayApply(server string) (generation uint64, waitingFor string, ok bool) {
	r, part := s.serverApply(server)
	switch part.GetState() {
	case applyApplying:
		return r.GetGeneration(), "", true
	case applyPending, applyFailed:
		waitingFor = s.applyWaitsFor(r, server)
		return r.GetGeneration(), waitingFor, waitingFor == ""
	default:
		return 0, "", false
	}
}

// applyWaitsFor returns whom a server that has yet to apply waits for, empty if nobody.
func (s *State) applyWaitsFor(r *quoratev1.Rollout, server string) string {
	for _, p := range r.GetServers() {
		if p.GetState() == applyFailed {
			return p.GetServer()
		}
	}
	for _, p := range r.GetServers() {
		if p.GetServer() == server {
			break
		}
		if p.GetState() != applyApplied {
			return p.GetServer()
		}
	}
	if r.GetHandOverFrom() == server {
		return s.heir(r)
	}
	first, second := s.midApplyIn(r.GetSet(), s.setOf)
	for _, other := range []string{first, second} {
		if other != "" && other != server {
			return other
		}
	}
	return ""
}
