package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/gopcua/opcua/id"
	"github.com/gopcua/opcua/ua"

	"quorate/devgroup"
)

const (
	// startLimit is how long the peer may take to start: it loads the standard's nodes from XML.
	startLimit = time.Minute
	// peerFolder has the peer, and what npm installed for it.
	peerFolder = "bench/opcua"
	// tick is the unit of processor time in /proc, which is the same on all machines (man 5 proc, USER_HZ).
	tick = time.Second / 100
)

// subject is a server that is measured.
type subject struct {
	prefix   string // of its results
	endpoint string
	clock    *ua.NodeID // a node whose value is the time at which it is sampled
	pid      int
	stop     func() error
}

// startQuorate starts a group and gives its Primary, as users have it: one process of three, with raft at work.
func startQuorate(ctx context.Context, binary, data string, port int) (*subject, error) {
	g, err := devgroup.Start(ctx, devgroup.Options{Binary: binary, Data: filepath.Join(data, "group"), BasePort: port, Log: os.Stderr})
	if err != nil {
		return nil, err
	}
	m, err := g.Member("m1")
	if err != nil {
		return nil, errors.Join(err, g.Stop())
	}
	clock := ua.NewNumericNodeID(0, id.Server_ServerStatus_CurrentTime)
	return &subject{endpoint: m.OPCUA, clock: clock, pid: m.PID, stop: g.Stop}, nil
}

// startNodeOPCUA starts the peer.
func startNodeOPCUA(ctx context.Context, data string, port, sessions int) (*subject, error) {
	options, err := json.Marshal(map[string]any{"port": port, "data": data, "sessions": sessions})
	if err != nil {
		return nil, err
	}
	cmd := exec.Command("node_modules/.bin/node", "peer.mjs", string(options))
	cmd.Dir = peerFolder
	cmd.Stderr = os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM}
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("node-opcua: %w", err)
	}
	s := &subject{prefix: "node_opcua_", pid: cmd.Process.Pid, stop: func() error { return errors.Join(in.Close(), cmd.Wait()) }}
	ready := make(chan error, 1)
	go func() { ready <- s.introduced(out) }()
	timer := time.NewTimer(startLimit)
	defer timer.Stop()
	select {
	case err = <-ready:
	case <-timer.C:
		err = fmt.Errorf("it did not start within %v", startLimit)
	case <-ctx.Done():
		err = ctx.Err()
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("node-opcua: %w", err), cmd.Process.Kill(), s.stop())
	}
	return s, nil
}

// introduced reads what the peer says of itself.
func (s *subject) introduced(out io.Reader) error {
	line, err := bufio.NewReader(out).ReadBytes('\n')
	if err != nil {
		return err
	}
	var said struct{ Endpoint, Clock string }
	if err := json.Unmarshal(line, &said); err != nil {
		return err
	}
	s.endpoint = said.Endpoint
	s.clock, err = ua.ParseNodeID(said.Clock)
	return err
}

// cpu is the processor time of the server alone, in user and kernel mode, since it started.
func (s *subject) cpu() (time.Duration, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", s.pid))
	if err != nil {
		return 0, err
	}
	// The name of the command, in parentheses, may have spaces. Behind it come the state and so on; utime and stime are the
	// 14th and 15th of all fields (man 5 proc).
	_, rest, _ := strings.Cut(string(b), ") ")
	fields := strings.Fields(rest)
	if len(fields) < 13 {
		return 0, fmt.Errorf("/proc/%d/stat has no processor times", s.pid)
	}
	user, userErr := strconv.ParseInt(fields[11], 10, 64)
	system, systemErr := strconv.ParseInt(fields[12], 10, 64)
	return time.Duration(user+system) * tick, errors.Join(userErr, systemErr)
}

// rss is the memory that the server has in use, in MB.
func (s *subject) rss() (float64, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", s.pid))
	if err != nil {
		return 0, err
	}
	_, rest, _ := strings.Cut(string(b), "VmRSS:")
	fields := strings.Fields(rest)
	if len(fields) == 0 {
		return 0, fmt.Errorf("/proc/%d/status has no VmRSS", s.pid)
	}
	kib, err := strconv.ParseFloat(fields[0], 64)
	return kib * 1024 / 1e6, err
}
