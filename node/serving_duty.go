package node

import (
	"errors"
	"maps"
	"time"

	"quorate/fsm"
	logv1 "quorate/proto/quorate/log/v1"
	quoratev1 "quorate/proto/quorate/v1"
)

const (
	// servingDuty is how often the leader looks whether a set has lost its Primary.
	servingDuty = 500 * time.Millisecond
	// failoverRetry is the least time between two tries to swap the roles of a set.
	failoverRetry = 5 * time.Second
)

// keepServing commits the moves of the right that questions cause, and does what no server asks for, until the leadership ends: automatic failover, and
// clearing away rights of servers that left the topology.
func (n *Node) keepServing(s *session) {
	every := time.NewTicker(servingDuty)
	defer every.Stop()
	tried := map[string]time.Duration{}
	for {
		select {
		case m := <-s.servings.begun:
			n.background.Go(func() { n.moveServing(s, m) })
			continue
		case <-every.C:
		case <-s.ctx.Done():
			return
		}
		state, now := n.machine.latest.Load().state, n.cfg.Clock.Elapsed()
		for _, set := range state.CurrentGeneration().GetTopology().GetSets() {
			if at, ok := tried[set.GetId()]; ok && now-at < failoverRetry {
				continue
			}
			if to := s.servings.failover(state, set, now); to != "" {
				tried[set.GetId()] = now
				n.background.Go(func() { n.swapRoles(s, state, set, to) })
			}
		}
		if m := s.servings.clearAway(state, now); m != nil {
			n.background.Go(func() { n.moveServing(s, m) })
		}
		s.servings.prune(state, now)
	}
}

// swapRoles publishes the swap that the set's policy authorised. Whoever published meanwhile goes first.
func (n *Node) swapRoles(s *session, state *fsm.State, set *quoratev1.RedundantSet, to string) {
	err := n.proposeIn(s.ctx, s, &logv1.Command{Body: &logv1.Command_SwapRoles{SwapRoles: &logv1.SwapRoles{
		Set: set.GetId(), ExpectedGeneration: state.CurrentGeneration().GetNumber(), To: to, Why: fsm.SwapFailover,
	}}})
	if err != nil {
		n.logger.Warn("automatic failover failed", "set", set.GetId(), "to", to, "error", err)
		return
	}
	n.logger.Warn("automatic failover: most voters can't reach the Primary", "set", set.GetId(), "from", primaryOf(set), "to", to)
}

// failover returns the Backup that has to become the Primary of a set, empty if none. A Primary that has just come back to the group is given the time
// for everybody to see it: voters probe one that was lost more and more rarely.
func (b *servings) failover(state *fsm.State, set *quoratev1.RedundantSet, now time.Duration) string {
	policies := fsm.PoliciesOf(set)
	primary := primaryOf(set)
	if !policies.Automatic || primary == "" {
		return ""
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if p, ok := b.said[primary]; ok && now-p.at <= servingFresh && now-p.since < servingReturn || !b.unreachable(state, primary, policies.FailoverAfter, now) {
		return ""
	}
	for _, server := range set.GetServers() {
		s, ok := b.said[server.GetMember()]
		if server.GetRole() == fsm.RoleBackup && ok && s.fit && now-s.at <= servingFresh {
			return server.GetMember()
		}
	}
	return ""
}

// clearAway returns a move that drops the right of a server which is in no set any more and can't be using it; nil if there is none.
func (b *servings) clearAway(state *fsm.State, now time.Duration) *move {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, right := range state.AllServing() {
		if _, _, ok := state.Server(right.GetServer()); ok || b.moves[right.GetServer()] != nil || b.left(right.GetServer(), now) > 0 {
			continue
		}
		m := &move{server: right.GetServer(), barred: []string{right.GetServer()}, done: make(chan struct{}), command: &logv1.Command{
			Body: &logv1.Command_ReleaseServing{ReleaseServing: &logv1.ReleaseServing{Server: right.GetServer(), Generation: right.GetGeneration()}},
		}}
		b.begin(m)
		return m
	}
	return nil
}

// prune forgets members that have left the group, so that those who come and go don't add up under a leader that stays. A lease is remembered until it has run out.
func (b *servings) prune(state *fsm.State, now time.Duration) {
	b.mu.Lock()
	defer b.mu.Unlock()
	gone := func(member string) bool {
		_, ok := state.Member(member)
		return !ok
	}
	maps.DeleteFunc(b.said, func(member string, _ said) bool { return gone(member) })
	maps.DeleteFunc(b.grants, func(member string, g granted) bool { return gone(member) && g.end+servingDrift <= now })
}

// isUnknown says whether the fate of a command is open.
func isUnknown(err error) bool {
	var e *Error
	return errors.As(err, &e) && e.Kind == UnknownOutcome
}
