package server

import (
	"math"
	"slices"
	"testing"
	"time"

	"github.com/gopcua/opcua/ua"
)

func TestFirstCycleSendsKeepAlive(t *testing.T) {
	inBubble(t, Limits{}, func(t *testing.T, r *rig) {
		sub := r.subscribe()
		first, second := r.publish(), r.publish()
		if got := r.after(99 * time.Millisecond); len(got) != 0 {
			t.Fatalf("%d messages before the first cycle", len(got))
		}
		got := r.after(6 * time.Millisecond)
		if len(got) != 1 || got[0].id != first {
			t.Fatalf("after the first cycle: %+v", got)
		}
		p := want[*ua.PublishResponse](t, got[0].resp)
		if p.SubscriptionID != sub.SubscriptionID || p.NotificationMessage.SequenceNumber != 1 || len(p.NotificationMessage.NotificationData) != 0 {
			t.Fatalf("keep-alive: %+v", p)
		}
		if got := r.after(990 * time.Millisecond); len(got) != 0 {
			t.Fatalf("%d messages before the keep-alive count is up", len(got))
		}
		got = r.after(10 * time.Millisecond)
		if len(got) != 1 || got[0].id != second {
			t.Fatalf("after ten cycles: %+v", got)
		}
		if n := want[*ua.PublishResponse](t, got[0].resp).NotificationMessage.SequenceNumber; n != 1 {
			t.Fatalf("a keep-alive used up a sequence number: the next is %d", n)
		}
	})
}

func TestEveryChangeIsPublished(t *testing.T) {
	inBubble(t, Limits{}, func(t *testing.T, r *rig) {
		sub := r.subscribe().SubscriptionID
		if res := r.monitor(sub, levelKey.NodeID(), 50); res.StatusCode != ua.StatusOK || res.RevisedQueueSize != 50 || res.RevisedSamplingInterval != 0 {
			t.Fatalf("%+v", res)
		}
		var got []int64
		var sequence uint32
		r.publish()
		const changes = 1000
		for i := range changes {
			r.demo.set(int64(i + 1))
			for _, m := range r.after(7 * time.Millisecond) {
				p := want[*ua.PublishResponse](t, m.resp)
				got = append(got, ints(t, p)...)
				if p.NotificationMessage.SequenceNumber != sequence+1 {
					t.Fatalf("sequence number %d after %d", p.NotificationMessage.SequenceNumber, sequence)
				}
				sequence++
				if !slices.Equal(p.AvailableSequenceNumbers, []uint32{sequence}) {
					t.Fatalf("available: %v, want only %d", p.AvailableSequenceNumbers, sequence)
				}
				if len(p.Results) > 0 && p.Results[0] != ua.StatusOK {
					t.Fatalf("acknowledgement: %v", p.Results)
				}
				r.publish(&ua.SubscriptionAcknowledgement{SubscriptionID: sub, SequenceNumber: sequence})
			}
		}
		for _, m := range r.after(time.Second) {
			got = append(got, ints(t, m.resp)...)
		}
		if len(got) > 0 && got[0] == 0 {
			got = got[1:] // The value that the item began with.
		}
		for i, v := range got {
			if v != int64(i+1) {
				t.Fatalf("value %d is %d", i+1, v)
			}
		}
		if len(got) != changes {
			t.Fatalf("%d values, want %d", len(got), changes)
		}
	})
}

func TestPushedValueIsNotPolled(t *testing.T) {
	inBubble(t, Limits{}, func(t *testing.T, r *rig) {
		sub := r.subscribe(func(q *ua.CreateSubscriptionRequest) { q.RequestedLifetimeCount = 10_000 }).SubscriptionID
		r.monitor(sub, levelKey.NodeID(), 1, func(c *ua.MonitoredItemCreateRequest) { c.RequestedParameters.SamplingInterval = 10 })
		before := r.demo.reads.Load()
		r.after(time.Minute)
		if n := r.demo.reads.Load() - before; n != 0 {
			t.Fatalf("read %d times though nothing changed", n)
		}
		r.demo.set(1)
		if n := r.demo.reads.Load() - before; n != 1 {
			t.Fatalf("read %d times for one change", n)
		}
	})
}

