package server

import (
	"math"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gopcua/opcua/ua"

	"quorate/opcua/space"
)

func TestQueueOverflow(t *testing.T) {
	const overflow = infoTypeDataValue | infoOverflow
	for _, c := range []struct {
		name          string
		size          uint32
		discardOldest bool
		want          []int64
		flagged       int // the index of the value next to the loss, or -1
	}{
		{"size 0 is 1", 0, true, []int64{9}, -1},
		{"size 1 keeps the newest", 1, true, []int64{9}, -1},
		{"size 1 keeps the newest whatever is to be discarded", 1, false, []int64{9}, -1},
		{"oldest", 3, true, []int64{7, 8, 9}, 0},
		{"newest", 3, false, []int64{0, 1, 9}, 2},
		{"large enough", 10, true, []int64{0, 1, 2, 3, 4, 5, 6, 7, 8, 9}, -1},
	} {
		t.Run(c.name, func(t *testing.T) {
			inBubble(t, Limits{}, func(t *testing.T, r *rig) {
				sub := r.subscribe().SubscriptionID
				r.monitor(sub, levelKey.NodeID(), c.size, func(m *ua.MonitoredItemCreateRequest) {
					m.RequestedParameters.DiscardOldest = c.discardOldest
				})
				for i := range int64(9) {
					r.demo.set(i + 1)
				}
				r.publish()
				got := r.after(105 * time.Millisecond)
				if list := ints(t, got[0].resp); !slices.Equal(list, c.want) {
					t.Fatalf("%v, want %v", list, c.want)
				}
				for i, n := range values(t, got[0].resp) {
					if n.ClientHandle != 7 {
						t.Errorf("client handle %d", n.ClientHandle)
					}
					flagged := n.Value.Status&overflow == overflow
					if flagged != (i == c.flagged) {
						t.Errorf("value %d: overflow bit is %v", i, flagged)
					}
					if flagged != (n.Value.EncodingMask&ua.DataValueStatusCode != 0) {
						t.Errorf("value %d: encoding mask %b with status %v", i, n.Value.EncodingMask, n.Value.Status)
					}
				}
			})
		})
	}
}

func TestValueQueueAgainstSlice(t *testing.T) {
	// Every sequence of pushes, pops and resizes keeps what a plain slice would keep.
	val := func(i int) *ua.DataValue { return dataValue(int64(i)) }
	for size := 1; size <= 5; size++ {
		q := valueQueue{size: size, discardOldest: true}
		var model []int64
		for i := range 200 {
			switch {
			case i%7 == 3 && len(model) > 0:
				if got := q.pop().Value.Int(); got != model[0] {
					t.Fatalf("size %d, step %d: popped %d, want %d", size, i, got, model[0])
				}
				model = model[1:]
			case i%31 == 0:
				q.resize(size+i%3, true)
				model = model[max(0, len(model)-q.size):]
			default:
				q.push(val(i))
				model = append(model, int64(i))
				model = model[max(0, len(model)-q.size):]
			}
			if q.length != len(model) {
				t.Fatalf("size %d, step %d: length %d, want %d", size, i, q.length, len(model))
			}
		}
	}
}

