package node

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"quorate/fsm"
	logv1 "quorate/proto/quorate/log/v1"
	peerv1 "quorate/proto/quorate/peer/v1"
	quoratev1 "quorate/proto/quorate/v1"
)

const (
	// servingFresh is the age at which what a member last said, of itself and of others, counts no more. Members ask each second.
	servingFresh = 3 * time.Second
	// servingReturn is how long a server must have been asking again before votes against it count: by then every voter has probed it since, with a
	// pause of up to 10 s between probes of a server that was lost, a second for the probe, and one until the next question tells of it.
	servingReturn = 12 * time.Second
)

// servings is what a leader knows of serving leases: those that it granted under one leadership, and what the members said meanwhile. Readings are
// of Clock.Elapsed.
type servings struct {
	// opened is when the leadership was: an earlier leader's leases began before.
	opened time.Duration

	mu     sync.Mutex
	grants map[string]granted
	// barred counts, for each server, the commands under way that take the right from it because it has no healthy lease: it gets none until their fate is
	// known. Where that never becomes known the leadership is over.
	barred map[string]int
	// moves are the commands under way that give a server the right.
	moves map[string]*move
	said  map[string]said
	// asking has the question of each member that waits here; a newer one ends it.
	asking map[string]chan struct{}
	// begun takes moves to whoever commits them.
	begun chan *move
	// news wakes the questions that wait when a server gave its lease up.
	news notifier
}

// granted is a server's newest healthy lease.
type granted struct {
	// end is after the lease has run out by the server's clock, but for servingDrift.
	end time.Duration
	// conn is the connection over which it was asked for.
	conn uint64
	// given says that the server gave it up since.
	given bool
}

// said is what a member said in its last question.
type said struct {
	at time.Duration
	// since is when the questions began that came without a pause longer than servingFresh.
	since       time.Duration
	wants, fit  bool
	unreachable map[string]time.Duration
}

// move is a command that moves the right.
type move struct {
	server  string
	command *logv1.Command
	// barred are the servers that it takes the right from.
	barred []string
	done   chan struct{}
	// err is why it failed, once done is closed.
	err error
}

// verdict is what the moment allows to answer.
type verdict struct {
	resp *peerv1.RenewServingResponse
	// changed, if it isn't nil, is closed when the state changes: until then the question had better wait.
	changed <-chan struct{}
	// news is closed when a server gave its lease up.
	news <-chan struct{}
	// moving is what it waits for, and begin the same if somebody has to commit it.
	moving, begin *move
	// lapse is how long it takes until another server's lease has run out; 0 if none is waited for.
	lapse time.Duration
}

func newServings(opened time.Duration) *servings {
	return &servings{
		opened: opened, grants: map[string]granted{}, barred: map[string]int{}, moves: map[string]*move{}, said: map[string]said{},
		asking: map[string]chan struct{}{}, begun: make(chan *move),
	}
}

// enter admits a member's question in place of its last one, if that still waits.
func (b *servings) enter(member string) (replaced <-chan struct{}, leave func()) {
	mine := make(chan struct{})
	b.mu.Lock()
	defer b.mu.Unlock()
	if last := b.asking[member]; last != nil {
		close(last)
	}
	b.asking[member] = mine
	return mine, func() {
		b.mu.Lock()
		defer b.mu.Unlock()
		if b.asking[member] == mine {
			delete(b.asking, member)
		}
	}
}

