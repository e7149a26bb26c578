package node

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/hashicorp/raft"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	"quorate/fsm"
	logv1 "quorate/proto/quorate/log/v1"
	peerv1 "quorate/proto/quorate/peer/v1"
	quoratev1 "quorate/proto/quorate/v1"
)

const (
	// catchUpLag is how many entries a learner may be behind the leader to be promoted: a voter that is far behind makes the group less available.
	catchUpLag = 1000
	// changeTimeout bounds a change of raft's configuration.
	changeTimeout = 5 * time.Second
)

// Members returns every member of the group, in the configuration's order, with what it says of itself. One that doesn't answer within a second is
// shown as not reachable, with what is recorded of it.
func (n *Node) Members(ctx context.Context) ([]*quoratev1.Member, error) {
	select {
	case <-n.stopping:
		return nil, &Error{Op: "members", Kind: Shutdown}
	default:
	}
	return n.askAll(ctx), nil
}

func (n *Node) askAll(ctx context.Context) []*quoratev1.Member {
	servers := n.raft.GetConfiguration().Configuration().Servers
	members := make([]*quoratev1.Member, len(servers))
	var wg sync.WaitGroup
	for i, s := range servers {
		wg.Go(func() { members[i] = n.describe(ctx, s) })
	}
	wg.Wait()
	return members
}

// describe returns what is known of a member: what it says itself, over what is recorded.
func (n *Node) describe(ctx context.Context, s raft.Server) *quoratev1.Member {
	state := n.machine.latest.Load().state
	m := &quoratev1.Member{}
	if string(s.ID) == n.cfg.ID {
		m = n.self()
	} else if peer, err := n.peer(string(s.ID), string(s.Address)); err == nil {
		ctx, cancel := context.WithTimeout(ctx, statusTimeout)
		defer cancel()
		if resp, err := peer.Status(ctx, &peerv1.StatusRequest{}); err == nil && resp.GetMember().GetId() == string(s.ID) {
			m = resp.GetMember()
			m.Reachable = true
		}
	}
	m.Id, m.RaftAddress = string(s.ID), string(s.Address)
	m.Suffrage = quoratev1.Suffrage_SUFFRAGE_LEARNER
	if s.Suffrage == raft.Voter {
		m.Suffrage = quoratev1.Suffrage_SUFFRAGE_VOTER
	}
	if r, ok := state.Member(m.Id); ok {
		m.GrpcAddress, m.HttpAddress, m.OpcuaUrl, m.AdoptedGeneration = r.GetGrpcAddress(), r.GetHttpAddress(), r.GetOpcuaUrl(), r.GetAdoptedGeneration()
		m.CommandVersion = r.GetCommandVersion()
		if !m.Reachable {
			m.Version = r.GetVersion()
		}
	}
	if set, server, ok := state.Server(m.Id); ok {
		m.Set, m.Role = set.GetId(), server.GetRole()
	}
	return m
}

// peer returns a client for another member. When there are too many of them, those of members that left are forgotten first.
func (n *Node) peer(id, address string) (peerv1.PeerServiceClient, error) {
	p, err := n.cfg.Transport.Peer(id, address)
	if err == nil {
		return p, nil
	}
	n.retainPeers()
	return n.cfg.Transport.Peer(id, address)
}

func (n *Node) retainPeers() {
	var ids []string
	for _, s := range n.raft.GetConfiguration().Configuration().Servers {
		ids = append(ids, string(s.ID))
	}
	n.cfg.Transport.Retain(ids)
}

// self returns what this member says of itself.
func (n *Node) self() *quoratev1.Member {
	m := &quoratev1.Member{}
	if n.cfg.SelfStatus != nil {
		if above := n.cfg.SelfStatus(); above != nil {
			m = proto.CloneOf(above)
		}
	}
	m.Id, m.Reachable = n.cfg.ID, true
	m.Version = n.cfg.Announce.GetVersion()
	m.Leader = n.IsLeader()
	m.Term = n.raft.CurrentTerm()
	m.AppliedRevision = n.machine.latest.Load().state.Revision()
	m.CommitRevision = n.raft.CommitIndex()
	m.LeaderContactAge = durationpb.New(n.QuorumContact())
	m.Digest, m.DigestRevision = n.machine.marks.latest()
	m.Diverged = n.Diverged()
	return m
}

