package rpc

import (
	"context"

	"quorate/node"
	logv1 "quorate/proto/quorate/log/v1"
	quoratev1 "quorate/proto/quorate/v1"
)

// defaultPage is how many partitions a page of a list has that says nothing of it.
const defaultPage = 100

type partitionService struct {
	quoratev1.UnimplementedPartitionServiceServer
	server *Server
}

// CreatePartitions creates partitions at one placement.
func (p *partitionService) CreatePartitions(ctx context.Context, request *quoratev1.CreatePartitionsRequest) (*quoratev1.CreatePartitionsResponse, error) {
	outcome, err := p.server.propose(ctx, request.GetRequestId(), &logv1.Command{Body: &logv1.Command_CreatePartitions{
		CreatePartitions: &logv1.CreatePartitions{
			Ids: request.GetIds(), Placement: request.GetPlacement(), DrainBarrier: request.GetDrainBarrier(), Note: request.GetNote(),
		},
	}})
	if err != nil {
		return nil, err
	}
	return &quoratev1.CreatePartitionsResponse{Header: p.server.headerAfter(outcome), Epoch: outcome.GetPartitionsMade().GetEpoch()}, nil
}

// move proposes a command of which the answer is the partition as it is afterwards.
func (p *partitionService) move(ctx context.Context, requestID string, command *logv1.Command) (*quoratev1.ResponseHeader, *logv1.PartitionMoved, error) {
	outcome, err := p.server.propose(ctx, requestID, command)
	if err != nil {
		return nil, nil, err
	}
	return p.server.headerAfter(outcome), outcome.GetPartitionMoved(), nil
}

// SetPlacement gives a partition another owner at once.
func (p *partitionService) SetPlacement(ctx context.Context, request *quoratev1.SetPlacementRequest) (*quoratev1.SetPlacementResponse, error) {
	header, moved, err := p.move(ctx, request.GetRequestId(), &logv1.Command{Body: &logv1.Command_SetPlacement{
		SetPlacement: &logv1.SetPlacement{
			Partition: request.GetPartition(), Placement: request.GetPlacement(), ExpectedEpoch: request.GetExpectedEpoch(), Note: request.GetNote(),
		},
	}})
	if err != nil {
		return nil, err
	}
	return &quoratev1.SetPlacementResponse{Header: header, Partition: moved.GetPartition()}, nil
}

// DeletePartition removes a partition.
func (p *partitionService) DeletePartition(ctx context.Context, request *quoratev1.DeletePartitionRequest) (*quoratev1.DeletePartitionResponse, error) {
	outcome, err := p.server.propose(ctx, request.GetRequestId(), &logv1.Command{Body: &logv1.Command_DeletePartition{
		DeletePartition: &logv1.DeletePartition{
			Partition: request.GetPartition(), ExpectedEpoch: request.GetExpectedEpoch(), Note: request.GetNote(),
		},
	}})
	if err != nil {
		return nil, err
	}
	return &quoratev1.DeletePartitionResponse{Header: p.server.headerAfter(outcome)}, nil
}

// GetPartition returns one partition.
func (p *partitionService) GetPartition(ctx context.Context, request *quoratev1.GetPartitionRequest) (*quoratev1.GetPartitionResponse, error) {
	view, header, err := p.server.read(ctx, request.GetRead())
	if err != nil {
		return nil, err
	}
	partition, refusal := view.State.Partition(request.GetPartition())
	if refusal != nil {
		return nil, refusal
	}
	return &quoratev1.GetPartitionResponse{Header: header, Partition: partition}, nil
}

// ListPartitions returns a page of the partitions.
func (p *partitionService) ListPartitions(ctx context.Context, request *quoratev1.ListPartitionsRequest) (*quoratev1.ListPartitionsResponse, error) {
	view, header, err := p.server.read(ctx, request.GetRead())
	if err != nil {
		return nil, err
	}
	size := int(request.GetPageSize())
	setDefault(&size, defaultPage)
	found, last, more := view.State.PartitionPage(request.GetPageToken(), request.GetPrefix(), request.GetPlacement(), size)
	found, next := p.page(found, last, more)
	return &quoratev1.ListPartitionsResponse{Header: header, Partitions: found, NextPageToken: next}, nil
}

