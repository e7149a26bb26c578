package report

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"quorate/jepsen/history"
	"quorate/jepsen/validate"
)

// madeUp is a history of a run with one fault, a change of the leader and many operations.
func madeUp(ops int) history.History {
	h := history.History{Marks: []history.Mark{
		{Kind: "run", Data: json.RawMessage(`{"seed":7,"members":["m1","m2"],"logStore":"bolt","began":"2026-01-01T00:00:00Z","command":"make chaos CHAOS_ARGS='--seed 7'"}`)},
		{Kind: "leader", At: time.Second, Member: "m1", Data: json.RawMessage(`{"term":2}`)},
		{Kind: "fault", At: 2 * time.Second, Until: 5 * time.Second, Data: json.RawMessage(`{"kind":"kill","text":"m1 <was> killed","effect":"exit","members":["m1"]}`)},
		{Kind: "leader", At: 3 * time.Second, Member: "m2", Data: json.RawMessage(`{"term":3}`)},
		{Kind: "sample", At: time.Second, Member: "m1", Data: json.RawMessage(`{"rss":1048576,"goroutines":10,"fds":5}`)},
		{Kind: "sample", At: 9 * time.Second, Member: "m1", Data: json.RawMessage(`{"rss":2097152,"goroutines":11,"fds":6}`)},
	}}
	for i := range ops {
		at := 10 * time.Second * time.Duration(i) / time.Duration(ops)
		if at > 2*time.Second && at < 4*time.Second && i%7 == 0 {
			continue
		}
		op := history.Op{
			ID: i, Client: fmt.Sprint("c", i%200), Member: "m1", Noun: "partition", Kind: "begin", Key: "p", Call: at, Return: at + time.Millisecond, Outcome: history.OK,
			Input: json.RawMessage(`{"note":"<script>alert(1)</script>"}`), Output: json.RawMessage(`{}`),
		}
		if i%5 == 0 {
			op.Noun, op.Kind, op.Output = "level", "read", json.RawMessage(`{"level":255}`)
		}
		h.Ops = append(h.Ops, op)
	}
	return h
}

func write(t *testing.T, h history.History, verdicts []validate.Verdict) (string, Summary) {
	t.Helper()
	dir := t.TempDir()
	if err := Write(dir, "bin/it's/history.jsonl", h, verdicts); err != nil {
		t.Fatal(err)
	}
	html, err := os.ReadFile(filepath.Join(dir, "report.html"))
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(filepath.Join(dir, "summary.json"))
	if err != nil {
		t.Fatal(err)
	}
	var s Summary
	if err := json.Unmarshal(text, &s); err != nil {
		t.Fatal(err)
	}
	return string(html), s
}

// TestReportTells shows a problem with what was done to which member, and how to run it again.
func TestReportTells(t *testing.T) {
	html, s := write(t, madeUp(1000), []validate.Verdict{
		{Name: "levels", Claim: "One.", Checked: 5},
		{Name: "partitions", Claim: "Two.", Checked: 5, Problems: []validate.Problem{{Text: "p was lost", From: 3 * time.Second, Until: 3100 * time.Millisecond, Ops: []int{302}}}},
		{Name: "effects", Checked: 1, Problems: []validate.Problem{{Text: "kill-all: no effect was seen"}}},
	})
	for _, want := range []string{
		"Not all claims hold", "--seed 7", "p was lost", "m1 &lt;was&gt; killed", "leads the group", `class="involved"`, "class=\"problem\"", "1.0 → 2.0", "--judge &#39;bin/it&#39;\\&#39;&#39;s/history.jsonl&#39; --window 2.5s,3.6s", "&lt;script&gt;",
	} {
		if !strings.Contains(html, want) {
			t.Errorf("the page lacks %q", want)
		}
	}
	if strings.Count(html, "<h3>") != 1 || strings.Contains(html, "no effect was seen (") {
		t.Error("a problem of no time has a window")
	}
	for _, never := range []string{"<script", "http://", "src=", "url("} {
		if strings.Contains(html, never) {
			t.Errorf("the page has %q: it must need nothing else", never)
		}
	}
	if s.Passed || s.Seed != 7 || s.Leaders != 2 || len(s.Faults) != 1 || s.Faults[0].Seen != 1 || s.Faults[0].Unavailable <= 0 || s.Operations == 0 || len(s.Nouns) != 2 {
		t.Errorf("%+v", s)
	}
}

// TestReportOfSuccess has no windows.
func TestReportOfSuccess(t *testing.T) {
	html, s := write(t, madeUp(100), []validate.Verdict{{Name: "levels", Checked: 1}})
	if !s.Passed || strings.Contains(html, "Where claims are broken") || !strings.Contains(html, "All claims hold") {
		t.Errorf("%+v", s)
	}
	if _, s := write(t, madeUp(100), nil); s.Passed {
		t.Error("a run that nobody judged has passed")
	}
	if _, s := write(t, history.History{}, []validate.Verdict{{Name: "levels"}}); s.Passed {
		t.Error("a run in which nothing was looked at has passed")
	}
}

// TestReportStaysLight reaches every limit: of clients, of windows and of operations in them.
func TestReportStaysLight(t *testing.T) {
	v := validate.Verdict{Name: "partitions", Checked: 1}
	for i := range MaxWindows + 5 {
		v.Problems = append(v.Problems, validate.Problem{Text: fmt.Sprint("problem ", i), From: time.Duration(i) * 100 * time.Millisecond, Until: 5 * time.Second})
	}
	html, s := write(t, madeUp(60_000), []validate.Verdict{v})
	if len(html) > 8<<20 {
		t.Errorf("the page has %d bytes", len(html))
	}
	if n := strings.Count(html, "<h3>"); n != MaxWindows {
		t.Errorf("%d windows, want %d", n, MaxWindows)
	}
	if !strings.Contains(html, "100 more are not drawn") || !strings.Contains(html, "others are left out") || s.Operations < 50_000 {
		t.Error("what was left out isn't told")
	}
}
