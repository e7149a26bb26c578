package fsm

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	"quorate/fsm/tree"
	"quorate/mutant"
	logv1 "quorate/proto/quorate/log/v1"
	quoratev1 "quorate/proto/quorate/v1"
)

// migration is one that is under way. Neither it nor its record is ever changed.
type migration struct {
	record *quoratev1.Migration
	// passed says that the end of its barrier was told.
	passed bool
}

// barriers finds the drain barriers for which time matters. A barrier must be whole counted from the *commit* of the cutover, which no stamp tells: so it
// begins at the first stamp that the leader took after it had applied the cutover's entry (clock.go).
type barriers struct {
	// unbegun has the cutovers whose barrier has not begun, by revision.
	unbegun tree.Map[unbegunBarrier, struct{}]
	// ends has the begun ones whose end was not told.
	ends tree.Map[barrierEnd, struct{}]
	// early has the epochs of those of either that may be completed early.
	early tree.Map[string, uint64]
}

type unbegunBarrier struct {
	revision uint64
	id       string
}

type barrierEnd struct {
	at time.Duration
	id string
}

func (b unbegunBarrier) compare(c unbegunBarrier) int {
	return cmp.Or(cmp.Compare(b.revision, c.revision), strings.Compare(b.id, c.id))
}

func (b barrierEnd) compare(c barrierEnd) int {
	return cmp.Or(cmp.Compare(b.at, c.at), strings.Compare(b.id, c.id))
}

func newBarriers() barriers {
	return barriers{
		unbegun: tree.New[unbegunBarrier, struct{}](unbegunBarrier.compare),
		ends:    tree.New[barrierEnd, struct{}](barrierEnd.compare),
		early:   tree.New[string, uint64](strings.Compare),
	}
}

func (b *barriers) snapshot() barriers {
	return barriers{unbegun: b.unbegun.Snapshot(), ends: b.ends.Snapshot(), early: b.early.Snapshot()}
}

// put keeps the indexes as a partition's migration wants them.
func (b *barriers) put(id string, m *migration) {
	if m.record.GetCutoverEpoch() == 0 || m.passed {
		return
	}
	if m.record.GetBarrierBegun() == nil {
		b.unbegun.Set(unbegunBarrier{m.record.GetCutoverRevision(), id}, struct{}{})
	} else {
		b.ends.Set(barrierEnd{m.end(), id}, struct{}{})
	}
	if m.record.GetEarlyCompletion() {
		b.early.Set(id, m.record.GetCutoverEpoch())
	}
}

func (b *barriers) drop(id string, m *migration) {
	b.unbegun.Delete(unbegunBarrier{m.record.GetCutoverRevision(), id})
	b.ends.Delete(barrierEnd{m.end(), id})
	b.early.Delete(id)
}

// end is when the barrier passes, once it has begun.
func (m *migration) end() time.Duration {
	return m.record.GetBarrierBegun().AsDuration() + m.record.GetDrainBarrier().AsDuration()
}

// migrate replaces a partition's migration; nil ends it.
func (a *application) migrate(id string, p *partition, m *migration) {
	if p.migration != nil {
		a.partitions.barriers.drop(id, p.migration)
	}
	if p.migration = m; m == nil {
		a.partitions.migrating.Delete(id)
		return
	}
	a.partitions.migrating.Set(id, struct{}{})
	a.partitions.barriers.put(id, m)
}

