package client

import "time"

// Pass is the right to make one write. Done must be called when the write has ended, in whatever way.
type Pass struct {
	// Placement is where to write.
	Placement string
	// Epoch is that under which the write was let in.
	Epoch uint64
	// Deadline is by when the write must have landed, or never will: after it the partition may be written elsewhere. It has a monotonic reading, and
	// counts from a moment at which what was checked was still true, so it is the same as the deadline of a context, and Enter may have used some of it.
	Deadline time.Time
	entry    *entry
}

// Done says that the write has ended. It must be called once: without it a migration that may complete early doesn't, and Close waits in vain; if it is
// called twice, a migration may complete while a write is in flight. Where that is noticed it panics. Of a Pass that came with an error it does nothing.
func (p Pass) Done() {
	if p.entry != nil {
		p.entry.leave()
	}
}

// deadline is by when a write must have landed that was let in by a check of that moment. No cutover had committed then: from memory, since the lease
// stood, and of the group, since it was asked afterwards. So its barrier ends later than the deadline.
func (g *Gate) deadline(checked time.Duration) time.Time {
	end := checked + time.Duration(g.writeTimeout.Load())
	if g.options.Elapsed != nil {
		return time.Now().Add(end - g.options.Elapsed())
	}
	return g.base.Add(end)
}

// limitWrites makes writes last no longer than a drain barrier, and than the options say.
func (g *Gate) limitWrites(barrier time.Duration) {
	// The barrier is counted by the leader's clock, which may be 2 % faster than this one (node/DESIGN.md).
	limit := max(barrier, leastDrainBarrier)
	limit -= limit / 50
	if own := g.options.WriteTimeout; own > 0 {
		limit = min(limit, own)
	}
	g.writeTimeout.Store(int64(limit))
}
