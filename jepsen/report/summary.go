package report

import (
	"encoding/json"
	"slices"
	"time"

	"quorate/jepsen/history"
	"quorate/jepsen/validate"
)

// Summary is a run in numbers.
type Summary struct {
	Passed bool `json:"passed"`
	// Command repeats the run, and Began is when it began.
	Command    string             `json:"command"`
	Began      string             `json:"began"`
	Seed       uint64             `json:"seed"`
	LogStore   string             `json:"logStore"`
	Members    []string           `json:"members"`
	Length     time.Duration      `json:"length"`
	Operations int                `json:"operations"`
	Nouns      []Noun             `json:"nouns"`
	Faults     []Fault            `json:"faults"`
	Leaders    int                `json:"leaderChanges"`
	Verdicts   []validate.Verdict `json:"verdicts"`
	Samples    []Sample           `json:"samples"`
}

// Noun counts the operations of one noun and kind by their outcome.
type Noun struct {
	Name    string        `json:"name"`
	OK      int           `json:"ok"`
	Refused int           `json:"refused"`
	Failed  int           `json:"failed"`
	Unknown int           `json:"unknown"`
	Longest time.Duration `json:"longest"`
}

// Fault is what became of one kind of fault.
type Fault struct {
	Kind     string `json:"kind"`
	Injected int    `json:"injected"`
	Seen     int    `json:"seen"`
	// Unavailable is the longest time without any accepted write that has a part in a fault of this kind or the ten seconds after it. Where faults overlap,
	// each of them is charged.
	Unavailable time.Duration `json:"longestUnavailability"`
	Effect      string        `json:"effect"`
}

// Sample is what a member used at first and at last.
type Sample struct {
	Member string `json:"member"`
	First  Usage  `json:"first"`
	Last   Usage  `json:"last"`
}

// Usage is memory in bytes, goroutines and open files.
type Usage struct {
	RSS        float64 `json:"rss"`
	Goroutines float64 `json:"goroutines"`
	FDs        float64 `json:"fds"`
}

// MiB is the memory in that unit.
func (u Usage) MiB() float64 { return u.RSS / (1 << 20) }

// report is what the nemesis says of a fault.
type report struct {
	Kind    string   `json:"kind"`
	Text    string   `json:"text"`
	Effect  string   `json:"effect"`
	Members []string `json:"members"`
}

func summarise(h history.History, verdicts []validate.Verdict) *Summary {
	s := &Summary{Passed: len(verdicts) > 0, Operations: len(h.Ops), Verdicts: verdicts, Length: length(h)}
	for i := range verdicts {
		s.Passed = s.Passed && verdicts[i].Holds()
	}
	samples := map[string]*Sample{}
	for _, m := range h.Marks {
		switch m.Kind {
		case "run":
			_ = json.Unmarshal(m.Data, s) // A run that doesn't say is shown without.
		case "leader":
			s.Leaders++
		case "sample":
			var u Usage
			if json.Unmarshal(m.Data, &u) == nil {
				if samples[m.Member] == nil {
					samples[m.Member] = &Sample{Member: m.Member, First: u}
				}
				samples[m.Member].Last = u
			}
		}
	}
	for _, name := range sorted(samples) {
		s.Samples = append(s.Samples, *samples[name])
	}
	s.Nouns = count(h)
	s.Faults = faults(h)
	return s
}

func count(h history.History) []Noun {
	nouns := map[string]*Noun{}
	for _, op := range h.Ops {
		name := op.Noun + " " + op.Kind
		n := nouns[name]
		if n == nil {
			n = &Noun{Name: name}
			nouns[name] = n
		}
		switch op.Outcome {
		case history.OK:
			n.OK++
		case history.Refused:
			n.Refused++
		case history.Failed:
			n.Failed++
		default:
			n.Unknown++
		}
		n.Longest = max(n.Longest, op.Return-op.Call)
	}
	var list []Noun
	for _, name := range sorted(nouns) {
		list = append(list, *nouns[name])
	}
	return list
}

// writes are the kinds of operations that put something into the log.
var writes = []string{"publish", "rollback", "begin", "end", "create", "set_placement", "delete", "report", "cutover", "complete", "abort", "set"}

// faults counts faults by kind, and looks for the longest time without a write around each.
func faults(h history.History) []Fault {
	var returns []time.Duration
	for _, op := range h.Ops {
		if op.Outcome == history.OK && slices.Contains(writes, op.Kind) {
			returns = append(returns, op.Return)
		}
	}
	slices.Sort(returns)
	kinds := map[string]*Fault{}
	for _, m := range h.Marks {
		if m.Kind != "fault" {
			continue
		}
		r := faultOf(m)
		f := kinds[r.Kind]
		if f == nil {
			f = &Fault{Kind: r.Kind}
			kinds[r.Kind] = f
		}
		f.Injected++
		if r.Effect != "" {
			f.Seen++
			f.Effect = r.Effect
		}
		const after = 10 * time.Second
		i, _ := slices.BinarySearch(returns, m.At)
		for i = max(i, 1); i < len(returns) && returns[i-1] < m.Until+after; i++ {
			f.Unavailable = max(f.Unavailable, returns[i]-returns[i-1])
		}
	}
	var list []Fault
	for _, kind := range sorted(kinds) {
		list = append(list, *kinds[kind])
	}
	return list
}

func faultOf(m history.Mark) report {
	var r report
	_ = json.Unmarshal(m.Data, &r) // What isn't there is shown by its text.
	if r.Kind == "" {
		r.Kind = "fault"
	}
	if r.Text == "" {
		r.Text = m.Text
	}
	return r
}

func length(h history.History) time.Duration {
	last := time.Duration(0)
	for _, op := range h.Ops {
		last = max(last, op.Call, op.Return)
	}
	for _, m := range h.Marks {
		last = max(last, m.At, m.Until)
	}
	return last
}

func sorted[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for key := range m {
		keys = append(keys, key)
	}
	slices.Sort(keys)
	return keys
}
