package sim

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"quorate/client"
	"quorate/fsm"
	"quorate/node"
	logv1 "quorate/proto/quorate/log/v1"
	quoratev1 "quorate/proto/quorate/v1"
)

const (
	// simBarrier is the drain barrier, and writeLimit the longest that a write may take from before its check at a member. A gate says how long its own may.
	simBarrier = 4 * time.Second
	writeLimit = 3900 * time.Millisecond
	// simInstances hold gate leases, and simDirect writers check each time.
	simInstances = 3
	simDirect    = 3
	// simDrift is how much a clock may gain or lose: what the leader's margin allows between two of them is twice that.
	simDrift = 0.009
)

// nodeOf is what instances and writers need of a member.
type nodeOf = *node.Node

// PartitionScenario is one seeded run of migrations and faults under writers.
type PartitionScenario struct {
	Seed uint64
	// For is how long it goes on, in virtual time, and Calm the longest time between two faults and of each.
	For, Calm time.Duration
	Mutant    GateMutant
	Trace     func(format string, args ...any)
}

// PartitionResult is what came of it.
type PartitionResult struct {
	Problems                                       []string
	Checks, FromMemory, Writes, Transitions, Early int
	Completed, Aborted, Faults                     int
}

type partitionRun struct {
	PartitionScenario
	world  *World
	ctx    context.Context
	ledger *Ledger
	tasks  sync.WaitGroup
	load   sync.WaitGroup
	stop   chan struct{}

	mu        sync.Mutex
	instances []*instance
	zombies   []*instance
	result    PartitionResult
}

// simPartitions are the first ones. Those called early are written under gate leases alone: only they may be completed early. The one called placed gets
// new owners at once, without a barrier, so nobody writes to it, and its gate is checked only.
var simPartitions = []string{"plain-0", "plain-1", "placed", "early-0", "early-1"}

var simPlacements = []string{"b1", "b2", "b3"}

// RunPartitions runs a scenario inside a bubble.
func RunPartitions(s PartitionScenario) (*PartitionResult, error) {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	r := &partitionRun{
		PartitionScenario: s, world: NewWorld(3, node.LAN, node.Limits{SnapshotEntries: 200}), ctx: ctx, ledger: NewLedger(), stop: make(chan struct{}),
	}
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
	if err := r.prepare(rng); err != nil {
		return nil, errors.Join(err, r.world.Close())
	}
	r.work()
	r.faults(rng)
	close(r.stop)
	r.load.Wait()
	r.settle()
	cancel()
	r.tasks.Wait()
	r.closeInstances()
	err := r.world.Close()
	r.result.Problems = r.ledger.Problems()
	r.result.Checks, r.result.Writes = r.ledger.checks, r.ledger.writes
	return &r.result, err
}

func (r *partitionRun) clock(rng *rand.Rand) *Clock {
	c := NewClock(time.Duration(rng.Int64N(int64(1000*time.Hour))), 1-simDrift+2*simDrift*rng.Float64(), time.Duration(rng.Int64N(int64(48*time.Hour)))-24*time.Hour)
	if r.Mutant == BarrierByWallClock {
		c.FollowWall()
	}
	return c
}

func (r *partitionRun) pause(d time.Duration) bool { return sleep(r.ctx, d) == nil }

// propose proposes until the outcome is known, and returns it with the moments between which it took effect; nil when the run ended first.
func (r *partitionRun) propose(request string, cmd *logv1.Command) (o *logv1.Outcome, called, returned time.Time) {
	cmd.RequestId, cmd.Actor = request, &quoratev1.Actor{Name: "sim", Role: "operator"}
	called = time.Now()
	for try := rand.IntN(3); r.ctx.Err() == nil; try++ {
		ids := r.world.IDs()
		n := r.world.Node(ids[try%len(ids)])
		if n == nil {
			r.pause(20 * time.Millisecond)
			continue
		}
		ctx, cancel := context.WithTimeout(r.ctx, attemptTimeout)
		o, err := n.Propose(ctx, cmd)
		cancel()
		if err == nil {
			return o, called, time.Now()
		}
		r.pause(time.Millisecond)
	}
	return nil, called, time.Time{}
}

