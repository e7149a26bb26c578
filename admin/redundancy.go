package admin

import (
	"context"
	"encoding/json"
	"net/url"
	"slices"

	quoratev1 "quorate/proto/quorate/v1"
)

// redundancyPath is where the sets are, below root.
const redundancyPath = "redundancy"

// redundancyNoun is the redundant sets: each one's servers, the history of their levels, its roll-out, and what can be done with them.
var redundancyNoun = noun{
	title: "Redundancy", path: redundancyPath,
	screens: []screen{
		{pattern: redundancyPath, title: func(arguments) string { return "Redundancy" }, read: readSets},
		{pattern: redundancyPath + "/{set}", params: []string{"set"}, title: func(a arguments) string { return "Set " + a["set"] }, read: readSet},
	},
	changes: []change{swapChange, resumeChange, rollbackChange, maintenanceChange},
}

// setPath is where a set is.
func setPath(set string) string { return root + redundancyPath + "/" + url.PathEscape(set) }

func readSets(ctx context.Context, r *reader) ([]part, error) {
	o, err := r.overview(ctx, "", 1)
	if err != nil {
		return nil, err
	}
	var sets []setView
	for _, set := range o.GetGeneration().GetTopology().GetSets() {
		sets = append(sets, newSetView(o, set, r))
	}
	return []part{{template: "redundancy.sets", data: sets}}, nil
}

const (
	// chartChanges is how many changes of level of each server the chart has: all that are kept.
	chartChanges = 256
	// listedChanges is how many of them are listed beside it.
	listedChanges = 12
)

// setScreen is a set as its own page shows it.
type setScreen struct {
	setView
	Generation *quoratev1.Generation
	// What may be offered.
	Swap, Resume, Rollback bool
}

// historyView is the changes of level of a set's servers.
type historyView struct {
	Set     string
	Changes []levelChange
	// Chart is what the chart draws.
	Chart string
	More  bool
}

// levelChange is one of them, to be listed.
type levelChange struct {
	*quoratev1.LevelChange
	From, To level
}

func newLevelChange(c *quoratev1.LevelChange) levelChange {
	// Which band a level was of is not recorded with the change that ended it.
	return levelChange{c, level{Value: newLevel(c.GetBefore(), "", c.GetRole()).Value}, newLevel(c.GetAfter(), c.GetBand(), c.GetRole())}
}

func readSet(ctx context.Context, r *reader) ([]part, error) {
	id := r.arguments["set"]
	o, err := r.overview(ctx, id, chartChanges)
	if err != nil {
		return nil, err
	}
	for _, set := range o.GetGeneration().GetTopology().GetSets() {
		if set.GetId() != id {
			continue
		}
		v := setScreen{
			setView: newSetView(o, set, r), Generation: o.GetGeneration(),
			Swap:     r.may(quoratev1.TopologyService_PublishTopology_FullMethodName) && len(set.GetServers()) > 1,
			Resume:   r.may(quoratev1.ApplyService_ResumeApply_FullMethodName),
			Rollback: r.may(quoratev1.ApplyService_RollbackApply_FullMethodName),
		}
		if r.may(quoratev1.MaintenanceService_SetMaintenance_FullMethodName) {
			for i := range v.Servers {
				v.Servers[i].Maintain = maintain(&v.Servers[i])
			}
		}
		history, err := newHistoryView(o, set)
		if err != nil {
			return nil, err
		}
		return []part{
			{template: "redundancy.head", data: v}, {template: "redundancy.servers", data: v}, {template: "redundancy.rollout", data: v},
			{template: "redundancy.history", data: history}, {template: "redundancy.topology", data: v},
		}, nil
	}
	return nil, notFound("set", "the current topology has no set "+id)
}

// chart is what the browser draws: the levels of servers over time, each holding until the next.
type chart struct {
	Servers []chartServer `json:"servers"`
}

type chartServer struct {
	ID string `json:"id"`
	// Points are pairs of a time in Unix seconds and the level from then on, oldest first.
	Points [][2]float64 `json:"points"`
}

func newHistoryView(o *quoratev1.GetOverviewResponse, set *quoratev1.RedundantSet) (historyView, error) {
	v := historyView{Set: set.GetId()}
	var c chart
	for _, server := range set.GetServers() {
		line := chartServer{ID: server.GetMember(), Points: [][2]float64{}}
		for _, change := range o.GetLevelChanges() {
			if change.GetServer() != server.GetMember() {
				continue
			}
			at := change.GetAt().AsTime()
			line.Points = append(line.Points, [2]float64{float64(at.UnixMilli()) / 1000, float64(change.GetAfter())})
		}
		slices.Reverse(line.Points)
		c.Servers = append(c.Servers, line)
	}
	drawn, err := json.Marshal(c)
	if err != nil {
		return v, err
	}
	v.Chart = string(drawn)
	newest := slices.Clone(o.GetLevelChanges())
	// Wall times of several servers; of one, its own numbers tell the order.
	slices.SortStableFunc(newest, func(a, b *quoratev1.LevelChange) int { return b.GetAt().AsTime().Compare(a.GetAt().AsTime()) })
	v.More = len(newest) > listedChanges
	for _, change := range newest[:min(len(newest), listedChanges)] {
		v.Changes = append(v.Changes, newLevelChange(change))
	}
	return v, nil
}