// TestMomentaryValueIsReadAgainBeforeItIsSent has a value change with nobody telling of it, while the one before waits to be published: by the next cycle, or by a
// client that has no Publish request there. A client with a queue sees both, in their order.
func TestMomentaryValueIsReadAgainBeforeItIsSent(t *testing.T) {
	for _, c := range []struct {
		name    string
		parked  bool
		queue   uint32
		first   []int64
		changed []int64
	}{
		{"in the cycle", true, 1, []int64{1}, []int64{3}},
		{"late", false, 1, []int64{1}, []int64{3}},
		{"with a queue", true, 10, []int64{0, 1}, []int64{2, 3}},
	} {
		t.Run(c.name, func(t *testing.T) {
			inBubble(t, Limits{}, func(t *testing.T, r *rig) {
				sub := r.subscribe().SubscriptionID
				r.monitor(sub, momentKey.NodeID(), c.queue)
				r.after(10 * time.Millisecond) // Cycles come in the second half of what follows.
				next := func(quietly int64) (got []int64) {
					if c.parked {
						r.publish()
					} else {
						r.after(100 * time.Millisecond)
					}
					r.after(50 * time.Millisecond)
					r.demo.level.Store(quietly)
					if !c.parked {
						r.publish()
					}
					for _, m := range r.after(50 * time.Millisecond) {
						got = append(got, ints(t, m.resp)...)
					}
					return got
				}
				r.demo.set(1)
				if got := next(1); !slices.Equal(got, c.first) {
					t.Fatalf("published %d, want %d", got, c.first)
				}
				r.demo.set(2)
				if got := next(3); !slices.Equal(got, c.changed) {
					t.Errorf("published %d, want %d", got, c.changed)
				}
				// Nothing waits, so that nothing is read.
				r.demo.level.Store(4)
				r.publish()
				for _, m := range r.after(500 * time.Millisecond) {
					if got := ints(t, m.resp); len(got) > 0 {
						t.Errorf("published %d, which nobody told of", got)
					}
				}
			})
		})
	}
}

func TestSampledValueIsFreshInEachCycle(t *testing.T) {
	inBubble(t, Limits{}, func(t *testing.T, r *rig) {
		const items = 100
		sub := r.subscribe().SubscriptionID
		for range items {
			res := r.monitor(sub, clockKey.NodeID(), 1, func(c *ua.MonitoredItemCreateRequest) { c.RequestedParameters.SamplingInterval = -1 })
			if res.StatusCode != ua.StatusOK || res.RevisedSamplingInterval != 100 {
				t.Fatalf("%+v", res)
			}
		}
		before := r.demo.reads.Load()
		for range 100 {
			r.publish()
			got := r.after(100 * time.Millisecond)
			if len(got) != 1 || len(values(t, got[0].resp)) != items {
				t.Fatalf("a cycle without a message of %d values: %+v", items, got)
			}
			if age := got[0].at.UnixNano() - ints(t, got[0].resp)[0]; age > int64(100*time.Millisecond) {
				t.Fatalf("a value is %v old", time.Duration(age))
			}
		}
		if n := r.demo.reads.Load() - before; n < 99 || n > 101 {
			t.Fatalf("read %d times in 100 intervals for %d items, want once for all", n, items)
		}
	})
}

func TestRevisedSubscription(t *testing.T) {
	inBubble(t, Limits{}, func(t *testing.T, r *rig) {
		for _, c := range []struct{ asked, want float64 }{
			{0, 50}, {-1, 50}, {math.NaN(), 50}, {math.Inf(-1), 50}, {1, 50}, {50.1, 55}, {98, 100}, {100, 100}, {math.Inf(1), 3_600_000}, {math.MaxFloat64, 3_600_000},
		} {
			sub := r.subscribe(func(q *ua.CreateSubscriptionRequest) { q.RequestedPublishingInterval = c.asked })
			if sub.RevisedPublishingInterval != c.want {
				t.Errorf("publishing interval %v: revised to %v, want %v", c.asked, sub.RevisedPublishingInterval, c.want)
			}
		}
		for _, c := range []struct{ life, keep, wantLife, wantKeep uint32 }{
			{0, 0, 30, 10}, {1, 1, 3, 1}, {29, 10, 30, 10}, {31, 10, 31, 10},
			{math.MaxUint32, math.MaxUint32, 300_000, 100_000},
		} {
			sub := r.subscribe(func(q *ua.CreateSubscriptionRequest) {
				q.RequestedLifetimeCount, q.RequestedMaxKeepAliveCount = c.life, c.keep
			})
			if sub.RevisedLifetimeCount != c.wantLife || sub.RevisedMaxKeepAliveCount != c.wantKeep {
				t.Errorf("life-time %d, keep-alive %d: revised to %d, %d, want %d, %d", c.life, c.keep,
					sub.RevisedLifetimeCount, sub.RevisedMaxKeepAliveCount, c.wantLife, c.wantKeep)
			}
		}
	})
}

func TestLifetimeEndsWithStatusChange(t *testing.T) {
	inBubble(t, Limits{}, func(t *testing.T, r *rig) {
		dead := r.subscribe()
		r.monitor(dead.SubscriptionID, levelKey.NodeID(), 1)
		if r.after(2900 * time.Millisecond); r.v.engine.subscriptions.Load() != 1 {
			t.Fatal("the subscription ended before its lifetime")
		}
		if r.after(105 * time.Millisecond); r.v.engine.subscriptions.Load() != 0 || r.v.engine.items.Load() != 0 {
			t.Fatal("the subscription outlived its lifetime")
		}
		id := r.publish()
		got := r.ch.take()
		if len(got) != 1 || got[0].id != id {
			t.Fatalf("%+v", got)
		}
		p := want[*ua.PublishResponse](t, got[0].resp)
		change, ok := p.NotificationMessage.NotificationData[0].Value.(*ua.StatusChangeNotification)
		if !ok || change.Status != ua.StatusBadTimeout || p.SubscriptionID != dead.SubscriptionID {
			t.Fatalf("%+v", p)
		}
		wantFault(t, r.ask(r.ch, r.auth, &ua.PublishRequest{}), ua.StatusBadNoSubscription)
	})
}

