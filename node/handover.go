package node

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/hashicorp/raft"
)

// handOverAttempts bounds how often one hand-over is tried; each attempt holds proposals back for up to three election timeouts.
const handOverAttempts = 5

// handOver gives the leadership to a voter, or to the one that is furthest if to is empty, and waits until raft has done it or given up. Raft allows
// each attempt one election timeout, which a busy machine misses now and then, so there are up to handOverAttempts.
func (n *Node) handOver(ctx context.Context, to string) error {
	n.handing.Lock()
	defer n.handing.Unlock()
	for attempt := 1; ; attempt++ {
		err := n.handOverOnce(ctx, to, attempt)
		var e *Error
		if !errors.As(err, &e) || e.Kind != NotReady || attempt == handOverAttempts {
			return err
		}
		n.logger.Info("handing over again", "attempt", attempt, "error", err)
		// Proposals go on meanwhile, and raft ends the attempt a moment after it has told.
		if !n.pause(ctx, retryPause) {
			return err
		}
		if to == "" && n.raft.State() != raft.Leader {
			return nil // It took effect late. Where a voter was named, raft says below that this is no leader, and the caller asks the next one.
		}
	}
}

// handed is a hand-over that may have raft wait for the replication to a member.
type handed struct {
	// to is that member, and empty for any.
	to raft.ServerID
	// until is for how long, by the member's clock.
	until time.Duration
}

// handingOver says whether a hand-over may have raft wait for the replication to a member: one is under way, or was a moment ago.
func (n *Node) handingOver(id raft.ServerID) bool {
	h := n.handed.Load()
	return h != nil && (h.to == "" || h.to == id) && n.cfg.Clock.Elapsed() < h.until
}

// handsOver notes that raft hands over to a member for the next election timeout, or, where to is empty, that it still does, to whomever: it refuses what is proposed. An
// attempt that raft has given up goes on until the replication that it waits for has looked at it.
func (n *Node) handsOver(to raft.ServerID) {
	n.handed.Store(&handed{to, n.cfg.Clock.Elapsed() + n.cfg.Timing.Election})
}

// successor is whom an attempt hands over to: who is named, or one of those who answer. One who doesn't can't take the leadership, and Raft would wait for
// his log to catch up: it would take no writes meanwhile, and after a second attempt none until he is back. Nil leaves the choice to raft, which knows who is furthest.
func (n *Node) successor(to string, attempt int) (*raft.Server, error) {
	const op = "transfer leadership"
	if n.raft.State() != raft.Leader {
		return nil, &Error{Op: op, Kind: NotLeader}
	}
	// Heartbeats follow one another, so on slow lines there are round trips between them.
	recently := n.cfg.Timing.Heartbeat + n.cfg.Timing.Election
	if to != "" {
		s, ok := n.server(to)
		switch {
		case !ok || s.Suffrage != raft.Voter:
			return nil, &Error{Op: op, Kind: NotVoter, Err: fmt.Errorf("%s", to)}
		case to != n.cfg.ID && !n.hearts.heard(s.ID, recently):
			return nil, &Error{Op: op, Kind: NotReady, Err: fmt.Errorf("%s does not answer", to)}
		}
		return &s, nil
	}
	var answering []raft.Server
	silent := 0
	for _, s := range n.raft.GetConfiguration().Configuration().Servers {
		switch {
		case s.Suffrage != raft.Voter || string(s.ID) == n.cfg.ID:
		case n.hearts.heard(s.ID, recently):
			answering = append(answering, s)
		default:
			silent++
		}
	}
	switch {
	case silent == 0:
		return nil, nil
	case len(answering) == 0:
		return nil, &Error{Op: op, Kind: NotReady, Err: errors.New("no other voter answers")}
	}
	return &answering[attempt%len(answering)], nil
}

// handOverOnce first lets the entries in flight end and holds back new ones, so that a planned change leaves no outcome unknown: what waited goes to
// the next leader.
func (n *Node) handOverOnce(ctx context.Context, to string, attempt int) error {
	successor, err := n.successor(to, attempt)
	if err != nil {
		return err
	}
	if held := n.hold(ctx, n.cfg.Timing.Election); held > 0 {
		defer func() {
			for range held {
				<-n.proposer.slots
			}
		}()
	}
	return n.transferTo(ctx, successor)
}

// hold takes the slots for entries in flight, as each becomes free, until it has all or time is up. It returns how many it got.
func (n *Node) hold(ctx context.Context, limit time.Duration) (held int) {
	timer := time.NewTimer(limit)
	defer timer.Stop()
	for held < cap(n.proposer.slots) {
		select {
		case n.proposer.slots <- struct{}{}:
			held++
		case <-timer.C:
			return held
		case <-ctx.Done():
			return held
		}
	}
	return held
}

// outcome waits for one of raft's futures aside. Shutdown waits for those too.
func (n *Node) outcome(future func() raft.Future) <-chan error {
	done := make(chan error, 1)
	n.futures.Add(1)
	n.background.Go(func() {
		defer n.futures.Done()
		done <- future().Error()
	})
	return done
}

func (n *Node) transferTo(ctx context.Context, to *raft.Server) error {
	const op = "transfer leadership"
	future, target := n.raft.LeadershipTransfer, raft.ServerID("")
	if to != nil {
		target = to.ID
		future = func() raft.Future { return n.raft.LeadershipTransferToServer(to.ID, to.Address) }
	}
	n.handsOver(target)
	done := n.outcome(future)
	select {
	case err := <-done:
		if errors.Is(err, raft.ErrNotLeader) {
			return &Error{Op: op, Kind: NotLeader}
		}
		if errors.Is(err, raft.ErrLeadershipTransferInProgress) {
			n.handsOver("")
		}
		if err != nil {
			return &Error{Op: op, Kind: NotReady, Err: err}
		}
		return nil
	case <-ctx.Done():
		return &Error{Op: op, Kind: UnknownOutcome, Err: ctx.Err()}
	case <-n.stopped:
		return &Error{Op: op, Kind: Shutdown}
	}
}
