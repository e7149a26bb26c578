package opcua

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gopcua/opcua/ua"

	"quorate/opcua/certstore"
	quoratev1 "quorate/proto/quorate/v1"
	"quorate/redundancy"
)

// member is one member with everything real but raft: manager, prober, OPC UA endpoint and health.
type member struct {
	id       string
	listener net.Listener
	manager  *redundancy.Manager
	endpoint *Endpoint
	client   ClientConfig
	health   *httptest.Server
	sick     atomic.Bool
}

// testSettings are those of production, in milliseconds instead of seconds.
var testSettings = redundancy.Settings{ProbeInterval: 30 * time.Millisecond, ProbeTimeout: time.Second, RecoverDwell: 50 * time.Millisecond}

func newMember(t *testing.T, id string, g *group, change ...func(*Config)) *member {
	t.Helper()
	m := &member{id: id, listener: listen(t)}
	m.health = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if m.sick.Load() || r.URL.Path != "/healthz" {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
	}))
	t.Cleanup(m.health.Close)
	var err error
	m.manager, err = redundancy.New(redundancy.Config{
		Member: id, Group: g, EndpointURL: m.url(), Settings: testSettings, Logger: quiet,
		Prober: redundancy.NewProber(redundancy.ProberConfig{Certificate: certificateOf(t, uriOf(id)).give}),
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- m.manager.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("manager of %s: %v", id, err)
		}
	})
	m.endpoint, m.client = serve(t, m.listener, id, g, m.manager, change...)
	return m
}

func (m *member) url() string { return "opc.tcp://" + m.listener.Addr().String() }

func (m *member) server(role string) *quoratev1.RedundantServer {
	return serverAt(m.id, role, m.url(), m.health.URL+"/healthz")
}

// await waits until the manager of a member has a level, as its subscribers are told.
func (m *member) await(t *testing.T, value byte, band redundancy.Band) {
	t.Helper()
	told := make(chan struct{}, 1)
	defer m.manager.Subscribe(func() {
		select {
		case told <- struct{}{}:
		default:
		}
	})()
	timeout := time.After(15 * time.Second)
	for {
		l := m.manager.Level()
		if l.Value == value && l.Band == band {
			return
		}
		select {
		case <-told:
		case <-timeout:
			t.Fatalf("level of %s: %d %s %q, want %d %s; peers %v", m.id, l.Value, l.Band, l.Reasons, value, band, m.manager.Peers())
		}
	}
}

// awaitPeer waits until a member has seen a level of another.
func (m *member) awaitPeer(t *testing.T, server string, level byte) {
	t.Helper()
	m.awaitPeerThat(t, server, fmt.Sprint("level ", level), func(v redundancy.PeerView) bool { return v.ServiceLevel == level })
}

func (m *member) awaitPeerThat(t *testing.T, server, wanted string, is func(redundancy.PeerView) bool) {
	t.Helper()
	told := make(chan struct{}, 1)
	defer m.manager.Subscribe(func() {
		select {
		case told <- struct{}{}:
		default:
		}
	})()
	timeout := time.After(15 * time.Second)
	for {
		v, _ := m.manager.Peer(server)
		if v.Known && v.Reachable && is(v) {
			return
		}
		select {
		case <-told:
		case <-timeout:
			t.Fatalf("%s sees %s as %+v, want %s", m.id, server, v, wanted)
		}
	}
}

// awaitSample waits until the last sample of another is this.
func (m *member) awaitSample(t *testing.T, server string, want redundancy.Sample) {
	t.Helper()
	m.awaitPeerThat(t, server, fmt.Sprintf("%+v", want), func(v redundancy.PeerView) bool { return v.Sample == want })
}

// expectLevels takes the next values that a client sees: the last of them, and before it others of them, since a client may miss what lasts for less than
// its publishing interval.
func expectLevels(t *testing.T, when string, seen <-chan Reading, levels ...byte) {
	t.Helper()
	for {
		r := next(t, seen)
		level, _ := r.Value.(byte)
		at := slices.Index(levels, level)
		if at < 0 {
			t.Fatalf("%s: %v, want %d", when, r, levels)
		}
		if levels = levels[at+1:]; len(levels) == 0 {
			return
		}
	}
}

