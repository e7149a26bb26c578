package interop

import (
	"context"
	"io"
	"net/http"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	quoratev1 "quorate/proto/quorate/v1"
)

// TestRedundancy goes through what a plant sees (redundancy.md §8) with a third-party client that is subscribed to both servers' ServiceLevels.
func TestRedundancy(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), tableLimit)
	defer cancel()
	p := startPlant(ctx, t)
	p.publish(false, "m1", nil)
	p.are(ctx, "both are healthy", 255, 100)
	for _, step := range []struct {
		name string
		run  func(ctx context.Context, t *testing.T, p *plant)
	}{
		{"addresses and metrics", describesTheSet},
		{"in-place roll-out", rollsOutInPlace},
		{"hand-over roll-out", handsOver},
		{"swap", swaps},
		{"Backup killed", losesItsBackup},
		{"Primary killed", losesItsPrimary},
		{"Primary silent", hearsNoPrimary},
		{"stand-in", standsIn},
		{"cut off", isCutOff},
		{"swap while the Primary is unreachable", swapsUnreachable},
		{"maintenance with eviction", evicts},
	} {
		if !t.Run(step.name, func(t *testing.T) {
			p.t, p.watcher.t = t, t
			mark, began := p.mark(), time.Now()
			step.run(ctx, t, p)
			p.are(ctx, "as it was before", 255, 100)
			p.never(mark, "Healthy", healthy)
			t.Logf("%v; m1 went through %v, m2 through %v", time.Since(began).Round(time.Millisecond), p.values(mark, "m1"), p.values(mark, "m2"))
		}) {
			break // What follows stands on it.
		}
	}
	p.t, p.watcher.t = t, t
}

func describesTheSet(ctx context.Context, t *testing.T, p *plant) {
	want := []string{"urn:quorate:demo:m1", "urn:quorate:demo:m2"}
	for i, line := range runLines[struct {
		Status string
		Value  []string
	}](t, "read", map[string]any{"nodeId": "i=11314", "endpoints": []string{p.Members[0].OPCUA, p.Members[1].OPCUA}}) {
		// Self first, then peers.
		if own := []string{want[i], want[1-i]}; !slices.Equal(line.Value, own) {
			t.Errorf("ServerUriArray of m%d is %v (%s), want %v", i+1, line.Value, line.Status, own)
		}
	}
	response, err := http.Get("http://" + p.Members[0].HTTP + "/metrics")
	p.must(err)
	defer response.Body.Close()
	metrics, err := io.ReadAll(response.Body)
	p.must(err)
	for _, sample := range []string{
		`ot_opcua_service_level{cluster="demo",node="m1"} 255`, `ot_opcua_peer_reachable{cluster="demo",node="m1",peer="m2"} 1`,
		`ot_opcua_apply_in_progress{cluster="demo",node="m1"} 0`,
	} {
		if !strings.Contains(string(metrics), "\n"+sample+"\n") {
			t.Errorf("the metrics are without %s", sample)
		}
	}
}

// rollsOutInPlace forces a publish, and holds each apply for as long as it looks.
func rollsOutInPlace(ctx context.Context, _ *testing.T, p *plant) {
	mark := p.mark()
	p.hold("m1", "m2")
	p.put(true, "m1", nil)
	p.are(ctx, "the Backup applies first", 255, 50)
	p.free("m2")
	p.are(ctx, "the Primary applies last", 200, 100)
	p.free("m1")
	p.are(ctx, "the roll-out is done", 255, 100)
	p.never(mark, "mid-apply", func(server string, level int) bool { return level == map[string]int{"m1": 200, "m2": 50}[server] })
}

func handsOver(ctx context.Context, _ *testing.T, p *plant) {
	mark := p.mark()
	m1, m2 := p.hooks.Begun("m1"), p.hooks.Begun("m2")
	p.hold("m1", "m2")
	p.put(true, "m1", &quoratev1.RedundancyPolicies{Apply: "handover"})
	p.are(ctx, "the Backup applies first", 255, 50)
	p.awaitApply("m2", m2+1)
	p.free("m2")
	p.are(ctx, "the roles are swapped, and the former Primary applies", 50, 255)
	p.awaitApply("m1", m1+1)
	p.free("m1")
	p.are(ctx, "the roll-out is done", 100, 255)
	if seen := p.values(mark, "m1"); slices.Contains(seen, 200) {
		p.t.Errorf("m1 went through %v: it was touched as a Primary", seen)
	}
	p.swapped()
	p.publish(false, "m1", nil)
}

