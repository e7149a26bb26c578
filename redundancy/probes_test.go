package redundancy

import (
	"context"
	"errors"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gopcua/opcua/ua"

	"quorate/fsm"
	logv1 "quorate/proto/quorate/log/v1"
	quoratev1 "quorate/proto/quorate/v1"
)

var errRefused = errors.New("connection refused")

func TestPeerIsUnreachableAfterThreeFailuresAndReachableAfterOneGoodSample(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGroup(t, "m1", "m2")
		g.publish(server("m1", Primary), server("m2", Backup))
		p := newFakeProber()
		m := start(t, g, p)
		p.fail("m2", errRefused)
		time.Sleep(2*2*time.Second + 100*time.Millisecond) // after the second failure
		expect(t, m, 255, Authoritative)
		time.Sleep(2 * time.Second)
		expect(t, m, 230, Isolated)
		peer := m.Peers()[0]
		if peer.GetReachable() || peer.GetConsecutiveFailures() != 3 || peer.GetLastError() != "connection refused" ||
			peer.GetLastSeenAge().AsDuration() != 6100*time.Millisecond || peer.GetServiceLevel() != 100 {
			t.Errorf("peer %v", peer)
		}
		p.good("m2")
		time.Sleep(maxBackoff)
		expect(t, m, 255, Authoritative)
		if peer := m.Peers()[0]; !peer.GetReachable() || peer.GetConsecutiveFailures() != 0 || peer.GetLastError() != "" {
			t.Errorf("peer %v", peer)
		}
	})
}

func TestPeerThatFailsEverySecondProbeMovesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGroup(t, "m1", "m2")
		g.publish(server("m1", Backup), server("m2", Primary))
		p := newFakeProber()
		m := start(t, g, p)
		expect(t, m, 100, Authoritative)
		moves, n := 0, 0
		last := m.Level()
		defer m.Subscribe(func() {
			if l := m.Level(); !l.Equal(last) {
				moves, last = moves+1, l
			}
		})()
		p.set(func() {
			p.answer["m2"] = func(context.Context) (Sample, error) {
				if n++; n%2 == 0 {
					return Sample{}, errRefused
				}
				return Sample{ServiceLevel: 255}, nil
			}
		})
		time.Sleep(10 * time.Minute)
		synctest.Wait()
		if n < 290 {
			t.Fatalf("only %d probes in ten minutes", n)
		}
		if moves != 0 {
			t.Errorf("the level moved %d times", moves)
		}
	})
}

// The same with delays and pauses, until the session breaks now and then: what comes in late, and what does not come, is all the same.
func TestFlappingPeerCausesNoOscillation(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGroup(t, "m1", "m2")
		g.publish(server("m1", Primary), server("m2", Backup))
		p := newFakeProber()
		m := start(t, g, p)
		expect(t, m, 255, Authoritative)
		told := values(m)
		n := 0
		p.set(func() {
			p.answer["m2"] = func(ctx context.Context) (Sample, error) {
				n++
				time.Sleep(300 * time.Millisecond)
				if n%2 == 0 {
					select { // A pause of a second is what the time-out cuts off.
					case <-ctx.Done():
						return Sample{}, ctx.Err()
					case <-time.After(time.Second):
					}
				}
				return Sample{ServiceLevel: 100}, nil
			}
		})
		time.Sleep(10 * time.Minute)
		synctest.Wait()
		if n < 290 {
			t.Fatalf("only %d probes in ten minutes", n)
		}
		if got := told(); !slices.Equal(got, []byte{255}) {
			t.Errorf("the level moved %d times: %d", len(got)-1, got)
		}
		if v, _ := m.Peer("m2"); v.Failures > 1 {
			t.Errorf("%d failures in a row", v.Failures)
		}
	})
}

