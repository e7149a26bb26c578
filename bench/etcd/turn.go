package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log"
	"os"
	"path/filepath"
	"slices"
	"time"

	"google.golang.org/grpc"

	"quorate/bench/process"
	"quorate/devgroup"
)

// startLimit is how long a group may take until it is ready to be measured, and stepLimit anything else that is waited for.
const (
	startLimit = time.Minute
	stepLimit  = 30 * time.Second
)

// group is three members of one system, each in a process of its own. Members are numbered from 0.
type group interface {
	// addresses are those of the members' gRPC servers.
	addresses() []string
	// leader returns who leads.
	leader(ctx context.Context) (int, error)
	// prepare makes the keys that loads write and read.
	prepare(ctx context.Context, keys int) error
	// link returns a way to ask over a connection to one member.
	link(conn *grpc.ClientConn) link
	// kill ends a member with SIGKILL, and restart brings it back and waits until it takes part again.
	kill(ctx context.Context, member int) error
	restart(ctx context.Context, member int) error
	// handOver lets the leader give its place to another member, and returns how long it was from then until the first write of the new leader.
	handOver(ctx context.Context, conns []*grpc.ClientConn) (time.Duration, error)
	// process is that of a member which runs.
	process(member int) process.ID
	stop() error
}

// link asks one member.
type link interface {
	// write commits a change of a key, and read reads one linearizably. Loads never write one key at the same time twice.
	write(ctx context.Context, key int) error
	read(ctx context.Context, key int) error
	// probe commits something, whatever became of probes before.
	probe(ctx context.Context) error
}

// system is what can have a turn: etcd, or Quorate with one of its log stores.
type system struct {
	name  string
	start func(ctx context.Context, b *bench, dir string) (group, error)
}

const (
	storeBolt = "bolt"
	storeWAL  = "wal"
	etcdName  = "etcd"
)

var systemNames = []string{storeBolt, storeWAL, etcdName}

// turnsOf returns who has a turn in a round. Each second one runs backwards.
func (b *bench) turnsOf(round int) (list []system) {
	for _, name := range b.systems {
		if name == etcdName {
			list = append(list, system{name, startEtcd})
		} else {
			list = append(list, system{name, startQuorate(name)})
		}
	}
	if round%2 == 1 {
		slices.Reverse(list)
	}
	return list
}

// store is the log store of what is measured without etcd.
func (b *bench) store() string {
	for _, name := range b.systems {
		if name != etcdName {
			return name
		}
	}
	return storeBolt
}

// sample is one measurement of one turn.
type sample struct {
	name  string
	value float64
	unit  string
	// compare asks for the ratio to etcd.
	compare bool
	// series is of what is measured several times in a turn: its name gets a percentile.
	series bool
}

// inTurns lets each system have its turns, and prints medians.
func (b *bench) inTurns(ctx context.Context, measure func(ctx context.Context, s system, g group) ([]sample, error)) error {
	t := newTable()
	for round := range b.rounds {
		for _, s := range b.turnsOf(round) {
			samples, err := b.turn(ctx, s, b.keys, measure)
			if err != nil {
				return fmt.Errorf("round %d, %s: %w", round+1, s.name, err)
			}
			for _, sample := range samples {
				t.add(s.name, sample)
			}
		}
	}
	t.print(b.result)
	return nil
}

// measureAlone measures what only Quorate has, and prints it.
func (b *bench) measureAlone(ctx context.Context, rounds, keys int, measure func(context.Context, group) ([]sample, error)) error {
	t := newTable()
	for range rounds {
		samples, err := b.turn(ctx, system{b.store(), startQuorate(b.store())}, keys, func(ctx context.Context, _ system, g group) ([]sample, error) {
			return measure(ctx, g)
		})
		if err != nil {
			return err
		}
		for _, s := range samples {
			t.add(alone, s)
		}
	}
	t.print(b.result)
	return nil
}

// turn starts a group, makes keys for it, measures it and ends it.
func (b *bench) turn(ctx context.Context, s system, keys int, measure func(context.Context, system, group) ([]sample, error)) (samples []sample, err error) {
	b.started++
	dir := filepath.Join(b.dir, fmt.Sprintf("%d-%s", b.started, s.name))
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	began := time.Now()
	starting, cancel := context.WithTimeout(ctx, startLimit)
	defer cancel()
	g, err := s.start(starting, b, dir)
	if err != nil {
		return nil, fmt.Errorf("start: %w", errors.Join(err, complaints(dir)))
	}
	defer func() { err = errors.Join(err, g.stop()) }()
	if err := g.prepare(starting, keys); err != nil {
		return nil, fmt.Errorf("prepare: %w", errors.Join(err, complaints(dir)))
	}
	started := time.Since(began)
	if samples, err = measure(ctx, s, g); err != nil {
		err = errors.Join(err, complaints(dir)) // Before they have to say that they stop.
	}
	if b.chatter {
		log.Printf("turn %d, %s: started in %v, %v", b.started, s.name, started.Round(time.Millisecond), samples)
	}
	return samples, err
}

// complaints are the ends of the members' logs, as errors.
func complaints(dir string) error {
	var errs []error
	_ = filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
		if err != nil || filepath.Ext(path) != ".log" {
			return nil
		}
		if b, err := os.ReadFile(path); err == nil {
			errs = append(errs, fmt.Errorf("%s: %s", filepath.Base(path), b[max(0, len(b)-logTail):]))
		}
		return nil
	})
	return errors.Join(errs...)
}

// logTail is how much of a member's log an error shows, in bytes.
const logTail = 2000

// dial connects to members, as often as asked, the same way for every system.
func dial(addresses ...string) (conns []*grpc.ClientConn, err error) {
	for _, a := range addresses {
		conn, err := devgroup.Dial(devgroup.Member{GRPC: a})
		if err != nil {
			closeAll(conns)
			return nil, err
		}
		conns = append(conns, conn)
	}
	return conns, nil
}

func closeAll(conns []*grpc.ClientConn) {
	for _, c := range conns {
		_ = c.Close()
	}
}

// until waits for a condition that nothing tells of.
func until(ctx context.Context, what string, holds func(ctx context.Context) error) error {
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		one, cancel := context.WithTimeout(ctx, time.Second)
		err := holds(one)
		cancel()
		if err == nil {
			return nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("waiting until %s: %w", what, errors.Join(ctx.Err(), err))
		}
	}
}
