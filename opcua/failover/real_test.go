package failover_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gopcua/opcua/id"
	"github.com/gopcua/opcua/ua"

	"quorate/devgroup"
	"quorate/opcua/channel"
	"quorate/opcua/failover"
	"quorate/opcua/server"
	"quorate/opcua/space"
)

const (
	// testLimit bounds one test here.
	testLimit = time.Minute
	// endWait is for how long what a client has left may still be at a server; less than a subscription lives on without its client.
	endWait = 5 * time.Second
	// groupPort is where the ports of the group begin.
	groupPort = 19300
)

// counter is the source that all servers of the set share: it makes a value every 10 ms.
type counter struct {
	mu    sync.Mutex
	value int64
	at    time.Time
}

func (c *counter) count() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.value++
	c.at = time.Now()
}

func (c *counter) read(space.ReadContext) *ua.DataValue {
	c.mu.Lock()
	defer c.mu.Unlock()
	return &ua.DataValue{EncodingMask: ua.DataValueValue, Value: ua.MustVariant(c.value), SourceTimestamp: c.at}
}

var counterKey = space.NumericKey(1, 1)

// demo is a server of ours with the nodes of redundancy.
type demo struct {
	uri, url string
	level    atomic.Uint32
	space    *space.Space
	server   *server.Server
}

// serve starts a set of servers with that RedundancySupport.
func serve(t *testing.T, support int32, source *counter, levels ...byte) []*demo {
	t.Helper()
	var set []*demo
	var listeners []net.Listener
	for i, level := range levels {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		listeners = append(listeners, l)
		d := &demo{uri: fmt.Sprintf("urn:demo:%d", i), url: "opc.tcp://" + l.Addr().String()}
		d.level.Store(uint32(level))
		set = append(set, d)
	}
	discovery := func() (list []*ua.ApplicationDescription) {
		for _, d := range set {
			list = append(list, &ua.ApplicationDescription{ApplicationURI: d.uri, ApplicationName: &ua.LocalizedText{}, ApplicationType: ua.ApplicationTypeServer, DiscoveryURLs: []string{d.url}})
		}
		return list
	}
	var uris []string
	for _, d := range set {
		uris = append(uris, d.uri)
	}
	for i, d := range set {
		table := space.NewTable()
		if err := table.Edit(func(e *space.Edit) error {
			put := func(k space.Key, v space.ValueFunc) {
				e.Put(&space.Node{Key: k, Class: ua.NodeClassVariable, BrowseName: ua.QualifiedName{Name: k.String()}, DisplayName: space.Text(k.String()), DataType: space.NumericKey(0, 24), TypeDefinition: space.NumericKey(0, 63),
					ValueRank: space.RankAny, AccessLevel: space.AccessCurrentRead, Value: v})
			}
			constant := func(node uint32, v any) {
				value, err := space.Constant(v)
				if err != nil {
					t.Fatal(err)
				}
				put(space.NumericKey(0, node), value)
			}
			put(space.NumericKey(0, id.Server_ServiceLevel), func(space.ReadContext) *ua.DataValue {
				return &ua.DataValue{EncodingMask: ua.DataValueValue, Value: ua.MustVariant(byte(d.level.Load()))}
			})
			constant(id.Server_ServerArray, []string{d.uri})
			constant(id.Server_ServerRedundancy_RedundancySupport, support)
			constant(id.Server_ServerRedundancy_ServerURIArray, uris)
			put(counterKey, source.read)
			return nil
		}); err != nil {
			t.Fatal(err)
		}
		var err error
		if d.space, err = space.New([]string{space.NamespaceUA, d.uri}, table); err != nil {
			t.Fatal(err)
		}
		d.server, err = server.New(server.Config{
			ApplicationURI: d.uri, Space: d.space, Discovery: discovery,
			Offers: []channel.SecurityOffer{{PolicyURI: ua.SecurityPolicyURINone, Mode: ua.MessageSecurityModeNone}},
		})
		if err != nil {
			t.Fatal(err)
		}
		served := make(chan error, 1)
		go func() { served <- d.server.Serve(listeners[i]) }()
		t.Cleanup(func() {
			d.stop(t)
			if err := <-served; err != nil {
				t.Error(err)
			}
		})
	}
	return set
}

