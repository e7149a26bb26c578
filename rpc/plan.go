package rpc

import (
	"fmt"
	"slices"

	"quorate/fsm"
	logv1 "quorate/proto/quorate/log/v1"
	quoratev1 "quorate/proto/quorate/v1"
	"quorate/redundancy"
)

// maxPlannedSteps bounds the steps of one set's plan: each server applies once, the role is handed over once, and apply leases that are open already end.
const maxPlannedSteps = 2*fsm.MaxServers + 2*fsm.MaxOpenLeases

// plannedLevels is what each server would advertise once all is well, by the very function that servers use.
func plannedLevels(draft *quoratev1.Topology, generation uint64) []*quoratev1.PlannedLevel {
	var planned []*quoratev1.PlannedLevel
	for _, set := range draft.GetSets() {
		for _, server := range set.GetServers() {
			planned = append(planned, plannedLevel(set, server, redundancy.Inputs{Generation: generation}).PlannedLevel)
		}
	}
	return planned
}

// predicted is a planned level with its band.
type predicted struct {
	*quoratev1.PlannedLevel
	band redundancy.Band
}

// plannedLevel is what a server advertises that has its lease and sees its peers. What else there is to say of it is in the inputs.
func plannedLevel(set *quoratev1.RedundantSet, server *quoratev1.RedundantServer, in redundancy.Inputs) predicted {
	in.Set, in.Role, in.Policies, in.Lease = set.GetId(), server.GetRole(), redundancy.PoliciesOf(set), redundancy.Confirmed
	if server.GetRole() == fsm.RolePrimary {
		in.Lease = redundancy.Right
	}
	level := redundancy.Evaluate(in)
	return predicted{&quoratev1.PlannedLevel{Set: set.GetId(), Server: server.GetMember(), Role: server.GetRole(), Level: uint32(level.Value)}, level.Band}
}

// planRollouts says what publishing a draft leads to, set by set. It is a rehearsal: the draft is published on a copy of the state, and each
// server whose turn it is applies there, until there is nothing left to do. So the order is that of the state machine itself, and the levels are those of the function
// that servers use. What it takes for granted is that every server runs, sees the others, and applies well.
func planRollouts(state *fsm.State, publish *logv1.PublishTopology) ([]*quoratev1.PlannedRollout, error) {
	before := state
	state = state.Snapshot()
	r := &rehearsal{state: state}
	// Nobody else's requests are without an actor, so the id can't have been used.
	outcome, err := r.play(&logv1.Command{RequestId: "plan", Body: &logv1.Command_PublishTopology{PublishTopology: publish}})
	if err != nil {
		return nil, err
	}
	planned := make([]*quoratev1.PlannedRollout, 0, len(outcome.GetGenerationPublished().GetTopology().GetSets()))
	for _, set := range outcome.GetGenerationPublished().GetTopology().GetSets() {
		p := &plan{
			rehearsal: rehearsal{state: state.Snapshot()}, set: set.GetId(), clients: clientsOf(before, set.GetId()),
			rollout: &quoratev1.PlannedRollout{Set: set.GetId(), Policies: set.GetPolicies()},
		}
		if err := p.walk(); err != nil {
			return nil, err
		}
		planned = append(planned, p.rollout)
	}
	return planned, nil
}

// rehearsal is a copy of the state on which it is tried out what will happen.
type rehearsal struct{ state *fsm.State }

// play applies a command. A refusal is an error.
func (r *rehearsal) play(c *logv1.Command) (*logv1.Outcome, error) {
	outcomes, _, err := r.state.ApplyEntry(r.state.Revision()+1, &logv1.Entry{Clock: uint64(r.state.Now()), Commands: []*logv1.Command{c}})
	if err != nil {
		return nil, fmt.Errorf("rehearse: %w", err)
	}
	return outcomes[0], refused(outcomes[0])
}

// plan walks through one set's roll-out.
type plan struct {
	rehearsal
	set     string
	rollout *quoratev1.PlannedRollout
	clients []*quoratev1.PlannedClient
}

