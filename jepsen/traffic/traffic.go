package traffic

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"slices"
	"strconv"
	"time"

	"quorate/client"
	"quorate/jepsen/history"
	"quorate/jepsen/lab"
)

const (
	// changeLimit and readLimit are how long one operation may take, with all its attempts.
	changeLimit = 6 * time.Second
	readLimit   = 3 * time.Second
)

// Workload is the traffic of one noun.
type Workload struct {
	Name string
	// Setup makes what the workload needs, before anything is broken.
	Setup func(ctx context.Context, e *Env) error
	// Run works until ctx ends, and records what it does. An error is of the harness itself, and not of the group.
	Run func(ctx context.Context, e *Env) error
	// Quiet does one of each operation: nothing is broken any more, so each has to succeed.
	Quiet func(ctx context.Context, e *Env, as string) error
	// Final reads all that there is.
	Final func(ctx context.Context, e *Env, as string) error
}

// All are the workloads, in the order in which they are set up, and read at the end: watches are last, since they are told what others saw.
func All() []Workload {
	return []Workload{members(), topologies(), leases(), servings(), levels(), failovers(), maintenances(), partitions(), gates(), watches()}
}

// Only returns the workloads with the given names, in the order of all, and an error naming one that is none.
func Only(all []Workload, names []string) ([]Workload, error) {
	for _, name := range names {
		if !slices.Contains(Names(all), name) {
			return nil, fmt.Errorf("traffic: %q is none of %v", name, Names(all))
		}
	}
	return slices.DeleteFunc(slices.Clone(all), func(w Workload) bool { return !slices.Contains(names, w.Name) }), nil
}

// Names are the names of workloads.
func Names(all []Workload) []string {
	names := make([]string, len(all))
	for i, w := range all {
		names[i] = w.Name
	}
	return names
}

// Env is what workloads work with.
type Env struct {
	Log *history.Log
	Lab *lab.Lab
	// Group is the group through whichever member answers, and At through one member alone, by its id.
	Group *client.Client
	At    map[string]*client.Client
	// Binary is the quorate command.
	Binary string
	Seed   uint64
	// Rate is how many operations there are to be in a second, of all workloads together.
	Rate float64
	// Length is how long the run is to last.
	Length time.Duration

	shape shape
	// partitions are the ids of all partitions of the run.
	partitions []string
	stores     *stores
	// watcher is the watch that goes wherever it can.
	watcher *watcher
}

// NewEnv connects to the first members of a laboratory.
func NewEnv(ctx context.Context, l *lab.Lab, log *history.Log, seed uint64, rate float64, length time.Duration) (*Env, error) {
	e := &Env{Log: log, Lab: l, Binary: l.Options.Binary, Seed: seed, Rate: rate, Length: length, At: map[string]*client.Client{}, stores: newStores(log)}
	e.shape.away = map[string]bool{}
	var addresses []string
	for _, m := range l.Members[:l.Options.Members] {
		one, err := client.Open(ctx, client.Options{Endpoints: []string{m.GRPC}, TLS: l.TLS})
		if err != nil {
			return nil, errors.Join(err, e.Close())
		}
		e.At[m.ID] = one
		addresses = append(addresses, m.GRPC)
		e.shape.members = append(e.shape.members, m)
	}
	for i := range partitionCount {
		e.partitions = append(e.partitions, "p"+strconv.Itoa(i+1))
	}
	var err error
	if e.Group, err = client.Open(ctx, client.Options{Endpoints: addresses, TLS: l.TLS}); err != nil {
		return nil, errors.Join(err, e.Close())
	}
	return e, nil
}

// Close waits for the writes under way and ends the connections.
func (e *Env) Close() error {
	e.stores.wait()
	var errs []error
	for _, c := range e.At {
		errs = append(errs, c.Close())
	}
	if e.Group != nil {
		errs = append(errs, e.Group.Close())
	}
	return errors.Join(errs...)
}

// open connects one more client, as a process of its own would.
func (e *Env) open(ctx context.Context) (*client.Client, error) {
	var addresses []string
	for _, m := range e.shape.members {
		addresses = append(addresses, m.GRPC)
	}
	return client.Open(ctx, client.Options{Endpoints: addresses, TLS: e.Lab.TLS})
}

// random is a client's own source of chance.
func (e *Env) random(name string) *rand.Rand {
	h := fnv.New64a()
	_, _ = h.Write([]byte(name)) // It can't fail.
	return rand.New(rand.NewPCG(e.Seed, h.Sum64()))
}

// where picks the client through which an operation goes: one member, or the library's choice. The name is empty for that.
func (e *Env) where(r *rand.Rand) (*client.Client, string) {
	if r.IntN(4) == 0 {
		return e.Group, ""
	}
	m := e.shape.members[r.IntN(len(e.shape.members))]
	return e.At[m.ID], m.ID
}

// pace lets one client make operations at an even rate; what it could not make in time is not made up for.
type pace struct {
	every time.Duration
	next  time.Time
}

// pace returns that of one of some clients which together have a share of all operations.
func (e *Env) pace(share float64, clients int) *pace {
	return &pace{every: time.Duration(float64(clients) / (share * e.Rate) * float64(time.Second)), next: time.Now()}
}

// wait waits until the next operation is due; false means that the run is over.
func (p *pace) wait(ctx context.Context) bool {
	p.next = p.next.Add(p.every)
	if now := time.Now(); p.next.Before(now) {
		p.next = now
	}
	return Rest(ctx, time.Until(p.next))
}

// Rest waits; false means that the run is over.
func Rest(ctx context.Context, d time.Duration) bool {
	if d <= 0 {
		return ctx.Err() == nil
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// between is a random time from least to most.
func between(r *rand.Rand, least, most time.Duration) time.Duration {
	return least + time.Duration(r.Int64N(int64(most-least)+1))
}
