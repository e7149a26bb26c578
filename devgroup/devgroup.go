// Package devgroup starts a group of real members as a user would, with `quorate dev --processes`, and knows how to kill one
// and bring it back. Benchmarks and tests that look at a group from outside stand on it; it knows members by their public
// APIs and processes alone.
package devgroup

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	quoratev1 "quorate/proto/quorate/v1"
)

const (
	// StartLimit is how long a group may take until it is ready.
	StartLimit = 30 * time.Second
	// StopLimit is how long a group may take to stop after an interrupt, before it is killed.
	StopLimit = 15 * time.Second
	// pollInterval is how often a condition is looked at that nothing tells of.
	pollInterval = 10 * time.Millisecond
)

// Options say which group to start.
type Options struct {
	// Binary is the quorate command.
	Binary string
	// Data is the folder of the group; it must not be shared with another group.
	Data string
	// BasePort is where the ports begin: member i (from 1) has gRPC BasePort+i, HTTP +10+i, OPC UA +20+i, raft +30+i.
	BasePort int
	// Set holds settings for all members, as KEY=VALUE.
	Set []string
	// Log takes what the members print. Nil means that it is dropped.
	Log io.Writer
}

// Member is one process of the group, as `quorate dev --json` describes it.
type Member struct {
	ID    string `json:"id"`
	PID   int    `json:"pid"`
	GRPC  string `json:"grpc"`
	HTTP  string `json:"http"`
	OPCUA string `json:"opcua"`
}

// Group is a running group.
type Group struct {
	Members []Member

	options Options
	dev     *exec.Cmd // nil where each member was started by itself

	mu        sync.Mutex
	restarted map[string]*exec.Cmd
}

// Start starts a group and returns once it is ready.
func Start(ctx context.Context, o Options) (*Group, error) {
	args := []string{"dev", "--processes", "--json", "--base-port", strconv.Itoa(o.BasePort), "--data", o.Data}
	for _, s := range o.Set {
		args = append(args, "--set", s)
	}
	g := &Group{options: o, dev: exec.Command(o.Binary, args...), restarted: make(map[string]*exec.Cmd)}
	g.dev.Stderr = o.Log
	// The death of the program that started the group must not leave members behind.
	g.dev.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM}
	out, err := g.dev.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := g.dev.Start(); err != nil {
		return nil, fmt.Errorf("start the group: %w", err)
	}
	ready := make(chan error, 1)
	go func() {
		line, err := bufio.NewReader(out).ReadBytes('\n')
		if err == nil {
			err = json.Unmarshal(line, g)
		}
		ready <- err
	}()
	ctx, cancel := context.WithTimeout(ctx, StartLimit)
	defer cancel()
	select {
	case err = <-ready:
	case <-ctx.Done():
		err = ctx.Err()
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("the group did not become ready: %w", err), g.Stop())
	}
	return g, nil
}

// Stop ends every process of the group.
func (g *Group) Stop() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	var errs []error
	for id, cmd := range g.restarted {
		errs = append(errs, stop(cmd))
		delete(g.restarted, id)
	}
	if g.dev != nil {
		errs = append(errs, stop(g.dev))
	}
	return errors.Join(errs...)
}

// stop interrupts a process and waits for it; one that does not end in time is killed, and that is an error.
func stop(cmd *exec.Cmd) error {
	if err := cmd.Process.Signal(os.Interrupt); errors.Is(err, os.ErrProcessDone) {
		return nil
	} else if err != nil {
		return err
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		// How it ended is no error of ours: it may have been killed on purpose.
		_ = cmd.Wait()
	}()
	select {
	case <-done:
		return nil
	case <-time.After(StopLimit):
		err := cmd.Process.Kill()
		<-done
		return errors.Join(fmt.Errorf("%s did not stop within %v and was killed", cmd.Args[1], StopLimit), err)
	}
}

// Member returns the member of that id.
func (g *Group) Member(id string) (Member, error) {
	for _, m := range g.Members {
		if m.ID == id {
			return m, nil
		}
	}
	return Member{}, fmt.Errorf("the group has no member %q", id)
}

// Kill ends a member with SIGKILL, as a power failure would, and returns once its process is gone.
func (g *Group) Kill(ctx context.Context, id string) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if cmd, ok := g.restarted[id]; ok {
		delete(g.restarted, id)
		if err := cmd.Process.Kill(); err != nil {
			return err
		}
		// It was killed: that is what Wait says.
		_ = cmd.Wait()
		return nil
	}
	m, err := g.Member(id)
	if err != nil {
		return err
	}
	if err := syscall.Kill(m.PID, syscall.SIGKILL); err != nil {
		return err
	}
	return waitUntil(ctx, "the process of "+id+" is gone", func() bool {
		return errors.Is(syscall.Kill(m.PID, 0), syscall.ESRCH)
	})
}

