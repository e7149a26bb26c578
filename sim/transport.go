package sim

import (
	"bytes"
	"context"
	"errors"
	"io"
	"sync"
	"sync/atomic"

	"github.com/hashicorp/raft"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"quorate/node"
	peerv1 "quorate/proto/quorate/peer/v1"
)

// Transport is one member's end of the Network.
type Transport struct {
	network *Network
	address string
	dead    atomic.Bool
	// gone is closed when the member leaves the network.
	gone     chan struct{}
	leaving  sync.Once
	consumer chan raft.RPC
	ctx      context.Context
	cancel   context.CancelFunc
	timing   node.Timing
	peers    peerv1.PeerServiceServer

	mu        sync.Mutex
	heartbeat func(raft.RPC)
}

var _ node.Transport = (*Transport)(nil)

func newTransport(n *Network, address string) *Transport {
	ctx, cancel := context.WithCancel(context.Background())
	return &Transport{network: n, address: address, consumer: make(chan raft.RPC), gone: make(chan struct{}), ctx: ctx, cancel: cancel}
}

// Start implements node.Transport.
func (t *Transport) Start(peers peerv1.PeerServiceServer, timing node.Timing) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.peers, t.timing = peers, timing
	return nil
}

func (t *Transport) server() peerv1.PeerServiceServer {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.peers
}

// Close implements raft.WithClose.
func (t *Transport) Close() error {
	t.cancel()
	defer t.leave()
	t.network.mu.Lock()
	defer t.network.mu.Unlock()
	if t.network.members[t.address] == t {
		delete(t.network.members, t.address)
	}
	return nil
}

func (t *Transport) leave() { t.leaving.Do(func() { close(t.gone) }) }

// Retain implements node.Transport.
func (t *Transport) Retain([]string) {}

// Gone implements node.Transport. The other's end is noticed once its link lets anything through.
func (t *Transport) Gone(ctx context.Context, _, address string) error {
	t.network.mu.Lock()
	target := t.network.members[address]
	t.network.mu.Unlock()
	if target == nil {
		<-ctx.Done()
		return ctx.Err()
	}
	select {
	case <-target.gone:
	case <-ctx.Done():
		return ctx.Err()
	}
	// A dial is refused only over a whole link, and only while nobody new listens.
	if _, err := t.network.cross(ctx, t, address); errors.Is(err, errRefused) {
		return nil
	}
	<-ctx.Done()
	return ctx.Err()
}

// Consumer implements raft.Transport.
func (t *Transport) Consumer() <-chan raft.RPC { return t.consumer }

// LocalAddr implements raft.Transport.
func (t *Transport) LocalAddr() raft.ServerAddress { return raft.ServerAddress(t.address) }

// EncodePeer implements raft.Transport.
func (t *Transport) EncodePeer(_ raft.ServerID, a raft.ServerAddress) []byte { return []byte(a) }

// DecodePeer implements raft.Transport.
func (t *Transport) DecodePeer(b []byte) raft.ServerAddress { return raft.ServerAddress(b) }

// SetHeartbeatHandler implements raft.Transport.
func (t *Transport) SetHeartbeatHandler(f func(raft.RPC)) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.heartbeat = f
}

// exchange carries one request of raft to a member and its answer back.
func (t *Transport) exchange(to raft.ServerAddress, command any, data io.Reader) (any, error) {
	ctx, cancel := context.WithTimeout(t.ctx, t.timing.RPC)
	defer cancel()
	target, err := t.network.cross(ctx, t, string(to))
	if err != nil {
		return nil, err
	}
	resp, err := target.serve(ctx, command, data)
	if err != nil && ctx.Err() != nil {
		return nil, errTimeout
	}
	if back := t.network.answer(ctx, target, t); back != nil {
		return nil, back
	}
	return resp, err
}

// serve gives a request to this member's raft and waits for its answer.
func (t *Transport) serve(ctx context.Context, command any, data io.Reader) (any, error) {
	answers := make(chan raft.RPCResponse, 1)
	rpc := raft.RPC{Command: command, Reader: data, RespChan: answers}
	t.mu.Lock()
	heartbeat := t.heartbeat
	t.mu.Unlock()
	if a, ok := command.(*raft.AppendEntriesRequest); ok && heartbeat != nil &&
		a.PrevLogEntry == 0 && a.PrevLogTerm == 0 && len(a.Entries) == 0 && a.LeaderCommitIndex == 0 {
		heartbeat(rpc)
	} else {
		select {
		case t.consumer <- rpc:
		case <-t.ctx.Done():
			return nil, errRefused
		case <-ctx.Done():
			return nil, errTimeout
		}
	}
	select {
	case a := <-answers:
		return a.Response, a.Error
	case <-t.ctx.Done():
		return nil, errRefused
	case <-ctx.Done():
		return nil, errTimeout
	}
}

func ask[Req, Resp any](t *Transport, to raft.ServerAddress, args *Req, resp *Resp, data io.Reader) error {
	// The request is copied: the asked member may keep it.
	request := *args
	got, err := t.exchange(to, &request, data)
	if r, ok := got.(*Resp); ok && r != nil {
		*resp = *r
	}
	return err
}

