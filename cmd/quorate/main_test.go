package main

import (
	"os"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"quorate": main})
}

// stdStreams are for tests that run a command in this process.
func stdStreams() streams { return streams{in: os.Stdin, out: os.Stdout, err: os.Stderr} }
