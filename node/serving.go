package node

import (
	"context"
	"fmt"
	"time"

	"google.golang.org/protobuf/proto"

	"quorate/fsm"
	logv1 "quorate/proto/quorate/log/v1"
	peerv1 "quorate/proto/quorate/peer/v1"
)

const (
	// ServingLeaseTTL is for how long a serving lease lasts, counted by the server from before it asked (redundancy.md §2).
	ServingLeaseTTL = 5 * time.Second
	// servingDrift is what the leader waits longer than the TTL, so that a server's clock may be 2 % slower than the leader's.
	servingDrift = ServingLeaseTTL / 50
	// servingWait is how long a question waits at the leader until another server has let go of the right.
	servingWait = time.Second
	// servingMoves bounds the commands that one question may cause: the state may change under each.
	servingMoves = 3
	// maxUnreachable bounds the servers that one question may call unreachable.
	maxUnreachable = 512
)

// RenewServing asks the leader for a serving lease for this member's server, on any member. The lease, if any, is counted from before the call, and
// is good only if the call is the server's newest. Questions of one member must not overlap. Nothing is known after an error, and asking again is safe.
func (n *Node) RenewServing(ctx context.Context, req *peerv1.RenewServingRequest) (*peerv1.RenewServingResponse, error) {
	const op = "renew serving"
	if req.GetMember() != n.cfg.ID {
		return nil, &Error{Op: op, Kind: Invalid, Err: fmt.Errorf("%s asks for %q", n.cfg.ID, req.GetMember())}
	}
	ctx, cancel := context.WithTimeout(ctx, n.cfg.Limits.Propose)
	defer cancel()
	var resp *peerv1.RenewServingResponse
	err := n.untilLed(ctx, op, func() (err error) {
		if n.session.Load() != nil {
			resp, err = n.renewHere(ctx, req, 0)
			return err
		}
		peer, err := n.leaderPeer(op)
		if err != nil {
			return err
		}
		resp, err = peer.RenewServing(ctx, req)
		return fromPeer(ctx, op, err)
	})
	if err != nil {
		return nil, err
	}
	return resp, nil
}

// renewHere answers a question that came over a connection, if this member leads. The proof that two healthy leases never overlap is in DESIGN.md.
func (n *Node) renewHere(ctx context.Context, req *peerv1.RenewServingRequest, conn uint64) (*peerv1.RenewServingResponse, error) {
	const op = "renew serving"
	s := n.session.Load()
	if s == nil {
		return nil, &Error{Op: op, Kind: NotLeader}
	}
	if len(req.GetUnreachable()) > maxUnreachable {
		return nil, &Error{Op: op, Kind: Invalid, Err: fmt.Errorf("unreachable: %d servers, more than %d", len(req.GetUnreachable()), maxUnreachable)}
	}
	if _, ok := n.machine.latest.Load().state.Member(req.GetMember()); !ok {
		return nil, &Error{Op: op, Kind: Invalid, Err: fmt.Errorf("member: %q isn't in the group", req.GetMember())}
	}
	replaced, leave := s.servings.enter(req.GetMember())
	defer leave()
	s.servings.hear(ctx, req, conn, n.cfg.Clock.Elapsed())
	// The confirmation begins after the question arrived: whoever leads later counts its wait from after the server began to count its lease.
	if _, err := n.reads.join(ctx); err != nil {
		return nil, err
	}
	if n.session.Load() != s {
		// It may have been a later leadership of this member that was confirmed; this one's notes are void.
		return nil, &Error{Op: op, Kind: NotLeader}
	}
	wait, cancel := context.WithTimeout(ctx, servingWait)
	defer cancel()
	// The asker's generation came from the log, so it is here by now.
	if _, err := n.machine.await(wait, func(a *applied) bool { return a.state.CurrentGeneration().GetNumber() >= req.GetGeneration() }); err != nil {
		return nil, &Error{Op: op, Kind: Deadline, Err: fmt.Errorf("generation %d isn't reached: %w", req.GetGeneration(), err)}
	}
	for moves := 0; ; {
		v := s.servings.decide(n.machine, n.cfg.Clock, req, conn)
		if v.begin != nil {
			if moves++; moves > servingMoves {
				s.servings.ended(v.begin, nil)
				return v.resp, nil
			}
			select {
			case s.servings.begun <- v.begin:
			case <-s.ctx.Done():
				s.servings.ended(v.begin, &Error{Op: op, Kind: NotLeader})
				return nil, &Error{Op: op, Kind: NotLeader}
			}
		}
		if v.changed == nil {
			return v.resp, nil
		}
		if !until(wait, v, replaced) {
			if err := ctx.Err(); err != nil {
				return nil, &Error{Op: op, Kind: Deadline, Err: err}
			}
			return v.resp, nil
		}
	}
}

// until waits until a verdict may have become another one; false means that the question has waited for long enough.
func until(ctx context.Context, v verdict, replaced <-chan struct{}) bool {
	var moved <-chan struct{}
	if v.moving != nil {
		moved = v.moving.done
	}
	var lapse <-chan time.Time
	if v.lapse > 0 {
		timer := time.NewTimer(v.lapse)
		defer timer.Stop()
		lapse = timer.C
	}
	select {
	case <-moved:
		return true
	case <-v.changed:
		return true
	case <-v.news:
		return true
	case <-lapse:
		return true
	case <-replaced:
		return false
	case <-ctx.Done():
		return false
	}
}

// moveServing commits a move of the right. It doesn't end with the question that caused it: as long as the fate of the command is open, those that it
// takes the right from are barred.
func (n *Node) moveServing(s *session, m *move) {
	err := n.proposeIn(s.ctx, s, m.command)
	if err != nil && s.ctx.Err() == nil {
		n.logger.Info("serving right not moved", "command", fmt.Sprintf("%T", m.command.GetBody()), "server", m.server, "error", err)
	}
	s.servings.ended(m, err)
}

// proposeIn commits a command that was decided on under a leadership and is void under any other, even of the same member. A refusal is an error
// here: what was decided on no longer holds.
func (n *Node) proposeIn(ctx context.Context, s *session, cmd *logv1.Command) error {
	data, err := proto.Marshal(cmd)
	if err != nil {
		return &Error{Op: "propose", Kind: Invalid, Err: err}
	}
	outcome, err := n.commit(ctx, cmd, &proposal{data: data, term: s.term})
	if err != nil {
		return err
	}
	if refused := fsm.RefusalOf(outcome); refused != nil {
		return refused
	}
	return nil
}
