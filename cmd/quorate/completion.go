package main

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"quorate/cmd/quorate/migration"
	quoratev1 "quorate/proto/quorate/v1"
)

// completionTimeout is short: whoever presses the tab key waits for it.
const completionTimeout = time.Second

// asItIs asks for what the member has: freshness is not worth a wait here.
var asItIs = &quoratev1.ReadOptions{Consistency: quoratev1.Consistency_CONSISTENCY_LOCAL}

// connectForCompletion connects with the flags typed so far.
func (o *options) connectForCompletion() (*connection, error) {
	if err := o.complete(); err != nil {
		return nil, err
	}
	o.timeout = completionTimeout
	return o.connect()
}

// completeMembers offers the ids of the group's members for the first argument. A server is named by the member that runs
// it, so it serves both. Any failure offers nothing: a completion has no place for an error.
func (o *options) completeMembers(cmd *cobra.Command, arguments []string, begun string) ([]string, cobra.ShellCompDirective) {
	const directive = cobra.ShellCompDirectiveNoFileComp
	if len(arguments) > 0 {
		return nil, directive
	}
	group, err := o.connectForCompletion()
	if err != nil {
		return nil, directive
	}
	defer group.Close()
	answer, err := quoratev1.NewMemberServiceClient(group).ListMembers(cmd.Context(), &quoratev1.ListMembersRequest{
		Read: asItIs,
	})
	if err != nil {
		return nil, directive
	}
	ids := make([]string, 0, len(answer.GetMembers()))
	for _, member := range answer.GetMembers() {
		if strings.HasPrefix(member.GetId(), begun) {
			ids = append(ids, cobra.CompletionWithDesc(member.GetId(), strings.TrimSpace(member.GetRole()+" "+member.GetSet())))
		}
	}
	return ids, directive
}

// completeGenerations offers the last generations, for up to limit arguments.
func (o *options) completeGenerations(limit int) cobra.CompletionFunc {
	return func(cmd *cobra.Command, arguments []string, begun string) ([]string, cobra.ShellCompDirective) {
		const directive = cobra.ShellCompDirectiveNoFileComp | cobra.ShellCompDirectiveKeepOrder
		if len(arguments) >= limit {
			return nil, directive
		}
		group, err := o.connectForCompletion()
		if err != nil {
			return nil, directive
		}
		defer group.Close()
		answer, err := quoratev1.NewTopologyServiceClient(group).ListGenerations(cmd.Context(), &quoratev1.ListGenerationsRequest{Read: asItIs})
		if err != nil {
			return nil, directive
		}
		var numbers []string
		for _, g := range answer.GetGenerations() {
			if number := fmt.Sprint(g.GetNumber()); strings.HasPrefix(number, begun) {
				numbers = append(numbers, cobra.CompletionWithDesc(number, moment(g.GetPublishedAt())+" "+g.GetActor().GetName()))
			}
		}
		return numbers, directive
	}
}

const (
	// maxCompletions bounds what is offered: nobody chooses among more.
	maxCompletions = 200
	// completedArguments is for how many arguments of a command partitions are offered that takes any number.
	completedArguments = 1 << 10
)

// offer asks the group for what may come next, and offers what begins as the argument does.
func (o *options) offer(cmd *cobra.Command, begun string, ask func(context.Context, *connection) ([]cobra.Completion, error)) ([]cobra.Completion, cobra.ShellCompDirective) {
	const directive = cobra.ShellCompDirectiveNoFileComp
	group, err := o.connectForCompletion()
	if err != nil {
		return nil, directive
	}
	defer group.Close()
	found, err := ask(cmd.Context(), group)
	if err != nil {
		return nil, directive
	}
	offered := make([]cobra.Completion, 0, min(len(found), maxCompletions))
	for _, c := range found {
		if strings.HasPrefix(c, begun) && len(offered) < maxCompletions {
			offered = append(offered, c)
		}
	}
	return offered, directive
}

// completePartitions offers the ids of partitions for up to limit arguments, without those that were given.
func (o *options) completePartitions(limit int) cobra.CompletionFunc {
	return func(cmd *cobra.Command, arguments []string, begun string) ([]cobra.Completion, cobra.ShellCompDirective) {
		if len(arguments) >= limit || begun != "" && checkPartitionID("ID", begun) != nil {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		return o.offer(cmd, begun, func(ctx context.Context, group *connection) ([]cobra.Completion, error) {
			answer, err := quoratev1.NewPartitionServiceClient(group).ListPartitions(ctx, &quoratev1.ListPartitionsRequest{
				Read: asItIs, Prefix: begun, PageSize: maxCompletions,
			})
			return describePartitions(answer.GetPartitions(), arguments), err
		})
	}
}

// completeMigrating offers the ids of partitions that migrate.
func (o *options) completeMigrating(cmd *cobra.Command, arguments []string, begun string) ([]cobra.Completion, cobra.ShellCompDirective) {
	if len(arguments) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	return o.offer(cmd, begun, func(ctx context.Context, group *connection) ([]cobra.Completion, error) {
		answer, err := quoratev1.NewPartitionServiceClient(group).ListMigrations(ctx, &quoratev1.ListMigrationsRequest{Read: asItIs, PageSize: pageSize})
		return describePartitions(answer.GetPartitions(), arguments), err
	})
}

func describePartitions(partitions []*quoratev1.Partition, but []string) []cobra.Completion {
	found := make([]cobra.Completion, 0, len(partitions))
	for _, p := range partitions {
		if slices.Contains(but, p.GetId()) {
			continue
		}
		what := migration.PhaseName(p.GetPhase()) + " at " + p.GetPlacement()
		if to := p.GetMigration().GetTo(); to != "" {
			what += ", to " + to
		}
		found = append(found, cobra.CompletionWithDesc(p.GetId(), what))
	}
	return found
}

// completePlacements offers placements, wherever it is asked.
func (o *options) completePlacements(cmd *cobra.Command, _ []string, begun string) ([]cobra.Completion, cobra.ShellCompDirective) {
	return o.offer(cmd, begun, func(ctx context.Context, group *connection) ([]cobra.Completion, error) {
		answer, err := quoratev1.NewPartitionServiceClient(group).ListPlacements(ctx, &quoratev1.ListPlacementsRequest{Read: asItIs})
		found := make([]cobra.Completion, 0, len(answer.GetPlacements()))
		for _, p := range answer.GetPlacements() {
			found = append(found, cobra.CompletionWithDesc(p.GetId(), fmt.Sprintf("%d partitions", p.GetPartitions())))
		}
		return found, err
	})
}

// completeInstances offers the registered instances for the first argument.
func (o *options) completeInstances(cmd *cobra.Command, arguments []string, begun string) ([]cobra.Completion, cobra.ShellCompDirective) {
	if len(arguments) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	return o.offer(cmd, begun, func(ctx context.Context, group *connection) ([]cobra.Completion, error) {
		answer, err := quoratev1.NewGateServiceClient(group).ListInstances(ctx, &quoratev1.ListInstancesRequest{Read: asItIs})
		found := make([]cobra.Completion, 0, len(answer.GetInstances()))
		for _, i := range answer.GetInstances() {
			found = append(found, cobra.CompletionWithDesc(i.GetId(), "registered "+moment(i.GetRegisteredAt())))
		}
		return found, err
	})
}
