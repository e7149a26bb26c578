package opcua

import (
	"context"
	"crypto/rsa"
	"io"
	"log/slog"
	"net"
	"os"
	"sync"
	"testing"
	"time"

	gopcua "github.com/gopcua/opcua"
	"github.com/gopcua/opcua/id"
	"github.com/gopcua/opcua/ua"
	"go.uber.org/goleak"

	"quorate/fsm"
	"quorate/node"
	"quorate/opcua/session"
	"quorate/pki"
	logv1 "quorate/proto/quorate/log/v1"
	peerv1 "quorate/proto/quorate/peer/v1"
	quoratev1 "quorate/proto/quorate/v1"
	"quorate/redundancy"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var quiet = slog.New(slog.NewTextHandler(io.Discard, nil))

// certificates are made once for each URI: making an RSA key takes long.
var certificates sync.Map

type certificate struct {
	der []byte
	key *rsa.PrivateKey
}

func (c certificate) give() ([]byte, *rsa.PrivateKey) { return c.der, c.key }

func certificateOf(t testing.TB, uri string) certificate {
	t.Helper()
	made, _ := certificates.LoadOrStore(uri, sync.OnceValues(func() (certificate, error) {
		dir, err := os.MkdirTemp("", "quorate-opcua")
		if err != nil {
			return certificate{}, err
		}
		defer os.RemoveAll(dir)
		der, key, err := pki.EnsureApplicationCertificate(dir, uri, []string{"127.0.0.1"}, time.Now())
		return certificate{der, key}, err
	}))
	c, err := made.(func() (certificate, error))()
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// group is a Group without raft: the real state machine, fed directly.
type group struct {
	t testing.TB

	mu      sync.Mutex
	state   *fsm.State
	shown   *fsm.State // a snapshot of state; nil after it changed
	index   uint64
	passed  time.Duration // of cluster time, beyond a millisecond for each command
	changed chan struct{}
	events  []*quoratev1.Event
	dropped int // how many of events are no longer kept
}

func newGroup(t testing.TB, members ...string) *group {
	g := &group{t: t, state: fsm.New(), changed: make(chan struct{})}
	list := &logv1.SyncMembers{}
	for _, m := range members {
		list.Members = append(list.Members, &logv1.SyncMembers_Member{Id: m, RaftAddress: m + ":7301", Voter: true})
	}
	g.apply(&logv1.Command{Body: &logv1.Command_OpenTerm{OpenTerm: &logv1.OpenTerm{Term: 1, Leader: members[0]}}})
	g.apply(&logv1.Command{Body: &logv1.Command_SyncMembers{SyncMembers: list}})
	return g
}

// pass lets cluster time pass, and what is due happen.
func (g *group) pass(d time.Duration) {
	g.t.Helper()
	g.mu.Lock()
	g.passed += d
	g.mu.Unlock()
	g.apply(&logv1.Command{Body: &logv1.Command_Pulse{Pulse: &logv1.Pulse{}}})
}

// apply applies a command that must be accepted.
func (g *group) apply(c *logv1.Command) *logv1.Outcome {
	g.t.Helper()
	outcome, err := g.Propose(context.Background(), c)
	if err != nil || outcome.GetRefusal() != nil {
		g.t.Fatalf("apply %T: %v, %v", c.GetBody(), err, outcome.GetRefusal())
	}
	return outcome
}

func (g *group) Propose(_ context.Context, c *logv1.Command) (*logv1.Outcome, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	outcome, events, err := g.step(c)
	if err != nil {
		return nil, err
	}
	g.events = append(g.events, events...)
	g.wake()
	return outcome, nil
}

// step applies a command. mu is held.
func (g *group) step(c *logv1.Command) (*logv1.Outcome, []*quoratev1.Event, error) {
	g.index++
	g.shown = nil
	fsm.GatesClosed(c, true)
	outcomes, events, err := g.state.ApplyEntry(g.index, &logv1.Entry{
		Clock: g.index*uint64(time.Millisecond) + uint64(g.passed), Term: 1, LeaderApplied: g.index - 1, Commands: []*logv1.Command{c},
	})
	if err != nil {
		return nil, nil, err
	}
	return outcomes[0], events, nil
}

func (g *group) wake() {
	close(g.changed)
	g.changed = make(chan struct{})
}

// Watch gives the events from now on, whatever from is.
func (g *group) Watch(uint64) (EventStream, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	return &stream{group: g, next: len(g.events)}, nil
}

// compact applies commands whose events nobody gets who watches already, as when a member takes over a snapshot.
func (g *group) compact(commands ...*logv1.Command) {
	g.t.Helper()
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, c := range commands {
		if outcome, _, err := g.step(c); err != nil || outcome.GetRefusal() != nil {
			g.t.Errorf("apply %T: %v, %v", c.GetBody(), err, outcome.GetRefusal())
		}
	}
	g.events = append(g.events, nil) // One is skipped, so that even who had seen all is behind.
	g.dropped = len(g.events)
	g.wake()
}

// stream is an EventStream of a group.
type stream struct {
	group *group
	next  int
}

func (s *stream) Next(ctx context.Context) ([]*quoratev1.Event, uint64, error) {
	g := s.group
	for {
		g.mu.Lock()
		list, revision, dropped, changed := g.events[s.next:], g.index, g.dropped, g.changed
		g.mu.Unlock()
		if s.next < dropped {
			return nil, 0, &node.CompactedError{Revision: revision}
		}
		if s.next += len(list); len(list) > 0 {
			return list, revision, nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil, 0, ctx.Err()
		}
	}
}

func (s *stream) Close() {}

func (g *group) Local() node.View {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.shown == nil {
		g.shown = g.state.Snapshot()
	}
	return node.View{State: g.shown}
}

func (g *group) Read(context.Context, *quoratev1.ReadOptions) (node.View, error) {
	return g.Local(), nil
}

func (g *group) Changed() <-chan struct{} {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.changed
}

func (g *group) Diverged() bool { return false }

// RenewServing gives everybody the lease that he wants: whose it may be is decided elsewhere.
func (g *group) RenewServing(_ context.Context, r *peerv1.RenewServingRequest) (*peerv1.RenewServingResponse, error) {
	return &peerv1.RenewServingResponse{Generation: r.GetGeneration(), Confirmed: true, Healthy: r.GetWantsHealthy()}, nil
}

// publish publishes one set of servers, with the mode.
func (g *group) publish(mode string, servers ...*quoratev1.RedundantServer) {
	g.t.Helper()
	g.publishSet(&quoratev1.RedundantSet{Id: "line-a", Mode: mode, Servers: servers, Policies: &quoratev1.RedundancyPolicies{MaxServers: 4}})
}

func (g *group) publishSet(set *quoratev1.RedundantSet) {
	g.t.Helper()
	current := g.Local().State.CurrentGeneration().GetNumber()
	g.apply(&logv1.Command{
		RequestId: "publish-" + time.Duration(current).String(),
		Actor:     &quoratev1.Actor{Name: "ada", Role: "operator"},
		Body: &logv1.Command_PublishTopology{PublishTopology: &logv1.PublishTopology{
			ExpectedGeneration: current,
			Topology:           &quoratev1.Topology{Sets: []*quoratev1.RedundantSet{set}},
		}},
	})
}

func (g *group) adopt(member string, generation uint64) {
	g.t.Helper()
	g.apply(&logv1.Command{Body: &logv1.Command_AdoptGeneration{AdoptGeneration: &logv1.AdoptGeneration{Member: member, Generation: generation}}})
}

func uriOf(member string) string { return "urn:demo:" + member }

func serverAt(member, role, endpointURL, healthURL string) *quoratev1.RedundantServer {
	return &quoratev1.RedundantServer{
		Member: member, Role: role, ApplicationUri: uriOf(member), EndpointUrl: endpointURL, HealthUrl: healthURL,
	}
}

func serverNamed(member, role string) *quoratev1.RedundantServer {
	return serverAt(member, role, "opc.tcp://"+member+":4840", "http://"+member+":8080/healthz")
}

// fitness is a Redundancy that the test sets.
type fitness struct {
	mu    sync.Mutex
	level redundancy.Level
	peers map[string]redundancy.PeerView
	fns   map[int]func()
	next  int
}

func (f *fitness) Level() redundancy.Level {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.level
}

func (f *fitness) Peer(server string) (redundancy.PeerView, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	v, ok := f.peers[server]
	return v, ok
}

func (f *fitness) Subscribe(fn func()) (cancel func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.fns == nil {
		f.fns = map[int]func(){}
	}
	n := f.next
	f.next++
	f.fns[n] = fn
	return func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		delete(f.fns, n)
	}
}

// runOut sets the level, and nobody is told.
func (f *fitness) runOut(in redundancy.Inputs) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.level = redundancy.Evaluate(in)
}

