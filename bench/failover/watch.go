package main

import (
	"context"
	"fmt"
	"maps"
	"sync"
	"time"

	"github.com/gopcua/opcua"
	"github.com/gopcua/opcua/id"
	"github.com/gopcua/opcua/ua"
)

const (
	// queue is how many levels a server keeps between two notifications, so that none is missed.
	queue = 100
	// notifications may wait to be looked at.
	notifications = 1000
)

// notification is a level as a client was told of it.
type notification struct {
	server     string
	level      byte
	source, at time.Time
}

// watch is subscribed to the ServiceLevels of both servers.
type watch struct {
	clients []*opcua.Client
	done    chan struct{}
	ended   sync.WaitGroup

	mu  sync.Mutex
	all []notification
}

func (b *bench) watch(ctx context.Context) (*watch, error) {
	w := &watch{done: make(chan struct{})}
	for _, server := range []string{"m1", "m2"} {
		m, err := b.group.Member(server)
		if err != nil {
			return nil, err
		}
		if err := w.follow(ctx, server, m.OPCUA, b.publishI); err != nil {
			w.close()
			return nil, fmt.Errorf("%s: %w", server, err)
		}
	}
	return w, until(ctx, "both levels are known", func() bool { return len(w.now()) == 2 })
}

func (w *watch) follow(ctx context.Context, server, url string, interval time.Duration) error {
	c, err := opcua.NewClient(url, opcua.AutoReconnect(false), opcua.SecurityMode(ua.MessageSecurityModeNone))
	if err != nil {
		return err
	}
	if err := c.Connect(ctx); err != nil {
		return err
	}
	w.clients = append(w.clients, c)
	notes := make(chan *opcua.PublishNotificationData, notifications)
	sub, err := c.Subscribe(ctx, &opcua.SubscriptionParameters{Interval: interval}, notes)
	if err != nil {
		return err
	}
	request := opcua.NewMonitoredItemCreateRequestWithDefaults(ua.NewNumericNodeID(0, id.Server_ServiceLevel), ua.AttributeIDValue, 1)
	request.RequestedParameters.SamplingInterval, request.RequestedParameters.QueueSize = 0, queue
	made, err := sub.Monitor(ctx, ua.TimestampsToReturnBoth, request)
	if err != nil {
		return err
	}
	if status := made.Results[0].StatusCode; status != ua.StatusOK {
		return status
	}
	w.ended.Go(func() {
		for {
			select {
			case <-w.done:
				return
			case n := <-notes:
				w.take(server, n, time.Now())
			}
		}
	})
	return nil
}

func (w *watch) take(server string, n *opcua.PublishNotificationData, at time.Time) {
	change, ok := n.Value.(*ua.DataChangeNotification)
	if !ok {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, item := range change.MonitoredItems {
		if level, ok := item.Value.Value.Value().(byte); ok {
			w.all = append(w.all, notification{server, level, item.Value.SourceTimestamp, at})
		}
	}
}

func (w *watch) mark() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.all)
}

// now is the last level of each server.
func (w *watch) now() map[string]byte {
	w.mu.Lock()
	defer w.mu.Unlock()
	levels := make(map[string]byte)
	for _, n := range w.all {
		levels[n.server] = n.level
	}
	return levels
}

func (w *watch) are(ctx context.Context, want map[string]byte) error {
	return until(ctx, fmt.Sprintf("the levels are %v", want), func() bool { return maps.Equal(w.now(), want) })
}

// first waits for the first notification of a server since a mark that has such a level.
func (w *watch) first(ctx context.Context, mark int, server string, such func(level byte) bool) (found notification, err error) {
	err = until(ctx, server+" has a certain level", func() bool {
		w.mu.Lock()
		defer w.mu.Unlock()
		for _, n := range w.all[mark:] {
			if n.server == server && such(n.level) {
				found = n
				return true
			}
		}
		return false
	})
	return found, err
}

func (w *watch) close() {
	close(w.done)
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	for _, c := range w.clients {
		_ = c.Close(ctx)
	}
	w.ended.Wait()
}
