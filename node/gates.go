package node

import (
	"context"
	"errors"
	"fmt"
	"time"

	"google.golang.org/protobuf/proto"

	"quorate/fsm"
	logv1 "quorate/proto/quorate/log/v1"
	peerv1 "quorate/proto/quorate/peer/v1"
	quoratev1 "quorate/proto/quorate/v1"
)

const (
	// gateGather is how long the answer to a question waits for more news, so that a storm of transitions does not become one of answers.
	gateGather = 5 * time.Millisecond
	// instanceForget is the silence after which an instance is taken from the list.
	instanceForget = 5 * time.Minute
	// gateDuty is how often the leader looks for such instances.
	gateDuty = 10 * time.Second
)

// gateEnd is for how long after the grant a lease may be used, by the leader's clock: its holder's may be 2 % slower.
func gateEnd(ttl time.Duration) time.Duration { return ttl + ttl/50 }

// RenewGate asks the leader for a gate lease, on any member (partitions.md §2). The lease is counted from before the call, and is good only if the call is
// the instance's newest. Nothing is known after an error, and asking again is safe. An instance that isn't registered is refused with a *fsm.Refusal.
func (n *Node) RenewGate(ctx context.Context, req *quoratev1.RenewGateRequest) (*quoratev1.RenewGateResponse, error) {
	const op = "renew gate"
	ctx, cancel := context.WithTimeout(ctx, n.cfg.Limits.Propose)
	defer cancel()
	var resp *quoratev1.RenewGateResponse
	err := n.untilLed(ctx, op, func() (err error) {
		if n.session.Load() != nil {
			resp, err = n.renewGateHere(ctx, req)
			return err
		}
		peer, err := n.leaderPeer(op)
		if err != nil {
			return err
		}
		answer, err := peer.RenewGate(ctx, &peerv1.RenewGateRequest{Request: req})
		if err != nil {
			return fromPeer(ctx, op, err)
		}
		if answer.GetRefusal() != nil {
			return &fsm.Refusal{Refusal: answer.GetRefusal()}
		}
		resp = answer.GetResponse()
		return nil
	})
	if err != nil {
		return nil, err
	}
	return resp, nil
}

// renewGateHere answers a question if this member leads. The proof that no lease outlives what it says is in DESIGN.md.
func (n *Node) renewGateHere(ctx context.Context, req *quoratev1.RenewGateRequest) (*quoratev1.RenewGateResponse, error) {
	const op = "renew gate"
	s := n.session.Load()
	if s == nil {
		return nil, &Error{Op: op, Kind: NotLeader}
	}
	state := n.machine.latest.Load().state
	if r := state.CheckInstance(req.GetId(), req.GetSession()); r != nil {
		return nil, r
	}
	who := fsm.InstanceSession{ID: req.GetId(), Session: req.GetSession()}
	replaced := s.gates.hear(who, req, s.term, n.cfg.Clock.Elapsed())
	if req.GetGiveBack() {
		return &quoratev1.RenewGateResponse{Term: s.term, Revision: state.Revision()}, nil
	}
	if !req.GetNoWait() && !s.gates.awaitNews(ctx, who, req, s, state.GateTTL()/4, replaced) {
		return nil, gateEnded(ctx, op)
	}
	// The confirmation begins after the question arrived: whoever leads later counts its wait from after the instance began to count its lease.
	revision, err := n.reads.join(ctx)
	if err != nil {
		return nil, err
	}
	if n.session.Load() != s {
		// It may have been a later leadership of this member that was confirmed; this one's notes are void.
		return nil, &Error{Op: op, Kind: NotLeader}
	}
	if err := n.machine.events.reach(ctx, revision); err != nil {
		return nil, gateEnded(ctx, op)
	}
	n.counts.gateGrants.Add(1)
	return s.gates.grant(n.machine, n.cfg.Clock, who, req, s.term, replaced)
}

