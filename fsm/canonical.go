package fsm

import (
	"cmp"
	"encoding/binary"
	"maps"
	"slices"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	logv1 "quorate/proto/quorate/log/v1"
	quoratev1 "quorate/proto/quorate/v1"
)

// The canonical encoding gives equal values equal bytes on every member and in every version, which protobuf does not
// promise even in its deterministic mode. Digests and fingerprints are taken over it; it is never decoded.
//
//   - A number is a varint (encoding/binary), zigzag where it may be negative. A bool is 0 or 1.
//   - A string is its length as a varint, then its bytes.
//   - A list is its length as a varint, then its elements. A map is a list of its keys and values in order of the keys.
//   - A message is 0 where it is absent, else 1 and all of its fields in the order of their numbers, absent ones as zero.
//   - Fields that a message got after a release follow its first ones, and only where one of them is set: the message then begins
//     with 2 instead of 1. So what does not use them keeps its bytes.
//   - A oneof is the number of its field, 0 where it is unset, then the field.
//   - The sets of a topology are ordered by id and the servers of a set by member: the order in a document says nothing.
//
// Every digest begins with a name and a version of what is digested (see the domain constants), so that no bytes mean
// two things. A new field of a message is a new version of every domain that it appears in.
const (
	domainTopology = "quorate.topology/1"
	domainCommand  = "quorate.command/1"
	domainState    = "quorate.state/1"
)

// canonical is a buffer of canonical bytes.
type canonical []byte

func (c *canonical) uint(v uint64) { *c = binary.AppendUvarint(*c, v) }
func (c *canonical) int(v int64)   { *c = binary.AppendVarint(*c, v) }

func (c *canonical) bool(v bool) {
	if v {
		*c = append(*c, 1)
	} else {
		*c = append(*c, 0)
	}
}

// message begins a message, and says whether to write what was added to it later.
func (c *canonical) message(present, more bool) {
	if present && more {
		*c = append(*c, 2)
		return
	}
	c.bool(present)
}

func (c *canonical) str(v string) {
	c.uint(uint64(len(v)))
	*c = append(*c, v...)
}

func (c *canonical) time(t *timestamppb.Timestamp) {
	if c.bool(t != nil); t != nil {
		c.int(t.GetSeconds())
		c.int(int64(t.GetNanos()))
	}
}

func (c *canonical) duration(d *durationpb.Duration) {
	if c.bool(d != nil); d != nil {
		c.int(d.GetSeconds())
		c.int(int64(d.GetNanos()))
	}
}

func (c *canonical) actor(a *quoratev1.Actor) {
	if c.bool(a != nil); a != nil {
		c.str(a.GetName())
		c.str(a.GetRole())
		c.str(a.GetAddress())
	}
}

func (c *canonical) topology(t *quoratev1.Topology) {
	if c.bool(t != nil); t == nil {
		return
	}
	sets := slices.SortedStableFunc(slices.Values(t.GetSets()), func(a, b *quoratev1.RedundantSet) int {
		return cmp.Compare(a.GetId(), b.GetId())
	})
	c.uint(uint64(len(sets)))
	for _, set := range sets {
		c.set(set)
	}
}

func (c *canonical) set(set *quoratev1.RedundantSet) {
	c.str(set.GetId())
	c.str(set.GetMode())
	c.policies(set.GetPolicies())
	servers := slices.SortedStableFunc(slices.Values(set.GetServers()), func(a, b *quoratev1.RedundantServer) int {
		return cmp.Compare(a.GetMember(), b.GetMember())
	})
	c.uint(uint64(len(servers)))
	for _, server := range servers {
		c.str(server.GetMember())
		c.str(server.GetApplicationUri())
		c.str(server.GetEndpointUrl())
		c.str(server.GetHealthUrl())
		c.str(server.GetRole())
	}
}

