package traffic

import (
	"context"

	"quorate/jepsen/history"
	quoratev1 "quorate/proto/quorate/v1"
)

const servingShare = 0.04

func servings() Workload {
	return Workload{Name: "serving", Setup: nothing, Run: runServing, Quiet: finalServing, Final: finalServing}
}

// runServing reads at every member who may serve. The rights themselves move by the roles of published topologies.
func runServing(ctx context.Context, e *Env) error {
	var all []func(context.Context) error
	for _, m := range e.shape.members {
		all = append(all, func(ctx context.Context) error {
			client := "serving-" + m.ID
			r, pace := e.random(client), e.pace(servingShare, len(e.shape.members))
			for pace.wait(ctx) {
				_, _, _ = call(ctx, e, servingList(client, m.ID), &quoratev1.ListServingRequest{Read: someRead(r)}, e.At[m.ID].Serving().ListServing)
			}
			return nil
		})
	}
	return together(ctx, all...)
}

func servingList(client, member string) history.Op {
	return history.Op{Client: client, Member: member, Noun: "serving", Kind: "list", Key: "all"}
}

func finalServing(ctx context.Context, e *Env, as string) error {
	_, _, err := call(ctx, e, servingList(as, ""), &quoratev1.ListServingRequest{}, e.Group.Serving().ListServing)
	return err
}
