package node

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/hashicorp/raft"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"quorate/fsm"
	logv1 "quorate/proto/quorate/log/v1"
	peerv1 "quorate/proto/quorate/peer/v1"
)

// Field numbers of logv1.Entry and logv1.Command, for entries that are put together from commands encoded by their callers. A test compares the
// result with what the generated code makes.
const (
	entryClock         protowire.Number = 1
	entryLeaderApplied protowire.Number = 2
	entryCommands      protowire.Number = 3
	entryTerm          protowire.Number = 4
)

// retryPause is the longest wait before a call that found no leader looks again; a change of leader wakes it at once.
const retryPause = 50 * time.Millisecond

// announceWait is the longest that a command waits for a member to say that it can apply it.
const announceWait = 2 * time.Second

// forwardCatchUp is the longest that the answer to a forwarded command waits for this member to apply it.
const forwardCatchUp = 500 * time.Millisecond

// Propose commits a command and returns what the state machine answered, on any member, whose local state reflects it then. A refusal is in the Outcome. An *Error of kind UnknownOutcome
// means that the command may still take effect: sending it again with the same request id is safe. The group's own commands have no request id.
//
// A command that certainly didn't happen, because there was no leader or it had changed, is sent again until ctx ends or Limits.Propose is over.
func (n *Node) Propose(ctx context.Context, cmd *logv1.Command) (*logv1.Outcome, error) {
	start := n.cfg.Clock.Elapsed()
	outcome, err := n.propose(ctx, cmd)
	n.counts.proposed(outcome, err, n.cfg.Clock.Elapsed()-start)
	return outcome, err
}

func (n *Node) propose(ctx context.Context, cmd *logv1.Command) (*logv1.Outcome, error) {
	const op = "propose"
	if cmd.GetBody() == nil {
		return nil, &Error{Op: op, Kind: Invalid, Err: errors.New("command has no body")}
	}
	if cmd.WallTime == nil {
		// The caller's command isn't touched: it may be sent elsewhere too.
		cmd = &logv1.Command{RequestId: cmd.RequestId, Actor: cmd.Actor, WallTime: timestamppb.New(n.cfg.Clock.Wall()), Body: cmd.Body}
	}
	if size := proto.Size(cmd); size > n.cfg.Limits.CommandBytes {
		return nil, &Error{Op: op, Kind: Invalid, Err: fmt.Errorf("command has %d bytes, more than %d", size, n.cfg.Limits.CommandBytes)}
	}
	ctx, cancel := within(ctx, n.cfg.Limits.Propose)
	defer cancel()
	var outcome *logv1.Outcome
	err := n.untilLed(ctx, op, func() (err error) {
		outcome, err = n.proposeOnce(ctx, cmd)
		return err
	})
	return outcome, err
}

// within bounds a context, unless it ends early enough by itself: a timer for each call costs more than a look at the clock.
func within(ctx context.Context, limit time.Duration) (context.Context, context.CancelFunc) {
	if deadline, ok := ctx.Deadline(); ok && time.Until(deadline) <= limit {
		return ctx, func() {}
	}
	return context.WithTimeout(ctx, limit)
}

// untilLed calls try again for as long as it fails for want of a leader, which means that it changed nothing. If the time runs out in the middle of a
// later try, the want of a leader is what the caller has to know.
func (n *Node) untilLed(ctx context.Context, op string, try func() error) error {
	var unled *Error
	for {
		if err := n.usable(op); err != nil {
			return err
		}
		changed := n.led.wait()
		err := try()
		var e *Error
		if err == nil || !errors.As(err, &e) || (e.Kind != NotLeader && e.Kind != NoLeader) {
			if e != nil && e.Kind == Deadline && unled != nil {
				return unled
			}
			return err
		}
		unled = &Error{Op: op, Kind: NoLeader, Err: e.Err}
		pause := time.NewTimer(retryPause)
		select {
		case <-changed:
		case <-pause.C:
		case <-n.stopping:
		case <-ctx.Done():
			pause.Stop()
			return unled
		}
		pause.Stop()
	}
}

func (n *Node) proposeOnce(ctx context.Context, cmd *logv1.Command) (*logv1.Outcome, error) {
	if n.session.Load() != nil {
		return n.proposeHere(ctx, cmd)
	}
	peer, err := n.leaderPeer("propose")
	if err != nil {
		return nil, err
	}
	if _, err := encode(cmd); err != nil {
		return nil, err // The peer service couldn't either, and would take it for a request that did not leave.
	}
	resp, err := peer.Propose(ctx, &peerv1.ProposeRequest{Command: cmd})
	if err != nil {
		return nil, fromPeer(ctx, "propose", err)
	}
	n.catchUp(ctx, resp.GetOutcome().GetRevision())
	return resp.GetOutcome(), nil
}

