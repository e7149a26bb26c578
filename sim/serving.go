package sim

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"quorate/node"
	logv1 "quorate/proto/quorate/log/v1"
	quoratev1 "quorate/proto/quorate/v1"
	"quorate/redundancy"
)

const (
	// servingMembers is the size of the group in a ServingScenario.
	servingMembers = 5
	// servingDrift is how much a member's clock may gain or lose: what the leader's margin allows between two of them is twice that.
	servingDrift = 0.009
	// healthyAgain is the longest that a set may be without a Healthy Primary once all faults have ended: a serving lease, what a new leader waits, what
	// the probes need to find their peers again (up to 10 s of backoff), and the time in Recovering.
	healthyAgain = 30 * time.Second
)

// ServingScenario is one seeded run of publishes and faults, watched by an Observer.
type ServingScenario struct {
	Seed uint64
	// For is how long publishes and faults go on, in virtual time, and Calm the longest time between two faults and of each.
	For, Calm time.Duration
	// Think is the longest pause between two publishes.
	Think  time.Duration
	Mutant Mutant
	Trace  func(format string, args ...any)
}

// ServingResult is what came of it.
type ServingResult struct {
	Problems          []string
	Publishes, Faults int
	Generations       uint64
	// Changes counts the changes of all levels, StandIns those to the level of a stand-in, and Swapped the automatic failovers.
	Changes, StandIns, Swapped int
	Looks                      int
}

type servingRun struct {
	ServingScenario
	world   *World
	servers *Servers
	ctx     context.Context
	tasks   sync.WaitGroup
	result  ServingResult
}

// RunServing runs a scenario inside a bubble.
func RunServing(s ServingScenario) (*ServingResult, error) {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	r := &servingRun{ServingScenario: s, world: NewWorld(servingMembers, node.LAN, node.Limits{SnapshotEntries: 200}), ctx: ctx}
	if r.Trace == nil {
		r.Trace = func(string, ...any) {}
	}
	rng := rand.New(rand.NewPCG(s.Seed, 1))
	for _, id := range r.world.IDs() {
		if err := r.world.Start(id, r.clock(rng)); err != nil {
			return nil, err
		}
	}
	if !r.world.Ready(time.Minute) {
		return nil, errors.Join(errors.New("the group isn't ready after a minute"), r.world.Close())
	}
	r.world.Network.TrustOwnTerm.Store(s.Mutant == Unconfirmed)
	var err error
	if r.servers, err = NewServers(r.world, s.Mutant, r.trace); err != nil {
		return nil, errors.Join(err, r.world.Close())
	}
	o := r.servers.observer
	r.tasks.Go(func() { o.run(ctx) })
	if s.Mutant == NoWaitOfNewLeader {
		r.tasks.Go(r.hurryLeaders)
	}
	stop := make(chan struct{})
	var publishing sync.WaitGroup
	publishing.Go(func() { r.publishes(rand.New(rand.NewPCG(s.Seed, 2)), stop) })
	r.faults(rng)
	close(stop)
	publishing.Wait()
	r.settle()
	if n := r.world.Node(r.world.Leader(time.Second)); n != nil {
		for _, g := range n.Local().State.Generations(0, 1000) {
			if g.GetSwappedBy() != "" {
				r.result.Swapped++
			}
		}
	}
	cancel()
	r.tasks.Wait()
	r.servers.Close()
	err = r.world.Close()
	r.result.Problems = o.Problems()
	r.result.Looks = o.Looks
	for _, n := range o.Changes() {
		r.result.Changes += n
	}
	return &r.result, err
}

// trace is told of each change of a level.
func (r *servingRun) trace(id string, before, after redundancy.Level) {
	if after.Value >= healthy && after.Role == redundancy.Backup {
		r.result.StandIns++
	}
	r.Trace("%s %d -> %d (%s, %s of %s, generation %d) %v", id, before.Value, after.Value, after.Band, after.Role, after.Set, after.Generation, after.Reasons)
}

func (r *servingRun) clock(rng *rand.Rand) *Clock {
	return NewClock(time.Duration(rng.Int64N(int64(1000*time.Hour))), 1-servingDrift+2*servingDrift*rng.Float64(), time.Duration(rng.Int64N(int64(48*time.Hour)))-24*time.Hour)
}

func (r *servingRun) pause(d time.Duration) bool { return sleep(r.ctx, d) == nil }

// hurryLeaders is the mutant of a leader that doesn't wait: its clock is put forward when its term begins.
func (r *servingRun) hurryLeaders() {
	led := map[string]uint64{}
	for r.pause(time.Millisecond) {
		for _, id := range r.world.IDs() {
			if n := r.world.Node(id); n != nil && n.IsLeader() {
				if term := n.Local().State.Term(); led[id] < term {
					led[id] = term
					r.world.Clock(id).Skip(redundancy.ServingLeaseTTL + time.Second)
				}
			}
		}
	}
}

