package rpc

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc/codes"

	"quorate/fsm"
	"quorate/node"
	"quorate/pki"
	quoratev1 "quorate/proto/quorate/v1"
)

// session is the secret of a test's instance.
const session = "a-session-of-24-letters!"

func register(t *testing.T, gates quoratev1.GateServiceClient, id, session string) *quoratev1.RegisterInstanceResponse {
	t.Helper()
	answer, err := gates.RegisterInstance(testContext(t), &quoratev1.RegisterInstanceRequest{RequestId: "register-" + id, Id: id, Session: session})
	if err != nil {
		t.Fatal(err)
	}
	return answer
}

func TestGates(t *testing.T) {
	h, partitions := openPartitions(t, Limits{}, "p1", "p2")
	gates := quoratev1.NewGateServiceClient(h.dial(t, nil))
	ctx := testContext(t)
	passed, err := gates.CheckGate(ctx, &quoratev1.CheckGateRequest{Partition: "p1", Epoch: 1})
	if err != nil || passed.GetPlacement() != "a" || passed.GetEpoch() != 1 || passed.GetHeader().GetRevision() == 0 {
		t.Fatalf("passed %v, %v", passed, err)
	}
	if _, err := partitions.BeginMigration(ctx, &quoratev1.BeginMigrationRequest{RequestId: "begin", Partition: "p1", To: "b"}); err != nil {
		t.Fatal(err)
	}
	stale := func(epoch uint64, current, phase string) {
		t.Helper()
		_, err := gates.CheckGate(ctx, &quoratev1.CheckGateRequest{Partition: "p1", Epoch: epoch})
		assertRefused(t, err, codes.Aborted, fsm.ReasonStaleEpoch, "")
		if facts := detailsOf(err).info.GetMetadata(); facts["current_epoch"] != current || facts["phase"] != phase {
			t.Errorf("at epoch %d: %v", epoch, facts)
		}
	}
	stale(1, "2", "draining")
	stale(0, "2", "draining")
	if passed, err := gates.CheckGate(ctx, &quoratev1.CheckGateRequest{Partition: "p1", Epoch: 2}); err != nil || passed.GetPlacement() != "a" {
		t.Errorf("while it drains: %v, %v", passed, err)
	}
	if _, err := partitions.CutoverMigration(ctx, &quoratev1.CutoverMigrationRequest{RequestId: "cutover", Partition: "p1"}); err != nil {
		t.Fatal(err)
	}
	stale(2, "3", "cutover")
	stale(3, "3", "cutover")
	_, err = gates.CheckGate(ctx, &quoratev1.CheckGateRequest{Partition: "p9", Epoch: 1})
	assertRefused(t, err, codes.NotFound, fsm.ReasonUnknownPartition, "partition")

	answer, err := gates.CheckGates(ctx, &quoratev1.CheckGatesRequest{Checks: []*quoratev1.GateCheck{
		{Partition: "p2", Epoch: 1}, {Partition: "p2", Epoch: 2}, {Partition: "p1", Epoch: 3}, {Partition: "p9", Epoch: 0},
	}})
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, v := range answer.GetVerdicts() {
		got = append(got, fmt.Sprint(v.GetPartition(), " ", v.GetPass(), " ", v.GetPlacement(), " ", v.GetEpoch(), " ", v.GetPhase()))
	}
	want := []string{
		"p2 true a 1 PARTITION_PHASE_ACTIVE", "p2 false  1 PARTITION_PHASE_ACTIVE", "p1 false  3 PARTITION_PHASE_CUTOVER", "p9 false  0 PARTITION_PHASE_UNSPECIFIED",
	}
	if !slices.Equal(got, want) {
		t.Errorf("got  %q\nwant %q", got, want)
	}
}

