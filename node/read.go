package node

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/hashicorp/raft"

	"quorate/mutant"
	peerv1 "quorate/proto/quorate/peer/v1"
	quoratev1 "quorate/proto/quorate/v1"
)

// asksPerPeer bounds the unanswered questions to one member, so that one that hangs costs no more than this.
const asksPerPeer = 4

// Read returns a view that is as fresh as opts ask; nil means linearizable. Any member serves any read. min_revision is waited for.
func (n *Node) Read(ctx context.Context, opts *quoratev1.ReadOptions) (View, error) {
	view, err := n.read(ctx, opts)
	n.counts.read(opts.GetConsistency(), err)
	return view, err
}

func (n *Node) read(ctx context.Context, opts *quoratev1.ReadOptions) (View, error) {
	const op = "read"
	ctx, cancel := within(ctx, n.cfg.Limits.Read)
	defer cancel()
	if err := n.usable(op); err != nil {
		return View{}, err
	}
	least := opts.GetMinRevision()
	switch opts.GetConsistency() {
	case quoratev1.Consistency_CONSISTENCY_UNSPECIFIED, quoratev1.Consistency_CONSISTENCY_LINEARIZABLE:
		index, err := n.linearize(ctx)
		if err != nil {
			return View{}, err
		}
		least = max(least, index)
	case quoratev1.Consistency_CONSISTENCY_BOUNDED:
		if err := n.fresh(ctx, opts.GetMaxStaleness().AsDuration()); err != nil {
			return View{}, err
		}
	case quoratev1.Consistency_CONSISTENCY_LOCAL:
	default:
		return View{}, &Error{Op: op, Kind: Invalid, Err: fmt.Errorf("consistency %d", opts.GetConsistency())}
	}
	a, err := n.machine.await(ctx, func(a *applied) bool { return a.state.Revision() >= least })
	if err != nil {
		return View{}, &Error{Op: op, Kind: Deadline, Err: fmt.Errorf("revision %d isn't reached: %w", least, err)}
	}
	if n.Diverged() {
		return View{}, &Error{Op: op, Kind: Diverged}
	}
	return n.view(a), nil
}

// Local returns this member's view as it is, even when it has diverged.
func (n *Node) Local() View { return n.view(n.machine.latest.Load()) }

func (n *Node) view(a *applied) View {
	return View{State: a.state, Member: n.cfg.ID, LeaderContactAge: n.QuorumContact()}
}

// Changed returns a channel that is closed when the next batch of entries has been applied.
func (n *Node) Changed() <-chan struct{} { return n.machine.latest.Load().next }

