package server

import (
	"context"
	"crypto/rsa"
	"log/slog"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gopcua/opcua/ua"

	"quorate/opcua/channel"
	"quorate/opcua/space"
)

// fakeChannel stands in for a connection. It keeps what was sent to the client.
type fakeChannel struct {
	policy    string
	mode      ua.MessageSecurityMode
	client    []byte // the client's certificate
	chain     []byte
	key       *rsa.PrivateKey
	addr      string // of the client; empty is a default
	discovery bool
	inUse     atomic.Bool
	crowded   bool

	mu       sync.Mutex
	gone     bool
	sent     []sent
	attached any
	reason   ua.StatusCode // of Close
}

type sent struct {
	at   time.Time
	id   uint32
	resp ua.Response
}

func (c *fakeChannel) Crowded() bool { return c.crowded && !c.inUse.Load() }

func (c *fakeChannel) SecurityPolicyURI() string {
	if c.policy == "" {
		return ua.SecurityPolicyURINone
	}
	return c.policy
}

func (c *fakeChannel) SecurityMode() ua.MessageSecurityMode {
	if c.mode == 0 {
		return ua.MessageSecurityModeNone
	}
	return c.mode
}
func (c *fakeChannel) Attach(v any) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.attached = v
}

func (c *fakeChannel) Attached() any {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.attached
}
func (c *fakeChannel) Yield()                    {}
func (c *fakeChannel) DiscoveryOnly() bool       { return c.discovery }
func (c *fakeChannel) ClientCertificate() []byte { return c.client }
func (c *fakeChannel) ServerCertificate() ([]byte, *rsa.PrivateKey) {
	return c.chain, c.key
}

func (c *fakeChannel) RemoteAddr() net.Addr {
	if c.addr == "" {
		return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 50000}
	}
	return &net.TCPAddr{IP: net.ParseIP(c.addr), Port: 50000}
}
func (c *fakeChannel) LocalAddr() net.Addr {
	return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 4840}
}
func (c *fakeChannel) EndpointURL() string { return "opc.tcp://from-hello:4840" }
func (c *fakeChannel) SetInUse(b bool)     { c.inUse.Store(b) }

func (c *fakeChannel) Send(id uint32, resp ua.Response) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.gone {
		return channel.ErrClosed
	}
	c.sent = append(c.sent, sent{time.Now(), id, resp})
	return nil
}

func (c *fakeChannel) Close(reason ua.StatusCode) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.gone, c.reason = true, reason
}

// take returns what was sent since the last call.
func (c *fakeChannel) take() []sent {
	c.mu.Lock()
	defer c.mu.Unlock()
	list := c.sent
	c.sent = nil
	return list
}

// rig is the services under a virtual clock, with one activated session.
type rig struct {
	t    testing.TB
	demo *demo
	v    *services
	ch   *fakeChannel
	auth *ua.NodeID
	id   uint32 // of the last request
}

// inBubble runs fn in a bubble of testing/synctest, in which waiting moves the clock.
func inBubble(t *testing.T, limits Limits, fn func(t *testing.T, r *rig)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, limits)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() {
			defer close(done)
			r.v.engine.schedule.run(ctx)
		}()
		defer func() {
			r.v.shutdown()
			cancel()
			<-done
			if e := r.v.engine; e.subscriptions.Load() != 0 || e.items.Load() != 0 || e.queued.Load() != 0 || e.links.Load() != 0 || e.eventItems.Load() != 0 || len(e.listeners.items) != 0 || len(e.hub.watches) != 0 || len(e.registry.subs) != 0 {
				t.Errorf("left behind: %d subscriptions, %d items, %d queue places, %d links, %d listeners, %d watches, %d in the registry",
					e.subscriptions.Load(), e.items.Load(), e.queued.Load(), e.links.Load(), len(e.listeners.items), len(e.hub.watches), len(e.registry.subs))
			}
		}()
		r.auth = r.connect(r.ch)
		fn(t, r)
	})
}

func newRig(t testing.TB, limits Limits) *rig {
	t.Helper()
	d := newDemo(t)
	limits, err := limits.withDefaults()
	if err != nil {
		t.Fatal(err)
	}
	v := newServices(Config{
		ApplicationURI: demoURI,
		Space:          d.space,
		Offers:         []channel.SecurityOffer{{PolicyURI: ua.SecurityPolicyURINone, Mode: ua.MessageSecurityModeNone}},
		UserTokens:     []*ua.UserTokenPolicy{{PolicyID: "anonymous", TokenType: ua.UserTokenTypeAnonymous}},
		Methods:        map[space.Key]Method{doubleKey: double},
		Logger:         slog.New(slog.DiscardHandler),
		Now:            time.Now,
	}, limits)
	return &rig{t: t, demo: d, v: v, ch: &fakeChannel{}}
}

// connect makes and activates a session, and returns its authentication token.
func (r *rig) connect(ch *fakeChannel) *ua.NodeID {
	r.t.Helper()
	auth := r.create(ch)
	want[*ua.ActivateSessionResponse](r.t, r.ask(ch, auth, &ua.ActivateSessionRequest{}))
	return auth
}

