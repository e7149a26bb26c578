package traffic

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"quorate/client"
	"quorate/jepsen/history"
	quoratev1 "quorate/proto/quorate/v1"
)

const (
	// partitionCount is how many partitions there are: few enough that several clients meet at each.
	partitionCount = 12
	checkShare     = 0.3
	checkers       = 6
	// meddleEvery is the time between two transitions of those who don't care what others do.
	meddleEvery = 700 * time.Millisecond
	meddlers    = 2

	earlyFloor = 200 * time.Millisecond
)

// Barrier, MinBarrier and GateTTL are the settings that a run begins with: as short as they may be with writes of WriteLimit.
const (
	Barrier    = 2500 * time.Millisecond
	MinBarrier = 2 * time.Second
	GateTTL    = time.Second
)

var placements = []string{"b1", "b2", "b3", "b4"}

func partitions() Workload {
	return Workload{Name: "partition", Setup: setUpPartitions, Run: runPartitions, Quiet: quietPartitions, Final: finalPartitions}
}

func partitionOp(client, member, kind, partition string) history.Op {
	return history.Op{Client: client, Member: member, Noun: "partition", Kind: kind, Key: partition}
}

// setUpPartitions makes the partitions. Until every member has announced itself, partitions are not yet supported, so that may have to be tried again.
func setUpPartitions(ctx context.Context, e *Env) error {
	settings := &quoratev1.PartitionSettings{
		DrainBarrier: durationpb.New(Barrier), MinDrainBarrier: durationpb.New(MinBarrier), EarlyFloor: durationpb.New(earlyFloor), GateTtl: durationpb.New(GateTTL),
	}
	for {
		_, _, err := call(ctx, e, history.Op{Client: "setup", Noun: "settings", Kind: "set", Key: "settings"},
			&quoratev1.SetPartitionSettingsRequest{Settings: settings}, e.Group.Partitions().SetPartitionSettings)
		if err == nil {
			break
		}
		if !Rest(ctx, 200*time.Millisecond) {
			return errors.Join(err, ctx.Err())
		}
	}
	_, _, err := call(ctx, e, partitionOp("setup", "", "create", strings.Join(e.partitions, ",")),
		&quoratev1.CreatePartitionsRequest{Ids: e.partitions, Placement: placements[0]}, e.Group.Partitions().CreatePartitions)
	return err
}

// runPartitions has, for each partition, one who migrates it again and again; some who meddle with all of them; and some who check gates and write.
func runPartitions(ctx context.Context, e *Env) error {
	all := []func(context.Context) error{func(ctx context.Context) error { return keepSetting(ctx, e, "settings") }}
	for _, p := range e.partitions {
		m := &mover{env: e, client: "mover-" + p, random: e.random("mover-" + p)}
		all = append(all, func(ctx context.Context) error { return m.migrate(ctx, p) })
	}
	for i := range meddlers {
		name := "meddler-" + strconv.Itoa(i+1)
		m := &mover{env: e, client: name, random: e.random(name)}
		all = append(all, m.meddle)
	}
	for i := range checkers {
		all = append(all, func(ctx context.Context) error { return keepChecking(ctx, e, "checker-"+strconv.Itoa(i+1)) })
	}
	return together(ctx, all...)
}

// keepSetting changes the settings a little, and reads them.
func keepSetting(ctx context.Context, e *Env, name string) error {
	r := e.random(name)
	for Rest(ctx, between(r, 2*time.Second, 8*time.Second)) {
		c, member := e.where(r)
		op := history.Op{Client: name, Member: member, Noun: "settings", Kind: "set", Key: "settings"}
		_, _, _ = call(ctx, e, op, &quoratev1.SetPartitionSettingsRequest{Settings: &quoratev1.PartitionSettings{
			DrainBarrier: durationpb.New(between(r, MinBarrier, 2*MinBarrier)), GateTtl: durationpb.New(between(r, GateTTL/2, 2*GateTTL)),
		}}, c.Partitions().SetPartitionSettings)
		op.Kind = "get"
		_, _, _ = call(ctx, e, op, &quoratev1.GetPartitionSettingsRequest{Read: someRead(r)}, c.Partitions().GetPartitionSettings)
	}
	return nil
}

// mover makes transitions.
type mover struct {
	env    *Env
	client string
	random *rand.Rand
}

