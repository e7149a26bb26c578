package validate

import (
	"encoding/json"
	"slices"
	"strconv"
	"strings"
	"time"

	"quorate/jepsen/history"
	quoratev1 "quorate/proto/quorate/v1"
)

// partitions is check 5.
func partitions() check {
	return check{
		name: "partitions", claim: "INV-M1 to M4 hold: no write lands at the old placement after completion, no check passes late, an abort leaves the old owner, nobody is told another owner for an epoch; no barrier is short; and nothing moves while a member is of a version that does not know partitions.",
		needs: []string{"partition", "gate"},
		judge: func(r *record, v *Verdict) {
			l := &ledger{v: v, partitions: map[string]map[uint64]*stay{}, order: map[string][]uint64{}, instances: map[int]bool{}}
			l.gather(r)
			for _, id := range sorted(l.partitions) {
				l.settle(id)
			}
			for _, c := range l.checks {
				l.judgeCheck(c)
			}
			for _, w := range l.writes {
				l.judgeWrite(w, r.run.WriteLimit)
			}
			l.judgeBarriers(r)
			l.judgeAborts(r)
			judgeVersions(r, v)
		},
	}
}

// ledger has when each epoch can have been the current one, by our clock; sim.Ledger is its like.
type ledger struct {
	v          *Verdict
	partitions map[string]map[uint64]*stay
	checks     []gateCheck
	writes     []landing
	// instances are the checks that were made by a registered instance.
	instances map[int]bool
	// order has the epochs of each partition, once they are settled.
	order map[string][]uint64
}

// stay is a partition at one epoch.
type stay struct {
	epoch uint64
	// owner is who was told to own it, and phase in which phase; known says that somebody was told.
	owner string
	phase quoratev1.PartitionPhase
	known bool
	// called is when it can have begun at the earliest, and returned by when it certainly had.
	called, returned time.Duration
	// completed says that it began with a completion, early that this one did not wait for the barrier.
	completed, early bool
	ops              []int
}

// gateCheck is what somebody was told by a gate. An epoch with no owner says that nobody may write.
type gateCheck struct {
	op        *history.Op
	partition string
	epoch     uint64
	owner     string
}

// landing is a write that reached a placement.
type landing struct {
	op        *history.Op
	partition string
	placement string
	epoch     uint64
	called    time.Duration
	// instance says that its gate was one of a registered instance, whose word an early completion waits for.
	instance bool
}

const never = time.Duration(1<<63 - 1)

func (l *ledger) stay(partition string, epoch uint64) *stay {
	if l.partitions[partition] == nil {
		l.partitions[partition] = map[uint64]*stay{}
	}
	s := l.partitions[partition][epoch]
	if s == nil {
		s = &stay{epoch: epoch, returned: never}
		l.partitions[partition][epoch] = s
	}
	return s
}

// see notes that a partition was seen at an epoch by then. INV-M4: whoever is told of an epoch is told the same.
func (l *ledger) see(partition string, epoch uint64, phase quoratev1.PartitionPhase, owner string, by time.Duration, op int) {
	if epoch == 0 || owner == "" {
		return
	}
	l.v.Checked++
	s := l.stay(partition, epoch)
	if s.known && (s.owner != owner || phase != 0 && s.phase != 0 && s.phase != phase) {
		l.v.problem(by, by, append(slices.Clone(s.ops), op), "%s: epoch %d is told to be %v at %s, and was told to be %v at %s", partition, epoch, phase, owner, s.phase, s.owner)
		return
	}
	s.owner, s.known = owner, true
	if phase != 0 {
		s.phase = phase
	}
	s.returned = min(s.returned, by)
	if len(s.ops) < 4 && op >= 0 {
		s.ops = append(s.ops, op)
	}
}