// catchUp waits until this member has applied what the leader answered to, so that whoever changed something through a member sees it there: its local
// reads, its ServiceLevel. The outcome is known already, so a member that lags far behind keeps it back for forwardCatchUp at most.
func (n *Node) catchUp(ctx context.Context, revision uint64) {
	ctx, cancel := context.WithTimeout(ctx, forwardCatchUp)
	defer cancel()
	// Running out of time is no failure of the command.
	_, _ = n.machine.await(ctx, func(a *applied) bool { return a.state.Revision() >= revision })
}

// proposeHere commits a command on this member, which must lead.
func (n *Node) proposeHere(ctx context.Context, cmd *logv1.Command) (*logv1.Outcome, error) {
	n.awaitAnnouncements(ctx, cmd)
	if partition, ok := fsm.Gated(cmd); ok {
		return n.proposeGated(ctx, cmd, partition)
	}
	data, err := encode(cmd)
	if err != nil {
		return nil, err
	}
	return n.commit(ctx, cmd, &proposal{data: data})
}

// awaitAnnouncements waits where a command would be refused only because a member has not yet said what it can apply: one that joins, or all of them in a
// new group. It does so in its first moments, or is in trouble, and then the refusal is right.
func (n *Node) awaitAnnouncements(ctx context.Context, cmd *logv1.Command) {
	open := func(a *applied) bool {
		return a.state.Accepts(cmd) == nil || !a.state.Unannounced() || a.state.Answered(cmd) != nil
	}
	if open(n.machine.latest.Load()) {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, announceWait)
	defer cancel()
	// Whatever comes of it, the command is looked at once more.
	_, _ = n.machine.await(ctx, open)
}

func encode(cmd *logv1.Command) ([]byte, error) {
	data, err := proto.Marshal(cmd)
	if err != nil {
		return nil, &Error{Op: "propose", Kind: Invalid, Err: err}
	}
	return data, nil
}

// commit queues a proposal and waits for its outcome.
func (n *Node) commit(ctx context.Context, cmd *logv1.Command, p *proposal) (*logv1.Outcome, error) {
	if o := unaccepted(n.machine.latest.Load().state, cmd); o != nil {
		return o, nil
	}
	p.done = make(chan answer, 1)
	if err := n.proposer.enqueue(p); err != nil {
		return nil, err
	}
	select {
	case a := <-p.done:
		return a.outcome, a.err
	case <-ctx.Done():
	}
	if n.proposer.withdraw(p) {
		return nil, &Error{Op: "propose", Kind: Deadline, Err: ctx.Err()}
	}
	return nil, &Error{Op: "propose", Kind: UnknownOutcome, Err: ctx.Err()}
}

// unaccepted is the outcome of a command for which there can be no entry now, nil if there can be one. One that was answered before keeps its answer.
func unaccepted(state *fsm.State, cmd *logv1.Command) *logv1.Outcome {
	r := state.Accepts(cmd)
	if r == nil {
		return nil
	}
	if before := state.Answered(cmd); before != nil {
		return before
	}
	return &logv1.Outcome{
		Revision: state.Revision(), Clock: uint64(state.Now()), Generation: state.CurrentGeneration().GetNumber(),
		Result: &logv1.Outcome_Refusal{Refusal: r.Refusal},
	}
}

type answer struct {
	outcome *logv1.Outcome
	err     error
}

// proposal is one command that waits for its entry, or for its entry's commitment.
type proposal struct {
	data []byte
	done chan answer
	// term, unless it is 0, is the only one in which the command may be proposed: it was decided on under that leadership.
	term uint64
}

// proposer gathers commands into entries: what waits while entries are in flight goes into the next one together, which is what makes many
// callers cheap. Its slots bound the entries in flight.
type proposer struct {
	limits Limits
	mu     sync.Mutex
	queue  []*proposal
	bytes  int
	wake   chan struct{}
	slots  chan struct{}
}

func newProposer(limits Limits) *proposer {
	return &proposer{limits: limits, wake: make(chan struct{}, 1), slots: make(chan struct{}, limits.EntriesInFlight)}
}

func (p *proposer) enqueue(q *proposal) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.queue) >= p.limits.WaitingProposals || p.bytes+len(q.data) > p.limits.WaitingBytes {
		return &Error{Op: "propose", Kind: Overloaded, Err: fmt.Errorf("%d proposals wait", len(p.queue))}
	}
	p.queue = append(p.queue, q)
	p.bytes += len(q.data)
	select {
	case p.wake <- struct{}{}:
	default:
	}
	return nil
}

func (p *proposer) waiting() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.queue)
}

// withdraw takes a proposal back and says whether it was still waiting.
func (p *proposer) withdraw(q *proposal) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	for i := range p.queue {
		if p.queue[i] == q {
			p.queue = append(p.queue[:i], p.queue[i+1:]...)
			p.bytes -= len(q.data)
			return true
		}
	}
	return false
}

