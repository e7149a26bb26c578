package main

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	"quorate/cmd/quorate/migration"
	quoratev1 "quorate/proto/quorate/v1"
)

func newPartition(o *options) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "partition",
		Short: "Partitions: where each lives, and moving it without losing or misplacing a write",
		Long: `A partition is active at a placement. A migration takes it through draining, where the data are copied while writes go on, and cutover, where
nobody may write until the drain barrier has passed, to its new placement. migrate drives all of it; begin, report, cutover, complete and abort are
its single steps.`,
		Args: cobra.ArbitraryArgs,
		RunE: noVerb,
	}
	cmd.AddCommand(
		newPartitionList(o), newPartitionGet(o), newPartitionPlacements(o), newPartitionMigrations(o), newPartitionWatch(o),
		newPartitionResolve(o), newPartitionCheck(o),
		newPartitionCreate(o), newPartitionSetPlacement(o), newPartitionDelete(o), newPartitionSettings(o),
		newPartitionMigrate(o), newPartitionDrain(o), newPartitionReverse(o),
		newPartitionBegin(o), newPartitionReport(o), newPartitionCutover(o), newPartitionComplete(o), newPartitionAbort(o),
	)
	return cmd
}

func (o *options) partition(do func(quoratev1.PartitionServiceClient) error) error {
	group, err := o.connect()
	if err != nil {
		return err
	}
	defer group.Close()
	return do(quoratev1.NewPartitionServiceClient(group))
}

func newPartitionGet(o *options) *cobra.Command {
	var watch bool
	request := &quoratev1.GetPartitionRequest{}
	cmd := &cobra.Command{
		Use:               "get ID",
		Short:             "Show one partition, with its migration if there is one",
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: o.completePartitions(1),
	}
	read := addReadFlags(cmd)
	addWatchFlag(cmd, &watch)
	cmd.RunE = func(cmd *cobra.Command, arguments []string) error {
		var err error
		if request.Read, err = read.options(); err != nil {
			return err
		}
		request.Partition = arguments[0]
		return o.partition(func(client quoratev1.PartitionServiceClient) error {
			return showChanges(cmd.Context(), o, watch, func(ctx context.Context) (*quoratev1.GetPartitionResponse, error) {
				return client.GetPartition(ctx, request)
			}, func(p *printer, answer *quoratev1.GetPartitionResponse) { printPartition(p, answer.GetPartition()) })
		})
	}
	return cmd
}

func newPartitionPlacements(o *options) *cobra.Command {
	var watch bool
	cmd := &cobra.Command{Use: "placements", Short: "List the placements, with how many partitions each owns", Args: cobra.NoArgs}
	read := addReadFlags(cmd)
	addWatchFlag(cmd, &watch)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		options, err := read.options()
		if err != nil {
			return err
		}
		return o.partition(func(client quoratev1.PartitionServiceClient) error {
			return showChanges(cmd.Context(), o, watch, func(ctx context.Context) (*quoratev1.ListPlacementsResponse, error) {
				return client.ListPlacements(ctx, &quoratev1.ListPlacementsRequest{Read: options})
			}, func(p *printer, answer *quoratev1.ListPlacementsResponse) {
				rows := make([][]cell, 0, len(answer.GetPlacements()))
				for _, placement := range answer.GetPlacements() {
					rows = append(rows, text(placement.GetId(), placement.GetPartitions(), placement.GetLeaving(), placement.GetComing()))
				}
				p.table([]string{"PLACEMENT", "PARTITIONS", "LEAVING", "COMING"}, rows)
			})
		})
	}
	return cmd
}

func newPartitionMigrations(o *options) *cobra.Command {
	var watch bool
	request := &quoratev1.ListMigrationsRequest{PageSize: pageSize}
	cmd := &cobra.Command{
		Use:   "migrations",
		Short: "List the partitions that migrate, with what is left of each drain barrier",
		Args:  cobra.NoArgs,
	}
	read := addReadFlags(cmd)
	addWatchFlag(cmd, &watch)
	cmd.Flags().StringVar(&request.Placement, "placement", "", "only those from or to this `PLACEMENT`")
	must(cmd.RegisterFlagCompletionFunc("placement", o.completePlacements))
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		var err error
		if request.Read, err = read.options(); err != nil {
			return err
		}
		return o.partition(func(client quoratev1.PartitionServiceClient) error {
			return showChanges(cmd.Context(), o, watch, func(ctx context.Context) (*quoratev1.ListMigrationsResponse, error) {
				return allMigrations(ctx, client, proto.CloneOf(request))
			}, func(p *printer, answer *quoratev1.ListMigrationsResponse) {
				printMigrations(p, answer.GetPartitions()...)
			})
		})
	}
	return cmd
}

// allMigrations returns all pages as one; the group bounds how many partitions migrate at a time.
func allMigrations(ctx context.Context, client quoratev1.PartitionServiceClient, request *quoratev1.ListMigrationsRequest) (*quoratev1.ListMigrationsResponse, error) {
	whole := &quoratev1.ListMigrationsResponse{}
	for {
		page, err := client.ListMigrations(ctx, request)
		if err != nil {
			return nil, err
		}
		whole.Header, whole.Partitions = page.GetHeader(), append(whole.Partitions, page.GetPartitions()...)
		if request.PageToken = page.GetNextPageToken(); request.PageToken == "" {
			return whole, nil
		}
	}
}

