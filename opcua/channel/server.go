package channel

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gopcua/opcua/ua"
)

const (
	// firstAcceptDelay and lastAcceptDelay bound the pause after an Accept that
	// failed for lack of resources.
	firstAcceptDelay = 5 * time.Millisecond
	lastAcceptDelay  = time.Second
)

// Server accepts connections and keeps their secure channels.
type Server struct {
	cfg     Config
	limits  Limits
	handler Handler
	log     *slog.Logger
	now     func() time.Time

	done         chan struct{} // closed by Shutdown
	handshakes   chan struct{} // a place for each concurrent handshake
	large        chan struct{} // a place for each concurrent large request
	turns        chan struct{} // a place for each busy connection that may be at work
	partialBytes atomic.Int64
	queuedBytes  atomic.Int64
	channelID    atomic.Uint32
	counts       counts

	mu        sync.Mutex
	closing   bool
	listeners map[net.Listener]struct{}
	channels  map[*Channel]struct{}
	perHost   map[string]int
	accepted  uint64
	wg        sync.WaitGroup // one for each connection
}

// NewServer checks cfg and returns a server whose requests go to h. An error
// names the field that is wrong.
func NewServer(cfg Config, h Handler) (*Server, error) {
	limits := cfg.Limits.withDefaults()
	if err := limits.check(); err != nil {
		return nil, err
	}
	if h == nil {
		return nil, errors.New("channel: no Handler")
	}
	for i, o := range cfg.Offers {
		p := policyByURI(o.PolicyURI)
		switch {
		case p == nil:
			return nil, fmt.Errorf("channel: Offers[%d].PolicyURI %q is not implemented", i, o.PolicyURI)
		case !p.secure && o.Mode != ua.MessageSecurityModeNone,
			p.secure && o.Mode != ua.MessageSecurityModeSign && o.Mode != ua.MessageSecurityModeSignAndEncrypt:
			return nil, fmt.Errorf("channel: Offers[%d].Mode %v does not go with its policy", i, o.Mode)
		case p.secure && cfg.Certificate == nil:
			return nil, fmt.Errorf("channel: Certificate is needed for Offers[%d]", i)
		}
	}
	s := &Server{
		cfg: cfg, limits: limits, handler: h, log: cfg.Logger, now: cfg.Now,
		done:       make(chan struct{}),
		handshakes: make(chan struct{}, limits.MaxHandshakes),
		large:      make(chan struct{}, limits.MaxLargeRequests),
		turns:      make(chan struct{}, limits.MaxTurns),
		listeners:  map[net.Listener]struct{}{},
		channels:   map[*Channel]struct{}{},
		perHost:    map[string]int{},
		counts:     newCounts(),
	}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	if s.now == nil {
		s.now = time.Now
	}
	// Ids start somewhere, so that a client of the time before a restart does
	// not hit upon a channel that is not its own (Part 6 §6.7.2.2).
	var seed [4]byte
	_, _ = rand.Read(seed[:])
	s.channelID.Store(binary.LittleEndian.Uint32(seed[:]))
	return s, nil
}

// Serve accepts connections from l until the server is shut down or l is
// closed, and then returns nil. It closes l.
func (s *Server) Serve(l net.Listener) error {
	defer func() { _ = l.Close() }() // a second Close is an error that means nothing
	s.mu.Lock()
	if s.closing {
		s.mu.Unlock()
		return nil
	}
	s.listeners[l] = struct{}{}
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		delete(s.listeners, l)
		s.mu.Unlock()
	}()
	delay := time.Duration(0)
	for {
		nc, err := l.Accept()
		switch {
		case err == nil:
			delay = 0
			s.take(nc)
			continue
		case errors.Is(err, net.ErrClosed):
			return nil
		}
		// Whatever it was, perhaps a lack of file descriptors, the next
		// connection may be fine.
		delay = min(max(2*delay, firstAcceptDelay), lastAcceptDelay)
		s.log.Warn("accept failed", "error", err, "retry_in", delay)
		pause := time.NewTimer(delay)
		select {
		case <-pause.C:
		case <-s.done:
			pause.Stop()
			return nil
		}
	}
}

// take gives a connection a place and a goroutine, or refuses it.
func (s *Server) take(nc net.Conn) {
	host := hostOf(nc.RemoteAddr())
	s.mu.Lock()
	if s.closing {
		s.mu.Unlock()
		_ = nc.Close()
		return
	}
	victim, ok := s.makeRoom(host)
	if !ok {
		s.mu.Unlock()
		e := ending{ua.StatusBadTCPServerTooBusy, RejectTooMany, "no place for another connection"}
		w := newDirectWriter(nc)
		_, _ = w.try(appendError(nil, e.status, e.text))
		s.rejected(nc.RemoteAddr(), e)
		_ = nc.Close()
		return
	}
	s.accepted++
	c := newChannel(s, nc, host, s.accepted)
	s.channels[c] = struct{}{}
	s.perHost[host]++
	s.wg.Add(1)
	s.mu.Unlock()
	if victim != nil {
		victim.evict()
	}
	go func() {
		defer s.wg.Done()
		defer func() {
			s.mu.Lock()
			s.removeLocked(c)
			s.mu.Unlock()
			if s.cfg.Events.Closed != nil {
				s.cfg.Events.Closed(nc.RemoteAddr())
			}
		}()
		if s.cfg.Events.Accepted != nil {
			s.cfg.Events.Accepted(nc.RemoteAddr())
		}
		c.run()
	}()
}