// TestInstances follows an instance from its registration to its end, with a real lease in between.
func TestInstances(t *testing.T) {
	h, partitions := openPartitions(t, Limits{}, "p1")
	gates := quoratev1.NewGateServiceClient(h.dial(t, nil))
	ctx := testContext(t)
	registered := register(t, gates, "proxy-1", session)
	if i := registered.GetInstance(); i.GetId() != "proxy-1" || i.GetActor().GetName() != "anonymous" || i.GetRegisteredAt() == nil {
		t.Errorf("registered %v", registered)
	}
	grant, err := gates.RenewGate(ctx, &quoratev1.RenewGateRequest{Id: "proxy-1", Session: session})
	if err != nil || grant.GetTtl().AsDuration() != fsm.DefaultGateTTL || grant.GetGrant() != 1 || grant.GetTerm() == 0 {
		t.Fatalf("granted %v, %v", grant, err)
	}
	if grant.GetHeader().GetRevision() != grant.GetRevision() || grant.GetHeader().GetMember() != "m1" {
		t.Errorf("header %v of a lease as of revision %d", grant.GetHeader(), grant.GetRevision())
	}
	// A transition waits for the instance, which learns of it in the renewal that it keeps pending, and lets it go on with the next.
	moved := make(chan error, 1)
	go func() {
		_, err := partitions.SetPlacement(testContext(t), &quoratev1.SetPlacementRequest{RequestId: "move", Partition: "p1", Placement: "b"})
		moved <- err
	}()
	told := false
	for pending := true; pending; {
		grant, err = gates.RenewGate(ctx, &quoratev1.RenewGateRequest{
			Id: "proxy-1", Session: session, Term: grant.GetTerm(), Grant: grant.GetGrant(), Revision: grant.GetRevision(),
		})
		if err != nil {
			t.Fatal(err)
		}
		told = told || slices.Contains(grant.GetClosed(), "p1")
		for _, changed := range grant.GetChanged() {
			told = told && changed.GetPartition() == "p1" && changed.GetWritePlacement() == "b" && changed.GetEpoch() == 2
		}
		select {
		case err := <-moved:
			if err != nil {
				t.Fatal(err)
			}
			pending = false
		default:
		}
	}
	if !told {
		t.Error("the lease never left out the partition that changed")
	}
	listed, err := gates.ListInstances(ctx, &quoratev1.ListInstancesRequest{})
	if err != nil || len(listed.GetInstances()) != 1 || listed.GetInstances()[0].GetId() != "proxy-1" {
		t.Errorf("listed %v, %v", listed, err)
	}
	_, err = gates.RenewGate(ctx, &quoratev1.RenewGateRequest{Id: "proxy-1", Session: "another-session-than-that"})
	assertRefused(t, err, codes.FailedPrecondition, fsm.ReasonStaleSession, "session")
	_, err = gates.RemoveInstance(ctx, &quoratev1.RemoveInstanceRequest{RequestId: "remove-1", Id: "proxy-1", Session: "another-session-than-that"})
	assertRefused(t, err, codes.FailedPrecondition, fsm.ReasonStaleSession, "session")
	_, err = gates.RemoveInstance(ctx, &quoratev1.RemoveInstanceRequest{RequestId: "remove-2", Id: "proxy-1", Drained: true})
	assertRefused(t, err, codes.InvalidArgument, ReasonInvalidArgument, "drained")
	if _, err = gates.RemoveInstance(ctx, &quoratev1.RemoveInstanceRequest{RequestId: "remove-3", Id: "proxy-1", Session: session, Drained: true}); err != nil {
		t.Error(err)
	}
	_, err = gates.RenewGate(ctx, &quoratev1.RenewGateRequest{Id: "proxy-1", Session: session})
	assertRefused(t, err, codes.NotFound, fsm.ReasonUnknownInstance, "id")
}

// TestTheSessionIsTheRightToLeave has viewers, who may remove what is their own and nothing else.
func TestTheSessionIsTheRightToLeave(t *testing.T) {
	people := newSite(t)
	h := serve(t, Config{Node: openGroup(t, 1, node.Limits{})[0], Credentials: people.member})
	ctx := testContext(t)
	as := func(c *pki.Credentials) quoratev1.GateServiceClient {
		return quoratev1.NewGateServiceClient(h.dial(t, c))
	}
	remove := func(id, session string) *quoratev1.RemoveInstanceRequest {
		return &quoratev1.RemoveInstanceRequest{RequestId: "remove-" + id + session, Id: id, Session: session}
	}
	viewer := as(people.viewer)
	register(t, viewer, "i1", session)
	register(t, viewer, "i2", session)
	// Nobody else takes its name, whatever his role.
	_, err := as(people.operator).RegisterInstance(ctx, &quoratev1.RegisterInstanceRequest{RequestId: "take", Id: "i1", Session: session})
	assertRefused(t, err, codes.FailedPrecondition, fsm.ReasonInstanceTaken, "id")
	_, err = viewer.RemoveInstance(ctx, remove("i1", ""))
	assertRefused(t, err, codes.PermissionDenied, ReasonPermissionDenied, "")
	if _, err := viewer.RemoveInstance(ctx, remove("i1", session)); err != nil {
		t.Errorf("the viewer, with the session: %v", err)
	}
	if _, err := as(people.operator).RemoveInstance(ctx, remove("i2", "")); err != nil {
		t.Errorf("the operator, without: %v", err)
	}
	if listed, err := viewer.ListInstances(ctx, &quoratev1.ListInstancesRequest{}); err != nil || len(listed.GetInstances()) != 0 {
		t.Errorf("left: %v, %v", listed, err)
	}
	// Each attempt is in the audit trail.
	if records := h.audited(); len(records) != 6 {
		t.Errorf("%d records", len(records))
	}
}

