package client

import (
	"context"
	"log/slog"
	"net"
	"slices"
	"sync"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/protoadapt"
	"google.golang.org/protobuf/types/known/durationpb"

	quoratev1 "quorate/proto/quorate/v1"
)

// patience is how long a test waits for what must happen; reaching it is a failure.
const patience = 20 * time.Second

// fakeMember is a member that answers as a test tells it to: a real one can't be made to fail at the right moment.
type fakeMember struct {
	quoratev1.UnimplementedPartitionServiceServer
	quoratev1.UnimplementedMemberServiceServer
	quoratev1.UnimplementedEventServiceServer
	quoratev1.UnimplementedGateServiceServer
	id, address string
	server      *grpc.Server
	// answer is asked for each call, counted from 1; nil means success.
	answer func(ctx context.Context, method string, call int) error
	// watch serves watches.
	watch func(req *quoratev1.WatchEventsRequest, stream grpc.ServerStreamingServer[quoratev1.WatchEventsResponse]) error

	mu      sync.Mutex
	asked   []string
	leader  bool
	members []*quoratev1.Member
	pages   []*quoratev1.ListPartitionsResponse
	now     uint64
}

// header says whether the member leads, as members do.
func (m *fakeMember) header() *quoratev1.ResponseHeader {
	m.mu.Lock()
	defer m.mu.Unlock()
	age := 3 * time.Millisecond
	if m.leader {
		age = 0
	}
	return &quoratev1.ResponseHeader{Member: m.id, LeaderContactAge: durationpb.New(age), Revision: m.now}
}

// call notes a call by what identifies it, and returns what the test wants of it.
func (m *fakeMember) call(ctx context.Context, method, what string) error {
	m.mu.Lock()
	m.asked = append(m.asked, method+" "+what)
	n := 0
	for _, a := range m.asked {
		if len(a) > len(method) && a[:len(method)+1] == method+" " {
			n++
		}
	}
	answer := m.answer
	m.mu.Unlock()
	if answer == nil {
		return nil
	}
	return answer(ctx, method, n)
}

func (m *fakeMember) set(change func()) {
	m.mu.Lock()
	defer m.mu.Unlock()
	change()
}

// calls returns what was asked by one method.
func (m *fakeMember) calls(method string) (found []string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, a := range m.asked {
		if len(a) > len(method) && a[:len(method)+1] == method+" " {
			found = append(found, a[len(method)+1:])
		}
	}
	return found
}

func (m *fakeMember) SetPlacement(ctx context.Context, r *quoratev1.SetPlacementRequest) (*quoratev1.SetPlacementResponse, error) {
	if err := m.call(ctx, "SetPlacement", r.GetRequestId()); err != nil {
		return nil, err
	}
	return &quoratev1.SetPlacementResponse{Header: m.header()}, nil
}

func (m *fakeMember) GetPartition(ctx context.Context, r *quoratev1.GetPartitionRequest) (*quoratev1.GetPartitionResponse, error) {
	if err := m.call(ctx, "GetPartition", r.GetPartition()); err != nil {
		return nil, err
	}
	return &quoratev1.GetPartitionResponse{Header: m.header()}, nil
}

func (m *fakeMember) GetPartitionSettings(ctx context.Context, _ *quoratev1.GetPartitionSettingsRequest) (*quoratev1.GetPartitionSettingsResponse, error) {
	if err := m.call(ctx, "GetPartitionSettings", ""); err != nil {
		return nil, err
	}
	return &quoratev1.GetPartitionSettingsResponse{Header: m.header()}, nil
}

