package sim

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"quorate/node"
	logv1 "quorate/proto/quorate/log/v1"
	quoratev1 "quorate/proto/quorate/v1"
	"quorate/redundancy"
)

// runServing runs one seed. What happened is shown if something was wrong.
func runServing(t *testing.T, seed uint64, mutant Mutant, length time.Duration) *ServingResult {
	t.Helper()
	var result *ServingResult
	synctest.Test(t, func(t *testing.T) {
		var trace []string
		began := time.Now()
		s := ServingScenario{Seed: seed, For: length, Calm: 6 * time.Second, Think: 3 * time.Second, Mutant: mutant}
		if seed%3 == 0 {
			// Time enough for stand-ins and automatic failover.
			s.For, s.Calm, s.Think = 2*length, 20*time.Second, 40*time.Second
		}
		s.Trace = func(format string, args ...any) {
			if *loud {
				trace = append(trace, fmt.Sprintf("%s %s", time.Now().Format("15:04:05.000000"), fmt.Sprintf(format, args...)))
			}
		}
		var err error
		if result, err = RunServing(s); err != nil {
			t.Fatal(err)
		}
		if len(result.Problems) > 0 && mutant == NoMutant {
			t.Logf("seed %d, %v of virtual time", seed, time.Since(began))
			for _, line := range trace {
				t.Log(line)
			}
		}
	})
	return result
}

// TestNoTwoHealthy is the promise of redundancy.md §2: no two servers of a set ever advertise a Healthy level at the same instant. Many seeds of
// publishes and faults, with an observer outside of the group.
func TestNoTwoHealthy(t *testing.T) {
	standIns, swapped := 0, 0
	for i := range *seeds {
		seed := *first + uint64(i)
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			r := runServing(t, seed, NoMutant, 45*time.Second)
			for _, p := range r.Problems {
				t.Error(p)
			}
			if r.Publishes < 1 || r.Faults < 2 || r.Changes < 10 {
				t.Errorf("the scenario did too little to mean anything: %+v", r)
			}
			t.Logf("%d publishes, generation %d, %d faults, %d changes of level, %d looks", r.Publishes, r.Generations, r.Faults, r.Changes, r.Looks)
			standIns, swapped = standIns+r.StandIns, swapped+r.Swapped
		})
	}
	t.Logf("%d stand-ins, %d automatic failovers", standIns, swapped)
}

// TestServingMutantsAreCaught breaks rules of the serving leases: the observer has to notice within a few seeds.
func TestServingMutantsAreCaught(t *testing.T) {
	const tries = 30
	for name, mutant := range map[string]Mutant{"granted before the release": GrantBeforeRelease, "no wait of a new leader": NoWaitOfNewLeader} {
		t.Run(name, func(t *testing.T) {
			for seed := range uint64(tries) {
				r := runServing(t, 1000+seed, mutant, 2*time.Minute)
				if i := slices.IndexFunc(r.Problems, isBothHealthy); i >= 0 {
					t.Logf("caught with seed %d: %s", 1000+seed, r.Problems[i])
					return
				}
			}
			t.Errorf("not caught in %d seeds", tries)
		})
	}
}

func isBothHealthy(problem string) bool { return strings.HasSuffix(problem, bothHealthy) }

// expectCaught compares what the observer saw with what it must have seen.
func expectCaught(t *testing.T, mutant Mutant, caught bool) {
	t.Helper()
	if caught != (mutant != NoMutant) {
		t.Errorf("mutant %d, two Healthy servers seen: %t", mutant, caught)
	}
}

// TestLeaseIsCountedFromBeforeAsking lets the answers to the Primary take a quarter of a second, and then cuts it off while another takes its role.
func TestLeaseIsCountedFromBeforeAsking(t *testing.T) {
	for _, mutant := range []Mutant{NoMutant, CountFromAnswer} {
		synctest.Test(t, func(t *testing.T) {
			f := startFleet(t, 5, mutant)
			f.publish("m1", nil)
			f.levels(10*time.Second, 255, 100)
			if _, err := f.Node("m1").TransferLeadership(t.Context(), "m5"); err != nil {
				t.Fatal(err)
			}
			f.Network.Slow("m5", "m1", 250*time.Millisecond, 0)
			time.Sleep(4 * time.Second)
			f.cutOff("m1")
			f.publish("m2", nil)
			f.handedTo("m2")
			expectCaught(t, mutant, slices.ContainsFunc(f.observer.Problems(), isBothHealthy))
		})
	}
}

