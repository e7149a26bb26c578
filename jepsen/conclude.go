package main

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"quorate/jepsen/history"
	"quorate/jepsen/nemesis"
	"quorate/jepsen/report"
	"quorate/jepsen/validate"
)

// conclude judges a run and says whether all claims hold.
func (c *chaos) conclude(h history.History) (bool, error) {
	tell(h)
	verdicts := append(validate.Judge(h), c.coverage(h), c.processes(), c.harness())
	if len(c.nemeses) > 0 {
		verdicts = append(verdicts, c.effects())
	}
	c.verdicts = verdicts
	return tellVerdicts(c.out, filepath.Join(c.out, historyFile), h, verdicts)
}

// tellVerdicts prints what was found, writes the page and the summary, and says whether all claims hold.
func tellVerdicts(out, source string, h history.History, verdicts []validate.Verdict) (bool, error) {
	holds := true
	for _, v := range verdicts {
		fmt.Printf("%-16s %7d checked  %d problems  %d undecided  %s\n", v.Name, v.Checked, len(v.Problems)+v.More, len(v.Undecided), v.Claim)
		for _, p := range v.Problems {
			fmt.Println("    ", p.Text)
		}
		for _, text := range v.Undecided {
			fmt.Println("     undecided:", text)
		}
		holds = holds && v.Holds()
	}
	fmt.Println("report:", filepath.Join(out, "report.html"))
	return holds, report.Write(out, source, h, verdicts)
}

// effects says whether each kind of fault that was scheduled was seen to have its effect.
func (c *chaos) effects() validate.Verdict {
	v := validate.Verdict{Name: "effects", Claim: "Each kind of fault was injected, and an effect of it was seen from outside."}
	seen, errs := map[string]int{}, map[string]string{}
	for _, r := range c.reports {
		v.Checked++
		if r.Effect != "" {
			seen[r.Kind]++
		} else {
			errs[r.Kind] = r.Error
		}
	}
	for _, name := range nemesis.Names(c.nemeses) {
		if seen[name] == 0 {
			v.Problems = append(v.Problems, validate.Problem{Text: fmt.Sprintf("%s: no effect was seen: %s", name, errs[name])})
		}
	}
	return v
}

// coverage says whether there was enough to judge.
func (c *chaos) coverage(h history.History) validate.Verdict {
	v := validate.Verdict{Name: "coverage", Claim: "Enough operations ended with an answer."}
	for _, op := range h.Ops {
		if op.Outcome == history.OK || op.Outcome == history.Refused {
			v.Checked++
		}
	}
	if v.Checked < c.enough {
		v.Problems = append(v.Problems, validate.Problem{Text: fmt.Sprintf("%d operations are fewer than %d", v.Checked, c.enough)})
	}
	return v
}

func (c *chaos) processes() validate.Verdict {
	return validate.Verdict{Name: "processes", Claim: "No member ended but by a fault.", Checked: c.members, Problems: c.crashes}
}

func (c *chaos) harness() validate.Verdict {
	return validate.Verdict{Name: "harness", Claim: "What breaks, drives and heals the group worked.", Checked: 1, Problems: c.troubles}
}

// tell prints what there was: operations by noun, kind and outcome, and faults by kind.
func tell(h history.History) {
	counts := map[string]map[history.Outcome]int{}
	longest := map[string]time.Duration{}
	for _, op := range h.Ops {
		name := op.Noun + " " + op.Kind
		if counts[name] == nil {
			counts[name] = map[history.Outcome]int{}
		}
		counts[name][op.Outcome]++
		longest[name] = max(longest[name], op.Return-op.Call)
	}
	var names []string
	for name := range counts {
		names = append(names, name)
	}
	slices.Sort(names)
	fmt.Printf("%d operations, %d marks\n", len(h.Ops), len(h.Marks))
	for _, name := range names {
		n := counts[name]
		fmt.Printf("  %-24s ok %6d  refused %6d  failed %5d  unknown %4d  longest %v\n", name, n[history.OK], n[history.Refused], n[history.Failed],
			n[history.Unknown], longest[name].Round(time.Millisecond))
	}
	var faults []string
	for _, n := range faultsOf(h) {
		faults = append(faults, fmt.Sprintf("%s %d/%d", n.kind, n.seen, n.injected))
	}
	fmt.Println("faults seen/injected:", strings.Join(faults, ", "))
}

// faultCount is how often a kind of fault was injected, and seen to have its effect.
type faultCount struct {
	kind           string
	injected, seen int
}

// faultsOf counts the faults of a history, by kind.
func faultsOf(h history.History) []faultCount {
	kinds := map[string]*faultCount{}
	for _, m := range h.Marks {
		if m.Kind != "fault" {
			continue
		}
		var r nemesis.Report
		if json.Unmarshal(m.Data, &r) != nil {
			r = nemesis.Report{} // It is counted, as one that nobody saw.
			r.Kind = m.Text
		}
		n := kinds[r.Kind]
		if n == nil {
			n = &faultCount{kind: r.Kind}
			kinds[r.Kind] = n
		}
		if n.injected++; r.Effect != "" {
			n.seen++
		}
	}
	counts := make([]faultCount, 0, len(kinds))
	for _, n := range kinds {
		counts = append(counts, *n)
	}
	slices.SortFunc(counts, func(a, b faultCount) int { return cmp.Compare(a.kind, b.kind) })
	return counts
}

// rejudge judges a history that was kept.
func rejudge(o *options) (holds bool, err error) {
	f, err := os.Open(o.judge)
	if err != nil {
		return false, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	h, err := history.Read(f)
	if err != nil {
		return false, err
	}
	if o.window != nil {
		return true, tellSpan(os.Stdout, h, *o.window)
	}
	tell(h)
	if err := os.MkdirAll(o.out, 0o755); err != nil {
		return false, err
	}
	return tellVerdicts(o.out, o.judge, h, validate.Judge(h))
}
