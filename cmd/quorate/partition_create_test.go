package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"

	"quorate/fsm"
	quoratev1 "quorate/proto/quorate/v1"
)

// creating takes creations, and remembers answers as a group does.
type creating struct {
	quoratev1.PartitionServiceClient
	// before is what happens when a batch, counted from 1, comes in.
	before func(n int) error

	mu    sync.Mutex
	ids   map[string]bool
	calls []string
	most  int
	now   int
}

func (c *creating) CreatePartitions(ctx context.Context, r *quoratev1.CreatePartitionsRequest, _ ...grpc.CallOption) (*quoratev1.CreatePartitionsResponse, error) {
	c.mu.Lock()
	c.calls = append(c.calls, r.GetRequestId())
	c.now++
	c.most = max(c.most, c.now)
	n := len(c.calls)
	c.mu.Unlock()
	err := c.before(n)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now--
	if err == nil {
		err = ctx.Err()
	}
	if err != nil {
		return nil, err
	}
	for _, id := range r.GetIds() {
		if c.ids[id] {
			return nil, &remoteError{err: refusal(codes.FailedPrecondition, fsm.ReasonPartitionExists, "there is "+id, nil, "ids")}
		}
	}
	for _, id := range r.GetIds() {
		c.ids[id] = true
	}
	return &quoratev1.CreatePartitionsResponse{Epoch: 1}, nil
}

func (c *creating) Resolve(_ context.Context, r *quoratev1.ResolveRequest, _ ...grpc.CallOption) (*quoratev1.ResolveResponse, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	answer := &quoratev1.ResolveResponse{}
	for _, id := range r.GetPartitions() {
		found := &quoratev1.Resolution{Partition: id}
		if c.ids[id] {
			found.Phase = quoratev1.PartitionPhase_PARTITION_PHASE_ACTIVE
		}
		answer.Resolutions = append(answer.Resolutions, found)
	}
	return answer, nil
}

func manyIDs(n int) []string {
	ids := make([]string, n)
	for i := range ids {
		ids[i] = fmt.Sprintf("p%05d", i)
	}
	return ids
}

func TestCreateIsResumable(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const all = 20*fsm.MaxPartitionBatch + 1
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		group := &creating{ids: map[string]bool{}, before: func(n int) error {
			time.Sleep(time.Millisecond) // Virtual: all callers have come this far before the first goes on.
			if n == 7 {
				cancel()
			}
			return nil
		}}
		create := func(ctx context.Context, skip bool) (string, string, error) {
			var out, said bytes.Buffer
			c := &creation{o: &options{std: streams{out: &out, err: &said}, output: outputTable}, skipExisting: skip, base: "base"}
			c.request.Placement = "east"
			err := c.run(ctx, group, manyIDs(all), func() string { return "AGAIN" })
			return out.String(), said.String(), err
		}
		out, said, err := create(ctx, false)
		// What was under way, and the batch next in line, have ended, so that what it says is so.
		if want := fmt.Sprintf("quorate: %d of %d are created; go on with: AGAIN\n", len(group.ids), all); !errors.Is(err, context.Canceled) || said != want || out != "" {
			t.Errorf("error %v, %q, want %q, and %q", err, said, want, out)
		}
		if n := len(group.ids); n < 7*fsm.MaxPartitionBatch || n > (7+createBatches+1)*fsm.MaxPartitionBatch || n%fsm.MaxPartitionBatch != 0 || group.most > createBatches {
			t.Errorf("%d are created, %d batches at a time", n, group.most)
		}
		if !slices.Contains(group.calls, "base/1") || !slices.Contains(group.calls, "base/7") {
			t.Errorf("request ids %q", group.calls)
		}
		// A group that has forgotten the request ids refuses what is there; and one partition of a batch may be there alone.
		group.ids["p20000"] = true
		before := len(group.ids)
		group.before = func(int) error { return nil }
		out, _, err = create(t.Context(), true)
		want := fmt.Sprintf("created %d partitions at east, epoch 1; %d were there already\n", all-before, before)
		if err != nil || out != want || len(group.ids) != all {
			t.Errorf("error %v, %q, want %q; %d are there", err, out, want, len(group.ids))
		}
	})
}

func TestCreateStopsAtAFailure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		// Time is virtual, and goes on only when all callers wait: those that answer together have been heard before the next answer.
		group := &creating{ids: map[string]bool{"p03500": true}, before: func(int) error {
			time.Sleep(time.Millisecond)
			return nil
		}}
		var out, said bytes.Buffer
		c := &creation{o: &options{std: streams{out: &out, err: &said}, output: outputTable}, base: "base"}
		err := c.run(t.Context(), group, manyIDs(100*fsm.MaxPartitionBatch), func() string { return "AGAIN" })
		if reasonOf(unwrapped(err)) != fsm.ReasonPartitionExists || exitCode(err) != exitPrecondition || len(group.calls) > 2*createBatches+1 {
			t.Errorf("error %v after %d calls", err, len(group.calls))
		}
		if want := fmt.Sprintf("quorate: %d of 100000 are created; once the reason is gone: AGAIN\n", len(group.ids)-1); said.String() != want {
			t.Errorf("said %q, want %q", said.String(), want)
		}
	})
}
