package client

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	mathrand "math/rand/v2"
	"time"

	quoratev1 "quorate/proto/quorate/v1"
)

const (
	// gateBatch is the most partitions that one question of a gate resolves.
	gateBatch = 1000
	// gateReads is how often one call reads a partition when it changed while it was read.
	gateReads = 5
	// gateAsks is how many such questions may be under way.
	gateAsks = 4
	// gateTry bounds one question to the group. That for a lease takes half of the lease at most: it is answered within a quarter (GateService), and
	// where it isn't, there is time to ask another member before the lease ends.
	gateTry = 3 * time.Second
	// gateTryLeast bounds it where leases are short.
	gateTryLeast = 250 * time.Millisecond
	// gatePause is the least pause after a question that failed; it is doubled up to gatePauseMost, and made longer by up to a half.
	gatePause     = 20 * time.Millisecond
	gatePauseMost = time.Second
	// gateCalm is how long a session must have lasted for the next one to be registered without a longer pause than the last time. Two processes that
	// use one id would otherwise take it from each other as fast as they can, and each time through the log.
	gateCalm = 10 * time.Second
	// gateDrainLook is how often a closing gate looks whether its writes have ended.
	gateDrainLook = 5 * time.Millisecond
	// gateLeave bounds what a closing gate says to the group after its context ended.
	gateLeave = time.Second
	// maxPartitionID is how long the id of a partition may be.
	maxPartitionID = 64
)

// GateOptions are those of a gate. Only ID is required.
type GateOptions struct {
	// ID names the instance, such as the host name of a proxy: 1 to 64 of a-z, 0-9, '-', '_' and '.'. No two processes may use one.
	ID string
	// MaxEntries is how many partitions are remembered; 0 means MaxGateEntries. More are asked for each time.
	MaxEntries int
	// Elapsed is the monotonic clock; nil means the machine's.
	Elapsed func() time.Duration
	// Logger is told when the instance has to be registered anew, and when the lease can't be renewed. Nil means that nobody is.
	Logger *slog.Logger
}

// GateStats counts what a gate did.
type GateStats struct {
	// Hits were answered from memory, and Misses by the group.
	Hits, Misses uint64
	// Remembered is how many partitions can be answered from memory.
	Remembered int
	// Lease is what is left of the lease; 0 or less means that there is none.
	Lease time.Duration
	// Registered is how often the instance was registered. More than one means that the group had lost it, or that another process uses its id.
	Registered uint64
	// Failure is why the last question for a lease failed, nil if it didn't.
	Failure error
}

// OpenGate registers an instance and keeps a lease for it until Close. The first lease comes a moment later; until then the group is asked each time.
func OpenGate(ctx context.Context, link GateLink, options GateOptions) (*Gate, error) {
	if options.MaxEntries == 0 {
		options.MaxEntries = MaxGateEntries
	}
	if options.Logger == nil {
		options.Logger = slog.New(slog.DiscardHandler)
	}
	g := &Gate{
		link: link, options: options, base: time.Now(), session: rand.Text(), registered: 1,
		lingering: map[string][]*entry{}, reading: map[*batch]struct{}{}, asks: make(chan struct{}, gateAsks),
	}
	g.memory.clear(nil)
	g.began = g.elapsed()
	if err := link.Register(ctx, options.ID, g.session); err != nil {
		return nil, err
	}
	g.ctx, g.stop = context.WithCancel(context.Background())
	g.done.Go(func() { g.run(g.ctx) })
	return g, nil
}

// run keeps the lease renewed.
func (g *Gate) run(ctx context.Context) {
	pause, anew := gatePause, gatePause
	for ctx.Err() == nil {
		err := g.renew(ctx)
		switch {
		case err == nil:
			pause = gatePause
		case ctx.Err() != nil:
		case errors.Is(err, ErrUnregistered):
			if g.elapsed()-g.began >= gateCalm {
				anew = gatePause
			}
			g.options.Logger.Warn("the group does not know this instance any more; it is registered anew",
				slog.String("instance", g.options.ID), slog.Any("error", err))
			g.beginSession()
			rest(ctx, anew)
			anew = min(2*anew, gatePauseMost)
			if err := g.register(ctx); err != nil {
				g.fail(err)
			}
		default:
			g.fail(err)
			rest(ctx, pause)
			pause = min(2*pause, gatePauseMost)
		}
	}
}

