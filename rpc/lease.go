package rpc

import (
	"context"
	"fmt"

	logv1 "quorate/proto/quorate/log/v1"
	quoratev1 "quorate/proto/quorate/v1"
)

type leaseService struct {
	quoratev1.UnimplementedLeaseServiceServer
	server *Server
}

// BeginLease opens an apply lease, or one more window of it.
func (l *leaseService) BeginLease(ctx context.Context, request *quoratev1.BeginLeaseRequest) (*quoratev1.BeginLeaseResponse, error) {
	outcome, err := l.server.propose(ctx, request.GetRequestId(), &logv1.Command{Body: &logv1.Command_BeginLease{
		BeginLease: &logv1.BeginLease{
			Server: request.GetServer(), Generation: request.GetGeneration(),
			PublishRequestId: request.GetPublishRequestId(), Reason: request.GetReason(),
		},
	}})
	if err != nil {
		return nil, err
	}
	return &quoratev1.BeginLeaseResponse{Header: l.server.headerAfter(outcome), Lease: outcome.GetLease()}, nil
}

// EndLease closes one window of an apply lease.
func (l *leaseService) EndLease(ctx context.Context, request *quoratev1.EndLeaseRequest) (*quoratev1.EndLeaseResponse, error) {
	outcome, err := l.server.propose(ctx, request.GetRequestId(), &logv1.Command{Body: &logv1.Command_EndLease{
		EndLease: &logv1.EndLease{
			Server: request.GetServer(), Generation: request.GetGeneration(),
			PublishRequestId: request.GetPublishRequestId(), Outcome: request.GetOutcome(),
		},
	}})
	if err != nil {
		return nil, err
	}
	return &quoratev1.EndLeaseResponse{Header: l.server.headerAfter(outcome), Lease: outcome.GetLease()}, nil
}

// ListLeases returns the leases of one server or of all.
func (l *leaseService) ListLeases(ctx context.Context, request *quoratev1.ListLeasesRequest) (*quoratev1.ListLeasesResponse, error) {
	view, header, err := l.server.read(ctx, request.GetRead())
	if err != nil {
		return nil, err
	}
	leases := view.State.Leases(request.GetServer(), request.GetIncludeEnded())
	if limit := l.server.config.Limits.MaxListedLeases; len(leases) > limit {
		return nil, exhausted(ReasonAnswerTooLarge, fmt.Sprintf("%d leases are more than the %d of one answer; name a server", len(leases), limit))
	}
	return &quoratev1.ListLeasesResponse{Header: header, Leases: leases}, nil
}
