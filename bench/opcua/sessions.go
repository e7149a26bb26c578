package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/gopcua/opcua/ua"

	"quorate/bench/client"
	"quorate/opcua/wire"
)

const (
	// dialers is how many clients connect at a time.
	dialers = 8
	// parked is how many Publish requests each client keeps at the server.
	parked = 2
)

// notifications is what a load of subscribed sessions came to.
type notifications struct {
	intervals []time.Duration // between two notifications of one session, sorted
	latencies []time.Duration // from the sampling of a value to its arrival, sorted
	cpu       float64         // of the server, in percent of one core
	rss       float64         // of the server, in MB, at the end
}

// connectAll connects n clients. If one fails, none is left.
func connectAll(ctx context.Context, t client.Options, n int) ([]*session, error) {
	clients, failures := make([]*session, n), make([]error, n)
	next := make(chan int)
	var workers sync.WaitGroup
	for range min(dialers, n) {
		workers.Go(func() {
			for i := range next {
				clients[i], failures[i] = connect(ctx, t)
			}
		})
	}
	for i := range n {
		next <- i
	}
	close(next)
	workers.Wait()
	failures = slices.DeleteFunc(failures, func(err error) bool { return err == nil })
	if len(failures) == 0 {
		return clients, nil
	}
	for _, c := range clients {
		if c != nil {
			c.Close()
		}
	}
	return nil, fmt.Errorf("%d of %d clients could not connect, the first: %w", len(failures), n, failures[0])
}

// closeAll closes clients that nobody else uses.
func closeAll(clients []*session) error {
	var errs []error
	for _, c := range clients {
		errs = append(errs, c.end())
	}
	return errors.Join(errs...)
}

// measureConnect says how long n sessions take to connect, from the first connection to the last session.
func measureConnect(ctx context.Context, t client.Options, n int) (time.Duration, error) {
	began := time.Now()
	clients, err := connectAll(ctx, t, n)
	if err != nil {
		return 0, err
	}
	took := time.Since(began)
	return took, closeAll(clients)
}

// measureNotifications gives each client a subscription with one item, whose value is another at each sample, and looks at what
// comes.
func measureNotifications(ctx context.Context, s *subject, clients []*session, warmup, duration time.Duration) (r notifications, err error) {
	for _, c := range clients {
		if err := c.subscribe(s.clock); err != nil {
			return r, fmt.Errorf("subscribe: %w", err)
		}
	}
	from := time.Now().Add(warmup)
	until := from.Add(duration)
	took := make([]arrivals, len(clients))
	failures := make([]error, len(clients))
	var followers sync.WaitGroup
	for i, c := range clients {
		followers.Go(func() {
			if failures[i] = c.follow(&took[i], from, until); failures[i] == nil {
				failures[i] = c.end()
			}
		})
	}
	err = pause(ctx, time.Until(from))
	before, cpuErr := s.process.CPU()
	began := time.Now()
	err = errors.Join(err, cpuErr, pause(ctx, time.Until(until)))
	after, cpuErr := s.process.CPU()
	r.cpu = 100 * float64(after-before) / float64(time.Since(began))
	rss, rssErr := s.process.RSS()
	r.rss = rss
	followers.Wait()
	for _, a := range took {
		r.intervals = append(r.intervals, a.intervals...)
		r.latencies = append(r.latencies, a.latencies...)
	}
	slices.Sort(r.intervals)
	slices.Sort(r.latencies)
	return r, errors.Join(err, cpuErr, rssErr, errors.Join(failures...))
}

