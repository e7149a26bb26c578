package fsm

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"google.golang.org/protobuf/types/known/durationpb"

	"quorate/fsm/tree"
	logv1 "quorate/proto/quorate/log/v1"
	quoratev1 "quorate/proto/quorate/v1"
)

// servings holds the serving rights (redundancy.md §2): for each server that has one, which set it may serve. The right says whom
// the leader may grant a Healthy serving lease; the leases themselves are volatile and not here. A server has at most one right, and
// a set at most one server with a right for it.
//
// A publish takes no right away, since the former Primary still has a lease. Its right ends when it has adopted a generation in which
// it has another role (it advertises nothing of an older one from then on), when it gives it back, or when the leader knows that its
// lease has run out. Only then can another server of the set be assigned.
type servings struct {
	byServer tree.Map[string, *quoratev1.Serving]
}

func newServings() servings {
	return servings{byServer: tree.New[string, *quoratev1.Serving](strings.Compare)}
}

func (v *servings) snapshot() servings { return servings{byServer: v.byServer.Snapshot()} }

// assignServing gives a server the right of the set that it is in. Every right that stands against it must be listed as lapsed, and
// is dropped. The server's own former right gives way too: it has asked under the current generation. Repeating it for the
// holder only notes the generation, and under which one it works.
func (a *application) assignServing(c *logv1.AssignServing) (*logv1.Outcome, *Refusal) {
	if c.GetGeneration() == 0 {
		return nil, a.wrongGeneration(logv1.Kind_KIND_NOT_FOUND, ReasonUnknownGeneration, "generation", "generations are numbered from 1")
	}
	if r := a.checkGenerationCurrent(c.GetGeneration()); r != nil {
		return nil, r
	}
	set, server, ok := a.Server(c.GetServer())
	if !ok {
		return nil, a.unknownServer(c.GetServer())
	}
	if r := checkMayServe(set, server, c.GetStandIn()); r != nil {
		return nil, r
	}
	conflicts := a.ServingConflicts(c.GetServer())
	for _, v := range conflicts {
		if !slices.Contains(c.GetLapsed(), v.GetServer()) {
			return nil, refuse(logv1.Kind_KIND_PRECONDITION, ReasonServingHeld, "server",
				"server %s has the serving right of set %s, and neither released it nor has its lease run out", v.GetServer(), v.GetSet()).
				with("server", v.GetServer())
		}
	}
	own, again := a.Serving(c.GetServer())
	if n := a.servings.byServer.Len() - len(conflicts); !again && n >= MaxServing {
		return nil, refuse(logv1.Kind_KIND_EXHAUSTED, ReasonTooManyServing, "server", "there are %d serving rights, and more are not allowed", n)
	}
	for _, v := range conflicts {
		a.dropServing(v)
	}
	right := &quoratev1.Serving{
		Server: server.GetMember(), Set: set.GetId(), Generation: c.GetGeneration(), StandIn: c.GetStandIn(), Since: durationpb.New(a.clock.now),
		WorksUnder: min(cmp.Or(c.GetWorksUnder(), c.GetGeneration()), c.GetGeneration()),
	}
	if again && own.GetSet() == right.GetSet() && own.GetStandIn() == right.GetStandIn() {
		right.Since = own.GetSince()
		a.servings.byServer.Set(right.GetServer(), right)
		return done(), nil
	}
	if again && own.GetSet() != right.GetSet() {
		a.dropServing(own)
	}
	a.servings.byServer.Set(right.GetServer(), right)
	a.emit(&quoratev1.Event{Body: &quoratev1.Event_ServingAssigned{ServingAssigned: right}})
	return done(), nil
}

// checkMayServe refuses a right that the role of a server does not give it.
func checkMayServe(set *quoratev1.RedundantSet, server *quoratev1.RedundantServer, standIn bool) *Refusal {
	wanted := RolePrimary
	if standIn {
		wanted = RoleBackup
	}
	if server.GetRole() != wanted {
		return refuse(logv1.Kind_KIND_PRECONDITION, ReasonWrongRole, "server",
			"server %s is not a %s of set %s", server.GetMember(), wanted, set.GetId())
	}
	if standIn && set.GetPolicies().GetStandIn() == 0 {
		return refuse(logv1.Kind_KIND_PRECONDITION, ReasonNotAuthorised, "stand_in", "the policy stand_in of set %s is off", set.GetId())
	}
	return nil
}

// releaseServing takes a right back. One of another generation was given anew meanwhile and stays.
func (a *application) releaseServing(c *logv1.ReleaseServing) (*logv1.Outcome, *Refusal) {
	if v, ok := a.Serving(c.GetServer()); ok && v.GetGeneration() == c.GetGeneration() {
		a.dropServing(v)
	}
	return done(), nil
}

func (a *application) dropServing(v *quoratev1.Serving) {
	a.servings.byServer.Delete(v.GetServer())
	a.emit(&quoratev1.Event{Body: &quoratev1.Event_ServingReleased{ServingReleased: v}})
}

// releaseAdopted takes back the right of a server that has adopted a generation which does not give it that right. An adoption that
// was overtaken by a later assignment says nothing, nor does one whose document is no longer kept: the next adoption will.
func (a *application) releaseAdopted(member string, generation uint64) {
	v, ok := a.Serving(member)
	if !ok || generation < v.GetGeneration() {
		return
	}
	g, _ := a.Generation(generation)
	if g.GetTopology() == nil {
		return
	}
	set, server := findServer(g.GetTopology(), member)
	if set.GetId() != v.GetSet() || checkMayServe(set, server, v.GetStandIn()) != nil {
		a.dropServing(v)
	}
}

