package migration

import (
	"context"
	"errors"
	"fmt"
	"sync"

	quoratev1 "quorate/proto/quorate/v1"
)

// Copied says whether the copy of a migration was reported as complete.
func Copied(m *quoratev1.Migration) bool {
	return m.GetCopy().GetTotal() > 0 && m.GetCopy().GetDone() == m.GetCopy().GetTotal()
}

// copy has the data copied, or waits until somebody says that they are.
func (r *run) copy(ctx context.Context) error {
	switch {
	case r.Options.NothingToCopy:
		return nil
	case Copied(r.last.GetMigration()):
		r.say(StageCopy, "was copied before")
		return nil
	case r.Options.Copy == nil:
		r.say(StageCopy, "waits until its copy is reported as complete")
		return r.await(ctx, StageCopy, Copied)
	}
	last, err := r.hook(ctx, StageCopy, r.Options.Copy)
	if err != nil {
		return err
	}
	// Only now: whoever resumes skips a copy that is reported so. An interruption at this moment does not make it undone.
	whole := max(last.Total, last.Done, 1)
	return r.note(ctx, StageCopy, "copied", &quoratev1.CopyProgress{Done: whole, Total: whole, Text: last.Text}, false)
}

// verify has the copy compared with its source, or waits until somebody says that it was.
func (r *run) verify(ctx context.Context) error {
	m := r.last.GetMigration()
	switch {
	case m.GetVerified():
		r.say(StageVerify, "was verified before")
		return nil
	case r.Options.Verify == nil && !m.GetVerificationRequired():
		return nil
	case r.Options.Verify == nil:
		r.say(StageVerify, "waits until its copy is reported as verified")
		return r.await(ctx, StageVerify, (*quoratev1.Migration).GetVerified)
	}
	if _, err := r.hook(ctx, StageVerify, r.Options.Verify); err != nil {
		return err
	}
	return r.note(ctx, StageVerify, "verified", nil, true)
}

// note tells the group what a hook has done, until it has answered.
func (r *run) note(ctx context.Context, stage Stage, what string, progress *quoratev1.CopyProgress, verified bool) error {
	longer, done := outlive(ctx)
	defer done()
	request := r.reportRequest(progress, verified)
	err := r.change(longer, stage, func(ctx context.Context) (*quoratev1.Partition, error) {
		answer, err := r.Group.ReportMigration(ctx, request)
		return answer.GetPartition(), err
	})
	r.open = false // A report is no transition: that its answer was lost leaves no phase open.
	if err != nil {
		return r.surprise(ctx, stage, err)
	}
	r.say(stage, "%s", what)
	return nil
}

// await looks at the partition until the migration is as it should be.
func (r *run) await(ctx context.Context, stage Stage, holds func(*quoratev1.Migration) bool) error {
	for {
		if err := r.look(ctx, stage); err != nil {
			return err
		}
		if c := r.last.GetMigration().GetCopy(); c != nil && stage == StageCopy {
			r.Tell(Event{Partition: r.job.Partition, Stage: stage, Progress: &Progress{Done: c.GetDone(), Total: c.GetTotal(), Text: c.GetText()}})
		}
		if holds(r.last.GetMigration()) || r.last.GetPhase() != draining {
			return nil
		}
		if !sleep(ctx, pollInterval) {
			return errInterrupted
		}
	}
}

// look reads the partition, which nobody else should have moved meanwhile.
func (r *run) look(ctx context.Context, stage Stage) error {
	p, err := r.read(ctx)
	if err != nil {
		return err
	}
	before := r.last
	r.last = p
	return r.compare(stage, before, p, nil)
}

func (r *run) reportRequest(progress *quoratev1.CopyProgress, verified bool) *quoratev1.ReportMigrationRequest {
	r.reports++
	return &quoratev1.ReportMigrationRequest{
		RequestId: r.id(fmt.Sprintf("report/%d", r.reports)), Partition: r.job.Partition, ExpectedEpoch: r.last.GetEpoch(), Copy: progress, Verified: verified,
	}
}

// latest holds the newest progress of a hook, so that one that says much is held up by nothing.
type latest struct {
	mu       sync.Mutex
	progress Progress
}

func (l *latest) set(p Progress) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.progress = p
}

func (l *latest) get() Progress {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.progress
}

// hook runs a hook to its end, and looks meanwhile whether the migration still is what the hook runs for. It returns the hook's last progress.
func (r *run) hook(ctx context.Context, stage Stage, hook Hook) (Progress, error) {
	r.say(stage, "%s hook begins", stage)
	running, stop := context.WithCancel(ctx)
	defer stop()
	m := r.last.GetMigration()
	about := About{Partition: r.job.Partition, From: m.GetFrom(), To: m.GetTo(), Epoch: r.last.GetEpoch(), Request: r.Request, Stage: stage}
	var newest latest
	ended := make(chan struct{})
	var failure error // of the hook, once it has ended
	go func() {
		defer close(ended)
		failure = hook.Run(running, about, func(line string) {
			p, ok := ParseProgress(line)
			if !ok {
				r.Tell(Event{Partition: r.job.Partition, Stage: stage, Text: line, Hook: true})
				return
			}
			newest.set(p)
			r.Tell(Event{Partition: r.job.Partition, Stage: stage, Progress: &p})
		})
	}()
	var reported Progress
	for {
		wait, done := context.WithTimeout(ctx, pollInterval)
		select {
		case <-ended:
			done()
			return newest.get(), r.hookEnded(ctx, stage, failure)
		case <-wait.Done():
			done()
		}
		if ctx.Err() != nil {
			// It may have done all that it was to do when it was stopped.
			<-ended
			return newest.get(), r.hookEnded(ctx, stage, failure)
		}
		if err := r.watchHook(ctx, stage, newest.get(), &reported); err != nil {
			// Somebody else has decided otherwise, and whatever the hook does, or says of its end, is for nothing.
			stop()
			<-ended
			return newest.get(), err
		}
	}
}

func (r *run) hookEnded(ctx context.Context, stage Stage, err error) error {
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return errInterrupted
	default:
		return &HookError{stage, err}
	}
}

// watchHook reports progress that is new, or else looks at the partition. That nobody answers is no reason to stop the hook.
func (r *run) watchHook(ctx context.Context, stage Stage, now Progress, reported *Progress) error {
	var err error
	var p *quoratev1.Partition
	// A copy is complete only once its hook has ended well, so that the last step is not reported before.
	if stage == StageCopy && now != *reported && (now.Total == 0 || now.Done < now.Total) {
		var answer *quoratev1.ReportMigrationResponse
		answer, err = r.Group.ReportMigration(ctx, r.reportRequest(&quoratev1.CopyProgress{Done: now.Done, Total: now.Total, Text: now.Text}, false))
		p = answer.GetPartition()
		if err == nil {
			*reported = now
		}
	} else {
		p, err = r.once(ctx)
	}
	before := r.last
	switch refusal := r.refusalOf(err); {
	case ctx.Err() != nil:
		return nil // The hook is stopped where this was called.
	case refusal != nil:
		err = r.surprise(ctx, stage, refusal)
	case err != nil:
		return nil
	default:
		r.last = p
		err = r.compare(stage, before, p, nil)
	}
	if errors.Is(err, errCompleted) || err == nil && r.last.GetEpoch() != before.GetEpoch() {
		return &Stopped{r.job.Partition, fmt.Sprintf("was moved on by somebody else while the %s hook ran: look at what was copied", stage)}
	}
	return err
}

func (r *run) refusalOf(err error) *Refusal {
	if err == nil {
		return nil
	}
	return r.Refusal(err)
}
