package redundancy

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	logv1 "quorate/proto/quorate/log/v1"
)

var quiet = slog.New(slog.NewTextHandler(io.Discard, nil))

// start runs a manager of member m1 until the test ends.
func start(t *testing.T, g *group, p *fakeProber, change ...func(*Config)) *Manager {
	t.Helper()
	cfg := Config{Member: "m1", Group: g, Prober: p, EndpointURL: "opc.tcp://127.0.0.1:4841", Logger: quiet}
	for _, c := range change {
		c(&cfg)
	}
	m, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- m.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("Run: %v", err)
		}
		p.mu.Lock()
		defer p.mu.Unlock()
		for server, n := range p.open {
			if n != 0 {
				t.Errorf("%d probes of %s are still open", n, server)
			}
		}
		if !p.closed {
			t.Error("the prober is still open")
		}
	})
	synctest.Wait()
	return m
}

// expect checks the level once everything has come to rest.
func expect(t *testing.T, m *Manager, value byte, band Band) {
	t.Helper()
	synctest.Wait()
	if l := m.Level(); l.Value != value || l.Band != band {
		t.Errorf("level %d %s %q, want %d %s", l.Value, l.Band, l.Reasons, value, band)
	}
}

func TestForeignApplicationURIIsAnInvalidTopology(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGroup(t, "m1", "m2", "m3")
		m := start(t, g, newFakeProber(), func(c *Config) { c.ApplicationURI = "urn:of:m1" })
		declared := server("m1", Primary)
		declared.ApplicationUri = "urn:of:another"
		g.publish(declared, server("m2", Backup))
		expect(t, m, 2, InvalidTopology)
		declared = server("m1", Primary)
		declared.ApplicationUri = "urn:of:m1"
		g.publish(declared, server("m2", Backup))
		expect(t, m, 255, Authoritative)
	})
}

func TestFirstGenerationEverGoesStraightToAuthoritative(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGroup(t, "m1", "m2", "m3")
		m := start(t, g, newFakeProber())
		expect(t, m, 1, NoData) // a witness still
		g.publish(server("m1", Primary), server("m2", Backup))
		expect(t, m, 255, Authoritative)
		if l := m.Level(); l.Generation != 1 || l.Set != "line-a" || l.Role != Primary {
			t.Errorf("level of %+v", l)
		}
		if s := m.Status(); s.GetAdoptedGeneration() != 1 || s.GetServiceLevel() != 255 || len(s.GetPeers()) != 1 || !s.GetPeers()[0].GetReachable() {
			t.Errorf("status %v", s)
		}
		// A swap of roles takes effect with no restart.
		g.publish(server("m1", Backup), server("m2", Primary))
		expect(t, m, 100, Authoritative)
		if !slices.Equal(g.adopted, []uint64{1, 2}) {
			t.Errorf("adopted %v", g.adopted)
		}
	})
}

func TestReadsJudgeTheStateAsItIs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGroup(t, "m1", "m2")
		g.publish(server("m1", Primary), server("m2", Backup))
		m := start(t, g, newFakeProber())
		expect(t, m, 255, Authoritative)
		lease := &logv1.BeginLease{Server: "m1"}
		g.apply(&logv1.Command{RequestId: "b", Body: &logv1.Command_BeginLease{BeginLease: lease}})
		if l := m.Level(); l.Value != 200 { // At once: nothing has had the time to tell the manager.
			t.Errorf("level %d after the lease had begun", l.Value)
		}
		g.apply(&logv1.Command{RequestId: "e", Body: &logv1.Command_EndLease{EndLease: &logv1.EndLease{Server: "m1"}}})
		if l := m.Level(); l.Value != 255 {
			t.Errorf("level %d after the lease had ended", l.Value)
		}
	})
}

func TestMaintenance(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGroup(t, "m1", "m2")
		g.publish(server("m1", Backup), server("m2", Primary))
		m := start(t, g, newFakeProber())
		expect(t, m, 100, Authoritative)
		g.apply(&logv1.Command{RequestId: "on", Body: &logv1.Command_SetMaintenance{SetMaintenance: &logv1.SetMaintenance{Server: "m1", Active: true, Reason: "new disk"}}})
		expect(t, m, 0, Maintenance)
		if r := m.Level().Reasons; !slices.Equal(r, []string{"maintenance: new disk"}) {
			t.Errorf("reasons %q", r)
		}
		g.apply(&logv1.Command{RequestId: "off", Body: &logv1.Command_SetMaintenance{SetMaintenance: &logv1.SetMaintenance{Server: "m1"}}})
		expect(t, m, 100, Authoritative)
	})
}

