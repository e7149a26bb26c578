package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	quoratev1 "quorate/proto/quorate/v1"
)

// changeFlags are those of every change of one partition.
type changeFlags struct {
	expect uint64
	note   string
}

func (f *changeFlags) addExpect(cmd *cobra.Command) {
	cmd.Flags().Uint64Var(&f.expect, "expect-epoch", 0, "refuse unless the partition is at this `EPOCH` (default: any)")
}

func (f *changeFlags) add(cmd *cobra.Command) {
	f.addExpect(cmd)
	cmd.Flags().StringVar(&f.note, "note", "", "why, for people; up to 256 bytes")
}

// moved is an answer with the partition as it is afterwards.
type moved interface {
	proto.Message
	GetPartition() *quoratev1.Partition
}

// transition makes one change of a partition and shows it as it is afterwards.
func transition[R moved](o *options, do func(client quoratev1.PartitionServiceClient, id string) (R, error)) error {
	return o.partition(func(client quoratev1.PartitionServiceClient) error {
		answer, err := do(client, o.newRequestID())
		if err != nil {
			return err
		}
		return o.show(answer, func(p *printer) { printMoved(p, answer.GetPartition()) })
	})
}

// printMoved says in one line where a partition is now.
func printMoved(p *printer, partition *quoratev1.Partition) {
	m := partition.GetMigration()
	switch partition.GetPhase() {
	case quoratev1.PartitionPhase_PARTITION_PHASE_DRAINING:
		p.line("partition %s is draining, epoch %d: from %s to %s, drain barrier %s, copy %s", partition.GetId(), partition.GetEpoch(), m.GetFrom(), m.GetTo(),
			span(m.GetDrainBarrier()), cmp.Or(copyText(m), "not reported"))
	case quoratev1.PartitionPhase_PARTITION_PHASE_CUTOVER:
		p.line("partition %s is in cutover, epoch %d: from %s to %s, nobody may write, drain barrier %s", partition.GetId(), partition.GetEpoch(), m.GetFrom(), m.GetTo(),
			barrierText(m))
	default:
		p.line("partition %s is at %s, epoch %d", partition.GetId(), partition.GetPlacement(), partition.GetEpoch())
	}
}

func newPartitionSetPlacement(o *options) *cobra.Command {
	f, confirm := &changeFlags{}, &confirmation{}
	cmd := &cobra.Command{
		Use:   "set-placement ID PLACEMENT",
		Short: "Give a partition another owner at once, with no migration: for one that nobody writes to",
		Args:  cobra.ExactArgs(2),
		ValidArgsFunction: func(cmd *cobra.Command, arguments []string, begun string) ([]string, cobra.ShellCompDirective) {
			if len(arguments) == 1 {
				return o.completePlacements(cmd, arguments, begun)
			}
			return o.completePartitions(1)(cmd, arguments, begun)
		},
	}
	f.add(cmd)
	confirm.add(cmd)
	cmd.RunE = func(cmd *cobra.Command, arguments []string) error {
		if err := confirm.ask(o, "give partition "+arguments[0]+" to "+arguments[1]+" without a drain barrier"); err != nil {
			return err
		}
		return transition(o, func(client quoratev1.PartitionServiceClient, id string) (*quoratev1.SetPlacementResponse, error) {
			return client.SetPlacement(cmd.Context(), &quoratev1.SetPlacementRequest{
				RequestId: id, Partition: arguments[0], Placement: arguments[1], ExpectedEpoch: f.expect, Note: f.note,
			})
		})
	}
	return cmd
}

func newPartitionDelete(o *options) *cobra.Command {
	f, confirm := &changeFlags{}, &confirmation{}
	cmd := &cobra.Command{
		Use:               "delete ID",
		Short:             "Remove a partition that does not migrate",
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: o.completePartitions(1),
	}
	f.add(cmd)
	confirm.add(cmd)
	cmd.RunE = func(cmd *cobra.Command, arguments []string) error {
		if err := confirm.ask(o, "delete partition "+arguments[0]); err != nil {
			return err
		}
		return o.partition(func(client quoratev1.PartitionServiceClient) error {
			answer, err := client.DeletePartition(cmd.Context(), &quoratev1.DeletePartitionRequest{
				RequestId: o.newRequestID(), Partition: arguments[0], ExpectedEpoch: f.expect, Note: f.note,
			})
			if err != nil {
				return err
			}
			return o.show(answer, func(p *printer) { p.line("partition %s is deleted", arguments[0]) })
		})
	}
	return cmd
}

