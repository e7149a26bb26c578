package rpc

import (
	"context"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	"quorate/fsm"
	"quorate/node"
	logv1 "quorate/proto/quorate/log/v1"
	quoratev1 "quorate/proto/quorate/v1"
)

func TestRequestsAreValidated(t *testing.T) {
	h := serve(t, Config{Node: &scripted{}})
	conn := h.dial(t, nil)
	long := strings.Repeat("x", 129)
	bounded := quoratev1.Consistency_CONSISTENCY_BOUNDED
	for name, test := range map[string]struct {
		method  string
		request proto.Message
		field   string
	}{
		"publish without id":        {"Topology/PublishTopology", publish("", 0, lineA()), "request_id"},
		"publish with a long id":    {"Topology/PublishTopology", publish(long, 0, lineA()), "request_id"},
		"publish with two lines":    {"Topology/PublishTopology", publish("a\nb", 0, lineA()), "request_id"},
		"publish with a letter ä":   {"Topology/PublishTopology", publish("ä", 0, lineA()), "request_id"},
		"publish ending a line":     {"Topology/PublishTopology", publish("a\n", 0, lineA()), "request_id"},
		"rollback with a bell":      {"Topology/RollbackTopology", &quoratev1.RollbackTopologyRequest{RequestId: "\a", ExpectedGeneration: proto.Uint64(1), To: 1}, "request_id"},
		"begin with an escape":      {"Lease/BeginLease", &quoratev1.BeginLeaseRequest{RequestId: "\x1b", Server: "m1"}, "request_id"},
		"begin for such a publish":  {"Lease/BeginLease", &quoratev1.BeginLeaseRequest{RequestId: "b", Server: "m1", PublishRequestId: "a\nb"}, "publish_request_id"},
		"end with an escape":        {"Lease/EndLease", &quoratev1.EndLeaseRequest{RequestId: "\x7f", Server: "m1"}, "request_id"},
		"end for such a publish":    {"Lease/EndLease", &quoratev1.EndLeaseRequest{RequestId: "b", Server: "m1", PublishRequestId: "a\nb"}, "publish_request_id"},
		"maintenance with a tab":    {"Maintenance/SetMaintenance", &quoratev1.SetMaintenanceRequest{RequestId: "\t", Server: "m1"}, "request_id"},
		"publish of nothing":        {"Topology/PublishTopology", publish("p", 0, nil), "topology"},
		"publish on no generation":  {"Topology/PublishTopology", &quoratev1.PublishTopologyRequest{RequestId: "p", Topology: lineA()}, "expected_generation"},
		"plan of nothing":           {"Topology/PlanTopology", &quoratev1.PlanTopologyRequest{}, "topology"},
		"rollback to nothing":       {"Topology/RollbackTopology", &quoratev1.RollbackTopologyRequest{RequestId: "r", ExpectedGeneration: proto.Uint64(1)}, "to"},
		"rollback without id":       {"Topology/RollbackTopology", &quoratev1.RollbackTopologyRequest{ExpectedGeneration: proto.Uint64(1), To: 1}, "request_id"},
		"too long a list":           {"Topology/ListGenerations", &quoratev1.ListGenerationsRequest{Limit: 1001}, "limit"},
		"begin without id":          {"Lease/BeginLease", &quoratev1.BeginLeaseRequest{Server: "m1"}, "request_id"},
		"begin of nothing":          {"Lease/BeginLease", &quoratev1.BeginLeaseRequest{RequestId: "b"}, "server"},
		"begin with a long reason":  {"Lease/BeginLease", &quoratev1.BeginLeaseRequest{RequestId: "b", Server: "m1", Reason: long + long}, "reason"},
		"end without id":            {"Lease/EndLease", &quoratev1.EndLeaseRequest{Server: "m1"}, "request_id"},
		"maintenance without id":    {"Maintenance/SetMaintenance", &quoratev1.SetMaintenanceRequest{Server: "m1"}, "request_id"},
		"unknown consistency":       {"Topology/GetTopology", &quoratev1.GetTopologyRequest{Read: &quoratev1.ReadOptions{Consistency: 9}}, "read.consistency"},
		"bounded by nothing":        {"Topology/GetTopology", &quoratev1.GetTopologyRequest{Read: &quoratev1.ReadOptions{Consistency: bounded}}, "read.max_staleness"},
		"bounded by too little":     {"Lease/ListLeases", &quoratev1.ListLeasesRequest{Read: &quoratev1.ReadOptions{Consistency: bounded, MaxStaleness: durationpb.New(1)}}, "read.max_staleness"},
		"a bound where none counts": {"Member/ListMembers", &quoratev1.ListMembersRequest{Read: &quoratev1.ReadOptions{MaxStaleness: durationpb.New(time.Second)}}, "read.max_staleness"},
		"create nothing":            {"Partition/CreatePartitions", &quoratev1.CreatePartitionsRequest{RequestId: "c", Placement: "a"}, "ids"},
		"create with capitals":      {"Partition/CreatePartitions", &quoratev1.CreatePartitionsRequest{RequestId: "c", Ids: []string{"p", "P"}, Placement: "a"}, "ids[1]"},
		"create nowhere":            {"Partition/CreatePartitions", &quoratev1.CreatePartitionsRequest{RequestId: "c", Ids: []string{"p"}}, "placement"},
		"place without id":          {"Partition/SetPlacement", &quoratev1.SetPlacementRequest{Partition: "p", Placement: "a"}, "request_id"},
		"delete with a long note":   {"Partition/DeletePartition", &quoratev1.DeletePartitionRequest{RequestId: "d", Partition: "p", Note: long + long}, "note"},
		"get nothing":               {"Partition/GetPartition", &quoratev1.GetPartitionRequest{}, "partition"},
		"too large a page":          {"Partition/ListPartitions", &quoratev1.ListPartitionsRequest{PageSize: 1001}, "page_size"},
		"after no id":               {"Partition/ListMigrations", &quoratev1.ListMigrationsRequest{PageToken: "-"}, "page_token"},
		"resolve nothing":           {"Partition/Resolve", &quoratev1.ResolveRequest{}, "partitions"},
		"resolve a long name":       {"Partition/Resolve", &quoratev1.ResolveRequest{Partitions: []string{"p", long}}, "partitions[1]"},
		"resolve as of never":       {"Partition/Resolve", &quoratev1.ResolveRequest{Partitions: []string{"p"}, Read: &quoratev1.ReadOptions{Consistency: bounded}}, "read.max_staleness"},
		"migrate to nowhere":        {"Partition/BeginMigration", &quoratev1.BeginMigrationRequest{RequestId: "b", Partition: "p"}, "to"},
		"migrate past many":         {"Partition/BeginMigration", &quoratev1.BeginMigrationRequest{RequestId: "b", Partition: "p", To: "a", Servers: make([]string, 9)}, "servers"},
		"report nothing":            {"Partition/ReportMigration", &quoratev1.ReportMigrationRequest{RequestId: "r"}, "partition"},
		"cut nothing over":          {"Partition/CutoverMigration", &quoratev1.CutoverMigrationRequest{RequestId: "r"}, "partition"},
		"complete nothing":          {"Partition/CompleteMigration", &quoratev1.CompleteMigrationRequest{RequestId: "r"}, "partition"},
		"abort nothing":             {"Partition/AbortMigration", &quoratev1.AbortMigrationRequest{RequestId: "r"}, "partition"},
		"set nothing":               {"Partition/SetPartitionSettings", &quoratev1.SetPartitionSettingsRequest{RequestId: "s"}, "settings"},
		"check no gate":             {"Gate/CheckGate", &quoratev1.CheckGateRequest{Epoch: 1}, "partition"},
		"check a long name":         {"Gate/CheckGates", &quoratev1.CheckGatesRequest{Checks: []*quoratev1.GateCheck{{Partition: long}}}, "checks[0].partition"},
		"register a short session":  {"Gate/RegisterInstance", &quoratev1.RegisterInstanceRequest{RequestId: "r", Id: "i", Session: "short"}, "session"},
		"renew for nobody":          {"Gate/RenewGate", &quoratev1.RenewGateRequest{Session: session}, "id"},
		"renew with much drained":   {"Gate/RenewGate", &quoratev1.RenewGateRequest{Id: "i", Session: session, Drained: make([]*quoratev1.PartitionEpoch, 1001)}, "drained"},
		"remove with a bad session": {"Gate/RemoveInstance", &quoratev1.RemoveInstanceRequest{RequestId: "r", Id: "i", Session: "a b"}, "session"},
		"promote nobody":            {"Member/PromoteMember", &quoratev1.PromoteMemberRequest{}, "id"},
		"remove nobody":             {"Member/RemoveMember", &quoratev1.RemoveMemberRequest{}, "id"},
	} {
		t.Run(name, func(t *testing.T) {
			service, method, _ := strings.Cut(test.method, "/")
			// The error comes before an answer is decoded, so any message will do for it.
			err := conn.Invoke(testContext(t), fmt.Sprintf("/quorate.v1.%sService/%s", service, method), test.request, &quoratev1.GetTopologyResponse{})
			assertRefused(t, err, codes.InvalidArgument, ReasonInvalidArgument, test.field)
		})
	}
	stream, err := quoratev1.NewEventServiceClient(conn).WatchEvents(testContext(t), &quoratev1.WatchEventsRequest{Kinds: make([]string, 33)})
	if err != nil {
		t.Fatal(err)
	}
	_, err = stream.Recv()
	assertRefused(t, err, codes.InvalidArgument, ReasonInvalidArgument, "kinds")
	stream, err = quoratev1.NewEventServiceClient(conn).WatchEvents(testContext(t), &quoratev1.WatchEventsRequest{Partitions: []string{"p", "P"}})
	if err != nil {
		t.Fatal(err)
	}
	_, err = stream.Recv()
	assertRefused(t, err, codes.InvalidArgument, ReasonInvalidArgument, "partitions[1]")
}

