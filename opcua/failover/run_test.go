package failover

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gopcua/opcua/ua"
)

// rig is a client at a plant.
type rig struct {
	*plant
	t      *testing.T
	client *Client
	cancel context.CancelFunc
	done   chan error

	// Written by the callbacks, read while the bubble is idle.
	values []Value
	cuts   []CutOver
	lost   int
}

// inBubble runs a client that was given the URL of server a under a virtual clock.
func inBubble(t *testing.T, p *plant, change func(*Config), fn func(r *rig)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		r := &rig{plant: p, t: t, done: make(chan error, 1)}
		cfg := Config{
			URL: "opc.tcp://a", Nodes: []*ua.NodeID{ua.NewNumericNodeID(1, 1), ua.NewNumericNodeID(1, 2)},
			OnValue:   func(v Value) { r.values = append(r.values, v) },
			OnCutOver: func(c CutOver) { r.cuts = append(r.cuts, c) },
			OnLost:    func(_ Server, n int) { r.lost += n },
		}
		if change != nil {
			change(&cfg)
		}
		var err error
		if r.client, err = New(cfg); err != nil {
			t.Fatal(err)
		}
		r.client.dial = p.dial
		r.client.jitter = func(d time.Duration) time.Duration { return d }
		ctx, cancel := context.WithCancel(t.Context())
		r.cancel = cancel
		go func() { r.done <- r.client.Run(ctx) }()
		synctest.Wait()
		fn(r)
		cancel()
		synctest.Wait()
		select {
		case <-r.done:
		default:
			t.Error("Run did not end")
		}
		for url, f := range p.servers {
			if len(f.conns) > 0 {
				t.Errorf("%d connections to %s were left behind", len(f.conns), url)
			}
		}
	})
}

// active is the name of the server in use.
func (r *rig) active() string {
	for _, s := range r.client.Servers() {
		if s.Active {
			return strings.TrimPrefix(s.URI, "urn:")
		}
	}
	return ""
}

func (r *rig) wantActive(name string) {
	r.t.Helper()
	synctest.Wait()
	if got := r.active(); got != name {
		r.t.Fatalf("server %q is in use, want %q; known: %+v", got, name, r.client.Servers())
	}
}

// cut returns the last cut-over, and forgets all.
func (r *rig) cut(reason Reason, from, to string) CutOver {
	r.t.Helper()
	synctest.Wait()
	if len(r.cuts) != 1 {
		r.t.Fatalf("%d cut-overs, want one: %+v", len(r.cuts), r.cuts)
	}
	c := r.cuts[0]
	r.cuts = nil
	name := func(n string) string {
		if n == "" {
			return ""
		}
		return "urn:" + n
	}
	if c.Reason != reason || c.From.URI != name(from) || c.To.URI != name(to) {
		r.t.Fatalf("cut-over %v from %q to %q; want %v from %q to %q", c.Reason, c.From.URI, c.To.URI, reason, from, to)
	}
	return c
}

// wantModes asserts what each server has: "" is no connection.
func (r *rig) wantModes(modes map[string]string) {
	r.t.Helper()
	synctest.Wait()
	for name, want := range modes {
		if got := strings.Join(r.modes(name), ","); got != want {
			r.t.Errorf("server %s has %q, want %q", name, got, want)
		}
	}
}

// wantEach asserts that each sample of node 0 came once and in order, and returns how many are missing between the first and the last.
func (r *rig) wantEach() (missing int) {
	r.t.Helper()
	var last time.Time
	for _, v := range r.values {
		if v.Node != 0 {
			continue
		}
		at := v.Data.SourceTimestamp
		switch step := at.Sub(last); {
		case last.IsZero():
		case step <= 0:
			r.t.Errorf("the sample of %v came after that of %v", at, last)
		default:
			missing += int(step/(100*time.Millisecond)) - 1
		}
		last = at
	}
	return missing
}

