package server

import (
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/gopcua/opcua/ua"
)

func TestEveryServiceIsCountedByItsName(t *testing.T) {
	seen := map[service]bool{serviceOther: true}
	for _, req := range []ua.Request{
		&ua.FindServersRequest{}, &ua.GetEndpointsRequest{}, &ua.CreateSessionRequest{}, &ua.ActivateSessionRequest{}, &ua.CloseSessionRequest{},
		&ua.CancelRequest{}, &ua.BrowseRequest{}, &ua.BrowseNextRequest{}, &ua.TranslateBrowsePathsToNodeIDsRequest{}, &ua.RegisterNodesRequest{},
		&ua.UnregisterNodesRequest{}, &ua.ReadRequest{}, &ua.WriteRequest{}, &ua.HistoryReadRequest{}, &ua.HistoryUpdateRequest{}, &ua.CallRequest{},
		&ua.CreateMonitoredItemsRequest{}, &ua.ModifyMonitoredItemsRequest{}, &ua.SetMonitoringModeRequest{}, &ua.SetTriggeringRequest{},
		&ua.DeleteMonitoredItemsRequest{}, &ua.CreateSubscriptionRequest{}, &ua.ModifySubscriptionRequest{}, &ua.SetPublishingModeRequest{},
		&ua.PublishRequest{}, &ua.RepublishRequest{}, &ua.TransferSubscriptionsRequest{}, &ua.DeleteSubscriptionsRequest{},
	} {
		s := serviceOf(req)
		name := strings.ReplaceAll(strings.TrimSuffix(reflect.TypeOf(req).Elem().Name(), "Request"), "IDs", "Ids")
		if serviceNames[s] != name {
			t.Errorf("%s is counted as %s", name, serviceNames[s])
		}
		seen[s] = true
	}
	if len(seen) != int(serviceCount) {
		t.Errorf("%d services were asked for, there are %d", len(seen), serviceCount)
	}
	if s := serviceOf(&ua.QueryFirstRequest{}); s != serviceOther {
		t.Errorf("an unsupported service is counted as %s", serviceNames[s])
	}
}

func TestRequestsAreCountedByResult(t *testing.T) {
	inBubble(t, Limits{MaxPublishRequests: 1, MaxOperations: 2}, func(t *testing.T, r *rig) {
		read := &ua.ReadValueID{NodeID: levelKey.NodeID(), AttributeID: ua.AttributeIDValue}
		r.call(&ua.ReadRequest{TimestampsToReturn: ua.TimestampsToReturnBoth, NodesToRead: []*ua.ReadValueID{read}})
		r.call(&ua.ReadRequest{TimestampsToReturn: ua.TimestampsToReturnBoth, NodesToRead: []*ua.ReadValueID{read, read, read}})
		r.call(&ua.ReadRequest{})
		r.ask(r.ch, nil, &ua.ReadRequest{}) // by no session
		r.ask(r.ch, r.auth, &ua.ActivateSessionRequest{UserIdentityToken: &ua.ExtensionObject{
			EncodingMask: ua.ExtensionObjectBinary, Value: &ua.UserNameIdentityToken{PolicyID: "unknown"},
		}})
		r.call(&ua.QueryFirstRequest{})
		r.publish() // nothing to publish
		sub := r.subscribe().SubscriptionID
		r.monitor(sub, levelKey.NodeID(), 1)
		r.publish()
		r.publish() // takes the place of the one before
		if n := r.v.stats().ParkedPublishes; n != 1 {
			t.Errorf("%d Publish requests are parked, want 1", n)
		}
		r.after(105 * time.Millisecond)
		if n := r.v.stats().ParkedPublishes; n != 0 {
			t.Errorf("%d Publish requests are parked, want 0", n)
		}
		got := map[string]uint64{}
		for _, c := range r.v.engine.counts.read().Requests {
			if c.Count > 0 {
				got[c.Service+" "+c.Result] = c.Count
			}
		}
		want := map[string]uint64{
			"CreateSession good": 1, "ActivateSession good": 1, "ActivateSession denied": 1, "Read good": 1, "Read limited": 1, "Read bad": 2, "Other bad": 1,
			"CreateSubscription good": 1, "CreateMonitoredItems good": 1, "Publish bad": 1, "Publish limited": 1, "Publish good": 1,
		}
		if !reflect.DeepEqual(got, want) {
			t.Errorf("counted %v, want %v", got, want)
		}
	})
}

// TestCountingCostsNoMemory holds the path that every read takes to what it was.
func TestCountingCostsNoMemory(t *testing.T) {
	var c counts
	var req ua.Request = &ua.ReadRequest{}
	if n := testing.AllocsPerRun(100, func() { c.answered(serviceOf(req), ua.StatusOK) }); n != 0 {
		t.Errorf("%v allocations for each request", n)
	}
	if n := c.requests[serviceRead][classGood].Load(); n != 101 { // One run more, to warm up.
		t.Errorf("counted %d", n)
	}
}

func TestLossesAreCounted(t *testing.T) {
	inBubble(t, Limits{}, func(t *testing.T, r *rig) {
		sub := r.subscribe().SubscriptionID
		r.monitor(sub, levelKey.NodeID(), 1)
		r.monitor(sub, levelKey.NodeID(), 3)
		for i := range int64(9) {
			r.demo.set(i + 1)
		}
		// Ten values, three places; the queue of one place loses nothing that anybody wanted.
		if c := r.v.engine.counts.read(); c.LostValues != 7 || c.LostEvents != 0 {
			t.Errorf("lost %d values and %d events, want 7 and 0", c.LostValues, c.LostEvents)
		}
		if s := r.v.stats(); s != (Stats{Sessions: 1, Subscriptions: 1, MonitoredItems: 2, QueuePlaces: 3}) {
			t.Errorf("stats %+v", s)
		}
	})
	var q eventQueue
	for i := range 3 {
		if lost := q.push(&happening{}, 2, true); lost != (i == 2) {
			t.Errorf("event %d: lost is %t", i, lost)
		}
	}
}
