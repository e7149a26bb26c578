// Command etcd measures Quorate beside etcd, on the same machine and disk, over the same loopback, and holds what comes out against the floors and aims of
// platform.md §9 (bounds.go). It prints lines
//
//	RESULT name value unit
//	BOUND name value unit at least|at most FLOOR met|missed, aim AIM met|missed
//
// and fails if a floor is missed. A name without the name of a system is a ratio, or Quorate's alone. Values are medians over rounds, and a ratio is the
// median of the ratios of each round.
//
// A round has a turn of each system, etcd between the log stores of Quorate, and each second round runs backwards. A turn starts three members, each a
// process with a folder of its own on the same disk, lets them settle, measures, and ends them: nothing else of either system runs meanwhile, since idle
// members take processor time too, and Quorate's more than etcd's. Both write with real fsync. Both are asked by the same load (load.go): callers that
// each wait for an answer, unary gRPC without TLS, the same connections, requests of the same size.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"
)

// options is what the flags say.
type options struct {
	quorate, etcd, data    string
	port                   int
	rows, systems          []string
	rounds                 int
	duration, warmup       time.Duration
	patience               time.Duration
	repeats                int
	callers, connections   int
	keys, partitions       int
	kills, handOvers       int
	quick, report, chatter bool
}

func main() {
	o, err := parse(os.Args[1:])
	if errors.Is(err, flag.ErrHelp) {
		return
	}
	if err != nil {
		log.Fatal(err)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, o); err != nil {
		log.Fatal(err)
	}
}

// parse reads the flags. Quick changes the defaults of others.
func parse(args []string) (*options, error) {
	o := &options{}
	var rows, systems string
	f := flag.NewFlagSet("etcd", flag.ContinueOnError)
	f.StringVar(&o.quorate, "quorate", "bin/quorate", "the binary to measure")
	f.StringVar(&o.etcd, "etcd", "bin/etcd", "the etcd server to measure it against")
	f.StringVar(&o.data, "data", "bin", "a folder on the disk to measure; each run makes a folder of its own inside and removes it")
	f.IntVar(&o.port, "base-port", 17500, "where the members' ports begin; 80 are used")
	f.StringVar(&rows, "rows", strings.Join(rowNames(), ","), "what to measure, separated by commas")
	f.StringVar(&systems, "systems", "bolt,etcd,wal", "who has a turn in each round, in this order: Quorate with the log store bolt or wal, and etcd")
	f.IntVar(&o.rounds, "rounds", 7, "how often each system has its turn in each part")
	f.DurationVar(&o.duration, "duration", 3*time.Second, "how long each load is measured")
	f.DurationVar(&o.warmup, "warmup", time.Second, "how long it runs before that")
	f.DurationVar(&o.patience, "patience", 0, "how long each load may wait until others leave the machine alone")
	f.IntVar(&o.repeats, "repeats", 0, "how often a load is measured again while others take more than a tenth of the machine; the least disturbed one counts")
	f.IntVar(&o.callers, "callers", 256, "callers at once; the bounds are those of 256")
	f.IntVar(&o.connections, "connections", 16, "gRPC connections that the callers share")
	f.IntVar(&o.keys, "keys", 10_000, "partitions of Quorate and keys of etcd that loads write and read")
	f.IntVar(&o.kills, "kills", 15, "how often the leader is killed, over all rounds")
	f.IntVar(&o.handOvers, "hand-overs", 15, "how often the leadership is handed over, over all rounds")
	f.IntVar(&o.partitions, "partitions", 1_000_000, "partitions of the part partitions")
	f.BoolVar(&o.quick, "quick", false, "4 minutes, for a check: bolt, 3 rounds of 1.5 s, 6 kills and hand-overs, no partitions, unless other flags say otherwise")
	f.BoolVar(&o.report, "report-only", false, "do not fail if a floor is missed")
	f.BoolVar(&o.chatter, "v", false, "tell of each turn")
	if err := f.Parse(args); err != nil {
		return nil, err
	}
	if o.quick {
		given := map[string]bool{}
		f.Visit(func(f *flag.Flag) { given[f.Name] = true })
		for name, value := range map[string]string{
			"rows": strings.Join(quickRows, ","), "systems": "bolt,etcd", "rounds": "3", "duration": "1500ms", "warmup": "500ms", "kills": "6", "hand-overs": "6",
		} {
			if given[name] {
				continue
			}
			if err := f.Set(name, value); err != nil {
				return nil, err
			}
		}
	}
	o.rows, o.systems = strings.Split(rows, ","), strings.Split(systems, ",")
	return o, o.check(f.Args())
}