// migrate takes a partition from placement to placement, whatever others do with it meanwhile.
func (m *mover) migrate(ctx context.Context, id string) error {
	for Rest(ctx, between(m.random, 50*time.Millisecond, 900*time.Millisecond)) {
		c, member := m.env.where(m.random)
		resp, _, err := call(ctx, m.env, partitionOp(m.client, member, "get", id), &quoratev1.GetPartitionRequest{Partition: id}, c.Partitions().GetPartition)
		switch {
		case refusal(err) == client.ReasonUnknownPartition:
			_ = m.create(ctx, id)
			continue
		case err != nil:
			continue
		}
		p := resp.GetPartition()
		switch dice := m.random.IntN(10); {
		case p.GetPhase() == quoratev1.PartitionPhase_PARTITION_PHASE_ACTIVE && dice == 0:
			_ = m.place(ctx, id, p.GetEpoch())
		case p.GetPhase() == quoratev1.PartitionPhase_PARTITION_PHASE_ACTIVE:
			_ = m.begin(ctx, id, p.GetEpoch(), other(m.random, p.GetPlacement()))
		case dice < 2:
			_ = m.abort(ctx, id, p.GetEpoch())
		case p.GetPhase() == quoratev1.PartitionPhase_PARTITION_PHASE_DRAINING && (dice < 4 || p.GetMigration().GetVerificationRequired() && !p.GetMigration().GetVerified()):
			_ = m.report(ctx, id, p.GetEpoch())
		case p.GetPhase() == quoratev1.PartitionPhase_PARTITION_PHASE_DRAINING:
			_ = m.cutover(ctx, id, p.GetEpoch())
		default:
			_ = m.complete(ctx, id, p.GetEpoch())
		}
	}
	return nil
}

// meddle makes any transition of any partition.
func (m *mover) meddle(ctx context.Context) error {
	r := m.random
	for Rest(ctx, between(r, meddleEvery/2, meddleEvery*3/2)) {
		id := pick(r, m.env.partitions...)
		epoch := uint64(0) // It takes whatever is.
		if r.IntN(6) == 0 {
			epoch = 1 + r.Uint64N(20) // It is stale, most likely.
		}
		switch r.IntN(12) {
		case 0:
			_ = m.remove(ctx, id, epoch)
		case 1:
			_ = m.create(ctx, id)
		case 2, 3:
			_ = m.place(ctx, id, epoch)
		case 4, 5:
			_ = m.begin(ctx, id, epoch, pick(r, placements...))
		case 6, 7:
			_ = m.cutover(ctx, id, epoch)
		case 8, 9:
			_ = m.complete(ctx, id, epoch)
		case 10:
			_ = m.abort(ctx, id, epoch)
		default:
			_ = m.report(ctx, id, epoch)
		}
	}
	return nil
}

// other is a placement that is not this one.
func other(r *rand.Rand, than string) string {
	for {
		if p := pick(r, placements...); p != than {
			return p
		}
	}
}

func (m *mover) create(ctx context.Context, id string) error {
	c, member := m.env.where(m.random)
	_, _, err := call(ctx, m.env, partitionOp(m.client, member, "create", id),
		&quoratev1.CreatePartitionsRequest{Ids: []string{id}, Placement: pick(m.random, placements...)}, c.Partitions().CreatePartitions)
	return err
}

func (m *mover) place(ctx context.Context, id string, epoch uint64) error {
	c, member := m.env.where(m.random)
	_, _, err := call(ctx, m.env, partitionOp(m.client, member, "set_placement", id),
		&quoratev1.SetPlacementRequest{Partition: id, Placement: pick(m.random, placements...), ExpectedEpoch: epoch}, c.Partitions().SetPlacement)
	return err
}

func (m *mover) remove(ctx context.Context, id string, epoch uint64) error {
	c, member := m.env.where(m.random)
	_, _, err := call(ctx, m.env, partitionOp(m.client, member, "delete", id),
		&quoratev1.DeletePartitionRequest{Partition: id, ExpectedEpoch: epoch}, c.Partitions().DeletePartition)
	return err
}

func (m *mover) begin(ctx context.Context, id string, epoch uint64, to string) error {
	c, member := m.env.where(m.random)
	request := &quoratev1.BeginMigrationRequest{
		Partition: id, To: to, ExpectedEpoch: epoch, EarlyCompletion: m.random.IntN(3) == 0, VerificationRequired: m.random.IntN(6) == 0,
	}
	switch m.random.IntN(6) {
	case 0:
		request.DrainBarrier = durationpb.New(MinBarrier)
	case 1:
		request.Servers = []string{pick(m.random, memberIDs(m.env)...)}
	}
	_, _, err := call(ctx, m.env, partitionOp(m.client, member, "begin", id), request, c.Partitions().BeginMigration)
	return err
}

func memberIDs(e *Env) []string {
	var ids []string
	for _, m := range e.shape.members {
		ids = append(ids, m.ID)
	}
	return ids
}

