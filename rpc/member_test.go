package rpc

import (
	"errors"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"

	"quorate/node"
	quoratev1 "quorate/proto/quorate/v1"
)

func TestMembers(t *testing.T) {
	h := serve(t, Config{Node: openNode(t, node.Limits{})})
	members := quoratev1.NewMemberServiceClient(h.dial(t, nil))
	ctx := testContext(t)
	list := func() map[string]*quoratev1.Member {
		t.Helper()
		answer, err := members.ListMembers(ctx, &quoratev1.ListMembersRequest{})
		if err != nil {
			t.Fatal(err)
		}
		byID := make(map[string]*quoratev1.Member)
		for _, m := range answer.GetMembers() {
			byID[m.GetId()] = m
		}
		return byID
	}
	known := list()
	if m1 := known["m1"]; !m1.GetLeader() || !m1.GetReachable() || m1.GetSuffrage() != quoratev1.Suffrage_SUFFRAGE_VOTER {
		t.Errorf("m1: %v", m1)
	}
	if m2 := known["m2"]; m2.GetLeader() || m2.GetReachable() || m2.GetSuffrage() != quoratev1.Suffrage_SUFFRAGE_LEARNER || m2.ServiceLevel != nil {
		t.Errorf("m2: %v", m2)
	}
	if _, err := members.AddLearner(ctx, &quoratev1.AddLearnerRequest{Id: "m3", RaftAddress: "127.0.0.1:2"}); err != nil {
		t.Fatal(err)
	}
	if list()["m3"] == nil {
		t.Error("m3 was added and is not listed")
	}
	if _, err := members.RemoveMember(ctx, &quoratev1.RemoveMemberRequest{Id: "m3"}); err != nil {
		t.Fatal(err)
	}
	if list()["m3"] != nil {
		t.Error("m3 was removed and is still listed")
	}
}

func TestBadAddressesNameTheField(t *testing.T) {
	h := serve(t, Config{Node: &scripted{}})
	members := quoratev1.NewMemberServiceClient(h.dial(t, nil))
	for _, address := range []string{"127.0.0.1", ":7301", "127.0.0.1:0", "127.0.0.1:65536", "127.0.0.1:raft", "127.0.0.1:1:2"} {
		_, err := members.AddLearner(testContext(t), &quoratev1.AddLearnerRequest{Id: "m3", RaftAddress: address})
		assertRefused(t, err, codes.InvalidArgument, ReasonInvalidArgument, "raft_address")
	}
	_, err := members.AddLearner(testContext(t), &quoratev1.AddLearnerRequest{Id: "../m3", RaftAddress: "127.0.0.1:1"})
	assertRefused(t, err, codes.InvalidArgument, ReasonInvalidArgument, "id")
}

func TestWrongMembersNameTheField(t *testing.T) {
	n := openNode(t, node.Limits{})
	members := quoratev1.NewMemberServiceClient(serve(t, Config{Node: n}).dial(t, nil))
	ctx := testContext(t)
	record, ok := n.Local().State.Member("m1")
	if !ok {
		t.Fatal("m1 is not known")
	}
	for name, test := range map[string]struct{ id, address, field, says string }{
		"another's address": {"m9", record.GetRaftAddress(), "raft_address", "raft_address: " + record.GetRaftAddress() + " is that of m1"},
		"a voter":           {"m1", record.GetRaftAddress(), "id", "id: m1 is a voter already"},
		"a learner's":       {"m9", "127.0.0.1:1", "raft_address", "is that of m2"},
	} {
		_, err := members.AddLearner(ctx, &quoratev1.AddLearnerRequest{Id: test.id, RaftAddress: test.address})
		assertRefused(t, err, codes.InvalidArgument, ReasonInvalidArgument, test.field)
		if !strings.Contains(err.Error(), test.says) {
			t.Errorf("%s: %v, want %q", name, err, test.says)
		}
	}
	_, err := members.RemoveMember(ctx, &quoratev1.RemoveMemberRequest{Id: "m1"})
	assertRefused(t, err, codes.InvalidArgument, ReasonInvalidArgument, "id")
	// What is no matter of an argument stays what it is.
	if err := wrongField("id", "", &node.Error{Kind: node.NoLeader}); !errors.As(err, new(*node.Error)) {
		t.Errorf("no leader became %v", err)
	}
}
