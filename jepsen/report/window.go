package report

import (
	"cmp"
	"fmt"
	"html/template"
	"slices"
	"strings"
	"time"

	"quorate/jepsen/history"
	"quorate/jepsen/validate"
)

// window is a problem and what happened around it.
type window struct {
	Check   string
	Text    string
	From    time.Duration
	Until   time.Duration
	Drawing template.HTML
	Members []memberStory
	Ops     []shownOp
	LeftOut int
}

// memberStory is what happened on one member.
type memberStory struct {
	Member string
	Lines  []string
}

// shownOp is an operation in a table.
type shownOp struct {
	history.Op
	Involved bool
}

// Was is how it ended, for people.
func (o shownOp) Was() string {
	text := string(o.Output)
	if o.Error != "" {
		text = o.Error
	}
	return short(text)
}

// Asked is what was asked.
func (o shownOp) Asked() string { return short(string(o.Input)) }

func short(text string) string {
	const most = 240
	if len(text) > most {
		return strings.ToValidUTF8(text[:most], "") + " …"
	}
	return text
}

func windows(h history.History, verdicts []validate.Verdict) []window {
	var found []window
	for _, v := range verdicts {
		for _, p := range v.Problems {
			if !dated(p) {
				continue
			}
			if len(found) == MaxWindows {
				return found
			}
			found = append(found, newWindow(h, v.Name, p))
		}
	}
	return found
}

// dated says whether a problem is of some time of the run, and not of all of it.
func dated(p validate.Problem) bool { return p.Until > 0 || len(p.Ops) > 0 }

func newWindow(h history.History, check string, p validate.Problem) window {
	w := window{Check: check, Text: p.Text, From: max(p.From-around, 0), Until: p.Until + around}
	if w.Until-w.From > windowMost {
		w.From = max(w.Until-windowMost, 0) // What is wrong shows at the end.
	}
	involved := map[int]bool{}
	for _, id := range p.Ops {
		involved[id] = true
	}
	near := history.History{}
	for _, op := range h.Ops {
		if involved[op.ID] || op.Call <= w.Until && (op.Return >= w.From || op.Return == 0) {
			near.Ops = append(near.Ops, op)
		}
	}
	for _, m := range h.Marks {
		if m.Kind == "leader" || m.At <= w.Until && max(m.At, m.Until) >= w.From {
			near.Marks = append(near.Marks, m)
		}
	}
	w.Members = stories(near, w)
	w.choose(near, involved)
	w.Drawing = w.draw(near, involved, p)
	return w
}

// choose keeps the operations that are shown: those that the check names first, then those that the group knew most about.
func (w *window) choose(near history.History, involved map[int]bool) {
	all := slices.Clone(near.Ops)
	rank := func(op history.Op) int {
		switch {
		case involved[op.ID]:
			return 0
		case op.Outcome != history.OK:
			return 1
		case slices.Contains(writes, op.Kind):
			return 2
		}
		return 3
	}
	slices.SortStableFunc(all, func(a, b history.Op) int { return cmp.Compare(rank(a), rank(b)) })
	if len(all) > MaxWindowOps {
		w.LeftOut = len(all) - MaxWindowOps
		all = all[:MaxWindowOps]
	}
	slices.SortStableFunc(all, func(a, b history.Op) int { return cmp.Compare(a.Call, b.Call) })
	for _, op := range all {
		w.Ops = append(w.Ops, shownOp{op, involved[op.ID]})
	}
}

// draw draws the chosen operations, each at its full length, one lane for each client, below the faults, leaders and levels of the time.
func (w *window) draw(near history.History, involved map[int]bool, p validate.Problem) template.HTML {
	d := &drawing{from: w.From, length: max(w.Until-w.From, time.Millisecond)}
	d.axis()
	d.faults(near)
	d.leaders(near)
	d.levels(near)
	d.title("Operations, from call to return; those that the check names have a frame")
	clients := map[string][]shownOp{}
	for _, op := range w.Ops {
		clients[op.Client] = append(clients[op.Client], op)
	}
	for _, name := range sorted(clients) {
		d.next(name)
		for _, op := range clients[name] {
			until := op.Return
			if until == 0 {
				until = w.Until
			}
			class := classes[severity(op.Outcome)]
			if involved[op.ID] {
				class += " involved"
			}
			d.box(class, op.Call, until, fmt.Sprintf("%d: %s %s of %s at %s: %s %s", op.ID, op.Noun, op.Kind, op.Key, op.Member, op.Outcome, op.Was()))
		}
		d.y += lane
	}
	d.axis()
	return d.finish([]validate.Problem{p})
}

// stories tell for each member what was done to it and what it was seen to do.
func stories(near history.History, w window) []memberStory {
	lines := map[string][]string{}
	add := func(member string, at time.Duration, text string) {
		lines[member] = append(lines[member], fmt.Sprintf("%s: %s", seconds(at), text))
	}
	for _, m := range near.Marks {
		switch m.Kind {
		case "fault":
			for _, member := range faultOf(m).Members {
				add(member, m.At, fmt.Sprintf("%s (until %s)", faultOf(m).Text, seconds(m.Until)))
			}
		case "leader":
			if m.At >= w.From && m.At <= w.Until {
				add(m.Member, m.At, "leads the group")
			}
		}
	}
	counts := map[string]*[4]int{}
	for _, op := range near.Ops {
		if op.Member == "" {
			continue
		}
		if counts[op.Member] == nil {
			counts[op.Member] = &[4]int{}
		}
		counts[op.Member][severity(op.Outcome)]++
	}
	for _, member := range sorted(counts) {
		c := counts[member]
		lines[member] = append(lines[member], fmt.Sprintf("answered %d operations, refused %d, failed %d, left %d open", c[0], c[1], c[2], c[3]))
	}
	var found []memberStory
	for _, member := range sorted(lines) {
		found = append(found, memberStory{member, lines[member]})
	}
	return found
}
