package main

import (
	"context"
	"errors"
	"sync"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"quorate/cmd/quorate/migration"
	quoratev1 "quorate/proto/quorate/v1"
)

// planReaders is how many partitions are asked for at a time when many migrations are planned.
const planReaders = 16

// plan plans all jobs as of now. A partition that is not there is no reason not to plan the others.
func (o *options) plan(ctx context.Context, group *connection, m *migration.Options, jobs []migration.Job) ([]planned, error) {
	facts, err := gatherFacts(ctx, group)
	if err != nil {
		return nil, err
	}
	client := quoratev1.NewPartitionServiceClient(group)
	bar := o.newBar("plan", uint64(len(jobs)), false)
	defer bar.end()
	plans := make([]planned, len(jobs))
	next := make(chan int)
	var mu sync.Mutex
	var done uint64
	var readers sync.WaitGroup
	for range min(planReaders, len(jobs)) {
		readers.Go(func() {
			for i := range next {
				p := planned{job: jobs[i]}
				answer, err := client.GetPartition(ctx, &quoratev1.GetPartitionRequest{Partition: p.job.Partition})
				if p.err = err; err == nil {
					p.partition = answer.GetPartition()
					p.plan = migration.MakePlan(p.job, p.partition, m, facts)
				}
				plans[i] = p
				mu.Lock()
				done++
				bar.set(done)
				mu.Unlock()
			}
		})
	}
	for i := range jobs {
		next <- i
	}
	close(next)
	readers.Wait()
	for _, p := range plans {
		if p.err != nil && status.Code(unwrapped(p.err)) != codes.NotFound {
			return nil, p.err
		}
	}
	return plans, nil
}

// unwrapped is what a member answered.
func unwrapped(err error) error {
	var remote *remoteError
	if errors.As(err, &remote) {
		return remote.err
	}
	return err
}

// gatherFacts asks for what all plans need.
func gatherFacts(ctx context.Context, group *connection) (*migration.Facts, error) {
	partitions := quoratev1.NewPartitionServiceClient(group)
	settings, err := partitions.GetPartitionSettings(ctx, &quoratev1.GetPartitionSettingsRequest{})
	if err != nil {
		return nil, err
	}
	placements, err := partitions.ListPlacements(ctx, &quoratev1.ListPlacementsRequest{})
	if err != nil {
		return nil, err
	}
	instances, err := quoratev1.NewGateServiceClient(group).ListInstances(ctx, &quoratev1.ListInstancesRequest{})
	if err != nil {
		return nil, err
	}
	leases, err := quoratev1.NewLeaseServiceClient(group).ListLeases(ctx, &quoratev1.ListLeasesRequest{})
	if err != nil {
		return nil, err
	}
	topology, err := quoratev1.NewTopologyServiceClient(group).GetTopology(ctx, &quoratev1.GetTopologyRequest{})
	if err != nil {
		return nil, err
	}
	facts := &migration.Facts{Settings: settings.GetSettings(), Instances: len(instances.GetInstances()), Placements: map[string]bool{}}
	for _, p := range placements.GetPlacements() {
		facts.Placements[p.GetId()] = true
	}
	for _, l := range leases.GetLeases() {
		facts.MidApply = append(facts.MidApply, l.GetKey().GetServer())
	}
	for _, set := range topology.GetGeneration().GetTopology().GetSets() {
		for _, server := range set.GetServers() {
			facts.Servers = append(facts.Servers, server.GetMember())
		}
	}
	return facts, nil
}

// showPlans is a dry run. It fails as the run itself would, so that a script may ask whether it may begin.
func (o *options) showPlans(plans []planned) error {
	shown := []*migration.Plan{}
	var refused []error
	for _, p := range plans {
		if p.plan != nil {
			shown = append(shown, p.plan)
		}
		if err := p.refusal(); err != nil {
			refused = append(refused, err)
		}
	}
	err := o.showPlain(map[string]any{"plans": shown}, func(p *printer) {
		if len(shown) == 1 {
			printPlan(p, shown[0])
		} else {
			printPlans(p, shown)
		}
	})
	switch {
	case err != nil || len(refused) == 0:
		return err
	case len(plans) == 1:
		return refused[0]
	default:
		return &fleetError{what: "some migrations would be refused", errs: refused}
	}
}

// printPlan prints one plan in full.
func printPlan(p *printer, plan *migration.Plan) {
	p.line("plan for partition %s: %s at %s, epoch %d, to %s", plan.Partition, plan.Phase, plan.From, plan.Epoch, plan.To)
	rows := make([][]cell, 0, len(plan.Steps))
	for _, s := range plan.Steps {
		rows = append(rows, text("  "+s.Stage, s.What))
	}
	(&columns{}).write(p, rows)
	for _, lines := range []struct {
		colour string
		what   string
		lines  []string
	}{{bad, "refused", plan.Refused}, {warn, "waits", plan.Waits}, {plain, "note", plan.Notes}} {
		for _, line := range lines.lines {
			p.coloured(cell{text: "  " + lines.what + ": ", colour: lines.colour})
			p.line("%s", line)
		}
	}
}

// printPlans prints many plans, one row each.
func printPlans(p *printer, plans []*migration.Plan) {
	rows := make([][]cell, 0, len(plans))
	for _, plan := range plans {
		way := cell{text: "nothing", colour: good}
		switch {
		case len(plan.Refused) > 0:
			way = cell{text: plan.Refused[0], colour: bad}
		case len(plan.Waits) > 0:
			way = cell{text: plan.Waits[0], colour: warn}
		}
		rows = append(rows, text(plan.Partition, plan.Phase, plan.From, plan.To, plan.Epoch, plan.Barrier, way))
	}
	p.table([]string{"PARTITION", "PHASE", "FROM", "TO", "EPOCH", "BARRIER", "IN THE WAY"}, rows)
}
