package interop

import (
	"context"
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/gopcua/opcua"
	"github.com/gopcua/opcua/id"
	"github.com/gopcua/opcua/ua"
)

// gopcuaStep is a step that gopcua's client takes.
type gopcuaStep struct {
	step
	do func(ctx context.Context, t *testing.T, c *opcua.Client)
}

// gopcuaServices takes every step, one after the other in one session.
func gopcuaServices(t *testing.T, table *compatibility, endpoint string) {
	ctx, cancel := context.WithTimeout(t.Context(), scenarioLimit)
	defer cancel()
	c := gopcuaConnect(ctx, t, endpoint)
	// Once a call was answered with a ServiceFault, gopcua's client no longer publishes for subscriptions of its own, so the
	// steps that want faults come last.
	own := gopcuaConnect(ctx, t, endpoint)
	take := func(s gopcuaStep, c *opcua.Client) {
		ok := t.Run(s.Service+"/"+s.What, func(t *testing.T) { s.do(ctx, t, c) })
		if ok {
			table.ran(gopcua, s.step)
		}
	}
	for _, s := range slices.Concat(gopcuaReads, gopcuaItems, gopcuaSubscriptions, gopcuaCalls) {
		take(s, c)
	}
	for _, s := range gopcuaByHand {
		take(s, own)
	}
	for _, s := range gopcuaSessions {
		single := gopcuaDial(ctx, t, endpoint)
		take(s, single)
		_ = single.Close(ctx) // The session may have ended already.
	}
	t.Run("TransferSubscriptions", func(t *testing.T) { gopcuaTransfer(ctx, t, table, endpoint, c) })
	t.Run("ActivateSession", func(t *testing.T) { gopcuaResume(ctx, t, table, endpoint) })
}

func serverNode(node uint32) *ua.NodeID { return ua.NewNumericNodeID(0, node) }

func valueOf(node uint32) *ua.ReadValueID {
	return &ua.ReadValueID{NodeID: serverNode(node), AttributeID: ua.AttributeIDValue, DataEncoding: &ua.QualifiedName{}}
}

var nowhere = ua.NewStringNodeID(2, "nowhere")

