package main

import (
	"context"

	quoratev1 "quorate/proto/quorate/v1"
)

// shownMigrations is how many migrations status and top show; of more they show the number.
const shownMigrations = 10

// partitionOverview is what the group says of its partitions.
type partitionOverview struct {
	placements *quoratev1.ListPlacementsResponse
	migrations *quoratev1.ListMigrationsResponse
	instances  *quoratev1.ListInstancesResponse
}

// lookAtPartitions asks for what there is of partitions.
func lookAtPartitions(ctx context.Context, group *connection, read *quoratev1.ReadOptions) (s partitionOverview, err error) {
	partitions := quoratev1.NewPartitionServiceClient(group)
	if s.placements, err = partitions.ListPlacements(ctx, &quoratev1.ListPlacementsRequest{Read: read}); err != nil {
		return s, err
	}
	if s.migrations, err = partitions.ListMigrations(ctx, &quoratev1.ListMigrationsRequest{Read: read, PageSize: shownMigrations}); err != nil {
		return s, err
	}
	s.instances, err = quoratev1.NewGateServiceClient(group).ListInstances(ctx, &quoratev1.ListInstancesRequest{Read: read})
	return s, err
}

// print prints nothing where there is nothing.
func (s partitionOverview) print(p *printer) {
	var all, migrate uint64
	for _, placement := range s.placements.GetPlacements() {
		all += placement.GetPartitions()
		migrate += placement.GetLeaving()
	}
	instances := len(s.instances.GetInstances())
	if all == 0 && instances == 0 {
		return
	}
	p.line("")
	p.line("%d partitions at %d placements, %d migrate, %d instances", all, len(s.placements.GetPlacements()), migrate, instances)
	if found := s.migrations.GetPartitions(); len(found) > 0 {
		printMigrations(p, found...)
		if migrate > uint64(len(found)) {
			p.line("and %d more", migrate-uint64(len(found)))
		}
	}
}
