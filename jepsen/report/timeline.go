package report

import (
	"encoding/json"
	"fmt"
	"html"
	"html/template"
	"slices"
	"strings"
	"time"

	"quorate/jepsen/history"
	"quorate/jepsen/validate"
)

// Sizes of the drawing, in pixels.
const (
	labels = 190
	width  = 1200
	lane   = 15
	bar    = 11
)

// drawing is an SVG that grows downwards, with time from left to right.
type drawing struct {
	strings.Builder
	from, length time.Duration
	y            int
}

func (d *drawing) x(at time.Duration) float64 {
	at = min(max(at, d.from), d.from+d.length)
	return labels + float64(at-d.from)/float64(d.length)*(width-labels-10)
}

// title begins a new block of lanes.
func (d *drawing) title(text string) {
	d.y += 24
	fmt.Fprintf(&d.Builder, `<text class="title" x="0" y="%d">%s</text>`, d.y, html.EscapeString(text))
	d.y += 6
}

// next begins a new lane.
func (d *drawing) next(label string) {
	fmt.Fprintf(&d.Builder, `<text class="label" x="%d" y="%d">%s</text><rect class="lane" x="%d" y="%d" width="%d" height="%d"/>`,
		labels-6, d.y+bar-1, html.EscapeString(label), labels, d.y, width-labels-10, bar)
}

// box draws a stretch of time in the present lane.
func (d *drawing) box(class string, from, until time.Duration, title string) {
	if until < d.from || from > d.from+d.length {
		return
	}
	fmt.Fprintf(&d.Builder, `<rect class="%s" x="%.1f" y="%d" width="%.1f" height="%d"><title>%s</title></rect>`,
		class, d.x(from), d.y, max(d.x(until)-d.x(from), 1.5), bar, html.EscapeString(title))
}

func (d *drawing) axis() {
	d.y += 4
	for i := range 11 {
		at := d.from + d.length*time.Duration(i)/10
		fmt.Fprintf(&d.Builder, `<text class="axis" x="%.1f" y="%d">%.1f s</text>`, d.x(at), d.y+10, at.Seconds())
	}
	d.y += 16
}

// finish returns the SVG, with the problems over everything.
func (d *drawing) finish(problems []validate.Problem) template.HTML {
	var over strings.Builder
	for _, p := range problems {
		if !dated(p) || p.Until < d.from || p.From > d.from+d.length {
			continue
		}
		fmt.Fprintf(&over, `<rect class="problem" x="%.1f" y="0" width="%.1f" height="%d"><title>%s</title></rect>`,
			d.x(p.From)-1, max(d.x(p.Until)-d.x(p.From), 1)+2, d.y, html.EscapeString(p.Text))
	}
	// All text in it is escaped where it is written.
	return template.HTML(fmt.Sprintf(`<svg viewBox="0 0 %d %d" width="%d" height="%d" role="img">%s%s</svg>`, width, d.y+8, width, d.y+8, over.String(), d.String()))
}

func drawTimeline(h history.History, verdicts []validate.Verdict) template.HTML {
	d := &drawing{length: max(length(h), time.Millisecond)}
	var problems []validate.Problem
	for _, v := range verdicts {
		problems = append(problems, v.Problems...)
	}
	d.axis()
	d.faults(h)
	d.leaders(h)
	d.levels(h)
	d.rate(h)
	d.clients(h)
	d.axis()
	return d.finish(problems)
}

// faults has a lane for each kind, since faults of different kinds overlap.
func (d *drawing) faults(h history.History) {
	kinds := map[string][]history.Mark{}
	for _, m := range h.Marks {
		if m.Kind == "fault" && m.Until >= d.from && m.At <= d.from+d.length {
			kinds[faultOf(m).Kind] = append(kinds[faultOf(m).Kind], m)
		}
	}
	if len(kinds) == 0 {
		return
	}
	d.title("Faults: what was broken, from the moment it was until it was healed")
	for _, kind := range sorted(kinds) {
		d.next(kind)
		for _, m := range kinds[kind] {
			r := faultOf(m)
			d.box("fault", m.At, m.Until, fmt.Sprintf("%s (%s to %s). Seen: %s", r.Text, seconds(m.At), seconds(m.Until), r.Effect))
		}
		d.y += lane
	}
}

// leaders has a lane for each member, drawn from the moment at which it was seen to lead until another was.
func (d *drawing) leaders(h history.History) {
	var marks []history.Mark
	members := map[string]bool{}
	for _, m := range h.Marks {
		if m.Kind == "leader" {
			marks = append(marks, m)
			members[m.Member] = true
		}
	}
	if len(marks) == 0 {
		return
	}
	slices.SortStableFunc(marks, func(a, b history.Mark) int { return int(a.At - b.At) })
	d.title("Raft leader: who was seen to lead, until another was")
	for _, member := range sorted(members) {
		d.next(member)
		for i, m := range marks {
			until := d.from + d.length
			if i+1 < len(marks) {
				until = marks[i+1].At
			}
			if m.Member == member {
				d.box("leader", m.At, until, fmt.Sprintf("%s leads from %s %s", member, seconds(m.At), m.Data))
			}
		}
		d.y += lane
	}
}

