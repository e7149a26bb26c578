package node

import (
	"sync"
	"time"

	"github.com/hashicorp/raft"
)

// hearts knows the heartbeats that each member answered.
type hearts struct {
	// elapsed is the member's clock.
	elapsed func() time.Duration

	mu     sync.Mutex
	counts map[raft.ServerID]uint64
	last   map[raft.ServerID]time.Duration
}

func (h *hearts) beats(id raft.ServerID) uint64 {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.counts[id]
}

func (h *hearts) beat(id raft.ServerID) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.counts == nil {
		h.counts, h.last = map[raft.ServerID]uint64{}, map[raft.ServerID]time.Duration{}
	}
	h.counts[id]++
	h.last[id] = h.elapsed()
}

// heard says whether a member answered within this time.
func (h *hearts) heard(id raft.ServerID, within time.Duration) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	last, ever := h.last[id]
	return ever && h.elapsed()-last <= within
}
