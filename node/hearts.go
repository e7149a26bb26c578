package node

import (
	"sync"

	"github.com/hashicorp/raft"
)

// hearts counts the heartbeats that each member answered.
type hearts struct {
	mu     sync.Mutex
	counts map[raft.ServerID]uint64
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
		h.counts = map[raft.ServerID]uint64{}
	}
	h.counts[id]++
}
