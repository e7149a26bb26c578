package node

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"

	peerv1 "quorate/proto/quorate/peer/v1"
	"quorate/telemetry"
)

const (
	// maxConnections bounds the connections that other members have open to the raft port; maxStrangers those of whoever else.
	maxConnections = 512
	// handshakeTimeout bounds the time from accepting a connection to its first byte.
	handshakeTimeout = 5 * time.Second
	// answerTimeout bounds the wait for the last answers to other members when this one stops.
	answerTimeout = time.Second
	// maxPeers bounds the members that this one has clients for.
	maxPeers = 64
	// rpcsInFlight lets appended entries, and the empty ones that follow each Timing.Commit, flow on while answers are under way: with the two of
	// raft's default a follower 100 ms away would hear from its leader only once in a round trip.
	rpcsInFlight = 128
	// pooledConnections is how many idle raft connections to one member are kept.
	pooledConnections = 3
	// peerMessageBytes bounds a message between members.
	peerMessageBytes = 8 << 20
	// reconnectMax bounds the pause before a lost member is dialled again.
	reconnectMax = time.Second
)

// The first byte of a connection, after TLS, says what it carries.
const (
	streamRaft byte = 'R'
	streamPeer byte = 'P'
	// streamLife carries one byte back, and then nothing: it is there to end when the process does.
	streamLife byte = 'L'
)

// NetTransport is the Transport over one TCP port.
type NetTransport struct {
	// NetworkTransport is set by Start.
	*raft.NetworkTransport
	listener  net.Listener
	advertise address
	creds     Credentials
	logger    *slog.Logger
	raftConns *stream
	peerConns *stream
	server    *grpc.Server
	tasks     sync.WaitGroup
	ctx       context.Context
	cancel    context.CancelFunc
	strangers strangers
	slots     chan struct{}
	// callers counts the connections that the peer service took.
	callers atomic.Uint64

	mu     sync.Mutex
	closed bool
	peers  map[string]*peerConn
	// ids says which member an address belongs to, for raft's dials, which know only the address.
	ids map[raft.ServerAddress]string
}

type peerConn struct {
	address string
	conn    *grpc.ClientConn
	client  peerv1.PeerServiceClient
}

// Listen opens the raft port. Advertise is the HOST:PORT at which the other members reach it; empty means the listener's own. Creds nil means plain
// text, which is for dev only; give a literal nil, not a nil pointer.
func Listen(listen, advertise string, creds Credentials, logger *slog.Logger) (*NetTransport, error) {
	if logger == nil {
		logger = slog.New(slog.DiscardHandler)
	}
	l, err := net.Listen("tcp", listen)
	if err != nil {
		return nil, fmt.Errorf("raft.address: %w", err)
	}
	if advertise == "" {
		advertise = l.Addr().String()
	}
	if _, _, err := net.SplitHostPort(advertise); err != nil {
		return nil, errors.Join(fmt.Errorf("raft.advertise: %w", err), l.Close())
	}
	ctx, cancel := context.WithCancel(context.Background())
	t := &NetTransport{
		listener: l, advertise: address(advertise), creds: creds, logger: logger, ctx: ctx, cancel: cancel,
		slots: make(chan struct{}, maxConnections), peers: map[string]*peerConn{}, ids: map[raft.ServerAddress]string{},
	}
	t.raftConns, t.peerConns = newStream(t), newStream(t)
	return t, nil
}

// Advertised returns the address at which other members reach this one.
func (t *NetTransport) Advertised() string { return string(t.advertise) }

// LocalAddr implements raft.Transport.
func (t *NetTransport) LocalAddr() raft.ServerAddress { return raft.ServerAddress(t.advertise) }

// Start implements Transport.
func (t *NetTransport) Start(peers peerv1.PeerServiceServer, timing Timing) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed || t.server != nil {
		return errors.New("transport: started twice or closed")
	}
	t.NetworkTransport = raft.NewNetworkTransportWithConfig(&raft.NetworkTransportConfig{
		Stream: t.raftConns, MaxPool: pooledConnections, MaxRPCsInFlight: rpcsInFlight, Timeout: timing.RPC,
		Logger: telemetry.HCLog(t.logger.With("component", "raft-net")), MsgpackUseNewTimeFormat: true,
	})
	t.server = grpc.NewServer(grpc.Creds(callers{last: &t.callers}), grpc.MaxRecvMsgSize(peerMessageBytes), grpc.WaitForHandlers(true), grpc.ConnectionTimeout(handshakeTimeout))
	peerv1.RegisterPeerServiceServer(t.server, peers)
	t.tasks.Go(func() {
		if err := t.server.Serve(t.peerConns); err != nil && t.ctx.Err() == nil {
			t.logger.Error("peer service ended", "error", err)
		}
	})
	t.tasks.Go(t.accept)
	return nil
}

