package fsm

import (
	"cmp"
	"fmt"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"quorate/fsm/tree"
	logv1 "quorate/proto/quorate/log/v1"
	quoratev1 "quorate/proto/quorate/v1"
)

// partitions holds where each partition lives (partitions.md). Each transition raises a partition's epoch by one; whoever gives a partition a
// new owner or phase does it with the leader's word that nobody answers for the old one from memory (see gate.go). partition_migrate.go moves them.
type partitions struct {
	byID tree.Map[string, partition]
	// placements counts, for each placement that has any, its partitions. Its keys are also the one copy of each name that partitions share.
	placements tree.Map[string, placement]
	// migrating has the ids of those that migrate.
	migrating tree.Map[string, struct{}]
	barriers  barriers
	settings  partitionSettings
	// epochFloor is the highest epoch of any deleted partition: what is created gets a higher one, so that no epoch ever repeats.
	epochFloor uint64
}

// partition is a record of the state. It is small, because there may be millions.
type partition struct {
	placement, previous string
	epoch, revision     uint64
	// barrier is its own drain barrier, 0 if it has none.
	barrier time.Duration
	// migration is replaced and never changed.
	migration *migration
}

// placement counts the partitions of one placement.
type placement struct {
	name                   string
	owned, leaving, coming uint64
}

// partitionSettings are the settings in force.
type partitionSettings struct {
	barrier, leastBarrier, earlyFloor, gateTTL time.Duration
	// formerTTL was the gate TTL until it was lowered at the cluster time lowered; leases of that length may stand for a while. 0 if it never was.
	formerTTL, lowered time.Duration
}

func newPartitions() partitions {
	return partitions{
		byID:       tree.New[string, partition](strings.Compare),
		placements: tree.New[string, placement](strings.Compare),
		migrating:  tree.New[string, struct{}](strings.Compare),
		barriers:   newBarriers(),
		settings: partitionSettings{
			barrier: DefaultDrainBarrier, leastBarrier: DefaultDrainBarrier, earlyFloor: DefaultEarlyFloor, gateTTL: DefaultGateTTL,
		},
	}
}

func (p *partitions) snapshot() partitions {
	return partitions{
		byID: p.byID.Snapshot(), placements: p.placements.Snapshot(), migrating: p.migrating.Snapshot(), barriers: p.barriers.snapshot(),
		settings: p.settings, epochFloor: p.epochFloor,
	}
}

func (p partition) phase() quoratev1.PartitionPhase {
	switch {
	case p.migration == nil:
		return quoratev1.PartitionPhase_PARTITION_PHASE_ACTIVE
	case p.migration.record.GetCutoverEpoch() == 0:
		return quoratev1.PartitionPhase_PARTITION_PHASE_DRAINING
	default:
		return quoratev1.PartitionPhase_PARTITION_PHASE_CUTOVER
	}
}

// createPartitions creates partitions at one placement, all or none.
func (a *application) createPartitions(c *logv1.CreatePartitions) (*logv1.Outcome, *Refusal) {
	if r := firstRefusal(
		a.checkNewPartitions(c.GetIds()),
		checkPlacement("placement", c.GetPlacement()),
		a.checkBarrier(c.GetDrainBarrier()),
		checkText("note", c.GetNote(), MaxTextBytes),
	); r != nil {
		return nil, r
	}
	if r := a.checkRoomFor(c.GetPlacement()); r != nil {
		return nil, r
	}
	epoch := a.partitions.epochFloor + 1
	owner := a.partitions.count(c.GetPlacement(), func(p *placement) { p.owned += uint64(len(c.GetIds())) })
	for _, id := range c.GetIds() {
		a.partitions.byID.Set(id, partition{
			placement: owner, epoch: epoch, revision: a.clock.revision, barrier: c.GetDrainBarrier().AsDuration(),
		})
	}
	a.emit(&quoratev1.Event{Body: &quoratev1.Event_PartitionsCreated{PartitionsCreated: &quoratev1.PartitionsCreated{
		Ids: c.GetIds(), Placement: owner, Epoch: epoch, Note: c.GetNote(),
	}}})
	return partitionsMade(epoch), nil
}

