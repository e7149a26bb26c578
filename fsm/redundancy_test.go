package fsm

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	logv1 "quorate/proto/quorate/log/v1"
	quoratev1 "quorate/proto/quorate/v1"
)

// accepted applies one command, checks every invariant, and says whether it was accepted.
func accepted(t rapid.TB, s *State, clock time.Duration, c *logv1.Command) bool {
	outcomes, _, err := s.ApplyEntry(s.Revision()+1, &logv1.Entry{Clock: uint64(clock), Commands: []*logv1.Command{c}})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Check(); err != nil {
		t.Fatalf("after %v: %v", c, err)
	}
	return RefusalOf(outcomes[0]) == nil
}

// group returns a state in which all servers are members that know every command.
func group(t rapid.TB) *State {
	s := New()
	accepted(t, s, 0, sync(servers...))
	for _, id := range servers {
		accepted(t, s, 0, announce(id, CommandVersion))
	}
	return s
}

// TestRolloutsEnd interleaves everything that touches roll-outs at random. At each moment the queries agree with what is accepted. Once it is
// quiet, and the servers do what they have to, every set is on one generation and no lease is open.
func TestRolloutsEnd(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s, clock, id := group(t), time.Duration(0), 0
		request := func() string { id++; return fmt.Sprint("r", id) }
		server := rapid.SampledFrom(servers)
		generation := func(t *rapid.T, server string) uint64 {
			r, _ := s.serverApply(server)
			return rapid.SampledFrom([]uint64{r.GetGeneration(), r.GetGeneration(), s.generationNumber(), max(s.generationNumber(), 1) - 1}).Draw(t, "generation")
		}
		t.Repeat(map[string]func(*rapid.T){
			"": func(t *rapid.T) { checkQueries(t, s, clock) },
			"publish": func(t *rapid.T) {
				c := publish(request(), s.generationNumber(), drawTopology(t))
				c.GetPublishTopology().Force = rapid.IntRange(0, 3).Draw(t, "force") == 0
				accepted(t, s, clock, c)
			},
			"rollback": func(t *rapid.T) {
				accepted(t, s, clock, public(request(), &logv1.Command{Body: &logv1.Command_RollbackTopology{RollbackTopology: &logv1.RollbackTopology{
					ExpectedGeneration: s.generationNumber(), To: rapid.Uint64Range(1, s.generationNumber()+1).Draw(t, "to")}}}))
			},
			"begin": func(t *rapid.T) {
				id := server.Draw(t, "server")
				accepted(t, s, clock, beginApply(id, generation(t, id)))
			},
			"end": func(t *rapid.T) {
				id := server.Draw(t, "server")
				accepted(t, s, clock, endApply(id, generation(t, id), rapid.IntRange(0, 3).Draw(t, "well") > 0))
			},
			"due": func(t *rapid.T) {
				for _, id := range servers {
					if g, _, ok := s.MayApply(id); ok {
						accepted(t, s, clock, beginApply(id, g))
						break
					}
				}
			},
			"resume":  func(t *rapid.T) { accepted(t, s, clock, resumeApply(request(), drawSet(t))) },
			"foreign": func(t *rapid.T) { accepted(t, s, clock, begin(request(), server.Draw(t, "server"))) },
			"close":   func(t *rapid.T) { accepted(t, s, clock, end(request(), server.Draw(t, "server"))) },
			"swap": func(t *rapid.T) {
				accepted(t, s, clock, swapRoles(drawSet(t), server.Draw(t, "to"),
					rapid.SampledFrom([]string{SwapHandover, SwapFailover}).Draw(t, "why"), s.generationNumber()))
			},
			"watchdog": func(t *rapid.T) {
				clock += rapid.SampledFrom([]time.Duration{time.Second, 4 * time.Minute, ApplyMaxDuration}).Draw(t, "elapsed")
				accepted(t, s, clock, &logv1.Command{Body: &logv1.Command_Pulse{Pulse: &logv1.Pulse{}}})
			},
			"depart": func(t *rapid.T) {
				accepted(t, s, clock, sync("m1", server.Draw(t, "present")+"x", server.Draw(t, "present too")))
			},
			"return":  func(t *rapid.T) { accepted(t, s, clock, sync(servers...)) },
			"restore": func(t *rapid.T) { s = roundTrip(t, s) },
		})
		accepted(t, s, clock, sync(servers...))
		settle(t, s, clock)
	})
}

