package rpc

import (
	"testing"

	"google.golang.org/grpc/codes"

	"quorate/fsm"
	"quorate/node"
	quoratev1 "quorate/proto/quorate/v1"
)

func TestLeases(t *testing.T) {
	h := serve(t, Config{Node: openNode(t, node.Limits{}), Limits: Limits{MaxListedLeases: 1}})
	conn := h.dial(t, nil)
	leases := quoratev1.NewLeaseServiceClient(conn)
	ctx := testContext(t)
	mustPublish(t, conn, "p1", 0, lineA())

	begun, err := leases.BeginLease(ctx, &quoratev1.BeginLeaseRequest{RequestId: "b1", Server: "m1", Reason: "new recipe"})
	if err != nil {
		t.Fatal(err)
	}
	key := begun.GetLease().GetKey()
	if key.GetServer() != "m1" || key.GetGeneration() != 1 || key.GetPublishRequestId() != "p1" ||
		begun.GetLease().GetState() != quoratev1.LeaseState_LEASE_STATE_OPEN || begun.GetLease().GetReason() != "new recipe" {
		t.Errorf("begun %v", begun)
	}
	_, err = leases.BeginLease(ctx, &quoratev1.BeginLeaseRequest{RequestId: "b2", Server: "m2"})
	d := detailsOf(err)
	if d.info.GetReason() != fsm.ReasonApplyInProgress || d.info.GetMetadata()["server"] != "m1" || d.retry.GetRetryDelay().AsDuration() <= 0 {
		t.Errorf("a second server mid-apply: %v, %v", err, d)
	}
	open, err := leases.ListLeases(ctx, &quoratev1.ListLeasesRequest{})
	if err != nil || len(open.GetLeases()) != 1 {
		t.Errorf("open %v, %v", open, err)
	}
	ended, err := leases.EndLease(ctx, &quoratev1.EndLeaseRequest{RequestId: "e1", Server: "m1", Outcome: "done"})
	if err != nil || ended.GetLease().GetState() != quoratev1.LeaseState_LEASE_STATE_ENDED || ended.GetLease().GetOutcome() != "done" {
		t.Errorf("ended %v, %v", ended, err)
	}
	_, err = leases.EndLease(ctx, &quoratev1.EndLeaseRequest{RequestId: "e2", Server: "m1"})
	if detailsOf(err).info.GetReason() != fsm.ReasonLeaseNotOpen {
		t.Errorf("ended twice: %v", err)
	}
	_, err = leases.BeginLease(ctx, &quoratev1.BeginLeaseRequest{RequestId: "b3", Server: "m9"})
	if detailsOf(err).info.GetReason() != fsm.ReasonUnknownServer {
		t.Errorf("of an unknown server: %v", err)
	}

	// One ended and one open lease are more than this server lists at once.
	if _, err := leases.BeginLease(ctx, &quoratev1.BeginLeaseRequest{RequestId: "b4", Server: "m2"}); err != nil {
		t.Fatal(err)
	}
	_, err = leases.ListLeases(ctx, &quoratev1.ListLeasesRequest{IncludeEnded: true})
	assertRefused(t, err, codes.ResourceExhausted, ReasonAnswerTooLarge, "")
	mine, err := leases.ListLeases(ctx, &quoratev1.ListLeasesRequest{IncludeEnded: true, Server: "m1"})
	if err != nil || len(mine.GetLeases()) != 1 || mine.GetLeases()[0].GetKey().GetServer() != "m1" {
		t.Errorf("of m1: %v, %v", mine, err)
	}
}

func TestMaintenance(t *testing.T) {
	h := serve(t, Config{Node: openNode(t, node.Limits{})})
	conn := h.dial(t, nil)
	service := quoratev1.NewMaintenanceServiceClient(conn)
	ctx := testContext(t)
	mustPublish(t, conn, "p1", 0, lineA())
	on, err := service.SetMaintenance(ctx, &quoratev1.SetMaintenanceRequest{RequestId: "on", Server: "m2", Active: true, Reason: "new disk"})
	if err != nil || !on.GetMaintenance().GetActive() || on.GetMaintenance().GetReason() != "new disk" || on.GetMaintenance().GetActor().GetName() != "anonymous" {
		t.Errorf("on: %v, %v", on, err)
	}
	listed, err := service.ListMaintenance(ctx, &quoratev1.ListMaintenanceRequest{
		Read: &quoratev1.ReadOptions{MinRevision: on.GetHeader().GetRevision(), Consistency: quoratev1.Consistency_CONSISTENCY_LOCAL},
	})
	if err != nil || len(listed.GetMaintenance()) != 1 || listed.GetMaintenance()[0].GetServer() != "m2" {
		t.Errorf("listed %v, %v", listed, err)
	}
	off, err := service.SetMaintenance(ctx, &quoratev1.SetMaintenanceRequest{RequestId: "off", Server: "m2"})
	if err != nil || off.GetMaintenance().GetActive() {
		t.Errorf("off: %v, %v", off, err)
	}
	if listed, err = service.ListMaintenance(ctx, &quoratev1.ListMaintenanceRequest{}); err != nil || len(listed.GetMaintenance()) != 0 {
		t.Errorf("listed %v, %v", listed, err)
	}
	_, err = service.SetMaintenance(ctx, &quoratev1.SetMaintenanceRequest{RequestId: "x", Server: "m9", Active: true})
	if detailsOf(err).info.GetReason() != fsm.ReasonUnknownServer {
		t.Errorf("of an unknown server: %v", err)
	}
}