// checkNewPartitions refuses ids that can't become partitions together.
func (s *State) checkNewPartitions(ids []string) *Refusal {
	if len(ids) == 0 || len(ids) > MaxPartitionBatch {
		return invalid(ReasonPartitionBatch, "ids", "%d partitions are not 1 to %d", len(ids), MaxPartitionBatch)
	}
	named := make(map[string]bool, len(ids))
	for i, id := range ids {
		field := fmt.Sprintf("ids[%d]", i)
		if r := checkPartitionID(field, id); r != nil {
			return r
		}
		if named[id] {
			return invalid(ReasonDuplicatePartition, field, "partition %s is named twice", id)
		}
		named[id] = true
		if s.partitions.byID.Has(id) {
			return refuse(logv1.Kind_KIND_PRECONDITION, ReasonPartitionExists, field, "there is a partition %s already", id)
		}
	}
	if n := s.partitions.byID.Len(); n+len(ids) > MaxPartitions {
		return refuse(logv1.Kind_KIND_EXHAUSTED, ReasonTooManyPartitions, "ids", "there are %d partitions, and more than %d are not allowed", n, MaxPartitions)
	}
	return nil
}

func checkPartitionID(field, id string) *Refusal {
	if !validID(id) {
		return invalid(ReasonInvalidPartitionID, field, "%s is no partition id: %s", quote(id), idForm)
	}
	return nil
}

func checkPlacement(field, name string) *Refusal {
	if !validID(name) {
		return invalid(ReasonInvalidPlacement, field, "%s is no placement: %s", quote(name), idForm)
	}
	return nil
}

// checkRoomFor refuses a placement that would be one too many.
func (s *State) checkRoomFor(name string) *Refusal {
	if n := s.partitions.placements.Len(); n >= MaxPlacements && !s.partitions.placements.Has(name) {
		return refuse(logv1.Kind_KIND_EXHAUSTED, ReasonTooManyPlacements, "", "there are %d placements, and more are not allowed", n)
	}
	return nil
}

// checkBarrier refuses a drain barrier that some partition or migration asks for; absent is none.
func (s *State) checkBarrier(d *durationpb.Duration) *Refusal {
	if d == nil {
		return nil
	}
	if v, ok := checkedDuration(d); !ok || v < s.partitions.settings.leastBarrier || v > MaxDrainBarrier {
		return invalid(ReasonInvalidDrainBarrier, "drain_barrier", "it is not %v to %v", s.partitions.settings.leastBarrier, MaxDrainBarrier)
	}
	return nil
}

// checkedDuration returns a duration that is one; AsDuration would saturate.
func checkedDuration(d *durationpb.Duration) (time.Duration, bool) {
	return d.AsDuration(), d.CheckValid() == nil
}

// count changes what is counted of a placement, and returns the name that partitions share.
func (p *partitions) count(name string, change func(*placement)) string {
	counted, ok := p.placements.Get(name)
	if !ok {
		counted.name = name
	}
	change(&counted)
	if counted.owned+counted.leaving+counted.coming == 0 {
		p.placements.Delete(name)
	} else {
		p.placements.Set(counted.name, counted)
	}
	return counted.name
}

// setPlacement gives a partition another owner at once.
func (a *application) setPlacement(c *logv1.SetPlacement) (*logv1.Outcome, *Refusal) {
	if r := firstRefusal(checkPlacement("placement", c.GetPlacement()), checkText("note", c.GetNote(), MaxTextBytes)); r != nil {
		return nil, r
	}
	p, r := a.findPartition(c.GetPartition(), c.GetExpectedEpoch())
	if r == nil {
		r = checkStill(c.GetPartition(), p)
	}
	if r == nil && c.GetPlacement() == p.placement {
		r = samePlacement(c.GetPartition(), p)
	}
	if r == nil {
		r = a.checkRoomFor(c.GetPlacement())
	}
	if r != nil {
		return nil, r
	}
	a.own(&p, c.GetPlacement())
	return a.transition(c.GetPartition(), p, &quoratev1.PartitionChange{
		Transition: quoratev1.PartitionTransition_PARTITION_TRANSITION_SET_PLACEMENT, Note: c.GetNote(),
	}), nil
}

// own makes a placement the owner of a partition.
func (a *application) own(p *partition, name string) {
	p.previous = p.placement
	a.partitions.count(p.placement, func(c *placement) { c.owned-- })
	p.placement = a.partitions.count(name, func(c *placement) { c.owned++ })
}

// transition stores a partition under its next epoch and tells of it.
func (a *application) transition(id string, p partition, change *quoratev1.PartitionChange) *logv1.Outcome {
	p.epoch++
	p.revision = a.clock.revision
	return a.storePartition(id, p, change)
}

// storePartition stores a partition and tells of it.
func (a *application) storePartition(id string, p partition, change *quoratev1.PartitionChange) *logv1.Outcome {
	a.partitions.byID.Set(id, p)
	change.Partition = a.partitionMessage(id, p)
	a.emit(&quoratev1.Event{Body: &quoratev1.Event_PartitionChanged{PartitionChanged: change}})
	return partitionMoved(change.GetPartition(), change.GetEarly())
}

