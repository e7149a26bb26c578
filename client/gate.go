package client

import (
	"context"
	"errors"
	"fmt"
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

// GateLink is how a gate reaches the group. *Client has one; simulations have others. It may be used from many goroutines.
type GateLink interface {
	// Register makes an instance known.
	Register(ctx context.Context, id, session string) error
	// Renew asks for a lease. An error that ErrUnregistered is means that the instance has to be registered anew.
	Renew(ctx context.Context, req *quoratev1.RenewGateRequest) (*quoratev1.RenewGateResponse, error)
	// Resolve answers with what a linearizable read that began after the call found, and its revision.
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
type Gate struct {
	link    GateLink
	options GateOptions
	base    time.Time

	// slots has a *slot for each partition that was ever asked for and not forgotten since.
	slots sync.Map
	// until is when the lease ends, as time since base.
	until atomic.Int64

	mu sync.Mutex
	// grant is the lease in force; what is remembered is true as of its revision, and of none of its closed partitions.
	grant  *quoratev1.RenewGateResponse
	closed map[string]bool
	count  int
	// lingering has what was forgotten while writes that it let in were in flight.
	lingering map[string][]*entry
	// drain has the cutovers of which the group wants to know when nothing is in flight any more.
	drain []*quoratev1.PartitionEpoch
	batch *batch
	ended bool

	session string
	ctx     context.Context
	stop    context.CancelFunc
	done    sync.WaitGroup
	asks    chan struct{}
	hits    atomic.Uint64
	misses  atomic.Uint64
}

// slot is the place of one partition. What is in it is true under the lease.
type slot struct{ now atomic.Pointer[entry] }

// entry is what is remembered of a partition at one epoch. It is never changed but for the count.
type entry struct {
	resolution *quoratev1.Resolution
	// inFlight counts the writes that it let in and that have not ended.
	inFlight atomic.Int64
}

// Pass is the right to make one write. Done must be called when the write has ended, in whatever way.
type Pass struct {
	// Placement is where to write.
	Placement string
	// Epoch is that under which the write was let in.
	Epoch uint64
	entry *entry
}

// Done says that the write has ended. It must be called once.
func (p Pass) Done() { p.entry.inFlight.Add(-1) }

// Enter lets one write in, or says why not: *CutoverError, *UnknownPartitionError, or that the group can't be asked.
func (g *Gate) Enter(ctx context.Context, partition string) (Pass, error) {
	e := g.recall(partition)
	if e == nil {
		var err error
		if e, err = g.ask(ctx, partition); err != nil {
			return Pass{}, err
		}
	}
	r := e.resolution
	if r.GetWritePlacement() == "" {
		e.inFlight.Add(-1)
		return Pass{}, &CutoverError{Partition: partition, Epoch: r.GetEpoch()}
	}
	return Pass{Placement: r.GetWritePlacement(), Epoch: r.GetEpoch(), entry: e}, nil
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

// recall returns what is remembered of a partition and true now, and counts one write in flight of it; nil if the group has to be asked.
func (g *Gate) recall(partition string) *entry {
	v, ok := g.slots.Load(partition)
	if !ok {
		return nil
	}
	s := v.(*slot)
	e := s.now.Load()
	if e == nil {
		return nil
	}
	// Counted first and looked at again afterwards: whoever forgets the entry either finds the count, or is found out here. The lease is read before
	// that, since a newer one is put in force after what it makes wrong was forgotten; and the clock last.
	e.inFlight.Add(1)
	until := g.until.Load()
	if s.now.Load() != e || int64(g.elapsed()) >= until {
		e.inFlight.Add(-1)
		return nil
	}
	g.hits.Add(1)
	return e
}

// Resolve says where a partition is read and written, from memory where that is possible.
func (g *Gate) Resolve(ctx context.Context, partition string) (*quoratev1.Resolution, error) {
	e := g.recall(partition)
	if e == nil {
		var err error
		if e, err = g.ask(ctx, partition); err != nil {
			return nil, err
		}
	}
	e.inFlight.Add(-1)
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
	closed := make(map[string]bool, len(grant.GetClosed()))
	for _, partition := range grant.GetClosed() {
		closed[partition] = true
		g.forget(partition)
	}
	if grant.GetReset_() {
		g.slots.Range(func(key, _ any) bool {
			g.forget(key.(string))
			return true
		})
	}
	for _, r := range grant.GetChanged() {
		v, known := g.slots.Load(r.GetPartition())
		if !known {
			continue
		}
		if closed[r.GetPartition()] || r.GetPhase() == quoratev1.PartitionPhase_PARTITION_PHASE_UNSPECIFIED {
			g.forget(r.GetPartition())
			continue
		}
		g.replace(v.(*slot), r)
	}
	g.grant, g.closed, g.drain = grant, closed, grant.GetDrain()
	g.until.Store(int64(started + grant.GetTtl().AsDuration()))
}

// forget takes what is remembered of a partition away. The gate is locked.
func (g *Gate) forget(partition string) {
	v, known := g.slots.LoadAndDelete(partition)
	if !known {
		return
	}
	g.count--
	if old := v.(*slot).now.Swap(nil); old != nil {
		g.linger(old)
	}
}

// replace puts another answer in a slot, unless what is there is newer. The gate is locked.
func (g *Gate) replace(s *slot, r *quoratev1.Resolution) *entry {
	old := s.now.Load()
	if old != nil && old.resolution.GetRevision() >= r.GetRevision() {
		return old
	}
	e := &entry{resolution: r}
	s.now.Store(e)
	if old != nil {
		g.linger(old)
	}
	return e
}

// linger keeps an entry of which writes are in flight, until they have ended. The gate is locked.
func (g *Gate) linger(e *entry) {
	if e.inFlight.Load() > 0 {
		partition := e.resolution.GetPartition()
		g.lingering[partition] = append(g.lingering[partition], e)
	}
}

// remember takes what a linearizable read found at a revision, and counts one write in flight of it; nil if it must be read again, since the group may
// have been told already that nothing as old is in flight. What the lease does not extend to is good for those who asked and for nobody else. The gate
// is locked.
func (g *Gate) remember(r *quoratev1.Resolution, revision uint64) *entry {
	partition := r.GetPartition()
	if g.grant != nil && revision < g.grant.GetRevision() {
		return nil
	}
	for _, cutover := range g.drain {
		if cutover.GetPartition() == partition && r.GetEpoch() < cutover.GetEpoch() {
			return nil
		}
	}
	e := &entry{resolution: r}
	v, known := g.slots.Load(partition)
	switch {
	case g.grant == nil || g.ended || g.closed[partition] || r.GetPhase() == quoratev1.PartitionPhase_PARTITION_PHASE_UNSPECIFIED,
		!known && g.count >= g.options.MaxEntries:
	case known:
		// Where what is there is newer than what the caller's read found, he gets what was read, for once.
		if now := g.replace(v.(*slot), r); now.resolution.GetEpoch() == r.GetEpoch() {
			now.inFlight.Add(1)
			return now
		}
	default:
		s := &slot{}
		s.now.Store(e)
		g.slots.Store(partition, s)
		g.count++
		e.inFlight.Add(1)
		return e
	}
	e.inFlight.Add(1)
	g.linger(e)
	return e
}

// drained returns the cutovers asked for of which nothing older is in flight, and drops what lingers no longer.
func (g *Gate) drained() []*quoratev1.PartitionEpoch {
	g.mu.Lock()
	defer g.mu.Unlock()
	for partition, entries := range g.lingering {
		kept := entries[:0]
		for _, e := range entries {
			if e.inFlight.Load() > 0 {
				kept = append(kept, e)
			}
		}
		if g.lingering[partition] = kept; len(kept) == 0 {
			delete(g.lingering, partition)
		}
	}
	var found []*quoratev1.PartitionEpoch
	for _, want := range g.drain {
		if !g.inFlightBefore(want) {
			found = append(found, want)
		}
	}
	return found
}

// inFlightBefore says whether a write is in flight that was let in before a cutover. The gate is locked.
func (g *Gate) inFlightBefore(cutover *quoratev1.PartitionEpoch) bool {
	for _, e := range g.lingering[cutover.GetPartition()] {
		if e.resolution.GetEpoch() < cutover.GetEpoch() && e.inFlight.Load() > 0 {
			return true
		}
	}
	v, known := g.slots.Load(cutover.GetPartition())
	if !known {
		return false
	}
	e := v.(*slot).now.Load()
	return e != nil && e.resolution.GetEpoch() < cutover.GetEpoch()
}
