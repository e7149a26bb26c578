package main

import (
	"context"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	quoratev1 "quorate/proto/quorate/v1"
	"quorate/rpc"
)

// scripted is a member that answers as a test tells it to: a real one can't be made to fail at the right moment.
type scripted struct {
	quoratev1.UnimplementedMaintenanceServiceServer
	quoratev1.UnimplementedMemberServiceServer
	quoratev1.UnimplementedTopologyServiceServer
	address string
	// answer is asked for each call, counted from 1. Nil is success.
	answer func(ctx context.Context, call int) error

	mu  sync.Mutex
	ids []string
}

func (s *scripted) call(ctx context.Context, id string) error {
	s.mu.Lock()
	s.ids = append(s.ids, id)
	n := len(s.ids)
	s.mu.Unlock()
	return s.answer(ctx, n)
}

func (s *scripted) calls() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]string(nil), s.ids...)
}

func (s *scripted) SetMaintenance(ctx context.Context, r *quoratev1.SetMaintenanceRequest) (*quoratev1.SetMaintenanceResponse, error) {
	return &quoratev1.SetMaintenanceResponse{}, s.call(ctx, r.GetRequestId())
}

func (s *scripted) ListMembers(ctx context.Context, _ *quoratev1.ListMembersRequest) (*quoratev1.ListMembersResponse, error) {
	return &quoratev1.ListMembersResponse{}, s.call(ctx, "")
}

func (s *scripted) AddLearner(ctx context.Context, r *quoratev1.AddLearnerRequest) (*quoratev1.AddLearnerResponse, error) {
	return &quoratev1.AddLearnerResponse{}, s.call(ctx, r.GetId())
}

func (s *scripted) PublishTopology(ctx context.Context, r *quoratev1.PublishTopologyRequest) (*quoratev1.PublishTopologyResponse, error) {
	return &quoratev1.PublishTopologyResponse{}, s.call(ctx, r.GetRequestId())
}

func startScripted(t *testing.T, answer func(ctx context.Context, call int) error) *scripted {
	t.Helper()
	s := &scripted{answer: answer}
	s.address = serveFor(t, func(server *grpc.Server) {
		quoratev1.RegisterMaintenanceServiceServer(server, s)
		quoratev1.RegisterMemberServiceServer(server, s)
		quoratev1.RegisterTopologyServiceServer(server, s)
	})
	return s
}

// serveFor serves what register adds until the test ends, and returns where.
func serveFor(t *testing.T, register func(*grpc.Server)) (address string) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer()
	register(server)
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = server.Serve(listener)
	}()
	t.Cleanup(func() {
		server.Stop()
		<-done
	})
	return listener.Addr().String()
}

func refusal(code codes.Code, reason, message string, facts map[string]string, field string) error {
	details := &errdetails.ErrorInfo{Reason: reason, Domain: "quorate", Metadata: facts}
	st, err := status.New(code, message).WithDetails(details)
	if field != "" {
		st, err = st.WithDetails(&errdetails.BadRequest{FieldViolations: []*errdetails.BadRequest_FieldViolation{{Field: field, Description: message}}})
	}
	if err != nil {
		panic(err)
	}
	return st.Err()
}

func always(err error) func(context.Context, int) error {
	return func(context.Context, int) error { return err }
}

func hang(ctx context.Context, _ int) error {
	<-ctx.Done()
	return status.FromContextError(ctx.Err()).Err()
}

// connectTo returns a connection to these endpoints, which never waits for long.
func connectTo(t *testing.T, timeout time.Duration, endpoints ...string) *connection {
	t.Helper()
	c, err := (&options{endpoints: endpoints, timeout: timeout}).connect()
	if err != nil {
		t.Fatal(err)
	}
	c.pause = time.Microsecond
	t.Cleanup(c.Close)
	return c
}

func setMaintenance(t *testing.T, c *connection) error {
	t.Helper()
	_, err := quoratev1.NewMaintenanceServiceClient(c).SetMaintenance(t.Context(), &quoratev1.SetMaintenanceRequest{RequestId: "r1", Server: "m1"})
	return err
}

var (
	noLeader  = refusal(codes.Unavailable, rpc.ReasonNoLeader, "no leader", nil, "")
	ambiguity = refusal(codes.Unknown, rpc.ReasonUnknownOutcome, "leadership lost", nil, "")
	broken    = status.Error(codes.Unavailable, "connection reset")
)

