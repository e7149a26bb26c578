package fsm

import (
	"fmt"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	logv1 "quorate/proto/quorate/log/v1"
	quoratev1 "quorate/proto/quorate/v1"
)

// partitionSettings are the settings in force for all partitions.
type partitionSettings struct {
	barrier, leastBarrier, earlyFloor, gateTTL time.Duration
	// formerTTL was the gate TTL until it was lowered; leases of that length may stand for a while. 0 if it never was.
	formerTTL time.Duration
	lowered   moment
}

// defaultSettings hold until an administrator sets others.
var defaultSettings = partitionSettings{
	barrier: DefaultDrainBarrier, leastBarrier: DefaultDrainBarrier, earlyFloor: DefaultEarlyFloor, gateTTL: DefaultGateTTL,
}

// setPartitionSettings changes the settings that are given.
func (a *application) setPartitionSettings(c *logv1.SetPartitionSettings) (*logv1.Outcome, *Refusal) {
	before := a.partitions.settings
	after := before
	for _, f := range []struct {
		name        string
		given       *durationpb.Duration
		least, most time.Duration
		field       *time.Duration
	}{
		{"drain_barrier", c.GetSettings().GetDrainBarrier(), MinDrainBarrier, MaxDrainBarrier, &after.barrier},
		{"min_drain_barrier", c.GetSettings().GetMinDrainBarrier(), MinDrainBarrier, MaxDrainBarrier, &after.leastBarrier},
		{"early_floor", c.GetSettings().GetEarlyFloor(), 0, MaxDrainBarrier, &after.earlyFloor},
		{"gate_ttl", c.GetSettings().GetGateTtl(), MinGateTTL, MaxGateTTL, &after.gateTTL},
	} {
		if f.given == nil {
			continue
		}
		v, ok := checkedDuration(f.given)
		if !ok || v < f.least || v > f.most {
			return nil, invalid(ReasonInvalidSetting, "settings."+f.name, "it must be %v to %v", f.least, f.most)
		}
		*f.field = v
	}
	if after.barrier < after.leastBarrier {
		return nil, invalid(ReasonInvalidSetting, "settings.drain_barrier", "%v is less than the min_drain_barrier of %v", after.barrier, after.leastBarrier)
	}
	if after == before {
		return settingsAre(before), nil
	}
	if after.gateTTL < before.gateTTL {
		after.formerTTL, after.lowered = a.LongestGateTTL(), a.clock.moment()
	}
	a.partitions.settings = after
	if after.leastBarrier > before.leastBarrier {
		a.raiseBarriers()
	}
	a.emit(&quoratev1.Event{Body: &quoratev1.Event_PartitionSettingsChanged{PartitionSettingsChanged: after.message()}})
	return settingsAre(after), nil
}

// raiseBarriers makes no barrier of a migration that is under way shorter than the least. One that has passed may begin to count again, and then its end is
// told again.
func (a *application) raiseBarriers() {
	least := a.partitions.settings.leastBarrier
	migrating := a.partitions.migrating.Snapshot()
	for id := range migrating.All() {
		p, _ := a.partitions.byID.Get(id)
		if p.migration.record.GetDrainBarrier().AsDuration() >= least {
			continue
		}
		raised := &migration{record: proto.CloneOf(p.migration.record)}
		raised.record.DrainBarrier = durationpb.New(least)
		raised.passed = p.migration.passed && raised.end() <= a.clock.now
		a.migrate(id, &p, raised)
		a.partitions.byID.Set(id, p)
	}
}

func (p partitionSettings) message() *quoratev1.PartitionSettings {
	return &quoratev1.PartitionSettings{
		DrainBarrier: durationpb.New(p.barrier), MinDrainBarrier: durationpb.New(p.leastBarrier),
		EarlyFloor: durationpb.New(p.earlyFloor), GateTtl: durationpb.New(p.gateTTL),
	}
}

// PartitionSettings returns what holds for all partitions.
func (s *State) PartitionSettings() *quoratev1.PartitionSettings {
	return s.partitions.settings.message()
}

// GateTTL is for how long a gate lease is granted.
func (s *State) GateTTL() time.Duration { return s.partitions.settings.gateTTL }

// LongestGateTTL is for how long one that stands can have been granted, by whatever leader: the setting may have been lowered a moment ago.
func (s *State) LongestGateTTL() time.Duration {
	p := s.partitions.settings
	if p.lowered.ever() && p.lowered.since(s.clock.now) <= GateEnd(p.formerTTL) {
		return max(p.gateTTL, p.formerTTL)
	}
	return p.gateTTL
}

// GateEnd is for how long a gate lease may be used, by any clock other than its holder's: that may be 2 % slower.
func GateEnd(ttl time.Duration) time.Duration { return ttl + ttl/50 }

// check is the invariant of the settings.
func (p partitionSettings) check(c clock) error {
	if p.leastBarrier < MinDrainBarrier || p.barrier < p.leastBarrier || p.barrier > MaxDrainBarrier || p.earlyFloor < 0 || p.earlyFloor > MaxDrainBarrier ||
		p.gateTTL < MinGateTTL || p.gateTTL > MaxGateTTL || p.formerTTL < 0 || p.formerTTL > MaxGateTTL || p.lowered.ever() != (p.formerTTL != 0) {
		return fmt.Errorf("the settings %+v are out of their ranges", p)
	}
	return p.lowered.check(c, 0)
}
