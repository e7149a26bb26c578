package node

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"google.golang.org/protobuf/types/known/durationpb"

	"quorate/fsm"
	quoratev1 "quorate/proto/quorate/v1"
)

func bounded(d time.Duration) *quoratev1.ReadOptions {
	return &quoratev1.ReadOptions{Consistency: quoratev1.Consistency_CONSISTENCY_BOUNDED, MaxStaleness: durationpb.New(d)}
}

var errDisk = errors.New("no space left on device")

// failingLog is a real store until it is told to fail.
type failingLog struct {
	raft.LogStore
	failing chan struct{}
}

func (f failingLog) StoreLogs(l []*raft.Log) error {
	select {
	case <-f.failing:
		return errDisk
	default:
		return f.LogStore.StoreLogs(l)
	}
}

func (f failingLog) IsMonotonic() bool { return guardedLog{LogStore: f.LogStore}.IsMonotonic() }

// failingGroup starts three members, with what makes the store of each fail once it is closed.
func failingGroup(t *testing.T, kind string) (g *group, failing map[string]chan struct{}) {
	t.Helper()
	failing = map[string]chan struct{}{}
	g = startGroup(t, 3, func(c *Config) {
		s, err := openStorage(c.DataDir, kind, testLogger())
		if err != nil {
			t.Fatal(err)
		}
		failing[c.ID] = make(chan struct{})
		s.Log = failingLog{s.Log, failing[c.ID]}
		c.Storage = s
	})
	g.ready()
	return g, failing
}

func eachStore(t *testing.T, f func(t *testing.T, kind string)) {
	for _, kind := range []string{LogStoreBolt, LogStoreWAL} {
		t.Run(kind, func(t *testing.T) { f(t, kind) })
	}
}

// TestFailedStoreIsFatal: the member says so, on the leader and on a follower, and answers nothing any more.
func TestFailedStoreIsFatal(t *testing.T) {
	eachStore(t, func(t *testing.T, kind string) {
		g, failing := failingGroup(t, kind)
		sick := g.follower()
		close(failing[sick.ID()])
		if _, err := g.leader().Propose(t.Context(), publishCommand("r1", 0)); err != nil {
			t.Fatal(err)
		}
		if err := <-sick.Fatal(); !errors.Is(err, errDisk) {
			t.Errorf("fatal: %v", err)
		}
		expectKind(t, sick.Ready(), StorageFailed)
		_, err := sick.Read(t.Context(), nil)
		expectKind(t, err, StorageFailed)
		_, err = sick.Propose(t.Context(), publishCommand("r2", 1))
		expectKind(t, err, StorageFailed)
	})
}

// TestLeaderWithAFailedStoreStops: what it has sent without having written it holds up nothing.
func TestLeaderWithAFailedStoreStops(t *testing.T) {
	eachStore(t, func(t *testing.T, kind string) {
		g, failing := failingGroup(t, kind)
		sick := g.leader()
		close(failing[sick.ID()])
		if _, err := sick.Propose(t.Context(), publishCommand("r1", 0)); err == nil {
			t.Error("a write was acknowledged that the leader did not write")
		}
		if err := <-sick.Fatal(); !errors.Is(err, errDisk) {
			t.Errorf("fatal: %v", err)
		}
		over, cancel := context.WithCancel(t.Context())
		cancel()
		ended := make(chan error, 1)
		go func() { ended <- sick.Shutdown(over) }()
		select {
		case <-ended: // With an error or without: its store is broken.
			delete(g.nodes, sick.ID())
		case <-time.After(20 * time.Second):
			t.Fatal("it does not stop")
		}
	})
}