func drawSet(t *rapid.T) string {
	return rapid.SampledFrom([]string{"line-a", "line-b", "line-c"}).Draw(t, "set")
}

// checkQueries asks on forks whether what the queries promise is accepted.
func checkQueries(t *rapid.T, s *State, clock time.Duration) {
	for _, id := range servers {
		g, waitingFor, ok := s.MayApply(id)
		if got := accepted(t, s.Snapshot(), clock, beginApply(id, g)); got != ok || ok && waitingFor != "" {
			t.Fatalf("server %s may apply %d: %t, waiting for %q; but %t", id, g, ok, waitingFor, got)
		}
	}
	for _, r := range s.Rollouts() {
		to, expected, due := s.HandOverDue(r.GetSet())
		if got := accepted(t, s.Snapshot(), clock, swapRoles(r.GetSet(), to, SwapHandover, expected)); due && !got {
			if m, _ := s.Member(to); !Departed(m) {
				t.Fatalf("hand-over to %s is due and refused", to)
			}
		} else if !due && got {
			t.Fatalf("a hand-over is not due and accepted")
		}
		if got := accepted(t, s.Snapshot(), clock, resumeApply("query", r.GetSet())); got != (r.GetState() == rolloutStopped) {
			t.Fatalf("resume of %v: %t", r, got)
		}
	}
}

// settle lets every server do what it has to until nothing is left: then all are on one generation, and no lease is open.
func settle(t rapid.TB, s *State, clock time.Duration) {
	for _, l := range s.Leases("", false) {
		// Who was busy is told that it is superseded; what others have opened runs into the watchdog.
		for _, g := range s.SupersededApplies(l.GetKey().GetServer()) {
			accepted(t, s, clock, endApply(l.GetKey().GetServer(), g, false))
		}
	}
	clock = max(clock, s.Now()) + ApplyMaxDuration
	accepted(t, s, clock, &logv1.Command{Body: &logv1.Command_Pulse{Pulse: &logv1.Pulse{}}})
	for busy, rounds := true, 0; busy; rounds++ {
		if busy = false; rounds > 100 {
			t.Fatalf("it does not end: %v", s.Rollouts())
		}
		for _, r := range s.Rollouts() {
			if r.GetState() == rolloutStopped {
				busy = accepted(t, s, clock, resumeApply(fmt.Sprint("settle", s.Revision()), r.GetSet())) || busy
			}
			if to, expected, due := s.HandOverDue(r.GetSet()); due {
				busy = accepted(t, s, clock, swapRoles(r.GetSet(), to, SwapHandover, expected)) || busy
			}
			for _, p := range r.GetServers() {
				if g, _, ok := s.MayApply(p.GetServer()); ok {
					busy = true
					if !accepted(t, s, clock, beginApply(p.GetServer(), g)) || !accepted(t, s, clock, endApply(p.GetServer(), g, true)) {
						t.Fatalf("server %s can't apply %d", p.GetServer(), g)
					}
				}
			}
		}
	}
	for _, r := range s.Rollouts() {
		if r.GetState() != rolloutDone || r.GetHandOverFrom() != "" {
			t.Fatalf("not done: %v", r)
		}
		for _, p := range r.GetServers() {
			if got := s.AppliedGeneration(p.GetServer()); got != s.generationNumber() {
				t.Fatalf("server %s has applied %d of %d", p.GetServer(), got, s.generationNumber())
			}
		}
	}
	if open := s.Leases("", false); len(open) > 0 {
		t.Fatalf("open: %v", open)
	}
}

