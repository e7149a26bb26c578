package fsm

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
	"pgregory.net/rapid"

	logv1 "quorate/proto/quorate/log/v1"
	quoratev1 "quorate/proto/quorate/v1"
)

// modelPartitions is the part of the model for partitions and instances. It keeps no index and no deadline: whatever depends on time is looked up in
// the list of all stamps there ever were.
type modelPartitions struct {
	m         *model
	stamps    []modelStamp
	index     uint64 // Of the entry that is applied now.
	byID      map[string]*modelPartition
	deleted   uint64 // The highest epoch of any deleted one.
	instances map[string]modelInstance
	// gone and undrained have the index of the last entry by which an instance went, 0 if none did.
	gone, undrained uint64

	barrier, least, floor, ttl time.Duration
	formerTTL                  time.Duration
	lowered                    uint64

	// What was ever seen, for compare: the last epoch of each id, and who was told to read and write at each epoch.
	epochs map[string]uint64
	owners map[string]string
}

type modelStamp struct {
	now, lease time.Duration // Lease is how long one could last then.
	applied    uint64
}

type modelPartition struct {
	placement, previous string
	epoch, revision     uint64
	barrier             time.Duration
	migration           *modelMigration
}

type modelMigration struct {
	to                              string
	barrier                         time.Duration
	early, verify, verified, passed bool
	servers                         []string
	cutover                         uint64 // The index of its entry.
	done                            uint64
}

type modelInstance struct{ actor, session string }

func newModelPartitions(m *model) *modelPartitions {
	return &modelPartitions{
		m: m, byID: map[string]*modelPartition{}, instances: map[string]modelInstance{}, epochs: map[string]uint64{}, owners: map[string]string{},
		barrier: 30 * time.Second, least: 30 * time.Second, floor: 5 * time.Second, ttl: 2 * time.Second,
	}
}

func (p *modelPartitions) stamp(applied, index uint64) {
	p.stamps = append(p.stamps, modelStamp{now: p.m.now, applied: applied})
	p.stamps[len(p.stamps)-1].lease = p.longest()
	p.index = index
}

// settled is the first stamp of a leader that had applied an entry.
func (p *modelPartitions) settled(index uint64) (modelStamp, bool) {
	for _, s := range p.stamps {
		if s.applied >= index {
			return s, true
		}
	}
	return modelStamp{}, false
}

// longest is for how long a lease that stands can have been granted.
func (p *modelPartitions) longest() time.Duration {
	if p.formerTTL == 0 {
		return p.ttl
	}
	if s, ok := p.settled(p.lowered); ok && p.m.now-s.now > p.formerTTL*102/100 {
		return p.ttl
	}
	return max(p.ttl, p.formerTTL)
}

func (p *modelPartitions) left(m *modelMigration) time.Duration {
	s, ok := p.settled(m.cutover)
	if !ok {
		return m.barrier
	}
	return max(s.now+m.barrier-p.m.now, 0)
}

// mayBeEarly says whether a completion before the barrier has passed can be right.
func (p *modelPartitions) mayBeEarly(m *modelMigration) bool {
	s, begun := p.settled(m.cutover)
	if m.cutover == 0 || !m.early || !begun || p.m.now-s.now < p.floor {
		return false
	}
	if p.undrained == 0 {
		return true
	}
	s, known := p.settled(p.undrained)
	return known && p.m.now >= s.now+s.lease*102/100+m.barrier
}

func (p *modelPartitions) gatesOpen(c *logv1.Command) bool {
	switch b := c.GetBody().(type) {
	case *logv1.Command_SetPlacement:
		return !b.SetPlacement.GetGatesClosed()
	case *logv1.Command_DeletePartition:
		return !b.DeletePartition.GetGatesClosed()
	case *logv1.Command_BeginMigration:
		return !b.BeginMigration.GetGatesClosed()
	case *logv1.Command_CutoverMigration:
		return !b.CutoverMigration.GetGatesClosed()
	case *logv1.Command_CompleteMigration:
		return !b.CompleteMigration.GetGatesClosed()
	case *logv1.Command_AbortMigration:
		return !b.AbortMigration.GetGatesClosed()
	}
	return false
}

