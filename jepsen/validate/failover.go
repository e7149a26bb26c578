package validate

import (
	"encoding/json"
	"slices"
	"time"

	"quorate/jepsen/history"
)

// failover is check 8.
func failover() check {
	return check{
		name: "failover", claim: "The failover client's gaps are within its budget, as far as there was a server to go to.",
		needs: []string{"failover"},
		judge: func(r *record, v *Verdict) {
			if r.run.FailoverBudget <= 0 {
				v.Undecided = append(v.Undecided, "the run has no budget")
				return
			}
			up := r.serversUp()
			for _, m := range r.Marks {
				if m.Kind != "failover" || m.Text != "cutOver" && m.Text != "value" {
					continue
				}
				gap, err := gapOf(m)
				if err != nil {
					v.problem(m.At, m.At, nil, "the line at %v can't be read: %v", m.At, err)
					continue
				}
				v.Checked++
				if gap <= r.run.FailoverBudget {
					continue
				}
				// What counts is for how long there was somewhere to go.
				if could := longest(up, m.At-gap, m.At); could > r.run.FailoverBudget {
					v.problem(m.At-gap, m.At, nil, "the client had no values for %v, though a server could be read for %v of it; the budget is %v", gap, could, r.run.FailoverBudget)
				}
			}
		},
	}
}

// gapOf is for how long a client had no values: of a cut-over its silence, of a value the time since the one before.
func gapOf(m history.Mark) (time.Duration, error) {
	var data struct {
		Gap     time.Duration `json:"gap"`
		Silence float64       `json:"silenceMilliseconds"`
	}
	err := json.Unmarshal(m.Data, &data)
	return max(data.Gap, time.Duration(data.Silence*float64(time.Millisecond))), err
}

// interval is a time in which some server could be read throughout.
type interval struct{ from, until time.Duration }

// serversUp are the times in which each server answered those who read its level, and said that it may be used.
func (r *record) serversUp() []interval {
	const usable = 2 // NoData, Maintenance and InvalidTopology are no servers to go to.
	looks := map[string][]look{}
	for _, l := range r.looks(&Verdict{}) {
		looks[l.server] = append(looks[l.server], l)
	}
	failed := map[string][]time.Duration{}
	for i := range r.Ops {
		if op := &r.Ops[i]; op.Noun == "level" && op.Outcome != history.OK {
			failed[op.Key] = append(failed[op.Key], op.Call)
		}
	}
	var up []interval
	for _, server := range sorted(looks) {
		slices.SortFunc(looks[server], func(a, b look) int { return int(a.from - b.from) })
		slices.Sort(failed[server])
		open := false
		for _, l := range looks[server] {
			if l.level <= usable {
				open = false
				continue
			}
			if n := len(up); open && l.until-up[n-1].until <= time.Second && !between(failed[server], up[n-1].until, l.from) {
				up[n-1].until = max(up[n-1].until, l.until)
				continue
			}
			up, open = append(up, interval{l.from, l.until}), true
		}
	}
	return up
}

// between says whether a sorted list has a moment in a time.
func between(moments []time.Duration, from, until time.Duration) bool {
	i, _ := slices.BinarySearch(moments, from)
	return i < len(moments) && moments[i] < until
}

// longest is the longest part of a time in which one and the same server was up.
func longest(up []interval, from, until time.Duration) time.Duration {
	most := time.Duration(0)
	for _, u := range up {
		most = max(most, min(u.until, until)-max(u.from, from))
	}
	return most
}