// prepare creates the partitions and starts the instances.
func (r *partitionRun) prepare(rng *rand.Rand) error {
	set := &quoratev1.PartitionSettings{
		DrainBarrier: durationpb.New(simBarrier), MinDrainBarrier: durationpb.New(simBarrier), EarlyFloor: durationpb.New(100 * time.Millisecond),
	}
	o, _, _ := r.propose("settings", &logv1.Command{Body: &logv1.Command_SetPartitionSettings{SetPartitionSettings: &logv1.SetPartitionSettings{Settings: set}}})
	if refused := fsm.RefusalOf(o); refused != nil {
		return refused
	}
	o, called, returned := r.propose("create", &logv1.Command{Body: &logv1.Command_CreatePartitions{CreatePartitions: &logv1.CreatePartitions{
		Ids: simPartitions, Placement: simPlacements[0],
	}}})
	if refused := fsm.RefusalOf(o); refused != nil {
		return refused
	}
	for _, id := range simPartitions {
		r.ledger.Entered(id, Stay{Epoch: o.GetPartitionsMade().GetEpoch(), Owner: simPlacements[0], Writable: true, Called: called, Returned: returned})
	}
	for i := range simInstances {
		if _, err := r.startInstance(rng, fmt.Sprintf("i%d", i+1)); err != nil {
			return err
		}
	}
	return nil
}

