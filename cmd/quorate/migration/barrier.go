package migration

import (
	"context"
	"errors"
	"fmt"
	"time"

	quoratev1 "quorate/proto/quorate/v1"
)

// complete waits until the drain barrier has passed and makes the new placement the owner. How long that is, the group alone decides: a
// completion that comes too soon is refused with what remains.
func (r *run) complete(ctx context.Context) error {
	finished := r.Options.Final == nil
	if r.last.GetMigration().GetEarlyCompletion() && !finished {
		r.say(StageBarrier, "waits for the whole barrier: the final hook comes after it")
	}
	for {
		m := r.last.GetMigration()
		left := m.GetBarrierLeft().AsDuration()
		r.Tell(Event{Partition: r.job.Partition, Stage: StageBarrier, Left: left, Whole: m.GetDrainBarrier().AsDuration()})
		early := m.GetEarlyCompletion() && m.GetBarrierBegun() != nil && finished
		if left <= 0 && !finished {
			if _, err := r.hook(ctx, StageFinal, r.Options.Final); err != nil {
				return err
			}
			finished = true
		}
		if left <= 0 || early {
			remaining, err := r.tryToComplete(ctx)
			if err == nil || remaining <= 0 {
				return err
			}
			left = remaining
		}
		// A moment more than what is left, since cluster time never runs fast; and never so long that the countdown stands still.
		if !sleep(ctx, min(left+pollInterval/20, pollInterval)) {
			return errInterrupted
		}
		if err := r.look(ctx, StageBarrier); err != nil {
			return err
		}
	}
}

// tryToComplete sends one completion. Remaining is what the group says is left of the barrier, if that is why it was refused.
func (r *run) tryToComplete(ctx context.Context) (remaining time.Duration, err error) {
	r.completions++
	request := &quoratev1.CompleteMigrationRequest{
		RequestId: r.id(fmt.Sprintf("complete/%d", r.completions)), Partition: r.job.Partition, ExpectedEpoch: r.last.GetEpoch(), Note: r.Options.Note,
	}
	err = r.change(ctx, StageComplete, func(ctx context.Context) (*quoratev1.Partition, error) {
		answer, err := r.Group.CompleteMigration(ctx, request)
		r.early = answer.GetEarly()
		return answer.GetPartition(), err
	})
	if err == nil {
		how := ""
		if r.early {
			how = ", before its barrier had passed, since no write was in flight"
		}
		r.say(StageComplete, "completed: it is at %s, epoch %d%s", r.last.GetPlacement(), r.last.GetEpoch(), how)
		return 0, nil
	}
	var refusal *Refusal
	if errors.As(err, &refusal) && refusal.Reason == reasonBarrierPending {
		if remaining, parseErr := time.ParseDuration(refusal.Facts["remaining"]); parseErr == nil && remaining > 0 {
			return remaining, err
		}
	}
	return 0, r.surprise(ctx, StageComplete, err)
}
