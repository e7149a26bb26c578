package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"google.golang.org/grpc/status"

	"quorate/cmd/quorate/migration"
	quoratev1 "quorate/proto/quorate/v1"
)

// drive plans the jobs that find makes and, unless that is all that is wanted, drives them.
func (o *options) drive(ctx context.Context, f *driveFlags, again *again, find func(context.Context, quoratev1.PartitionServiceClient) ([]migration.Job, error)) error {
	m, err := f.driverOptions(o)
	if err != nil {
		return err
	}
	group, err := o.connect()
	if err != nil {
		return err
	}
	defer group.Close()
	jobs, err := find(ctx, quoratev1.NewPartitionServiceClient(group))
	if err != nil {
		return err
	}
	plans, err := o.plan(ctx, group, &m, jobs)
	if err != nil {
		return err
	}
	if f.dryRun {
		return o.showPlans(plans)
	}
	r := &fleetRun{o: o, flags: f}
	if len(jobs) == 1 && plans[0].plan != nil && len(plans[0].plan.Refused) == 0 {
		p := newPrinter(o.std.err)
		printPlan(p, plans[0].plan)
		if err := p.flush(); err != nil {
			return err
		}
	}
	runnable := r.refuse(plans)
	if !f.failFast || len(runnable) == len(jobs) {
		if err := r.run(ctx, group, m, uint64(len(runnable)), listed(runnable)); err != nil {
			return err
		}
	}
	r.notBegun(jobs)
	again.advise(o, r.outcomes, func(left []migration.Outcome) { again.adviseMigrate(o, left) })
	if err := o.showOutcomes(r.outcomes); err != nil {
		return err
	}
	return r.failure(ctx)
}

// listed feeds a list of jobs.
func listed(jobs []migration.Job) func(yield func(migration.Job) bool) error {
	return func(yield func(migration.Job) bool) error {
		for _, job := range jobs {
			if !yield(job) {
				return nil
			}
		}
		return nil
	}
}

// fleetRun is one run of the driver for many partitions.
type fleetRun struct {
	o        *options
	flags    *driveFlags
	outcomes []migration.Outcome
	// each is told each outcome; without it all are kept.
	each func(migration.Outcome)
}

func (r *fleetRun) run(ctx context.Context, group *connection, m migration.Options, total uint64, feed func(yield func(migration.Job) bool) error) error {
	shown := newDisplay(r.o.std.err, total)
	driver := &migration.Driver{
		Group: quoratev1.NewPartitionServiceClient(group), Refusal: refusalOf, Tell: shown.tell, Options: m, Request: r.o.newRequestID(),
	}
	err := driver.RunAll(ctx, r.flags.parallel, r.flags.failFast, feed, func(outcome migration.Outcome) {
		if outcome.Result == migration.Failed {
			shown.tell(migration.Event{Partition: outcome.Job.Partition, Text: "failed: " + outcome.Err.Error()})
		}
		shown.end(outcome.Job.Partition)
		if r.each != nil {
			r.each(outcome)
			return
		}
		r.outcomes = append(r.outcomes, outcome)
	})
	shown.close()
	return err
}

// refusalOf tells the driver what the group refused. All else may be otherwise with the next attempt.
func refusalOf(err error) *migration.Refusal {
	var remote *remoteError
	if !errors.As(err, &remote) {
		return &migration.Refusal{Err: err}
	}
	if remote.unreached || remote.unknown || judge(true, remote.err) != final {
		return nil
	}
	info := errorInfo(status.Convert(remote.err))
	return &migration.Refusal{Reason: info.GetReason(), Facts: info.GetMetadata(), Err: err}
}

// refuse notes the jobs that can't be begun, and returns the others.
func (r *fleetRun) refuse(plans []planned) []migration.Job {
	var runnable []migration.Job
	for _, p := range plans {
		if err := p.refusal(); err != nil {
			r.outcomes = append(r.outcomes, migration.Outcome{Job: p.job, Result: migration.Failed, Last: p.partition, Err: err})
			continue
		}
		runnable = append(runnable, p.job)
	}
	return runnable
}

// notBegun notes the jobs that nobody came to, and puts all outcomes into the order of the jobs.
func (r *fleetRun) notBegun(jobs []migration.Job) {
	ended := make(map[string]migration.Outcome, len(r.outcomes))
	for _, outcome := range r.outcomes {
		ended[outcome.Job.Partition] = outcome
	}
	r.outcomes = r.outcomes[:0]
	for _, job := range jobs {
		outcome, ok := ended[job.Partition]
		if !ok {
			outcome = migration.Outcome{Job: job, Result: migration.NotBegun}
		}
		r.outcomes = append(r.outcomes, outcome)
	}
}

