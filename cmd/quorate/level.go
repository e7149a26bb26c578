package main

import (
	"strings"

	"github.com/spf13/cobra"

	quoratev1 "quorate/proto/quorate/v1"
)

func newLevel(o *options) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "level",
		Short: "ServiceLevels: what each server advertised, since when, and why",
		Args:  cobra.ArbitraryArgs,
		RunE:  noVerb,
	}
	cmd.AddCommand(newLevelHistory(o))
	return cmd
}

func newLevelHistory(o *options) *cobra.Command {
	request := &quoratev1.ListLevelChangesRequest{}
	cmd := &cobra.Command{
		Use:   "history [SERVER]",
		Short: "List the changes of level with their reasons, newest first",
		Long: `History lists the changes that servers recorded. A server that the group could not reach records its changes when it can; a gap in its
numbers is changes that were too many to keep until then.`,
		Args:              cobra.MaximumNArgs(1),
		ValidArgsFunction: o.completeMembers,
	}
	read := addReadFlags(cmd)
	cmd.Flags().Uint32Var(&request.Limit, "limit", 64, "show at most `N`")
	cmd.RunE = func(cmd *cobra.Command, arguments []string) error {
		var err error
		if request.Read, err = read.options(); err != nil {
			return err
		}
		if len(arguments) > 0 {
			request.Server = arguments[0]
		}
		group, err := o.connect()
		if err != nil {
			return err
		}
		defer group.Close()
		answer, err := quoratev1.NewServingServiceClient(group).ListLevelChanges(cmd.Context(), request)
		if err != nil {
			return err
		}
		return o.show(answer, func(p *printer) { printLevelChanges(p, answer.GetChanges()) })
	}
	return cmd
}

func printLevelChanges(p *printer, changes []*quoratev1.LevelChange) {
	rows := make([][]cell, 0, len(changes))
	for _, c := range changes {
		rows = append(rows, text(moment(c.GetAt()), c.GetServer(), c.GetNumber(), c.GetBefore(), c.GetAfter(), c.GetBand(), c.GetRole(),
			c.GetGeneration(), strings.Join(c.GetReasons(), "; ")))
	}
	p.table([]string{"AT", "SERVER", "NUMBER", "FROM", "TO", "BAND", "ROLE", "GENERATION", "REASONS"}, rows)
}