// gopcuaCalls are the services that need no subscription.
var gopcuaCalls = []gopcuaStep{
	{step{"Discovery", "FindServers", "the servers of the set"}, func(ctx context.Context, t *testing.T, c *opcua.Client) {
		r, err := c.FindServers(ctx)
		if err != nil || len(r.Servers) != 2 {
			t.Errorf("%v, %v: want two servers", r, err)
		}
	}},
	{step{"Discovery", "RegisterServer2", "refused as not supported"}, func(ctx context.Context, t *testing.T, c *opcua.Client) {
		wantFault(ctx, t, c, ua.StatusBadServiceUnsupported, &ua.RegisterServer2Request{Server: &ua.RegisteredServer{}})
	}},
	{step{"NodeManagement", "AddNodes", "refused as not supported"}, func(ctx context.Context, t *testing.T, c *opcua.Client) {
		wantFault(ctx, t, c, ua.StatusBadServiceUnsupported, &ua.AddNodesRequest{})
	}},
	{step{"NodeManagement", "DeleteNodes", "refused as not supported"}, func(ctx context.Context, t *testing.T, c *opcua.Client) {
		wantFault(ctx, t, c, ua.StatusBadServiceUnsupported, &ua.DeleteNodesRequest{})
	}},
	{step{"Query", "QueryFirst", "refused as not supported"}, func(ctx context.Context, t *testing.T, c *opcua.Client) {
		wantFault(ctx, t, c, ua.StatusBadServiceUnsupported, &ua.QueryFirstRequest{View: &ua.ViewDescription{ViewID: ua.NewTwoByteNodeID(0)}, Filter: &ua.ContentFilter{}})
	}},
	{step{"Attribute", "Read", "several values in one call"}, func(ctx context.Context, t *testing.T, c *opcua.Client) {
		r, err := c.Read(ctx, &ua.ReadRequest{NodesToRead: []*ua.ReadValueID{valueOf(id.Server_ServiceLevel), valueOf(id.Server_ServerStatus_CurrentTime)}})
		if err != nil {
			t.Fatal(err)
		}
		if got := r.Results[0].Value.Value(); got != byte(255) {
			t.Errorf("ServiceLevel is %v", got)
		}
		if _, ok := r.Results[1].Value.Value().(time.Time); !ok {
			t.Errorf("CurrentTime is %v", r.Results[1].Value.Value())
		}
	}},
	{step{"Attribute", "Read", "index ranges"}, func(ctx context.Context, t *testing.T, c *opcua.Client) {
		whole, part, none := valueOf(id.Server_NamespaceArray), valueOf(id.Server_NamespaceArray), valueOf(id.Server_NamespaceArray)
		part.IndexRange, none.IndexRange = "1:2", "100:101"
		r, err := c.Read(ctx, &ua.ReadRequest{NodesToRead: []*ua.ReadValueID{whole, part, none}})
		if err != nil {
			t.Fatal(err)
		}
		if all, got := r.Results[0].Value.Value().([]string), r.Results[1].Value.Value().([]string); !slices.Equal(all[1:3], got) {
			t.Errorf("1:2 of %v is %v", all, got)
		}
		if got := r.Results[2].Status; got != ua.StatusBadIndexRangeNoData {
			t.Errorf("100:101 is %v", got)
		}
	}},
	{step{"Attribute", "Read", "a node that is not there"}, func(ctx context.Context, t *testing.T, c *opcua.Client) {
		r, err := c.Read(ctx, &ua.ReadRequest{NodesToRead: []*ua.ReadValueID{{NodeID: nowhere, AttributeID: ua.AttributeIDValue, DataEncoding: &ua.QualifiedName{}}}})
		if err != nil || r.Results[0].Status != ua.StatusBadNodeIDUnknown {
			t.Errorf("%v, %v", r, err)
		}
	}},
	{step{"Attribute", "Write", "refused on a read-only node"}, func(ctx context.Context, t *testing.T, c *opcua.Client) {
		r, err := c.Write(ctx, &ua.WriteRequest{NodesToWrite: []*ua.WriteValue{{
			NodeID: serverNode(id.Server_ServiceLevel), AttributeID: ua.AttributeIDValue,
			Value: &ua.DataValue{EncodingMask: ua.DataValueValue, Value: ua.MustVariant(byte(1))},
		}}})
		if err != nil {
			t.Fatal(err)
		}
		wantStatus(t, r.Results, ua.StatusBadNotWritable)
	}},
	{step{"Attribute", "HistoryRead", "refused on a node without history"}, func(ctx context.Context, t *testing.T, c *opcua.Client) {
		r, err := c.HistoryReadRawModified(ctx, []*ua.HistoryReadValueID{{NodeID: serverNode(id.Server_ServiceLevel), DataEncoding: &ua.QualifiedName{}}},
			&ua.ReadRawModifiedDetails{StartTime: time.Unix(0, 0), EndTime: time.Now(), NumValuesPerNode: 10})
		if err != nil || r.Results[0].StatusCode != ua.StatusBadHistoryOperationUnsupported {
			t.Errorf("%v, %v", r, err)
		}
	}},
	{step{"View", "BrowseNext", "page by page, and a released continuation point"}, gopcuaBrowseNext},
	{step{"View", "TranslateBrowsePathsToNodeIds", "a path that is there, and one that is not"}, func(ctx context.Context, t *testing.T, c *opcua.Client) {
		got, err := c.Node(serverNode(id.ObjectsFolder)).TranslateBrowsePathInNamespaceToNodeID(ctx, 0, "Server.ServerStatus.CurrentTime")
		if err != nil || got.String() != serverNode(id.Server_ServerStatus_CurrentTime).String() {
			t.Errorf("%v, %v", got, err)
		}
		if _, err := c.Node(serverNode(id.ObjectsFolder)).TranslateBrowsePathInNamespaceToNodeID(ctx, 0, "Nothing"); !errors.Is(err, ua.StatusBadNoMatch) {
			t.Errorf("a path that leads nowhere is answered with %v", err)
		}
	}},
	{step{"View", "RegisterNodes", "registered nodes are read"}, func(ctx context.Context, t *testing.T, c *opcua.Client) {
		r, err := c.RegisterNodes(ctx, &ua.RegisterNodesRequest{NodesToRegister: []*ua.NodeID{serverNode(id.Server_ServiceLevel)}})
		if err != nil {
			t.Fatal(err)
		}
		if v, err := c.Node(r.RegisteredNodeIDs[0]).Value(ctx); err != nil || v.Value() != byte(255) {
			t.Errorf("%v, %v", v, err)
		}
	}},
	{step{"View", "UnregisterNodes", "registered nodes are given back"}, func(ctx context.Context, t *testing.T, c *opcua.Client) {
		if _, err := c.UnregisterNodes(ctx, &ua.UnregisterNodesRequest{NodesToUnregister: []*ua.NodeID{serverNode(id.Server_ServiceLevel)}}); err != nil {
			t.Error(err)
		}
	}},
	{step{"Method", "Call", "wrong methods and arguments are refused"}, func(ctx context.Context, t *testing.T, c *opcua.Client) {
		for want, args := range map[ua.StatusCode][]*ua.Variant{
			ua.StatusBadArgumentsMissing:      nil,
			ua.StatusBadInvalidArgument:       {ua.MustVariant("x")},
			ua.StatusBadSubscriptionIDInvalid: {ua.MustVariant(uint32(0xffffffff))},
		} {
			r, err := c.Call(ctx, &ua.CallMethodRequest{ObjectID: serverNode(id.Server), MethodID: serverNode(id.Server_GetMonitoredItems), InputArguments: args})
			if err != nil || r.StatusCode != want {
				t.Errorf("%v, %v; want %v", r, err, want)
			}
		}
	}},
}

