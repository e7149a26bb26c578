package client

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"

	"quorate/fsm"
	quoratev1 "quorate/proto/quorate/v1"
	"quorate/rpc"
)

func setPlacement(ctx context.Context, c *Client) error {
	_, err := c.Partitions().SetPlacement(ctx, &quoratev1.SetPlacementRequest{Partition: "p", Placement: "b"})
	return err
}

func getPartition(ctx context.Context, c *Client) error {
	_, err := c.Partitions().GetPartition(ctx, &quoratev1.GetPartitionRequest{Partition: "p"})
	return err
}

// TestEveryMethodHasItsKind goes through all unary methods of the API: which of them change something without a request id is said here, and that
// nothing else is taken for a read that has no read options.
func TestEveryMethodHasItsKind(t *testing.T) {
	special := map[string]kind{
		"TransferLeadership": once, "AddLearner": once, "PromoteMember": once, "RemoveMember": once, "RenewGate": renewal, "PlanTopology": read,
	}
	seen := 0
	protoregistry.GlobalFiles.RangeFilesByPackage("quorate.v1", func(file protoreflect.FileDescriptor) bool {
		for i := range file.Services().Len() {
			methods := file.Services().Get(i).Methods()
			for j := range methods.Len() {
				m := methods.Get(j)
				if m.IsStreamingServer() || m.IsStreamingClient() {
					continue
				}
				seen++
				message, err := protoregistry.GlobalTypes.FindMessageByName(m.Input().FullName())
				if err != nil {
					t.Fatal(err)
				}
				want, known := special[string(m.Name())]
				if delete(special, string(m.Name())); !known {
					want = read
					if m.Input().Fields().ByName("request_id") != nil {
						want = change
					} else if m.Input().Fields().ByName("read") == nil {
						t.Errorf("%s has neither a request id nor read options: say here how it may be repeated", m.FullName())
					}
				}
				method := "/" + string(m.Parent().FullName()) + "/" + string(m.Name())
				if got := kindOf(method, message.New().Interface()); got != want {
					t.Errorf("%s is of kind %d, want %d", method, got, want)
				}
			}
		}
		return true
	})
	if seen < 40 || len(special) > 0 {
		t.Errorf("only %d methods; not found: %v", seen, special)
	}
}

// TestReasonsAreThoseOfTheGroup compares the reasons with those that members give.
func TestReasonsAreThoseOfTheGroup(t *testing.T) {
	for ours, theirs := range map[string]string{
		ReasonUnknownOutcome: rpc.ReasonUnknownOutcome, ReasonNoLeader: rpc.ReasonNoLeader, ReasonInvalidArgument: rpc.ReasonInvalidArgument,
		ReasonPermissionDenied: rpc.ReasonPermissionDenied, ReasonCompacted: rpc.ReasonCompacted, ReasonGenerationConflict: fsm.ReasonGenerationConflict,
		ReasonApplyInProgress: fsm.ReasonApplyInProgress, ReasonUnknownPartition: fsm.ReasonUnknownPartition, ReasonPartitionExists: fsm.ReasonPartitionExists,
		ReasonAlreadyMigrating: fsm.ReasonAlreadyMigrating, ReasonNotMigrating: fsm.ReasonNotMigrating, ReasonNotDraining: fsm.ReasonNotDraining,
		ReasonNotCutover: fsm.ReasonNotCutover, ReasonSamePlacement: fsm.ReasonSamePlacement, ReasonStaleEpoch: fsm.ReasonStaleEpoch,
		ReasonBarrierPending: fsm.ReasonBarrierPending, ReasonVerificationRequired: fsm.ReasonVerificationRequired,
		ReasonNotYetSupported: fsm.ReasonNotYetSupported, ReasonUnknownInstance: fsm.ReasonUnknownInstance, ReasonUnknownMember: fsm.ReasonUnknownMember, ReasonStaleSession: fsm.ReasonStaleSession, ReasonInstanceTaken: fsm.ReasonInstanceTaken,
	} {
		if ours != theirs {
			t.Errorf("%s is %s in the group", ours, theirs)
		}
	}
}

