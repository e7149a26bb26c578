package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"quorate/cmd/quorate/migration"
	quoratev1 "quorate/proto/quorate/v1"
)

func newPartitionDrain(o *options) *cobra.Command {
	d := &draining{o: o, flags: &driveFlags{}}
	confirm := &confirmation{}
	cmd := &cobra.Command{
		Use:   "drain PLACEMENT --to PLACEMENT[,PLACEMENT…] [-- ARG…]",
		Short: "Move everything off a placement, as migrate does",
		Long: `Drain migrates all partitions that a placement owns, to the others in turn, and goes on with those that migrate away already, to wherever that is. It ends when the
placement owns nothing, those that came meanwhile included, or when only such are left that failed. Repeating it goes on from there.` + hookHelp,
		Args: cobra.MinimumNArgs(1),
		ValidArgsFunction: func(cmd *cobra.Command, arguments []string, begun string) ([]string, cobra.ShellCompDirective) {
			if len(arguments) > 0 {
				return nil, cobra.ShellCompDirectiveNoFileComp
			}
			return o.completePlacements(cmd, arguments, begun)
		},
	}
	d.flags.add(o, cmd)
	cmd.Flags().StringSliceVar(&d.targets, "to", nil, "the new `PLACEMENTS`, which get partitions in turn")
	must(cmd.RegisterFlagCompletionFunc("to", o.completePlacements))
	confirm.add(cmd)
	cmd.RunE = func(cmd *cobra.Command, arguments []string) error {
		if at := cmd.ArgsLenAtDash(); at >= 0 {
			arguments, d.flags.hookWords = arguments[:at], arguments[at:]
		}
		if len(arguments) != 1 {
			return fmt.Errorf("PLACEMENT: name one, got %d", len(arguments))
		}
		if err := d.check(arguments[0]); err != nil {
			return err
		}
		if !d.flags.dryRun {
			if err := confirm.ask(o, "move all partitions off "+d.from+" to "+strings.Join(d.targets, ", ")); err != nil {
				return err
			}
		}
		return d.run(cmd.Context(), cmd)
	}
	return cmd
}

const (
	// maxTargets bounds --to of drain.
	maxTargets = 64
	// maxKept is how many migrations that are not done drain shows; of more it counts.
	maxKept = 1000
)

// draining moves everything off a placement.
type draining struct {
	o       *options
	flags   *driveFlags
	from    string
	targets []string

	// tried has the partitions that were fed, and turn is which of the targets is next.
	tried map[string]bool
	turn  int
	moved map[string]int
	// counts are of all that ended, and left has the first of those that are not done.
	counts map[migration.Result]int
	left   []migration.Outcome
}

func (d *draining) check(from string) error {
	if d.from = from; len(d.targets) == 0 {
		return errors.New("--to: missing; name the placements that get the partitions")
	}
	if len(d.targets) > maxTargets {
		return fmt.Errorf("--to: at most %d placements, got %d", maxTargets, len(d.targets))
	}
	for i, to := range d.targets {
		if err := checkPartitionID("--to", to); err != nil {
			return err
		}
		if to == from {
			return fmt.Errorf("--to: %s is what is to be drained", to)
		}
		if slices.Contains(d.targets[:i], to) {
			return fmt.Errorf("--to: %s is named twice", to)
		}
	}
	return checkPartitionID("PLACEMENT", from)
}

func (d *draining) run(ctx context.Context, cmd *cobra.Command) error {
	m, err := d.flags.driverOptions(d.o)
	if err != nil {
		return err
	}
	group, err := d.o.connect()
	if err != nil {
		return err
	}
	defer group.Close()
	d.tried, d.moved, d.counts = map[string]bool{}, map[string]int{}, map[migration.Result]int{}
	owned, err := d.owned(ctx, group)
	if err != nil {
		return err
	}
	if d.flags.dryRun {
		return d.dryRun(ctx, group, &m)
	}
	again := &again{cmd: cmd, flags: d.flags}
	if err := d.moveAll(ctx, group, m, owned); err != nil {
		return err
	}
	again.advise(d.o, d.left, func([]migration.Outcome) {
		words := []string{commandName(), "partition", "drain", d.from}
		words = append(append(words, flagWords(cmd, map[string]bool{"request-id": true})...), again.hookWords()...)
		d.o.say("  go on:      %s", strings.Join(words, " "))
	})
	return d.conclude(ctx, group)
}

// moveAll feeds the driver until the placement has nothing that was not tried. Each round lists anew, since some may have come meanwhile.
func (d *draining) moveAll(ctx context.Context, group *connection, m migration.Options, owned uint64) error {
	r := &fleetRun{o: d.o, flags: d.flags, each: d.note}
	for {
		before := len(d.tried)
		err := r.run(ctx, group, m, owned, func(yield func(migration.Job) bool) error {
			return d.feed(ctx, group, func(p *quoratev1.Partition) bool { return yield(d.job(p)) })
		})
		failed := d.counts[migration.Failed] > 0 && d.flags.failFast
		if ctx.Err() != nil || failed {
			return nil
		}
		if err != nil {
			return err
		}
		if len(d.tried) == before {
			return nil
		}
		owned = 0
	}
}