// beginMigration takes a partition from Active to Draining.
func (a *application) beginMigration(c *logv1.BeginMigration) (*logv1.Outcome, *Refusal) {
	if r := firstRefusal(
		checkPlacement("to", c.GetTo()),
		a.checkBarrier(c.GetDrainBarrier()),
		a.checkMigrationServers(c.GetServers()),
		checkText("note", c.GetNote(), MaxTextBytes),
	); r != nil {
		return nil, r
	}
	id := c.GetPartition()
	p, r := a.findPartition(id, c.GetExpectedEpoch())
	if r == nil {
		r = checkStill(id, p)
	}
	if r == nil && c.GetTo() == p.placement {
		r = samePlacement("to", id, p)
	}
	if r == nil {
		r = a.checkRoomFor("to", c.GetTo())
	}
	if n := a.partitions.migrating.Len(); r == nil && n >= MaxMigrations {
		r = refuse(logv1.Kind_KIND_EXHAUSTED, ReasonTooManyMigrations, "", "%d partitions migrate, and more are not allowed", n)
	}
	if r != nil {
		return nil, r
	}
	a.partitions.count(p.placement, func(c *placement) { c.leaving++ })
	to := a.partitions.count(c.GetTo(), func(c *placement) { c.coming++ })
	a.migrate(id, &p, &migration{record: &quoratev1.Migration{
		From: p.placement, To: to, Actor: a.actor(), BegunAt: a.wallTime(), Begun: durationpb.New(a.clock.now),
		Servers: slices.Clone(c.GetServers()), Note: c.GetNote(), DrainBarrier: durationpb.New(a.barrierFor(p, c.GetDrainBarrier())),
		EarlyCompletion: c.GetEarlyCompletion(), VerificationRequired: c.GetVerificationRequired(),
	}})
	return a.transition(id, p, &quoratev1.PartitionChange{
		Transition: quoratev1.PartitionTransition_PARTITION_TRANSITION_BEGIN, Note: c.GetNote(),
	}), nil
}

// barrierFor is the drain barrier of a migration: what it asks for, or its partition, or the settings, and never less than the least.
func (s *State) barrierFor(p partition, asked *durationpb.Duration) time.Duration {
	barrier := cmp.Or(asked.AsDuration(), p.barrier, s.partitions.settings.barrier)
	return max(barrier, s.partitions.settings.leastBarrier)
}

// checkMigrationServers refuses names that are no servers: the cutover looks at their apply leases.
func (s *State) checkMigrationServers(servers []string) *Refusal {
	if len(servers) > MaxMigrationServers {
		return invalid(ReasonTooManyServers, "servers", "%d servers are more than the %d allowed", len(servers), MaxMigrationServers)
	}
	for i, server := range servers {
		if _, _, ok := s.Server(server); !ok {
			r := s.unknownServer(server)
			r.Field = fmt.Sprintf("servers[%d]", i)
			return r
		}
	}
	return nil
}

// reportMigration notes how far the copy is. It is no transition.
func (a *application) reportMigration(c *logv1.ReportMigration) (*logv1.Outcome, *Refusal) {
	if r := checkText("copy.text", c.GetCopy().GetText(), MaxTextBytes); r != nil {
		return nil, r
	}
	if p := c.GetCopy(); p.GetTotal() != 0 && p.GetDone() > p.GetTotal() {
		return nil, invalid(ReasonInvalidProgress, "copy.done", "%d are more than the total of %d", p.GetDone(), p.GetTotal())
	}
	id := c.GetPartition()
	p, r := a.findMigration(id, c.GetExpectedEpoch())
	if r != nil {
		return nil, r
	}
	before := p.migration.record
	record := proto.CloneOf(before)
	record.Verified = record.GetVerified() || c.GetVerified()
	if c.GetCopy() != nil {
		record.Copy = &quoratev1.CopyProgress{Done: c.GetCopy().GetDone(), Total: c.GetCopy().GetTotal(), Text: c.GetCopy().GetText(), At: before.GetCopy().GetAt()}
	}
	if proto.Equal(record, before) {
		return partitionMoved(a.partitionMessage(id, p), false), nil
	}
	if c.GetCopy() != nil {
		record.Copy.At = a.wallTime()
	}
	p.migration = &migration{record: record, passed: p.migration.passed}
	return a.storePartition(id, p, &quoratev1.PartitionChange{Transition: quoratev1.PartitionTransition_PARTITION_TRANSITION_REPORT}), nil
}

