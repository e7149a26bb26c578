// Package sim runs a whole group of real members inside one process and in virtual time.
//
// A World is meant for the inside of a testing/synctest bubble: the members are real node.Nodes on real hashicorp/raft, but their links (Network), disks
// (Disk) and clocks (Clock) are of memory, so that hours pass in seconds and any link can be cut, slowed or made one-way. A member that is killed leaves
// the disk image of that instant behind, as kill -9 would, and can be started again from it.
//
// Run drives a World through a seeded scenario of faults while clients write, read and watch, and History says afterwards whether anything was
// lost, doubled, stale, out of order or too fast. The scenario is seeded; the order in which goroutines run is not, so a seed that fails is worth
// running again. `go test ./sim -seeds 200` tries more of them.
package sim

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"quorate/fsm"
	"quorate/node"
	logv1 "quorate/proto/quorate/log/v1"
	"quorate/redundancy"
)

// World is one group.
type World struct {
	Network *Network
	Timing  node.Timing
	Limits  node.Limits
	// Logger gets what the members log; nil discards it.
	Logger *slog.Logger
	// Applier is what the servers do to apply a generation; nil is nothing.
	Applier redundancy.Applier
	// DiskDelay says how long each write of log entries takes on a member's disk; nil means no time. It is asked from many goroutines, and set before the
	// first Start.
	DiskDelay func(id string) time.Duration

	mu      sync.Mutex
	members map[string]*member
	first   []node.BootstrapMember
	stops   sync.WaitGroup
}

type member struct {
	node  *node.Node
	disk  *Disk
	clock *Clock
}

// NewWorld makes a group of voters m1 to mN, not started yet.
func NewWorld(size int, timing node.Timing, limits node.Limits) *World {
	w := &World{Network: NewNetwork(), Timing: timing, Limits: limits, members: map[string]*member{}}
	for i := range size {
		id := fmt.Sprintf("m%d", i+1)
		w.first = append(w.first, node.BootstrapMember{ID: id, RaftAddress: addressOf(id)})
	}
	return w
}

func addressOf(id string) string { return id + ":7301" }

// IDs returns the ids of the first members, in order.
func (w *World) IDs() []string {
	ids := make([]string, len(w.first))
	for i, m := range w.first {
		ids[i] = m.ID
	}
	return ids
}

// Start starts a member: on an empty disk the first time, on what its last life left afterwards.
func (w *World) Start(id string, clock *Clock) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	m := w.members[id]
	if m == nil {
		m = &member{disk: NewDisk()}
		if w.DiskDelay != nil {
			m.disk.delay = func() time.Duration { return w.DiskDelay(id) }
		}
		w.members[id] = m
	}
	if m.node != nil {
		return fmt.Errorf("%s runs already", id)
	}
	m.clock = clock
	cfg := node.Config{
		ID: id, Transport: w.Network.Join(addressOf(id)), Timing: w.Timing, Limits: w.Limits, Clock: clock, Logger: w.Logger,
		Announce: &logv1.AnnounceMember{GrpcAddress: id + ":7101", CommandVersion: fsm.CommandVersion},
		Storage:  &node.Storage{Log: m.disk, Stable: m.disk, Snapshots: m.disk},
	}
	if slices.ContainsFunc(w.first, func(b node.BootstrapMember) bool { return b.ID == id }) {
		cfg.Bootstrap = w.first
	}
	n, err := node.Open(cfg)
	if err != nil {
		return err
	}
	m.node = n
	return nil
}

// Kill ends a member at once: nobody hears from it any more, and its disk stays as it is now. It returns before the remains are cleared away.
func (w *World) Kill(id string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	m := w.members[id]
	if m == nil || m.node == nil {
		return
	}
	w.Network.Leave(addressOf(id))
	// What the old life writes from now on goes to a disk that nobody will read.
	dead := m.node
	m.node, m.disk = nil, m.disk.Clone()
	w.stops.Go(func() {
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		// Whatever it says: it was killed.
		_ = dead.Shutdown(ctx)
	})
}

// Stop shuts a member down the graceful way.
func (w *World) Stop(ctx context.Context, id string) error {
	w.mu.Lock()
	m := w.members[id]
	var n *node.Node
	if m != nil {
		n, m.node = m.node, nil
	}
	w.mu.Unlock()
	if n == nil {
		return nil
	}
	return n.Shutdown(ctx)
}

// Close ends all members and returns when nothing of them runs any more.
func (w *World) Close() error {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	var err error
	w.mu.Lock()
	ids := make([]string, 0, len(w.members))
	for id := range w.members {
		ids = append(ids, id)
	}
	w.mu.Unlock()
	for _, id := range ids {
		err = errors.Join(err, w.Stop(ctx, id))
	}
	w.stops.Wait()
	return err
}

// Node returns a running member, nil if it doesn't run.
func (w *World) Node(id string) *node.Node {
	w.mu.Lock()
	defer w.mu.Unlock()
	if m := w.members[id]; m != nil {
		return m.node
	}
	return nil
}

// Clock returns a member's clock.
func (w *World) Clock(id string) *Clock {
	w.mu.Lock()
	defer w.mu.Unlock()
	if m := w.members[id]; m != nil {
		return m.clock
	}
	return nil
}

// Running returns the ids of the members that run, sorted.
func (w *World) Running() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	var ids []string
	for id, m := range w.members {
		if m.node != nil {
			ids = append(ids, id)
		}
	}
	slices.Sort(ids)
	return ids
}

// Until waits for a condition, looking at it every 5 ms of virtual time, and says whether it came true within limit.
func Until(limit time.Duration, ok func() bool) bool {
	for began := time.Now(); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Since(began) > limit {
			return false
		}
	}
	return true
}

// Leader waits for a leader that every running member that can hear it knows, and returns its id, empty if there is none within limit.
func (w *World) Leader(limit time.Duration) string {
	leader := ""
	Until(limit, func() bool {
		leader = ""
		for _, id := range w.Running() {
			if n := w.Node(id); n != nil && n.IsLeader() {
				leader = id
			}
		}
		return leader != ""
	})
	return leader
}

// Ready waits until all running members are ready and announced.
func (w *World) Ready(limit time.Duration) bool {
	return Until(limit, func() bool {
		for _, id := range w.Running() {
			n := w.Node(id)
			if n == nil || n.Ready() != nil {
				return false
			}
			if m, ok := n.Local().State.Member(id); !ok || !m.GetAnnounced() {
				return false
			}
		}
		return true
	})
}
