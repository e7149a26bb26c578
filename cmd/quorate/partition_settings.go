package main

import (
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/durationpb"

	quoratev1 "quorate/proto/quorate/v1"
)

func newPartitionSettings(o *options) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "settings",
		Short: "What holds for all partitions: drain barriers, early completion, gate leases",
		Args:  cobra.ArbitraryArgs,
		RunE:  noVerb,
	}
	cmd.AddCommand(newPartitionSettingsGet(o), newPartitionSettingsSet(o))
	return cmd
}

func newPartitionSettingsGet(o *options) *cobra.Command {
	cmd := &cobra.Command{Use: "get", Short: "Show the settings", Args: cobra.NoArgs}
	read := addReadFlags(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		options, err := read.options()
		if err != nil {
			return err
		}
		return o.partition(func(client quoratev1.PartitionServiceClient) error {
			answer, err := client.GetPartitionSettings(cmd.Context(), &quoratev1.GetPartitionSettingsRequest{Read: options})
			if err != nil {
				return err
			}
			return o.show(answer, func(p *printer) { printPartitionSettings(p, answer.GetSettings()) })
		})
	}
	return cmd
}

func newPartitionSettingsSet(o *options) *cobra.Command {
	settings := &quoratev1.PartitionSettings{}
	fields := []struct {
		flag, usage string
		into        **durationpb.Duration
		value       time.Duration
	}{
		{flag: "drain-barrier", usage: "the drain barrier of partitions and migrations that name none: up to 24h", into: &settings.DrainBarrier},
		{flag: "min-drain-barrier", usage: "no barrier is shorter: at least as long as the longest time-out of any write; 100ms to 24h", into: &settings.MinDrainBarrier},
		{flag: "early-floor", usage: "the least time between cutover and early completion: 0 to 24h", into: &settings.EarlyFloor},
		{flag: "gate-ttl", usage: "for how long a gate lease lasts: 200ms to 10s", into: &settings.GateTtl},
	}
	cmd := &cobra.Command{
		Use:     "set",
		Short:   "Change settings; those that are not named stay as they are",
		Example: "  quorate partition settings set --drain-barrier 45s --min-drain-barrier 45s",
		Args:    cobra.NoArgs,
	}
	for i := range fields {
		cmd.Flags().DurationVar(&fields[i].value, fields[i].flag, 0, fields[i].usage)
	}
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		changed := false
		for _, f := range fields {
			if !cmd.Flags().Changed(f.flag) {
				continue
			}
			if f.value < 0 {
				return fmt.Errorf("--%s: must not be negative, got %s", f.flag, f.value)
			}
			*f.into, changed = durationpb.New(f.value), true
		}
		if !changed {
			return errors.New("nothing to set: give --drain-barrier, --min-drain-barrier, --early-floor or --gate-ttl")
		}
		return o.partition(func(client quoratev1.PartitionServiceClient) error {
			answer, err := client.SetPartitionSettings(cmd.Context(), &quoratev1.SetPartitionSettingsRequest{RequestId: o.newRequestID(), Settings: settings})
			if err != nil {
				return err
			}
			return o.show(answer, func(p *printer) { printPartitionSettings(p, answer.GetSettings()) })
		})
	}
	return cmd
}

func printPartitionSettings(p *printer, s *quoratev1.PartitionSettings) {
	(&columns{}).write(p, [][]cell{
		text("drain barrier", span(s.GetDrainBarrier())), text("least drain barrier", span(s.GetMinDrainBarrier())),
		text("early floor", span(s.GetEarlyFloor())), text("gate TTL", span(s.GetGateTtl())),
	})
}
