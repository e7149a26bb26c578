// Package node makes one member of the group out of raft, the state machine and the links to the other members.
//
// A Node takes commands (Propose), answers reads (Read, Local) and streams events (Watch), whether it leads or follows: a follower forwards to
// the leader. Commands that wait together are committed together in one log entry, which the leader stamps with cluster time. A linearizable read
// asks a majority of voters for their current term, after the batch of waiting reads was closed, and then waits for the state machine; raft's own
// VerifyLeader isn't used, because it credits answers to questions asked earlier. Reads get an immutable State and hold no lock.
//
// The leader has duties: to open its term, to keep the replicated member list equal to raft's configuration, to let cluster time go on while
// something waits for it, to compare the members' digests, and to grant serving leases (RenewServing), moving the right to serve where nobody can hold
// one any more. They start and stop with leadership, as raft's NotifyCh tells it.
//
// DESIGN.md, beside this file, says why things are as they are.
package node

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"

	"quorate/fsm"
	peerv1 "quorate/proto/quorate/peer/v1"
	"quorate/telemetry"
)

// NeverHeard is the age of a contact that never was.
const NeverHeard = 100 * 365 * 24 * time.Hour

// notifyBuffer is how many changes of leadership raft may tell before anyone looks: raft blocks on a full channel.
const notifyBuffer = 64

// View is what a read is answered from.
type View struct {
	// State is immutable and may be kept.
	State *fsm.State
	// Member is the id of the member that answered.
	Member string
	// LeaderContactAge is 0 on a confirmed leader and otherwise the time since this member was last in contact with the group.
	LeaderContactAge time.Duration
}

// Node is one running member. Its methods may be called from any goroutine.
type Node struct {
	cfg      Config
	logger   *slog.Logger
	raft     *raft.Raft
	storage  *Storage
	log      *early
	machine  *machine
	proposer *proposer
	reads    *reads
	asksMu   sync.Mutex
	asks     map[raft.ServerID]int
	session  atomic.Pointer[session]
	// handing is held while the leadership is handed over, and handed is whose replication may have that wait; nil is nobody's.
	handing sync.Mutex
	handed  atomic.Pointer[handed]
	// hearts are those of the other members.
	hearts *hearts
	led    notifier
	opened time.Time
	// confirmed is the latest moment that is certain to have been before a contact with the group.
	confirmed atomic.Pointer[time.Time]
	// deposed is what raft gave as its last contact when this member lost its leadership: raft sets it then, though it heard from nobody.
	deposed atomic.Pointer[time.Time]
	// dispatched is the clock's reading when the last entry was formed here.
	dispatched atomic.Int64
	diverged   atomic.Pointer[string]
	tight      atomic.Bool

	// ctx ends when stopped is closed.
	ctx    context.Context
	cancel context.CancelFunc
	// started is closed once raft runs; the raft port answers a moment earlier.
	started  chan struct{}
	fatal    chan error
	failed   atomic.Pointer[error]
	stopping chan struct{}
	stopOnce sync.Once
	stopped  chan struct{}
	done     chan struct{}
	stopErr  error
	notify   chan bool
	// requests are what raft is asked, by other members and by this one.
	requests   chan raft.RPC
	observed   chan raft.Observation
	background sync.WaitGroup
	// futures counts the goroutines that wait for raft's futures other than entries.
	futures sync.WaitGroup
	// counts change with every call, so they are apart from what every call only reads.
	counts counts
}

// session is one leadership whose OpenTerm was applied here. Cluster time goes on from its base (platform.md §2).
type session struct {
	term uint64
	// base is cluster time as it stood when the term was opened, and start the clock's reading then.
	base  time.Duration
	start time.Duration
	// ctx ends with the leadership.
	ctx context.Context
	// servings are the leases granted under it.
	servings *servings
	// gates are the gate leases granted under it.
	gates *gates
}

func (s *session) now(c Clock) time.Duration { return s.base + c.Elapsed() - s.start }

// notifier wakes whoever waits for something to change.
type notifier struct {
	mu sync.Mutex
	ch chan struct{}
}

func (n *notifier) wait() <-chan struct{} {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.ch == nil {
		n.ch = make(chan struct{})
	}
	return n.ch
}

func (n *notifier) wake() {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.ch != nil {
		close(n.ch)
		n.ch = nil
	}
}

// Open starts a member. It returns once the newest snapshot is restored and before a leader is known: see Ready.
func Open(cfg Config) (*Node, error) {
	if err := cfg.normalise(); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(context.Background())
	n := &Node{
		cfg: cfg, logger: cfg.Logger.With("member", cfg.ID), ctx: ctx, cancel: cancel, opened: time.Now(),
		proposer: newProposer(cfg.Limits), reads: newReads(cfg.Limits.WaitingReads), asks: map[raft.ServerID]int{},
		fatal: make(chan error, 1), started: make(chan struct{}), stopping: make(chan struct{}), stopped: make(chan struct{}), done: make(chan struct{}),
		notify: make(chan bool, notifyBuffer), requests: make(chan raft.RPC), observed: make(chan raft.Observation, notifyBuffer),
	}
	n.machine = newMachine(cfg.Limits, n.fail)
	err := n.measure(cfg.Metrics)
	if err == nil {
		err = n.start()
	}
	if err != nil {
		cancel()
		return nil, errors.Join(err, n.closeStorage(), cfg.Transport.Close())
	}
	return n, nil
}