// walk goes on for as long as there is something to do.
func (p *plan) walk() error {
	p.step("publish")
	for range maxPlannedSteps {
		went, err := p.next()
		if err != nil {
			return err
		}
		if !went {
			break
		}
	}
	r, ok := p.state.Rollout(p.set)
	switch waits := p.waiting(r); {
	case ok && r.GetState() == quoratev1.RolloutState_ROLLOUT_STATE_STOPPED:
		p.step("stopped: an apply has failed, and nobody has resumed it")
	case waits != "":
		p.step(waits)
	default:
		p.step("done")
	}
	return nil
}

// waiting says for whom a roll-out waits that can't go on by itself, empty if it is done.
func (p *plan) waiting(r *quoratev1.Rollout) string {
	if to, _, due := p.state.HandOverDue(p.set); due {
		return "wait until " + to + " can take over"
	}
	for _, s := range r.GetServers() {
		if _, waitingFor, ok := p.state.MayApply(s.GetServer()); !ok && waitingFor != "" {
			return "wait for " + waitingFor
		}
	}
	return ""
}

// next does the next thing that is due, if there is one: an apply ends that was under way, a server applies, or the role is handed over.
func (p *plan) next() (went bool, err error) {
	if left, err := p.endLeases(); left || err != nil {
		return left, err
	}
	r, _ := p.state.Rollout(p.set)
	for _, s := range r.GetServers() {
		if generation, _, ok := p.state.MayApply(s.GetServer()); ok {
			return true, p.apply(s, generation)
		}
	}
	to, generation, due := p.state.HandOverDue(p.set)
	if !due || p.level(to).band != redundancy.Authoritative {
		return false, nil
	}
	if _, err := p.play(&logv1.Command{Body: &logv1.Command_SwapRoles{SwapRoles: &logv1.SwapRoles{
		Set: p.set, ExpectedGeneration: generation, To: to, Why: fsm.SwapHandover,
	}}}); err != nil {
		return false, err
	}
	p.step(fmt.Sprintf("hand over from %s to %s", r.GetHandOverFrom(), to))
	return true, nil
}

// endLeases ends the apply leases that are open in the set already, of which the levels tell before: each will end some time.
func (p *plan) endLeases() (left bool, err error) {
	for _, l := range p.state.Leases("", false) {
		server := l.GetKey().GetServer()
		if set, _, ok := p.state.Server(server); l.GetSet() != p.set && (!ok || set.GetId() != p.set) {
			continue
		}
		for i := range l.GetWindows() {
			if _, err := p.play(p.endOf(l, i == 0)); err != nil {
				return false, err
			}
		}
		p.step("the apply of " + server + " that is under way ends")
		return true, nil
	}
	return false, nil
}

// endOf closes one window of a lease: first that of a roll-out, as its server would, and any other as whoever opened it.
func (p *plan) endOf(l *quoratev1.ApplyLease, first bool) *logv1.Command {
	key := l.GetKey()
	if first && l.GetRollout() {
		return endApply(key.GetServer(), key.GetGeneration())
	}
	return &logv1.Command{RequestId: fmt.Sprint("plan ", p.state.Revision()), Body: &logv1.Command_EndLease{EndLease: &logv1.EndLease{
		Server: key.GetServer(), Generation: key.GetGeneration(), PublishRequestId: key.GetPublishRequestId(),
	}}}
}

func endApply(server string, generation uint64) *logv1.Command {
	return &logv1.Command{Body: &logv1.Command_EndApply{EndApply: &logv1.EndApply{Server: server, Generation: generation, Succeeded: true}}}
}

