package fsm

import (
	"fmt"

	logv1 "quorate/proto/quorate/log/v1"
	quoratev1 "quorate/proto/quorate/v1"
)

// Modes and roles as a topology spells them.
const (
	ModeNone = "NONE"
	ModeCold = "COLD"
	ModeWarm = "WARM"
	ModeHot  = "HOT"

	RolePrimary = "Primary"
	RoleBackup  = "Backup"
)

// ValidateTopology checks a draft against the rules of redundancy.md §1 and against the state, and returns it in normal
// form: a copy with every default written out. The refusal names the first field that is wrong. Plan and publish both use it.
func ValidateTopology(s *State, draft *quoratev1.Topology) (*quoratev1.Topology, *Refusal) {
	t, r := normalise(draft)
	if r != nil {
		return nil, r
	}
	if r := s.checkMembersKnown(t); r != nil {
		return nil, r
	}
	if r := s.checkOneMidApply(t); r != nil {
		return nil, r
	}
	if r := s.checkOneServing(t); r != nil {
		return nil, r
	}
	return t, nil
}

// checkMembersKnown refuses a server whose member is not in the group.
func (s *State) checkMembersKnown(t *quoratev1.Topology) *Refusal {
	for i, set := range t.GetSets() {
		for j, server := range set.GetServers() {
			if m, ok := s.Member(server.GetMember()); !ok || Departed(m) {
				return invalid(ReasonUnknownMember, fmt.Sprintf("topology.sets[%d].servers[%d].member", i, j),
					"no member of the group is called %s", quote(server.GetMember()))
			}
		}
	}
	return nil
}

// checkOneMidApply refuses a topology that would bring two servers that are mid-apply into one set: at most one server of a
// set may be, and publishing must not be a way around it.
func (s *State) checkOneMidApply(t *quoratev1.Topology) *Refusal {
	sets := make(map[string]string) // server → set in the draft
	for _, set := range t.GetSets() {
		for _, server := range set.GetServers() {
			sets[server.GetMember()] = set.GetId()
		}
	}
	for i, set := range t.GetSets() {
		if first, second := s.midApplyIn(set.GetId(), func(server string) string { return sets[server] }); second != "" {
			return refuse(logv1.Kind_KIND_PRECONDITION, ReasonApplyInProgress, fmt.Sprintf("topology.sets[%d].servers", i),
				"set %s would have two servers mid-apply, %s and %s: wait until one has ended", set.GetId(), first, second).
				with("server", second)
		}
	}
	return nil
}

// validator walks through one draft.
type validator struct {
	sets      map[string]int    // Set id → its index.
	members   map[string]string // Member → the id of its set.
	uris      map[string]string // ApplicationUri → the member that has it.
	endpoints map[string]string // Endpoint URL → the member that has it.
}

// normalise checks what can be said of a topology without knowing the state, and returns its normal form.
func normalise(draft *quoratev1.Topology) (*quoratev1.Topology, *Refusal) {
	if draft == nil {
		return nil, invalid(ReasonTopologyRequired, "topology", "a topology is required")
	}
	if n := len(draft.GetSets()); n > MaxSets {
		return nil, invalid(ReasonTooManySets, "topology.sets", "%d sets are more than the %d allowed", n, MaxSets)
	}
	v := validator{
		sets: make(map[string]int), members: make(map[string]string), uris: make(map[string]string), endpoints: make(map[string]string),
	}
	t := &quoratev1.Topology{}
	for i, set := range draft.GetSets() {
		normal, r := v.set(fmt.Sprintf("topology.sets[%d]", i), i, set)
		if r != nil {
			return nil, r
		}
		t.Sets = append(t.Sets, normal)
	}
	var c canonical
	if c.topology(t); len(c) > MaxTopologyBytes {
		return nil, invalid(ReasonTopologyTooLarge, "topology", "%d bytes are more than the %d allowed", len(c), MaxTopologyBytes)
	}
	return t, nil
}

func (v *validator) set(field string, index int, set *quoratev1.RedundantSet) (*quoratev1.RedundantSet, *Refusal) {
	id := set.GetId()
	if !validID(id) {
		return nil, invalid(ReasonInvalidSetID, field+".id", "%s is no set id: %s", quote(id), idForm)
	}
	if other, ok := v.sets[id]; ok {
		return nil, invalid(ReasonDuplicateSetID, field+".id", "sets[%d] is called %s too", other, id)
	}
	v.sets[id] = index
	mode, r := normalMode(field+".mode", set.GetMode())
	if r != nil {
		return nil, r
	}
	policies, r := normalPolicies(field+".policies", mode, set.GetPolicies())
	if r != nil {
		return nil, r
	}
	n := len(set.GetServers())
	if n == 0 {
		return nil, invalid(ReasonNoServers, field+".servers", "set %s has no servers", id)
	}
	if limit := policies.GetMaxServers(); n > int(limit) {
		return nil, invalid(ReasonTooManyServers, field+".servers",
			"%d servers are more than the %d that the policy max_servers of set %s allows", n, limit, id)
	}
	normal := &quoratev1.RedundantSet{Id: id, Mode: mode, Policies: policies}
	for j, server := range set.GetServers() {
		s, r := v.server(fmt.Sprintf("%s.servers[%d]", field, j), id, server)
		if r != nil {
			return nil, r
		}
		normal.Servers = append(normal.Servers, s)
	}
	if r := onePrimary(field, normal); r != nil {
		return nil, r
	}
	return normal, nil
}

