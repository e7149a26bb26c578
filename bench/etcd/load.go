package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"google.golang.org/grpc"
)

// drainLimit is how long the last calls of a load may take after its time is up.
const drainLimit = 5 * time.Second

// load is what a number of callers came to, each of which waited for an answer before it asked again.
type load struct {
	latencies []time.Duration // sorted
	elapsed   time.Duration
	// servers is the processor time that all members took together, and callers that of this process.
	servers, callers time.Duration
	// others is the share of the machine that everything else took meanwhile.
	others float64
}

func (l load) rate() float64 { return float64(len(l.latencies)) / l.elapsed.Seconds() }

func (l load) percentile(p int) float64 {
	if len(l.latencies) == 0 {
		return 0
	}
	return milliseconds(l.latencies[(len(l.latencies)-1)*p/100])
}

// each is what one call took of some time, in microseconds.
func (l load) each(d time.Duration) float64 {
	return float64(d.Nanoseconds()) / 1e3 / float64(max(len(l.latencies), 1))
}

func milliseconds(d time.Duration) float64 { return float64(d.Nanoseconds()) / 1e6 }

// spread says to whom callers talk.
type spread bool

const (
	toLeader spread = false
	toAll    spread = true
)

// call is what callers do again and again, each with keys of its own.
type call func(ctx context.Context, l link, key int) error

func write(ctx context.Context, l link, key int) error { return l.write(ctx, key) }
func read(ctx context.Context, l link, key int) error  { return l.read(ctx, key) }

// load runs callers for a while, on connections to the leader or to all members by turns, after they ran for the warm-up.
func (b *bench) load(ctx context.Context, g group, callers int, to spread, do call) (l load, err error) {
	leader, err := g.leader(ctx)
	if err != nil {
		return l, err
	}
	// To all members means at least one connection to each.
	members, connections := g.addresses(), b.connections
	if to == toAll {
		connections = max(connections, len(members))
	}
	addresses := make([]string, min(connections, callers))
	for i := range addresses {
		addresses[i] = members[leader]
		if to == toAll {
			addresses[i] = members[i%len(members)]
		}
	}
	conns, err := dial(addresses...)
	if err != nil {
		return l, err
	}
	defer closeAll(conns)
	if _, err := b.runCallers(ctx, g, conns, callers, b.warmup, do); err != nil {
		return l, err
	}
	for attempt := 0; attempt <= b.repeats; attempt++ {
		if err := b.awaitQuiet(ctx, g); err != nil {
			return l, err
		}
		again, err := b.measure(ctx, g, conns, callers, do)
		if err != nil {
			return l, err
		}
		if attempt == 0 || again.others < l.others {
			l = again
		}
		if l.others <= disturbed {
			break
		}
	}
	// A load during which the leadership moved would be something else.
	now, err := g.leader(ctx)
	if err == nil && now != leader {
		err = errors.New("the leader changed under load")
	}
	return l, err
}

// measure is one load with all that it cost.
func (b *bench) measure(ctx context.Context, g group, conns []*grpc.ClientConn, callers int, do call) (load, error) {
	before, err := usageOf(g)
	if err != nil {
		return load{}, err
	}
	l, err := b.runCallers(ctx, g, conns, callers, b.duration, do)
	if err != nil {
		return l, err
	}
	after, err := usageOf(g)
	l.servers, l.callers, l.others = after.servers-before.servers, after.callers-before.callers, after.others(before)
	return l, err
}

