package node

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"quorate/fsm"
	logv1 "quorate/proto/quorate/log/v1"
	quoratev1 "quorate/proto/quorate/v1"
)

func TestMain(m *testing.M) {
	if args := os.Getenv(memberEnv); args != "" {
		if err := runMember(strings.Fields(args)); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	goleak.VerifyTestMain(m)
}

// group is a group of real members over loopback.
type group struct {
	t       testing.TB
	members []BootstrapMember
	nodes   map[string]*Node
	configs map[string]Config
	creds   map[string]Credentials
}

func testLogger() *slog.Logger {
	if os.Getenv("QUORATE_TEST_LOG") == "" {
		return slog.New(slog.DiscardHandler)
	}
	return slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug}))
}

func startGroup(t testing.TB, size int, change func(*Config)) *group {
	t.Helper()
	return startGroupWith(t, size, func(string) Credentials { return nil }, change)
}

func startGroupWith(t testing.TB, size int, creds func(id string) Credentials, change func(*Config)) *group {
	t.Helper()
	g := &group{t: t, nodes: map[string]*Node{}, configs: map[string]Config{}, creds: map[string]Credentials{}}
	transports := make([]*NetTransport, size)
	for i := range size {
		id := fmt.Sprintf("m%d", i+1)
		g.creds[id] = creds(id)
		tr, err := Listen("127.0.0.1:0", "", g.creds[id], testLogger())
		if err != nil {
			t.Fatal(err)
		}
		transports[i] = tr
		g.members = append(g.members, BootstrapMember{ID: id, RaftAddress: tr.Advertised()})
	}
	dir := t.TempDir()
	for i, m := range g.members {
		cfg := Config{
			ID: m.ID, DataDir: filepath.Join(dir, m.ID), Bootstrap: g.members, Transport: transports[i], Logger: testLogger(),
			Announce: &logv1.AnnounceMember{GrpcAddress: "127.0.0.1:1", Version: "test", CommandVersion: fsm.CommandVersion},
			// The disks that tests run on are nobody's business here.
			FreeSpace: func() (uint64, error) { return 1 << 40, nil },
		}
		if change != nil {
			change(&cfg)
		}
		g.configs[m.ID] = cfg
		n, err := Open(cfg)
		if err != nil {
			t.Fatal(err)
		}
		g.nodes[m.ID] = n
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		for _, n := range g.nodes {
			if err := n.Shutdown(ctx); err != nil {
				t.Errorf("shutdown: %v", err)
			}
		}
	})
	return g
}

// restart opens a member that was shut down, on its old address and directory.
func (g *group) restart(id string) *Node {
	g.t.Helper()
	cfg := g.configs[id]
	var address string
	for _, m := range g.members {
		if m.ID == id {
			address = m.RaftAddress
		}
	}
	tr, err := Listen(address, "", g.creds[id], testLogger())
	if err != nil {
		g.t.Fatal(err)
	}
	cfg.Transport = tr
	n, err := Open(cfg)
	if err != nil {
		g.t.Fatal(err)
	}
	g.nodes[id] = n
	return n
}

// eventually waits for a condition, looking at it often: nothing tells of raft's inner changes.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	deadline := time.NewTimer(20 * time.Second)
	defer deadline.Stop()
	every := time.NewTicker(2 * time.Millisecond)
	defer every.Stop()
	for !ok() {
		select {
		case <-every.C:
		case <-deadline.C:
			t.Fatalf("not in time: %s", what)
		}
	}
}

func (g *group) leader() *Node {
	g.t.Helper()
	var leader *Node
	eventually(g.t, "a leader", func() bool {
		for _, n := range g.nodes {
			if n.IsLeader() {
				leader = n
				return true
			}
		}
		return false
	})
	return leader
}

func (g *group) follower() *Node {
	g.t.Helper()
	leader := g.leader()
	for _, m := range g.members {
		if n := g.nodes[m.ID]; n != nil && n != leader {
			return n
		}
	}
	g.t.Fatal("no follower")
	return nil
}

// ready waits until every member's record is announced, as topologies need.
func (g *group) ready() {
	g.t.Helper()
	for _, n := range g.nodes {
		eventually(g.t, n.ID()+" ready and announced", func() bool {
			m, ok := n.Local().State.Member(n.ID())
			return ok && m.GetAnnounced() && n.Ready() == nil
		})
	}
}

var testActor = &quoratev1.Actor{Name: "test", Role: "operator", Address: "127.0.0.1"}

func publishCommand(request string, expected uint64) *logv1.Command {
	return &logv1.Command{RequestId: request, Actor: testActor, Body: &logv1.Command_PublishTopology{PublishTopology: &logv1.PublishTopology{
		ExpectedGeneration: expected,
		Topology: &quoratev1.Topology{Sets: []*quoratev1.RedundantSet{{Id: "line-a", Mode: "WARM", Servers: []*quoratev1.RedundantServer{
			{Member: "m1", ApplicationUri: "urn:plant:m1", EndpointUrl: "opc.tcp://127.0.0.1:4841", HealthUrl: "http://127.0.0.1:7201/healthz", Role: "Primary"},
			{Member: "m2", ApplicationUri: "urn:plant:m2", EndpointUrl: "opc.tcp://127.0.0.1:4842", HealthUrl: "http://127.0.0.1:7202/healthz", Role: "Backup"},
		}}}},
	}}}
}

func TestGroupProposesReadsAndWatches(t *testing.T) {
	for _, store := range []string{LogStoreBolt, LogStoreWAL} {
		t.Run(store, func(t *testing.T) {
			g := startGroup(t, 3, func(c *Config) { c.LogStore = store })
			g.ready()
			ctx := t.Context()
			follower := g.follower()
			watch, err := follower.Watch(1)
			if err != nil {
				t.Fatal(err)
			}
			defer watch.Close()
			outcome, err := follower.Propose(ctx, publishCommand("r1", 0))
			if err != nil {
				t.Fatal(err)
			}
			if r := fsm.RefusalOf(outcome); r != nil {
				t.Fatal(r)
			}
			if got := follower.Local().State.Revision(); got < outcome.GetRevision() {
				t.Errorf("the member that took the command is at revision %d, and the answer is of %d", got, outcome.GetRevision())
			}
			for _, n := range g.nodes {
				v, err := n.Read(ctx, nil)
				if err != nil {
					t.Fatal(err)
				}
				if got := v.State.CurrentGeneration().GetNumber(); got != 1 || v.Member != n.ID() {
					t.Errorf("%s: generation %d, answered by %s", n.ID(), got, v.Member)
				}
			}
			again, err := g.leader().Propose(ctx, publishCommand("r1", 0))
			if err != nil || again.GetRevision() != outcome.GetRevision() {
				t.Errorf("repeated request: %v, %v, first %v", again, err, outcome)
			}
			for published := false; !published; {
				events, _, err := watch.Next(ctx)
				if err != nil {
					t.Fatal(err)
				}
				for _, e := range events {
					published = published || e.GetTopologyPublished() != nil
				}
			}
		})
	}
}
