package fsm

import (
	logv1 "quorate/proto/quorate/log/v1"
	quoratev1 "quorate/proto/quorate/v1"
)

// The canonical bytes of partitions and instances; canonical.go says what they are.

// partitionRecord is a partition as the state has it.
func (c *canonical) partitionRecord(id string, p partition) {
	c.str(id)
	c.str(p.placement)
	c.str(p.previous)
	c.uint(p.epoch)
	c.uint(p.revision)
	c.uint(uint64(p.barrier))
	if c.bool(p.migration != nil); p.migration != nil {
		c.migration(p.migration.record)
		c.bool(p.migration.passed)
	}
}

// partition is one in an answer.
func (c *canonical) partition(p *quoratev1.Partition) {
	if c.bool(p != nil); p == nil {
		return
	}
	c.str(p.GetId())
	c.int(int64(p.GetPhase()))
	c.str(p.GetPlacement())
	c.uint(p.GetEpoch())
	c.uint(p.GetRevision())
	c.duration(p.GetDrainBarrier())
	c.str(p.GetPreviousPlacement())
	c.migration(p.GetMigration())
}

func (c *canonical) migration(m *quoratev1.Migration) {
	if c.bool(m != nil); m == nil {
		return
	}
	c.str(m.GetFrom())
	c.str(m.GetTo())
	c.actor(m.GetActor())
	c.time(m.GetBegunAt())
	c.duration(m.GetBegun())
	c.strs(m.GetServers())
	c.str(m.GetNote())
	c.duration(m.GetDrainBarrier())
	c.bool(m.GetEarlyCompletion())
	c.bool(m.GetVerificationRequired())
	c.bool(m.GetVerified())
	c.copyProgress(m.GetCopy())
	c.uint(m.GetCutoverEpoch())
	c.uint(m.GetCutoverRevision())
	c.time(m.GetCutoverAt())
	c.duration(m.GetBarrierBegun())
	c.duration(m.GetBarrierLeft())
}

func (c *canonical) copyProgress(p *quoratev1.CopyProgress) {
	if c.bool(p != nil); p == nil {
		return
	}
	c.uint(p.GetDone())
	c.uint(p.GetTotal())
	c.str(p.GetText())
	c.time(p.GetAt())
}

func (c *canonical) settings(p *quoratev1.PartitionSettings) {
	if c.bool(p != nil); p == nil {
		return
	}
	c.duration(p.GetDrainBarrier())
	c.duration(p.GetMinDrainBarrier())
	c.duration(p.GetEarlyFloor())
	c.duration(p.GetGateTtl())
}

func (c *canonical) partitionsRecord(r *logv1.PartitionsRecord) {
	c.settings(r.GetSettings())
	c.uint(r.GetEpochFloor())
	c.duration(r.GetFormerGateTtl())
	c.duration(r.GetGateTtlLowered())
	c.duration(r.GetUndrained())
	c.duration(r.GetGone())
	c.uint(r.GetGateTtlLoweredRevision())
	c.uint(r.GetUndrainedRevision())
	c.uint(r.GetGoneRevision())
}

func (c *canonical) instance(i *quoratev1.Instance) {
	if c.bool(i != nil); i == nil {
		return
	}
	c.str(i.GetId())
	c.actor(i.GetActor())
	c.time(i.GetRegisteredAt())
	c.uint(i.GetRevision())
}

func (c *canonical) strs(list []string) {
	c.uint(uint64(len(list)))
	for _, v := range list {
		c.str(v)
	}
}

// partitionCommand is the body of a command of partitions or instances; what the leader adds to it is left out.
func (c *canonical) partitionCommand(cmd *logv1.Command) {
	switch b := cmd.GetBody().(type) {
	case *logv1.Command_CreatePartitions:
		c.uint(80)
		c.strs(b.CreatePartitions.GetIds())
		c.str(b.CreatePartitions.GetPlacement())
		c.duration(b.CreatePartitions.GetDrainBarrier())
		c.str(b.CreatePartitions.GetNote())
	case *logv1.Command_SetPlacement:
		c.uint(81)
		c.str(b.SetPlacement.GetPartition())
		c.str(b.SetPlacement.GetPlacement())
		c.uint(b.SetPlacement.GetExpectedEpoch())
		c.str(b.SetPlacement.GetNote())
	case *logv1.Command_DeletePartition:
		c.uint(82)
		c.step(b.DeletePartition)
	case *logv1.Command_BeginMigration:
		c.uint(83)
		c.step(b.BeginMigration)
		c.str(b.BeginMigration.GetTo())
		c.duration(b.BeginMigration.GetDrainBarrier())
		c.bool(b.BeginMigration.GetEarlyCompletion())
		c.bool(b.BeginMigration.GetVerificationRequired())
		c.strs(b.BeginMigration.GetServers())
	case *logv1.Command_ReportMigration:
		c.uint(84)
		c.str(b.ReportMigration.GetPartition())
		c.uint(b.ReportMigration.GetExpectedEpoch())
		c.copyProgress(b.ReportMigration.GetCopy())
		c.bool(b.ReportMigration.GetVerified())
	case *logv1.Command_CutoverMigration:
		c.uint(85)
		c.step(b.CutoverMigration)
	case *logv1.Command_CompleteMigration:
		c.uint(86)
		c.step(b.CompleteMigration)
	case *logv1.Command_AbortMigration:
		c.uint(87)
		c.step(b.AbortMigration)
	case *logv1.Command_SetPartitionSettings:
		c.uint(88)
		c.settings(b.SetPartitionSettings.GetSettings())
	case *logv1.Command_RegisterInstance:
		c.uint(90)
		c.str(b.RegisterInstance.GetId())
		c.str(b.RegisterInstance.GetSession())
	case *logv1.Command_RemoveInstance:
		c.uint(91)
		c.str(b.RemoveInstance.GetId())
		c.str(b.RemoveInstance.GetSession())
		c.bool(b.RemoveInstance.GetDrained())
	default:
		c.uint(0)
	}
}

// step is what the transitions of a partition have in common.
func (c *canonical) step(s interface {
	GetPartition() string
	GetExpectedEpoch() uint64
	GetNote() string
}) {
	c.str(s.GetPartition())
	c.uint(s.GetExpectedEpoch())
	c.str(s.GetNote())
}
