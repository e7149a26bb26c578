package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"time"
)

// noticeWriter writes what happens to the members, line by line, from several goroutines.
type noticeWriter struct {
	mu sync.Mutex
	w  io.Writer
}

func (n *noticeWriter) say(format string, arguments ...any) {
	n.mu.Lock()
	defer n.mu.Unlock()
	// A terminal that is gone is no reason to stop the members.
	_, _ = fmt.Fprintf(n.w, "quorate dev: "+format+"\n", arguments...)
}

// processGroup runs each member as a child process: this same binary with "serve". A member that dies stays dead until the
// user restarts it.
type processGroup struct {
	plan     *devPlan
	notices  *noticeWriter
	failures chan error
	// release ends the goroutine that started the children.
	release  chan struct{}
	watchers sync.WaitGroup

	mu       sync.Mutex
	children map[string]*exec.Cmd
	ready    bool
	stopping bool
}

func newProcessGroup(plan *devPlan, notices *noticeWriter) *processGroup {
	return &processGroup{
		plan: plan, notices: notices, failures: make(chan error, len(plan.members)),
		release: make(chan struct{}), children: map[string]*exec.Cmd{},
	}
}

func (g *processGroup) failed() <-chan error { return g.failures }

func (g *processGroup) settled() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.ready = true
}

// start starts the children from one locked thread, which lives as long as the group: the parent-death signal is sent when
// the thread that started a child ends, not the process (prctl(2), PR_SET_PDEATHSIG).
func (g *processGroup) start() error {
	binary, err := os.Executable()
	if err != nil {
		return fmt.Errorf("find this program: %w", err)
	}
	started := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		started <- g.startAll(binary)
		<-g.release
	}()
	return <-started
}

func (g *processGroup) startAll(binary string) error {
	for _, m := range g.plan.members {
		log, err := os.OpenFile(m.logFile(), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
		if err != nil {
			return fmt.Errorf("log of %s: %w", m.ID, err)
		}
		child := exec.Command(binary, "serve", "--config", m.configFile())
		child.Stdout, child.Stderr = log, log
		child.Env = withoutSettings(os.Environ())
		child.SysProcAttr = childAttributes()
		err = child.Start()
		// The child has a descriptor of its own.
		_ = log.Close()
		if err != nil {
			return fmt.Errorf("start %s: %w", m.ID, err)
		}
		g.mu.Lock()
		m.PID = child.Process.Pid
		g.children[m.ID] = child
		g.mu.Unlock()
		g.watchers.Go(func() { g.watch(m, child) })
	}
	return nil
}

// watch waits for the end of a child. Before the group is ready it is the end of the group, and afterwards only of that member:
// what the others do then is what the user wants to see.
func (g *processGroup) watch(m *devMember, child *exec.Cmd) {
	_ = child.Wait() // How it ended is in its state.
	g.mu.Lock()
	delete(g.children, m.ID)
	ready, stopping := g.ready, g.stopping
	g.mu.Unlock()
	switch {
	case stopping:
	case ready:
		g.notices.say("member %s ended (%s); bring it back with: %s serve --config %s", m.ID, child.ProcessState, commandName(), quote(m.configFile()))
	default:
		g.failures <- fmt.Errorf("member %s ended (%s): %s", m.ID, child.ProcessState, lastLine(m.logFile()))
	}
}

// stop asks the children that still live to end and, where one does not in time, kills it. Members that the user restarted
// are the user's to stop.
func (g *processGroup) stop() error {
	g.mu.Lock()
	g.stopping = true
	for _, child := range g.children {
		_ = child.Process.Signal(os.Interrupt) // It may have ended meanwhile.
	}
	g.mu.Unlock()
	ended := make(chan struct{})
	go func() {
		g.watchers.Wait()
		close(ended)
	}()
	timer := time.NewTimer(devStopLimit)
	defer timer.Stop()
	var err error
	select {
	case <-ended:
	case <-timer.C:
		g.mu.Lock()
		for id, child := range g.children {
			err = errors.Join(err, fmt.Errorf("member %s did not stop within %s and was killed", id, devStopLimit))
			_ = child.Process.Kill()
		}
		g.mu.Unlock()
		<-ended
	}
	close(g.release)
	return err
}

// restarted tells whether somebody runs a member of this group outside of it: its data must not be taken away.
func (g *processGroup) restarted() bool {
	for _, m := range g.plan.members {
		conn, err := net.DialTimeout("tcp", m.GRPC, time.Second)
		if err == nil {
			_ = conn.Close()
			g.notices.say("member %s was restarted and still runs, so %s is kept", m.ID, g.plan.dir)
			return true
		}
	}
	return false
}

// withoutSettings removes the settings from an environment: they would override what dev wrote into the members' files.
func withoutSettings(environment []string) []string {
	known := map[string]bool{}
	for key := range settingKeys() {
		known[variableName(key)] = true
	}
	kept := make([]string, 0, len(environment))
	for _, variable := range environment {
		if name, _, _ := strings.Cut(variable, "="); !known[name] {
			kept = append(kept, variable)
		}
	}
	return kept
}

// lastLine returns the last line of a log, which says why its member ended.
func lastLine(name string) string {
	file, err := os.Open(name)
	if err != nil {
		return "no log"
	}
	defer closeQuietly(file)
	const tail = 16 << 10
	if info, err := file.Stat(); err == nil && info.Size() > tail {
		if _, err := file.Seek(-tail, io.SeekEnd); err != nil {
			return "its log is " + filepath.Base(name)
		}
	}
	last := "its log is empty"
	for lines := bufio.NewScanner(file); lines.Scan(); {
		if line := strings.TrimSpace(lines.Text()); line != "" {
			last = line
		}
	}
	return last
}

// quote makes a word safe to type into a shell.
func quote(word string) string {
	if word != "" && strings.Trim(word, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_./:=,@%+") == "" {
		return word
	}
	return "'" + strings.ReplaceAll(word, "'", `'\''`) + "'"
}