// findPartition returns a partition, unless it is at another epoch than the caller expects; 0 expects nothing.
func (s *State) findPartition(id string, expected uint64) (partition, *Refusal) {
	p, ok := s.partitions.byID.Get(id)
	if !ok {
		return p, unknownPartition(id)
	}
	if expected != 0 && expected != p.epoch {
		return p, s.StaleEpoch(id, expected)
	}
	return p, nil
}

func unknownPartition(id string) *Refusal {
	return refuse(logv1.Kind_KIND_NOT_FOUND, ReasonUnknownPartition, "partition", "there is no partition %s", quote(id))
}

// StaleEpoch refuses whoever comes with another epoch of a partition than the current one, or to a gate that is closed; NotFound if there is
// none.
func (s *State) StaleEpoch(id string, epoch uint64) *Refusal {
	p, ok := s.partitions.byID.Get(id)
	if !ok {
		return unknownPartition(id)
	}
	message := fmt.Sprintf("partition %s is at epoch %d, not %d", id, p.epoch, epoch)
	if epoch == p.epoch {
		message = fmt.Sprintf("partition %s is in cutover at epoch %d: nobody may write", id, p.epoch)
	}
	return refuse(logv1.Kind_KIND_CONFLICT, ReasonStaleEpoch, "", "%s", message).
		with("current_epoch", fmt.Sprint(p.epoch)).with("phase", phaseName(p.phase()))
}

func phaseName(p quoratev1.PartitionPhase) string {
	return strings.ToLower(strings.TrimPrefix(p.String(), "PARTITION_PHASE_"))
}

// checkStill refuses a partition that migrates.
func checkStill(id string, p partition) *Refusal {
	if p.migration == nil {
		return nil
	}
	return refuse(logv1.Kind_KIND_PRECONDITION, ReasonAlreadyMigrating, "partition",
		"partition %s migrates from %s to %s already, at epoch %d", id, p.migration.record.GetFrom(), p.migration.record.GetTo(), p.epoch).
		with("current_epoch", fmt.Sprint(p.epoch)).with("to", p.migration.record.GetTo())
}

func samePlacement(id string, p partition) *Refusal {
	return refuse(logv1.Kind_KIND_PRECONDITION, ReasonSamePlacement, "", "partition %s is at %s already", id, p.placement)
}

// deletePartition removes a partition. Its epoch is remembered in the floor, so that no epoch of that id ever comes again.
func (a *application) deletePartition(c *logv1.DeletePartition) (*logv1.Outcome, *Refusal) {
	if r := checkText("note", c.GetNote(), MaxTextBytes); r != nil {
		return nil, r
	}
	p, r := a.findPartition(c.GetPartition(), c.GetExpectedEpoch())
	if r == nil {
		r = checkStill(c.GetPartition(), p)
	}
	if r != nil {
		return nil, r
	}
	a.partitions.byID.Delete(c.GetPartition())
	a.partitions.count(p.placement, func(c *placement) { c.owned-- })
	a.partitions.epochFloor = max(a.partitions.epochFloor, p.epoch)
	a.emit(&quoratev1.Event{Body: &quoratev1.Event_PartitionChanged{PartitionChanged: &quoratev1.PartitionChange{
		Transition: quoratev1.PartitionTransition_PARTITION_TRANSITION_DELETE,
		Partition:  a.partitionMessage(c.GetPartition(), p), Note: c.GetNote(),
	}}})
	return done(), nil
}

// Partition returns a partition.
func (s *State) Partition(id string) (*quoratev1.Partition, *Refusal) {
	p, ok := s.partitions.byID.Get(id)
	if !ok {
		return nil, unknownPartition(id)
	}
	return s.partitionMessage(id, p), nil
}

func (s *State) partitionMessage(id string, p partition) *quoratev1.Partition {
	m := &quoratev1.Partition{
		Id: id, Phase: p.phase(), Placement: p.placement, Epoch: p.epoch, Revision: p.revision, PreviousPlacement: p.previous,
	}
	if p.barrier > 0 {
		m.DrainBarrier = durationpb.New(p.barrier)
	}
	if p.migration != nil {
		m.Migration = s.migrationMessage(p.migration)
	}
	return m
}

// Resolve says where a partition is read and written; the phase is unspecified where there is none.
func (s *State) Resolve(id string) *quoratev1.Resolution {
	r := &quoratev1.Resolution{}
	s.resolve(id, r)
	return r
}

// ResolveAll is Resolve for many. The answers share one piece of memory, since they are asked for by the million.
func (s *State) ResolveAll(ids []string) []*quoratev1.Resolution {
	block := make([]quoratev1.Resolution, len(ids))
	all := make([]*quoratev1.Resolution, len(ids))
	for i, id := range ids {
		all[i] = &block[i]
		s.resolve(id, all[i])
	}
	return all
}