// find looks for a partition in a phase: "active", "migrating", or one of the two of a migration.
func (p *modelPartitions) find(id string, expected uint64, phase string) (*modelPartition, string) {
	v := p.byID[id]
	switch {
	case v == nil:
		return nil, ReasonUnknownPartition
	case expected != 0 && expected != v.epoch:
		return nil, ReasonStaleEpoch
	case phase == "active" && v.migration != nil:
		return nil, ReasonAlreadyMigrating
	case phase != "active" && v.migration == nil:
		return nil, ReasonNotMigrating
	case phase == "draining" && v.migration.cutover != 0:
		return nil, ReasonNotDraining
	case phase == "cutover" && v.migration.cutover == 0:
		return nil, ReasonNotCutover
	}
	return v, "ok"
}

// move ends a transition.
func (p *modelPartitions) move(v *modelPartition) string {
	v.epoch++
	v.revision = p.index
	return "ok"
}

func (p *modelPartitions) public(c *logv1.Command) string {
	switch b := c.GetBody().(type) {
	case *logv1.Command_CreatePartitions:
		return p.create(b.CreatePartitions)
	case *logv1.Command_SetPlacement:
		v, answer := p.find(b.SetPlacement.GetPartition(), b.SetPlacement.GetExpectedEpoch(), "active")
		switch {
		case v == nil:
			return answer
		case v.placement == b.SetPlacement.GetPlacement():
			return ReasonSamePlacement
		}
		v.previous, v.placement = v.placement, b.SetPlacement.GetPlacement()
		return p.move(v)
	case *logv1.Command_DeletePartition:
		v, answer := p.find(b.DeletePartition.GetPartition(), b.DeletePartition.GetExpectedEpoch(), "active")
		if v != nil {
			p.deleted = max(p.deleted, v.epoch)
			delete(p.byID, b.DeletePartition.GetPartition())
		}
		return answer
	case *logv1.Command_BeginMigration:
		return p.begin(b.BeginMigration)
	case *logv1.Command_ReportMigration:
		v, answer := p.find(b.ReportMigration.GetPartition(), b.ReportMigration.GetExpectedEpoch(), "migrating")
		if v != nil {
			v.migration.verified = v.migration.verified || b.ReportMigration.GetVerified()
			if b.ReportMigration.GetCopy() != nil {
				v.migration.done = b.ReportMigration.GetCopy().GetDone()
			}
		}
		return answer
	case *logv1.Command_CutoverMigration:
		return p.cutover(b.CutoverMigration)
	case *logv1.Command_CompleteMigration:
		v, answer := p.find(b.CompleteMigration.GetPartition(), b.CompleteMigration.GetExpectedEpoch(), "cutover")
		switch {
		case v == nil:
			return answer
		case p.left(v.migration) > 0 && !(b.CompleteMigration.GetDrained() && p.mayBeEarly(v.migration)):
			return ReasonBarrierPending
		}
		v.previous, v.placement, v.migration = v.placement, v.migration.to, nil
		return p.move(v)
	case *logv1.Command_AbortMigration:
		v, answer := p.find(b.AbortMigration.GetPartition(), b.AbortMigration.GetExpectedEpoch(), "migrating")
		if v == nil {
			return answer
		}
		v.migration = nil
		return p.move(v)
	case *logv1.Command_SetPartitionSettings:
		return p.set(b.SetPartitionSettings.GetSettings())
	case *logv1.Command_RegisterInstance:
		return p.register(c.GetActor().GetName(), b.RegisterInstance)
	case *logv1.Command_RemoveInstance:
		return p.remove(b.RemoveInstance)
	}
	return "ok"
}

func (p *modelPartitions) create(c *logv1.CreatePartitions) string {
	for _, id := range c.GetIds() {
		if p.byID[id] != nil {
			return ReasonPartitionExists
		}
	}
	if c.GetDrainBarrier() != nil && c.GetDrainBarrier().AsDuration() < p.least {
		return ReasonInvalidDrainBarrier
	}
	for _, id := range c.GetIds() {
		p.byID[id] = &modelPartition{placement: c.GetPlacement(), epoch: p.deleted + 1, revision: p.index, barrier: c.GetDrainBarrier().AsDuration()}
	}
	return "ok"
}