// accept hands each connection to a goroutine of its own, so that one that says nothing holds up nobody.
func (t *NetTransport) accept() {
	for {
		conn, err := t.listener.Accept()
		if err != nil {
			if t.ctx.Err() != nil || errors.Is(err, net.ErrClosed) {
				return
			}
			// Out of file descriptors, most likely: some come back.
			t.logger.Warn("accept failed", "error", err)
			select {
			case <-time.After(100 * time.Millisecond):
			case <-t.ctx.Done():
				return
			}
			continue
		}
		stranger := t.strangers.admit(conn)
		t.tasks.Go(func() {
			stop := context.AfterFunc(t.ctx, func() { _ = conn.Close() })
			defer stop()
			known, kind, err := t.identify(conn)
			t.strangers.dismiss(stranger)
			if err == nil {
				err = t.receive(known, kind)
			}
			if err != nil {
				t.logger.Debug("connection refused", "from", conn.RemoteAddr(), "error", err)
				_ = conn.Close()
			}
		})
	}
}

// identify finds out who called, by certificate where there are any, and what for.
func (t *NetTransport) identify(raw net.Conn) (conn net.Conn, kind byte, err error) {
	if err := raw.SetDeadline(time.Now().Add(handshakeTimeout)); err != nil {
		return nil, 0, err
	}
	conn = raw
	if t.creds != nil {
		secured := tls.Server(raw, t.creds.MemberServerTLS())
		if err := secured.HandshakeContext(t.ctx); err != nil {
			return nil, 0, err
		}
		conn = secured
	}
	var first [1]byte
	if _, err := conn.Read(first[:]); err != nil {
		return nil, 0, err
	}
	return conn, first[0], raw.SetDeadline(time.Time{})
}

// receive gives the connection to whom it is for, with a slot that is given back when it closes.
func (t *NetTransport) receive(conn net.Conn, kind byte) (err error) {
	select {
	case t.slots <- struct{}{}:
	default:
		t.logger.Warn("too many connections of members", "from", conn.RemoteAddr(), "limit", maxConnections)
		return fmt.Errorf("more than %d connections", maxConnections)
	}
	release := func() { <-t.slots }
	defer func() {
		if err != nil {
			release()
		}
	}()
	switch kind {
	case streamRaft:
		return t.raftConns.put(conn, release)
	case streamPeer:
		return t.peerConns.put(conn, release)
	case streamLife:
		return t.keepOpen(conn)
	}
	return fmt.Errorf("unknown stream kind %d", kind)
}

// dial opens a connection of a kind to a member.
func (t *NetTransport) dial(ctx context.Context, id, target string, kind byte) (net.Conn, error) {
	var d net.Dialer
	raw, err := d.DialContext(ctx, "tcp", target)
	if err != nil {
		return nil, err
	}
	deadline := time.Now().Add(handshakeTimeout)
	if until, ok := ctx.Deadline(); ok && until.Before(deadline) {
		deadline = until
	}
	_ = raw.SetDeadline(deadline)
	conn := raw
	if t.creds != nil {
		secured := tls.Client(raw, t.creds.MemberClientTLS(id))
		if err := secured.HandshakeContext(ctx); err != nil {
			return nil, errors.Join(err, raw.Close())
		}
		conn = secured
	}
	if _, err := conn.Write([]byte{kind}); err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	_ = raw.SetDeadline(time.Time{})
	return conn, nil
}

