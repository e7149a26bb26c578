package migration

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	quoratev1 "quorate/proto/quorate/v1"
)

// Reasons of the group (quorate/fsm) that a driver acts upon.
const (
	reasonApplyInProgress = "APPLY_IN_PROGRESS"
	reasonBarrierPending  = "BARRIER_PENDING"
)

const (
	active   = quoratev1.PartitionPhase_PARTITION_PHASE_ACTIVE
	draining = quoratev1.PartitionPhase_PARTITION_PHASE_DRAINING
	cutover  = quoratev1.PartitionPhase_PARTITION_PHASE_CUTOVER
)

// run is one partition on its way.
type run struct {
	*Driver
	job Job
	// last is the partition as the group last told it: every change is made for its epoch alone, so that nothing is done to a state nobody looked at.
	last *quoratev1.Partition
	// open says that a change was sent and not answered.
	open  bool
	early bool
	// numbers of the calls that may have to be made more than once with different answers.
	reports, cutovers, completions int
}

// drive takes the partition from where it is to its end.
func (r *run) drive(ctx context.Context) error {
	p, err := r.read(ctx)
	if err != nil {
		return err
	}
	r.last = p
	if err := Admit(r.job, p); err != nil {
		return err
	}
	if p.GetPhase() == active && p.GetPlacement() == r.job.To {
		r.say(StageComplete, "is at %s already", r.job.To)
		return nil
	}
	for _, step := range []struct {
		phase quoratev1.PartitionPhase
		do    func(context.Context) error
	}{
		{active, r.begin}, {draining, r.copy}, {draining, r.verify}, {draining, r.cutOver}, {cutover, r.complete},
	} {
		if r.last.GetPhase() != step.phase {
			continue
		}
		if ctx.Err() != nil {
			return errInterrupted
		}
		if err := step.do(ctx); errors.Is(err, errCompleted) {
			return nil
		} else if err != nil {
			return err
		}
	}
	return nil
}

// Admit says why a job may not be done to a partition as it is, nil if it may.
func Admit(job Job, p *quoratev1.Partition) error {
	m := p.GetMigration()
	switch {
	case job.ExpectedEpoch != 0 && job.ExpectedEpoch != p.GetEpoch():
		return &Stopped{p.GetId(), fmt.Sprintf("is at epoch %d, not %d", p.GetEpoch(), job.ExpectedEpoch)}
	case p.GetPhase() == active && p.GetPlacement() == job.To && !job.Resume:
		return &Stopped{p.GetId(), "is at " + job.To + " already"}
	case p.GetPhase() == active:
		return nil
	case m.GetTo() != job.To:
		return &Stopped{p.GetId(), fmt.Sprintf("migrates to %s since %s already, and not to %s: complete or abort that first",
			m.GetTo(), m.GetBegunAt().AsTime().Format(time.RFC3339), job.To)}
	case !job.Resume:
		return &Stopped{p.GetId(), fmt.Sprintf("migrates to %s already, begun by %s: --resume goes on with it", job.To, m.GetActor().GetName())}
	}
	return nil
}

func (r *run) begin(ctx context.Context) error {
	request := &quoratev1.BeginMigrationRequest{
		RequestId: r.id("begin"), Partition: r.job.Partition, To: r.job.To, ExpectedEpoch: r.last.GetEpoch(),
		EarlyCompletion: r.Options.Early, VerificationRequired: r.Options.RequireVerified, Servers: r.Options.Servers, Note: r.Options.Note,
	}
	if r.Options.Barrier != 0 {
		request.DrainBarrier = durationpb.New(r.Options.Barrier)
	}
	err := r.change(ctx, StageBegin, func(ctx context.Context) (*quoratev1.Partition, error) {
		answer, err := r.Group.BeginMigration(ctx, request)
		return answer.GetPartition(), err
	})
	if err != nil {
		return r.surprise(ctx, StageBegin, err)
	}
	r.say(StageBegin, "%s → %s begun, epoch %d, barrier %s", r.last.GetPlacement(), r.job.To, r.last.GetEpoch(), r.last.GetMigration().GetDrainBarrier().AsDuration())
	return nil
}

