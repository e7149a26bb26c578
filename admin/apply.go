package admin

import (
	"context"
	"fmt"

	"google.golang.org/protobuf/proto"

	quoratev1 "quorate/proto/quorate/v1"
)

// resumeChange goes on with a roll-out that has stopped.
var resumeChange = change{
	pattern: redundancyPath + "/{set}/resume", params: []string{"set"}, method: quoratev1.ApplyService_ResumeApply_FullMethodName,
	plan: planResume, make: makeResume,
}

// rollbackChange gives a roll-out up.
var rollbackChange = change{
	pattern: redundancyPath + "/{set}/rollback", params: []string{"set"}, method: quoratev1.ApplyService_RollbackApply_FullMethodName,
	plan: planRollback, make: makeRollback,
}

// rollout reads the roll-out of the set that is meant.
func (r *reader) rollout(ctx context.Context) (*quoratev1.GetOverviewResponse, *rolloutView, error) {
	id := r.arguments["set"]
	o, err := r.overview(ctx, id, 0)
	if err != nil {
		return nil, nil, err
	}
	v := newRolloutView(rolloutOf(o, id))
	if v == nil {
		return nil, nil, notFound("set", "there is no roll-out in set "+id)
	}
	return o, v, nil
}

func planResume(ctx context.Context, r *reader) (plan, error) {
	_, v, err := r.rollout(ctx)
	if err != nil {
		return plan{}, err
	}
	p := plan{Title: fmt.Sprintf("Resume the roll-out of generation %d", v.Generation), Template: "redundancy.resume", Data: v, Back: setPath(v.Set)}
	if v.Stopped {
		p.Button = "Resume"
	}
	return p, nil
}

func makeResume(ctx context.Context, r *reader, o order) (done, error) {
	answer, err := quoratev1.NewApplyServiceClient(r.conn).ResumeApply(ctx, &quoratev1.ResumeApplyRequest{RequestId: o.id, Set: r.arguments["set"]})
	if err != nil {
		return done{}, err
	}
	return done{
		text:     fmt.Sprintf("The roll-out of generation %d goes on.", answer.GetRollout().GetGeneration()),
		revision: answer.GetHeader().GetRevision(), back: setPath(r.arguments["set"]),
	}, nil
}

// rollbackView is what giving a roll-out up brings.
type rollbackView struct {
	*rolloutView
	// To is the last generation that every server of the set has applied.
	To    uint64
	Draft draftView
}

func planRollback(ctx context.Context, r *reader) (plan, error) {
	o, v, err := r.rollout(ctx)
	if err != nil {
		return plan{}, err
	}
	p := plan{
		Title: fmt.Sprintf("Roll generation %d back in %s", v.Generation, v.Set), Template: "redundancy.rollback", Back: setPath(v.Set),
		Based: o.GetGeneration().GetNumber(), Wide: true,
	}
	view := rollbackView{rolloutView: v, To: lastApplied(v)}
	if v.Unfinished && view.To != 0 {
		if view.Draft, err = planRollbackTo(ctx, r, o.GetGeneration(), v.Set, view.To); err != nil {
			return plan{}, err
		}
		p.Button, p.Danger = fmt.Sprintf("Publish generation %d", view.Draft.Next), true
		p.Ask = fmt.Sprintf("Generation %d is given up in %s, which becomes as it was in generation %d.", v.Generation, v.Set, view.To)
	}
	p.Data = view
	return p, nil
}

// lastApplied is what RollbackApply goes back to, 0 if there is nothing.
func lastApplied(v *rolloutView) (generation uint64) {
	for i, server := range v.Servers {
		if i == 0 || server.GetAppliedGeneration() < generation {
			generation = server.GetAppliedGeneration()
		}
	}
	return generation
}

// planRollbackTo plans the draft that RollbackApply makes: the current topology, with one set as it was.
func planRollbackTo(ctx context.Context, r *reader, current *quoratev1.Generation, set string, to uint64) (draftView, error) {
	good, err := quoratev1.NewTopologyServiceClient(r.conn).GetTopology(ctx, &quoratev1.GetTopologyRequest{Read: r.local(), Generation: to})
	if err != nil {
		return draftView{}, err
	}
	before := findSet(good.GetGeneration().GetTopology(), set)
	if before == nil {
		return draftView{}, notFound("set", fmt.Sprintf("generation %d, the last that all servers applied, has no set %s", to, set))
	}
	draft := proto.CloneOf(current.GetTopology())
	for i, s := range draft.GetSets() {
		if s.GetId() == set {
			draft.Sets[i] = before
		}
	}
	return planDraft(ctx, r, draft, current.GetNumber())
}

func makeRollback(ctx context.Context, r *reader, o order) (done, error) {
	answer, err := quoratev1.NewApplyServiceClient(r.conn).RollbackApply(ctx, &quoratev1.RollbackApplyRequest{
		RequestId: o.id, Set: r.arguments["set"], ExpectedGeneration: &o.based,
	})
	if err != nil {
		return done{}, err
	}
	return published(answer.GetGeneration(), answer.GetHeader(), r.arguments["set"]), nil
}
