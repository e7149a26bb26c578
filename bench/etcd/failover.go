package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"google.golang.org/grpc"
)

const (
	// probePause is the time between two probes.
	probePause = time.Millisecond
	// maxProbes bounds the probes that are not answered.
	maxProbes = 30_000
	// endPoll is how often is looked whether a process that was killed has ended.
	endPoll = 100 * time.Microsecond
)

// firstAnswer tries again and again, each time with a new call on the next connection, and returns how long it was since began until the first one was
// answered. A client that waited for the answer to one call would measure its own patience: what is sent to a follower that does not know yet that its
// leader is gone may be lost.
func firstAnswer(ctx context.Context, began time.Time, conns []*grpc.ClientConn, try func(ctx context.Context, conn *grpc.ClientConn) error) (time.Duration, error) {
	ctx, cancel := context.WithTimeout(ctx, stepLimit)
	defer cancel()
	answered := make(chan time.Time, maxProbes)
	tick := time.NewTicker(probePause)
	defer tick.Stop()
	var last error
	failed := make(chan error, maxProbes)
	for number := range maxProbes {
		go func() {
			if err := try(ctx, conns[number%len(conns)]); err != nil {
				failed <- err
				return
			}
			answered <- time.Now()
		}()
		select {
		case at := <-answered:
			return at.Sub(began), nil
		case <-ctx.Done():
			return 0, errors.Join(ctx.Err(), last)
		case <-tick.C:
		}
		select {
		case last = <-failed:
		default:
		}
	}
	return 0, fmt.Errorf("%d probes were not answered: %w", maxProbes, last)
}

// failovers kills leaders and lets them hand over, on a group that does nothing else.
func (b *bench) failovers(ctx context.Context) error {
	return b.inTurns(ctx, func(ctx context.Context, _ system, g group) (samples []sample, err error) {
		conns, err := dial(g.addresses()...)
		if err != nil {
			return nil, err
		}
		defer closeAll(conns)
		for range b.share(rowHandOver, b.handOvers) {
			one, cancel := context.WithTimeout(ctx, stepLimit)
			took, err := g.handOver(one, conns)
			cancel()
			if err != nil {
				return nil, fmt.Errorf("hand over: %w", err)
			}
			samples = append(samples, sample{name: "hand_over", value: milliseconds(took), unit: "ms", series: true})
		}
		for range b.share(rowFailover, b.kills) {
			took, err := failover(ctx, g, conns)
			if err != nil {
				return nil, fmt.Errorf("kill: %w", err)
			}
			samples = append(samples, sample{name: "failover", value: milliseconds(took), unit: "ms", series: true})
		}
		return samples, nil
	})
}

// share is how often something is done in each turn.
func (b *bench) share(row string, all int) int {
	if !b.wants(row) {
		return 0
	}
	return (all + b.rounds - 1) / b.rounds
}

// failover kills the leader, returns how long it was from then until the first write through the others, and brings it back.
func failover(ctx context.Context, g group, conns []*grpc.ClientConn) (took time.Duration, err error) {
	ctx, cancel := context.WithTimeout(ctx, startLimit)
	defer cancel()
	leader, err := g.leader(ctx)
	if err != nil {
		return 0, err
	}
	victim := g.process(leader)
	others := slices.Delete(slices.Clone(conns), leader, leader+1)
	began := time.Now()
	killed := make(chan error, 1)
	go func() { killed <- g.kill(ctx, leader) }()
	// What the leader answers with its last breath is not what is asked.
	for !victim.Ended() {
		if ctx.Err() != nil {
			return 0, errors.Join(ctx.Err(), <-killed)
		}
		time.Sleep(endPoll)
	}
	took, err = firstAnswer(ctx, began, others, func(ctx context.Context, conn *grpc.ClientConn) error {
		return g.link(conn).probe(ctx)
	})
	if err := errors.Join(err, <-killed); err != nil {
		return 0, err
	}
	return took, g.restart(ctx, leader)
}
