package fsm

import (
	"cmp"
	"crypto/subtle"
	"fmt"
	"strings"
	"time"

	"quorate/fsm/tree"
	logv1 "quorate/proto/quorate/log/v1"
	quoratev1 "quorate/proto/quorate/v1"
)

// instances holds the processes that check gates and are known (partitions.md §2). The gate leases that they hold are volatile and not here: the leader
// grants them, and gives its word in each command that would make what they know wrong that none stands (Gated). What is here tells a new
// leader whether any can, and whom an early completion has to hear from.
type instances struct {
	byID tree.Map[string, instance]
	// gone is when one was last gone, in whatever way.
	gone moment
	// undrained is until when one that is gone without its word that no write is in flight may have let writes in: for as long as a lease lasts.
	undrained moment
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
	if !validSession(c.GetSession()) {
		return nil, invalid(ReasonInvalidInstance, "session", "it must be %d to %d printable ASCII characters", MinSessionBytes, MaxSessionBytes)
	}
	before, known := a.instances.byID.Get(c.GetId())
	change := "registered"
	switch {
	case known && before.record.GetActor().GetName() != a.command.GetActor().GetName():
		return nil, refuse(logv1.Kind_KIND_PRECONDITION, ReasonInstanceTaken, "id",
			"instance %s is registered by somebody else; an operator can remove it", c.GetId())
	case known && before.is(c.GetSession()):
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

// is says whether a session is that of an instance, in a time that does not tell how much of it is right.
func (i instance) is(session string) bool {
	return subtle.ConstantTimeCompare([]byte(i.session), []byte(session)) == 1
}

func validSession(session string) bool {
	return len(session) >= MinSessionBytes && len(session) <= MaxSessionBytes && graphic(session)
}

func (a *application) tellInstance(record *quoratev1.Instance, change string) {
	a.emit(&quoratev1.Event{Body: &quoratev1.Event_InstanceChanged{InstanceChanged: &quoratev1.InstanceChange{Instance: record, Change: change}}})
}

// lose notes that an instance is gone. Without its word that it has drained, early completions wait.
func (a *application) lose(drained bool) {
	a.instances.gone = a.clock.moment()
	if !drained {
		a.instances.undrained = a.clock.moment()
	}
}

// settleMoments makes known what the entry's stamp tells of the entries before it.
func (s *State) settleMoments(leaderApplied uint64) {
	s.partitions.settings.lowered.settle(leaderApplied, s.clock.now, 0)
	s.instances.gone.settle(leaderApplied, s.clock.now, 0)
	s.instances.undrained.settle(leaderApplied, s.clock.now, GateEnd(s.LongestGateTTL()))
}

// removeInstance takes an instance from the list: its holder, who has the session, or an operator.
func (a *application) removeInstance(c *logv1.RemoveInstance) (*logv1.Outcome, *Refusal) {
	known, ok := a.instances.byID.Get(c.GetId())
	if !ok {
		return nil, unknownInstance(c.GetId())
	}
	change := "removed"
	if c.GetSession() != "" {
		if change = "left"; !known.is(c.GetSession()) {
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
	if known, ok := a.instances.byID.Get(c.GetId()); ok && known.is(c.GetSession()) {
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
	case !known.is(session):
		return staleSession(id)
	}
	return nil
}

// InstancesGone returns for how long, in cluster time and so at least in real time, no instance has gone; false means that none ever has.
func (s *State) InstancesGone() (since time.Duration, ever bool) {
	return s.instances.gone.since(s.clock.now), s.instances.gone.ever()
}

// EarlyCutovers returns the partitions in cutover that are to be completed as soon as all instances have reported, with the epochs of the cutovers: the first
// MaxPartitionBatch whose barrier has not passed. The others get their turn as these are completed, or their barriers pass.
func (s *State) EarlyCutovers() []*quoratev1.PartitionEpoch {
	var found []*quoratev1.PartitionEpoch
	for id, epoch := range s.partitions.barriers.early.All() {
		if len(found) == MaxPartitionBatch {
			break
		}
		found = append(found, &quoratev1.PartitionEpoch{Partition: id, Epoch: epoch})
	}
	return found
}

// checkInstances is the invariant of instances.
func (s *State) checkInstances() error {
	if n := s.instances.byID.Len(); n > MaxInstances {
		return fmt.Errorf("%d instances are more than the %d allowed", n, MaxInstances)
	}
	for id, i := range s.instances.byID.All() {
		if !validID(id) || i.record.GetId() != id || !validSession(i.session) || i.record.GetRevision() == 0 || i.record.GetRevision() > s.clock.revision {
			return fmt.Errorf("instance %q is misplaced, has no session, or is from the future", id)
		}
	}
	gone, undrained := s.instances.gone, s.instances.undrained
	if undrained.ever() && !gone.ever() {
		return fmt.Errorf("an instance was gone undrained, and none was gone")
	}
	// What an instance may have let in can lie as far ahead as a lease is long.
	return cmp.Or(gone.check(s.clock, 0), undrained.check(s.clock, GateEnd(MaxGateTTL)))
}
