// Package validate judges the history of a run: nine checks, one in each file, of what must hold under any faults. They know nothing but what was recorded from
// outside, so a history that was kept can be judged again.
//
// A check counts what it looked at. One that found nothing to look at has failed, unless the run left its traffic out on purpose: then there is no verdict
// of it. What could not be decided is no success either.
package validate

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"quorate/jepsen/history"
	quoratev1 "quorate/proto/quorate/v1"
)

// MaxProblems bounds the problems that one check tells; it counts the others.
const MaxProblems = 50

// Verdict is what a check found.
type Verdict struct {
	// Name is short and stable, Claim what holds if it passes.
	Name  string `json:"name"`
	Claim string `json:"claim"`
	// Checked is how many operations, pairs or events it looked at.
	Checked int `json:"checked"`
	// Problems are what must not be. None is good.
	Problems []Problem `json:"problems,omitempty"`
	// More counts the problems that are not told.
	More int `json:"more,omitempty"`
	// Undecided is what could not be decided: it counts as failure.
	Undecided []string `json:"undecided,omitempty"`
}

// Problem is something that must not be.
type Problem struct {
	Text string `json:"text"`
	// From and Until are when it happened, since the run began, and Ops the operations that show it.
	From  time.Duration `json:"from"`
	Until time.Duration `json:"until"`
	Ops   []int         `json:"ops,omitempty"`
}

// Holds says whether a check passed.
func (v *Verdict) Holds() bool { return len(v.Problems) == 0 && len(v.Undecided) == 0 && v.Checked > 0 }

// problem adds one.
func (v *Verdict) problem(from, until time.Duration, ops []int, format string, args ...any) {
	if len(v.Problems) >= MaxProblems {
		v.More++
		return
	}
	v.Problems = append(v.Problems, Problem{Text: fmt.Sprintf(format, args...), From: from, Until: max(from, until), Ops: ops})
}

// check is one of the nine.
type check struct {
	name, claim string
	// needs are the workloads of which any gives it something to look at; none means every run does.
	needs []string
	judge func(r *record, v *Verdict)
}

// checks are in the order of chaos.md.
func checks() []check {
	return []check{linearizability(), generations(), applies(), levels(), partitions(), watches(), durability(), failover(), recovery()}
}

// Names are those of the checks.
func Names() []string {
	var names []string
	for _, c := range checks() {
		names = append(names, c.name)
	}
	return names
}

// Judge judges a history by every check for which the run had traffic.
func Judge(h history.History) []Verdict {
	r, err := newRecord(h)
	if err != nil {
		return []Verdict{{Name: "history", Claim: "The history can be read.", Undecided: []string{err.Error()}}}
	}
	var verdicts []Verdict
	for _, c := range checks() {
		if len(c.needs) > 0 && len(r.run.Workloads) > 0 && !slices.ContainsFunc(c.needs, func(w string) bool { return slices.Contains(r.run.Workloads, w) }) {
			continue
		}
		v := Verdict{Name: c.name, Claim: c.claim}
		c.judge(r, &v)
		if v.Checked == 0 && len(v.Problems) == 0 && len(v.Undecided) == 0 {
			v.Undecided = append(v.Undecided, "there was nothing to check, which proves nothing")
		}
		verdicts = append(verdicts, v)
	}
	return verdicts
}

// run is what the first mark tells of the whole run.
type run struct {
	Members        []string      `json:"members"`
	Workloads      []string      `json:"workloads"`
	WriteLimit     time.Duration `json:"writeLimit"`
	MinBarrier     time.Duration `json:"minBarrier"`
	ApplyMax       time.Duration `json:"applyMaxDuration"`
	FailoverBudget time.Duration `json:"failoverBudget"`
}

// record is a history made ready for the checks.
type record struct {
	history.History
	run run
	// sets has the set of each server, and exempt the sets of which more than one server may be Healthy by policy.
	sets   map[string]string
	exempt map[string]bool
	// events are those that any watch was told, once each, in the order of the log; sightings are all of them, in the order in which they came.
	events    []*sighting
	sightings []*sighting
	copies    map[[8]byte]*quoratev1.Event
}

// sighting is an event as a watch was told of it.
type sighting struct {
	*quoratev1.Event
	watch  string
	member string
	at     time.Duration
	sum    [8]byte
}

