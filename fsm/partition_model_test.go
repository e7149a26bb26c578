package fsm

import (
	"slices"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

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