func TestCreateItemRefusals(t *testing.T) {
	inBubble(t, Limits{}, func(t *testing.T, r *rig) {
		sub := r.subscribe().SubscriptionID
		filter := func(f any) *ua.ExtensionObject { return extension(ua.NewFourByteExpandedNodeID(0, 724), f) }
		type m = *ua.MonitoredItemCreateRequest
		for _, c := range []struct {
			name   string
			change func(m)
			want   ua.StatusCode
		}{
			{"unknown node", func(c m) { c.ItemToMonitor.NodeID = ua.NewNumericNodeID(1, 77) }, ua.StatusBadNodeIDUnknown},
			{"unknown attribute", func(c m) { c.ItemToMonitor.AttributeID = 99 }, ua.StatusBadAttributeIDInvalid},
			{"attribute of another class", func(c m) { c.ItemToMonitor.AttributeID = ua.AttributeIDExecutable }, ua.StatusBadAttributeIDInvalid},
			{"index range", func(c m) { c.ItemToMonitor.IndexRange = "2:1" }, ua.StatusBadIndexRangeInvalid},
			{"mode", func(c m) { c.MonitoringMode = 3 }, ua.StatusBadMonitoringModeInvalid},
			{"event filter", func(c m) { c.RequestedParameters.Filter = filter(&ua.EventFilter{}) }, ua.StatusBadFilterNotAllowed},
			{"filter that is not supported", func(c m) { c.RequestedParameters.Filter = filter(&ua.AggregateFilter{}) }, ua.StatusBadMonitoredItemFilterUnsupported},
			{"trigger", func(c m) { c.RequestedParameters.Filter = filter(&ua.DataChangeFilter{Trigger: 3}) }, ua.StatusBadMonitoredItemFilterInvalid},
			{"filter of no value", func(c m) {
				c.ItemToMonitor.AttributeID = ua.AttributeIDBrowseName
				c.RequestedParameters.Filter = filter(&ua.DataChangeFilter{})
			}, ua.StatusBadFilterNotAllowed},
			{"unknown filter type", func(c m) {
				c.RequestedParameters.Filter = &ua.ExtensionObject{TypeID: ua.NewFourByteExpandedNodeID(1, 5), EncodingMask: ua.ExtensionObjectBinary}
			}, ua.StatusBadMonitoredItemFilterUnsupported},
		} {
			if got := r.monitor(sub, levelKey.NodeID(), 1, c.change); got.StatusCode != c.want || got.MonitoredItemID != 0 {
				t.Errorf("%s: %+v, want %v", c.name, got, c.want)
			}
		}
		one := []*ua.MonitoredItemCreateRequest{{}}
		wantFault(t, r.call(&ua.CreateMonitoredItemsRequest{SubscriptionID: sub}), ua.StatusBadNothingToDo)
		wantFault(t, r.call(&ua.CreateMonitoredItemsRequest{SubscriptionID: sub + 1, ItemsToCreate: one}), ua.StatusBadSubscriptionIDInvalid)
		wantFault(t, r.call(&ua.CreateMonitoredItemsRequest{SubscriptionID: sub, TimestampsToReturn: 4, ItemsToCreate: one}), ua.StatusBadTimestampsToReturnInvalid)
		if n := r.v.engine.items.Load(); n != 0 {
			t.Fatalf("%d items were made", n)
		}
	})
}

func TestUnknownItemIDs(t *testing.T) {
	inBubble(t, Limits{}, func(t *testing.T, r *rig) {
		sub := r.subscribe().SubscriptionID
		ids := []uint32{0, 1, math.MaxUint32}
		unknown := slices.Repeat([]ua.StatusCode{ua.StatusBadMonitoredItemIDInvalid}, 3)
		if res := want[*ua.DeleteMonitoredItemsResponse](t, r.call(&ua.DeleteMonitoredItemsRequest{SubscriptionID: sub, MonitoredItemIDs: ids})); !slices.Equal(res.Results, unknown) {
			t.Errorf("%v", res.Results)
		}
		if res := want[*ua.SetMonitoringModeResponse](t, r.call(&ua.SetMonitoringModeRequest{SubscriptionID: sub, MonitoredItemIDs: ids})); !slices.Equal(res.Results, unknown) {
			t.Errorf("%v", res.Results)
		}
		res := want[*ua.ModifyMonitoredItemsResponse](t, r.call(&ua.ModifyMonitoredItemsRequest{SubscriptionID: sub, ItemsToModify: []*ua.MonitoredItemModifyRequest{
			{MonitoredItemID: 5, RequestedParameters: &ua.MonitoringParameters{}}}}))
		if res.Results[0].StatusCode != ua.StatusBadMonitoredItemIDInvalid {
			t.Errorf("%v", res.Results[0])
		}
		wantFault(t, r.call(&ua.DeleteMonitoredItemsRequest{SubscriptionID: 99, MonitoredItemIDs: ids}), ua.StatusBadSubscriptionIDInvalid)
		wantFault(t, r.call(&ua.SetMonitoringModeRequest{SubscriptionID: 99, MonitoredItemIDs: ids}), ua.StatusBadSubscriptionIDInvalid)
		wantFault(t, r.call(&ua.SetMonitoringModeRequest{SubscriptionID: sub, MonitoringMode: 3, MonitoredItemIDs: ids}), ua.StatusBadMonitoringModeInvalid)
		wantFault(t, r.call(&ua.ModifyMonitoredItemsRequest{SubscriptionID: 99, ItemsToModify: []*ua.MonitoredItemModifyRequest{{}}}), ua.StatusBadSubscriptionIDInvalid)
	})
}