// findMigration returns a partition that migrates.
func (s *State) findMigration(id string, expected uint64) (partition, *Refusal) {
	p, r := s.findPartition(id, expected)
	if r == nil && p.migration == nil {
		r = refuse(logv1.Kind_KIND_PRECONDITION, ReasonNotMigrating, "partition", "partition %s doesn't migrate: it is at %s, epoch %d", id, p.placement, p.epoch).
			with("current_epoch", fmt.Sprint(p.epoch))
	}
	return p, r
}

// cutoverMigration takes a partition from Draining to Cutover: from this entry on nobody may write.
func (a *application) cutoverMigration(c *logv1.CutoverMigration) (*logv1.Outcome, *Refusal) {
	if r := checkText("note", c.GetNote(), MaxTextBytes); r != nil {
		return nil, r
	}
	id := c.GetPartition()
	p, r := a.findMigration(id, c.GetExpectedEpoch())
	if r != nil {
		return nil, r
	}
	if p.phase() != quoratev1.PartitionPhase_PARTITION_PHASE_DRAINING {
		return nil, refuse(logv1.Kind_KIND_PRECONDITION, ReasonNotDraining, "partition", "partition %s is in cutover already, since epoch %d", id, p.epoch).
			with("current_epoch", fmt.Sprint(p.epoch))
	}
	if r := a.checkMayCutOver(id, p.migration.record); r != nil {
		return nil, r
	}
	record := proto.CloneOf(p.migration.record)
	record.CutoverEpoch, record.CutoverRevision, record.CutoverAt = p.epoch+1, a.clock.revision, a.wallTime()
	a.migrate(id, &p, &migration{record: record})
	return a.transition(id, p, &quoratev1.PartitionChange{
		Transition: quoratev1.PartitionTransition_PARTITION_TRANSITION_CUTOVER, Note: c.GetNote(),
	}), nil
}

// checkMayCutOver refuses a cutover of a copy that has to be verified first, and while a server that the migration names is mid-apply.
func (s *State) checkMayCutOver(id string, m *quoratev1.Migration) *Refusal {
	if m.GetVerificationRequired() && !m.GetVerified() {
		return refuse(logv1.Kind_KIND_PRECONDITION, ReasonVerificationRequired, "partition",
			"the copy of partition %s was not reported as verified, which its migration requires", id)
	}
	for _, server := range slices.Concat([]string{m.GetFrom(), m.GetTo()}, m.GetServers()) {
		if s.MidApply(server) {
			return refuse(logv1.Kind_KIND_PRECONDITION, ReasonApplyInProgress, "partition",
				"server %s, which the migration of partition %s names, is mid-apply", server, id).with("server", server)
		}
	}
	return nil
}

// completeMigration makes the new placement the owner.
func (a *application) completeMigration(c *logv1.CompleteMigration) (*logv1.Outcome, *Refusal) {
	if r := checkText("note", c.GetNote(), MaxTextBytes); r != nil {
		return nil, r
	}
	id := c.GetPartition()
	p, r := a.findMigration(id, c.GetExpectedEpoch())
	if r != nil {
		return nil, r
	}
	if p.phase() != quoratev1.PartitionPhase_PARTITION_PHASE_CUTOVER {
		return nil, refuse(logv1.Kind_KIND_PRECONDITION, ReasonNotCutover, "partition", "partition %s is not in cutover: it drains since epoch %d", id, p.epoch).
			with("current_epoch", fmt.Sprint(p.epoch))
	}
	ended := a.migrationMessage(p.migration)
	left := a.barrierLeft(p.migration)
	if left > 0 && !mutant.NoBarrier && !(c.GetDrained() && a.MayCompleteEarly(id)) {
		return nil, refuse(logv1.Kind_KIND_PRECONDITION, ReasonBarrierPending, "",
			"the drain barrier of partition %s lasts %v longer", id, left).with("remaining", left.String())
	}
	a.partitions.count(p.placement, func(c *placement) { c.leaving-- })
	a.partitions.count(ended.GetTo(), func(c *placement) { c.coming-- })
	a.migrate(id, &p, nil)
	a.own(&p, ended.GetTo())
	return a.transition(id, p, &quoratev1.PartitionChange{
		Transition: quoratev1.PartitionTransition_PARTITION_TRANSITION_COMPLETE, Note: c.GetNote(), Ended: ended, Early: left > 0,
	}), nil
}

