package fsm

import (
	"fmt"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	logv1 "quorate/proto/quorate/log/v1"
	quoratev1 "quorate/proto/quorate/v1"
)

// partitionsInBlock is how many partitions go into one record of a snapshot: with the longest ids that is a third of MaxRecordBytes.
const partitionsInBlock = 4096

// writePartitions writes what there is of partitions and instances; nothing where there is nothing, so that older members can read it.
func (s *State) writePartitions(out *snapshotWriter) {
	if record := s.partitionsRecord(); record != nil {
		out.record(&logv1.SnapshotRecord{Body: &logv1.SnapshotRecord_PartitionsOfGroup{PartitionsOfGroup: record}})
	}
	block, names := &logv1.PartitionBlock{}, map[string]uint32{}
	name := func(v string) uint32 {
		n, ok := names[v]
		if !ok {
			n = uint32(len(block.Names))
			names[v] = n
			block.Names = append(block.Names, v)
		}
		return n
	}
	flush := func() {
		if len(block.Ids) > 0 {
			out.record(&logv1.SnapshotRecord{Body: &logv1.SnapshotRecord_Partitions{Partitions: block}})
		}
		block.Ids, block.Placements, block.Previous = block.Ids[:0], block.Placements[:0], block.Previous[:0]
		block.Epochs, block.Revisions, block.DrainBarriers, block.Names = block.Epochs[:0], block.Revisions[:0], block.DrainBarriers[:0], block.Names[:0]
		clear(names)
	}
	for id, p := range s.partitions.byID.All() {
		block.Ids = append(block.Ids, id)
		block.Placements = append(block.Placements, name(p.placement))
		previous := uint32(0)
		if p.previous != "" {
			previous = name(p.previous) + 1
		}
		block.Previous = append(block.Previous, previous)
		block.Epochs = append(block.Epochs, p.epoch)
		block.Revisions = append(block.Revisions, p.revision)
		block.DrainBarriers = append(block.DrainBarriers, uint64(p.barrier))
		if len(block.Ids) == partitionsInBlock {
			flush()
		}
	}
	flush()
	for id := range s.partitions.migrating.All() {
		p, _ := s.partitions.byID.Get(id)
		out.record(&logv1.SnapshotRecord{Body: &logv1.SnapshotRecord_Migration{Migration: &logv1.MigrationRecord{
			Partition: id, Migration: p.migration.record, BarrierPassed: p.migration.passed,
		}}})
	}
	for _, i := range s.instances.byID.All() {
		out.record(&logv1.SnapshotRecord{Body: &logv1.SnapshotRecord_Instance{Instance: &logv1.InstanceRecord{Instance: i.record, Session: i.session}}})
	}
}

// partitionsRecord is what holds for all partitions and instances; nil where nothing was ever changed.
func (s *State) partitionsRecord() *logv1.PartitionsRecord {
	p, i := &s.partitions, &s.instances
	if p.settings == defaultSettings && p.epochFloor == 0 && !i.gone.ever() {
		return nil
	}
	r := &logv1.PartitionsRecord{Settings: p.settings.message(), EpochFloor: p.epochFloor}
	if p.settings.formerTTL != 0 {
		r.FormerGateTtl = durationpb.New(p.settings.formerTTL)
	}
	r.GateTtlLowered, r.GateTtlLoweredRevision = p.settings.lowered.record()
	r.Undrained, r.UndrainedRevision = i.undrained.record()
	r.Gone, r.GoneRevision = i.gone.record()
	return r
}

func (m moment) record() (at *durationpb.Duration, revision uint64) {
	if m.known {
		at = durationpb.New(m.at)
	}
	return at, m.revision
}

func restoredMoment(at *durationpb.Duration, revision uint64) moment {
	return moment{at: at.AsDuration(), revision: revision, known: at != nil}
}

func (s *State) restorePartitionsRecord(r *logv1.PartitionsRecord) error {
	if s.partitionsRecord() != nil || r.GetEpochFloor() > MaxEpoch {
		return fmt.Errorf("%w: the record of partitions is there twice, or its epoch is too high", ErrCorrupt)
	}
	v := r.GetSettings()
	s.partitions.settings = partitionSettings{
		barrier: v.GetDrainBarrier().AsDuration(), leastBarrier: v.GetMinDrainBarrier().AsDuration(),
		earlyFloor: v.GetEarlyFloor().AsDuration(), gateTTL: v.GetGateTtl().AsDuration(),
		formerTTL: r.GetFormerGateTtl().AsDuration(), lowered: restoredMoment(r.GetGateTtlLowered(), r.GetGateTtlLoweredRevision()),
	}
	s.partitions.epochFloor = r.GetEpochFloor()
	s.instances.undrained = restoredMoment(r.GetUndrained(), r.GetUndrainedRevision())
	s.instances.gone = restoredMoment(r.GetGone(), r.GetGoneRevision())
	return nil
}

