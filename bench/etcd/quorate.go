package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"quorate/bench/process"
	"quorate/devgroup"
	quoratev1 "quorate/proto/quorate/v1"
)

// createBatch is how many partitions one call creates, the most that are allowed.
const createBatch = 1000

// placements are where the partitions of loads live, by turns.
var placements = [2]string{"a", "b"}

// quorate is a group of Quorate, as `quorate dev --processes` starts it, with its demo topology.
//
// A write is SetPlacement of a partition, which moves it to the other placement, with a note that makes the request as long as etcd's. A read is
// GetPartition.
type quorate struct {
	*devgroup.Group
	note     string
	requests atomic.Uint64
	// elsewhere says which partitions are at the second placement.
	elsewhere []bool
}

func startQuorate(store string) func(context.Context, *bench, string) (group, error) {
	return func(ctx context.Context, b *bench, dir string) (group, error) {
		g, err := devgroup.Start(ctx, devgroup.Options{
			Binary: b.quorate, Data: filepath.Join(dir, "group"), BasePort: b.port, Set: []string{"storage.logStore=" + store},
		})
		if err != nil {
			return nil, err
		}
		return newQuorate(g), nil
	}
}

func newQuorate(g *devgroup.Group) *quorate {
	q := &quorate{Group: g}
	// The length of a note has itself a length of two bytes from 128 on.
	q.note = strings.Repeat("x", 128)
	q.note = strings.Repeat("x", 128+requestSize()-proto.Size(q.setPlacement(0, placements[1])))
	return q
}

func partitionID(key int) string { return fmt.Sprintf("p%07d", key) }

// requestID is one that no other request of the group has, and of one length.
func (q *quorate) requestID() string {
	return "b" + strconv.FormatUint(1_000_000_000+q.requests.Add(1), 10)
}

func (q *quorate) setPlacement(key int, placement string) *quoratev1.SetPlacementRequest {
	return &quoratev1.SetPlacementRequest{RequestId: q.requestID(), Partition: partitionID(key), Placement: placement, Note: q.note}
}

func (q *quorate) addresses() (all []string) {
	for _, m := range q.Members {
		all = append(all, m.GRPC)
	}
	return all
}

func (q *quorate) index(id string) (int, error) {
	for i, m := range q.Members {
		if m.ID == id {
			return i, nil
		}
	}
	return 0, fmt.Errorf("no member %q", id)
}

func (q *quorate) leader(ctx context.Context) (int, error) {
	ctx, cancel := context.WithTimeout(ctx, stepLimit)
	defer cancel()
	m, err := q.Leader(ctx)
	if err != nil {
		return 0, err
	}
	return q.index(m.ID)
}

func (q *quorate) process(member int) process.ID { return process.ID(q.PID(q.Members[member].ID)) }

func (q *quorate) stop() error { return q.Stop() }

func (q *quorate) prepare(ctx context.Context, keys int) error {
	leader, err := q.leader(ctx)
	if err != nil {
		return err
	}
	conns, err := dial(q.addresses()[leader])
	if err != nil {
		return err
	}
	defer closeAll(conns)
	q.elsewhere = make([]bool, keys)
	for first := 0; first < keys; first += createBatch {
		if err := q.create(ctx, conns[0], first, min(createBatch, keys-first)); err != nil {
			return err
		}
	}
	return nil
}

// create creates partitions at the first placement.
func (q *quorate) create(ctx context.Context, conn *grpc.ClientConn, first, count int) error {
	ids := make([]string, count)
	for i := range ids {
		ids[i] = partitionID(first + i)
	}
	_, err := quoratev1.NewPartitionServiceClient(conn).CreatePartitions(ctx, &quoratev1.CreatePartitionsRequest{
		RequestId: q.requestID(), Ids: ids, Placement: placements[0],
	})
	return err
}

func (q *quorate) link(conn *grpc.ClientConn) link {
	return &quorateLink{q, quoratev1.NewPartitionServiceClient(conn)}
}

type quorateLink struct {
	group      *quorate
	partitions quoratev1.PartitionServiceClient
}