// MayCompleteEarly says whether a migration may be completed before its barrier has passed, once all registered instances have reported: it was
// begun so, its floor has passed, and no instance that might have let a write in is gone without a word.
func (s *State) MayCompleteEarly(id string) bool {
	p, _ := s.partitions.byID.Get(id)
	if p.migration == nil || !p.migration.record.GetEarlyCompletion() || p.migration.record.GetBarrierBegun() == nil {
		return false
	}
	if s.clock.now-p.migration.record.GetBarrierBegun().AsDuration() < s.partitions.settings.earlyFloor {
		return false
	}
	undrained := s.instances.undrained
	return !undrained.ever() || undrained.since(s.clock.now) >= p.migration.record.GetDrainBarrier().AsDuration()
}

// abortMigration leaves the old placement the only owner.
func (a *application) abortMigration(c *logv1.AbortMigration) (*logv1.Outcome, *Refusal) {
	if r := checkText("note", c.GetNote(), MaxTextBytes); r != nil {
		return nil, r
	}
	id := c.GetPartition()
	p, r := a.findMigration(id, c.GetExpectedEpoch())
	if r != nil {
		return nil, r
	}
	ended := a.migrationMessage(p.migration)
	a.partitions.count(p.placement, func(c *placement) { c.leaving-- })
	a.partitions.count(ended.GetTo(), func(c *placement) { c.coming-- })
	a.migrate(id, &p, nil)
	return a.transition(id, p, &quoratev1.PartitionChange{
		Transition: quoratev1.PartitionTransition_PARTITION_TRANSITION_ABORT, Note: c.GetNote(), Ended: ended,
	}), nil
}

// beginBarriers begins the barriers of the cutovers that the leader had applied when it took the entry's stamp.
func (a *application) beginBarriers(leaderApplied uint64) {
	for {
		due, _, ok := a.partitions.barriers.unbegun.First()
		if !ok || due.revision > leaderApplied {
			return
		}
		p, _ := a.partitions.byID.Get(due.id)
		record := proto.CloneOf(p.migration.record)
		record.BarrierBegun = durationpb.New(a.clock.now)
		a.migrate(due.id, &p, &migration{record: record})
		a.storePartition(due.id, p, &quoratev1.PartitionChange{Transition: quoratev1.PartitionTransition_PARTITION_TRANSITION_BARRIER_BEGUN})
	}
}

// tellBarriers tells of the barriers that have passed. Completion doesn't wait for it: it looks at the clock itself.
func (a *application) tellBarriers() {
	for {
		due, _, ok := a.partitions.barriers.ends.First()
		if !ok || due.at > a.clock.now {
			return
		}
		p, _ := a.partitions.byID.Get(due.id)
		a.migrate(due.id, &p, &migration{record: p.migration.record, passed: true})
		a.storePartition(due.id, p, &quoratev1.PartitionChange{Transition: quoratev1.PartitionTransition_PARTITION_TRANSITION_BARRIER_PASSED})
	}
}

// nextDeadline returns when a pulse would do something. A barrier that has not begun wants a stamp at once.
func (b *barriers) nextDeadline(now time.Duration) (time.Duration, bool) {
	due, _, ok := b.ends.First()
	if b.unbegun.Len() > 0 && (!ok || due.at > now) {
		return now, true
	}
	return due.at, ok
}

// barrierLeft is what is left of a barrier; the whole of it before it has begun.
func (s *State) barrierLeft(m *migration) time.Duration {
	if m.record.GetBarrierBegun() == nil {
		return m.record.GetDrainBarrier().AsDuration()
	}
	return max(m.end()-s.clock.now, 0)
}