// Peer implements Transport.
func (t *NetTransport) Peer(id, target string) (peerv1.PeerServiceClient, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		return nil, net.ErrClosed
	}
	if p, ok := t.peers[id]; ok {
		if p.address == target {
			return p.client, nil
		}
		delete(t.peers, id)
		_ = p.conn.Close()
	}
	if len(t.peers) >= maxPeers {
		return nil, fmt.Errorf("more than %d peers", maxPeers)
	}
	// The connection is secured by dial, which also says what it carries; for gRPC it is a plain one.
	conn, err := grpc.NewClient("passthrough:///"+target,
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return t.dial(ctx, id, target, streamPeer) }),
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           backoff.Config{BaseDelay: 50 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: reconnectMax},
			MinConnectTimeout: handshakeTimeout,
		}),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: 10 * time.Second, Timeout: 3 * time.Second}),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(peerMessageBytes)),
		grpc.WithDisableServiceConfig(), grpc.WithDisableRetry(), grpc.WithIdleTimeout(0),
		grpc.WithStatsHandler(sentMark{}), grpc.WithUnaryInterceptor(markNotSent),
	)
	if err != nil {
		return nil, err
	}
	p := &peerConn{address: target, conn: conn, client: peerv1.NewPeerServiceClient(conn)}
	t.peers[id] = p
	return p.client, nil
}

// Retain implements Transport.
func (t *NetTransport) Retain(ids []string) {
	keep := map[string]bool{}
	for _, id := range ids {
		keep[id] = true
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	for id, p := range t.peers {
		if !keep[id] {
			delete(t.peers, id)
			_ = p.conn.Close()
		}
	}
	for a, id := range t.ids {
		if !keep[id] {
			delete(t.ids, a)
		}
	}
}

// Close implements raft.WithClose. It returns when everything has ended.
func (t *NetTransport) Close() error {
	t.mu.Lock()
	if t.closed {
		t.mu.Unlock()
		t.tasks.Wait()
		return nil
	}
	t.closed = true
	network, server, peers := t.NetworkTransport, t.server, t.peers
	t.peers = map[string]*peerConn{}
	t.mu.Unlock()
	err := t.listener.Close()
	if server != nil {
		t.stopServer(server)
	}
	t.cancel()
	for _, p := range peers {
		err = errors.Join(err, p.conn.Close())
	}
	if network != nil {
		network.CloseStreams()
		err = errors.Join(err, network.Close())
	}
	t.raftConns.end()
	t.peerConns.end()
	t.tasks.Wait()
	return err
}

// stopServer lets what other members asked be answered first, most of it with "not the leader": without, they couldn't tell what became of it.
func (t *NetTransport) stopServer(server *grpc.Server) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		server.GracefulStop()
	}()
	limit := time.NewTimer(answerTimeout)
	defer limit.Stop()
	select {
	case <-done:
	case <-limit.C:
		server.Stop()
		<-done
	}
}

// learn remembers which member an address belongs to. Raft's own dial knows the address only, and the certificate must be that member's.
func (t *NetTransport) learn(id raft.ServerID, target raft.ServerAddress) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.ids[target] != string(id) {
		if len(t.ids) >= maxPeers {
			clear(t.ids)
		}
		t.ids[target] = string(id)
	}
}

// AppendEntriesPipeline implements raft.Transport.
func (t *NetTransport) AppendEntriesPipeline(id raft.ServerID, target raft.ServerAddress) (raft.AppendPipeline, error) {
	t.learn(id, target)
	return t.NetworkTransport.AppendEntriesPipeline(id, target)
}

// AppendEntries implements raft.Transport.
func (t *NetTransport) AppendEntries(id raft.ServerID, target raft.ServerAddress, args *raft.AppendEntriesRequest, resp *raft.AppendEntriesResponse) error {
	t.learn(id, target)
	return t.NetworkTransport.AppendEntries(id, target, args, resp)
}

// RequestVote implements raft.Transport.
func (t *NetTransport) RequestVote(id raft.ServerID, target raft.ServerAddress, args *raft.RequestVoteRequest, resp *raft.RequestVoteResponse) error {
	t.learn(id, target)
	return t.NetworkTransport.RequestVote(id, target, args, resp)
}

// RequestPreVote implements raft.WithPreVote.
func (t *NetTransport) RequestPreVote(id raft.ServerID, target raft.ServerAddress, args *raft.RequestPreVoteRequest, resp *raft.RequestPreVoteResponse) error {
	t.learn(id, target)
	return t.NetworkTransport.RequestPreVote(id, target, args, resp)
}