func TestMembersProbeEachOther(t *testing.T) {
	g := newGroup(t, "m1", "m2")
	m1, m2 := newMember(t, "m1", g), newMember(t, "m2", g)
	g.publish("WARM", m1.server(redundancy.Primary), m2.server(redundancy.Backup))
	m1.await(t, 255, redundancy.Authoritative)
	m2.await(t, 100, redundancy.Authoritative)
	m1.awaitPeer(t, "m2", 100)
	m2.awaitPeer(t, "m1", 255)
	m1.awaitSample(t, "m2", redundancy.Sample{
		ServiceLevel: 100, State: ua.ServerStateRunning, ApplicationURI: "urn:demo:m2",
		Generation: 1, Digest: g.Local().State.CurrentGeneration().GetDigest(), Role: redundancy.Backup,
	})
	expectValues(t, m1.client, []any{[]any{
		&ua.RedundantServerDataType{ServerID: "m1", ServiceLevel: 255}, &ua.RedundantServerDataType{ServerID: "m2", ServiceLevel: 100},
	}}, "RedundantServerArray")

	// A third-party client sees both sides of a swap, with no restart.
	first, second := watching(t, m1.client, "ServiceLevel"), watching(t, m2.client, "ServiceLevel")
	if a, b := next(t, first), next(t, second); a.Value != byte(255) || b.Value != byte(100) {
		t.Errorf("before the swap: %v, %v", a, b)
	}
	g.publish("WARM", m1.server(redundancy.Backup), m2.server(redundancy.Primary))
	// Each is Unconfirmed until the group has confirmed its new role.
	expectLevels(t, "m1 after the swap", first, 70, 100)
	expectLevels(t, "m2 after the swap", second, 190, 255)
	m1.awaitPeer(t, "m2", 255)

	// The Primary dies; the Backup says so, and comes back to 100 when it lives again.
	if err := m2.endpoint.Shutdown(within(t)); err != nil {
		t.Fatal(err)
	}
	m1.await(t, 80, redundancy.Isolated)
	expectLevels(t, "m1 after the Primary died", first, 80)
	again, err := net.Listen("tcp", m2.listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	serve(t, again, "m2", g, m2.manager)
	m1.await(t, 100, redundancy.Authoritative)
}

func TestHealthIsTheFastHalfOfAProbe(t *testing.T) {
	g := newGroup(t, "m1", "m2")
	m1, m2 := newMember(t, "m1", g), newMember(t, "m2", g)
	g.publish("WARM", m1.server(redundancy.Primary), m2.server(redundancy.Backup))
	m1.awaitPeer(t, "m2", 100)
	m2.sick.Store(true)
	m1.await(t, 230, redundancy.Isolated)
	if p := m1.manager.Peers()[0]; !strings.Contains(p.GetLastError(), "503") {
		t.Errorf("last error %q", p.GetLastError())
	}
	m2.sick.Store(false)
	m1.await(t, 255, redundancy.Authoritative)
}

func TestProbesEncryptWhereAPeerTakesMembersOnly(t *testing.T) {
	for name, allowNone := range map[string]bool{"no endpoint without security": false, "one that takes no anonymous users": true} {
		t.Run(name, func(t *testing.T) {
			g := newGroup(t, "m1", "m2")
			applications, err := certstore.Open(t.TempDir(), certstore.Options{})
			if err != nil {
				t.Fatal(err)
			}
			trust(t, applications, certificateOf(t, uriOf("m1")))
			var encrypted atomic.Int32
			m1, m2 := newMember(t, "m1", g), newMember(t, "m2", g, func(c *Config) {
				c.AllowNone, c.AllowAnonymous, c.Applications = allowNone, false, applications
				c.ChannelEvents.Opened = func(_ net.Addr, _ string, mode ua.MessageSecurityMode, _ bool) {
					if mode == ua.MessageSecurityModeSignAndEncrypt {
						encrypted.Add(1)
					}
				}
			})
			g.publish("WARM", m1.server(redundancy.Primary), m2.server(redundancy.Backup))
			m1.awaitPeer(t, "m2", 100)
			if encrypted.Load() == 0 {
				t.Error("no channel was encrypted")
			}
		})
	}
}

func TestRestartedMemberReadsTheWitnessThroughItsOwnEndpoint(t *testing.T) {
	g := newGroup(t, "m1", "m2")
	g.publish("WARM", serverNamed("m1", redundancy.Primary))
	g.adopt("m1", 1)
	m1 := newMember(t, "m1", g)
	m1.await(t, 255, redundancy.Authoritative) // Through Recovering: it had served before.

	// Without an endpoint, there is no way out of Recovering.
	lost := listen(t)
	url := "opc.tcp://" + lost.Addr().String()
	lost.Close()
	prober := redundancy.NewProber(redundancy.ProberConfig{})
	defer prober.Close()
	if err := prober.Witness(within(t), url, "i=2258"); err == nil {
		t.Error("the witness was read where nobody listens")
	}
	if err := prober.Witness(within(t), m1.url(), "i=2258"); err != nil {
		t.Error(err)
	}
	if err := prober.Witness(within(t), m1.url(), "i=99999"); err == nil || !strings.Contains(err.Error(), "witness node i=99999") {
		t.Errorf("a node that is not there is a witness: %v", err)
	}
}

func TestNothingLeaksWhileAPeerHangs(t *testing.T) {
	g := newGroup(t, "m1", "m2")
	hanging := listen(t) // The kernel accepts for it, and it never says a word.
	defer hanging.Close()
	m1 := newMember(t, "m1", g)
	g.publish("WARM", m1.server(redundancy.Primary), serverAt("m2", redundancy.Backup, "opc.tcp://"+hanging.Addr().String(), m1.health.URL+"/healthz"))
	m1.await(t, 230, redundancy.Isolated)
	// goleak, at the end of all tests, finds what a hanging peer keeps.
}