func TestRequestIDsAreEchoed(t *testing.T) {
	done := &logv1.Outcome{Result: &logv1.Outcome_Lease{Lease: &quoratev1.ApplyLease{}}}
	h := serve(t, Config{Node: &scripted{
		propose: func(context.Context, *logv1.Command) (*logv1.Outcome, error) { return done, nil },
		read:    func(context.Context) (node.View, error) { return node.View{State: fsm.New()}, nil },
	}})
	conn := h.dial(t, nil)
	leases := quoratev1.NewLeaseServiceClient(conn)
	var header metadata.MD
	if _, err := leases.BeginLease(testContext(t), &quoratev1.BeginLeaseRequest{RequestId: "b1", Server: "m1"}, grpc.Header(&header)); err != nil {
		t.Fatal(err)
	}
	if got := header.Get(requestIDKey); len(got) != 0 {
		t.Errorf("of the request, which its caller knows: %q", got)
	}
	ctx := metadata.AppendToOutgoingContext(testContext(t), requestIDKey, "trace-7")
	if _, err := leases.BeginLease(ctx, &quoratev1.BeginLeaseRequest{RequestId: "b1", Server: "m1"}, grpc.Header(&header)); err != nil {
		t.Fatal(err)
	}
	if got := header.Get(requestIDKey); !slices.Equal(got, []string{"b1"}) {
		t.Errorf("of the request, which goes over the metadata's: %q", got)
	}
	if _, err := leases.ListLeases(ctx, &quoratev1.ListLeasesRequest{}, grpc.Header(&header)); err != nil {
		t.Fatal(err)
	}
	if got := header.Get(requestIDKey); !slices.Equal(got, []string{"trace-7"}) {
		t.Errorf("of the metadata: %q", got)
	}
	// A refused change tells its id as well, and one without an id gets one, to be found in the audit trail.
	_, err := quoratev1.NewMemberServiceClient(conn).PromoteMember(testContext(t), &quoratev1.PromoteMemberRequest{}, grpc.Header(&header))
	if err == nil {
		t.Fatal("an empty request was accepted")
	}
	records := h.audited()
	if got := header.Get(requestIDKey); len(got) != 1 || got[0] == "" || got[0] != records[len(records)-1].RequestID {
		t.Errorf("made %q, audited %+v", got, records)
	}
}