// apply has a server apply whose turn it is.
func (p *plan) apply(s *quoratev1.ServerApply, generation uint64) error {
	action := "apply " + s.GetServer()
	if s.GetAppliedGeneration() == 0 {
		// Without a hook it has nothing to do, and takes no lease (Manager.takeTurn). Who has one says so in its own configuration, which nobody else knows.
		action = "first apply of " + s.GetServer() + ", without a dip where it has no apply hook"
	} else if _, err := p.play(&logv1.Command{Body: &logv1.Command_BeginApply{BeginApply: &logv1.BeginApply{Server: s.GetServer(), Generation: generation}}}); err != nil {
		return err
	}
	p.step(action)
	_, err := p.play(endApply(s.GetServer(), generation))
	return err
}

// level is what a server advertises at this point of the rehearsal.
func (p *plan) level(server string) predicted {
	return levelIn(p.state, server)
}

func levelIn(state *fsm.State, member string) predicted {
	set, server, _ := state.Server(member)
	_, maintenance := state.Maintenance(member)
	return plannedLevel(set, server, redundancy.Inputs{
		Generation: state.CurrentGeneration().GetNumber(), MidApply: state.MidApply(member), Maintenance: maintenance,
	})
}

// levelsOf is what the servers of a set advertise, in the order of the document; nothing if there is no such set.
func levelsOf(state *fsm.State, set string) []*quoratev1.PlannedLevel {
	var planned []*quoratev1.PlannedLevel
	for _, server := range fsm.FindSet(state.CurrentGeneration().GetTopology(), set).GetServers() {
		planned = append(planned, levelIn(state, server.GetMember()).PlannedLevel)
	}
	return planned
}

func (p *plan) step(action string) {
	levels := levelsOf(p.state, p.set)
	for i, client := range p.clients {
		p.clients[i] = follow(client, levels)
	}
	p.rollout.Steps = append(p.rollout.Steps, &quoratev1.PlannedStep{
		Action: action, Levels: levels, Clients: slices.Clone(p.clients),
	})
}

// The kinds of clients whose behaviour a plan tells (OPC 10000-4 §6.6.2.4.2, and what is seen in practice).
const (
	// clientStandard stays while its server is Healthy, and moves from a Degraded one only to a Healthy one, or to the fittest there is when its own has
	// nothing to give.
	clientStandard = "standard"
	// clientHighest takes the server of the highest level at every moment.
	clientHighest = "highest"
	// clientHealthyOnly uses no server below 200.
	clientHealthyOnly = "healthyOnly"
)

// clientsOf is where the clients are before: on the best server of the set that there was.
func clientsOf(before *fsm.State, set string) []*quoratev1.PlannedClient {
	levels := levelsOf(before, set)
	clients := make([]*quoratev1.PlannedClient, 0, 3)
	for _, kind := range []string{clientStandard, clientHighest, clientHealthyOnly} {
		client := follow(&quoratev1.PlannedClient{Kind: kind}, levels)
		client.Moved = false
		clients = append(clients, client)
	}
	return clients
}

// follow is where a client of a kind is after it saw the levels.
func follow(client *quoratev1.PlannedClient, levels []*quoratev1.PlannedLevel) *quoratev1.PlannedClient {
	var own uint32
	var best *quoratev1.PlannedLevel
	for _, level := range levels {
		if level.GetServer() == client.GetServer() {
			own = level.GetLevel()
		}
		if best == nil || level.GetLevel() > best.GetLevel() {
			best = level
		}
	}
	next := client.GetServer()
	switch healthy := best.GetLevel() >= redundancy.Healthy; client.GetKind() {
	case clientHighest:
		if best.GetLevel() > own {
			next = best.GetServer()
		}
	case clientHealthyOnly:
		if own < redundancy.Healthy {
			if next = ""; healthy {
				next = best.GetServer()
			}
		}
	default:
		// 0 and 1 are Maintenance and NoData: such a server gives nothing.
		if own < redundancy.Healthy && (healthy || own <= 1 && best.GetLevel() > own) {
			next = best.GetServer()
		}
	}
	return &quoratev1.PlannedClient{Kind: client.GetKind(), Server: next, Moved: next != client.GetServer()}
}