// ListMigrations returns a page of the partitions that migrate.
func (p *partitionService) ListMigrations(ctx context.Context, request *quoratev1.ListMigrationsRequest) (*quoratev1.ListMigrationsResponse, error) {
	view, header, err := p.server.read(ctx, request.GetRead())
	if err != nil {
		return nil, err
	}
	size := int(request.GetPageSize())
	setDefault(&size, defaultPage)
	found, last, more := view.State.MigrationPage(request.GetPageToken(), request.GetPlacement(), size)
	found, next := p.page(found, last, more)
	return &quoratev1.ListMigrationsResponse{Header: header, Partitions: found, NextPageToken: next}, nil
}

// page cuts a page to what one answer may hold, and returns the token of the next one: the id after which that begins, empty if there is none.
func (p *partitionService) page(found []*quoratev1.Partition, last string, more bool) (page []*quoratev1.Partition, next string) {
	if n := fitting(found, p.server.config.Limits.MaxPageBytes); n < len(found) {
		return found[:n], found[n-1].GetId()
	}
	if !more {
		return found, ""
	}
	return found, last
}

// ListPlacements returns every placement.
func (p *partitionService) ListPlacements(ctx context.Context, request *quoratev1.ListPlacementsRequest) (*quoratev1.ListPlacementsResponse, error) {
	view, header, err := p.server.read(ctx, request.GetRead())
	if err != nil {
		return nil, err
	}
	return &quoratev1.ListPlacementsResponse{Header: header, Placements: view.State.Placements()}, nil
}

// Resolve says where partitions are read and written.
func (p *partitionService) Resolve(ctx context.Context, request *quoratev1.ResolveRequest) (*quoratev1.ResolveResponse, error) {
	view, header, err := p.server.read(ctx, request.GetRead())
	if err != nil {
		return nil, err
	}
	return &quoratev1.ResolveResponse{Header: header, Resolutions: view.State.ResolveAll(request.GetPartitions())}, nil
}

// StreamResolve is Resolve for many requests on one stream.
func (p *partitionService) StreamResolve(stream quoratev1.PartitionService_StreamResolveServer) error {
	return (&questions[quoratev1.StreamResolveRequest, quoratev1.StreamResolveResponse]{
		server: p.server, stream: stream,
		options: func(q *quoratev1.StreamResolveRequest) *quoratev1.ReadOptions { return q.GetRequest().GetRead() },
		keys:    func(q *quoratev1.StreamResolveRequest) int { return len(q.GetRequest().GetPartitions()) },
		answer: func(q *quoratev1.StreamResolveRequest, view node.View) *quoratev1.StreamResolveResponse {
			return &quoratev1.StreamResolveResponse{Response: &quoratev1.ResolveResponse{
				Header: headerOf(view), Resolutions: view.State.ResolveAll(q.GetRequest().GetPartitions()),
			}}
		},
	}).serve()
}

// BeginMigration starts a migration.
func (p *partitionService) BeginMigration(ctx context.Context, request *quoratev1.BeginMigrationRequest) (*quoratev1.BeginMigrationResponse, error) {
	header, moved, err := p.move(ctx, request.GetRequestId(), &logv1.Command{Body: &logv1.Command_BeginMigration{
		BeginMigration: &logv1.BeginMigration{
			Partition: request.GetPartition(), To: request.GetTo(), ExpectedEpoch: request.GetExpectedEpoch(), DrainBarrier: request.GetDrainBarrier(),
			EarlyCompletion: request.GetEarlyCompletion(), VerificationRequired: request.GetVerificationRequired(),
			Servers: request.GetServers(), Note: request.GetNote(),
		},
	}})
	if err != nil {
		return nil, err
	}
	return &quoratev1.BeginMigrationResponse{Header: header, Partition: moved.GetPartition()}, nil
}

