package main

import (
	"context"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"quorate/jepsen/history"
	"quorate/jepsen/nemesis"
)

// TestFlags gives wrong flags, each of which is named.
func TestFlags(t *testing.T) {
	for args, want := range map[string]string{
		"--duration 10s":            "--duration",
		"--rate 0":                  "--rate",
		"--members 4":               "--members",
		"--duration 12h --rate 260": "--rate 34 fits",
		"--window 1s,2s":            "--judge",
		"--judge x --window 2s,1s":  "--window",
		"--enough -1":               "--enough",
		"--log-store paper":         "--log-store",
		"--workloads lunch":         "--workloads",
		"--nemeses earthquake":      "--nemeses",
		"once more":                 `"once"`,
		"--nemeses kill,kill,x":     "--nemeses",
	} {
		if _, err := parse(strings.Fields(args)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", args, err)
		}
	}
	o, err := parse(strings.Fields("--seed 8 --nemeses kill,pause --workloads lease,gate --duration 1m --rate 10"))
	if err != nil {
		t.Fatal(err)
	}
	if o.logStore != "wal" || len(o.nemeses) != 2 || len(o.workloads) != 2 || o.enough != 300 {
		t.Errorf("%+v", o)
	}
	if want := "--seed 8 --rate 10 --members 3 --log-store wal --workloads lease,gate --nemeses kill,pause'"; !strings.Contains(o.command(), want) {
		t.Errorf("%s", o.command())
	}
}

// TestLongRunsFit has a rate by default at which a run can be judged.
func TestLongRunsFit(t *testing.T) {
	for args, want := range map[string]float64{"--duration 12h": 34, "--duration 1h": defaultRate, "--duration 1h --rate 350": 350} {
		if o, err := parse(strings.Fields(args)); err != nil || o.rate != want {
			t.Errorf("%s: %v, %v", args, o, err)
		}
	}
}

// TestWindowTellsWhatWasUnderWay prints a part of a history.
func TestWindowTellsWhatWasUnderWay(t *testing.T) {
	s, err := parseSpan("2s,3s")
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	if err := tellSpan(&b, history.History{
		Marks: []history.Mark{{Kind: "fault", At: time.Second, Until: 5 * time.Second, Text: "kill: m1"}, {Kind: "leader", At: 9 * time.Second, Member: "later"}},
		Ops: []history.Op{
			{ID: 1, Client: "before", Call: 1, Return: 2}, {ID: 2, Client: "open", Call: time.Second}, {ID: 3, Client: "within", Call: 2 * time.Second, Return: 9 * time.Second},
			{ID: 4, Client: "after", Call: 4 * time.Second, Return: 5 * time.Second},
		},
	}, *s); err != nil {
		t.Fatal(err)
	}
	for text, want := range map[string]bool{"kill: m1": true, "later": false, "before": false, "open": true, "within": true, "after": false} {
		if strings.Contains(b.String(), text) != want {
			t.Errorf("%s: %t in\n%s", text, !want, b.String())
		}
	}
}

// TestScheduleShowsEveryKind lets some kinds have nothing to break for a while: all come to their turn, and no kind is at work twice at a time.
func TestScheduleShowsEveryKind(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		working := make(chan map[string]bool, 1)
		working <- map[string]bool{}
		kind := func(name string, from time.Duration) nemesis.Kind {
			return nemesis.Kind{Name: name, Inject: func(context.Context, *nemesis.World) (*nemesis.Fault, error) {
				now := <-working
				if now[name] {
					t.Errorf("%s is at work twice", name)
				}
				now[name] = true
				working <- now
				time.Sleep(time.Second)
				now = <-working
				delete(now, name)
				working <- now
				if time.Since(began) < from {
					return nil, nil
				}
				return nil, context.DeadlineExceeded // It could not be made, which is told as well.
			}}
		}
		seen := map[string]int{}
		reports := make(chan nemesis.Report, 1000)
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		s := &schedule{
			world: &nemesis.World{}, since: func() time.Duration { return time.Since(began) }, random: rand.New(rand.NewPCG(1, 1)),
			kinds: []nemesis.Kind{kind("a", 0), kind("b", 20*time.Second), kind("c", 0), kind("d", 40*time.Second)},
			done:  func(r nemesis.Report) { reports <- r },
		}
		s.run(ctx)
		close(reports)
		for r := range reports {
			seen[r.Kind]++
		}
		for _, k := range s.kinds {
			if seen[k.Name] == 0 {
				t.Errorf("%s never came to its turn: %v", k.Name, seen)
			}
		}
	})
}

// TestARunThatShowsNothingFails has a fault without an effect, too few operations, and a crash.
func TestARunThatShowsNothingFails(t *testing.T) {
	kinds, err := nemesis.Only(nemesis.Kinds(), []string{"kill", "pause"})
	if err != nil {
		t.Fatal(err)
	}
	c := &chaos{options: &options{enough: 2, members: 3, nemeses: kinds}}
	c.reports = []nemesis.Report{{Fault: nemesis.Fault{Kind: "kill"}, Effect: "ended"}, {Fault: nemesis.Fault{Kind: "pause"}, Error: "nothing seen"}}
	if v := c.effects(); v.Holds() || len(v.Problems) != 1 || !strings.Contains(v.Problems[0].Text, "pause") {
		t.Errorf("%+v", v)
	}
	h := history.History{Ops: []history.Op{{Outcome: history.OK}, {Outcome: history.Unknown}}}
	if v := c.coverage(h); v.Holds() || v.Checked != 1 {
		t.Errorf("%+v", v)
	}
	h.Ops = append(h.Ops, history.Op{Outcome: history.Refused})
	if v := c.coverage(h); !v.Holds() {
		t.Errorf("%+v", v)
	}
	if v := c.processes(); !v.Holds() {
		t.Errorf("%+v", v)
	}
}

// TestFaultsAreCountedFromTheHistory: a history that is judged again says the same of its faults as the run did.
func TestFaultsAreCountedFromTheHistory(t *testing.T) {
	mark := func(data string) history.Mark { return history.Mark{Kind: "fault", Text: "torn", Data: []byte(data)} }
	h := history.History{Marks: []history.Mark{
		mark(`{"kind":"pause","effect":"the processes are stopped"}`), mark(`{"kind":"kill"}`), mark(`{"kind":"pause"}`), mark(`{`), {Kind: "note", Text: "quiet"},
	}}
	want := []faultCount{{"kill", 1, 0}, {"pause", 2, 1}, {"torn", 1, 0}}
	if got := faultsOf(h); !slices.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
}