func newPartitionBegin(o *options) *cobra.Command {
	f, m := &changeFlags{}, &beginFlags{}
	cmd := &cobra.Command{
		Use:               "begin ID --to PLACEMENT",
		Short:             "Begin a migration: the partition drains, and writes go on where it is",
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: o.completePartitions(1),
	}
	f.add(cmd)
	m.add(o, cmd)
	o.addToFlag(cmd, &m.to, "the new `PLACEMENT`")
	cmd.RunE = func(cmd *cobra.Command, arguments []string) error {
		if err := m.check(); err != nil {
			return err
		}
		return transition(o, func(client quoratev1.PartitionServiceClient, id string) (*quoratev1.BeginMigrationResponse, error) {
			request := &quoratev1.BeginMigrationRequest{
				RequestId: id, Partition: arguments[0], To: m.to, ExpectedEpoch: f.expect, Note: f.note,
				EarlyCompletion: m.early, VerificationRequired: m.requireVerified, Servers: m.servers,
			}
			if m.barrier != 0 {
				request.DrainBarrier = durationpb.New(m.barrier)
			}
			return client.BeginMigration(cmd.Context(), request)
		})
	}
	return cmd
}

// beginFlags say what holds for a migration from its begin to its end.
type beginFlags struct {
	to                     string
	barrier                time.Duration
	early, requireVerified bool
	servers                []string
}

func (f *beginFlags) add(o *options, cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.DurationVar(&f.barrier, "drain-barrier", 0, "how long nobody may write after the cutover (default: that of the partition, or of the settings)")
	flags.BoolVar(&f.early, "early", false, "allow to complete as soon as all registered instances have no write in flight")
	flags.BoolVar(&f.requireVerified, "require-verification", false, "the cutover is refused until the copy was reported as verified")
	flags.StringSliceVar(&f.servers, "server", nil, "`SERVER` during whose apply leases the cutover is refused, beside those that the placements are named after; repeatable")
	must(cmd.RegisterFlagCompletionFunc("server", func(cmd *cobra.Command, _ []string, begun string) ([]string, cobra.ShellCompDirective) {
		return o.completeMembers(cmd, nil, begun)
	}))
}

func (o *options) addToFlag(cmd *cobra.Command, to *string, usage string) {
	cmd.Flags().StringVar(to, "to", "", usage)
	must(cmd.RegisterFlagCompletionFunc("to", o.completePlacements))
}

// check finds what is missing, or wrong whatever the group says.
func (f *beginFlags) check() error {
	if f.to == "" {
		return errors.New("--to: missing; name the new placement")
	}
	return f.checkBarrier()
}

func (f *beginFlags) checkBarrier() error {
	if f.barrier < 0 {
		return fmt.Errorf("--drain-barrier: must be more than 0, got %s", f.barrier)
	}
	return nil
}

