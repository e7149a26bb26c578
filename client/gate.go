package client

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	quoratev1 "quorate/proto/quorate/v1"
)

// MaxGateEntries is how many partitions a gate remembers unless GateOptions say otherwise. One takes some 300 bytes.
const MaxGateEntries = 1 << 20

// ErrClosed means that a gate was closed.
var ErrClosed = errors.New("client: the gate is closed")

// UnknownPartitionError means that there is no such partition.
type UnknownPartitionError struct{ Partition string }

// Error implements error.
func (e *UnknownPartitionError) Error() string {
	return fmt.Sprintf("client: there is no partition %q", e.Partition)
}

// CutoverError means that nobody may write to a partition now: it is in cutover. Writing will be possible again, perhaps elsewhere.
type CutoverError struct {
	Partition string
	Epoch     uint64
}

// Error implements error.
func (e *CutoverError) Error() string {
	return fmt.Sprintf("client: partition %q is in cutover at epoch %d: nobody may write", e.Partition, e.Epoch)
}

// StaleEpochError means that a write was to be made under another epoch than the current one: resolve again.
type StaleEpochError struct {
	Partition string
	Current   uint64
}

// Error implements error.
func (e *StaleEpochError) Error() string {
	return fmt.Sprintf("client: partition %q is at epoch %d by now", e.Partition, e.Current)
}

// GateLink is how a gate reaches the group. Client.Gate brings one; simulations have others. It may be used from many goroutines, and each call ends
// with its context.
type GateLink interface {
	// Register makes an instance known.
	Register(ctx context.Context, id, session string) error
	// Renew asks for a lease. An error that ErrUnregistered is means that the instance has to be registered anew.
	Renew(ctx context.Context, req *quoratev1.RenewGateRequest) (*quoratev1.RenewGateResponse, error)
	// Resolve answers, in the order of the partitions, with what a linearizable read that began after the call found, and its revision.
	Resolve(ctx context.Context, partitions []string) (found []*quoratev1.Resolution, revision uint64, err error)
	// Remove takes the instance from the list.
	Remove(ctx context.Context, id, session string, drained bool) error
}

// ErrUnregistered means that the group doesn't know the instance, or knows it with another session.
var ErrUnregistered = errors.New("client: the instance is not registered")

// Gate answers "may I write to this partition now, and where" from memory, under a gate lease that it keeps renewed (partitions.md §2).
// Without a lease, as after a loss of the group, it asks the group each time. Either way an answer is as good as one of CheckGate: the group
// changes nothing of a partition before every gate has let go of it.
//
// The lease is judged at each answer, by this process's monotonic clock, counted from before the lease was asked for. So a process that was
// stopped, or cut off, answers nothing that is no longer true.
//
// A gate may be used from many goroutines.
type Gate struct {
	link    GateLink
	options GateOptions
	base    time.Time

	// memory has what was ever asked for and not forgotten since.
	memory index
	// until is when the lease ends, as time since base.
	until atomic.Int64
	// writeTimeout is for how long a write may last.
	writeTimeout atomic.Int64

	mu sync.Mutex
	// grant is the lease in force; what is remembered is true as of its revision, and of none of its closed partitions.
	grant  *quoratev1.RenewGateResponse
	closed map[string]bool
	// lingering has what was forgotten while writes that it let in were in flight.
	lingering map[string][]*entry
	// drain has, by partition, the cutovers of which the group wants to know when nothing is in flight any more.
	drain map[string]uint64
	// batch is the question that is being gathered, and reading has those that were sent and have no answer.
	batch   *batch
	reading map[*batch]struct{}
	ended   bool
	session string
	// registered counts the sessions; began is when the present one did.
	registered uint64
	began      time.Duration
	// failure is why the last question for a lease failed, nil if it didn't.
	failure error

	ctx    context.Context
	stop   context.CancelFunc
	done   sync.WaitGroup
	asks   chan struct{}
	hits   [gateStripes]stripe
	misses atomic.Uint64
}

// gateStripes is over how many counters the answers from memory are spread, so that partitions seldom share one.
const gateStripes = 64

// stripe is a counter with a cache line of its own.
type stripe struct {
	atomic.Uint64
	_ [56]byte
}

// entry is what is remembered of a partition at one epoch. It is never changed but for the count. All that an answer needs is in it, side by side, so that
// it is found in one place in memory; and it fills two cache lines, so that the writes to one partition don't slow those to another.
type entry struct {
	// inFlight counts the writes that it let in and that have not ended.
	inFlight atomic.Int64
	// placement is where to write, empty in cutover.
	placement string
	epoch     uint64
	// stripe is which of the counters counts its answers.
	stripe uint8
	// The id of the partition is the first length bytes of id.
	length     uint8
	id         [maxPartitionID]byte
	resolution *quoratev1.Resolution
	_          [16]byte
}

