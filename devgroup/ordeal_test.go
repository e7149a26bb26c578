package devgroup

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"quorate/client"
	quoratev1 "quorate/proto/quorate/v1"
	"quorate/sim"
)

var migrations = flag.Int("migrations", 10, "how many migrations TestMigrationsThroughKills makes; the long form is 100")

const (
	ordealPort = 21000
	// ordealGates are as many processes with a gate each, and writersPerGate how many writes each makes at once.
	ordealGates    = 4
	writersPerGate = 16
	// hotPartitions migrate at the same time, over and over, while all writers write to them.
	hotPartitions = 10
	// leastBarrier is the shortest that any group allows, so that a write that came too late by little would show.
	leastBarrier = 100 * time.Millisecond
	longBarrier  = time.Second
	// ordealTTL is that of the gate leases: what a transition waits for after a leader was lost.
	ordealTTL = 400 * time.Millisecond
	// mostOfAStep is within what time of the beginning of a step a member is killed that is to be killed in it.
	mostOfAStep = 40 * time.Millisecond
	// wallMoves is by how much the wall clocks of members are moved.
	wallMoves = time.Hour
	// ordealLimit and ordealMigration bound the test: what it needs at most to begin and to end, and for each migration.
	ordealLimit, ordealMigration = time.Minute, 5 * time.Second
)

// ordeal is a group whose partitions move under writers, while its members are killed and their clocks moved.
type ordeal struct {
	*Group
	t          *testing.T
	ctx        context.Context
	client     *client.Client
	endpoints  []string
	ledger     *sim.Ledger
	stores     *stores
	migrations int
	down       string // the member that was killed last and not brought back
	kills      int

	begun, transitions, completed, early, aborted, fromMemory, refused, failed atomic.Int64
	// wallAhead and wallBehind say that a member wrote down a time that is that much off.
	wallAhead, wallBehind atomic.Bool
}

// startOrdeal starts a group whose members have wall clocks that can be moved.
func startOrdeal(ctx context.Context, t *testing.T) *ordeal {
	t.Helper()
	o := &ordeal{t: t, ctx: ctx, ledger: sim.NewLedger(), migrations: *migrations}
	o.stores = newStores(o.ledger)
	binary, err := Built()
	o.must(err)
	var log Output
	if o.Group, err = Start(ctx, Options{Binary: binary, Data: filepath.Join(t.TempDir(), "group"), BasePort: ordealPort, Log: &log}); err != nil {
		t.Fatalf("%v\n%s", err, log.String())
	}
	t.Cleanup(func() {
		if err := o.Stop(); err != nil {
			t.Error(err)
		}
		if t.Failed() {
			t.Logf("the members said:\n%s", log.String())
		}
	})
	o.killAll()
	for _, m := range o.Members {
		o.endpoints = append(o.endpoints, m.GRPC)
		config, err := os.OpenFile(filepath.Join(o.options.Data, m.ID+".yaml"), os.O_APPEND|os.O_WRONLY, 0)
		o.must(err)
		_, err = fmt.Fprintf(config, "\nclock: {wallOffsetFile: %q}\n", o.offsetFile(m.ID))
		o.must(errors.Join(err, config.Close()))
	}
	o.restartAll()
	if o.client, err = client.Open(ctx, client.Options{Endpoints: o.endpoints}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { o.must(o.client.Close()) })
	_, err = o.client.Partitions().SetPartitionSettings(ctx, &quoratev1.SetPartitionSettingsRequest{Settings: &quoratev1.PartitionSettings{
		DrainBarrier: durationpb.New(leastBarrier), MinDrainBarrier: durationpb.New(leastBarrier), EarlyFloor: durationpb.New(0), GateTtl: durationpb.New(ordealTTL),
	}})
	o.must(err)
	return o
}

func (o *ordeal) must(err error) {
	if err != nil {
		o.t.Helper()
		o.t.Fatal(err)
	}
}

// create creates partitions at b1, and whoever moves them.
func (o *ordeal) create(n int) (movers []*mover) {
	o.t.Helper()
	var ids []string
	for i := range n {
		ids = append(ids, fmt.Sprintf("hot-%d", i))
		movers = append(movers, &mover{o: o, partition: ids[i], from: "b1"})
	}
	called := time.Now()
	created, err := o.client.Partitions().CreatePartitions(o.ctx, &quoratev1.CreatePartitionsRequest{Ids: ids, Placement: "b1"})
	o.must(err)
	for _, id := range ids {
		o.ledger.Entered(id, sim.Stay{Epoch: created.GetEpoch(), Owner: "b1", Writable: true, Called: called, Returned: time.Now()})
	}
	return movers
}

