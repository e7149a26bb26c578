package node

import (
	"time"

	"github.com/hashicorp/raft"
)

// sparing leaves out what the other member was told just now. Raft sends an AppendEntries without entries whenever Timing.Commit has passed, so that the commit index is known
// soon after it has moved; where it has not, a leader with nothing to do would spend most of its time on these. Once in each heartbeat's interval one is sent all the same: by its
// answer a leader learns that there is another, which raft's heartbeats don't look at.
type sparing struct {
	raft.AppendPipeline
	every   time.Duration
	elapsed func() time.Duration

	told   bool
	commit uint64
	at     time.Duration
}

// AppendEntries implements raft.AppendPipeline. Raft calls it from one goroutine, takes the answers from Consumer, and doesn't look at the future, which is nil for what was left out.
func (s *sparing) AppendEntries(args *raft.AppendEntriesRequest, resp *raft.AppendEntriesResponse) (raft.AppendFuture, error) {
	now := s.elapsed()
	if s.told && len(args.Entries) == 0 && args.LeaderCommitIndex == s.commit && now-s.at < s.every {
		return nil, nil
	}
	future, err := s.AppendPipeline.AppendEntries(args, resp)
	if err == nil {
		s.told, s.commit, s.at = true, args.LeaderCommitIndex, now
	}
	return future, err
}
