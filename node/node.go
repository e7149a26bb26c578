// Package node makes one member of the group out of raft, the state machine and the links to the other members.
//
// A Node takes commands (Propose), answers reads (Read, Local) and streams events (Watch), whether it leads or follows: a follower forwards to
// the leader. Commands that wait together are committed together in one log entry, which the leader stamps with cluster time. A linearizable read
// asks a majority of voters for their current term, after the batch of waiting reads was closed, and then waits for the state machine; raft's own
// VerifyLeader isn't used, because it credits answers to questions asked earlier. Reads get an immutable State and hold no lock.
//
// The leader has duties: to open its term, to keep the replicated member list equal to raft's configuration, to let cluster time go on while
// something waits for it, and to compare the members' digests. They start and stop with leadership, as raft's NotifyCh tells it.
//
// DESIGN.md, beside this file, says why things are as they are.
package node

import (
	"context"
	"time"

	"quorate/fsm"
	logv1 "quorate/proto/quorate/log/v1"
	quoratev1 "quorate/proto/quorate/v1"
)

// View is what a read is answered from.
type View struct {
	// State is immutable and may be kept.
	State *fsm.State
	// Member is the id of the member that answered.
	Member string
	// LeaderContactAge is 0 on the leader and otherwise the time since this member last heard from one.
	LeaderContactAge time.Duration
}

// Node is one running member.
type Node struct{}

// Open starts a member. It returns before a leader is known.
func Open(cfg Config) (*Node, error) { return nil, &Error{Op: "open", Kind: NotReady} }

func (n *Node) ID() string { return "" }

// Propose commits a command.
func (n *Node) Propose(ctx context.Context, cmd *logv1.Command) (*logv1.Outcome, error) {
	return nil, nil
}

// Read returns a view.
func (n *Node) Read(ctx context.Context, opts *quoratev1.ReadOptions) (View, error) {
	return View{}, nil
}
func (n *Node) Local() View { return View{} }

// Watch is a cursor.
type Watch struct{}

func (n *Node) Watch(from uint64) (*Watch, error) { return nil, nil }
func (w *Watch) Next(ctx context.Context) (events []*quoratev1.Event, revision uint64, err error) {
	return nil, 0, nil
}
func (w *Watch) Close()                                                           {}
func (n *Node) Changed() <-chan struct{}                                          { return nil }
func (n *Node) Members(ctx context.Context) ([]*quoratev1.Member, error)          { return nil, nil }
func (n *Node) TransferLeadership(ctx context.Context, to string) (string, error) { return "", nil }
func (n *Node) AddLearner(ctx context.Context, id, raftAddress string) error      { return nil }
func (n *Node) Promote(ctx context.Context, id string) error                      { return nil }
func (n *Node) Remove(ctx context.Context, id string) error                       { return nil }
func (n *Node) QuorumContact() time.Duration                                      { return 0 }
func (n *Node) IsLeader() bool                                                    { return false }
func (n *Node) Leader() string                                                    { return "" }
func (n *Node) Diverged() bool                                                    { return false }
func (n *Node) Ready() error                                                      { return nil }
func (n *Node) Fatal() <-chan error                                               { return nil }
func (n *Node) Shutdown(ctx context.Context) error                                { return nil }
