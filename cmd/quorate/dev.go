package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/spf13/cobra"
)

const (
	// devStartLimit is how long a group may take until it is ready; 5 s are promised on an idle machine.
	devStartLimit = 30 * time.Second
	// devStopLimit is how long the members may take to stop before they are killed.
	devStopLimit = 10 * time.Second
	// defaultDevMembers is the smallest group that stands the loss of a member.
	defaultDevMembers = 3
)

// devFlags are the flags of "quorate dev".
type devFlags struct {
	members   int
	processes bool
	basePort  int
	data      string
	demo      bool
	set       []string
	json      bool
}

func newDev(o *options) *cobra.Command {
	f := &devFlags{}
	cmd := &cobra.Command{
		Use:   "dev",
		Short: "Run a whole group on loopback, with a demo topology",
		Long: `Dev runs a group on loopback, publishes a demo topology, creates demo partitions and prints every address and what to try next. Plain text and
anonymous callers are allowed, so it is for trying and testing only.

The members run in this process or, with --processes, each in one of its own, which may be killed and brought back.
Without --data everything is forgotten at the end. An interrupt (Ctrl-C) stops all; a second one does so at once.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return runDev(cmd.Context(), o, f) },
	}
	flags := cmd.Flags()
	flags.IntVar(&f.members, "members", defaultDevMembers, fmt.Sprintf("how many members, 1 to %d", maxDevMembers))
	flags.BoolVar(&f.processes, "processes", false, "run each member in a process of its own")
	flags.IntVar(&f.basePort, "base-port", 0, "member i (from 1) listens at `P`+i for gRPC, P+10+i HTTP, P+20+i OPC UA, P+30+i raft (default: 7101, 7201, 4841, 7301 and up)")
	flags.StringVar(&f.data, "data", "", "`DIR` that keeps the members' data, to go on with it later (default: a temporary one)")
	flags.BoolVar(&f.demo, "demo", true, "publish the demo topology, unless one was published before")
	flags.BoolVar(&f.json, "json", false, "print one line of JSON when the group is ready, and nothing else, on standard output")
	must(cmd.MarkFlagDirname("data"))
	addSetFlag(cmd, &f.set)
	return cmd
}

// devGroup runs the members of a dev group, in this process or in their own.
type devGroup interface {
	// start starts all members. It does not wait until they are ready.
	start() error
	// failed delivers an error that ends the whole group.
	failed() <-chan error
	// settled tells that the group became ready.
	settled()
	// stop stops all members and waits for them.
	stop() error
}

func runDev(ctx context.Context, o *options, f *devFlags) (err error) {
	plan, err := planDev(f)
	if err != nil {
		return err
	}
	ephemeral := f.data == ""
	if err := plan.write(); err != nil {
		return err
	}
	keep := func() bool { return !ephemeral }
	defer func() {
		if !keep() {
			err = errors.Join(err, os.RemoveAll(plan.dir))
		}
	}()
	notices := &noticeWriter{w: o.std.err}
	var group devGroup
	if f.processes {
		processes := newProcessGroup(plan, notices)
		keep = func() bool { return !ephemeral || processes.restarted() }
		group = processes
	} else {
		group = newLocalGroup(plan)
	}
	if err := group.start(); err != nil {
		return errors.Join(err, group.stop())
	}
	defer func() { err = errors.Join(err, group.stop()) }()

	failed := make(chan error, 1)
	starting, cancel := context.WithTimeout(ctx, devStartLimit)
	defer cancel()
	var waiter sync.WaitGroup
	waiter.Go(func() { failed <- plan.ready(starting, f.demo) })
	select {
	case err := <-failed:
		if ctx.Err() != nil {
			return nil // Interrupted before it was ready: what the user asked for is done.
		}
		if err != nil {
			return fmt.Errorf("the group did not become ready: %w", err)
		}
	case err := <-group.failed():
		cancel()
		waiter.Wait()
		return err
	}
	group.settled()
	if err := announce(o.std.out, plan, f); err != nil {
		return err
	}
	select {
	case <-ctx.Done():
		return nil
	case err := <-group.failed():
		return err
	}
}

// announce tells that the group is ready: to a program with --json, to a person otherwise.
func announce(w io.Writer, plan *devPlan, f *devFlags) error {
	if !f.json {
		p := newPrinter(w)
		printGuide(p, plan, f)
		return p.flush()
	}
	line, err := json.Marshal(map[string]any{"members": plan.members})
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(w, "%s\n", line)
	return err
}

// printGuide prints the addresses and commands to type. Each of them works as it stands.
func printGuide(p *printer, plan *devPlan, f *devFlags) {
	quorate := commandName()
	rows := make([][]cell, 0, len(plan.members))
	for _, m := range plan.members {
		rows = append(rows, text(m.ID, m.PID, m.GRPC, "http://"+m.HTTP, m.OPCUA, m.logFile()))
	}
	kept := "forgotten at the end, keep it with --data DIR"
	if f.data != "" {
		kept = "kept"
	}
	p.line("The group is ready. Its data is in %s (%s).", plan.dir, kept)
	p.line("")
	p.table([]string{"MEMBER", "PID", "GRPC", "HTTP", "OPC UA", "LOG"}, rows)
	p.line("")
	p.line("The same as a web page, live, at each member's HTTP address, such as http://%s/", plan.members[0].HTTP)
	p.line("")
	p.line("Try, in another terminal:")
	p.line("")
	var steps []step
	steps = append(steps,
		step{"export QUORATE_ADDR=" + plan.endpoints(","), "where the commands below find the group"},
		step{quorate + " member list", "who leads, and what each server advertises"})
	if f.demo {
		steps = append(append(steps, demoSteps(quorate, plan, f)...), partitionSteps(quorate)...)
	}
	printSteps(p, steps)
	p.line("")
	if !f.processes {
		p.line("With --processes each member has a process of its own, to be killed and brought back.")
	}
	p.line("Ctrl-C stops all members.")
}

// step is a command to type, and what it shows.
type step struct{ command, why string }

func demoSteps(quorate string, plan *devPlan, f *devFlags) []step {
	primary := plan.members[0]
	read := quorate + " ua read --endpoint " + primary.OPCUA + " i=2267"
	steps := []step{
		{read, "ServiceLevel of m1, the Primary: 255"},
		{quorate + " lease begin m1", "m1 is mid-apply: 200"},
		{quorate + " lease end m1", "and 255 again"},
	}
	if len(plan.members) < 2 {
		return steps
	}
	backup := plan.members[1]
	steps = append(steps, step{quorate + " ua watch --endpoint " + backup.OPCUA + " i=2267", "ServiceLevel of m2, the Backup: 100; leave it running"})
	if f.processes && len(plan.members) > 2 {
		steps = append(steps,
			step{fmt.Sprintf("kill -9 %d", primary.PID), "m1 dies; after three failed probes m2 says 80"},
			step{quorate + " serve --config " + quote(primary.configFile()), "m1 comes back, Recovering for a minute"})
	}
	return append(steps,
		step{quorate + " topology plan -f " + quote(plan.swappedFile()), "what a swap of the roles would change"},
		step{quorate + " topology publish -f " + quote(plan.swappedFile()), "m2 becomes Primary, with no restart"},
		step{quorate + " topology history", ""})
}

func printSteps(p *printer, steps []step) {
	width := 0
	for _, s := range steps {
		// A long path must not push every remark off the screen.
		if len(s.command) <= maxAlignedCommand {
			width = max(width, len(s.command))
		}
	}
	for _, s := range steps {
		remark := ""
		if s.why != "" {
			remark = fmt.Sprintf("%*s  # %s", max(width-len(s.command), 0), "", s.why)
		}
		p.line("  %s%s", s.command, remark)
	}
}

// maxAlignedCommand is the longest command that remarks are aligned behind.
const maxAlignedCommand = 78

// commandName returns how this program was called, so that what is printed may be typed in the same place.
func commandName() string {
	if name := os.Args[0]; filepath.Base(name) != name {
		return quote(name)
	}
	return "quorate"
}
