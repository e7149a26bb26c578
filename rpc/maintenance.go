package rpc

import (
	"context"

	logv1 "quorate/proto/quorate/log/v1"
	quoratev1 "quorate/proto/quorate/v1"
)

type maintenanceService struct {
	quoratev1.UnimplementedMaintenanceServiceServer
	server *Server
}

// SetMaintenance declares maintenance of a server, or withdraws it.
func (m *maintenanceService) SetMaintenance(ctx context.Context, request *quoratev1.SetMaintenanceRequest) (*quoratev1.SetMaintenanceResponse, error) {
	outcome, err := m.server.propose(ctx, request.GetRequestId(), &logv1.Command{Body: &logv1.Command_SetMaintenance{
		SetMaintenance: &logv1.SetMaintenance{
			Server: request.GetServer(), Active: request.GetActive(),
			Reason: request.GetReason(), EstimatedReturn: request.GetEstimatedReturn(),
		},
	}})
	if err != nil {
		return nil, err
	}
	return &quoratev1.SetMaintenanceResponse{Header: m.server.headerAfter(outcome), Maintenance: outcome.GetMaintenance()}, nil
}

// ListMaintenance returns the servers in maintenance.
func (m *maintenanceService) ListMaintenance(ctx context.Context, request *quoratev1.ListMaintenanceRequest) (*quoratev1.ListMaintenanceResponse, error) {
	view, header, err := m.server.read(ctx, request.GetRead())
	if err != nil {
		return nil, err
	}
	return &quoratev1.ListMaintenanceResponse{Header: header, Maintenance: view.State.AllMaintenance()}, nil
}