func (p *modelPartitions) begin(c *logv1.BeginMigration) string {
	if c.GetDrainBarrier() != nil && c.GetDrainBarrier().AsDuration() < p.least {
		return ReasonInvalidDrainBarrier
	}
	for _, server := range c.GetServers() {
		if p.m.current()[server] == "" {
			return ReasonUnknownServer
		}
	}
	v, answer := p.find(c.GetPartition(), c.GetExpectedEpoch(), "active")
	switch {
	case v == nil:
		return answer
	case v.placement == c.GetTo():
		return ReasonSamePlacement
	}
	barrier := p.barrier
	if v.barrier > 0 {
		barrier = v.barrier
	}
	if c.GetDrainBarrier() != nil {
		barrier = c.GetDrainBarrier().AsDuration()
	}
	v.migration = &modelMigration{to: c.GetTo(), barrier: max(barrier, p.least), early: c.GetEarlyCompletion(), verify: c.GetVerificationRequired(),
		servers: c.GetServers()}
	return p.move(v)
}

func (p *modelPartitions) cutover(c *logv1.CutoverMigration) string {
	v, answer := p.find(c.GetPartition(), c.GetExpectedEpoch(), "draining")
	switch {
	case v == nil:
		return answer
	case v.migration.verify && !v.migration.verified:
		return ReasonVerificationRequired
	}
	for _, l := range p.m.leases {
		if l.server == v.placement || l.server == v.migration.to || slices.Contains(v.migration.servers, l.server) {
			return ReasonApplyInProgress
		}
	}
	v.migration.cutover = p.index
	return p.move(v)
}

func (p *modelPartitions) set(c *quoratev1.PartitionSettings) string {
	or := func(d *durationpb.Duration, before time.Duration) time.Duration {
		if d == nil {
			return before
		}
		return d.AsDuration()
	}
	barrier, least, ttl := or(c.GetDrainBarrier(), p.barrier), or(c.GetMinDrainBarrier(), p.least), or(c.GetGateTtl(), p.ttl)
	if barrier < least {
		return ReasonInvalidSetting
	}
	if ttl < p.ttl {
		p.formerTTL, p.lowered = p.longest(), p.index
	}
	p.barrier, p.least, p.floor, p.ttl = barrier, least, or(c.GetEarlyFloor(), p.floor), ttl
	for _, v := range p.byID {
		if v.migration != nil && v.migration.barrier < p.least {
			v.migration.barrier = p.least
			v.migration.passed = v.migration.passed && p.left(v.migration) == 0
		}
	}
	return "ok"
}

func (p *modelPartitions) register(actor string, c *logv1.RegisterInstance) string {
	known, ok := p.instances[c.GetId()]
	switch {
	case ok && known.actor != actor:
		return ReasonInstanceTaken
	case ok && known.session != c.GetSession():
		p.gone, p.undrained = p.index, p.index
	}
	p.instances[c.GetId()] = modelInstance{actor, c.GetSession()}
	return "ok"
}

func (p *modelPartitions) remove(c *logv1.RemoveInstance) string {
	known, ok := p.instances[c.GetId()]
	switch {
	case !ok:
		return ReasonUnknownInstance
	case c.GetSession() != "" && c.GetSession() != known.session:
		return ReasonStaleSession
	}
	delete(p.instances, c.GetId())
	if p.gone = p.index; c.GetSession() == "" || !c.GetDrained() {
		p.undrained = p.index
	}
	return "ok"
}

func (p *modelPartitions) forget(c *logv1.ForgetInstance) {
	if known, ok := p.instances[c.GetId()]; ok && known.session == c.GetSession() {
		delete(p.instances, c.GetId())
		p.gone, p.undrained = p.index, p.index
	}
}

// pulse tells what has passed.
func (p *modelPartitions) pulse() {
	for _, v := range p.byID {
		if v.migration != nil && v.migration.cutover != 0 && p.left(v.migration) == 0 {
			v.migration.passed = true
		}
	}
}