func (n *Node) start() error {
	var err error
	if n.storage = n.cfg.Storage; n.storage == nil {
		if n.storage, err = openStorage(n.cfg.DataDir, n.cfg.LogStore, n.logger); err != nil {
			return err
		}
	}
	rc := n.raftConfig()
	logs, stable := &early{LogStore: guardLog(n.storage, n.fail), may: n.mayWriteEarly}, guardStable(n.storage.Stable, n.fail)
	n.log = logs
	cached, err := raft.NewLogCache(logCacheEntries, logs)
	if err != nil {
		return err
	}
	trans := &patient{
		Transport: n.cfg.Transport, leads: n.leadsIn, handing: n.handingOver, voters: n.voters, requests: n.requests, log: logs, stopped: n.stopped,
		hearts: &hearts{elapsed: n.cfg.Clock.Elapsed},
	}
	n.hearts = trans.hearts
	if err := n.bootstrap(rc, logs, stable, trans); err != nil {
		return err
	}
	if err := n.cfg.Transport.Start(peers{n: n}, n.cfg.Timing); err != nil {
		return err
	}
	if n.raft, err = newRaft(rc, n.machine, cached, stable, n.storage.Snapshots, trans); err != nil {
		return fmt.Errorf("start raft: %w", err)
	}
	close(n.started)
	n.raft.RegisterObserver(raft.NewObserver(n.observed, false, func(o *raft.Observation) bool {
		_, ok := o.Data.(raft.LeaderObservation)
		return ok
	}))
	for _, run := range []func(){n.runProposer, n.runReads, n.runLeadership, n.runObserver, n.runSuccession, n.runDigests, n.runAnnounce, n.runSpaceGuard} {
		n.background.Go(run)
	}
	n.background.Go(trans.forward)
	return nil
}

// newRaft makes an error of what raft panics about: an entry that it can't read, before it has begun anything.
func newRaft(c *raft.Config, fsm raft.FSM, logs raft.LogStore, stable raft.StableStore, snapshots raft.SnapshotStore, trans raft.Transport) (_ *raft.Raft, err error) {
	defer func() {
		switch p := recover().(type) {
		case nil:
		case runtime.Error:
			panic(p)
		case error:
			err = p
		default:
			panic(p)
		}
	}()
	return raft.NewRaft(c, fsm, logs, stable, snapshots, trans)
}

// logCacheEntries bounds the entries that raft keeps decoded for its followers; an entry is at most Limits.EntryBytes.
const logCacheEntries = 512

func (n *Node) raftConfig() *raft.Config {
	t, c := n.cfg.Timing, raft.DefaultConfig()
	c.LocalID = raft.ServerID(n.cfg.ID)
	c.HeartbeatTimeout, c.ElectionTimeout, c.LeaderLeaseTimeout, c.CommitTimeout = t.Heartbeat, t.Election, t.LeaderLease, t.Commit
	c.MaxAppendEntries = 1024
	c.BatchApplyCh = true
	// A removed member stays one that can't be elected, and says so in Ready: a process that vanished would only look broken.
	c.ShutdownOnRemove = false
	c.SnapshotThreshold, c.TrailingLogs = n.cfg.Limits.SnapshotEntries, n.cfg.Limits.SnapshotEntries
	c.SnapshotInterval = 30 * time.Second
	c.NotifyCh = n.notify
	c.NoLegacyTelemetry = true
	c.Logger = telemetry.HCLog(n.logger.With("component", "raft"))
	return c
}

// bootstrap writes the first configuration into an empty store. Every first voter writes the same one, so that it doesn't matter who starts first.
func (n *Node) bootstrap(rc *raft.Config, logs raft.LogStore, stable raft.StableStore, trans raft.Transport) error {
	if len(n.cfg.Bootstrap) == 0 {
		return nil
	}
	exists, err := raft.HasExistingState(logs, stable, n.storage.Snapshots)
	if err != nil || exists {
		return err
	}
	var first raft.Configuration
	for _, m := range n.cfg.Bootstrap {
		first.Servers = append(first.Servers, raft.Server{Suffrage: raft.Voter, ID: raft.ServerID(m.ID), Address: raft.ServerAddress(m.RaftAddress)})
	}
	if err := raft.BootstrapCluster(rc, logs, stable, n.storage.Snapshots, trans, first); err != nil {
		return fmt.Errorf("bootstrap: %w", err)
	}
	return nil
}

// ID returns this member's id.
func (n *Node) ID() string { return n.cfg.ID }

