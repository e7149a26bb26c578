package node

import (
	"context"
	"net"
	"sync"
	"time"

	"github.com/hashicorp/raft"
	"google.golang.org/grpc"
	"google.golang.org/grpc/stats"
)

// address is a HOST:PORT as a net.Addr.
type address string

func (a address) Network() string { return "tcp" }
func (a address) String() string  { return string(a) }

// stream is one kind of connection of the raft port, as a listener. It is raft's StreamLayer and the peer service's listener. It knows its open
// connections, since raft's transport leaves those that it accepted open when it is closed.
type stream struct {
	t        *NetTransport
	incoming chan net.Conn
	mu       sync.Mutex
	open     map[net.Conn]struct{}
	closed   chan struct{}
	once     sync.Once
}

func newStream(t *NetTransport) *stream {
	return &stream{t: t, incoming: make(chan net.Conn), open: map[net.Conn]struct{}{}, closed: make(chan struct{})}
}

// put gives a connection to whoever accepts; release is called when it closes.
func (s *stream) put(conn net.Conn, release func()) error {
	tracked := s.track(conn, release)
	select {
	case s.incoming <- tracked:
		return nil
	case <-s.closed:
		// The slot is released by the caller, on this error.
		tracked.release = func() {}
		_ = tracked.Close()
		return net.ErrClosed
	}
}

func (s *stream) track(conn net.Conn, release func()) *trackedConn {
	c := &trackedConn{Conn: conn, stream: s, release: release}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.open[c] = struct{}{}
	return c
}

// Accept implements net.Listener.
func (s *stream) Accept() (net.Conn, error) {
	select {
	case conn := <-s.incoming:
		return conn, nil
	case <-s.closed:
		return nil, net.ErrClosed
	}
}

// Addr implements net.Listener.
func (s *stream) Addr() net.Addr { return s.t.advertise }

// Close implements net.Listener: it takes no more connections and leaves those that are open.
func (s *stream) Close() error {
	s.once.Do(func() { close(s.closed) })
	return nil
}

// end closes the connections too.
func (s *stream) end() {
	_ = s.Close()
	s.mu.Lock()
	conns := make([]net.Conn, 0, len(s.open))
	for c := range s.open {
		conns = append(conns, c)
	}
	s.mu.Unlock()
	for _, c := range conns {
		_ = c.Close()
	}
}

// Dial implements raft.StreamLayer.
func (s *stream) Dial(target raft.ServerAddress, timeout time.Duration) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(s.t.ctx, timeout)
	defer cancel()
	s.t.mu.Lock()
	id := s.t.ids[target]
	s.t.mu.Unlock()
	conn, err := s.t.dial(ctx, id, string(target), streamRaft)
	if err != nil {
		return nil, err
	}
	tracked := s.track(conn, func() {})
	select {
	case <-s.closed:
		_ = tracked.Close()
		return nil, net.ErrClosed
	default:
		return tracked, nil
	}
}

type trackedConn struct {
	net.Conn
	stream  *stream
	release func()
	once    sync.Once
}

// Close implements net.Conn.
func (c *trackedConn) Close() error {
	err := c.Conn.Close()
	c.once.Do(func() {
		c.stream.mu.Lock()
		delete(c.stream.open, c)
		c.stream.mu.Unlock()
		c.release()
	})
	return err
}

// sentMark notes for each call whether its request was handed to a connection: gRPC's Unavailable doesn't tell.
type sentMark struct{}

type sentKey struct{}

// markNotSent turns the error of a request that never left into NotSent.
func markNotSent(ctx context.Context, method string, req, reply any, cc *grpc.ClientConn, invoke grpc.UnaryInvoker, opts ...grpc.CallOption) error {
	sent := new(bool)
	err := invoke(context.WithValue(ctx, sentKey{}, sent), method, req, reply, cc, opts...)
	if err != nil && !*sent {
		return NotSent(err)
	}
	return err
}

// TagRPC implements stats.Handler.
func (sentMark) TagRPC(ctx context.Context, _ *stats.RPCTagInfo) context.Context { return ctx }

// HandleRPC implements stats.Handler. A unary call sends on the caller's own goroutine, before invoke returns.
func (sentMark) HandleRPC(ctx context.Context, s stats.RPCStats) {
	if _, ok := s.(*stats.OutHeader); ok {
		if sent, ok := ctx.Value(sentKey{}).(*bool); ok {
			*sent = true
		}
	}
}

// TagConn implements stats.Handler.
func (sentMark) TagConn(ctx context.Context, _ *stats.ConnTagInfo) context.Context { return ctx }

// HandleConn implements stats.Handler.
func (sentMark) HandleConn(context.Context, stats.ConnStats) {}
