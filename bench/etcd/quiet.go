package main

import (
	"context"
	"errors"
	"os"
	"time"

	"quorate/bench/process"
)

const (
	// disturbed is the share of the machine above which what others do there is no longer noise: a load is then measured again.
	disturbed = 0.1
	// quietLook is how long is looked whether the machine is quiet.
	quietLook = 200 * time.Millisecond
)

// usage is what the members of a group, this process, and the whole machine have taken of processor time.
type usage struct {
	at                        time.Time
	servers, callers, machine time.Duration
}

func usageOf(g group) (u usage, err error) {
	u.at = time.Now()
	for i := range g.addresses() {
		d, err := g.process(i).CPU()
		if err != nil {
			return u, err
		}
		u.servers += d
	}
	var callersErr, machineErr error
	u.callers, callersErr = process.ID(os.Getpid()).CPU()
	u.machine, machineErr = process.Busy()
	return u, errors.Join(callersErr, machineErr)
}

// others is the share of the machine that everything else has taken since.
func (u usage) others(since usage) float64 {
	own := u.servers - since.servers + u.callers - since.callers
	return max(process.Share(u.machine-since.machine-own, u.at.Sub(since.at)), 0)
}

// awaitQuiet waits until others leave the machine alone, for as long as the flags allow.
func (b *bench) awaitQuiet(ctx context.Context, g group) error {
	for began := time.Now(); time.Since(began) < b.patience; {
		before, err := usageOf(g)
		if err != nil {
			return err
		}
		select {
		case <-time.After(quietLook):
		case <-ctx.Done():
			return ctx.Err()
		}
		after, err := usageOf(g)
		if err != nil {
			return err
		}
		if after.others(before) <= disturbed {
			return nil
		}
	}
	return nil
}
