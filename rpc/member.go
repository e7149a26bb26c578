package rpc

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"

	"quorate/node"
	quoratev1 "quorate/proto/quorate/v1"
)

type memberService struct {
	quoratev1.UnimplementedMemberServiceServer
	server *Server
}

// ListMembers returns every member with what it says of itself. The read options say of which state the list of members
// is; what each one says of itself is always of now. With local consistency it answers without a leader too.
func (m *memberService) ListMembers(ctx context.Context, request *quoratev1.ListMembersRequest) (*quoratev1.ListMembersResponse, error) {
	_, header, err := m.server.read(ctx, request.GetRead())
	if err != nil {
		return nil, err
	}
	members, err := m.server.config.Node.Members(ctx)
	if err != nil {
		return nil, err
	}
	return &quoratev1.ListMembersResponse{Header: header, Members: members}, nil
}

// TransferLeadership hands the Raft leadership to a voter.
func (m *memberService) TransferLeadership(ctx context.Context, request *quoratev1.TransferLeadershipRequest) (*quoratev1.TransferLeadershipResponse, error) {
	leader, err := m.server.config.Node.TransferLeadership(ctx, request.GetTo())
	if err != nil {
		return nil, err
	}
	return &quoratev1.TransferLeadershipResponse{Header: m.header(), Leader: leader}, nil
}

// AddLearner adds a member without a vote.
func (m *memberService) AddLearner(ctx context.Context, request *quoratev1.AddLearnerRequest) (*quoratev1.AddLearnerResponse, error) {
	host, port, err := net.SplitHostPort(request.GetRaftAddress())
	if err != nil || host == "" {
		return nil, invalid("raft_address", "%q is not HOST:PORT", request.GetRaftAddress())
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
		return nil, invalid("raft_address", "%q has no port from 1 to 65535", request.GetRaftAddress())
	}
	if err := m.server.config.Node.AddLearner(ctx, request.GetId(), request.GetRaftAddress()); err != nil {
		return nil, m.wrongLearner(request, err)
	}
	return &quoratev1.AddLearnerResponse{Header: m.header()}, nil
}

// wrongLearner names the field of a learner that was refused. The leader judges by Raft's configuration and says no field, so
// that it is looked for here, afterwards: a state that lags behind may then name the wrong one, but refuses nothing.
func (m *memberService) wrongLearner(request *quoratev1.AddLearnerRequest, err error) error {
	for _, known := range m.server.config.Node.Local().State.Members() {
		if known.GetRaftAddress() == request.GetRaftAddress() && known.GetId() != request.GetId() {
			return wrongField("raft_address", fmt.Sprintf("%s is that of %s", request.GetRaftAddress(), known.GetId()), err)
		}
	}
	return wrongField("id", "", err)
}

// wrongField gives an argument that the group found invalid the name of its field, and leaves other failures as they are.
func wrongField(field, message string, err error) error {
	var failed *node.Error
	if !errors.As(err, &failed) || failed.Kind != node.Invalid {
		return err
	}
	if message == "" && failed.Err != nil {
		message = failed.Err.Error()
	}
	return invalid(field, "%s", cmp.Or(message, failed.Error()))
}

// PromoteMember gives a learner a vote.
func (m *memberService) PromoteMember(ctx context.Context, request *quoratev1.PromoteMemberRequest) (*quoratev1.PromoteMemberResponse, error) {
	if err := m.server.config.Node.Promote(ctx, request.GetId()); err != nil {
		return nil, wrongField("id", "", err)
	}
	return &quoratev1.PromoteMemberResponse{Header: m.header()}, nil
}

// RemoveMember takes a member out of the group.
func (m *memberService) RemoveMember(ctx context.Context, request *quoratev1.RemoveMemberRequest) (*quoratev1.RemoveMemberResponse, error) {
	if err := m.server.config.Node.Remove(ctx, request.GetId()); err != nil {
		return nil, wrongField("id", "", err)
	}
	return &quoratev1.RemoveMemberResponse{Header: m.header()}, nil
}

// header is that of an answer which isn't from the replicated state: the member's own, as it is.
func (m *memberService) header() *quoratev1.ResponseHeader {
	return headerOf(m.server.config.Node.Local())
}
