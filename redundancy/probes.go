package redundancy

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gopcua/opcua/ua"

	"google.golang.org/protobuf/types/known/durationpb"

	"quorate/fsm"
	peerv1 "quorate/proto/quorate/peer/v1"
	quoratev1 "quorate/proto/quorate/v1"
)

const (
	// maxBackoff is the longest time between probes of a peer that stays unreachable.
	maxBackoff = 10 * time.Second
	// backoffJitter is the part of a backoff that is left to chance, so that members don't probe in step.
	backoffJitter = 0.25
)

// Target is where a peer is probed.
type Target struct {
	Server      string // the member that runs it
	HealthURL   string // of /healthz; empty skips that half
	EndpointURL string // of its OPC UA endpoint
}

// Sample is what one good probe saw.
type Sample struct {
	ServiceLevel   byte
	State          ua.ServerState
	ApplicationURI string // ServerArray[0]
	// What the peer says of itself in the namespace urn:quorate:state; zero if it isn't one of ours, or was between two generations.
	Generation   uint64 // that it adopted
	Digest, Role string // under that generation
}

// Prober makes the probes. NewProber's is the real one.
type Prober interface {
	// Open returns the probe of one peer. It connects when it is first asked for a sample.
	Open(Target) Probe
	// Witness reads a node once through an endpoint, as any client would.
	Witness(ctx context.Context, endpointURL, node string) error
	// Close frees what the probes shared, after the last of them was closed.
	Close()
}

// Probe samples one peer, by one goroutine at a time.
type Probe interface {
	// Sample asks the peer once, within the deadline of ctx. An error is a failed sample.
	Sample(ctx context.Context) (Sample, error)
	// Close ends the session and the connection, within a bounded time.
	Close()
}

// PeerView is what a member last saw of another server of its set.
type PeerView struct {
	Server    string
	Reachable bool // also true before the first sample: silence is no proof until enough samples failed
	Known     bool // there was a good sample, ever
	Sample         // the last good one
	Failures  int  // consecutive failed samples
	LastSeen  time.Time
	LastError string    // empty after a good sample
	Lost      time.Time // since when it is not Reachable
}

// peer is the record of one peer. It outlives generations, so that a publish makes nobody reachable who isn't.
type peer struct {
	target Target // where it was seen
	view   PeerView
	good   int // consecutive good samples
}

// forget drops what was seen of a peer at an address that it has no longer: somebody else may have answered there.
func (p *peer) forget() {
	p.view.Known, p.view.Sample, p.view.LastSeen, p.good = false, Sample{}, time.Time{}, 0
}

// watched is a server of which this member votes whether it can be reached.
type watched struct {
	target  Target
	own     bool // it is of this member's set
	primary bool
}

// probes runs a loop for each peer of the current generation, and for each Primary that this member votes on.
type probes struct {
	prober   Prober
	settings Settings
	now      func() time.Time
	log      *slog.Logger
	changed  func()

	version atomic.Uint64 // moves when a level can depend on it, or a client sees it
	dropped atomic.Uint64 // results that were of an older generation
	good    atomic.Uint64 // samples since the start
	failed  atomic.Uint64
	running sync.WaitGroup

	mu         sync.Mutex
	generation uint64
	voter      bool
	round      uint64 // moves when the two before do: what an older round finds is outdated
	peers      map[string]*peer
	order      []string // of this member's set
	primaries  []string
	cancel     context.CancelFunc
}

func newProbes(prober Prober, settings Settings, now func() time.Time, log *slog.Logger, changed func()) *probes {
	return &probes{prober: prober, settings: settings, now: now, log: log, changed: changed, cancel: func() {}}
}

// peersOf returns the other servers of a member's set: its level depends on these and no others.
func peersOf(set *quoratev1.RedundantSet, member string) []*quoratev1.RedundantServer {
	var peers []*quoratev1.RedundantServer
	for _, s := range set.GetServers() {
		if s.GetMember() != member {
			peers = append(peers, s)
		}
	}
	return peers
}

// targets are the servers that a member probes: those of its own set and, by a voter, the Primaries of sets in which something depends on whether the
// voters can reach them.
func targets(state *fsm.State, member string, voter bool) (list []watched) {
	own, _, _ := state.Server(member)
	for _, set := range state.CurrentGeneration().GetTopology().GetSets() {
		mine := own != nil && set.GetId() == own.GetId()
		policies := fsm.PoliciesOf(set)
		votes := voter && (policies.StandIn != 0 || policies.Automatic)
		if !mine && !votes {
			continue
		}
		for _, s := range peersOf(set, member) {
			w := watched{own: mine, primary: s.GetRole() == Primary,
				target: Target{Server: s.GetMember(), HealthURL: s.GetHealthUrl(), EndpointURL: s.GetEndpointUrl()}}
			if w.own || w.primary {
				list = append(list, w)
			}
		}
	}
	return list
}

