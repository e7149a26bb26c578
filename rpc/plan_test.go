package rpc

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"quorate/fsm"
	"quorate/node"
	logv1 "quorate/proto/quorate/log/v1"
	quoratev1 "quorate/proto/quorate/v1"
	"quorate/redundancy"
	"quorate/sim"
)

const (
	// applyTakes is how long each apply of the simulated servers takes, and lasting how long levels stay that are no passing ones: a server that takes a
	// role over is Unconfirmed for a moment.
	applyTakes = time.Second
	lasting    = 400 * time.Millisecond
)

// stage is a group of simulated servers, real managers on real raft in virtual time, whose levels are watched.
type stage struct {
	*sim.World
	t       *testing.T
	servers *sim.Servers
	hooks   bool

	mu   sync.Mutex
	seen []sighting
}

// sighting is the level of a server since a moment.
type sighting struct {
	at     time.Time
	server string
	level  uint32
}

// Apply implements redundancy.Applier.
func (s *stage) Apply(ctx context.Context, _ redundancy.Apply) (string, error) {
	select {
	case <-time.After(applyTakes):
		return "", nil
	case <-ctx.Done():
		return "", ctx.Err()
	}
}

func openStage(t *testing.T, hooks bool) *stage {
	s := &stage{World: sim.NewWorld(5, node.LAN, node.Limits{}), t: t, hooks: hooks}
	if hooks {
		s.Applier = s
	}
	for _, id := range s.IDs() {
		if err := s.Start(id, sim.NewClock(0, 1, 0)); err != nil {
			t.Fatal(err)
		}
		for _, to := range s.IDs() {
			s.Network.Slow(id, to, time.Millisecond, time.Millisecond)
		}
	}
	if !s.Ready(10 * time.Second) {
		t.Fatal("not ready")
	}
	var err error
	if s.servers, err = sim.NewServers(s.World, sim.NoMutant, func(id string, _, after redundancy.Level) {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.seen = append(s.seen, sighting{time.Now(), id, uint32(after.Value)})
	}); err != nil {
		t.Fatal(err)
	}
	watching, cancel := context.WithCancel(t.Context())
	watched := make(chan struct{})
	go func() {
		defer close(watched)
		s.servers.Watch(watching)
	}()
	t.Cleanup(func() {
		cancel()
		<-watched
		s.servers.Close()
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func (s *stage) state() *fsm.State { return s.Node(s.Leader(5 * time.Second)).Local().State }

// propose proposes what must not fail, and may be refused.
func (s *stage) propose(c *logv1.Command) *logv1.Outcome {
	s.t.Helper()
	c.RequestId, c.Actor = fmt.Sprint("r", s.state().Revision()), &quoratev1.Actor{Name: "ann", Role: "operator"}
	o, err := s.Node(s.Leader(5*time.Second)).Propose(s.t.Context(), c)
	if err != nil {
		s.t.Fatal(err)
	}
	return o
}

// draft is a publish that has yet to happen.
type draft struct {
	sets  []*quoratev1.RedundantSet
	force bool
}

func (s *stage) publishOf(d draft) *logv1.PublishTopology {
	return &logv1.PublishTopology{ExpectedGeneration: s.state().CurrentGeneration().GetNumber(), Topology: &quoratev1.Topology{Sets: d.sets}, Force: d.force}
}

// put publishes a draft as it is planned, and returns why plan and publish refuse it, which they do for the same reason.
func (s *stage) put(d draft) (planned []*quoratev1.PlannedRollout, reason string) {
	s.t.Helper()
	publish := s.publishOf(d)
	planned, err := planRollouts(s.state(), publish)
	r := s.propose(&logv1.Command{Body: &logv1.Command_PublishTopology{PublishTopology: publish}}).GetRefusal()
	var refusal *fsm.Refusal
	if errors.As(err, &refusal) && refusal.GetReason() == r.GetReason() && refusal.GetField() == r.GetField() {
		return nil, r.GetReason()
	}
	if err != nil || r != nil {
		s.t.Fatalf("planned: %v; published: %v", err, r)
	}
	return planned, ""
}

// settle waits until every roll-out is done, and a little longer.
func (s *stage) settle() {
	s.t.Helper()
	if !sim.Until(2*time.Minute, func() bool {
		for _, r := range s.state().Rollouts() {
			if r.GetState() != quoratev1.RolloutState_ROLLOUT_STATE_DONE {
				return false
			}
		}
		return true
	}) {
		s.t.Fatalf("never done: %v", s.state().Rollouts())
	}
	time.Sleep(3 * time.Second)
}

// shown are the levels that some servers showed side by side since a moment, for as long as they lasted.
func (s *stage) shown(since time.Time, servers []string) []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	levels := map[string]uint32{}
	list := func() string {
		var b strings.Builder
		for _, server := range servers {
			fmt.Fprintf(&b, " %s:%d", server, levels[server])
		}
		return b.String()
	}
	var shown []string
	from := since
	for _, x := range append(slices.Clone(s.seen), sighting{at: time.Now()}) {
		if x.at.After(since) && (x.server == "" || slices.Contains(servers, x.server)) {
			if x.at.Sub(from) >= lasting {
				shown = append(shown, list())
			}
			from = x.at
		}
		levels[x.server] = x.level
	}
	return slices.Compact(shown)
}

// compare compares what a plan predicted for each set with what happened. Some steps pass at once and may not be seen; nothing may be seen that was not
// predicted.
func (s *stage) compare(since time.Time, planned []*quoratev1.PlannedRollout) {
	s.t.Helper()
	for _, rollout := range planned {
		var servers, all, must []string
		for _, level := range rollout.GetSteps()[0].GetLevels() {
			servers = append(servers, level.GetServer())
		}
		for i, step := range rollout.GetSteps() {
			levels := s.levels(step)
			all = append(all, levels)
			if i == len(rollout.GetSteps())-1 || s.hooks && (strings.HasPrefix(step.GetAction(), "apply ") || strings.HasPrefix(step.GetAction(), "first apply ")) {
				must = append(must, levels)
			}
		}
		all, must = slices.Compact(all), slices.Compact(must)
		if shown := s.shown(since, servers); !within(shown, all) || !within(must, shown) {
			s.t.Errorf("set %s: it was planned\n%s\nand shown %q", rollout.GetSet(), describe(rollout), shown)
		}
	}
}

// levels are those of a step. The first apply of a server that has a hook is one with a dip.
func (s *stage) levels(step *quoratev1.PlannedStep) string {
	var b strings.Builder
	for _, level := range step.GetLevels() {
		value := level.GetLevel()
		if s.hooks && strings.HasPrefix(step.GetAction(), "first apply of "+level.GetServer()+",") && value != 0 {
			value = map[string]uint32{fsm.RolePrimary: 200, fsm.RoleBackup: 50}[level.GetRole()]
		}
		fmt.Fprintf(&b, " %s:%d", level.GetServer(), value)
	}
	return b.String()
}

func describe(rollout *quoratev1.PlannedRollout) string {
	var b strings.Builder
	for _, step := range rollout.GetSteps() {
		fmt.Fprintf(&b, "  %s:", step.GetAction())
		for _, level := range step.GetLevels() {
			fmt.Fprintf(&b, " %s %d", level.GetServer(), level.GetLevel())
		}
		b.WriteByte('\n')
	}
	return b.String()
}

// within says whether a list has all of another one's elements in their order.
func within(part, whole []string) bool {
	for _, w := range whole {
		if len(part) > 0 && part[0] == w {
			part = part[1:]
		}
	}
	return len(part) == 0
}

// lineOf is a set whose first server is the Primary.
func lineOf(id string, policies *quoratev1.RedundancyPolicies, members ...string) *quoratev1.RedundantSet {
	p := &quoratev1.RedundancyPolicies{MaxServers: 4}
	if policies != nil {
		policies.MaxServers = 4
		p = policies
	}
	set := &quoratev1.RedundantSet{Id: id, Mode: fsm.ModeHot, Policies: p}
	for i, member := range members {
		role := fsm.RoleBackup
		if i == 0 {
			role = fsm.RolePrimary
		}
		set.Servers = append(set.Servers, &quoratev1.RedundantServer{
			Member: member, Role: role, ApplicationUri: "urn:sim:" + member, EndpointUrl: "opc.tcp://" + member + ":4840", HealthUrl: "http://" + member + ":7201/healthz",
		})
	}
	return set
}

func only(sets ...*quoratev1.RedundantSet) draft { return draft{sets: sets} }

func handover() *quoratev1.RedundancyPolicies {
	return &quoratev1.RedundancyPolicies{Apply: fsm.ApplyHandover}
}

// TestPlanIsWhatHappens publishes on a group of simulated servers whatever was planned, and compares the levels of each step with those that are seen.
func TestPlanIsWhatHappens(t *testing.T) {
	reversed := lineOf("line-a", nil, "m1", "m2")
	slices.Reverse(reversed.Servers)
	for name, c := range map[string]struct {
		first, then draft
		// before happens between the two.
		before func(s *stage)
		// steps are the actions of the first set's plan, and refused is why there is none.
		steps, refused string
	}{
		"nothing changes":             {first: only(lineOf("line-a", nil, "m1", "m2")), then: only(lineOf("line-a", nil, "m1", "m2")), steps: "publish, done"},
		"the order of the document":   {first: only(lineOf("line-a", nil, "m1", "m2")), then: only(reversed), steps: "publish, done"},
		"forced":                      {first: only(lineOf("line-a", nil, "m1", "m2")), then: draft{[]*quoratev1.RedundantSet{lineOf("line-a", nil, "m1", "m2")}, true}, steps: "publish, apply m2, apply m1, done"},
		"swapped":                     {first: only(lineOf("line-a", nil, "m1", "m2")), then: only(lineOf("line-a", nil, "m2", "m1")), steps: "publish, apply m1, apply m2, done"},
		"three servers":               {first: only(lineOf("line-a", nil, "m1", "m2", "m3")), then: only(lineOf("line-a", &quoratev1.RedundancyPolicies{StandIn: 210}, "m1", "m2", "m3")), steps: "publish, apply m2, apply m3, apply m1, done"},
		"handed over":                 {first: only(lineOf("line-a", handover(), "m1", "m2")), then: draft{[]*quoratev1.RedundantSet{lineOf("line-a", handover(), "m1", "m2")}, true}, steps: "publish, apply m2, hand over from m1 to m2, apply m1, done"},
		"handed over among three":     {first: only(lineOf("line-a", nil, "m1", "m2", "m3")), then: only(lineOf("line-a", handover(), "m1", "m2", "m3")), steps: "publish, apply m2, apply m3, hand over from m1 to m2, apply m1, done"},
		"handover, only roles":        {first: only(lineOf("line-a", handover(), "m1", "m2")), then: only(lineOf("line-a", handover(), "m2", "m1")), steps: "publish, done"},
		"handover, swapped and more":  {first: only(lineOf("line-a", nil, "m1", "m2")), then: only(lineOf("line-a", handover(), "m2", "m1")), steps: "publish, apply m1, apply m2, done"},
		"handover, one server":        {first: only(lineOf("line-a", nil, "m1")), then: only(lineOf("line-a", handover(), "m1")), steps: "publish, apply m1, done"},
		"a server more":               {first: only(lineOf("line-a", nil, "m1", "m2")), then: only(lineOf("line-a", nil, "m1", "m2", "m3")), steps: "publish, apply m2, first apply of m3, without a dip where it has no apply hook, apply m1, done"},
		"a server less":               {first: only(lineOf("line-a", nil, "m1", "m2", "m3")), then: only(lineOf("line-a", nil, "m1", "m3")), steps: "publish, apply m3, apply m1, done"},
		"renamed":                     {first: only(lineOf("line-a", nil, "m1", "m2")), then: only(lineOf("line-b", nil, "m1", "m2")), steps: "publish, apply m2, apply m1, done"},
		"another set":                 {first: only(lineOf("line-a", nil, "m1", "m2")), then: only(lineOf("line-a", nil, "m1", "m2"), lineOf("line-b", nil, "m3", "m4")), steps: "publish, done"},
		"moved between sets":          {first: only(lineOf("line-a", nil, "m1", "m2"), lineOf("line-b", nil, "m3", "m4")), then: only(lineOf("line-a", nil, "m1", "m4"), lineOf("line-b", nil, "m3", "m2")), steps: "publish, apply m4, apply m1, done"},
		"levels of its own":           {first: only(lineOf("line-a", nil, "m1", "m2")), then: only(lineOf("line-a", &quoratev1.RedundancyPolicies{Levels: []*quoratev1.BandLevel{{Band: fsm.BandAuthoritative, Backup: 150}, {Band: fsm.BandMidApply, Backup: 60}}}, "m1", "m2")), steps: "publish, apply m2, apply m1, done"},
		"hot Backups":                 {first: only(lineOf("line-a", nil, "m1", "m2")), then: only(lineOf("line-a", &quoratev1.RedundancyPolicies{HotBackupsHealthy: true}, "m1", "m2")), steps: "publish, apply m2, apply m1, done"},
		"two Primaries come together": {first: only(lineOf("line-a", nil, "m1", "m2"), lineOf("line-b", nil, "m3")), then: only(lineOf("line-a", nil, "m1", "m3")), refused: fsm.ReasonServingHeld},
		"a Backup in maintenance": {
			first: only(lineOf("line-a", handover(), "m1", "m2", "m3")), then: draft{[]*quoratev1.RedundantSet{lineOf("line-a", handover(), "m1", "m2", "m3")}, true},
			before: func(s *stage) {
				s.propose(&logv1.Command{Body: &logv1.Command_SetMaintenance{SetMaintenance: &logv1.SetMaintenance{Server: "m2", Active: true}}})
				time.Sleep(time.Second)
			},
			steps: "publish, apply m2, apply m3, hand over from m1 to m3, apply m1, done",
		},
		"in the middle of an apply": {
			first: only(lineOf("line-a", nil, "m1", "m2")), then: only(lineOf("line-a", &quoratev1.RedundancyPolicies{StandIn: 210}, "m1", "m2")),
			before: func(s *stage) {
				s.put(draft{[]*quoratev1.RedundantSet{lineOf("line-a", nil, "m1", "m2")}, true})
				time.Sleep(applyTakes / 2)
			},
			steps: "publish, the apply of m2 that is under way ends, apply m2, apply m1, done",
		},
		"while another set applies": {
			first: only(lineOf("line-a", nil, "m1", "m2")), then: only(lineOf("line-a", nil, "m1", "m2"), lineOf("line-b", nil, "m3", "m4")),
			before: func(s *stage) {
				s.put(draft{[]*quoratev1.RedundantSet{lineOf("line-a", nil, "m1", "m2")}, true})
				time.Sleep(applyTakes / 2)
			},
			steps: "publish, the apply of m2 that is under way ends, apply m1, done",
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := openStage(t, true)
				s.put(c.first)
				s.settle()
				if c.before != nil {
					c.before(s)
				}
				began := time.Now()
				planned, reason := s.put(c.then)
				if reason != c.refused {
					t.Fatalf("refused for %q, want %q", reason, c.refused)
				}
				if reason != "" {
					return
				}
				s.settle()
				s.compare(began, planned)
				var steps []string
				for _, step := range planned[0].GetSteps() {
					steps = append(steps, step.GetAction())
				}
				if got := strings.Join(steps, ", "); got != c.steps {
					t.Errorf("planned %s, want %s", got, c.steps)
				}
			})
		})
	}
}

