package failover

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"
)

// server is a server of the set, as the run has it.
type server struct {
	Server
	link  *link
	role  role      // that its link said it is in
	since time.Time // monotonic: when it said that it is Away
	until time.Time // monotonic: when Away ends
}

// run is what Run works with. Everything in it belongs to the goroutine of Run.
type run struct {
	*Client
	ctx    context.Context // ends all links
	links  sync.WaitGroup
	events chan event

	mode     Mode // Auto until a server told
	servers  []*server
	active   *server
	leaving  *server // still listened to, while active is not ready
	cut      *cut
	flow     *flow
	attempts int // failed ones, while no server was ever reached
	reached  bool
	first    string // ApplicationUri of the server of Config.URL

	lastValue time.Time
	idle      time.Time // since when no server is in use
	wanting   time.Time // since when none that has data is, zero while one is; servers that have not answered are waited for until ChooseWait after that
	shown     []Server
}

func newRun(ctx context.Context, c *Client) *run {
	r := &run{Client: c, ctx: ctx, events: make(chan event, eventQueue), mode: c.cfg.Mode, flow: newFlow(len(c.cfg.Nodes))}
	r.servers = []*server{{Server: Server{URL: c.cfg.URL}}}
	now := time.Now()
	r.idle, r.wanting = now, now
	r.begin(Started, now)
	return r
}

// loop takes one event after another, and decides after each.
func (r *run) loop(ctx context.Context) error {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case e := <-r.events:
			if err := r.note(e); err != nil {
				return err
			}
		case <-timer.C:
		}
		if ctx.Err() != nil { // A callback may have ended it.
			return ctx.Err()
		}
		now := time.Now()
		r.step(now)
		if r.active == nil && r.cfg.GiveUp > 0 && r.reached && now.Sub(r.idle) >= r.cfg.GiveUp {
			return fmt.Errorf("%w for %v", ErrNoServer, r.cfg.GiveUp)
		}
		timer.Reset(time.Until(r.wake(now)))
	}
}

// note takes what a link reports into what is known. An error ends the run.
func (r *run) note(e event) error {
	i := slices.IndexFunc(r.servers, func(s *server) bool { return s.link == e.link })
	if i < 0 {
		return nil // Its link was ended.
	}
	s := r.servers[i]
	if s.State == Away && (e.down != nil || e.up != nil) {
		return nil // It is left alone until its time, whatever it says.
	}
	switch {
	case e.down != nil:
		if !r.reached {
			if r.attempts++; r.attempts == StartAttempts {
				return e.down
			}
		}
		s.State, s.Level, s.role, s.Problem = Unreachable, 0, off, e.down.Error()
	case e.up != nil:
		if !r.reached {
			r.reached = true
			r.first, r.wanting = e.up.self, time.Now()
		}
		s.State, s.Problem = Reachable, ""
		if s.URI == "" {
			s.URI = e.up.self
		}
		if r.active == nil || r.active == s {
			r.adopt(e.up, s)
		}
		r.levelIs(s, level{e.up.level, e.up.returns})
	case e.level != nil:
		r.levelIs(s, *e.level)
	case e.ready != off:
		s.role = e.ready
		if s == r.active && e.ready == reporting && r.cut != nil && r.cut.ready.IsZero() {
			r.cut.ready = time.Now()
		}
	case e.lost > 0:
		if s == r.active && r.cfg.OnLost != nil {
			r.cfg.OnLost(s.Server, e.lost)
		}
	default:
		r.values(s, e.values)
	}
	return nil
}

// levelIs takes the level of a server. Maintenance ends its connection until the return time.
func (r *run) levelIs(s *server, l level) {
	s.Level = l.value
	if l.value != maintenance {
		return
	}
	wall := r.cfg.Now()
	away := l.returns.Sub(wall)
	if l.returns.IsZero() || away <= 0 {
		away = MaintenanceRetry
	}
	away = min(away, MaxAbsence)
	now := time.Now()
	s.State, s.Return, s.since, s.until = Away, wall.Add(away), now, now.Add(away)
}

// lookAt is when a server that is away is looked at again: when it said that it would be back, and from time to time before while there is nowhere
// else to go. A client may wait or enter slow retry logic (OPC 10000-5 §6.3.1, EstimatedReturnTime), and who is without data should not be kept waiting
// by an estimate.
func (r *run) lookAt(s *server) time.Time {
	if r.wanting.IsZero() {
		return s.until
	}
	soon := r.wanting
	if s.since.After(soon) {
		soon = s.since
	}
	if soon = soon.Add(LastRetry); soon.Before(s.until) {
		return soon
	}
	return s.until
}

