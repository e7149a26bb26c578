package fsm

import (
	"fmt"
	"strings"

	"google.golang.org/protobuf/proto"

	"quorate/fsm/tree"
	logv1 "quorate/proto/quorate/log/v1"
	quoratev1 "quorate/proto/quorate/v1"
)

// members holds the members of the group: who they are by Raft's configuration, which the leader copies here with SyncMembers,
// and what they say of themselves.
//
// Raft's configuration is a fact that the state machine can't refuse. So a member that left it although the current
// topology names it (the node refuses to remove one, but a publish may overtake it) stays here as departed:
// without a raft address, no longer allowed in a new topology, and dropped by the publish that no longer names it. That way no
// server of the topology is ever without a member, and nobody vanishes silently.
type members struct {
	byID tree.Map[string, *logv1.MemberRecord]
}

// What a MemberChange event says.
const (
	MemberJoined  = "joined"
	MemberChanged = "changed"
	MemberRemoved = "removed"
)

func newMembers() members {
	return members{byID: tree.New[string, *logv1.MemberRecord](strings.Compare)}
}

func (m *members) snapshot() members { return members{byID: m.byID.Snapshot()} }

// Departed says whether a member has left the group and is kept only because the current topology names it.
func Departed(m *logv1.MemberRecord) bool { return m.GetRaftAddress() == "" }

// syncMembers makes the members those of Raft's configuration.
func (a *application) syncMembers(c *logv1.SyncMembers) (*logv1.Outcome, *Refusal) {
	wanted := tree.New[string, *logv1.SyncMembers_Member](strings.Compare)
	if n := len(c.GetMembers()); n == 0 || n > MaxMembers {
		return nil, invalid(ReasonInvalidMembers, "members", "there are %d members, and a group has 1 to %d", n, MaxMembers)
	}
	for i, m := range c.GetMembers() {
		field := fmt.Sprintf("members[%d]", i)
		if r := firstRefusal(
			checkID(field+".id", m.GetId()),
			checkText(field+".raft_address", m.GetRaftAddress(), MaxAddressBytes),
		); r != nil {
			return nil, r
		}
		if m.GetRaftAddress() == "" {
			return nil, invalid(ReasonInvalidMembers, field+".raft_address", "member %s has no raft address", m.GetId())
		}
		if wanted.Set(m.GetId(), m) {
			return nil, invalid(ReasonInvalidMembers, field+".id", "member %s is listed twice", m.GetId())
		}
	}
	for id, m := range wanted.All() {
		a.syncMember(id, m)
	}
	for _, known := range a.Members() {
		if !wanted.Has(known.GetId()) && !Departed(known) {
			a.removeMember(known)
		}
	}
	return done(), nil
}

func checkID(field, id string) *Refusal {
	if !validID(id) {
		return invalid(ReasonInvalidMembers, field, "%s is no member id: %s", quote(id), idForm)
	}
	return nil
}

// syncMember takes over what Raft's configuration says of one member.
func (a *application) syncMember(id string, m *logv1.SyncMembers_Member) {
	before, known := a.Member(id)
	record := &logv1.MemberRecord{Id: id}
	if known {
		record = proto.CloneOf(before)
	}
	record.RaftAddress, record.Voter = m.GetRaftAddress(), m.GetVoter()
	switch {
	case !known || Departed(before):
		a.setMember(record, MemberJoined)
	case !proto.Equal(before, record):
		a.setMember(record, MemberChanged)
	}
}

func (a *application) setMember(m *logv1.MemberRecord, change string) {
	a.members.byID.Set(m.GetId(), m)
	a.emitMember(m.GetId(), change)
}

// removeMember notes that a member has left the group.
func (a *application) removeMember(m *logv1.MemberRecord) {
	if _, _, inTopology := a.Server(m.GetId()); inTopology {
		departed := proto.CloneOf(m)
		departed.RaftAddress, departed.Voter = "", false
		a.members.byID.Set(m.GetId(), departed)
	} else {
		a.dropMember(m.GetId())
	}
	a.emitMember(m.GetId(), MemberRemoved)
}

// dropMember forgets a member, and what is kept for its server.
func (a *application) dropMember(id string) {
	a.members.byID.Delete(id)
	a.withdrawMaintenance(id)
	a.leases.forgetEnded(id)
	a.levels.forget(id)
}

// dropDeparted forgets the departed members that the current topology no longer names.
func (a *application) dropDeparted() {
	for _, m := range a.Members() {
		if _, _, inTopology := a.Server(m.GetId()); Departed(m) && !inTopology {
			a.dropMember(m.GetId())
		}
	}
}

func (a *application) emitMember(id, change string) {
	a.emit(&quoratev1.Event{Body: &quoratev1.Event_MemberChanged{MemberChanged: &quoratev1.MemberChange{Id: id, Change: change}}})
}

