// Command opcua measures a member's OPC UA server beside others: what reads cost it, with and without security, and what a
// thousand sessions cost it of which each has a value that changes ten times a second. It prints lines
//
//	RESULT name value unit
//
// The names of a member's results are bare; those of a peer begin with its name; those of ratios, in which more is better for
// Quorate, with "ratio_". Processor time and memory are those of the server's process alone. Machines differ and are noisy:
// compare what was measured in one run, and quote ratios.
//
// The load comes from a client of its own (bench/client), which does no more for a message than it must, because load and server
// share the machine. Each scenario is run on one server after the other, so that they share its moods too.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"quorate/bench/client"
)

// options is what the flags say.
type options struct {
	quorate          string
	data             string
	port             int
	sessions         int
	warmup, duration time.Duration
	peers            bool
	only             string
}

func main() {
	var o options
	flag.StringVar(&o.quorate, "quorate", "bin/quorate", "the binary to measure")
	flag.StringVar(&o.data, "data", "bin", "a folder; each run makes a folder of its own inside and removes it")
	flag.IntVar(&o.port, "base-port", 17200, "where the servers' ports begin")
	flag.IntVar(&o.sessions, "sessions", 1000, "number of sessions that are connected and subscribed")
	flag.DurationVar(&o.warmup, "warmup", time.Second, "how long each load runs before it is measured")
	flag.DurationVar(&o.duration, "duration", 4*time.Second, "how long each load of reads is measured; subscriptions twice as long")
	flag.BoolVar(&o.peers, "peers", true, "measure node-opcua too")
	flag.StringVar(&o.only, "only", "", "measure nothing but reads, subscriptions or connects")
	flag.Parse()

	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, o); err != nil {
		log.Fatal(err)
	}
}

// run starts the servers, measures them, and stops them.
func run(ctx context.Context, o options) (err error) {
	// An absolute path, since the peer runs in a folder of its own.
	dir, err := filepath.Abs(o.data)
	if err != nil {
		return err
	}
	if dir, err = os.MkdirTemp(dir, "bench-opcua-"); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	s, err := startQuorate(ctx, o.quorate, dir, o.port)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.stop()) }()
	subjects := []*subject{s}
	if o.peers {
		peer, err := startNodeOPCUA(ctx, dir, o.port+50, o.sessions)
		if err != nil {
			return err
		}
		subjects = append(subjects, peer)
		defer func() { err = errors.Join(err, peer.stop()) }()
	}
	b := bench{options: o, subjects: subjects}
	if b.identity, err = client.NewIdentity(clientName); err != nil {
		return err
	}
	scenarios := []struct {
		name    string
		measure func(context.Context) error
	}{{"reads", b.reads}, {"subscriptions", b.subscriptions}, {"connects", b.connects}}
	known := o.only == ""
	for _, s := range scenarios {
		if o.only == "" || o.only == s.name {
			known = true
			err = errors.Join(err, s.measure(ctx))
		}
	}
	if !known {
		return fmt.Errorf("-only: there is no scenario %q", o.only)
	}
	return err
}

// bench is one run.
type bench struct {
	options
	subjects []*subject
	identity *client.Identity
}

// securities are the ways to connect, by their names in the results.
var securities = []string{"none", "encrypted"}

func (b *bench) target(ctx context.Context, s *subject, security string) (o client.Options, err error) {
	o = optionsFor(s.endpoint)
	if security == "encrypted" {
		if o.Certificate, err = client.Certificate(ctx, o); err != nil {
			return o, err
		}
		o.Identity = b.identity
	}
	return o, nil
}

func (b *bench) reads(ctx context.Context) error {
	for _, security := range securities {
		for _, clients := range []int{1, 50} {
			name := fmt.Sprintf("%d_%s", clients, security)
			c := comparison{}
			for _, s := range b.subjects {
				t, err := b.target(ctx, s, security)
				if err != nil {
					return fmt.Errorf("%s: %w", s.endpoint, err)
				}
				r, err := measureReads(ctx, s, t, clients, b.warmup, b.duration)
				if err != nil {
					return fmt.Errorf("%s: reads with %s: %w", s.endpoint, name, err)
				}
				c.more(s, "reads_per_second_"+name, r.perSecond(), "reads/s")
				c.more(s, "reads_per_cpu_second_"+name, r.perCPUSecond(), "reads/s")
				c.less(s, "cpu_seconds_per_100k_reads_"+name, r.cpuPer100k(), "s")
			}
		}
	}
	return nil
}

func (b *bench) subscriptions(ctx context.Context) error {
	c := comparison{}
	for _, s := range b.subjects {
		began := time.Now()
		clients, err := connectAll(ctx, optionsFor(s.endpoint), b.sessions)
		if err != nil {
			return fmt.Errorf("%s: %w", s.endpoint, err)
		}
		c.less(s, fmt.Sprintf("connect_%d_none", b.sessions), time.Since(began).Seconds(), "s")
		n, err := measureNotifications(ctx, s, clients, 3*b.warmup, 2*b.duration)
		if err != nil {
			return fmt.Errorf("%s: %w", s.endpoint, err)
		}
		name := func(what string) string { return fmt.Sprintf("sessions_%d_%s", b.sessions, what) }
		seconds := (2 * b.duration).Seconds()
		c.more(s, name("notifications_per_second"), float64(len(n.latencies))/seconds, "1/s")
		c.less(s, name("interval_p50"), percentile(n.intervals, 50), "ms")
		c.less(s, name("interval_p99"), percentile(n.intervals, 99), "ms")
		c.less(s, name("latency_p50"), percentile(n.latencies, 50), "ms")
		c.less(s, name("latency_p99"), percentile(n.latencies, 99), "ms")
		c.less(s, name("cpu"), n.cpu, "%")
		c.less(s, name("rss"), n.rss, "MB")
	}
	return nil
}

// connects measures what subscriptions has not: connecting with security.
func (b *bench) connects(ctx context.Context) error {
	c := comparison{}
	for _, s := range b.subjects {
		t, err := b.target(ctx, s, "encrypted")
		if err != nil {
			return fmt.Errorf("%s: %w", s.endpoint, err)
		}
		took, err := measureConnect(ctx, t, b.sessions)
		if err != nil {
			return fmt.Errorf("%s: %w", s.endpoint, err)
		}
		c.less(s, fmt.Sprintf("connect_%d_encrypted", b.sessions), took.Seconds(), "s")
	}
	return nil
}

// comparison prints results, and the ratios of Quorate's, which come first, to those of its peers.
type comparison map[string]float64

// more prints a result of which more is better, and less one of which less is better.
func (c comparison) more(s *subject, name string, value float64, unit string) {
	if base, ok := c.print(s, name, value, unit); ok {
		fmt.Printf("RESULT ratio_%s%s %.2f x\n", s.prefix, name, base/value)
	}
}

func (c comparison) less(s *subject, name string, value float64, unit string) {
	if base, ok := c.print(s, name, value, unit); ok {
		fmt.Printf("RESULT ratio_%s%s %.2f x\n", s.prefix, name, value/base)
	}
}

func (c comparison) print(s *subject, name string, value float64, unit string) (base float64, isPeer bool) {
	// Two decimals where they say anything, and no exponents: scripts read this.
	decimals := 2
	if value >= 1000 {
		decimals = 0
	}
	fmt.Printf("RESULT %s%s %.*f %s\n", s.prefix, name, decimals, value, unit)
	if s.prefix == "" {
		c[name] = value
		return 0, false
	}
	base, ok := c[name]
	return base, ok
}
