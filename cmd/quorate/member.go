package main

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	quoratev1 "quorate/proto/quorate/v1"
)

func newMember(o *options) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "member",
		Short: "The members of the group, and who they are",
		Args:  cobra.ArbitraryArgs,
		RunE:  noVerb,
	}
	cmd.AddCommand(newMemberList(o), newMemberTransfer(o), newMemberAdd(o), newMemberPromote(o), newMemberRemove(o))
	return cmd
}

func newMemberList(o *options) *cobra.Command {
	cmd := &cobra.Command{Use: "list", Short: "List the members with what each says of itself", Args: cobra.NoArgs}
	read := addReadFlags(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		options, err := read.options()
		if err != nil {
			return err
		}
		return o.member(func(client quoratev1.MemberServiceClient) error {
			answer, err := client.ListMembers(cmd.Context(), &quoratev1.ListMembersRequest{Read: options})
			if err != nil {
				return err
			}
			return o.show(answer, func(p *printer) { printMembers(p, answer.GetMembers()) })
		})
	}
	return cmd
}

func printMembers(p *printer, members []*quoratev1.Member) {
	rows := make([][]cell, 0, len(members))
	for _, m := range members {
		rows = append(rows, text(m.GetId(), memberRaft(m), memberState(m), m.GetSet(), m.GetRole(), memberLevel(m), m.GetBand(),
			whenReachable(m, m.GetAppliedRevision()), m.GetGrpcAddress(), m.GetOpcuaUrl()))
	}
	p.table([]string{"MEMBER", "RAFT", "STATE", "SET", "ROLE", "LEVEL", "BAND", "REVISION", "GRPC", "OPC UA"}, rows)
	for _, m := range members {
		if len(m.GetReasons()) > 0 {
			p.line("%s: %s", m.GetId(), singleLine(strings.Join(m.GetReasons(), "; ")))
		}
	}
}

// memberRaft is a member's part in Raft.
func memberRaft(m *quoratev1.Member) string {
	if m.GetLeader() {
		return "leader"
	}
	return strings.ToLower(strings.TrimPrefix(m.GetSuffrage().String(), "SUFFRAGE_"))
}

func memberState(m *quoratev1.Member) cell {
	switch {
	case m.GetDiverged():
		return cell{text: "diverged", colour: bad}
	case !m.GetReachable():
		return cell{text: "unreachable", colour: bad}
	default:
		return cell{text: "reachable", colour: good}
	}
}

func memberLevel(m *quoratev1.Member) cell {
	if m.ServiceLevel == nil {
		return cell{}
	}
	return cell{text: fmt.Sprint(m.GetServiceLevel()), colour: levelColour(m)}
}

// levelColour follows the standard's sub-ranges of ServiceLevel: 200 to 255 Healthy, 2 to 199 Degraded, 1 NoData,
// 0 Maintenance (OPC 10000-4 §6.6.2.4.2). A healthy Backup of these bands advertises 100, so it is no warning.
func levelColour(m *quoratev1.Member) string {
	switch {
	case m.ServiceLevel == nil || m.GetSet() == "":
		return plain
	case m.GetServiceLevel() >= 200 || m.GetServiceLevel() == 100:
		return good
	case m.GetServiceLevel() >= 30:
		return warn
	default:
		return bad
	}
}

func newMemberTransfer(o *options) *cobra.Command {
	return &cobra.Command{
		Use:               "transfer [TO]",
		Short:             "Hand the Raft leadership to a voter; it moves no ServiceLevel",
		Args:              cobra.MaximumNArgs(1),
		ValidArgsFunction: o.completeMembers,
		RunE: func(cmd *cobra.Command, arguments []string) error {
			request := &quoratev1.TransferLeadershipRequest{}
			if len(arguments) > 0 {
				request.To = arguments[0]
			}
			return o.member(func(client quoratev1.MemberServiceClient) error {
				answer, err := client.TransferLeadership(cmd.Context(), request)
				if err != nil {
					return err
				}
				return o.show(answer, func(p *printer) { p.line("leader is %s", answer.GetLeader()) })
			})
		},
	}
}

func newMemberAdd(o *options) *cobra.Command {
	return &cobra.Command{
		Use:   "add ID RAFT_ADDRESS",
		Short: "Add a member without a vote (a learner); it must already run, without a bootstrap list",
		Args:  cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, arguments []string) error {
			if err := checkHostPort(arguments[1]); err != nil {
				return fmt.Errorf("RAFT_ADDRESS: %w", err)
			}
			return o.member(func(client quoratev1.MemberServiceClient) error {
				answer, err := client.AddLearner(cmd.Context(), &quoratev1.AddLearnerRequest{Id: arguments[0], RaftAddress: arguments[1]})
				if err != nil {
					return err
				}
				return o.show(answer, func(p *printer) { p.line("member %s is a learner", arguments[0]) })
			})
		},
	}
}

func newMemberPromote(o *options) *cobra.Command {
	return &cobra.Command{
		Use:               "promote ID",
		Short:             "Give a learner a vote, once it has caught up",
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: o.completeMembers,
		RunE: func(cmd *cobra.Command, arguments []string) error {
			return o.member(func(client quoratev1.MemberServiceClient) error {
				answer, err := client.PromoteMember(cmd.Context(), &quoratev1.PromoteMemberRequest{Id: arguments[0]})
				if err != nil {
					return err
				}
				return o.show(answer, func(p *printer) { p.line("member %s is a voter", arguments[0]) })
			})
		},
	}
}

func newMemberRemove(o *options) *cobra.Command {
	confirm := &confirmation{}
	cmd := &cobra.Command{
		Use:               "remove ID",
		Short:             "Take a member out of the group; one that is in the current topology is refused",
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: o.completeMembers,
	}
	confirm.add(cmd)
	cmd.RunE = func(cmd *cobra.Command, arguments []string) error {
		if err := confirm.ask(o, "remove member "+arguments[0]+" from the group"); err != nil {
			return err
		}
		return o.member(func(client quoratev1.MemberServiceClient) error {
			answer, err := client.RemoveMember(cmd.Context(), &quoratev1.RemoveMemberRequest{Id: arguments[0]})
			if err != nil {
				return err
			}
			return o.show(answer, func(p *printer) { p.line("member %s is removed", arguments[0]) })
		})
	}
	return cmd
}

func (o *options) member(do func(quoratev1.MemberServiceClient) error) error {
	group, err := o.connect()
	if err != nil {
		return err
	}
	defer group.Close()
	return do(quoratev1.NewMemberServiceClient(group))
}
