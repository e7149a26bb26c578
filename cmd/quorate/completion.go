package main

import (
	"strings"
	"time"

	"github.com/spf13/cobra"

	quoratev1 "quorate/proto/quorate/v1"
)

// completionTimeout is short: whoever presses the tab key waits for it.
const completionTimeout = time.Second

// completeMembers offers the ids of the group's members for the first argument. A server is named by the member that runs
// it, so it serves both. Any failure offers nothing: a completion has no place for an error.
func (o *options) completeMembers(cmd *cobra.Command, arguments []string, begun string) ([]string, cobra.ShellCompDirective) {
	const directive = cobra.ShellCompDirectiveNoFileComp
	if len(arguments) > 0 || o.complete() != nil {
		return nil, directive
	}
	group, err := o.connect()
	if err != nil {
		return nil, directive
	}
	defer group.Close()
	group.timeout = completionTimeout
	answer, err := quoratev1.NewMemberServiceClient(group).ListMembers(cmd.Context(), &quoratev1.ListMembersRequest{
		Read: &quoratev1.ReadOptions{Consistency: quoratev1.Consistency_CONSISTENCY_LOCAL},
	})
	if err != nil {
		return nil, directive
	}
	var ids []string
	for _, member := range answer.GetMembers() {
		if strings.HasPrefix(member.GetId(), begun) {
			ids = append(ids, cobra.CompletionWithDesc(member.GetId(), strings.TrimSpace(member.GetRole()+" "+member.GetSet())))
		}
	}
	return ids, directive
}
