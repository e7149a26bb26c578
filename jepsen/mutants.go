package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"quorate/jepsen/nemesis"
	"quorate/jepsen/traffic"
	"quorate/jepsen/validate"
)

// mutantLimit is how long it may take until a mutant is caught.
const mutantLimit = 5 * time.Minute

// trial is what shows that a rule is broken which the product keeps (package mutant): traffic, faults, and the claims of which one has to be found broken. A run that
// fails for any other reason proves nothing.
type trial struct {
	name      string
	workloads string
	nemeses   string
	duration  time.Duration
	// longest is how long a fault lasts at most, if not faultMost.
	longest time.Duration
	claims  []string
}

// trials are those of all mutants. Watches tell the checks what nobody was told at the return of his call. A serving lease is to be seen to run
// out, 5 s after it was renewed last, and somebody else to get the right meanwhile: for that a fault has to last.
var trials = []trial{
	{"no-sync", "member,topology,partition,lease,watch", "power-loss-all,power-loss-majority", 70 * time.Second, 0, []string{"durability", "linearizability", "generations", "watches"}},
	{"unconfirmed", "member,topology,partition,gate,lease,maintenance,watch", "late-hand-over", 70 * time.Second, 0, []string{"linearizability", "partitions"}},
	{"no-barrier", "member,partition,gate,watch", "none", 45 * time.Second, 0, []string{"partitions"}},
	{"wall-clock", "member,partition,gate,watch", "wall-clock,transfer", 70 * time.Second, 0, []string{"partitions"}},
	{"serving-for-ever", "member,topology,serving,level,watch", "isolate,halves", 130 * time.Second, 16 * time.Second, []string{"levels"}},
	{"open-gates", "member,partition,gate,watch", "none", 45 * time.Second, 0, []string{"partitions"}},
}

func mutantNames() []string {
	var names []string
	for _, t := range trials {
		names = append(names, t.name)
	}
	return names
}

// try makes a run that of the mutant's trial, where flags don't say otherwise.
func (o *options) try(given map[string]bool) (workloads, nemeses string, err error) {
	i := slices.IndexFunc(trials, func(t trial) bool { return t.name == o.mutant })
	if i < 0 {
		return "", "", fmt.Errorf("--mutant: %q is none of %s", o.mutant, strings.Join(mutantNames(), " "))
	}
	o.trial = trials[i]
	if !given["duration"] {
		o.duration = o.trial.duration
	}
	if !given["log-store"] {
		o.logStore = "bolt" // The other has no way not to sync.
	}
	return o.trial.workloads, o.trial.nemeses, nil
}

// breaks proves that the command is one that can break rules: it refuses a rule that there is none of. Any other takes no notice.
func breaks(ctx context.Context, binary string) error {
	cmd := exec.CommandContext(ctx, binary, "version")
	cmd.Env = []string{"MUTANT=none-such"}
	out, err := cmd.CombinedOutput()
	var failed *exec.ExitError
	if errors.As(err, &failed) && strings.Contains(string(out), "MUTANT=none-such") {
		return nil
	}
	return fmt.Errorf("--quorate: %s was not built with the tag mutant", binary)
}

// notCaught is the exit code of one attempt in which no claim of the trial was found broken.
const notCaught = 3

// runMutant runs until a claim of the trial is found broken, with another seed each time. It says whether that was so in time. Each attempt is a process of its
// own: namespaces and what is mounted in them go with it.
func runMutant(ctx context.Context, o *options) (caught bool, err error) {
	if err := breaks(ctx, o.binary); err != nil {
		return false, err
	}
	began := time.Now()
	for attempt := uint64(0); ; attempt++ {
		cmd := exec.CommandContext(ctx, "/proc/self/exe", append(slices.Clone(os.Args[1:]), "--once", "--seed", fmt.Sprint(o.seed+attempt))...)
		cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
		cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
		err := cmd.Run()
		took := time.Since(began).Round(time.Second)
		var failed *exec.ExitError
		switch {
		case err == nil:
			fmt.Printf("mutant %s: caught after %v\n", o.mutant, took)
			return took <= mutantLimit, nil
		case !errors.As(err, &failed) || failed.ExitCode() != notCaught:
			return false, fmt.Errorf("mutant %s: %w", o.mutant, err)
		case took+o.duration > mutantLimit:
			fmt.Printf("mutant %s: NOT CAUGHT within %v\n", o.mutant, took)
			return false, nil
		}
	}
}

// tryOnce is one attempt. It says whether a claim of the trial was found broken.
func tryOnce(ctx context.Context, o *options) (caught bool, err error) {
	o.out = filepath.Join(o.out, o.mutant)
	if _, err := run(ctx, o); err != nil {
		return false, err
	}
	for _, v := range o.verdicts {
		if slices.Contains(o.trial.claims, v.Name) && len(v.Problems) > 0 {
			fmt.Printf("mutant %s: noticed by %s: %s\n", o.mutant, v.Name, v.Problems[0].Text)
			return true, nil
		}
	}
	return false, nil
}

// known says whether names are those of claims, workloads and faults that there are.
func (t trial) known() error {
	var errs []error
	for _, claim := range t.claims {
		if !slices.Contains(validate.Names(), claim) {
			errs = append(errs, fmt.Errorf("%s: there is no claim %s", t.name, claim))
		}
	}
	if _, err := traffic.Only(traffic.All(), strings.Split(t.workloads, ",")); err != nil {
		errs = append(errs, err)
	}
	if t.nemeses != "none" {
		if _, err := nemesis.Only(nemesis.Kinds(), strings.Split(t.nemeses, ",")); err != nil {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}