func TestModes(t *testing.T) {
	const none = ""
	for _, c := range []struct {
		mode               Mode
		support            int32
		healthy, afterKill map[string]string
		lossless           bool
	}{
		{Cold, 1, map[string]string{"a": "reporting", "b": none, "c": none}, map[string]string{"a": none, "b": "reporting", "c": "-"}, false},
		{Warm, 2, map[string]string{"a": "reporting", "b": "disabled", "c": "disabled"}, map[string]string{"a": none, "b": "reporting", "c": "disabled"}, false},
		{HotA, 3, map[string]string{"a": "reporting", "b": "sampling", "c": "sampling"}, map[string]string{"a": none, "b": "reporting", "c": "sampling"}, true},
		{HotB, 0, map[string]string{"a": "reporting", "b": "reporting", "c": "reporting"}, map[string]string{"a": none, "b": "reporting", "c": "reporting"}, true},
	} {
		t.Run(c.mode.String(), func(t *testing.T) {
			inBubble(t, newPlant(c.support, 255, 100, 80), func(cfg *Config) {
				if c.mode == HotB {
					cfg.Mode = HotB // Auto never takes it.
				}
			}, func(r *rig) {
				r.run(2 * time.Second)
				r.wantActive("a")
				if start := r.cut(Started, "", "a"); start.Silence != 0 || start.Lost != 0 || start.Uncounted != 0 || start.To.Level != 255 {
					t.Errorf("start %+v", start)
				}
				r.wantModes(c.healthy)
				r.kill("a")
				r.run(3 * time.Second)
				r.wantActive("b")
				r.wantModes(c.afterKill)
				cut := r.cut(Lost, "a", "b")
				missing := r.wantEach()
				if cut.Lost != 2*missing || cut.Uncounted != 0 { // There are two nodes.
					t.Errorf("%d samples of each node are missing, and the cut-over says %d, %d uncounted", missing, cut.Lost, cut.Uncounted)
				}
				if c.lossless != (missing == 0) && c.mode != Warm && c.mode != Cold {
					t.Errorf("%d samples are missing", missing)
				}
				if cut.Duration < 0 || cut.Duration > 1500*time.Millisecond || cut.Silence < 0 || cut.Silence > 1500*time.Millisecond {
					t.Errorf("it took %v, after a silence of %v", cut.Duration, cut.Silence)
				}
				// The former one comes back: while it recovers it is left alone, then it is moved to.
				r.revive("a", 180)
				r.run(12 * time.Second)
				r.wantActive("b")
				r.setLevel("a", 255)
				r.run(time.Second)
				r.wantActive("a")
				r.wantModes(c.healthy)
				if back := r.cut(Degraded, "b", "a"); back.Lost != 0 {
					t.Errorf("moving back from a living server lost %d samples", back.Lost)
				}
				if r.lost != 0 {
					t.Errorf("%d messages lost", r.lost)
				}
			})
		})
	}
}

func TestNeverLeavesAHealthyServer(t *testing.T) {
	inBubble(t, newPlant(2, 255, 100), nil, func(r *rig) {
		r.run(time.Second)
		r.cut(Started, "", "a")
		for _, level := range []byte{230, 200, 201, 254, 200} {
			r.setLevel("a", level)
			r.setLevel("b", 255)
			r.run(5 * time.Second)
			r.wantActive("a")
		}
		r.setLevel("a", 199)
		r.run(time.Second)
		r.wantActive("b")
		r.cut(Degraded, "a", "b")
		r.setLevel("b", 2) // Both degraded now: no wandering.
		r.run(5 * time.Second)
		r.wantActive("b")
		r.setLevel("b", 1)
		r.run(time.Second)
		r.wantActive("a")
		r.cut(NoData, "b", "a")
	})
}

func TestStartsAtABackupAndFindsThePrimary(t *testing.T) {
	inBubble(t, newPlant(1, 100, 255, 80), nil, func(r *rig) {
		r.run(time.Second)
		r.wantActive("b")
		r.cut(Started, "", "b")
		r.wantModes(map[string]string{"a": "", "b": "reporting", "c": ""})
	})
}