// gather reads the history.
func (l *ledger) gather(r *record) {
	for i := range r.Ops {
		op := &r.Ops[i]
		if op.Noun != "partition" {
			continue
		}
		switch op.Kind {
		case "create":
			answer := &quoratev1.CreatePartitionsResponse{}
			request := &quoratev1.CreatePartitionsRequest{}
			if l.v.answered(op, answer) && decode(op.Input, request) == nil {
				for _, id := range strings.Split(op.Key, ",") {
					l.made(id, answer.GetEpoch(), op, quoratev1.PartitionPhase_PARTITION_PHASE_ACTIVE, request.GetPlacement())
				}
			}
		case "set_placement", "begin", "report", "cutover", "complete", "abort":
			answer := &quoratev1.BeginMigrationResponse{}
			if l.v.answered(op, answer) {
				p := answer.GetPartition()
				if op.Kind == "complete" {
					early := &quoratev1.CompleteMigrationResponse{}
					l.complete(op.Key, p.GetEpoch(), l.v.answered(op, early) && early.GetEarly())
				}
				if op.Kind == "report" {
					l.see(op.Key, p.GetEpoch(), p.GetPhase(), p.GetPlacement(), op.Return, op.ID)
				} else {
					l.made(op.Key, p.GetEpoch(), op, p.GetPhase(), p.GetPlacement())
				}
			}
		case "get":
			answer := &quoratev1.GetPartitionResponse{}
			if l.v.answered(op, answer) {
				p := answer.GetPartition()
				l.see(op.Key, p.GetEpoch(), p.GetPhase(), p.GetPlacement(), op.Return, op.ID)
			}
		case "resolve":
			answer := &quoratev1.ResolveResponse{}
			if l.v.answered(op, answer) {
				for _, p := range answer.GetResolutions() {
					l.see(p.GetPartition(), p.GetEpoch(), p.GetPhase(), p.GetReadPlacement(), op.Return, op.ID)
				}
			}
		case "check_gate", "gate":
			l.instances[op.ID] = op.Kind == "gate"
			l.gatherGate(op)
		case "land":
			l.gatherLanding(op)
		}
	}
	for _, s := range r.sightings {
		if p := s.GetPartitionChanged().GetPartition(); p != nil && s.GetPartitionChanged().GetTransition() != quoratev1.PartitionTransition_PARTITION_TRANSITION_DELETE {
			l.see(p.GetId(), p.GetEpoch(), p.GetPhase(), p.GetPlacement(), s.at, -1)
			if s.GetPartitionChanged().GetTransition() == quoratev1.PartitionTransition_PARTITION_TRANSITION_COMPLETE {
				l.complete(p.GetId(), p.GetEpoch(), s.GetPartitionChanged().GetEarly())
			}
		}
	}
}

// complete notes that an epoch began with a completion.
func (l *ledger) complete(partition string, epoch uint64, early bool) {
	s := l.stay(partition, epoch)
	s.completed, s.early = true, early
}

// made notes a transition that a client made.
func (l *ledger) made(partition string, epoch uint64, op *history.Op, phase quoratev1.PartitionPhase, owner string) {
	l.see(partition, epoch, phase, owner, op.Return, op.ID)
	s := l.stay(partition, epoch)
	s.called = max(s.called, op.Call)
}

func (l *ledger) gatherGate(op *history.Op) {
	request := &quoratev1.CheckGateRequest{}
	if decode(op.Input, request) != nil || request.GetRead().GetConsistency() > quoratev1.Consistency_CONSISTENCY_LINEARIZABLE {
		return
	}
	// The public API writes 64-bit numbers as text, the gate of the client library has them as numbers.
	var out struct {
		Placement string          `json:"placement"`
		Epoch     json.RawMessage `json:"epoch"`
		Details   struct {
			CurrentEpoch string `json:"current_epoch"`
		} `json:"details"`
	}
	if len(op.Output) > 0 {
		if err := json.Unmarshal(op.Output, &out); err != nil {
			l.v.problem(op.Call, op.Return, []int{op.ID}, "operation %d can't be read: %v", op.ID, err)
			return
		}
	}
	c := gateCheck{op: op, partition: op.Key}
	switch op.Outcome {
	case history.OK:
		c.epoch, c.owner = number(out.Epoch), out.Placement
	case history.Refused:
		// It is told the current epoch, unless there is no such partition.
		if c.epoch, _ = strconv.ParseUint(out.Details.CurrentEpoch, 10, 64); c.epoch == 0 {
			return
		}
	default:
		return
	}
	l.checks = append(l.checks, c)
}

