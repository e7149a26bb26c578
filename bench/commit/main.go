// Command commit measures acknowledged commits: callers that each wait for the answer before they send the next command, over
// unary gRPC, against three members in three processes whose log stores really sync. It prints lines
//
//	RESULT name value unit
//
// for the rate and for the latency at the median and the 99th percentile. Machines differ and are noisy: compare what was
// measured in one run, and quote ratios.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"log"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	quoratev1 "quorate/proto/quorate/v1"
)

const (
	startLimit  = 20 * time.Second
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
func measureStore(ctx context.Context, store, binary, callers, data string, port int, warmup, duration time.Duration) error {
	dir, err := os.MkdirTemp(data, "bench-commit-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	g, err := start(ctx, binary, filepath.Join(dir, "group"), store, port)
	if err != nil {
		return err
	}
	defer g.stop()
	conn, err := g.leader(ctx)
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

// group is a running group of three members.
type group struct {
	command *exec.Cmd
	Members []struct{ ID, GRPC string }
}

func start(ctx context.Context, binary, data, store string, port int) (*group, error) {
	cmd := exec.Command(binary, "dev", "--processes", "--json", "--base-port", strconv.Itoa(port), "--data", data,
		"--set", "storage.logStore="+store)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	g := &group{command: cmd}
	ready := make(chan error, 1)
	go func() {
		line, err := bufio.NewReader(out).ReadBytes('\n')
		if err == nil {
			err = json.Unmarshal(line, g)
		}
		ready <- err
	}()
	ctx, cancel := context.WithTimeout(ctx, startLimit)
	defer cancel()
	select {
	case err = <-ready:
	case <-ctx.Done():
		err = fmt.Errorf("the group was not ready in time: %w", ctx.Err())
	}
	if err != nil {
		g.stop()
		return nil, err
	}
	return g, nil
}

func (g *group) stop() {
	if err := g.command.Process.Signal(os.Interrupt); err != nil && !errors.Is(err, os.ErrProcessDone) {
		log.Printf("stop the group: %v", err)
	}
	// The answer to an interrupt is an exit code other than 0 with some shells and none with others: it says nothing here.
	_ = g.command.Wait()
}

// leader connects to the leader, as a client that knows its group does, so that forwarding is not what is measured.
func (g *group) leader(ctx context.Context) (*grpc.ClientConn, error) {
	ctx, cancel := context.WithTimeout(ctx, callLimit)
	defer cancel()
	first, err := dial(g.Members[0].GRPC)
	if err != nil {
		return nil, err
	}
	defer first.Close()
	list, err := quoratev1.NewMemberServiceClient(first).ListMembers(ctx, &quoratev1.ListMembersRequest{})
	if err != nil {
		return nil, err
	}
	for _, m := range list.GetMembers() {
		if m.GetLeader() {
			return dial(m.GetGrpcAddress())
		}
	}
	return nil, errors.New("the group has no leader")
}

func dial(address string) (*grpc.ClientConn, error) {
	return grpc.NewClient(address, grpc.WithTransportCredentials(insecure.NewCredentials()))
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
