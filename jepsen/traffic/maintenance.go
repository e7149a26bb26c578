package traffic

import (
	"context"
	"time"

	"quorate/jepsen/history"
	quoratev1 "quorate/proto/quorate/v1"
)

const maintenanceShare = 0.03

func maintenances() Workload {
	return Workload{Name: "maintenance", Setup: nothing, Run: runMaintenance, Quiet: quietMaintenance, Final: finalMaintenance}
}

// runMaintenance puts one server after the other into maintenance for a moment, and reads at every member who is in it.
func runMaintenance(ctx context.Context, e *Env) error {
	all := []func(context.Context) error{func(ctx context.Context) error { return keepMaintaining(ctx, e, "maintainer") }}
	for _, m := range e.shape.members {
		all = append(all, func(ctx context.Context) error { return keepListingMaintenance(ctx, e, "maintenance-"+m.ID, m.ID) })
	}
	return together(ctx, all...)
}

func keepMaintaining(ctx context.Context, e *Env, client string) error {
	r := e.random(client)
	for Rest(ctx, between(r, 2*time.Second, 6*time.Second)) {
		server := e.shape.members[r.IntN(len(e.shape.members))].ID
		_ = setMaintenance(ctx, e, client, server, true)
		Rest(ctx, between(r, 200*time.Millisecond, 1500*time.Millisecond))
		for setMaintenance(context.WithoutCancel(ctx), e, client, server, false) != nil && Rest(ctx, time.Second) {
			continue
		}
	}
	return nil
}

func setMaintenance(ctx context.Context, e *Env, client, server string, active bool) error {
	_, _, err := call(ctx, e, history.Op{Client: client, Noun: "maintenance", Kind: "set", Key: server},
		&quoratev1.SetMaintenanceRequest{Server: server, Active: active, Reason: "chaos"}, e.Group.Maintenance().SetMaintenance)
	if refusal(err) != "" {
		return nil // The server is in no topology now.
	}
	return err
}

func maintenanceList(client, member string) history.Op {
	return history.Op{Client: client, Member: member, Noun: "maintenance", Kind: "list", Key: "all"}
}

func keepListingMaintenance(ctx context.Context, e *Env, client, member string) error {
	r, pace := e.random(client), e.pace(maintenanceShare, len(e.shape.members))
	for pace.wait(ctx) {
		_, _, _ = call(ctx, e, maintenanceList(client, member), &quoratev1.ListMaintenanceRequest{Read: someRead(r)}, e.At[member].Maintenance().ListMaintenance)
	}
	return nil
}

// quietMaintenance takes every server out of maintenance, whatever the traffic before it left.
func quietMaintenance(ctx context.Context, e *Env, as string) error {
	for _, m := range e.shape.members {
		if err := setMaintenance(ctx, e, as, m.ID, false); err != nil {
			return err
		}
	}
	return nil
}

func finalMaintenance(ctx context.Context, e *Env, as string) error {
	_, _, err := call(ctx, e, maintenanceList(as, ""), &quoratev1.ListMaintenanceRequest{}, e.Group.Maintenance().ListMaintenance)
	return err
}