// TestPlanIsWhatHappensAtRandom does so with sequences of random topologies, with hooks and without.
func TestPlanIsWhatHappensAtRandom(t *testing.T) {
	compared := 0
	for seed := range uint64(8) {
		synctest.Test(t, func(t *testing.T) {
			rng := rand.New(rand.NewPCG(seed, 7))
			s := openStage(t, seed%2 == 0)
			for range 6 {
				began := time.Now()
				switch planned, reason := s.put(randomDraft(rng)); reason {
				case "":
					s.settle()
					s.compare(began, planned)
					compared += len(planned)
				case fsm.ReasonServingHeld:
				default:
					t.Error(reason)
				}
				if t.Failed() {
					t.Fatalf("seed %d", seed)
				}
			}
		})
	}
	t.Logf("%d roll-outs", compared)
	if compared < 50 {
		t.Errorf("only %d roll-outs were compared", compared)
	}
}

func randomDraft(rng *rand.Rand) draft {
	ids := []string{"m1", "m2", "m3", "m4", "m5"}
	if rng.IntN(3) == 0 {
		rng.Shuffle(len(ids), func(i, j int) { ids[i], ids[j] = ids[j], ids[i] })
	}
	policies := func() *quoratev1.RedundancyPolicies {
		p := &quoratev1.RedundancyPolicies{}
		if rng.IntN(2) == 0 {
			p.Apply = fsm.ApplyHandover
		}
		if rng.IntN(3) == 0 {
			p.StandIn = 210
		}
		return p
	}
	a := ids[:1+rng.IntN(3)]
	if rng.IntN(2) == 0 {
		slices.Reverse(a)
	}
	d := draft{sets: []*quoratev1.RedundantSet{lineOf("line-a", policies(), a...)}, force: rng.IntN(4) == 0}
	if rng.IntN(2) == 0 {
		d.sets = append(d.sets, lineOf("line-b", policies(), ids[3:4+rng.IntN(2)]...))
	}
	return d
}