func addWatchFlag(cmd *cobra.Command, watch *bool) {
	cmd.Flags().BoolVarP(watch, "watch", "w", false, "go on showing it, whenever it changed")
}

// showChanges shows an answer once or, with watch, whenever it changed, until it is interrupted. The header and what is left of a barrier change always, and
// so don't count.
func showChanges[R proto.Message](ctx context.Context, o *options, watch bool, ask func(context.Context) (R, error), table func(*printer, R)) error {
	tick := time.NewTicker(watchInterval)
	defer tick.Stop()
	var before proto.Message
	for {
		answer, err := ask(ctx)
		if watch && ctx.Err() != nil {
			return nil // That is how a watch ends.
		}
		if err != nil {
			return err
		}
		if seen := withoutMotion(answer); before == nil || !proto.Equal(seen, before) {
			if before != nil && o.output == outputTable {
				if _, err := fmt.Fprintln(o.std.out); err != nil {
					return err
				}
			}
			if err := o.show(answer, func(p *printer) { table(p, answer) }); err != nil || !watch {
				return err
			}
			before = seen
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// withoutMotion returns an answer without what moves though nothing happened.
func withoutMotion(answer proto.Message) proto.Message {
	still := proto.Clone(answer)
	var partitions []*quoratev1.Partition
	switch m := still.(type) {
	case *quoratev1.GetPartitionResponse:
		m.Header, partitions = nil, []*quoratev1.Partition{m.GetPartition()}
	case *quoratev1.ListMigrationsResponse:
		m.Header, partitions = nil, m.GetPartitions()
	case *quoratev1.ListPlacementsResponse:
		m.Header = nil
	case *quoratev1.ListInstancesResponse:
		m.Header = nil
	}
	for _, p := range partitions {
		if p.GetMigration() != nil {
			p.Migration.BarrierLeft = nil
		}
	}
	return still
}

// printPartition prints one partition as lines.
func printPartition(p *printer, partition *quoratev1.Partition) {
	p.line("partition %s", partition.GetId())
	rows := [][]cell{
		text("phase", phaseCell(partition)), text("placement", partition.GetPlacement()), text("epoch", partition.GetEpoch()), text("revision", partition.GetRevision()),
		text("previous placement", partition.GetPreviousPlacement()), text("drain barrier", span(partition.GetDrainBarrier())),
	}
	if m := partition.GetMigration(); m != nil {
		rows = append(rows, text("migrates to", m.GetTo()), text("begun", moment(m.GetBegunAt())+" by "+m.GetActor().GetName()), text("note", m.GetNote()),
			text("servers", fmt.Sprint(append([]string{m.GetFrom(), m.GetTo()}, m.GetServers()...))), text("copy", copyText(m)), text("verified", verifiedText(m)),
			text("its barrier", barrierText(m)), text("cut over", moment(m.GetCutoverAt())))
	}
	(&columns{}).write(p, rows)
}

// printMigrations prints partitions that migrate, or did: one row each.
func printMigrations(p *printer, partitions ...*quoratev1.Partition) {
	rows := make([][]cell, 0, len(partitions))
	for _, partition := range partitions {
		m := partition.GetMigration()
		rows = append(rows, text(partition.GetId(), phaseCell(partition), partition.GetPlacement(), m.GetTo(), partition.GetEpoch(), barrierText(m), copyText(m),
			verifiedText(m), moment(m.GetBegunAt()), m.GetActor().GetName(), m.GetNote()))
	}
	p.table([]string{"PARTITION", "PHASE", "AT", "TO", "EPOCH", "BARRIER", "COPY", "VERIFIED", "BEGUN", "BY", "NOTE"}, rows)
}

func phaseCell(p *quoratev1.Partition) cell {
	c := cell{text: migration.PhaseName(p.GetPhase())}
	switch p.GetPhase() {
	case quoratev1.PartitionPhase_PARTITION_PHASE_DRAINING:
		c.colour = warn
	case quoratev1.PartitionPhase_PARTITION_PHASE_CUTOVER:
		c.colour = bad
	}
	return c
}

// span shows a duration; an absent one is nothing.
func span(d *durationpb.Duration) string {
	if d == nil {
		return ""
	}
	return d.AsDuration().String()
}

// barrierText shows how long the drain barrier is, and what is left of it once it counts.
func barrierText(m *quoratev1.Migration) string {
	if m == nil {
		return ""
	}
	how := ""
	if m.GetEarlyCompletion() {
		how = ", early"
	}
	if m.GetBarrierLeft() == nil {
		return span(m.GetDrainBarrier()) + how
	}
	return fmt.Sprintf("%s of %s left%s", m.GetBarrierLeft().AsDuration().Round(100*time.Millisecond), span(m.GetDrainBarrier()), how)
}

func copyText(m *quoratev1.Migration) string {
	c := m.GetCopy()
	switch {
	case c == nil:
		return ""
	case migration.Copied(m):
		return "complete"
	case c.GetTotal() == 0:
		return fmt.Sprintf("%d %s", c.GetDone(), c.GetText())
	default:
		return fmt.Sprintf("%d %% %s", percent(c.GetDone(), c.GetTotal()), c.GetText())
	}
}

// percent is rounded down, so that it is 100 only at the end. The numbers may be as large as they like.
func percent(done, total uint64) int { return int(float64(done) / float64(total) * 100) }

func verifiedText(m *quoratev1.Migration) string {
	switch {
	case m.GetVerified():
		return "yes"
	case m.GetVerificationRequired():
		return "required"
	default:
		return ""
	}
}