// await waits until what was applied satisfies enough.
func (m *machine) await(ctx context.Context, enough func(*applied) bool) (*applied, error) {
	for {
		a := m.latest.Load()
		if enough(a) {
			return a, nil
		}
		select {
		case <-a.next:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// fresh refuses a bounded read on a member that heard nothing for longer than the bound. A leader asks the others first: its own belief is no contact.
func (n *Node) fresh(ctx context.Context, bound time.Duration) error {
	if bound <= 0 {
		return &Error{Op: "read", Kind: Invalid, Err: errors.New("max_staleness must be greater than zero")}
	}
	if n.session.Load() != nil {
		if n.confirmedAge() <= bound {
			return nil
		}
		_, err := n.linearize(ctx)
		return err
	}
	if age := n.QuorumContact(); age > bound {
		return &Error{Op: "read", Kind: Stale, Err: fmt.Errorf("last contact with the leader is %v old", age)}
	}
	return nil
}

// linearize returns a revision that reflects every command acknowledged before the call.
func (n *Node) linearize(ctx context.Context) (revision uint64, err error) {
	err = n.untilLed(ctx, "read", func() error {
		revision, err = n.reads.join(ctx)
		return err
	})
	return revision, err
}

// round is one confirmation and the reads that wait for it.
type round struct {
	waiting  int
	done     chan struct{}
	revision uint64
	err      error
}

// reads gathers the reads that come while a confirmation is under way into the next one. A round is closed to newcomers before its first question
// is sent: that is what makes an answer prove anything about their moment.
type reads struct {
	limit int
	mu    sync.Mutex
	open  *round
	wake  chan struct{}
}

func newReads(limit int) *reads { return &reads{limit: limit, wake: make(chan struct{}, 1)} }

func (r *reads) join(ctx context.Context) (uint64, error) {
	r.mu.Lock()
	if r.open == nil {
		r.open = &round{done: make(chan struct{})}
		select {
		case r.wake <- struct{}{}:
		default:
		}
	}
	mine := r.open
	if mine.waiting >= r.limit {
		r.mu.Unlock()
		return 0, &Error{Op: "read", Kind: Overloaded, Err: fmt.Errorf("%d reads wait", mine.waiting)}
	}
	mine.waiting++
	r.mu.Unlock()
	select {
	case <-mine.done:
		return mine.revision, mine.err
	case <-ctx.Done():
		return 0, &Error{Op: "read", Kind: Deadline, Err: ctx.Err()}
	}
}

func (r *reads) close() *round {
	r.mu.Lock()
	defer r.mu.Unlock()
	closed := r.open
	r.open = nil
	return closed
}

// runReads confirms one round after the other until the member stops.
func (n *Node) runReads() {
	for {
		select {
		case <-n.reads.wake:
		case <-n.stopped:
			if last := n.reads.close(); last != nil {
				last.err = &Error{Op: "read", Kind: Shutdown}
				close(last.done)
			}
			return
		}
		current := n.reads.close()
		if current == nil {
			continue
		}
		ctx, cancel := context.WithTimeout(n.ctx, n.cfg.Timing.Confirm)
		current.revision, current.err = n.confirmRevision(ctx)
		cancel()
		close(current.done)
	}
}

// confirmRevision finds the revision that a closed round has to see: on the leader by asking the voters, elsewhere by asking the leader.
func (n *Node) confirmRevision(ctx context.Context) (uint64, error) {
	s := n.session.Load()
	if s == nil {
		peer, err := n.leaderPeer("read")
		if err != nil {
			return 0, err
		}
		resp, err := peer.ReadIndex(ctx, &peerv1.ReadIndexRequest{})
		if err != nil {
			// Whatever happened, nothing changed: ask again, perhaps another leader.
			return 0, &Error{Op: "read", Kind: NoLeader, Err: fromPeer(ctx, "read", err)}
		}
		return resp.GetIndex(), nil
	}
	// Everything acknowledged before the round closed is at or below this index: the session exists only once the leader has applied its
	// OpenTerm, and so everything of earlier terms too.
	commit := n.raft.CommitIndex()
	if err := n.confirmTerm(ctx, s.term); err != nil {
		return 0, err
	}
	// The answer is a revision rather than the commit index, since only commands are sure to reach every member's state machine as such.
	a, err := n.machine.await(ctx, func(a *applied) bool { return a.index >= commit })
	if err != nil {
		return 0, &Error{Op: "read", Kind: NoLeader, Err: err}
	}
	return a.state.Revision(), nil
}

// confirmTerm asks the voters for their current term, with questions sent now. A majority that still is in the leader's term means that, when the
// first of them was sent, no later leader could have been elected (Raft thesis §6.4, with the term asked for instead of heartbeats).
func (n *Node) confirmTerm(ctx context.Context, term uint64) error {
	if mutant.Unconfirmed {
		return nil
	}
	asked := time.Now()
	servers := n.raft.GetConfiguration().Configuration().Servers
	terms := make(chan uint64, len(servers))
	voters, pending, votes := 0, 0, 0
	for _, server := range servers {
		if server.Suffrage != raft.Voter {
			continue
		}
		voters++
		if string(server.ID) == n.cfg.ID {
			votes++
		} else if n.ask(server, terms) {
			pending++
		}
	}
	for votes < voters/2+1 {
		if pending == 0 {
			return &Error{Op: "read", Kind: NoLeader, Err: errors.New("a majority doesn't answer")}
		}
		select {
		case got := <-terms:
			pending--
			switch {
			case got > term:
				return &Error{Op: "read", Kind: NotLeader, Err: fmt.Errorf("term %d was overtaken by %d", term, got)}
			case got == term:
				votes++
			}
		case <-ctx.Done():
			return &Error{Op: "read", Kind: NoLeader, Err: errors.New("a majority doesn't answer in time")}
		}
	}
	if n.raft.State() != raft.Leader || n.raft.CurrentTerm() != term {
		return &Error{Op: "read", Kind: NotLeader}
	}
	n.confirm(asked)
	return nil
}

// ask asks one voter for its term in the background; an error counts as term 0. It says whether it asked.
func (n *Node) ask(server raft.Server, terms chan<- uint64) bool {
	peer, release := n.askSlot(server)
	if peer == nil {
		return false
	}
	n.background.Go(func() {
		defer release()
		ctx, cancel := context.WithTimeout(n.ctx, n.cfg.Timing.Confirm)
		defer cancel()
		resp, err := peer.ConfirmTerm(ctx, &peerv1.ConfirmTermRequest{})
		if err != nil {
			terms <- 0
			return
		}
		terms <- resp.GetTerm()
	})
	return true
}

// askSlot returns a client for a voter, nil when too many questions to it are unanswered.
func (n *Node) askSlot(server raft.Server) (peerv1.PeerServiceClient, func()) {
	peer, err := n.peer(string(server.ID), string(server.Address))
	if err != nil {
		return nil, nil
	}
	n.asksMu.Lock()
	defer n.asksMu.Unlock()
	if n.asks[server.ID] >= asksPerPeer {
		return nil, nil
	}
	n.asks[server.ID]++
	return peer, func() {
		n.asksMu.Lock()
		defer n.asksMu.Unlock()
		if n.asks[server.ID]--; n.asks[server.ID] == 0 {
			delete(n.asks, server.ID)
		}
	}
}
