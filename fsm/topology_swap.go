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
	set := findSet(a.CurrentGeneration().GetTopology(), c.GetSet())
	if set == nil {
		return nil, unknownSet(c.GetSet())
	}
	if r := a.checkSwap(set, c); r != nil {
		return nil, r
	}
	topology := proto.CloneOf(a.CurrentGeneration().GetTopology())
	for _, server := range findSet(topology, set.GetId()).GetServers() {
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