// TestDeposedLeaderGrantsNothing lets a leader that is the Primary go on believing in itself while the others elect another one, as in
// TestReadsOfADeposedLeader, and swap the roles. The mutant asks nobody before it grants.
func TestDeposedLeaderGrantsNothing(t *testing.T) {
	for _, mutant := range []Mutant{NoMutant, Unconfirmed} {
		caught, deposed := false, 0
		for phase := time.Duration(0); phase < time.Second; phase += 50 * time.Millisecond {
			synctest.Test(t, func(t *testing.T) {
				f := startFleet(t, 3, mutant)
				f.publish("m1", nil)
				f.levels(10*time.Second, 255, 100)
				if _, err := f.Node("m1").TransferLeadership(t.Context(), "m1"); err != nil && !f.Node("m1").IsLeader() {
					t.Fatal(err)
				}
				for delay := 20 * time.Millisecond; delay < time.Second; delay += 20 * time.Millisecond {
					for _, id := range f.IDs() {
						f.Network.Slow(id, "m1", delay, 0)
					}
					time.Sleep(100 * time.Millisecond)
				}
				time.Sleep(phase)
				for _, id := range f.IDs() {
					f.Network.Cut("m1", id)
				}
				if !Until(2*time.Second, func() bool { return f.Node("m2").IsLeader() || f.Node("m3").IsLeader() }) {
					t.Fatal("no other leader")
				}
				if f.Node("m1").IsLeader() {
					deposed++
				}
				f.cutOff("m1")
				f.publishBy("m2", "m2", nil)
				f.handedTo("m2")
				caught = caught || slices.ContainsFunc(f.observer.Problems(), isBothHealthy)
			})
		}
		if deposed == 0 {
			t.Error("no leader went on believing in itself: the scenario proves nothing")
		}
		expectCaught(t, mutant, caught)
	}
}

// fleet is a calm World with servers, for scenarios without chance.
type fleet struct {
	*World
	servers  *Servers
	observer *Observer
	t        *testing.T
}

func startFleet(t *testing.T, size int, mutant Mutant) *fleet {
	t.Helper()
	w := NewWorld(size, node.LAN, node.Limits{})
	w.Logger = logger()
	for _, id := range w.IDs() {
		if err := w.Start(id, NewClock(0, 1, 0)); err != nil {
			t.Fatal(err)
		}
	}
	if !w.Ready(10 * time.Second) {
		t.Fatal("not ready")
	}
	servers, err := NewServers(w, mutant, func(string, redundancy.Level, redundancy.Level) {})
	if err != nil {
		t.Fatal(err)
	}
	f := &fleet{World: w, servers: servers, observer: servers.observer, t: t}
	done := make(chan struct{})
	go func() {
		defer close(done)
		f.observer.run(t.Context())
	}()
	t.Cleanup(func() {
		<-done
		servers.Close()
		if err := w.Close(); err != nil {
			t.Error(err)
		}
		for _, p := range f.observer.Problems() {
			if mutant == NoMutant {
				t.Error(p)
			}
		}
	})
	w.Network.TrustOwnTerm.Store(mutant == Unconfirmed)
	for _, a := range w.IDs() {
		for _, b := range w.IDs() {
			w.Network.Slow(a, b, time.Millisecond, time.Millisecond)
		}
	}
	return f
}

// publish gives m1 and m2 their roles, with these policies.
func (f *fleet) publish(primary string, policies *quoratev1.RedundancyPolicies) {
	f.t.Helper()
	f.publishBy(f.Leader(5*time.Second), primary, policies)
}

