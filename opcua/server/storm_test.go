package server

import (
	"context"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/gopcua/opcua/ua"
)

// stormLength is how many requests each client of a storm makes.
const stormLength = 400

// TestStorm has many clients create, change and delete subscriptions and items, publish, close and break off, all at random,
// while values change: nothing may race, hang or be left behind. Run it with -race.
func TestStorm(t *testing.T) {
	r := newRig(t, Limits{MinPublishingInterval: granularity, MinSamplingInterval: granularity, MaxPublishRequests: 3})
	ctx, cancel := context.WithCancel(t.Context())
	var engine, changers, clients sync.WaitGroup
	engine.Go(func() { r.v.engine.schedule.run(ctx) })
	stop := make(chan struct{})
	for range 2 {
		changers.Go(func() {
			for i := int64(0); ; i++ {
				select {
				case <-stop:
					return
				default:
					r.demo.set(i)
				}
			}
		})
	}
	for seed := range uint64(8) {
		clients.Go(func() { (&stormer{rig: *r, rnd: rand.New(rand.NewPCG(seed, 1))}).run() })
	}
	wait(t, &clients, "the clients")
	close(stop)
	wait(t, &changers, "who changes the values")
	r.v.shutdown()
	cancel()
	wait(t, &engine, "the schedule")
	e := r.v.engine
	if subs, items := e.lastSubscription.Load(), e.lastItem.Load(); subs < 100 || items < 100 {
		t.Errorf("a poor storm: %d subscriptions, %d items", subs, items)
	}
	if e.subscriptions.Load() != 0 || e.items.Load() != 0 || e.queued.Load() != 0 || len(e.hub.watches) != 0 || r.v.sessions.count() != 0 ||
		len(r.v.sessions.perClient) != 0 || len(r.v.sessions.byChannel) != 0 {
		t.Errorf("left behind: %d subscriptions, %d items, %d queue places, %d watches, %d sessions, %d clients, %d channels",
			e.subscriptions.Load(), e.items.Load(), e.queued.Load(), len(e.hub.watches), r.v.sessions.count(),
			len(r.v.sessions.perClient), len(r.v.sessions.byChannel))
	}
}

func wait(t *testing.T, wg *sync.WaitGroup, what string) {
	t.Helper()
	done := make(chan struct{})
	go func() {
		wg.Wait()
		close(done)
	}()
	select {
	case <-done:
	case <-time.After(time.Minute):
		t.Fatalf("%s: hanging", what)
	}
}

// stormer is one client of a storm.
type stormer struct {
	rig  // its own copy: a rig counts requests
	rnd  *rand.Rand
	subs []uint32
	last []uint32 // items
}

func (s *stormer) run() {
	s.restart()
	for range stormLength {
		s.step()
		s.ch.take()
	}
}

func (s *stormer) restart() {
	s.ch = &fakeChannel{}
	auth := make(chan *ua.NodeID, 1)
	s.post(s.ch, nil, &ua.CreateSessionRequest{})
	for _, m := range s.ch.take() {
		auth <- m.resp.(*ua.CreateSessionResponse).AuthenticationToken
	}
	s.auth = <-auth
	s.post(s.ch, s.auth, &ua.ActivateSessionRequest{})
	s.subs, s.last = nil, nil
}

func (s *stormer) sub() uint32 {
	if len(s.subs) == 0 {
		return 0
	}
	return s.subs[s.rnd.IntN(len(s.subs))]
}

func (s *stormer) step() {
	send := func(req ua.Request) { s.post(s.ch, s.auth, req) }
	switch s.rnd.IntN(12) {
	case 0, 1:
		send(&ua.CreateSubscriptionRequest{RequestedPublishingInterval: float64(s.rnd.IntN(20)), RequestedLifetimeCount: uint32(s.rnd.IntN(10)),
			RequestedMaxKeepAliveCount: 1, PublishingEnabled: true})
	case 2, 3, 4:
		req := &ua.CreateMonitoredItemsRequest{SubscriptionID: s.sub()}
		for range 1 + s.rnd.IntN(5) {
			node := levelKey
			if s.rnd.IntN(2) == 0 {
				node = clockKey
			}
			req.ItemsToCreate = append(req.ItemsToCreate, &ua.MonitoredItemCreateRequest{
				ItemToMonitor:       &ua.ReadValueID{NodeID: node.NodeID(), AttributeID: ua.AttributeIDValue},
				MonitoringMode:      ua.MonitoringMode(s.rnd.IntN(3)),
				RequestedParameters: &ua.MonitoringParameters{QueueSize: uint32(s.rnd.IntN(4)), SamplingInterval: float64(s.rnd.IntN(20))},
			})
		}
		send(req)
	case 5:
		send(&ua.DeleteMonitoredItemsRequest{SubscriptionID: s.sub(), MonitoredItemIDs: s.last})
	case 6:
		send(&ua.SetMonitoringModeRequest{SubscriptionID: s.sub(), MonitoringMode: ua.MonitoringMode(s.rnd.IntN(3)), MonitoredItemIDs: s.last})
	case 7:
		req := &ua.ModifyMonitoredItemsRequest{SubscriptionID: s.sub()}
		for _, id := range s.last {
			req.ItemsToModify = append(req.ItemsToModify, &ua.MonitoredItemModifyRequest{MonitoredItemID: id,
				RequestedParameters: &ua.MonitoringParameters{QueueSize: uint32(s.rnd.IntN(4)), SamplingInterval: float64(s.rnd.IntN(20))}})
		}
		send(req)
	case 8, 9:
		send(&ua.PublishRequest{})
	case 10:
		send(&ua.DeleteSubscriptionsRequest{SubscriptionIDs: []uint32{s.sub()}})
	case 11:
		switch s.rnd.IntN(4) {
		case 0:
			send(&ua.CloseSessionRequest{})
			s.restart()
		case 1: // The connection breaks, and the client comes back.
			old := s.ch
			s.ch = &fakeChannel{}
			send(&ua.ActivateSessionRequest{})
			s.v.closed(old)
		case 2: // The connection breaks, and the client does not come back.
			s.v.closed(s.ch)
			s.restart()
		}
	}
	for _, m := range s.ch.take() {
		switch resp := m.resp.(type) {
		case *ua.CreateSubscriptionResponse:
			s.subs = append(s.subs, resp.SubscriptionID)
		case *ua.CreateMonitoredItemsResponse:
			s.last = nil
			for _, res := range resp.Results {
				s.last = append(s.last, res.MonitoredItemID)
			}
		}
	}
}
