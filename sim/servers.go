package sim

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/gopcua/opcua/ua"

	"quorate/node"
	logv1 "quorate/proto/quorate/log/v1"
	peerv1 "quorate/proto/quorate/peer/v1"
	quoratev1 "quorate/proto/quorate/v1"
	"quorate/redundancy"
)

// Server is one member's server in a World: a real redundancy.Manager on the member's node. It lives and dies with the node.
type Server struct {
	id      string
	host    *host
	manager *redundancy.Manager
	cancel  context.CancelFunc
	done    chan struct{}
}

// Mutant breaks one rule of the serving leases, to prove that an Observer notices.
type Mutant int

// The mutants.
const (
	NoMutant Mutant = iota
	// CountFromAnswer lets a server count its lease from the answer instead of from before it asked.
	CountFromAnswer
	// GrantBeforeRelease lets the leader grant a Healthy lease to a Primary whether or not somebody else has one.
	GrantBeforeRelease
	// NoWaitOfNewLeader lets a new leader believe that a TTL has passed since its term began.
	NoWaitOfNewLeader
	// Unconfirmed lets a leader grant leases without asking a majority. It is the network's TrustOwnTerm.
	Unconfirmed
)

// host is a node as its manager sees it, through a process that can be stopped for a while.
type host struct {
	node   *node.Node
	clock  *Clock
	mutant Mutant

	mu sync.Mutex
	// going is closed when the process goes on; it is nil while it does.
	going  chan struct{}
	frozen node.View
	// behind is by how much a mutant's clock was set back.
	behind time.Duration
}

var _ redundancy.Group = (*host)(nil)

// now is the clock of the manager. It goes on while the process stands still.
func (h *host) now() time.Time {
	h.mu.Lock()
	defer h.mu.Unlock()
	return time.Time{}.Add(h.clock.Elapsed() - h.behind)
}

// pause stops the process: what it knows stays as it is, and nothing that it waits for comes.
func (h *host) pause() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.going, h.frozen = make(chan struct{}), h.node.Local()
}

func (h *host) resume() {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.going != nil {
		close(h.going)
		h.going = nil
	}
}

func (h *host) paused() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.going != nil
}

// awake waits until the process runs. A pause takes no notice of deadlines.
func (h *host) awake() {
	for {
		h.mu.Lock()
		going := h.going
		h.mu.Unlock()
		if going == nil {
			return
		}
		<-going
	}
}

// Local implements redundancy.Group.
func (h *host) Local() node.View {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.going != nil {
		return h.frozen
	}
	return h.node.Local()
}

// Changed implements redundancy.Group.
func (h *host) Changed() <-chan struct{} {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.going != nil {
		return h.going
	}
	return h.node.Changed()
}

// Diverged implements redundancy.Group.
func (h *host) Diverged() bool { return h.node.Diverged() }

// Read implements redundancy.Group.
func (h *host) Read(ctx context.Context, o *quoratev1.ReadOptions) (node.View, error) {
	h.awake()
	defer h.awake()
	return h.node.Read(ctx, o)
}

// Propose implements redundancy.Group.
func (h *host) Propose(ctx context.Context, c *logv1.Command) (*logv1.Outcome, error) {
	h.awake()
	defer h.awake()
	return h.node.Propose(ctx, c)
}

// RenewServing implements redundancy.Group.
func (h *host) RenewServing(ctx context.Context, req *peerv1.RenewServingRequest) (*peerv1.RenewServingResponse, error) {
	h.awake()
	asked := h.clock.Elapsed()
	resp, err := h.node.RenewServing(ctx, req)
	h.awake()
	if err != nil {
		return nil, err
	}
	switch h.mutant {
	case CountFromAnswer:
		h.mu.Lock()
		h.behind += h.clock.Elapsed() - asked
		h.mu.Unlock()
	case GrantBeforeRelease:
		if _, s, ok := h.node.Local().State.Server(req.GetMember()); ok && s.GetRole() == redundancy.Primary && resp.GetConfirmed() {
			resp.Healthy = resp.GetHealthy() || req.GetWantsHealthy()
		}
	}
	return resp, nil
}

