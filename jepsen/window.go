package main

import (
	"cmp"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"quorate/jepsen/history"
)

// span is a part of a run.
type span struct{ from, until time.Duration }

// parseSpan reads two times since the run began, such as 12.5s,14s.
func parseSpan(text string) (*span, error) {
	first, second, _ := strings.Cut(text, ",")
	from, err := time.ParseDuration(first)
	until, err2 := time.ParseDuration(second)
	if err != nil || err2 != nil || from < 0 || until < from {
		return nil, fmt.Errorf("--window: must be two times since the run began, the earlier one first, such as 12.5s,14s; got %q", text)
	}
	return &span{from, until}, nil
}

// tellSpan prints all that was under way in a part of a run, a line each, in the order in which it began: faults, leaders, notes, and operations with what was asked and answered.
func tellSpan(w io.Writer, h history.History, s span) error {
	type told struct {
		at   time.Duration
		text string
	}
	var lines []told
	for _, m := range h.Marks {
		if m.Kind != "fault" && m.Kind != "leader" && m.Kind != "note" || m.At > s.until || max(m.At, m.Until) < s.from {
			continue
		}
		lines = append(lines, told{m.At, fmt.Sprintf("%9.3f–%-9.3f %s %s %s %s", m.At.Seconds(), max(m.At, m.Until).Seconds(), m.Kind, cmp.Or(m.Member, "-"), m.Text, m.Data)})
	}
	for i := range h.Ops {
		op := &h.Ops[i]
		if op.Call > s.until || op.Return > 0 && op.Return < s.from {
			continue
		}
		lines = append(lines, told{op.Call, fmt.Sprintf("%9.3f–%-9.3f %d %s at %s: %s %s of %s %s → %s %s%s", op.Call.Seconds(), op.Return.Seconds(), op.ID, op.Client,
			cmp.Or(op.Member, "any"), op.Noun, op.Kind, op.Key, op.Input, op.Outcome, op.Output, op.Error)})
	}
	slices.SortStableFunc(lines, func(a, b told) int { return cmp.Compare(a.at, b.at) })
	for _, l := range lines {
		if _, err := fmt.Fprintln(w, l.text); err != nil {
			return err
		}
	}
	return nil
}
