package node

import (
	"context"
	"errors"
	"maps"
	"slices"
	"sync"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"quorate/fsm"
	"quorate/mutant"
	quoratev1 "quorate/proto/quorate/v1"
)

// maxClosedGates bounds the partitions whose gates are closed at a time, and with it what a grant has to name. Further commands wait.
const maxClosedGates = 1024

// errReplaced is why a question of an instance is not answered when it has asked a newer one.
var errReplaced = errors.New("the instance has asked again")

// gates is what a leader knows of gate leases: those that it granted under one leadership. Readings are of Clock.Elapsed.
//
// A lease covers all that its holder has read, so nobody has to say what that is: the leader names in each grant the partitions to which it does not
// extend, and before a command that concerns one it waits until no older grant is in use.
type gates struct {
	// opened is when the leadership was: an earlier leader's leases began before.
	opened time.Duration
	// slots bounds the closed ones.
	slots chan struct{}

	mu sync.Mutex
	// granted is the number of the last grant.
	granted uint64
	holders map[fsm.InstanceSession]*holder
	// closed counts, for each partition, the commands that have closed its gates.
	closed map[string]int
	// version counts the changes of closed.
	version uint64
	// news wakes the questions that wait when closed changes, and cleared the commands that wait when a holder has let go.
	news, cleared notifier
}

// holder is one run of an instance that has asked under this leadership.
type holder struct {
	// heard is when it last asked.
	heard time.Duration
	// grant is its newest, and end when that, and so each of its grants, can't be used any more.
	grant uint64
	end   time.Duration
	// void says that it uses none of its grants up to this number.
	void uint64
	// told is the version of closed that its newest grant told it.
	told uint64
	// asking is closed when a newer question takes the place of the one that waits.
	asking chan struct{}
	// drained has, by partition, the cutovers of which it has nothing in flight any more.
	drained map[string]uint64
}

func newGates(opened time.Duration) *gates {
	return &gates{
		opened: opened, slots: make(chan struct{}, maxClosedGates), holders: map[fsm.InstanceSession]*holder{}, closed: map[string]int{},
	}
}

// hear notes what a question says, and takes the place of the instance's last one.
func (b *gates) hear(who fsm.InstanceSession, req *quoratev1.RenewGateRequest, term uint64, now time.Duration) (replaced <-chan struct{}) {
	b.mu.Lock()
	defer b.mu.Unlock()
	h := b.holders[who]
	if h == nil {
		h = &holder{}
		b.holders[who] = h
	}
	if h.asking != nil {
		close(h.asking)
	}
	h.asking, h.heard = make(chan struct{}), now
	h.drained = make(map[string]uint64, len(req.GetDrained()))
	for _, d := range req.GetDrained() {
		h.drained[d.GetPartition()] = d.GetEpoch()
	}
	void := h.void
	if req.GetTerm() == term && req.GetGrant() > 0 && req.GetGrant() <= h.grant {
		h.void = max(h.void, req.GetGrant()-1)
	}
	if req.GetGiveBack() {
		h.void = h.grant
	}
	if h.void != void {
		b.cleared.wake()
	}
	return h.asking
}

// awaitNews waits until a question has something to learn, or for the given time; false means that it needs no answer any more.
func (b *gates) awaitNews(ctx context.Context, who fsm.InstanceSession, req *quoratev1.RenewGateRequest, s *session, wait time.Duration, replaced <-chan struct{}) bool {
	timer := time.NewTimer(wait)
	defer timer.Stop()
	for gathering := false; ; {
		b.mu.Lock()
		h, news := b.holders[who], b.news.wait()
		fresh := h == nil || req.GetGrant() == 0 || h.told != b.version || req.GetTerm() != s.term || req.GetGrant() != h.grant
		b.mu.Unlock()
		if fresh && !gathering {
			gathering = true
			timer.Reset(min(gateGather, wait))
		}
		select {
		case <-news:
		case <-timer.C:
			return true
		case <-replaced:
			return false
		case <-s.ctx.Done():
			return true // What comes next says so.
		case <-ctx.Done():
			return false
		}
	}
}

// grant gives an instance a lease on its view.
func (b *gates) grant(m *machine, clock Clock, who fsm.InstanceSession, req *quoratev1.RenewGateRequest, term uint64, replaced <-chan struct{}) (*quoratev1.RenewGateResponse, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	select {
	case <-replaced:
		return nil, &Error{Op: "renew gate", Kind: Invalid, Err: errReplaced}
	default:
	}
	// Events and state are read under the lock: they must not be older than what opened the gates that are not named.
	changed, revision, complete := m.events.partitionsSince(req.GetRevision())
	state := m.latest.Load().state
	if r := state.CheckInstance(who.ID, who.Session); r != nil {
		return nil, r
	}
	h, ttl := b.holders[who], state.GateTTL()
	if h == nil {
		// It was not registered for a moment in between.
		return nil, &Error{Op: "renew gate", Kind: Invalid, Err: errReplaced}
	}
	b.granted++
	h.grant, h.end, h.told = b.granted, max(h.end, clock.Elapsed()+gateEnd(ttl)), b.version
	resp := &quoratev1.RenewGateResponse{
		Ttl: durationpb.New(ttl), Term: term, Grant: h.grant, Revision: revision,
		Closed: slices.Sorted(maps.Keys(b.closed)), Drain: state.EarlyCutovers(), MinDrainBarrier: state.PartitionSettings().GetMinDrainBarrier(),
	}
	switch {
	case req.GetRevision() == 0:
	case !complete || len(changed) > fsm.MaxPartitionBatch:
		resp.Reset_ = true
	default:
		for _, id := range changed {
			resp.Changed = append(resp.Changed, state.Resolve(id))
		}
	}
	return resp, nil
}

