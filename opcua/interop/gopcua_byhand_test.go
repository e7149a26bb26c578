package interop

import (
	"context"
	"slices"
	"testing"
	"time"

	"github.com/gopcua/opcua"
	"github.com/gopcua/opcua/id"
	"github.com/gopcua/opcua/ua"
)

// byHand makes a subscription without gopcua's own publishing, so that a step has each message in its hands.
func byHand(ctx context.Context, t *testing.T, c *opcua.Client, interval time.Duration) uint32 {
	t.Helper()
	r := mustCall[*ua.CreateSubscriptionResponse](ctx, t, c, &ua.CreateSubscriptionRequest{
		RequestedPublishingInterval: float64(interval.Milliseconds()), RequestedLifetimeCount: 600, RequestedMaxKeepAliveCount: 100, PublishingEnabled: true,
	})
	return r.SubscriptionID
}

// item adds an item to a subscription by hand, with its node's number as handle, unless change makes it another.
func item(ctx context.Context, t *testing.T, c *opcua.Client, sub, node uint32, change func(*ua.MonitoredItemCreateRequest)) {
	t.Helper()
	r := opcua.NewMonitoredItemCreateRequestWithDefaults(serverNode(node), ua.AttributeIDValue, node)
	if change != nil {
		change(r)
	}
	made := mustCall[*ua.CreateMonitoredItemsResponse](ctx, t, c, &ua.CreateMonitoredItemsRequest{
		SubscriptionID: sub, TimestampsToReturn: ua.TimestampsToReturnBoth, ItemsToCreate: []*ua.MonitoredItemCreateRequest{r},
	})
	if got := made.Results[0].StatusCode; got != ua.StatusOK {
		t.Fatalf("the item was not created: %v", got)
	}
}

// valuesOf are the values of a message; a keep-alive has none.
func valuesOf(r *ua.PublishResponse) []*ua.DataValue {
	var all []*ua.DataValue
	for _, data := range r.NotificationMessage.NotificationData {
		if n, ok := data.Value.(*ua.DataChangeNotification); ok {
			for _, i := range n.MonitoredItems {
				all = append(all, i.Value)
			}
		}
	}
	return all
}

func publish(ctx context.Context, t *testing.T, c *opcua.Client, acks ...*ua.SubscriptionAcknowledgement) *ua.PublishResponse {
	t.Helper()
	return mustCall[*ua.PublishResponse](ctx, t, c, &ua.PublishRequest{SubscriptionAcknowledgements: acks})
}

func wantLevel(t *testing.T, got []*ua.DataValue) {
	t.Helper()
	if len(got) != 1 || got[0].Value.Value() != byte(255) {
		t.Errorf("notified of %v, want ServiceLevel 255", got)
	}
}

func drop(ctx context.Context, t *testing.T, c *opcua.Client, sub uint32) {
	t.Helper()
	r := mustCall[*ua.DeleteSubscriptionsResponse](ctx, t, c, &ua.DeleteSubscriptionsRequest{SubscriptionIDs: []uint32{sub}})
	wantStatus(t, r.Results, ua.StatusOK)
}

// overflowBits tell an overflow in a status: the type of its info bits is that of a data value, and the overflow bit is set (Part 4 §7.38).
const overflowBits = 0x480

// queued fills a queue of three, of which the message after the first has all, and returns which of them tell of an overflow.
func queued(ctx context.Context, t *testing.T, c *opcua.Client, discardOldest bool) (overflows []bool) {
	t.Helper()
	sub := byHand(ctx, t, c, 600*time.Millisecond)
	defer drop(ctx, t, c, sub)
	item(ctx, t, c, sub, id.Server_ServerStatus_CurrentTime, func(r *ua.MonitoredItemCreateRequest) {
		r.RequestedParameters.SamplingInterval, r.RequestedParameters.QueueSize, r.RequestedParameters.DiscardOldest = 100, 3, discardOldest
	})
	publish(ctx, t, c) // Whatever the first cycle found.
	for _, v := range valuesOf(publish(ctx, t, c)) {
		overflows = append(overflows, v.Status&overflowBits == overflowBits)
	}
	return overflows
}