func (m *fakeMember) ListPartitions(ctx context.Context, r *quoratev1.ListPartitionsRequest) (*quoratev1.ListPartitionsResponse, error) {
	if err := m.call(ctx, "ListPartitions", r.GetPageToken()); err != nil {
		return nil, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	for i, page := range m.pages {
		if r.GetPageToken() == "" || i > 0 && m.pages[i-1].GetNextPageToken() == r.GetPageToken() {
			return page, nil
		}
	}
	return &quoratev1.ListPartitionsResponse{Header: &quoratev1.ResponseHeader{Revision: m.now}}, nil
}

func (m *fakeMember) AddLearner(ctx context.Context, r *quoratev1.AddLearnerRequest) (*quoratev1.AddLearnerResponse, error) {
	return &quoratev1.AddLearnerResponse{Header: m.header()}, m.call(ctx, "AddLearner", r.GetId())
}

func (m *fakeMember) ListMembers(ctx context.Context, _ *quoratev1.ListMembersRequest) (*quoratev1.ListMembersResponse, error) {
	if err := m.call(ctx, "ListMembers", ""); err != nil {
		return nil, err
	}
	m.mu.Lock()
	members := slices.Clone(m.members)
	m.mu.Unlock()
	return &quoratev1.ListMembersResponse{Header: m.header(), Members: members}, nil
}

func (m *fakeMember) RenewGate(ctx context.Context, r *quoratev1.RenewGateRequest) (*quoratev1.RenewGateResponse, error) {
	return &quoratev1.RenewGateResponse{Header: m.header()}, m.call(ctx, "RenewGate", r.GetId())
}

func (m *fakeMember) RegisterInstance(ctx context.Context, r *quoratev1.RegisterInstanceRequest) (*quoratev1.RegisterInstanceResponse, error) {
	return &quoratev1.RegisterInstanceResponse{Header: m.header()}, m.call(ctx, "RegisterInstance", r.GetId())
}

func (m *fakeMember) RemoveInstance(ctx context.Context, r *quoratev1.RemoveInstanceRequest) (*quoratev1.RemoveInstanceResponse, error) {
	return &quoratev1.RemoveInstanceResponse{Header: m.header()}, m.call(ctx, "RemoveInstance", r.GetId())
}

func (m *fakeMember) WatchEvents(r *quoratev1.WatchEventsRequest, stream grpc.ServerStreamingServer[quoratev1.WatchEventsResponse]) error {
	if err := m.call(stream.Context(), "WatchEvents", ""); err != nil {
		return err
	}
	return m.watch(r, stream)
}

// StreamResolve answers each question with as many resolutions.
func (m *fakeMember) StreamResolve(stream grpc.BidiStreamingServer[quoratev1.StreamResolveRequest, quoratev1.StreamResolveResponse]) error {
	for {
		r, err := stream.Recv()
		if err != nil {
			return nil
		}
		if err := m.call(stream.Context(), "StreamResolve", ""); err != nil {
			return err
		}
		answer := &quoratev1.ResolveResponse{Header: m.header()}
		for _, p := range r.GetRequest().GetPartitions() {
			answer.Resolutions = append(answer.Resolutions, &quoratev1.Resolution{Partition: p})
		}
		if err := stream.Send(&quoratev1.StreamResolveResponse{Response: answer}); err != nil {
			return err
		}
	}
}

// listen starts the member at an address; "" means any.
func (m *fakeMember) listen(t *testing.T, address string, transport credentials.TransportCredentials) {
	t.Helper()
	if address == "" {
		address = "127.0.0.1:0"
	}
	var listener net.Listener
	eventually(t, "the address is free", func() (free bool) {
		var err error
		listener, err = net.Listen("tcp", address)
		return err == nil
	})
	m.address = listener.Addr().String()
	var options []grpc.ServerOption
	if transport != nil {
		options = append(options, grpc.Creds(transport))
	}
	server := grpc.NewServer(options...)
	m.server = server
	quoratev1.RegisterPartitionServiceServer(server, m)
	quoratev1.RegisterMemberServiceServer(server, m)
	quoratev1.RegisterEventServiceServer(server, m)
	quoratev1.RegisterGateServiceServer(server, m)
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = server.Serve(listener)
	}()
	t.Cleanup(func() {
		server.Stop()
		<-done
	})
}

// fakeGroup starts members m1 and so on, of which m1 leads.
func fakeGroup(t *testing.T, size int) []*fakeMember {
	t.Helper()
	var group []*fakeMember
	for i := range size {
		m := &fakeMember{id: "m" + string(rune('1'+i)), leader: i == 0}
		m.listen(t, "", nil)
		group = append(group, m)
	}
	var list []*quoratev1.Member
	for _, m := range group {
		list = append(list, &quoratev1.Member{Id: m.id, Leader: m.leader, GrpcAddress: m.address})
	}
	for _, m := range group {
		m.members = list
	}
	return group
}

// openOn opens a client on some members, and waits until it is connected to each that runs. Reads go to the first.
func openOn(t *testing.T, group []*fakeMember, change func(*Options)) *Client {
	t.Helper()
	options := Options{Logger: slog.New(slog.DiscardHandler)}
	for _, m := range group {
		options.Endpoints = append(options.Endpoints, m.address)
	}
	if change != nil {
		change(&options)
	}
	c, err := Open(t.Context(), options)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	eventually(t, "the client is connected", func() bool {
		return !slices.ContainsFunc(c.Endpoints(), func(e EndpointStatus) bool { return !e.Ready })
	})
	c.mu.Lock()
	c.current = c.endpoints[0]
	c.mu.Unlock()
	return c
}

// eventually waits for a condition that nothing announces.
func eventually(t *testing.T, what string, condition func() bool) {
	t.Helper()
	deadline := time.NewTimer(patience)
	defer deadline.Stop()
	every := time.NewTicker(2 * time.Millisecond)
	defer every.Stop()
	for !condition() {
		select {
		case <-every.C:
		case <-deadline.C:
			t.Fatalf("not within %v: %s", patience, what)
		}
	}
}

// refusal is an error as members give it.
func refusal(code codes.Code, reason, message string, facts map[string]string, more ...protoadapt.MessageV1) error {
	st, err := status.New(code, message).WithDetails(append([]protoadapt.MessageV1{&errdetails.ErrorInfo{Reason: reason, Domain: "quorate", Metadata: facts}}, more...)...)
	if err != nil {
		panic(err)
	}
	return st.Err()
}

func wait(d time.Duration) protoadapt.MessageV1 {
	return &errdetails.RetryInfo{RetryDelay: durationpb.New(d)}
}

var (
	noLeader  = refusal(codes.Unavailable, ReasonNoLeader, "no leader", nil, wait(time.Millisecond))
	ambiguity = refusal(codes.Unknown, ReasonUnknownOutcome, "leadership lost", nil, wait(time.Millisecond))
	broken    = status.Error(codes.Unavailable, "connection reset")
	crowded   = refusal(codes.ResourceExhausted, "OVERLOADED", "too much", nil, wait(time.Millisecond))
)

// first returns what a member does at the first call of a method; later ones succeed.
func first(method string, do func(ctx context.Context) error) func(context.Context, string, int) error {
	return func(ctx context.Context, asked string, call int) error {
		if asked == method && call == 1 {
			return do(ctx)
		}
		return nil
	}
}

func always(method string, err error) func(context.Context, string, int) error {
	return func(_ context.Context, asked string, _ int) error {
		if asked == method {
			return err
		}
		return nil
	}
}

func fails(err error) func(context.Context) error { return func(context.Context) error { return err } }

func hangs(ctx context.Context) error {
	<-ctx.Done()
	return status.FromContextError(ctx.Err()).Err()
}