func (c *quorateLink) write(ctx context.Context, key int) error {
	to := !c.group.elsewhere[key]
	placement := placements[0]
	if to {
		placement = placements[1]
	}
	if _, err := c.partitions.SetPlacement(ctx, c.group.setPlacement(key, placement)); err != nil {
		return err
	}
	c.group.elsewhere[key] = to
	return nil
}

func (c *quorateLink) read(ctx context.Context, key int) error {
	got, err := c.partitions.GetPartition(ctx, &quoratev1.GetPartitionRequest{Partition: partitionID(key)})
	if err == nil && got.GetPartition().GetId() == "" {
		err = errors.New("an answer without the partition")
	}
	return err
}

// probe creates a partition, which nothing else does.
func (c *quorateLink) probe(ctx context.Context) error {
	id := c.group.requestID()
	_, err := c.partitions.CreatePartitions(ctx, &quoratev1.CreatePartitionsRequest{RequestId: id, Ids: []string{id}, Placement: placements[0]})
	return err
}

func (q *quorate) kill(ctx context.Context, member int) error {
	return q.Kill(ctx, q.Members[member].ID)
}

func (q *quorate) restart(ctx context.Context, member int) error {
	m := q.Members[member]
	if err := q.Restart(m.ID); err != nil {
		return err
	}
	if err := q.Ready(ctx, m.ID); err != nil {
		return err
	}
	conns, err := dial(m.GRPC)
	if err != nil {
		return err
	}
	defer closeAll(conns)
	return until(ctx, m.ID+" reads", func(ctx context.Context) error {
		_, err := quoratev1.NewPartitionServiceClient(conns[0]).ListPlacements(ctx, &quoratev1.ListPlacementsRequest{})
		return err
	})
}

// handOver asks the leader to give its place to whom it likes. A write that is sent once that has been answered is one of the new leader.
func (q *quorate) handOver(ctx context.Context, conns []*grpc.ClientConn) (time.Duration, error) {
	before, err := q.leader(ctx)
	if err != nil {
		return 0, err
	}
	began := time.Now()
	moved, err := quoratev1.NewMemberServiceClient(conns[before]).TransferLeadership(ctx, &quoratev1.TransferLeadershipRequest{})
	if err != nil {
		return 0, err
	}
	leader, err := q.index(moved.GetLeader())
	if err != nil || leader == before {
		return 0, fmt.Errorf("the leadership of %s went to %q", q.Members[before].ID, moved.GetLeader())
	}
	err = q.link(conns[leader]).probe(ctx)
	return time.Since(began), err
}

// resolve measures how many partitions Quorate resolves linearizably, 100 at random in one call. Etcd has nothing like it.
func (b *bench) resolve(ctx context.Context, q *quorate, partitions int) ([]sample, error) {
	ids := make([][]string, b.keys)
	random := rand.New(rand.NewPCG(1, uint64(partitions)))
	for call := range ids {
		for range resolveKeys {
			ids[call] = append(ids[call], partitionID(random.IntN(partitions)))
		}
	}
	l, err := b.load(ctx, q, min(resolveCallers, b.callers), toLeader, func(ctx context.Context, l link, key int) error {
		got, err := l.(*quorateLink).partitions.Resolve(ctx, &quoratev1.ResolveRequest{Partitions: ids[key]})
		if err == nil && len(got.GetResolutions()) != resolveKeys {
			err = fmt.Errorf("%d resolutions instead of %d", len(got.GetResolutions()), resolveKeys)
		}
		return err
	})
	name := fmt.Sprintf("resolve_%d_keys", resolveKeys)
	return []sample{
		{name: name, value: l.rate() * resolveKeys, unit: "keys/s"}, {name: name + "_p99", value: l.percentile(99), unit: "ms"},
		{name: name + "_cpu_servers", value: l.each(l.servers) / resolveKeys, unit: "us/key"}, {name: name + "_others", value: 100 * l.others, unit: "%"},
	}, err
}

const (
	// resolveKeys is how many partitions one call resolves, as platform.md §9 has it, and resolveCallers how many callers do that at once.
	resolveKeys    = 100
	resolveCallers = 64
)
