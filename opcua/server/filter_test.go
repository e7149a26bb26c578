package server

import (
	"math"
	"slices"
	"testing"
	"time"

	"github.com/gopcua/opcua/ua"
)

func dataChange(trigger ua.DataChangeTrigger, kind ua.DeadbandType, value float64) func(*ua.MonitoredItemCreateRequest) {
	return func(c *ua.MonitoredItemCreateRequest) {
		c.RequestedParameters.Filter = ua.NewExtensionObject(&ua.DataChangeFilter{Trigger: trigger, DeadbandType: uint32(kind), DeadbandValue: value})
	}
}

func TestDeadband(t *testing.T) {
	const statusValue = ua.DataChangeTriggerStatusValue
	for _, c := range []struct {
		name   string
		change func(*ua.MonitoredItemCreateRequest)
		want   []int64
	}{
		{"none", dataChange(statusValue, ua.DeadbandTypeNone, 99), []int64{0, 1, 2, 3, 4, 9, 8, 3}},
		{"absolute counts from what was queued last", dataChange(statusValue, ua.DeadbandTypeAbsolute, 2), []int64{0, 3, 9, 3}},
		{"absolute of nothing", dataChange(statusValue, ua.DeadbandTypeAbsolute, 0), []int64{0, 1, 2, 3, 4, 9, 8, 3}},
		{"timestamps don't count beside a dead-band", dataChange(ua.DataChangeTriggerStatusValueTimestamp, ua.DeadbandTypeAbsolute, 2), []int64{0, 3, 9, 3}},
		{"status only", dataChange(ua.DataChangeTriggerStatus, ua.DeadbandTypeAbsolute, 2), []int64{0}},
	} {
		t.Run(c.name, func(t *testing.T) {
			inBubble(t, Limits{}, func(t *testing.T, r *rig) {
				sub := r.subscribe().SubscriptionID
				if res := r.monitor(sub, levelKey.NodeID(), 50, c.change); res.StatusCode != ua.StatusOK {
					t.Fatal(res.StatusCode)
				}
				for _, v := range []int64{1, 2, 3, 4, 9, 8, 8, 3} {
					r.demo.set(v)
				}
				r.publish()
				if got := ints(t, r.after(105 * time.Millisecond)[0].resp); !slices.Equal(got, c.want) {
					t.Fatalf("%v, want %v", got, c.want)
				}
			})
		})
	}
}

func TestPercentDeadbandOfArrays(t *testing.T) {
	inBubble(t, Limits{}, func(t *testing.T, r *rig) {
		sub := r.subscribe().SubscriptionID
		// 10 % of the range from -100 to 100 is 20.
		if res := r.monitor(sub, analogKey.NodeID(), 50, dataChange(ua.DataChangeTriggerStatusValue, ua.DeadbandTypePercent, 10)); res.StatusCode != ua.StatusOK {
			t.Fatal(res.StatusCode)
		}
		nan := math.NaN()
		for _, v := range []any{
			[]float64{20, -20}, // within
			[]float64{0, 21},   // one element is enough
			[]float64{19, 21},
			[]float64{0, 21, 0}, // another length
			[]float64{nan, 21, 0},
			[]float64{nan, 21, 0},
			"no number",
		} {
			r.demo.setAnalog(v)
		}
		r.publish()
		list := values(t, r.after(105 * time.Millisecond)[0].resp)
		if len(list) != 5 {
			t.Fatalf("%d values, want 5", len(list))
		}
		if got := list[1].Value.Value.Value().([]float64); got[1] != 21 {
			t.Errorf("the second is %v", got)
		}
	})
}

func TestModifiedDeadbandHolds(t *testing.T) {
	inBubble(t, Limits{}, func(t *testing.T, r *rig) {
		sub := r.subscribe().SubscriptionID
		it := r.monitor(sub, levelKey.NodeID(), 50).MonitoredItemID
		r.publish()
		r.after(105 * time.Millisecond)
		res := want[*ua.ModifyMonitoredItemsResponse](t, r.call(&ua.ModifyMonitoredItemsRequest{SubscriptionID: sub, TimestampsToReturn: ua.TimestampsToReturnBoth,
			ItemsToModify: []*ua.MonitoredItemModifyRequest{{MonitoredItemID: it, RequestedParameters: &ua.MonitoringParameters{QueueSize: 50, DiscardOldest: true,
				Filter: ua.NewExtensionObject(&ua.DataChangeFilter{Trigger: ua.DataChangeTriggerStatusValue, DeadbandType: uint32(ua.DeadbandTypeAbsolute), DeadbandValue: 5})}}}}))
		if res.Results[0].StatusCode != ua.StatusOK {
			t.Fatal(res.Results[0].StatusCode)
		}
		for _, v := range []int64{5, 6, 7} {
			r.demo.set(v)
		}
		r.publish()
		if got := ints(t, r.after(105 * time.Millisecond)[0].resp); !slices.Equal(got, []int64{0, 6}) {
			t.Fatalf("%v", got)
		}
	})
}

func TestDeadbandRefusals(t *testing.T) {
	inBubble(t, Limits{}, func(t *testing.T, r *rig) {
		sub := r.subscribe().SubscriptionID
		const statusValue = ua.DataChangeTriggerStatusValue
		for _, c := range []struct {
			name   string
			node   *ua.NodeID
			change func(*ua.MonitoredItemCreateRequest)
			want   ua.StatusCode
		}{
			{"negative", levelKey.NodeID(), dataChange(statusValue, ua.DeadbandTypeAbsolute, -1), ua.StatusBadDeadbandFilterInvalid},
			{"NaN", levelKey.NodeID(), dataChange(statusValue, ua.DeadbandTypeAbsolute, math.NaN()), ua.StatusBadDeadbandFilterInvalid},
			{"infinite", levelKey.NodeID(), dataChange(statusValue, ua.DeadbandTypeAbsolute, math.Inf(1)), ua.StatusBadDeadbandFilterInvalid},
			{"more than all", analogKey.NodeID(), dataChange(statusValue, ua.DeadbandTypePercent, 100.5), ua.StatusBadDeadbandFilterInvalid},
			{"unknown kind", levelKey.NodeID(), dataChange(statusValue, 3, 1), ua.StatusBadDeadbandFilterInvalid},
			{"no range", levelKey.NodeID(), dataChange(statusValue, ua.DeadbandTypePercent, 1), ua.StatusBadMonitoredItemFilterUnsupported},
			{"no number", ua.NewNumericNodeID(0, 2255), dataChange(statusValue, ua.DeadbandTypeAbsolute, 1), ua.StatusBadFilterNotAllowed},
		} {
			if got := r.monitor(sub, c.node, 1, c.change); got.StatusCode != c.want || got.MonitoredItemID != 0 {
				t.Errorf("%s: %+v, want %v", c.name, got, c.want)
			}
		}
	})
}
