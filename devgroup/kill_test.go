package devgroup

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"

	quoratev1 "quorate/proto/quorate/v1"
)

const (
	killPort = 19100
	// writers is how many clients write while members are killed, and progress how many commands must be acknowledged
	// between one kill and the next.
	writers  = 8
	progress = 200
	// writeEvery paces one writer, so that the whole history stays within what a watch reaches back to.
	writeEvery = 5 * time.Millisecond
	// kills of the leader are timed, and the median must keep to failoverBudget (platform.md §1).
	kills          = 10
	failoverBudget = 600 * time.Millisecond
	testLimit      = 2 * time.Minute
)

// startForTest starts a group of this tree's binary, which ends with the test.
func startForTest(ctx context.Context, t *testing.T) *Group {
	t.Helper()
	dir := t.TempDir()
	binary, err := Built()
	if err != nil {
		t.Fatal(err)
	}
	var log Output
	g, err := Start(ctx, Options{Binary: binary, Data: filepath.Join(dir, "group"), BasePort: killPort, Log: &log})
	if err != nil {
		t.Fatalf("%v\n%s", err, log.String())
	}
	t.Cleanup(func() {
		if err := g.Stop(); err != nil {
			t.Error(err)
		}
		if t.Failed() {
			t.Logf("the members said:\n%s", log.String())
		}
	})
	return g
}

// clients holds a connection to each member.
type clients []*grpc.ClientConn

func dialAll(t *testing.T, members []Member) clients {
	t.Helper()
	var all clients
	for _, m := range members {
		conn, err := Dial(m)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close() })
		all = append(all, conn)
	}
	return all
}

// write sends one command until some member acknowledges it, always with the same request id, as a client should.
func (c clients) write(ctx context.Context, id string, first int) error {
	for i := first; ; i++ {
		callCtx, cancel := context.WithTimeout(ctx, time.Second)
		_, err := quoratev1.NewMaintenanceServiceClient(c[i%len(c)]).SetMaintenance(callCtx, &quoratev1.SetMaintenanceRequest{
			RequestId: id, Server: "m2", Active: true, Reason: id,
		})
		cancel()
		if err == nil {
			return nil
		}
		if ctx.Err() != nil {
			return fmt.Errorf("%s was never acknowledged: %w", id, err)
		}
	}
}

// history returns how often each request id changed the state, as one member tells it.
func history(ctx context.Context, conn *grpc.ClientConn, upTo uint64) (map[string]int, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	// The member may have been back for less time than the connection takes to find it.
	stream, err := quoratev1.NewEventServiceClient(conn).WatchEvents(ctx, &quoratev1.WatchEventsRequest{FromRevision: 1}, grpc.WaitForReady(true))
	if err != nil {
		return nil, err
	}
	seen := make(map[string]int)
	for {
		resp, err := stream.Recv()
		if err != nil {
			return nil, err
		}
		for _, e := range resp.GetEvents() {
			seen[e.GetRequestId()]++
		}
		if resp.GetHeader().GetRevision() >= upTo {
			return seen, nil
		}
	}
}

func TestKillLosesNoAcknowledgedCommand(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), testLimit)
	defer cancel()
	g := startForTest(ctx, t)
	conns := dialAll(t, g.Members)

	writing, stopWriting := context.WithCancel(ctx)
	defer stopWriting()
	var count atomic.Int64
	acknowledged := make([][]string, writers)
	var wg sync.WaitGroup
	for w := range writers {
		wg.Go(func() {
			for i := 0; writing.Err() == nil; i++ {
				id := fmt.Sprintf("kill-%d-%d", w, i)
				// Not `writing`: what was begun is carried through, so that its outcome is known.
				if err := conns.write(ctx, id, w); err != nil {
					t.Error(err)
					return
				}
				acknowledged[w] = append(acknowledged[w], id)
				count.Add(1)
				select {
				case <-writing.Done():
				case <-time.After(writeEvery):
				}
			}
		})
	}
	more := func() error {
		from := count.Load()
		return waitUntil(ctx, "the group goes on", func() bool { return count.Load() >= from+progress })
	}
	victims := slices.Clone(g.Members)
	leader, err := g.Leader(ctx)
	if err != nil {
		t.Fatal(err)
	}
	slices.SortStableFunc(victims, func(a, b Member) int {
		if a.ID == leader.ID {
			return -1
		}
		return 0
	})
	for _, m := range victims {
		if err := more(); err != nil {
			t.Fatal(err)
		}
		if err := g.Kill(ctx, m.ID); err != nil {
			t.Fatal(err)
		}
		if err := more(); err != nil {
			t.Fatal(err)
		}
		if err := g.Restart(m.ID); err != nil {
			t.Fatal(err)
		}
		if err := g.Ready(ctx, m.ID); err != nil {
			t.Fatal(err)
		}
	}
	stopWriting()
	wg.Wait()

	list, err := quoratev1.NewMaintenanceServiceClient(conns[0]).ListMaintenance(ctx, &quoratev1.ListMaintenanceRequest{})
	if err != nil {
		t.Fatal(err)
	}
	for i, conn := range conns {
		seen, err := history(ctx, conn, list.GetHeader().GetRevision())
		if err != nil {
			t.Fatalf("%s: %v", g.Members[i].ID, err)
		}
		for _, ids := range acknowledged {
			for _, id := range ids {
				if seen[id] != 1 {
					t.Errorf("%s: the acknowledged command %s took effect %d times", g.Members[i].ID, id, seen[id])
				}
			}
		}
	}
	t.Logf("%d commands were acknowledged through %d kills", count.Load(), len(victims))
}

func TestFirstWriteAfterKillOfLeader(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), testLimit)
	defer cancel()
	g := startForTest(ctx, t)
	var took []time.Duration
	for round := range kills {
		leader, err := g.Leader(ctx)
		if err != nil {
			t.Fatal(err)
		}
		others := dialAll(t, slices.DeleteFunc(slices.Clone(g.Members), func(m Member) bool { return m.ID == leader.ID }))
		// Both connections are up before the kill, as those of a client at work are.
		for i := range others {
			if err := others.write(ctx, fmt.Sprintf("before-%d-%d", round, i), i); err != nil {
				t.Fatal(err)
			}
		}
		began := time.Now()
		if err := g.Kill(ctx, leader.ID); err != nil {
			t.Fatal(err)
		}
		if err := others.write(ctx, fmt.Sprintf("after-%d", round), round); err != nil {
			t.Fatal(err)
		}
		took = append(took, time.Since(began))
		if err := g.Restart(leader.ID); err != nil {
			t.Fatal(err)
		}
		if err := g.Ready(ctx, leader.ID); err != nil {
			t.Fatal(err)
		}
	}
	slices.Sort(took)
	median := (took[(kills-1)/2] + took[kills/2]) / 2
	t.Logf("first write after the leader's kill: median %v, all %v", median, took)
	if median > failoverBudget {
		t.Errorf("the median is %v, the budget %v", median, failoverBudget)
	}
}
