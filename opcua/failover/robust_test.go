package failover

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gopcua/opcua/ua"
)

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