// become makes the rig's session one of that user.
func (r *rig) become(name string) {
	r.v.sessions.find(r.auth).bound.Store(&binding{ch: r.ch, identity: Identity{Name: name}})
}

func (r *rig) create(ch *fakeChannel) *ua.NodeID {
	r.t.Helper()
	resp := r.ask(ch, nil, &ua.CreateSessionRequest{RequestedSessionTimeout: 3_600_000})
	return want[*ua.CreateSessionResponse](r.t, resp).AuthenticationToken
}

// ask sends a request that is answered at once, and leaves alone what else was sent.
func (r *rig) ask(ch *fakeChannel, auth *ua.NodeID, req ua.Request) ua.Response {
	r.t.Helper()
	id := r.post(ch, auth, req)
	ch.mu.Lock()
	defer ch.mu.Unlock()
	i := slices.IndexFunc(ch.sent, func(m sent) bool { return m.id == id })
	if i < 0 {
		r.t.Fatalf("%T: no answer", req)
	}
	resp := ch.sent[i].resp
	ch.sent = slices.Delete(ch.sent, i, i+1)
	return resp
}

// post sends a request that may be answered later, and returns its id.
func (r *rig) post(ch *fakeChannel, auth *ua.NodeID, req ua.Request) uint32 {
	r.id++
	if req.Header() == nil {
		req.SetHeader(&ua.RequestHeader{})
	}
	req.Header().AuthenticationToken = auth
	req.Header().RequestHandle = r.id
	r.v.serve(ch, r.id, req)
	return r.id
}

func (r *rig) call(req ua.Request) ua.Response {
	r.t.Helper()
	return r.ask(r.ch, r.auth, req)
}

func (r *rig) publish(acks ...*ua.SubscriptionAcknowledgement) uint32 {
	return r.post(r.ch, r.auth, &ua.PublishRequest{SubscriptionAcknowledgements: acks})
}

// subscribe makes a subscription that publishes every 100 ms.
func (r *rig) subscribe(change ...func(*ua.CreateSubscriptionRequest)) *ua.CreateSubscriptionResponse {
	r.t.Helper()
	req := &ua.CreateSubscriptionRequest{RequestedPublishingInterval: 100, RequestedMaxKeepAliveCount: 10, RequestedLifetimeCount: 30, PublishingEnabled: true}
	for _, fn := range change {
		fn(req)
	}
	return want[*ua.CreateSubscriptionResponse](r.t, r.call(req))
}

// monitor makes an item with a queue of that size.
func (r *rig) monitor(sub uint32, node *ua.NodeID, queue uint32, change ...func(*ua.MonitoredItemCreateRequest)) *ua.MonitoredItemCreateResult {
	r.t.Helper()
	item := &ua.MonitoredItemCreateRequest{
		ItemToMonitor:       &ua.ReadValueID{NodeID: node, AttributeID: ua.AttributeIDValue},
		MonitoringMode:      ua.MonitoringModeReporting,
		RequestedParameters: &ua.MonitoringParameters{ClientHandle: 7, QueueSize: queue, DiscardOldest: true},
	}
	for _, fn := range change {
		fn(item)
	}
	resp := r.call(&ua.CreateMonitoredItemsRequest{SubscriptionID: sub, TimestampsToReturn: ua.TimestampsToReturnBoth, ItemsToCreate: []*ua.MonitoredItemCreateRequest{item}})
	return want[*ua.CreateMonitoredItemsResponse](r.t, resp).Results[0]
}

// after lets time pass, and returns what was sent meanwhile.
func (r *rig) after(d time.Duration) []sent {
	<-time.After(d) // Virtual: nothing real is waited for.
	synctest.Wait()
	return r.ch.take()
}

// want asserts the type of a response, and that it is Good.
func want[T ua.Response](t testing.TB, resp ua.Response) T {
	t.Helper()
	got, ok := resp.(T)
	if !ok {
		t.Fatalf("got %T with %v, want %T", resp, resp.Header().ServiceResult, got)
	}
	if s := got.Header().ServiceResult; s != ua.StatusOK {
		t.Fatalf("%T: %v", got, s)
	}
	return got
}

// wantFault asserts that a response is a ServiceFault with that status.
func wantFault(t testing.TB, resp ua.Response, status ua.StatusCode) {
	t.Helper()
	f, ok := resp.(*ua.ServiceFault)
	if !ok {
		t.Fatalf("got %T, want a ServiceFault with %v", resp, status)
	}
	if f.ResponseHeader.ServiceResult != status {
		t.Fatalf("got %v, want %v", f.ResponseHeader.ServiceResult, status)
	}
}

// values returns the values of a Publish response.
func values(t testing.TB, resp ua.Response) []*ua.MonitoredItemNotification {
	t.Helper()
	p := want[*ua.PublishResponse](t, resp)
	if len(p.NotificationMessage.NotificationData) == 0 {
		return nil
	}
	return p.NotificationMessage.NotificationData[0].Value.(*ua.DataChangeNotification).MonitoredItems
}

func ints(t testing.TB, resp ua.Response) []int64 {
	t.Helper()
	var list []int64
	for _, n := range values(t, resp) {
		list = append(list, n.Value.Value.Int())
	}
	return list
}
