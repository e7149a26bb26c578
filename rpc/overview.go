package rpc

import (
	"context"
	"fmt"

	"quorate/fsm"
	quoratev1 "quorate/proto/quorate/v1"
)

type overviewService struct {
	quoratev1.UnimplementedOverviewServiceServer
	server *Server
}

// GetOverview returns everything at one revision, and with it what the members say of themselves.
func (o *overviewService) GetOverview(ctx context.Context, request *quoratev1.GetOverviewRequest) (*quoratev1.GetOverviewResponse, error) {
	if request.GetLevelChanges() > 1 && request.GetSet() == "" {
		return nil, invalid("level_changes", "%d of each server are too many of all sets; name a set, or ask for 1", request.GetLevelChanges())
	}
	// The members are asked first, since that takes time: what they say is then the older part, and the state explains it.
	members, err := o.server.config.Node.Members(ctx)
	if err != nil {
		return nil, err
	}
	view, header, err := o.server.read(ctx, request.GetRead())
	if err != nil {
		return nil, err
	}
	state := view.State
	answer := &quoratev1.GetOverviewResponse{
		Header: header, Generation: state.CurrentGeneration(), Members: members,
		Partitions: partitionOverview(state, request.GetPartitions(), o.server.config.Limits.MaxPageBytes/pagesOfPartitions),
	}
	servers := make(map[string]bool)
	for _, set := range answer.GetGeneration().GetTopology().GetSets() {
		if request.GetSet() != "" && request.GetSet() != set.GetId() {
			continue
		}
		if rollout, ok := state.Rollout(set.GetId()); ok {
			answer.Rollouts = append(answer.Rollouts, rollout)
		}
		for _, server := range set.GetServers() {
			servers[server.GetMember()] = true
			answer.LevelChanges = append(answer.LevelChanges, state.LevelChanges(server.GetMember(), int(request.GetLevelChanges()))...)
		}
	}
	if request.GetSet() != "" && len(servers) == 0 {
		return nil, noSet(request.GetSet())
	}
	wanted := func(server string) bool { return request.GetSet() == "" || servers[server] }
	o.addRecords(answer, state, wanted)
	if limit := o.server.config.Limits.MaxListedLeases; len(answer.Leases) > limit {
		return nil, exhausted(ReasonAnswerTooLarge, fmt.Sprintf("%d leases are more than the %d of one answer; name a set", len(answer.Leases), limit))
	}
	return answer, nil
}

// addRecords adds what is recorded of the wanted servers.
func (*overviewService) addRecords(answer *quoratev1.GetOverviewResponse, state *fsm.State, wanted func(server string) bool) {
	for _, serving := range state.AllServing() {
		if wanted(serving.GetServer()) {
			answer.Serving = append(answer.Serving, serving)
		}
	}
	for _, lease := range state.Leases("", false) {
		if wanted(lease.GetKey().GetServer()) {
			answer.Leases = append(answer.Leases, lease)
		}
	}
	for _, maintenance := range state.AllMaintenance() {
		if wanted(maintenance.GetServer()) {
			answer.Maintenance = append(answer.Maintenance, maintenance)
		}
	}
}

// pagesOfPartitions is how many pages of an overview can be long: together they are as one page elsewhere.
const pagesOfPartitions = 2

// partitionOverview is what there is of partitions, and what is selected of it, each of its two long pages in so many bytes.
func partitionOverview(state *fsm.State, s *quoratev1.PartitionSelection, bytes int) *quoratev1.PartitionOverview {
	all, migrating := state.PartitionCount()
	answer := &quoratev1.PartitionOverview{
		PartitionCount: uint64(all), MigrationCount: uint64(migrating), PlacementCount: uint64(state.PlacementCount()),
		InstanceCount: uint64(state.InstanceCount()), Settings: state.PartitionSettings(),
	}
	if s.GetPartition() != "" {
		// That there is none is for whoever asked to say: the rest of the overview is as it is.
		answer.Partition, _ = state.Partition(s.GetPartition())
	}
	if page := s.GetPartitions(); page != nil {
		found, last, more := state.PartitionPage(page.GetToken(), s.GetPrefix(), s.GetPlacement(), int(page.GetSize()))
		answer.Partitions, answer.NextPartition = cutPage(found, last, more, bytes)
	}
	if page := s.GetMigrations(); page != nil {
		found, last, more := state.MigrationPage(page.GetToken(), s.GetPlacement(), int(page.GetSize()))
		answer.Migrations, answer.NextMigration = cutPage(found, last, more, bytes)
	}
	if page := s.GetPlacements(); page != nil {
		found, more := state.PlacementPage(page.GetToken(), int(page.GetSize()))
		if answer.Placements = found; more {
			answer.NextPlacement = found[len(found)-1].GetId()
		}
	}
	if page := s.GetInstances(); page != nil {
		found, more := state.InstancePage(page.GetToken(), int(page.GetSize()))
		if answer.Instances = found; more {
			answer.NextInstance = found[len(found)-1].GetId()
		}
	}
	return answer
}
