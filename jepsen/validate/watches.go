package validate

import (
	"encoding/json"
	"slices"
	"time"

	"quorate/jepsen/history"
	quoratev1 "quorate/proto/quorate/v1"
)

// watches is check 6.
func watches() check {
	return check{
		name: "watches", claim: "Every watch is told every event of its revisions once, in order, whatever it was interrupted by; and every accepted change is told.",
		needs: []string{"watch"},
		judge: func(r *record, v *Verdict) {
			byName := r.byWatch(v)
			judgeSame(v, r)
			for _, name := range sorted(byName) {
				judgeWatch(v, r, byName[name])
			}
			judgeTold(v, r, byName)
		},
	}
}

// span is what one watch certainly has to know: all events of revisions from from to before until.
type span struct {
	from, until uint64
}

// watch is one watch through all its starts.
type watch struct {
	name  string
	spans []span
	told  []*sighting
}

// byWatch puts together what each watch was told, and which revisions that covers.
func (r *record) byWatch(v *Verdict) map[string]*watch {
	found := map[string]*watch{}
	events := map[string][]*sighting{}
	for _, s := range r.sightings {
		events[s.watch] = append(events[s.watch], s)
	}
	at := func(name string) *watch {
		if found[name] == nil {
			found[name] = &watch{name: name}
		}
		return found[name]
	}
	next := map[string]int{}
	reach := func(w *watch, revision uint64) {
		if n := len(w.spans); n > 0 {
			w.spans[n-1].until = max(w.spans[n-1].until, revision)
		}
	}
	for _, m := range r.Marks {
		var data struct {
			Watch    string          `json:"watch"`
			From     json.RawMessage `json:"from"`
			Revision json.RawMessage `json:"revision"`
			Resumed  bool            `json:"resumed"`
		}
		isNote := m.Kind == "note" && (m.Text == "watch" || m.Text == "progress" || m.Text == "compacted")
		if !isNote && m.Kind != "event" {
			continue
		}
		if err := json.Unmarshal(m.Data, &data); err != nil {
			v.problem(m.At, m.At, nil, "the mark %s at %v can't be read: %v", m.Text, m.At, err)
			continue
		}
		w := at(data.Watch)
		switch {
		case m.Kind == "event":
			s := events[data.Watch][next[data.Watch]]
			next[data.Watch]++
			w.told = append(w.told, s)
			if len(w.spans) == 0 || w.spans[len(w.spans)-1].from == 0 {
				// Of the first revision some events may have been before the watch.
				w.spans = append(w.spans[:max(0, len(w.spans)-1)], span{s.GetRevision() + 1, s.GetRevision()})
			}
			reach(w, s.GetRevision())
		case m.Text == "progress":
			if len(w.spans) > 0 && w.spans[len(w.spans)-1].from > 0 {
				reach(w, number(data.Revision)+1)
			}
		case m.Text == "watch":
			// From 0 is from then on: the first event tells from where. One that resumes goes on where it was, and covers what lies between.
			if from := number(data.From); !data.Resumed || len(w.spans) == 0 || from > w.spans[len(w.spans)-1].until+1 {
				w.spans = append(w.spans, span{from, from})
			}
		case m.Text == "compacted":
			w.spans = append(w.spans, span{number(data.Revision), number(data.Revision)})
		}
	}
	return found
}

// judgeSame compares what watches were told of the same place in the log.
func judgeSame(v *Verdict, r *record) {
	first := map[place]*sighting{}
	for _, s := range r.sightings {
		known := first[s.place()]
		if known == nil {
			first[s.place()] = s
			continue
		}
		v.Checked++
		if known.sum != s.sum {
			v.problem(known.at, s.at, nil, "event %d.%d is told to %s as %v, and was told to %s as %v", s.GetRevision(), s.GetSequence(), s.watch, s.Event, known.watch, known.Event)
		}
	}
}

// judgeWatch says whether a watch was told its events in order and without a gap. What any watch was told, all must be whose span it lies in.
func judgeWatch(v *Verdict, r *record, w *watch) {
	told := map[place]bool{}
	var last place
	var lastAt time.Duration
	for _, s := range w.told {
		v.Checked++
		if c := s.place().compare(last); c == 0 {
			v.problem(lastAt, s.at, nil, "%s was told event %d.%d twice", w.name, s.GetRevision(), s.GetSequence())
		} else if c < 0 {
			v.problem(lastAt, s.at, nil, "%s was told event %d.%d after %d.%d", w.name, s.GetRevision(), s.GetSequence(), last.revision, last.sequence)
		}
		if s.place().compare(last) > 0 {
			last, lastAt = s.place(), s.at
		}
		told[s.place()] = true
	}
	for _, s := range r.events {
		if w.covers(s.GetRevision()) && !told[s.place()] {
			v.problem(s.at, s.at, nil, "%s was not told event %d.%d, which %s was told at %v", w.name, s.GetRevision(), s.GetSequence(), s.watch, s.at)
		}
	}
}

func (w *watch) covers(revision uint64) bool {
	return slices.ContainsFunc(w.spans, func(s span) bool { return s.from > 0 && s.from <= revision && revision < s.until })
}

// judgeTold says whether the changes that clients know to be accepted, and at which revision, were told.
func judgeTold(v *Verdict, r *record, byName map[string]*watch) {
	at := map[uint64]map[string]bool{}
	for _, s := range r.events {
		if at[s.GetRevision()] == nil {
			at[s.GetRevision()] = map[string]bool{}
		}
		at[s.GetRevision()][s.GetRequestId()] = true
	}
	for i := range r.Ops {
		op := &r.Ops[i]
		revision, request := changed(v, op)
		if revision == 0 {
			continue
		}
		for _, name := range sorted(byName) {
			if byName[name].covers(revision) {
				v.Checked++
				if !at[revision][request] {
					v.problem(op.Call, op.Return, []int{op.ID}, "%s of %s was accepted at revision %d, and no watch was told, though %s knows that revision", op.Kind, op.Key, revision, name)
				}
				break
			}
		}
	}
}

// changed is the revision of the entry that an accepted operation made, and its request id; 0 where its answer doesn't tell.
func changed(v *Verdict, op *history.Op) (revision uint64, request string) {
	asked := &quoratev1.AbortMigrationRequest{} // All have the request id in the same field.
	if op.Outcome != history.OK || decode(op.Input, asked) != nil {
		return 0, ""
	}
	switch {
	case op.Noun == "topology" && (op.Kind == "publish" || op.Kind == "rollback"):
		answer := &quoratev1.PublishTopologyResponse{}
		if v.answered(op, answer) {
			return answer.GetGeneration().GetRevision(), asked.GetRequestId()
		}
	case op.Noun == "partition" && slices.Contains([]string{"set_placement", "begin", "cutover", "complete", "abort"}, op.Kind):
		answer := &quoratev1.AbortMigrationResponse{}
		if v.answered(op, answer) {
			return answer.GetPartition().GetRevision(), asked.GetRequestId()
		}
	}
	return 0, ""
}
