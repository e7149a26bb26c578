package server

import (
	"slices"
	"testing"
	"time"

	"github.com/gopcua/opcua/ua"
)

func TestLatePublishIsAnsweredAtOnce(t *testing.T) {
	inBubble(t, Limits{}, func(t *testing.T, r *rig) {
		sub := r.subscribe().SubscriptionID
		r.monitor(sub, levelKey.NodeID(), 10)
		r.after(500 * time.Millisecond)
		r.demo.set(1) // Queued behind the first value, while the subscription is late already.
		id := r.publish()
		got := r.ch.take()
		if len(got) != 1 || got[0].id != id || !slices.Equal(ints(t, got[0].resp), []int64{0, 1}) {
			t.Fatalf("%+v", got)
		}
		id = r.publish()
		if got := r.ch.take(); len(got) != 0 {
			t.Fatalf("a second message with nothing to say: %+v", got)
		}
		r.demo.set(2)
		if got := r.after(105 * time.Millisecond); len(got) != 1 || got[0].id != id || !slices.Equal(ints(t, got[0].resp), []int64{2}) {
			t.Fatalf("%+v", got)
		}
	})
}

func TestTooManyPublishRequests(t *testing.T) {
	inBubble(t, Limits{MaxPublishRequests: 3}, func(t *testing.T, r *rig) {
		r.subscribe()
		oldest := r.publish()
		r.publish()
		r.publish()
		if got := r.ch.take(); len(got) != 0 {
			t.Fatalf("%+v", got)
		}
		r.publish()
		got := r.ch.take()
		if len(got) != 1 || got[0].id != oldest {
			t.Fatalf("%+v", got)
		}
		wantFault(t, got[0].resp, ua.StatusBadTooManyPublishRequests)
	})
}

func TestNoSubscription(t *testing.T) {
	inBubble(t, Limits{}, func(t *testing.T, r *rig) {
		wantFault(t, r.call(&ua.PublishRequest{}), ua.StatusBadNoSubscription)
		sub := r.subscribe().SubscriptionID
		id := r.publish()
		r.post(r.ch, r.auth, &ua.DeleteSubscriptionsRequest{SubscriptionIDs: []uint32{sub, 99}})
		got := r.ch.take()
		if len(got) != 2 || got[0].id != id {
			t.Fatalf("%+v", got)
		}
		wantFault(t, got[0].resp, ua.StatusBadNoSubscription)
		res := want[*ua.DeleteSubscriptionsResponse](t, got[1].resp).Results
		if !slices.Equal(res, []ua.StatusCode{ua.StatusOK, ua.StatusBadSubscriptionIDInvalid}) {
			t.Fatalf("%v", res)
		}
	})
}

func TestTimeoutHintAndCancel(t *testing.T) {
	inBubble(t, Limits{}, func(t *testing.T, r *rig) {
		r.subscribe(func(q *ua.CreateSubscriptionRequest) { q.RequestedMaxKeepAliveCount = 1000 })
		r.publish()
		r.after(200 * time.Millisecond) // The first keep-alive takes it.
		hinted := r.post(r.ch, r.auth, &ua.PublishRequest{RequestHeader: &ua.RequestHeader{TimeoutHint: 1000}})
		parked := r.publish()
		if got := r.after(900 * time.Millisecond); len(got) != 0 {
			t.Fatalf("%+v", got)
		}
		got := r.after(300 * time.Millisecond)
		if len(got) != 1 || got[0].id != hinted {
			t.Fatalf("%+v", got)
		}
		wantFault(t, got[0].resp, ua.StatusBadTimeout)

		r.post(r.ch, r.auth, &ua.CancelRequest{RequestHandle: parked})
		got = r.ch.take()
		if len(got) != 2 || got[0].id != parked {
			t.Fatalf("%+v", got)
		}
		wantFault(t, got[0].resp, ua.StatusBadRequestCancelledByRequest)
		if n := want[*ua.CancelResponse](t, got[1].resp).CancelCount; n != 1 {
			t.Fatalf("cancelled %d", n)
		}
	})
}