func TestVotersProbeThePrimariesOnWhichSomethingDepends(t *testing.T) {
	for _, c := range []struct {
		name     string
		voter    bool
		policies *quoratev1.RedundancyPolicies
		probed   bool
	}{
		{"nothing depends on it", true, nil, false},
		{"a stand-in does", true, &quoratev1.RedundancyPolicies{StandIn: 210}, true},
		{"failover does", true, &quoratev1.RedundancyPolicies{Failover: fsm.FailoverAutomatic}, true},
		{"no voter", false, &quoratev1.RedundancyPolicies{StandIn: 210}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				g := newGroup(t, "m1", "m2", "m3")
				suffrage := func(voter bool) {
					sync := &logv1.SyncMembers{}
					for _, m := range []string{"m1", "m2", "m3"} {
						sync.Members = append(sync.Members, &logv1.SyncMembers_Member{Id: m, RaftAddress: m + ":7301", Voter: m != "m1" || voter})
					}
					g.apply(&logv1.Command{Body: &logv1.Command_SyncMembers{SyncMembers: sync}})
				}
				suffrage(c.voter)
				p := newFakeProber()
				p.fail("m2", errRefused)
				m := start(t, g, p)
				g.policies = c.policies
				g.publish(server("m2", Primary), server("m3", Backup)) // m1 is in no set.
				time.Sleep(30 * time.Second)
				synctest.Wait()
				if got := len(p.samples("m2")) > 0; got != c.probed {
					t.Errorf("the Primary is probed: %v", got)
				}
				if len(p.samples("m3")) != 0 {
					t.Error("the Backup is probed")
				}
				asked := g.questions()
				if got := len(asked) > 0; got != c.probed {
					t.Fatalf("it votes: %v", got)
				}
				if c.probed {
					votes := asked[len(asked)-1].GetUnreachable()
					// It counts from the third failed sample on, at 4 s.
					if len(votes) != 1 || votes[0].GetServer() != "m2" || votes[0].GetAge().AsDuration() < 24*time.Second || votes[0].GetAge().AsDuration() > 26*time.Second {
						t.Errorf("it votes %v", votes)
					}
					p.good("m2")
					time.Sleep(maxBackoff + servingInterval)
					synctest.Wait()
					if asked = g.questions(); len(asked[len(asked)-1].GetUnreachable()) != 0 {
						t.Errorf("it still votes %v", asked[len(asked)-1])
					}
					// Without a vote it has no business there.
					suffrage(false)
					synctest.Wait()
					if p.open["m2"] != 0 {
						t.Error("a member that lost its vote probes on")
					}
				}
				if len(m.Peers()) != 0 {
					t.Errorf("what it votes on is shown as peers of its set: %v", m.Peers())
				}
				expect(t, m, 1, NoData)
			})
		})
	}
}

func TestOneOfTwoPeersMovesNoLevelButIsNamed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGroup(t, "m1", "m2", "m3", "m4")
		g.publish(server("m1", Primary), server("m2", Backup), server("m3", Backup))
		p := newFakeProber()
		p.fail("m3", errRefused)
		m := start(t, g, p)
		time.Sleep(10 * time.Second)
		expect(t, m, 255, Authoritative)
		if r := m.Level().Reasons; !slices.Equal(r, []string{"unreachable: m3"}) {
			t.Errorf("reasons %q", r)
		}
		if len(p.samples("m4")) != 0 || len(p.samples("m1")) != 0 {
			t.Error("a member probed itself or a member outside its set")
		}
	})
}

func TestSlowPeerIsGivenUpAfterTheTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGroup(t, "m1", "m2")
		p := newFakeProber()
		p.answer["m2"] = func(ctx context.Context) (Sample, error) {
			<-ctx.Done()
			return Sample{}, ctx.Err()
		}
		g.publish(server("m1", Primary), server("m2", Backup))
		m := start(t, g, p)
		time.Sleep(2*2*time.Second + time.Second + time.Millisecond) // the third probe's timeout
		expect(t, m, 230, Isolated)
		at := p.samples("m2")
		for i := 1; i < len(at); i++ {
			if d := at[i].Sub(at[i-1]); d != 2*time.Second {
				t.Errorf("probe %d began %v after the one before it: the time it took was not counted", i, d)
			}
		}
	})
}

func TestSustainedFailureBacksOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGroup(t, "m1", "m2")
		p := newFakeProber()
		p.fail("m2", errRefused)
		g.publish(server("m1", Primary), server("m2", Backup))
		start(t, g, p)
		time.Sleep(time.Hour)
		at := p.samples("m2")
		if len(at) < 3600/10 || len(at) > 3600/7 {
			t.Errorf("%d probes in an hour", len(at))
		}
		for i := 1; i < len(at); i++ {
			d := at[i].Sub(at[i-1])
			least, most := 7500*time.Millisecond, 10*time.Second
			switch i {
			case 1, 2, 3: // The third failure makes it unreachable, and the backoff begins with the interval.
				least, most = 2*time.Second, 2*time.Second
			case 4:
				least, most = 3*time.Second, 4*time.Second
			case 5:
				least, most = 6*time.Second, 8*time.Second
			}
			if d < least || d > most {
				t.Errorf("probe %d began %v after the one before it, want %v to %v", i, d, least, most)
			}
		}
	})
}

func TestDelayStaysWithinItsBounds(t *testing.T) {
	p := &probes{settings: Settings{ProbeInterval: 2 * time.Second, FailedSamples: 3}}
	for failures := range 2000 {
		for _, chance := range []float64{0, 0.5, 0.999999} {
			if d := p.delay(failures, chance); d < 2*time.Second || d > maxBackoff || failures < 3 && d != 2*time.Second {
				t.Errorf("delay after %d failures, chance %v: %v", failures, chance, d)
			}
		}
	}
	p.settings.ProbeInterval = time.Minute // Longer than the longest backoff.
	if d := p.delay(100, 0); d != time.Minute {
		t.Errorf("delay %v with an interval of a minute", d)
	}
}

func TestReloadCancelsWhatIsInFlightAndDropsItsResult(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGroup(t, "m1", "m2")
		p := newFakeProber()
		release := make(chan struct{})
		var first atomic.Bool
		var cancelled bool
		p.answer["m2"] = func(ctx context.Context) (s Sample, err error) {
			s = Sample{ServiceLevel: 100, State: ua.ServerStateRunning}
			if first.CompareAndSwap(false, true) {
				<-ctx.Done()
				cancelled = errors.Is(ctx.Err(), context.Canceled)
				<-release // A result that comes late, and claims something.
				s.ServiceLevel = 42
			}
			return s, nil
		}
		g.publish(server("m1", Primary), server("m2", Backup))
		m := start(t, g, p)
		g.publish(server("m1", Primary), server("m2", Backup))
		synctest.Wait()
		if v, _ := m.Peer("m2"); v.ServiceLevel != 100 {
			t.Errorf("the new generation's probe saw %d", v.ServiceLevel)
		}
		close(release)
		synctest.Wait()
		if !cancelled {
			t.Error("the reload did not cancel the probe in flight")
		}
		if v, _ := m.Peer("m2"); v.ServiceLevel != 100 {
			t.Errorf("the older generation's result was taken: %d", v.ServiceLevel)
		}
		if n := m.Dropped(); n != 1 {
			t.Errorf("%d results dropped, want 1", n)
		}
	})
}

func TestPublishMakesNoUnreachablePeerReachable(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGroup(t, "m1", "m2")
		p := newFakeProber()
		p.fail("m2", errRefused)
		g.publish(server("m1", Backup), server("m2", Primary))
		m := start(t, g, p)
		time.Sleep(10 * time.Second)
		expect(t, m, 80, Isolated)
		for range 20 {
			g.publish(server("m1", Backup), server("m2", Primary))
			expect(t, m, 80, Isolated)
		}
		g.publish(server("m1", Primary), server("m2", Backup))
		expect(t, m, 230, Isolated)
		synctest.Wait()
		if p.open["m2"] != 1 {
			t.Errorf("%d probes of m2 are open", p.open["m2"])
		}
	})
}

func TestPanickingProbeIsAFailedSample(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGroup(t, "m1", "m2")
		p := newFakeProber()
		p.answer["m2"] = func(context.Context) (Sample, error) { panic("index out of range") }
		g.publish(server("m1", Primary), server("m2", Backup))
		m := start(t, g, p)
		time.Sleep(5 * time.Second)
		expect(t, m, 230, Isolated)
		if e := m.Peers()[0].GetLastError(); e != "the probe panicked: index out of range" {
			t.Errorf("error %q", e)
		}
	})
}
