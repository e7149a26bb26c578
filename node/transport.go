package node

import (
	"context"
	"crypto/tls"
	"errors"
	"slices"
	"time"

	"github.com/hashicorp/raft"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"quorate/fsm"
	logv1 "quorate/proto/quorate/log/v1"
	peerv1 "quorate/proto/quorate/peer/v1"
)

// Transport carries raft's traffic and the members' questions to each other.
type Transport interface {
	raft.Transport
	raft.WithPreVote
	raft.WithClose
	// Start begins to answer the other members' questions with peers. Open calls it once, before it uses anything else of the transport
	// but LocalAddr.
	Start(peers peerv1.PeerServiceServer, timing Timing) error
	// Peer returns a client for the member with that id at that raft address. It doesn't wait for a connection. Its errors are gRPC
	// statuses; a request that certainly never left this member fails with one made by NotSent.
	Peer(id, address string) (peerv1.PeerServiceClient, error)
	// Retain forgets every member that isn't named.
	Retain(ids []string)
	// Gone returns nil as soon as the process of that member is certain to have ended: it closed what it had open and nobody listens in its place.
	// It goes on waiting where that can't be told, as of a machine that just fell silent, and returns an error when ctx ends.
	Gone(ctx context.Context, id, address string) error
}

// Credentials is what the raft port needs to know of certificates; *pki.Credentials is one.
type Credentials interface {
	// MemberServerTLS accepts only clients that prove to be a member.
	MemberServerTLS() *tls.Config
	// MemberClientTLS accepts only a server that proves to be the expected member.
	MemberClientTLS(expectMember string) *tls.Config
}

// Errors cross from member to member as an ErrorInfo with this domain and the kind's name as reason, so that the asking member knows whether
// the command may still take effect.
const (
	peerErrorDomain = "peer.quorate"
	reasonNotSent   = "not sent"
)

func peerStatus(code codes.Code, reason, message string) error {
	st := status.New(code, message)
	if with, err := st.WithDetails(&errdetails.ErrorInfo{Domain: peerErrorDomain, Reason: reason}); err == nil {
		st = with
	}
	return st.Err()
}

// NotSent returns the error of a request that certainly never left this member.
func NotSent(err error) error { return peerStatus(codes.Unavailable, reasonNotSent, err.Error()) }

// toPeer turns an error of this member into what it answers to another.
func toPeer(err error) error {
	if err == nil {
		return nil
	}
	var refused *fsm.Refusal
	if errors.As(err, &refused) {
		// A change of members can be refused like a command, and the refusal has to arrive whole.
		st := status.New(codes.FailedPrecondition, refused.Error())
		if with, err := st.WithDetails(refused.Refusal); err == nil {
			st = with
		}
		return st.Err()
	}
	var e *Error
	if !errors.As(err, &e) {
		return status.FromContextError(err).Err()
	}
	code := codes.Unavailable
	switch e.Kind {
	case Overloaded:
		code = codes.ResourceExhausted
	case Invalid, NotVoter, NotReady:
		code = codes.FailedPrecondition
	}
	message := ""
	if e.Err != nil {
		message = e.Err.Error()
	}
	return peerStatus(code, e.Kind.String(), message)
}

// fromPeer is the inverse of toPeer. What another member didn't say itself, such as a broken connection, has an unknown outcome.
func fromPeer(ctx context.Context, op string, err error) error {
	if err == nil {
		return nil
	}
	st := status.Convert(err)
	for _, d := range st.Details() {
		if refused, ok := d.(*logv1.Refusal); ok {
			return &fsm.Refusal{Refusal: refused}
		}
		info, ok := d.(*errdetails.ErrorInfo)
		if !ok || info.Domain != peerErrorDomain {
			continue
		}
		if info.Reason == reasonNotSent {
			return &Error{Op: op, Kind: NoLeader, Err: errors.New(st.Message())}
		}
		var cause error
		if st.Message() != "" {
			cause = errors.New(st.Message())
		}
		for kind, name := range kindNames {
			if name != info.Reason {
				continue
			}
			if kind == Shutdown || kind == Diverged {
				// It is the leader that stops or has diverged, not this member: there will be another leader.
				kind = NotLeader
			}
			return &Error{Op: op, Kind: kind, Err: cause}
		}
	}
	if ctx.Err() != nil {
		err = ctx.Err()
	}
	return &Error{Op: op, Kind: UnknownOutcome, Err: err}
}

