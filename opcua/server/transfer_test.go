package server

import (
	"context"
	"slices"
	"testing"
	"time"

	"github.com/gopcua/opcua"
	"github.com/gopcua/opcua/ua"
)

// other is a second client of a rig.
type other struct {
	*rig
	ch   *fakeChannel
	auth *ua.NodeID
}

func (r *rig) other() *other {
	r.t.Helper()
	ch := &fakeChannel{}
	return &other{r, ch, r.connect(ch)}
}

func (o *other) call(req ua.Request) ua.Response {
	o.t.Helper()
	return o.ask(o.ch, o.auth, req)
}

func (o *other) transfer(initial bool, subs ...uint32) []*ua.TransferResult {
	o.t.Helper()
	return want[*ua.TransferSubscriptionsResponse](o.t, o.call(&ua.TransferSubscriptionsRequest{SubscriptionIDs: subs, SendInitialValues: initial})).Results
}

func (o *other) publish(acks ...*ua.SubscriptionAcknowledgement) {
	o.post(o.ch, o.auth, &ua.PublishRequest{SubscriptionAcknowledgements: acks})
}

// after lets time pass, and returns what was sent meanwhile to this client.
func (o *other) after(d time.Duration) []sent {
	o.rig.after(d)
	return o.ch.take()
}

// lastWord returns the status of a StatusChange message.
func lastWord(t testing.TB, resp ua.Response) ua.StatusCode {
	t.Helper()
	p := want[*ua.PublishResponse](t, resp)
	if len(p.NotificationMessage.NotificationData) != 1 {
		t.Fatalf("%+v", p.NotificationMessage)
	}
	return p.NotificationMessage.NotificationData[0].Value.(*ua.StatusChangeNotification).Status
}

func TestTransferFromAnOpenSession(t *testing.T) {
	inBubble(t, Limits{}, func(t *testing.T, r *rig) {
		sub := r.subscribe().SubscriptionID
		r.monitor(sub, levelKey.NodeID(), 10)
		r.publish()
		r.after(105 * time.Millisecond) // Its message 1 is not acknowledged.
		parked, left := r.publish(), r.publish()

		o := r.other()
		res := o.transfer(false, sub)[0]
		if res.StatusCode != ua.StatusOK || !slices.Equal(res.AvailableSequenceNumbers, []uint32{1}) {
			t.Fatalf("%+v", res)
		}
		got := r.ch.take()
		if len(got) != 2 || got[0].id != parked || got[1].id != left {
			t.Fatalf("the old session got %+v", got)
		}
		if p := got[0].resp.(*ua.PublishResponse); p.SubscriptionID != sub || lastWord(t, p) != ua.StatusGoodSubscriptionTransferred {
			t.Errorf("the old session was told %+v", p)
		}
		wantFault(t, got[1].resp, ua.StatusBadNoSubscription)
		wantFault(t, r.call(&ua.RepublishRequest{SubscriptionID: sub, RetransmitSequenceNumber: 1}), ua.StatusBadSubscriptionIDInvalid)

		again := want[*ua.RepublishResponse](t, o.call(&ua.RepublishRequest{SubscriptionID: sub, RetransmitSequenceNumber: 1}))
		if n := len(again.NotificationMessage.NotificationData); n != 1 {
			t.Errorf("the message has %d parts", n)
		}
		r.demo.set(8)
		o.publish(&ua.SubscriptionAcknowledgement{SubscriptionID: sub, SequenceNumber: 1})
		msgs := o.after(105 * time.Millisecond)
		if len(msgs) != 1 || !slices.Equal(ints(t, msgs[0].resp), []int64{8}) {
			t.Fatalf("%+v", msgs)
		}
		p := msgs[0].resp.(*ua.PublishResponse)
		if p.NotificationMessage.SequenceNumber != 2 || !slices.Equal(p.Results, []ua.StatusCode{ua.StatusOK}) {
			t.Errorf("%+v", p)
		}
		if got := o.transfer(false, sub, 99); got[0].StatusCode != ua.StatusBadNothingToDo || got[1].StatusCode != ua.StatusBadSubscriptionIDInvalid {
			t.Errorf("%v, %v", got[0], got[1])
		}
		wantFault(t, o.call(&ua.TransferSubscriptionsRequest{}), ua.StatusBadNothingToDo)
	})
}