// findServer finds a server in a topology that need not be the current one.
func findServer(t *quoratev1.Topology, member string) (*quoratev1.RedundantSet, *quoratev1.RedundantServer) {
	for _, set := range t.GetSets() {
		for _, server := range set.GetServers() {
			if server.GetMember() == member {
				return set, server
			}
		}
	}
	return nil, nil
}

// Serving returns the serving right that a server has.
func (s *State) Serving(server string) (*quoratev1.Serving, bool) {
	return s.servings.byServer.Get(server)
}

// ServingIn returns the serving right that some server has for a set.
func (s *State) ServingIn(set string) (*quoratev1.Serving, bool) {
	for _, v := range s.servings.byServer.All() {
		if v.GetSet() == set {
			return v, true
		}
	}
	return nil, false
}

// AllServing returns every serving right, in order of the sets.
func (s *State) AllServing() []*quoratev1.Serving {
	var all []*quoratev1.Serving
	for _, v := range s.servings.byServer.All() {
		all = append(all, v)
	}
	slices.SortFunc(all, func(v, w *quoratev1.Serving) int { return strings.Compare(v.GetSet(), w.GetSet()) })
	return all
}

// ServingConflicts returns the rights of other servers that have to be released or lapsed before a server may be assigned the right
// of the set that it is in now: AssignServing names those that have lapsed.
func (s *State) ServingConflicts(server string) []*quoratev1.Serving {
	var found []*quoratev1.Serving
	for _, v := range s.servings.byServer.All() {
		if v.GetServer() != server && s.servingConflicts(v, server) {
			found = append(found, v)
		}
	}
	return found
}

// servingConflicts says whether a right stands against another server's: whoever has it may still advertise a Healthy level as a
// server of one set with the other. It counts whether they are in one set now, or are in any generation under which the holder may
// still work: a publish may rename the set and move its servers, while clients know it as it was. The generation of the right
// says nothing of that, since the right is confirmed under the current one while its holder has yet to hear of it. Where a generation
// is no longer kept whole, the answer is yes.
func (s *State) servingConflicts(v *quoratev1.Serving, server string) bool {
	if set := s.setOf(server); set != "" && (v.GetSet() == set || s.setOf(v.GetServer()) == set) {
		return true
	}
	holder, _ := s.Member(v.GetServer())
	from, current := max(v.GetWorksUnder(), holder.GetAdoptedGeneration()), s.generationNumber()
	if from+MaxGenerationsWhole <= current {
		return true
	}
	for number := from; number < current; number++ {
		g, _ := s.Generation(number)
		set, _ := findServer(g.GetTopology(), v.GetServer())
		if hasServer(set, server) {
			return true
		}
	}
	return false
}

// checkOneServing refuses a topology that would bring two servers with serving rights into one set: both may be Healthy at this
// moment, and would be so as servers of one set until one of them has heard of it. A right ends where its server is Backup, or in no
// set, so the same document can be published a moment after one that makes it so.
func (s *State) checkOneServing(t *quoratev1.Topology) *Refusal {
	for i, set := range t.GetSets() {
		var first *quoratev1.Serving
		for _, server := range set.GetServers() {
			v, ok := s.Serving(server.GetMember())
			switch {
			case !ok:
			case first == nil:
				first = v
			default:
				return refuse(logv1.Kind_KIND_PRECONDITION, ReasonServingHeld, fmt.Sprintf("topology.sets[%d].servers", i),
					"set %s would have two servers that may be Healthy now, %s as a server of set %s and %s as one of set %s: first publish a topology in which "+
						"one of them is a Backup or in no set", set.GetId(), first.GetServer(), first.GetSet(), v.GetServer(), v.GetSet()).
					with("server", v.GetServer())
			}
		}
	}
	return nil
}

// checkServing is the invariant of the serving rights: no set has two, by the id that they are for or by the current topology, and
// one that was given under the current generation is what the topology says.
func (s *State) checkServing() error {
	if n := s.servings.byServer.Len(); n > MaxServing {
		return fmt.Errorf("%d rights are more than the %d allowed", n, MaxServing)
	}
	holders := make(map[string]string)
	for server, v := range s.servings.byServer.All() {
		if v.GetServer() != server || !validID(server) || !validID(v.GetSet()) {
			return fmt.Errorf("the right of server %q is misplaced, or has no set", server)
		}
		if other, ok := holders[v.GetSet()]; ok {
			return fmt.Errorf("servers %s and %s both have the right of set %s", other, server, v.GetSet())
		}
		holders[v.GetSet()] = server
		if since := v.GetSince().AsDuration(); since < 0 || since > s.clock.now || v.GetGeneration() == 0 || v.GetGeneration() > s.generationNumber() ||
			v.GetWorksUnder() > v.GetGeneration() {
			return fmt.Errorf("the right of server %s is of generation %d, under %d, since %d: it is from the future", server, v.GetGeneration(),
				v.GetWorksUnder(), since)
		}
		set, placed, _ := s.Server(server)
		if v.GetGeneration() == s.generationNumber() && (set.GetId() != v.GetSet() || checkMayServe(set, placed, v.GetStandIn()) != nil) {
			return fmt.Errorf("server %s has a right of set %s that the current generation does not give it", server, v.GetSet())
		}
		for _, other := range set.GetServers() {
			if other.GetMember() != server && s.servings.byServer.Has(other.GetMember()) {
				return fmt.Errorf("servers %s and %s of set %s both have a right", server, other.GetMember(), v.GetSet())
			}
		}
	}
	return nil
}
