package fsm

import (
	"fmt"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	quoratev1 "quorate/proto/quorate/v1"
)

// publishing is a generation on its way into force, and what it means for the roll-outs.
type publishing struct {
	before *quoratev1.Topology
	// force applies it to sets that it does not change, too; forceSet to that one.
	force    bool
	forceSet string
	// swapped is the set whose roles were swapped without a person, empty if none.
	swapped string
}

// rollsOut says whether publishing begins roll-outs: from the time on when every member that has announced itself knows them. A
// member that has just joined does not count. It can't be an older one, since the log is full of what such a one can't apply.
func (s *State) rollsOut() bool {
	lowest := uint32(0)
	for _, m := range s.members.byID.All() {
		if m.GetAnnounced() && !Departed(m) && (lowest == 0 || m.GetCommandVersion() < lowest) {
			lowest = max(m.GetCommandVersion(), 1)
		}
	}
	return lowest >= rolloutVersion
}

// rolloutVersion is the command version that brought roll-outs, serving rights, the level history and policies.
const rolloutVersion = 2

// rollOut brings the roll-outs in line with the generation that has just come into force. What changes a set supersedes its roll-out;
// sets that are gone take theirs with them.
func (a *application) rollOut(p publishing) {
	if a.rollouts.bySet.Len() == 0 && !a.rollsOut() {
		return
	}
	applied := make(map[string]uint64)
	for _, r := range a.Rollouts() {
		for _, s := range r.GetServers() {
			applied[s.GetServer()] = s.GetAppliedGeneration()
		}
	}
	old := a.rollouts.bySet.Snapshot()
	a.rollouts = newRollouts()
	for _, set := range a.CurrentGeneration().GetTopology().GetSets() {
		before := FindSet(p.before, set.GetId())
		previous, known := old.Get(set.GetId())
		switch _, kept := a.Generation(previous.GetGeneration()); {
		case !known || p.force || p.forceSet == set.GetId() || before == nil || !kept && previous.GetState() != rolloutDone:
			a.setRollout(a.newRollout(set, before, applied))
		case sameSet(before, set):
			a.rollouts.bySet.Set(set.GetId(), a.goOn(previous))
		case p.swapped == set.GetId() || set.GetPolicies().GetApply() == ApplyHandover && sameButRoles(before, set):
			a.setRollout(a.carryOver(previous, set))
		default:
			a.setRollout(a.newRollout(set, before, applied))
		}
	}
}

// FindSet returns a set of a topology by its id, nil if it has none.
func FindSet(t *quoratev1.Topology, id string) *quoratev1.RedundantSet {
	for _, set := range t.GetSets() {
		if set.GetId() == id {
			return set
		}
	}
	return nil
}

// sameSet says whether two sets have no difference that is in a digest.
func sameSet(a, b *quoratev1.RedundantSet) bool {
	var x, y canonical
	x.set(a)
	y.set(b)
	return string(x) == string(y)
}

// sameButRoles says whether two sets differ in nothing but the roles of their servers.
func sameButRoles(a, b *quoratev1.RedundantSet) bool {
	x, y := proto.CloneOf(a), proto.CloneOf(b)
	for _, set := range []*quoratev1.RedundantSet{x, y} {
		for _, server := range set.GetServers() {
			server.Role = ""
		}
	}
	return sameSet(x, y)
}

// newRollout begins the roll-out of the current generation in a set: every server has yet to apply it. With the policy handover the Primary
// hands its role over first, unless nobody is served yet, or the publish has just made it the Primary: what a person
// declares is not undone at once.
func (a *application) newRollout(set, before *quoratev1.RedundantSet, applied map[string]uint64) *quoratev1.Rollout {
	r := &quoratev1.Rollout{Set: set.GetId(), Generation: a.generationNumber(), Apply: PoliciesOf(set).Apply}
	for _, member := range applyOrder(set) {
		r.Servers = append(r.Servers, &quoratev1.ServerApply{Server: member, State: applyPending, AppliedGeneration: applied[member]})
	}
	if primary := primaryOf(set); primary == primaryOf(before) && applied[primary] != 0 {
		r.HandOverFrom = handOverFrom(r, set)
	}
	return r
}

// goOn is the roll-out of a set that a publish does not change: it stays as it is. What has been applied is the new generation's as well.
func (a *application) goOn(previous *quoratev1.Rollout) *quoratev1.Rollout {
	if previous.GetState() != rolloutDone {
		return previous
	}
	r := proto.CloneOf(previous)
	for _, p := range r.GetServers() {
		p.AppliedGeneration = a.generationNumber()
	}
	return r
}

// carryOver is the roll-out of a set in which nothing but roles has changed: who has applied need not again, and who has not still has to.
// Who is applying does so under the old generation and then once more, because its lease is of the old one.
func (a *application) carryOver(previous *quoratev1.Rollout, set *quoratev1.RedundantSet) *quoratev1.Rollout {
	r := &quoratev1.Rollout{Set: set.GetId(), Generation: a.generationNumber(), Apply: PoliciesOf(set).Apply}
	for _, member := range applyOrder(set) {
		for _, p := range previous.GetServers() {
			if p.GetServer() != member {
				continue
			}
			p = proto.CloneOf(p)
			switch p.GetState() {
			case applyApplied:
				p.AppliedGeneration = r.GetGeneration()
			case applyApplying:
				p.State, p.Ended, p.Outcome = applyPending, durationpb.New(a.clock.now), "superseded"
			}
			r.Servers = append(r.Servers, p)
		}
	}
	r.HandOverFrom = handOverFrom(r, set)
	return r
}