// gopcuaBrowseNext browses the Server object by pages of three.
func gopcuaBrowseNext(ctx context.Context, t *testing.T, c *opcua.Client) {
	first := func() *ua.BrowseResult {
		r, err := c.Browse(ctx, &ua.BrowseRequest{
			View: &ua.ViewDescription{ViewID: ua.NewTwoByteNodeID(0)}, RequestedMaxReferencesPerNode: 3,
			NodesToBrowse: []*ua.BrowseDescription{{
				NodeID: serverNode(id.Server), BrowseDirection: ua.BrowseDirectionForward, ReferenceTypeID: serverNode(id.HierarchicalReferences),
				IncludeSubtypes: true, ResultMask: uint32(ua.BrowseResultMaskAll),
			}},
		})
		if err != nil {
			t.Fatal(err)
		}
		return r.Results[0]
	}
	next := func(point []byte, release bool) *ua.BrowseResult {
		r, err := c.BrowseNext(ctx, &ua.BrowseNextRequest{ContinuationPoints: [][]byte{point}, ReleaseContinuationPoints: release})
		if err != nil {
			t.Fatal(err)
		}
		return r.Results[0]
	}
	seen := make(map[string]bool)
	page := first()
	for pages := 1; ; pages++ {
		for _, r := range page.References {
			if seen[r.NodeID.String()] {
				t.Errorf("%s comes twice", r.BrowseName.Name)
			}
			seen[r.NodeID.String()] = true
		}
		if len(page.References) > 3 || page.StatusCode != ua.StatusOK {
			t.Fatalf("a page of %d: %v", len(page.References), page.StatusCode)
		}
		if len(page.ContinuationPoint) == 0 {
			if pages < 3 {
				t.Errorf("only %d pages", pages)
			}
			break
		}
		page = next(page.ContinuationPoint, false)
	}
	point := first().ContinuationPoint
	next(point, true)
	if got := next(point, false).StatusCode; got != ua.StatusBadContinuationPointInvalid {
		t.Errorf("a released continuation point is answered with %v", got)
	}
}