// renewer is a node at which renewals wait until they are let go.
func renewer() (n *scripted, entered chan *quoratev1.RenewGateRequest, leave chan struct{}) {
	entered, leave = make(chan *quoratev1.RenewGateRequest, 16), make(chan struct{})
	return &scripted{
		read: func(context.Context) (node.View, error) { return node.View{State: fsm.New()}, nil },
		renew: func(ctx context.Context, request *quoratev1.RenewGateRequest) (*quoratev1.RenewGateResponse, error) {
			entered <- request
			select {
			case <-leave:
				return &quoratev1.RenewGateResponse{Revision: 7}, nil
			case <-ctx.Done():
				return nil, &node.Error{Op: "renew gate", Kind: node.Deadline, Err: ctx.Err()}
			}
		},
	}, entered, leave
}

var renewal = &quoratev1.RenewGateRequest{Id: "i1", Session: session}

func TestRenewalsHaveALimitOfTheirOwn(t *testing.T) {
	n, entered, leave := renewer()
	h := serve(t, Config{Node: n, Limits: Limits{MaxRenewals: 2, MaxCalls: 1}})
	conn := h.dial(t, nil)
	gates := quoratev1.NewGateServiceClient(conn)
	var waiting sync.WaitGroup
	for range 2 {
		waiting.Go(func() {
			if answer, err := gates.RenewGate(testContext(t), renewal); err != nil || answer.GetHeader().GetRevision() != 7 {
				t.Errorf("one that waited: %v, %v", answer, err)
			}
		})
		<-entered
	}
	_, err := gates.RenewGate(testContext(t), renewal)
	assertRefused(t, err, codes.ResourceExhausted, ReasonTooManyRenewals, "")
	// Those who wait keep out nobody who works.
	if _, err := gates.CheckGates(testContext(t), &quoratev1.CheckGatesRequest{Checks: []*quoratev1.GateCheck{{Partition: "p1"}}}); err != nil {
		t.Errorf("a call beside them: %v", err)
	}
	if h.renewals.Load() != 2 || h.calls.Load() != 0 {
		t.Errorf("%d renewals and %d calls are counted", h.renewals.Load(), h.calls.Load())
	}
	close(leave)
	waiting.Wait()
	if h.renewals.Load() != 0 {
		t.Errorf("%d renewals are still counted", h.renewals.Load())
	}
	if l := (Limits{}).withDefaults(); l.MaxRenewals != 8192 || l.MaxRenewals < fsm.MaxInstances {
		t.Errorf("%d renewals are not enough for %d instances", l.MaxRenewals, fsm.MaxInstances)
	}
}

// TestRenewalsByRESTKeepOutNoCalls has more renewals waiting than one connection of gRPC carries: all of REST shares the one inside the process.
func TestRenewalsByRESTKeepOutNoCalls(t *testing.T) {
	n, entered, leave := renewer()
	h := serve(t, Config{Node: n, Limits: Limits{MaxStreams: 1}})
	var waiting sync.WaitGroup
	for range 3 {
		waiting.Go(func() {
			if code, _, answer := h.restCall(t, "POST", "/v1/instances/i1:renew", `{"session":"`+session+`"}`); code != 200 || answer["revision"] != "7" {
				t.Errorf("%d, %v", code, answer)
			}
		})
		<-entered
	}
	if code, _, answer := h.restCall(t, "GET", "/v1/partitions?read.consistency=CONSISTENCY_LOCAL", nil); code != 200 {
		t.Errorf("a call beside them: %d, %v", code, answer)
	}
	close(leave)
	waiting.Wait()
}

func TestDeadlinesOfRenewals(t *testing.T) {
	n, entered, leave := renewer()
	deadlines := make(chan time.Duration, 1)
	wait := n.renew
	n.renew = func(ctx context.Context, request *quoratev1.RenewGateRequest) (*quoratev1.RenewGateResponse, error) {
		deadline, _ := ctx.Deadline()
		deadlines <- time.Until(deadline)
		return wait(ctx, request)
	}
	close(leave)
	h := serve(t, Config{Node: n})
	gates := quoratev1.NewGateServiceClient(h.dial(t, nil))
	for _, test := range []struct {
		asked, most, least time.Duration
		noWait             bool
	}{
		{0, fsm.DefaultGateTTL, fsm.DefaultGateTTL - 500*time.Millisecond, false},
		{time.Minute, fsm.DefaultGateTTL, fsm.DefaultGateTTL - 500*time.Millisecond, false},
		{1500 * time.Millisecond, 1400 * time.Millisecond, 900 * time.Millisecond, false},
		// Whoever can't wait for a quarter of the lease gets the answer that there is.
		{400 * time.Millisecond, 300 * time.Millisecond, 0, true},
	} {
		ctx, cancel := context.Background(), context.CancelFunc(func() {})
		if test.asked > 0 {
			ctx, cancel = context.WithTimeout(ctx, test.asked)
		}
		_, err := gates.RenewGate(ctx, renewal)
		cancel()
		if err != nil {
			t.Fatal(err)
		}
		if left := <-deadlines; left > test.most || left < test.least {
			t.Errorf("of %s the leader has %s, want %s to %s", test.asked, left, test.least, test.most)
		}
		if request := <-entered; request.GetNoWait() != test.noWait {
			t.Errorf("of %s: no_wait is %v", test.asked, request.GetNoWait())
		}
	}
}