// gopcuaByHand are services on subscriptions and items for which each message counts. They have a client of their own.
var gopcuaByHand = []gopcuaStep{
	{step{"Subscription", "CreateSubscription", "intervals and counts are revised"}, func(ctx context.Context, t *testing.T, c *opcua.Client) {
		r := mustCall[*ua.CreateSubscriptionResponse](ctx, t, c, &ua.CreateSubscriptionRequest{RequestedLifetimeCount: 1, RequestedMaxKeepAliveCount: 10, PublishingEnabled: true})
		if r.RevisedPublishingInterval <= 0 || r.RevisedLifetimeCount < 3*r.RevisedMaxKeepAliveCount {
			t.Errorf("%+v", r)
		}
		drop(ctx, t, c, r.SubscriptionID)
	}},
	{step{"Subscription", "Publish", "a keep-alive in the first cycle, and then values"}, func(ctx context.Context, t *testing.T, c *opcua.Client) {
		sub := byHand(ctx, t, c, flowInterval)
		defer drop(ctx, t, c, sub)
		if got := valuesOf(publish(ctx, t, c)); len(got) != 0 {
			t.Errorf("the first message has %v", got)
		}
		item(ctx, t, c, sub, id.Server_ServiceLevel, nil)
		wantLevel(t, valuesOf(publish(ctx, t, c)))
	}},
	{step{"Subscription", "Publish", "acknowledgements"}, func(ctx context.Context, t *testing.T, c *opcua.Client) {
		sub := byHand(ctx, t, c, flowInterval)
		defer drop(ctx, t, c, sub)
		item(ctx, t, c, sub, id.Server_ServerStatus_CurrentTime, func(r *ua.MonitoredItemCreateRequest) { r.RequestedParameters.SamplingInterval = 50 })
		first := publish(ctx, t, c).NotificationMessage.SequenceNumber
		r := publish(ctx, t, c, &ua.SubscriptionAcknowledgement{SubscriptionID: sub, SequenceNumber: first}, &ua.SubscriptionAcknowledgement{SubscriptionID: sub, SequenceNumber: 1_000_000})
		wantStatus(t, r.Results, ua.StatusOK, ua.StatusBadSequenceNumberUnknown)
		if slices.Contains(r.AvailableSequenceNumbers, first) {
			t.Errorf("message %d is acknowledged and still there: %v", first, r.AvailableSequenceNumbers)
		}
	}},
	{step{"MonitoredItem", "CreateMonitoredItems", "dead-bands that a value can't have are refused"}, func(ctx context.Context, t *testing.T, c *opcua.Client) {
		sub := byHand(ctx, t, c, flowInterval)
		defer drop(ctx, t, c, sub)
		for _, d := range []struct {
			node  uint32
			kind  ua.DeadbandType
			value float64
			want  ua.StatusCode
		}{
			{id.Server_ServiceLevel, ua.DeadbandTypeAbsolute, -1, ua.StatusBadDeadbandFilterInvalid},
			{id.Server_NamespaceArray, ua.DeadbandTypeAbsolute, 1, ua.StatusBadFilterNotAllowed},             // Not a number.
			{id.Server_ServiceLevel, ua.DeadbandTypePercent, 10, ua.StatusBadMonitoredItemFilterUnsupported}, // It has no EURange.
		} {
			asked := opcua.NewMonitoredItemCreateRequestWithDefaults(serverNode(d.node), ua.AttributeIDValue, 1)
			asked.RequestedParameters.Filter = ua.NewExtensionObject(&ua.DataChangeFilter{Trigger: ua.DataChangeTriggerStatusValue, DeadbandType: uint32(d.kind), DeadbandValue: d.value})
			r := mustCall[*ua.CreateMonitoredItemsResponse](ctx, t, c, &ua.CreateMonitoredItemsRequest{
				SubscriptionID: sub, TimestampsToReturn: ua.TimestampsToReturnBoth, ItemsToCreate: []*ua.MonitoredItemCreateRequest{asked},
			})
			wantStatus(t, []ua.StatusCode{r.Results[0].StatusCode}, d.want)
		}
	}},
	{step{"Subscription", "Publish", "BadTimeout for a subscription that nobody has asked about for its life-time"}, func(ctx context.Context, t *testing.T, c *opcua.Client) {
		r := mustCall[*ua.CreateSubscriptionResponse](ctx, t, c, &ua.CreateSubscriptionRequest{
			RequestedPublishingInterval: float64(flowInterval.Milliseconds()), RequestedLifetimeCount: 3, RequestedMaxKeepAliveCount: 1, PublishingEnabled: true,
		})
		again := time.NewTicker(20 * time.Millisecond)
		defer again.Stop()
		for there := true; there; <-again.C {
			answer, err := c.Call(ctx, &ua.CallMethodRequest{
				ObjectID: serverNode(id.Server), MethodID: serverNode(id.Server_GetMonitoredItems), InputArguments: []*ua.Variant{ua.MustVariant(r.SubscriptionID)},
			})
			if err != nil {
				t.Fatal(err)
			}
			there = answer.StatusCode != ua.StatusBadSubscriptionIDInvalid
		}
		last := publish(ctx, t, c)
		change, ok := last.NotificationMessage.NotificationData[0].Value.(*ua.StatusChangeNotification)
		if !ok || change.Status != ua.StatusBadTimeout || last.SubscriptionID != r.SubscriptionID {
			t.Errorf("the last message of subscription %d is %+v", r.SubscriptionID, last)
		}
	}},
	{step{"MonitoredItem", "CreateMonitoredItems", "an unknown node is refused, and the others are made"}, func(ctx context.Context, t *testing.T, c *opcua.Client) {
		sub := byHand(ctx, t, c, flowInterval)
		defer drop(ctx, t, c, sub)
		r := mustCall[*ua.CreateMonitoredItemsResponse](ctx, t, c, &ua.CreateMonitoredItemsRequest{
			SubscriptionID: sub, TimestampsToReturn: ua.TimestampsToReturnBoth, ItemsToCreate: []*ua.MonitoredItemCreateRequest{
				opcua.NewMonitoredItemCreateRequestWithDefaults(nowhere, ua.AttributeIDValue, 1),
				opcua.NewMonitoredItemCreateRequestWithDefaults(serverNode(id.Server_ServiceLevel), ua.AttributeIDValue, 2),
			},
		})
		wantStatus(t, []ua.StatusCode{r.Results[0].StatusCode, r.Results[1].StatusCode}, ua.StatusBadNodeIDUnknown, ua.StatusOK)
	}},
	{step{"MonitoredItem", "CreateMonitoredItems", "sampled, with a queue that keeps the newest values"}, func(ctx context.Context, t *testing.T, c *opcua.Client) {
		if got := queued(ctx, t, c, true); !slices.Equal(got, []bool{true, false, false}) {
			t.Errorf("overflows %v", got)
		}
	}},
	{step{"MonitoredItem", "CreateMonitoredItems", "sampled, with a queue that keeps the oldest values"}, func(ctx context.Context, t *testing.T, c *opcua.Client) {
		if got := queued(ctx, t, c, false); !slices.Equal(got, []bool{false, false, true}) {
			t.Errorf("overflows %v", got)
		}
	}},
	{step{"Method", "Call", "ResendData gives the values again"}, func(ctx context.Context, t *testing.T, c *opcua.Client) {
		sub := byHand(ctx, t, c, flowInterval)
		defer drop(ctx, t, c, sub)
		item(ctx, t, c, sub, id.Server_ServiceLevel, nil)
		wantLevel(t, valuesOf(publish(ctx, t, c)))
		r, err := c.Call(ctx, &ua.CallMethodRequest{
			ObjectID: serverNode(id.Server), MethodID: serverNode(id.Server_ResendData), InputArguments: []*ua.Variant{ua.MustVariant(sub)},
		})
		if err != nil || r.StatusCode != ua.StatusOK {
			t.Fatalf("%v, %v", r, err)
		}
		wantLevel(t, valuesOf(publish(ctx, t, c)))
	}},
}
