package rpc

import (
	"context"

	quoratev1 "quorate/proto/quorate/v1"
)

// defaultLevelChanges is how many changes of level a list has that says nothing of it.
const defaultLevelChanges = 64

type servingService struct {
	quoratev1.UnimplementedServingServiceServer
	server *Server
}

// ListServing returns whom the group lets advertise Healthy levels.
func (s *servingService) ListServing(ctx context.Context, request *quoratev1.ListServingRequest) (*quoratev1.ListServingResponse, error) {
	view, header, err := s.server.read(ctx, request.GetRead())
	if err != nil {
		return nil, err
	}
	return &quoratev1.ListServingResponse{Header: header, Serving: view.State.AllServing()}, nil
}

// ListLevelChanges returns the recorded changes of level, newest first.
func (s *servingService) ListLevelChanges(ctx context.Context, request *quoratev1.ListLevelChangesRequest) (*quoratev1.ListLevelChangesResponse, error) {
	view, header, err := s.server.read(ctx, request.GetRead())
	if err != nil {
		return nil, err
	}
	limit := int(request.GetLimit())
	setDefault(&limit, defaultLevelChanges)
	return &quoratev1.ListLevelChangesResponse{Header: header, Changes: view.State.LevelChanges(request.GetServer(), limit)}, nil
}
