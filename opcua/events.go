package opcua

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/gopcua/opcua/id"
	"github.com/gopcua/opcua/ua"

	"quorate/fsm"
	"quorate/opcua/server"
	"quorate/opcua/space"
	quoratev1 "quorate/proto/quorate/v1"
	"quorate/redundancy"
)

// Severities of our events (Part 5 §6.4.2: 1 is of no urgency, 1000 the highest).
const (
	severityNormal  = 100 // as it should be
	severityNotice  = 300 // somebody wanted it so
	severityWorse   = 600 // less than before
	severityFailure = 800 // something did not go as it should
)

// outcomeGood is a holder's word that all went well.
const outcomeGood = "ok"

// eventTypesFolder begins the NodeIds of the types of events.
const eventTypesFolder = "types/"

// eventType is a type of our events: a subtype of BaseEventType in the state namespace, with the fields that it adds.
type eventType struct {
	key, super        space.Key
	name, description string
	fields            []variable
}

func newEventType(name, description string, super *eventType, fields ...variable) *eventType {
	t := &eventType{key: stateKey(eventTypesFolder + name), name: name, description: description, super: standard(id.BaseEventType), fields: fields}
	if super != nil {
		t.super = super.key
	}
	return t
}

// The types of our events.
var (
	levelChanged = newEventType("LevelChangedEventType", "The ServiceLevel of the server that tells moved.", nil,
		variable{"Level", "The ServiceLevel now.", id.Byte, false},
		variable{"PreviousLevel", "The ServiceLevel before.", id.Byte, false},
		variable{"Band", "The name of the ServiceLevel now.", id.String, false},
		variable{"BandReasons", "Why it is what it is.", id.String, true})
	roleChanged = newEventType("RoleChangedEventType", "A server's declared role changed.", nil,
		variable{"Server", "The id of the member.", id.String, false},
		variable{"Role", "The role now: Primary or Backup; empty if the server left the topology.", id.String, false},
		variable{"PreviousRole", "The role before; empty if the server is new.", id.String, false})
	applyMoved = newEventType("ApplyEventType", "An apply began or ended.", nil,
		variable{"Server", "The id of the member that applies.", id.String, false},
		variable{"Generation", "The generation that is applied.", id.UInt64, false},
		variable{"Outcome", "The holder's word on how it went, at the end.", id.String, false})
	applyBegun     = newEventType("ApplyBegunEventType", "An apply began.", applyMoved)
	applyEnded     = newEventType("ApplyEndedEventType", "An apply was ended by its holder.", applyMoved)
	applyAbandoned = newEventType("ApplyAbandonedEventType", "An apply was closed by the watchdog.", applyMoved)

	eventTypes = []*eventType{
		levelChanged, roleChanged, applyMoved, applyBegun, applyEnded, applyAbandoned,
		rolloutMoved, rolloutBegun, rolloutApplied, rolloutFailed, rolloutStopped, rolloutDone, servingMoved,
		partitionMoved, partitionsCreated, placementSet, partitionDeleted, migrationBegun, migrationCutOver, barrierPassed, migrationCompleted,
		migrationAborted, partitionsMissed,
	}
)

// eventNodes are the types of our events, and the fields that they add.
func (e *Endpoint) eventNodes(b *builder) {
	for _, t := range eventTypes {
		b.edit.Put(&space.Node{Key: t.key, Class: ua.NodeClassObjectType, BrowseName: stateName(t.name), DisplayName: space.Text(t.name), Description: space.Text(t.description)})
		b.edit.Link(t.super, space.HasSubtype, t.key)
		for _, f := range t.fields {
			rank := space.RankScalar
			if f.array {
				rank = space.RankOneDimension
			}
			k := stateKey(eventTypesFolder + t.name + "/" + f.name)
			b.edit.Put(&space.Node{
				Key: k, Class: ua.NodeClassVariable, BrowseName: stateName(f.name), DisplayName: space.Text(f.name), Description: space.Text(f.description),
				TypeDefinition: standard(id.PropertyType), DataType: standard(f.dataType), ValueRank: rank, AccessLevel: space.AccessCurrentRead,
			})
			b.edit.Link(t.key, space.HasProperty, k)
			b.edit.Link(k, standard(id.HasModellingRule), standard(id.ModellingRule_Mandatory))
		}
	}
}

// noTime lets an event have the time at which it is told.
var noTime time.Time

// emit tells of something that happened to a server or a set. The values are those of the type's fields and its supertype's.
func (e *Endpoint) emit(t *eventType, from source, severity uint16, at time.Time, message string, values map[string]any) {
	fields := make(map[ua.QualifiedName]*ua.Variant, len(values))
	for name, v := range values {
		fields[stateName(name)] = ua.MustVariant(v)
	}
	err := e.server.Emit(server.Event{
		Type: t.key, Source: from.key, SourceName: from.name, Time: at, Severity: severity, Message: message, Fields: fields,
	})
	if err != nil {
		e.cfg.Logger.Error("an event was not told", "type", t.name, "error", err)
	}
}

// levelWatch remembers the level that was told last.
type levelWatch struct {
	mu   sync.Mutex
	last redundancy.Level
}

// levelMoved is called when this server's level moved, or what it knows of a peer.
func (e *Endpoint) levelMoved() {
	e.space.Changed(e.pushed.Load().byLevel...)
	e.keepDoor()
	w := &e.level
	w.mu.Lock()
	defer w.mu.Unlock()
	now, before := e.cfg.Redundancy.Level(), w.last
	if now.Value == before.Value {
		return
	}
	w.last = now
	var severity uint16 = severityNormal
	if now.Value < before.Value {
		severity = severityWorse
	}
	e.emit(levelChanged, serverSource(e.cfg.Member), severity, noTime, fmt.Sprintf("The ServiceLevel of %s went from %d to %d: %s.", e.cfg.Member, before.Value, now.Value, now.Band),
		map[string]any{"Level": now.Value, "PreviousLevel": before.Value, "Band": now.Band.String(), "BandReasons": append([]string{}, now.Reasons...)})
}

