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
	// leastDrainBarrier is the least that min_drain_barrier may be, and so how long a write may last at any group.
	leastDrainBarrier = 100 * time.Millisecond
)

// GateOptions are those of a gate. Only ID is required.
type GateOptions struct {
	// ID names the instance, such as the host name of a proxy: 1 to 64 of a-z, 0-9, '-', '_' and '.'. No two processes may use one.
	ID string
	// MaxEntries is how many partitions are remembered; 0 means MaxGateEntries. More are asked for each time.
	MaxEntries int
	// WriteTimeout is how long a write may last, counted from before its gate is checked. 0 means as long as the group allows, which is its
	// min_drain_barrier (30 s unless its settings say otherwise) less 2 %, since clocks differ; more than that is cut down to it. Until the first lease, which
	// comes a moment after the gate was opened, the group has said nothing, and a write may last 98 ms, as any group allows.
	WriteTimeout time.Duration
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
	// WriteTimeout is how long a write may last.
	WriteTimeout time.Duration
	// Registered is how often the instance was registered. More than one means that the group had lost it, or that another process uses its id.
	Registered uint64
	// Failure is why the last question for a lease failed, nil if it didn't.
	Failure error
}

// OpenGate registers an instance and keeps a lease for it until Close. The first lease comes a moment later; until then the group is asked each time.
func OpenGate(ctx context.Context, link GateLink, options GateOptions) (*Gate, error) {
	if options.WriteTimeout < 0 {
		return nil, fmt.Errorf("client: GateOptions.WriteTimeout: %v is negative", options.WriteTimeout)
	}
	g := newGate(link, options)
	if err := link.Register(ctx, options.ID, g.session); err != nil {
		return nil, err
	}
	g.ctx, g.stop = context.WithCancel(context.Background())
	g.done.Go(func() { g.run(g.ctx) })
	return g, nil
}

// newGate makes a gate that does nothing yet.
func newGate(link GateLink, options GateOptions) *Gate {
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
	g.limitWrites(0)
	g.began = g.elapsed()
	return g
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
// more. A read under way is as good as any: what the former session was told has marked it, if it is too old.
func (g *Gate) beginSession() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.until.Store(0)
	g.grant, g.closed, g.drain = nil, nil, nil
	g.forgetAll()
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

// renewal returns the next question for a lease, and how long its answer may take.
func (g *Gate) renewal() (req *quoratev1.RenewGateRequest, limit time.Duration) {
	g.mu.Lock()
	defer g.mu.Unlock()
	req = &quoratev1.RenewGateRequest{
		Id: g.options.ID, Session: g.session, Drained: g.drained(),
		Term: g.grant.GetTerm(), Grant: g.grant.GetGrant(), Revision: g.grant.GetRevision(),
	}
	if g.grant == nil {
		return req, gateTry
	}
	return req, max(g.grant.GetTtl().AsDuration()/2, gateTryLeast)
}

// renew asks once.
func (g *Gate) renew(ctx context.Context) error {
	req, limit := g.renewal()
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

// Stats returns what the gate did so far.
func (g *Gate) Stats() GateStats {
	g.mu.Lock()
	defer g.mu.Unlock()
	s := GateStats{
		Misses: g.misses.Load(), Remembered: g.memory.count, Lease: time.Duration(g.until.Load()) - g.elapsed(),
		WriteTimeout: time.Duration(g.writeTimeout.Load()), Registered: g.registered, Failure: g.failure,
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
		g.mu.Lock()
		g.drained()
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