// failure is the error of a run of which something is not done.
func (r *fleetRun) failure(ctx context.Context) error {
	counts := map[migration.Result]int{}
	var failed []error
	for _, outcome := range r.outcomes {
		counts[outcome.Result]++
		if outcome.Result == migration.Failed {
			failed = append(failed, outcome.Err)
		}
	}
	switch {
	case len(failed) == 1 && len(r.outcomes) == 1:
		return failed[0]
	case len(failed) > 0:
		return &fleetError{what: fmt.Sprintf("%d of %d migrations failed", len(failed), len(r.outcomes)), errs: failed}
	case counts[migration.Done] < len(r.outcomes) && ctx.Err() != nil:
		return context.Canceled
	}
	return nil
}

// fleetError is the failure of several migrations. Its exit code is that of the worst: a local error, then a remote one, then a precondition.
type fleetError struct {
	what string
	errs []error
}

func (e *fleetError) Error() string { return e.what + ", the first: " + e.errs[0].Error() }

func (e *fleetError) exitCode() int {
	code := exitPrecondition
	for _, err := range e.errs {
		code = min(code, exitCode(err))
	}
	return code
}

// migrated is how a migration ended. Its JSON form is an interface that scripts rely on.
type migrated struct {
	Partition string  `json:"partition"`
	To        string  `json:"to"`
	Result    string  `json:"result"`
	Phase     string  `json:"phase"`
	Placement string  `json:"placement"`
	Epoch     uint64  `json:"epoch"`
	Early     bool    `json:"early"`
	Unsure    bool    `json:"unsure"`
	Seconds   float64 `json:"seconds"`
	Error     string  `json:"error"`
}

func endOf(o migration.Outcome) migrated {
	m := migrated{
		Partition: o.Job.Partition, To: o.Job.To, Result: string(o.Result), Placement: o.Last.GetPlacement(), Epoch: o.Last.GetEpoch(),
		Early: o.Early, Unsure: o.Unsure, Seconds: o.Took.Round(time.Millisecond).Seconds(),
	}
	if o.Last != nil {
		m.Phase = migration.PhaseName(o.Last.GetPhase())
	}
	if o.Err != nil && o.Result == migration.Failed {
		m.Error = o.Err.Error()
	}
	return m
}

func (o *options) showOutcomes(outcomes []migration.Outcome) error {
	ends := make([]migrated, len(outcomes))
	for i, outcome := range outcomes {
		ends[i] = endOf(outcome)
	}
	return o.showPlain(map[string]any{"migrations": ends}, func(p *printer) {
		if len(ends) == 1 && outcomes[0].Result == migration.Done {
			p.line("partition %s is at %s, epoch %d, after %s", ends[0].Partition, ends[0].Placement, ends[0].Epoch, outcomes[0].Took.Round(100*time.Millisecond))
			return
		}
		if len(ends) > 1 {
			printOutcomes(p, ends)
		}
	})
}

func printOutcomes(p *printer, ends []migrated) {
	rows := make([][]cell, 0, len(ends))
	for _, e := range ends {
		result := cell{text: e.Result, colour: good}
		switch e.Result {
		case string(migration.Failed):
			result.colour = bad
		case string(migration.Interrupted), string(migration.NotBegun):
			result.colour = warn
		}
		rows = append(rows, text(e.Partition, result, e.Phase, e.Placement, e.To, e.Epoch, fmt.Sprintf("%.1fs", e.Seconds), clip(e.Error, maxParserText)))
	}
	p.table([]string{"PARTITION", "RESULT", "PHASE", "AT", "TO", "EPOCH", "TOOK", "ERROR"}, rows)
}

// planned is a job with its plan, or why there is none.
type planned struct {
	job       migration.Job
	partition *quoratev1.Partition
	plan      *migration.Plan
	err       error
}

// refusal is why the job can't be begun.
func (p planned) refusal() error {
	switch {
	case p.err != nil:
		return p.err
	case len(p.plan.Refused) == 0:
		return nil
	}
	if err := migration.Admit(p.job, p.partition); err != nil {
		return err
	}
	return &migration.Stopped{Partition: p.job.Partition, Why: "would be refused: " + strings.Join(p.plan.Refused, "; ")}
}