// TestRestartKeepsEverything stops the whole group and starts it again: log, vote and snapshots are there.
func TestRestartKeepsEverything(t *testing.T) {
	eachStore(t, func(t *testing.T, kind string) {
		g := startGroup(t, 3, func(c *Config) { c.LogStore, c.Limits.SnapshotEntries = kind, 5 })
		g.ready()
		o, err := g.leader().Propose(t.Context(), publishCommand("r1", 0))
		if err != nil {
			t.Fatal(err)
		}
		for _, n := range g.nodes {
			if _, err := n.Read(t.Context(), nil); err != nil {
				t.Fatal(err)
			}
			if err := n.raft.Snapshot().Error(); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := g.leader().Propose(t.Context(), maintenanceCommand("r2", true)); err != nil {
			t.Fatal(err)
		}
		term := g.leader().Local().State.Term()
		for _, n := range g.nodes {
			if err := n.Shutdown(cancelled()); err != nil {
				t.Fatal(err)
			}
		}
		for _, m := range g.members {
			g.restart(m.ID)
		}
		g.ready()
		for _, n := range g.nodes {
			v, err := n.Read(t.Context(), nil)
			if err != nil {
				t.Fatal(err)
			}
			if got, ok := v.State.Maintenance("m1"); v.State.CurrentGeneration().GetNumber() != 1 || !ok || !got.GetActive() {
				t.Errorf("%s: generation %v, maintenance %v", n.ID(), v.State.CurrentGeneration().GetNumber(), got)
			}
			if v.State.Term() <= term {
				t.Errorf("%s: term %d after %d", n.ID(), v.State.Term(), term)
			}
		}
		again, err := g.follower().Propose(t.Context(), publishCommand("r1", 0))
		for e := new(Error); errors.As(err, &e) && e.Kind == UnknownOutcome; {
			// The leader changed once more, as it may so soon after the start. The request id is what makes it safe to ask again.
			again, err = g.follower().Propose(t.Context(), publishCommand("r1", 0))
		}
		if err != nil || again.GetRevision() != o.GetRevision() || fsm.RefusalOf(again) != nil {
			t.Errorf("the request is forgotten: %v, %v", again, err)
		}
	})
}

func TestTheOtherKindOfStoreIsRefused(t *testing.T) {
	for kind, other := range map[string]string{LogStoreBolt: LogStoreWAL, LogStoreWAL: LogStoreBolt} {
		dir := t.TempDir()
		s, err := openStorage(dir, kind, testLogger())
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		if _, err := openStorage(dir, other, testLogger()); err == nil {
			t.Errorf("a directory with a log of kind %s was opened as %s", kind, other)
		}
	}
}

// TestLittleSpaceHandsOver: a leader without room gives way to one that has some.
func TestLittleSpaceHandsOver(t *testing.T) {
	tight := map[string]chan struct{}{}
	g := startGroup(t, 3, func(c *Config) {
		full := make(chan struct{})
		tight[c.ID] = full
		c.FreeSpace = func() (uint64, error) {
			select {
			case <-full:
				return 1 << 20, nil
			default:
				return 1 << 40, nil
			}
		}
	})
	g.ready()
	old := g.leader()
	close(tight[old.ID()])
	eventually(t, "another leader", func() bool { l := old.Leader(); return l != "" && l != old.ID() })
	expectKind(t, old.Ready(), StorageFailed)
	if err := g.nodes[old.Leader()].Ready(); err != nil {
		eventually(t, "the new leader ready", func() bool { return g.nodes[old.Leader()].Ready() == nil })
	}
}

func TestReadOptions(t *testing.T) {
	g := startGroup(t, 3, nil)
	g.ready()
	follower, leader := g.follower(), g.leader()
	read := func(n *Node, o *quoratev1.ReadOptions) (View, error) { return n.Read(t.Context(), o) }
	for _, n := range []*Node{follower, leader} {
		for _, c := range []quoratev1.Consistency{quoratev1.Consistency_CONSISTENCY_LINEARIZABLE, quoratev1.Consistency_CONSISTENCY_LOCAL} {
			if _, err := read(n, &quoratev1.ReadOptions{Consistency: c}); err != nil {
				t.Errorf("%s, %v: %v", n.ID(), c, err)
			}
		}
		if _, err := read(n, &quoratev1.ReadOptions{Consistency: quoratev1.Consistency_CONSISTENCY_BOUNDED}); kindOf(err) != Invalid {
			t.Errorf("no bound: %v", err)
		}
		if _, err := read(n, bounded(5*time.Second)); err != nil {
			t.Errorf("%s: %v", n.ID(), err)
		}
		if _, err := read(n, &quoratev1.ReadOptions{Consistency: 99}); kindOf(err) != Invalid {
			t.Errorf("consistency 99: %v", err)
		}
	}
	o, err := leader.Propose(t.Context(), publishCommand("r1", 0))
	if err != nil {
		t.Fatal(err)
	}
	v, err := read(follower, &quoratev1.ReadOptions{Consistency: quoratev1.Consistency_CONSISTENCY_LOCAL, MinRevision: o.GetRevision()})
	if err != nil || v.State.Revision() < o.GetRevision() {
		t.Errorf("%v, %v", v.State.Revision(), err)
	}
	// A follower alone can't be fresh, nor linearizable.
	for _, n := range g.nodes {
		if n != follower {
			if err := n.Shutdown(cancelled()); err != nil {
				t.Fatal(err)
			}
		}
	}
	eventually(t, "too stale", func() bool {
		_, err := read(follower, bounded(10*time.Millisecond))
		return kindOf(err) == Stale
	})
	if _, err := read(follower, &quoratev1.ReadOptions{Consistency: quoratev1.Consistency_CONSISTENCY_LOCAL}); err != nil {
		t.Error(err)
	}
}

// TestLogsShortenedAtTheirEndAreRead writes a log, takes back its end as a follower does that had entries of a deposed leader, and opens it again: what
// was kept is there, and the log goes on.
func TestLogsShortenedAtTheirEndAreRead(t *testing.T) {
	for _, kind := range []string{LogStoreBolt, LogStoreWAL} {
		t.Run(kind, func(t *testing.T) {
			dir := t.TempDir()
			entries := func(from, to uint64) (list []*raft.Log) {
				for i := from; i <= to; i++ {
					list = append(list, &raft.Log{Index: i, Term: 1, Data: fmt.Appendf(nil, "entry %d", i)})
				}
				return list
			}
			first, err := openStorage(dir, kind, slog.New(slog.DiscardHandler))
			if err != nil {
				t.Fatal(err)
			}
			if err := errors.Join(first.Log.StoreLogs(entries(1, 20)), first.Log.DeleteRange(11, 20), first.Log.StoreLogs(entries(11, 12)), first.Close()); err != nil {
				t.Fatal(err)
			}
			second, err := openStorage(dir, kind, slog.New(slog.DiscardHandler))
			if err != nil {
				t.Fatal(err)
			}
			defer func() {
				if err := second.Close(); err != nil {
					t.Error(err)
				}
			}()
			for i := uint64(1); i <= 12; i++ {
				var entry raft.Log
				if err := second.Log.GetLog(i, &entry); err != nil || string(entry.Data) != fmt.Sprintf("entry %d", i) {
					t.Fatalf("entry %d is %q, %v", i, entry.Data, err)
				}
			}
		})
	}
}
