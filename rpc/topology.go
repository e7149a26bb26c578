package rpc

import (
	"context"

	"google.golang.org/protobuf/proto"

	"quorate/fsm"
	logv1 "quorate/proto/quorate/log/v1"
	quoratev1 "quorate/proto/quorate/v1"
)

// defaultGenerations is how many generations a list has that says nothing of it.
const defaultGenerations = 64

type topologyService struct {
	quoratev1.UnimplementedTopologyServiceServer
	server *Server
}

// GetTopology returns a generation. Before the first publish the current one is absent, which is no error.
func (t *topologyService) GetTopology(ctx context.Context, request *quoratev1.GetTopologyRequest) (*quoratev1.GetTopologyResponse, error) {
	view, header, err := t.server.read(ctx, request.GetRead())
	if err != nil {
		return nil, err
	}
	if request.GetGeneration() == 0 {
		return &quoratev1.GetTopologyResponse{Header: header, Generation: view.State.CurrentGeneration()}, nil
	}
	generation, refusal := view.State.WholeGeneration(request.GetGeneration())
	if refusal != nil {
		return nil, refusal
	}
	return &quoratev1.GetTopologyResponse{Header: header, Generation: generation}, nil
}

// PlanTopology answers from a linearizable view what publishing would answer from the log.
func (t *topologyService) PlanTopology(ctx context.Context, request *quoratev1.PlanTopologyRequest) (*quoratev1.PlanTopologyResponse, error) {
	view, header, err := t.server.read(ctx, nil)
	if err != nil {
		return nil, err
	}
	if request.ExpectedGeneration != nil {
		if refusal := view.State.CheckExpected(request.GetExpectedGeneration()); refusal != nil {
			return nil, refusal
		}
	}
	draft, refusal := fsm.ValidateTopology(view.State, request.GetTopology())
	if refusal != nil {
		return nil, refusal
	}
	publish := &logv1.PublishTopology{
		ExpectedGeneration: view.State.CurrentGeneration().GetNumber(), Topology: draft, Force: request.GetForce(),
	}
	if refusal := view.State.Accepts(&logv1.Command{Body: &logv1.Command_PublishTopology{PublishTopology: publish}}); refusal != nil {
		return nil, refusal
	}
	rollouts, err := planRollouts(view.State, publish)
	if err != nil {
		return nil, err
	}
	current := view.State.CurrentGeneration()
	next := current.GetNumber() + 1
	return &quoratev1.PlanTopologyResponse{
		Header:         header,
		NextGeneration: next,
		Digest:         fsm.TopologyDigest(draft),
		Changes:        fsm.Diff(current.GetTopology(), draft),
		Levels:         plannedLevels(draft, next),
		Rollouts:       rollouts,
	}, nil
}

// PublishTopology makes a draft the next generation.
func (t *topologyService) PublishTopology(ctx context.Context, request *quoratev1.PublishTopologyRequest) (*quoratev1.PublishTopologyResponse, error) {
	outcome, err := t.server.propose(ctx, request.GetRequestId(), &logv1.Command{Body: &logv1.Command_PublishTopology{
		PublishTopology: &logv1.PublishTopology{
			ExpectedGeneration: request.GetExpectedGeneration(), Topology: request.GetTopology(), Force: request.GetForce(),
		},
	}})
	if err != nil {
		return nil, err
	}
	return &quoratev1.PublishTopologyResponse{
		Header: t.server.headerAfter(outcome), Generation: outcome.GetGenerationPublished(),
	}, nil
}

// RollbackTopology publishes the document of an old generation as a new one.
func (t *topologyService) RollbackTopology(ctx context.Context, request *quoratev1.RollbackTopologyRequest) (*quoratev1.RollbackTopologyResponse, error) {
	outcome, err := t.server.propose(ctx, request.GetRequestId(), &logv1.Command{Body: &logv1.Command_RollbackTopology{
		RollbackTopology: &logv1.RollbackTopology{ExpectedGeneration: request.GetExpectedGeneration(), To: request.GetTo()},
	}})
	if err != nil {
		return nil, err
	}
	return &quoratev1.RollbackTopologyResponse{
		Header: t.server.headerAfter(outcome), Generation: outcome.GetGenerationPublished(),
	}, nil
}

// ListGenerations returns a page of the history, newest first. A page ends early where it would grow too large, so the
// end of the history is an empty page, not a short one.
func (t *topologyService) ListGenerations(ctx context.Context, request *quoratev1.ListGenerationsRequest) (*quoratev1.ListGenerationsResponse, error) {
	view, header, err := t.server.read(ctx, request.GetRead())
	if err != nil {
		return nil, err
	}
	limit := int(request.GetLimit())
	setDefault(&limit, defaultGenerations)
	page := view.State.Generations(request.GetBefore(), limit)
	bytes := 0
	for i, generation := range page {
		if bytes += proto.Size(generation); bytes > t.server.config.Limits.MaxPageBytes && i > 0 {
			page = page[:i]
			break
		}
	}
	return &quoratev1.ListGenerationsResponse{Header: header, Generations: page}, nil
}

// DiffTopology compares two generations; from 0 is the empty topology that the group began with, as is to 0, the current one,
// before the first publish.
func (t *topologyService) DiffTopology(ctx context.Context, request *quoratev1.DiffTopologyRequest) (*quoratev1.DiffTopologyResponse, error) {
	view, header, err := t.server.read(ctx, request.GetRead())
	if err != nil {
		return nil, err
	}
	var from *quoratev1.Generation
	if request.GetFrom() != 0 {
		var refusal *fsm.Refusal
		if from, refusal = view.State.WholeGeneration(request.GetFrom()); refusal != nil {
			return nil, refusal
		}
	}
	var to *quoratev1.Generation
	if request.GetTo() != 0 || view.State.CurrentGeneration() != nil {
		var refusal *fsm.Refusal
		if to, refusal = view.State.WholeGeneration(request.GetTo()); refusal != nil {
			return nil, refusal
		}
	}
	return &quoratev1.DiffTopologyResponse{
		Header: header, From: request.GetFrom(), To: to.GetNumber(), Changes: fsm.Diff(from.GetTopology(), to.GetTopology()),
	}, nil
}