func (o *ordeal) offsetFile(member string) string {
	return filepath.Join(o.options.Data, member+".offset")
}

// moveWall moves the wall clock of a member, at once. Its monotonic clock takes no notice.
func (o *ordeal) moveWall(member string, by time.Duration) {
	o.must(os.WriteFile(o.offsetFile(member), []byte(by.String()), 0o600))
}

// sawWall notes whether a time that a leader wrote down a moment ago is off.
func (o *ordeal) sawWall(at *timestamppb.Timestamp) {
	if at == nil {
		return
	}
	if off := time.Until(at.AsTime()); off > wallMoves/2 {
		o.wallAhead.Store(true)
	} else if off < -wallMoves/2 {
		o.wallBehind.Store(true)
	}
}

// pause waits for a while, or until the test ends, which is an error.
func (o *ordeal) pause(d time.Duration) error { return pause(o.ctx, d) }

func pause(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (o *ordeal) killAll() {
	for _, m := range o.Members {
		o.must(o.Kill(o.ctx, m.ID))
	}
}

func (o *ordeal) restartAll() {
	for _, m := range o.Members {
		o.must(o.Restart(m.ID))
	}
	for _, m := range o.Members {
		o.must(o.Ready(o.ctx, m.ID))
	}
}

// kill kills a member: the leader every other time.
func (o *ordeal) kill(n int) {
	victim := o.Members[n/2%len(o.Members)]
	if n/2%2 == 0 {
		leader, err := o.Leader(o.ctx)
		o.must(err)
		victim = leader
	}
	o.must(o.Kill(o.ctx, victim.ID))
	o.down = victim.ID
	o.kills++
}

// revive brings back whom it killed.
func (o *ordeal) revive() {
	if o.down != "" {
		o.must(o.Restart(o.down))
		o.must(o.Ready(o.ctx, o.down))
		o.down = ""
	}
}

// writing starts the gates and their writers. What it returns ends them, and returns by partition what was acknowledged.
func (o *ordeal) writing(partitions int) (stop func() map[string][]uint64) {
	o.t.Helper()
	ctx, cancel := context.WithCancel(o.ctx)
	var running sync.WaitGroup
	var mu sync.Mutex
	acknowledged := map[string][]uint64{}
	var end []func() error
	for i := range ordealGates {
		c, err := client.Open(o.ctx, client.Options{Endpoints: o.endpoints})
		o.must(err)
		id := fmt.Sprintf("proxy-%d", i)
		gate, err := c.Gate(o.ctx, client.GateOptions{ID: id})
		o.must(err)
		end = append(end, func() error {
			closing, cancel := context.WithTimeout(context.WithoutCancel(o.ctx), StopLimit)
			defer cancel()
			o.fromMemory.Add(int64(gate.Stats().Hits))
			return errors.Join(gate.Close(closing), c.Close())
		})
		for k := range writersPerGate {
			running.Go(func() {
				number := uint64(i*writersPerGate + k)
				for n := uint64(0); ctx.Err() == nil; n++ {
					partition := fmt.Sprintf("hot-%d", rand.IntN(partitions))
					if key := number<<32 | n; o.write(ctx, gate, id, partition, key) {
						mu.Lock()
						acknowledged[partition] = append(acknowledged[partition], key)
						mu.Unlock()
					}
					_ = pause(ctx, time.Duration(10+rand.IntN(20))*time.Millisecond) // ctx is looked at next.
				}
			})
		}
	}
	return func() map[string][]uint64 {
		cancel()
		running.Wait()
		for _, end := range end {
			o.must(end())
		}
		return acknowledged
	}
}

// write checks the gate and lets one write land; it says whether that was acknowledged. Some take as long as they may, and a little longer.
func (o *ordeal) write(ctx context.Context, gate *client.Gate, who, partition string, key uint64) bool {
	asking, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	began := time.Now()
	pass, err := gate.Enter(asking, partition)
	var inCutover *client.CutoverError
	switch {
	case errors.As(err, &inCutover):
		o.ledger.Checked(who, partition, sim.Answer{Epoch: inCutover.Epoch}, began, time.Now())
		o.refused.Add(1)
		return false
	case err != nil:
		o.failed.Add(1)
		return false
	}
	defer pass.Done()
	o.ledger.Checked(who, partition, sim.Answer{Epoch: pass.Epoch, Owner: pass.Placement}, began, time.Now())
	takes := time.Duration(rand.IntN(3)) * time.Millisecond
	if rand.IntN(8) == 0 {
		takes = time.Duration(1.1 * rand.Float64() * float64(time.Until(pass.Deadline)))
	}
	if pause(ctx, takes) != nil {
		return false
	}
	return o.stores.land(who, place{partition, pass.Placement}, pass.Epoch, key, pass.Deadline)
}

// judge looks at what became of it all: nothing that was acknowledged is lost, and nothing came to be where it may not be.
func (o *ordeal) judge(movers []*mover, acknowledged map[string][]uint64) {
	o.t.Helper()
	for _, m := range movers {
		p, err := o.client.Partitions().GetPartition(o.ctx, &quoratev1.GetPartitionRequest{Partition: m.partition})
		o.must(err)
		if p.GetPartition().GetPlacement() != m.from || p.GetPartition().GetPhase() != active {
			o.t.Errorf("%s is to be at %s, and is %v", m.partition, m.from, p.GetPartition())
		}
		if n := o.stores.lost(place{m.partition, m.from}, acknowledged[m.partition]); n > 0 || len(acknowledged[m.partition]) == 0 {
			o.t.Errorf("%s: of %d acknowledged writes %d are lost", m.partition, len(acknowledged[m.partition]), n)
		}
	}
	for _, problem := range o.ledger.Problems() {
		o.t.Error(problem)
	}
	o.t.Logf("%d migrations completed, %d of them early, %d aborted and begun again, %d transitions, %d kills", o.completed.Load(), o.early.Load(), o.aborted.Load(),
		o.transitions.Load(), o.kills)
	o.t.Logf("%d writes landed, %d of them in a cutover, %d came too late, %d were refused in a cutover, %d could not be checked; %d checks were answered from memory",
		o.stores.landed, o.stores.drained, o.stores.late, o.refused.Load(), o.failed.Load(), o.fromMemory.Load())
	if o.stores.drained == 0 || o.stores.late == 0 || o.refused.Load() == 0 || o.fromMemory.Load() < int64(o.stores.landed)/4 || !o.wallAhead.Load() || !o.wallBehind.Load() {
		o.t.Errorf("it did too little to mean anything; a wall clock was ahead: %t, behind: %t", o.wallAhead.Load(), o.wallBehind.Load())
	}
}

// step lets each mover make its next step; false means that all have ended. Before that it brings back who was killed the last time, moves the wall clock of one
// member, and kills another one, then or while the steps are under way.
func (o *ordeal) step(n int, movers []*mover) bool {
	o.revive()
	o.moveWall(o.Members[n%len(o.Members)].ID, []time.Duration{wallMoves, -wallMoves}[n%2])
	if n%2 == 0 {
		o.kill(n)
	}
	var going atomic.Bool
	var steps sync.WaitGroup
	failures := make([]error, len(movers))
	for i, m := range movers {
		steps.Go(func() {
			moved, err := m.next()
			if moved {
				going.Store(true)
			}
			failures[i] = err
		})
	}
	if n%2 == 1 {
		o.must(o.pause(rand.N(mostOfAStep)))
		o.kill(n)
	}
	steps.Wait()
	o.must(errors.Join(failures...))
	return going.Load()
}

// TestMigrationsThroughKills is partitions.md §4 with real processes: writers behind gates, ten partitions that move at the same time, and at
// each step a member that dies, another one that has come back, and a wall clock that is moved.
func TestMigrationsThroughKills(t *testing.T) {
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	t.Run("", func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), ordealLimit+time.Duration(*migrations)*ordealMigration)
		defer cancel()
		o := startOrdeal(ctx, t)
		movers := o.create(hotPartitions)
		stop := o.writing(hotPartitions)
		began := time.Now()
		for n := 0; o.step(n, movers); n++ {
		}
		o.revive()
		t.Logf("%d migrations in %v", o.completed.Load(), time.Since(began).Round(time.Millisecond))
		o.judge(movers, stop())
	})
}