func (d *demo) stop(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if err := d.server.Shutdown(ctx); err != nil {
		t.Error(err)
	}
}

// holds waits until a server has that many monitored items. A link that has ended closes its session by itself; one that did not would be there for
// longer than endWait, until its subscription's lifetime is over.
func (d *demo) holds(t *testing.T, want int) {
	t.Helper()
	look := time.NewTicker(time.Millisecond)
	defer look.Stop()
	limit := time.After(endWait)
	for d.server.Stats().MonitoredItems != want {
		select {
		case <-look.C:
		case <-limit:
			t.Errorf("the standby has %d items, want %d", d.server.Stats().MonitoredItems, want)
			return
		}
	}
}

func (d *demo) setLevel(level byte) {
	d.level.Store(uint32(level))
	d.space.Changed(space.NumericKey(0, id.Server_ServiceLevel))
}

// running is a client at work.
type running struct {
	t      *testing.T
	ctx    context.Context
	client *failover.Client
	cuts   chan failover.CutOver
	values chan failover.Value
}

func start(t *testing.T, cfg failover.Config) *running {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), testLimit)
	r := &running{t: t, ctx: ctx, cuts: make(chan failover.CutOver, 10), values: make(chan failover.Value, 1)}
	cfg.OnCutOver = func(c failover.CutOver) { r.cuts <- c }
	cfg.OnServers = func(known []failover.Server) {
		for _, s := range known {
			t.Logf("%s: level %d, state %v, active %v, %s", s.URI, s.Level, s.State, s.Active, s.Problem)
		}
	}
	cfg.OnValue = func(v failover.Value) {
		select { // Only the last counts.
		case <-r.values:
		default:
		}
		r.values <- v
	}
	var err error
	if r.client, err = failover.New(cfg); err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- r.client.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("Run ended with %v", err)
		}
	})
	return r
}

// cut waits until the client has moved to a server, for that reason. On a machine that is so busy that it does not answer within ChooseWait the client
// takes another one meanwhile, and moves on when it does.
func (r *running) cut(reason failover.Reason, to string) failover.CutOver {
	r.t.Helper()
	for leg := 1; ; leg++ {
		select {
		case c := <-r.cuts:
			r.t.Logf("%v: from %s to %s in %v, silence %v, lost %d, uncounted %d", c.Reason, c.From.URI, c.To.URI, c.Duration, c.Silence, c.Lost, c.Uncounted)
			if leg == 1 && c.Reason != reason {
				r.t.Fatalf("cut-over %v to %s, want %v to %s", c.Reason, c.To.URI, reason, to)
			}
			if c.To.URI == to {
				return c
			}
			if c.Duration < failover.ChooseWait {
				r.t.Fatalf("cut-over to %s after %v, want %s", c.To.URI, c.Duration, to)
			}
		case <-r.ctx.Done():
			r.t.Fatalf("no cut-over to %s; known: %+v", to, r.client.Servers())
		}
	}
}

// value waits for a value from a server.
func (r *running) valueFrom(url string) {
	r.t.Helper()
	for {
		select {
		case v := <-r.values:
			if v.Server == url {
				return
			}
		case <-r.ctx.Done():
			r.t.Fatalf("no value from %s", url)
		}
	}
}

