// Chaos starts a group of real members in namespaces of its own, drives it with traffic, breaks it in every way, and judges what clients saw. It needs root, and
// leaves nothing behind but its folder of results, even if it is killed.
//
//	make chaos CHAOS_ARGS="--duration 2m --seed 7"
//	go run ./jepsen --judge bin/chaos/history.jsonl
//
// It exits with 0 only if all claims hold, each kind of fault was seen to have had its effect, and enough operations were judged.
package main

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"math"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"quorate/jepsen/lab"
	"quorate/jepsen/nemesis"
	"quorate/jepsen/traffic"
	"quorate/jepsen/validate"
)

const (
	// leastDuration is the shortest run in which something can be broken and the quiet period kept.
	leastDuration = 40 * time.Second
	defaultRate   = 260
	// MaxOperations bounds what a run aims at, since all of it is kept in memory until it has been judged: about 4 KiB for each operation, with the events that it makes.
	MaxOperations = 1_500_000
)

// options are the flags.
type options struct {
	duration  time.Duration
	seed      uint64
	rate      float64
	members   int
	logStore  string
	workloads []traffic.Workload
	nemeses   []nemesis.Kind
	out       string
	judge     string
	window    *span
	binary    string
	enough    int
	mutant    string
	once      bool
	trial     trial
	// verdicts are what a run found.
	verdicts []validate.Verdict
}

func main() {
	o, err := parse(os.Args[1:])
	if errors.Is(err, flag.ErrHelp) {
		return
	}
	holds := false
	if err == nil {
		holds, err = start(o)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "chaos:", err)
		os.Exit(2)
	}
	if !holds {
		os.Exit(1)
	}
}

func parse(args []string) (*options, error) {
	o := &options{}
	flags := flag.NewFlagSet("chaos", flag.ContinueOnError)
	flags.DurationVar(&o.duration, "duration", 10*time.Minute, "how long traffic and faults last, with the quiet period at the end")
	flags.Uint64Var(&o.seed, "seed", 1, "what decides by chance: two runs with one seed are alike, and not the same")
	flags.Float64Var(&o.rate, "rate", defaultRate, "operations per second, of all clients together (default: less if the run would be too long to be judged)")
	flags.IntVar(&o.members, "members", 3, "voters that the group begins with: 3, 5 or 7")
	flags.StringVar(&o.logStore, "log-store", "", "bolt or wal (default: wal where the seed is even)")
	workloads := flags.String("workloads", "", "workloads, separated by commas: "+strings.Join(traffic.Names(traffic.All()), " ")+" (default: all)")
	nemeses := flags.String("nemeses", "", "kinds of faults, separated by commas, or none: "+strings.Join(nemesis.Names(nemesis.Kinds()), " ")+" (default: all)")
	flags.StringVar(&o.out, "out", "bin/chaos", "folder of the results; what is in it from a run before is removed")
	flags.StringVar(&o.judge, "judge", "", "judge the history in this file once more, and run nothing")
	window := flags.String("window", "", "with --judge: don't judge, but print what was under way between two times since the run began, such as 12.5s,14s")
	flags.StringVar(&o.binary, "quorate", "bin/quorate", "the quorate command")
	flags.IntVar(&o.enough, "enough", 0, "least operations to judge (default: half of what rate and duration promise)")
	flags.StringVar(&o.mutant, "mutant", "", "prove that a broken rule is noticed, with a command built with the tag mutant: "+strings.Join(mutantNames(), " "))
	flags.BoolVar(&o.once, "once", false, "with --mutant: one attempt, of which there are as many as it takes in 5 minutes; exits with 3 if nothing is noticed")
	if err := flags.Parse(args); err != nil {
		return nil, err
	}
	if *window != "" {
		var err error
		if o.window, err = parseSpan(*window); err != nil {
			return nil, err
		}
		if o.judge == "" {
			return nil, errors.New("--window: needs --judge, which says of which history")
		}
	}
	given := map[string]bool{}
	flags.Visit(func(f *flag.Flag) { given[f.Name] = true })
	if !given["rate"] {
		o.rate = min(o.rate, max(o.fits(), 1))
	}
	if o.mutant != "" {
		w, n, err := o.try(given)
		if err != nil {
			return nil, err
		}
		*workloads, *nemeses = cmp.Or(*workloads, w), cmp.Or(*nemeses, n)
	}
	return o, o.complete(flags.Args(), *workloads, *nemeses)
}