// Serve starts the server of a member that runs, among others.
func (w *World) Serve(id string, mutant Mutant, servers *Servers) (*Server, error) {
	n := w.Node(id)
	if n == nil {
		return nil, fmt.Errorf("%s doesn't run", id)
	}
	h := &host{node: n, clock: w.Clock(id), mutant: mutant}
	log := w.Logger
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	m, err := redundancy.New(redundancy.Config{
		Member: id, Group: h, Prober: &prober{from: id, servers: servers}, ApplicationURI: "urn:sim:" + id, Applier: w.Applier, Now: h.now, Logger: log.With("member", id),
		Settings: redundancy.Settings{RecoverDwell: recoverDwell},
	})
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(context.Background())
	s := &Server{id: id, host: h, manager: m, cancel: cancel, done: make(chan struct{})}
	m.Subscribe(func() { servers.observer.look() })
	go func() {
		defer close(s.done)
		_ = m.Run(ctx)
	}()
	return s, nil
}

// recoverDwell is short, so that restarted servers come back within a scenario.
const recoverDwell = 3 * time.Second

// Servers are all servers of a World.
type Servers struct {
	world    *World
	mutant   Mutant
	observer *Observer

	mu  sync.Mutex
	all map[string]*Server
	// ending counts killed managers that haven't ended yet.
	ending sync.WaitGroup
}

// NewServers starts a server on each running member. Trace is told of each change of a level, one at a time.
func NewServers(w *World, mutant Mutant, trace func(id string, before, after redundancy.Level)) (*Servers, error) {
	s := &Servers{world: w, mutant: mutant, all: map[string]*Server{}}
	s.observer = newObserver(s, trace)
	for _, id := range w.Running() {
		if err := s.start(id); err != nil {
			return nil, err
		}
	}
	return s, nil
}

func (s *Servers) start(id string) error {
	server, err := s.world.Serve(id, s.mutant, s)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.all[id] = server
	return nil
}

func (s *Servers) get(id string) *Server {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.all[id]
}

// Watch has the observer look until ctx ends.
func (s *Servers) Watch(ctx context.Context) { s.observer.run(ctx) }

// Kill ends a member and its server at once.
func (s *Servers) Kill(id string) {
	s.Resume(id)
	s.mu.Lock()
	server := s.all[id]
	delete(s.all, id)
	s.mu.Unlock()
	s.world.Kill(id)
	if server != nil {
		server.cancel()
		s.ending.Go(func() { <-server.done })
	}
}

// Start starts a member again, with its server.
func (s *Servers) Start(id string, clock *Clock) error {
	if err := s.world.Start(id, clock); err != nil {
		return err
	}
	return s.start(id)
}

// Pause stops a member's process; its clock goes on.
func (s *Servers) Pause(id string) {
	if server := s.get(id); server != nil {
		s.world.Network.Pause(id)
		server.host.pause()
	}
}

// Resume lets it go on. Its level is looked at as it is at the moment of waking, before anything else runs there.
func (s *Servers) Resume(id string) {
	server := s.get(id)
	if server == nil || !server.host.paused() {
		return
	}
	s.observer.wake(id)
	server.host.resume()
	s.world.Network.Resume(id)
}

// Close ends the servers. The world is closed afterwards.
func (s *Servers) Close() {
	for _, id := range s.world.IDs() {
		if server := s.get(id); server != nil {
			server.host.resume()
			s.world.Network.Resume(id)
			server.cancel()
			<-server.done
		}
	}
	s.ending.Wait()
}

// prober asks servers over the links of their members.
type prober struct {
	from    string
	servers *Servers
}

// Open implements redundancy.Prober.
func (p *prober) Open(t redundancy.Target) redundancy.Probe { return &probe{prober: p, to: t.Server} }

// Witness implements redundancy.Prober.
func (p *prober) Witness(context.Context, string, string) error { return nil }

// Close implements redundancy.Prober.
func (p *prober) Close() {}

type probe struct {
	prober *prober
	to     string
}

// Sample implements redundancy.Probe.
func (p *probe) Sample(ctx context.Context) (redundancy.Sample, error) {
	servers := p.prober.servers
	if err := servers.world.Network.Ping(ctx, p.prober.from, p.to); err != nil {
		return redundancy.Sample{}, err
	}
	asked := servers.get(p.to)
	if asked == nil {
		return redundancy.Sample{}, errors.New("connection refused")
	}
	level := asked.manager.Level()
	sample := redundancy.Sample{ServiceLevel: level.Value, State: ua.ServerStateRunning, ApplicationURI: "urn:sim:" + p.to, Generation: level.Generation, Role: level.Role}
	if g, ok := asked.host.Local().State.Generation(level.Generation); ok {
		sample.Digest = g.GetDigest()
	}
	return sample, nil
}

// Close implements redundancy.Probe.
func (p *probe) Close() {}