// follow makes the probes those of the current generation. It does nothing if they are already.
func (p *probes) follow(ctx context.Context, state *fsm.State, member string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	current := state.CurrentGeneration().GetNumber()
	record, _ := state.Member(member)
	if current == p.generation && record.GetVoter() == p.voter {
		return
	}
	p.cancel() // What is in flight ends, and what still comes in is of an older generation.
	ctx, p.cancel = context.WithCancel(ctx)
	p.generation, p.voter = current, record.GetVoter()
	p.round++
	before := p.peers
	p.peers, p.order, p.primaries = make(map[string]*peer), nil, nil
	for _, w := range targets(state, member, p.voter) {
		server := w.target.Server
		known, ok := before[server]
		if !ok {
			known = &peer{view: PeerView{Server: server, Reachable: true}}
		} else if known.target != w.target {
			known.forget()
		}
		known.target = w.target
		p.peers[server] = known
		if w.own {
			p.order = append(p.order, server)
		}
		if w.primary {
			p.primaries = append(p.primaries, server)
		}
		round := p.round
		p.running.Go(func() { p.run(ctx, round, w.target) })
	}
	p.version.Add(1)
}

// stop ends all probes and waits for them.
func (p *probes) stop() {
	p.mu.Lock()
	p.cancel()
	p.mu.Unlock()
	p.running.Wait()
}

// run probes one peer until ctx ends.
func (p *probes) run(ctx context.Context, round uint64, target Target) {
	probe := p.prober.Open(target)
	defer probe.Close()
	alarm := time.NewTimer(0)
	defer alarm.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-alarm.C:
		}
		begun := time.Now()
		sampling, cancel := context.WithTimeout(ctx, p.settings.ProbeTimeout)
		sample, err := p.sample(sampling, probe)
		cancel()
		failures := p.note(round, target.Server, sample, err)
		alarm.Reset(p.delay(failures, rand.Float64()) - time.Since(begun))
	}
}

// sample turns a panic into a failed sample: what a peer answers must not end this member.
func (p *probes) sample(ctx context.Context, probe Probe) (s Sample, err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("the probe panicked: %v", r)
		}
	}()
	return probe.Sample(ctx)
}

// delay returns the time from one probe's start to the next's: the interval, and from the sample on that makes the peer
// unreachable, a backoff that doubles up to maxBackoff, with jitter.
func (p *probes) delay(failures int, chance float64) time.Duration {
	interval := p.settings.ProbeInterval
	over := failures - p.settings.FailedSamples
	if over < 0 {
		return interval
	}
	longest := max(maxBackoff, interval)
	backoff := interval
	for range over {
		if backoff *= 2; backoff >= longest {
			backoff = longest
			break
		}
	}
	return max(interval, backoff-time.Duration(backoffJitter*chance*float64(backoff)))
}

// note records a result, and returns how many samples have failed in a row. A result of an older generation counts for nothing.
func (p *probes) note(round uint64, server string, s Sample, err error) (failures int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	peer, ok := p.peers[server]
	if round != p.round || !ok {
		p.dropped.Add(1)
		return 0
	}
	before := peer.view
	v := &peer.view
	if err != nil {
		p.failed.Add(1)
		peer.good = 0
		v.Failures++
		v.LastError = err.Error()
		if v.Failures >= p.settings.FailedSamples && v.Reachable {
			v.Reachable, v.Lost = false, p.now()
		}
	} else {
		p.good.Add(1)
		peer.good++
		v.Failures, v.LastError = 0, ""
		v.Known, v.Sample, v.LastSeen = true, s, p.now()
		if peer.good >= p.settings.GoodSamples {
			v.Reachable, v.Lost = true, time.Time{}
		}
	}
	if v.Reachable != before.Reachable {
		p.log.Info("peer reachability changed", "peer", server, "reachable", v.Reachable, "generation", p.generation, "error", v.LastError)
	}
	if v.Reachable != before.Reachable || v.Known != before.Known || v.Sample != before.Sample {
		p.version.Add(1)
		p.changed()
	}
	return v.Failures
}

func (p *probes) unreachable(server string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	peer, ok := p.peers[server]
	return ok && !peer.view.Reachable
}

// watches tells whether this member votes on some Primary.
func (p *probes) watches() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.voter && len(p.primaries) > 0
}

// votes returns the Primaries that this member cannot reach, and since when.
func (p *probes) votes(now time.Time) (lost []*peerv1.UnreachableServer) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, server := range p.primaries {
		if v := p.peers[server].view; !v.Reachable {
			lost = append(lost, &peerv1.UnreachableServer{Server: server, Age: durationpb.New(max(now.Sub(v.Lost), 0))})
		}
	}
	return lost
}

// seen returns the last good sample of a peer; ok is false if there is none.
func (p *probes) seen(server string) (s Sample, ok bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if peer, known := p.peers[server]; known && peer.view.Known {
		return peer.view.Sample, true
	}
	return Sample{}, false
}

// views returns what is known of each peer, in the order of the topology.
func (p *probes) views() []PeerView {
	p.mu.Lock()
	defer p.mu.Unlock()
	views := make([]PeerView, 0, len(p.order))
	for _, server := range p.order {
		views = append(views, p.peers[server].view)
	}
	return views
}
