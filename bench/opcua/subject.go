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
	"time"

	"github.com/gopcua/opcua/id"
	"github.com/gopcua/opcua/ua"

	"quorate/bench/process"
	"quorate/devgroup"
)

const (
	// startLimit is how long the peer may take to start: it loads the standard's nodes from XML.
	startLimit = time.Minute
	// peerFolder has the peer, and what npm installed for it.
	peerFolder = "bench/opcua"
)

// subject is a server that is measured.
type subject struct {
	prefix   string // of its results
	endpoint string
	clock    *ua.NodeID // a node whose value is the time at which it is sampled
	process  process.ID
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
	return &subject{endpoint: m.OPCUA, clock: clock, process: process.ID(m.PID), stop: g.Stop}, nil
}

// startNodeOPCUA starts the peer.
func startNodeOPCUA(ctx context.Context, data string, port, sessions int) (*subject, error) {
	options, err := json.Marshal(map[string]any{"port": port, "data": data, "sessions": sessions})
	if err != nil {
		return nil, err
	}
	cmd := exec.Command("node_modules/.bin/node", "peer.mjs", string(options))
	cmd.Dir = peerFolder
	child, err := process.Start(cmd)
	if err != nil {
		return nil, fmt.Errorf("node-opcua: %w", err)
	}
	s := &subject{prefix: "node_opcua_", process: process.ID(child.Process.Pid), stop: child.Stop}
	ready := make(chan error, 1)
	go func() { ready <- s.introduced(child.Out) }()
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
		return nil, errors.Join(fmt.Errorf("node-opcua: %w", err), child.Kill())
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