func TestChangeIsRepeatedUnderOneRequestID(t *testing.T) {
	for name, failure := range map[string]func(context.Context) error{
		"no leader": fails(noLeader), "unknown outcome": fails(ambiguity), "broken connection": fails(broken), "too much to do": fails(crowded), "no answer": hangs,
	} {
		t.Run(name, func(t *testing.T) {
			group := fakeGroup(t, 2)
			group[0].answer = first("SetPlacement", failure)
			c := openOn(t, group, func(o *Options) { o.AttemptTimeout = 200 * time.Millisecond })
			request := &quoratev1.SetPlacementRequest{Partition: "p", Placement: "b"}
			before := proto.CloneOf(request)
			if _, err := c.Partitions().SetPlacement(t.Context(), request); err != nil {
				t.Fatal(err)
			}
			ids := append(group[0].calls("SetPlacement"), group[1].calls("SetPlacement")...)
			if len(ids) != 2 || len(ids[0]) < 20 || ids[0] != ids[1] {
				t.Errorf("request ids were %q, want one made up, twice", ids)
			}
			if !proto.Equal(request, before) {
				t.Errorf("the caller's request was made %v", request)
			}
			// The same request is another change.
			if _, err := c.Partitions().SetPlacement(t.Context(), request); err != nil {
				t.Fatal(err)
			}
			all := append(group[0].calls("SetPlacement"), group[1].calls("SetPlacement")...)
			if !slices.ContainsFunc(all, func(id string) bool { return id != ids[0] }) {
				t.Error("another change has the same request id")
			}
		})
	}
}

