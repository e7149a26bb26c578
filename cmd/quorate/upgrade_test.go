package main

import (
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"

	"quorate/client"
	"quorate/fsm"
	quoratev1 "quorate/proto/quorate/v1"
)

// TestHeldBackMember says that it knows the commands of the version before, so the group refuses what came after.
func TestHeldBackMember(t *testing.T) {
	const former = fsm.CommandVersion - 1
	ctx, conn := serveAlone(t, func(s *settings) { s.Upgrade.CommandVersion = former })
	// Before it has announced itself it counts as one of version 1, and the refusal is the same.
	_, err := quoratev1.NewPartitionServiceClient(conn).CreatePartitions(ctx,
		&quoratev1.CreatePartitionsRequest{RequestId: "c1", Ids: []string{"p1"}, Placement: "a"}, grpc.WaitForReady(true))
	if e := client.AsError(err); e == nil || e.Code != codes.Unimplemented || e.Reason != client.ReasonNotYetSupported {
		t.Errorf("a partition was created: %v", err)
	}
	for {
		answer, err := quoratev1.NewMemberServiceClient(conn).ListMembers(ctx, &quoratev1.ListMembersRequest{})
		if err != nil {
			t.Fatal(err)
		}
		if version := answer.GetMembers()[0].GetCommandVersion(); version == former {
			return
		} else if version != 0 {
			t.Fatalf("it is listed with command version %d", version)
		}
	}
}
