package node

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/hashicorp/raft"
	"google.golang.org/protobuf/proto"

	"quorate/fsm"
	logv1 "quorate/proto/quorate/log/v1"
)

const (
	// tickInterval is how often the leader moves cluster time on while something waits for it and no command flows (platform.md §2).
	tickInterval = time.Second
	// dutyPause is the least time between two looks at what a busy state machine waits for.
	dutyPause = 50 * time.Millisecond
	// dutyTimeout bounds one command of the leader's own.
	dutyTimeout = 5 * time.Second
)

// runLeadership starts and stops the leader's duties as raft tells. It never blocks for long, since raft waits on a full channel.
func (n *Node) runLeadership() {
	end, ended := func() {}, make(chan struct{})
	close(ended)
	defer func() {
		end()
		<-ended
	}()
	for {
		select {
		case leads := <-n.notify:
			end()
			n.session.Store(nil)
			n.led.wake()
			if !leads {
				last := n.raft.LastContact()
				n.deposed.Store(&last)
				continue
			}
			// Its contact as a follower is not forgotten: a change of leader alone moves no level, not even if the term is never opened.
			if age := n.QuorumContact(); age < NeverHeard {
				n.confirm(time.Now().Add(-age))
			}
			ctx, cancel := context.WithCancel(n.ctx)
			before, done := ended, make(chan struct{})
			end, ended = cancel, done
			n.background.Go(func() {
				defer close(done)
				<-before
				n.lead(ctx, n.raft.CurrentTerm())
			})
		case <-n.stopped:
			return
		}
	}
}

// runObserver wakes who waits for a leader when raft learns of one. A lost observation costs retryPause.
func (n *Node) runObserver() {
	for {
		select {
		case <-n.observed:
			n.led.wake()
		case <-n.stopped:
			return
		}
	}
}

// lead opens the term and then does the leader's duties until ctx ends.
func (n *Node) lead(ctx context.Context, term uint64) {
	if n.Diverged() && n.otherVoters() > 0 {
		// Raft doesn't know, and may elect it: it must not serve.
		if err := n.handOver(ctx, ""); err == nil {
			return
		}
	}
	s, err := n.openTerm(ctx, term)
	if err != nil {
		// Raft tells of every change: either the leadership is already lost, or the store failed and the process stops.
		n.logger.Info("term not opened", "term", term, "error", err)
		return
	}
	n.session.Store(s)
	n.counts.leaderships.Add(1)
	if ctx.Err() != nil {
		// Raft told otherwise meanwhile. runLeadership cleared the session before it ended ctx or will find it cleared here.
		n.session.CompareAndSwap(s, nil)
		return
	}
	n.led.wake()
	n.logger.Info("leading", "term", term, "cluster_time", s.base)
	n.background.Go(func() { n.keepConfirmed(ctx) })
	n.background.Go(func() { n.keepServing(s) })
	n.background.Go(func() { n.keepGates(s) })
	n.doDuties(ctx, s)
}

