package fsm

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"quorate/fsm/tree"
	logv1 "quorate/proto/quorate/log/v1"
	quoratev1 "quorate/proto/quorate/v1"
)

// instances holds the processes that check gates and are known (partitions.md §2). The gate leases that they hold are volatile and not here: the leader
// grants them, and gives its word in each command that would make what they know wrong that none stands (Gated). What is here tells a new
// leader whether any can, and whom an early completion has to hear from.
type instances struct {
	byID tree.Map[string, instance]
	// undrained is when one was last gone without its word that no write is in flight, and gone when one was in whatever way.
	undrained, gone         time.Duration
	everUndrained, everGone bool
}

type instance struct {
	record  *quoratev1.Instance
	session string
}

func newInstances() instances {
	return instances{byID: tree.New[string, instance](strings.Compare)}
}

func (i *instances) snapshot() instances {
	s := *i
	s.byID = i.byID.Snapshot()
	return s
}

// Gated returns the partition of a command that makes what holders of gate leases know of it wrong; false if there is none.
func Gated(c *logv1.Command) (partition string, gated bool) {
	partition, word := gate(c)
	return partition, word != nil
}

// GatesClosed puts the leader's word into a command, which must be Gated: no instance answers for its partition from memory, and none will before the
// fate of the command is known. With false it is taken back, as from an entry that was appended under another leadership than the one that gave it.
func GatesClosed(c *logv1.Command, word bool) {
	if _, closed := gate(c); closed != nil {
		*closed = word
	}
	if b := c.GetCompleteMigration(); b != nil && !word {
		b.Drained = false
	}
}

// gate returns the partition of a gated command and where it has the leader's word.
func gate(c *logv1.Command) (partition string, closed *bool) {
	switch b := c.GetBody().(type) {
	case *logv1.Command_SetPlacement:
		return b.SetPlacement.GetPartition(), &b.SetPlacement.GatesClosed
	case *logv1.Command_DeletePartition:
		return b.DeletePartition.GetPartition(), &b.DeletePartition.GatesClosed
	case *logv1.Command_BeginMigration:
		return b.BeginMigration.GetPartition(), &b.BeginMigration.GatesClosed
	case *logv1.Command_CutoverMigration:
		return b.CutoverMigration.GetPartition(), &b.CutoverMigration.GatesClosed
	case *logv1.Command_CompleteMigration:
		return b.CompleteMigration.GetPartition(), &b.CompleteMigration.GatesClosed
	case *logv1.Command_AbortMigration:
		return b.AbortMigration.GetPartition(), &b.AbortMigration.GatesClosed
	}
	return "", nil
}

// checkGates refuses a gated command without the leader's word. That is never remembered as its answer, since the node proposes it again.
func checkGates(c *logv1.Command) *Refusal {
	if partition, closed := gate(c); closed != nil && !*closed {
		return refuse(logv1.Kind_KIND_UNAVAILABLE, ReasonGatesNotClosed, "",
			"the leadership changed while the gates of partition %s were closed; nothing was changed", quote(partition))
	}
	return nil
}

// registerInstance makes an instance known. Repeating it with the session that is registered changes nothing; with another one it is a new run of it,
// and whatever the former let in may be in flight.
func (a *application) registerInstance(c *logv1.RegisterInstance) (*logv1.Outcome, *Refusal) {
	if !validID(c.GetId()) {
		return nil, invalid(ReasonInvalidInstance, "id", "%s is no instance id: %s", quote(c.GetId()), idForm)
	}
	if n := len(c.GetSession()); n < MinSessionBytes || n > MaxSessionBytes || !graphic(c.GetSession()) {
		return nil, invalid(ReasonInvalidInstance, "session", "it is not %d to %d printable ASCII characters", MinSessionBytes, MaxSessionBytes)
	}
	before, known := a.instances.byID.Get(c.GetId())
	change := "registered"
	switch {
	case known && before.record.GetActor().GetName() != a.command.GetActor().GetName():
		return nil, refuse(logv1.Kind_KIND_PRECONDITION, ReasonInstanceTaken, "id",
			"instance %s is registered by somebody else; an operator can remove it", c.GetId())
	case known && before.session == c.GetSession():
		return instanceIs(before.record), nil
	case known:
		change = "replaced"
		a.lose(false)
	case a.instances.byID.Len() >= MaxInstances:
		return nil, refuse(logv1.Kind_KIND_EXHAUSTED, ReasonTooManyInstances, "", "%d instances are registered, and more are not allowed", MaxInstances)
	}
	record := &quoratev1.Instance{Id: c.GetId(), Actor: a.actor(), RegisteredAt: a.wallTime(), Revision: a.clock.revision}
	a.instances.byID.Set(c.GetId(), instance{record: record, session: c.GetSession()})
	a.tellInstance(record, change)
	return instanceIs(record), nil
}