// restorePartitions puts back a block. Partitions come in order of their ids; that they are counted right is for Check to say.
func (s *State) restorePartitions(b *logv1.PartitionBlock) error {
	n := len(b.GetIds())
	if len(b.GetPlacements()) != n || len(b.GetPrevious()) != n || len(b.GetEpochs()) != n || len(b.GetRevisions()) != n || len(b.GetDrainBarriers()) != n {
		return fmt.Errorf("%w: the columns of a block of partitions are not of one length", ErrCorrupt)
	}
	// The names of all blocks share one copy.
	names := make([]string, len(b.GetNames()))
	owned := make([]uint64, len(names))
	for i, name := range b.GetNames() {
		if !validID(name) {
			return fmt.Errorf("%w: %s is no placement", ErrCorrupt, quote(name))
		}
		names[i] = name
		if counted, ok := s.partitions.placements.Get(name); ok {
			names[i] = counted.name
		}
	}
	for i, id := range b.GetIds() {
		placement, previous := int(b.GetPlacements()[i]), int(b.GetPrevious()[i])
		if placement >= len(names) || previous > len(names) || b.GetEpochs()[i] > MaxEpoch || b.GetDrainBarriers()[i] > uint64(MaxDrainBarrier) {
			return fmt.Errorf("%w: partition %s has no placement, an epoch that is too high, or a barrier that is too long", ErrCorrupt, quote(id))
		}
		p := partition{
			placement: names[placement], epoch: b.GetEpochs()[i], revision: b.GetRevisions()[i], barrier: time.Duration(b.GetDrainBarriers()[i]),
		}
		if previous > 0 {
			p.previous = names[previous-1]
		}
		if s.partitions.byID.Set(id, p) {
			return fmt.Errorf("%w: partition %s is there twice", ErrCorrupt, quote(id))
		}
		owned[placement]++
	}
	for i, count := range owned {
		if count > 0 {
			s.partitions.count(names[i], func(c *placement) { c.owned += count })
		}
	}
	return nil
}

// restoreMigration puts back the migration of a partition that was restored before.
func (s *State) restoreMigration(r *logv1.MigrationRecord) error {
	p, ok := s.partitions.byID.Get(r.GetPartition())
	if !ok || p.migration != nil || r.GetMigration() == nil {
		return fmt.Errorf("%w: a migration has no partition, or is there twice", ErrCorrupt)
	}
	p.migration = &migration{record: r.GetMigration(), passed: r.GetBarrierPassed()}
	s.partitions.byID.Set(r.GetPartition(), p)
	s.partitions.migrating.Set(r.GetPartition(), struct{}{})
	s.partitions.barriers.put(r.GetPartition(), p.migration)
	s.partitions.count(p.placement, func(c *placement) { c.leaving++ })
	s.partitions.count(r.GetMigration().GetTo(), func(c *placement) { c.coming++ })
	return nil
}

// digestPartitions adds partitions and instances to a digest; nothing where there is nothing.
func (s *State) digestPartitions(c *canonical, flush func()) {
	if record := s.partitionsRecord(); record != nil {
		c.uint(12)
		c.partitionsRecord(record)
	}
	if n := s.partitions.byID.Len(); n > 0 {
		c.uint(10)
		c.uint(uint64(n))
		for id, p := range s.partitions.byID.All() {
			if c.partitionRecord(id, p); len(*c) > 4096 {
				flush()
			}
		}
		flush()
	}
	if n := s.instances.byID.Len(); n > 0 {
		c.uint(13)
		c.uint(uint64(n))
		for _, i := range s.instances.byID.All() {
			c.instance(i.record)
			c.str(i.session)
			flush()
		}
	}
	flush()
}

func (s *State) restoreInstance(r *logv1.InstanceRecord) (twice bool) {
	record := r.GetInstance()
	if record == nil {
		record = &quoratev1.Instance{}
	}
	return s.instances.byID.Set(record.GetId(), instance{record: record, session: r.GetSession()})
}