// publishBy does so by way of a member.
func (f *fleet) publishBy(by, primary string, policies *quoratev1.RedundancyPolicies) {
	f.t.Helper()
	set := &quoratev1.RedundantSet{Id: "line-a", Mode: "WARM", Policies: policies}
	for _, id := range []string{"m1", "m2"} {
		role := redundancy.Backup
		if id == primary {
			role = redundancy.Primary
		}
		set.Servers = append(set.Servers, &quoratev1.RedundantServer{
			Member: id, Role: role, ApplicationUri: "urn:sim:" + id, EndpointUrl: "opc.tcp://" + id + ":4840", HealthUrl: "http://" + id + ":7201/healthz",
		})
	}
	current := f.Node(by).Local().State.CurrentGeneration().GetNumber()
	o := propose(f.t, f.Node(by), withID(fmt.Sprintf("p%d", current), &logv1.Command{Body: &logv1.Command_PublishTopology{
		PublishTopology: &logv1.PublishTopology{ExpectedGeneration: current, Topology: &quoratev1.Topology{Sets: []*quoratev1.RedundantSet{set}}},
	}}))
	if r := o.GetRefusal(); r != nil {
		f.t.Fatal(r)
	}
}

// cutOff leaves a member to itself, and to the observer.
func (f *fleet) cutOff(id string) {
	for _, other := range f.IDs() {
		f.Network.Cut(id, other)
		f.Network.Cut(other, id)
	}
}

// handedTo waits until a server is Healthy, and a little longer.
func (f *fleet) handedTo(id string) {
	f.t.Helper()
	if !Until(10*time.Second, func() bool { return f.observer.Level(id).Value >= healthy }) {
		f.t.Fatalf("%s is not Healthy: %+v", id, f.observer.Level(id))
	}
	time.Sleep(2 * time.Second)
}

// levels waits until m1 and m2 advertise these.
func (f *fleet) levels(limit time.Duration, m1, m2 byte) {
	f.t.Helper()
	if !Until(limit, func() bool { return f.observer.Level("m1").Value == m1 && f.observer.Level("m2").Value == m2 }) {
		f.t.Fatalf("m1 %+v, m2 %+v, expected %d and %d", f.observer.Level("m1"), f.observer.Level("m2"), m1, m2)
	}
}

// TestElectionMovesNoLevel kills and changes leaders that run no server, and leaders that do hand over.
func TestElectionMovesNoLevel(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := startFleet(t, 5, NoMutant)
		f.publish("m1", nil)
		f.levels(10*time.Second, 255, 100)
		time.Sleep(2 * time.Second)
		before := f.observer.Changes()
		for i := range 20 {
			if _, err := f.Node("m1").TransferLeadership(t.Context(), f.IDs()[i%5]); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Duration(i) * 200 * time.Millisecond)
		}
		for range 6 {
			if _, err := f.Node("m1").TransferLeadership(t.Context(), "m5"); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Second)
			f.servers.Kill("m5")
			time.Sleep(3 * time.Second)
			if err := f.servers.Start("m5", NewClock(0, 1, 0)); err != nil {
				t.Fatal(err)
			}
			if !f.Ready(10 * time.Second) {
				t.Fatal("not ready")
			}
		}
		after := f.observer.Changes()
		for _, id := range []string{"m1", "m2"} {
			if after[id] != before[id] {
				t.Errorf("%s changed its level %d times", id, after[id]-before[id])
			}
		}
	})
}

// TestSwapIsShort swaps the roles of reachable servers: the set is without a Healthy server for less than 100 ms each time.
func TestSwapIsShort(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := startFleet(t, 3, NoMutant)
		f.publish("m1", nil)
		f.levels(10*time.Second, 255, 100)
		time.Sleep(2 * time.Second)
		f.observer.Gaps("line-a")
		var gaps []time.Duration
		for i := range 20 {
			primary := []string{"m2", "m1"}[i%2]
			f.publish(primary, nil)
			if !Until(5*time.Second, func() bool { return f.observer.Level(primary).Value >= healthy }) {
				t.Fatalf("%s is not Healthy: %+v", primary, f.observer.Level(primary))
			}
			time.Sleep(time.Duration(i) * 137 * time.Millisecond)
			gaps = append(gaps, f.observer.Gaps("line-a")...)
		}
		slices.Sort(gaps)
		if len(gaps) < 20 {
			t.Errorf("only %d gaps were seen", len(gaps))
		}
		if last := gaps[len(gaps)-1]; last >= 100*time.Millisecond {
			t.Errorf("without a Healthy server for %v", last)
		}
		t.Logf("without a Healthy server for %v to %v", gaps[0], gaps[len(gaps)-1])
	})
}