// swaps publishes the roles the other way round, and back, while both servers go on.
func swaps(ctx context.Context, t *testing.T, p *plant) {
	pids := []int{p.PID("m1"), p.PID("m2")}
	p.publish(false, "m2", nil)
	p.are(ctx, "the roles were swapped", 100, 255)
	p.publish(false, "m1", nil)
	p.are(ctx, "the roles were swapped back", 255, 100)
	if now := []int{p.PID("m1"), p.PID("m2")}; !slices.Equal(now, pids) {
		t.Errorf("the processes were %v and are %v", pids, now)
	}
}

func losesItsBackup(ctx context.Context, t *testing.T, p *plant) {
	p.kill("m2")
	p.are(ctx, "the Backup was killed", 230, -1)
	mark := p.mark()
	p.comeBack("m2")
	p.are(ctx, "the Backup is back", 255, 100)
	if seen := p.values(mark, "m2"); !slices.Contains(seen, 30) {
		t.Errorf("m2 went through %v: it was not Recovering", seen)
	}
}

// losesItsPrimary has another client of the same maker, which reads one server and goes to the next when that one is gone.
func losesItsPrimary(ctx context.Context, t *testing.T, p *plant) {
	polls := pollFrom(ctx, t, p.EndpointURL("m1"))
	polls.await(ctx, t, p.EndpointURL("m1"))
	began := time.Now()
	p.kill("m1")
	polls.await(ctx, t, p.EndpointURL("m2"))
	if took := time.Since(began); took > 2*pollingInterval {
		t.Errorf("the client was at the Backup after %v, want its polling interval of %v and a second at most", took, pollingInterval)
	}
	polls.end()
	p.are(ctx, "the Primary was killed", -1, 80)
	mark := p.mark()
	p.comeBack("m1")
	p.are(ctx, "the Primary is back", 255, 100)
	if seen := p.values(mark, "m1"); !slices.Contains(seen, 180) {
		t.Errorf("m1 went through %v: it was not Recovering", seen)
	}
}

// hearsNoPrimary stops the Primary, whose connections stay as they are: a client notices by what it doesn't hear. The budget of a consumer's session is its time-out and
// three keep-alive intervals (redundancy.md §8).
func hearsNoPrimary(ctx context.Context, t *testing.T, p *plant) {
	const sessionTimeout, keepAlive = 3 * time.Second, time.Second
	consumer := consumeFrom(ctx, t, sessionTimeout, keepAlive, p.Members[0].OPCUA, p.Members[1].OPCUA)
	consumer.await(ctx, t, p.Members[0].OPCUA)
	p.must(p.Pause(ctx, "m1"))
	began := time.Now()
	consumer.await(ctx, t, p.Members[1].OPCUA)
	took := time.Since(began)
	t.Logf("the client was at the Backup after %v", took.Round(time.Millisecond))
	if budget := sessionTimeout + 3*keepAlive; took > budget {
		t.Errorf("the client was at the Backup after %v, want its budget of %v at most", took, budget)
	}
	consumer.end()
	p.must(p.Signal("m1", syscall.SIGCONT))
}

func standsIn(ctx context.Context, t *testing.T, p *plant) {
	p.publish(false, "m1", &quoratev1.RedundancyPolicies{StandIn: 210})
	p.are(ctx, "stand-ins are allowed", 255, 100)
	p.kill("m1")
	p.are(ctx, "the Backup stands in", -1, 210)
	p.comeBack("m1")
	p.are(ctx, "the Primary is back", 255, 100)
	p.publish(false, "m1", nil)
}

// isCutOff cuts the Primary off from all but its clients.
func isCutOff(ctx context.Context, _ *testing.T, p *plant) {
	p.Isolate("m1")
	p.are(ctx, "the Primary is cut off", 190, 80)
	p.Mend()
	p.are(ctx, "the Primary is back", 255, 100)
	p.publish(false, "m1", &quoratev1.RedundancyPolicies{QuorumLoss: "hold"})
	p.are(ctx, "quorumLoss is hold", 255, 100)
	p.Isolate("m1")
	p.are(ctx, "the Primary is cut off and holds its level", 230, 80)
	p.Mend()
	p.are(ctx, "the Primary is back", 255, 100)
	p.publish(false, "m1", nil)
	p.are(ctx, "quorumLoss is degrade", 255, 100)
}