// TestRequestIDsAreTheSameEverywhere holds the rule of the messages and that of headers and logs together: an id that only one
// of them takes would be another in the audit than in the state.
func TestRequestIDsAreTheSameEverywhere(t *testing.T) {
	s := serve(t, Config{Node: &scripted{}})
	for c := rune(0); c < 0x100; c++ {
		for _, id := range []string{string(c), string(c) + "a", "a" + string(c)} {
			if valid := s.validate(&quoratev1.EndLeaseRequest{RequestId: id, Server: "m1"}) == nil; valid != usableID(id) {
				t.Errorf("id %q: valid is %v, usable is %v", id, valid, usableID(id))
			}
		}
	}
	for _, n := range []int{0, 1, fsm.MaxRequestIDBytes, fsm.MaxRequestIDBytes + 1} {
		id := strings.Repeat("~", n)
		if valid := s.validate(&quoratev1.EndLeaseRequest{RequestId: id, Server: "m1"}) == nil; valid != usableID(id) {
			t.Errorf("id of %d bytes: valid is %v, usable is %v", n, valid, usableID(id))
		}
	}
}

func TestUsableID(t *testing.T) {
	for id, want := range map[string]bool{
		"": false, "a": true, "a b~": true, "a\nb": false, "\x7f": false, "ä": false,
		strings.Repeat("a", fsm.MaxRequestIDBytes): true, strings.Repeat("a", fsm.MaxRequestIDBytes+1): false,
	} {
		if got := usableID(id); got != want {
			t.Errorf("usableID(%q) = %v", id, got)
		}
	}
}

