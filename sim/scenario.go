package sim

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"time"

	"quorate/fsm"
	"quorate/node"
	logv1 "quorate/proto/quorate/log/v1"
)

// attemptTimeout bounds one try of a client; it tries again, elsewhere and with the same request id, until it knows the outcome.
const attemptTimeout = 3 * time.Second

// Scenario is one seeded run.
type Scenario struct {
	Seed    uint64
	Members int
	// For is how long faults and load go on, in virtual time.
	For     time.Duration
	Clients int
	// Think is the longest pause of a client between two operations.
	Think time.Duration
	// Calm is the longest time between two faults; 0 means no faults.
	Calm   time.Duration
	Timing node.Timing
	Limits node.Limits
	// FastClocks lets clocks gain as crystals do: 200 ppm. Without, they may be slow or stand still only.
	FastClocks bool
	// Gain is a mutant: the clocks gain that much, and the checks aren't told.
	Gain float64
}

// looks bounds how often the members' states are checked from outside in one run, since each look takes digests.
const looks = 500

// crystal is how much a machine's clock may gain or lose.
const crystal = 200e-6

// slowestWrite is how long a disk may take for one write of log entries.
const slowestWrite = 80 * time.Millisecond

type run struct {
	Scenario
	world   *World
	history *History
	ctx     context.Context
	tasks   sync.WaitGroup
	// load is closed when the clients are to stop.
	load    chan struct{}
	clients sync.WaitGroup
	logs    []*Log
}

// Run runs a scenario and returns its history; an error means that the group didn't even start or stop. It must be called inside a bubble.
func Run(s Scenario) (*History, error) {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	fastest := 0.0
	if s.FastClocks {
		fastest = crystal
	}
	r := &run{Scenario: s, world: NewWorld(s.Members, s.Timing, s.Limits), history: NewHistory(fastest), ctx: ctx, load: make(chan struct{})}
	rng := r.random(0)
	r.world.DiskDelay = diskDelay(r.random(2))
	for _, id := range r.world.IDs() {
		if err := r.world.Start(id, r.clock(rng)); err != nil {
			return nil, err
		}
	}
	if !r.world.Ready(time.Minute) {
		return nil, errors.Join(errors.New("the group isn't ready after a minute"), r.world.Close())
	}
	r.work()
	r.faults(r.random(1))
	close(r.load)
	r.clients.Wait()
	r.settle()
	cancel()
	r.tasks.Wait()
	err := r.world.Close()
	r.history.CheckClock()
	return r.history, err
}

// diskDelay makes writes that take a millisecond or two, and now and then as long as a busy disk makes them.
func diskDelay(rng *rand.Rand) func(string) time.Duration {
	var mu sync.Mutex
	return func(string) time.Duration {
		mu.Lock()
		defer mu.Unlock()
		if rng.IntN(20) == 0 {
			return time.Duration(rng.Int64N(int64(slowestWrite)))
		}
		return time.Duration(rng.Int64N(int64(2 * time.Millisecond)))
	}
}

func (r *run) random(stream uint64) *rand.Rand { return rand.New(rand.NewPCG(r.Seed, stream)) }

// clock makes a clock that began long ago, with a wrong wall time.
func (r *run) clock(rng *rand.Rand) *Clock {
	rate := 1 - rng.Float64()*crystal
	if r.FastClocks {
		rate += rng.Float64() * crystal
	}
	return NewClock(time.Duration(rng.Int64N(int64(1000*time.Hour))), rate+r.Gain, time.Duration(rng.Int64N(int64(48*time.Hour)))-24*time.Hour)
}

// work starts clients, watchers and observers.
func (r *run) work() {
	for i := range r.Clients {
		r.clients.Go(func() { r.client(i, r.random(100+uint64(i))) })
	}
	for _, id := range r.world.IDs() {
		l := &Log{Member: id}
		r.logs = append(r.logs, l)
		r.tasks.Go(func() { r.watch(l) })
	}
	r.tasks.Go(func() {
		digests := map[uint64][32]byte{}
		for r.pause(max(time.Second, r.For/looks)) {
			r.observe(digests)
		}
	})
}

func (r *run) pause(d time.Duration) bool { return sleep(r.ctx, d) == nil }

// observe looks at every member from outside.
func (r *run) observe(digests map[uint64][32]byte) {
	for _, id := range r.world.Running() {
		n := r.world.Node(id)
		if n == nil {
			continue
		}
		s := n.Local().State
		r.history.Observe(id, s)
		digest := s.Digest()
		if other, ok := digests[s.Revision()]; ok && other != digest {
			r.history.Report("%s: another digest at revision %d", id, s.Revision())
		}
		digests[s.Revision()] = digest
		if n.Diverged() {
			r.history.Report("%s calls itself diverged", id)
		}
		select {
		case err := <-n.Fatal():
			r.history.Report("%s would stop: %v", id, err)
		default:
		}
	}
}

