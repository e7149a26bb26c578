package rpc

import (
	"fmt"
	"slices"

	"google.golang.org/protobuf/proto"

	"quorate/fsm"
	quoratev1 "quorate/proto/quorate/v1"
	"quorate/redundancy"
)

// plannedLevels is what each server would advertise once all is well, by the very function that servers use.
func plannedLevels(draft *quoratev1.Topology, generation uint64) []*quoratev1.PlannedLevel {
	var planned []*quoratev1.PlannedLevel
	for _, set := range draft.GetSets() {
		planned = append(planned, levelsOf(set, generation, "")...)
	}
	return planned
}

// levelsOf is what the servers of a set advertise while one of them, if any, is mid-apply and all else is well.
func levelsOf(set *quoratev1.RedundantSet, generation uint64, midApply string) []*quoratev1.PlannedLevel {
	planned := make([]*quoratev1.PlannedLevel, 0, len(set.GetServers()))
	policies := redundancy.PoliciesOf(set)
	for _, server := range set.GetServers() {
		lease := redundancy.Confirmed
		if server.GetRole() == fsm.RolePrimary {
			lease = redundancy.Right
		}
		level := redundancy.Evaluate(redundancy.Inputs{
			Generation: generation, Set: set.GetId(), Role: server.GetRole(), Lease: lease, Policies: policies, MidApply: server.GetMember() == midApply,
		})
		planned = append(planned, &quoratev1.PlannedLevel{
			Set: set.GetId(), Server: server.GetMember(), Role: server.GetRole(), Level: uint32(level.Value),
		})
	}
	return planned
}

// planRollouts says what publishing a draft leads to, set by set, if all servers are well: it is what the state machine and the servers will do,
// told beforehand.
func planRollouts(current, draft *quoratev1.Topology, generation uint64, force bool) []*quoratev1.PlannedRollout {
	var planned []*quoratev1.PlannedRollout
	for _, set := range draft.GetSets() {
		before := fsm.FindSet(current, set.GetId())
		p := &plan{
			set: proto.CloneOf(set), generation: generation,
			rollout: &quoratev1.PlannedRollout{Set: set.GetId(), Policies: set.GetPolicies()},
			clients: clientsOf(before),
		}
		p.step("publish", "")
		switch {
		case before == nil:
			p.step("apply at the first start, without a dip", "")
		case force || !proto.Equal(before, set):
			p.apply()
		}
		p.step("done", "")
		planned = append(planned, p.rollout)
	}
	return planned
}

// plan walks through one set's roll-out.
type plan struct {
	set        *quoratev1.RedundantSet
	generation uint64
	rollout    *quoratev1.PlannedRollout
	clients    []*quoratev1.PlannedClient
}

// apply has the Backups apply in order, and then the Primary: with handover as a Backup, after its role went to the first of them.
func (p *plan) apply() {
	var primary, heir *quoratev1.RedundantServer
	for _, server := range p.set.GetServers() {
		if server.GetRole() == fsm.RolePrimary {
			primary = server
			continue
		}
		if heir == nil {
			heir = server
		}
		p.step("apply "+server.GetMember(), server.GetMember())
	}
	if primary == nil {
		return
	}
	if p.set.GetPolicies().GetApply() == fsm.ApplyHandover && heir != nil {
		primary.Role, heir.Role = fsm.RoleBackup, fsm.RolePrimary
		p.generation++
		p.step(fmt.Sprintf("hand over from %s to %s", primary.GetMember(), heir.GetMember()), "")
	}
	p.step("apply "+primary.GetMember(), primary.GetMember())
}

func (p *plan) step(action, midApply string) {
	levels := levelsOf(p.set, p.generation, midApply)
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
func clientsOf(before *quoratev1.RedundantSet) []*quoratev1.PlannedClient {
	levels := levelsOf(before, 0, "")
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
