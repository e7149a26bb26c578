package admin

import (
	"context"

	quoratev1 "quorate/proto/quorate/v1"
)

// overviewNoun is the first page: who may serve, and how the group is.
var overviewNoun = noun{title: "Overview", screens: []screen{{
	pattern: "{$}",
	title:   func(arguments) string { return "Overview" },
	read:    readOverview,
}}}

// setView is a redundant set.
type setView struct {
	ID, Mode, Policies, Path string
	Rollout                  *rolloutView
	Servers                  []serverView
}

func newSetView(o *quoratev1.GetOverviewResponse, set *quoratev1.RedundantSet, r *reader) setView {
	v := setView{
		ID: set.GetId(), Mode: set.GetMode(), Policies: policiesText(set.GetPolicies()), Path: setPath(set.GetId()),
		Rollout: newRolloutView(rolloutOf(o, set.GetId())),
	}
	for _, server := range set.GetServers() {
		v.Servers = append(v.Servers, newServerView(o, set, server, r.now))
	}
	return v
}

func readOverview(ctx context.Context, r *reader) ([]part, error) {
	o, err := r.ask(ctx, &quoratev1.GetOverviewRequest{
		LevelChanges: 1, Partitions: &quoratev1.PartitionSelection{Migrations: &quoratev1.PageSelection{Size: cardMigrations}},
	})
	if err != nil {
		return nil, err
	}
	parts := []part{{template: "overview.head", data: o.GetGeneration()}}
	for _, set := range o.GetGeneration().GetTopology().GetSets() {
		// Each by itself, so that a level that moves is a short message whatever the number of sets.
		parts = append(parts, part{template: "overview.set", key: "set " + set.GetId(), data: newSetView(o, set, r)})
	}
	if found := o.GetPartitions(); found.GetPartitionCount()+found.GetInstanceCount() > 0 {
		r := &partitionReader{reader: r, o: o, found: found}
		parts = append(parts, part{template: "partition.card", data: r.card()})
	}
	return append(parts, part{template: "member.table", data: newMemberTable(o, r, false)}), nil
}