// TransferLeadership hands the leadership to a voter, or to the one that is furthest if to is empty, and returns the leader afterwards. It tries several
// times (handOverAttempts) before the error is of kind NotReady: nothing has changed then.
func (n *Node) TransferLeadership(ctx context.Context, to string) (leader string, err error) {
	return n.change(ctx, &peerv1.ChangeMembershipRequest{Change: &peerv1.ChangeMembershipRequest_TransferTo{TransferTo: to}})
}

// AddLearner adds a member without a vote; it must run already, and not have been bootstrapped. For a learner that is there already it changes the address.
func (n *Node) AddLearner(ctx context.Context, id, raftAddress string) error {
	learner := &peerv1.Learner{Id: id, RaftAddress: raftAddress}
	_, err := n.change(ctx, &peerv1.ChangeMembershipRequest{Change: &peerv1.ChangeMembershipRequest_AddLearner{AddLearner: learner}})
	return err
}

// Promote gives a learner a vote once it has caught up; before that the error is of kind NotReady.
func (n *Node) Promote(ctx context.Context, id string) error {
	_, err := n.change(ctx, &peerv1.ChangeMembershipRequest{Change: &peerv1.ChangeMembershipRequest_Promote{Promote: id}})
	return err
}

// Remove takes a member out of the group. The error is a *fsm.Refusal if there is none of that id (UNKNOWN_MEMBER) or if it runs a server of the
// current topology (MEMBER_IN_TOPOLOGY). A leader hands over before it is removed.
func (n *Node) Remove(ctx context.Context, id string) error {
	_, err := n.change(ctx, &peerv1.ChangeMembershipRequest{Change: &peerv1.ChangeMembershipRequest_Remove{Remove: id}})
	return err
}

// change has the leader change the configuration.
func (n *Node) change(ctx context.Context, req *peerv1.ChangeMembershipRequest) (leader string, err error) {
	const op = "change membership"
	ctx, cancel := context.WithTimeout(ctx, n.cfg.Limits.Propose)
	defer cancel()
	err = n.untilLed(ctx, op, func() error {
		if n.session.Load() != nil {
			leader, err = n.changeHere(ctx, req)
			return err
		}
		peer, err := n.leaderPeer(op)
		if err != nil {
			return err
		}
		resp, err := peer.ChangeMembership(ctx, req)
		if err != nil {
			return fromPeer(ctx, op, err)
		}
		leader = resp.GetLeader()
		return nil
	})
	return leader, err
}

// refuseChange says what is wrong with a change. The leader judges: others may not have heard of the last change yet.
func (n *Node) refuseChange(req *peerv1.ChangeMembershipRequest) error {
	const op = "change membership"
	if l := req.GetAddLearner(); l != nil {
		if l.Id == "" || l.RaftAddress == "" {
			return &Error{Op: op, Kind: Invalid, Err: errors.New("id and raft address must be given")}
		}
		if s, ok := n.server(l.Id); ok && s.Suffrage == raft.Voter {
			return &Error{Op: op, Kind: Invalid, Err: fmt.Errorf("%s is a voter already", l.Id)}
		}
		return nil
	}
	id := req.GetPromote() + req.GetRemove() + req.GetTransferTo()
	_, transfer := req.GetChange().(*peerv1.ChangeMembershipRequest_TransferTo)
	if transfer && id == "" {
		return nil
	}
	if _, ok := n.server(id); !ok {
		return refusal(logv1.Kind_KIND_NOT_FOUND, fsm.ReasonUnknownMember, "id", fmt.Sprintf("there is no member %q", id), nil)
	}
	if req.GetRemove() != "" {
		if set, _, ok := n.machine.latest.Load().state.Server(id); ok {
			return refusal(logv1.Kind_KIND_PRECONDITION, fsm.ReasonMemberInTopology, "id",
				fmt.Sprintf("%s runs a server of set %s: publish a topology without it first", id, set.GetId()), map[string]string{"set": set.GetId()})
		}
	}
	return nil
}

func refusal(kind logv1.Kind, reason, field, message string, details map[string]string) error {
	return &fsm.Refusal{Refusal: &logv1.Refusal{Kind: kind, Reason: reason, Field: field, Message: message, Details: details}}
}