// levelClass is how a ServiceLevel is drawn (OPC 10000-4 §6.6.2.4.2: sub-ranges).
func levelClass(level int) string {
	switch {
	case level >= 200:
		return "healthy"
	case level > 2:
		return "degraded"
	default:
		return "down"
	}
}

// levels has a lane for each server, in bins: the best level that was read in each, and where it could not be read.
func (d *drawing) levels(h history.History) {
	const unread = -1
	found := map[string]*[bins]int{}
	for _, op := range h.Ops {
		if op.Noun != "level" || op.Return < d.from || op.Call > d.from+d.length {
			continue
		}
		if found[op.Key] == nil {
			found[op.Key] = &[bins]int{}
			for i := range found[op.Key] {
				found[op.Key][i] = -2
			}
		}
		level := unread
		var out struct {
			Level int `json:"level"`
		}
		if op.Outcome == history.OK && json.Unmarshal(op.Output, &out) == nil {
			level = out.Level
		}
		b := d.bin(op.Return)
		found[op.Key][b] = max(found[op.Key][b], level)
	}
	if len(found) == 0 {
		return
	}
	d.title("ServiceLevel of each server, as read over OPC UA: 200 and more is Healthy, which one server of a set may be at a time. Each part shows the best of its time")
	for _, server := range sorted(found) {
		d.next(server)
		d.runs(found[server][:], func(level int) (string, string) {
			switch level {
			case -2:
				return "", ""
			case unread:
				return "unread", server + " could not be read"
			}
			return levelClass(level), fmt.Sprintf("%s: %d", server, level)
		})
		d.y += lane
	}
}

func (d *drawing) bin(at time.Duration) int {
	return min(max(int(int64(at-d.from)*bins/int64(d.length)), 0), bins-1)
}

// runs draws neighbouring bins of one value as one box.
func (d *drawing) runs(values []int, look func(value int) (class, title string)) {
	for i := 0; i < len(values); {
		j := i
		for j < len(values) && values[j] == values[i] {
			j++
		}
		if class, title := look(values[i]); class != "" {
			from, until := d.from+d.length*time.Duration(i)/bins, d.from+d.length*time.Duration(j)/bins
			d.box(class, from, until, fmt.Sprintf("%s, %s to %s", title, seconds(from), seconds(until)))
		}
		i = j
	}
}

// rate draws how many operations ended in each bin, and how.
func (d *drawing) rate(h history.History) {
	var counts [4][bins]int
	most := 1
	for _, op := range h.Ops {
		if op.Return == 0 || op.Noun == "level" {
			continue
		}
		counts[severity(op.Outcome)][d.bin(op.Return)]++
	}
	for b := range bins {
		most = max(most, counts[0][b]+counts[1][b]+counts[2][b]+counts[3][b])
	}
	const height = 70
	d.title(fmt.Sprintf("Operations of all clients without reads of levels: at most %.0f a second", float64(most)/(d.length.Seconds()/bins)))
	d.y += height
	for b := range bins {
		base := float64(d.y)
		from := d.from + d.length*time.Duration(b)/bins
		for severity, class := range classes {
			n := counts[severity][b]
			if n == 0 {
				continue
			}
			tall := max(float64(n)*height/float64(most), 1)
			base -= tall
			fmt.Fprintf(&d.Builder, `<rect class="%s" x="%.1f" y="%.1f" width="%.1f" height="%.1f"><title>%d %s from %s</title></rect>`,
				class, d.x(from), base, float64(width-labels-10)/bins, tall, n, class, seconds(from))
		}
	}
	d.y += 6
}

// classes are the outcomes from the best to the worst.
var classes = []string{"ok", "refused", "failed", "unknown"}

func severity(o history.Outcome) int { return max(slices.Index(classes, string(o)), 0) }

// clients has a lane for each client, in bins: the worst outcome of what ended in each.
func (d *drawing) clients(h history.History) {
	worst := map[string]*[bins]int{}
	members := map[string]string{}
	for _, op := range h.Ops {
		if worst[op.Client] == nil {
			worst[op.Client] = &[bins]int{}
		}
		at := op.Return
		if at == 0 {
			at = op.Call
		}
		b := d.bin(at)
		worst[op.Client][b] = max(worst[op.Client][b], severity(op.Outcome)+1)
		members[op.Client] = op.Member
	}
	names := sorted(worst)
	d.title("Clients: the worst outcome of each moment")
	for i, name := range names {
		if i == MaxClients {
			fmt.Fprintf(&d.Builder, `<text class="label" x="%d" y="%d">%d more are not drawn</text>`, labels-6, d.y+bar, len(names)-MaxClients)
			d.y += lane
			break
		}
		d.next(name)
		d.runs(worst[name][:], func(v int) (string, string) {
			if v == 0 {
				return "", ""
			}
			return classes[v-1], name + ": " + classes[v-1]
		})
		d.y += lane
	}
}
