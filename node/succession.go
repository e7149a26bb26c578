package node

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/hashicorp/raft"
)

// successionStep is the head start of one voter over the next when a leader's process ended: time for a whole election, so that they don't split the votes.
const successionStep = 60 * time.Millisecond

// runSuccession watches the leader's process. Raft finds a lost leader by silence, which has to be long enough for slow links and busy machines; a
// process that ended is known at once, because its system closes what it had open and refuses what comes. Then the first of the remaining voters
// stands for election with raft's own message for a hand-over, TimeoutNow; that is as safe as any election, and nobody waits out the silence.
func (n *Node) runSuccession() {
	for {
		changed := n.led.wait()
		address, leader := n.raft.LeaderWithID()
		if leader == "" || string(leader) == n.cfg.ID || n.rank(leader) < 0 {
			select {
			case <-changed:
			case <-time.After(tickInterval):
			case <-n.stopped:
				return
			}
			continue
		}
		ctx, cancel := context.WithCancel(n.ctx)
		end := context.AfterFunc(n.ctx, cancel)
		done := make(chan error, 1)
		n.background.Go(func() { done <- n.cfg.Transport.Gone(ctx, string(leader), string(address)) })
		n.await(done, leader)
		end()
		cancel()
	}
}

// await waits until the leader is gone, and then succeeds it, or until there is another one.
func (n *Node) await(done <-chan error, leader raft.ServerID) {
	for {
		changed := n.led.wait()
		if _, now := n.raft.LeaderWithID(); now != leader {
			return
		}
		select {
		case err := <-done:
			if err == nil {
				n.succeed(leader)
			}
			return
		case <-changed:
		case <-time.After(tickInterval):
			// An observation may have been lost.
		case <-n.stopped:
			return
		}
	}
}

// rank returns this member's place among the voters that remain without the leader, -1 if it has no vote.
func (n *Node) rank(leader raft.ServerID) int {
	voters := slices.DeleteFunc(n.voters(), func(id raft.ServerID) bool { return id == leader })
	slices.Sort(voters)
	return slices.Index(voters, raft.ServerID(n.cfg.ID))
}

// succeed stands for election in the place of a leader whose process ended, unless somebody before this member in rank did it first.
func (n *Node) succeed(leader raft.ServerID) {
	contact := n.raft.LastContact()
	n.logger.Info("the leader's process ended", "leader", leader, "rank", n.rank(leader))
	if rank := n.rank(leader); rank > 0 && !n.pause(n.ctx, time.Duration(rank)*successionStep) {
		return
	}
	if _, now := n.raft.LeaderWithID(); now != leader && now != "" {
		return
	}
	// Contact after the loss was noticed is that with a new leader, or a vote for one: let it win.
	if last := n.raft.LastContact(); last.Sub(contact) > 0 || n.raft.State() != raft.Follower {
		return
	}
	if err := n.stand(); err != nil {
		n.logger.Info("no election", "error", err)
	}
}

// stand sends raft the message that makes it stand for election at once.
func (n *Node) stand() error {
	answer := make(chan raft.RPCResponse, 1)
	header := raft.RPCHeader{ProtocolVersion: raft.ProtocolVersionMax, ID: []byte(n.cfg.ID), Addr: []byte(n.cfg.Transport.LocalAddr())}
	limit := time.NewTimer(n.cfg.Timing.Election)
	defer limit.Stop()
	select {
	case n.requests <- raft.RPC{Command: &raft.TimeoutNowRequest{RPCHeader: header}, RespChan: answer}:
	case <-limit.C:
		return errors.New("raft is busy")
	case <-n.stopped:
		return nil
	}
	select {
	case a := <-answer:
		return a.Error
	case <-limit.C:
		return errors.New("raft doesn't answer")
	case <-n.stopped:
		return nil
	}
}