func TestRestartedMemberRecoversForTheDwellAndUntilTheWitnessIsRead(t *testing.T) {
	for _, c := range []struct {
		name      string
		witnessAt time.Duration // when the witness node becomes readable
		recovered time.Duration
	}{
		{"the witness is read first", 0, time.Minute},
		{"the dwell is over first", 70 * time.Second, 70 * time.Second},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				g := newGroup(t, "m1", "m2")
				g.publish(server("m1", Primary), server("m2", Backup))
				g.apply(&logv1.Command{Body: &logv1.Command_AdoptGeneration{AdoptGeneration: &logv1.AdoptGeneration{Member: "m1", Generation: 1}}})
				p := newFakeProber()
				begun := time.Now()
				p.witness = func() error {
					if time.Since(begun) < c.witnessAt {
						return errors.New("not yet")
					}
					return nil
				}
				m := start(t, g, p)
				expect(t, m, 180, Recovering)
				time.Sleep(c.recovered - time.Since(begun) - time.Millisecond)
				expect(t, m, 180, Recovering)
				time.Sleep(m.settings.ProbeInterval + refreshInterval)
				expect(t, m, 255, Authoritative)
			})
		})
	}
}

func TestNotInitialisedUntilTheGroupWasSeen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGroup(t, "m1", "m2")
		g.publish(server("m1", Primary), server("m2", Backup))
		g.down = true
		m := start(t, g, newFakeProber())
		time.Sleep(time.Minute)
		expect(t, m, 1, NoData)
		// Meanwhile the others published what this member's old snapshot did not show, and it had adopted it.
		g.apply(&logv1.Command{Body: &logv1.Command_AdoptGeneration{AdoptGeneration: &logv1.AdoptGeneration{Member: "m1", Generation: 1}}})
		g.set(func() { g.down = false })
		time.Sleep(catchUpTimeout + retryInterval)
		expect(t, m, 180, Recovering)
	})
}

func TestAdoptionIsRetried(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGroup(t, "m1", "m2")
		m := start(t, g, newFakeProber())
		g.set(func() { g.down = true })
		g.publish(server("m1", Primary), server("m2", Backup))
		time.Sleep(10 * time.Second)
		expect(t, m, 190, Unconfirmed)
		if n := m.Status().GetAdoptedGeneration(); n != 0 {
			t.Fatalf("adopted %d without a leader", n)
		}
		g.set(func() { g.down = false })
		time.Sleep(retryInterval)
		synctest.Wait()
		if n := m.Status().GetAdoptedGeneration(); n != 1 {
			t.Errorf("adopted %d", n)
		}
	})
}

func TestGenerationsAreAdoptedByWhomTheyConcern(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGroup(t, "m1", "m2", "m3")
		m := start(t, g, newFakeProber())
		g.publish(server("m2", Primary), server("m3", Backup)) // without m1
		synctest.Wait()
		if len(g.adopted) != 0 {
			t.Errorf("a witness adopted %v", g.adopted)
		}
		g.publish(server("m1", Primary), server("m2", Backup))
		synctest.Wait()
		g.publish(server("m2", Primary), server("m3", Backup)) // m1 leaves
		synctest.Wait()
		if !slices.Equal(g.adopted, []uint64{2, 3}) {
			t.Errorf("adopted %v, want the one that took it in and the one that let it go", g.adopted)
		}
		expect(t, m, 1, NoData)
		if len(m.Peers()) != 0 {
			t.Errorf("a witness probes %v", m.Peers())
		}
	})
}

func TestDivergedServesNothingAndRecoversAfterwards(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGroup(t, "m1", "m2")
		g.publish(server("m1", Primary), server("m2", Backup))
		m := start(t, g, newFakeProber())
		g.diverged.Store(true)
		if l := m.Level(); l.Value != 1 {
			t.Errorf("level %d at the first read of a diverged member", l.Value)
		}
		time.Sleep(refreshInterval)
		expect(t, m, 1, NoData)
		g.diverged.Store(false)
		time.Sleep(refreshInterval)
		expect(t, m, 180, Recovering)
	})
}

