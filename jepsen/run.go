package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"time"

	"quorate/jepsen/history"
	"quorate/jepsen/lab"
	"quorate/jepsen/nemesis"
	"quorate/jepsen/traffic"
	"quorate/jepsen/validate"
)

const (
	// faultMost is the longest that one fault lasts, where its kind doesn't say otherwise.
	faultMost = 8 * time.Second
	// warmUp is for how long there is traffic before the first fault.
	warmUp = 3 * time.Second
	// recoverLimit is how long after the last heal every operation has to succeed again (chaos.md, check 9), and quietLasts how long traffic goes on then.
	recoverLimit = 10 * time.Second
	quietLasts   = 5 * time.Second
	// healReserve is what is left for the last faults to be healed.
	healReserve = 10 * time.Second
	// stopLimit is how long workloads may take to end.
	stopLimit = 20 * time.Second
	// readyLimit is how long all members may take to be ready after the last heal.
	readyLimit = 60 * time.Second
	// askLimit is how long the questions of the quiet period may take, all of them.
	askLimit = 30 * time.Second
	// guardEvery is how often it is looked at whether members live.
	guardEvery = 200 * time.Millisecond
	// guardLooks is how often a member is found ended before it is started again.
	guardLooks = 5
	// recoverDwell is shorter than what operators have, so that servers come back between two faults.
	recoverDwell = 2 * time.Second
	// snapshotEntries makes snapshots come soon.
	snapshotEntries = 256
	// applyMax is ApplyMaxDuration, which can't be set.
	applyMax = 10 * time.Minute
)

// historyFile is what a run leaves behind to be judged again.
const historyFile = "history.jsonl"

// chaos is one run.
type chaos struct {
	*options
	lab   *lab.Lab
	log   *history.Log
	env   *traffic.Env
	world *nemesis.World

	mu sync.Mutex
	// troubles are those of the harness itself, and crashes members that ended though no fault had ended them.
	troubles, crashes []validate.Problem
	reports           []nemesis.Report
}

// trouble notes what went wrong with the harness.
func (c *chaos) trouble(format string, args ...any) {
	at := c.log.Since()
	text := fmt.Sprintf("%v: ", at.Round(time.Millisecond)) + fmt.Sprintf(format, args...)
	fmt.Println("trouble at", text)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.troubles = append(c.troubles, validate.Problem{Text: text, From: at, Until: at})
}

// run sets everything up, runs, and judges. It says whether all claims hold.
func run(ctx context.Context, o *options) (holds bool, err error) {
	if err := errors.Join(os.RemoveAll(o.out), os.MkdirAll(o.out, 0o755)); err != nil {
		return false, err
	}
	c := &chaos{options: o}
	if c.log, err = history.Create(filepath.Join(o.out, historyFile)); err != nil {
		return false, err
	}
	c.log.Mark(history.Mark{Kind: "run", Text: o.command()}, o.describe())
	fmt.Printf("%s\nresults: %s\n", o.command(), o.out)
	err = c.live(ctx)
	h := c.log.History()
	err = errors.Join(err, c.log.Close())
	if err != nil {
		return false, err
	}
	return c.conclude(h)
}

// describe is what a history says of its run.
func (o *options) describe() any {
	var members []string
	for i := range o.members {
		members = append(members, fmt.Sprintf("m%d", i+1))
	}
	return map[string]any{
		"seed": o.seed, "members": members, "workloads": traffic.Names(o.workloads), "nemeses": nemesis.Names(o.nemeses), "logStore": o.logStore,
		"duration": o.duration, "rate": o.rate, "began": time.Now().Format(time.RFC3339Nano), "command": o.command(),
		"writeLimit": traffic.WriteLimit, "gateTTL": traffic.GateTTL, "minBarrier": traffic.MinBarrier, "barrier": traffic.Barrier,
		"applyMaxDuration": applyMax, "recoverDwell": recoverDwell, "failoverBudget": traffic.FailoverBudget,
	}
}

// live is the run itself.
func (c *chaos) live(ctx context.Context) (err error) {
	var environment []string
	if c.mutant != "" {
		environment = []string{"MUTANT=" + c.mutant}
	}
	c.lab, err = lab.Open(ctx, lab.Options{
		Environment: environment,
		Binary:      c.binary, Out: c.out, Members: c.members, LogStore: c.logStore, Seed: c.seed,
		SnapshotEntries: snapshotEntries,
		Settings:        []string{fmt.Sprintf("redundancy: {recoverDwell: %v}", recoverDwell)},
	})
	if err != nil {
		return fmt.Errorf("set up the laboratory: %w", err)
	}
	defer func() { err = errors.Join(err, c.lab.Close()) }()
	if c.env, err = traffic.NewEnv(ctx, c.lab, c.log, c.seed, c.rate, c.duration); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, c.env.Close()) }()
	c.world = &nemesis.World{
		Lab: c.lab, Group: traffic.NewGroup(c.env), Length: cmp.Or(c.trial.longest, faultMost), Random: rand.New(&sharedSource{source: rand.NewPCG(c.seed, 3)}),
	}
	setup, cancel := context.WithTimeout(ctx, readyLimit)
	defer cancel()
	for _, w := range c.workloads {
		if err := w.Setup(setup, c.env); err != nil {
			return fmt.Errorf("set up %s: %w", w.Name, err)
		}
	}
	return c.work(ctx)
}