// subscribe makes the subscription and its item, both at publishingEvery, and parks Publish requests.
func (c *session) subscribe(clock *ua.NodeID) error {
	var sub ua.CreateSubscriptionResponse
	if err := c.Call(&ua.CreateSubscriptionRequest{
		RequestHeader:               c.Header(),
		RequestedPublishingInterval: float64(publishingEvery.Milliseconds()),
		RequestedLifetimeCount:      3000,
		RequestedMaxKeepAliveCount:  100,
		PublishingEnabled:           true,
	}, &sub); err != nil {
		return err
	}
	var items ua.CreateMonitoredItemsResponse
	if err := c.Call(&ua.CreateMonitoredItemsRequest{
		RequestHeader:      c.Header(),
		SubscriptionID:     sub.SubscriptionID,
		TimestampsToReturn: ua.TimestampsToReturnBoth,
		ItemsToCreate: []*ua.MonitoredItemCreateRequest{{
			ItemToMonitor:  &ua.ReadValueID{NodeID: clock, AttributeID: ua.AttributeIDValue},
			MonitoringMode: ua.MonitoringModeReporting,
			RequestedParameters: &ua.MonitoringParameters{
				ClientHandle: 1, SamplingInterval: float64(publishingEvery.Milliseconds()), QueueSize: 10, DiscardOldest: true,
			},
		}},
	}, &items); err != nil {
		return err
	}
	if len(items.Results) != 1 || items.Results[0].StatusCode != ua.StatusOK {
		return fmt.Errorf("the item was not created: %v", items.Results)
	}
	// A server that revises the intervals does another work than the one that is measured.
	if got := items.Results[0].RevisedSamplingInterval; got != float64(publishingEvery.Milliseconds()) || got != sub.RevisedPublishingInterval {
		return fmt.Errorf("the server revised the intervals of %v to %v ms and %v ms", publishingEvery, sub.RevisedPublishingInterval, got)
	}
	for range parked {
		if err := c.publish(nil); err != nil {
			return err
		}
	}
	return nil
}

func (c *session) publish(acknowledge []*ua.SubscriptionAcknowledgement) error {
	body, err := wire.AppendMessage(nil, &ua.PublishRequest{RequestHeader: c.Header(), SubscriptionAcknowledgements: acknowledge})
	if err != nil {
		return err
	}
	return c.Send(body)
}

// arrivals are the notifications of one client.
type arrivals struct {
	last                 time.Time
	intervals, latencies []time.Duration
}

// follow takes notifications until a time, and notes those from another on.
func (c *session) follow(a *arrivals, from, until time.Time) error {
	for {
		body, err := c.Receive()
		if err != nil {
			return err
		}
		now := time.Now()
		if now.After(until) {
			return nil
		}
		var resp ua.PublishResponse
		if err := client.Decode(body, &resp); err != nil {
			return err
		}
		sampled, err := sampledAt(&resp)
		if err != nil {
			return err
		}
		if err := c.publish([]*ua.SubscriptionAcknowledgement{{
			SubscriptionID: resp.SubscriptionID, SequenceNumber: resp.NotificationMessage.SequenceNumber,
		}}); err != nil {
			return err
		}
		if now.After(from) {
			if !a.last.IsZero() {
				a.intervals = append(a.intervals, now.Sub(a.last))
			}
			a.latencies = append(a.latencies, now.Sub(sampled))
		}
		a.last = now
	}
}

// sampledAt says when the newest value of a notification was sampled: it is the value itself.
func sampledAt(resp *ua.PublishResponse) (at time.Time, err error) {
	for _, data := range resp.NotificationMessage.NotificationData {
		change, ok := data.Value.(*ua.DataChangeNotification)
		if !ok {
			return at, fmt.Errorf("a notification has %T", data.Value)
		}
		for _, item := range change.MonitoredItems {
			at, ok = item.Value.Value.Value().(time.Time)
			if !ok {
				return at, fmt.Errorf("the clock shows %v", item.Value.Value)
			}
		}
	}
	if at.IsZero() {
		err = errors.New("a notification without a value: the value is not sampled as often as it is published")
	}
	return at, err
}

func percentile(sorted []time.Duration, p int) float64 {
	if len(sorted) == 0 {
		return 0
	}
	return float64(sorted[(len(sorted)-1)*p/100].Microseconds()) / 1000
}