// newEntry makes an entry. The gate is locked.
func (g *Gate) newEntry(r *quoratev1.Resolution) *entry {
	e := &entry{placement: r.GetWritePlacement(), epoch: r.GetEpoch(), resolution: r, stripe: uint8(g.memory.count % gateStripes)}
	e.length = uint8(copy(e.id[:], r.GetPartition()))
	return e
}

// is says whether the entry is of that partition.
func (e *entry) is(partition string) bool { return string(e.id[:e.length]) == partition }

// exists says whether there is such a partition.
func (e *entry) exists() bool {
	return e.resolution.GetPhase() != quoratev1.PartitionPhase_PARTITION_PHASE_UNSPECIFIED
}

// leave takes one write off the count.
func (e *entry) leave() {
	if e.inFlight.Add(-1) < 0 {
		// The count is what keeps a migration from completing early. Once it is wrong, nothing that is said of writes in flight is right.
		panic("client: Done was called twice for one write")
	}
}

// Enter lets one write in, or says why not: *CutoverError, *UnknownPartitionError, ErrClosed, or that the group can't be asked. An answer from memory
// takes no time, whatever becomes of ctx; one of the group takes 3 s at most.
func (g *Gate) Enter(ctx context.Context, partition string) (Pass, error) {
	e, checked := g.recall(partition)
	if e == nil {
		var err error
		if e, err = g.ask(ctx, partition); err != nil {
			return Pass{}, err
		}
	}
	if e.placement == "" {
		e.leave()
		return Pass{}, &CutoverError{Partition: partition, Epoch: e.epoch}
	}
	return Pass{Placement: e.placement, Epoch: e.epoch, Deadline: g.deadline(checked), entry: e}, nil
}

// EnterAt is Enter for a write that was prepared under an epoch; *StaleEpochError if that is not the current one.
func (g *Gate) EnterAt(ctx context.Context, partition string, epoch uint64) (Pass, error) {
	p, err := g.Enter(ctx, partition)
	if err == nil && p.Epoch != epoch {
		p.Done()
		return Pass{}, &StaleEpochError{Partition: partition, Current: p.Epoch}
	}
	return p, err
}

// recall returns what is remembered of a partition and was true at that moment, and counts one write in flight of it; nil if the group has to be asked,
// by a question that begins after that moment.
func (g *Gate) recall(partition string) (*entry, time.Duration) {
	at, e := g.memory.find(partition)
	if e == nil {
		return nil, g.elapsed()
	}
	// Counted first and looked at again afterwards: whoever forgets the entry either finds the count, or is found out here. The lease is read before
	// that, since a newer one is put in force after what it makes wrong was forgotten; and the clock last.
	e.inFlight.Add(1)
	until := g.until.Load()
	same := at.now.Load() == e
	now := g.elapsed()
	if !same || int64(now) >= until {
		e.leave()
		return nil, now
	}
	g.hits[e.stripe].Add(1)
	return e, now
}

// Resolve says where a partition is read and written, from memory where that is possible; *UnknownPartitionError if there is none. The answer is shared
// and must not be changed.
func (g *Gate) Resolve(ctx context.Context, partition string) (*quoratev1.Resolution, error) {
	e, _ := g.recall(partition)
	if e == nil {
		var err error
		if e, err = g.ask(ctx, partition); err != nil {
			return nil, err
		}
	}
	e.leave()
	return e.resolution, nil
}

// elapsed is the time since the gate was made, by the monotonic clock.
func (g *Gate) elapsed() time.Duration {
	if g.options.Elapsed != nil {
		return g.options.Elapsed()
	}
	return time.Since(g.base)
}

// install puts a grant in force that was asked for at started.
func (g *Gate) install(grant *quoratev1.RenewGateResponse, started time.Duration) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.ended {
		return
	}
	drain := make(map[string]uint64, len(grant.GetDrain()))
	for _, cutover := range grant.GetDrain() {
		drain[cutover.GetPartition()] = cutover.GetEpoch()
	}
	g.overtake(grant, drain)
	closed := make(map[string]bool, len(grant.GetClosed()))
	for _, partition := range grant.GetClosed() {
		closed[partition] = true
		g.forget(partition)
	}
	if grant.GetReset_() || grant.GetRevision() < g.grant.GetRevision() {
		// A revision goes back only where a group was made anew from an old backup. What was read from the former one is worth nothing.
		g.forgetAll()
	}
	for _, r := range grant.GetChanged() {
		at, old := g.memory.find(r.GetPartition())
		switch {
		case old == nil:
		case r.GetPhase() == quoratev1.PartitionPhase_PARTITION_PHASE_UNSPECIFIED:
			g.forget(r.GetPartition())
		default:
			g.replace(at, old, r)
		}
	}
	g.grant, g.closed, g.drain, g.failure = grant, closed, drain, nil
	g.limitWrites(grant.GetMinDrainBarrier().AsDuration())
	g.until.Store(int64(started + grant.GetTtl().AsDuration()))
}