// Restart brings a killed member back, by the command that `quorate dev` names for it.
func (g *Group) Restart(id string) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	cmd := exec.Command(g.options.Binary, "serve", "--config", filepath.Join(g.options.Data, id+".yaml"))
	cmd.Stdout, cmd.Stderr = g.options.Log, g.options.Log
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM}
	if err := cmd.Start(); err != nil {
		return err
	}
	g.restarted[id] = cmd
	return nil
}

// PID returns the process of a member, 0 if it was killed.
func (g *Group) PID(id string) int {
	g.mu.Lock()
	defer g.mu.Unlock()
	if cmd, ok := g.restarted[id]; ok {
		return cmd.Process.Pid
	}
	m, err := g.Member(id)
	if err != nil || m.PID == 0 || errors.Is(syscall.Kill(m.PID, 0), syscall.ESRCH) {
		return 0
	}
	return m.PID
}

// Ready waits until a member says that it is.
func (g *Group) Ready(ctx context.Context, id string) error {
	m, err := g.Member(id)
	if err != nil {
		return err
	}
	client := &http.Client{Timeout: time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	return waitUntil(ctx, id+" is ready", func() bool {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+m.HTTP+"/readyz", nil)
		if err != nil {
			return false
		}
		resp, err := client.Do(req)
		if err != nil {
			return false
		}
		resp.Body.Close()
		return resp.StatusCode == http.StatusOK
	})
}

// Dial connects to a member's gRPC port. A member that comes back is found within a fraction of a second.
func Dial(m Member) (*grpc.ClientConn, error) {
	return grpc.NewClient(m.GRPC,
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           backoff.Config{BaseDelay: 20 * time.Millisecond, Multiplier: 1.5, MaxDelay: 200 * time.Millisecond},
			MinConnectTimeout: time.Second,
		}))
}

// askLimit is how long Ask waits for one member's answer.
const askLimit = 2 * time.Second

// Ask asks one member after the other until one answers, as a client would that knows them all: always with the same request id. What a member
// refuses, and doesn't merely fail to do, is an error.
func Ask[R any](ctx context.Context, members []*grpc.ClientConn, call func(ctx context.Context, conn *grpc.ClientConn) (R, error)) (R, error) {
	for i := 0; ; i++ {
		one, cancel := context.WithTimeout(ctx, askLimit)
		answer, err := call(one, members[i%len(members)])
		cancel()
		if err == nil {
			return answer, nil
		}
		switch status.Code(err) {
		case codes.Unavailable, codes.DeadlineExceeded, codes.Canceled, codes.Unknown:
			// Unknown is an outcome that is not known: the same request asks for it.
		default:
			return answer, err
		}
		if ctx.Err() != nil {
			return answer, fmt.Errorf("nobody answered: %w", err)
		}
	}
}

// Leader asks any member that answers who leads.
func (g *Group) Leader(ctx context.Context) (Member, error) {
	var leader Member
	err := waitUntil(ctx, "the group has a leader", func() bool {
		for _, m := range g.Members {
			if id, err := leaderBy(ctx, m); err == nil && id != "" {
				leader, err = g.Member(id)
				return err == nil
			}
		}
		return false
	})
	return leader, err
}

// leaderBy asks one member who leads.
func leaderBy(ctx context.Context, m Member) (string, error) {
	conn, err := Dial(m)
	if err != nil {
		return "", err
	}
	defer conn.Close()
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	list, err := quoratev1.NewMemberServiceClient(conn).ListMembers(ctx, &quoratev1.ListMembersRequest{})
	if err != nil {
		return "", err
	}
	for _, member := range list.GetMembers() {
		if member.GetLeader() {
			return member.GetId(), nil
		}
	}
	return "", nil
}

// waitUntil waits for a condition that nothing tells of.
func waitUntil(ctx context.Context, what string, holds func() bool) error {
	for tick := time.NewTicker(pollInterval); ; {
		if holds() {
			tick.Stop()
			return nil
		}
		select {
		case <-ctx.Done():
			tick.Stop()
			return fmt.Errorf("waiting until %s: %w", what, ctx.Err())
		case <-tick.C:
		}
	}
}