// migrationMessage is a migration with what is left of its barrier now.
func (s *State) migrationMessage(m *migration) *quoratev1.Migration {
	if m.record.GetCutoverEpoch() == 0 {
		return m.record
	}
	record := proto.CloneOf(m.record)
	record.BarrierLeft = durationpb.New(s.barrierLeft(m))
	return record
}

// checkMigration is the invariant of one partition's migration.
func (s *State) checkMigration(id string, p partition) error {
	m := p.migration.record
	switch {
	case m.GetFrom() != p.placement || m.GetTo() == p.placement || !validID(m.GetTo()):
		return fmt.Errorf("partition %s at %s migrates from %q to %q", id, p.placement, m.GetFrom(), m.GetTo())
	case !s.partitions.migrating.Has(id):
		return fmt.Errorf("partition %s migrates, and the index doesn't know", id)
	case m.GetBarrierLeft() != nil:
		return fmt.Errorf("what is left of the barrier of partition %s is stored", id)
	case len(m.GetServers()) > MaxMigrationServers || m.GetBegun().AsDuration() < 0 || m.GetBegun().AsDuration() > s.clock.now:
		return fmt.Errorf("the migration of partition %s names %d servers, or began at %v of %v", id, len(m.GetServers()), m.GetBegun().AsDuration(), s.clock.now)
	case m.GetDrainBarrier().AsDuration() < s.partitions.settings.leastBarrier || m.GetDrainBarrier().AsDuration() > MaxDrainBarrier:
		return fmt.Errorf("the barrier of partition %s is %v", id, m.GetDrainBarrier().AsDuration())
	case m.GetCutoverEpoch() == 0 && (m.GetBarrierBegun() != nil || m.GetCutoverRevision() != 0 || p.migration.passed):
		return fmt.Errorf("partition %s drains and has a barrier", id)
	case m.GetCutoverEpoch() != 0 && (m.GetCutoverEpoch() != p.epoch || m.GetCutoverRevision() != p.revision):
		return fmt.Errorf("partition %s is in cutover since epoch %d, and at %d", id, m.GetCutoverEpoch(), p.epoch)
	case m.GetBarrierBegun() != nil && (m.GetBarrierBegun().AsDuration() < 0 || m.GetBarrierBegun().AsDuration() > s.clock.now):
		return fmt.Errorf("the barrier of partition %s began at %v, and it is %v", id, m.GetBarrierBegun().AsDuration(), s.clock.now)
	case p.migration.passed && (m.GetBarrierBegun() == nil || p.migration.end() > s.clock.now):
		return fmt.Errorf("the barrier of partition %s is told to have passed too soon", id)
	}
	return nil
}

// checkBarriers is the invariant of the indexes of barriers. That of the migrations has been checked before.
func (s *State) checkBarriers() error {
	want := newBarriers()
	for id := range s.partitions.migrating.All() {
		p, _ := s.partitions.byID.Get(id)
		want.put(id, p.migration)
	}
	have := &s.partitions.barriers
	if want.unbegun.Len() != have.unbegun.Len() || want.ends.Len() != have.ends.Len() || want.early.Len() != have.early.Len() {
		return fmt.Errorf("%d barriers have not begun, %d not passed, and %d may be cut short; %d, %d and %d are in the indexes",
			want.unbegun.Len(), want.ends.Len(), want.early.Len(), have.unbegun.Len(), have.ends.Len(), have.early.Len())
	}
	for key := range want.unbegun.All() {
		if !have.unbegun.Has(key) {
			return fmt.Errorf("the barrier of partition %s has not begun, and the index doesn't know", key.id)
		}
	}
	for key := range want.ends.All() {
		if !have.ends.Has(key) {
			return fmt.Errorf("the barrier of partition %s ends at %v, and the index doesn't know", key.id, key.at)
		}
	}
	for id, epoch := range want.early.All() {
		if kept, _ := have.early.Get(id); kept != epoch {
			return fmt.Errorf("partition %s may be completed early since epoch %d, and the index says %d", id, epoch, kept)
		}
	}
	return nil
}
