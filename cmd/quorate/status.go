package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	quoratev1 "quorate/proto/quorate/v1"
	"quorate/rpc"
)

func newStatus(o *options) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Everything on one screen: sets, servers and their levels with reasons, leases, roll-outs, members, migrations",
		Long: `Status asks for all that an operator wants to know first. Where the group has no leader it shows what the member that answers knows by itself,
says so, and ends with exit code 3.`,
		Args: cobra.NoArgs,
	}
	read := addReadFlags(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		options, err := read.options()
		if err != nil {
			return err
		}
		group, err := o.connect()
		if err != nil {
			return err
		}
		defer group.Close()
		s, err := lookAround(cmd.Context(), group, options)
		var remote *remoteError
		if errors.As(err, &remote) && reasonOf(remote.err) == rpc.ReasonNoLeader {
			// This is when a status is wanted most.
			alone, alsoFailed := lookAround(cmd.Context(), group, &quoratev1.ReadOptions{Consistency: quoratev1.Consistency_CONSISTENCY_LOCAL})
			if alsoFailed != nil {
				return err
			}
			s, err = alone, fmt.Errorf("%w: what is shown is what one member knows by itself", err)
		} else if err != nil {
			return err
		}
		return errors.Join(o.showPlain(s, func(p *printer) { s.print(p) }), err)
	}
	return cmd
}

// overview is what the group says of itself at one moment.
type overview struct {
	*quoratev1.GetOverviewResponse
	partitions partitionOverview
}

// lookAround asks for everything. What it asks for after the first answer is of the same moment or a later one.
func lookAround(ctx context.Context, group *connection, read *quoratev1.ReadOptions) (s overview, err error) {
	if s.GetOverviewResponse, err = quoratev1.NewOverviewServiceClient(group).GetOverview(ctx, &quoratev1.GetOverviewRequest{Read: read}); err != nil {
		return s, err
	}
	// This need not be confirmed by a majority once more.
	read = &quoratev1.ReadOptions{Consistency: quoratev1.Consistency_CONSISTENCY_LOCAL, MinRevision: s.GetHeader().GetRevision()}
	s.partitions, err = lookAtPartitions(ctx, group, read)
	return s, err
}

// MarshalJSON puts the answers side by side, each as its own command prints it.
func (s overview) MarshalJSON() ([]byte, error) {
	header := s.GetHeader()
	document := map[string]json.RawMessage{}
	for name, answer := range map[string]proto.Message{
		"members":     &quoratev1.ListMembersResponse{Header: header, Members: s.GetMembers()},
		"topology":    &quoratev1.GetTopologyResponse{Header: header, Generation: s.GetGeneration()},
		"applies":     &quoratev1.GetApplyStatusResponse{Header: header, Rollouts: s.GetRollouts()},
		"serving":     &quoratev1.ListServingResponse{Header: header, Serving: s.GetServing()},
		"leases":      &quoratev1.ListLeasesResponse{Header: header, Leases: s.GetLeases()},
		"maintenance": &quoratev1.ListMaintenanceResponse{Header: header, Maintenance: s.GetMaintenance()},
		"placements":  s.partitions.placements,
		"migrations":  s.partitions.migrations,
		"instances":   s.partitions.instances,
	} {
		raw, err := protojson.MarshalOptions{EmitDefaultValues: true}.Marshal(answer)
		if err != nil {
			return nil, err
		}
		document[name] = raw
	}
	return json.Marshal(document)
}

func (s overview) print(p *printer) {
	s.printGroup(p)
	for _, set := range s.GetGeneration().GetTopology().GetSets() {
		p.line("")
		s.printSet(p, set)
	}
	if len(s.GetMaintenance()) > 0 {
		p.line("")
		for _, m := range s.GetMaintenance() {
			p.line("%s is in maintenance since %s, expected back %s: %s", m.GetServer(), moment(m.GetSince()),
				cmp.Or(moment(m.GetEstimatedReturn()), "at no known time"), singleLine(m.GetReason()))
		}
	}
	s.partitions.print(p)
}

