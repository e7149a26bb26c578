package node

import (
	"context"
	"errors"
	"fmt"

	peerv1 "quorate/proto/quorate/peer/v1"
)

// peers answers the other members. A question is never passed on to a third member: whoever asked knows better whom to ask next.
type peers struct {
	peerv1.UnimplementedPeerServiceServer
	n *Node
}

// started waits until the member is open: the raft port is, a moment earlier.
func (p peers) started(ctx context.Context) error {
	select {
	case <-p.n.started:
		return nil
	case <-ctx.Done():
		return toPeer(&Error{Op: "peer", Kind: NotLeader, Err: ctx.Err()})
	}
}

// Propose commits a forwarded command if this member leads.
func (p peers) Propose(ctx context.Context, req *peerv1.ProposeRequest) (*peerv1.ProposeResponse, error) {
	if err := p.started(ctx); err != nil {
		return nil, err
	}
	if err := p.n.usable("propose"); err != nil {
		return nil, toPeer(err)
	}
	if p.n.session.Load() == nil {
		return nil, toPeer(&Error{Op: "propose", Kind: NotLeader})
	}
	if req.GetCommand().GetBody() == nil {
		return nil, toPeer(&Error{Op: "propose", Kind: Invalid, Err: errors.New("command has no body")})
	}
	outcome, err := p.n.proposeHere(ctx, req.GetCommand())
	if err != nil {
		return nil, toPeer(err)
	}
	return &peerv1.ProposeResponse{Outcome: outcome}, nil
}

// ReadIndex confirms the leadership for all reads that wait at another member.
func (p peers) ReadIndex(ctx context.Context, _ *peerv1.ReadIndexRequest) (*peerv1.ReadIndexResponse, error) {
	if err := p.started(ctx); err != nil {
		return nil, err
	}
	if err := p.n.usable("read"); err != nil {
		return nil, toPeer(err)
	}
	if p.n.session.Load() == nil {
		return nil, toPeer(&Error{Op: "read", Kind: NotLeader})
	}
	revision, err := p.n.reads.join(ctx)
	if err != nil {
		return nil, toPeer(err)
	}
	return &peerv1.ReadIndexResponse{Index: revision}, nil
}

// ConfirmTerm tells this member's current term, which raft has made durable before anyone can hear of it.
func (p peers) ConfirmTerm(ctx context.Context, _ *peerv1.ConfirmTermRequest) (*peerv1.ConfirmTermResponse, error) {
	if err := p.started(ctx); err != nil {
		return nil, err
	}
	return &peerv1.ConfirmTermResponse{Term: p.n.raft.CurrentTerm()}, nil
}

// Status tells what this member says of itself.
func (p peers) Status(ctx context.Context, _ *peerv1.StatusRequest) (*peerv1.StatusResponse, error) {
	if err := p.started(ctx); err != nil {
		return nil, err
	}
	return &peerv1.StatusResponse{Member: p.n.self()}, nil
}

// ReportDivergence takes this member out of service if the report is right about its digest.
func (p peers) ReportDivergence(ctx context.Context, req *peerv1.ReportDivergenceRequest) (*peerv1.ReportDivergenceResponse, error) {
	if err := p.started(ctx); err != nil {
		return nil, err
	}
	if !p.n.diverge(req) {
		return nil, toPeer(&Error{Op: "report divergence", Kind: Invalid, Err: errors.New("not this member's digest")})
	}
	return &peerv1.ReportDivergenceResponse{}, nil
}

// ChangeMembership changes the configuration if this member leads.
func (p peers) ChangeMembership(ctx context.Context, req *peerv1.ChangeMembershipRequest) (*peerv1.ChangeMembershipResponse, error) {
	if err := p.started(ctx); err != nil {
		return nil, err
	}
	if err := p.n.usable("change membership"); err != nil {
		return nil, toPeer(err)
	}
	if p.n.session.Load() == nil {
		return nil, toPeer(&Error{Op: "change membership", Kind: NotLeader})
	}
	leader, err := p.n.changeHere(ctx, req)
	if err != nil {
		return nil, toPeer(err)
	}
	return &peerv1.ChangeMembershipResponse{Leader: leader}, nil
}

// RenewServing grants a serving lease if this member leads.
func (p peers) RenewServing(ctx context.Context, req *peerv1.RenewServingRequest) (*peerv1.RenewServingResponse, error) {
	if err := p.started(ctx); err != nil {
		return nil, err
	}
	if err := p.n.usable("renew serving"); err != nil {
		return nil, toPeer(err)
	}
	who := callerOf(ctx)
	if who.member != "" && who.member != req.GetMember() {
		return nil, toPeer(&Error{Op: "renew serving", Kind: Invalid, Err: fmt.Errorf("member: %s asks for %q", who.member, req.GetMember())})
	}
	resp, err := p.n.renewHere(ctx, req, who.conn)
	if err != nil {
		return nil, toPeer(err)
	}
	return resp, nil
}
