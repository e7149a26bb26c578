package main

import (
	"fmt"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/timestamppb"

	quoratev1 "quorate/proto/quorate/v1"
)

func newMaintenance(o *options) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "maintenance",
		Short: "Declare a server to be in maintenance, which is the only cause of ServiceLevel 0",
		Args:  cobra.ArbitraryArgs,
		RunE:  noVerb,
	}
	cmd.AddCommand(newMaintenanceOn(o), newMaintenanceOff(o), newMaintenanceList(o))
	return cmd
}

func newMaintenanceOn(o *options) *cobra.Command {
	request := &quoratev1.SetMaintenanceRequest{Active: true}
	var back string
	cmd := &cobra.Command{
		Use:               "on SERVER",
		Short:             "Put a server into maintenance",
		Example:           `  quorate maintenance on m2 --reason "new disk" --return 2h`,
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: o.completeMembers,
	}
	cmd.Flags().StringVar(&request.Reason, "reason", "", "why, for people; up to 256 bytes")
	cmd.Flags().StringVar(&back, "return", "", "when it is expected back: a duration such as 2h, or a `TIME` such as 2026-01-02T15:04:05Z")
	cmd.RunE = func(cmd *cobra.Command, arguments []string) error {
		if back != "" {
			at, err := parseReturn(back, time.Now())
			if err != nil {
				return err
			}
			request.EstimatedReturn = timestamppb.New(at)
		}
		return o.setMaintenance(cmd, request, arguments[0])
	}
	return cmd
}

// parseReturn reads the estimated return, as a duration from now or as a time. It must lie ahead.
func parseReturn(value string, now time.Time) (time.Time, error) {
	at, err := time.Parse(time.RFC3339, value)
	if err != nil {
		duration, err := time.ParseDuration(value)
		if err != nil {
			return time.Time{}, fmt.Errorf("--return: must be a duration such as 2h or a time such as 2026-01-02T15:04:05Z, got %q", value)
		}
		at = now.Add(duration)
	}
	if !at.After(now) {
		return time.Time{}, fmt.Errorf("--return: must be in the future, got %q", value)
	}
	return at, nil
}

func newMaintenanceOff(o *options) *cobra.Command {
	return &cobra.Command{
		Use:               "off SERVER",
		Short:             "End the maintenance of a server",
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: o.completeMembers,
		RunE: func(cmd *cobra.Command, arguments []string) error {
			return o.setMaintenance(cmd, &quoratev1.SetMaintenanceRequest{}, arguments[0])
		},
	}
}

func (o *options) setMaintenance(cmd *cobra.Command, request *quoratev1.SetMaintenanceRequest, server string) error {
	request.RequestId, request.Server = o.newRequestID(), server
	return o.maintenance(func(client quoratev1.MaintenanceServiceClient) error {
		answer, err := client.SetMaintenance(cmd.Context(), request)
		if err != nil {
			return err
		}
		return o.show(answer, func(p *printer) {
			if answer.GetMaintenance().GetActive() {
				p.line("server %s is in maintenance", server)
			} else {
				p.line("server %s is not in maintenance", server)
			}
		})
	})
}

func newMaintenanceList(o *options) *cobra.Command {
	cmd := &cobra.Command{Use: "list", Short: "List the servers in maintenance", Args: cobra.NoArgs}
	read := addReadFlags(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		options, err := read.options()
		if err != nil {
			return err
		}
		return o.maintenance(func(client quoratev1.MaintenanceServiceClient) error {
			answer, err := client.ListMaintenance(cmd.Context(), &quoratev1.ListMaintenanceRequest{Read: options})
			if err != nil {
				return err
			}
			return o.show(answer, func(p *printer) {
				rows := make([][]cell, 0, len(answer.GetMaintenance()))
				for _, m := range answer.GetMaintenance() {
					rows = append(rows, text(m.GetServer(), moment(m.GetSince()), m.GetActor().GetName(), moment(m.GetEstimatedReturn()), m.GetReason()))
				}
				p.table([]string{"SERVER", "SINCE", "BY", "EXPECTED BACK", "REASON"}, rows)
			})
		})
	}
	return cmd
}

func (o *options) maintenance(do func(quoratev1.MaintenanceServiceClient) error) error {
	group, err := o.connect()
	if err != nil {
		return err
	}
	defer group.Close()
	return do(quoratev1.NewMaintenanceServiceClient(group))
}