// TestThousandPublishes publishes 1,000 generations in a row, while the servers apply what they get to see of them.
func TestThousandPublishes(t *testing.T) {
	for _, apply := range []string{ApplyInPlace, ApplyHandover} {
		s := group(t)
		step := func(c *logv1.Command) bool {
			outcomes, _, err := s.ApplyEntry(s.Revision()+1, &logv1.Entry{Clock: s.Revision() * uint64(time.Second), Commands: []*logv1.Command{c}})
			if err != nil {
				t.Fatal(err)
			}
			return RefusalOf(outcomes[0]) == nil
		}
		for i := range 1000 {
			top := pair(servers[i/7%2], servers[1-i/7%2])
			top.Sets[0].Policies = &quoratev1.RedundancyPolicies{Apply: apply, Failover: FailoverAutomatic}
			top.Sets[0].Mode = []string{ModeWarm, ModeHot}[i/3%2]
			c := publish(fmt.Sprint("p", i), s.generationNumber(), top)
			if c.GetPublishTopology().Force = i%5 == 0; !step(c) {
				t.Fatalf("publish %d is refused", i)
			}
			for j := range i % 6 {
				id := servers[(i+j)%2]
				if g, _, ok := s.MayApply(id); ok {
					step(beginApply(id, g))
				}
				if g, _, ok := s.MayApply(id); ok && j%3 > 0 {
					step(endApply(id, g, i%11 > 0))
				}
			}
			if to, expected, due := s.HandOverDue("line-a"); due {
				step(swapRoles("line-a", to, SwapHandover, expected))
			}
			for _, id := range servers[:2] {
				for _, g := range s.SupersededApplies(id) {
					if i%4 > 0 {
						step(endApply(id, g, true))
					}
				}
			}
			step(&logv1.Command{Body: &logv1.Command_Pulse{Pulse: &logv1.Pulse{}}})
		}
		if n := s.generationNumber(); n < 1000 {
			t.Fatalf("only %d generations", n)
		}
		settle(t, s, s.Now())
	}
}

// plant is what happens outside of the state machine: servers that work under generations and hold serving leases, and a leader that
// grants them by redundancy.md §2. It is what the rules of AssignServing have to make safe.
type plant struct {
	*State
	works map[string]uint64 // The generation that a server's level is made under.
	holds map[string]bool   // Whether it may advertise a Healthy level.
}

func (p *plant) placed(server string, generation uint64) (set, role string) {
	g, _ := p.Generation(generation)
	in, s := findServer(g.GetTopology(), server)
	return in.GetId(), s.GetRole()
}

// learn makes a server's level under the current generation. Its lease was for a set and role, and does not outlive a change of them.
func (p *plant) learn(server string) {
	set, role := p.placed(server, p.works[server])
	p.works[server] = p.generationNumber()
	if newSet, newRole := p.placed(server, p.works[server]); newSet != set || newRole != role {
		p.holds[server] = false
	}
}

// ask grants a server a Healthy lease where the leader may.
func (p *plant) ask(t *rapid.T, server string) {
	set, role := p.placed(server, p.works[server])
	if nowSet, nowRole := p.placed(server, p.generationNumber()); set == "" || nowSet != set || nowRole != role {
		return
	}
	right, ok := p.Serving(server)
	standIn := role == RoleBackup
	if !ok || right.GetSet() != set || right.GetStandIn() != standIn || right.GetGeneration() != p.generationNumber() {
		if !p.holds[server] && p.works[server] != p.generationNumber() {
			return
		}
		c := assign(server, p.generationNumber())
		c.GetAssignServing().StandIn, c.GetAssignServing().WorksUnder = standIn, p.works[server]
		for _, v := range p.ServingConflicts(server) {
			if !p.holds[v.GetServer()] {
				c.GetAssignServing().Lapsed = append(c.GetAssignServing().Lapsed, v.GetServer())
			}
		}
		if !accepted(t, p.State, 0, c) {
			return
		}
	}
	p.holds[server] = true
}

// check fails if two servers of a set may be Healthy: by the current topology, or by one under which either of them works.
func (p *plant) check(t *rapid.T) {
	for i, a := range servers {
		for _, b := range servers[:i] {
			if !p.holds[a] || !p.holds[b] {
				continue
			}
			for _, g := range []uint64{p.works[a], p.works[b], p.generationNumber()} {
				setA, _ := p.placed(a, g)
				setB, _ := p.placed(b, g)
				if setA != "" && setA == setB {
					t.Fatalf("servers %s and %s of set %s of generation %d are both Healthy; rights %v", a, b, setA, g, p.AllServing())
				}
			}
		}
	}
}

