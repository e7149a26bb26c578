package devgroup

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc"

	quoratev1 "quorate/proto/quorate/v1"
)

// migrating is a group with partitions, and what is needed to look at them from outside.
type migrating struct {
	*Group
	t       *testing.T
	clients clients
	binary  string
	dir     string
}

// startMigrating starts a group with the demo's partitions: tank-1 to tank-4 are at hall-a, with a drain barrier of 5 s.
func startMigrating(ctx context.Context, t *testing.T) *migrating {
	t.Helper()
	g := startForTest(ctx, t)
	binary, err := Built()
	if err != nil {
		t.Fatal(err)
	}
	return &migrating{Group: g, t: t, clients: dialAll(t, g.Members), binary: binary, dir: t.TempDir()}
}

// command is a quorate command that knows all members.
func (m *migrating) command(ctx context.Context, words ...string) (*exec.Cmd, *Output) {
	cmd := exec.CommandContext(ctx, m.binary, words...)
	var addresses []string
	for _, member := range m.Members {
		addresses = append(addresses, member.GRPC)
	}
	out := &Output{}
	cmd.Env = append(os.Environ(), "QUORATE_ADDR="+strings.Join(addresses, ","))
	cmd.Stdout, cmd.Stderr = out, out
	return cmd, out
}

// partition asks any member for a partition.
func (m *migrating) partition(ctx context.Context, id string) *quoratev1.Partition {
	m.t.Helper()
	answer, err := Ask(ctx, m.clients, func(ctx context.Context, conn *grpc.ClientConn) (*quoratev1.GetPartitionResponse, error) {
		return quoratev1.NewPartitionServiceClient(conn).GetPartition(ctx, &quoratev1.GetPartitionRequest{Partition: id})
	})
	if err != nil {
		m.t.Fatal(err)
	}
	return answer.GetPartition()
}

// script writes a hook, and returns its name.
func (m *migrating) script(name, text string) string {
	m.t.Helper()
	file := filepath.Join(m.dir, name)
	if err := os.WriteFile(file, []byte("#!/bin/sh\n"+text), 0o700); err != nil {
		m.t.Fatal(err)
	}
	return file
}

func (m *migrating) file(name string) string {
	raw, err := os.ReadFile(filepath.Join(m.dir, name))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		m.t.Fatal(err)
	}
	return strings.TrimSpace(string(raw))
}

const (
	draining = quoratev1.PartitionPhase_PARTITION_PHASE_DRAINING
	cutover  = quoratev1.PartitionPhase_PARTITION_PHASE_CUTOVER
	active   = quoratev1.PartitionPhase_PARTITION_PHASE_ACTIVE
)

// TestMigrateKilledAtEachStepAndResumed kills the program that drives a migration in each of its steps. Its hooks die with it, the partition stays as
// it is, and a second run goes on from there, with nothing done twice, though the leader is killed meanwhile.
func TestMigrateKilledAtEachStepAndResumed(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), testLimit)
	defer cancel()
	m := startMigrating(ctx, t)
	// Each hook notes that it began and ended. The one that is to be killed in goes on for ever, the first time.
	hook := func(step, stops string) string {
		wait := ""
		if step == stops {
			wait = `[ -e ` + m.dir + `/$QUORATE_PARTITION.resumed ] || { echo $$ >` + m.dir + `/$QUORATE_PARTITION.pid; exec sleep 600; }` + "\n"
		}
		return m.script(step+"-"+stops, `echo "progress 1 2"`+"\n"+wait+`echo `+step+` >>`+m.dir+`/$QUORATE_PARTITION.done`)
	}
	for i, c := range []struct {
		step  string
		phase quoratev1.PartitionPhase
		done  string // what the hooks had done when it was killed
	}{
		{"copy", draining, ""}, {"verify", draining, "copy"}, {"barrier", cutover, "copy\nverify"}, {"final", cutover, "copy\nverify"},
	} {
		id := "tank-" + strconv.Itoa(i+1)
		words := []string{
			"partition", "migrate", id, "--to", "hall-b", "--require-verification", "--drain-barrier", "3s",
			"--copy-hook", hook("copy", c.step), "--verify-hook", hook("verify", c.step), "--final-hook", hook("final", c.step),
		}
		cmd, said := m.command(ctx, words...)
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		err := waitUntil(ctx, "it is in "+c.step, func() bool {
			if c.step == "barrier" {
				return m.partition(ctx, id).GetPhase() == cutover
			}
			return m.file(id+".pid") != ""
		})
		if err != nil {
			t.Fatalf("%v; it said\n%s", err, said.String())
		}
		if err := cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		_ = cmd.Wait() // It was killed: that is what Wait says.
		if pid := m.file(id + ".pid"); pid != "" {
			m.gone(ctx, pid)
		}
		p := m.partition(ctx, id)
		if p.GetPhase() != c.phase || m.file(id+".done") != c.done || p.GetMigration().GetVerified() != strings.Contains(c.done, "verify") {
			t.Fatalf("killed in %s: it is %v, and the hooks had done %q", c.step, p, m.file(id+".done"))
		}

		if err := os.WriteFile(filepath.Join(m.dir, id+".resumed"), nil, 0o600); err != nil {
			t.Fatal(err)
		}
		resumed, said := m.command(ctx, append(words, "--resume")...)
		if err := resumed.Start(); err != nil {
			t.Fatal(err)
		}
		m.replaceLeader(ctx)
		if err := resumed.Wait(); err != nil {
			t.Fatalf("resumed after %s: %v\n%s", c.step, err, said.String())
		}
		if p := m.partition(ctx, id); p.GetPhase() != active || p.GetPlacement() != "hall-b" || p.GetEpoch() != 4 {
			t.Errorf("resumed after %s: it is %v", c.step, p)
		}
		if done := m.file(id + ".done"); done != "copy\nverify\nfinal" {
			t.Errorf("killed in %s and resumed, the hooks have done %q", c.step, done)
		}
		t.Logf("killed in %s and resumed:\n%s", c.step, said.String())
	}
}