func (s *State) resolve(id string, r *quoratev1.Resolution) {
	r.Partition = id
	p, ok := s.partitions.byID.Get(id)
	if !ok {
		return
	}
	r.Phase, r.ReadPlacement, r.Epoch, r.Revision = p.phase(), p.placement, p.epoch, p.revision
	if r.Phase != quoratev1.PartitionPhase_PARTITION_PHASE_CUTOVER {
		r.WritePlacement = p.placement
	}
}

// PartitionPage returns the partitions whose id comes after the given one and begins with prefix, of one placement if it is not empty: at most
// limit, in order of their ids, and looking at no more than MaxPartitionScan. More is false after the last; else last is where the next page begins.
func (s *State) PartitionPage(after, prefix, placement string, limit int) (found []*quoratev1.Partition, last string, more bool) {
	scanned := 0
	for id, p := range s.partitions.byID.From(max(after, prefix)) {
		if id == after {
			continue
		}
		if !strings.HasPrefix(id, prefix) {
			return found, "", false
		}
		if len(found) == limit || scanned == MaxPartitionScan {
			return found, last, true
		}
		scanned++
		last = id
		if placement == "" || p.placement == placement {
			found = append(found, s.partitionMessage(id, p))
		}
	}
	return found, "", false
}

// MigrationPage is PartitionPage for those that migrate, from or to a placement if it is not empty.
func (s *State) MigrationPage(after, placement string, limit int) (found []*quoratev1.Partition, last string, more bool) {
	for id := range s.partitions.migrating.From(after) {
		if id == after {
			continue
		}
		if len(found) == limit {
			return found, last, true
		}
		p, _ := s.partitions.byID.Get(id)
		last = id
		if placement == "" || p.placement == placement || p.migration.record.GetTo() == placement {
			found = append(found, s.partitionMessage(id, p))
		}
	}
	return found, "", false
}

// Placements returns the placements that own a partition or are to get one.
func (s *State) Placements() []*quoratev1.Placement {
	found := make([]*quoratev1.Placement, 0, s.partitions.placements.Len())
	for name, c := range s.partitions.placements.All() {
		found = append(found, &quoratev1.Placement{Id: name, Partitions: c.owned, Leaving: c.leaving, Coming: c.coming})
	}
	return found
}

// PartitionCount returns how many partitions there are, and how many migrate.
func (s *State) PartitionCount() (all, migrating int) {
	return s.partitions.byID.Len(), s.partitions.migrating.Len()
}

// checkPartitions is the invariant of partitions: the indexes are what the records say.
func (s *State) checkPartitions() error {
	p := &s.partitions
	if p.byID.Len() > MaxPartitions || p.migrating.Len() > MaxMigrations || p.placements.Len() > MaxPlacements {
		return fmt.Errorf("%d partitions, %d migrations and %d placements are more than allowed", p.byID.Len(), p.migrating.Len(), p.placements.Len())
	}
	counted := newPartitions()
	migrating := 0
	owner, run := "", uint64(0)
	flush := func() {
		if run > 0 {
			counted.count(owner, func(c *placement) { c.owned += run })
		}
		run = 0
	}
	for id, v := range p.byID.All() {
		if !validID(id) || !validID(v.placement) || v.previous != "" && !validID(v.previous) {
			return fmt.Errorf("partition %q at %q, before at %q, has a name that is none", id, v.placement, v.previous)
		}
		if v.epoch == 0 || v.revision > s.clock.revision || v.barrier < 0 || v.barrier > MaxDrainBarrier {
			return fmt.Errorf("partition %s at epoch %d of revision %d, barrier %v, can't be", id, v.epoch, v.revision, v.barrier)
		}
		// Neighbours are often of one placement, and a million look-ups would cost a restore as long as all the rest.
		if v.placement != owner {
			flush()
			owner = v.placement
		}
		if run++; v.migration == nil {
			continue
		}
		migrating++
		if err := s.checkMigration(id, v); err != nil {
			return err
		}
		counted.count(v.placement, func(c *placement) { c.leaving++ })
		counted.count(v.migration.record.GetTo(), func(c *placement) { c.coming++ })
	}
	flush()
	if migrating != p.migrating.Len() || counted.placements.Len() != p.placements.Len() {
		return fmt.Errorf("%d partitions migrate, at %d placements, and %d, at %d, are in the indexes",
			migrating, counted.placements.Len(), p.migrating.Len(), p.placements.Len())
	}
	for name, c := range counted.placements.All() {
		if kept, _ := p.placements.Get(name); kept != c {
			return fmt.Errorf("placement %s counts %v, and has %v", name, kept, c)
		}
	}
	return cmp.Or(s.checkBarriers(), p.settings.check())
}