// printGroup prints the members as a group: who leads, who is missing.
func (s overview) printGroup(p *printer) {
	leader, up := "none", 0
	rows := make([][]cell, 0, len(s.GetMembers()))
	for _, m := range s.GetMembers() {
		if m.GetLeader() {
			leader = m.GetId()
		}
		if m.GetReachable() {
			up++
		}
		rows = append(rows, text(m.GetId(), memberRaft(m), memberState(m), whenReachable(m, m.GetTerm()), whenReachable(m, m.GetAppliedRevision()),
			contact(m), m.GetVersion(), m.GetCommandVersion()))
	}
	p.line("generation %d, revision %d, leader %s, %d of %d members reachable", s.GetGeneration().GetNumber(),
		s.GetHeader().GetRevision(), leader, up, len(s.GetMembers()))
	p.table([]string{"MEMBER", "RAFT", "STATE", "TERM", "REVISION", "CONTACT", "VERSION", "COMMANDS"}, rows)
}

func whenReachable(m *quoratev1.Member, value any) string {
	if !m.GetReachable() {
		return ""
	}
	return fmt.Sprint(value)
}

// contact is the age of a member's last contact with the leader.
func contact(m *quoratev1.Member) string {
	if !m.GetReachable() || m.GetLeaderContactAge() == nil {
		return ""
	}
	return m.GetLeaderContactAge().AsDuration().Round(time.Millisecond).String()
}

// printSet prints the servers of one set, what each advertises, and why.
func (s overview) printSet(p *printer, set *quoratev1.RedundantSet) {
	p.line("set %s, mode %s%s", set.GetId(), set.GetMode(), s.rolloutOf(set.GetId()))
	var rows [][]cell
	var reasons []string
	for _, server := range set.GetServers() {
		m := s.member(server.GetMember())
		if m == nil {
			m = &quoratev1.Member{}
		}
		rows = append(rows, text(server.GetMember(), server.GetRole(), memberLevel(m), m.GetBand(), s.right(server.GetMember(), m),
			s.openLeases(server.GetMember()), m.GetAdoptedGeneration(), s.applied(server.GetMember()), peersSeen(m)))
		if len(m.GetReasons()) > 0 {
			reasons = append(reasons, fmt.Sprintf("%s: %s", server.GetMember(), singleLine(strings.Join(m.GetReasons(), "; "))))
		}
	}
	p.table([]string{"SERVER", "ROLE", "LEVEL", "BAND", "SERVING LEASE", "APPLY LEASES", "ADOPTED", "APPLIED", "SEES"}, rows)
	for _, reason := range reasons {
		p.line("%s", reason)
	}
}

func (s overview) rolloutOf(set string) string {
	for _, r := range s.GetRollouts() {
		if r.GetSet() == set && r.GetState() != quoratev1.RolloutState_ROLLOUT_STATE_DONE {
			return fmt.Sprintf(", roll-out of generation %d is %s", r.GetGeneration(), rolloutState(r).text)
		}
	}
	return ""
}

// applied is the last generation that a server applied well. It is in the group's state, so that a server which is away does not count as one that applied none.
func (s overview) applied(server string) uint64 {
	for _, r := range s.GetRollouts() {
		for _, a := range r.GetServers() {
			if a.GetServer() == server {
				return a.GetAppliedGeneration()
			}
		}
	}
	return 0
}

func (s overview) member(id string) *quoratev1.Member {
	i := slices.IndexFunc(s.GetMembers(), func(m *quoratev1.Member) bool { return m.GetId() == id })
	if i < 0 {
		return nil
	}
	return s.GetMembers()[i]
}

// right says whether a server may advertise Healthy levels, and what is left of its lease.
func (s overview) right(server string, m *quoratev1.Member) string {
	what := ""
	for _, serving := range s.GetServing() {
		if serving.GetServer() == server {
			if what = "healthy"; serving.GetStandIn() {
				what = "stand-in"
			}
		}
	}
	switch {
	case m.GetServingLease() != nil:
		what = strings.TrimSpace(what + " " + m.GetServingLease().AsDuration().Round(100*time.Millisecond).String())
	case what != "":
		what += ", no lease"
	}
	return what
}

func (s overview) openLeases(server string) string {
	count := 0
	for _, l := range s.GetLeases() {
		if l.GetKey().GetServer() == server {
			count++
		}
	}
	return fmt.Sprint(count)
}

// peersSeen is what a server last saw of the others of its set.
func peersSeen(m *quoratev1.Member) string {
	seen := make([]string, 0, len(m.GetPeers()))
	for _, peer := range m.GetPeers() {
		if peer.GetReachable() {
			seen = append(seen, fmt.Sprintf("%s %d", peer.GetServer(), peer.GetServiceLevel()))
		} else {
			seen = append(seen, peer.GetServer()+" unreachable")
		}
	}
	return strings.Join(seen, ", ")
}