// gopcuaItems are the services on monitored items, through gopcua's own subscriptions.
var gopcuaItems = []gopcuaStep{
	{step{"MonitoredItem", "CreateMonitoredItems", "with a data-change filter and a dead-band"}, func(ctx context.Context, t *testing.T, c *opcua.Client) {
		f := newFlow(ctx, t, c)
		defer f.end(ctx, t)
		f.monitor(ctx, t, id.Server_ServiceLevel, func(r *ua.MonitoredItemCreateRequest) {
			r.RequestedParameters.Filter = ua.NewExtensionObject(&ua.DataChangeFilter{Trigger: ua.DataChangeTriggerStatusValue, DeadbandType: uint32(ua.DeadbandTypeAbsolute), DeadbandValue: 1})
		})
		if got := f.next(ctx, t)[0].Value.Value.Value(); got != byte(255) {
			t.Errorf("got %v", got)
		}
	}},
	{step{"MonitoredItem", "ModifyMonitoredItems", "another handle, sampling interval and queue size"}, func(ctx context.Context, t *testing.T, c *opcua.Client) {
		f := newFlow(ctx, t, c)
		defer f.end(ctx, t)
		item := f.monitor(ctx, t, id.Server_ServerStatus_CurrentTime, func(r *ua.MonitoredItemCreateRequest) { r.RequestedParameters.SamplingInterval = 10000 })
		f.next(ctx, t)
		r, err := f.ModifyMonitoredItems(ctx, ua.TimestampsToReturnBoth, &ua.MonitoredItemModifyRequest{
			MonitoredItemID: item, RequestedParameters: &ua.MonitoringParameters{ClientHandle: 8, SamplingInterval: 100, QueueSize: 5},
		})
		if err != nil || r.Results[0].StatusCode != ua.StatusOK || r.Results[0].RevisedSamplingInterval != 100 || r.Results[0].RevisedQueueSize != 5 {
			t.Fatalf("%v, %v", r, err)
		}
		if got := f.next(ctx, t)[0].ClientHandle; got != 8 {
			t.Errorf("the handle is %d, want 8", got)
		}
	}},
	{step{"MonitoredItem", "SetMonitoringMode", "disabled, sampling and reporting"}, func(ctx context.Context, t *testing.T, c *opcua.Client) {
		f := newFlow(ctx, t, c)
		defer f.end(ctx, t)
		item := f.monitor(ctx, t, id.Server_ServiceLevel, func(r *ua.MonitoredItemCreateRequest) { r.MonitoringMode = ua.MonitoringModeDisabled })
		for _, mode := range []ua.MonitoringMode{ua.MonitoringModeSampling, ua.MonitoringModeReporting} {
			r, err := f.SetMonitoringMode(ctx, mode, item)
			if err != nil {
				t.Fatal(err)
			}
			wantStatus(t, r.Results, ua.StatusOK)
		}
		if got := f.next(ctx, t)[0].Value.Value.Value(); got != byte(255) {
			t.Errorf("got %v", got)
		}
	}},
	{step{"MonitoredItem", "SetTriggering", "a sampled item is reported when another one changes"}, func(ctx context.Context, t *testing.T, c *opcua.Client) {
		f := newFlow(ctx, t, c)
		defer f.end(ctx, t)
		linked := f.monitor(ctx, t, id.Server_ServiceLevel, func(r *ua.MonitoredItemCreateRequest) { r.MonitoringMode = ua.MonitoringModeSampling })
		trigger := f.monitor(ctx, t, id.Server_ServerStatus_CurrentTime, func(r *ua.MonitoredItemCreateRequest) {
			r.MonitoringMode, r.RequestedParameters.SamplingInterval = ua.MonitoringModeDisabled, 10000
		})
		r, err := f.SetTriggering(ctx, trigger, []uint32{linked}, nil)
		if err != nil {
			t.Fatal(err)
		}
		wantStatus(t, r.AddResults, ua.StatusOK)
		if _, err := f.SetMonitoringMode(ctx, ua.MonitoringModeReporting, trigger); err != nil {
			t.Fatal(err)
		}
		var handles []uint32
		for len(handles) < 2 {
			for _, n := range f.next(ctx, t) {
				handles = append(handles, n.ClientHandle)
			}
		}
		slices.Sort(handles)
		if want := []uint32{id.Server_ServerStatus_CurrentTime, id.Server_ServiceLevel}; !slices.Equal(handles, want) {
			t.Errorf("notified of %v, want %v", handles, want)
		}
	}},
	{step{"MonitoredItem", "DeleteMonitoredItems", "once, and not twice"}, func(ctx context.Context, t *testing.T, c *opcua.Client) {
		f := newFlow(ctx, t, c)
		defer f.end(ctx, t)
		item := f.monitor(ctx, t, id.Server_ServiceLevel, nil)
		for _, want := range []ua.StatusCode{ua.StatusOK, ua.StatusBadMonitoredItemIDInvalid} {
			r, err := f.Unmonitor(ctx, item)
			if err != nil {
				t.Fatal(err)
			}
			wantStatus(t, r.Results, want)
		}
	}},
	{step{"Method", "Call", "GetMonitoredItems names the items of a subscription"}, func(ctx context.Context, t *testing.T, c *opcua.Client) {
		f := newFlow(ctx, t, c)
		defer f.end(ctx, t)
		item := f.monitor(ctx, t, id.Server_ServiceLevel, nil)
		r, err := c.Call(ctx, &ua.CallMethodRequest{
			ObjectID: serverNode(id.Server), MethodID: serverNode(id.Server_GetMonitoredItems), InputArguments: []*ua.Variant{ua.MustVariant(f.SubscriptionID)},
		})
		if err != nil || r.StatusCode != ua.StatusOK {
			t.Fatalf("%v, %v", r, err)
		}
		if got, ok := r.OutputArguments[0].Value().([]uint32); !ok || !slices.Equal(got, []uint32{item}) {
			t.Errorf("the items are %v, want %d", r.OutputArguments[0].Value(), item)
		}
	}},
}