func TestRenewalsEndWithTheServer(t *testing.T) {
	n, entered, _ := renewer()
	h := serve(t, Config{Node: n})
	gates := quoratev1.NewGateServiceClient(h.dial(t, nil))
	ended := make(chan error, 1)
	go func() {
		_, err := gates.RenewGate(context.Background(), renewal)
		ended <- err
	}()
	<-entered
	h.stop()
	select {
	case err := <-ended:
		assertRefused(t, err, codes.Unavailable, ReasonShuttingDown, "")
	case <-time.After(patience):
		t.Error("it waits on")
	}
}

func TestGatesByREST(t *testing.T) {
	h, _ := openPartitions(t, Limits{}, "p1")
	code, _, answer := h.restCall(t, "GET", "/v1/gates/p1?epoch=1", nil)
	if code != 200 || answer["placement"] != "a" || answer["epoch"] != "1" {
		t.Errorf("passes: %d, %v", code, answer)
	}
	code, _, answer = h.restCall(t, "GET", "/v1/gates/p1?epoch=2&read.consistency=CONSISTENCY_LOCAL", nil)
	info := detail(t, answer, "ErrorInfo")
	if code != 409 || info["reason"] != fsm.ReasonStaleEpoch || info["metadata"].(map[string]any)["current_epoch"] != "1" {
		t.Errorf("stale: %d, %v", code, answer)
	}
	if code, _, answer = h.restCall(t, "GET", "/v1/gates/p9", nil); code != 404 {
		t.Errorf("unknown: %d, %v", code, answer)
	}
	code, _, answer = h.restCall(t, "POST", "/v1/gates:check", `{"checks":[{"partition":"p1","epoch":"1"},{"partition":"p1"}]}`)
	if verdicts, _ := answer["verdicts"].([]any); code != 200 || len(verdicts) != 2 || verdicts[0].(map[string]any)["pass"] != true || verdicts[1].(map[string]any)["pass"] != false {
		t.Errorf("checks: %d, %v", code, answer)
	}
	code, _, answer = h.restCall(t, "POST", "/v1/partitions:resolve", `{"partitions":["p1"]}`)
	if found, _ := answer["resolutions"].([]any); code != 200 || found[0].(map[string]any)["writePlacement"] != "a" {
		t.Errorf("resolve: %d, %v", code, answer)
	}

	code, _, answer = h.restCall(t, "POST", "/v1/instances", fmt.Sprintf(`{"requestId":"r","id":"i1","session":"%s"}`, session))
	if code != 200 || answer["instance"].(map[string]any)["id"] != "i1" {
		t.Errorf("register: %d, %v", code, answer)
	}
	code, _, answer = h.restCall(t, "POST", "/v1/instances/i1:renew", fmt.Sprintf(`{"session":"%s","noWait":true}`, session))
	if code != 200 || answer["ttl"] != "2s" || answer["grant"] != "1" {
		t.Errorf("renew: %d, %v", code, answer)
	}
	code, _, answer = h.restCall(t, "GET", "/v1/instances", nil)
	if listed, _ := answer["instances"].([]any); code != 200 || len(listed) != 1 {
		t.Errorf("list: %d, %v", code, answer)
	}
	// What a DELETE has to say beside its path is in its query, and its request id may be in the header.
	code, _, answer = h.restCall(t, "DELETE", "/v1/instances/i1?session="+session, nil, "X-Request-Id", "leave")
	if code != 200 {
		t.Errorf("leave: %d, %v", code, answer)
	}
	code, _, answer = h.restCall(t, "DELETE", "/v1/partitions/p1?requestId=d1&expectedEpoch=9&note=gone", nil)
	if code != 409 || detail(t, answer, "ErrorInfo")["reason"] != fsm.ReasonStaleEpoch {
		t.Errorf("delete at another epoch: %d, %v", code, answer)
	}
	if code, _, answer = h.restCall(t, "DELETE", "/v1/partitions/p1?request_id=d2&expectedEpoch=1", nil); code != 200 {
		t.Errorf("delete: %d, %v", code, answer)
	}
	if code, _, answer = h.restCall(t, "GET", "/v1/partitions/p1", nil); code != 404 {
		t.Errorf("deleted: %d, %v", code, answer)
	}
}
