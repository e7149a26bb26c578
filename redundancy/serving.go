package redundancy

import (
	"context"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"quorate/node"
	peerv1 "quorate/proto/quorate/peer/v1"
)

const (
	// ServingLeaseTTL is for how long a serving lease lets a server do what it was granted for, counted from before it asked. An election is
	// shorter, so it alone moves no level.
	ServingLeaseTTL = node.ServingLeaseTTL

	// servingInterval is between two questions for a serving lease while nothing happens.
	servingInterval = time.Second
	// servingTimeout bounds one question, so that there is time for three within the TTL. The leader holds the question of a new Primary for about
	// a second while the former one steps down.
	servingTimeout = 1500 * time.Millisecond
	// maxDeniedBytes bounds what is kept of the leader's word on why it did not give a Healthy lease.
	maxDeniedBytes = 256
)

// lease is a serving lease: until when, on the manager's monotonic clock, it lets the server do what. 0 is not at all.
type lease struct {
	confirmed time.Duration // the group confirms the server's role
	healthy   time.Duration // it may advertise Healthy levels; never later than confirmed
	standIn   bool          // as a stand-in
	denied    string        // why the last answer gave no Healthy lease, for people
}

// entitlement is what a serving lease is granted for. A lease outlives a publish that doesn't change it (docs/decisions/0006).
type entitlement struct {
	set, role string
	standIn   bool // a Backup's policy lets it stand in
}

func (in *Inputs) entitlement() entitlement {
	return entitlement{set: in.Set, role: in.Role, standIn: in.Role != Primary && in.Policies.StandIn != 0}
}

// serving holds this server's serving lease. It is given back by moving to a new epoch, and an answer counts only in the epoch in which it was asked
// for: so what was given back is not taken up again by an answer that comes late.
type serving struct {
	version atomic.Uint64 // moves after the rest did

	mu       sync.Mutex
	lease    lease
	epoch    uint64
	entitled entitlement
	// unanswered: the server is new in its set, and no question was answered since. It is so for one TTL after the first was asked, at most.
	unanswered bool
	asked      time.Duration // when the first of these was asked, 0 before
}

// place returns the lease and its epoch for a server that is entitled to this now. It is called with each judgement before that is stored, so that no
// judgement has a lease that was granted for something else.
func (s *serving) place(e entitlement) (l lease, epoch uint64, unanswered bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if e != s.entitled {
		if e.set != s.entitled.set || e.role != s.entitled.role {
			s.lease = lease{}
		}
		s.unanswered = e.set != "" && (s.entitled.set == "" || s.unanswered)
		s.entitled, s.asked = e, 0
		s.giveBack()
	}
	return s.lease, s.epoch, s.unanswered
}

// giveBack gives up the right to Healthy levels. What was asked before counts no more.
func (s *serving) giveBack() {
	s.lease.healthy, s.lease.standIn = 0, false
	s.epoch++
	s.version.Add(1)
}

// prepare says whether the group may be told what stands, and if so, whether this server may still advertise Healthy levels under its lease. A server
// that wants none gives its right back first: then it has to be judged, and told to the subscribers, before the group hears of it.
func (s *serving) prepare(st *standing, now time.Duration) (holds, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.epoch != st.epoch {
		return false, false
	}
	if s.asked == 0 {
		s.asked = now
	}
	holds = now < s.lease.healthy
	if holds && !st.wants {
		s.giveBack()
		return false, false
	}
	return holds, true
}

// answer takes the leader's answer to a question that was asked at that time and in that epoch.
func (s *serving) answer(epoch uint64, asked time.Duration, r *peerv1.RenewServingResponse) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if epoch != s.epoch {
		return
	}
	until := asked + ServingLeaseTTL
	l := &s.lease
	switch {
	case r.GetConfirmed() && r.GetHealthy():
		*l = lease{confirmed: until, healthy: until, standIn: r.GetStandIn()}
	case r.GetConfirmed():
		// A Healthy lease that it was granted before stays until it runs out, unless it is told to step down.
		l.confirmed, l.denied = until, bounded(r.GetReason(), maxDeniedBytes)
	}
	if r.GetStepDown() {
		if !r.GetConfirmed() {
			l.confirmed = 0
		}
		if l.healthy != 0 {
			s.giveBack()
		}
	}
	s.unanswered = false
	s.version.Add(1)
}