// faults breaks things until the scenario is over, and heals them.
func (r *run) faults(rng *rand.Rand) {
	ends := time.Now().Add(r.For)
	for time.Now().Before(ends) {
		if r.Calm == 0 {
			r.pause(time.Until(ends))
			break
		}
		r.pause(time.Duration(rng.Int64N(int64(r.Calm))))
		r.history.mu.Lock()
		r.history.Faults++
		r.history.mu.Unlock()
		r.fault(rng)
	}
	r.world.Network.Heal()
	for _, id := range r.world.IDs() {
		if r.world.Node(id) == nil {
			if err := r.world.Start(id, r.clock(rng)); err != nil {
				r.history.Report("start %s: %v", id, err)
			}
		}
	}
}

func (r *run) fault(rng *rand.Rand) {
	ids := r.world.IDs()
	victim := ids[rng.IntN(len(ids))]
	for _, id := range ids {
		// Leaders are the more interesting half of the victims.
		if n := r.world.Node(id); n != nil && n.IsLeader() && rng.IntN(2) == 0 {
			victim = id
		}
	}
	length := time.Duration(rng.Int64N(int64(r.Calm)))
	switch rng.IntN(8) {
	case 0, 1:
		r.world.Kill(victim)
		r.pause(length)
		if err := r.world.Start(victim, r.clock(rng)); err != nil {
			r.history.Report("start %s: %v", victim, err)
		}
		return
	case 2:
		if err := r.world.Stop(r.ctx, victim); err != nil {
			r.history.Report("stop %s: %v", victim, err)
		}
		if err := r.world.Start(victim, r.clock(rng)); err != nil {
			r.history.Report("start %s: %v", victim, err)
		}
	case 3:
		for _, id := range ids {
			r.world.Network.Cut(victim, id)
			r.world.Network.Cut(id, victim)
		}
	case 4:
		// One direction only: the victim hears and isn't heard, or the other way round.
		in := rng.IntN(2) == 0
		for _, id := range ids {
			if in {
				r.world.Network.Cut(id, victim)
			} else {
				r.world.Network.Cut(victim, id)
			}
		}
	case 5:
		for _, from := range ids {
			for _, to := range ids {
				r.world.Network.Slow(from, to, time.Duration(rng.Int64N(int64(100*time.Millisecond))), 10*time.Millisecond)
			}
		}
	case 6:
		if n := r.world.Node(victim); n != nil {
			ctx, cancel := context.WithTimeout(r.ctx, attemptTimeout)
			// It may well fail: the network may be anything.
			_, _ = n.TransferLeadership(ctx, "")
			cancel()
		}
	case 7:
		if c := r.world.Clock(victim); c != nil {
			c.SetWall(time.Duration(rng.Int64N(int64(1000*time.Hour))) - 500*time.Hour)
			c.SetRate(0)
			r.pause(length)
			c.SetRate(1 - crystal*rng.Float64())
		}
	}
	r.pause(length)
	r.world.Network.Heal()
}

// settle waits until the healed group is whole again and compares what everybody has.
func (r *run) settle() {
	healed := time.Now()
	if !r.world.Ready(10 * time.Second) {
		r.history.Report("the healed group isn't ready after 10 s")
		return
	}
	ids := r.world.IDs()
	o := r.write("last", ids[0], &logv1.Command{Body: &logv1.Command_Tick{Tick: &logv1.Tick{}}})
	if o == nil || time.Since(healed) > 10*time.Second {
		r.history.Report("a write took %v after healing", time.Since(healed))
		return
	}
	last := r.agree(o.GetRevision())
	if last == nil {
		r.history.Report("the members were never seen at one revision")
		return
	}
	r.history.CheckPublished(last)
	// Watchers get what was applied before they are compared.
	r.pause(time.Second)
	r.history.CheckLogs(r.logs, o.GetRevision()-1)
}

// agree waits until every member was seen at one revision, at least the given one, with one digest. Something may still move them on all the time.
func (r *run) agree(least uint64) (last *fsm.State) {
	digests, seen := map[uint64][32]byte{}, map[uint64]map[string]bool{}
	ids := r.world.IDs()
	Until(20*time.Second, func() bool {
		for _, id := range ids {
			s := r.world.Node(id).Local().State
			at := s.Revision()
			if at < least || seen[at][id] {
				continue
			}
			digest := s.Digest()
			if other, ok := digests[at]; ok && other != digest {
				r.history.Report("%s: another digest at revision %d", id, at)
			}
			digests[at] = digest
			if seen[at] == nil {
				seen[at] = map[string]bool{}
			}
			if seen[at][id] = true; len(seen[at]) == len(ids) {
				last = s
			}
		}
		return last != nil
	})
	return last
}