func TestChangesAreAudited(t *testing.T) {
	people := newSite(t)
	h := serve(t, Config{Node: openNode(t, node.Limits{}), Credentials: people.member})
	ctx := testContext(t)
	asOperator := quoratev1.NewTopologyServiceClient(h.dial(t, people.operator))
	asViewer := quoratev1.NewTopologyServiceClient(h.dial(t, people.viewer))
	accepted, err := asOperator.PublishTopology(ctx, publish("p1", 0, lineA()))
	if err != nil {
		t.Fatal(err)
	}
	_, _ = asOperator.PublishTopology(ctx, publish("p2", 0, lineA()))
	_, _ = asOperator.PublishTopology(ctx, publish("", 1, lineA()))
	_, _ = asViewer.PublishTopology(ctx, publish("p4", 1, lineA()))
	if _, err := asViewer.GetTopology(ctx, &quoratev1.GetTopologyRequest{}); err != nil {
		t.Fatal(err)
	}
	records := h.audited()
	if len(records) != 4 {
		t.Fatalf("%d records, want 4: changes only, and all of them", len(records))
	}
	var got []string
	for _, r := range records {
		got = append(got, fmt.Sprint(r.Actor.GetName(), " ", r.Actor.GetRole(), " ", r.Outcome, " ", r.Generation, " ", r.Code, " ", r.Reason))
		host, _, err := net.SplitHostPort(r.Actor.GetAddress())
		if err != nil || host != "127.0.0.1" || r.Method != "/quorate.v1.TopologyService/PublishTopology" || r.Time.IsZero() || r.RequestID == "" {
			t.Errorf("record %+v", r)
		}
		if _, ok := r.Request.(*quoratev1.PublishTopologyRequest); !ok {
			t.Errorf("request %T", r.Request)
		}
	}
	want := []string{
		"otto operator accepted 1 OK ", "otto operator refused 1 FailedPrecondition GENERATION_CONFLICT",
		"otto operator refused 1 InvalidArgument INVALID_ARGUMENT", "vera viewer refused 1 PermissionDenied PERMISSION_DENIED",
	}
	if !slices.Equal(got, want) {
		t.Errorf("got  %q\nwant %q", got, want)
	}
	if records[0].Revision != accepted.GetHeader().GetRevision() || records[0].RequestID != "p1" {
		t.Errorf("accepted record %+v", records[0])
	}
	// What the log keeps is who asked too.
	if actor := accepted.GetGeneration().GetActor(); actor.GetName() != "otto" || actor.GetRole() != "operator" || actor.GetAddress() == "" {
		t.Errorf("actor in the log %v", actor)
	}
}

