package validate

import (
	"encoding/json"
	"slices"
	"time"

	"quorate/jepsen/history"
)

// The lowest ServiceLevel of the Healthy sub-range (OPC 10000-4 §6.6.2.4.2).
const healthy = 200

// levelGap is the longest time between two looks at a server that is taken for one stretch: if both found it Healthy, it was so between them. It is shorter than any
// way there and back: of two swaps of the roles each takes a publish, and two grants by the group.
const levelGap = 250 * time.Millisecond

// look is a server's level at a moment: at the source's time if that is between call and return, as on one machine it must be, else some time between them.
type look struct {
	server      string
	level       int
	from, until time.Duration
	op          int
}

// levels is check 4.
func levels() check {
	return check{
		name: "levels", claim: "No two servers of a set advertise 200 or more at one instant, as read over OPC UA from outside.",
		needs: []string{"level"},
		judge: func(r *record, v *Verdict) {
			bySet := map[string]map[string][]look{}
			for _, l := range r.looks(v) {
				set := r.sets[l.server]
				if set == "" || r.exempt[set] {
					continue
				}
				if bySet[set] == nil {
					bySet[set] = map[string][]look{}
				}
				bySet[set][l.server] = append(bySet[set][l.server], l)
			}
			for _, set := range sorted(bySet) {
				judgeSet(v, set, bySet[set])
			}
		},
	}
}

// looks are the readings of levels, and what subscriptions were told.
func (r *record) looks(v *Verdict) []look {
	var found []look
	for i := range r.Ops {
		op := &r.Ops[i]
		if op.Noun != "level" || op.Outcome != history.OK {
			continue
		}
		var out struct {
			Level  int           `json:"level"`
			Source time.Duration `json:"source"`
		}
		if err := json.Unmarshal(op.Output, &out); err != nil {
			v.problem(op.Call, op.Return, []int{op.ID}, "operation %d can't be read: %v", op.ID, err)
			continue
		}
		l := look{op.Key, out.Level, op.Call, op.Return, op.ID}
		if out.Source >= op.Call && out.Source <= op.Return {
			l.from, l.until = out.Source, out.Source
		}
		found = append(found, l)
	}
	return found
}

// stretch is a time throughout which a server was Healthy.
type stretch struct {
	server      string
	from, until time.Duration
	ops         [2]int
}

// judgeSet compares the servers of one set. A moment between the first and the last of neighbouring looks that found a server Healthy counts as Healthy.
func judgeSet(v *Verdict, set string, servers map[string][]look) {
	if len(servers) < 2 {
		return
	}
	var all []stretch
	for _, server := range sorted(servers) {
		looks := servers[server]
		slices.SortFunc(looks, func(a, b look) int { return int(a.from - b.from) })
		v.Checked += len(looks)
		all = append(all, stretches(looks)...)
	}
	slices.SortFunc(all, func(a, b stretch) int { return int(a.from - b.from) })
	for i, a := range all {
		for _, b := range all[i+1:] {
			if b.from > a.until {
				break
			}
			if a.server != b.server {
				ms := func(d time.Duration) time.Duration { return d.Round(time.Millisecond) }
				v.problem(b.from, min(a.until, b.until), []int{a.ops[0], a.ops[1], b.ops[0], b.ops[1]},
					"set %s: %s (Healthy from %v to %v) and %s (from %v to %v) were Healthy at once, for %v at least", set, a.server, ms(a.from), ms(a.until), b.server, ms(b.from), ms(b.until),
					min(a.until, b.until)-b.from)
			}
		}
	}
}

// stretches are the times in which looks, in the order of their beginnings, certainly found a server Healthy: from the end of one look to the beginning of a later
// one, with no look between that found it otherwise. A look whose moment is known is one by itself.
func stretches(looks []look) []stretch {
	var found []stretch
	var current *stretch
	var last, low time.Duration
	for _, l := range looks {
		switch {
		case l.level < healthy:
			current, low = nil, max(low, l.until)
		case l.from < low:
			current = nil // It may have been before it was lower.
		case current != nil && l.from-last <= levelGap:
			current.until, current.ops[1] = max(current.until, l.from), l.op
			last = max(last, l.until)
		default:
			found = append(found, stretch{l.server, l.until, l.from, [2]int{l.op, l.op}})
			current, last = &found[len(found)-1], l.until
		}
	}
	return slices.DeleteFunc(found, func(s stretch) bool { return s.until < s.from })
}
