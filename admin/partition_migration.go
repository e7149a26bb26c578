package admin

import (
	"fmt"
	"math/bits"
	"slices"
	"time"

	quoratev1 "quorate/proto/quorate/v1"
)

// migrationView is a migration.
type migrationView struct {
	*quoratev1.Migration
	ID, Path     string
	Phase        word
	Progress     progress
	Barrier      barrier
	Verification word
	// InTheWay are the apply leases for which a cutover would be refused.
	InTheWay []*quoratev1.ApplyLease
	// Next is the next transition, and Abort gives the migration up; nil where whoever asks may not.
	Next  *step
	Abort *action
}

// progress is how far a copy is.
type progress struct {
	*quoratev1.CopyProgress
	// Known says that anything was reported, and Percent how much of it is done, where that can be said.
	Known   bool
	Percent string
}

// barrier is a drain barrier. Cluster time is in milliseconds, as the browser counts it down.
type barrier struct {
	// State is ahead, unbegun, running or passed.
	State string
	Whole string
	// Left is what was left when it was read; the browser counts down from End, the cluster time at which it passes, on its way from Begun.
	Left       string
	Begun, End int64
	Early      bool
}

// States of a barrier.
const (
	barrierAhead   = "ahead"
	barrierUnbegun = "unbegun"
	barrierRunning = "running"
	barrierPassed  = "passed"
)

// step is a transition that is next.
type step struct {
	action
	// Waits is why it can't be made now; Barrier is for what it waits, if that is time.
	Waits   string
	Barrier *barrier
}

func (r *partitionReader) migration(p *quoratev1.Partition) *migrationView {
	m := p.GetMigration()
	v := &migrationView{
		Migration: m, ID: p.GetId(), Path: partitionURL(p.GetId()), Phase: newPhase(p.GetPhase()), Progress: newProgress(m.GetCopy()),
		Barrier: r.barrier(m), Verification: newVerification(m), InTheWay: r.inTheWay(m.GetFrom(), m.GetTo(), m.GetServers()),
	}
	if p.GetPhase() == quoratev1.PartitionPhase_PARTITION_PHASE_CUTOVER {
		v.Next = r.complete(v)
	} else {
		v.Next = r.cutover(v)
	}
	if r.may(quoratev1.PartitionService_AbortMigration_FullMethodName) {
		v.Abort = &action{ID: "abort-" + v.ID, Path: v.Path + "/abort", Label: "Abort…", Danger: true, Dialog: true}
	}
	return v
}

func newProgress(c *quoratev1.CopyProgress) progress {
	p := progress{CopyProgress: c, Known: c != nil}
	if c == nil {
		p.CopyProgress = &quoratev1.CopyProgress{}
	}
	if total := c.GetTotal(); total > 0 {
		// Rounded down: what is not all is not 100 %.
		high, low := bits.Mul64(min(c.GetDone(), total), 100)
		percent, _ := bits.Div64(high, low, total)
		p.Percent = fmt.Sprintf("%d %%", percent)
	}
	return p
}

// text says how far it is.
func (p progress) text() string {
	switch {
	case !p.Known:
		return "not reported"
	case p.GetTotal() == 0:
		return count(p.GetDone())
	}
	return fmt.Sprintf("%s: %s of %s", p.Percent, count(p.GetDone()), count(p.GetTotal()))
}

func newVerification(m *quoratev1.Migration) word {
	switch {
	case m.GetVerified():
		return word{"verified", toneGood}
	case m.GetVerificationRequired():
		return word{"to be verified", toneWarn}
	}
	return word{"not required", toneUnknown}
}

// barrier tells of a barrier by the cluster time of the answer.
func (r *partitionReader) barrier(m *quoratev1.Migration) barrier {
	whole := max(m.GetDrainBarrier().AsDuration(), r.found.GetSettings().GetMinDrainBarrier().AsDuration())
	left, begun := m.GetBarrierLeft().AsDuration(), m.GetBarrierBegun().AsDuration()
	b := barrier{State: barrierAhead, Whole: lasts(whole)}
	switch {
	case m.GetCutoverEpoch() == 0:
	case m.GetBarrierBegun() == nil:
		b.State, b.Left = barrierUnbegun, b.Whole
	case left <= 0:
		b.State = barrierPassed
	default:
		end := r.o.GetHeader().GetClusterTime().AsDuration() + left
		// Rounded up, to whole seconds: what is rendered moves no more often than that.
		b.State, b.Left = barrierRunning, lasts((left + time.Second - 1).Truncate(time.Second))
		b.Begun, b.End = begun.Milliseconds(), end.Milliseconds()+1
	}
	if m.GetEarlyCompletion() && r.found.GetInstanceCount() > 0 && m.GetBarrierBegun() != nil {
		b.Early = r.o.GetHeader().GetClusterTime().AsDuration()-begun >= r.found.GetSettings().GetEarlyFloor().AsDuration()
	}
	return b
}

// inTheWay returns the open apply leases of servers that a migration touches: those that its placements are named after, and those that it names.
func (r *partitionReader) inTheWay(from, to string, servers []string) (found []*quoratev1.ApplyLease) {
	for _, lease := range r.o.GetLeases() {
		if server := lease.GetKey().GetServer(); server == from || server == to || slices.Contains(servers, server) {
			found = append(found, lease)
		}
	}
	return found
}

func (r *partitionReader) cutover(v *migrationView) *step {
	if !r.may(quoratev1.PartitionService_CutoverMigration_FullMethodName) {
		return nil
	}
	s := &step{action: action{ID: "cutover-" + v.ID, Path: v.Path + "/cutover", Label: "Cut over…", Dialog: true}}
	switch {
	case len(v.InTheWay) > 0:
		s.Waits = "waits for the apply of " + v.InTheWay[0].GetKey().GetServer()
	case v.VerificationRequired && !v.Verified:
		s.Waits = "waits until the copy is verified"
	}
	return s
}

func (r *partitionReader) complete(v *migrationView) *step {
	if !r.may(quoratev1.PartitionService_CompleteMigration_FullMethodName) {
		return nil
	}
	s := &step{action: action{ID: "complete-" + v.ID, Path: v.Path + "/complete", Label: "Complete…", Dialog: true}}
	switch {
	case v.Barrier.State == barrierPassed:
	case v.Barrier.Early:
		s.Label = "Complete early…"
	default:
		s.Label, s.Waits, s.Barrier = "Complete", "waits for the drain barrier", &v.Barrier
	}
	return s
}