func (m *mover) report(ctx context.Context, id string, epoch uint64) error {
	c, member := m.env.where(m.random)
	_, _, err := call(ctx, m.env, partitionOp(m.client, member, "report", id), &quoratev1.ReportMigrationRequest{
		Partition: id, ExpectedEpoch: epoch, Verified: true, Copy: &quoratev1.CopyProgress{Done: m.random.Uint64N(100), Total: 100},
	}, c.Partitions().ReportMigration)
	return err
}

func (m *mover) cutover(ctx context.Context, id string, epoch uint64) error {
	c, member := m.env.where(m.random)
	_, _, err := call(ctx, m.env, partitionOp(m.client, member, "cutover", id),
		&quoratev1.CutoverMigrationRequest{Partition: id, ExpectedEpoch: epoch}, c.Partitions().CutoverMigration)
	return err
}

func (m *mover) complete(ctx context.Context, id string, epoch uint64) error {
	c, member := m.env.where(m.random)
	_, _, err := call(ctx, m.env, partitionOp(m.client, member, "complete", id),
		&quoratev1.CompleteMigrationRequest{Partition: id, ExpectedEpoch: epoch}, c.Partitions().CompleteMigration)
	return err
}

func (m *mover) abort(ctx context.Context, id string, epoch uint64) error {
	c, member := m.env.where(m.random)
	_, _, err := call(ctx, m.env, partitionOp(m.client, member, "abort", id),
		&quoratev1.AbortMigrationRequest{Partition: id, ExpectedEpoch: epoch}, c.Partitions().AbortMigration)
	return err
}

// keepChecking resolves partitions and checks gates with what it was told, at the same member or another, and writes where a check passes.
func keepChecking(ctx context.Context, e *Env, name string) error {
	r, pace := e.random(name), e.pace(checkShare/2, checkers)
	for pace.wait(ctx) {
		id := pick(r, e.partitions...)
		c, member := e.where(r)
		resp, _, err := call(ctx, e, partitionOp(name, member, "resolve", id),
			&quoratev1.ResolveRequest{Read: someRead(r), Partitions: []string{id}}, c.Partitions().Resolve)
		if err != nil || len(resp.GetResolutions()) != 1 {
			continue
		}
		if r.IntN(2) == 0 {
			c, member = e.where(r)
		}
		_ = check(ctx, e, name, r, c, member, id, resp.GetResolutions()[0].GetEpoch())
	}
	return nil
}

// check checks one gate and writes if it passes.
func check(ctx context.Context, e *Env, name string, r *rand.Rand, c *client.Client, member, id string, epoch uint64) error {
	resp, op, err := call(ctx, e, partitionOp(name, member, "check_gate", id), &quoratev1.CheckGateRequest{Partition: id, Epoch: epoch}, c.Gates().CheckGate)
	if err == nil {
		e.stores.write(r, op, id, resp.GetPlacement(), resp.GetEpoch(), func() {})
	}
	return err
}

// quietPartitions resolves and checks at every member, and makes one transition of each partition.
func quietPartitions(ctx context.Context, e *Env, as string) error {
	r := e.random(as)
	m := &mover{env: e, client: as, random: r}
	var errs []error
	for i, id := range e.partitions {
		if ctx.Err() != nil {
			return errors.Join(append(errs, ctx.Err())...)
		}
		member := e.shape.members[i%len(e.shape.members)].ID
		resp, _, err := call(ctx, e, partitionOp(as, member, "resolve", id), &quoratev1.ResolveRequest{Partitions: []string{id}}, e.At[member].Partitions().Resolve)
		errs = append(errs, succeeded("resolve at "+member, err))
		if err == nil {
			errs = append(errs, succeeded("check a gate at "+member, check(ctx, e, as, r, e.At[member], member, id, resp.GetResolutions()[0].GetEpoch())))
		}
		errs = append(errs, succeeded("abort", m.abort(ctx, id, 0)), succeeded("begin", m.begin(ctx, id, 0, pick(r, placements...))))
	}
	return errors.Join(errs...)
}

// finalPartitions reads every partition and the settings.
func finalPartitions(ctx context.Context, e *Env, as string) error {
	for _, id := range e.partitions {
		_, _, err := call(ctx, e, partitionOp(as, "", "get", id), &quoratev1.GetPartitionRequest{Partition: id}, e.Group.Partitions().GetPartition)
		if err = succeeded("get "+id, err); err != nil {
			return err
		}
	}
	_, _, err := call(ctx, e, history.Op{Client: as, Noun: "settings", Kind: "get", Key: "settings"},
		&quoratev1.GetPartitionSettingsRequest{}, e.Group.Partitions().GetPartitionSettings)
	if err != nil {
		return fmt.Errorf("get the settings: %w", err)
	}
	return nil
}