// swapsUnreachable cuts the Primary off from the group, but not from the probes, and swaps the roles.
func swapsUnreachable(ctx context.Context, t *testing.T, p *plant) {
	mark := p.mark()
	p.CutRaft("m1")
	p.put(false, "m2", nil)
	p.await(ctx, "m2 is at 255", func() bool { return slices.Contains(p.values(mark, "m2"), 255) })
	if m1 := p.level("m1"); m1 >= 200 {
		t.Errorf("m1 is still at %d", m1)
	}
	p.Mend()
	p.are(ctx, "the former Primary has heard of it", 100, 255)
	p.publish(false, "m1", nil)
}

// evicts keeps clients out of a server in maintenance, and the other server's probes not.
func evicts(ctx context.Context, t *testing.T, p *plant) {
	mark := p.mark()
	p.publish(false, "m1", &quoratev1.RedundancyPolicies{EvictClients: "maintenance"})
	p.await(ctx, "the client has been told of the roll-out", func() bool {
		return slices.Contains(p.values(mark, "m2"), 50) && slices.Contains(p.values(mark, "m1"), 200)
	})
	p.are(ctx, "clients may be evicted", 255, 100)
	mark = p.mark()
	p.maintenance("m1", true)
	p.await(ctx, "clients of m1 are told that it is halted", func() bool {
		return slices.ContainsFunc(p.since(mark, "m1"), func(s seen) bool { return strings.Contains(s.Error, "BadServerHalted") })
	})
	asked := p.Health["m1"].Asked()
	p.await(ctx, "m2 goes on", func() bool { return p.level("m2") == 100 })
	wait(ctx, t, "m2 has probed m1 five times", func() bool { return p.Health["m1"].Asked()-asked >= 5 })
	p.maintenance("m1", false)
	p.are(ctx, "the maintenance is over", 255, 100)
	if seen := p.values(mark, "m2"); len(seen) > 1 || len(seen) == 1 && seen[0] != 100 {
		t.Errorf("m2 went through %v: its probes were not let in", seen)
	}
	p.publish(false, "m1", nil)
}

// TestFlappingLinks has links that come and go: no level may follow them.
func TestFlappingLinks(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), tableLimit)
	defer cancel()
	p := startPlant(ctx, t)
	p.publish(false, "m1", nil)
	p.are(ctx, "both are healthy", 255, 100)
	probes := func(n int64) func() bool {
		m1, m2 := p.Health["m1"].Asked(), p.Health["m2"].Asked()
		return func() bool { return p.Health["m1"].Asked()-m1 >= n && p.Health["m2"].Asked()-m2 >= n }
	}
	for _, flap := range []struct {
		name string
		run  func()
	}{
		{"every second probe is answered", func() {
			for _, h := range p.Health {
				h.Fail(func(n int64) bool { return n%2 == 1 })
			}
			wait(ctx, t, "many probes were made", probes(12))
			for _, h := range p.Health {
				h.Fail(nil)
			}
		}},
		{"delays of 300 ms", func() {
			for id := range p.OPCUA {
				p.OPCUA[id].Delay(300 * time.Millisecond)
			}
			wait(ctx, t, "many probes were made", probes(8))
			for id := range p.OPCUA {
				p.OPCUA[id].Delay(0)
			}
		}},
		{"pauses of 1 s", func() {
			for _, member := range []string{"m2", "m1", "m3", "m2"} {
				p.must(p.Signal(member, syscall.SIGSTOP))
				after(ctx, t, time.Second)
				p.must(p.Signal(member, syscall.SIGCONT))
				after(ctx, t, time.Second)
			}
		}},
	} {
		t.Run(flap.name, func(t *testing.T) {
			p.t, p.watcher.t = t, t
			mark := p.mark()
			flap.run()
			p.are(ctx, "as it was before", 255, 100)
			for _, server := range []string{"m1", "m2"} {
				if seen := p.since(mark, server); len(seen) > 0 {
					t.Errorf("the level of %s changed %d times: %+v", server, len(seen), seen)
				}
			}
		})
	}
	p.t, p.watcher.t = t, t
}

// wait waits for a condition that nothing tells of.
func wait(ctx context.Context, t *testing.T, what string, holds func() bool) {
	t.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for !holds() {
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("waiting until %s: %v", what, ctx.Err())
		}
	}
}

// after lets a fault last.
func after(ctx context.Context, t *testing.T, d time.Duration) {
	t.Helper()
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
		t.Fatal(ctx.Err())
	}
}