func TestWatchdogFindsThatNothingComputesTheLevel(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGroup(t, "m1", "m2")
		g.publish(server("m1", Primary), server("m2", Backup))
		m := start(t, g, newFakeProber())
		expect(t, m, 255, Authoritative)
		told := make(chan byte, 100)
		// A subscriber that breaks the rule and blocks stops the loop, as a fault in it would.
		stuck := make(chan struct{})
		var blocked atomic.Bool
		m.Subscribe(func() {
			if blocked.CompareAndSwap(false, true) {
				<-stuck
			}
			told <- m.Level().Value
		})
		g.apply(&logv1.Command{RequestId: "b", Body: &logv1.Command_BeginLease{BeginLease: &logv1.BeginLease{Server: "m1"}}})
		time.Sleep(WatchdogLimit - time.Second)
		if l := m.Level(); l.Value != 200 {
			t.Errorf("level %d before the limit", l.Value)
		}
		time.Sleep(time.Second + watchdogInterval)
		synctest.Wait()
		if l := m.Level(); l.Value != 1 || l.Band != NoData {
			t.Errorf("level %d %s after the limit", l.Value, l.Band)
		}
		if len(told) != 1 || <-told != 1 {
			t.Error("the watchdog did not tell the subscribers")
		}
		close(stuck)
		time.Sleep(refreshInterval)
		expect(t, m, 180, Recovering)
	})
}

func TestStoppedClockServesNothingStale(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGroup(t, "m1", "m2")
		g.publish(server("m1", Primary), server("m2", Backup))
		var ahead atomic.Int64
		now := func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) }
		m := start(t, g, newFakeProber(), func(c *Config) { c.Now = now })
		expect(t, m, 255, Authoritative)
		// The process was stopped for longer than the limit: the first read after it finds an old level.
		ahead.Store(int64(WatchdogLimit + time.Second))
		if l := m.Level(); l.Value != 1 {
			t.Errorf("level %d at the first read after the process was stopped", l.Value)
		}
		time.Sleep(refreshInterval)
		expect(t, m, 180, Recovering)
	})
}

func BenchmarkLevel(b *testing.B) {
	g := newGroup(b, "m1")
	m, err := New(Config{Member: "m1", Group: g, Prober: newFakeProber()})
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		m.Level()
	}
}

func TestNewRefusesWhatIsWrongByName(t *testing.T) {
	g := newGroup(t, "m1")
	good := Config{Member: "m1", Group: g, Prober: newFakeProber()}
	if _, err := New(good); err != nil {
		t.Fatal(err)
	}
	for want, change := range map[string]func(*Config){
		"redundancy: member is empty":                                func(c *Config) { c.Member = "" },
		"redundancy: group is missing":                               func(c *Config) { c.Group = nil },
		"redundancy: prober is missing":                              func(c *Config) { c.Prober = nil },
		"redundancy.probeInterval: 1ms is not within 10ms and 1m0s":  func(c *Config) { c.Settings.ProbeInterval = time.Millisecond },
		"redundancy.probeTimeout: -1s is not within 1ms and 1m0s":    func(c *Config) { c.Settings.ProbeTimeout = -time.Second },
		"redundancy.failedSamples: -3 is not within 1 and 100":       func(c *Config) { c.Settings.FailedSamples = -3 },
		"redundancy.goodSamples: 101 is not within 1 and 100":        func(c *Config) { c.Settings.GoodSamples = 101 },
		"redundancy.recoverDwell: 2h0m0s is not within 0 and 1h0m0s": func(c *Config) { c.Settings.RecoverDwell = 2 * time.Hour },
	} {
		cfg := good
		change(&cfg)
		if _, err := New(cfg); err == nil || err.Error() != want {
			t.Errorf("%v, want %s", err, want)
		}
	}
	cfg := good
	cfg.Settings.WitnessNode = "ns=one;i=2258"
	if _, err := New(cfg); err == nil {
		t.Error("a witness node that is no NodeId is taken")
	}
}