func (a *application) tellInstance(record *quoratev1.Instance, change string) {
	a.emit(&quoratev1.Event{Body: &quoratev1.Event_InstanceChanged{InstanceChanged: &quoratev1.InstanceChange{Instance: record, Change: change}}})
}

// lose notes that an instance is gone. Without its word that it has drained, early completions wait.
func (a *application) lose(drained bool) {
	a.instances.gone, a.instances.everGone = a.clock.now, true
	if !drained {
		a.instances.undrained, a.instances.everUndrained = a.clock.now, true
	}
}

// removeInstance takes an instance from the list: its holder, who has the session, or an operator.
func (a *application) removeInstance(c *logv1.RemoveInstance) (*logv1.Outcome, *Refusal) {
	known, ok := a.instances.byID.Get(c.GetId())
	if !ok {
		return nil, unknownInstance(c.GetId())
	}
	change := "removed"
	if c.GetSession() != "" {
		if change = "left"; c.GetSession() != known.session {
			return nil, staleSession(c.GetId())
		}
	}
	a.instances.byID.Delete(c.GetId())
	a.lose(c.GetSession() != "" && c.GetDrained())
	a.tellInstance(known.record, change)
	return done(), nil
}

func unknownInstance(id string) *Refusal {
	return refuse(logv1.Kind_KIND_NOT_FOUND, ReasonUnknownInstance, "id", "no instance %s is registered", quote(id))
}

func staleSession(id string) *Refusal {
	return refuse(logv1.Kind_KIND_PRECONDITION, ReasonStaleSession, "session", "instance %s is registered with another session", quote(id))
}

// forgetInstance takes away one that has not renewed for long. One that registered anew meanwhile stays.
func (a *application) forgetInstance(c *logv1.ForgetInstance) (*logv1.Outcome, *Refusal) {
	if known, ok := a.instances.byID.Get(c.GetId()); ok && known.session == c.GetSession() {
		a.instances.byID.Delete(c.GetId())
		a.lose(false)
		a.tellInstance(known.record, "forgotten")
	}
	return done(), nil
}

// InstanceSession is one run of a registered instance, for the leader that grants gate leases.
type InstanceSession struct{ ID, Session string }

// Instances returns the registered instances, in order of their ids.
func (s *State) Instances() []*quoratev1.Instance {
	var all []*quoratev1.Instance
	for _, i := range s.instances.byID.All() {
		all = append(all, i.record)
	}
	return all
}

// InstanceCount returns how many instances are registered.
func (s *State) InstanceCount() int { return s.instances.byID.Len() }

// InstanceSessions returns the same with their sessions, which nobody but the leader needs to know.
func (s *State) InstanceSessions() []InstanceSession {
	var all []InstanceSession
	for id, i := range s.instances.byID.All() {
		all = append(all, InstanceSession{ID: id, Session: i.session})
	}
	return all
}

// CheckInstance refuses whoever is not the registered run of an instance.
func (s *State) CheckInstance(id, session string) *Refusal {
	known, ok := s.instances.byID.Get(id)
	switch {
	case !ok:
		return unknownInstance(id)
	case known.session != session:
		return staleSession(id)
	}
	return nil
}

// InstancesGone returns for how long, in cluster time and so at least in real time, no instance has gone; false means that none ever has.
func (s *State) InstancesGone() (since time.Duration, ever bool) {
	return s.clock.now - s.instances.gone, s.instances.everGone
}

// EarlyCutovers returns the partitions in cutover that are to be completed as soon as all instances have reported, with the epochs of the cutovers.
func (s *State) EarlyCutovers() []*quoratev1.PartitionEpoch {
	var found []*quoratev1.PartitionEpoch
	for id := range s.partitions.migrating.All() {
		p, _ := s.partitions.byID.Get(id)
		if m := p.migration.record; m.GetEarlyCompletion() && m.GetCutoverEpoch() != 0 {
			found = append(found, &quoratev1.PartitionEpoch{Partition: id, Epoch: m.GetCutoverEpoch()})
			if len(found) == MaxPartitionBatch {
				break
			}
		}
	}
	return found
}

