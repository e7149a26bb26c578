package client

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	mathrand "math/rand/v2"
	"time"

	quoratev1 "quorate/proto/quorate/v1"
)

const (
	// gateBatch is the most partitions that one question of a gate resolves.
	gateBatch = 1000
	// gateReads is how often one call reads a partition when what it read came too late to be used.
	gateReads = 5
	// gateAsks is how many such questions may be under way.
	gateAsks = 4
	// gateTry bounds one question for a lease; the leader answers within a quarter of the TTL, 10 s at most.
	gateTry = 3 * time.Second
	// gatePause is the least pause after a question that failed; it is doubled up to gatePauseMost, and made longer by up to a half.
	gatePause     = 20 * time.Millisecond
	gatePauseMost = time.Second
	// gateDrainLook is how often a closing gate looks whether its writes have ended.
	gateDrainLook = 5 * time.Millisecond
)

// GateOptions are those of a gate. Only ID is required.
type GateOptions struct {
	// ID names the instance, such as the host name of a proxy: 1 to 64 of a-z, 0-9, '-', '_' and '.'. No two processes may use one.
	ID string
	// MaxEntries is how many partitions are remembered; 0 means MaxGateEntries. More are asked for each time.
	MaxEntries int
	// Elapsed is the monotonic clock; nil means the machine's.
	Elapsed func() time.Duration
}

// GateStats counts what a gate did.
type GateStats struct {
	// Hits were answered from memory, and Misses by the group.
	Hits, Misses uint64
	// Remembered is how many partitions can be answered from memory.
	Remembered int
	// Lease is what is left of the lease; 0 or less means that there is none.
	Lease time.Duration
}

// OpenGate registers an instance and keeps a lease for it until Close.
func OpenGate(ctx context.Context, link GateLink, options GateOptions) (*Gate, error) {
	if options.MaxEntries == 0 {
		options.MaxEntries = MaxGateEntries
	}
	g := &Gate{
		link: link, options: options, base: time.Now(), session: rand.Text(), lingering: map[string][]*entry{}, asks: make(chan struct{}, gateAsks),
	}
	if err := link.Register(ctx, options.ID, g.session); err != nil {
		return nil, err
	}
	g.ctx, g.stop = context.WithCancel(context.Background())
	g.done.Go(func() { g.run(g.ctx) })
	return g, nil
}

// run keeps the lease renewed.
func (g *Gate) run(ctx context.Context) {
	pause := gatePause
	for ctx.Err() == nil {
		err := g.renew(ctx)
		if err == nil {
			pause = gatePause
			continue
		}
		if errors.Is(err, ErrUnregistered) {
			err = g.registerAnew(ctx)
		}
		if err == nil {
			continue
		}
		timer := time.NewTimer(pause + mathrand.N(pause/2))
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
		}
		pause = min(2*pause, gatePauseMost)
	}
}

// registerAnew begins a new session: the group has forgotten the former one, so whatever was remembered under it counts no more.
func (g *Gate) registerAnew(ctx context.Context) error {
	g.mu.Lock()
	g.until.Store(0)
	g.grant, g.closed, g.drain = nil, nil, nil
	g.slots.Range(func(key, _ any) bool {
		g.forget(key.(string))
		return true
	})
	g.session = rand.Text()
	session := g.session
	g.mu.Unlock()
	ctx, cancel := context.WithTimeout(ctx, gateTry)
	defer cancel()
	return g.link.Register(ctx, g.options.ID, session)
}

// renew asks once.
func (g *Gate) renew(ctx context.Context) error {
	req := &quoratev1.RenewGateRequest{Id: g.options.ID, Drained: g.drained()}
	g.mu.Lock()
	req.Session = g.session
	if g.grant != nil {
		req.Term, req.Grant, req.Revision = g.grant.GetTerm(), g.grant.GetGrant(), g.grant.GetRevision()
	}
	g.mu.Unlock()
	ctx, cancel := context.WithTimeout(ctx, gateTry)
	defer cancel()
	started := g.elapsed()
	grant, err := g.link.Renew(ctx, req)
	if err != nil {
		return err
	}
	g.install(grant, started)
	return nil
}

// batch is a question to the group that others join until it is sent.
type batch struct {
	partitions []string
	places     map[string]int
	waiting    []int
	done       chan struct{}
	entries    []*entry
	err        error
}