func TestMaintenanceIsLeftUntilTheReturnTime(t *testing.T) {
	for _, c := range []struct {
		name    string
		returns time.Duration // 0: not said
		back    time.Duration
	}{
		{"said", 7 * time.Minute, 7 * time.Minute},
		{"not said", 0, MaintenanceRetry},
		{"in the past", -time.Hour, MaintenanceRetry},
		{"beyond belief", 1000 * time.Hour, MaxAbsence},
	} {
		t.Run(c.name, func(t *testing.T) {
			inBubble(t, newPlant(2, 255, 100), nil, func(r *rig) {
				r.run(time.Second)
				r.cut(Started, "", "a")
				before := r.dialled("a")
				r.do(func() {
					if c.returns != 0 {
						r.at("a").returns = time.Now().Add(c.returns)
					}
					r.at("a").level = 0
				})
				r.run(time.Second)
				r.wantActive("b")
				if cut := r.cut(Maintenance, "a", "b"); cut.Lost != 0 {
					t.Errorf("leaving a server that still works lost %d samples", cut.Lost)
				}
				r.wantModes(map[string]string{"a": "", "b": "reporting"})
				r.kill("b") // Nobody is left, and still nobody goes back early.
				time.Sleep(c.back - 2*time.Second)
				r.wantActive("")
				if n := r.dialled("a") - before; n != 0 {
					t.Errorf("%d connections before the time", n)
				}
				r.do(func() { r.at("a").level = 255 })
				time.Sleep(2 * time.Second)
				r.wantActive("a")
				r.run(time.Second)
				r.cut(Lost, "b", "a")
			})
		})
	}
}

func TestMaintenanceAtTheStart(t *testing.T) {
	inBubble(t, newPlant(2, 0, 100), nil, func(r *rig) {
		r.run(2 * time.Second)
		r.wantActive("b")
		r.cut(Started, "", "b")
		r.wantModes(map[string]string{"a": ""})
		r.do(func() { r.at("b").level = 0 })
		r.run(2 * time.Second)
		r.wantActive("")
		if _, err := r.client.Read(t.Context(), serviceLevel); !errors.Is(err, ErrNoServer) {
			t.Errorf("Read without a server: %v", err)
		}
	})
}

func TestSilentServerIsLeft(t *testing.T) {
	inBubble(t, newPlant(3, 255, 100), func(c *Config) { c.KeepAlive = 500 * time.Millisecond }, func(r *rig) {
		r.run(2 * time.Second)
		r.cut(Started, "", "a")
		r.do(func() { r.at("a").frozen = true })
		r.run(2400 * time.Millisecond)
		r.wantActive("a")
		r.run(2 * time.Second)
		r.wantActive("b")
		cut := r.cut(Lost, "a", "b")
		if cut.Lost != 0 || r.wantEach() != 0 {
			t.Errorf("HOT lost %d samples, %d are missing", cut.Lost, r.wantEach())
		}
		if cut.Silence < 2*time.Second || cut.Silence > 3*time.Second {
			t.Errorf("a silence of %v", cut.Silence)
		}
	})
}

func TestRetriesAreBounded(t *testing.T) {
	inBubble(t, newPlant(2, 255, 100), func(c *Config) { c.GiveUp = time.Hour }, func(r *rig) {
		r.run(time.Second)
		r.cut(Started, "", "a")
		r.kill("a")
		r.kill("b")
		before := r.dialled("a")
		time.Sleep(time.Hour - time.Second)
		n := r.dialled("a") - before
		if most := int(time.Hour/LastRetry) + 10; n < 100 || n > most {
			t.Errorf("%d attempts in an hour, want at most %d", n, most)
		}
		time.Sleep(2 * time.Second)
		synctest.Wait()
		select {
		case err := <-r.done:
			if !errors.Is(err, ErrNoServer) {
				t.Errorf("Run ended with %v", err)
			}
			r.done <- err
		default:
			t.Error("Run did not give up")
		}
	})
}

func TestStartGivesUp(t *testing.T) {
	p := newPlant(2, 255)
	p.at("a").refuses = true
	inBubble(t, p, nil, func(r *rig) {
		time.Sleep(time.Second)
		synctest.Wait()
		select {
		case err := <-r.done:
			if err == nil || !strings.Contains(err.Error(), "refuses") {
				t.Errorf("Run ended with %v", err)
			}
			r.done <- err
		default:
			t.Error("Run did not give up")
		}
		if n := r.dialled("a"); n != StartAttempts {
			t.Errorf("%d attempts, want %d", n, StartAttempts)
		}
	})
}