// setPartitionSettings changes the settings that are given.
func (a *application) setPartitionSettings(c *logv1.SetPartitionSettings) (*logv1.Outcome, *Refusal) {
	before := a.partitions.settings
	after := before
	for _, f := range []struct {
		name        string
		given       *durationpb.Duration
		least, most time.Duration
		field       *time.Duration
	}{
		{"drain_barrier", c.GetSettings().GetDrainBarrier(), MinDrainBarrier, MaxDrainBarrier, &after.barrier},
		{"min_drain_barrier", c.GetSettings().GetMinDrainBarrier(), MinDrainBarrier, MaxDrainBarrier, &after.leastBarrier},
		{"early_floor", c.GetSettings().GetEarlyFloor(), 0, MaxDrainBarrier, &after.earlyFloor},
		{"gate_ttl", c.GetSettings().GetGateTtl(), MinGateTTL, MaxGateTTL, &after.gateTTL},
	} {
		if f.given == nil {
			continue
		}
		v, ok := checkedDuration(f.given)
		if !ok || v < f.least || v > f.most {
			return nil, invalid(ReasonInvalidSetting, "settings."+f.name, "it is not %v to %v", f.least, f.most)
		}
		*f.field = v
	}
	if after.barrier < after.leastBarrier {
		return nil, invalid(ReasonInvalidSetting, "settings.drain_barrier", "%v is less than the min_drain_barrier of %v", after.barrier, after.leastBarrier)
	}
	if after == before {
		return settingsAre(before), nil
	}
	if after.gateTTL < before.gateTTL {
		after.formerTTL, after.lowered = a.LongestGateTTL(), a.clock.now
	}
	a.partitions.settings = after
	a.emit(&quoratev1.Event{Body: &quoratev1.Event_PartitionSettingsChanged{PartitionSettingsChanged: after.message()}})
	return settingsAre(after), nil
}

func (p partitionSettings) message() *quoratev1.PartitionSettings {
	return &quoratev1.PartitionSettings{
		DrainBarrier: durationpb.New(p.barrier), MinDrainBarrier: durationpb.New(p.leastBarrier),
		EarlyFloor: durationpb.New(p.earlyFloor), GateTtl: durationpb.New(p.gateTTL),
	}
}

// PartitionSettings returns what holds for all partitions.
func (s *State) PartitionSettings() *quoratev1.PartitionSettings {
	return s.partitions.settings.message()
}

// GateTTL is for how long a gate lease is granted.
func (s *State) GateTTL() time.Duration { return s.partitions.settings.gateTTL }

// LongestGateTTL is for how long one that stands can have been granted, by whatever leader: the setting may have been lowered a moment ago. Cluster time
// runs no faster than any clock, and twice the time is room for one that is slow.
func (s *State) LongestGateTTL() time.Duration {
	p := s.partitions.settings
	if s.clock.now-p.lowered < 2*p.formerTTL {
		return max(p.gateTTL, p.formerTTL)
	}
	return p.gateTTL
}

func (p partitionSettings) check() error {
	if p.leastBarrier < MinDrainBarrier || p.barrier < p.leastBarrier || p.barrier > MaxDrainBarrier || p.earlyFloor < 0 || p.earlyFloor > MaxDrainBarrier ||
		p.gateTTL < MinGateTTL || p.gateTTL > MaxGateTTL || p.formerTTL < 0 || p.formerTTL > MaxGateTTL || p.lowered < 0 {
		return fmt.Errorf("the settings %+v are out of their ranges", p)
	}
	return nil
}

// checkInstances is the invariant of instances.
func (s *State) checkInstances() error {
	if n := s.instances.byID.Len(); n > MaxInstances {
		return fmt.Errorf("%d instances are more than the %d allowed", n, MaxInstances)
	}
	for id, i := range s.instances.byID.All() {
		if !validID(id) || i.record.GetId() != id || len(i.session) < MinSessionBytes || len(i.session) > MaxSessionBytes ||
			i.record.GetRevision() > s.clock.revision {
			return fmt.Errorf("instance %q is misplaced, has no session, or is from the future", id)
		}
	}
	if slices.Max([]time.Duration{s.instances.undrained, s.instances.gone}) > s.clock.now || s.instances.undrained < 0 || s.instances.gone < 0 {
		return fmt.Errorf("an instance was gone at %v, undrained at %v, and it is %v", s.instances.gone, s.instances.undrained, s.clock.now)
	}
	if s.instances.everUndrained && !s.instances.everGone || !s.instances.everUndrained && s.instances.undrained != 0 || !s.instances.everGone && s.instances.gone != 0 {
		return fmt.Errorf("an instance was gone at a time at which none was")
	}
	return nil
}
