package fsm

import (
	"cmp"
	"strconv"

	"google.golang.org/protobuf/proto"

	logv1 "quorate/proto/quorate/log/v1"
	quoratev1 "quorate/proto/quorate/v1"
)

// swapRoles publishes the current topology with the roles of one set swapped, where the policy of the set has authorised it: to hand over
// to a Backup before the Primary applies, or to fail over to one. Nothing else changes, so the document is not validated again: a
// server whose member has departed must not keep the others from being served.
//
// It is the group's own command and has no request id that is remembered. Repeating it meets another current generation.
func (a *application) swapRoles(c *logv1.SwapRoles) (*logv1.Outcome, *Refusal) {
	if r := a.CheckExpected(c.GetExpectedGeneration()); r != nil {
		return nil, r
	}
	set := FindSet(a.CurrentGeneration().GetTopology(), c.GetSet())
	if set == nil {
		return nil, unknownSet(c.GetSet())
	}
	if r := a.checkSwap(set, c); r != nil {
		return nil, r
	}
	topology := proto.CloneOf(a.CurrentGeneration().GetTopology())
	for _, server := range FindSet(topology, set.GetId()).GetServers() {
		switch {
		case server.GetMember() == c.GetTo():
			server.Role = RolePrimary
		case server.GetRole() == RolePrimary:
			server.Role = RoleBackup
		}
	}
	g := a.nextGeneration(topology)
	g.PublishRequestId = cmp.Or(g.GetPublishRequestId(), c.GetWhy()+"-"+strconv.FormatUint(g.GetNumber(), 10))
	g.SwappedBy = c.GetWhy()
	return a.putInForce(g, publishing{swapped: set.GetId()}), nil
}

func (a *application) checkSwap(set *quoratev1.RedundantSet, c *logv1.SwapRoles) *Refusal {
	in, server, _ := a.Server(c.GetTo())
	if in != set || server.GetRole() != RoleBackup || primaryOf(set) == "" {
		return refuse(logv1.Kind_KIND_PRECONDITION, ReasonWrongRole, "to", "%s is no Backup of a Primary in set %s", quote(c.GetTo()), set.GetId())
	}
	if _, r := a.present("to", c.GetTo()); r != nil {
		return r
	}
	switch policies := PoliciesOf(set); {
	case c.GetWhy() == SwapFailover && policies.Automatic:
		return nil
	case c.GetWhy() == SwapHandover && policies.Apply == ApplyHandover:
		if _, _, due := a.HandOverDue(set.GetId()); !due {
			return refuse(logv1.Kind_KIND_PRECONDITION, ReasonHandOverNotDue, "set",
				"no server of set %s has to hand its role over now", set.GetId())
		}
		return nil
	default:
		return refuse(logv1.Kind_KIND_PRECONDITION, ReasonNotAuthorised, "why",
			"the policies of set %s do not authorise a swap for %s", set.GetId(), quote(c.GetWhy()))
	}
}

// HandOverDue says whether the Primary of a set has to hand its role to a Backup before it applies, and the Backups have applied: to
// is the Backup to propose, generation the current one, which SwapRoles has to expect. The Backup proposes it once it is Authoritative
// again.
func (s *State) HandOverDue(set string) (to string, generation uint64, ok bool) {
	r, _ := s.Rollout(set)
	if r.GetState() != rolloutRunning || r.GetHandOverFrom() == "" {
		return "", 0, false
	}
	for _, p := range r.GetServers() {
		if p.GetServer() != r.GetHandOverFrom() && p.GetState() != applyApplied {
			return "", 0, false
		}
	}
	return s.heir(r), s.generationNumber(), true
}

// heir returns the Backup that a role is handed to: the first that is in the group and not in maintenance, or else the first.
func (s *State) heir(r *quoratev1.Rollout) string {
	for _, p := range r.GetServers() {
		m, _ := s.Member(p.GetServer())
		if _, down := s.Maintenance(p.GetServer()); p.GetServer() != r.GetHandOverFrom() && !down && !Departed(m) {
			return p.GetServer()
		}
	}
	return r.GetServers()[0].GetServer()
}
