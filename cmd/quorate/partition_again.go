package main

import (
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"quorate/cmd/quorate/migration"
	quoratev1 "quorate/proto/quorate/v1"
)

// maxShownCommands is how many commands to go on or give up are printed.
const maxShownCommands = 8

// commandLine is a command with the flags that were given, as it may be typed again.
func commandLine(cmd *cobra.Command, arguments []string, without map[string]bool) string {
	words := append([]string{commandName()}, strings.Fields(cmd.CommandPath())[1:]...)
	for _, argument := range arguments {
		words = append(words, quote(argument))
	}
	return strings.Join(append(words, flagWords(cmd, without)...), " ")
}

// flagWords are the flags that were given, those for all commands included.
func flagWords(cmd *cobra.Command, without map[string]bool) []string {
	var words []string
	cmd.Flags().Visit(func(flag *pflag.Flag) {
		if without[flag.Name] {
			return
		}
		values := []string{flag.Value.String()}
		if list, ok := flag.Value.(pflag.SliceValue); ok {
			values = list.GetSlice()
		}
		for _, value := range values {
			switch {
			case flag.Value.Type() != "bool":
				words = append(words, "--"+flag.Name, quote(value))
			case value == "true":
				words = append(words, "--"+flag.Name)
			default:
				words = append(words, "--"+flag.Name+"="+value)
			}
		}
	})
	return words
}

// again makes the commands that go on with migrations that are not done, or give them up.
type again struct {
	cmd   *cobra.Command
	flags *driveFlags
	// arguments and file are where the ids came from, if they came from a file.
	arguments []string
	file      string
}

// ofOneRun are flags that hold for one run only.
var ofOneRun = map[string]bool{
	"resume": true, "dry-run": true, "request-id": true, "expect-epoch": true, "yes": true, "file": true, "to": true, "parallel": false,
}

// goOn is the command that carries the migrations to their end: those of one new placement.
func (a *again) goOn(to string, ids []string) string {
	words := []string{commandName(), "partition", "migrate"}
	if a.file != "" {
		// Those that are done already are no work.
		ids = append(slices.Clone(a.arguments), "--file", quote(a.file))
	}
	words = append(words, ids...)
	words = append(words, "--to", quote(to))
	words = append(append(words, flagWords(a.cmd, ofOneRun)...), "--resume")
	line := strings.Join(append(words, a.hookWords()...), " ")
	if a.file == "-" {
		line += "   (with the same standard input)"
	}
	return line
}

func (a *again) hookWords() []string {
	if len(a.flags.hookWords) == 0 {
		return nil
	}
	words := []string{"--"}
	for _, word := range a.flags.hookWords {
		words = append(words, quote(word))
	}
	return words
}

// advise tells how each migration that is not done was left, and what may be typed now.
func (a *again) advise(o *options, outcomes []migration.Outcome, goOn func([]migration.Outcome)) {
	var left []migration.Outcome
	shown := 0
	for _, outcome := range outcomes {
		under := outcome.Last.GetMigration().GetTo() == outcome.Job.To || outcome.Unsure
		if outcome.Result == migration.Done || outcome.Result == migration.Failed && !under {
			continue // It is not to be begun anew: somebody has decided otherwise.
		}
		left = append(left, outcome)
		if !under {
			continue
		}
		if shown++; shown <= maxShownCommands {
			o.say("%s", leftAs(outcome))
			o.say("  give it up: %s partition abort %s%s", commandName(), outcome.Job.Partition, a.connection())
		}
	}
	if shown > maxShownCommands {
		o.say("and %d more: %s partition migrations%s", shown-maxShownCommands, commandName(), a.connection())
	}
	if len(left) > 0 {
		goOn(left)
	}
}

// connection are the flags that say where the group is.
func (a *again) connection() string {
	given := map[string]bool{}
	a.cmd.Flags().VisitAll(func(flag *pflag.Flag) { given[flag.Name] = true })
	for _, name := range []string{"addr", "cacert", "cert", "key"} {
		given[name] = false
	}
	words := flagWords(a.cmd, given)
	if len(words) == 0 {
		return ""
	}
	return " " + strings.Join(words, " ")
}

// adviseMigrate prints a command for each new placement.
func (a *again) adviseMigrate(o *options, left []migration.Outcome) {
	ids := map[string][]string{}
	for _, outcome := range left {
		ids[outcome.Job.To] = append(ids[outcome.Job.To], outcome.Job.Partition)
	}
	for i, to := range sortedKeys(ids) {
		if i == maxShownCommands {
			o.say("and to %d more placements", len(ids)-i)
			return
		}
		o.say("  go on:      %s", a.goOn(to, ids[to]))
	}
}

// leftAs says in which phase a migration was left, and what that means.
func leftAs(o migration.Outcome) string {
	p := o.Last
	id := "partition " + o.Job.Partition
	switch {
	case o.Unsure:
		return id + " may be one phase further than " + migration.PhaseName(p.GetPhase()) + ", since the last change was not answered"
	case p.GetPhase() == quoratev1.PartitionPhase_PARTITION_PHASE_CUTOVER:
		return id + " is in cutover: NOBODY MAY WRITE to it until it is completed or given up"
	default:
		return id + " is draining: writes go on at " + p.GetPlacement()
	}
}