// note counts the end of a migration.
func (d *draining) note(outcome migration.Outcome) {
	d.counts[outcome.Result]++
	if outcome.Result == migration.Done {
		d.moved[outcome.Last.GetPlacement()]++
	} else if len(d.left) < maxKept {
		d.left = append(d.left, outcome)
	}
}

// feed lists what the placement owns, and hands over what was not tried before.
func (d *draining) feed(ctx context.Context, group *connection, yield func(*quoratev1.Partition) bool) error {
	client := quoratev1.NewPartitionServiceClient(group)
	request := &quoratev1.ListPartitionsRequest{Placement: d.from, PageSize: pageSize}
	for {
		page, err := patient(ctx, func() (*quoratev1.ListPartitionsResponse, error) { return client.ListPartitions(ctx, request) })
		if err != nil {
			return err
		}
		for _, p := range page.GetPartitions() {
			if d.tried[p.GetId()] {
				continue
			}
			if !yield(p) {
				return nil
			}
			d.tried[p.GetId()] = true
		}
		if request.PageToken = page.GetNextPageToken(); request.PageToken == "" {
			return nil
		}
	}
}

// patient asks again for as long as the driver of migrations does: what may take hours shall not end because the leader changes.
func patient[R any](ctx context.Context, ask func() (R, error)) (R, error) {
	for began := time.Now(); ; {
		answer, err := ask()
		if err == nil || refusalOf(err) != nil || time.Since(began) > migration.DefaultPatience || !sleep(ctx, maxPause) {
			return answer, err
		}
	}
}

// job is what is to become of a partition: the next of the targets, unless it is on its way already.
func (d *draining) job(p *quoratev1.Partition) migration.Job {
	if to := p.GetMigration().GetTo(); to != "" {
		return migration.Job{Partition: p.GetId(), To: to, Resume: true}
	}
	to := d.targets[d.turn%len(d.targets)]
	d.turn++
	return migration.Job{Partition: p.GetId(), To: to, Resume: true}
}

// owned is how many partitions the placement owns.
func (d *draining) owned(ctx context.Context, group *connection) (uint64, error) {
	answer, err := quoratev1.NewPartitionServiceClient(group).ListPlacements(ctx, &quoratev1.ListPlacementsRequest{})
	if err != nil {
		return 0, err
	}
	for _, p := range answer.GetPlacements() {
		if p.GetId() == d.from {
			return p.GetPartitions(), nil
		}
	}
	return 0, nil
}

// dryRun shows the plans of all that the placement owns.
func (d *draining) dryRun(ctx context.Context, group *connection, m *migration.Options) error {
	facts, err := gatherFacts(ctx, group)
	if err != nil {
		return err
	}
	var plans []planned
	err = d.feed(ctx, group, func(p *quoratev1.Partition) bool {
		if len(plans) == maxDriven {
			d.o.say("there are more than %d", maxDriven)
			return false
		}
		job := d.job(p)
		plans = append(plans, planned{job: job, partition: p, plan: migration.MakePlan(job, p, m, facts)})
		return true
	})
	if err != nil {
		return err
	}
	return d.o.showPlans(plans)
}

// conclude says what was moved where, and what is left.
func (d *draining) conclude(ctx context.Context, group *connection) error {
	ctx, interrupted := context.WithoutCancel(ctx), ctx.Err() != nil
	left, err := d.owned(ctx, group)
	if err != nil {
		return err
	}
	ends := []migrated{}
	var failed []error
	for _, outcome := range d.left {
		if ends = append(ends, endOf(outcome)); outcome.Result == migration.Failed {
			failed = append(failed, outcome.Err)
		}
	}
	moved := 0
	var where []string
	for _, to := range sortedKeys(d.moved) {
		moved += d.moved[to]
		where = append(where, fmt.Sprintf("%d to %s", d.moved[to], to))
	}
	err = d.o.showPlain(map[string]any{
		"placement": d.from, "moved": moved, "movedTo": d.moved, "failed": d.counts[migration.Failed], "interrupted": d.counts[migration.Interrupted],
		"owns": left, "notDone": ends,
	}, func(p *printer) {
		if len(ends) > 0 {
			printOutcomes(p, ends)
		}
		p.line("%s: %d moved%s, %d failed, %d interrupted; it owns %d", d.from, moved, strings.TrimSuffix(" ("+strings.Join(where, ", ")+")", " ()"),
			d.counts[migration.Failed], d.counts[migration.Interrupted], left)
	})
	switch {
	case err != nil:
		return err
	case len(failed) > 0:
		return &fleetError{what: fmt.Sprintf("%d of %d migrations failed", d.counts[migration.Failed], len(d.tried)), errs: failed}
	case interrupted && left > 0:
		return context.Canceled
	}
	return nil
}
