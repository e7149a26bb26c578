package main

import (
	"context"
	"os"
	"path/filepath"
	"testing"
	"time"

	"quorate/devgroup"
)

const (
	siegePort = 17500
	// shortRun is how long an attack of the short form is measured, and its control run.
	shortRun  = 700 * time.Millisecond
	testLimit = 3 * time.Minute
)

// TestMain lets the program of the tests be attacker and reference too, as the command is.
func TestMain(m *testing.M) {
	if role(os.Args) {
		return
	}
	os.Exit(m.Run())
}

// TestSiege is the short form of the siege: some of the worst attacks on the leader.
func TestSiege(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), testLimit)
	defer cancel()
	dir := t.TempDir()
	binary, err := devgroup.Build(ctx, dir)
	if err != nil {
		t.Fatal(err)
	}
	var output devgroup.Output
	s, err := newSiege(ctx, binary, filepath.Join(dir, "group"), siegePort, &output)
	if err != nil {
		t.Fatalf("%v\n%s", err, output.String())
	}
	t.Cleanup(func() {
		if err := s.end(); err != nil {
			t.Error(err)
		}
		if t.Failed() {
			t.Logf("the members said:\n%s", output.String())
		}
	})
	for _, a := range attacks {
		if !a.short {
			continue
		}
		t.Run(a.name, func(t *testing.T) {
			o, broken, err := s.attack(ctx, a.name, leaderRole, shortRun, shortRun)
			if err != nil {
				t.Fatal(err)
			}
			for _, b := range broken {
				t.Error(b)
			}
			t.Logf("reads p99 %v, an idle process's at the same time %v, in the control run %v", o.during.reads.at(99),
				o.during.reference.at(99), o.control.reads.at(99))
		})
	}
}

// TestBounds proves that bounds can be broken, and move only as far as the control run and the idle process say.
func TestBounds(t *testing.T) {
	steady := func(d time.Duration) latencies { return latencies{all: []time.Duration{d}} }
	good := func() outcome {
		o := observed{
			reads: steady(time.Millisecond), reference: steady(time.Millisecond), beats: beats{most: beatEvery},
			plain: newcomers{latencies: steady(time.Millisecond)}, secure: newcomers{latencies: steady(time.Millisecond)},
		}
		return outcome{during: o, control: o}
	}
	for name, tt := range map[string]struct {
		change func(*outcome)
		broken int
	}{
		"nothing":                  {func(*outcome) {}, 0},
		"slow reads":               {func(o *outcome) { o.during.reads = steady(readBound + 1) }, 1},
		"slow reads, slow machine": {func(o *outcome) { o.during.reads, o.during.reference = steady(3*readBound), steady(2*readBound) }, 0},
		"slower than the machine":  {func(o *outcome) { o.during.reads, o.control.reads = steady(7*readBound), steady(2*readBound) }, 1},
		"nobody new":               {func(o *outcome) { o.during.plain.all = nil }, 1},
		"a newcomer refused":       {func(o *outcome) { o.during.secure.failures = 1 }, 1},
		"newcomers wait":           {func(o *outcome) { o.during.secure.latencies = steady(newcomerBound + 1) }, 1},
		"no heartbeat":             {func(o *outcome) { o.during.beats.most = missedAfter + 1 }, 1},
		"an election":              {func(o *outcome) { o.during.beats.after.term = 2 }, 1},
		"memory":                   {func(o *outcome) { o.most.rss = memoryBound + 1 }, 1},
		"connections stay":         {func(o *outcome) { o.after.files = spareFiles + 1 }, 1},
	} {
		t.Run(name, func(t *testing.T) {
			o := good()
			tt.change(&o)
			if broken := o.broken(); len(broken) != tt.broken {
				t.Errorf("%d bounds are broken: %v", len(broken), broken)
			}
		})
	}
}
