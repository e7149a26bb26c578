package main

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"time"

	"quorate/client"
)

// gateChunk is how many checks one goroutine makes before it looks at the clock.
const gateChunk = 1000

// gates measures checks that a gate answers from memory under its lease, with as many goroutines as there are processors. Each checks all partitions by
// turns, so that few of them are in the processor's caches already.
func (b *bench) gates(ctx context.Context) error {
	return b.measureAlone(ctx, b.rounds, b.keys, b.gateChecks)
}

func (b *bench) gateChecks(ctx context.Context, g group) (samples []sample, err error) {
	c, err := client.Open(ctx, client.Options{Endpoints: g.addresses()})
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, c.Close()) }()
	gate, err := c.Gate(ctx, client.GateOptions{ID: "bench"})
	if err != nil {
		return nil, err
	}
	defer func() {
		closing, cancel := context.WithTimeout(context.WithoutCancel(ctx), stepLimit)
		defer cancel()
		err = errors.Join(err, gate.Close(closing))
	}()
	ids := make([]string, b.keys)
	for key := range ids {
		ids[key] = partitionID(key)
	}
	// Once around, so that all are remembered.
	if err := until(ctx, "the gate remembers all partitions", func(ctx context.Context) error {
		for _, id := range ids {
			pass, err := gate.Enter(ctx, id)
			if err != nil {
				return err
			}
			pass.Done()
		}
		if s := gate.Stats(); s.Remembered < len(ids) || s.Lease <= 0 {
			return fmt.Errorf("%d of %d are remembered, under a lease of %v", s.Remembered, len(ids), s.Lease)
		}
		return nil
	}); err != nil {
		return nil, err
	}
	before := gate.Stats()
	checked, elapsed, err := b.check(ctx, gate, ids)
	if err != nil {
		return nil, err
	}
	after := gate.Stats()
	return []sample{
		{name: "gate_checks", value: float64(checked) / elapsed.Seconds(), unit: "checks/s"},
		{name: "gate_checks_asked", value: 100 * float64(after.Misses-before.Misses) / float64(checked), unit: "%"},
	}, nil
}

// check lets writes in and out again until time is up.
func (b *bench) check(ctx context.Context, gate *client.Gate, ids []string) (checked int, elapsed time.Duration, err error) {
	workers := runtime.GOMAXPROCS(0)
	counts, failures := make([]int, workers), make([]error, workers)
	began := time.Now()
	var wg sync.WaitGroup
	for w := range workers {
		wg.Go(func() {
			at := w * len(ids) / workers
			for time.Since(began) < b.duration && ctx.Err() == nil {
				for range gateChunk {
					pass, err := gate.Enter(ctx, ids[at])
					if err != nil {
						failures[w] = err
						return
					}
					pass.Done()
					if at++; at == len(ids) {
						at = 0
					}
				}
				counts[w] += gateChunk
			}
		})
	}
	wg.Wait()
	elapsed = time.Since(began)
	for _, n := range counts {
		checked += n
	}
	return checked, elapsed, errors.Join(errors.Join(failures...), ctx.Err())
}
