package node

import (
	"fmt"
	"strings"
	"sync"
	"testing"

	logv1 "quorate/proto/quorate/log/v1"
)

// BenchmarkPropose commits commands of about 256 bytes on the leader of three members in one process, with real fsync.
func BenchmarkPropose(b *testing.B) {
	for _, store := range []string{LogStoreBolt, LogStoreWAL} {
		for _, inFlight := range []int{1, 2, 4} {
			for _, callers := range []int{1, 16, 256} {
				b.Run(fmt.Sprintf("%s/inflight=%d/callers=%d", store, inFlight, callers), func(b *testing.B) {
					benchmarkPropose(b, store, inFlight, callers)
				})
			}
		}
	}
}

func benchmarkPropose(b *testing.B, store string, inFlight, callers int) {
	g := startGroup(b, 3, func(c *Config) { c.LogStore, c.Limits.EntriesInFlight = store, inFlight })
	g.ready()
	leader := g.leader()
	if _, err := leader.Propose(b.Context(), publishCommand("r1", 0)); err != nil {
		b.Fatal(err)
	}
	filler := strings.Repeat("x", 180)
	work := make(chan int, callers)
	var wg sync.WaitGroup
	b.ResetTimer()
	for range callers {
		wg.Go(func() {
			for i := range work {
				cmd := &logv1.Command{RequestId: fmt.Sprintf("r-%d", i), Actor: testActor, Body: &logv1.Command_SetMaintenance{
					SetMaintenance: &logv1.SetMaintenance{Server: "m1", Active: i%2 == 0, Reason: filler},
				}}
				if _, err := leader.Propose(b.Context(), cmd); err != nil {
					b.Error(err)
				}
			}
		})
	}
	for i := range b.N {
		work <- i
	}
	close(work)
	wg.Wait()
	b.StopTimer()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "commits/s")
}

// BenchmarkRead reads linearizably, on the leader and on a follower.
func BenchmarkRead(b *testing.B) {
	g := startGroup(b, 3, nil)
	g.ready()
	for _, who := range []string{"leader", "follower"} {
		n := g.leader()
		if who == "follower" {
			n = g.follower()
		}
		b.Run(who, func(b *testing.B) {
			b.SetParallelism(128)
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					if _, err := n.Read(b.Context(), nil); err != nil {
						b.Error(err)
					}
				}
			})
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "reads/s")
		})
	}
}
