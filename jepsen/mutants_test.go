package main

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestTrials: every mutant that a build can be has a trial, with traffic, faults and claims that there are, and is run by make.
func TestTrials(t *testing.T) {
	source, err := os.ReadFile("../mutant/on.go")
	if err != nil {
		t.Fatal(err)
	}
	makefile, err := os.ReadFile("../Makefile")
	if err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(string(source), `= name == "`); n != len(trials) || n < 6 {
		t.Errorf("there are %d mutants and %d trials", n, len(trials))
	}
	if !strings.Contains(string(makefile), "for m in "+strings.Join(mutantNames(), " ")+";") {
		t.Error("make chaos-mutants doesn't run each of them")
	}
	for _, one := range trials {
		if !strings.Contains(string(source), `"`+one.name+`"`) {
			t.Errorf("no build can be the mutant %s", one.name)
		}
		if err := one.known(); err != nil {
			t.Error(err)
		}
		o, err := parse([]string{"--mutant", one.name, "--seed", "4"})
		if err != nil {
			t.Fatal(err)
		}
		if o.duration != one.duration || o.logStore != "bolt" || o.trial.name != one.name {
			t.Errorf("%s: %+v", one.name, o)
		}
	}
	if _, err := parse([]string{"--mutant", "none-such"}); err == nil || !strings.Contains(err.Error(), "--mutant") {
		t.Errorf("an unknown mutant: %v", err)
	}
}

// TestOnlyMutantsBreak tells a command that can break rules from the product, which takes no notice of the variable.
func TestOnlyMutantsBreak(t *testing.T) {
	script := func(text string) string {
		name := filepath.Join(t.TempDir(), "quorate")
		if err := os.WriteFile(name, []byte("#!/bin/sh\n"+text+"\n"), 0o700); err != nil {
			t.Fatal(err)
		}
		return name
	}
	if _, err := exec.LookPath("sh"); err != nil {
		t.Fatal(err)
	}
	if err := breaks(context.Background(), script(`echo "MUTANT=$MUTANT is none of them"; exit 2`)); err != nil {
		t.Error(err)
	}
	for _, text := range []string{"exit 0", "exit 2", `echo "MUTANT=$MUTANT"`} {
		if err := breaks(context.Background(), script(text)); err == nil || !strings.Contains(err.Error(), "tag mutant") {
			t.Errorf("%q passes for a mutant: %v", text, err)
		}
	}
}