// gopcuaSubscriptions are the services on subscriptions, through gopcua's own where it has methods for them.
var gopcuaSubscriptions = []gopcuaStep{
	{step{"Subscription", "ModifySubscription", "another publishing interval"}, func(ctx context.Context, t *testing.T, c *opcua.Client) {
		f := newFlow(ctx, t, c)
		defer f.end(ctx, t)
		r, err := f.ModifySubscription(ctx, opcua.SubscriptionParameters{Interval: 2 * flowInterval})
		if err != nil || r.RevisedPublishingInterval != float64((2*flowInterval).Milliseconds()) {
			t.Errorf("%v, %v", r, err)
		}
	}},
	{step{"Subscription", "SetPublishingMode", "off and on"}, func(ctx context.Context, t *testing.T, c *opcua.Client) {
		f := newFlow(ctx, t, c)
		defer f.end(ctx, t)
		mode := func(enabled bool) {
			r := mustCall[*ua.SetPublishingModeResponse](ctx, t, c, &ua.SetPublishingModeRequest{PublishingEnabled: enabled, SubscriptionIDs: []uint32{f.SubscriptionID}})
			wantStatus(t, r.Results, ua.StatusOK)
		}
		mode(false)
		f.monitor(ctx, t, id.Server_ServiceLevel, nil)
		mode(true)
		if got := f.next(ctx, t)[0].Value.Value.Value(); got != byte(255) {
			t.Errorf("got %v", got)
		}
	}},
	{step{"Subscription", "Publish", "a value at every sampling interval"}, func(ctx context.Context, t *testing.T, c *opcua.Client) {
		f := newFlow(ctx, t, c)
		defer f.end(ctx, t)
		f.monitor(ctx, t, id.Server_ServerStatus_CurrentTime, func(r *ua.MonitoredItemCreateRequest) { r.RequestedParameters.SamplingInterval = 100 })
		var last time.Time
		for range 10 {
			for _, n := range f.next(ctx, t) {
				at, ok := n.Value.Value.Value().(time.Time)
				if !ok || !at.After(last) {
					t.Fatalf("%v after %v", n.Value.Value.Value(), last)
				}
				last = at
			}
		}
	}},
	{step{"Subscription", "Republish", "a message once more, and one that is not there"}, func(ctx context.Context, t *testing.T, c *opcua.Client) {
		sub, message := published(ctx, t, c)
		again := mustCall[*ua.RepublishResponse](ctx, t, c, &ua.RepublishRequest{SubscriptionID: sub, RetransmitSequenceNumber: message.SequenceNumber})
		if got := again.NotificationMessage.SequenceNumber; got != message.SequenceNumber {
			t.Errorf("message %d was republished, want %d", got, message.SequenceNumber)
		}
		wantFault(ctx, t, c, ua.StatusBadMessageNotAvailable, &ua.RepublishRequest{SubscriptionID: sub, RetransmitSequenceNumber: 1_000_000})
		r := mustCall[*ua.DeleteSubscriptionsResponse](ctx, t, c, &ua.DeleteSubscriptionsRequest{SubscriptionIDs: []uint32{sub}})
		wantStatus(t, r.Results, ua.StatusOK)
	}},
	{step{"Subscription", "DeleteSubscriptions", "once, and not twice"}, func(ctx context.Context, t *testing.T, c *opcua.Client) {
		sub, _ := published(ctx, t, c)
		for _, want := range []ua.StatusCode{ua.StatusOK, ua.StatusBadSubscriptionIDInvalid} {
			r := mustCall[*ua.DeleteSubscriptionsResponse](ctx, t, c, &ua.DeleteSubscriptionsRequest{SubscriptionIDs: []uint32{sub}})
			wantStatus(t, r.Results, want)
		}
	}},
}

