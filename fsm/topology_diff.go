package fsm

import (
	"fmt"
	"strings"

	"quorate/fsm/tree"
	quoratev1 "quorate/proto/quorate/v1"
)

// Diff returns what changes from one topology to another, by field, ordered by set, then by the fields of the set, then by
// server. Nil is the empty topology. Where no change is found the digests are equal, for topologies in normal form.
func Diff(before, after *quoratev1.Topology) []*quoratev1.TopologyChange {
	old, now := fields(before), fields(after)
	paths := tree.New[fieldPath, struct{}](fieldPath.compare)
	for path := range old.All() {
		paths.Set(path, struct{}{})
	}
	for path := range now.All() {
		paths.Set(path, struct{}{})
	}
	var changes []*quoratev1.TopologyChange
	for path := range paths.All() {
		was, _ := old.Get(path)
		is, _ := now.Get(path)
		if was != is {
			changes = append(changes, &quoratev1.TopologyChange{Path: path.String(), Before: was, After: is})
		}
	}
	return changes
}

// fieldPath names one field of a topology: by set and server instead of position, since order says nothing.
type fieldPath struct {
	set, server string // server is empty for a field of the set itself.
	order       int    // The place of the field in its message.
	name        string
}

func (p fieldPath) compare(q fieldPath) int {
	if c := strings.Compare(p.set, q.set); c != 0 {
		return c
	}
	if c := strings.Compare(p.server, q.server); c != 0 {
		return c
	}
	return p.order - q.order
}

func (p fieldPath) String() string {
	if p.server == "" {
		return fmt.Sprintf("sets[%s].%s", p.set, p.name)
	}
	return fmt.Sprintf("sets[%s].servers[%s].%s", p.set, p.server, p.name)
}

// fields takes a topology apart. The member of a server is its name in the path, so it is no field of its own; that a server
// is there shows in its role.
func fields(t *quoratev1.Topology) tree.Map[fieldPath, string] {
	m := tree.New[fieldPath, string](fieldPath.compare)
	for _, set := range t.GetSets() {
		m.Set(fieldPath{set: set.GetId(), name: "mode"}, set.GetMode())
		for i, f := range policyFields(set.GetPolicies()) {
			m.Set(fieldPath{set: set.GetId(), order: i + 1, name: "policies." + f[0]}, f[1])
		}
		for _, server := range set.GetServers() {
			for i, f := range [][2]string{
				{"application_uri", server.GetApplicationUri()},
				{"endpoint_url", server.GetEndpointUrl()},
				{"health_url", server.GetHealthUrl()},
				{"role", server.GetRole()},
			} {
				m.Set(fieldPath{set: set.GetId(), server: server.GetMember(), order: i, name: f[0]}, f[1])
			}
		}
	}
	return m
}