func TestParkedRequestKeepsSubscriptionAlive(t *testing.T) {
	inBubble(t, Limits{}, func(t *testing.T, r *rig) {
		r.subscribe()
		for range 200 { // A keep-alive each second takes one; there is always one more.
			for len(r.parked()) < 2 {
				r.publish()
			}
			r.after(time.Second)
		}
		if r.v.engine.subscriptions.Load() != 1 {
			t.Fatal("the subscription ended though its client was there")
		}
	})
}

func (r *rig) parked() []parkedPublish {
	p := r.v.sessions.find(r.auth).pub
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.parked)
}

func TestPublishingModeAndModify(t *testing.T) {
	inBubble(t, Limits{}, func(t *testing.T, r *rig) {
		sub := r.subscribe(func(q *ua.CreateSubscriptionRequest) { q.PublishingEnabled = false }).SubscriptionID
		r.monitor(sub, levelKey.NodeID(), 10)
		r.publish()
		got := r.after(105 * time.Millisecond)
		if len(got) != 1 || values(t, got[0].resp) != nil {
			t.Fatalf("publishing is off, want a keep-alive: %+v", got)
		}
		r.publish()
		if got := r.after(500 * time.Millisecond); len(got) != 0 {
			t.Fatalf("%+v", got)
		}
		res := want[*ua.SetPublishingModeResponse](t, r.call(&ua.SetPublishingModeRequest{PublishingEnabled: true, SubscriptionIDs: []uint32{sub, 0}})).Results
		if !slices.Equal(res, []ua.StatusCode{ua.StatusOK, ua.StatusBadSubscriptionIDInvalid}) {
			t.Fatalf("%v", res)
		}
		if got := r.after(105 * time.Millisecond); len(got) != 1 || !slices.Equal(ints(t, got[0].resp), []int64{0}) {
			t.Fatalf("%+v", got)
		}

		m := want[*ua.ModifySubscriptionResponse](t, r.call(&ua.ModifySubscriptionRequest{SubscriptionID: sub, RequestedPublishingInterval: 1000}))
		if m.RevisedPublishingInterval != 1000 {
			t.Fatalf("%+v", m)
		}
		r.publish()
		r.demo.set(1)
		if got := r.after(990 * time.Millisecond); len(got) != 0 {
			t.Fatalf("published by the old interval: %+v", got)
		}
		if got := r.after(20 * time.Millisecond); len(got) != 1 {
			t.Fatalf("%+v", got)
		}
		wantFault(t, r.call(&ua.ModifySubscriptionRequest{SubscriptionID: 99}), ua.StatusBadSubscriptionIDInvalid)
	})
}

func TestSubscriptionIDsAreNeverReused(t *testing.T) {
	inBubble(t, Limits{}, func(t *testing.T, r *rig) {
		seen := map[uint32]bool{}
		for range 50 {
			id := r.subscribe().SubscriptionID
			if id == 0 || seen[id] {
				t.Fatalf("id %d again", id)
			}
			seen[id] = true
			r.call(&ua.DeleteSubscriptionsRequest{SubscriptionIDs: []uint32{id}})
		}
		r.v.engine.lastSubscription.Store(math.MaxUint32)
		for range 2 {
			wantFault(t, r.call(&ua.CreateSubscriptionRequest{}), ua.StatusBadTooManySubscriptions)
		}
		if n := r.v.engine.subscriptions.Load(); n != 0 {
			t.Fatalf("%d subscriptions are counted", n)
		}
	})
}

func TestStalledSubscriberHoldsUpNobody(t *testing.T) {
	inBubble(t, Limits{}, func(t *testing.T, r *rig) {
		stalled := &fakeChannel{}
		auth := r.connect(stalled)
		sub := want[*ua.CreateSubscriptionResponse](t, r.ask(stalled, auth, &ua.CreateSubscriptionRequest{
			RequestedPublishingInterval: 100, RequestedLifetimeCount: 10_000, PublishingEnabled: true}))
		r.ask(stalled, auth, &ua.CreateMonitoredItemsRequest{SubscriptionID: sub.SubscriptionID, ItemsToCreate: []*ua.MonitoredItemCreateRequest{{
			ItemToMonitor:       &ua.ReadValueID{NodeID: levelKey.NodeID(), AttributeID: ua.AttributeIDValue},
			MonitoringMode:      ua.MonitoringModeReporting,
			RequestedParameters: &ua.MonitoringParameters{QueueSize: 5},
		}}})
		mine := r.subscribe().SubscriptionID
		r.monitor(mine, levelKey.NodeID(), 1)
		for i := range 100 {
			before := time.Now()
			r.demo.set(int64(i))
			if d := time.Since(before); d != 0 {
				t.Fatalf("the change waited for %v", d)
			}
			r.publish()
			got := r.after(105 * time.Millisecond)
			if len(got) != 1 || ints(t, got[0].resp)[0] != int64(i) {
				t.Fatalf("change %d: %+v", i, got)
			}
		}
	})
}