// rest waits for a time and up to a half more, so that those who failed together don't come again together.
func rest(ctx context.Context, pause time.Duration) {
	timer := time.NewTimer(pause + mathrand.N(pause/2))
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}

// fail notes why there is no newer lease.
func (g *Gate) fail(err error) {
	g.mu.Lock()
	first := g.failure == nil
	g.failure = err
	g.mu.Unlock()
	if first {
		g.options.Logger.Warn("the gate lease could not be renewed", slog.String("instance", g.options.ID), slog.Any("error", err))
	}
}

// beginSession makes a new session, of which the group knows nothing yet. It has forgotten the former one, so whatever was remembered under that counts no
// more; nor does what was asked for under it, since the group may have been told that nothing as old is in flight.
func (g *Gate) beginSession() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.until.Store(0)
	g.grant, g.closed, g.drain = nil, nil, nil
	g.forgetAll()
	for b := range g.reading {
		b.overtaken = true
	}
	g.session, g.began = rand.Text(), g.elapsed()
	g.registered++
}

func (g *Gate) register(ctx context.Context) error {
	g.mu.Lock()
	session := g.session
	g.mu.Unlock()
	ctx, cancel := context.WithTimeout(ctx, gateTry)
	defer cancel()
	return g.link.Register(ctx, g.options.ID, session)
}

// renew asks once.
func (g *Gate) renew(ctx context.Context) error {
	req := &quoratev1.RenewGateRequest{Id: g.options.ID, Drained: g.drained()}
	limit := gateTry
	g.mu.Lock()
	req.Session = g.session
	if g.grant != nil {
		req.Term, req.Grant, req.Revision = g.grant.GetTerm(), g.grant.GetGrant(), g.grant.GetRevision()
		limit = max(g.grant.GetTtl().AsDuration()/2, gateTryLeast)
	}
	g.mu.Unlock()
	ctx, cancel := context.WithTimeout(ctx, limit)
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
	waiting    []int64
	// asOf is the revision of the lease that was in force when it was sent.
	asOf uint64
	// late has the places of which the answer may be older than what a grant said since, and overtaken says that all of them are.
	late      map[int]bool
	overtaken bool
	done      chan struct{}
	entries   []*entry
	err       error
}

// overtake marks what is asked of a partition as late.
func (b *batch) overtake(partition string) {
	if place, known := b.places[partition]; known {
		b.late[place] = true
	}
}

// ask gets the answer of a linearizable read that begins after the call, and counts one write in flight of it.
func (g *Gate) ask(ctx context.Context, partition string) (*entry, error) {
	g.misses.Add(1)
	if !isPartitionID(partition) {
		// The group would refuse the whole question, and with it what others ask.
		return nil, &UnknownPartitionError{Partition: partition}
	}
	for range gateReads {
		e, err := g.askOnce(ctx, partition)
		if err != nil || e != nil {
			return e, err
		}
	}
	return nil, fmt.Errorf("client: partition %q changed faster than it can be read", partition)
}

// isPartitionID says whether a partition may be called so: 1 to 64 of a-z, 0-9, '-', '_' and '.', beginning with a letter or digit.
func isPartitionID(id string) bool {
	for i := range len(id) {
		c := id[i]
		letter := c >= 'a' && c <= 'z' || c >= '0' && c <= '9'
		if !letter && (i == 0 || c != '-' && c != '_' && c != '.') {
			return false
		}
	}
	return id != "" && len(id) <= maxPartitionID
}

// askOnce is one such read; nil means that the partition changed while it was read. Callers that come at one time share it.
func (g *Gate) askOnce(ctx context.Context, partition string) (*entry, error) {
	g.mu.Lock()
	if g.ended {
		g.mu.Unlock()
		return nil, ErrClosed
	}
	b, place := g.join(partition)
	g.mu.Unlock()
	select {
	case <-b.done:
	case <-ctx.Done():
		// The answer is counted as this caller's once it comes.
		g.mu.Lock()
		defer g.mu.Unlock()
		if b.waiting[place]--; b.entries != nil && b.entries[place] != nil {
			b.entries[place].leave()
		}
		return nil, ctx.Err()
	}
	if b.err != nil {
		return nil, b.err
	}
	e := b.entries[place]
	if e != nil && !e.exists() {
		e.leave()
		return nil, &UnknownPartitionError{Partition: partition}
	}
	return e, nil
}