func TestOutcomesOfTheAudit(t *testing.T) {
	for _, test := range []struct {
		err  error
		want Outcome
	}{
		{refusal(logv1.Kind_KIND_CONFLICT, "X", "", nil), Refused},
		{&node.Error{Kind: node.UnknownOutcome}, Unknown},
		{&node.Error{Kind: node.NoLeader}, Failed},
		{&node.Error{Kind: node.Deadline}, Failed},
		{context.Canceled, Unknown},
	} {
		h := serve(t, Config{Node: &scripted{propose: func(context.Context, *logv1.Command) (*logv1.Outcome, error) { return nil, test.err }}})
		leases := quoratev1.NewLeaseServiceClient(h.dial(t, nil))
		if _, err := leases.EndLease(testContext(t), &quoratev1.EndLeaseRequest{RequestId: "e", Server: "m1"}); err == nil {
			t.Fatal("accepted")
		}
		if records := h.audited(); len(records) != 1 || records[0].Outcome != test.want {
			t.Errorf("%v: audited %+v, want %s", test.err, records, test.want)
		}
	}
}

func TestAPanicIsOneCallsFailure(t *testing.T) {
	h := serve(t, Config{
		Node: &scripted{read: func(context.Context) (node.View, error) { panic("secret") }, ready: func() error { return nil }},
	})
	conn := h.dial(t, nil)
	_, err := quoratev1.NewTopologyServiceClient(conn).GetTopology(testContext(t), &quoratev1.GetTopologyRequest{})
	assertRefused(t, err, codes.Internal, ReasonInternal, "")
	if strings.Contains(err.Error(), "secret") {
		t.Errorf("the caller is told %v", err)
	}
	// The stream's chain recovers as well: this node has no Watch at all.
	stream, err := quoratev1.NewEventServiceClient(conn).WatchEvents(testContext(t), &quoratev1.WatchEventsRequest{})
	if err != nil {
		t.Fatal(err)
	}
	_, err = stream.Recv()
	assertRefused(t, err, codes.Internal, ReasonInternal, "")
	if n := h.panics.Load(); n != 2 {
		t.Errorf("%d panics are counted, want 2", n)
	}
	if h.calls.Load() != 0 || h.watches.Load() != 0 {
		t.Errorf("%d calls and %d watches are still counted", h.calls.Load(), h.watches.Load())
	}
}

func TestDeadlines(t *testing.T) {
	const usual, most = 3 * time.Second, 7 * time.Second
	left := make(chan time.Duration, 1)
	h := serve(t, Config{
		Node: &scripted{read: func(ctx context.Context) (node.View, error) {
			deadline, _ := ctx.Deadline()
			left <- time.Until(deadline)
			return node.View{State: fsm.New()}, nil
		}},
		Limits: Limits{DefaultDeadline: usual, MaxDeadline: most},
	})
	topologies := quoratev1.NewTopologyServiceClient(h.dial(t, nil))
	for _, test := range []struct {
		name        string
		asked, want time.Duration
	}{{"none", 0, usual}, {"short", time.Second, time.Second}, {"longer than usual", 5 * time.Second, 5 * time.Second}, {"too long", time.Hour, most}} {
		ctx, cancel := context.Background(), context.CancelFunc(func() {})
		if test.asked > 0 {
			ctx, cancel = context.WithTimeout(ctx, test.asked)
		}
		if _, err := topologies.GetTopology(ctx, &quoratev1.GetTopologyRequest{}); err != nil {
			t.Fatal(err)
		}
		cancel()
		if got := <-left; got > test.want || got < test.want-900*time.Millisecond {
			t.Errorf("%s: %s left, want up to %s", test.name, got, test.want)
		}
	}
}