// earliest is when a pulse would do something, -1 if never.
func (p *modelPartitions) earliest() time.Duration {
	earliest := time.Duration(-1)
	for _, v := range p.byID {
		if v.migration == nil || v.migration.cutover == 0 || v.migration.passed {
			continue
		}
		at := p.m.now
		if s, ok := p.settled(v.migration.cutover); ok {
			at = s.now + v.migration.barrier
		}
		if earliest < 0 || at < earliest {
			earliest = at
		}
	}
	return earliest
}

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

// next is the command that brings a partition on.
func (p *modelPartitions) next(id string) string {
	switch v := p.byID[id]; {
	case v == nil:
		return "create"
	case v.migration == nil:
		return "begin"
	case v.migration.cutover == 0 && v.migration.verify && !v.migration.verified:
		return "report"
	case v.migration.cutover == 0:
		return "cutover"
	default:
		return "complete"
	}
}

var partitionIDs = []string{"p1", "p2", "p3", "p4"}

// drawPartitionCommand draws a command such that migrations often come to their end. Request ids are mostly new.
func drawPartitionCommand(t *rapid.T, p *modelPartitions, number int) *logv1.Command {
	id := rapid.SampledFrom(partitionIDs).Draw(t, "partition")
	placement := rapid.SampledFrom([]string{"north", "south", "m1", "m2"}).Draw(t, "placement")
	expected := uint64(0)
	if v := p.byID[id]; v != nil {
		expected = rapid.SampledFrom([]uint64{0, 0, v.epoch, v.epoch, v.epoch, v.epoch - 1}).Draw(t, "expected")
	}
	seconds := func(label string, from ...int64) *durationpb.Duration {
		if s := rapid.SampledFrom(from).Draw(t, label); s >= 0 {
			return &durationpb.Duration{Seconds: s}
		}
		return nil
	}
	session := rapid.SampledFrom([]string{"session-session-1", "session-session-2"}).Draw(t, "session")
	c := &logv1.Command{
		RequestId: fmt.Sprint("r", rapid.SampledFrom([]int{number, number, number, number, number - 1, number - 5}).Draw(t, "id")),
		Actor:     &quoratev1.Actor{Name: rapid.SampledFrom([]string{"ann", "ann", "ann", "bob"}).Draw(t, "actor")},
	}
	command := rapid.SampledFrom([]string{"next", "settings", "register", "remove", "pulse", "create", "place", "delete", "begin", "report", "cutover", "complete", "abort",
		"forget", "tick", "lease", "unlease", "publish"}).Draw(t, "command")
	if command == "next" || rapid.Bool().Draw(t, "next") {
		command, expected = p.next(id), 0
	}
	switch command {
	case "create":
		c.Body = &logv1.Command_CreatePartitions{CreatePartitions: &logv1.CreatePartitions{Ids: partitionIDs[:rapid.IntRange(1, 4).Draw(t, "ids")], Placement: placement,
			DrainBarrier: seconds("own", -1, -1, 20)}}
	case "place":
		c.Body = &logv1.Command_SetPlacement{SetPlacement: &logv1.SetPlacement{Partition: id, Placement: placement, ExpectedEpoch: expected}}
	case "delete":
		c.Body = &logv1.Command_DeletePartition{DeletePartition: &logv1.DeletePartition{Partition: id, ExpectedEpoch: expected}}
	case "begin":
		b := &logv1.BeginMigration{Partition: id, To: placement, ExpectedEpoch: expected, DrainBarrier: seconds("barrier", -1, -1, 12, 45),
			EarlyCompletion: rapid.Bool().Draw(t, "early"), VerificationRequired: rapid.IntRange(0, 3).Draw(t, "verify") == 0}
		if rapid.IntRange(0, 3).Draw(t, "with servers") == 0 {
			b.Servers = []string{rapid.SampledFrom(servers).Draw(t, "server")}
		}
		c.Body = &logv1.Command_BeginMigration{BeginMigration: b}
	case "report":
		b := &logv1.ReportMigration{Partition: id, ExpectedEpoch: expected, Verified: rapid.Bool().Draw(t, "verified")}
		if done := rapid.Uint64Range(0, 3).Draw(t, "done"); done > 0 {
			b.Copy = &quoratev1.CopyProgress{Done: done, Total: 3}
		}
		c.Body = &logv1.Command_ReportMigration{ReportMigration: b}
	case "cutover":
		c.Body = &logv1.Command_CutoverMigration{CutoverMigration: &logv1.CutoverMigration{Partition: id, ExpectedEpoch: expected}}
	case "complete":
		c.Body = &logv1.Command_CompleteMigration{CompleteMigration: &logv1.CompleteMigration{Partition: id, ExpectedEpoch: expected, Drained: rapid.Bool().Draw(t, "drained")}}
	case "abort":
		c.Body = &logv1.Command_AbortMigration{AbortMigration: &logv1.AbortMigration{Partition: id, ExpectedEpoch: expected}}
	case "settings":
		c.Body = &logv1.Command_SetPartitionSettings{SetPartitionSettings: &logv1.SetPartitionSettings{Settings: &quoratev1.PartitionSettings{
			DrainBarrier: seconds("barrier", -1, 10, 30, 60), MinDrainBarrier: seconds("least", -1, -1, 5, 10, 25, 40), EarlyFloor: seconds("floor", -1, 0, 5),
			GateTtl: seconds("ttl", -1, 1, 2, 10)}}}
	case "register":
		c.Body = &logv1.Command_RegisterInstance{RegisterInstance: &logv1.RegisterInstance{Id: id, Session: session}}
	case "remove":
		c.Body = &logv1.Command_RemoveInstance{RemoveInstance: &logv1.RemoveInstance{Id: id,
			Session: rapid.SampledFrom([]string{"", session, session}).Draw(t, "as"), Drained: rapid.Bool().Draw(t, "drained")}}
	case "forget":
		return &logv1.Command{Body: &logv1.Command_ForgetInstance{ForgetInstance: &logv1.ForgetInstance{Id: id, Session: session}}}
	case "pulse":
		return &logv1.Command{Body: &logv1.Command_Pulse{Pulse: &logv1.Pulse{}}}
	case "tick":
		return &logv1.Command{Body: &logv1.Command_Tick{Tick: &logv1.Tick{}}}
	case "lease":
		c.Body = &logv1.Command_BeginLease{BeginLease: &logv1.BeginLease{Server: rapid.SampledFrom(servers).Draw(t, "server")}}
	case "unlease":
		c.Body = &logv1.Command_EndLease{EndLease: &logv1.EndLease{Server: rapid.SampledFrom(servers).Draw(t, "server")}}
	default:
		c.Body = &logv1.Command_PublishTopology{PublishTopology: &logv1.PublishTopology{ExpectedGeneration: p.m.generation, Topology: drawTopology(t)}}
	}
	GatesClosed(c, rapid.IntRange(0, 7).Draw(t, "gates open") > 0)
	return c
}

