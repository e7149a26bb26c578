package main

import (
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

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
