package rpc

import (
	"context"
	"fmt"

	"google.golang.org/protobuf/proto"

	"quorate/fsm"
	logv1 "quorate/proto/quorate/log/v1"
	quoratev1 "quorate/proto/quorate/v1"
)

type applyService struct {
	quoratev1.UnimplementedApplyServiceServer
	server *Server
}

// GetApplyStatus returns how far the generations have come, in one set or in all.
func (a *applyService) GetApplyStatus(ctx context.Context, request *quoratev1.GetApplyStatusRequest) (*quoratev1.GetApplyStatusResponse, error) {
	view, header, err := a.server.read(ctx, request.GetRead())
	if err != nil {
		return nil, err
	}
	if request.GetSet() == "" {
		return &quoratev1.GetApplyStatusResponse{Header: header, Rollouts: view.State.Rollouts()}, nil
	}
	rollout, ok := view.State.Rollout(request.GetSet())
	if !ok {
		return nil, noSet(request.GetSet())
	}
	return &quoratev1.GetApplyStatusResponse{Header: header, Rollouts: []*quoratev1.Rollout{rollout}}, nil
}

// ResumeApply goes on with a roll-out that was stopped.
func (a *applyService) ResumeApply(ctx context.Context, request *quoratev1.ResumeApplyRequest) (*quoratev1.ResumeApplyResponse, error) {
	outcome, err := a.server.propose(ctx, request.GetRequestId(), &logv1.Command{Body: &logv1.Command_ResumeApply{
		ResumeApply: &logv1.ResumeApply{Set: request.GetSet()},
	}})
	if err != nil {
		return nil, err
	}
	return &quoratev1.ResumeApplyResponse{Header: a.server.headerAfter(outcome), Rollout: outcome.GetRollout()}, nil
}

// RollbackApply publishes the current topology with one set as it was in the last generation that all its servers applied. The other sets
// stay as they are: what was published of them since is not to be lost.
func (a *applyService) RollbackApply(ctx context.Context, request *quoratev1.RollbackApplyRequest) (*quoratev1.RollbackApplyResponse, error) {
	view, header, err := a.server.read(ctx, nil)
	if err != nil {
		return nil, err
	}
	// A repeated call finds that the generation which it made is there; its draft can't be made again, since it began from another state.
	for _, g := range view.State.Generations(0, fsm.MaxGenerationsWhole) {
		if g.GetPublishRequestId() == request.GetRequestId() {
			return &quoratev1.RollbackApplyResponse{Header: header, Generation: g}, nil
		}
	}
	draft, err := rollbackDraft(view.State, request)
	if err != nil {
		return nil, err
	}
	outcome, err := a.server.propose(ctx, request.GetRequestId(), &logv1.Command{Body: &logv1.Command_PublishTopology{
		PublishTopology: &logv1.PublishTopology{ExpectedGeneration: request.GetExpectedGeneration(), Topology: draft},
	}})
	if err != nil {
		return nil, err
	}
	return &quoratev1.RollbackApplyResponse{Header: a.server.headerAfter(outcome), Generation: outcome.GetGenerationPublished()}, nil
}

// rollbackDraft is the current topology with one set of an older generation.
func rollbackDraft(state *fsm.State, request *quoratev1.RollbackApplyRequest) (*quoratev1.Topology, error) {
	if refusal := state.CheckExpected(request.GetExpectedGeneration()); refusal != nil {
		return nil, refusal
	}
	rollout, ok := state.Rollout(request.GetSet())
	if !ok {
		return nil, noSet(request.GetSet())
	}
	if rollout.GetState() == quoratev1.RolloutState_ROLLOUT_STATE_DONE {
		return nil, precondition(ReasonRolloutDone, "set", "every server of set %s has applied generation %d: there is nothing to give up",
			request.GetSet(), rollout.GetGeneration())
	}
	good, ok := state.LastApplied(request.GetSet())
	if !ok {
		return nil, precondition(ReasonNothingApplied, "set", "there is no generation that every server of set %s has applied", request.GetSet())
	}
	generation, refusal := state.WholeGeneration(good)
	if refusal != nil {
		return nil, refusal
	}
	before := fsm.FindSet(generation.GetTopology(), request.GetSet())
	if before == nil {
		return nil, precondition(ReasonNothingApplied, "set", "set %s is not in generation %d, the last that its servers applied", request.GetSet(), good)
	}
	draft := proto.CloneOf(state.CurrentGeneration().GetTopology())
	for i, set := range draft.GetSets() {
		if set.GetId() == request.GetSet() {
			draft.Sets[i] = before
		}
	}
	return draft, nil
}

// Reasons of this service's own.
const (
	ReasonUnknownSet     = "UNKNOWN_SET"
	ReasonRolloutDone    = "ROLLOUT_DONE"
	ReasonNothingApplied = "NOTHING_APPLIED"
)

func noSet(set string) error {
	return refuse(logv1.Kind_KIND_NOT_FOUND, ReasonUnknownSet, "set", "the current topology has no set %q", set)
}

func precondition(reason, field, format string, args ...any) error {
	return refuse(logv1.Kind_KIND_PRECONDITION, reason, field, format, args...)
}

// refuse returns a refusal that is found before anything is proposed, and looks as if the state machine had found it.
func refuse(kind logv1.Kind, reason, field, format string, args ...any) error {
	return &fsm.Refusal{Refusal: &logv1.Refusal{Kind: kind, Reason: reason, Field: field, Message: fmt.Sprintf(format, args...)}}
}