// adopt takes over the set that a server tells of.
func (r *run) adopt(f *facts, by *server) {
	if r.cfg.Mode == Auto {
		r.mode = f.mode
	}
	var list []*server
	for i, t := range f.set {
		if t.uri == r.first && r.first != "" {
			t.url = r.cfg.URL
		}
		known := slices.IndexFunc(r.servers, func(s *server) bool { return i == 0 && s == by || i > 0 && s.URI == t.uri && s.URL == t.url })
		if known >= 0 {
			list = append(list, r.servers[known])
			continue
		}
		list = append(list, &server{Server: Server{URI: t.uri, URL: t.url}})
	}
	for _, s := range r.servers {
		if !slices.Contains(list, s) {
			r.end(s)
			if s == r.leaving {
				r.leaving = nil
			}
		}
	}
	r.servers = list
}

// end ends the link of a server.
func (r *run) end(s *server) {
	if s.link != nil {
		s.link.cancel()
		s.link, s.role = nil, off
	}
}

// step decides, and brings every link into its role.
func (r *run) step(now time.Time) {
	for _, s := range r.servers {
		if s.State == Away && !now.Before(r.lookAt(s)) {
			r.end(s) // It may still be there, if the server is back before anybody took its place.
			s.State, s.Level, s.Return = Unknown, 0, time.Time{}
		}
	}
	r.choose(now)
	if r.cut != nil && r.active != nil && r.settled(now) {
		r.complete()
	}
	if r.leaving != nil && (r.cut == nil || r.leaving.State == Unreachable || r.leaving.State == Unknown || now.Sub(r.cut.noticed) >= leaveWait) {
		r.leaving = nil
	}
	healthy := r.active != nil && r.active.State == Reachable && r.active.Level >= lowestHealthy
	for _, s := range r.servers {
		want := r.mode.standby(healthy)
		if s == r.active || s == r.leaving {
			want = reporting
		} else if s.State == Away {
			want = off
		}
		r.assign(s, want)
	}
	r.show()
}

// choose moves to another server if it must.
func (r *run) choose(now time.Time) {
	known := make([]Server, len(r.servers))
	for i, s := range r.servers {
		known[i] = s.Server
	}
	current := slices.Index(r.servers, r.active)
	switch {
	case current >= 0 && known[current].State == Reachable && known[current].Level > noData:
		r.wanting = time.Time{}
	case r.wanting.IsZero():
		r.wanting = now
	}
	next, why := decide(known, current, now.Before(r.wanting.Add(ChooseWait)))
	if next == current {
		return
	}
	if current >= 0 { // Otherwise the cut-over is under way already.
		r.begin(why, now)
	}
	r.leaving, r.active = nil, nil
	if next < 0 {
		r.idle = now
	} else {
		if current >= 0 {
			r.leaving = r.servers[current]
		}
		r.active = r.servers[next]
		if r.active.role == reporting { // It does already: in HotB, or because it was just left.
			r.cut.ready = now
		}
	}
	r.mu.Lock()
	r.inUse = nil
	if r.active != nil {
		r.inUse = r.active.link
	}
	r.mu.Unlock()
}

// assign begins, changes or ends the link of a server.
func (r *run) assign(s *server, want role) {
	if want == off {
		r.end(s)
		if s.State != Away {
			s.State, s.Level, s.Problem = Unknown, 0, ""
		}
		return
	}
	if s.link == nil {
		if s.State == Away {
			return // It is left and in maintenance: it has ended by itself.
		}
		ctx, cancel := context.WithCancel(r.ctx)
		l := &link{client: r.Client, target: target{s.URI, s.URL}, events: r.events, cancel: cancel, roles: make(chan role, 1), wished: off}
		s.link = l
		l.wish(want)
		r.links.Go(func() { l.run(ctx) })
		return
	}
	s.link.wish(want)
}

// show publishes what is known of the servers, if it has changed.
func (r *run) show() {
	list := make([]Server, len(r.servers))
	for i, s := range r.servers {
		list[i] = s.Server
		list[i].Active = s == r.active
	}
	if slices.Equal(list, r.shown) {
		return
	}
	r.shown = list
	r.mu.Lock()
	r.known = list
	r.mu.Unlock()
	if r.cfg.OnServers != nil && r.ctx.Err() == nil {
		r.cfg.OnServers(slices.Clone(list))
	}
}

// wake is when there is something to do although nothing happens.
func (r *run) wake(now time.Time) time.Time {
	at := now.Add(time.Hour)
	sooner := func(t time.Time) {
		if t.After(now) && t.Before(at) {
			at = t
		}
	}
	for _, s := range r.servers {
		if s.State == Away {
			sooner(r.lookAt(s))
		}
	}
	sooner(r.wanting.Add(ChooseWait))
	if r.active == nil && r.cfg.GiveUp > 0 {
		sooner(r.idle.Add(r.cfg.GiveUp))
	}
	if r.cut != nil {
		sooner(r.cut.noticed.Add(leaveWait))
		if !r.cut.ready.IsZero() {
			sooner(r.settleBy())
		}
	}
	return at
}
