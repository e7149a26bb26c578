package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

const (
	// portBlock is how many ports one script has: those of dev, from the base on. The blocks lie below the range from which
	// systems take ports for outgoing connections.
	portBlock = 50
	firstPort = 20000
	lastPort  = 32000
	// conditionLimit bounds what a script waits for.
	conditionLimit = 20 * time.Second
	conditionPoll  = 100 * time.Millisecond
)

// TestScripts runs the transcripts in testdata/script against the real binary. Beside testscript's own commands they have
//
//	exits CODE COMMAND…       runs a command and demands its exit code
//	eventually REGEXP COMMAND…  runs a command until its standard output matches
//	dev FLAG…                 starts "quorate dev --json" at $BASE and waits until it is ready
//	interrupt                 interrupts it and demands exit code 0; "stop" is testscript's own, and ends a script as passed
//	signal SIGNAL PID         sends KILL, INT, …
//	gone PID                  waits until a process is gone
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/script",
		RequireExplicitExec: true,
		Setup:               setupScript,
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"exits":      scriptExits,
			"eventually": scriptEventually,
			"dev":        scriptDev,
			"interrupt":  scriptInterrupt,
			"signal":     scriptSignal,
			"gone":       scriptGone,
		},
	})
}

// devRun is the "quorate dev" of one script.
type devRun struct{ process *exec.Cmd }

// devStderr is what "quorate dev" says, in the script's directory.
const devStderr = "dev.stderr"

func setupScript(env *testscript.Env) error {
	base, err := freePorts()
	if err != nil {
		return err
	}
	env.Setenv("BASE", strconv.Itoa(base))
	env.Setenv("GORACE", raceOptions)
	// testscript's own is a directory outside of the script's, which the superuser could make.
	env.Setenv("HOME", env.Getenv("WORK")+"/home")
	for i := 1; i <= maxDevMembers; i++ {
		f := &devFlags{basePort: base}
		grpc, http, opcua, raft := f.ports(i)
		env.Setenv(fmt.Sprintf("GRPC%d", i), grpc)
		env.Setenv(fmt.Sprintf("HTTP%d", i), http)
		env.Setenv(fmt.Sprintf("OPCUA%d", i), "opc.tcp://"+opcua)
		env.Setenv(fmt.Sprintf("OPCUA_ADDRESS%d", i), opcua)
		env.Setenv(fmt.Sprintf("RAFT%d", i), raft)
	}
	env.Setenv("QUORATE_ADDR", env.Getenv("GRPC1")+","+env.Getenv("GRPC2")+","+env.Getenv("GRPC3"))
	dev := &devRun{}
	env.Values["dev"] = dev
	env.Defer(func() {
		if dev.process != nil && dev.process.ProcessState == nil {
			_ = dev.process.Process.Kill()
			_ = dev.process.Wait()
		}
	})
	return nil
}

var nextBlock atomic.Int64

// freePorts returns the base of a block of ports that nobody listens at. It begins at a place that depends on the process,
// because other packages' tests run at the same time.
func freePorts() (int, error) {
	const blocks = (lastPort - firstPort) / portBlock
	for range blocks {
		base := firstPort + portBlock*((os.Getpid()*7+int(nextBlock.Add(1)))%blocks)
		if portsFree(base) {
			return base, nil
		}
	}
	return 0, errors.New("no block of ports is free")
}

func portsFree(base int) bool {
	for port := base + 1; port < base+portBlock; port++ {
		l, err := net.Listen("tcp", net.JoinHostPort(devHost, strconv.Itoa(port)))
		if err != nil {
			return false
		}
		_ = l.Close()
	}
	return true
}

func scriptExits(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: exits CODE COMMAND…")
	}
	code := 0
	var exit *exec.ExitError
	if err := ts.Exec(args[1], args[2:]...); errors.As(err, &exit) {
		code = exit.ExitCode()
	} else if err != nil {
		ts.Fatalf("%v", err)
	}
	if fmt.Sprint(code) != args[0] {
		ts.Fatalf("exit code %d, want %s", code, args[0])
	}
}