// join adds a partition to the question that is being gathered, or begins one. The gate is locked.
func (g *Gate) join(partition string) (b *batch, place int) {
	b = g.batch
	if b == nil || len(b.partitions) == gateBatch {
		b = &batch{places: map[string]int{}, late: map[int]bool{}, done: make(chan struct{})}
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
	return b, place
}

// send asks the group for a batch, after closing it to newcomers: only so does the read begin after each of them came.
func (g *Gate) send(b *batch) {
	g.asks <- struct{}{} // Each question ends within gateTry, or with the gate.
	defer func() { <-g.asks }()
	g.mu.Lock()
	if g.batch == b {
		g.batch = nil
	}
	b.asOf = g.grant.GetRevision()
	g.reading[b] = struct{}{}
	g.mu.Unlock()
	ctx, cancel := context.WithTimeout(g.ctx, gateTry)
	defer cancel()
	found, revision, err := g.link.Resolve(ctx, b.partitions)
	g.mu.Lock()
	defer g.mu.Unlock()
	defer close(b.done)
	delete(g.reading, b)
	switch {
	case err != nil && g.ended:
		b.err = ErrClosed
	case err != nil:
		b.err = fmt.Errorf("client: the gate could not ask the group: %w", err)
	case len(found) != len(b.partitions):
		b.err = errors.New("client: the group answered for another number of partitions than were asked for")
	default:
		g.answer(b, found, revision)
	}
}

// answer gives those who wait for a question what was found. What came too late they have to ask for again. The gate is locked.
func (g *Gate) answer(b *batch, found []*quoratev1.Resolution, revision uint64) {
	b.entries = make([]*entry, len(found))
	if b.overtaken || revision < b.asOf {
		return
	}
	for place, r := range found {
		if !b.late[place] {
			b.entries[place] = g.remember(r, b.waiting[place])
		}
	}
}

// Stats returns what the gate did so far.
func (g *Gate) Stats() GateStats {
	g.mu.Lock()
	defer g.mu.Unlock()
	s := GateStats{
		Misses: g.misses.Load(), Remembered: g.memory.count, Lease: time.Duration(g.until.Load()) - g.elapsed(), Registered: g.registered, Failure: g.failure,
	}
	for i := range g.hits {
		s.Hits += g.hits[i].Load()
	}
	return s
}

// Close lets no write in any more, gives the lease back, waits until the writes that were let in have ended or ctx ends, and takes the instance from the
// list. The error says if writes were in flight then, or that the group could not be told: it forgets the instance by itself, after 5 minutes.
// A write that ends after Close may still call Done.
func (g *Gate) Close(ctx context.Context) error {
	g.mu.Lock()
	if g.ended {
		g.mu.Unlock()
		return ErrClosed
	}
	g.ended = true
	g.until.Store(0)
	g.forgetAll()
	session := g.session
	g.mu.Unlock()
	g.stop()
	g.done.Wait()
	leaving, cancel := context.WithTimeout(context.WithoutCancel(ctx), gateLeave)
	// Without it nothing is wrong: the lease runs out. But what waits for that needn't.
	_, _ = g.link.Renew(leaving, &quoratev1.RenewGateRequest{Id: g.options.ID, Session: session, GiveBack: true, NoWait: true})
	cancel()
	unended := g.awaitEnd(ctx)
	leaving, cancel = context.WithTimeout(context.WithoutCancel(ctx), gateLeave)
	defer cancel()
	return errors.Join(unended, g.link.Remove(leaving, g.options.ID, session, unended == nil))
}

// awaitEnd waits until nothing is in flight; an error says that something still is.
func (g *Gate) awaitEnd(ctx context.Context) error {
	every := time.NewTicker(gateDrainLook)
	defer every.Stop()
	for {
		g.drained()
		g.mu.Lock()
		left := len(g.lingering)
		g.mu.Unlock()
		if left == 0 {
			return nil
		}
		select {
		case <-every.C:
		case <-ctx.Done():
			return fmt.Errorf("client: writes to %d partitions are in flight: %w", left, ctx.Err())
		}
	}
}