func TestSameServerComesBack(t *testing.T) {
	p := newPlant(0, 255)
	inBubble(t, p, nil, func(r *rig) {
		r.run(time.Second)
		r.cut(Started, "", "a")
		r.kill("a")
		r.run(time.Second)
		r.wantActive("")
		if s := r.client.Servers(); len(s) != 1 || s[0].State != Unreachable || s[0].Problem == "" {
			t.Errorf("servers %+v", s)
		}
		r.revive("a", 255)
		r.run(2 * time.Second)
		cut := r.cut(Lost, "a", "a")
		if missing := r.wantEach(); missing == 0 || cut.Lost != 2*missing || cut.Duration < time.Second {
			t.Errorf("%d missing of each node, said %d lost in %v", missing, cut.Lost, cut.Duration)
		}
		if values, err := r.client.Read(t.Context(), serviceLevel); err != nil || levelOf(values[0]) != 255 {
			t.Errorf("Read: %v, %v", values, err)
		}
	})
}

func TestSetChangesWhileItRuns(t *testing.T) {
	p := newPlant(2, 255, 100, 90)
	a, b, c := p.at("a"), p.at("b"), p.at("c")
	a.set, b.set = []*fake{a, b}, []*fake{b, a}
	inBubble(t, p, nil, func(r *rig) {
		r.run(time.Second)
		if n := len(r.client.Servers()); n != 2 {
			t.Errorf("%d servers", n)
		}
		r.do(func() { a.set = []*fake{a, c} })
		r.run(time.Second)
		r.wantModes(map[string]string{"a": "reporting", "b": "", "c": "disabled"})
		r.do(func() { a.support = 3 })
		r.run(time.Second)
		r.wantModes(map[string]string{"a": "reporting", "c": "sampling"})
	})
}

func TestWrongServerAtAnAddress(t *testing.T) {
	p := newPlant(2, 255, 100)
	inBubble(t, p, nil, func(r *rig) {
		r.kill("b")
		r.do(func() {
			b := *r.at("b")
			b.uri, b.refuses, b.level = "urn:stranger", false, 255
			r.servers[b.url] = &b
		})
		r.run(12 * time.Second)
		r.kill("a")
		r.run(12 * time.Second)
		r.wantActive("")
		s := r.client.Servers()
		if i := slices.IndexFunc(s, func(s Server) bool { return s.URI == "urn:b" }); i < 0 || !strings.Contains(s[i].Problem, "is urn:stranger, not urn:b") {
			t.Errorf("servers %+v", s)
		}
	})
}

func TestLostMessagesAreFetchedAgain(t *testing.T) {
	inBubble(t, newPlant(0, 255), nil, func(r *rig) {
		r.run(time.Second)
		r.do(func() { r.at("a").swallow = 5 })
		r.run(time.Second)
		if missing := r.wantEach(); missing != 0 || r.lost != 0 {
			t.Errorf("%d samples are missing, %d messages lost", missing, r.lost)
		}
		r.do(func() { r.at("a").swallow, r.at("a").forget = 5, true })
		r.run(time.Second)
		if missing := r.wantEach(); missing != 5 || r.lost != 5 {
			t.Errorf("%d samples are missing, %d messages lost; want 5", missing, r.lost)
		}
		r.do(func() { r.at("a").swallow = 2 * maxRepublish })
		r.run(time.Minute)
		if r.lost != 5+2*maxRepublish {
			t.Errorf("%d messages lost, want %d", r.lost, 5+2*maxRepublish)
		}
	})
}

func TestNodesThatCannotBeMonitored(t *testing.T) {
	inBubble(t, newPlant(2, 255, 100), func(c *Config) {
		c.Nodes = nil
		for i := range itemsPerCall + 1 {
			c.Nodes = append(c.Nodes, ua.NewNumericNodeID(1, uint32(i)))
		}
		c.Nodes[7] = ua.NewNumericNodeID(9, 1)
	}, func(r *rig) {
		r.run(time.Second)
		r.cut(Started, "", "a")
		r.kill("a")
		r.run(2 * time.Second)
		r.cut(Lost, "a", "b")
		bad := 0
		for _, v := range r.values {
			if v.Node == 7 {
				if bad++; v.Data.Status != ua.StatusBadNodeIDUnknown {
					t.Errorf("value %+v", v.Data)
				}
			}
		}
		if bad != 2 {
			t.Errorf("told %d times, want once for each server", bad)
		}
	})
}