// look ends the wait for the first answer, which a group without a leader never gives.
func (s *serving) look(now time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.unanswered && s.asked != 0 && now-s.asked >= ServingLeaseTTL {
		s.unanswered = false
		s.version.Add(1)
	}
}

// left returns how long the lease confirms the server's role yet; 0 if it has none.
func (s *serving) left(now time.Duration) time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	return max(s.lease.confirmed-now, 0)
}

// standing is what was judged, stored, and told to the subscribers: no level of an older one is advertised any more. Only this may be told to the
// group, in a question for a lease or as the adoption of a generation.
type standing struct {
	generation uint64
	epoch      uint64 // of the serving lease
	ready      bool   // the state of the group is known
	placed     bool   // the server is in a set
	primary    bool
	wants      bool // it would advertise a Healthy level if it had the right
	fit        bool // its band is Authoritative or Isolated, but for the right
}

// standings is the last standing, and lets others wait for the next.
type standings struct {
	mu   sync.Mutex
	last standing
	next chan struct{}
}

func newStandings() *standings { return &standings{next: make(chan struct{})} }

func (s *standings) set(st standing) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if st != s.last {
		s.last = st
		close(s.next)
		s.next = make(chan struct{})
	}
}

// get returns the last standing, and a channel that is closed when there is another.
func (s *standings) get() (standing, <-chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.last, s.next
}

// renew asks for a serving lease each servingInterval, and at once when something stands that the leader should know.
func (m *Manager) renew(ctx context.Context) {
	alarm := time.NewTimer(0)
	defer alarm.Stop()
	for {
		st, next := m.standings.get()
		again := servingInterval
		if st.ready && st.generation != 0 && (st.placed || m.probes.watches()) {
			again = m.ask(ctx, st)
		}
		alarm.Reset(again)
		select {
		case <-ctx.Done():
			return
		case <-next:
		case <-alarm.C:
		}
	}
}

// ask asks once, and returns after what time to ask again if nothing happens before.
func (m *Manager) ask(ctx context.Context, st standing) (again time.Duration) {
	asked := m.elapsed() // The lease counts from before it is asked for.
	holds, ok := m.serving.prepare(&st, asked)
	if !ok {
		m.wake() // What was given back is judged and told, and then asked again.
		return servingInterval
	}
	asking, cancel := context.WithTimeout(ctx, servingTimeout)
	var watching sync.WaitGroup
	watching.Go(func() { m.cancelWhenOutdated(asking, cancel, st) })
	defer watching.Wait()
	defer cancel()
	response, err := m.group.RenewServing(asking, &peerv1.RenewServingRequest{
		Member: m.member, Generation: st.generation, WantsHealthy: st.wants, HoldsHealthy: holds,
		Level: uint32(m.Level().Value), Fit: st.fit, Unreachable: m.probes.votes(m.now()),
	})
	if err != nil {
		m.asking.failed.Add(1)
		m.log.Debug("no serving lease", "generation", st.generation, "error", err)
		if !st.placed {
			return servingInterval
		}
		return retryInterval
	}
	m.asking.answered.Add(1)
	m.serving.answer(st.epoch, asked, response)
	m.wake()
	if st.primary && st.wants && response.GetConfirmed() && !response.GetHealthy() && !response.GetStepDown() {
		return retryInterval // Its right may come at any moment, and the leader holds the question until then.
	}
	return servingInterval
}

// cancelWhenOutdated ends a question whose answer would not count any more, or that asks for another thing than the server wants by now: the leader may
// hold it for a while.
func (m *Manager) cancelWhenOutdated(ctx context.Context, cancel context.CancelFunc, asked standing) {
	for {
		st, next := m.standings.get()
		if st.epoch != asked.epoch || st.wants != asked.wants {
			cancel()
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-next:
		}
	}
}

// bounded cuts a text of somebody else to a length in bytes, as valid UTF-8.
func bounded(text string, limit int) string {
	return strings.ToValidUTF8(text[:min(len(text), limit)], "")
}