// AppendEntries implements raft.Transport.
func (t *Transport) AppendEntries(_ raft.ServerID, to raft.ServerAddress, a *raft.AppendEntriesRequest, r *raft.AppendEntriesResponse) error {
	return ask(t, to, a, r, nil)
}

// RequestVote implements raft.Transport.
func (t *Transport) RequestVote(_ raft.ServerID, to raft.ServerAddress, a *raft.RequestVoteRequest, r *raft.RequestVoteResponse) error {
	return ask(t, to, a, r, nil)
}

// RequestPreVote implements raft.WithPreVote.
func (t *Transport) RequestPreVote(_ raft.ServerID, to raft.ServerAddress, a *raft.RequestPreVoteRequest, r *raft.RequestPreVoteResponse) error {
	return ask(t, to, a, r, nil)
}

// TimeoutNow implements raft.Transport.
func (t *Transport) TimeoutNow(_ raft.ServerID, to raft.ServerAddress, a *raft.TimeoutNowRequest, r *raft.TimeoutNowResponse) error {
	return ask(t, to, a, r, nil)
}

// InstallSnapshot implements raft.Transport.
func (t *Transport) InstallSnapshot(_ raft.ServerID, to raft.ServerAddress, a *raft.InstallSnapshotRequest, r *raft.InstallSnapshotResponse, data io.Reader) error {
	whole, err := io.ReadAll(data)
	if err != nil {
		return err
	}
	return ask(t, to, a, r, bytes.NewReader(whole))
}

// Peer implements node.Transport.
func (t *Transport) Peer(_, address string) (peerv1.PeerServiceClient, error) {
	return peerClient{t: t, to: address}, nil
}

// peerClient asks another member over the same links as raft.
type peerClient struct {
	t  *Transport
	to string
}

// call carries a question and its answer, both copied as a wire would.
func call[Req, Resp proto.Message](ctx context.Context, c peerClient, req Req, f func(peerv1.PeerServiceServer, context.Context, Req) (Resp, error)) (Resp, error) {
	var none Resp
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(c.t.ctx, cancel)()
	target, err := c.t.network.cross(ctx, c.t, c.to)
	if errors.Is(err, errRefused) {
		return none, node.NotSent(err)
	}
	if err != nil {
		return none, status.Error(codes.DeadlineExceeded, err.Error())
	}
	server := target.server()
	if server == nil {
		return none, node.NotSent(errRefused)
	}
	resp, err := f(server, ctx, proto.CloneOf(req))
	if back := c.t.network.answer(ctx, target, c.t); back != nil {
		return none, status.Error(codes.DeadlineExceeded, back.Error())
	}
	if err != nil {
		return none, err
	}
	return proto.CloneOf(resp), nil
}

func (c peerClient) Propose(ctx context.Context, in *peerv1.ProposeRequest, _ ...grpc.CallOption) (*peerv1.ProposeResponse, error) {
	return call(ctx, c, in, peerv1.PeerServiceServer.Propose)
}

func (c peerClient) ReadIndex(ctx context.Context, in *peerv1.ReadIndexRequest, _ ...grpc.CallOption) (*peerv1.ReadIndexResponse, error) {
	return call(ctx, c, in, peerv1.PeerServiceServer.ReadIndex)
}

func (c peerClient) ConfirmTerm(ctx context.Context, in *peerv1.ConfirmTermRequest, _ ...grpc.CallOption) (*peerv1.ConfirmTermResponse, error) {
	if c.t.network.TrustOwnTerm.Load() {
		return c.t.server().ConfirmTerm(ctx, in)
	}
	return call(ctx, c, in, peerv1.PeerServiceServer.ConfirmTerm)
}

func (c peerClient) Status(ctx context.Context, in *peerv1.StatusRequest, _ ...grpc.CallOption) (*peerv1.StatusResponse, error) {
	return call(ctx, c, in, peerv1.PeerServiceServer.Status)
}

func (c peerClient) ReportDivergence(ctx context.Context, in *peerv1.ReportDivergenceRequest, _ ...grpc.CallOption) (*peerv1.ReportDivergenceResponse, error) {
	return call(ctx, c, in, peerv1.PeerServiceServer.ReportDivergence)
}

func (c peerClient) ChangeMembership(ctx context.Context, in *peerv1.ChangeMembershipRequest, _ ...grpc.CallOption) (*peerv1.ChangeMembershipResponse, error) {
	return call(ctx, c, in, peerv1.PeerServiceServer.ChangeMembership)
}

func (c peerClient) RenewServing(ctx context.Context, in *peerv1.RenewServingRequest, _ ...grpc.CallOption) (*peerv1.RenewServingResponse, error) {
	return call(ctx, c, in, peerv1.PeerServiceServer.RenewServing)
}

func (c peerClient) RenewGate(ctx context.Context, in *peerv1.RenewGateRequest, _ ...grpc.CallOption) (*peerv1.RenewGateResponse, error) {
	return call(ctx, c, in, peerv1.PeerServiceServer.RenewGate)
}