func (c *canonical) policies(p *quoratev1.RedundancyPolicies) {
	more := laterPolicies(p)
	if c.message(p != nil, more); p == nil {
		return
	}
	if c.uint(uint64(p.GetMaxServers())); !more {
		return
	}
	c.str(p.GetApply())
	c.uint(uint64(p.GetStandIn()))
	c.str(p.GetQuorumLoss())
	c.str(p.GetFailover())
	c.duration(p.GetFailoverAfter())
	c.str(p.GetEvictClients())
	c.bool(p.GetHotBackupsHealthy())
	c.uint(uint64(len(p.GetLevels())))
	for _, l := range p.GetLevels() {
		c.str(l.GetBand())
		c.uint(uint64(l.GetPrimary()))
		c.uint(uint64(l.GetBackup()))
	}
}

func (c *canonical) generation(g *quoratev1.Generation) {
	if c.message(g != nil, g.GetSwappedBy() != ""); g == nil {
		return
	}
	c.uint(g.GetNumber())
	c.str(g.GetDigest())
	c.topology(g.GetTopology())
	c.str(g.GetPublishRequestId())
	c.actor(g.GetActor())
	c.time(g.GetPublishedAt())
	c.duration(g.GetClusterTime())
	c.uint(g.GetRollbackOf())
	c.uint(g.GetRevision())
	if g.GetSwappedBy() != "" {
		c.str(g.GetSwappedBy())
	}
}

func (c *canonical) lease(l *quoratev1.ApplyLease) {
	if c.message(l != nil, l.GetRollout()); l == nil {
		return
	}
	key := l.GetKey()
	if c.bool(key != nil); key != nil {
		c.uint(key.GetGeneration())
		c.str(key.GetPublishRequestId())
		c.str(key.GetServer())
	}
	c.int(int64(l.GetState()))
	c.uint(uint64(l.GetWindows()))
	c.actor(l.GetActor())
	c.str(l.GetReason())
	c.duration(l.GetBegun())
	c.duration(l.GetEnded())
	c.time(l.GetBegunAt())
	c.duration(l.GetDeadline())
	c.str(l.GetSet())
	c.str(l.GetOutcome())
}

func (c *canonical) serving(v *quoratev1.Serving) {
	if c.bool(v != nil); v == nil {
		return
	}
	c.str(v.GetServer())
	c.str(v.GetSet())
	c.uint(v.GetGeneration())
	c.bool(v.GetStandIn())
	c.duration(v.GetSince())
	c.uint(v.GetWorksUnder())
}

func (c *canonical) rollout(r *quoratev1.Rollout) {
	if c.bool(r != nil); r == nil {
		return
	}
	c.str(r.GetSet())
	c.uint(r.GetGeneration())
	c.int(int64(r.GetState()))
	c.uint(uint64(len(r.GetServers())))
	for _, p := range r.GetServers() {
		c.str(p.GetServer())
		c.int(int64(p.GetState()))
		c.uint(p.GetAppliedGeneration())
		c.uint(uint64(p.GetAttempts()))
		c.duration(p.GetBegun())
		c.duration(p.GetEnded())
		c.time(p.GetBegunAt())
		c.str(p.GetOutcome())
		c.str(p.GetOutput())
	}
	c.str(r.GetApply())
	c.str(r.GetHandOverFrom())
}

func (c *canonical) level(l *quoratev1.LevelChange) {
	if c.bool(l != nil); l == nil {
		return
	}
	c.str(l.GetServer())
	c.uint(l.GetNumber())
	c.uint(uint64(l.GetBefore()))
	c.uint(uint64(l.GetAfter()))
	c.str(l.GetBand())
	c.str(l.GetRole())
	c.str(l.GetSet())
	c.uint(l.GetGeneration())
	c.strs(l.GetReasons())
	c.time(l.GetAt())
}

func (c *canonical) maintenance(m *quoratev1.Maintenance) {
	if c.bool(m != nil); m == nil {
		return
	}
	c.str(m.GetServer())
	c.bool(m.GetActive())
	c.str(m.GetReason())
	c.time(m.GetEstimatedReturn())
	c.actor(m.GetActor())
	c.time(m.GetSince())
}

