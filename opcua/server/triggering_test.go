package server

import (
	"slices"
	"testing"
	"time"

	"github.com/gopcua/opcua/ua"
)

// trigger asks for links and returns the answer.
func (r *rig) trigger(sub, item uint32, add, remove []uint32) *ua.SetTriggeringResponse {
	r.t.Helper()
	return want[*ua.SetTriggeringResponse](r.t, r.call(&ua.SetTriggeringRequest{SubscriptionID: sub, TriggeringItemID: item, LinksToAdd: add, LinksToRemove: remove}))
}

func named(handle uint32, mode ua.MonitoringMode) func(*ua.MonitoredItemCreateRequest) {
	return func(c *ua.MonitoredItemCreateRequest) {
		c.RequestedParameters.ClientHandle, c.MonitoringMode = handle, mode
	}
}

// handles returns the client handles of a Publish response, in their order.
func handles(t testing.TB, resp ua.Response) (list []uint32) {
	t.Helper()
	for _, n := range values(t, resp) {
		list = append(list, n.ClientHandle)
	}
	return list
}

func TestTriggeredItemsReportWhatTheyQueued(t *testing.T) {
	for _, mode := range []ua.MonitoringMode{ua.MonitoringModeReporting, ua.MonitoringModeSampling} {
		inBubble(t, Limits{}, func(t *testing.T, r *rig) {
			sub := r.subscribe().SubscriptionID
			linked := r.monitor(sub, analogKey.NodeID(), 10, named(2, ua.MonitoringModeSampling)).MonitoredItemID
			r.publish()
			if got := handles(t, r.after(105 * time.Millisecond)[0].resp); got != nil {
				t.Fatalf("an item reported that only samples: %v", got)
			}
			trigger := r.monitor(sub, levelKey.NodeID(), 10, named(1, mode)).MonitoredItemID
			r.publish()
			got := handles(t, r.after(1100 * time.Millisecond)[0].resp)
			reports := mode == ua.MonitoringModeReporting
			if reports && !slices.Equal(got, []uint32{1}) || !reports && got != nil {
				t.Fatalf("before the link: %v", got)
			}
			if res := r.trigger(sub, trigger, []uint32{linked}, nil); res.AddResults[0] != ua.StatusOK {
				t.Fatal(res.AddResults)
			}
			r.demo.setAnalog(1.0) // The linked item has two values queued now, and its first.
			r.demo.set(5)
			r.demo.setAnalog(2.0) // Not covered by that trigger.
			r.publish()
			list := values(t, r.after(105 * time.Millisecond)[0].resp)
			var numbers []float64
			for _, n := range list {
				if n.ClientHandle == 2 {
					if v, ok := n.Value.Value.Value().(float64); ok {
						numbers = append(numbers, v)
					}
				}
			}
			if !slices.Equal(numbers, []float64{1}) || len(list) != map[bool]int{true: 3, false: 2}[reports] {
				t.Fatalf("mode %v: %v of %d values", mode, numbers, len(list))
			}
			r.demo.set(6)
			r.publish()
			if got := handles(t, r.after(105 * time.Millisecond)[0].resp); !slices.Contains(got, 2) {
				t.Fatalf("the next trigger brought %v", got)
			}
			if res := r.trigger(sub, trigger, nil, []uint32{linked}); res.RemoveResults[0] != ua.StatusOK {
				t.Fatal(res.RemoveResults)
			}
			r.demo.setAnalog(3.0)
			r.demo.set(7)
			r.publish()
			if got := handles(t, r.after(1100 * time.Millisecond)[0].resp); slices.Contains(got, 2) {
				t.Fatalf("without the link: %v", got)
			}
		})
	}
}

func TestTriggeringRefusals(t *testing.T) {
	inBubble(t, Limits{MaxLinksPerItem: 2, MaxTriggeringLinks: 3, MaxOperations: 5}, func(t *testing.T, r *rig) {
		sub := r.subscribe().SubscriptionID
		var items []uint32
		for range 4 {
			items = append(items, r.monitor(sub, levelKey.NodeID(), 1).MonitoredItemID)
		}
		unknown, full := ua.StatusBadMonitoredItemIDInvalid, ua.StatusBadTooManyMonitoredItems
		if res := r.trigger(sub, items[0], []uint32{99, items[1], items[1]}, []uint32{items[1], 99}); !slices.Equal(res.AddResults, []ua.StatusCode{unknown, 0, 0}) ||
			!slices.Equal(res.RemoveResults, []ua.StatusCode{unknown, unknown}) {
			t.Errorf("%+v", res)
		}
		if res := r.trigger(sub, items[0], items[2:4], nil); !slices.Equal(res.AddResults, []ua.StatusCode{0, full}) {
			t.Errorf("more than an item may have: %v", res.AddResults)
		}
		if res := r.trigger(sub, items[1], items[2:4], nil); !slices.Equal(res.AddResults, []ua.StatusCode{0, full}) {
			t.Errorf("more than the server may have: %v", res.AddResults)
		}
		// An item that is deleted takes its links with it, in both directions.
		want[*ua.DeleteMonitoredItemsResponse](t, r.call(&ua.DeleteMonitoredItemsRequest{SubscriptionID: sub, MonitoredItemIDs: []uint32{items[2]}}))
		if n := r.v.engine.links.Load(); n != 1 {
			t.Errorf("%d links are left, want 1", n)
		}
		wantFault(t, r.call(&ua.SetTriggeringRequest{SubscriptionID: sub, TriggeringItemID: items[0]}), ua.StatusBadNothingToDo)
		wantFault(t, r.call(&ua.SetTriggeringRequest{SubscriptionID: sub, TriggeringItemID: items[0], LinksToAdd: items[:3], LinksToRemove: items[:3]}), ua.StatusBadTooManyOperations)
		wantFault(t, r.call(&ua.SetTriggeringRequest{SubscriptionID: sub + 1, TriggeringItemID: items[0], LinksToAdd: items[:1]}), ua.StatusBadSubscriptionIDInvalid)
		wantFault(t, r.call(&ua.SetTriggeringRequest{SubscriptionID: sub, TriggeringItemID: 99, LinksToAdd: items[:1]}), unknown)
	})
}
