package main

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/spf13/cobra"

	"quorate/cmd/quorate/migration"
	quoratev1 "quorate/proto/quorate/v1"
)

func TestCommandsMayBeTypedAgain(t *testing.T) {
	o := &options{}
	root := &cobra.Command{Use: "quorate"}
	root.PersistentFlags().StringSliceVar(&o.endpoints, "addr", nil, "")
	f := &driveFlags{}
	migrate := &cobra.Command{Use: "migrate", RunE: func(*cobra.Command, []string) error { return nil }}
	f.add(o, migrate)
	o.addToFlag(migrate, &f.to, "")
	migrate.Flags().Bool("resume", false, "")
	partition := &cobra.Command{Use: "partition"}
	root.AddCommand(partition)
	partition.AddCommand(migrate)
	root.SetArgs([]string{"partition", "migrate", "p1", "p2", "--to", "b2", "--addr", "h:1,h:2", "--early=false", "--server", "m1,m2", "--dry-run", "--note", "it's", "--copy-hook", "cp", "--", "-r", "a b"})
	if err := root.Execute(); err != nil {
		t.Fatal(err)
	}
	f.hookWords = []string{"-r", "a b"}
	a := &again{cmd: migrate, flags: f}
	want := commandName() + ` partition migrate p1 p2 --to b2 --addr h:1 --addr h:2 --copy-hook cp --early=false --note 'it'\''s' --server m1 --server m2 --resume -- -r 'a b'`
	if got := a.goOn("b2", []string{"p1", "p2"}); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	if got := a.connection(); got != " --addr h:1 --addr h:2" {
		t.Errorf("got %q", got)
	}
	a.file, a.arguments = "-", []string{"p1"}
	if got := a.goOn("b2", []string{"p2"}); !strings.HasPrefix(got, commandName()+" partition migrate p1 --file - --to b2 ") || !strings.HasSuffix(got, " (with the same standard input)") {
		t.Errorf("got %s", got)
	}
}

// TestAdviceIsShort: of many migrations that are not done, the first are named with what may be typed, and of the others there is a way to list them.
func TestAdviceIsShort(t *testing.T) {
	var said bytes.Buffer
	o := &options{std: streams{err: &said}}
	cmd := &cobra.Command{Use: "migrate"}
	f := &driveFlags{}
	f.add(o, cmd)
	var outcomes []migration.Outcome
	outcome := func(i int, to string, result migration.Result, err error, p *quoratev1.Partition) {
		id := fmt.Sprintf("p%02d", i)
		p.Id = id
		outcomes = append(outcomes, migration.Outcome{Job: migration.Job{Partition: id, To: to}, Result: result, Last: p, Err: err})
	}
	for i := range maxShownCommands + 3 {
		outcome(i, fmt.Sprintf("b%02d", i), migration.Interrupted, nil, &quoratev1.Partition{
			Phase: quoratev1.PartitionPhase_PARTITION_PHASE_DRAINING, Placement: "a", Migration: &quoratev1.Migration{To: fmt.Sprintf("b%02d", i)},
		})
	}
	// None of these is to be begun anew: one is done, one goes elsewhere, and one was aborted by somebody else.
	outcome(90, "done", migration.Done, nil, &quoratev1.Partition{Placement: "done"})
	outcome(91, "elsewhere", migration.Failed, errors.New("elsewhere"), &quoratev1.Partition{Migration: &quoratev1.Migration{To: "b"}})
	outcome(92, "aborted", migration.Failed, errors.New("aborted"), &quoratev1.Partition{Placement: "a"})
	a := &again{cmd: cmd, flags: f}
	a.advise(o, outcomes, func(left []migration.Outcome) { a.adviseMigrate(o, left) })
	text := said.String()
	if n := strings.Count(text, " is draining: writes go on at a\n"); n != maxShownCommands {
		t.Errorf("%d are named", n)
	}
	for _, want := range []string{"quorate: and 3 more: " + commandName() + " partition migrations\n", "quorate: and to 3 more placements\n", "p00 --to b00 --resume\n"} {
		if !strings.Contains(text, want) {
			t.Errorf("it lacks %q", want)
		}
	}
	if strings.Contains(text, "p9") || strings.Count(text, "go on:") != maxShownCommands {
		t.Errorf("it says\n%s", text)
	}
	// Where it is not known how a partition was left, that is said.
	said.Reset()
	a.advise(o, []migration.Outcome{{
		Job: migration.Job{Partition: "p1", To: "b"}, Result: migration.Interrupted, Unsure: true, Last: &quoratev1.Partition{Phase: quoratev1.PartitionPhase_PARTITION_PHASE_ACTIVE},
	}}, func([]migration.Outcome) {})
	if want := "partition p1 may be one phase further than active, since the last change was not answered"; !strings.Contains(said.String(), want) {
		t.Errorf("it says %q", said.String())
	}
}

func TestDrainKeepsTheFirstFailures(t *testing.T) {
	d := &draining{counts: map[migration.Result]int{}, moved: map[string]int{}}
	for range maxKept + 5 {
		d.note(migration.Outcome{Result: migration.Failed, Err: errors.New("x")})
	}
	d.note(migration.Outcome{Result: migration.Done, Last: &quoratev1.Partition{Placement: "b"}})
	if len(d.left) != maxKept || d.counts[migration.Failed] != maxKept+5 || d.moved["b"] != 1 {
		t.Errorf("%d kept, %v, %v", len(d.left), d.counts, d.moved)
	}
}
