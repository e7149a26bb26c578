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
	answer := &quoratev1.GetOverviewResponse{Header: header, Generation: state.CurrentGeneration(), Members: members}
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