func (l *ledger) gatherLanding(op *history.Op) {
	var in struct {
		Gate   int             `json:"gate"`
		Epoch  json.RawMessage `json:"epoch"`
		Called time.Duration   `json:"called"`
	}
	var out struct {
		Placement string `json:"placement"`
	}
	if json.Unmarshal(op.Input, &in) != nil || json.Unmarshal(op.Output, &out) != nil {
		l.v.problem(op.Call, op.Return, []int{op.ID}, "operation %d can't be read", op.ID)
		return
	}
	if op.Outcome != history.OK {
		return // It came too late.
	}
	l.writes = append(l.writes, landing{op, op.Key, out.Placement, number(in.Epoch), in.Called, l.instances[in.Gate]})
}

// number reads a number that may stand between quotes.
func number(raw json.RawMessage) uint64 {
	n, _ := strconv.ParseUint(strings.Trim(string(raw), `"`), 10, 64)
	return n
}

// settle makes the times of a partition's epochs agree: a later epoch begins no earlier, and an earlier one has certainly begun when a later one has.
func (l *ledger) settle(id string) {
	epochs := sorted(l.partitions[id])
	l.order[id] = epochs
	for i := 1; i < len(epochs); i++ {
		a, b := l.partitions[id][epochs[i-1]], l.partitions[id][epochs[i]]
		b.called = max(b.called, a.called)
	}
	for i := len(epochs) - 2; i >= 0; i-- {
		a, b := l.partitions[id][epochs[i]], l.partitions[id][epochs[i+1]]
		a.returned = min(a.returned, b.returned)
	}
}

// next is the first known epoch after one.
func (l *ledger) next(partition string, epoch uint64) *stay {
	epochs := l.order[partition]
	i, found := slices.BinarySearch(epochs, epoch)
	if found {
		i++
	}
	if i >= len(epochs) {
		return nil
	}
	return l.partitions[partition][epochs[i]]
}

// judgeCheck says whether what a gate told can have been true at some moment between the beginning and the end of the check: INV-M2, M3 and M4.
func (l *ledger) judgeCheck(c gateCheck) {
	l.v.Checked++
	if s := l.partitions[c.partition][c.epoch]; s != nil && s.known && c.owner != "" {
		if s.owner != c.owner {
			l.v.problem(c.op.Call, c.op.Return, append(slices.Clone(s.ops), c.op.ID), "%s: %s was told %q at epoch %d, and it is %q", c.partition, c.op.Client, c.owner, c.epoch, s.owner)
		}
		if s.phase == quoratev1.PartitionPhase_PARTITION_PHASE_CUTOVER {
			l.v.problem(c.op.Call, c.op.Return, append(slices.Clone(s.ops), c.op.ID), "%s: %s may write at epoch %d, which is in cutover (INV-M2)", c.partition, c.op.Client, c.epoch)
		}
		if c.op.Return < s.called {
			l.v.problem(c.op.Call, s.called, append(slices.Clone(s.ops), c.op.ID), "%s: %s was told epoch %d before anybody asked for it", c.partition, c.op.Client, c.epoch)
		}
	}
	if n := l.next(c.partition, c.epoch); n != nil && n.returned < c.op.Call {
		l.v.problem(n.returned, c.op.Return, append(slices.Clone(n.ops), c.op.ID), "%s: %s was told epoch %d by a check that began %v after epoch %d had (INV-M2, M4)",
			c.partition, c.op.Client, c.epoch, c.op.Call-n.returned, n.epoch)
	}
}