func (c *canonical) member(m *logv1.MemberRecord) {
	c.str(m.GetId())
	c.str(m.GetRaftAddress())
	c.bool(m.GetVoter())
	c.str(m.GetGrpcAddress())
	c.str(m.GetHttpAddress())
	c.str(m.GetOpcuaUrl())
	c.str(m.GetVersion())
	c.uint(uint64(m.GetCommandVersion()))
	c.uint(m.GetAdoptedGeneration())
	c.bool(m.GetAnnounced())
}

func (c *canonical) refusal(r *logv1.Refusal) {
	if c.bool(r != nil); r == nil {
		return
	}
	c.int(int64(r.GetKind()))
	c.str(r.GetReason())
	c.str(r.GetMessage())
	c.str(r.GetField())
	c.uint(uint64(len(r.GetDetails())))
	for _, name := range slices.Sorted(maps.Keys(r.GetDetails())) {
		c.str(name)
		c.str(r.GetDetails()[name])
	}
}

func (c *canonical) outcome(o *logv1.Outcome) {
	if c.bool(o != nil); o == nil {
		return
	}
	c.uint(o.GetRevision())
	c.uint(o.GetClock())
	c.uint(o.GetGeneration())
	switch r := o.GetResult().(type) {
	case *logv1.Outcome_Refusal:
		c.uint(10)
		c.refusal(r.Refusal)
	case *logv1.Outcome_Done:
		c.uint(11)
	case *logv1.Outcome_GenerationPublished:
		c.uint(12)
		c.generation(r.GenerationPublished)
	case *logv1.Outcome_Lease:
		c.uint(13)
		c.lease(r.Lease)
	case *logv1.Outcome_Maintenance:
		c.uint(14)
		c.maintenance(r.Maintenance)
	case *logv1.Outcome_Rollout:
		c.uint(15)
		c.rollout(r.Rollout)
	case *logv1.Outcome_PartitionsMade:
		c.uint(16)
		c.uint(r.PartitionsMade.GetEpoch())
	case *logv1.Outcome_PartitionMoved:
		c.uint(17)
		c.partition(r.PartitionMoved.GetPartition())
		c.bool(r.PartitionMoved.GetEarly())
	case *logv1.Outcome_PartitionSettings:
		c.uint(18)
		c.settings(r.PartitionSettings)
	case *logv1.Outcome_Instance:
		c.uint(19)
		c.instance(r.Instance)
	default:
		c.uint(0)
	}
}

// command is the body of a command that clients send. Who sent it, when, and with which request id is left out: the same
// request sent again must have the same bytes.
func (c *canonical) command(cmd *logv1.Command) {
	switch b := cmd.GetBody().(type) {
	case *logv1.Command_PublishTopology:
		c.uint(20)
		c.uint(b.PublishTopology.GetExpectedGeneration())
		c.topology(b.PublishTopology.GetTopology())
		if set := b.PublishTopology.GetForceSet(); set != "" {
			c.str(set)
		}
		if b.PublishTopology.GetForce() {
			c.bool(true)
		}
	case *logv1.Command_RollbackTopology:
		c.uint(21)
		c.uint(b.RollbackTopology.GetExpectedGeneration())
		c.uint(b.RollbackTopology.GetTo())
	case *logv1.Command_BeginLease:
		c.uint(30)
		c.str(b.BeginLease.GetServer())
		c.uint(b.BeginLease.GetGeneration())
		c.str(b.BeginLease.GetPublishRequestId())
		c.str(b.BeginLease.GetReason())
	case *logv1.Command_EndLease:
		c.uint(31)
		c.str(b.EndLease.GetServer())
		c.uint(b.EndLease.GetGeneration())
		c.str(b.EndLease.GetPublishRequestId())
		c.str(b.EndLease.GetOutcome())
	case *logv1.Command_SetMaintenance:
		c.uint(40)
		c.str(b.SetMaintenance.GetServer())
		c.bool(b.SetMaintenance.GetActive())
		c.str(b.SetMaintenance.GetReason())
		c.time(b.SetMaintenance.GetEstimatedReturn())
	case *logv1.Command_ResumeApply:
		c.uint(72)
		c.str(b.ResumeApply.GetSet())
	default:
		c.partitionCommand(cmd)
	}
}