// makeRoom finds who has to go if there is no place for another connection of a
// host, and takes its place away. It says false if all are in use, the spare ones too.
func (s *Server) makeRoom(host string) (victim *Channel, ok bool) {
	fullHost := s.perHost[host] >= s.limits.MaxConnectionsPerHost
	if !fullHost && len(s.channels) < s.limits.MaxConnections {
		return nil, true
	}
	for c := range s.channels {
		if !c.inUse.Load() && (!fullHost || c.host == host) && (victim == nil || c.order < victim.order) {
			victim = c
		}
	}
	if victim == nil {
		spare := s.limits.SpareConnections
		return nil, s.perHost[host] < s.limits.MaxConnectionsPerHost+spare && len(s.channels) < s.limits.MaxConnections+spare
	}
	s.removeLocked(victim)
	return victim, true
}

func (s *Server) removeLocked(c *Channel) {
	if _, ok := s.channels[c]; !ok {
		return
	}
	delete(s.channels, c)
	if s.perHost[c.host]--; s.perHost[c.host] == 0 {
		delete(s.perHost, c.host)
	}
}

// evict cuts the connection at once: a flood of connections must not leave
// another flood of those that take their time to end.
func (c *Channel) evict() {
	c.end(ending{ua.StatusBadTCPServerTooBusy, RejectTooMany, "place was given to another connection"})
	_ = c.nc.Close()
}

func hostOf(a net.Addr) string {
	host, _, err := net.SplitHostPort(a.String())
	if err != nil {
		return a.String()
	}
	return host
}

// Shutdown stops accepting, tells each client with BadServerHalted and ends its
// connection. It returns when all of them are gone; if ctx ends first,
// connections are cut, and the error of ctx is returned.
func (s *Server) Shutdown(ctx context.Context) error {
	s.mu.Lock()
	if !s.closing {
		s.closing = true
		close(s.done)
	}
	for l := range s.listeners {
		_ = l.Close()
	}
	for c := range s.channels {
		c.end(ending{ua.StatusBadServerHalted, RejectServerClose, "server is shutting down"})
	}
	s.mu.Unlock()
	gone := make(chan struct{})
	go func() {
		s.wg.Wait()
		close(gone)
	}()
	select {
	case <-gone:
		return nil
	case <-ctx.Done():
	}
	s.mu.Lock()
	for c := range s.channels {
		_ = c.nc.Close()
	}
	s.mu.Unlock()
	return ctx.Err()
}

func (s *Server) offers(uri string, mode ua.MessageSecurityMode) bool {
	for _, o := range s.cfg.Offers {
		if o.PolicyURI == uri && o.Mode == mode {
			return true
		}
	}
	return false
}

func (s *Server) offersPolicy(uri string) bool {
	return s.offers(uri, ua.MessageSecurityModeSign) || s.offers(uri, ua.MessageSecurityModeSignAndEncrypt)
}

// enterHandshake waits for a place for asymmetric cryptography.
func (s *Server) enterHandshake() (release func(), err error) {
	return s.enter(s.handshakes, s.limits.HandshakeTimeout, "too many channels are being opened")
}

// enterLarge waits for a place for a large request.
func (s *Server) enterLarge() (release func(), err error) {
	return s.enter(s.large, s.limits.MessageTimeout, "too many large requests")
}

func (s *Server) enter(places chan struct{}, timeout time.Duration, busy string) (release func(), err error) {
	halted := ending{ua.StatusBadServerHalted, RejectServerClose, "server is shutting down"}
	select {
	case <-s.done:
		return nil, halted
	default:
	}
	wait := time.NewTimer(timeout)
	defer wait.Stop()
	select {
	case places <- struct{}{}:
		return func() { <-places }, nil
	case <-wait.C:
		return nil, ending{ua.StatusBadTCPServerTooBusy, RejectTimeout, busy}
	case <-s.done:
		return nil, halted
	}
}

func (s *Server) nextChannelID() uint32 {
	for {
		if id := s.channelID.Add(1); id != 0 {
			return id
		}
	}
}

func (s *Server) rejected(remote net.Addr, e ending) {
	s.log.Debug("connection ended by the server", "remote", remote, "error", e)
	s.counts.reject(e.reason)
	if s.cfg.Events.Rejected != nil {
		s.cfg.Events.Rejected(remote, e.reason, e.status)
	}
}

func (s *Server) openedChannel(c *Channel, renewed bool) {
	s.log.Debug("secure channel opened", "remote", c.nc.RemoteAddr(), "channel", c.id,
		"policy", c.policy.uri, "mode", c.mode, "renewed", renewed)
	s.counts.open(c.policy, renewed)
	if s.cfg.Events.Opened != nil {
		s.cfg.Events.Opened(c.nc.RemoteAddr(), c.policy.uri, c.mode, renewed)
	}
}

func (s *Server) panicked(c *Channel, value any) {
	s.log.Error("panic confined to its connection", "remote", c.nc.RemoteAddr(), "panic", value, "stack", string(debug.Stack()))
	s.counts.panics.Add(1)
	if s.cfg.Events.Panicked != nil {
		s.cfg.Events.Panicked(c.nc.RemoteAddr(), value)
	}
}