// overtake marks those of the reads under way whose answers may be older than what a grant says. Each began after the grant before was in force, so it
// found whatever that one knew, and only what changed since can be missing. That goes for cutovers too: once one is listed, the group is told that
// nothing older is in flight, and no read may let something in afterwards. The gate is locked.
func (g *Gate) overtake(grant *quoratev1.RenewGateResponse, drain map[string]uint64) {
	everything := g.grant == nil || grant.GetReset_()
	for b := range g.reading {
		if everything {
			b.overtaken = true
			continue
		}
		for _, r := range grant.GetChanged() {
			b.overtake(r.GetPartition())
		}
		for partition, epoch := range drain {
			if g.drain[partition] != epoch {
				b.overtake(partition)
			}
		}
	}
}

// forget takes what is remembered of a partition away. The gate is locked.
func (g *Gate) forget(partition string) {
	if old := g.memory.remove(partition); old != nil {
		g.linger(old)
	}
}

// forgetAll takes everything away that is remembered. The gate is locked.
func (g *Gate) forgetAll() { g.memory.clear(g.linger) }

// replace puts another answer in the place of one, unless that is as new, and returns what is there then. The gate is locked.
func (g *Gate) replace(at *cell, old *entry, r *quoratev1.Resolution) *entry {
	if old.resolution.GetRevision() >= r.GetRevision() {
		return old
	}
	e := g.newEntry(r)
	at.now.Store(e)
	g.linger(old)
	return e
}

// linger keeps an entry of which writes are in flight, until they have ended. The gate is locked.
func (g *Gate) linger(e *entry) {
	if e.inFlight.Load() > 0 {
		partition := e.resolution.GetPartition()
		g.lingering[partition] = append(g.lingering[partition], e)
	}
}

// remember takes what a read found, and counts as many writes in flight of it as wait for it. What the lease does not extend to is good for those and
// for nobody else. The gate is locked.
func (g *Gate) remember(r *quoratev1.Resolution, waiting int64) *entry {
	partition := r.GetPartition()
	at, e := g.memory.find(partition)
	switch {
	case r.GetPhase() == quoratev1.PartitionPhase_PARTITION_PHASE_UNSPECIFIED:
		e = g.newEntry(r)
	case e != nil:
		// What is there may be newer than what this read found. It came about after the read began, so it is as good an answer.
		e = g.replace(at, e, r)
	case g.grant == nil || g.ended || g.closed[partition] || g.memory.count >= g.options.MaxEntries:
		return g.once(r, waiting)
	default:
		e = g.newEntry(r)
		g.memory.add(e)
	}
	e.inFlight.Add(waiting)
	return e
}

// once is what a read found for those who wait for it alone. There is one entry for all of them that find a partition at one epoch. The gate is locked.
func (g *Gate) once(r *quoratev1.Resolution, waiting int64) *entry {
	for _, e := range g.lingering[r.GetPartition()] {
		if e.epoch == r.GetEpoch() {
			e.inFlight.Add(waiting)
			return e
		}
	}
	e := g.newEntry(r)
	e.inFlight.Add(waiting)
	g.linger(e)
	return e
}

// drained returns the cutovers asked for of which nothing older is in flight, and drops what lingers no longer. The gate is locked.
func (g *Gate) drained() []*quoratev1.PartitionEpoch {
	for partition, entries := range g.lingering {
		kept := slices.DeleteFunc(entries, func(e *entry) bool { return e.inFlight.Load() == 0 })
		if g.lingering[partition] = kept; len(kept) == 0 {
			delete(g.lingering, partition)
		}
	}
	var found []*quoratev1.PartitionEpoch
	for partition, epoch := range g.drain {
		if !g.inFlightBefore(partition, epoch) {
			found = append(found, &quoratev1.PartitionEpoch{Partition: partition, Epoch: epoch})
		}
	}
	return found
}

// inFlightBefore says whether a write to a partition may be in flight that was let in before a cutover. The gate is locked.
func (g *Gate) inFlightBefore(partition string, cutover uint64) bool {
	for _, e := range g.lingering[partition] {
		if e.epoch < cutover && e.inFlight.Load() > 0 {
			return true
		}
	}
	_, e := g.memory.find(partition)
	return e != nil && e.epoch < cutover
}
