package server

import (
	"testing"

	"github.com/gopcua/opcua/ua"
)

// TestManyItemsOfOneCallAreSampledOnce proves that the items which one call makes for one value take one sample of it, and not one
// each, of which each would be handed to all of them.
func TestManyItemsOfOneCallAreSampledOnce(t *testing.T) {
	inBubble(t, Limits{}, func(t *testing.T, r *rig) {
		const items = 1000
		sub := want[*ua.CreateSubscriptionResponse](t, r.call(&ua.CreateSubscriptionRequest{PublishingEnabled: true})).SubscriptionID
		req := &ua.CreateMonitoredItemsRequest{SubscriptionID: sub}
		for range items {
			req.ItemsToCreate = append(req.ItemsToCreate, &ua.MonitoredItemCreateRequest{
				ItemToMonitor:  &ua.ReadValueID{NodeID: levelKey.NodeID(), AttributeID: ua.AttributeIDValue},
				MonitoringMode: ua.MonitoringModeReporting, RequestedParameters: &ua.MonitoringParameters{QueueSize: 10},
			})
		}
		before := r.demo.reads.Load()
		want[*ua.CreateMonitoredItemsResponse](t, r.call(req))
		// Each is read once to see whether it can be.
		if n := r.demo.reads.Load() - before - items; n != 1 {
			t.Errorf("%d samples for %d items", n, items)
		}
	})
}