// cutOver stops the writes. While a server of the migration is mid-apply it waits: apply leases end by themselves.
func (r *run) cutOver(ctx context.Context) error {
	for told := false; ; {
		r.cutovers++
		request := &quoratev1.CutoverMigrationRequest{
			RequestId: r.id(fmt.Sprintf("cutover/%d", r.cutovers)), Partition: r.job.Partition, ExpectedEpoch: r.last.GetEpoch(), Note: r.Options.Note,
		}
		err := r.change(ctx, StageCutover, func(ctx context.Context) (*quoratev1.Partition, error) {
			answer, err := r.Group.CutoverMigration(ctx, request)
			return answer.GetPartition(), err
		})
		var refusal *Refusal
		switch {
		case err == nil:
			r.say(StageCutover, "cut over at epoch %d: nobody may write until it is completed or aborted", r.last.GetEpoch())
			return nil
		case errors.As(err, &refusal) && refusal.Reason == reasonApplyInProgress:
			if !told {
				told = true
				r.say(StageCutover, "waits until server %s is no longer mid-apply", refusal.Facts["server"])
			}
			if !sleep(ctx, pollInterval) {
				return errInterrupted
			}
		default:
			return r.surprise(ctx, StageCutover, err)
		}
	}
}

// id makes a request id of this run. A call that is sent again because it was not answered keeps its id; one that is sent again because the
// answer may be another one now has a new one, since the group remembers refusals too.
func (r *run) id(what string) string { return r.Request + "/" + r.job.Partition + "/" + what }

func (r *run) say(stage Stage, format string, arguments ...any) {
	r.Tell(Event{Partition: r.job.Partition, Stage: stage, Text: fmt.Sprintf(format, arguments...)})
}

// change makes a change until the group has answered it, and keeps the partition that it answered with.
func (r *run) change(ctx context.Context, stage Stage, do func(context.Context) (*quoratev1.Partition, error)) error {
	return r.insist(ctx, stage, func(ctx context.Context) error {
		r.open = true
		p, err := do(ctx)
		if err == nil {
			r.last = p
		}
		if err == nil || r.Refusal(err) != nil {
			r.open = false
		}
		return err
	})
}

// read asks for the partition as it is.
func (r *run) read(ctx context.Context) (p *quoratev1.Partition, err error) {
	err = r.insist(ctx, StageBegin, func(ctx context.Context) error {
		p, err = r.once(ctx)
		return err
	})
	return p, err
}

func (r *run) once(ctx context.Context) (*quoratev1.Partition, error) {
	answer, err := r.Group.GetPartition(ctx, &quoratev1.GetPartitionRequest{Partition: r.job.Partition})
	return answer.GetPartition(), err
}

// insist makes a call until it gets a final answer: a change of leaders or a lost answer is no reason to stop.
func (r *run) insist(ctx context.Context, stage Stage, call func(context.Context) error) error {
	patience := r.Patience
	if patience == 0 {
		patience = DefaultPatience
	}
	began, told := time.Now(), ""
	for pause := firstPause; ; pause = min(2*pause, maxPause) {
		if ctx.Err() != nil {
			return errInterrupted
		}
		sending, done := outlive(ctx)
		err := call(sending)
		done()
		if err == nil {
			return nil
		}
		if refusal := r.Refusal(err); refusal != nil {
			return refusal
		}
		if ctx.Err() != nil {
			return errInterrupted
		}
		if time.Since(began) > patience {
			return &Unanswered{err}
		}
		if why := err.Error(); why != told {
			told = why
			r.say(stage, "no answer, and so asked again: %s", why)
		}
		if !sleep(ctx, pause) {
			return errInterrupted
		}
	}
}