func TestServerWithoutServiceLevel(t *testing.T) {
	p := newPlant(0, 7)
	p.at("a").noLevel = true
	inBubble(t, p, func(c *Config) { c.Nodes = nil }, func(r *rig) {
		time.Sleep(time.Second)
		r.wantActive("a")
		if c := r.cut(Started, "", "a"); c.To.Level != 255 {
			t.Errorf("level %d", c.To.Level)
		}
	})
}

func TestOnlySoManyServers(t *testing.T) {
	inBubble(t, newPlant(2, make([]byte, MaxServers+3)...), nil, func(r *rig) {
		time.Sleep(time.Second)
		synctest.Wait()
		if n := len(r.client.Servers()); n != MaxServers {
			t.Errorf("%d servers, want %d", n, MaxServers)
		}
	})
}

func TestConfigIsChecked(t *testing.T) {
	node := ua.NewNumericNodeID(0, 1)
	for field, cfg := range map[string]Config{
		"URL":                {URL: "http://127.0.0.1"},
		"Mode":               {Mode: HotB + 1},
		"Nodes":              {Nodes: slices.Repeat([]*ua.NodeID{node}, MaxNodes+1)},
		"Nodes[1]":           {Nodes: []*ua.NodeID{node, nil}},
		"QueueSize":          {QueueSize: MaxQueueSize + 1},
		"PublishingInterval": {PublishingInterval: MaxInterval + 1},
		"SamplingInterval":   {SamplingInterval: -1},
		"KeepAlive":          {KeepAlive: MaxKeepAlive + 1},
		"GiveUp":             {GiveUp: -1},
	} {
		if cfg.URL == "" {
			cfg.URL = "opc.tcp://127.0.0.1:4840"
		}
		if _, err := New(cfg); err == nil || !strings.Contains(err.Error(), "Config."+field) {
			t.Errorf("%s: %v", field, err)
		}
	}
}

func TestOneRunAtATime(t *testing.T) {
	inBubble(t, newPlant(0, 255), nil, func(r *rig) {
		if err := r.client.Run(t.Context()); err == nil || !strings.Contains(err.Error(), "already") {
			t.Error(err)
		}
	})
}

// TestStorm changes everything at random, and asserts what must always hold in the end.
func TestStorm(t *testing.T) {
	for mode := Cold; mode <= HotB; mode++ {
		t.Run(mode.String(), func(t *testing.T) {
			inBubble(t, newPlant(2, 255, 100, 80), func(c *Config) { c.Mode = mode }, func(r *rig) {
				r.run(time.Second)
				// A fixed sequence: what it finds, it finds again.
				random := uint32(1)
				next := func(n uint32) uint32 {
					random = random*1664525 + 1013904223
					return random >> 16 % n
				}
				levels := []byte{0, 1, 2, 80, 100, 190, 200, 230, 255}
				for range 300 {
					name := fmt.Sprintf("%c", 'a'+next(3))
					switch next(4) {
					case 0:
						r.kill(name)
					case 1:
						r.revive(name, levels[next(9)])
					case 2:
						r.setLevel(name, levels[next(9)])
					case 3:
						r.do(func() { r.at(name).frozen = !r.at(name).frozen })
					}
					r.run(time.Duration(next(30)) * 100 * time.Millisecond)
				}
				r.do(func() {
					for _, f := range r.servers {
						f.frozen, f.refuses, f.level = false, false, 100
					}
					r.at("c").level = 255
				})
				r.run(2 * MaintenanceRetry)
				r.wantActive("c")
				for _, name := range []string{"a", "b", "c"} {
					if n := len(r.modes(name)); n > 1 {
						t.Errorf("%d connections to %s", n, name)
					}
				}
			})
		})
	}
}

// TestCutOverIsTimedByValuesOfTheServer has a node that is refused, which the client knows at once.
func TestCutOverIsTimedByValuesOfTheServer(t *testing.T) {
	inBubble(t, newPlant(2, 255, 100), func(c *Config) {
		c.Nodes = []*ua.NodeID{ua.NewNumericNodeID(9, 1), ua.NewNumericNodeID(1, 1)}
	}, func(r *rig) {
		r.run(time.Second)
		r.cut(Started, "", "a")
		r.kill("a")
		r.do(func() { // What b has of before is not there: its first value is the next sample.
			for _, it := range r.at("b").conns[0].items {
				if it.handle >= nodeHandle {
					it.last = nil
				}
			}
		})
		time.Sleep(300 * time.Millisecond)
		r.run(time.Second)
		if c := r.cut(Lost, "a", "b"); c.Duration < 300*time.Millisecond || c.Silence < 300*time.Millisecond {
			t.Errorf("it took %v, after a silence of %v", c.Duration, c.Silence)
		}
	})
}

