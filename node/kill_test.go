package node

import (
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"quorate/fsm"
	logv1 "quorate/proto/quorate/log/v1"
	quoratev1 "quorate/proto/quorate/v1"
)

// memberEnv makes the test binary one member, and nothing else: its value is ID DIRECTORY ID=ADDRESS…
const memberEnv = "QUORATE_TEST_MEMBER"

func memberConfig(id, dir string, members []BootstrapMember) (Config, error) {
	cfg := Config{
		ID: id, DataDir: dir, Bootstrap: members, Logger: testLogger(),
		Announce:  &logv1.AnnounceMember{GrpcAddress: "127.0.0.1:1", CommandVersion: fsm.CommandVersion},
		FreeSpace: func() (uint64, error) { return 1 << 40, nil },
	}
	for _, m := range members {
		if m.ID == id {
			tr, err := Listen(m.RaftAddress, "", nil, testLogger())
			if err != nil {
				return cfg, err
			}
			cfg.Transport = tr
		}
	}
	return cfg, nil
}

// runMember is what a child process does until it is killed, or its parent ends.
func runMember(args []string) error {
	var members []BootstrapMember
	for _, a := range args[2:] {
		id, address, _ := strings.Cut(a, "=")
		members = append(members, BootstrapMember{ID: id, RaftAddress: address})
	}
	cfg, err := memberConfig(args[0], args[1], members)
	if err != nil {
		return err
	}
	if _, err := Open(cfg); err != nil {
		return err
	}
	// The pipe ends when the parent does.
	_, err = io.Copy(io.Discard, os.Stdin)
	return err
}

// child starts a member as a process of its own.
func child(t *testing.T, id, dir string, members []BootstrapMember) *exec.Cmd {
	t.Helper()
	args := []string{id, dir}
	for _, m := range members {
		args = append(args, m.ID+"="+m.RaftAddress)
	}
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), memberEnv+"="+strings.Join(args, " "))
	cmd.Stderr = os.Stderr
	if _, err := cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	return cmd
}

// TestKilledLeader kills leaders that are processes of their own with SIGKILL: the first write of another member comes within 600 ms at the median, and
// what was acknowledged is there afterwards.
func TestKilledLeader(t *testing.T) {
	dir := t.TempDir()
	var members []BootstrapMember
	for i := range 3 {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		members = append(members, BootstrapMember{ID: fmt.Sprintf("m%d", i+1), RaftAddress: l.Addr().String()})
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
	}
	cfg, err := memberConfig("m1", filepath.Join(dir, "m1"), members)
	if err != nil {
		t.Fatal(err)
	}
	front, err := Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := front.Shutdown(cancelled()); err != nil {
			t.Error(err)
		}
	}()
	processes := map[string]*exec.Cmd{}
	for _, id := range []string{"m2", "m3"} {
		processes[id] = child(t, id, filepath.Join(dir, id), members)
	}
	allReady := func() {
		eventually(t, "three members", func() bool {
			all, err := front.Members(t.Context())
			if err != nil || front.Ready() != nil || len(all) != 3 {
				return false
			}
			return !slices.ContainsFunc(all, func(m *quoratev1.Member) bool { return !m.GetReachable() })
		})
	}
	allReady()
	if _, err := front.Propose(t.Context(), publishCommand("r1", 0)); err != nil {
		t.Fatal(err)
	}
	var gaps []time.Duration
	for round := range 5 {
		leader := []string{"m2", "m3"}[round%2]
		if _, err := front.TransferLeadership(t.Context(), leader); err != nil {
			t.Fatal(err)
		}
		before := fmt.Sprintf("before-%d", round)
		acknowledged, err := front.Propose(t.Context(), maintenanceCommand(before, true))
		if err != nil {
			t.Fatal(err)
		}
		lost := time.Now()
		if err := processes[leader].Process.Kill(); err != nil {
			t.Fatal(err)
		}
		for attempt := 0; ; attempt++ {
			_, err := front.Propose(t.Context(), maintenanceCommand(fmt.Sprintf("after-%d", round), false))
			if err == nil {
				break
			}
			if attempt > 1000 {
				t.Fatal(err)
			}
		}
		gaps = append(gaps, time.Since(lost))
		again, err := front.Propose(t.Context(), maintenanceCommand(before, true))
		if err != nil || again.GetRevision() != acknowledged.GetRevision() {
			t.Errorf("acknowledged at revision %d, and now %v, %v", acknowledged.GetRevision(), again, err)
		}
		_ = processes[leader].Wait()
		processes[leader] = child(t, leader, filepath.Join(dir, leader), members)
		allReady()
	}
	slices.Sort(gaps)
	t.Logf("gaps: %v", gaps)
	if median := gaps[len(gaps)/2]; median > 600*time.Millisecond {
		t.Errorf("median %v, at most 600ms", median)
	}
}