// patient is the transport as raft sees it. Raft's replication backs off for up to ten seconds, counted in failures that only a success
// clears, so that a member which comes back after a minute waits seconds for its first entry although heartbeats reach it at once. Patient
// holds each failed AppendEntries back until a heartbeat got through or leadership ended: failures then don't add up while a member is away.
type patient struct {
	Transport
	// requests are the transport's, and those of this member to its own raft.
	requests chan raft.RPC
	// leads says whether this member still leads in a term, with that member in the group.
	leads func(term uint64, id raft.ServerID) bool
	// handing says whether a hand-over may have raft wait for the replication to a member, which then must not wait here for long.
	handing func(id raft.ServerID) bool
	// voters are the members that have a vote, as far as this one knows.
	voters func() []raft.ServerID
	// log has what this member sends before it has written it, and stopped ends every wait for that.
	log     *early
	stopped <-chan struct{}
	*hearts
}

// Consumer implements raft.Transport.
func (p *patient) Consumer() <-chan raft.RPC { return p.requests }

// forward hands the transport's requests to raft until the member stops. Raft acknowledges an entry of a new leader at once if it has it already: so what
// this member took when it led must be written before.
func (p *patient) forward() {
	for {
		select {
		case rpc := <-p.Transport.Consumer():
			// The sender may use what it sent for others too, so that it isn't changed here.
			switch c := rpc.Command.(type) {
			case *raft.AppendEntriesRequest:
				if !p.log.hasAll(c, p.stopped) {
					return
				}
			case *raft.RequestVoteRequest:
				vote := *c
				vote.ID = p.asVoter(vote.ID)
				rpc.Command = &vote
			case *raft.RequestPreVoteRequest:
				vote := *c
				vote.ID = p.asVoter(vote.ID)
				rpc.Command = &vote
			}
			select {
			case p.requests <- rpc:
			case <-p.stopped:
				return
			}
		case <-p.stopped:
			return
		}
	}
}

// asVoter returns the id under which raft looks at a candidate's request: its own, or where this member knows of no vote of the candidate, that of one who has a vote. Raft would refuse, and
// that makes a group stand still which could go on: a member that was given a vote while this one was away may be the only one that has all that was committed. A vote is to be
// given without regard to the configuration (Raft thesis §4.1), which is safe since the candidate needs the votes of its own, and a log as long. Raft has no setting for
// it, and uses the id for this alone: it records the vote under the candidate's address.
func (p *patient) asVoter(candidate []byte) []byte {
	voters := p.voters()
	if len(voters) == 0 || slices.Contains(voters, raft.ServerID(candidate)) {
		return candidate
	}
	return []byte(voters[0])
}

// AppendEntriesPipeline implements raft.Transport.
func (p *patient) AppendEntriesPipeline(id raft.ServerID, target raft.ServerAddress) (raft.AppendPipeline, error) {
	pipeline, err := p.Transport.AppendEntriesPipeline(id, target)
	if err != nil {
		return nil, err
	}
	return holdAnswers(pipeline, p.log), nil
}

const (
	// patiencePoll is how often patient looks whether waiting still makes sense.
	patiencePoll = 20 * time.Millisecond
	// handingPause is how long it waits where a hand-over does. Raft pauses after each failure, twice as long as after the one before and up to 10 s, in which a member that is
	// back gets nothing: so there should be few.
	handingPause = 100 * time.Millisecond
)

// AppendEntries implements raft.Transport.
func (p *patient) AppendEntries(id raft.ServerID, target raft.ServerAddress, args *raft.AppendEntriesRequest, resp *raft.AppendEntriesResponse) error {
	before := p.beats(id)
	err := p.Transport.AppendEntries(id, target, args, resp)
	if isHeartbeat(args) {
		if err == nil {
			p.beat(id)
		}
		return err
	}
	if err == nil {
		if !p.log.hasAll(args, p.stopped) {
			return errors.New("this member stops, and did not write what it sent")
		}
		return nil
	}
	for waited := time.Duration(0); p.beats(id) == before && p.leads(args.Term, id) && (waited < handingPause || !p.handing(id)); waited += patiencePoll {
		time.Sleep(patiencePoll)
	}
	return err
}

// isHeartbeat recognises raft's heartbeats the way that its own transport does.
func isHeartbeat(a *raft.AppendEntriesRequest) bool {
	return a.PrevLogEntry == 0 && a.PrevLogTerm == 0 && len(a.Entries) == 0 && a.LeaderCommitIndex == 0
}