// TestOneHealthy publishes, adopts, asks, gives back and lets lapse at random. No two servers of a set are Healthy at any moment, and in the end,
// when all have adopted, every Primary can be.
func TestOneHealthy(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p := &plant{State: group(t), works: map[string]uint64{}, holds: map[string]bool{}}
		server := rapid.SampledFrom(servers)
		id := 0
		t.Repeat(map[string]func(*rapid.T){
			"publish": func(t *rapid.T) {
				top := drawTopology(t)
				if len(top.GetSets()) > 0 && rapid.Bool().Draw(t, "rename") {
					top.Sets[0].Id = "line-c"
				}
				id++
				accepted(t, p.State, 0, publish(fmt.Sprint("p", id), p.generationNumber(), top))
			},
			"swap": func(t *rapid.T) {
				accepted(t, p.State, 0, swapRoles(drawSet(t), server.Draw(t, "to"), SwapFailover, p.generationNumber()))
			},
			"learn": func(t *rapid.T) { p.learn(server.Draw(t, "server")) },
			// An adoption is on its way for some time: it may arrive when the server works under a later generation.
			"adopt": func(t *rapid.T) {
				if s := server.Draw(t, "server"); p.works[s] > 0 {
					accepted(t, p.State, 0, adopt(s, p.works[s]-rapid.Uint64Range(0, min(p.works[s]-1, 2)).Draw(t, "late")))
				}
			},
			"ask":   func(t *rapid.T) { p.ask(t, server.Draw(t, "server")) },
			"lapse": func(t *rapid.T) { p.holds[server.Draw(t, "server")] = false },
			"release": func(t *rapid.T) {
				s := server.Draw(t, "server")
				v, _ := p.Serving(s)
				p.holds[s] = false
				accepted(t, p.State, 0, &logv1.Command{Body: &logv1.Command_ReleaseServing{ReleaseServing: &logv1.ReleaseServing{Server: s, Generation: v.GetGeneration()}}})
			},
			"restore": func(t *rapid.T) { p.State = roundTrip(t, p.State) },
			"":        p.check,
		})
		for _, s := range servers {
			p.learn(s)
			accepted(t, p.State, 0, adopt(s, p.works[s]))
			if _, role := p.placed(s, p.works[s]); role == RoleBackup {
				p.holds[s] = false // It stands in no longer.
			}
		}
		for _, set := range p.CurrentGeneration().GetTopology().GetSets() {
			if p.ask(t, primaryOf(set)); !p.holds[primaryOf(set)] {
				t.Fatalf("the Primary of %s can't serve; rights %v", set.GetId(), p.AllServing())
			}
		}
	})
}

// TestLevelsAreBounded records more changes than are kept.
func TestLevelsAreBounded(t *testing.T) {
	s := group(t)
	accepted(t, s, 0, publish("p", 0, pair("m1", "m2")))
	for n := range uint64(MaxLevelChanges + 10) {
		accepted(t, s, 0, recordLevels("m1", n+1))
	}
	accepted(t, s, 0, recordLevels("m2", 1))
	kept := s.LevelChanges("m1", MaxLevelChanges+10)
	if len(kept) != MaxLevelChanges || kept[0].GetNumber() != MaxLevelChanges+10 || kept[MaxLevelChanges-1].GetNumber() != 11 {
		t.Errorf("%d changes are kept, from %d back to %d", len(kept), kept[0].GetNumber(), kept[len(kept)-1].GetNumber())
	}
	if all := s.LevelChanges("", 3); len(all) != 3 || !slices.ContainsFunc(s.LevelChanges("", 1000), func(c *quoratev1.LevelChange) bool { return c.GetServer() == "m2" }) {
		t.Errorf("of all servers: %v", all)
	}
	if s.LevelChanges("m1", 0) != nil || s.LevelChanges("", -1) != nil && len(s.LevelChanges("", -1)) > 0 {
		t.Error("no changes were asked for")
	}
	roundTrip(t, s)
}

// TestRolloutOutlivesHistory leaves a roll-out unfinished until its generation leaves the history: it begins anew.
func TestRolloutOutlivesHistory(t *testing.T) {
	s := group(t)
	apply(t, s, 0, publish("p0", 0, pair("m1", "m2")), beginApply("m2", 1))
	for i := range uint64(MaxGenerationsWhole + MaxGenerationDigests) {
		apply(t, s, 0, publish(fmt.Sprint("p", i+1), i+1, pair("m1", "m2")))
	}
	r, _ := s.Rollout("line-a")
	if r.GetGeneration() != s.generationNumber() || r.GetServers()[0].GetState() != applyPending {
		t.Errorf("the roll-out is %v", r)
	}
	if err := s.Check(); err != nil {
		t.Fatal(err)
	}
	settle(t, s, 0)
}