// judgeWrite is INV-M1: nothing reaches a placement after the completion that took the partition away from it has returned. A write lands when it is called, since the
// placements are the traffic's own. Of a partition that is given to another
// placement at once nothing is promised, nor, where a migration may be completed early, to writers that aren't registered.
func (l *ledger) judgeWrite(w landing, limit time.Duration) {
	if limit > 0 && w.op.Call-w.called > limit {
		l.v.problem(w.called, w.op.Call, []int{w.op.ID}, "%s: a write landed %v after its check was asked for, and may within %v only: the traffic is wrong, not the group", w.partition, w.op.Call-w.called, limit)
		return
	}
	epochs := l.order[w.partition]
	i, _ := slices.BinarySearch(epochs, w.epoch+1)
	for ; i < len(epochs); i++ {
		s := l.partitions[w.partition][epochs[i]]
		if !s.known || s.owner == w.placement {
			continue
		}
		if s.completed && (!s.early || w.instance) {
			l.v.Checked++
			if s.returned < w.op.Call {
				l.v.problem(w.called, w.op.Call, append(slices.Clone(s.ops), w.op.ID), "%s: a write of epoch %d lands at %s, %v after %s became the owner at epoch %d (INV-M1)",
					w.partition, w.epoch, w.placement, w.op.Call-s.returned, s.owner, s.epoch)
			}
		}
		return
	}
	l.v.Checked++
}

// judgeBarriers compares the time from cutover to completion with the declared barrier: from the call of the one to the return of the other is the longest that it
// can have been.
func (l *ledger) judgeBarriers(r *record) {
	type cutover struct {
		called  time.Duration
		barrier time.Duration
		op      int
	}
	cutovers := map[string]map[uint64]cutover{}
	for i := range r.Ops {
		op := &r.Ops[i]
		answer := &quoratev1.CutoverMigrationResponse{}
		if op.Noun != "partition" || op.Kind != "cutover" || !l.v.answered(op, answer) {
			continue
		}
		if cutovers[op.Key] == nil {
			cutovers[op.Key] = map[uint64]cutover{}
		}
		p := answer.GetPartition()
		cutovers[op.Key][p.GetEpoch()] = cutover{op.Call, max(p.GetMigration().GetDrainBarrier().AsDuration(), r.run.MinBarrier), op.ID}
	}
	for i := range r.Ops {
		op := &r.Ops[i]
		answer := &quoratev1.CompleteMigrationResponse{}
		if op.Noun != "partition" || op.Kind != "complete" || !l.v.answered(op, answer) || answer.GetEarly() {
			continue
		}
		c, ok := cutovers[op.Key][answer.GetPartition().GetEpoch()-1]
		if !ok {
			continue
		}
		l.v.Checked++
		if lasted := op.Return - c.called; lasted < c.barrier {
			l.v.problem(c.called, op.Return, []int{c.op, op.ID}, "%s: the barrier from epoch %d was %v at most, and is declared to be %v", op.Key, answer.GetPartition().GetEpoch()-1, lasted, c.barrier)
		}
	}
}

// judgeAborts is INV-M3: after an abort the owner is the one before it.
func (l *ledger) judgeAborts(r *record) {
	for i := range r.Ops {
		op := &r.Ops[i]
		answer := &quoratev1.AbortMigrationResponse{}
		if op.Noun != "partition" || op.Kind != "abort" || !l.v.answered(op, answer) {
			continue
		}
		p := answer.GetPartition()
		l.v.Checked++
		if before := l.partitions[op.Key][p.GetEpoch()-1]; before != nil && before.known && before.owner != p.GetPlacement() || p.GetPhase() != quoratev1.PartitionPhase_PARTITION_PHASE_ACTIVE {
			l.v.problem(op.Call, op.Return, []int{op.ID}, "%s: the abort to epoch %d leaves it %v at %s (INV-M3)", op.Key, p.GetEpoch(), p.GetPhase(), p.GetPlacement())
		}
	}
}
