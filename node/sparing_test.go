package node

import (
	"errors"
	"testing"
	"time"

	"github.com/hashicorp/raft"
)

// countedPipeline counts what is sent, or fails.
type countedPipeline struct {
	raft.AppendPipeline
	sent int
	err  error
}

func (c *countedPipeline) AppendEntries(*raft.AppendEntriesRequest, *raft.AppendEntriesResponse) (raft.AppendFuture, error) {
	c.sent++
	return nil, c.err
}

// TestSparingLeavesOutWhatIsKnown: entries and a commit index that moved go out at once, what says nothing new once in an interval, and what failed is not taken for said.
func TestSparingLeavesOutWhatIsKnown(t *testing.T) {
	const every = 30 * time.Millisecond
	var now time.Duration
	inner := &countedPipeline{}
	s := &sparing{AppendPipeline: inner, every: every, elapsed: func() time.Duration { return now }}
	for i, step := range []struct {
		pass    time.Duration
		entries int
		commit  uint64
		err     error
		sent    bool
	}{
		{commit: 7, sent: true}, // The first says where the leader is.
		{pass: 5 * time.Millisecond, commit: 7},
		{pass: 5 * time.Millisecond, commit: 7, entries: 1, sent: true},
		{commit: 7, entries: 2, sent: true},
		{pass: time.Millisecond, commit: 8, sent: true},
		{pass: every - 1, commit: 8},
		{pass: 1, commit: 8, sent: true},
		{pass: time.Millisecond, commit: 9, sent: true, err: errors.New("broken")},
		{commit: 9, sent: true},
		{commit: 9},
		{pass: every, commit: 9, sent: true, err: errors.New("broken")},
		{commit: 9, sent: true},
	} {
		now += step.pass
		before := inner.sent
		inner.err = step.err
		_, err := s.AppendEntries(&raft.AppendEntriesRequest{LeaderCommitIndex: step.commit, Entries: make([]*raft.Log, step.entries)}, nil)
		if sent := inner.sent > before; sent != step.sent || !errors.Is(err, step.err) {
			t.Errorf("step %d: sent %v, %v, want %v, %v", i, sent, err, step.sent, step.err)
		}
	}
}
