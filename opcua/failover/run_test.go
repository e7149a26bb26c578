package failover

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gopcua/opcua/ua"
)

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

// active is the name of the server in use.

// cut returns the last cut-over, and forgets all.

// wantModes asserts what each server has: "" is no connection.

// wantEach asserts that each sample of node 0 came once and in order, and returns how many are missing between the first and the last.

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
				time.Sleep(c.back - 2*time.Second)
				r.wantActive("b")
				if n := r.dialled("a") - before; n != 0 {
					t.Errorf("%d connections before the time", n)
				}
				r.do(func() { r.at("a").level = 255 })
				time.Sleep(2 * time.Second)
				r.run(time.Second)
				r.cut(Degraded, "b", "a")
			})
		})
	}
}

// TestMaintenanceIsLookedAtWhereNobodyIsLeft: a server may be back before the time that it gave. Who has another one doesn't ask; who has none, or one
// without data, does, and not all the time.
func TestMaintenanceIsLookedAtWhereNobodyIsLeft(t *testing.T) {
	for name, lose := range map[string]func(r *rig){
		"lost":    func(r *rig) { r.kill("b") },
		"no data": func(r *rig) { r.setLevel("b", noData) },
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, newPlant(2, 255, 100), nil, func(r *rig) {
				r.run(time.Second)
				r.cut(Started, "", "a")
				r.do(func() { r.at("a").returns, r.at("a").level = time.Now().Add(time.Hour), maintenance })
				r.run(time.Second)
				r.cut(Maintenance, "a", "b")
				before := r.dialled("a")
				lose(r)
				time.Sleep(time.Minute)
				if n := r.dialled("a") - before; n < 5 || n > int(time.Minute/LastRetry) {
					t.Errorf("%d connections in a minute", n)
				}
				r.do(func() { r.at("a").level = 255 })
				time.Sleep(LastRetry + time.Second)
				r.wantActive("a")
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

// TestStorm changes everything at random, and asserts what must always hold in the end.

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

// TestHurriedServer has a server that answers each Publish at once with nothing.

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