// gateEnded is why a question was not answered: its context ended, or a newer one took its place.
func gateEnded(ctx context.Context, op string) error {
	if err := ctx.Err(); err != nil {
		return &Error{Op: op, Kind: Deadline, Err: err}
	}
	return &Error{Op: op, Kind: Invalid, Err: errReplaced}
}

// proposeGated commits a command that makes what holders of gate leases know of a partition wrong: first nobody may hold one on it.
func (n *Node) proposeGated(ctx context.Context, cmd *logv1.Command, partition string) (*logv1.Outcome, error) {
	s := n.session.Load()
	if s == nil {
		return nil, &Error{Op: "propose", Kind: NotLeader}
	}
	if o := unaccepted(n.machine.latest.Load().state, cmd); o != nil {
		return o, nil
	}
	began := n.cfg.Clock.Elapsed()
	err := s.gates.close(ctx, s, n.machine, n.cfg.Clock, partition)
	n.counts.gateWait.Observe(n.cfg.Clock.Elapsed() - began)
	if err != nil {
		return nil, err
	}
	cmd = proto.CloneOf(cmd)
	fsm.GatesClosed(cmd, true)
	if c := cmd.GetCompleteMigration(); c != nil {
		c.Drained = s.gates.drained(n.machine.latest.Load().state, partition)
	}
	data, err := encode(cmd)
	if err != nil {
		s.gates.open(partition)
		return nil, err
	}
	p := &proposal{data: data, term: s.term}
	outcome, err := n.commit(ctx, cmd, p)
	switch {
	case err == nil:
		s.gates.open(partition)
	case !isUnknown(err):
		s.gates.open(partition)
		return nil, err
	default:
		// The gates stay closed for as long as the fate is open; where it never becomes known, the leadership is over, and these notes with it.
		n.background.Go(func() { s.openWhenKnown(p, partition) })
		return nil, err
	}
	if outcome.GetRefusal().GetReason() == fsm.ReasonGatesNotClosed {
		return nil, &Error{Op: "propose", Kind: NotLeader, Err: fsm.RefusalOf(outcome)}
	}
	return outcome, nil
}

// openWhenKnown opens the gates of a partition once the proposal of which the caller has given up is known to be applied or refused.
func (s *session) openWhenKnown(p *proposal, partition string) {
	select {
	case a := <-p.done:
		if a.err == nil || !isUnknown(a.err) {
			s.gates.open(partition)
		}
	case <-s.ctx.Done():
	}
}

// keepGates takes instances from the list that were silent for long, until the leadership ends.
func (n *Node) keepGates(s *session) {
	every := time.NewTicker(gateDuty)
	defer every.Stop()
	for {
		select {
		case <-every.C:
		case <-s.ctx.Done():
			return
		}
		for _, who := range s.gates.silent(n.machine.latest.Load().state, n.cfg.Clock.Elapsed()) {
			n.own(s.ctx, &logv1.Command{Body: &logv1.Command_ForgetInstance{ForgetInstance: &logv1.ForgetInstance{Id: who.ID, Session: who.Session}}})
		}
	}
}

// RenewGate answers the question of an instance that came to another member, if this one leads.
func (p peers) RenewGate(ctx context.Context, req *peerv1.RenewGateRequest) (*peerv1.RenewGateResponse, error) {
	if err := p.started(ctx); err != nil {
		return nil, err
	}
	if err := p.n.usable("renew gate"); err != nil {
		return nil, toPeer(err)
	}
	if req.GetRequest() == nil {
		return nil, toPeer(&Error{Op: "renew gate", Kind: Invalid, Err: fmt.Errorf("request: is missing")})
	}
	resp, err := p.n.renewGateHere(ctx, req.GetRequest())
	var refusal *fsm.Refusal
	if errors.As(err, &refusal) {
		return &peerv1.RenewGateResponse{Refusal: refusal.Refusal}, nil
	}
	if err != nil {
		return nil, toPeer(err)
	}
	return &peerv1.RenewGateResponse{Response: resp}, nil
}
