package fsm

import (
	"fmt"
	"slices"
	"time"

	"pgregory.net/rapid"

	quoratev1 "quorate/proto/quorate/v1"
)

// say puts a partition into the words of sayPartition, as far as the model knows of it.
func (p *modelPartitions) say(id string) string {
	v := p.byID[id]
	if v == nil {
		return "none"
	}
	phase := "active"
	if v.migration != nil {
		phase = map[bool]string{true: "draining", false: "cutover"}[v.migration.cutover == 0]
	}
	out := fmt.Sprintf("%s %s %s %s %d %d %v", id, phase, v.placement, v.previous, v.epoch, v.revision, v.barrier)
	if m := v.migration; m != nil {
		out += fmt.Sprintf(" → %s %v %t %t %t %v %d %d", m.to, m.barrier, m.early, m.verify, m.verified, m.servers, m.done, m.cutover)
		if s, begun := p.settled(m.cutover); begun && m.cutover != 0 {
			out += fmt.Sprintf(" begun %v", s.now)
		}
		if m.cutover != 0 {
			out += fmt.Sprintf(" left %v", p.left(m))
		}
	}
	return out
}

// saySame does it for what the state says.
func saySame(v *quoratev1.Partition) string {
	out := fmt.Sprintf("%s %s %s %s %d %d %v", v.GetId(), phaseName(v.GetPhase()), v.GetPlacement(), v.GetPreviousPlacement(), v.GetEpoch(), v.GetRevision(),
		v.GetDrainBarrier().AsDuration())
	if m := v.GetMigration(); m != nil {
		out += fmt.Sprintf(" → %s %v %t %t %t %v %d %d", m.GetTo(), m.GetDrainBarrier().AsDuration(), m.GetEarlyCompletion(), m.GetVerificationRequired(), m.GetVerified(),
			m.GetServers(), m.GetCopy().GetDone(), m.GetCutoverRevision())
		if m.GetBarrierBegun() != nil {
			out += fmt.Sprintf(" begun %v", m.GetBarrierBegun().AsDuration())
		}
		if m.GetBarrierLeft() != nil {
			out += fmt.Sprintf(" left %v", m.GetBarrierLeft().AsDuration())
		}
	}
	return out
}

// compare fails unless a state says what the model says, and unless what it has said so far keeps the promises of partitions.md §4.
func (p *modelPartitions) compare(t *rapid.T, s *State, events []*quoratev1.Event) {
	for _, id := range partitionIDs {
		have := "none"
		if v, r := s.Partition(id); r == nil {
			have = saySame(v)
		}
		if want := p.say(id); have != want {
			t.Fatalf("partition is %s, want %s", have, want)
		}
		p.checkOwner(t, id, s.Resolve(id))
	}
	for _, e := range events {
		p.checkEvent(t, e)
	}
	p.comparePlacements(t, s)
	p.compareInstances(t, s)
	early := map[string]uint64{}
	for _, c := range s.EarlyCutovers() {
		early[c.GetPartition()] = c.GetEpoch()
	}
	for id, v := range p.byID {
		may := v.migration != nil && p.mayBeEarly(v.migration)
		waits := v.migration != nil && v.migration.early && v.migration.cutover != 0 && !v.migration.passed
		if s.MayCompleteEarly(id) != may || (early[id] == v.epoch) != waits {
			t.Fatalf("partition %s may be completed early %t and waits for it since epoch %d; want %t, %t", id, s.MayCompleteEarly(id), early[id], may, waits)
		}
	}
	have := fmt.Sprint(saySettings(s.PartitionSettings()), s.LongestGateTTL())
	want := fmt.Sprint(saySettings(partitionSettings{barrier: p.barrier, leastBarrier: p.least, earlyFloor: p.floor, gateTTL: p.ttl}.message()), p.longest())
	if have != want {
		t.Fatalf("settings %s, want %s", have, want)
	}
}

// checkOwner is INV-M4: nobody is told two owners for one epoch, and epochs never go back.
func (p *modelPartitions) checkOwner(t *rapid.T, id string, r *quoratev1.Resolution) {
	if r.GetEpoch() == 0 {
		return
	}
	if r.GetEpoch() < p.epochs[id] {
		t.Fatalf("partition %s went back from epoch %d to %d", id, p.epochs[id], r.GetEpoch())
	}
	key, owner := fmt.Sprint(id, "/", r.GetEpoch()), r.GetReadPlacement()+"/"+r.GetWritePlacement()
	if before, known := p.owners[key]; known && before != owner {
		t.Fatalf("partition %s was told to be at %s, and then at %s", key, before, owner)
	}
	p.owners[key] = owner
}