func TestRepublish(t *testing.T) {
	inBubble(t, Limits{MaxUnacknowledged: 3}, func(t *testing.T, r *rig) {
		sub := r.subscribe().SubscriptionID
		r.monitor(sub, levelKey.NodeID(), 1)
		var last *ua.PublishResponse
		for i := range 5 {
			r.demo.set(int64(i + 1))
			r.publish()
			got := r.after(105 * time.Millisecond)
			last = want[*ua.PublishResponse](t, got[0].resp)
		}
		if !slices.Equal(last.AvailableSequenceNumbers, []uint32{3, 4, 5}) {
			t.Fatalf("available: %v", last.AvailableSequenceNumbers)
		}
		ask := func(sub, n uint32) ua.Response {
			return r.call(&ua.RepublishRequest{SubscriptionID: sub, RetransmitSequenceNumber: n})
		}
		if m := want[*ua.RepublishResponse](t, ask(sub, 5)).NotificationMessage; m != last.NotificationMessage {
			t.Fatalf("%+v", m)
		}
		wantFault(t, ask(sub, 2), ua.StatusBadMessageNotAvailable)
		wantFault(t, ask(sub, 6), ua.StatusBadMessageNotAvailable)
		wantFault(t, ask(sub+1, 5), ua.StatusBadSubscriptionIDInvalid)

		r.demo.set(6)
		r.publish(
			&ua.SubscriptionAcknowledgement{SubscriptionID: sub, SequenceNumber: 4},
			&ua.SubscriptionAcknowledgement{SubscriptionID: sub, SequenceNumber: 4},
			&ua.SubscriptionAcknowledgement{SubscriptionID: sub + 1, SequenceNumber: 5},
		)
		p := want[*ua.PublishResponse](t, r.after(105 * time.Millisecond)[0].resp)
		if !slices.Equal(p.Results, []ua.StatusCode{ua.StatusOK, ua.StatusBadSequenceNumberUnknown, ua.StatusBadSubscriptionIDInvalid}) {
			t.Fatalf("%v", p.Results)
		}
		if !slices.Equal(p.AvailableSequenceNumbers, []uint32{3, 5, 6}) {
			t.Fatalf("available: %v", p.AvailableSequenceNumbers)
		}
		wantFault(t, ask(sub, 4), ua.StatusBadMessageNotAvailable)
	})
}

func TestMoreNotifications(t *testing.T) {
	t.Run("by the client's limit", func(t *testing.T) { moreNotifications(t, DefaultLimits.MaxNotificationsPerPublish, 4) })
	t.Run("by the server's limit", func(t *testing.T) { moreNotifications(t, 4, 0) })
}

func moreNotifications(t *testing.T, server int, client uint32) {
	inBubble(t, Limits{MaxNotificationsPerPublish: server}, func(t *testing.T, r *rig) {
		sub := r.subscribe(func(q *ua.CreateSubscriptionRequest) { q.MaxNotificationsPerPublish = client })
		r.monitor(sub.SubscriptionID, levelKey.NodeID(), 20)
		for i := range 9 {
			r.demo.set(int64(i + 1))
		}
		r.publish()
		r.publish()
		got := r.after(105 * time.Millisecond)
		if len(got) != 2 {
			t.Fatalf("%d messages for two requests", len(got))
		}
		r.publish()
		got = append(got, r.ch.take()...)
		var all []int64
		for i, m := range got {
			if more := want[*ua.PublishResponse](t, m.resp).MoreNotifications; more != (i < 2) {
				t.Errorf("message %d: more is %v", i, more)
			}
			all = append(all, ints(t, m.resp)...)
		}
		if !slices.Equal(all, []int64{0, 1, 2, 3, 4, 5, 6, 7, 8, 9}) {
			t.Fatalf("%v", all)
		}
	})
}

func TestPriority(t *testing.T) {
	inBubble(t, Limits{}, func(t *testing.T, r *rig) {
		priority := func(p uint8) uint32 {
			return r.subscribe(func(q *ua.CreateSubscriptionRequest) { q.Priority = p }).SubscriptionID
		}
		low, high, middle, equal := priority(1), priority(9), priority(5), priority(5)
		r.after(200 * time.Millisecond)
		var order []uint32
		for range 4 {
			r.publish()
			for _, m := range r.ch.take() {
				order = append(order, want[*ua.PublishResponse](t, m.resp).SubscriptionID)
			}
		}
		if !slices.Equal(order, []uint32{high, middle, equal, low}) {
			t.Fatalf("order %v, want %v", order, []uint32{high, middle, equal, low})
		}
	})
}