// openTerm commits the first command of the term: the state machine never sees raft's no-op, and a read index of this term needs an entry that it has
// seen. The entry's stamp is what the state machine has already, since nobody knows how much time passed between the leaders.
func (n *Node) openTerm(ctx context.Context, term uint64) (*session, error) {
	now := n.machine.latest.Load().state.Now()
	data, err := proto.Marshal(&logv1.Entry{Clock: uint64(now), Term: term, Commands: []*logv1.Command{{
		Body: &logv1.Command_OpenTerm{OpenTerm: &logv1.OpenTerm{Term: term, Leader: n.cfg.ID}},
	}}})
	if err != nil {
		return nil, err
	}
	// It takes a slot like any entry, so that Shutdown waits for it: a future that is open when raft stops never ends.
	select {
	case n.proposer.slots <- struct{}{}:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	var asked time.Time
	var future raft.ApplyFuture
	done := make(chan error, 1)
	n.background.Go(func() {
		done <- n.insist(ctx, func() error {
			asked = time.Now()
			future = n.raft.Apply(data, n.cfg.Timing.RPC)
			return future.Error()
		})
		<-n.proposer.slots
	})
	select {
	case err := <-done:
		if err != nil {
			return nil, err
		}
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	result, ok := future.Response().(*entryResult)
	if !ok {
		return nil, fmt.Errorf("%v", future.Response())
	}
	if result.term != term {
		return nil, fmt.Errorf("committed in term %d", result.term)
	}
	// A majority has stored the entry, so it followed this leader after asked.
	n.confirm(asked)
	// The state is read before the clock, so that the base is never newer than its moment.
	base := n.machine.latest.Load().state.Now()
	start := n.cfg.Clock.Elapsed()
	return &session{term: term, base: base, start: start, ctx: ctx, servings: newServings(start), gates: newGates(start)}, nil
}

// insist tries for as long as raft refuses for a hand-over of a former term that is not over yet: it may be waiting for an answer. One that takes longer waits for a
// replication that has ended with that term, and goes on for as long as the process: nobody could lead here, so the process has to end.
func (n *Node) insist(ctx context.Context, try func() error) error {
	limit := n.cfg.Clock.Elapsed() + n.cfg.Timing.Election + 2*n.cfg.Timing.RPC
	for {
		err := try()
		if !errors.Is(err, raft.ErrLeadershipTransferInProgress) {
			return err
		}
		n.handsOver("")
		if n.cfg.Clock.Elapsed() >= limit {
			err := &Error{Op: "lead", Kind: NotReady, Err: err}
			n.fail(err)
			return err
		}
		if !n.pause(ctx, retryPause) {
			return ctx.Err()
		}
	}
}

// keepConfirmed has the leadership confirmed when no reads do it, so that QuorumContact tells a deposed or paused leader from a real one.
func (n *Node) keepConfirmed(ctx context.Context) {
	every := time.NewTicker(n.confirmInterval())
	defer every.Stop()
	for {
		if n.confirmedAge() >= n.confirmInterval()/2 {
			// An error is no news: the age says it.
			_, _ = n.reads.join(ctx)
		}
		select {
		case <-every.C:
		case <-ctx.Done():
			return
		}
	}
}

// doDuties does what falls due until ctx ends.
func (n *Node) doDuties(ctx context.Context, s *session) {
	tick := time.NewTicker(tickInterval)
	defer tick.Stop()
	digest := time.NewTicker(n.cfg.Limits.DigestInterval)
	defer digest.Stop()
	due := time.NewTimer(0)
	defer due.Stop()
	n.syncMembers(ctx)
	for {
		var changed <-chan struct{}
		a := n.machine.latest.Load()
		wait, waiting := n.untilDue(a.state, s)
		switch {
		case !waiting:
			changed = a.next
			due.Stop()
		case wait <= 0:
			n.own(ctx, &logv1.Command{Body: &logv1.Command_Pulse{Pulse: &logv1.Pulse{}}})
			due.Reset(dutyPause)
		default:
			// A command may bring an earlier deadline; so while one waits, look again after a pause rather than at each batch.
			due.Reset(min(wait, tickInterval))
			changed = a.next
		}
		select {
		case <-ctx.Done():
			return
		case <-due.C:
		case <-changed:
			if !n.pause(ctx, dutyPause) {
				return
			}
		case <-n.machine.configured:
			n.syncMembers(ctx)
		case <-tick.C:
			n.tick(ctx)
		case <-digest.C:
			n.compareDigests(ctx)
		}
	}
}

func (n *Node) pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// untilDue says how long it takes until a pulse would do something, by the leader's reading of cluster time.
func (n *Node) untilDue(state *fsm.State, s *session) (time.Duration, bool) {
	deadline, ok := state.NextDeadline()
	if !ok {
		return 0, false
	}
	return deadline - s.now(n.cfg.Clock), true
}

// tick moves cluster time on if something waits for it and nothing else did within the last interval.
func (n *Node) tick(ctx context.Context) {
	if _, ok := n.machine.latest.Load().state.NextDeadline(); !ok {
		return
	}
	if n.cfg.Clock.Elapsed()-time.Duration(n.dispatched.Load()) < tickInterval-dutyPause {
		return
	}
	n.own(ctx, &logv1.Command{Body: &logv1.Command_Tick{Tick: &logv1.Tick{}}})
}

// own commits a command of the group's own. These are idempotent and come again, so that a failure is only logged.
func (n *Node) own(ctx context.Context, cmd *logv1.Command) bool {
	ctx, cancel := context.WithTimeout(ctx, dutyTimeout)
	defer cancel()
	outcome, err := n.proposeHere(ctx, cmd)
	if err == nil {
		if r := fsm.RefusalOf(outcome); r != nil {
			err = r
		}
	}
	if err != nil && ctx.Err() == nil {
		n.logger.Warn("duty not done", "command", fmt.Sprintf("%T", cmd.GetBody()), "error", err)
	}
	return err == nil
}

// syncMembers makes the replicated member list equal to raft's configuration.
func (n *Node) syncMembers(ctx context.Context) {
	state := n.machine.latest.Load().state
	want := &logv1.SyncMembers{}
	equal := true
	for _, s := range n.raft.GetConfiguration().Configuration().Servers {
		m := &logv1.SyncMembers_Member{Id: string(s.ID), RaftAddress: string(s.Address), Voter: s.Suffrage == raft.Voter}
		want.Members = append(want.Members, m)
		have, ok := state.Member(m.Id)
		equal = equal && ok && have.GetRaftAddress() == m.RaftAddress && have.GetVoter() == m.Voter
	}
	n.retainPeers()
	if equal && len(state.Members()) == len(want.Members) {
		return
	}
	n.own(ctx, &logv1.Command{Body: &logv1.Command_SyncMembers{SyncMembers: want}})
}

// runAnnounce keeps what is recorded of this member equal to what it says of itself.
func (n *Node) runAnnounce() {
	if n.cfg.Announce == nil {
		return
	}
	say := proto.CloneOf(n.cfg.Announce)
	say.Id = n.cfg.ID
	for {
		a := n.machine.latest.Load()
		if have, ok := a.state.Member(n.cfg.ID); ok && !announced(have, say) {
			ctx, cancel := context.WithTimeout(n.ctx, dutyTimeout)
			_, err := n.Propose(ctx, &logv1.Command{Body: &logv1.Command_AnnounceMember{AnnounceMember: say}})
			cancel()
			if err != nil {
				n.logger.Info("not announced yet", "error", err)
			}
			if !n.pause(n.ctx, dutyPause) {
				return
			}
			continue
		}
		select {
		case <-a.next:
			// Whatever is recorded is looked at rarely while commands flow.
			if !n.pause(n.ctx, dutyPause) {
				return
			}
		case <-n.ctx.Done():
			return
		}
	}
}

func announced(have *logv1.MemberRecord, say *logv1.AnnounceMember) bool {
	return have.GetAnnounced() && have.GetGrpcAddress() == say.GrpcAddress && have.GetHttpAddress() == say.HttpAddress &&
		have.GetOpcuaUrl() == say.OpcuaUrl && have.GetVersion() == say.Version && have.GetCommandVersion() == say.CommandVersion
}

// voters are the members that have a vote in raft's latest configuration.
func (n *Node) voters() (ids []raft.ServerID) {
	for _, s := range n.raft.GetConfiguration().Configuration().Servers {
		if s.Suffrage == raft.Voter {
			ids = append(ids, s.ID)
		}
	}
	return ids
}

// otherVoters counts the voters besides this member.
func (n *Node) otherVoters() int {
	count := 0
	for _, id := range n.voters() {
		if string(id) != n.cfg.ID {
			count++
		}
	}
	return count
}