func TestRealServers(t *testing.T) {
	for _, mode := range []failover.Mode{failover.Cold, failover.Warm, failover.HotA, failover.HotB} {
		t.Run(mode.String(), func(t *testing.T) {
			source := &counter{}
			source.count()
			set := serve(t, int32(mode), source, 100, 255, 1) // The last is left again as soon as another one answers.
			tick := time.NewTicker(10 * time.Millisecond)
			ended := make(chan struct{})
			var counting sync.WaitGroup
			counting.Go(func() {
				for {
					select {
					case <-tick.C:
						source.count()
						for _, d := range set {
							d.space.Changed(counterKey)
						}
					case <-ended:
						return
					}
				}
			})
			t.Cleanup(func() { tick.Stop(); close(ended); counting.Wait() })
			r := start(t, failover.Config{URL: set[0].url, Mode: mode, Nodes: []*ua.NodeID{ua.NewNumericNodeID(1, 1)}, PublishingInterval: 50 * time.Millisecond})
			r.cut(failover.Started, set[1].uri)
			r.valueFrom(set[1].url)
			// Reads go on meanwhile; some fail, none hangs.
			var reads atomic.Int64
			counting.Go(func() {
				// Where no server is in use a read fails at once: without a pause this would keep the links from getting one.
				pause := time.NewTicker(time.Millisecond)
				defer pause.Stop()
				for {
					select {
					case <-ended:
						return
					case <-pause.C:
					}
					if _, err := r.client.Read(r.ctx, ua.NewNumericNodeID(1, 1)); err == nil {
						reads.Add(1)
					}
				}
			})
			// Its level drops: no data.
			set[1].setLevel(1)
			r.cut(failover.NoData, set[0].uri)
			r.valueFrom(set[0].url)
			// And is Healthy again.
			set[1].setLevel(255)
			r.cut(failover.Degraded, set[1].uri)
			r.valueFrom(set[1].url)
			// It is gone.
			set[1].stop(t)
			c := r.cut(failover.Lost, set[0].uri)
			r.valueFrom(set[0].url)
			if c.Duration > 5*time.Second {
				t.Errorf("it took %v", c.Duration)
			}
			if reads.Load() == 0 {
				t.Error("no read succeeded")
			}
			if values, err := r.client.Read(r.ctx, ua.NewNumericNodeID(1, 1)); err != nil || values[0].Status != ua.StatusOK {
				t.Errorf("Read: %v, %v", values, err)
			}
			// A server that is stopped or not in use has nothing of ours, and the others what the mode says.
			want := map[failover.Mode]int{failover.Cold: 0, failover.Warm: 1, failover.HotA: 1, failover.HotB: 1}[mode]
			const watched = 3
			set[2].holds(t, watched+want)
		})
	}
}

func TestPrimaryOfARealGroupIsKilled(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), testLimit)
	defer cancel()
	dir := t.TempDir()
	binary, err := devgroup.Build(ctx, dir)
	if err != nil {
		t.Fatal(err)
	}
	g, err := devgroup.Start(ctx, devgroup.Options{
		Binary: binary, Data: filepath.Join(dir, "group"), BasePort: groupPort, Set: []string{"redundancy.recoverDwell=1s"},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := g.Stop(); err != nil {
			t.Error(err)
		}
	})
	backup, err := g.Member("m2")
	if err != nil {
		t.Fatal(err)
	}
	r := start(t, failover.Config{URL: backup.OPCUA, Nodes: []*ua.NodeID{ua.NewNumericNodeID(0, id.Server_ServerStatus_CurrentTime)}})
	r.cut(failover.Started, "urn:quorate:demo:m1")
	primary := r.client.Servers()
	if len(primary) != 2 {
		t.Errorf("the set is %+v", primary)
	}
	if err := g.Kill(ctx, "m1"); err != nil {
		t.Fatal(err)
	}
	c := r.cut(failover.Lost, "urn:quorate:demo:m2")
	r.valueFrom(backup.OPCUA)
	if c.From.Level != 0 && c.From.Level != 255 || c.Duration > 5*time.Second {
		t.Errorf("%+v", c)
	}
	if err := g.Restart("m1"); err != nil {
		t.Fatal(err)
	}
	back := r.cut(failover.Degraded, "urn:quorate:demo:m1")
	if back.From.URI != "urn:quorate:demo:m2" || back.To.Level < 200 {
		t.Errorf("%+v", back)
	}
}
