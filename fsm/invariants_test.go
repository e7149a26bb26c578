package fsm

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	quoratev1 "quorate/proto/quorate/v1"
)

// TestCheckFinds breaks each invariant of a good state in turn: a check that can't fail would hold nothing together.
func TestCheckFinds(t *testing.T) {
	// The sample has server m1 in maintenance with an ended lease, server m2 departed with an open one, and generation 2, which m1
	// has applied and m2, which has the serving right, applies.
	openKey := leaseKey{server: "m2", generation: 2, publish: "p2"}
	endedKey := endedLease{server: "m1"}
	open := func(f func(l *quoratev1.ApplyLease)) func(s *State) {
		return func(s *State) {
			l, _ := s.leases.open.Get(openKey)
			l = proto.CloneOf(l)
			f(l)
			s.leases.open.Set(openKey, l)
			s.leases.deadlines = newLeases().deadlines
			s.leases.deadlines.Set(deadlineOf(l), struct{}{})
		}
	}
	ended := func(f func(l *quoratev1.ApplyLease)) func(s *State) {
		return func(s *State) {
			l, _ := s.leases.ended.Get(endedKey)
			l = proto.CloneOf(l)
			f(l)
			s.leases.ended.Set(endedKey, l)
		}
	}
	generation := func(number uint64, f func(g *quoratev1.Generation)) func(s *State) {
		return func(s *State) {
			g, _ := s.topology.kept.Get(number)
			g = proto.CloneOf(g)
			f(g)
			s.topology.kept.Set(number, g)
			if number == s.generationNumber() {
				s.topology.setCurrent(g)
			}
		}
	}
	member := func(id string, f func(s *State)) func(s *State) {
		return func(s *State) {
			m, _ := s.members.byID.Get(id)
			s.members.byID.Set(id, proto.CloneOf(m))
			f(s)
		}
	}
	serving := func(f func(v *quoratev1.Serving)) func(s *State) {
		return func(s *State) {
			v, _ := s.Serving("m2")
			v = proto.CloneOf(v)
			f(v)
			s.servings.byServer.Set("m2", v)
		}
	}
	rollout := func(f func(r *quoratev1.Rollout)) func(s *State) {
		return func(s *State) {
			r, _ := s.Rollout("line-a")
			r = proto.CloneOf(r)
			f(r)
			s.rollouts.bySet.Set("line-a", r)
		}
	}
	kept := func(id string, f func(p *partition)) func(s *State) {
		return func(s *State) {
			p, ok := s.partitions.byID.Get(id)
			if !ok {
				t.Fatalf("no partition %s", id)
			}
			f(&p)
			s.partitions.byID.Set(id, p)
		}
	}
	migrates := func(id string, f func(m *quoratev1.Migration)) func(s *State) {
		return kept(id, func(p *partition) {
			p.migration = &migration{record: proto.CloneOf(p.migration.record), passed: p.migration.passed}
			f(p.migration.record)
		})
	}
	counted := func(name string, f func(c *placement)) func(s *State) {
		return func(s *State) {
			c, _ := s.partitions.placements.Get(name)
			f(&c)
			s.partitions.placements.Set(name, c)
		}
	}
	barrierOf := func(s *State, id string) barrierEnd {
		p, _ := s.partitions.byID.Get(id)
		return barrierEnd{p.migration.end(), id}
	}
	registered := func(f func(i *instance)) func(s *State) {
		return func(s *State) {
			i, _ := s.instances.byID.Get("i-1")
			i.record = proto.CloneOf(i.record)
			f(&i)
			s.instances.byID.Set("i-1", i)
		}
	}
	for want, broken := range map[string][]func(s *State){
		"invariant of clock: cluster time": {
			func(s *State) { s.clock.now = -1 },
			func(s *State) { s.clock.now = MaxClock + 1 },
		},
		"invariant of topology: generation 1": {
			generation(1, func(g *quoratev1.Generation) { g.Topology = nil }),
			generation(1, func(g *quoratev1.Generation) { g.Digest = "" }),
			generation(1, func(g *quoratev1.Generation) { g.Topology.Sets[0].Policies = nil }),
			generation(1, func(g *quoratev1.Generation) { g.Topology.Sets[0].Mode = "TRANSPARENT" }),
			generation(1, func(g *quoratev1.Generation) { g.RollbackOf = 1 }),
			generation(1, func(g *quoratev1.Generation) { g.Revision = 99 }),
			generation(1, func(g *quoratev1.Generation) { g.ClusterTime = durationpb.New(time.Hour) }),
		},
		"invariant of topology": {
			generation(2, func(g *quoratev1.Generation) { g.Number = 3 }),
			generation(2, func(g *quoratev1.Generation) { g.Revision = 1 }),
			func(s *State) { s.topology.kept.Delete(1) },
			func(s *State) { s.topology.current, _ = s.Generation(1) },
			func(s *State) { s.topology.servers = map[string]serverPlace{} },
			func(s *State) {
				s.topology.servers = map[string]serverPlace{"m1": s.topology.servers["m1"], "m2": s.topology.servers["m1"]}
			},
			func(s *State) {
				s.topology.servers = map[string]serverPlace{"m1": s.topology.servers["m1"], "m2": s.topology.servers["m2"], "m3": {}}
			},
			func(s *State) { s.members.byID.Delete("m2") },
		},
		"invariant of lease: open": {
			open(func(l *quoratev1.ApplyLease) { l.State = quoratev1.LeaseState_LEASE_STATE_ENDED }),
			open(func(l *quoratev1.ApplyLease) { l.Windows = 0 }),
			open(func(l *quoratev1.ApplyLease) { l.Windows = MaxLeaseWindows + 1 }),
			open(func(l *quoratev1.ApplyLease) { l.Begun = durationpb.New(time.Hour) }),
			open(func(l *quoratev1.ApplyLease) { l.Deadline = durationpb.New(time.Hour) }),
			open(func(l *quoratev1.ApplyLease) { l.Set = "" }),
			open(func(l *quoratev1.ApplyLease) { l.Ended = l.GetBegun() }),
			open(func(l *quoratev1.ApplyLease) { l.Key.Generation = 3 }),
			func(s *State) {
				s.leases.deadlines = newLeases().deadlines
				s.leases.deadlines.Set(leaseDeadline{}, struct{}{})
			},
		},
		"invariant of lease": {
			func(s *State) { s.leases.deadlines = newLeases().deadlines },
			func(s *State) {
				l, _ := s.leases.open.Get(openKey)
				l = proto.CloneOf(l)
				l.Key.Server = "m1"
				s.leases.open.Set(keyOf(l), l)
				s.leases.deadlines.Set(deadlineOf(l), struct{}{})
			},
			func(s *State) {
				l, _ := s.leases.open.Get(openKey)
				for i := range MaxOpenLeases {
					l = proto.CloneOf(l)
					l.Key.PublishRequestId = strings.Repeat("x", i+1)
					s.leases.open.Set(keyOf(l), l)
					s.leases.deadlines.Set(deadlineOf(l), struct{}{})
				}
			},
			ended(func(l *quoratev1.ApplyLease) { l.Key.Server = "m2" }),
			ended(func(l *quoratev1.ApplyLease) { l.State = quoratev1.LeaseState_LEASE_STATE_OPEN }),
			ended(func(l *quoratev1.ApplyLease) { l.State = quoratev1.LeaseState_LEASE_STATE_ABANDONED }),
			ended(func(l *quoratev1.ApplyLease) { l.Windows = 1 }),
			ended(func(l *quoratev1.ApplyLease) { l.Ended = durationpb.New(0) }),
			ended(func(l *quoratev1.ApplyLease) { l.Ended = durationpb.New(time.Hour) }),
			func(s *State) {
				l, _ := s.leases.ended.Get(endedKey)
				l = proto.CloneOf(l)
				l.Key.Server = "m9"
				s.leases.ended.Set(endedLease{server: "m9"}, l)
			},
		},
		"invariant of maintenance": {
			func(s *State) { s.maintenance.active.Set("m1", &quoratev1.Maintenance{Server: "m1"}) },
			func(s *State) { s.maintenance.active.Set("m1", &quoratev1.Maintenance{Server: "m2", Active: true}) },
			func(s *State) { s.maintenance.active.Set("m9", &quoratev1.Maintenance{Server: "m9", Active: true}) },
			func(s *State) {
				s.maintenance.active.Set("m1", &quoratev1.Maintenance{Server: "m1", Active: true, EstimatedReturn: &timestamppb.Timestamp{Nanos: -1}})
			},
		},
		"invariant of member": {
			member("m1", func(s *State) { m, _ := s.Member("m1"); m.Id = "m2" }),
			member("m1", func(s *State) { m, _ := s.Member("m1"); m.AdoptedGeneration = 3 }),
			member("m2", func(s *State) { m, _ := s.Member("m2"); m.Voter = true }),
			member("m3", func(s *State) { m, _ := s.Member("m3"); m.RaftAddress = "" }),
		},
		"invariant of serving": {
			serving(func(v *quoratev1.Serving) { v.Server = "m1" }),
			serving(func(v *quoratev1.Serving) { v.Set = "" }),
			serving(func(v *quoratev1.Serving) { v.Set = "line-b" }),
			serving(func(v *quoratev1.Serving) { v.StandIn = true }),
			serving(func(v *quoratev1.Serving) { v.Generation = 0 }),
			serving(func(v *quoratev1.Serving) { v.Generation = 3 }),
			serving(func(v *quoratev1.Serving) { v.Since = durationpb.New(time.Hour) }),
			func(s *State) {
				s.servings.byServer.Set("m1", &quoratev1.Serving{Server: "m1", Set: "line-a", Generation: 1})
			},
			func(s *State) {
				s.servings.byServer.Set("m1", &quoratev1.Serving{Server: "m1", Set: "line-b", Generation: 1})
			},
			func(s *State) {
				for i := range MaxServing {
					id := fmt.Sprint("x", i)
					s.servings.byServer.Set(id, &quoratev1.Serving{Server: id, Set: id, Generation: 1})
				}
			},
		},
		"invariant of rollout": {
			rollout(func(r *quoratev1.Rollout) { r.Set = "line-b" }),
			func(s *State) {
				s.rollouts.bySet.Set("line-b", &quoratev1.Rollout{Set: "line-b", Generation: 1})
			},
			rollout(func(r *quoratev1.Rollout) { r.Generation = 0 }),
			rollout(func(r *quoratev1.Rollout) { r.Generation = 1 }),
			rollout(func(r *quoratev1.Rollout) { r.Generation = 3 }),
			rollout(func(r *quoratev1.Rollout) { r.Apply = ApplyHandover }),
			rollout(func(r *quoratev1.Rollout) { r.HandOverFrom = "m2" }),
			rollout(func(r *quoratev1.Rollout) { r.State = rolloutDone }),
			rollout(func(r *quoratev1.Rollout) { r.Servers = r.GetServers()[1:] }),
			rollout(func(r *quoratev1.Rollout) { r.Servers[0] = r.GetServers()[1] }),
			rollout(func(r *quoratev1.Rollout) { r.Servers[0], r.Servers[1] = r.GetServers()[1], r.GetServers()[0] }),
			rollout(func(r *quoratev1.Rollout) { r.Servers[0].Server = "m3" }),
			rollout(func(r *quoratev1.Rollout) { r.Servers[0].AppliedGeneration = 3 }),
			rollout(func(r *quoratev1.Rollout) { r.Servers[0].AppliedGeneration = 1 }),
			rollout(func(r *quoratev1.Rollout) { r.Servers[0].State = applyApplying }),
			rollout(func(r *quoratev1.Rollout) { r.Servers[0].State = 9 }),
			rollout(func(r *quoratev1.Rollout) { r.Servers[0].State, r.State = applyFailed, rolloutStopped }),
			rollout(func(r *quoratev1.Rollout) { r.Servers[0].Ended = durationpb.New(time.Hour) }),
			rollout(func(r *quoratev1.Rollout) { r.Servers[0].Begun = durationpb.New(-1) }),
			func(s *State) { s.leases.open, s.leases.deadlines = newLeases().open, newLeases().deadlines },
		},
		"invariant of level": {
			func(s *State) {
				s.levels.changes.Set(levelKey{"m1", 2}, &quoratev1.LevelChange{Server: "m1", Number: 3})
			},
			func(s *State) {
				s.levels.changes.Set(levelKey{"m9", 1}, &quoratev1.LevelChange{Server: "m9", Number: 1})
			},
			func(s *State) { s.levels.changes.Set(levelKey{"m1", 0}, &quoratev1.LevelChange{Server: "m1"}) },
			func(s *State) {
				for n := range uint64(MaxLevelChanges) {
					s.levels.changes.Set(levelKey{"m1", n + 4}, &quoratev1.LevelChange{Server: "m1", Number: n + 4})
				}
			},
		},
		"invariant of partition: partition": {
			func(s *State) { s.partitions.byID.Set("P", partition{placement: "north", epoch: 1, revision: 1}) },
			kept("p-active", func(p *partition) { p.placement = "" }),
			kept("p-active", func(p *partition) { p.placement = "North" }),
			kept("p-moved", func(p *partition) { p.previous = "North" }),
			kept("p-active", func(p *partition) { p.epoch = 0 }),
			kept("p-active", func(p *partition) { p.revision = 0 }),
			kept("p-active", func(p *partition) { p.revision = 99 }),
			kept("p-active", func(p *partition) { p.barrier = -1 }),
			kept("p-active", func(p *partition) { p.barrier = MaxDrainBarrier + 1 }),
			migrates("p-draining", func(m *quoratev1.Migration) { m.From = "south" }),
			migrates("p-draining", func(m *quoratev1.Migration) { m.To = "north" }),
			migrates("p-draining", func(m *quoratev1.Migration) { m.To = "" }),
			func(s *State) { s.partitions.migrating.Delete("p-draining") },
		},
		"barrier of partition p-passed is stored": {migrates("p-passed", func(m *quoratev1.Migration) { m.BarrierLeft = durationpb.New(1) })},
		"migration of partition p-draining names 9 servers": {migrates("p-draining", func(m *quoratev1.Migration) {
			m.Servers = make([]string, MaxMigrationServers+1)
		})},
		"or began at": {
			migrates("p-draining", func(m *quoratev1.Migration) { m.Begun = durationpb.New(time.Hour) }),
			migrates("p-draining", func(m *quoratev1.Migration) { m.Begun = durationpb.New(-1) }),
		},
		"the barrier of partition p-draining is": {
			migrates("p-draining", func(m *quoratev1.Migration) { m.DrainBarrier = durationpb.New(time.Second - 1) }),
			migrates("p-draining", func(m *quoratev1.Migration) { m.DrainBarrier = durationpb.New(MaxDrainBarrier + 1) }),
		},
		"partition p-draining drains and has a barrier": {
			migrates("p-draining", func(m *quoratev1.Migration) { m.BarrierBegun = durationpb.New(1) }),
			migrates("p-draining", func(m *quoratev1.Migration) { m.CutoverRevision = 1 }),
			kept("p-draining", func(p *partition) { p.migration = &migration{record: p.migration.record, passed: true} }),
		},
		"partition p-begun is in cutover since epoch": {
			migrates("p-begun", func(m *quoratev1.Migration) { m.CutoverEpoch++ }),
			migrates("p-begun", func(m *quoratev1.Migration) { m.CutoverRevision-- }),
			kept("p-begun", func(p *partition) { p.epoch++ }),
		},
		"the barrier of partition p-begun began": {
			migrates("p-begun", func(m *quoratev1.Migration) { m.BarrierBegun = durationpb.New(-1) }),
			migrates("p-begun", func(m *quoratev1.Migration) { m.BarrierBegun = durationpb.New(time.Hour) }),
		},
		"is told to have passed too soon": {
			kept("p-begun", func(p *partition) { p.migration = &migration{record: p.migration.record, passed: true} }),
			kept("p-cutover", func(p *partition) { p.migration = &migration{record: p.migration.record, passed: true} }),
		},
		"are in the indexes": {
			func(s *State) { s.partitions.migrating.Set("p-active", struct{}{}) },
			func(s *State) { s.partitions.byID.Delete("p-cutover") },
			func(s *State) { s.partitions.placements.Set("nowhere", placement{name: "nowhere", owned: 1}) },
			func(s *State) { s.partitions.barriers = newBarriers() },
			func(s *State) { s.partitions.barriers.unbegun = newBarriers().unbegun },
			func(s *State) { s.partitions.barriers.ends = newBarriers().ends },
			func(s *State) { s.partitions.barriers.early = newBarriers().early },
		},
		"has not begun, and the index": {func(s *State) {
			s.partitions.barriers.unbegun = newBarriers().unbegun
			s.partitions.barriers.unbegun.Set(unbegunBarrier{1, "p-cutover"}, struct{}{})
		}},
		"barrier of partition p-begun ends at": {func(s *State) {
			s.partitions.barriers.ends.Delete(barrierOf(s, "p-begun"))
			s.partitions.barriers.ends.Set(barrierEnd{1, "p-begun"}, struct{}{})
		}},
		"partition p-begun may be completed early": {func(s *State) { s.partitions.barriers.early.Set("p-begun", 1) }},
		"invariant of partition: placement": {
			counted("north", func(c *placement) { c.owned++ }),
			counted("north", func(c *placement) { c.leaving-- }),
			counted("south", func(c *placement) { c.coming++ }),
			counted("south", func(c *placement) { c.name = "north" }),
			kept("p-active", func(p *partition) { p.placement = "south" }),
		},
		"are more than allowed": {func(s *State) {
			for i := range MaxPlacements {
				s.partitions.placements.Set(partitionID(i), placement{})
			}
		}, func(s *State) {
			for i := range MaxMigrations {
				s.partitions.migrating.Set(partitionID(i), struct{}{})
			}
		}},
		"invariant of partition: the settings": {
			func(s *State) { s.partitions.settings.leastBarrier = MinDrainBarrier - 1 },
			func(s *State) { s.partitions.settings.barrier = s.partitions.settings.leastBarrier - 1 },
			func(s *State) { s.partitions.settings.barrier = MaxDrainBarrier + 1 },
			func(s *State) { s.partitions.settings.earlyFloor = -1 },
			func(s *State) { s.partitions.settings.earlyFloor = MaxDrainBarrier + 1 },
			func(s *State) { s.partitions.settings.gateTTL = MinGateTTL - 1 },
			func(s *State) { s.partitions.settings.gateTTL = MaxGateTTL + 1 },
			func(s *State) { s.partitions.settings.formerTTL = -1 },
			func(s *State) { s.partitions.settings.formerTTL = MaxGateTTL + 1 },
			func(s *State) { s.partitions.settings.formerTTL = 0 },
			func(s *State) { s.partitions.settings.lowered = moment{} },
		},
		"invariant of partition: a moment": {func(s *State) { s.partitions.settings.lowered = moment{revision: 99} }},
		"invariant of instance: instance": {
			registered(func(i *instance) { i.record.Id = "i-2" }),
			registered(func(i *instance) { i.record.Revision = 0 }),
			registered(func(i *instance) { i.record.Revision = 99 }),
			registered(func(i *instance) { i.session = strings.Repeat("x", MinSessionBytes-1) }),
			registered(func(i *instance) { i.session = strings.Repeat("x", MaxSessionBytes+1) }),
			registered(func(i *instance) { i.session = strings.Repeat(" ", MinSessionBytes) }),
			func(s *State) {
				s.instances.byID.Set("I", instance{record: &quoratev1.Instance{Id: "I", Revision: 1}, session: strings.Repeat("x", MinSessionBytes)})
			},
		},
		"invariant of instance: a moment": {
			func(s *State) { s.instances.gone.known = !s.instances.gone.known },
			func(s *State) { s.instances.gone = moment{at: time.Hour, known: true} },
			func(s *State) { s.instances.gone = moment{at: -1, known: true} },
			func(s *State) { s.instances.gone = moment{revision: 1, at: 1} },
			func(s *State) { s.instances.gone = moment{revision: 99} },
			func(s *State) { s.instances.undrained = moment{at: s.clock.now + GateEnd(MaxGateTTL) + 1, known: true} },
		},
		"gone undrained, and none was gone": {func(s *State) { s.instances.gone = moment{} }},
		"instances are more than the": {func(s *State) {
			for i := range MaxInstances {
				s.instances.byID.Set(partitionID(i), instance{})
			}
		}},
		"invariant of request": {
			func(s *State) { s.requests.forgetOldest(); s.requests.byAge.Set(0, &request{}) },
			func(s *State) { s.requests.byKey.Delete(requestKey("ann", "p1")) },
			func(s *State) {
				_, r, _ := s.requests.byAge.Last()
				replaceRequest(s, r, func(r *request) { r.outcome.Revision = 1 })
			},
			func(s *State) {
				_, r, _ := s.requests.byAge.Last()
				replaceRequest(s, r, func(r *request) { r.outcome.Revision = 99 })
			},
			func(s *State) {
				_, r, _ := s.requests.byAge.Last()
				replaceRequest(s, r, func(r *request) { r.outcome.Clock = 1 })
			},
			func(s *State) {
				_, r, _ := s.requests.byAge.Last()
				replaceRequest(s, r, func(r *request) { r.outcome.Result = nil })
			},
		},
	} {
		for i, f := range broken {
			s := sample(t)
			if err := s.Check(); err != nil {
				t.Fatal(err)
			}
			f(s)
			if err := s.Check(); err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("case %d: found %v, want %s", i, err, want)
			}
		}
	}
}

func replaceRequest(s *State, old *request, f func(r *request)) {
	r := *old
	r.outcome = proto.CloneOf(old.outcome)
	f(&r)
	s.requests.byKey.Set(r.key, &r)
	s.requests.byAge.Set(r.age, &r)
}