func TestMonitoringModes(t *testing.T) {
	inBubble(t, Limits{}, func(t *testing.T, r *rig) {
		sub := r.subscribe().SubscriptionID
		item := r.monitor(sub, levelKey.NodeID(), 10, func(c *ua.MonitoredItemCreateRequest) { c.MonitoringMode = ua.MonitoringModeSampling }).MonitoredItemID
		mode := func(m ua.MonitoringMode) {
			t.Helper()
			res := want[*ua.SetMonitoringModeResponse](t, r.call(&ua.SetMonitoringModeRequest{SubscriptionID: sub, MonitoringMode: m, MonitoredItemIDs: []uint32{item}}))
			if res.Results[0] != ua.StatusOK {
				t.Fatal(res.Results)
			}
		}
		r.publish()
		if got := r.after(105 * time.Millisecond); len(got) != 1 || values(t, got[0].resp) != nil {
			t.Fatalf("sampling is not reporting: %+v", got)
		}
		r.demo.set(1)
		mode(ua.MonitoringModeReporting)
		r.publish()
		if got := r.after(105 * time.Millisecond); len(got) != 1 || !slices.Equal(ints(t, got[0].resp), []int64{0, 1}) {
			t.Fatalf("what was sampled has to be reported: %+v", got)
		}
		r.demo.set(2)
		mode(ua.MonitoringModeDisabled)
		before := r.demo.reads.Load()
		r.demo.set(3)
		if n := r.demo.reads.Load() - before; n != 0 {
			t.Fatalf("a disabled item read its value %d times", n)
		}
		r.publish()
		if got := r.after(500 * time.Millisecond); len(got) != 0 {
			t.Fatalf("disabled: %+v", got)
		}
		mode(ua.MonitoringModeReporting)
		if got := r.after(105 * time.Millisecond); len(got) != 1 || !slices.Equal(ints(t, got[0].resp), []int64{3}) {
			t.Fatalf("enabled again: %+v", got)
		}
	})
}

func TestModifyItem(t *testing.T) {
	inBubble(t, Limits{}, func(t *testing.T, r *rig) {
		sub := r.subscribe().SubscriptionID
		item := r.monitor(sub, levelKey.NodeID(), 10).MonitoredItemID
		for i := range int64(5) {
			r.demo.set(i + 1)
		}
		modify := func(p *ua.MonitoringParameters) *ua.MonitoredItemModifyResult {
			return want[*ua.ModifyMonitoredItemsResponse](t, r.call(&ua.ModifyMonitoredItemsRequest{SubscriptionID: sub, TimestampsToReturn: ua.TimestampsToReturnBoth,
				ItemsToModify: []*ua.MonitoredItemModifyRequest{{MonitoredItemID: item, RequestedParameters: p}}})).Results[0]
		}
		if res := modify(&ua.MonitoringParameters{ClientHandle: 8, QueueSize: 2, DiscardOldest: true}); res.StatusCode != ua.StatusOK || res.RevisedQueueSize != 2 {
			t.Fatalf("%+v", res)
		}
		r.publish()
		got := r.after(105 * time.Millisecond)
		if !slices.Equal(ints(t, got[0].resp), []int64{4, 5}) || values(t, got[0].resp)[0].ClientHandle != 8 {
			t.Fatalf("%+v", got)
		}
		if n := r.v.engine.queued.Load(); n != 2 {
			t.Fatalf("%d places are counted", n)
		}
		// By status only: a change of the value is no change any more, and what was there is told once.
		res := modify(&ua.MonitoringParameters{QueueSize: 2, Filter: extension(ua.NewFourByteExpandedNodeID(0, 724), &ua.DataChangeFilter{Trigger: ua.DataChangeTriggerStatus})})
		if res.StatusCode != ua.StatusOK {
			t.Fatalf("%+v", res)
		}
		r.publish()
		r.publish()
		if got := r.after(105 * time.Millisecond); len(got) != 1 || !slices.Equal(ints(t, got[0].resp), []int64{5}) {
			t.Fatalf("%+v", got)
		}
		r.demo.set(6)
		if got := r.after(500 * time.Millisecond); len(got) != 0 {
			t.Fatalf("%+v", got)
		}
		if res := modify(&ua.MonitoringParameters{Filter: extension(ua.NewFourByteExpandedNodeID(0, 727), &ua.EventFilter{})}); res.StatusCode != ua.StatusBadFilterNotAllowed {
			t.Fatalf("%+v", res)
		}
	})
}