// take removes what fits into one entry from the front of the queue.
func (p *proposer) take() []*proposal {
	p.mu.Lock()
	defer p.mu.Unlock()
	n, size := 0, 0
	for n < len(p.queue) && n < p.limits.EntryCommands && (n == 0 || size+len(p.queue[n].data) <= p.limits.EntryBytes) {
		size += len(p.queue[n].data)
		n++
	}
	batch := p.queue[:n:n]
	p.queue = p.queue[n:]
	p.bytes -= size
	if len(p.queue) == 0 {
		p.queue = nil
	}
	return batch
}

// runProposer forms entries until the member stops. The entry is formed only when a slot is free, so that it holds as much as possible.
func (n *Node) runProposer() {
	for {
		select {
		case <-n.proposer.wake:
		case <-n.stopped:
			n.failWaiting()
			return
		}
		for {
			select {
			case n.proposer.slots <- struct{}{}:
			case <-n.stopped:
				n.failWaiting()
				return
			}
			batch := n.proposer.take()
			if len(batch) == 0 {
				<-n.proposer.slots
				break
			}
			n.dispatch(batch)
		}
	}
}

func (n *Node) failWaiting() {
	for batch := n.proposer.take(); len(batch) > 0; batch = n.proposer.take() {
		settle(batch, &Error{Op: "propose", Kind: Shutdown})
	}
}

func settle(batch []*proposal, err error) {
	for _, p := range batch {
		p.done <- answer{err: err}
	}
}

// dispatch hands an entry to raft and settles its proposals when raft has.
func (n *Node) dispatch(batch []*proposal) {
	s := n.session.Load()
	if s == nil {
		<-n.proposer.slots
		settle(batch, &Error{Op: "propose", Kind: NotLeader})
		return
	}
	if batch = ofTerm(batch, s.term); len(batch) == 0 {
		<-n.proposer.slots
		return
	}
	n.counts.entries.Add(1)
	n.counts.commands.Add(uint64(len(batch)))
	future := n.raft.Apply(n.entry(s, batch), n.cfg.Timing.RPC)
	n.background.Go(func() {
		err := future.Error()
		<-n.proposer.slots
		if errors.Is(err, raft.ErrLeadershipTransferInProgress) {
			n.handsOver("")
		}
		if err != nil {
			settle(batch, applyError(err))
			return
		}
		result, ok := future.Response().(*entryResult)
		if !ok || len(result.outcomes) != len(batch) {
			settle(batch, &Error{Op: "propose", Kind: UnknownOutcome, Err: fmt.Errorf("entry %d: %v", future.Index(), future.Response())})
			return
		}
		for i, p := range batch {
			p.done <- answer{outcome: result.outcomes[i]}
		}
	})
}

// ofTerm keeps the proposals that may be made in a term, and settles the others.
func ofTerm(batch []*proposal, term uint64) []*proposal {
	kept := batch[:0]
	for _, p := range batch {
		if p.term == 0 || p.term == term {
			kept = append(kept, p)
		} else {
			settle([]*proposal{p}, &Error{Op: "propose", Kind: NotLeader})
		}
	}
	return kept
}

// applyError sorts what raft says of an entry. Only the first three mean that it was never written to a log.
func applyError(err error) error {
	switch {
	case errors.Is(err, raft.ErrNotLeader), errors.Is(err, raft.ErrLeadershipTransferInProgress), errors.Is(err, raft.ErrEnqueueTimeout):
		return &Error{Op: "propose", Kind: NotLeader, Err: err}
	}
	return &Error{Op: "propose", Kind: UnknownOutcome, Err: err}
}

// entry encodes an entry with the leader's reading of cluster time. The applied index is read before the clock, so that the reading is known
// to have been taken after that entry was applied (platform.md §2).
func (n *Node) entry(s *session, batch []*proposal) []byte {
	size := 64
	for _, p := range batch {
		size += len(p.data) + 8
	}
	b := make([]byte, 0, size)
	index := n.machine.latest.Load().state.Revision()
	n.dispatched.Store(int64(n.cfg.Clock.Elapsed()))
	b = protowire.AppendTag(b, entryClock, protowire.VarintType)
	b = protowire.AppendVarint(b, uint64(s.now(n.cfg.Clock)))
	b = protowire.AppendTag(b, entryLeaderApplied, protowire.VarintType)
	b = protowire.AppendVarint(b, index)
	for _, p := range batch {
		b = protowire.AppendTag(b, entryCommands, protowire.BytesType)
		b = protowire.AppendBytes(b, p.data)
	}
	b = protowire.AppendTag(b, entryTerm, protowire.VarintType)
	return protowire.AppendVarint(b, s.term)
}
