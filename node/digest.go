package node

import (
	"context"
	"encoding/hex"
	"fmt"
	"sync"
	"time"

	"quorate/fsm"
	logv1 "quorate/proto/quorate/log/v1"
	peerv1 "quorate/proto/quorate/peer/v1"
	quoratev1 "quorate/proto/quorate/v1"
)

const (
	// digestWait is how long after a mark the leader asks the members for their digests: time to apply it and to compute.
	digestWait = time.Second
	// statusTimeout bounds one member's answer about itself.
	statusTimeout = time.Second
)

// digestMarks holds this member's latest digest. Marks come from the goroutine that applies entries; the digest is computed aside, from an
// immutable state, so that it holds up no entry. Only the newest waiting mark is computed.
type digestMarks struct {
	mu       sync.Mutex
	waiting  *fsm.State
	wake     chan struct{}
	digest   string
	revision uint64
	// sum is fsm's digest; tests make one that differs.
	sum func(*fsm.State) [32]byte
}

func newDigestMarks() *digestMarks {
	return &digestMarks{wake: make(chan struct{}, 1), sum: (*fsm.State).Digest}
}

func (d *digestMarks) take(state *fsm.State) {
	d.mu.Lock()
	d.waiting = state
	d.mu.Unlock()
	select {
	case d.wake <- struct{}{}:
	default:
	}
}

// compute takes the digest of the newest mark.
func (d *digestMarks) compute() {
	d.mu.Lock()
	state := d.waiting
	d.waiting = nil
	of := d.sum
	d.mu.Unlock()
	if state == nil {
		return
	}
	sum := of(state)
	d.mu.Lock()
	defer d.mu.Unlock()
	d.digest, d.revision = hex.EncodeToString(sum[:]), state.Revision()
}

// latest returns the newest digest and the revision that it is of, 0 before the first.
func (d *digestMarks) latest() (string, uint64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.digest, d.revision
}

func (n *Node) runDigests() {
	for {
		select {
		case <-n.machine.marks.wake:
			n.machine.marks.compute()
		case <-n.stopped:
			return
		}
	}
}

// compareDigests has every member take its digest at one entry and tells those that differ from a majority. It does nothing when the state has not
// changed since the last time.
func (n *Node) compareDigests(ctx context.Context) {
	if _, at := n.machine.marks.latest(); at != 0 && at == n.machine.latest.Load().state.Revision() {
		return
	}
	if !n.own(ctx, &logv1.Command{Body: &logv1.Command_MarkDigest{MarkDigest: &logv1.MarkDigest{}}}) {
		return
	}
	// Asked aside: the other duties go on meanwhile.
	n.background.Go(func() {
		if !n.pause(ctx, digestWait) {
			return
		}
		members := n.askAll(ctx)
		_, at := n.machine.marks.latest()
		majority, odd := judgeDigests(members, at)
		for _, m := range odd {
			n.report(ctx, m, majority)
		}
		if majority == "" && len(odd) == 0 && at != 0 {
			n.logger.Debug("digests not compared: too few members have one", "revision", at)
		}
	})
}

// judgeDigests returns the digest that more than half of the members have at a revision, and those that have another one. Members without a
// digest of that revision say nothing. Without a majority nobody can be called wrong.
func judgeDigests(members []*quoratev1.Member, revision uint64) (majority string, odd []*quoratev1.Member) {
	counts := map[string]int{}
	for _, m := range members {
		if m.Digest != "" && m.DigestRevision == revision {
			counts[m.Digest]++
		}
	}
	for digest, count := range counts {
		if count > len(members)/2 {
			majority = digest
		}
	}
	if majority == "" {
		return "", nil
	}
	for _, m := range members {
		if m.Digest != "" && m.DigestRevision == revision && m.Digest != majority {
			odd = append(odd, m)
		}
	}
	return majority, odd
}

// report tells a member that its state differs from the majority's.
func (n *Node) report(ctx context.Context, m *quoratev1.Member, majority string) {
	n.logger.Error("a member's state differs from the majority's", "differs", m.Id, "revision", m.DigestRevision, "digest", m.Digest, "majority", majority)
	req := &peerv1.ReportDivergenceRequest{Revision: m.DigestRevision, Digest: m.Digest, Expected: majority}
	if m.Id == n.cfg.ID {
		n.diverge(req)
		return
	}
	peer, err := n.peer(m.Id, m.RaftAddress)
	if err == nil {
		ctx, cancel := context.WithTimeout(ctx, statusTimeout)
		defer cancel()
		_, err = peer.ReportDivergence(ctx, req)
	}
	if err != nil {
		n.logger.Warn("divergence not reported", "to", m.Id, "error", err)
	}
}

// diverge takes this member out of service, if the report is about a digest that it really has.
func (n *Node) diverge(req *peerv1.ReportDivergenceRequest) bool {
	digest, revision := n.machine.marks.latest()
	if revision != req.GetRevision() || digest != req.GetDigest() || digest == req.GetExpected() {
		return false
	}
	why := fmt.Sprintf("at revision %d the digest is %s, that of the majority %s", revision, digest, req.GetExpected())
	if n.diverged.CompareAndSwap(nil, &why) {
		n.logger.Error("this member's state differs from the majority's: it is out of service", "detail", why)
		n.machine.events.interrupt()
		n.background.Go(func() {
			if n.session.Load() != nil && n.otherVoters() > 0 {
				if err := n.handOver(n.ctx, ""); err != nil {
					n.logger.Error("a diverged leader can't hand over", "error", err)
				}
			}
		})
	}
	return true
}