// TestRefusalByVersionSaysNothingOfAnEarlierAttempt lets an attempt's outcome be unknown, and the group then take no such command: it says so before it looks
// for the request id.
func TestRefusalByVersionSaysNothingOfAnEarlierAttempt(t *testing.T) {
	unsupported := refusal(codes.FailedPrecondition, ReasonNotYetSupported, "some member has only 0", nil)
	move := func(answers ...error) error {
		group := fakeGroup(t, 1)
		group[0].answer = func(_ context.Context, method string, call int) error {
			if method != "SetPlacement" {
				return nil
			}
			return answers[min(call, len(answers))-1]
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, err := openOn(t, group, nil).Partitions().SetPlacement(ctx, &quoratev1.SetPlacementRequest{Partition: "p", Placement: "b"})
		return err
	}
	if err := move(ambiguity, unsupported, unsupported, nil); err != nil {
		t.Errorf("it is not asked again until the group answers: %v", err)
	}
	if e := AsError(move(ambiguity, unsupported)); e == nil || !e.OutcomeUnknown || e.Reason != ReasonUnknownOutcome {
		t.Errorf("an attempt whose outcome is unknown is given up as %v", e)
	}
	if e := AsError(move(unsupported, nil)); e == nil || e.OutcomeUnknown || e.Reason != ReasonNotYetSupported {
		t.Errorf("a first attempt that is refused is told as %v", e)
	}
}

func TestCallersRequestIDIsKept(t *testing.T) {
	group := fakeGroup(t, 1)
	c := openOn(t, group, nil)
	if _, err := c.Partitions().SetPlacement(t.Context(), &quoratev1.SetPlacementRequest{RequestId: "mine"}); err != nil {
		t.Fatal(err)
	}
	if ids := group[0].calls("SetPlacement"); len(ids) != 1 || ids[0] != "mine" {
		t.Errorf("request ids %q", ids)
	}
}

func TestChangeWithoutRequestIDIsNeverRepeatedBlindly(t *testing.T) {
	for name, failure := range map[string]error{"unknown outcome": ambiguity, "broken connection": broken} {
		t.Run(name, func(t *testing.T) {
			group := fakeGroup(t, 2)
			group[0].answer = always("AddLearner", failure)
			_, err := openOn(t, group, nil).Members().AddLearner(t.Context(), &quoratev1.AddLearnerRequest{Id: "m9"})
			e := AsError(err)
			if e == nil || !e.OutcomeUnknown || e.Reason != ReasonUnknownOutcome || status.Code(err) != codes.Unknown ||
				len(group[0].calls("AddLearner")) != 1 || len(group[1].calls("AddLearner")) != 0 {
				t.Fatalf("error %v, calls %v and %v", err, group[0].calls("AddLearner"), group[1].calls("AddLearner"))
			}
		})
	}
	// What certainly was not done is done elsewhere.
	group := fakeGroup(t, 2)
	group[0].answer = always("AddLearner", noLeader)
	if _, err := openOn(t, group, nil).Members().AddLearner(t.Context(), &quoratev1.AddLearnerRequest{Id: "m9"}); err != nil || len(group[1].calls("AddLearner")) != 1 {
		t.Errorf("error %v", err)
	}
}

func TestReadGoesElsewhere(t *testing.T) {
	for name, failure := range map[string]func(context.Context) error{
		"no leader": fails(noLeader), "broken connection": fails(broken), "no answer": hangs,
	} {
		t.Run(name, func(t *testing.T) {
			group := fakeGroup(t, 3)
			group[0].answer = first("GetPartition", failure)
			c := openOn(t, group, nil)
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			if err := getPartition(ctx, c); err != nil {
				t.Fatal(err)
			}
			// It stays where it was answered.
			for range 3 {
				if err := getPartition(t.Context(), c); err != nil {
					t.Fatal(err)
				}
			}
			if one, two := group[0].calls("GetPartition"), group[1].calls("GetPartition"); len(one) != 1 || len(two) != 4 {
				t.Errorf("the members were asked %d and %d times", len(one), len(two))
			}
		})
	}
}

func TestRefusalIsFinal(t *testing.T) {
	group := fakeGroup(t, 2)
	group[0].answer = always("SetPlacement", refusal(codes.Aborted, ReasonStaleEpoch, "partition p is at epoch 7", map[string]string{"current_epoch": "7", "phase": "ACTIVE"},
		&errdetails.BadRequest{FieldViolations: []*errdetails.BadRequest_FieldViolation{{Field: "expected_epoch", Description: "it is 7", Reason: ReasonStaleEpoch}}}))
	c := openOn(t, group, nil)
	_, err := c.Partitions().SetPlacement(t.Context(), &quoratev1.SetPlacementRequest{RequestId: "r"})
	if len(group[0].calls("SetPlacement")) != 1 || len(group[1].calls("SetPlacement")) != 0 {
		t.Error("a refusal was not believed")
	}
	e := AsError(err)
	if e == nil || ReasonOf(err) != ReasonStaleEpoch || status.Code(err) != codes.Aborted || e.OutcomeUnknown || e.RequestID != "r" || e.Endpoint != group[0].address {
		t.Fatalf("error %#v", e)
	}
	if epoch, known := e.CurrentEpoch(); epoch != 7 || !known {
		t.Errorf("current epoch %d, %t", epoch, known)
	}
	if _, known := e.Remaining(); known {
		t.Error("nothing remains of a barrier")
	}
	if len(e.Fields) != 1 || e.Fields[0] != (FieldViolation{Field: "expected_epoch", Description: "it is 7", Reason: ReasonStaleEpoch}) {
		t.Errorf("fields %v", e.Fields)
	}
	want := "client: partition p is at epoch 7 (reason STALE_EPOCH, field expected_epoch: it is 7, current_epoch 7, phase ACTIVE, asked " + group[0].address + ", request id r)"
	if err.Error() != want {
		t.Errorf("error\n%s\nwant\n%s", err, want)
	}
	group[0].answer = always("SetPlacement", refusal(codes.FailedPrecondition, ReasonBarrierPending, "wait", map[string]string{"remaining": "12.5s"}, wait(12500*time.Millisecond)))
	err = setPlacement(t.Context(), c)
	if left, known := AsError(err).Remaining(); left != 12500*time.Millisecond || !known || AsError(err).RetryDelay != left {
		t.Errorf("%v remain, error %v", left, err)
	}
	if ReasonOf(nil) != "" || ReasonOf(errors.New("other")) != "" || AsError(context.Canceled) != nil {
		t.Error("what is no failed call has a reason")
	}
}

func TestCallEndsWithItsContext(t *testing.T) {
	t.Run("no leader", func(t *testing.T) {
		group := fakeGroup(t, 2)
		for _, m := range group {
			m.answer = always("SetPlacement", noLeader)
		}
		c := openOn(t, group, nil)
		ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
		defer cancel()
		err := setPlacement(ctx, c)
		if ReasonOf(err) != ReasonNoLeader || !errors.Is(err, context.DeadlineExceeded) || AsError(err).OutcomeUnknown {
			t.Errorf("error %v", err)
		}
		if one, two := len(group[0].calls("SetPlacement")), len(group[1].calls("SetPlacement")); one+two < 4 || one+two > 20 {
			t.Errorf("asked %d and %d times", one, two)
		}
	})
	t.Run("unknown outcome, then no leader", func(t *testing.T) {
		group := fakeGroup(t, 1)
		group[0].answer = func(_ context.Context, _ string, call int) error {
			if call == 1 {
				return ambiguity
			}
			return noLeader
		}
		c := openOn(t, group, nil)
		ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
		defer cancel()
		err := setPlacement(ctx, c)
		if e := AsError(err); e == nil || !e.OutcomeUnknown || e.Reason != ReasonUnknownOutcome || e.RequestID == "" || !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("error %v", err)
		}
	})
	t.Run("unknown outcome, then refused", func(t *testing.T) {
		group := fakeGroup(t, 1)
		group[0].answer = func(_ context.Context, _ string, call int) error {
			if call == 1 {
				return ambiguity
			}
			return refusal(codes.FailedPrecondition, ReasonSamePlacement, "no", nil)
		}
		err := setPlacement(t.Context(), openOn(t, group, nil))
		if e := AsError(err); e == nil || e.OutcomeUnknown || e.Reason != ReasonSamePlacement {
			t.Errorf("error %v", err)
		}
	})
	t.Run("no answer", func(t *testing.T) {
		group := fakeGroup(t, 1)
		group[0].answer = func(ctx context.Context, _ string, _ int) error { return hangs(ctx) }
		c := openOn(t, group, nil)
		ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
		defer cancel()
		if err := getPartition(ctx, c); !errors.Is(err, context.DeadlineExceeded) || status.Code(err) != codes.DeadlineExceeded {
			t.Errorf("error %v", err)
		}
		ctx, cancel = context.WithTimeout(t.Context(), 200*time.Millisecond)
		defer cancel()
		if e := AsError(setPlacement(ctx, c)); e == nil || !e.OutcomeUnknown {
			t.Errorf("error %v", e)
		}
	})
	t.Run("cancelled", func(t *testing.T) {
		group := fakeGroup(t, 1)
		ctx, cancel := context.WithCancel(t.Context())
		group[0].answer = func(ctx context.Context, _ string, _ int) error {
			cancel()
			return hangs(ctx)
		}
		c := openOn(t, group, nil)
		if err := getPartition(ctx, c); !errors.Is(err, context.Canceled) || len(group[0].calls("GetPartition")) != 1 {
			t.Errorf("error %v", err)
		}
		// That says nothing of the member.
		if e := c.Endpoints()[0]; e.Failures != 0 {
			t.Errorf("endpoint %+v", e)
		}
	})
	t.Run("no deadline", func(t *testing.T) {
		group := fakeGroup(t, 1)
		group[0].answer = always("GetPartition", noLeader)
		c := openOn(t, group, func(o *Options) { o.Timeout = 300 * time.Millisecond })
		if err := getPartition(context.Background(), c); !errors.Is(err, context.DeadlineExceeded) || ReasonOf(err) != ReasonNoLeader {
			t.Errorf("error %v", err)
		}
	})
}