// TestTheAnswerComesBeforeTheDeadline has calls that wait for a leader, or a revision, for as long as they may.
func TestTheAnswerComesBeforeTheDeadline(t *testing.T) {
	for kind, want := range map[node.ErrorKind]struct {
		code   codes.Code
		reason string
	}{
		node.NoLeader: {codes.Unavailable, ReasonNoLeader},
		node.Deadline: {codes.DeadlineExceeded, ReasonDeadline},
	} {
		wait := func(ctx context.Context) error {
			<-ctx.Done()
			return &node.Error{Op: "wait", Kind: kind, Err: ctx.Err()}
		}
		h := serve(t, Config{Node: &scripted{
			read:    func(ctx context.Context) (node.View, error) { return node.View{}, wait(ctx) },
			propose: func(ctx context.Context, _ *logv1.Command) (*logv1.Outcome, error) { return nil, wait(ctx) },
		}})
		conn := h.dial(t, nil)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, err := quoratev1.NewTopologyServiceClient(conn).GetTopology(ctx, &quoratev1.GetTopologyRequest{})
		assertRefused(t, err, want.code, want.reason, "")
		ctx, cancel = context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, err = quoratev1.NewLeaseServiceClient(conn).BeginLease(ctx, &quoratev1.BeginLeaseRequest{RequestId: "b", Server: "m1"})
		assertRefused(t, err, want.code, want.reason, "")
	}
}

func TestTheMarginIsAShareOfAShortDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &Server{config: Config{Limits: Limits{}.withDefaults()}}
		for asked, want := range map[time.Duration]time.Duration{
			20 * time.Millisecond: 15 * time.Millisecond, 400 * time.Millisecond: 300 * time.Millisecond,
			3 * time.Second: 2900 * time.Millisecond, time.Hour: time.Minute,
		} {
			outer, cancelOuter := context.WithTimeout(t.Context(), asked)
			inner, cancel := s.deadline(outer)
			deadline, _ := inner.Deadline()
			if got := time.Until(deadline); got != want {
				t.Errorf("of %s the call has %s, want %s", asked, got, want)
			}
			cancel()
			cancelOuter()
		}
	})
}

func TestCallsInFlightAreLimited(t *testing.T) {
	entered, leave := make(chan struct{}), make(chan struct{})
	h := serve(t, Config{
		Node: &scripted{read: func(context.Context) (node.View, error) {
			entered <- struct{}{}
			<-leave
			return node.View{State: fsm.New()}, nil
		}},
		Limits: Limits{MaxCalls: 1},
	})
	topologies := quoratev1.NewTopologyServiceClient(h.dial(t, nil))
	first := make(chan error, 1)
	go func() {
		_, err := topologies.GetTopology(context.Background(), &quoratev1.GetTopologyRequest{})
		first <- err
	}()
	<-entered
	_, err := topologies.GetTopology(testContext(t), &quoratev1.GetTopologyRequest{})
	assertRefused(t, err, codes.ResourceExhausted, ReasonTooManyCalls, "")
	if detailsOf(err).retry == nil {
		t.Error("waiting would help, and the answer doesn't say so")
	}
	close(leave)
	if err := <-first; err != nil {
		t.Errorf("the call that was there: %v", err)
	}
}

