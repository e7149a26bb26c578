package opcua

import (
	"context"
	"errors"
	"testing"
	"time"

	gopcua "github.com/gopcua/opcua"
	"github.com/gopcua/opcua/id"
	"github.com/gopcua/opcua/ua"

	"quorate/fsm"
	quoratev1 "quorate/proto/quorate/v1"
	"quorate/redundancy"
)

// publishEvicting publishes m1 as Primary and m2 as Backup under a policy.
func (g *group) publishEvicting(mode, policy string) {
	g.t.Helper()
	g.publishSet(&quoratev1.RedundantSet{
		Id: "line-a", Mode: mode, Policies: &quoratev1.RedundancyPolicies{EvictClients: policy},
		Servers: []*quoratev1.RedundantServer{serverNamed("m1", redundancy.Primary), serverNamed("m2", redundancy.Backup)},
	})
}

func TestWhoEvictsClients(t *testing.T) {
	peer := func(reachable, known bool, level byte) redundancy.PeerView {
		return redundancy.PeerView{Server: "m1", Reachable: reachable, Known: known, Sample: redundancy.Sample{ServiceLevel: level}}
	}
	primary := redundancy.Level{Value: 255, Band: redundancy.Authoritative, Role: redundancy.Primary}
	backup := redundancy.Level{Value: 100, Band: redundancy.Authoritative, Role: redundancy.Backup}
	standIn := redundancy.Level{Value: 210, Band: redundancy.Isolated, Role: redundancy.Backup}
	maintenance := func(role string) redundancy.Level {
		return redundancy.Level{Band: redundancy.Maintenance, Role: role}
	}
	for name, x := range map[string]struct {
		mode, policy string
		level        redundancy.Level
		primary      redundancy.PeerView
		want         bool
	}{
		"off, in maintenance":                         {"WARM", "", maintenance(redundancy.Primary), peer(true, true, 100), false},
		"maintenance, in maintenance":                 {"WARM", fsm.EvictMaintenance, maintenance(redundancy.Primary), peer(true, true, 100), true},
		"maintenance, a Backup in maintenance":        {"HOT", fsm.EvictMaintenance, maintenance(redundancy.Backup), peer(true, true, 255), true},
		"maintenance, a Backup":                       {"WARM", fsm.EvictMaintenance, backup, peer(true, true, 255), false},
		"backups, the Primary":                        {"WARM", fsm.EvictBackups, primary, peer(true, true, 100), false},
		"backups, in maintenance":                     {"HOT", fsm.EvictBackups, maintenance(redundancy.Primary), peer(true, true, 100), true},
		"backups, a Backup in WARM":                   {"WARM", fsm.EvictBackups, backup, peer(true, true, 255), true},
		"backups, a Backup in COLD":                   {"COLD", fsm.EvictBackups, backup, peer(true, true, 255), true},
		"backups, a Backup in HOT":                    {"HOT", fsm.EvictBackups, backup, peer(true, true, 255), false},
		"backups, a Backup that knows no Primary yet": {"WARM", fsm.EvictBackups, backup, peer(true, false, 0), true},
		"backups, a Backup that lost its Primary":     {"WARM", fsm.EvictBackups, backup, peer(false, true, 255), false},
		"backups, a stand-in":                         {"WARM", fsm.EvictBackups, standIn, peer(true, true, 190), false},
		"backups, the Primary is in maintenance":      {"WARM", fsm.EvictBackups, backup, peer(true, true, 0), false},
		"backups, the Primary is cut off":             {"WARM", fsm.EvictBackups, backup, peer(true, true, 190), true},
	} {
		t.Run(name, func(t *testing.T) {
			g := newGroup(t, "m1", "m2")
			g.publishEvicting(x.mode, x.policy)
			f := &fitness{peers: map[string]redundancy.PeerView{"m1": x.primary}}
			e := &Endpoint{cfg: Config{Redundancy: f}}
			x.level.Set, x.level.Generation = "line-a", 1
			if why := e.evicts(g.Local().State, x.level); why != "" != x.want {
				t.Errorf("reason %q", why)
			}
			x.level.Set = ""
			if why := e.evicts(g.Local().State, x.level); why != "" {
				t.Errorf("a witness: %q", why)
			}
		})
	}
}