// changeHere changes the configuration on this member, which must lead.
func (n *Node) changeHere(ctx context.Context, req *peerv1.ChangeMembershipRequest) (string, error) {
	const op = "change membership"
	if err := n.refuseChange(req); err != nil {
		return "", err
	}
	if _, ok := req.GetChange().(*peerv1.ChangeMembershipRequest_TransferTo); ok {
		return n.transfer(ctx, req.GetTransferTo())
	}
	var future raft.IndexFuture
	switch {
	case req.GetAddLearner() != nil:
		l := req.GetAddLearner()
		future = n.raft.AddNonvoter(raft.ServerID(l.Id), raft.ServerAddress(l.RaftAddress), 0, changeTimeout)
	case req.GetPromote() != "":
		s, _ := n.server(req.GetPromote())
		if s.Suffrage == raft.Voter {
			return n.cfg.ID, nil
		}
		if err := n.caughtUp(ctx, s); err != nil {
			return "", err
		}
		future = n.raft.AddVoter(s.ID, s.Address, 0, changeTimeout)
	case req.GetRemove() == n.cfg.ID:
		if n.otherVoters() == 0 {
			return "", &Error{Op: op, Kind: Invalid, Err: errors.New("the last voter can't be removed")}
		}
		if _, err := n.transfer(ctx, ""); err != nil {
			return "", err
		}
		// The next leader is to remove this member: the caller tries again, and finds it.
		return "", &Error{Op: op, Kind: NotLeader}
	case req.GetRemove() != "":
		future = n.raft.RemoveServer(raft.ServerID(req.GetRemove()), 0, changeTimeout)
	default:
		return "", &Error{Op: op, Kind: Invalid, Err: errors.New("no change given")}
	}
	if err := n.settleChange(ctx, future); err != nil {
		return "", err
	}
	return n.cfg.ID, nil
}

// settleChange waits for a configuration entry.
func (n *Node) settleChange(ctx context.Context, future raft.IndexFuture) error {
	const op = "change membership"
	select {
	case err := <-n.outcome(func() raft.Future { return future }):
		switch {
		case err == nil:
			return nil
		case errors.Is(err, raft.ErrNotLeader), errors.Is(err, raft.ErrLeadershipTransferInProgress), errors.Is(err, raft.ErrEnqueueTimeout):
			return &Error{Op: op, Kind: NotLeader, Err: err}
		case errors.Is(err, raft.ErrLeadershipLost), errors.Is(err, raft.ErrRaftShutdown):
			return &Error{Op: op, Kind: UnknownOutcome, Err: err}
		}
		return &Error{Op: op, Kind: Invalid, Err: err}
	case <-ctx.Done():
		return &Error{Op: op, Kind: UnknownOutcome, Err: ctx.Err()}
	}
}

// caughtUp asks a learner how far it is.
func (n *Node) caughtUp(ctx context.Context, s raft.Server) error {
	m := n.describe(ctx, s)
	if !m.Reachable {
		return &Error{Op: "promote", Kind: NotReady, Err: fmt.Errorf("%s doesn't answer", s.ID)}
	}
	if behind := int64(n.raft.CommitIndex()) - int64(m.CommitRevision); behind > catchUpLag {
		return &Error{Op: "promote", Kind: NotReady, Err: fmt.Errorf("%s is %d entries behind", s.ID, behind)}
	}
	return nil
}

// transfer hands over and waits until another leader is known here.
func (n *Node) transfer(ctx context.Context, to string) (string, error) {
	if to == n.cfg.ID {
		return to, nil
	}
	if to == "" && n.otherVoters() == 0 {
		return "", &Error{Op: "transfer leadership", Kind: NotVoter, Err: errors.New("there is no other voter")}
	}
	term := n.raft.CurrentTerm()
	if err := n.handOver(ctx, to); err != nil {
		return "", err
	}
	for {
		changed := n.led.wait()
		if n.raft.State() == raft.Leader && n.raft.CurrentTerm() > term {
			// The other one got too few votes, and this member was elected again: the caller tries again.
			return "", &Error{Op: "transfer leadership", Kind: NotLeader, Err: errors.New("it came back")}
		}
		if leader := n.Leader(); leader != "" && leader != n.cfg.ID {
			return leader, nil
		}
		select {
		case <-changed:
		case <-time.After(retryPause):
		case <-ctx.Done():
			return "", &Error{Op: "transfer leadership", Kind: UnknownOutcome, Err: ctx.Err()}
		}
	}
}