func TestRepeatsWhatIsSafeToRepeat(t *testing.T) {
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	for name, first := range map[string]error{"no leader": noLeader, "unknown outcome": ambiguity, "broken connection": broken} {
		t.Run(name, func(t *testing.T) {
			one, two := startScripted(t, always(first)), startScripted(t, always(nil))
			if err := setMaintenance(t, connectTo(t, 10*time.Second, one.address, two.address)); err != nil {
				t.Fatal(err)
			}
			if got := strings.Join(append(one.calls(), two.calls()...), " "); got != "r1 r1" {
				t.Errorf("request ids were %q, want the same one at both members", got)
			}
		})
	}
}

func TestNeverRepeatsAnAmbiguousChangeWithoutRequestID(t *testing.T) {
	for name, failure := range map[string]error{"unknown outcome": ambiguity, "broken connection": broken} {
		t.Run(name, func(t *testing.T) {
			one, two := startScripted(t, always(failure)), startScripted(t, always(nil))
			_, err := quoratev1.NewMemberServiceClient(connectTo(t, 10*time.Second, one.address, two.address)).
				AddLearner(t.Context(), &quoratev1.AddLearnerRequest{Id: "m4", RaftAddress: "127.0.0.1:1"})
			if err == nil || len(two.calls()) != 0 || len(one.calls()) != 1 {
				t.Fatalf("error %v, calls %v and %v; want one call and an error", err, one.calls(), two.calls())
			}
			if !strings.HasPrefix(err.Error(), "outcome unknown, the change may have happened: ") || exitCode(err) != exitRemote {
				t.Errorf("error %q with exit code %d", err, exitCode(err))
			}
		})
	}
}

func TestRepeatsAmbiguousReads(t *testing.T) {
	one, two := startScripted(t, always(broken)), startScripted(t, always(nil))
	_, err := quoratev1.NewMemberServiceClient(connectTo(t, 10*time.Second, one.address, two.address)).ListMembers(t.Context(), &quoratev1.ListMembersRequest{})
	if err != nil {
		t.Fatal(err)
	}
}

func TestRefusalIsFinal(t *testing.T) {
	one := startScripted(t, always(refusal(codes.FailedPrecondition, "GENERATION_CONFLICT", "the current generation is 4",
		map[string]string{"current_generation": "4"}, "expected_generation")))
	two := startScripted(t, always(nil))
	expect := uint64(3)
	_, err := quoratev1.NewTopologyServiceClient(connectTo(t, 10*time.Second, one.address, two.address)).
		PublishTopology(t.Context(), &quoratev1.PublishTopologyRequest{RequestId: "r1", ExpectedGeneration: &expect})
	if err == nil || len(one.calls()) != 1 || len(two.calls()) != 0 {
		t.Fatalf("error %v, calls %v and %v; want one call and its refusal", err, one.calls(), two.calls())
	}
	want := "the current generation is 4 (reason GENERATION_CONFLICT, field expected_generation: the current generation is 4, current_generation 4, asked " + one.address + ")"
	if err.Error() != want {
		t.Errorf("error\n%s\nwant\n%s", err, want)
	}
	if exitCode(err) != exitPrecondition {
		t.Errorf("exit code %d", exitCode(err))
	}
}

func TestNoLeaderEndsWithTheTimeout(t *testing.T) {
	one := startScripted(t, always(noLeader))
	c := connectTo(t, 300*time.Millisecond, one.address)
	c.pause = 20 * time.Millisecond
	err := setMaintenance(t, c)
	if err == nil || exitCode(err) != exitPrecondition || len(one.calls()) < 2 {
		t.Fatalf("error %v, exit code %d after %d calls", err, exitCode(err), len(one.calls()))
	}
}

// lateNoLeader waits for a leader for as long as it may, and answers a moment before the caller's deadline, as members do.
func lateNoLeader(ctx context.Context, _ int) error {
	deadline, _ := ctx.Deadline()
	ctx, cancel := context.WithDeadline(ctx, deadline.Add(-leastAttempt/2))
	defer cancel()
	<-ctx.Done()
	return noLeader
}

func TestALateAnswerIsTheLast(t *testing.T) {
	one := startScripted(t, lateNoLeader)
	err := setMaintenance(t, connectTo(t, time.Second, one.address))
	if err == nil || exitCode(err) != exitPrecondition || len(one.calls()) != 1 || !strings.Contains(err.Error(), "reason NO_LEADER") {
		t.Fatalf("error %v, exit code %d after %d calls", err, exitCode(err), len(one.calls()))
	}
}