// TestEvictedClientsComeBack has a client lose its session in maintenance, and get none until that is over, while a peer's probe goes on.
func TestEvictedClientsComeBack(t *testing.T) {
	g := newGroup(t, "m1", "m2")
	g.publishEvicting("WARM", fsm.EvictMaintenance)
	g.adopt("m1", 1)
	f := &fitness{}
	f.move(healthyPrimary)
	e, cfg := serve(t, listen(t), "m1", g, f)
	connect := func(opts ...gopcua.Option) (*gopcua.Client, error) {
		c, err := gopcua.NewClient(cfg.Endpoint, append(opts, gopcua.AutoReconnect(false))...)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
			defer cancel()
			_ = c.Close(ctx)
		})
		return c, c.Connect(within(t))
	}
	level := ua.NewNumericNodeID(0, id.Server_ServiceLevel)
	client, err := connect()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := client.Node(level).Value(within(t)); err != nil {
		t.Fatal(err)
	}

	down := healthyPrimary
	down.Maintenance = true
	f.move(down)
	if n := e.server.Stats().Sessions; n != 0 {
		t.Errorf("%d sessions are left", n)
	}
	if _, err := client.Node(level).Value(within(t)); err == nil {
		t.Error("the client did not lose its session")
	}
	if _, err := connect(); !errors.Is(err, evicted) {
		t.Errorf("another session: %v", err)
	}
	for _, uri := range []string{uriOf("m2"), uriOf("m1")} {
		probe, err := connect(gopcua.ApplicationURI(uri))
		if err != nil {
			t.Fatalf("%s: %v", uri, err)
		}
		if v, err := probe.Node(level).Value(within(t)); err != nil || v.Value() != byte(0) {
			t.Errorf("%s reads %v, %v", uri, v, err)
		}
	}

	f.move(healthyPrimary)
	if _, err := connect(); err != nil {
		t.Errorf("after the maintenance: %v", err)
	}
	// A policy counts from its publish on, by the level that is made under it.
	f.move(down)
	g.publishEvicting("WARM", fsm.EvictOff)
	down.Generation = 2
	f.move(down)
	if _, err := connect(); err != nil {
		t.Errorf("after the policy was withdrawn: %v", err)
	}
}

// TestProbesGetInWhereClientsHaveTakenAllPlaces has clients take every connection: the probe of a peer, and a witness, are let in all the same.
func TestProbesGetInWhereClientsHaveTakenAllPlaces(t *testing.T) {
	g := newGroup(t, "m1", "m2")
	g.publishEvicting("WARM", fsm.EvictOff)
	f := &fitness{}
	f.move(healthyPrimary)
	_, cfg := serve(t, listen(t), "m1", g, f, func(c *Config) { c.ChannelLimits.MaxConnections = 8 })
	connect := func(opts ...gopcua.Option) error {
		c, err := gopcua.NewClient(cfg.Endpoint, append(opts, gopcua.AutoReconnect(false))...)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
			defer cancel()
			_ = c.Close(ctx)
		})
		return c.Connect(within(t))
	}
	for range 8 {
		if err := connect(); err != nil {
			t.Fatal(err)
		}
	}
	if err := connect(); !errors.Is(err, ua.StatusBadTooManySessions) {
		t.Errorf("one client more: %v", err)
	}
	for _, uri := range []string{uriOf("m2"), uriOf("m1"), uriOf("m2")} {
		if err := connect(gopcua.ApplicationURI(uri)); err != nil {
			t.Errorf("%s: %v", uri, err)
		}
	}
}