func TestSubscriptionOutlivesItsSession(t *testing.T) {
	for _, c := range []struct {
		name string
		end  func(r *rig)
	}{
		{"closed", func(r *rig) {
			want[*ua.CloseSessionResponse](r.t, r.call(&ua.CloseSessionRequest{DeleteSubscriptions: false}))
		}},
		{"timed out", func(r *rig) {
			r.v.expire(r.v.sessions.find(r.auth), time.Duration(1<<62))
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			inBubble(t, Limits{}, func(t *testing.T, r *rig) {
				sub := r.subscribe().SubscriptionID
				r.monitor(sub, levelKey.NodeID(), 10)
				c.end(r)
				if n := r.v.sessions.count(); n != 0 {
					t.Fatalf("%d sessions are left", n)
				}
				r.demo.set(3) // Nobody hears it yet.
				r.after(2500 * time.Millisecond)
				o := r.other()
				if res := o.transfer(true, sub)[0]; res.StatusCode != ua.StatusOK {
					t.Fatalf("%+v", res)
				}
				o.publish()
				if got := o.after(105 * time.Millisecond); len(got) != 1 || !slices.Equal(ints(t, got[0].resp), []int64{0, 3}) {
					t.Fatalf("%+v", got)
				}
				if len(r.v.engine.registry.detached) != 0 {
					t.Error("it is still held to be without a session")
				}
			})
		})
	}
}

func TestDetachedSubscriptionEndsWithItsLifetime(t *testing.T) {
	inBubble(t, Limits{}, func(t *testing.T, r *rig) {
		sub := r.subscribe().SubscriptionID // 30 cycles of 100 ms.
		r.monitor(sub, levelKey.NodeID(), 10)
		want[*ua.CloseSessionResponse](t, r.call(&ua.CloseSessionRequest{}))
		r.after(2900 * time.Millisecond)
		if n := r.v.engine.subscriptions.Load(); n != 1 {
			t.Fatalf("%d subscriptions before the end of its lifetime", n)
		}
		r.after(200 * time.Millisecond)
		if e := r.v.engine; e.subscriptions.Load() != 0 || e.items.Load() != 0 || len(e.registry.subs) != 0 || len(e.registry.detached) != 0 {
			t.Fatal("it has outlived its lifetime")
		}
		if res := r.other().transfer(false, sub)[0]; res.StatusCode != ua.StatusBadSubscriptionIDInvalid {
			t.Errorf("%v", res.StatusCode)
		}
	})
}

func TestInitialValuesAfterTransfer(t *testing.T) {
	for _, initial := range []bool{true, false} {
		inBubble(t, Limits{}, func(t *testing.T, r *rig) {
			sub := r.subscribe().SubscriptionID
			r.monitor(sub, levelKey.NodeID(), 10, named(1, ua.MonitoringModeReporting))
			r.monitor(sub, levelKey.NodeID(), 10, named(2, ua.MonitoringModeSampling))
			r.publish()
			r.after(105 * time.Millisecond) // The value has been sent.
			o := r.other()
			o.transfer(initial, sub)
			o.publish()
			got := o.after(105 * time.Millisecond)
			if len(got) != 1 {
				t.Fatalf("%d messages", len(got))
			}
			if h := handles(t, got[0].resp); initial != slices.Equal(h, []uint32{1}) || !initial && h != nil {
				t.Errorf("initial values %v: got those of %v", initial, h)
			}
		})
	}
}