func TestStreamsOfAConnectionAreLimited(t *testing.T) {
	entered, leave := make(chan struct{}, 2), make(chan struct{})
	h := serve(t, Config{
		Node: &scripted{read: func(ctx context.Context) (node.View, error) {
			entered <- struct{}{}
			<-leave
			return node.View{State: fsm.New()}, nil
		}},
		Limits: Limits{MaxStreams: 1},
	})
	conn := h.dial(t, nil)
	topologies := quoratev1.NewTopologyServiceClient(conn)
	// One call lets the client learn the server's settings.
	_, _ = quoratev1.NewLeaseServiceClient(conn).BeginLease(testContext(t), &quoratev1.BeginLeaseRequest{})
	first := make(chan error, 1)
	go func() {
		_, err := topologies.GetTopology(context.Background(), &quoratev1.GetTopologyRequest{})
		first <- err
	}()
	<-entered
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	if _, err := topologies.GetTopology(ctx, &quoratev1.GetTopologyRequest{}); status.Code(err) != codes.DeadlineExceeded || len(entered) != 0 {
		t.Errorf("a second call on the connection: %v, %d entered", err, len(entered))
	}
	close(leave)
	if err := <-first; err != nil {
		t.Error(err)
	}
}

func TestRequestsAreLimitedInSize(t *testing.T) {
	h := serve(t, Config{Node: &scripted{}, Limits: Limits{MaxRequestBytes: 1000}})
	conn := h.dial(t, nil)
	service := quoratev1.NewTopologyServiceClient(conn)
	large := lineA()
	large.Sets[0].Id = strings.Repeat("x", 1000)
	if _, err := service.PublishTopology(testContext(t), publish("p", 0, large)); status.Code(err) != codes.ResourceExhausted {
		t.Errorf("over the limit: %v", err)
	}
	// One below the limit gets as far as validation.
	large.Sets[0].Id = strings.Repeat("x", 500)
	_, err := service.PublishTopology(testContext(t), publish("", 0, large))
	assertRefused(t, err, codes.InvalidArgument, ReasonInvalidArgument, "request_id")
	ctx := metadata.AppendToOutgoingContext(testContext(t), "x-long", strings.Repeat("x", 1<<20))
	if _, err := service.GetTopology(ctx, &quoratev1.GetTopologyRequest{}); err == nil {
		t.Error("headers of a megabyte were taken")
	}
}

func TestConnectionsAreLimited(t *testing.T) {
	h := serve(t, Config{Node: &scripted{ready: func() error { return nil }}, Limits: Limits{MaxConnections: 1}})
	first, err := net.Dial("tcp", h.httpAddress)
	if err != nil {
		t.Fatal(err)
	}
	ask := func(conn net.Conn, patience time.Duration) error {
		t.Helper()
		if _, err := io.WriteString(conn, "GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"); err != nil {
			t.Fatal(err)
		}
		conn.SetReadDeadline(time.Now().Add(patience))
		_, err := conn.Read(make([]byte, 1))
		return err
	}
	if err := ask(first, patience); err != nil {
		t.Fatal(err)
	}
	second, err := net.Dial("tcp", h.httpAddress)
	if err != nil {
		t.Fatal(err)
	}
	defer second.Close()
	if err := ask(second, 50*time.Millisecond); err == nil {
		t.Error("a second connection was served")
	}
	first.Close()
	second.SetReadDeadline(time.Now().Add(patience))
	if _, err := second.Read(make([]byte, 1)); err != nil {
		t.Errorf("the second connection was not served when there was room: %v", err)
	}
}

func TestServersThatCanNotStartLeaveNothing(t *testing.T) {
	n, _ := remembering()
	metrics := newMetrics(t)
	serve(t, Config{Node: n, Metrics: metrics})
	// A second one's metrics would be mixed up with those of the first.
	if _, err := New(Config{Node: n, Metrics: metrics}); err == nil {
		t.Error("a second server was made")
	}
}

func TestConfigIsChecked(t *testing.T) {
	if _, err := New(Config{}); err == nil || !strings.Contains(err.Error(), "Config.Node") {
		t.Errorf("without a node: %v", err)
	}
}
