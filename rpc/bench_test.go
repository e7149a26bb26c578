package rpc

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"runtime"
	"slices"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/peer"

	"quorate/node"
	logv1 "quorate/proto/quorate/log/v1"
	quoratev1 "quorate/proto/quorate/v1"
)

// BenchmarkInterceptors measures what a change costs before and after the service sees it.
func BenchmarkInterceptors(b *testing.B) {
	n, _ := remembering()
	s, err := New(Config{Node: n, Audit: func(AuditRecord) {}})
	if err != nil {
		b.Fatal(err)
	}
	defer s.Shutdown(context.Background())
	b.Run("validate", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if err := s.validate(begin); err != nil {
				b.Fatal(err)
			}
		}
	})
	ctx := inProcessContext(b)
	info := &grpc.UnaryServerInfo{FullMethod: "/quorate.v1.LeaseService/BeginLease"}
	service := &leaseService{server: s}
	b.Run("all", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := s.unary(ctx, begin, info, func(ctx context.Context, request any) (any, error) { return service.BeginLease(ctx, begin) }); err != nil {
				b.Fatal(err)
			}
		}
	})
}

func inProcessContext(b *testing.B) context.Context {
	b.Helper()
	return peer.NewContext(context.Background(), &peer.Peer{Addr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 1}, AuthInfo: &connection{caller: anonymous("")}})
}

// The partitions of benchmarks (partitions.md §5), and how many places they are at.
const (
	benchPartitions = 1_000_000
	benchPlacements = 16
)

func benchPartition(i int) string { return fmt.Sprintf("partition-%07d", i) }

// fill creates the partitions of benchmarks.
func fill(b *testing.B, n *node.Node) {
	b.Helper()
	failures := make(chan error)
	batches := benchPartitions / 1000
	var next atomic.Int64
	for range 32 {
		go func() {
			for batch := int(next.Add(1)) - 1; batch < batches; batch = int(next.Add(1)) - 1 {
				ids := make([]string, 1000)
				for i := range ids {
					ids[i] = benchPartition(batch*1000 + i)
				}
				outcome, err := n.Propose(context.Background(), &logv1.Command{RequestId: fmt.Sprint("fill-", batch), Body: &logv1.Command_CreatePartitions{
					CreatePartitions: &logv1.CreatePartitions{Ids: ids, Placement: fmt.Sprint("placement-", batch%benchPlacements)},
				}})
				if err == nil {
					err = refused(outcome)
				}
				failures <- err
			}
		}()
	}
	for range batches {
		if err := <-failures; err != nil {
			b.Fatal(err)
		}
	}
}

// benchGroups runs a benchmark against the leader of a group of one member and of one of three, with all partitions.
func benchGroups(b *testing.B, run func(b *testing.B, leader *harness)) {
	for _, size := range []int{1, 3} {
		b.Run(fmt.Sprint("members=", size), func(b *testing.B) {
			group := openGroup(b, size, node.Limits{})
			leader := group[slices.IndexFunc(group, func(n *node.Node) bool { return n.IsLeader() })]
			fill(b, leader)
			run(b, serve(b, Config{Node: leader}))
		})
	}
}

// benchConns is how many connections the callers of a benchmark share.
const benchConns = 4

// load lets callers call until the benchmark has enough. Each gets a client of its own kind, and its random numbers.
func load[C any](b *testing.B, h *harness, callers int, client func(grpc.ClientConnInterface) C, call func(C, *rand.Rand) error) {
	b.Helper()
	conns := make([]*grpc.ClientConn, benchConns)
	for i := range conns {
		conns[i] = h.dial(b, nil)
	}
	var number atomic.Uint64
	b.SetParallelism(max(callers/runtime.GOMAXPROCS(0), 1))
	b.ReportAllocs()
	b.ResetTimer()
	before := processorTime(b)
	b.RunParallel(func(pb *testing.PB) {
		mine := number.Add(1)
		c, random := client(conns[mine%benchConns]), rand.New(rand.NewPCG(mine, 0))
		for pb.Next() {
			if err := call(c, random); err != nil {
				b.Error(err)
				return
			}
		}
	})
	b.StopTimer()
	// Others use the machine too, and this tells what it came to even so.
	b.ReportMetric(float64((processorTime(b)-before).Nanoseconds())/1000/float64(b.N), "cpu-µs/op")
}

// processorTime is what this process, callers and members together, has used of the processors.
func processorTime(b *testing.B) time.Duration {
	b.Helper()
	var usage syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
		b.Fatal(err)
	}
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}

// BenchmarkResolve measures linearizable questions for 100 partitions each, through gRPC (platform.md §9): 500,000 keys/s are wanted.
func BenchmarkResolve(b *testing.B) {
	const keys = 100
	benchGroups(b, func(b *testing.B, h *harness) {
		for _, callers := range []int{1, 16, 64, 256} {
			b.Run(fmt.Sprint("callers=", callers), func(b *testing.B) {
				load(b, h, callers, quoratev1.NewPartitionServiceClient, func(c quoratev1.PartitionServiceClient, random *rand.Rand) error {
					request := &quoratev1.ResolveRequest{Partitions: make([]string, keys)}
					for i := range request.Partitions {
						request.Partitions[i] = benchPartition(random.IntN(benchPartitions))
					}
					answer, err := c.Resolve(context.Background(), request)
					if err == nil && answer.GetResolutions()[keys-1].GetWritePlacement() == "" {
						err = fmt.Errorf("answered %v", answer.GetResolutions()[keys-1])
					}
					return err
				})
				b.ReportMetric(float64(b.N)*keys/b.Elapsed().Seconds(), "keys/s")
			})
		}
	})
}

// BenchmarkReads measures linearizable reads of one thing each, through gRPC.
func BenchmarkReads(b *testing.B) {
	benchGroups(b, func(b *testing.B, h *harness) {
		for _, callers := range []int{1, 16, 256} {
			b.Run(fmt.Sprint("get/callers=", callers), func(b *testing.B) {
				load(b, h, callers, quoratev1.NewPartitionServiceClient, func(c quoratev1.PartitionServiceClient, random *rand.Rand) error {
					_, err := c.GetPartition(context.Background(), &quoratev1.GetPartitionRequest{Partition: benchPartition(random.IntN(benchPartitions))})
					return err
				})
				b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "reads/s")
			})
			b.Run(fmt.Sprint("gate/callers=", callers), func(b *testing.B) {
				load(b, h, callers, quoratev1.NewGateServiceClient, func(c quoratev1.GateServiceClient, random *rand.Rand) error {
					_, err := c.CheckGate(context.Background(), &quoratev1.CheckGateRequest{Partition: benchPartition(random.IntN(benchPartitions)), Epoch: 1})
					return err
				})
				b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "reads/s")
			})
		}
	})
}
