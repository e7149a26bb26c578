package main

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"quorate/cmd/quorate/migration"
	quoratev1 "quorate/proto/quorate/v1"
)

func newPartitionResolve(o *options) *cobra.Command {
	var file string
	cmd := &cobra.Command{
		Use:   "resolve ID…",
		Short: "Say where partitions are read and written now",
		Long: `Resolve answers for up to 1000 partitions as of one revision; more are asked for in several questions. It fails with exit code 2 if there is no
such partition, after it has shown the others.`,
		ValidArgsFunction: o.completePartitions(completedArguments),
	}
	read := addReadFlags(cmd)
	addIDFileFlag(cmd, &file)
	cmd.RunE = func(cmd *cobra.Command, arguments []string) error {
		options, err := read.options()
		if err != nil {
			return err
		}
		ids, err := readIDs(o.std.in, arguments, file)
		if err != nil {
			return err
		}
		return o.partition(func(client quoratev1.PartitionServiceClient) error {
			whole := &quoratev1.ResolveResponse{}
			for first := 0; first < len(ids); first += pageSize {
				answer, err := client.Resolve(cmd.Context(), &quoratev1.ResolveRequest{Read: options, Partitions: ids[first:min(first+pageSize, len(ids))]})
				if err != nil {
					return err
				}
				whole.Header, whole.Resolutions = answer.GetHeader(), append(whole.Resolutions, answer.GetResolutions()...)
			}
			if err := o.show(whole, func(p *printer) { printResolutions(p, whole.GetResolutions()) }); err != nil {
				return err
			}
			return unknownPartitions(whole.GetResolutions())
		})
	}
	return cmd
}

func printResolutions(p *printer, resolutions []*quoratev1.Resolution) {
	rows := make([][]cell, 0, len(resolutions))
	for _, r := range resolutions {
		phase := cell{text: migration.PhaseName(r.GetPhase())}
		write := cell{text: r.GetWritePlacement()}
		switch r.GetPhase() {
		case quoratev1.PartitionPhase_PARTITION_PHASE_UNSPECIFIED:
			phase = cell{text: "unknown", colour: bad}
		case quoratev1.PartitionPhase_PARTITION_PHASE_CUTOVER:
			write = cell{text: "nobody", colour: bad}
		}
		rows = append(rows, text(r.GetPartition(), phase, r.GetReadPlacement(), write, r.GetEpoch(), r.GetRevision()))
	}
	p.table([]string{"PARTITION", "PHASE", "READ", "WRITE", "EPOCH", "REVISION"}, rows)
}

// unknownPartitions is an error if one of the partitions isn't there, so that a script need not look at every row.
func unknownPartitions(resolutions []*quoratev1.Resolution) error {
	var unknown []string
	for _, r := range resolutions {
		if r.GetPhase() == quoratev1.PartitionPhase_PARTITION_PHASE_UNSPECIFIED {
			unknown = append(unknown, r.GetPartition())
		}
	}
	if len(unknown) == 0 {
		return nil
	}
	return &serverError{fmt.Errorf("%d of %d partitions are not there: %s", len(unknown), len(resolutions), clip(strings.Join(unknown, ", "), maxParserText))}
}

func newPartitionCheck(o *options) *cobra.Command {
	request := &quoratev1.CheckGateRequest{}
	cmd := &cobra.Command{
		Use:   "check ID --epoch N",
		Short: "Check the write gate: whether one who resolved this epoch may write now, and where",
		Long: `Check passes, and prints the placement, if the epoch is the current one and the partition is not in cutover. Otherwise it fails with exit code 3,
reason STALE_EPOCH and the current epoch.`,
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: o.completePartitions(1),
	}
	read := addReadFlags(cmd)
	cmd.Flags().Uint64Var(&request.Epoch, "epoch", 0, "the `EPOCH` as it was resolved")
	must(cmd.MarkFlagRequired("epoch"))
	cmd.RunE = func(cmd *cobra.Command, arguments []string) error {
		var err error
		if request.Read, err = read.options(); err != nil {
			return err
		}
		request.Partition = arguments[0]
		return o.gate(func(client quoratev1.GateServiceClient) error {
			answer, err := client.CheckGate(cmd.Context(), request)
			if err != nil {
				return err
			}
			return o.show(answer, func(p *printer) { p.line("write to %s, epoch %d", answer.GetPlacement(), answer.GetEpoch()) })
		})
	}
	return cmd
}