// TestNonsenseOfAServer has a server that answers with what no server should: it counts as unreachable, and nothing worse happens.
func TestNonsenseOfAServer(t *testing.T) {
	published := func(m *ua.NotificationMessage) *ua.PublishResponse {
		return &ua.PublishResponse{SubscriptionID: 1, NotificationMessage: m}
	}
	item := func(n *ua.MonitoredItemNotification) *ua.NotificationMessage {
		return &ua.NotificationMessage{SequenceNumber: 1, NotificationData: []*ua.ExtensionObject{
			nil, ua.NewExtensionObject(&ua.DataChangeNotification{MonitoredItems: []*ua.MonitoredItemNotification{n}}),
		}}
	}
	for name, response := range map[string]ua.Response{
		"no results":             &ua.ReadResponse{},
		"a missing result":       &ua.ReadResponse{Results: make([]*ua.DataValue, 5)},
		"another service":        &ua.CreateSubscriptionResponse{},
		"no items":               &ua.CreateMonitoredItemsResponse{},
		"missing items":          &ua.CreateMonitoredItemsResponse{Results: make([]*ua.MonitoredItemCreateResult, 3)},
		"a refused level":        &ua.CreateMonitoredItemsResponse{Results: []*ua.MonitoredItemCreateResult{{StatusCode: ua.StatusBadTooManyMonitoredItems}, {}, {}}},
		"modes refused":          &ua.SetMonitoringModeResponse{Results: []ua.StatusCode{ua.StatusBadMonitoredItemIDInvalid}},
		"no message":             published(nil),
		"another subscription":   &ua.PublishResponse{SubscriptionID: 99, NotificationMessage: &ua.NotificationMessage{SequenceNumber: 1}},
		"a missing notification": published(item(nil)),
		"no value":               published(item(&ua.MonitoredItemNotification{})),
		"a foreign handle":       published(item(&ua.MonitoredItemNotification{ClientHandle: 1 << 31, Value: &ua.DataValue{}})),
		"an end": published(&ua.NotificationMessage{SequenceNumber: 1, NotificationData: []*ua.ExtensionObject{
			ua.NewExtensionObject(&ua.StatusChangeNotification{Status: ua.StatusBadTimeout}),
		}}),
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, newPlant(2, 255, 100), nil, func(r *rig) {
				r.run(time.Second)
				r.cut(Started, "", "a")
				r.kill("a")
				r.run(time.Second)
				r.cut(Lost, "a", "b")
				r.revive("a", 255)
				r.do(func() {
					r.at("a").nonsense = func(request ua.Request) ua.Response {
						of := func(kind any) string {
							return strings.TrimSuffix(strings.TrimSuffix(fmt.Sprintf("%T", kind), "Request"), "Response")
						}
						if of(request) == of(response) || name == "another service" {
							return response
						}
						return nil
					}
				})
				before := r.dialled("a")
				r.run(time.Minute)
				if n := r.dialled("a") - before; n > 20 {
					t.Errorf("%d connections in a minute to a server that is of no use", n)
				}
				s := r.client.Servers()
				if i := slices.IndexFunc(s, func(s Server) bool { return s.URI == "urn:a" }); s[i].State != Unreachable && name != "modes refused" {
					t.Errorf("%+v", s[i])
				}
				r.do(func() { r.at("a").nonsense = nil })
				r.run(time.Minute)
				r.wantActive("a")
			})
		})
	}
}

// TestHurriedServer has a server that answers each Publish at once with nothing.
func TestHurriedServer(t *testing.T) {
	p := newPlant(0, 255)
	published := 0
	p.at("a").nonsense = func(request ua.Request) ua.Response {
		if _, ok := request.(*ua.PublishRequest); !ok {
			return nil
		}
		published++
		return &ua.PublishResponse{SubscriptionID: 1, NotificationMessage: &ua.NotificationMessage{SequenceNumber: 1}}
	}
	inBubble(t, p, nil, func(r *rig) {
		time.Sleep(time.Minute)
		synctest.Wait()
		if most := int(time.Minute/(DefaultPublishingInterval/2)) + 1; published < 100 || published > most {
			t.Errorf("%d requests in a minute, want at most %d", published, most)
		}
	})
}