// normalMode returns the mode that a document's mode is read as.
func normalMode(field, mode string) (string, *Refusal) {
	switch mode {
	case ModeNone, ModeCold, ModeWarm, ModeHot:
		return mode, nil
	case "WARM_ACTIVE":
		return ModeWarm, nil
	case "TRANSPARENT":
		return "", invalid(ReasonModeRefused, field, "TRANSPARENT is refused: it needs servers that look like one to the client "+
			"(OPC 10000-4 §6.6.2), and Quorate's clients choose by ServiceLevel; use NONE, COLD, WARM or HOT")
	case "HOT_AND_MIRRORED":
		return "", invalid(ReasonModeRefused, field, "HOT_AND_MIRRORED is refused: it needs sessions that are mirrored between servers "+
			"(OPC 10000-4 §6.6.2), which Quorate does not do; use NONE, COLD, WARM or HOT")
	default:
		return "", invalid(ReasonModeRefused, field, "%s is no redundancy mode: use NONE, COLD, WARM or HOT", quote(mode))
	}
}

func (v *validator) server(field, set string, server *quoratev1.RedundantServer) (*quoratev1.RedundantServer, *Refusal) {
	member, uri, endpoint := server.GetMember(), server.GetApplicationUri(), server.GetEndpointUrl()
	if !validID(member) {
		return nil, invalid(ReasonUnknownMember, field+".member", "%s is no member id: %s", quote(member), idForm)
	}
	switch other, ok := v.members[member]; {
	case ok && other == set:
		return nil, invalid(ReasonDuplicateMember, field+".member", "member %s is in set %s twice", member, set)
	case ok:
		return nil, invalid(ReasonMemberInTwoSets, field+".member", "member %s is in set %s already", member, other)
	}
	v.members[member] = set
	if !validApplicationURI(uri) {
		return nil, invalid(ReasonInvalidApplicationURI, field+".application_uri",
			"%s is no ApplicationUri in urn:NID:NAME or opc.tcp://… form of at most %d bytes", quote(uri), MaxURLBytes)
	}
	if other, ok := v.uris[uri]; ok {
		return nil, invalid(ReasonDuplicateApplicationURI, field+".application_uri", "server %s has %s too", other, quote(uri))
	}
	v.uris[uri] = member
	if !validEndpointURL(endpoint) {
		return nil, invalid(ReasonInvalidEndpointURL, field+".endpoint_url",
			"%s is no opc.tcp://HOST:PORT[/PATH] of at most %d bytes", quote(endpoint), MaxURLBytes)
	}
	if other, ok := v.endpoints[endpoint]; ok {
		return nil, invalid(ReasonDuplicateEndpointURL, field+".endpoint_url", "server %s has %s too", other, quote(endpoint))
	}
	v.endpoints[endpoint] = member
	if !validHealthURL(server.GetHealthUrl()) {
		return nil, invalid(ReasonInvalidHealthURL, field+".health_url",
			"%s is no http:// or https:// URL of at most %d bytes", quote(server.GetHealthUrl()), MaxURLBytes)
	}
	if role := server.GetRole(); role != RolePrimary && role != RoleBackup {
		return nil, invalid(ReasonInvalidRole, field+".role", "%s is no role: use Primary or Backup", quote(role))
	}
	return &quoratev1.RedundantServer{
		Member:         member,
		ApplicationUri: uri,
		EndpointUrl:    endpoint,
		HealthUrl:      server.GetHealthUrl(),
		Role:           server.GetRole(),
	}, nil
}

// onePrimary refuses two Primaries in any set, and none in a set that is redundant.
func onePrimary(field string, set *quoratev1.RedundantSet) *Refusal {
	primary := ""
	for j, server := range set.GetServers() {
		if server.GetRole() != RolePrimary {
			continue
		}
		if primary != "" {
			return invalid(ReasonTwoPrimaries, fmt.Sprintf("%s.servers[%d].role", field, j),
				"set %s has two Primaries, %s and %s", set.GetId(), primary, server.GetMember())
		}
		primary = server.GetMember()
	}
	if primary == "" && set.GetMode() != ModeNone {
		return invalid(ReasonNoPrimary, field+".servers", "set %s has no Primary, and mode %s needs one", set.GetId(), set.GetMode())
	}
	return nil
}