// checkEvent holds each transition to its promise: a new epoch, no completion before the barrier unless it says so, and the old owner after an abort.
func (p *modelPartitions) checkEvent(t *rapid.T, e *quoratev1.Event) {
	rise := func(id string, epoch uint64) {
		if epoch <= p.epochs[id] {
			t.Fatalf("partition %s gets epoch %d after %d", id, epoch, p.epochs[id])
		}
		p.epochs[id] = epoch
	}
	for _, id := range e.GetPartitionsCreated().GetIds() {
		rise(id, e.GetPartitionsCreated().GetEpoch())
	}
	c := e.GetPartitionChanged()
	switch c.GetTransition() {
	case quoratev1.PartitionTransition_PARTITION_TRANSITION_UNSPECIFIED, quoratev1.PartitionTransition_PARTITION_TRANSITION_DELETE,
		quoratev1.PartitionTransition_PARTITION_TRANSITION_REPORT, quoratev1.PartitionTransition_PARTITION_TRANSITION_BARRIER_BEGUN,
		quoratev1.PartitionTransition_PARTITION_TRANSITION_BARRIER_PASSED:
		return
	}
	rise(c.GetPartition().GetId(), c.GetPartition().GetEpoch())
	ended := c.GetEnded()
	switch c.GetTransition() {
	case quoratev1.PartitionTransition_PARTITION_TRANSITION_COMPLETE:
		s, begun := p.settled(ended.GetCutoverRevision())
		if !begun || !c.GetEarly() && e.GetClusterTime().AsDuration()-s.now < ended.GetDrainBarrier().AsDuration() {
			t.Fatalf("completed too soon: %v", e)
		}
		if c.GetPartition().GetPlacement() != ended.GetTo() || c.GetPartition().GetMigration() != nil {
			t.Fatalf("completed elsewhere: %v", e)
		}
	case quoratev1.PartitionTransition_PARTITION_TRANSITION_ABORT:
		if c.GetPartition().GetPlacement() != ended.GetFrom() || c.GetPartition().GetMigration() != nil {
			t.Fatalf("aborted, and not where it was: %v", e)
		}
	}
}

// comparePlacements counts anew: every partition has one owner.
func (p *modelPartitions) comparePlacements(t *rapid.T, s *State) {
	count := map[string]*quoratev1.Placement{}
	at := func(name string) *quoratev1.Placement {
		if count[name] == nil {
			count[name] = &quoratev1.Placement{Id: name}
		}
		return count[name]
	}
	migrating := 0
	for _, v := range p.byID {
		at(v.placement).Partitions++
		if v.migration != nil {
			migrating++
			at(v.placement).Leaving++
			at(v.migration.to).Coming++
		}
	}
	var have, want []string
	for _, c := range s.Placements() {
		have = append(have, c.String())
	}
	for _, c := range count {
		want = append(want, c.String())
	}
	slices.Sort(have)
	slices.Sort(want)
	if all, moving := s.PartitionCount(); all != len(p.byID) || moving != migrating || !slices.Equal(have, want) {
		t.Fatalf("%d partitions, %d migrate, %v; want %d, %d, %v", all, moving, have, len(p.byID), migrating, want)
	}
}

func (p *modelPartitions) compareInstances(t *rapid.T, s *State) {
	if s.InstanceCount() != len(p.instances) {
		t.Fatalf("%d instances, want %d", s.InstanceCount(), len(p.instances))
	}
	for id, i := range p.instances {
		if s.CheckInstance(id, i.session) != nil || s.CheckInstance(id, i.session+"x").GetReason() != ReasonStaleSession {
			t.Fatalf("instance %s is not registered with %s", id, i.session)
		}
	}
	since := time.Duration(0)
	if m, ok := p.settled(p.gone); ok && p.gone != 0 {
		since = p.m.now - m.now
	}
	if have, ever := s.InstancesGone(); have != since || ever != (p.gone != 0) {
		t.Fatalf("an instance is gone for %v, ever %t; want %v, %t", have, ever, since, p.gone != 0)
	}
}