// TestStandIn lets the Primary die and come back.
func TestStandIn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := startFleet(t, 3, NoMutant)
		f.publish("m1", &quoratev1.RedundancyPolicies{StandIn: 210})
		f.levels(10*time.Second, 255, 100)
		for range 3 {
			f.servers.Kill("m1")
			died := time.Now()
			if !Until(15*time.Second, func() bool { return f.observer.Level("m2").Value == 210 }) {
				t.Fatalf("m2 doesn't stand in: %+v", f.observer.Level("m2"))
			}
			t.Logf("stands in after %v", time.Since(died))
			f.observer.Gaps("line-a")
			if err := f.servers.Start("m1", NewClock(0, 1, 0)); err != nil {
				t.Fatal(err)
			}
			f.levels(30*time.Second, 255, 100)
			for _, gap := range f.observer.Gaps("line-a") {
				t.Logf("without a Healthy server for %v", gap)
				if gap >= 100*time.Millisecond {
					t.Errorf("without a Healthy server for %v when the Primary came back", gap)
				}
			}
			time.Sleep(5 * time.Second)
		}
	})
}

// TestAutomaticFailover kills the Primary: the leader swaps the roles, once, and the old Primary comes back as a Backup.
func TestAutomaticFailover(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := startFleet(t, 3, NoMutant)
		f.publish("m1", &quoratev1.RedundancyPolicies{Failover: "automatic"})
		f.levels(10*time.Second, 255, 100)
		f.servers.Kill("m1")
		died := time.Now()
		if !Until(40*time.Second, func() bool { return f.observer.Level("m2").Value >= healthy }) {
			t.Fatalf("m2 doesn't take over: %+v", f.observer.Level("m2"))
		}
		took := time.Since(died)
		t.Logf("took over after %v", took)
		if took < 10*time.Second {
			t.Errorf("took over after %v, before failover_after", took)
		}
		if err := f.servers.Start("m1", NewClock(0, 1, 0)); err != nil {
			t.Fatal(err)
		}
		f.levels(30*time.Second, 100, 255)
		time.Sleep(30 * time.Second)
		f.levels(0, 100, 255)
		if g := f.Node("m2").Local().State.CurrentGeneration(); g.GetNumber() != 2 || g.GetSwappedBy() != "failover" {
			t.Errorf("generation %d, swapped by %q", g.GetNumber(), g.GetSwappedBy())
		}
	})
}

// TestAutomaticFailoverLeavesWhoIsBack cuts the Primary off, and lets it come back before its time is over. The voters probe it rarely by then, and find
// that out later than the leader does: the roles stay where they are.
func TestAutomaticFailoverLeavesWhoIsBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := startFleet(t, 3, NoMutant)
		f.publish("m1", &quoratev1.RedundancyPolicies{Failover: "automatic"})
		f.levels(10*time.Second, 255, 100)
		for range 10 {
			f.cutOff("m1")
			f.levels(20*time.Second, 190, 80)
			time.Sleep(6 * time.Second) // With four more they would swap, and who is back needs up to three to be heard: it dials more and more rarely.
			f.Network.Heal()
			f.levels(20*time.Second, 255, 100)
			time.Sleep(30 * time.Second)
		}
		if g := f.Node("m2").Local().State.CurrentGeneration(); g.GetNumber() != 1 {
			t.Errorf("generation %d, swapped by %q", g.GetNumber(), g.GetSwappedBy())
		}
	})
}