func scriptEventually(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: eventually REGEXP COMMAND…")
	}
	pattern, err := regexp.Compile("(?m)" + args[0])
	ts.Check(err)
	var last string
	waitFor(ts, func() bool {
		err := ts.Exec(args[1], args[2:]...)
		last = ts.ReadFile("stdout") + ts.ReadFile("stderr")
		return err == nil && pattern.MatchString(ts.ReadFile("stdout"))
	}, func() string { return fmt.Sprintf("no match for %q; the last answer was\n%s", args[0], last) })
}

// waitFor polls a condition that nothing tells of: it is in another process.
func waitFor(ts *testscript.TestScript, holds func() bool, otherwise func() string) {
	deadline := time.NewTimer(conditionLimit)
	defer deadline.Stop()
	poll := time.NewTicker(conditionPoll)
	defer poll.Stop()
	for !holds() {
		select {
		case <-deadline.C:
			ts.Fatalf("%s", otherwise())
		case <-poll.C:
		}
	}
}

func scriptDev(ts *testscript.TestScript, neg bool, args []string) {
	dev := ts.Value("dev").(*devRun)
	dev.process = exec.Command("quorate", append([]string{"dev", "--json", "--base-port", ts.Getenv("BASE")}, args...)...)
	dev.process.Dir = ts.MkAbs(".")
	// What dev writes for people is looked at in $WORK/tmp.
	dev.process.Env = append(os.Environ(), "TMPDIR="+ts.MkAbs("tmp"))
	ts.Check(os.MkdirAll(ts.MkAbs("tmp"), 0o700))
	stderr, err := os.Create(ts.MkAbs(devStderr))
	ts.Check(err)
	defer stderr.Close()
	dev.process.Stderr = stderr
	stdout, err := dev.process.StdoutPipe()
	ts.Check(err)
	ts.Check(dev.process.Start())
	line, err := bufio.NewReader(stdout).ReadBytes('\n')
	if err != nil {
		_ = dev.process.Wait()
		ts.Fatalf("dev did not become ready: %v\n%s", err, ts.ReadFile(devStderr))
	}
	ts.Logf("%s", line)
	ts.Check(os.WriteFile(ts.MkAbs("dev.json"), line, 0o600))
	var group struct {
		Members []struct {
			ID                string
			PID               int
			GRPC, HTTP, OPCUA string
		}
	}
	ts.Check(json.Unmarshal(line, &group))
	for _, m := range group.Members {
		ts.Setenv("PID_"+m.ID, strconv.Itoa(m.PID))
	}
	ts.Setenv("PID_dev", strconv.Itoa(dev.process.Process.Pid))
}

func scriptInterrupt(ts *testscript.TestScript, neg bool, args []string) {
	dev := ts.Value("dev").(*devRun)
	ts.Check(dev.process.Process.Signal(os.Interrupt))
	err := dev.process.Wait()
	ts.Logf("%s", ts.ReadFile(devStderr))
	if err != nil {
		ts.Fatalf("dev ended with %v", err)
	}
}

var scriptSignals = map[string]syscall.Signal{"KILL": syscall.SIGKILL, "INT": syscall.SIGINT, "TERM": syscall.SIGTERM, "STOP": syscall.SIGSTOP}

func scriptSignal(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: signal SIGNAL PID")
	}
	pid, err := strconv.Atoi(args[1])
	ts.Check(err)
	ts.Check(syscall.Kill(pid, scriptSignals[args[0]]))
}

func scriptGone(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: gone PID")
	}
	pid, err := strconv.Atoi(args[0])
	ts.Check(err)
	waitFor(ts, func() bool { return processGone(pid) }, func() string { return "process " + args[0] + " still lives" })
}

// processGone counts a zombie as gone: an orphan is reaped by whoever adopts it, in its own time.
func processGone(pid int) bool {
	if errors.Is(syscall.Kill(pid, 0), syscall.ESRCH) {
		return true
	}
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return os.IsNotExist(err)
	}
	_, state, _ := strings.Cut(string(stat), ") ")
	return strings.HasPrefix(state, "Z")
}