// applyOrder returns the servers of a set in the order in which they apply: Backups as the document lists them, then the Primary.
func applyOrder(set *quoratev1.RedundantSet) []string {
	var order []string
	for _, server := range set.GetServers() {
		if server.GetRole() == RoleBackup {
			order = append(order, server.GetMember())
		}
	}
	if primary := primaryOf(set); primary != "" {
		order = append(order, primary)
	}
	return order
}

// primaryOf returns the Primary of a set, empty if it has none.
func primaryOf(set *quoratev1.RedundantSet) string {
	for _, server := range set.GetServers() {
		if server.GetRole() == RolePrimary {
			return server.GetMember()
		}
	}
	return ""
}

// handOverFrom returns the Primary that has to hand its role over before it applies: by the policy handover, where there is a Backup, and while
// it has not applied, but has applied something before.
func handOverFrom(r *quoratev1.Rollout, set *quoratev1.RedundantSet) string {
	primary := primaryOf(set)
	if r.GetApply() != ApplyHandover || primary == "" || len(r.GetServers()) < 2 {
		return ""
	}
	for _, p := range r.GetServers() {
		if p.GetServer() == primary && (p.GetState() == applyApplied || p.GetAppliedGeneration() == 0) {
			return ""
		}
	}
	return primary
}

// checkRollouts is the invariant of the roll-outs: each belongs to a set of the current topology and has its servers in their order;
// its state is what follows from theirs; and who is applying holds the lease for it.
func (s *State) checkRollouts() error {
	for id, r := range s.rollouts.bySet.All() {
		set := FindSet(s.CurrentGeneration().GetTopology(), id)
		if set == nil || r.GetSet() != id {
			return fmt.Errorf("roll-out of %q: there is no such set", id)
		}
		if r.GetGeneration() == 0 || r.GetGeneration() > s.generationNumber() {
			return fmt.Errorf("roll-out of set %s: generation %d of %d", id, r.GetGeneration(), s.generationNumber())
		}
		if from := handOverFrom(r, set); r.GetApply() != PoliciesOf(set).Apply || r.GetHandOverFrom() != "" && r.GetHandOverFrom() != from {
			return fmt.Errorf("roll-out of set %s: apply %q, hand over from %q", id, r.GetApply(), r.GetHandOverFrom())
		}
		if r.GetState() != rolloutState(r.GetServers()) {
			return fmt.Errorf("roll-out of set %s: its state is %d", id, r.GetState())
		}
		if _, kept := s.Generation(r.GetGeneration()); !kept && r.GetState() != rolloutDone {
			return fmt.Errorf("roll-out of set %s: generation %d is no longer kept", id, r.GetGeneration())
		}
		if err := s.checkServerApplies(r, set); err != nil {
			return fmt.Errorf("roll-out of set %s: %w", id, err)
		}
	}
	return nil
}

func (s *State) checkServerApplies(r *quoratev1.Rollout, set *quoratev1.RedundantSet) error {
	applying, seen := 0, make(map[string]bool)
	for i, p := range r.GetServers() {
		if seen[p.GetServer()] || p.GetServer() == primaryOf(set) && i < len(r.GetServers())-1 {
			return fmt.Errorf("server %s is there twice, or is the Primary and not the last", p.GetServer())
		}
		seen[p.GetServer()] = true
		if s.setOf(p.GetServer()) != r.GetSet() || p.GetAppliedGeneration() > s.generationNumber() {
			return fmt.Errorf("server %q has applied %d, or is not of the set", p.GetServer(), p.GetAppliedGeneration())
		}
		begun, ended := p.GetBegun().AsDuration(), p.GetEnded().AsDuration()
		if begun < 0 || begun > s.clock.now || ended < 0 || ended > s.clock.now {
			return fmt.Errorf("server %s applied from %d to %d of %d", p.GetServer(), begun, ended, s.clock.now)
		}
		switch p.GetState() {
		case applyPending, applyFailed:
		case applyApplying:
			applying++
			key, _ := s.applyKey(p.GetServer(), r.GetGeneration())
			if open, _ := s.leases.open.Get(key); !open.GetRollout() || applying > 1 || r.GetState() != rolloutRunning {
				return fmt.Errorf("server %s is applying without a lease, beside another, or while it is stopped", p.GetServer())
			}
		case applyApplied:
			if p.GetAppliedGeneration() < r.GetGeneration() {
				return fmt.Errorf("server %s has applied %d", p.GetServer(), p.GetAppliedGeneration())
			}
		default:
			return fmt.Errorf("server %s is in state %d", p.GetServer(), p.GetState())
		}
	}
	if len(seen) != len(set.GetServers()) {
		return fmt.Errorf("it has %d servers of %d", len(seen), len(set.GetServers()))
	}
	return nil
}