// ask gets the answer of a linearizable read that begins after the call, and counts one write in flight of it.
func (g *Gate) ask(ctx context.Context, partition string) (*entry, error) {
	g.misses.Add(1)
	for range gateReads {
		e, err := g.askOnce(ctx, partition)
		if err != nil || e != nil {
			return e, err
		}
	}
	return nil, fmt.Errorf("client: partition %q changed faster than it can be read", partition)
}

// askOnce is one such read; nil means that it came too late to be used. Callers that come at one time share it.
func (g *Gate) askOnce(ctx context.Context, partition string) (*entry, error) {
	g.mu.Lock()
	if g.ended {
		g.mu.Unlock()
		return nil, ErrClosed
	}
	b := g.batch
	if b == nil || len(b.partitions) == gateBatch {
		b = &batch{places: map[string]int{}, done: make(chan struct{})}
		g.batch = b
		g.done.Go(func() { g.send(b) })
	}
	place, known := b.places[partition]
	if !known {
		place = len(b.partitions)
		b.places[partition] = place
		b.partitions = append(b.partitions, partition)
		b.waiting = append(b.waiting, 0)
	}
	b.waiting[place]++
	g.mu.Unlock()
	select {
	case <-b.done:
	case <-ctx.Done():
		// The answer is counted as this caller's once it comes.
		g.mu.Lock()
		defer g.mu.Unlock()
		if b.waiting[place]--; b.entries != nil && b.entries[place] != nil {
			b.entries[place].inFlight.Add(-1)
		}
		return nil, ctx.Err()
	}
	if b.err != nil {
		return nil, b.err
	}
	e := b.entries[place]
	if e != nil && e.resolution.GetPhase() == quoratev1.PartitionPhase_PARTITION_PHASE_UNSPECIFIED {
		e.inFlight.Add(-1)
		return nil, &UnknownPartitionError{Partition: partition}
	}
	return e, nil
}

// send asks the group for a batch, after closing it to newcomers: only so does the read begin after each of them came.
func (g *Gate) send(b *batch) {
	g.asks <- struct{}{} // Each question ends within gateTry, or with the gate.
	defer func() { <-g.asks }()
	g.mu.Lock()
	if g.batch == b {
		g.batch = nil
	}
	g.mu.Unlock()
	ctx, cancel := context.WithTimeout(g.ctx, gateTry)
	defer cancel()
	found, revision, err := g.link.Resolve(ctx, b.partitions)
	if err == nil && len(found) != len(b.partitions) {
		err = errors.New("client: the group answered for another number of partitions than were asked for")
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	defer close(b.done)
	if b.err = err; err != nil {
		return
	}
	b.entries = make([]*entry, len(found))
	for i, r := range found {
		if e := g.remember(r, revision); e != nil {
			// remember counts one; there may be more that wait for this answer, or none any more.
			e.inFlight.Add(int64(b.waiting[i] - 1))
			b.entries[i] = e
		}
	}
}

// Stats returns what the gate did so far.
func (g *Gate) Stats() GateStats {
	g.mu.Lock()
	defer g.mu.Unlock()
	return GateStats{Hits: g.hits.Load(), Misses: g.misses.Load(), Remembered: g.count, Lease: time.Duration(g.until.Load()) - g.elapsed()}
}

// Close lets no write in any more, waits until those that were have ended or ctx ends, gives the lease back and takes the instance from the list.
func (g *Gate) Close(ctx context.Context) error {
	g.mu.Lock()
	if g.ended {
		g.mu.Unlock()
		return ErrClosed
	}
	g.ended = true
	g.until.Store(0)
	g.slots.Range(func(key, _ any) bool {
		g.forget(key.(string))
		return true
	})
	session := g.session
	g.mu.Unlock()
	g.stop()
	g.done.Wait()
	drained := g.awaitEnd(ctx)
	return g.link.Remove(ctx, g.options.ID, session, drained)
}

// awaitEnd waits until nothing is in flight; false means that something still is.
func (g *Gate) awaitEnd(ctx context.Context) bool {
	every := time.NewTicker(gateDrainLook)
	defer every.Stop()
	for {
		g.drained()
		g.mu.Lock()
		left := len(g.lingering)
		g.mu.Unlock()
		if left == 0 {
			return true
		}
		select {
		case <-every.C:
		case <-ctx.Done():
			return false
		}
	}
}