func TestNonsenseOfASet(t *testing.T) {
	for name, found := range map[string]*ua.FindServersResponse{
		"nothing": {},
		"nil":     {Servers: make([]*ua.ApplicationDescription, 3)},
		"no URL":  {Servers: []*ua.ApplicationDescription{{ApplicationURI: "urn:b"}}},
		"bad URL": {Servers: []*ua.ApplicationDescription{{ApplicationURI: "urn:b", DiscoveryURLs: []string{"", "http://b", "opc.tcp://", "%"}}}},
		"foreign": {Servers: []*ua.ApplicationDescription{{ApplicationURI: "urn:x", DiscoveryURLs: []string{"opc.tcp://b"}}}},
	} {
		t.Run(name, func(t *testing.T) {
			p := newPlant(2, 255, 100)
			p.at("a").nonsense = func(request ua.Request) ua.Response {
				if _, ok := request.(*ua.FindServersRequest); ok {
					return found
				}
				return nil
			}
			inBubble(t, p, nil, func(r *rig) {
				r.run(time.Second)
				r.wantActive("a")
				if s := r.client.Servers(); len(s) != 1 || s[0].URL != "opc.tcp://a" {
					t.Errorf("servers %+v", s)
				}
			})
		})
	}
}

func TestSequenceNumbersBeginAgain(t *testing.T) {
	if after(1) != 2 || after(1<<32-1) != 1 {
		t.Error("Part 4 §7.27: the number after the last is 1")
	}
}

func TestPausesAreShortenedByUpToAHalf(t *testing.T) {
	for range 1000 {
		if d := halfAtRandom(time.Second); d < time.Second/2 || d > time.Second {
			t.Fatal(d)
		}
	}
}

func TestGivenURLIsKept(t *testing.T) {
	p := newPlant(2, 255, 100)
	p.at("a").announced = "opc.tcp://unreachable"
	inBubble(t, p, nil, func(r *rig) {
		r.run(time.Second)
		r.cut(Started, "", "a")
		r.kill("a")
		r.run(time.Second)
		r.cut(Lost, "a", "b")
		r.do(func() { r.at("b").support = 3 }) // It tells its set again, with a's other URL.
		r.run(time.Second)
		r.revive("a", 255)
		r.run(LastRetry)
		r.wantActive("a")
		if r.dialled("unreachable") != 0 {
			t.Error("the way that is known to lead there was given up")
		}
	})
}

// slowly makes a server take its time to change monitoring modes.
func slowly(f *fake, pause time.Duration) {
	f.nonsense = func(request ua.Request) ua.Response {
		if _, ok := request.(*ua.SetMonitoringModeRequest); ok {
			time.Sleep(pause)
		}
		return nil
	}
}

func TestOldServerGoesOnWhileTheNewOneGetsReady(t *testing.T) {
	inBubble(t, newPlant(2, 255, 100), nil, func(r *rig) {
		r.run(2 * time.Second)
		r.cut(Started, "", "a")
		r.do(func() { slowly(r.at("b"), 3*time.Second); r.at("a").level, r.at("b").level = 199, 255 })
		r.run(5 * time.Second)
		if c := r.cut(Degraded, "a", "b"); c.Lost != 0 || r.wantEach() != 0 || c.Duration < 3*time.Second || c.Silence > 200*time.Millisecond {
			t.Errorf("%d samples are missing; %+v", r.wantEach(), c)
		}
		r.wantModes(map[string]string{"a": "disabled", "b": "reporting"})
	})
}

func TestMaintenanceIsNotKeptWaiting(t *testing.T) {
	inBubble(t, newPlant(2, 255, 100), nil, func(r *rig) {
		r.run(time.Second)
		r.cut(Started, "", "a")
		r.do(func() { slowly(r.at("b"), 20*time.Second); r.at("a").level = 0 })
		r.run(leaveWait - time.Second)
		r.wantModes(map[string]string{"a": "reporting"})
		r.run(2 * time.Second)
		r.wantModes(map[string]string{"a": ""})
		r.run(30 * time.Second)
		r.wantActive("b")
	})
}