// published makes a subscription by hand, whose first message of values nobody has acknowledged.
func published(ctx context.Context, t *testing.T, c *opcua.Client) (sub uint32, message *ua.NotificationMessage) {
	t.Helper()
	created := mustCall[*ua.CreateSubscriptionResponse](ctx, t, c, &ua.CreateSubscriptionRequest{
		RequestedPublishingInterval: float64(flowInterval.Milliseconds()), RequestedLifetimeCount: 600, RequestedMaxKeepAliveCount: 100, PublishingEnabled: true,
	})
	items := mustCall[*ua.CreateMonitoredItemsResponse](ctx, t, c, &ua.CreateMonitoredItemsRequest{
		SubscriptionID: created.SubscriptionID, TimestampsToReturn: ua.TimestampsToReturnBoth,
		ItemsToCreate: []*ua.MonitoredItemCreateRequest{opcua.NewMonitoredItemCreateRequestWithDefaults(serverNode(id.Server_ServiceLevel), ua.AttributeIDValue, 1)},
	})
	if got := items.Results[0].StatusCode; got != ua.StatusOK {
		t.Fatal(got)
	}
	for {
		r := mustCall[*ua.PublishResponse](ctx, t, c, &ua.PublishRequest{})
		if len(r.NotificationMessage.NotificationData) > 0 {
			return created.SubscriptionID, r.NotificationMessage
		}
	}
}