func TestNobodyCanBeReached(t *testing.T) {
	c, err := Open(t.Context(), Options{Endpoints: []string{"127.0.0.1:1"}})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	err = getPartition(ctx, c)
	if e := AsError(err); e == nil || !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(e.Message, "no member could be reached, such as 127.0.0.1:1: ") ||
		!strings.Contains(e.Message, "connection refused") {
		t.Errorf("error %v", err)
	}
	if _, err := c.Partitions().StreamResolve(ctx); AsError(err) == nil {
		t.Errorf("error %v", err)
	}
	if err := errors.Join(c.Close(), c.Close()); err != nil {
		t.Error(err)
	}
	if err := getPartition(t.Context(), c); !errors.Is(err, errClientClosed) || status.Code(err) != codes.Canceled {
		t.Errorf("error %v", err)
	}
}

// TestChangesGoToTheLeader lets the leadership move.
func TestChangesGoToTheLeader(t *testing.T) {
	group := fakeGroup(t, 3)
	c := openOn(t, group, nil)
	lead := func(leader int) {
		var list []*quoratev1.Member
		for i, m := range group {
			list = append(list, &quoratev1.Member{Id: m.id, Leader: i == leader, GrpcAddress: m.address})
		}
		for i, m := range group {
			m.set(func() { m.leader, m.members = i == leader, list })
		}
	}
	for _, leader := range []int{2, 1, 0} {
		lead(leader)
		eventually(t, "the client knows the leader, though its address is all that it was told", func() bool {
			if err := setPlacement(t.Context(), c); err != nil {
				t.Fatal(err)
			}
			return c.Endpoints()[leader].Leader
		})
		before := len(group[leader].calls("SetPlacement"))
		for range 5 {
			if err := setPlacement(t.Context(), c); err != nil {
				t.Fatal(err)
			}
		}
		if n := len(group[leader].calls("SetPlacement")) - before; n != 5 {
			t.Errorf("m%d leads and got %d of 5 changes", leader+1, n)
		}
		if _, err := c.Gates().RenewGate(t.Context(), &quoratev1.RenewGateRequest{}); err != nil || len(group[leader].calls("RenewGate")) != 1 {
			t.Errorf("a renewal did not go to m%d, error %v", leader+1, err)
		}
	}
	// Reads go where they went.
	if err := getPartition(t.Context(), c); err != nil || len(group[0].calls("GetPartition")) != 1 {
		t.Errorf("error %v", err)
	}
}

