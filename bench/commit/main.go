// Command commit measures acknowledged commits: callers that each wait for the answer before they send the next command, over
// unary gRPC, against three members in three processes whose log stores really sync. It prints lines
//
//	RESULT name value unit
//
// for the rate and for the latency at the median and the 99th percentile. Machines differ and are noisy: compare what was
// measured in one run, and quote ratios.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"google.golang.org/grpc"

	"quorate/devgroup"
	quoratev1 "quorate/proto/quorate/v1"
)

const (
	callLimit   = 10 * time.Second
	payloadSize = 256 // bytes: what etcd's own benchmark puts (platform.md §9)
)

func main() {
	quorate := flag.String("quorate", "bin/quorate", "the binary to measure")
	stores := flag.String("stores", "bolt,wal", "log stores, separated by commas")
	callers := flag.String("callers", "1,16,64,256", "numbers of callers at once, separated by commas")
	duration := flag.Duration("duration", 5*time.Second, "how long each combination is measured")
	warmup := flag.Duration("warmup", time.Second, "how long it runs before that")
	port := flag.Int("base-port", 17100, "where the members' ports begin")
	data := flag.String("data", "bin", "a folder on the disk to measure; each run makes a folder of its own inside and removes it")
	flag.Parse()

	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	for _, store := range strings.Split(*stores, ",") {
		if err := measureStore(ctx, store, *quorate, *callers, *data, *port, *warmup, *duration); err != nil {
			log.Fatalf("%s: %v", store, err)
		}
	}
}

// measureStore starts a group of its own for one log store, so that no run inherits the log of another.
func measureStore(ctx context.Context, store, binary, callers, data string, port int, warmup, duration time.Duration) (err error) {
	dir, err := os.MkdirTemp(data, "bench-commit-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	g, err := devgroup.Start(ctx, devgroup.Options{
		Binary: binary, Data: filepath.Join(dir, "group"), BasePort: port, Set: []string{"storage.logStore=" + store}, Log: os.Stderr,
	})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, g.Stop()) }()
	// A client that knows its group asks the leader, so that forwarding is not what is measured.
	leaderCtx, cancel := context.WithTimeout(ctx, callLimit)
	defer cancel()
	leader, err := g.Leader(leaderCtx)
	if err != nil {
		return err
	}
	conn, err := devgroup.Dial(leader)
	if err != nil {
		return err
	}
	defer conn.Close()
	for _, field := range strings.Split(callers, ",") {
		n, err := strconv.Atoi(field)
		if err != nil || n < 1 {
			return fmt.Errorf("-callers: %q is not a number of callers", field)
		}
		if _, err := load(ctx, conn, n, warmup); err != nil {
			return err
		}
		r, err := load(ctx, conn, n, duration)
		if err != nil {
			return err
		}
		fmt.Printf("RESULT commits_%s_%d %.0f commits/s\n", store, n, float64(len(r.latencies))/r.elapsed.Seconds())
		fmt.Printf("RESULT commit_p50_%s_%d %.2f ms\n", store, n, r.percentile(50))
		fmt.Printf("RESULT commit_p99_%s_%d %.2f ms\n", store, n, r.percentile(99))
	}
	return nil
}

// result is what one load came to.
type result struct {
	latencies []time.Duration // sorted
	elapsed   time.Duration
}

func (r result) percentile(p int) float64 {
	if len(r.latencies) == 0 {
		return 0
	}
	return float64(r.latencies[(len(r.latencies)-1)*p/100].Microseconds()) / 1000
}

// load lets n callers commit for a while. Any error ends it: a rate of refused commands would be no rate of commits.
func load(ctx context.Context, conn *grpc.ClientConn, n int, d time.Duration) (result, error) {
	client := quoratev1.NewMaintenanceServiceClient(conn)
	reason := strings.Repeat("x", payloadSize)
	began := time.Now()
	until := began.Add(d)
	latencies := make([][]time.Duration, n)
	failures := make([]error, n)
	var wg sync.WaitGroup
	for caller := range n {
		wg.Go(func() {
			for i := 0; time.Now().Before(until) && ctx.Err() == nil; i++ {
				sent := time.Now()
				callCtx, cancel := context.WithTimeout(ctx, callLimit)
				_, err := client.SetMaintenance(callCtx, &quoratev1.SetMaintenanceRequest{
					RequestId: fmt.Sprintf("bench-%d-%d-%d", began.UnixNano(), caller, i),
					Server:    "m2",
					Active:    true,
					Reason:    reason,
				})
				cancel()
				if err != nil {
					failures[caller] = err
					return
				}
				latencies[caller] = append(latencies[caller], time.Since(sent))
			}
		})
	}
	wg.Wait()
	r := result{elapsed: time.Since(began), latencies: slices.Concat(latencies...)}
	slices.Sort(r.latencies)
	return r, errors.Join(failures...)
}