func TestItemLimits(t *testing.T) {
	limits := Limits{MaxItemsPerSubscription: 3, MaxMonitoredItems: 5, MaxQueueSize: 10, MaxQueuedValues: 25, MaxSubscriptionsPerSession: 2, MaxSubscriptions: 3, MaxOperations: 10}
	inBubble(t, limits, func(t *testing.T, r *rig) {
		first := r.subscribe().SubscriptionID
		for i, size := range []uint32{10, 10, 1} {
			if res := r.monitor(first, levelKey.NodeID(), 1000); res.RevisedQueueSize != size {
				t.Errorf("item %d: queue of %d, want %d", i, res.RevisedQueueSize, size)
			}
		}
		if res := r.monitor(first, levelKey.NodeID(), 1); res.StatusCode != ua.StatusBadTooManyMonitoredItems {
			t.Errorf("per subscription: %v", res.StatusCode)
		}
		second := r.subscribe().SubscriptionID
		r.monitor(second, levelKey.NodeID(), 1)
		r.monitor(second, levelKey.NodeID(), 1)
		if res := r.monitor(second, levelKey.NodeID(), 1); res.StatusCode != ua.StatusBadTooManyMonitoredItems {
			t.Errorf("of the server: %v", res.StatusCode)
		}
		wantFault(t, r.call(&ua.CreateSubscriptionRequest{}), ua.StatusBadTooManySubscriptions)
		other := &fakeChannel{}
		auth := r.connect(other)
		want[*ua.CreateSubscriptionResponse](t, r.ask(other, auth, &ua.CreateSubscriptionRequest{}))
		wantFault(t, r.ask(other, auth, &ua.CreateSubscriptionRequest{}), ua.StatusBadTooManySubscriptions)

		ids := make([]uint32, 11)
		for _, req := range []ua.Request{
			&ua.CreateMonitoredItemsRequest{ItemsToCreate: make([]*ua.MonitoredItemCreateRequest, 11)},
			&ua.ModifyMonitoredItemsRequest{ItemsToModify: make([]*ua.MonitoredItemModifyRequest, 11)},
			&ua.SetMonitoringModeRequest{MonitoredItemIDs: ids},
			&ua.DeleteMonitoredItemsRequest{MonitoredItemIDs: ids},
			&ua.SetPublishingModeRequest{SubscriptionIDs: ids},
			&ua.DeleteSubscriptionsRequest{SubscriptionIDs: ids},
			&ua.PublishRequest{SubscriptionAcknowledgements: make([]*ua.SubscriptionAcknowledgement, 11)},
			&ua.ReadRequest{NodesToRead: make([]*ua.ReadValueID, 11)},
			&ua.BrowseRequest{NodesToBrowse: make([]*ua.BrowseDescription, 11)},
			&ua.BrowseNextRequest{ContinuationPoints: make([][]byte, 11)},
			&ua.TranslateBrowsePathsToNodeIDsRequest{BrowsePaths: make([]*ua.BrowsePath, 11)},
			&ua.RegisterNodesRequest{NodesToRegister: make([]*ua.NodeID, 11)},
			&ua.UnregisterNodesRequest{NodesToUnregister: make([]*ua.NodeID, 11)},
			&ua.FindServersRequest{ServerURIs: make([]string, 11)},
			&ua.GetEndpointsRequest{ProfileURIs: make([]string, 11)},
		} {
			wantFault(t, r.call(req), ua.StatusBadTooManyOperations)
		}
	})
}