func TestOnlyTheSameUserMayTake(t *testing.T) {
	inBubble(t, Limits{MaxSubscriptionsPerSession: 2}, func(t *testing.T, r *rig) {
		user := func(r *rig, name string) *other {
			ch := &fakeChannel{}
			auth := r.create(ch)
			r.v.sessions.find(auth).bound.Store(&binding{ch: ch, identity: Identity{Name: name}})
			return &other{r, ch, auth}
		}
		create := &ua.CreateSubscriptionRequest{RequestedPublishingInterval: 100, RequestedMaxKeepAliveCount: 10, RequestedLifetimeCount: 30}
		alice, bob, alsoAlice, nobody := user(r, "alice"), user(r, "bob"), user(r, "alice"), user(r, "")
		sub := want[*ua.CreateSubscriptionResponse](t, alice.call(create)).SubscriptionID
		for _, o := range []*other{bob, nobody} {
			if res := o.transfer(false, sub)[0]; res.StatusCode != ua.StatusBadUserAccessDenied {
				t.Errorf("%v", res.StatusCode)
			}
		}
		want[*ua.CloseSessionResponse](t, alice.call(&ua.CloseSessionRequest{}))
		if res := bob.transfer(false, sub)[0]; res.StatusCode != ua.StatusBadUserAccessDenied {
			t.Errorf("after the session was closed: %v", res.StatusCode)
		}
		if res := alsoAlice.transfer(false, sub)[0]; res.StatusCode != ua.StatusOK {
			t.Errorf("the same user: %v", res.StatusCode)
		}
		// An anonymous user is who its application is.
		mine := r.subscribe().SubscriptionID
		r.v.sessions.find(nobody.auth).application = "urn:another"
		if res := nobody.transfer(false, mine)[0]; res.StatusCode != ua.StatusBadUserAccessDenied {
			t.Errorf("another application: %v", res.StatusCode)
		}
		want[*ua.CreateSubscriptionResponse](t, alsoAlice.call(create))
		second := want[*ua.CreateSubscriptionResponse](t, bob.call(create)).SubscriptionID
		r.v.sessions.find(bob.auth).bound.Store(&binding{ch: bob.ch, identity: Identity{Name: "alice"}})
		if res := alsoAlice.transfer(false, second)[0]; res.StatusCode != ua.StatusBadTooManySubscriptions {
			t.Errorf("a session that has all it may have: %v", res.StatusCode)
		}
	})
}

func TestDetachedSubscriptionsMakeRoom(t *testing.T) {
	inBubble(t, Limits{MaxSubscriptions: 4, MaxMonitoredItems: 5, MaxDetachedSubscriptions: 3, MaxDetachedPerClient: 2}, func(t *testing.T, r *rig) {
		exists := func(id uint32) bool { return r.v.engine.registry.find(id) != nil }
		var subs []uint32
		for range 3 {
			subs = append(subs, r.subscribe().SubscriptionID)
		}
		r.monitor(subs[0], levelKey.NodeID(), 1)
		want[*ua.CloseSessionResponse](t, r.call(&ua.CloseSessionRequest{}))
		if n := len(r.v.engine.registry.detached); n != 2 || r.v.engine.subscriptions.Load() != 2 {
			t.Fatalf("%d are kept of one client, want 2", n)
		}
		for i := range 2 { // Of other clients: one more is kept of all.
			ch := &fakeChannel{addr: []string{"127.0.0.2", "127.0.0.3"}[i]}
			o := &other{r, ch, r.connect(ch)}
			subs = append(subs, want[*ua.CreateSubscriptionResponse](t, o.call(&ua.CreateSubscriptionRequest{})).SubscriptionID)
			want[*ua.CloseSessionResponse](t, o.call(&ua.CloseSessionRequest{}))
		}
		if n := len(r.v.engine.registry.detached); n != 3 || !exists(subs[4]) {
			t.Fatalf("%d are kept of all clients, want 3", n)
		}
		r.ch = &fakeChannel{}
		r.auth = r.connect(r.ch)
		var mine []uint32
		for range 4 {
			mine = append(mine, r.subscribe().SubscriptionID)
		}
		if len(r.v.engine.registry.detached) != 0 || slices.ContainsFunc(subs, exists) {
			t.Fatal("they have not made room for subscriptions that are in use")
		}
		wantFault(t, r.call(&ua.CreateSubscriptionRequest{}), ua.StatusBadTooManySubscriptions)
		for range 5 {
			r.monitor(mine[0], levelKey.NodeID(), 1)
		}
		want[*ua.CloseSessionResponse](t, r.call(&ua.CloseSessionRequest{}))
		o := r.other()
		r.ch, r.auth = o.ch, o.auth
		r.monitor(r.subscribe().SubscriptionID, levelKey.NodeID(), 1)
		if n := r.v.engine.items.Load(); n > 5 {
			t.Errorf("%d items", n)
		}
	})
}

