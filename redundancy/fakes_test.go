package redundancy

import (
	"context"
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gopcua/opcua/ua"
	"google.golang.org/protobuf/proto"

	"quorate/fsm"
	"quorate/node"
	logv1 "quorate/proto/quorate/log/v1"
	peerv1 "quorate/proto/quorate/peer/v1"
	quoratev1 "quorate/proto/quorate/v1"
)

// group is a Group without raft: the real state machine, fed directly.
type group struct {
	t testing.TB

	mu       sync.Mutex
	state    *fsm.State
	index    uint64
	changed  chan struct{}
	down     bool // nothing can be read, proposed or asked
	adopted  []uint64
	policies *quoratev1.RedundancyPolicies // of what is published next
	// renew answers the questions for serving leases; asked are those that came.
	renew func(context.Context, *peerv1.RenewServingRequest) (*peerv1.RenewServingResponse, error)
	asked []*peerv1.RenewServingRequest
	// intercept, if it isn't nil, keeps a command that is proposed from the log by an error.
	intercept func(*logv1.Command) error
	// recorded are the changes of level in the log.
	recorded []*quoratev1.LevelChange

	diverged atomic.Bool
}

func newGroup(t testing.TB, members ...string) *group {
	g := &group{t: t, state: fsm.New(), changed: make(chan struct{}), renew: generous}
	sync := &logv1.SyncMembers{}
	for _, m := range members {
		sync.Members = append(sync.Members, &logv1.SyncMembers_Member{Id: m, RaftAddress: m + ":7301", Voter: true})
	}
	g.apply(&logv1.Command{Body: &logv1.Command_OpenTerm{OpenTerm: &logv1.OpenTerm{Term: 1, Leader: members[0]}}})
	g.apply(&logv1.Command{Body: &logv1.Command_SyncMembers{SyncMembers: sync}})
	for _, m := range members {
		g.apply(&logv1.Command{Body: &logv1.Command_AnnounceMember{AnnounceMember: &logv1.AnnounceMember{Id: m, CommandVersion: fsm.CommandVersion}}})
	}
	return g
}

// generous is a leader that confirms everybody and gives everybody what he wants.
func generous(_ context.Context, r *peerv1.RenewServingRequest) (*peerv1.RenewServingResponse, error) {
	return &peerv1.RenewServingResponse{Generation: r.GetGeneration(), Confirmed: true, Healthy: r.GetWantsHealthy()}, nil
}

// apply applies a command that must be accepted.
func (g *group) apply(c *logv1.Command) *logv1.Outcome {
	g.t.Helper()
	outcome, err := g.commit(c)
	if err != nil || outcome.GetRefusal() != nil {
		g.t.Fatalf("apply %T: %v, %v", c.GetBody(), err, outcome.GetRefusal())
	}
	return outcome
}

func (g *group) commit(c *logv1.Command) (*logv1.Outcome, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.index++
	outcomes, _, err := g.state.ApplyEntry(g.index, &logv1.Entry{Clock: g.index * uint64(time.Millisecond), Commands: []*logv1.Command{c}})
	if err != nil {
		return nil, err
	}
	close(g.changed)
	g.changed = make(chan struct{})
	return outcomes[0], nil
}

func (g *group) Local() node.View {
	g.mu.Lock()
	defer g.mu.Unlock()
	return node.View{State: g.state.Snapshot(), Member: "m1"}
}

func (g *group) Read(ctx context.Context, _ *quoratev1.ReadOptions) (node.View, error) {
	g.mu.Lock()
	down := g.down
	g.mu.Unlock()
	if down {
		<-ctx.Done()
		return node.View{}, ctx.Err()
	}
	return g.Local(), nil
}

func (g *group) Changed() <-chan struct{} {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.changed
}

func (g *group) RenewServing(ctx context.Context, r *peerv1.RenewServingRequest) (*peerv1.RenewServingResponse, error) {
	g.mu.Lock()
	g.asked = append(g.asked, r)
	renew, down := g.renew, g.down
	g.mu.Unlock()
	if down {
		return nil, errNoLeader
	}
	return renew(ctx, r)
}