// hear notes what a question says.
func (b *servings) hear(ctx context.Context, req *peerv1.RenewServingRequest, conn uint64, now time.Duration) {
	s := said{at: now, since: now, wants: req.GetWantsHealthy(), fit: req.GetFit(), unreachable: make(map[string]time.Duration, len(req.GetUnreachable()))}
	for _, u := range req.GetUnreachable() {
		s.unreachable[u.GetServer()] = max(u.GetAge().AsDuration(), 0)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if ctx.Err() != nil {
		// It was given up, and a newer one may be here already.
		return
	}
	if last, ok := b.said[req.GetMember()]; ok && now-last.at <= servingFresh {
		s.since = last.since
	}
	b.said[req.GetMember()] = s
	// The word counts only if it was certainly given after the lease was: over the connection on which that was asked for, questions come in order,
	// and one that was given up is known to be before the next one is read.
	if g, ok := b.grants[req.GetMember()]; ok && !req.GetHoldsHealthy() && g.conn == conn {
		g.given = true
		b.grants[req.GetMember()] = g
		b.news.wake()
	}
}

// decide says what the question gets at this moment.
func (b *servings) decide(m *machine, clock Clock, req *peerv1.RenewServingRequest, conn uint64) verdict {
	b.mu.Lock()
	defer b.mu.Unlock()
	// The state is read under the lock: it must not be older than the bars.
	a, now := m.latest.Load(), clock.Elapsed()
	me, generation := req.GetMember(), a.state.CurrentGeneration().GetNumber()
	resp := &peerv1.RenewServingResponse{Generation: generation}
	v := verdict{resp: resp}
	if !samePlace(a.state, me, req.GetGeneration()) {
		resp.StepDown = true
		resp.Reason = fmt.Sprintf("generation %d gives the server another role than generation %d", generation, req.GetGeneration())
		return v
	}
	resp.Confirmed = true
	set, server, ok := a.state.Server(me)
	if !ok || !req.GetWantsHealthy() {
		return v
	}
	if !req.GetHoldsHealthy() && req.GetGeneration() != generation {
		// It would become Healthy in a set as that was, whose other servers may be Healthy elsewhere by now. It is about to see the current one.
		resp.Reason = fmt.Sprintf("generation %d is current", generation)
		return v
	}
	standIn := server.GetRole() != fsm.RolePrimary
	if standIn {
		if resp.Reason = b.mayStandIn(a.state, set, me, now); resp.Reason != "" {
			resp.StepDown = req.GetHoldsHealthy()
			return v
		}
	}
	if right, ok := a.state.Serving(me); ok && b.barred[me] == 0 &&
		right.GetSet() == set.GetId() && right.GetStandIn() == standIn && right.GetGeneration() == generation {
		b.grants[me] = granted{end: now + ServingLeaseTTL, conn: conn}
		resp.Healthy, resp.StandIn = true, standIn
		return v
	}
	b.claim(&v, a, set, req, standIn, now)
	return v
}

// claim has the right moved to a server if nobody else can be using it, and otherwise lets the question wait.
func (b *servings) claim(v *verdict, a *applied, set *quoratev1.RedundantSet, req *peerv1.RenewServingRequest, standIn bool, now time.Duration) {
	me := req.GetMember()
	var lapsed []string
	for _, right := range a.state.ServingConflicts(me) {
		other := right.GetServer()
		if left := b.left(other, now); left > 0 {
			v.resp.Reason = fmt.Sprintf("%s has the right to serve set %s", other, right.GetSet())
			v.lapse = max(v.lapse, left)
			continue
		}
		lapsed = append(lapsed, other)
	}
	switch {
	case v.lapse > 0 && standIn:
		// It asks again soon enough.
		return
	case v.lapse > 0:
	case b.moves[me] != nil:
		v.moving = b.moves[me]
		v.resp.Reason = "the right is on its way"
	default:
		v.moving = &move{server: me, barred: lapsed, done: make(chan struct{}), command: &logv1.Command{Body: &logv1.Command_AssignServing{
			AssignServing: &logv1.AssignServing{Server: me, Generation: v.resp.Generation, StandIn: standIn, Lapsed: lapsed, WorksUnder: req.GetGeneration()},
		}}}
		v.begin = v.moving
		b.begin(v.begin)
		v.resp.Reason = "the right is on its way"
	}
	v.changed, v.news = a.next, b.news.wait()
}

func (b *servings) begin(m *move) {
	b.moves[m.server] = m
	for _, other := range m.barred {
		b.barred[other]++
	}
}

// ended notes what became of a move.
func (b *servings) ended(m *move, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.moves[m.server] == m {
		delete(b.moves, m.server)
	}
	m.err = err
	close(m.done)
	if isUnknown(err) {
		return
	}
	for _, other := range m.barred {
		if b.barred[other]--; b.barred[other] == 0 {
			delete(b.barred, other)
		}
	}
}

// left is how long it takes until a server certainly has no healthy lease, by its own clock; 0 or less if it has none.
func (b *servings) left(server string, now time.Duration) time.Duration {
	g, ok := b.grants[server]
	if ok && g.given {
		return 0
	}
	return max(g.end, b.opened+ServingLeaseTTL) + servingDrift - now
}

// mayStandIn says why a Backup may not stand in; empty if it may.
func (b *servings) mayStandIn(state *fsm.State, set *quoratev1.RedundantSet, me string, now time.Duration) string {
	primary := primaryOf(set)
	if fsm.PoliciesOf(set).StandIn == 0 || primary == "" {
		return "the set has no stand-in"
	}
	gone := b.unreachable(state, primary, 0, now)
	if right, ok := state.Serving(me); ok && right.GetStandIn() && right.GetSet() == set.GetId() {
		p := b.said[primary]
		back := p.wants && now-p.at <= servingFresh && !gone
		// It steps down only for what this leader granted it: then its word that it did is certain.
		if g := b.grants[me]; back && g.end > 0 {
			return primary + " is back"
		}
		return ""
	}
	if !gone {
		return "most voters can reach " + primary
	}
	return ""
}

// unreachable says whether most voters have seen a server unreachable for at least that long.
func (b *servings) unreachable(state *fsm.State, server string, least, now time.Duration) bool {
	voters, votes := 0, 0
	for _, m := range state.Members() {
		if !m.GetVoter() {
			continue
		}
		voters++
		s, ok := b.said[m.GetId()]
		if !ok || now-s.at > servingFresh {
			continue
		}
		if age, ok := s.unreachable[server]; ok && age+now-s.at >= least {
			votes++
		}
	}
	return votes > voters/2
}

// samePlace says whether a server has the set and the role of a generation still in the current one, and as a Backup may still be Healthy beside its Primary if it might
// then: that, too, ends with a lease that is not renewed.
func samePlace(state *fsm.State, server string, generation uint64) bool {
	current := state.CurrentGeneration()
	if generation == current.GetNumber() {
		return true
	}
	g, ok := state.Generation(generation)
	if !ok || g.GetTopology() == nil {
		return false
	}
	set, role := placeIn(g.GetTopology(), server)
	nowSet, nowRole := placeIn(current.GetTopology(), server)
	return set.GetId() == nowSet.GetId() && role == nowRole && (role == fsm.RolePrimary || !hotBackups(set) || hotBackups(nowSet))
}

func placeIn(t *quoratev1.Topology, server string) (set *quoratev1.RedundantSet, role string) {
	for _, s := range t.GetSets() {
		if i := slices.IndexFunc(s.GetServers(), func(r *quoratev1.RedundantServer) bool { return r.GetMember() == server }); i >= 0 {
			return s, s.GetServers()[i].GetRole()
		}
	}
	return nil, ""
}

func hotBackups(set *quoratev1.RedundantSet) bool {
	return set != nil && fsm.PoliciesOf(set).HotBackupsHealthy
}

func primaryOf(set *quoratev1.RedundantSet) string {
	for _, s := range set.GetServers() {
		if s.GetRole() == fsm.RolePrimary {
			return s.GetMember()
		}
	}
	return ""
}