// work has traffic all the time, faults until shortly before the end, and then quiet.
func (c *chaos) work(ctx context.Context) error {
	traffics, stop := context.WithCancel(ctx)
	defer stop()
	var working sync.WaitGroup
	for _, w := range c.workloads {
		working.Go(func() {
			if err := w.Run(traffics, c.env); err != nil {
				c.trouble("workload %s: %v", w.Name, err)
			}
		})
	}
	guard, unguard := context.WithCancel(ctx)
	defer unguard()
	var guarding sync.WaitGroup
	guarding.Go(func() { c.guard(guard) })
	traffic.Rest(ctx, warmUp)
	faults, heal := context.WithTimeout(ctx, c.duration-warmUp-healReserve-recoverLimit-quietLasts)
	(&schedule{
		world: c.world, since: c.log.Since, done: c.faulted, kinds: c.nemeses, random: rand.New(rand.NewPCG(c.seed, 4)),
	}).run(faults)
	if len(c.nemeses) == 0 {
		<-faults.Done()
	}
	heal()
	unguard()
	guarding.Wait()
	c.quiet(ctx)
	stop()
	ended := make(chan struct{})
	go func() {
		working.Wait()
		close(ended)
	}()
	select {
	case <-ended:
	case <-time.After(stopLimit):
		c.trouble("workloads did not end within %v", stopLimit)
	}
	if ctx.Err() == nil {
		c.final(ctx)
	}
	c.log.Mark(history.Mark{Kind: "note", Text: "end"}, struct{}{})
	return ctx.Err()
}

// faulted notes what became of a fault.
func (c *chaos) faulted(r nemesis.Report) {
	text := r.Text
	if r.Error != "" {
		text += " ERROR: " + r.Error
	}
	if r.Text == "" && r.Error != "" {
		c.trouble("%s: make: %s", r.Kind, r.Error)
	}
	if r.Unhealed != "" {
		c.trouble("%s: heal: %s", r.Kind, r.Unhealed)
	}
	fmt.Printf("%8v–%v %s: %s [%s]\n", r.Begun.Round(10*time.Millisecond), r.Healed.Round(10*time.Millisecond), r.Kind, text, r.Effect)
	c.log.Mark(history.Mark{At: r.Begun, Until: r.Healed, Kind: "fault", Text: r.Kind + ": " + text}, r)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.reports = append(c.reports, r)
}

// guard starts members again that have ended by themselves, as whatever runs them in a plant would. That they do is a finding.
func (c *chaos) guard(ctx context.Context) {
	suspects := map[string]int{}
	for traffic.Rest(ctx, guardEvery) {
		for _, m := range c.lab.Members[:c.members] {
			if m.Running() || !c.world.Take("guard", m.ID) {
				suspects[m.ID] = 0
				continue
			}
			// Whoever ends a member has it taken, and gives it back only when it runs again.
			if suspects[m.ID]++; suspects[m.ID] > guardLooks && !m.Running() {
				c.log.Mark(history.Mark{Kind: "note", Member: m.ID, Text: "crashed"}, struct{}{})
				at := c.log.Since()
				text := fmt.Sprintf("%v: %s ended by itself: see %s", at.Round(time.Millisecond), m.ID, m.LogFile())
				fmt.Println("CRASH", text)
				c.mu.Lock()
				c.crashes = append(c.crashes, validate.Problem{Text: text, From: at, Until: at})
				c.mu.Unlock()
				if err := m.Start(); err != nil {
					c.trouble("start %s: %v", m.ID, err)
				}
				suspects[m.ID] = 0
			}
			c.world.Give(m.ID)
		}
	}
}

// quiet heals what may be left, and lets everybody do one of each operation once the group has had its time to recover. Traffic goes on meanwhile.
func (c *chaos) quiet(ctx context.Context) {
	if err := c.lab.Heal(); err != nil {
		c.trouble("heal: %v", err)
	}
	c.log.Mark(history.Mark{Kind: "note", Text: "quiet"}, struct{}{})
	healed := time.Now()
	ready, cancel := context.WithTimeout(ctx, readyLimit)
	defer cancel()
	for _, m := range c.lab.Members[:c.members] {
		if err := m.AwaitReady(ready); err != nil {
			c.trouble("after the last heal: %v", err)
		}
	}
	fmt.Printf("quiet: all members are ready %v after the last heal\n", time.Since(healed).Round(time.Millisecond))
	traffic.Rest(ctx, time.Until(healed.Add(recoverLimit)))
	ctx, cancel = context.WithTimeout(ctx, askLimit)
	defer cancel()
	var asking sync.WaitGroup
	for _, w := range c.workloads {
		asking.Go(func() {
			if err := w.Quiet(ctx, c.env, "quiet-"+w.Name); err != nil {
				c.trouble("quiet period: %s: %v", w.Name, err)
			}
		})
	}
	traffic.Rest(ctx, quietLasts)
	asking.Wait()
}

// final reads everything.
func (c *chaos) final(ctx context.Context) {
	c.log.Mark(history.Mark{Kind: "note", Text: "final"}, struct{}{})
	for _, w := range c.workloads {
		if err := w.Final(ctx, c.env, "final"); err != nil {
			c.trouble("final reads: %s: %v", w.Name, err)
		}
	}
}