// TestMemberLeavesAndComesBack takes the Primary, while nothing reaches it, out of the set and out of the group, and both back in: as a learner, which serves like any
// other. It never hears of the time between.
func TestMemberLeavesAndComesBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := startFleet(t, 5, NoMutant)
		f.publish("m1", nil)
		f.levels(10*time.Second, 255, 100)
		if _, err := f.Node("m1").TransferLeadership(t.Context(), "m5"); err != nil {
			t.Fatal(err)
		}
		for range 3 {
			f.cutOff("m1")
			set := &quoratev1.RedundantSet{Id: "line-a", Mode: "WARM", Servers: []*quoratev1.RedundantServer{{
				Member: "m2", Role: redundancy.Primary, ApplicationUri: "urn:sim:m2", EndpointUrl: "opc.tcp://m2:4840", HealthUrl: "http://m2:7201/healthz",
			}}}
			by := f.Leader(5 * time.Second)
			current := f.Node(by).Local().State.CurrentGeneration().GetNumber()
			o := propose(t, f.Node(by), withID(fmt.Sprintf("p%d", current), &logv1.Command{Body: &logv1.Command_PublishTopology{
				PublishTopology: &logv1.PublishTopology{ExpectedGeneration: current, Topology: &quoratev1.Topology{Sets: []*quoratev1.RedundantSet{set}}},
			}}))
			if r := o.GetRefusal(); r != nil {
				t.Fatal(r)
			}
			if err := f.Node(by).Remove(t.Context(), "m1"); err != nil {
				t.Fatal(err)
			}
			f.handedTo("m2")
			f.levels(time.Second, 190, 255)
			// It has not heard of anything when it is back: nobody replicates to it before it is a member again.
			f.Network.Heal()
			time.Sleep(3 * time.Second)
			f.levels(0, 190, 255)
			if err := f.Node(by).AddLearner(t.Context(), "m1", addressOf("m1")); err != nil {
				t.Fatal(err)
			}
			if !Until(10*time.Second, func() bool { m, ok := f.Node(by).Local().State.Member("m1"); return ok && m.GetAnnounced() }) {
				t.Fatal("m1 has not announced itself")
			}
			f.publish("m1", nil)
			f.levels(10*time.Second, 255, 100)
			if m, _ := f.Node(by).Local().State.Member("m1"); m.GetVoter() {
				t.Error("m1 is a voter")
			}
			time.Sleep(5 * time.Second)
			f.levels(0, 255, 100)
		}
	})
}

// TestFlappingLinksDontOscillate cuts and heals the Primary's links for five minutes, with every policy that could react. Cuts that a serving lease
// outlasts move nothing. Longer ones take the servers down and up their bands, once each, and the roles stay where they are.
func TestFlappingLinksDontOscillate(t *testing.T) {
	for name, c := range map[string]struct {
		cut, whole time.Duration
		policies   *quoratev1.RedundancyPolicies
		perCut     int
	}{
		"short": {2 * time.Second, 2 * time.Second, &quoratev1.RedundancyPolicies{StandIn: 210, Failover: "automatic"}, 0},
		"long":  {8 * time.Second, 8 * time.Second, &quoratev1.RedundancyPolicies{StandIn: 210}, 4},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := startFleet(t, 3, NoMutant)
				f.publish("m1", c.policies)
				f.levels(10*time.Second, 255, 100)
				before, cuts := f.observer.Changes(), 0
				for began := time.Now(); time.Since(began) < 5*time.Minute; cuts++ {
					f.cutOff("m1")
					time.Sleep(c.cut)
					f.Network.Heal()
					time.Sleep(c.whole)
				}
				f.levels(30*time.Second, 255, 100)
				after := f.observer.Changes()
				for _, id := range []string{"m1", "m2"} {
					n := after[id] - before[id]
					t.Logf("%s changed its level %d times in %d cuts", id, n, cuts)
					if n > c.perCut*cuts {
						t.Errorf("%s changed its level %d times in %d cuts", id, n, cuts)
					}
				}
				if g := f.Node("m2").Local().State.CurrentGeneration().GetNumber(); g != 1 {
					t.Errorf("generation %d", g)
				}
			})
		})
	}
}

// TestOneTTL: what the leader waits for is what the servers count.
func TestOneTTL(t *testing.T) {
	if node.ServingLeaseTTL != redundancy.ServingLeaseTTL {
		t.Errorf("%v at the leader, %v at the servers", node.ServingLeaseTTL, redundancy.ServingLeaseTTL)
	}
}
