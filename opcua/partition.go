package opcua

import (
	"context"
	"errors"
	"iter"
	"time"

	"github.com/gopcua/opcua/id"
	"github.com/gopcua/opcua/ua"

	"quorate/fsm"
	"quorate/node"
	"quorate/opcua/space"
	quoratev1 "quorate/proto/quorate/v1"
)

// barrierStep is the least cluster time between two looks at what is left of running drain barriers. Cluster time of an idle group moves once a second while
// one runs.
const barrierStep = 500 * time.Millisecond

// partitionsFolder begins the NodeIds of partitions, and of what else is in their folder: ids have no capitals, so that names which begin with one are none.
const partitionsFolder = "partitions/"

var (
	partitionsKey = stateKey("partitions")
	migrationsKey = stateKey("migrations")
)

// partitionVariables show one partition. Empty texts are what the API has as empty.
var partitionVariables = []struct {
	variable
	value func(p *quoratev1.Partition) any // nil: null
}{
	{variable{"Placement", "Where the partition is read: its owner, and while it migrates the old one.", id.String, false},
		func(p *quoratev1.Partition) any { return p.GetPlacement() }},
	{variable{"WritePlacement", "Where the partition is written; empty in Cutover, when nobody may write.", id.String, false},
		func(p *quoratev1.Partition) any { return writePlacement(p) }},
	{variable{"Phase", "Active, or Draining or Cutover while it migrates.", id.String, false},
		func(p *quoratev1.Partition) any { return phases[p.GetPhase()] }},
	{variable{"Epoch", "The number of the partition's latest transition.", id.UInt64, false},
		func(p *quoratev1.Partition) any { return p.GetEpoch() }},
	{variable{"Revision", "The revision of the replicated state at which that was.", id.UInt64, false},
		func(p *quoratev1.Partition) any { return p.GetRevision() }},
	{variable{"MigratingTo", "Where the partition migrates to; empty if it doesn't.", id.String, false},
		func(p *quoratev1.Partition) any { return p.GetMigration().GetTo() }},
	{variable{"BarrierLeft", "What is left of the drain barrier in Cutover, in milliseconds of cluster time; null in other phases.", id.Duration, false},
		func(p *quoratev1.Partition) any { return barrierLeft(p) }},
	{variable{"CopyProgress", "How much of the data is copied, in percent; null if nothing migrates or nobody has said.", id.Double, false},
		func(p *quoratev1.Partition) any { return copyProgress(p) }},
}

const barrierVariable = "BarrierLeft"

var phases = map[quoratev1.PartitionPhase]string{
	quoratev1.PartitionPhase_PARTITION_PHASE_ACTIVE:   "Active",
	quoratev1.PartitionPhase_PARTITION_PHASE_DRAINING: "Draining",
	quoratev1.PartitionPhase_PARTITION_PHASE_CUTOVER:  "Cutover",
}

func writePlacement(p *quoratev1.Partition) string {
	if p.GetPhase() == quoratev1.PartitionPhase_PARTITION_PHASE_CUTOVER {
		return ""
	}
	return p.GetPlacement()
}

func barrierLeft(p *quoratev1.Partition) any {
	if left := p.GetMigration().GetBarrierLeft(); left != nil {
		return float64(left.AsDuration()) / float64(time.Millisecond)
	}
	return nil
}

func copyProgress(p *quoratev1.Partition) any {
	if c := p.GetMigration().GetCopy(); c.GetTotal() > 0 {
		return 100 * float64(c.GetDone()) / float64(c.GetTotal())
	}
	return nil
}

// partitionCounts are variables of the folder.
var partitionCounts = []struct {
	variable
	value func(all, migrating int) int
}{
	{variable{"PartitionCount", "How many partitions there are.", id.UInt32, false}, func(all, _ int) int { return all }},
	{variable{"MigratingCount", "How many of them migrate.", id.UInt32, false}, func(_, migrating int) int { return migrating }},
}

var partitionCountKeys = func() (list []space.Key) {
	for _, v := range partitionCounts {
		list = append(list, partitionCountKey(v.name))
	}
	return list
}()

func partitionCountKey(name string) space.Key { return stateKey(partitionsFolder + name) }