// ReportMigration notes how far the copy is.
func (p *partitionService) ReportMigration(ctx context.Context, request *quoratev1.ReportMigrationRequest) (*quoratev1.ReportMigrationResponse, error) {
	header, moved, err := p.move(ctx, request.GetRequestId(), &logv1.Command{Body: &logv1.Command_ReportMigration{
		ReportMigration: &logv1.ReportMigration{
			Partition: request.GetPartition(), ExpectedEpoch: request.GetExpectedEpoch(), Copy: request.GetCopy(), Verified: request.GetVerified(),
		},
	}})
	if err != nil {
		return nil, err
	}
	return &quoratev1.ReportMigrationResponse{Header: header, Partition: moved.GetPartition()}, nil
}

// CutoverMigration stops the writes.
func (p *partitionService) CutoverMigration(ctx context.Context, request *quoratev1.CutoverMigrationRequest) (*quoratev1.CutoverMigrationResponse, error) {
	header, moved, err := p.move(ctx, request.GetRequestId(), &logv1.Command{Body: &logv1.Command_CutoverMigration{
		CutoverMigration: &logv1.CutoverMigration{
			Partition: request.GetPartition(), ExpectedEpoch: request.GetExpectedEpoch(), Note: request.GetNote(),
		},
	}})
	if err != nil {
		return nil, err
	}
	return &quoratev1.CutoverMigrationResponse{Header: header, Partition: moved.GetPartition()}, nil
}

// CompleteMigration makes the new placement the owner.
func (p *partitionService) CompleteMigration(ctx context.Context, request *quoratev1.CompleteMigrationRequest) (*quoratev1.CompleteMigrationResponse, error) {
	header, moved, err := p.move(ctx, request.GetRequestId(), &logv1.Command{Body: &logv1.Command_CompleteMigration{
		CompleteMigration: &logv1.CompleteMigration{
			Partition: request.GetPartition(), ExpectedEpoch: request.GetExpectedEpoch(), Note: request.GetNote(),
		},
	}})
	if err != nil {
		return nil, err
	}
	return &quoratev1.CompleteMigrationResponse{Header: header, Partition: moved.GetPartition(), Early: moved.GetEarly()}, nil
}

// AbortMigration leaves the old placement the only owner.
func (p *partitionService) AbortMigration(ctx context.Context, request *quoratev1.AbortMigrationRequest) (*quoratev1.AbortMigrationResponse, error) {
	header, moved, err := p.move(ctx, request.GetRequestId(), &logv1.Command{Body: &logv1.Command_AbortMigration{
		AbortMigration: &logv1.AbortMigration{
			Partition: request.GetPartition(), ExpectedEpoch: request.GetExpectedEpoch(), Note: request.GetNote(),
		},
	}})
	if err != nil {
		return nil, err
	}
	return &quoratev1.AbortMigrationResponse{Header: header, Partition: moved.GetPartition()}, nil
}

// GetPartitionSettings returns what holds for all partitions.
func (p *partitionService) GetPartitionSettings(ctx context.Context, request *quoratev1.GetPartitionSettingsRequest) (*quoratev1.GetPartitionSettingsResponse, error) {
	view, header, err := p.server.read(ctx, request.GetRead())
	if err != nil {
		return nil, err
	}
	return &quoratev1.GetPartitionSettingsResponse{Header: header, Settings: view.State.PartitionSettings()}, nil
}

// SetPartitionSettings changes what holds for all partitions.
func (p *partitionService) SetPartitionSettings(ctx context.Context, request *quoratev1.SetPartitionSettingsRequest) (*quoratev1.SetPartitionSettingsResponse, error) {
	outcome, err := p.server.propose(ctx, request.GetRequestId(), &logv1.Command{Body: &logv1.Command_SetPartitionSettings{
		SetPartitionSettings: &logv1.SetPartitionSettings{Settings: request.GetSettings()},
	}})
	if err != nil {
		return nil, err
	}
	return &quoratev1.SetPartitionSettingsResponse{Header: p.server.headerAfter(outcome), Settings: outcome.GetPartitionSettings()}, nil
}