func newRecord(h history.History) (*record, error) {
	r := &record{History: h, sets: map[string]string{}, exempt: map[string]bool{}, copies: map[[8]byte]*quoratev1.Event{}}
	for _, m := range h.Marks {
		switch m.Kind {
		case "run":
			if err := json.Unmarshal(m.Data, &r.run); err != nil {
				return nil, fmt.Errorf("mark run: %w", err)
			}
		case "event":
			if err := r.sight(m); err != nil {
				return nil, fmt.Errorf("event at %v: %w", m.At, err)
			}
		}
	}
	r.uniqueEvents()
	for i := range h.Ops {
		if op := &h.Ops[i]; op.Noun == "topology" && op.Kind == "publish" {
			request := &quoratev1.PublishTopologyRequest{}
			if err := decode(op.Input, request); err != nil {
				return nil, fmt.Errorf("operation %d: %w", op.ID, err)
			}
			r.learn(request.GetTopology())
		}
	}
	return r, nil
}

// learn keeps which servers are in which set, and which sets their policy exempts (redundancy.md §2).
func (r *record) learn(t *quoratev1.Topology) {
	for _, set := range t.GetSets() {
		for _, server := range set.GetServers() {
			r.sets[server.GetMember()] = set.GetId()
		}
		if set.GetPolicies().GetHotBackupsHealthy() || set.GetPolicies().GetQuorumLoss() == "hold" {
			r.exempt[set.GetId()] = true
		}
	}
}

func (r *record) sight(m history.Mark) error {
	var data struct {
		Watch string          `json:"watch"`
		Event json.RawMessage `json:"event"`
	}
	if err := json.Unmarshal(m.Data, &data); err != nil {
		return err
	}
	s := &sighting{Event: &quoratev1.Event{}, watch: data.Watch, member: m.Member, at: m.At}
	if err := decode(data.Event, s.Event); err != nil {
		return err
	}
	canonical, err := proto.MarshalOptions{Deterministic: true}.Marshal(s.Event)
	whole := sha256.Sum256(canonical)
	s.sum = [8]byte(whole[:8])
	// Many watches are told the same; one copy is enough.
	if same := r.copies[s.sum]; same != nil {
		s.Event = same
	} else {
		r.copies[s.sum] = s.Event
	}
	r.sightings = append(r.sightings, s)
	return err
}

// place is where an event is in the log.
type place struct {
	revision uint64
	sequence uint32
}

func (s *sighting) place() place { return place{s.GetRevision(), s.GetSequence()} }

func (p place) compare(q place) int {
	switch {
	case p.revision != q.revision && p.revision < q.revision, p.revision == q.revision && p.sequence < q.sequence:
		return -1
	case p == q:
		return 0
	}
	return 1
}

// uniqueEvents keeps the first sighting of each event.
func (r *record) uniqueEvents() {
	first := map[place]*sighting{}
	for _, s := range r.sightings {
		if known := first[s.place()]; known == nil || s.at < known.at {
			first[s.place()] = s
		}
	}
	for _, s := range first {
		r.events = append(r.events, s)
	}
	slices.SortFunc(r.events, func(a, b *sighting) int { return a.place().compare(b.place()) })
}

// decode reads what was recorded of the public API.
func decode(raw json.RawMessage, m proto.Message) error {
	if len(raw) == 0 {
		return nil
	}
	return protojson.UnmarshalOptions{DiscardUnknown: true}.Unmarshal(raw, m)
}

// answered decodes the answer of an operation that was done; false means that it wasn't, or that the record is wrong, which is a problem.
func (v *Verdict) answered(op *history.Op, m proto.Message) bool {
	if op.Outcome != history.OK {
		return false
	}
	if err := decode(op.Output, m); err != nil {
		v.problem(op.Call, op.Return, []int{op.ID}, "operation %d can't be read: %v", op.ID, err)
		return false
	}
	return true
}

// sorted returns the keys of a map in their order.
func sorted[K ~string | ~uint64, V any](m map[K]V) []K {
	keys := make([]K, 0, len(m))
	for key := range m {
		keys = append(keys, key)
	}
	slices.Sort(keys)
	return keys
}