// replaceLeader kills the leader and brings it back.
func (m *migrating) replaceLeader(ctx context.Context) {
	m.t.Helper()
	leader, err := m.Leader(ctx)
	if err != nil {
		m.t.Fatal(err)
	}
	if err := m.Kill(ctx, leader.ID); err != nil {
		m.t.Fatal(err)
	}
	if err := m.Restart(leader.ID); err != nil {
		m.t.Fatal(err)
	}
	if err := m.Ready(ctx, leader.ID); err != nil {
		m.t.Fatal(err)
	}
}

// gone waits until a process is: one that was killed may be there for a moment.
func (m *migrating) gone(ctx context.Context, pid string) {
	m.t.Helper()
	id, err := strconv.Atoi(pid)
	if err != nil {
		m.t.Fatal(err)
	}
	err = waitUntil(ctx, "the hook is gone", func() bool {
		if errors.Is(syscall.Kill(id, 0), syscall.ESRCH) {
			return true
		}
		stat, err := os.ReadFile("/proc/" + pid + "/stat")
		return err != nil || strings.Contains(string(stat), ") Z ") // A zombie is reaped by whoever adopts it, in its own time.
	})
	if err != nil {
		m.t.Error(err)
	}
}

// TestMigrateCompletesEarly registers an instance that has no write in flight, so that the barrier of an hour needs not pass.
func TestMigrateCompletesEarly(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), testLimit)
	defer cancel()
	m := startMigrating(ctx, t)
	gate := quoratev1.NewGateServiceClient(m.clients[0])
	const session = "session-of-the-test"
	if _, err := gate.RegisterInstance(ctx, &quoratev1.RegisterInstanceRequest{RequestId: "register", Id: "proxy-1", Session: session}); err != nil {
		t.Fatal(err)
	}
	renewing, stop := context.WithCancel(ctx)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		request := &quoratev1.RenewGateRequest{Id: "proxy-1", Session: session}
		for {
			answer, err := gate.RenewGate(renewing, request)
			if err != nil {
				if renewing.Err() == nil {
					t.Error(err)
				}
				return
			}
			request.Term, request.Grant, request.Revision, request.Drained = answer.GetTerm(), answer.GetGrant(), answer.GetRevision(), answer.GetDrain()
		}
	}()
	defer func() {
		stop()
		<-ended
	}()
	cmd, said := m.command(ctx, "partition", "migrate", "tank-1", "--to", "hall-b", "--no-copy", "--early", "--drain-barrier", "1h")
	began := time.Now()
	if err := cmd.Run(); err != nil {
		t.Fatalf("%v\n%s", err, said.String())
	}
	if took := time.Since(began); took > time.Minute || !strings.Contains(said.String(), "before its barrier had passed, since no write was in flight") {
		t.Errorf("after %v it said\n%s", took, said.String())
	}
	list, said := m.command(ctx, "instance", "list")
	if err := list.Run(); err != nil || !strings.Contains(said.String(), "\nproxy-1") {
		t.Errorf("%v\n%s", err, said.String())
	}
}
