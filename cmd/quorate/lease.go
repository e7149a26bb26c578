package main

import (
	"strings"

	"github.com/spf13/cobra"

	quoratev1 "quorate/proto/quorate/v1"
)

func newLease(o *options) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "lease",
		Short: "Apply leases: a server's right to be mid-apply, which lowers its ServiceLevel meanwhile",
		Args:  cobra.ArbitraryArgs,
		RunE:  noVerb,
	}
	cmd.AddCommand(newLeaseBegin(o), newLeaseEnd(o), newLeaseList(o))
	return cmd
}

func newLeaseBegin(o *options) *cobra.Command {
	request := &quoratev1.BeginLeaseRequest{}
	cmd := &cobra.Command{
		Use:               "begin SERVER",
		Short:             "Open an apply lease of a server, or one more window of the one that is open",
		Example:           `  quorate lease begin m1 --reason "reload of the historian"`,
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: o.completeMembers,
	}
	cmd.Flags().Uint64Var(&request.Generation, "generation", 0, "the `GENERATION` that is applied (default: the current one)")
	cmd.Flags().StringVar(&request.PublishRequestId, "publish-request-id", "", "request `ID` of the publish that made the generation (default: looked up)")
	cmd.Flags().StringVar(&request.Reason, "reason", "", "why, for people; up to 256 bytes; of a lease that is open already, the first reason stays")
	cmd.RunE = func(cmd *cobra.Command, arguments []string) error {
		request.RequestId, request.Server = o.newRequestID(), arguments[0]
		return o.lease(func(client quoratev1.LeaseServiceClient) error {
			answer, err := client.BeginLease(cmd.Context(), request)
			if err != nil {
				return err
			}
			return o.show(answer, func(p *printer) { printLeases(p, answer.GetLease()) })
		})
	}
	return cmd
}

func newLeaseEnd(o *options) *cobra.Command {
	request := &quoratev1.EndLeaseRequest{}
	cmd := &cobra.Command{
		Use:               "end SERVER",
		Short:             "Close one window of a server's apply lease; the last one ends it",
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: o.completeMembers,
	}
	cmd.Flags().Uint64Var(&request.Generation, "generation", 0, "`GENERATION` of the lease (default: that of the open one)")
	cmd.Flags().StringVar(&request.PublishRequestId, "publish-request-id", "", "publish request `ID` of the lease (default: that of the open one)")
	cmd.Flags().StringVar(&request.Outcome, "outcome", "", "how it went; up to 256 bytes (default: ok)")
	cmd.RunE = func(cmd *cobra.Command, arguments []string) error {
		request.RequestId, request.Server = o.newRequestID(), arguments[0]
		return o.lease(func(client quoratev1.LeaseServiceClient) error {
			answer, err := client.EndLease(cmd.Context(), request)
			if err != nil {
				return err
			}
			return o.show(answer, func(p *printer) { printLeases(p, answer.GetLease()) })
		})
	}
	return cmd
}

func newLeaseList(o *options) *cobra.Command {
	request := &quoratev1.ListLeasesRequest{}
	cmd := &cobra.Command{
		Use:               "list [SERVER]",
		Short:             "List the open apply leases",
		Args:              cobra.MaximumNArgs(1),
		ValidArgsFunction: o.completeMembers,
	}
	read := addReadFlags(cmd)
	cmd.Flags().BoolVar(&request.IncludeEnded, "all", false, "also the last ended and abandoned ones")
	cmd.RunE = func(cmd *cobra.Command, arguments []string) error {
		var err error
		if request.Read, err = read.options(); err != nil {
			return err
		}
		if len(arguments) > 0 {
			request.Server = arguments[0]
		}
		return o.lease(func(client quoratev1.LeaseServiceClient) error {
			answer, err := client.ListLeases(cmd.Context(), request)
			if err != nil {
				return err
			}
			return o.show(answer, func(p *printer) { printLeases(p, answer.GetLeases()...) })
		})
	}
	return cmd
}

func (o *options) lease(do func(quoratev1.LeaseServiceClient) error) error {
	group, err := o.connect()
	if err != nil {
		return err
	}
	defer group.Close()
	return do(quoratev1.NewLeaseServiceClient(group))
}

func printLeases(p *printer, leases ...*quoratev1.ApplyLease) {
	rows := make([][]cell, 0, len(leases))
	for _, l := range leases {
		state := cell{text: strings.ToLower(strings.TrimPrefix(l.GetState().String(), "LEASE_STATE_"))}
		switch l.GetState() {
		case quoratev1.LeaseState_LEASE_STATE_OPEN:
			state.colour = warn
		case quoratev1.LeaseState_LEASE_STATE_ABANDONED:
			state.colour = bad
		}
		note := l.GetReason()
		if l.GetOutcome() != "" {
			note = strings.TrimPrefix(note+": "+l.GetOutcome(), ": ")
		}
		rows = append(rows, text(l.GetKey().GetServer(), l.GetSet(), l.GetKey().GetGeneration(), state, l.GetWindows(),
			moment(l.GetBegunAt()), l.GetActor().GetName(), note))
	}
	p.table([]string{"SERVER", "SET", "GENERATION", "STATE", "WINDOWS", "BEGUN", "BY", "NOTE"}, rows)
}
