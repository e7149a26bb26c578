package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/gopcua/opcua/id"
	"github.com/gopcua/opcua/ua"

	"quorate/opcua/failover"
	quoratev1 "quorate/proto/quorate/v1"
)

// failovers kills the Primary again and again, and measures how long a failover client is without a good value of another server. With a stand-in
// the Backup becomes Healthy, without one it does not; the client takes it at once in either case.
func (b *bench) failovers(ctx context.Context, standIn uint32) error {
	name := "failover"
	if standIn != 0 {
		name = fmt.Sprintf("failover_stand_in_%d", standIn)
	}
	if _, err := b.publish(ctx, false, func(set *quoratev1.RedundantSet) {
		set.Policies = &quoratev1.RedundancyPolicies{StandIn: standIn}
		for i, s := range set.GetServers() {
			s.Role = []string{"Primary", "Backup"}[i]
		}
	}); err != nil {
		return err
	}
	if err := b.settle(ctx); err != nil {
		return err
	}
	var took []time.Duration
	for range b.kills {
		if err := b.recovered(ctx); err != nil {
			return err
		}
		d, err := b.failover(ctx)
		if err != nil {
			return err
		}
		took = append(took, d)
		if err := b.group.Restart("m1"); err != nil {
			return err
		}
	}
	slices.Sort(took)
	result(name+"_to_first_good_read_p50", percentile(took, 50), "ms")
	result(name+"_to_first_good_read_max", milliseconds(took[len(took)-1]), "ms")
	result(name+"_polling_interval", milliseconds(b.interval), "ms")
	return b.recovered(ctx)
}

// recovered waits until both servers are as they should be.
func (b *bench) recovered(ctx context.Context) error {
	if err := b.group.Ready(ctx, "m1"); err != nil {
		return err
	}
	w, err := b.watch(ctx)
	if err != nil {
		return err
	}
	defer w.close()
	return w.are(ctx, map[string]byte{"m1": 255, "m2": 100})
}

// failover kills the Primary under a failover client, and returns how long it was until the first good value of the Backup.
func (b *bench) failover(ctx context.Context) (took time.Duration, err error) {
	primary, backup := b.group.Members[0], b.group.Members[1]
	values := make(chan failover.Value, notifications)
	c, err := failover.New(failover.Config{
		URL: primary.OPCUA, Nodes: []*ua.NodeID{ua.NewNumericNodeID(0, id.Server_ServerStatus_CurrentTime)},
		PublishingInterval: b.interval, SamplingInterval: b.interval, KeepAlive: b.interval,
		OnValue: func(v failover.Value) {
			select {
			case values <- v:
			default: // The first ones are what counts.
			}
		},
	})
	if err != nil {
		return 0, err
	}
	running, stop := context.WithCancel(ctx)
	ended := make(chan error, 1)
	go func() { ended <- c.Run(running) }()
	defer func() {
		stop()
		if end := <-ended; !errors.Is(end, context.Canceled) {
			err = errors.Join(err, end)
		}
	}()
	from := func(url string) error {
		ctx, cancel := context.WithTimeout(ctx, stepLimit)
		defer cancel()
		for {
			select {
			case v := <-values:
				if v.Server == url && v.Data.Status == ua.StatusOK {
					return nil
				}
			case <-ctx.Done():
				return fmt.Errorf("no good value of %s: %w", url, ctx.Err())
			}
		}
	}
	if err := from(primary.OPCUA); err != nil {
		return 0, err
	}
	began := time.Now()
	if err := b.group.Kill(ctx, primary.ID); err != nil {
		return 0, err
	}
	err = from(backup.OPCUA)
	return time.Since(began), err
}
