// Command failover measures what a client notices of redundancy, on a group of three processes: how long after the commit of a publish it is told, how long a set is
// without a Healthy server while the roles are swapped, and how long a client that fails over is without data when its server is killed. It prints lines
//
//	RESULT name value unit
//
// A level reaches a client in two steps: the server computes it, which its source timestamp says (_to_value_), and the subscription delivers it within its
// publishing interval (_to_notification_). What is beyond the publishing interval (_beyond_interval_) is the delivery less one interval, 0 where it came sooner.
// Members and client share the machine and its clock.
package main

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"quorate/devgroup"
	quoratev1 "quorate/proto/quorate/v1"
)

// stepLimit is how long anything may take that is waited for.
const stepLimit = 30 * time.Second

// healthy is the least ServiceLevel of the Healthy sub-range (OPC 10000-4 §6.6.2.4.2).
const healthy = 200

type options struct {
	quorate, data      string
	port               int
	publishes, kills   int
	interval, publishI time.Duration
	verbose            bool
}

func main() {
	var o options
	flag.StringVar(&o.quorate, "quorate", "bin/quorate", "the binary to measure")
	flag.StringVar(&o.data, "data", "bin", "a folder; each run makes a folder of its own inside and removes it")
	flag.IntVar(&o.port, "base-port", 17300, "where the members' ports begin")
	flag.IntVar(&o.publishes, "publishes", 50, "how many swaps, and how many forced publishes, are measured")
	flag.IntVar(&o.kills, "kills", 3, "how often the Primary is killed, for each policy")
	flag.DurationVar(&o.publishI, "publishing-interval", 50*time.Millisecond, "the subscriptions' publishing interval")
	flag.DurationVar(&o.interval, "polling-interval", time.Second, "the failover client's interval")
	flag.BoolVar(&o.verbose, "v", false, "show what the members print")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, o); err != nil {
		log.Fatal(err)
	}
}

func run(ctx context.Context, o options) (err error) {
	dir, err := os.MkdirTemp(o.data, "bench-failover-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	var printed io.Writer
	if o.verbose {
		printed = os.Stderr
	}
	g, err := devgroup.Start(ctx, devgroup.Options{
		Binary: o.quorate, Data: filepath.Join(dir, "group"), BasePort: o.port, Log: printed,
		// As in production, but that nobody waits for a minute after each kill.
		Set: []string{"redundancy.recoverDwell=200ms"},
	})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, g.Stop()) }()
	b := &bench{options: o, group: g}
	if err := b.connect(); err != nil {
		return err
	}
	defer b.close()
	return errors.Join(b.swaps(ctx), b.forced(ctx), b.failovers(ctx, 0), b.failovers(ctx, 210))
}

// bench is one run.
type bench struct {
	options
	group    *devgroup.Group
	conns    []*grpc.ClientConn
	requests int
}

func (b *bench) connect() error {
	for _, m := range b.group.Members {
		conn, err := devgroup.Dial(m)
		if err != nil {
			return err
		}
		b.conns = append(b.conns, conn)
	}
	return nil
}

func (b *bench) close() {
	for _, c := range b.conns {
		_ = c.Close()
	}
}

// ask asks member after member until one answers.
func ask[R any](ctx context.Context, b *bench, call func(ctx context.Context, conn *grpc.ClientConn) (R, error)) (R, error) {
	ctx, cancel := context.WithTimeout(ctx, stepLimit)
	defer cancel()
	return devgroup.Ask(ctx, b.conns, call)
}

// publish publishes the current topology with changes to its only set, and returns when its commit was acknowledged.
func (b *bench) publish(ctx context.Context, force bool, change func(*quoratev1.RedundantSet)) (committed time.Time, err error) {
	current, err := ask(ctx, b, func(ctx context.Context, c *grpc.ClientConn) (*quoratev1.GetTopologyResponse, error) {
		return quoratev1.NewTopologyServiceClient(c).GetTopology(ctx, &quoratev1.GetTopologyRequest{})
	})
	if err != nil {
		return committed, err
	}
	set := current.GetGeneration().GetTopology().GetSets()[0]
	change(set)
	b.requests++
	request := &quoratev1.PublishTopologyRequest{
		RequestId: fmt.Sprintf("bench-%d", b.requests), ExpectedGeneration: proto.Uint64(current.GetGeneration().GetNumber()), Force: force,
		Topology: &quoratev1.Topology{Sets: []*quoratev1.RedundantSet{set}},
	}
	_, err = ask(ctx, b, func(ctx context.Context, c *grpc.ClientConn) (*quoratev1.PublishTopologyResponse, error) {
		return quoratev1.NewTopologyServiceClient(c).PublishTopology(ctx, request)
	})
	return time.Now(), err
}