func newPartitionReport(o *options) *cobra.Command {
	f := &changeFlags{}
	progress := &quoratev1.CopyProgress{}
	var copied, verified bool
	cmd := &cobra.Command{
		Use:   "report ID",
		Short: "Tell how far the copy of a migration is, and that it was verified",
		Example: `  quorate partition report tank-1 --done 420 --total 1000 --text rows
  quorate partition report tank-1 --copied
  quorate partition report tank-1 --verified`,
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: o.completePartitions(1),
	}
	f.addExpect(cmd)
	flags := cmd.Flags()
	flags.Uint64Var(&progress.Done, "done", 0, "done out of the total, in whatever unit")
	flags.Uint64Var(&progress.Total, "total", 0, "the total; 0 means that it is not known")
	flags.StringVar(&progress.Text, "text", "", "up to 256 bytes for people")
	flags.BoolVar(&copied, "copied", false, "the copy is complete")
	flags.BoolVar(&verified, "verified", false, "the copy was compared with its source")
	cmd.RunE = func(cmd *cobra.Command, arguments []string) error {
		numbers := cmd.Flags().Changed("done") || cmd.Flags().Changed("total")
		switch {
		case numbers && copied:
			return errors.New("--copied: says that all is done, and --done and --total say how much; give one of them")
		case !numbers && !copied && !verified && progress.Text == "":
			return errors.New("nothing to report: give --done and --total, --copied or --verified")
		}
		return transition(o, func(client quoratev1.PartitionServiceClient, id string) (*quoratev1.ReportMigrationResponse, error) {
			request := &quoratev1.ReportMigrationRequest{RequestId: id, Partition: arguments[0], ExpectedEpoch: f.expect, Verified: verified}
			if numbers || copied || progress.Text != "" {
				request.Copy = progress
			}
			if !numbers && request.Copy != nil {
				if err := fillProgress(cmd.Context(), client, arguments[0], progress, copied); err != nil {
					return nil, err
				}
			}
			return client.ReportMigration(cmd.Context(), request)
		})
	}
	return cmd
}

// fillProgress takes the numbers that were reported before: all is done of the same total, and a text alone leaves them as they are.
func fillProgress(ctx context.Context, client quoratev1.PartitionServiceClient, id string, progress *quoratev1.CopyProgress, copied bool) error {
	answer, err := client.GetPartition(ctx, &quoratev1.GetPartitionRequest{Partition: id})
	if err != nil {
		return err
	}
	before := answer.GetPartition().GetMigration().GetCopy()
	progress.Done, progress.Total = before.GetDone(), before.GetTotal()
	if copied {
		progress.Total = max(progress.Total, progress.Done, 1)
		progress.Done = progress.Total
	}
	return nil
}

func newPartitionCutover(o *options) *cobra.Command {
	return newStep(o, "cutover ID", "Stop the writes of a partition that drains: its drain barrier begins",
		func(ctx context.Context, client quoratev1.PartitionServiceClient, id, partition string, f *changeFlags) (moved, error) {
			return client.CutoverMigration(ctx, &quoratev1.CutoverMigrationRequest{RequestId: id, Partition: partition, ExpectedEpoch: f.expect, Note: f.note})
		})
}

func newPartitionComplete(o *options) *cobra.Command {
	return newStep(o, "complete ID", "Make the new placement the owner, once the drain barrier has passed",
		func(ctx context.Context, client quoratev1.PartitionServiceClient, id, partition string, f *changeFlags) (moved, error) {
			return client.CompleteMigration(ctx, &quoratev1.CompleteMigrationRequest{RequestId: id, Partition: partition, ExpectedEpoch: f.expect, Note: f.note})
		})
}

func newPartitionAbort(o *options) *cobra.Command {
	return newStep(o, "abort ID", "Give a migration up: the old placement is the only owner, and writes go on there",
		func(ctx context.Context, client quoratev1.PartitionServiceClient, id, partition string, f *changeFlags) (moved, error) {
			return client.AbortMigration(ctx, &quoratev1.AbortMigrationRequest{RequestId: id, Partition: partition, ExpectedEpoch: f.expect, Note: f.note})
		})
}

// newStep is one step of a migration.
func newStep(o *options, use, short string,
	do func(ctx context.Context, client quoratev1.PartitionServiceClient, id, partition string, f *changeFlags) (moved, error),
) *cobra.Command {
	f := &changeFlags{}
	cmd := &cobra.Command{Use: use, Short: short, Args: cobra.ExactArgs(1), ValidArgsFunction: o.completeMigrating}
	f.add(cmd)
	cmd.RunE = func(cmd *cobra.Command, arguments []string) error {
		return transition(o, func(client quoratev1.PartitionServiceClient, id string) (moved, error) {
			return do(cmd.Context(), client, id, arguments[0], f)
		})
	}
	return cmd
}