// pending is a holder that had a lease when gates were closed.
type pending struct {
	*holder
	// need is the grant that must be void, unless end has come.
	need uint64
	end  time.Duration
}

// close closes the gates of a partition, and waits until nobody can hold a lease that was granted before. After an error they are as they were.
func (b *gates) close(ctx context.Context, s *session, m *machine, clock Clock, partition string) error {
	const op = "propose"
	select {
	case b.slots <- struct{}{}:
	case <-s.ctx.Done():
		return &Error{Op: op, Kind: NotLeader}
	case <-ctx.Done():
		return &Error{Op: op, Kind: Deadline, Err: ctx.Err()}
	}
	waiting := b.shut(partition, clock.Elapsed())
	for {
		left, cleared := b.left(waiting, m, clock.Elapsed())
		if left <= 0 || mutant.OpenGates {
			return nil
		}
		timer := time.NewTimer(left)
		select {
		case <-timer.C:
			continue
		case <-cleared:
			timer.Stop()
			continue
		case <-s.ctx.Done():
			timer.Stop()
			b.open(partition)
			return &Error{Op: op, Kind: NotLeader}
		case <-ctx.Done():
			timer.Stop()
			b.open(partition)
			return &Error{Op: op, Kind: Deadline, Err: ctx.Err()}
		}
	}
}

// shut closes the gates of a partition for all grants to come, and returns who may hold an older one.
func (b *gates) shut(partition string, now time.Duration) (waiting []pending) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.closed[partition]++
	b.version++
	for _, h := range b.holders {
		if h.end > now && h.void < h.grant {
			waiting = append(waiting, pending{holder: h, need: h.grant, end: h.end})
		}
	}
	b.news.wake()
	return waiting
}

// left is how long it takes at most until no lease of those is in use any more, and none of an earlier leader's; cleared is closed when it may have
// become less.
func (b *gates) left(waiting []pending, m *machine, now time.Duration) (left time.Duration, cleared <-chan struct{}) {
	left = b.unknown(m.latest.Load().state) - now
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, w := range waiting {
		if w.void < w.need {
			left = max(left, w.end-now)
		}
	}
	return left, b.cleared.wait()
}

// unknown is until when a lease of an earlier leader may be in use.
func (b *gates) unknown(state *fsm.State) time.Duration {
	longest := gateEnd(state.LongestGateTTL())
	if since, ever := state.InstancesGone(); state.InstanceCount() == 0 && (!ever || since > longest) {
		// Leases are granted to registered instances alone, and none was for as long as one lasts.
		return 0
	}
	return b.opened + longest
}

// open opens the gates of a partition again, for one of the commands that closed them.
func (b *gates) open(partition string) {
	b.mu.Lock()
	if b.closed[partition]--; b.closed[partition] == 0 {
		delete(b.closed, partition)
	}
	b.version++
	b.news.wake()
	b.mu.Unlock()
	<-b.slots
}

// drained says whether every registered instance has reported that nothing of before a partition's cutover is in flight. Where none is registered nobody
// can say so.
func (b *gates) drained(state *fsm.State, partition string) bool {
	p, r := state.Partition(partition)
	if r != nil || p.GetMigration().GetCutoverEpoch() == 0 {
		return false
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	sessions := state.InstanceSessions()
	for _, who := range sessions {
		if h := b.holders[who]; h == nil || h.drained[partition] != p.GetMigration().GetCutoverEpoch() {
			return false
		}
	}
	return len(sessions) > 0
}

// silent returns the registered instances that have not asked for long, and forgets what is known of those that are not registered.
func (b *gates) silent(state *fsm.State, now time.Duration) (found []fsm.InstanceSession) {
	b.mu.Lock()
	defer b.mu.Unlock()
	registered := make(map[fsm.InstanceSession]bool)
	for _, who := range state.InstanceSessions() {
		registered[who] = true
		heard := b.opened
		if h := b.holders[who]; h != nil {
			heard = max(heard, h.heard)
		}
		if now-heard > instanceForget {
			found = append(found, who)
		}
	}
	for who, h := range b.holders {
		if !registered[who] && h.end <= now {
			delete(b.holders, who)
		}
	}
	return found
}