// leaseID names one lease: a key can be begun again.
type leaseID struct {
	server, request string
	generation      uint64
	begun           time.Duration
}

// seen is what of the replicated state has been told of, to see what is new. Looking at states instead of following commands means
// that a member which takes over a snapshot tells of what is different, once. A group under load is looked at 200 times a
// second, so what roles and leases depend on is compared first.
type seen struct {
	adopted  []uint64 // the current generation, and those that its servers adopted
	roles    map[string]string
	records  []*quoratev1.ApplyLease
	leases   map[leaseID]quoratev1.LeaseState // nil before the first look
	rollouts []*quoratev1.Rollout
	servings []*quoratev1.Serving
}

// news is an event of the replicated state, and its cluster time, by which several are told in order.
type news struct {
	at   time.Duration
	tell func(e *Endpoint)
}

// look compares a state with the one before, and returns what is new. What is there at the first look is not.
func (s *seen) look(state *fsm.State) []news {
	rollouts, servings := s.lookAtRollouts(state), s.lookAtServing(state) // Before the leases, by which they tell the first look.
	list := s.lookAtLeases(state)
	slices.SortStableFunc(list, func(a, b news) int { return cmp.Compare(a.at, b.at) })
	return slices.Concat(list, s.lookAtRoles(state), rollouts, servings)
}

func (s *seen) lookAtLeases(state *fsm.State) (list []news) {
	records := state.Leases("", true) // Records are never modified: the same records are the same leases.
	if s.leases != nil && slices.Equal(records, s.records) {
		return nil
	}
	leases := make(map[leaseID]quoratev1.LeaseState, len(records))
	for _, l := range records {
		key := leaseID{l.GetKey().GetServer(), l.GetKey().GetPublishRequestId(), l.GetKey().GetGeneration(), l.GetBegun().AsDuration()}
		leases[key] = l.GetState()
		before, known := s.leases[key]
		if s.leases == nil {
			continue
		}
		if !known {
			list = append(list, news{l.GetBegun().AsDuration(), func(e *Endpoint) { e.leaseMoved(l, quoratev1.LeaseState_LEASE_STATE_OPEN) }})
		}
		if l.GetState() != quoratev1.LeaseState_LEASE_STATE_OPEN && l.GetState() != before {
			list = append(list, news{l.GetEnded().AsDuration(), func(e *Endpoint) { e.leaseMoved(l, l.GetState()) }})
		}
	}
	s.records, s.leases = records, leases
	return list
}

func (s *seen) lookAtRoles(state *fsm.State) (list []news) {
	current := state.CurrentGeneration()
	adopted := []uint64{current.GetNumber()}
	var members []string
	for _, set := range current.GetTopology().GetSets() {
		for _, server := range set.GetServers() {
			record, _ := state.Member(server.GetMember())
			adopted, members = append(adopted, record.GetAdoptedGeneration()), append(members, server.GetMember())
		}
	}
	if slices.Equal(adopted, s.adopted) {
		return nil
	}
	first, before := s.adopted == nil, s.roles
	s.adopted, s.roles = adopted, make(map[string]string, len(members))
	for _, member := range members {
		s.roles[member], _ = roleOf(state, member)
	}
	if first {
		return nil
	}
	all := slices.AppendSeq(slices.Collect(maps.Keys(before)), maps.Keys(s.roles))
	slices.Sort(all)
	for _, member := range slices.Compact(all) {
		if was, is := before[member], s.roles[member]; was != is {
			list = append(list, news{tell: func(e *Endpoint) { e.roleMoved(member, was, is) }})
		}
	}
	return list
}

func (e *Endpoint) roleMoved(member, before, role string) {
	message := fmt.Sprintf("The role of %s went from %s to %s.", member, before, role)
	switch {
	case before == "":
		message = fmt.Sprintf("%s is in the topology now, as %s.", member, role)
	case role == "":
		message = fmt.Sprintf("%s left the topology.", member)
	}
	e.emit(roleChanged, serverSource(member), severityNotice, noTime, message, map[string]any{"Server": member, "Role": role, "PreviousRole": before})
}

// leaseMoved tells that a lease came into a state, which may not be its last.
func (e *Endpoint) leaseMoved(l *quoratev1.ApplyLease, state quoratev1.LeaseState) {
	member, generation := l.GetKey().GetServer(), l.GetKey().GetGeneration()
	values := map[string]any{"Server": member, "Generation": generation, "Outcome": ""}
	switch state {
	case quoratev1.LeaseState_LEASE_STATE_OPEN:
		e.emit(applyBegun, serverSource(member), severityNotice, l.GetBegunAt().AsTime(), fmt.Sprintf("%s began to apply generation %d.", member, generation), values)
	case quoratev1.LeaseState_LEASE_STATE_ENDED:
		values["Outcome"] = l.GetOutcome()
		var severity uint16 = severityNotice
		if l.GetOutcome() != outcomeGood {
			severity = severityFailure
		}
		e.emit(applyEnded, serverSource(member), severity, noTime, fmt.Sprintf("%s ended the apply of generation %d: %q.", member, generation, l.GetOutcome()), values)
	case quoratev1.LeaseState_LEASE_STATE_ABANDONED:
		values["Outcome"] = l.GetOutcome()
		e.emit(applyAbandoned, serverSource(member), severityFailure, noTime, fmt.Sprintf("The watchdog closed the apply of generation %d by %s.", generation, member), values)
	}
}
