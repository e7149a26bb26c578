package main

import (
	"context"

	"github.com/spf13/cobra"

	quoratev1 "quorate/proto/quorate/v1"
)

func newInstance(o *options) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "instance",
		Short: "Instances: the proxies, gateways and historians that check write gates, and hold gate leases",
		Args:  cobra.ArbitraryArgs,
		RunE:  noVerb,
	}
	cmd.AddCommand(newInstanceList(o), newInstanceRemove(o))
	return cmd
}

func (o *options) gate(do func(quoratev1.GateServiceClient) error) error {
	group, err := o.connect()
	if err != nil {
		return err
	}
	defer group.Close()
	return do(quoratev1.NewGateServiceClient(group))
}

func newInstanceList(o *options) *cobra.Command {
	var watch bool
	cmd := &cobra.Command{Use: "list", Short: "List the registered instances", Args: cobra.NoArgs}
	read := addReadFlags(cmd)
	addWatchFlag(cmd, &watch)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		options, err := read.options()
		if err != nil {
			return err
		}
		return o.gate(func(client quoratev1.GateServiceClient) error {
			return showChanges(cmd.Context(), o, watch, func(ctx context.Context) (*quoratev1.ListInstancesResponse, error) {
				return client.ListInstances(ctx, &quoratev1.ListInstancesRequest{Read: options})
			}, func(p *printer, answer *quoratev1.ListInstancesResponse) {
				rows := make([][]cell, 0, len(answer.GetInstances()))
				for _, i := range answer.GetInstances() {
					rows = append(rows, text(i.GetId(), i.GetActor().GetName(), i.GetActor().GetAddress(), moment(i.GetRegisteredAt()), i.GetRevision()))
				}
				p.table([]string{"INSTANCE", "BY", "FROM", "REGISTERED", "REVISION"}, rows)
			})
		})
	}
	return cmd
}

func newInstanceRemove(o *options) *cobra.Command {
	confirm := &confirmation{}
	cmd := &cobra.Command{
		Use:   "remove ID",
		Short: "Take an instance that is gone for good from the list",
		Long: `Remove takes an instance from the list, whichever run of it is registered. One that still runs registers anew. Writes that it let in may be in
flight, and so no migration is completed early for one drain barrier from then on.`,
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: o.completeInstances,
	}
	confirm.add(cmd)
	cmd.RunE = func(cmd *cobra.Command, arguments []string) error {
		if err := confirm.ask(o, "remove instance "+arguments[0]); err != nil {
			return err
		}
		return o.gate(func(client quoratev1.GateServiceClient) error {
			answer, err := client.RemoveInstance(cmd.Context(), &quoratev1.RemoveInstanceRequest{RequestId: o.newRequestID(), Id: arguments[0]})
			if err != nil {
				return err
			}
			return o.show(answer, func(p *printer) { p.line("instance %s is removed", arguments[0]) })
		})
	}
	return cmd
}