// runCallers lets callers ask until time is up. Any error ends it: a rate of refused calls would be no rate.
func (b *bench) runCallers(ctx context.Context, g group, conns []*grpc.ClientConn, callers int, d time.Duration, do call) (load, error) {
	ctx, cancel := context.WithTimeout(ctx, d+drainLimit)
	defer cancel()
	ctx, fail := context.WithCancelCause(ctx) // The first failure makes all others.
	defer fail(nil)
	links := make([]link, len(conns))
	for i, c := range conns {
		links[i] = g.link(c)
	}
	own := b.keys / callers // keys of each caller
	latencies := make([][]time.Duration, callers)
	began := time.Now()
	until := began.Add(d)
	var wg sync.WaitGroup
	for caller := range callers {
		wg.Go(func() {
			c := links[caller%len(links)]
			for i, sent := 0, began; sent.Before(until); i++ {
				if err := do(ctx, c, caller*own+i%own); err != nil {
					fail(fmt.Errorf("caller %d: %w", caller, err))
					return
				}
				now := time.Now()
				latencies[caller] = append(latencies[caller], now.Sub(sent))
				sent = now
			}
		})
	}
	wg.Wait()
	l := load{elapsed: time.Since(began), latencies: slices.Concat(latencies...)}
	slices.Sort(l.latencies)
	return l, context.Cause(ctx)
}

// commits measures writes: of all callers through the leader, of all callers through all members, and of one caller.
func (b *bench) commits(ctx context.Context) error {
	return b.inTurns(ctx, func(ctx context.Context, _ system, g group) ([]sample, error) {
		return b.loads(ctx, g, "commit", write, []shape{
			{row: rowCommits, callers: b.callers}, {row: rowCommitsSpread, callers: b.callers, to: toAll}, {row: rowCommitsOne, callers: 1},
		})
	})
}

// reads measures linearizable reads of one key each.
func (b *bench) reads(ctx context.Context) error {
	return b.inTurns(ctx, func(ctx context.Context, _ system, g group) ([]sample, error) {
		samples, err := b.loads(ctx, g, "read", read, []shape{{row: rowReads, callers: b.callers}, {row: rowReadsSpread, callers: b.callers, to: toAll}})
		if err != nil {
			return nil, err
		}
		if q, ok := g.(*quorate); ok && b.wants(rowResolve) {
			more, err := b.resolve(ctx, q, b.keys)
			return append(samples, more...), err
		}
		return samples, nil
	})
}

// shape is how many callers ask whom.
type shape struct {
	row     string
	callers int
	to      spread
}

// loads runs loads one after the other on the same group.
func (b *bench) loads(ctx context.Context, g group, what string, do call, shapes []shape) (samples []sample, err error) {
	for _, s := range shapes {
		if !b.wants(s.row) {
			continue
		}
		before, err := entriesOf(ctx, g)
		if err != nil {
			return nil, err
		}
		l, err := b.load(ctx, g, s.callers, s.to, do)
		if err != nil {
			return nil, err
		}
		after, err := entriesOf(ctx, g)
		if err != nil {
			return nil, err
		}
		name := fmt.Sprintf("%ss_%d", what, s.callers)
		if s.to == toAll {
			name += "_spread"
		}
		samples = append(samples,
			sample{name: name, value: l.rate(), unit: what + "s/s", compare: true},
			sample{name: name + "_p50", value: l.percentile(50), unit: "ms"},
			sample{name: name + "_p99", value: l.percentile(99), unit: "ms"},
			sample{name: name + "_cpu_servers", value: l.each(l.servers), unit: "us/" + what},
			sample{name: name + "_cpu_callers", value: l.each(l.callers), unit: "us/" + what},
			sample{name: name + "_others", value: 100 * l.others, unit: "%"},
		)
		if entries := after.formed - before.formed; entries > 0 && what == "commit" {
			samples = append(samples, sample{name: name + "_per_entry", value: (after.commands - before.commands) / entries, unit: "commits/entry"})
		}
	}
	return samples, nil
}

// entries are the log entries that the members of a group formed, and the commands in them. Of etcd it is not known.
type entries struct{ formed, commands float64 }

func entriesOf(ctx context.Context, g group) (sum entries, err error) {
	q, ok := g.(*quorate)
	if !ok {
		return sum, nil
	}
	for i := range q.Members {
		m, err := q.scrape(ctx, i)
		if err != nil {
			return sum, err
		}
		sum.formed += m["quorate_entries_total"]
		sum.commands += m["quorate_entry_commands_total"]
	}
	return sum, nil
}