// move sets the level and tells of it.
func (f *fitness) move(in redundancy.Inputs) {
	f.mu.Lock()
	f.level = redundancy.Evaluate(in)
	fns := make([]func(), 0, len(f.fns))
	for _, fn := range f.fns {
		fns = append(fns, fn)
	}
	f.mu.Unlock()
	for _, fn := range fns {
		fn()
	}
}

func listen(t testing.TB) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// serve runs the endpoint of a member until the test ends.
func serve(t testing.TB, l net.Listener, member string, g Group, r Redundancy, change ...func(*Config)) (e *Endpoint, client ClientConfig) {
	t.Helper()
	cfg := Config{
		Member: member, ApplicationURI: uriOf(member), Group: g, Redundancy: r, AllowNone: true, AllowAnonymous: true, Version: "1.2.3",
		Certificate: certificateOf(t, uriOf(member)).give, Logger: quiet,
	}
	for _, c := range change {
		c(&cfg)
	}
	e, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- e.Serve(l) }()
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		if err := e.Shutdown(ctx); err != nil {
			t.Errorf("shutdown: %v", err)
		}
		<-done
	})
	return e, ClientConfig{Endpoint: "opc.tcp://" + l.Addr().String(), Options: session.Options{Policy: session.None}}
}

// within gives a test's calls a deadline.
func within(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	t.Cleanup(cancel)
	return ctx
}