// partitionNodes are the folders of all partitions, and of those that migrate.
func (e *Endpoint) partitionNodes(b *builder) {
	b.object(quorateKey, space.Organizes, partitionsKey, "Partitions", id.FolderType)
	b.object(quorateKey, space.Organizes, migrationsKey, "Migrations", id.FolderType)
	for _, v := range partitionCounts {
		b.variable(partitionsKey, partitionCountKey(v.name), v.variable, func(ctx space.ReadContext) *ua.DataValue {
			return good(ctx, uint32(v.value(e.stateFor(ctx).PartitionCount())))
		})
	}
}

// partitionCollection gives the partitions' nodes, each from the state of the moment in which it is asked for.
func (e *Endpoint) partitionCollection() (*space.Collection, error) {
	m := space.Member{Namespace: stateIndex, Prefix: partitionsFolder, Type: standard(id.BaseObjectType)}
	for _, v := range partitionVariables {
		m.Variables = append(m.Variables, space.MemberVariable{
			Name: v.name, Description: v.description, DataType: standard(v.dataType), ValueRank: space.RankScalar,
			Value: func(ctx space.ReadContext, id string) *ua.DataValue {
				p, refused := e.stateFor(ctx).Partition(id)
				if refused != nil {
					return bad(ctx, ua.StatusBadNodeIDUnknown) // It was deleted a moment ago.
				}
				value := v.value(p)
				if value == nil {
					return null(ctx)
				}
				return good(ctx, value)
			},
		})
	}
	listing := func(folder space.Key, has func(*fsm.State, string) bool, ids func(*fsm.State, string) iter.Seq[string]) space.Listing {
		return space.Listing{
			Folder: folder,
			Has:    func(id string) bool { return has(e.cfg.Group.Local().State, id) },
			IDs:    func(after string) iter.Seq[string] { return ids(e.cfg.Group.Local().State, after) },
		}
	}
	return space.NewCollection(m,
		listing(partitionsKey, (*fsm.State).HasPartition, (*fsm.State).PartitionIDs),
		listing(migrationsKey, (*fsm.State).Migrates, (*fsm.State).MigratingIDs))
}

// followPartitions pushes what becomes of partitions, and tells of it, until ctx ends. It takes the events of the group, because a million partitions can't be
// compared with what they were. Where events were lost, since this member fell behind or took over a snapshot, everything that is watched is read anew.
func (e *Endpoint) followPartitions(ctx context.Context, events EventStream) {
	for {
		err := e.pushPartitions(ctx, events)
		events.Close()
		var compacted *node.CompactedError
		if errors.As(err, &compacted) {
			if events, err = e.cfg.Group.Watch(0); err == nil {
				e.space.ChangedWhere(e.partitions.Owns)
				e.missed(compacted.Revision)
				continue
			}
		}
		if ctx.Err() == nil {
			e.cfg.Logger.Error("the nodes of partitions are not pushed any more", "error", err)
		}
		return
	}
}

// pushPartitions ends with an error.
func (e *Endpoint) pushPartitions(ctx context.Context, events EventStream) error {
	for {
		list, _, err := events.Next(ctx)
		if err != nil {
			return err
		}
		for _, event := range list {
			switch b := event.GetBody().(type) {
			case *quoratev1.Event_PartitionsCreated:
				for _, id := range b.PartitionsCreated.GetIds() { // There may have been one of that id, which is still watched.
					e.partitions.Changed(e.space, id)
				}
				e.partitionsCreated(event, b.PartitionsCreated)
			case *quoratev1.Event_PartitionChanged:
				e.partitions.Changed(e.space, b.PartitionChanged.GetPartition().GetId())
				e.partitionChanged(event, b.PartitionChanged)
			}
		}
	}
}

// countDown pushes what is left of the running drain barriers as cluster time goes on: nothing else tells of it.
func (e *Endpoint) countDown(state *fsm.State) {
	if state.Now() < e.counted+barrierStep {
		return
	}
	e.counted = state.Now()
	for id := range state.RunningBarriers() {
		e.space.Changed(e.partitions.VariableKey(id, barrierVariable))
	}
}

// partitionSource is whose event it is.
func partitionSource(id string) source { return source{stateKey(partitionsFolder + id), id} }