// check finds what is wrong with the flags before anything is started.
func (o *options) check(rest []string) error {
	if len(rest) > 0 {
		return fmt.Errorf("%q is no flag", rest[0])
	}
	for _, list := range []struct {
		flag       string
		got, known []string
	}{{"-rows", o.rows, rowNames()}, {"-systems", o.systems, systemNames}} {
		for _, name := range list.got {
			if !slices.Contains(list.known, name) {
				return fmt.Errorf("%s: %q is not one of %s", list.flag, name, strings.Join(list.known, ", "))
			}
		}
	}
	for _, n := range []struct {
		flag     string
		got, min int
		max      int
	}{
		{"-rounds", o.rounds, 1, 100},
		{"-callers", o.callers, 1, 4096},
		{"-repeats", o.repeats, 0, 100},
		{"-connections", o.connections, 1, 1024},
		{"-keys", o.keys, o.callers, 100_000},
		{"-partitions", o.partitions, createBatch, 1_000_000},
		{"-kills", o.kills, o.rounds, 1000},
		{"-hand-overs", o.handOvers, o.rounds, 1000},
		{"-base-port", o.port, 1024, 65000},
	} {
		if n.got < n.min || n.got > n.max {
			return fmt.Errorf("%s: %d is not %d to %d", n.flag, n.got, n.min, n.max)
		}
	}
	if o.duration <= 0 || o.warmup <= 0 || o.patience < 0 {
		return errors.New("-duration and -warmup must be greater than zero, and -patience not less")
	}
	return nil
}

// run measures all parts and says which bounds hold.
func run(ctx context.Context, o *options) (err error) {
	b := &bench{options: o, results: map[string]float64{}}
	if b.dir, err = os.MkdirTemp(o.data, "bench-etcd-"); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(b.dir)) }()
	for _, p := range parts {
		if !slices.ContainsFunc(p.rows, b.wants) {
			continue
		}
		if err := p.measure(b, ctx); err != nil {
			return fmt.Errorf("%s: %w", strings.Join(p.rows, ", "), err)
		}
	}
	lines, missed := judge(b.results)
	for _, line := range lines {
		fmt.Println(line)
	}
	if len(missed) > 0 && !o.report {
		return fmt.Errorf("floors are missed: %s", strings.Join(missed, ", "))
	}
	return nil
}

// part is some rows that are measured together, in the same turns.
type part struct {
	rows    []string
	measure func(*bench, context.Context) error
}

// The rows.
const (
	rowCommits       = "commits"
	rowCommitsSpread = "commits_spread"
	rowCommitsOne    = "commits_1"
	rowReads         = "reads"
	rowReadsSpread   = "reads_spread"
	rowResolve       = "resolve"
	rowHandOver      = "hand_over"
	rowFailover      = "failover"
	rowGates         = "gates"
	rowPartitions    = "partitions"
)

var parts = []part{
	{[]string{rowCommits, rowCommitsSpread, rowCommitsOne}, (*bench).commits},
	{[]string{rowReads, rowReadsSpread, rowResolve}, (*bench).reads},
	{[]string{rowHandOver, rowFailover}, (*bench).failovers},
	{[]string{rowGates}, (*bench).gates},
	{[]string{rowPartitions}, (*bench).millions},
}

// quickRows are those of a quick run.
var quickRows = []string{rowCommits, rowCommitsOne, rowReads, rowResolve, rowHandOver, rowFailover, rowGates}

func rowNames() (names []string) {
	for _, p := range parts {
		names = append(names, p.rows...)
	}
	return names
}

func (b *bench) wants(row string) bool { return slices.Contains(b.rows, row) }

// bench is one run.
type bench struct {
	*options
	dir     string
	started int // turns
	results map[string]float64
}

// result prints a result and keeps it for the bounds.
func (b *bench) result(name string, value float64, unit string) {
	b.results[name] = value
	fmt.Printf("RESULT %s %.*f %s\n", name, digits(value), value, unit)
}

// digits is how many places behind the point are worth to be printed.
func digits(v float64) int {
	switch {
	case v >= 1000:
		return 0
	case v >= 100:
		return 1
	case v >= 0.1:
		return 2
	}
	return 4
}
