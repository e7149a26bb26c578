package fsm

import (
	"strings"

	"quorate/fsm/tree"
	quoratev1 "quorate/proto/quorate/v1"
)

// servings holds the serving rights (redundancy.md §2): for each server that has one, which set it may serve. The right says whom
// the leader may grant a Healthy serving lease; the leases themselves are volatile and not here. A server has at most one right, and
// a set at most one server with a right for it.
type servings struct {
	byServer tree.Map[string, *quoratev1.Serving]
}

func newServings() servings {
	return servings{byServer: tree.New[string, *quoratev1.Serving](strings.Compare)}
}

func (v *servings) snapshot() servings { return servings{byServer: v.byServer.Snapshot()} }

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
	bySet := tree.New[string, *quoratev1.Serving](strings.Compare)
	for _, v := range s.servings.byServer.All() {
		bySet.Set(v.GetSet(), v)
	}
	var all []*quoratev1.Serving
	for _, v := range bySet.All() {
		all = append(all, v)
	}
	return all
}

// ServingConflicts returns the rights of other servers that have to be released or lapsed before a server may be assigned the right
// of the set that it is in now: AssignServing names those that have lapsed.
func (s *State) ServingConflicts(server string) []*quoratev1.Serving {
	var found []*quoratev1.Serving
	for _, v := range s.servings.byServer.All() {
		if v.GetServer() != server && v.GetSet() == s.setOf(server) {
			found = append(found, v)
		}
	}
	return found
}
