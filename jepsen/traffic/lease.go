package traffic

import (
	"context"
	"errors"
	"time"

	"quorate/jepsen/history"
	quoratev1 "quorate/proto/quorate/v1"
)

const (
	leaseShare = 0.05
	// holdMost is the longest that a lease is held: roll-outs wait for it.
	holdMost = 600 * time.Millisecond
	// leaseReason marks the leases of this traffic.
	leaseReason = "chaos"
	// abandonedKey is the publish request id of the lease that is begun and never ended. While it is open, no other server of its set gets one, so only
	// runs of abandonLeast have it, once, from a third of their length on. Cluster time stands still while nobody leads, so that it closes some 17 minutes later.
	abandonedKey = "chaos-abandoned"
	abandonLeast = 40 * time.Minute
)

func leases() Workload {
	return Workload{Name: "lease", Setup: nothing, Run: runLeases, Quiet: quietLeases, Final: finalLeases}
}

func nothing(context.Context, *Env) error { return nil }

// runLeases has one client for each server, which takes apply leases as an external system would, and one for each member that lists them.
func runLeases(ctx context.Context, e *Env) error {
	var all []func(context.Context) error
	for _, m := range e.shape.members {
		all = append(all,
			func(ctx context.Context) error { return keepHolding(ctx, e, "holder-"+m.ID, m.ID) },
			func(ctx context.Context) error { return keepListingLeases(ctx, e, "leases-"+m.ID, m.ID) })
	}
	if e.Length >= abandonLeast {
		all = append(all, func(ctx context.Context) error { return abandonLease(ctx, e, "abandoner", e.shape.members[0].ID) })
	}
	return together(ctx, all...)
}

// abandonLease begins a lease as a system would that dies before its end.
func abandonLease(ctx context.Context, e *Env, client, server string) error {
	if !Rest(ctx, e.Length/3) {
		return nil
	}
	for Rest(ctx, time.Second) {
		if beginLease(ctx, e, client, server, abandonedKey) == nil {
			break
		}
	}
	return nil
}

func keepHolding(ctx context.Context, e *Env, client, server string) error {
	r := e.random(client)
	for Rest(ctx, between(r, time.Second, 4*time.Second)) {
		windows := 1 + r.IntN(2)
		for range windows {
			_ = beginLease(ctx, e, client, server, ownKey(server))
			Rest(ctx, between(r, 0, holdMost/2))
		}
		endLeases(context.WithoutCancel(ctx), e, client, server)
	}
	return nil
}

// ownKey is the publish request id of this traffic's leases of a server. Under the generation's a roll-out may open a window, of which nobody is told.
func ownKey(server string) string { return leaseReason + "-" + server }

func leaseOp(client, kind, server string) history.Op {
	return history.Op{Client: client, Noun: "lease", Kind: kind, Key: server}
}

func beginLease(ctx context.Context, e *Env, client, server, key string) error {
	_, _, err := call(ctx, e, leaseOp(client, "begin", server), &quoratev1.BeginLeaseRequest{
		Server: server, PublishRequestId: key, Reason: leaseReason,
	}, e.Group.Leases().BeginLease)
	return err
}

// endLimit is how often the end of what a client holds is tried: a begin whose outcome is unknown may have taken effect later than it was listed.
const endLimit = 5

// endLeases ends every lease of a server that this traffic has opened, all windows of it.
func endLeases(ctx context.Context, e *Env, client, server string) {
	for range endLimit {
		list, _, err := call(ctx, e, leaseOp(client, "list", "all"), &quoratev1.ListLeasesRequest{Server: server}, e.Group.Leases().ListLeases)
		if err != nil {
			continue
		}
		open := 0
		for _, lease := range list.GetLeases() {
			if lease.GetState() != quoratev1.LeaseState_LEASE_STATE_OPEN || lease.GetRollout() || lease.GetKey().GetPublishRequestId() == abandonedKey {
				continue
			}
			open++
			for range lease.GetWindows() {
				_, _, _ = call(ctx, e, leaseOp(client, "end", server), &quoratev1.EndLeaseRequest{
					Server: server, Generation: lease.GetKey().GetGeneration(), PublishRequestId: lease.GetKey().GetPublishRequestId(), Outcome: leaseReason,
				}, e.Group.Leases().EndLease)
			}
		}
		if open == 0 {
			return
		}
	}
}

func keepListingLeases(ctx context.Context, e *Env, client, member string) error {
	r, pace := e.random(client), e.pace(leaseShare, len(e.shape.members))
	for pace.wait(ctx) {
		op := leaseOp(client, "list", "all")
		op.Member = member
		_, _, _ = call(ctx, e, op, &quoratev1.ListLeasesRequest{Read: someRead(r), IncludeEnded: r.IntN(4) == 0}, e.At[member].Leases().ListLeases)
	}
	return nil
}

func quietLeases(ctx context.Context, e *Env, as string) error {
	var errs []error
	for _, m := range e.shape.present() {
		if ctx.Err() != nil {
			return errors.Join(append(errs, ctx.Err())...)
		}
		errs = append(errs, succeeded("begin an apply lease of "+m.ID, beginLease(ctx, e, as, m.ID, ownKey(m.ID))))
		endLeases(ctx, e, as, m.ID)
	}
	return errors.Join(errs...)
}

func finalLeases(ctx context.Context, e *Env, as string) error {
	_, _, err := call(ctx, e, leaseOp(as, "list", "all"), &quoratev1.ListLeasesRequest{IncludeEnded: true}, e.Group.Leases().ListLeases)
	return err
}