// publishes publishes random topologies until it is stopped.
func (r *servingRun) publishes(rng *rand.Rand, stop chan struct{}) {
	for i := 0; ; i++ {
		select {
		case <-stop:
			return
		default:
		}
		n := r.world.Node(r.world.IDs()[rng.IntN(servingMembers)])
		if n == nil {
			r.pause(20 * time.Millisecond)
			continue
		}
		ctx, cancel := context.WithTimeout(r.ctx, attemptTimeout)
		o, err := n.Propose(ctx, &logv1.Command{
			RequestId: fmt.Sprintf("p%d", i), Actor: &quoratev1.Actor{Name: "sim", Role: "operator"},
			Body: &logv1.Command_PublishTopology{PublishTopology: &logv1.PublishTopology{
				ExpectedGeneration: n.Local().State.CurrentGeneration().GetNumber(), Topology: randomTopology(rng),
			}},
		})
		cancel()
		if err == nil && o.GetRefusal() == nil {
			r.result.Publishes++
		} else {
			r.Trace("publish: %v %v", err, o.GetRefusal())
		}
		// Often several in a row, faster than anybody adopts them.
		if rng.IntN(4) > 0 {
			r.pause(time.Duration(rng.Int64N(int64(r.Think))))
		} else {
			r.pause(time.Duration(rng.Int64N(int64(30 * time.Millisecond))))
		}
	}
}

// randomTopology puts the members into two sets, or some of them into none, under names that change at times.
func randomTopology(rng *rand.Rand) *quoratev1.Topology {
	t := &quoratev1.Topology{}
	ids := []string{"m1", "m2", "m3", "m4", "m5"}
	if rng.IntN(2) == 0 {
		rng.Shuffle(len(ids), func(i, j int) { ids[i], ids[j] = ids[j], ids[i] })
	}
	names := []string{"line-a", "line-b"}
	if rng.IntN(5) == 0 {
		names[rng.IntN(2)] = "line-c"
	}
	if rng.IntN(8) == 0 {
		names[0], names[1] = names[1], names[0]
	}
	for i, name := range names {
		set := &quoratev1.RedundantSet{Id: name, Mode: "WARM", Policies: &quoratev1.RedundancyPolicies{MaxServers: 3}}
		members := ids[:2]
		if i == 1 {
			members = ids[2 : 4+rng.IntN(2)]
		}
		primary := rng.IntN(len(members))
		for k, id := range members {
			role := redundancy.Backup
			if k == primary {
				role = redundancy.Primary
			}
			set.Servers = append(set.Servers, &quoratev1.RedundantServer{
				Member: id, Role: role, ApplicationUri: "urn:sim:" + id, EndpointUrl: "opc.tcp://" + id + ":4840", HealthUrl: "http://" + id + ":7201/healthz",
			})
		}
		if rng.IntN(2) == 0 {
			set.Policies.StandIn = 210
		}
		if rng.IntN(3) == 0 {
			set.Policies.Failover, set.Policies.FailoverAfter = "automatic", durationpb.New(time.Duration(1+rng.IntN(10))*time.Second)
		}
		if rng.IntN(3) == 0 {
			set.Policies.Apply = "handover"
		}
		t.Sets = append(t.Sets, set)
	}
	return t
}

// faults breaks things until the scenario is over, and heals them.
func (r *servingRun) faults(rng *rand.Rand) {
	for ends := time.Now().Add(r.For); time.Now().Before(ends); {
		r.pause(time.Duration(rng.Int64N(int64(r.Calm))))
		r.result.Faults++
		r.fault(rng)
	}
	r.heal(rng)
}

func (r *servingRun) heal(rng *rand.Rand) {
	for _, id := range r.world.IDs() {
		r.servers.Resume(id)
		if r.world.Node(id) == nil {
			if err := r.servers.Start(id, r.clock(rng)); err != nil {
				r.servers.observer.Report("start %s: %v", id, err)
			}
		}
	}
	r.world.Network.Heal()
}

// victim prefers leaders and servers that are Healthy.
func (r *servingRun) victim(rng *rand.Rand) string {
	ids := r.world.IDs()
	wanted := rng.IntN(3)
	for _, i := range rng.Perm(len(ids)) {
		n := r.world.Node(ids[i])
		switch {
		case n == nil:
		case wanted == 0 && n.IsLeader(), wanted == 1 && r.servers.observer.Level(ids[i]).Value >= healthy:
			return ids[i]
		}
	}
	return ids[rng.IntN(len(ids))]
}