// outlive returns a context that an interruption ends only after a while.
func outlive(ctx context.Context) (context.Context, func()) {
	longer, cancel := context.WithCancel(context.WithoutCancel(ctx))
	stop := context.AfterFunc(ctx, func() {
		if sleep(longer, settleTime) {
			cancel()
		}
	})
	return longer, func() {
		stop()
		cancel()
	}
}

// sleep waits, and returns false if the context ended first.
func sleep(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}

// lookOnceMore finds out how the partition was left, for whoever is told of the end. It is one question, since nobody may answer.
func (r *run) lookOnceMore(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), settleTime)
	defer cancel()
	if p, err := r.once(ctx); err == nil {
		// A change that was not answered may still be on its way. If the epoch has moved, it has arrived.
		r.open = r.open && p.GetEpoch() == r.last.GetEpoch()
		r.last = p
	}
}

// errCompleted is what a step ends with that finds the migration completed by somebody else.
var errCompleted = errors.New("completed")

// surprise judges a change that was refused: somebody else may have done something to the partition, and if it is what this driver would
// have done next, it goes on from there. It never begins anew, since then somebody has decided otherwise.
func (r *run) surprise(ctx context.Context, stage Stage, err error) error {
	var refusal *Refusal
	if !errors.As(err, &refusal) {
		return err
	}
	p, readErr := r.read(ctx)
	if errors.As(readErr, new(*Refusal)) {
		return readErr // It was deleted, for instance.
	}
	if readErr != nil {
		return err
	}
	before := r.last
	r.last = p
	return r.compare(stage, before, p, err)
}

// compare says what it means that a partition is no longer as it was before; otherwise is the answer if it still is.
func (r *run) compare(stage Stage, before, p *quoratev1.Partition, otherwise error) error {
	if before.GetEpoch() == p.GetEpoch() {
		return otherwise
	}
	switch {
	case p.GetPhase() == active && p.GetPlacement() == r.job.To:
		r.say(StageComplete, "was completed by somebody else: it is at %s, epoch %d", p.GetPlacement(), p.GetEpoch())
		return errCompleted
	case p.GetPhase() == active && before.GetPhase() != active:
		return &Stopped{p.GetId(), fmt.Sprintf("was aborted by somebody else: it is at %s, epoch %d", p.GetPlacement(), p.GetEpoch())}
	case p.GetPhase() == active:
		return &Stopped{p.GetId(), fmt.Sprintf("was moved by somebody else: it is at %s, epoch %d", p.GetPlacement(), p.GetEpoch())}
	case before.GetPhase() == active && p.GetMigration().GetTo() == r.job.To && r.job.Resume:
		r.say(stage, "was begun by %s meanwhile, at epoch %d", p.GetMigration().GetActor().GetName(), p.GetEpoch())
		return nil
	case sameMigration(before.GetMigration(), p.GetMigration()):
		r.say(stage, "was cut over by somebody else, at epoch %d", p.GetEpoch())
		return nil
	default:
		return &Stopped{p.GetId(), fmt.Sprintf("is in another migration, from %s to %s at epoch %d", p.GetMigration().GetFrom(), p.GetMigration().GetTo(), p.GetEpoch())}
	}
}

// sameMigration tells whether two records are of one migration: they have begun at the same time for the same reason.
func sameMigration(a, b *quoratev1.Migration) bool {
	return a != nil && b != nil && a.GetFrom() == b.GetFrom() && a.GetTo() == b.GetTo() && proto.Equal(a.GetBegun(), b.GetBegun())
}

// clip makes foreign text fit for the group: valid, of one line, and short.
func clip(s string, most int) string {
	s = strings.ToValidUTF8(strings.Join(strings.Fields(s), " "), "�")
	if len(s) <= most {
		return s
	}
	return strings.ToValidUTF8(s[:most], "")
}