// announceMember takes over what a member says of itself. It has to be in the group already: members announce themselves after
// the leader's SyncMembers, and again when this is refused.
func (a *application) announceMember(c *logv1.AnnounceMember) (*logv1.Outcome, *Refusal) {
	if r := firstRefusal(
		checkText("grpc_address", c.GetGrpcAddress(), MaxAddressBytes),
		checkText("http_address", c.GetHttpAddress(), MaxAddressBytes),
		checkText("opcua_url", c.GetOpcuaUrl(), MaxURLBytes),
		checkText("version", c.GetVersion(), MaxVersionBytes),
	); r != nil {
		return nil, r
	}
	before, r := a.present("id", c.GetId())
	if r != nil {
		return nil, r
	}
	record := proto.CloneOf(before)
	record.GrpcAddress, record.HttpAddress, record.OpcuaUrl = c.GetGrpcAddress(), c.GetHttpAddress(), c.GetOpcuaUrl()
	record.Version, record.CommandVersion = c.GetVersion(), c.GetCommandVersion()
	record.Announced = true
	if !proto.Equal(before, record) {
		a.setMember(record, MemberChanged)
	}
	return done(), nil
}

// present returns a member that is in the group now.
func (s *State) present(field, id string) (*logv1.MemberRecord, *Refusal) {
	m, ok := s.Member(id)
	if !ok || Departed(m) {
		return nil, refuse(logv1.Kind_KIND_NOT_FOUND, ReasonUnknownMember, field, "no member of the group is called %s", quote(id))
	}
	return m, nil
}

// adoptGeneration notes which generation a member has put into effect, which ends the serving right that it no longer has. It need not be the current one, since a publish may
// overtake it, but a member never goes back: what arrives with a lower one is stale.
func (a *application) adoptGeneration(c *logv1.AdoptGeneration) (*logv1.Outcome, *Refusal) {
	before, r := a.present("member", c.GetMember())
	if r != nil {
		return nil, r
	}
	switch adopted, current := before.GetAdoptedGeneration(), a.generationNumber(); {
	case c.GetGeneration() == 0 || c.GetGeneration() > current:
		return nil, a.wrongGeneration(logv1.Kind_KIND_NOT_FOUND, ReasonUnknownGeneration, "generation",
			"there is no generation %d, the current one is %d", c.GetGeneration(), current)
	case c.GetGeneration() < adopted:
		return nil, a.wrongGeneration(logv1.Kind_KIND_PRECONDITION, ReasonStaleGeneration, "generation",
			"member %s has adopted generation %d already", c.GetMember(), adopted)
	case c.GetGeneration() == adopted:
		return done(), nil
	}
	record := proto.CloneOf(before)
	record.AdoptedGeneration = c.GetGeneration()
	a.members.byID.Set(record.GetId(), record)
	a.emit(&quoratev1.Event{Body: &quoratev1.Event_GenerationAdopted{
		GenerationAdopted: &quoratev1.GenerationAdopted{Member: record.GetId(), Generation: record.GetAdoptedGeneration()},
	}})
	a.releaseAdopted(record.GetId(), record.GetAdoptedGeneration())
	return done(), nil
}

// Member returns a member of the group, or one that has departed from it while the current topology names it.
func (s *State) Member(id string) (*logv1.MemberRecord, bool) { return s.members.byID.Get(id) }

// Members returns all members in order of their ids, departed ones included.
func (s *State) Members() []*logv1.MemberRecord {
	all := make([]*logv1.MemberRecord, 0, s.members.byID.Len())
	for _, m := range s.members.byID.All() {
		all = append(all, m)
	}
	return all
}

// CommandVersion returns the command set that every member can apply, at least 1: the lowest that any has announced. A member
// that has not announced itself yet counts as 1.
func (s *State) CommandVersion() uint32 {
	lowest := uint32(CommandVersion)
	for _, m := range s.members.byID.All() {
		if !Departed(m) {
			lowest = min(lowest, max(m.GetCommandVersion(), 1))
		}
	}
	return lowest
}

// Unannounced says whether some member has not yet said which commands it can apply: it joins, or the group is new. That is soon known.
func (s *State) Unannounced() bool {
	for _, m := range s.members.byID.All() {
		if !m.GetAnnounced() && !Departed(m) {
			return true
		}
	}
	return s.members.byID.Len() == 0
}

// checkMembers is the invariant of the members.
func (s *State) checkMembers() error {
	present := 0
	for id, m := range s.members.byID.All() {
		if m.GetId() != id || !validID(id) {
			return fmt.Errorf("member %q stands where %q belongs", m.GetId(), id)
		}
		if m.GetAdoptedGeneration() > s.generationNumber() {
			return fmt.Errorf("member %s has adopted generation %d of %d", id, m.GetAdoptedGeneration(), s.generationNumber())
		}
		if _, _, inTopology := s.Server(id); Departed(m) && (!inTopology || m.GetVoter()) {
			return fmt.Errorf("member %s has departed, and is a voter or not in the topology", id)
		}
		if !Departed(m) {
			present++
		}
	}
	if present > MaxMembers {
		return fmt.Errorf("%d members are more than the %d allowed", present, MaxMembers)
	}
	return nil
}