// fits is the highest whole rate at which a run of this length can be judged.
func (o *options) fits() float64 { return math.Floor(MaxOperations / o.duration.Seconds()) }

// complete checks everything before anything is done.
func (o *options) complete(rest []string, workloads, nemeses string) error {
	switch {
	case len(rest) > 0:
		return fmt.Errorf("%q is no flag", rest[0])
	case o.duration < leastDuration:
		return fmt.Errorf("--duration: %v is less than %v", o.duration, leastDuration)
	case o.rate < 1 || o.rate > 100_000:
		return fmt.Errorf("--rate: must be 1 to 100000, got %v", o.rate)
	case o.rate*o.duration.Seconds() > MaxOperations:
		return fmt.Errorf("--rate, --duration: %v operations per second for %v are more than the %d operations that can be judged: --rate %v fits, if the duration does", o.rate, o.duration, MaxOperations, o.fits())
	case o.members != 3 && o.members != 5 && o.members != 7:
		return fmt.Errorf("--members: must be 3, 5 or 7, got %d", o.members)
	case o.enough < 0:
		return fmt.Errorf("--enough: must be 0 or more, got %d", o.enough)
	}
	switch o.logStore {
	case "bolt", "wal":
	case "":
		o.logStore = "bolt"
		if o.seed%2 == 0 {
			o.logStore = "wal"
		}
	default:
		return fmt.Errorf("--log-store: must be bolt or wal, got %q", o.logStore)
	}
	if o.enough == 0 {
		o.enough = int(o.rate * o.duration.Seconds() / 2)
	}
	o.workloads, o.nemeses = traffic.All(), nemesis.Kinds()
	var err error
	if workloads != "" {
		if o.workloads, err = traffic.Only(o.workloads, strings.Split(workloads, ",")); err != nil {
			return fmt.Errorf("--workloads: %w", err)
		}
	}
	switch nemeses {
	case "":
	case "none":
		o.nemeses = nil
	default:
		if o.nemeses, err = nemesis.Only(o.nemeses, strings.Split(nemeses, ",")); err != nil {
			return fmt.Errorf("--nemeses: %w", err)
		}
	}
	for _, path := range []*string{&o.out, &o.binary} {
		if *path, err = filepath.Abs(*path); err != nil {
			return err
		}
	}
	return nil
}

// command is what repeats the run.
func (o *options) command() string {
	args := fmt.Sprintf("--duration %v --seed %d --rate %v --members %d --log-store %s", o.duration, o.seed, o.rate, o.members, o.logStore)
	if len(o.workloads) < len(traffic.All()) {
		args += " --workloads " + strings.Join(traffic.Names(o.workloads), ",")
	}
	switch {
	case len(o.nemeses) == 0:
		args += " --nemeses none"
	case len(o.nemeses) < len(nemesis.Kinds()):
		args += " --nemeses " + strings.Join(nemesis.Names(o.nemeses), ",")
	}
	if o.mutant != "" {
		return "bin/chaos-run --quorate bin/quorate-mutant --mutant " + o.mutant + " " + args
	}
	return "make chaos CHAOS_ARGS='" + args + "'"
}

// start says whether all claims hold.
func start(o *options) (bool, error) {
	if o.judge != "" {
		return rejudge(o)
	}
	if _, err := os.Stat(o.binary); err != nil {
		return false, fmt.Errorf("--quorate: %w; make build makes it", err)
	}
	if o.mutant != "" && !o.once {
		ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
		defer stop()
		return runMutant(ctx, o)
	}
	if err := lab.Enter(); err != nil {
		return false, err
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if o.once {
		caught, err := tryOnce(ctx, o)
		if err == nil && !caught {
			os.Exit(notCaught)
		}
		return caught, err
	}
	return run(ctx, o)
}
