package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gopcua/opcua/id"
	"github.com/gopcua/opcua/ua"

	"quorate/bench/client"
	"quorate/opcua/wire"
)

// readNode is ServiceLevel, which every server has.
const readNode = id.Server_ServiceLevel

// reads is what reading came to.
type reads struct {
	count   float64
	elapsed time.Duration
	cpu     time.Duration // of the server
}

func (r reads) perSecond() float64    { return r.count / r.elapsed.Seconds() }
func (r reads) perCPUSecond() float64 { return r.count / r.cpu.Seconds() }

// cpuPer100k is what a hundred thousand reads cost the server, in seconds of one core.
func (r reads) cpuPer100k() float64 { return 1e5 * r.cpu.Seconds() / r.count }

// measureReads lets n clients read one value a call, each as soon as it has the last answer. Any failure ends it.
func measureReads(ctx context.Context, s *subject, t client.Options, n int, warmup, duration time.Duration) (r reads, err error) {
	clients, err := connectAll(ctx, t, n)
	if err != nil {
		return r, err
	}
	var stop atomic.Bool
	var readers sync.WaitGroup
	counts := make([]paddedCount, n)
	failures := make([]error, n)
	for i, c := range clients {
		readers.Go(func() {
			if failures[i] = c.read(&stop, &counts[i].n); failures[i] == nil {
				failures[i] = c.end()
			}
		})
	}
	err = pause(ctx, warmup)
	cpuBefore, cpuErr := s.process.CPU()
	began, before := time.Now(), total(counts)
	err = errors.Join(err, cpuErr, pause(ctx, duration))
	cpuAfter, cpuErr := s.process.CPU()
	r = reads{count: float64(total(counts) - before), elapsed: time.Since(began), cpu: cpuAfter - cpuBefore}
	stop.Store(true)
	readers.Wait()
	err = errors.Join(err, cpuErr, errors.Join(failures...))
	if err == nil && (r.count == 0 || r.cpu <= 0) {
		err = fmt.Errorf("%v reads took %v of the server's processor time", r.count, r.cpu)
	}
	return r, err
}

// paddedCount has a cache line of its own, so that counting costs the load generator nothing.
type paddedCount struct {
	n atomic.Int64
	_ [56]byte
}

func total(counts []paddedCount) (sum int64) {
	for i := range counts {
		sum += counts[i].n.Load()
	}
	return sum
}

// read reads until it is told to stop. The request is encoded once; of each response the result is checked, and of the first
// the value.
func (c *session) read(stop *atomic.Bool, count *atomic.Int64) error {
	req, err := wire.AppendMessage(nil, &ua.ReadRequest{
		RequestHeader:      c.Header(),
		TimestampsToReturn: ua.TimestampsToReturnBoth,
		NodesToRead:        []*ua.ReadValueID{{NodeID: ua.NewNumericNodeID(0, readNode), AttributeID: ua.AttributeIDValue}},
	})
	if err != nil {
		return err
	}
	for first := true; !stop.Load(); first = false {
		if err := c.Send(req); err != nil {
			return err
		}
		body, err := c.Receive()
		if err != nil {
			return err
		}
		if first {
			var resp ua.ReadResponse
			if err := client.Decode(body, &resp); err != nil {
				return err
			}
			if len(resp.Results) != 1 || resp.Results[0].Status != ua.StatusOK {
				return fmt.Errorf("ServiceLevel reads %v", resp.Results)
			}
		}
		if err := checkRead(body); err != nil {
			return err
		}
		count.Add(1)
	}
	return nil
}

// resultAt is where the ServiceResult of a response is: behind type id, timestamp and request handle (Part 4 §7.34).
const resultAt = 4 + 8 + 4

func checkRead(body []byte) error {
	if len(body) < resultAt+4 || client.TypeOf(body) != id.ReadResponse_Encoding_DefaultBinary {
		return fmt.Errorf("a read was answered with a message of type %d", client.TypeOf(body))
	}
	if status := ua.StatusCode(binary.LittleEndian.Uint32(body[resultAt:])); status != ua.StatusOK {
		return status
	}
	return nil
}

// pause waits, unless ctx ends before.
func pause(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
