package opcua

import (
	"fmt"
	"time"

	"github.com/gopcua/opcua/id"

	quoratev1 "quorate/proto/quorate/v1"
)

// The types of the events of partitions. What an event says of its partition is how that is afterwards.
var (
	partitionMoved = newEventType("PartitionEventType", "Something became of a partition.", nil,
		variable{"Partition", "The id of the partition; empty if it is not about one alone.", id.String, false},
		variable{"Phase", "The phase now: Active, Draining or Cutover; empty if it was deleted.", id.String, false},
		variable{"Placement", "Where it is read now.", id.String, false},
		variable{"MigratingTo", "Where it migrates to; empty if it doesn't.", id.String, false},
		variable{"Epoch", "The number of its latest transition.", id.UInt64, false},
		variable{"Note", "What whoever wanted it noted.", id.String, false})
	partitionsCreated = newEventType("PartitionsCreatedEventType", "Partitions were created together, at one placement.", partitionMoved,
		variable{"Count", "How many.", id.UInt32, false})
	placementSet       = newEventType("PlacementSetEventType", "A partition was given another owner at once.", partitionMoved)
	partitionDeleted   = newEventType("PartitionDeletedEventType", "A partition was deleted.", partitionMoved)
	migrationBegun     = newEventType("MigrationBegunEventType", "A partition began to migrate: it is draining.", partitionMoved)
	migrationCutOver   = newEventType("MigrationCutOverEventType", "A partition is in cutover: nobody may write.", partitionMoved)
	barrierPassed      = newEventType("BarrierPassedEventType", "The drain barrier of a partition in cutover has passed.", partitionMoved)
	migrationCompleted = newEventType("MigrationCompletedEventType", "The new placement is the owner.", partitionMoved,
		variable{"Early", "Whether the drain barrier had not passed yet, because all instances had reported.", id.Boolean, false})
	migrationAborted = newEventType("MigrationAbortedEventType", "The old placement is the only owner.", partitionMoved)
	partitionsMissed = newEventType("PartitionsMissedEventType",
		"This server fell behind, or took over a snapshot: of transitions before it, some were not told. Values are right.", partitionMoved)
)

// partitionsCreated tells of all partitions of a command by one event.
func (e *Endpoint) partitionsCreated(event *quoratev1.Event, c *quoratev1.PartitionsCreated) {
	ids := c.GetIds()
	of := source{partitionsKey, "Partitions"}
	id, message := "", fmt.Sprintf("%d partitions were created at placement %s: %s and %d more.", len(ids), c.GetPlacement(), ids[0], len(ids)-1)
	if len(ids) == 1 {
		id, of = ids[0], partitionSource(ids[0])
		message = fmt.Sprintf("Partition %s was created at placement %s.", id, c.GetPlacement())
	}
	e.emit(partitionsCreated, of, severityNotice, wallTime(event), message, map[string]any{
		"Partition": id, "Phase": phases[quoratev1.PartitionPhase_PARTITION_PHASE_ACTIVE], "Placement": c.GetPlacement(), "MigratingTo": "",
		"Epoch": c.GetEpoch(), "Note": c.GetNote(), "Count": uint32(len(ids)),
	})
}

// partitionChanged tells of a transition, and of the end of a barrier. A report of progress is no event, and neither is the beginning of a barrier, which
// follows a cutover at once. Transitions come by the thousand a second, so that nothing is made of them where nobody listens.
func (e *Endpoint) partitionChanged(event *quoratev1.Event, c *quoratev1.PartitionChange) {
	if !e.server.Listened() {
		return
	}
	p := c.GetPartition()
	values := map[string]any{
		"Partition": p.GetId(), "Phase": phases[p.GetPhase()], "Placement": p.GetPlacement(), "MigratingTo": p.GetMigration().GetTo(),
		"Epoch": p.GetEpoch(), "Note": c.GetNote(),
	}
	tell := func(t *eventType, severity uint16, format string, args ...any) {
		e.emit(t, partitionSource(p.GetId()), severity, wallTime(event), fmt.Sprintf(format, args...), values)
	}
	from, to := p.GetMigration().GetFrom(), p.GetMigration().GetTo()
	switch c.GetTransition() {
	case quoratev1.PartitionTransition_PARTITION_TRANSITION_SET_PLACEMENT:
		tell(placementSet, severityNotice, "The placement of partition %s went from %s to %s.", p.GetId(), p.GetPreviousPlacement(), p.GetPlacement())
	case quoratev1.PartitionTransition_PARTITION_TRANSITION_DELETE:
		values["Phase"] = ""
		tell(partitionDeleted, severityNotice, "Partition %s was deleted; it was at %s.", p.GetId(), p.GetPlacement())
	case quoratev1.PartitionTransition_PARTITION_TRANSITION_BEGIN:
		tell(migrationBegun, severityNotice, "Partition %s began to migrate from %s to %s.", p.GetId(), from, to)
	case quoratev1.PartitionTransition_PARTITION_TRANSITION_CUTOVER:
		tell(migrationCutOver, severityWorse, "Partition %s is in cutover from %s to %s: nobody may write.", p.GetId(), from, to)
	case quoratev1.PartitionTransition_PARTITION_TRANSITION_BARRIER_PASSED:
		tell(barrierPassed, severityNormal, "The drain barrier of partition %s has passed: its migration to %s may be completed.", p.GetId(), to)
	case quoratev1.PartitionTransition_PARTITION_TRANSITION_COMPLETE:
		values["Early"] = c.GetEarly()
		tell(migrationCompleted, severityNormal, "Partition %s has migrated from %s to %s.", p.GetId(), c.GetEnded().GetFrom(), c.GetEnded().GetTo())
	case quoratev1.PartitionTransition_PARTITION_TRANSITION_ABORT:
		tell(migrationAborted, severityNotice, "The migration of partition %s to %s was aborted: it stays at %s.", p.GetId(), c.GetEnded().GetTo(), p.GetPlacement())
	}
}

// missed tells that transitions up to a revision may not have been told.
func (e *Endpoint) missed(revision uint64) {
	e.emit(partitionsMissed, source{partitionsKey, "Partitions"}, severityFailure, noTime,
		fmt.Sprintf("Not all transitions of partitions up to revision %d were told: read what they are.", revision),
		map[string]any{"Partition": "", "Phase": "", "Placement": "", "MigratingTo": "", "Epoch": uint64(0), "Note": ""})
}

// wallTime is that of the event's command.
func wallTime(event *quoratev1.Event) time.Time {
	if event.GetWallTime() == nil {
		return noTime
	}
	return event.GetWallTime().AsTime()
}
