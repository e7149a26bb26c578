// Command quorate is the one binary of Quorate: it runs members of a group and drives them.
//
// A newcomer starts with "quorate dev", which runs a whole group on loopback with a demo topology and prints what to try
// next. "quorate serve" runs one member from a configuration file. Every other command is a client: a noun, then a verb
// ("quorate topology publish -f plant.yaml"), spoken to any member over gRPC.
//
// How the files hang together: each noun has one file of commands (topology.go, lease.go, …), which stands on three
// shared parts: connection.go finds a member that answers and repeats what is safe to repeat, output.go prints a table,
// JSON or YAML, and failure.go turns what went wrong into one line and an exit code. settings.go is the configuration of
// one member. run.go builds a running member out of the packages node, redundancy, rpc and opcua; serve.go runs one of
// them and dev.go several, in this process or each in its own.
package main

import (
	"context"
	"io"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	os.Exit(run(os.Args[1:], streams{in: os.Stdin, out: os.Stdout, err: os.Stderr}))
}

// streams are the standard streams, so that a test may give its own.
type streams struct {
	in  io.Reader
	out io.Writer
	err io.Writer
}

// run executes one command line and returns the exit code of the process.
func run(arguments []string, std streams) int {
	ctx, stop := interruptible(context.Background())
	defer stop()
	root := newRoot(std)
	root.SetArgs(arguments)
	root.SetIn(std.in)
	root.SetOut(std.out)
	root.SetErr(std.err)
	if err := root.ExecuteContext(ctx); err != nil {
		printFailure(std.err, err)
		return exitCode(err)
	}
	return exitDone
}

// interruptible returns a context that ends with the first SIGINT or SIGTERM, which asks for an orderly end. The second
// one ends the process at once, because an orderly end may hang where the disk or the network does.
func interruptible(parent context.Context) (context.Context, func()) {
	ctx, cancel := context.WithCancel(parent)
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	done := make(chan struct{})
	go func() {
		for seen := 0; ; seen++ {
			select {
			case <-done:
				return
			case <-signals:
				if seen > 0 {
					os.Exit(exitLocal)
				}
				cancel()
			}
		}
	}()
	return ctx, func() {
		signal.Stop(signals)
		close(done)
		cancel()
	}
}