// TestDeadMemberIsNotAsked stops a member and starts it again.
func TestDeadMemberIsNotAsked(t *testing.T) {
	group := fakeGroup(t, 2)
	c := openOn(t, group, nil)
	if err := getPartition(t.Context(), c); err != nil {
		t.Fatal(err)
	}
	group[0].server.Stop()
	for range 10 {
		if err := getPartition(t.Context(), c); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, "the client has noticed", func() bool { return !c.Endpoints()[0].Ready })
	again := &fakeMember{id: "m1", leader: true, members: group[0].members}
	again.listen(t, group[0].address, nil)
	eventually(t, "the client is connected again", func() bool { return c.Endpoints()[0].Ready })
	group[1].server.Stop()
	if err := getPartition(t.Context(), c); err != nil || len(again.calls("GetPartition")) != 1 {
		t.Errorf("error %v", err)
	}
}

// TestFrozenMemberRests lets a member accept calls and answer none: only the first of them waits for it.
func TestFrozenMemberRests(t *testing.T) {
	group := fakeGroup(t, 2)
	group[0].answer = func(ctx context.Context, _ string, _ int) error { return hangs(ctx) }
	c := openOn(t, group, func(o *Options) { o.AttemptTimeout = 150 * time.Millisecond })
	began := time.Now()
	for range 50 {
		if err := setPlacement(t.Context(), c); err != nil {
			t.Fatal(err)
		}
	}
	asked := len(group[0].calls("SetPlacement"))
	// It is asked again after 200 ms, 400 ms and so on.
	if most := 1 + int(time.Since(began)/restLeast); asked > most {
		t.Errorf("it was asked %d times in %v", asked, time.Since(began))
	}
}

func TestStreams(t *testing.T) {
	group := fakeGroup(t, 2)
	c := openOn(t, group, nil)
	stream, err := c.Partitions().StreamResolve(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	ask := func() error {
		if err := stream.Send(&quoratev1.StreamResolveRequest{Request: &quoratev1.ResolveRequest{Partitions: []string{"a", "b"}}}); err != nil {
			return err
		}
		answer, err := stream.Recv()
		if err == nil && len(answer.GetResponse().GetResolutions()) != 2 {
			t.Errorf("answer %v", answer)
		}
		return err
	}
	if err := ask(); err != nil {
		t.Fatal(err)
	}
	group[0].set(func() { group[0].answer = always("StreamResolve", noLeader) })
	if err := ask(); ReasonOf(err) != ReasonNoLeader || AsError(err).Endpoint != group[0].address {
		t.Errorf("error %v", err)
	}
	// The next one is opened elsewhere.
	if stream, err = c.Partitions().StreamResolve(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := ask(); err != nil || len(group[1].calls("StreamResolve")) != 1 {
		t.Errorf("error %v", err)
	}
	if err := stream.CloseSend(); err != nil {
		t.Error(err)
	}
	if _, err := stream.Recv(); err == nil || AsError(err) != nil {
		t.Errorf("the end of a stream is %v", err)
	}
}

func TestMembersAreLearned(t *testing.T) {
	group := fakeGroup(t, 3)
	c := openOn(t, group[:1], func(o *Options) { o.RefreshEvery = time.Second })
	eventually(t, "three members are known", func() bool { return len(c.Endpoints()) == 3 })
	eventually(t, "and connected", func() bool { return c.Endpoints()[1].Ready && c.Endpoints()[2].Ready })
	// One goes; the one that was given stays, whatever the group says.
	list := []*quoratev1.Member{{Id: "m3", GrpcAddress: group[2].address}}
	for _, m := range group {
		m.set(func() { m.members = list })
	}
	eventually(t, "one is gone", func() bool { return len(c.Endpoints()) == 2 })
	if all := c.Endpoints(); all[0].Address != group[0].address || all[1].Member != "m3" {
		t.Errorf("endpoints %+v", all)
	}
	group[0].server.Stop()
	if err := getPartition(t.Context(), c); err != nil || len(group[2].calls("GetPartition")) != 1 {
		t.Errorf("error %v", err)
	}
}