var errNoLeader = errors.New("no leader")

func (g *group) Diverged() bool { return g.diverged.Load() }

func (g *group) Propose(ctx context.Context, c *logv1.Command) (*logv1.Outcome, error) {
	g.mu.Lock()
	down := g.down
	if a := c.GetAdoptGeneration(); a != nil && !down {
		g.adopted = append(g.adopted, a.GetGeneration())
	}
	if l := c.GetRecordLevels(); l != nil && !down {
		g.recorded = append(g.recorded, l.GetChanges()...)
	}
	intercept := g.intercept
	g.mu.Unlock()
	if down {
		return nil, errNoLeader
	}
	if intercept != nil {
		if err := intercept(c); err != nil {
			return nil, err
		}
	}
	return g.commit(c)
}

// changes returns the changes of level that were recorded.
func (g *group) changes() []*quoratev1.LevelChange {
	g.mu.Lock()
	defer g.mu.Unlock()
	return slices.Clone(g.recorded)
}

func (g *group) set(fn func()) {
	g.mu.Lock()
	defer g.mu.Unlock()
	fn()
}

func server(member, role string) *quoratev1.RedundantServer {
	return &quoratev1.RedundantServer{
		Member: member, Role: role, ApplicationUri: "urn:demo:" + member,
		EndpointUrl: "opc.tcp://" + member + ":4840", HealthUrl: "http://" + member + ":8080/healthz",
	}
}

// publish publishes one set of these servers, or no set.
func (g *group) publish(servers ...*quoratev1.RedundantServer) {
	g.t.Helper()
	topology := &quoratev1.Topology{}
	if len(servers) > 0 {
		policies := &quoratev1.RedundancyPolicies{}
		if g.policies != nil {
			policies = proto.CloneOf(g.policies)
		}
		policies.MaxServers = 4
		topology.Sets = []*quoratev1.RedundantSet{{
			Id: "line-a", Mode: "WARM", Servers: servers, Policies: policies,
		}}
	}
	current := g.Local().State.CurrentGeneration().GetNumber()
	g.apply(&logv1.Command{RequestId: "publish-" + time.Duration(current).String(), Body: &logv1.Command_PublishTopology{
		PublishTopology: &logv1.PublishTopology{ExpectedGeneration: current, Topology: topology},
	}})
}

// prober is a Prober whose answers the test gives.
type fakeProber struct {
	mu      sync.Mutex
	answer  map[string]func(context.Context) (Sample, error)
	witness func() error
	at      map[string][]time.Time // when each peer was sampled
	open    map[string]int
	closed  bool
}

func newFakeProber() *fakeProber {
	return &fakeProber{
		answer: map[string]func(context.Context) (Sample, error){}, witness: func() error { return nil },
		at: map[string][]time.Time{}, open: map[string]int{},
	}
}

func (p *fakeProber) Open(t Target) Probe {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.open[t.Server]++
	return &fakeProbe{p, t}
}

func (p *fakeProber) Witness(context.Context, string, string) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.witness()
}

func (p *fakeProber) Close() { p.set(func() { p.closed = true }) }

func (p *fakeProber) set(fn func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	fn()
}

func (p *fakeProber) fail(server string, err error) {
	p.set(func() { p.answer[server] = func(context.Context) (Sample, error) { return Sample{}, err } })
}

func (p *fakeProber) good(server string) { p.set(func() { delete(p.answer, server) }) }

func (p *fakeProber) samples(server string) []time.Time {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.at[server])
}

type fakeProbe struct {
	prober *fakeProber
	target Target
}

func (p *fakeProbe) Sample(ctx context.Context) (Sample, error) {
	p.prober.mu.Lock()
	answer := p.prober.answer[p.target.Server]
	p.prober.at[p.target.Server] = append(p.prober.at[p.target.Server], time.Now())
	p.prober.mu.Unlock()
	if answer == nil {
		return Sample{ServiceLevel: 100, State: ua.ServerStateRunning}, nil
	}
	return answer(ctx)
}

func (p *fakeProbe) Close() { p.prober.set(func() { p.prober.open[p.target.Server]-- }) }