// connect opens a session of a third-party client, which is ready for subscriptions.
func connect(t testing.TB, endpoint string) *gopcua.Client {
	t.Helper()
	c, err := gopcua.NewClient(endpoint, gopcua.AutoReconnect(false))
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Connect(within(t)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		_ = c.Close(ctx)
	})
	// gopcua's client begins with a signal to pause its publishing, which a first subscription may overtake: then nothing is ever published. So values are
	// awaited that never change; a second subscription resumes what the first could not.
	notes := make(chan *gopcua.PublishNotificationData, 100)
	for published := false; !published; {
		sub, err := c.Subscribe(within(t), &gopcua.SubscriptionParameters{Interval: 50 * time.Millisecond}, notes)
		if err != nil {
			t.Fatal(err)
		}
		item := gopcua.NewMonitoredItemCreateRequestWithDefaults(ua.NewNumericNodeID(0, id.Server_NamespaceArray), ua.AttributeIDValue, 1)
		if _, err := sub.Monitor(within(t), ua.TimestampsToReturnNeither, item); err != nil {
			t.Fatal(err)
		}
		overtaken := time.NewTimer(time.Second)
		select {
		case <-notes:
			published = true
		case <-overtaken.C:
		}
		overtaken.Stop()
	}
	return c
}

// hear hands the notifications of one kind on until the test ends, and then ends the subscription.
func hear[N any](t testing.TB, sub *gopcua.Subscription, notes <-chan *gopcua.PublishNotificationData, take func(N)) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			select {
			case n := <-notes:
				if of, ok := n.Value.(N); ok {
					take(of)
				}
			case <-ctx.Done():
				return
			}
		}
	}()
	t.Cleanup(func() {
		closing, end := context.WithTimeout(context.Background(), 5*time.Second)
		defer end()
		_ = sub.Cancel(closing)
		cancel()
		<-done
	})
}