func (r *partitionRun) startInstance(rng *rand.Rand, id string) (*instance, error) {
	c := NewClock(0, 1-simDrift+2*simDrift*rng.Float64(), 0)
	i, err := startInstance(r.ctx, r.world, id, c, r.Mutant)
	if err != nil {
		return nil, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.instances = append(r.instances, i)
	return i, nil
}

// work starts the writers, and whoever migrates.
func (r *partitionRun) work() {
	for k := range simInstances * 4 {
		writer := rand.New(rand.NewPCG(r.Seed, 100+uint64(k)))
		r.load.Go(func() {
			for r.loaded() && r.pause(time.Duration(writer.Int64N(int64(40*time.Millisecond)))) {
				r.writeByGate(writer)
			}
		})
	}
	for k := range simDirect {
		writer := rand.New(rand.NewPCG(r.Seed, 200+uint64(k)))
		r.load.Go(func() {
			for r.loaded() && r.pause(time.Duration(writer.Int64N(int64(80*time.Millisecond)))) {
				r.writeDirectly(writer)
			}
		})
	}
	for k, id := range simPartitions {
		mover := rand.New(rand.NewPCG(r.Seed, 300+uint64(k)))
		if id == "placed" {
			r.load.Go(func() { r.placements(id, mover) })
			continue
		}
		r.load.Go(func() { r.migrations(id, mover) })
	}
}

func (r *partitionRun) loaded() bool {
	select {
	case <-r.stop:
		return false
	default:
		return r.ctx.Err() == nil
	}
}

// writeByGate makes one write through an instance's gate.
func (r *partitionRun) writeByGate(rng *rand.Rand) {
	r.mu.Lock()
	i := r.instances[rng.IntN(len(r.instances))]
	if len(r.zombies) > 0 && rng.IntN(4) == 0 {
		// A process that is taken for dead may go on for as long as its lease lets it.
		i = r.zombies[len(r.zombies)-1]
	}
	r.mu.Unlock()
	partition := simPartitions[rng.IntN(len(simPartitions))]
	ctx, cancel := context.WithTimeout(r.ctx, attemptTimeout)
	defer cancel()
	hits := i.gate.Stats().Hits
	began := time.Now()
	pass, err := i.gate.Enter(ctx, partition)
	var cutover *client.CutoverError
	switch {
	case err == nil:
		r.ledger.Checked(i.id, partition, Answer{Epoch: pass.Epoch, Owner: pass.Placement}, began, time.Now())
		r.write(rng, i.id, partition, pass.Placement, pass.Epoch, pass.Deadline)
		pass.Done()
	case errors.As(err, &cutover):
		r.ledger.Checked(i.id, partition, Answer{Epoch: cutover.Epoch}, began, time.Now())
	default:
		return
	}
	if i.gate.Stats().Hits > hits {
		r.mu.Lock()
		r.result.FromMemory++
		r.mu.Unlock()
	}
}

// writeDirectly makes one write after a linearizable gate check at a member.
func (r *partitionRun) writeDirectly(rng *rand.Rand) {
	ids := r.world.IDs()
	member := ids[rng.IntN(len(ids))]
	n := r.world.Node(member)
	if n == nil {
		return
	}
	partition := simPartitions[rng.IntN(3)]
	ctx, cancel := context.WithTimeout(r.ctx, attemptTimeout)
	defer cancel()
	began := time.Now()
	view, err := n.Read(ctx, nil)
	if err != nil {
		return
	}
	found := view.State.Resolve(partition)
	r.ledger.Checked(member, partition, Answer{Epoch: found.GetEpoch(), Owner: found.GetWritePlacement()}, began, time.Now())
	if found.GetWritePlacement() != "" {
		r.write(rng, member, partition, found.GetWritePlacement(), found.GetEpoch(), began.Add(writeLimit))
	}
}

// write lets a write land after some time, unless its time is over: it is counted from before the check.
func (r *partitionRun) write(rng *rand.Rand, who, partition, placement string, epoch uint64, deadline time.Time) {
	if partition == "placed" {
		return
	}
	if rng.IntN(8) == 0 {
		r.pause(time.Duration(rng.Float64() * float64(time.Until(deadline))))
	} else {
		r.pause(time.Duration(rng.Int64N(int64(50 * time.Millisecond))))
	}
	if time.Now().Before(deadline) {
		r.ledger.Landed(who, partition, placement, epoch, time.Now())
	}
}

// migrations moves a partition to and fro until the load ends.
func (r *partitionRun) migrations(id string, rng *rand.Rand) {
	at := simPlacements[0]
	for k := 0; r.loaded(); k++ {
		r.pause(time.Duration(rng.Int64N(int64(4 * time.Second))))
		to := simPlacements[rng.IntN(len(simPlacements))]
		if to == at {
			continue
		}
		m := mover{run: r, id: id, name: fmt.Sprintf("%s-%d", id, k), to: to, early: id[0] == 'e' && rng.IntN(4) > 0}
		if m.migrate(rng) {
			at = to
		}
	}
}

// placements gives a partition new owners until the load ends.
func (r *partitionRun) placements(id string, rng *rand.Rand) {
	at := simPlacements[0]
	for k := 0; r.loaded(); k++ {
		r.pause(time.Duration(rng.Int64N(int64(3 * time.Second))))
		to := simPlacements[rng.IntN(len(simPlacements))]
		if to == at {
			continue
		}
		m := mover{run: r, id: id, name: fmt.Sprintf("%s-%d", id, k)}
		moved, refused := m.step(&logv1.Command{Body: &logv1.Command_SetPlacement{SetPlacement: &logv1.SetPlacement{Partition: id, Placement: to}}})
		if refused != nil {
			r.ledger.Report("%s: the placement is refused: %v", id, refused)
		}
		if moved != nil {
			at = to
		}
	}
}

// mover makes one migration.
type mover struct {
	run      *partitionRun
	id, name string
	to       string
	early    bool
	steps    int
	cutover  time.Time
}

// step proposes one transition; nil means that it was refused, or that the run ended.
func (m *mover) step(cmd *logv1.Command) (moved *logv1.PartitionMoved, refused *fsm.Refusal) {
	m.steps++
	o, called, returned := m.run.propose(fmt.Sprintf("%s.%d", m.name, m.steps), cmd)
	if refused = fsm.RefusalOf(o); o == nil || refused != nil {
		return nil, refused
	}
	p := o.GetPartitionMoved().GetPartition()
	m.run.ledger.Entered(m.id, Stay{
		Epoch: p.GetEpoch(), Owner: p.GetPlacement(), Writable: p.GetPhase() != quoratev1.PartitionPhase_PARTITION_PHASE_CUTOVER, Called: called, Returned: returned,
	})
	m.run.mu.Lock()
	m.run.result.Transitions++
	m.run.mu.Unlock()
	m.run.Trace("%s: %T, epoch %d, at %s, %v", m.id, cmd.GetBody(), p.GetEpoch(), p.GetPlacement(), returned.Sub(called))
	return o.GetPartitionMoved(), nil
}

func (m *mover) abort() {
	if moved, refused := m.step(&logv1.Command{Body: &logv1.Command_AbortMigration{AbortMigration: &logv1.AbortMigration{Partition: m.id}}}); moved != nil {
		m.run.mu.Lock()
		m.run.result.Aborted++
		m.run.mu.Unlock()
	} else if refused != nil {
		m.run.ledger.Report("%s: the abort is refused: %v", m.id, refused)
	}
}

// migrate begins, cuts over and completes, or aborts in between; it says whether the partition has moved.
func (m *mover) migrate(rng *rand.Rand) bool {
	r := m.run
	if moved, refused := m.step(&logv1.Command{Body: &logv1.Command_BeginMigration{BeginMigration: &logv1.BeginMigration{
		Partition: m.id, To: m.to, EarlyCompletion: m.early,
	}}}); moved == nil {
		if refused != nil {
			r.ledger.Report("%s: the migration is refused: %v", m.id, refused)
		}
		return false
	}
	r.pause(time.Duration(rng.Int64N(int64(2 * time.Second))))
	if rng.IntN(6) == 0 {
		m.abort()
		return false
	}
	m.cutover = time.Now()
	moved, refused := m.step(&logv1.Command{Body: &logv1.Command_CutoverMigration{CutoverMigration: &logv1.CutoverMigration{Partition: m.id}}})
	if moved == nil {
		if refused != nil {
			r.ledger.Report("%s: the cutover is refused: %v", m.id, refused)
		}
		return false
	}
	if rng.IntN(5) == 0 {
		r.pause(time.Duration(rng.Int64N(int64(simBarrier))))
		m.abort()
		return false
	}
	for r.ctx.Err() == nil {
		moved, refused := m.step(&logv1.Command{Body: &logv1.Command_CompleteMigration{CompleteMigration: &logv1.CompleteMigration{Partition: m.id}}})
		if moved != nil {
			m.completed(moved.GetEarly())
			return true
		}
		if refused == nil {
			return false
		}
		if refused.GetReason() != fsm.ReasonBarrierPending {
			r.ledger.Report("%s: the completion is refused: %v", m.id, refused)
			return false
		}
		r.pause(time.Duration(20+rng.IntN(200)) * time.Millisecond)
	}
	return false
}

func (m *mover) completed(early bool) {
	m.run.mu.Lock()
	defer m.run.mu.Unlock()
	m.run.result.Completed++
	if early {
		m.run.result.Early++
		return
	}
	// The clock of a leader may run fast by simDrift.
	if took := time.Since(m.cutover); float64(took) < float64(simBarrier)*(1-simDrift) {
		m.run.ledger.Report("%s: completed %v after the cutover was asked for, by a barrier of %v", m.id, took, simBarrier)
	}
}

// settle expects a write through each gate to be possible within 10 s of the last fault's end.
func (r *partitionRun) settle() {
	r.mu.Lock()
	instances := r.instances
	r.mu.Unlock()
	for _, i := range instances {
		for _, id := range simPartitions {
			healed := time.Now()
			ok := Until(10*time.Second, func() bool {
				ctx, cancel := context.WithTimeout(r.ctx, time.Second)
				defer cancel()
				began := time.Now()
				pass, err := i.gate.Enter(ctx, id)
				var cutover *client.CutoverError
				if err != nil && !errors.As(err, &cutover) {
					return false
				}
				if err == nil {
					r.ledger.Checked(i.id, id, Answer{Epoch: pass.Epoch, Owner: pass.Placement}, began, time.Now())
					pass.Done()
				}
				return true
			})
			if !ok {
				r.ledger.Report("%s has no answer for %s %v after the last fault", i.id, id, time.Since(healed))
			}
		}
		if !Until(10*time.Second, func() bool { return i.gate.Stats().Lease > 0 }) {
			r.ledger.Report("%s has no lease 10 s after the last fault", i.id)
		}
	}
}

// closeInstances ends the processes.
func (r *partitionRun) closeInstances() {
	for _, i := range append(r.instances, r.zombies...) {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		// The group is about to end too, and the zombies reach nobody.
		_ = i.gate.Close(ctx)
		cancel()
	}
}
