package node

import (
	"context"
	"syscall"
	"time"
)

const (
	// spaceInterval is how often the free space is looked at.
	spaceInterval = time.Second
	// spaceHandOver is the least time between two hand-overs for want of space: when no voter has any, the leadership must not go round and round.
	spaceHandOver = time.Minute
)

// freeBytes returns what is free for this process on a directory's file system.
func freeBytes(dir string) (uint64, error) {
	var s syscall.Statfs_t
	if err := syscall.Statfs(dir, &s); err != nil {
		return 0, err
	}
	return s.Bavail * uint64(s.Bsize), nil
}

// runSpaceGuard hands the leadership over while the log can still be written. A full disk is found by the store, which stops the process; by then a
// leader would have kept winning elections that it can't use.
func (n *Node) runSpaceGuard() {
	free := n.cfg.FreeSpace
	if free == nil {
		return
	}
	every := time.NewTicker(spaceInterval)
	defer every.Stop()
	var last time.Time
	for {
		select {
		case <-every.C:
		case <-n.stopped:
			return
		}
		bytes, err := free()
		if err != nil {
			n.logger.Warn("free space unknown", "error", err)
			continue
		}
		tight := bytes < n.cfg.Limits.FreeBytes
		if n.tight.Swap(tight) != tight {
			n.logger.Warn("free space in the data directory", "bytes", bytes, "tight", tight)
		}
		if !tight || n.session.Load() == nil || n.otherVoters() == 0 || (!last.IsZero() && time.Since(last) < spaceHandOver) {
			continue
		}
		last = time.Now()
		ctx, cancel := context.WithTimeout(n.ctx, dutyTimeout)
		if err := n.handOver(ctx, ""); err != nil {
			n.logger.Warn("little space and no hand-over", "error", err)
		}
		cancel()
	}
}