func (r *servingRun) fault(rng *rand.Rand) {
	ids, victim := r.world.IDs(), r.victim(rng)
	length := time.Duration(rng.Int64N(int64(r.Calm)))
	network := r.world.Network
	kind := rng.IntN(10)
	r.Trace("fault %d on %s for %v", kind, victim, length)
	switch kind {
	case 0:
		r.servers.Kill(victim)
		if rng.IntN(2) == 0 {
			length = time.Duration(rng.Int64N(int64(300 * time.Millisecond)))
		}
	case 1:
		// The group loses a member, but the observer doesn't.
		for _, id := range ids {
			network.Cut(victim, id)
			network.Cut(id, victim)
		}
	case 2:
		in := rng.IntN(2) == 0
		for _, id := range ids {
			if in {
				network.Cut(id, victim)
			} else {
				network.Cut(victim, id)
			}
		}
	case 3:
		r.servers.Pause(victim)
	case 4:
		// A leader whose answers are slow is one that hears of its end late.
		for _, from := range ids {
			for _, to := range ids {
				if rng.IntN(2) == 0 {
					network.Slow(from, to, time.Duration(rng.Int64N(int64(400*time.Millisecond))), 20*time.Millisecond)
				}
			}
		}
	case 5:
		if n := r.world.Node(victim); n != nil {
			ctx, cancel := context.WithTimeout(r.ctx, attemptTimeout)
			_, _ = n.TransferLeadership(ctx, "")
			cancel()
		}
		return
	case 6:
		if c := r.world.Clock(victim); c != nil {
			c.SetWall(time.Duration(rng.Int64N(int64(1000*time.Hour))) - 500*time.Hour)
		}
	case 7:
		r.flap(rng, victim, length)
	case 8:
		// Two halves; the leader may be in the smaller one.
		for i, a := range ids {
			for j, b := range ids {
				if (i < 2) != (j < 2) {
					network.Cut(a, b)
				}
			}
		}
	case 9:
		// A paused member misses an election, and hears what was said to it meanwhile.
		r.servers.Pause(victim)
		r.pause(length / 2)
		other := r.victim(rng)
		if other != victim {
			r.servers.Kill(other)
		}
	}
	r.pause(length)
	r.heal(rng)
}

// flap cuts and heals the links of a member.
func (r *servingRun) flap(rng *rand.Rand, victim string, length time.Duration) {
	for ends := time.Now().Add(length); time.Now().Before(ends); {
		for _, id := range r.world.IDs() {
			r.world.Network.Cut(victim, id)
			r.world.Network.Cut(id, victim)
		}
		r.pause(time.Duration(rng.Int64N(int64(2 * time.Second))))
		r.world.Network.Heal()
		r.pause(time.Duration(rng.Int64N(int64(2 * time.Second))))
	}
}

// settle expects each set's Primary to be Healthy within healthyAgain, and to stay so. A lease that was given before the last fault may still hold a level up
// that a new leader can't confirm before it has waited; so what is looked at comes after all of those have run out.
func (r *servingRun) settle() {
	o := r.servers.observer
	r.pause(node.ServingLeaseTTL)
	began := time.Now()
	missing := ""
	if !Until(healthyAgain, func() bool {
		missing = r.missing()
		return missing == ""
	}) {
		o.Report("%v after the last fault: %s", time.Since(began)+node.ServingLeaseTTL, missing)
		return
	}
	before := o.Falls()
	r.pause(5 * time.Second)
	if missing = r.missing(); missing != "" {
		o.Report("after 5 s without a fault: %s", missing)
	}
	for id, n := range o.Falls() {
		if n != before[id] {
			o.Report("%s stopped being Healthy %d times in 5 s without a fault", id, n-before[id])
		}
	}
}

// missing says what is not as it should be in a group without faults.
func (r *servingRun) missing() string {
	leader := r.world.Leader(time.Second)
	if leader == "" {
		return "no leader"
	}
	state := r.world.Node(leader).Local().State
	r.result.Generations = state.CurrentGeneration().GetNumber()
	for _, rollout := range state.Rollouts() {
		// One that waited for a server to come back may hand the role over to it now, or swap it back.
		if rollout.GetState() == quoratev1.RolloutState_ROLLOUT_STATE_RUNNING {
			return fmt.Sprintf("the roll-out of set %s goes on: %v", rollout.GetSet(), rollout.GetServers())
		}
	}
	for _, set := range state.CurrentGeneration().GetTopology().GetSets() {
		for _, s := range set.GetServers() {
			l := r.servers.observer.Level(s.GetMember())
			if (s.GetRole() == redundancy.Primary) != (l.Value >= healthy) || l.Generation != state.CurrentGeneration().GetNumber() {
				return fmt.Sprintf("%s, %s of %s, advertises %d (generation %d of %d) %v; rights %v", s.GetMember(), s.GetRole(), set.GetId(), l.Value,
					l.Generation, state.CurrentGeneration().GetNumber(), l.Reasons, state.AllServing())
			}
		}
	}
	return ""
}