// TestPartitionModel puts random entries of partitions and instances to the trial. Their leaders had applied more or less of what came before. In the end every
// kind of transition has to have come about, or the trial would prove little.
func TestPartitionModel(t *testing.T) {
	seen := map[string]int{}
	rapid.Check(t, func(t *rapid.T) {
		r, number := newTrial(t), 0
		r.repeat(t, map[string]func(*rapid.T){
			"entry": func(t *rapid.T) {
				r.elapse(t, 0, time.Second, 5*time.Second, 30*time.Second, -10*time.Second, 11*time.Minute)
				applied := r.index
				if behind := rapid.Uint64Range(0, 6).Draw(t, "behind"); behind > 3 {
					applied -= min(applied, behind-3)
				}
				r.apply(t, applied, rapid.IntRange(1, 8).Draw(t, "commands"), func() *logv1.Command {
					number++
					return drawPartitionCommand(t, r.model.partitions, number)
				})
				for _, e := range r.events {
					c := e.GetPartitionChanged()
					seen[strings.TrimPrefix(c.GetTransition().String(), "PARTITION_TRANSITION_")+map[bool]string{true: " early"}[c.GetEarly()]]++
				}
			},
		})
	})
	for _, what := range []string{"SET_PLACEMENT", "DELETE", "BEGIN", "CUTOVER", "COMPLETE", "COMPLETE early", "ABORT", "REPORT", "BARRIER_BEGUN", "BARRIER_PASSED"} {
		if seen[what] == 0 && !t.Failed() {
			t.Errorf("no %s among %v", what, seen)
		}
	}
	t.Log(seen)
}
