package failover

import "time"

const (
	// settleWait is, beyond two publishing intervals, how long values of all nodes are waited for after a cut-over before it is
	// reported.
	settleWait = 500 * time.Millisecond
	// leaveWait bounds how long the server that is left is still listened to while the new one gets ready.
	leaveWait = 5 * time.Second
)

// CutOver is a move from one server to another.
type CutOver struct {
	Reason Reason
	// From is as it was known when it was left; it is zero at the start. It may be the same server as To: one that was lost and
	// came back.
	From, To Server
	// At is the wall-clock time when the reason was noticed.
	At time.Time
	// Duration is from then until the first value from To; without nodes, or where none came, until To was ready.
	Duration time.Duration
	// Silence is what a consumer saw: the time between the last value from any server before, and the first from To after. It is
	// 0 where there was no value before, or none after.
	Silence time.Duration
	// Lost estimates the samples that no server gave, from the rhythm that each node had by its source timestamps. Uncounted is
	// the number of nodes for which nothing can be said: they have no rhythm, or gave nothing new yet.
	Lost, Uncounted int
}

// cut is a cut-over under way.
type cut struct {
	CutOver
	noticed time.Time
	before  time.Time // the last value before first
	first   time.Time // the first value from the new server
	ready   time.Time // the new server reports
}

// begin begins a cut-over from the server in use, unless one is under way: then that one goes on.
func (r *run) begin(why Reason, now time.Time) {
	if r.cut != nil {
		r.cut.ready, r.cut.first = time.Time{}, time.Time{}
	} else {
		r.cut = &cut{CutOver: CutOver{Reason: why, At: r.cfg.Now()}, noticed: now}
		if r.active != nil {
			r.cut.From = r.active.Server
			r.cut.From.Active = false
		}
	}
	backlog := 0
	if r.mode == HotA {
		backlog = int(r.cfg.QueueSize)
	}
	r.flow.cut(backlog)
}

// values hands values on, if they are from a server that counts.
func (r *run) values(s *server, values []itemValue) {
	switch {
	case s == r.active:
	case s == r.leaving && (r.cut == nil || r.cut.first.IsZero()):
	case r.mode == HotB && s.State == Reachable:
	default:
		return
	}
	now := time.Now()
	fresh := s == r.active
	for _, v := range values {
		if fresh && r.cut != nil && r.cut.first.IsZero() && !v.refused {
			r.cut.first, r.cut.before = now, r.lastValue
		}
		if !r.flow.take(v.node, v.data, fresh) {
			continue
		}
		if !v.refused {
			r.lastValue = now
		}
		if r.cfg.OnValue != nil && r.ctx.Err() == nil {
			r.cfg.OnValue(Value{Node: v.node, Server: s.URL, Data: v.data})
		}
	}
}

// settled says whether a cut-over is complete: the new server is ready, and every node has had its first value, or was waited for.
func (r *run) settled(now time.Time) bool {
	if r.cut.ready.IsZero() {
		return false
	}
	return r.flow.awaited == 0 || !now.Before(r.settleBy())
}

func (r *run) settleBy() time.Time {
	return r.cut.ready.Add(2*r.cfg.PublishingInterval + settleWait)
}

// complete reports the cut-over.
func (r *run) complete() {
	c := r.cut
	r.cut = nil
	c.To = r.active.Server
	c.To.Active = true
	end := c.first
	if end.IsZero() {
		end = c.ready
	} else if !c.before.IsZero() {
		c.Silence = c.first.Sub(c.before)
	}
	c.Duration = end.Sub(c.noticed)
	c.Lost, c.Uncounted = r.flow.lost()
	if r.cfg.OnCutOver != nil {
		r.cfg.OnCutOver(c.CutOver)
	}
}