func TestSamplingIsBounded(t *testing.T) {
	inBubble(t, Limits{MaxSamplesPerSecond: 30, MinSamplingInterval: 100 * time.Millisecond}, func(t *testing.T, r *rig) {
		sub := r.subscribe(func(q *ua.CreateSubscriptionRequest) { q.RequestedLifetimeCount = 1000 }).SubscriptionID
		// Each has timestamps or an interval of its own, so that none shares the sampling of another.
		intervals := func() (list []float64) {
			for i, ask := range []float64{0, 105, 110, 115, 0} {
				res := r.monitor(sub, clockKey.NodeID(), 1, func(c *ua.MonitoredItemCreateRequest) { c.RequestedParameters.SamplingInterval = ask })
				if res.StatusCode != ua.StatusOK {
					t.Fatalf("item %d: %v", i, res.StatusCode)
				}
				list = append(list, res.RevisedSamplingInterval)
			}
			return list
		}
		if got, want := intervals(), []float64{100, 105, 110, 1150, 100}; !slices.Equal(got, want) {
			t.Errorf("intervals %v, want %v", got, want)
		}
		before := r.demo.reads.Load()
		r.after(10 * time.Second)
		if n := r.demo.reads.Load() - before; n > 300 || n < 250 {
			t.Errorf("%d samples in 10 s, want 30 per second at most", n)
		}
		r.call(&ua.DeleteSubscriptionsRequest{SubscriptionIDs: []uint32{sub}})
		if rate := r.v.engine.hub.rate; rate != 0 {
			t.Errorf("%v samples per second are still counted", rate)
		}
	})
}

// TestChangesUnderTheReader has a value that goes on changing while it is read. The goroutine that changed it first must get
// away, and the last value must still arrive.
func TestChangesUnderTheReader(t *testing.T) {
	t.Run("pushed", func(t *testing.T) { changesUnderTheReader(t, 0) })
	t.Run("sampled", func(t *testing.T) { changesUnderTheReader(t, 50) })
}

func changesUnderTheReader(t *testing.T, sampling float64) {
	inBubble(t, Limits{}, func(t *testing.T, r *rig) {
		var left, value, reads atomic.Int64
		left.Store(100)
		table := space.NewTable()
		key := space.NumericKey(1, 9)
		var sp *space.Space
		err := table.Edit(func(e *space.Edit) error {
			e.Put(&space.Node{Key: key, Class: ua.NodeClassVariable, BrowseName: ua.QualifiedName{Name: "Restless"}, DisplayName: text("Restless"),
				TypeDefinition: space.NumericKey(0, 63), DataType: space.NumericKey(0, 8), ValueRank: space.RankScalar, AccessLevel: space.AccessCurrentRead, MinimumSamplingInterval: sampling,
				Value: func(space.ReadContext) *ua.DataValue {
					reads.Add(1)
					if left.Load() > 0 && value.Load() > 0 {
						left.Add(-1)
						value.Add(1)
						sp.Changed(key)
					}
					return dataValue(value.Load())
				}})
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		if sp, err = space.New([]string{space.NamespaceUA, demoURI}, table); err != nil {
			t.Fatal(err)
		}
		r.v.engine.space = sp
		sub := r.subscribe().SubscriptionID
		r.monitor(sub, key.NodeID(), 200)
		r.after(time.Millisecond) // Off the grid, so that the schedule can't be at it before we have looked.
		value.Store(1)
		sp.Changed(key)
		if done := 100 - left.Load(); done != maxSampleRounds {
			t.Errorf("the changer was kept for %d rounds, want %d", done, maxSampleRounds)
		}
		r.publish()
		got := r.after(105 * time.Millisecond)
		if list := ints(t, got[0].resp); list[len(list)-1] != 101 {
			t.Fatalf("the last value has not arrived: %v", list)
		}
		before := reads.Load()
		if r.after(time.Second); (reads.Load() > before) != (sampling > 0) {
			t.Errorf("read %d times in the second after that", reads.Load()-before)
		}
	})
}
