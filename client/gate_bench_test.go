package client

import (
	"context"
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	quoratev1 "quorate/proto/quorate/v1"
)

// calmLink is a group in which nothing changes.
type calmLink struct{}

func (calmLink) Register(context.Context, string, string) error { return nil }

func (calmLink) Renew(ctx context.Context, req *quoratev1.RenewGateRequest) (*quoratev1.RenewGateResponse, error) {
	if req.GetGrant() > 0 {
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(500 * time.Millisecond):
		}
	}
	return &quoratev1.RenewGateResponse{Term: 1, Grant: req.GetGrant() + 1, Revision: 10, Ttl: durationpb.New(10 * time.Second)}, nil
}

func (calmLink) Resolve(_ context.Context, partitions []string) (found []*quoratev1.Resolution, revision uint64, err error) {
	for _, p := range partitions {
		found = append(found, &quoratev1.Resolution{
			Partition: p, Phase: quoratev1.PartitionPhase_PARTITION_PHASE_ACTIVE, ReadPlacement: "a", WritePlacement: "a", Epoch: 1, Revision: 5,
		})
	}
	return found, 10, nil
}

func (calmLink) Remove(context.Context, string, string, bool) error { return nil }

// BenchmarkGate is Enter and Done from memory (platform.md §9: 5,000,000/s). The 100,000 partitions are asked for in no order that a cache knows.
func BenchmarkGate(b *testing.B) {
	for _, partitions := range []int{1, 100_000} {
		g, err := OpenGate(b.Context(), calmLink{}, GateOptions{ID: "bench"})
		if err != nil {
			b.Fatal(err)
		}
		names := make([]string, partitions)
		for i := range names {
			names[i] = fmt.Sprintf("partition-%06d", i)
		}
		// They lie in memory in the order in which they were asked for first, which is not that of the names.
		rand.Shuffle(partitions, func(i, j int) { names[i], names[j] = names[j], names[i] })
		for g.Stats().Lease <= 0 {
			runtime.Gosched()
		}
		var filling sync.WaitGroup
		for part := range 100 {
			filling.Go(func() {
				for i := part; i < partitions; i += 100 {
					p, err := g.Enter(context.Background(), names[i])
					if err != nil {
						b.Error(err)
					}
					p.Done()
				}
			})
		}
		filling.Wait()
		slices.Sort(names)
		runtime.GC()
		for _, goroutines := range []int{1, 2} {
			b.Run(fmt.Sprintf("partitions=%d/goroutines=%d", partitions, goroutines), func(b *testing.B) {
				enterFrom(b, g, names, goroutines)
			})
		}
		if err := g.Close(context.Background()); err != nil {
			b.Fatal(err)
		}
	}
}

func enterFrom(b *testing.B, g *Gate, names []string, goroutines int) {
	before := g.Stats()
	var used, usedAfter syscall.Rusage
	syscall.Getrusage(syscall.RUSAGE_SELF, &used)
	b.ReportAllocs()
	b.ResetTimer()
	var running sync.WaitGroup
	for k := range goroutines {
		running.Go(func() {
			ctx, at := context.Background(), k*len(names)/goroutines
			for range b.N / goroutines {
				p, err := g.Enter(ctx, names[at])
				if err != nil {
					b.Error(err)
					return
				}
				p.Done()
				if at++; at == len(names) {
					at = 0
				}
			}
		})
	}
	running.Wait()
	b.StopTimer()
	syscall.Getrusage(syscall.RUSAGE_SELF, &usedAfter)
	b.ReportMetric(float64(usedAfter.Utime.Nano()-used.Utime.Nano())/float64(b.N), "user-ns/op")
	b.ReportMetric(float64(usedAfter.Nvcsw-used.Nvcsw), "vcsw")
	b.ReportMetric(float64(usedAfter.Nivcsw-used.Nivcsw), "nivcsw")
	b.ReportMetric(float64(usedAfter.Stime.Nano()-used.Stime.Nano())/float64(b.N), "sys-ns/op")
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "checks/s")
	if after := g.Stats(); after.Misses != before.Misses {
		b.Errorf("%d answers were not from memory", after.Misses-before.Misses)
	}
}