func TestAnAnswerSaysMoreThanNoAnswer(t *testing.T) {
	noLeaderThenHang := func(ctx context.Context, call int) error {
		if call == 1 {
			return noLeader
		}
		return hang(ctx, call)
	}
	one := startScripted(t, noLeaderThenHang)
	_, err := quoratev1.NewMemberServiceClient(connectTo(t, 2*leastAttempt, one.address)).ListMembers(t.Context(), &quoratev1.ListMembersRequest{})
	if err == nil || exitCode(err) != exitPrecondition || len(one.calls()) != 2 {
		t.Errorf("a read: error %v, exit code %d after %d calls", err, exitCode(err), len(one.calls()))
	}
	// What became of the second attempt of a change is more important than what became of the first.
	one = startScripted(t, noLeaderThenHang)
	err = setMaintenance(t, connectTo(t, 2*leastAttempt, one.address))
	if err == nil || exitCode(err) != exitRemote || !strings.HasPrefix(err.Error(), "outcome unknown, the change may have happened: no answer within ") {
		t.Errorf("a change: error %v, exit code %d", err, exitCode(err))
	}
}

func TestItsOwnTimeoutIsSaidPlainly(t *testing.T) {
	for name, answer := range map[string]func(context.Context, int) error{
		"nothing":                 hang,
		"the transport's reset":   always(status.Error(codes.Canceled, "stream terminated by RST_STREAM with error code: CANCEL")),
		"the transport's timeout": always(status.Error(codes.DeadlineExceeded, "context deadline exceeded")),
	} {
		one := startScripted(t, answer)
		_, err := quoratev1.NewMemberServiceClient(connectTo(t, 300*time.Millisecond, one.address)).ListMembers(t.Context(), &quoratev1.ListMembersRequest{})
		if err == nil || exitCode(err) != exitRemote || !strings.HasPrefix(err.Error(), "no answer within ") || !strings.HasSuffix(err.Error(), "0ms (code DeadlineExceeded, asked "+one.address+")") {
			t.Errorf("%s: error %v, exit code %d", name, err, exitCode(err))
		}
	}
}

func TestAttemptsAreBounded(t *testing.T) {
	one, two := startScripted(t, always(noLeader)), startScripted(t, always(noLeader))
	c := connectTo(t, time.Minute, one.address, two.address)
	c.pause = 0
	if err := setMaintenance(t, c); err == nil {
		t.Fatal("no error")
	}
	if n := len(one.calls()) + len(two.calls()); n != maxAttempts {
		t.Errorf("%d attempts, want %d", n, maxAttempts)
	}
}

func TestTimeoutOfAChangeIsAnUnknownOutcome(t *testing.T) {
	one := startScripted(t, hang)
	err := setMaintenance(t, connectTo(t, 200*time.Millisecond, one.address))
	if err == nil || exitCode(err) != exitRemote {
		t.Fatalf("error %v, exit code %d", err, exitCode(err))
	}
	for _, want := range []string{"outcome unknown, the change may have happened", "it is safe to repeat with --request-id r1"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("error %q lacks %q", err, want)
		}
	}
}

func TestLaterRefusalSettlesAnUnknownOutcome(t *testing.T) {
	refused := refusal(codes.NotFound, "UNKNOWN_SERVER", "no such server", nil, "server")
	one := startScripted(t, func(_ context.Context, call int) error {
		if call == 1 {
			return ambiguity
		}
		return refused
	})
	err := setMaintenance(t, connectTo(t, 10*time.Second, one.address))
	if err == nil || strings.Contains(err.Error(), "unknown, the") || exitCode(err) != exitRemote || !strings.Contains(err.Error(), "reason UNKNOWN_SERVER") {
		t.Fatalf("error %v", err)
	}
}

func TestPassesOverEndpointsThatDoNotAnswer(t *testing.T) {
	frozen, err := net.Listen("tcp", "127.0.0.1:0") // Accepted by the kernel, answered by nobody.
	if err != nil {
		t.Fatal(err)
	}
	defer frozen.Close()
	dead, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	dead.Close()
	alive := startScripted(t, always(nil))
	if err := setMaintenance(t, connectTo(t, 10*time.Second, dead.Addr().String(), frozen.Addr().String(), alive.address)); err != nil {
		t.Fatal(err)
	}
	err = setMaintenance(t, connectTo(t, 10*time.Second, dead.Addr().String()))
	if err == nil || exitCode(err) != exitRemote || !strings.HasPrefix(err.Error(), "no member could be reached, last tried "+dead.Addr().String()) {
		t.Fatalf("error %v, exit code %d", err, exitCode(err))
	}
}

func TestInterruptedChangeIsAnUnknownOutcome(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	one := startScripted(t, func(serving context.Context, call int) error {
		cancel()
		return hang(serving, call)
	})
	_, err := quoratev1.NewMaintenanceServiceClient(connectTo(t, 10*time.Second, one.address)).
		SetMaintenance(ctx, &quoratev1.SetMaintenanceRequest{RequestId: "r1", Server: "m1"})
	if err == nil || !strings.Contains(err.Error(), "outcome unknown") || len(one.calls()) != 1 {
		t.Fatalf("error %v after %d calls", err, len(one.calls()))
	}
}