// settle waits until the last publish is rolled out.
func (b *bench) settle(ctx context.Context) error {
	return until(ctx, "the roll-out is done", func() bool {
		list, err := ask(ctx, b, func(ctx context.Context, c *grpc.ClientConn) (*quoratev1.GetApplyStatusResponse, error) {
			return quoratev1.NewApplyServiceClient(c).GetApplyStatus(ctx, &quoratev1.GetApplyStatusRequest{})
		})
		return err == nil && len(list.GetRollouts()) == 1 && list.GetRollouts()[0].GetState() == quoratev1.RolloutState_ROLLOUT_STATE_DONE
	})
}

func until(ctx context.Context, what string, holds func() bool) error {
	ctx, cancel := context.WithTimeout(ctx, stepLimit)
	defer cancel()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !holds() {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("waiting until %s: %w", what, ctx.Err())
		}
	}
	return nil
}

func swapRoles(set *quoratev1.RedundantSet) {
	for _, s := range set.GetServers() {
		s.Role = map[string]string{"Primary": "Backup", "Backup": "Primary"}[s.GetRole()]
	}
}

// swaps measures publishes that swap the roles: until the new Primary is Healthy, and how long nobody is.
func (b *bench) swaps(ctx context.Context) error {
	w, err := b.watch(ctx)
	if err != nil {
		return err
	}
	defer w.close()
	l := latencies{interval: b.publishI}
	var gaps []time.Duration
	primary, backup := "m1", "m2"
	for range b.publishes {
		if err := w.are(ctx, map[string]byte{primary: 255, backup: 100}); err != nil {
			return err
		}
		mark := w.mark()
		committed, err := b.publish(ctx, false, swapRoles)
		if err != nil {
			return err
		}
		up, err := w.first(ctx, mark, backup, func(level byte) bool { return level >= healthy })
		if err != nil {
			return err
		}
		down, err := w.first(ctx, mark, primary, func(level byte) bool { return level < healthy })
		if err != nil {
			return err
		}
		l.add(committed, up)
		gaps = append(gaps, up.source.Sub(down.source))
		primary, backup = backup, primary
		if err := b.settle(ctx); err != nil {
			return err
		}
	}
	l.print("publish_swap")
	slices.Sort(gaps)
	result("swap_gap_without_healthy_p50", percentile(gaps, 50), "ms")
	result("swap_gap_without_healthy_p99", percentile(gaps, 99), "ms")
	result("swap_gap_without_healthy_max", milliseconds(gaps[len(gaps)-1]), "ms")
	if gaps[0] < 0 {
		return fmt.Errorf("two servers were Healthy at once for %v", -gaps[0])
	}
	return nil
}

// forced measures publishes that change nothing and are rolled out all the same: until the Backup, which is the first, is mid-apply.
func (b *bench) forced(ctx context.Context) error {
	w, err := b.watch(ctx)
	if err != nil {
		return err
	}
	defer w.close()
	l := latencies{interval: b.publishI}
	levels := w.now()
	backup := slices.MinFunc([]string{"m1", "m2"}, func(x, y string) int { return cmp.Compare(levels[x], levels[y]) })
	for range b.publishes {
		mark := w.mark()
		committed, err := b.publish(ctx, true, func(*quoratev1.RedundantSet) {})
		if err != nil {
			return err
		}
		down, err := w.first(ctx, mark, backup, func(level byte) bool { return level == 50 })
		if err != nil {
			return err
		}
		l.add(committed, down)
		if err := b.settle(ctx); err != nil {
			return err
		}
	}
	l.print("publish_forced")
	return nil
}

// latencies are how long after a commit a level was there, and was told.
type latencies struct {
	interval                 time.Duration
	toValue, toTold, tooLate []time.Duration
}

func (l *latencies) add(committed time.Time, n notification) {
	told := n.at.Sub(committed)
	l.toValue = append(l.toValue, max(n.source.Sub(committed), 0)) // It may be there before the answer is.
	l.toTold = append(l.toTold, told)
	l.tooLate = append(l.tooLate, max(told-l.interval, 0))
}

func (l *latencies) print(name string) {
	for _, x := range []struct {
		what string
		list []time.Duration
	}{{"to_value", l.toValue}, {"to_notification", l.toTold}, {"beyond_interval", l.tooLate}} {
		slices.Sort(x.list)
		result(name+"_"+x.what+"_p50", percentile(x.list, 50), "ms")
		result(name+"_"+x.what+"_p99", percentile(x.list, 99), "ms")
	}
}

// percentile is of a sorted list, in milliseconds.
func percentile(list []time.Duration, p int) float64 {
	return milliseconds(list[(len(list)*p+99)/100-1])
}

func milliseconds(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

func result(name string, value float64, unit string) {
	fmt.Printf("RESULT %s %.2f %s\n", name, value, unit)
}