func TestTransferWhileSubscriptionsCycleAndEnd(t *testing.T) {
	s := serve(t)
	a, b := s.connect(t), s.connect(t)
	for range 20 {
		var sub uint32
		if err := a.Send(t.Context(), &ua.CreateSubscriptionRequest{RequestedPublishingInterval: 10, PublishingEnabled: true}, func(resp ua.Response) error {
			sub = resp.(*ua.CreateSubscriptionResponse).SubscriptionID
			return nil
		}); err != nil {
			t.Fatal(err)
		}
		there := make(chan struct{})
		go func() {
			defer close(there)
			for range 10 {
				_ = a.Send(t.Context(), &ua.TransferSubscriptionsRequest{SubscriptionIDs: []uint32{sub}}, func(ua.Response) error { return nil })
			}
		}()
		for range 10 {
			_ = b.Send(t.Context(), &ua.TransferSubscriptionsRequest{SubscriptionIDs: []uint32{sub}}, func(ua.Response) error { return nil })
		}
		<-there
		for _, c := range []*opcua.Client{a, b} {
			_ = c.Send(t.Context(), &ua.DeleteSubscriptionsRequest{SubscriptionIDs: []uint32{sub}}, func(ua.Response) error { return nil })
		}
	}
	if st := s.Stats(); st.Subscriptions != 0 {
		t.Errorf("%d subscriptions are left", st.Subscriptions)
	}
}

// TestTransferOnTheWire is what a client does whose connection broke so long ago that its session is gone.
func TestTransferOnTheWire(t *testing.T) {
	s := serve(t)
	first := s.connect(t)
	var sub uint32
	if err := first.Send(t.Context(), &ua.CreateSubscriptionRequest{RequestedPublishingInterval: 10, RequestedMaxKeepAliveCount: 100, PublishingEnabled: true}, func(resp ua.Response) error {
		sub = resp.(*ua.CreateSubscriptionResponse).SubscriptionID
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	if got := send(t, first, &ua.CreateMonitoredItemsRequest{SubscriptionID: sub, ItemsToCreate: []*ua.MonitoredItemCreateRequest{
		opcua.NewMonitoredItemCreateRequestWithDefaults(levelKey.NodeID(), ua.AttributeIDValue, 1),
	}}); got != ua.StatusOK {
		t.Fatal(got)
	}
	if got := send(t, first, &ua.CloseSessionRequest{}); got != ua.StatusOK {
		t.Fatal(got)
	}
	s.demo.set(41)
	second := s.connect(t)
	if err := second.Send(t.Context(), &ua.TransferSubscriptionsRequest{SubscriptionIDs: []uint32{sub}, SendInitialValues: true}, func(resp ua.Response) error {
		if res := resp.(*ua.TransferSubscriptionsResponse).Results[0]; res.StatusCode != ua.StatusOK {
			t.Errorf("%v", res.StatusCode)
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if err := second.Send(ctx, &ua.PublishRequest{}, func(resp ua.Response) error {
		if list := values(t, resp); len(list) == 0 || list[len(list)-1].Value.Value.Int() != 41 {
			t.Errorf("%+v", list)
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
}
