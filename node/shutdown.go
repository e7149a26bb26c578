package node

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/hashicorp/raft"
)

// Shutdown hands the leadership over, lets what is in flight end, and stops. Ctx bounds the hand-over only: when it has ended already there is none.
// It may be called several times; all calls return when the member has stopped. A store that hangs makes it hang: a process sets itself a limit.
func (n *Node) Shutdown(ctx context.Context) error {
	n.stopOnce.Do(func() {
		if ctx.Err() == nil && n.raft.State() == raft.Leader && n.otherVoters() > 0 {
			if err := n.handOver(ctx, ""); err != nil {
				n.logger.Warn("stopping without handing over", "error", err)
			}
		}
		close(n.stopping)
		n.led.wake()
		n.drain()
		n.cancel()
		close(n.stopped)
		err := n.raft.Shutdown().Error()
		if !waitFor(&n.background, n.cfg.Timing.RPC) {
			err = errors.Join(err, errors.New("something still waits for raft, which never answers"))
		}
		n.stopErr = errors.Join(err, n.cfg.Transport.Close(), n.closeStorage())
		close(n.done)
	})
	<-n.done
	return n.stopErr
}

// drain waits until no entry is in flight and no other future is open, and lets no more entries be. A leader that reaches nobody loses its leadership
// after the lease, and with it every entry; a future that is still open when raft stops would never end.
func (n *Node) drain() {
	limit := 4*n.cfg.Timing.LeaderLease + n.cfg.Timing.RPC
	if n.hold(context.Background(), limit) < cap(n.proposer.slots) || !waitFor(&n.futures, limit) {
		n.logger.Warn("stopping with entries in flight")
	}
}

// waitFor waits for a group and says whether it ended in time.
func waitFor(group *sync.WaitGroup, limit time.Duration) bool {
	done := make(chan struct{})
	go func() {
		group.Wait()
		close(done)
	}()
	timer := time.NewTimer(limit)
	defer timer.Stop()
	select {
	case <-done:
		return true
	case <-timer.C:
		return false
	}
}

func (n *Node) closeStorage() error {
	if n.log != nil {
		n.log.close()
	}
	if n.storage == nil || n.storage.Close == nil {
		return nil
	}
	return n.storage.Close()
}
