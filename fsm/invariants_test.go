package fsm

import (
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
	// The sample has server m1 in maintenance with an ended lease, server m2 departed with an open one, and generation 2.
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
			func(s *State) { s.topology.servers = map[string]placement{} },
			func(s *State) {
				s.topology.servers = map[string]placement{"m1": s.topology.servers["m1"], "m2": s.topology.servers["m1"]}
			},
			func(s *State) {
				s.topology.servers = map[string]placement{"m1": s.topology.servers["m1"], "m2": s.topology.servers["m2"], "m3": {}}
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