// IsLeader says whether this member leads and has opened its term.
func (n *Node) IsLeader() bool { return n.session.Load() != nil }

// Leader returns the id of the leader as far as this member knows, empty if it knows none.
func (n *Node) Leader() string {
	_, id := n.raft.LeaderWithID()
	return string(id)
}

// Diverged says whether this member's state was found to differ from the majority's. It never becomes false again.
func (n *Node) Diverged() bool { return n.diverged.Load() != nil }

// Fatal returns a channel that gets one error when a store failed or the log is corrupt: the process must stop then.
func (n *Node) Fatal() <-chan error { return n.fatal }

// fail reports the first fatal error.
func (n *Node) fail(err error) {
	if !n.failed.CompareAndSwap(nil, &err) {
		return
	}
	n.logger.Error("member must stop", "error", err)
	n.fatal <- err
}

// QuorumContact returns how long ago this member was certainly in contact with the group: 0 on a leader that a majority confirmed just now, the
// age of the last confirmation on one that can't get any, and the age of the last contact with the leader elsewhere.
func (n *Node) QuorumContact() time.Duration {
	if n.session.Load() != nil {
		if age := n.confirmedAge(); age > n.confirmInterval()+n.cfg.Timing.Confirm {
			return age
		}
		return 0
	}
	last := n.raft.LastContact()
	if d := n.deposed.Load(); d != nil && last.Equal(*d) {
		return n.confirmedAge()
	}
	if last.IsZero() {
		return NeverHeard
	}
	return time.Since(last)
}

// confirmInterval is how often a leader has itself confirmed when no reads do it.
func (n *Node) confirmInterval() time.Duration { return 2 * n.cfg.Timing.Heartbeat }

// confirm notes that this member was certainly in contact with the group after at. It never forgets a later moment.
func (n *Node) confirm(at time.Time) {
	for {
		last := n.confirmed.Load()
		if last != nil && !at.After(*last) || n.confirmed.CompareAndSwap(last, &at) {
			return
		}
	}
}

func (n *Node) confirmedAge() time.Duration {
	if at := n.confirmed.Load(); at != nil {
		return time.Since(*at)
	}
	return NeverHeard
}

// Ready returns nil when this member can serve, and otherwise why it can't.
func (n *Node) Ready() error {
	if err := n.usable("ready"); err != nil {
		return err
	}
	not := func(format string, args ...any) error {
		return &Error{Op: "ready", Kind: NotReady, Err: fmt.Errorf(format, args...)}
	}
	if n.tight.Load() {
		return &Error{Op: "ready", Kind: StorageFailed, Err: fmt.Errorf("less than %d bytes are free in the data directory", n.cfg.Limits.FreeBytes)}
	}
	if n.Leader() == "" {
		return &Error{Op: "ready", Kind: NoLeader}
	}
	if _, ok := n.server(n.cfg.ID); !ok {
		return not("this member isn't in the group's configuration")
	}
	state := n.machine.latest.Load().state
	if state.Term() == 0 {
		return not("nothing has been applied yet")
	}
	if state.Term() != n.raft.CurrentTerm() {
		return not("the state is of term %d, the group in term %d", state.Term(), n.raft.CurrentTerm())
	}
	return nil
}

// usable returns why this member can't answer at all.
func (n *Node) usable(op string) error {
	select {
	case <-n.stopping:
		return &Error{Op: op, Kind: Shutdown}
	default:
	}
	if why := n.failed.Load(); why != nil {
		return &Error{Op: op, Kind: StorageFailed, Err: *why}
	}
	if why := n.diverged.Load(); why != nil {
		return &Error{Op: op, Kind: Diverged, Err: errors.New(*why)}
	}
	return nil
}

// leadsIn is what patient asks.
func (n *Node) leadsIn(term uint64, id raft.ServerID) bool {
	select {
	case <-n.started:
	default:
		return true
	}
	select {
	case <-n.stopped:
		return false
	default:
	}
	_, member := n.server(string(id))
	return member && n.raft.State() == raft.Leader && n.raft.CurrentTerm() == term
}

// server finds a member in raft's latest configuration.
func (n *Node) server(id string) (raft.Server, bool) {
	for _, s := range n.raft.GetConfiguration().Configuration().Servers {
		if string(s.ID) == id {
			return s, true
		}
	}
	return raft.Server{}, false
}

// leaderPeer returns a client for the leader, which must be another member.
func (n *Node) leaderPeer(op string) (peerv1.PeerServiceClient, error) {
	address, id := n.raft.LeaderWithID()
	if id == "" {
		return nil, &Error{Op: op, Kind: NoLeader}
	}
	if string(id) == n.cfg.ID {
		return nil, &Error{Op: op, Kind: NoLeader, Err: errors.New("this member leads but hasn't opened its term yet")}
	}
	peer, err := n.peer(string(id), string(address))
	if err != nil {
		return nil, &Error{Op: op, Kind: NoLeader, Err: err}
	}
	return peer, nil
}
