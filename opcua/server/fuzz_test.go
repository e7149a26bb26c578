package server

import (
	"context"
	"testing"

	"github.com/gopcua/opcua/ua"

	"quorate/opcua/wire"
)

// clauses makes an item that hears of events by all sorts of operators.
func clauses() ua.Request {
	at := func(i uint32) *ua.ElementOperand { return &ua.ElementOperand{Index: i} }
	part := field(0, "Message")
	part.IndexRange = "1:2"
	where := []*ua.ContentFilterElement{
		clause(ua.FilterOperatorAnd, at(1), at(2)), clause(ua.FilterOperatorLike, field(0, "SourceName"), "%[a-f]_"), clause(ua.FilterOperatorEquals, at(3), at(4)),
		clause(ua.FilterOperatorBitwiseAnd, field(0, "Severity"), int64(4)), clause(ua.FilterOperatorCast, "5", ua.NewNumericNodeID(0, 5)),
		clause(ua.FilterOperatorBetween, field(0, "Time"), "2026-01-01T00:00:00Z", 1.5), clause(ua.FilterOperatorInList, part, "la", ua.StatusBad, []int32{1, 2}),
	}
	return &ua.CreateMonitoredItemsRequest{SubscriptionID: 1, ItemsToCreate: []*ua.MonitoredItemCreateRequest{{
		ItemToMonitor:  &ua.ReadValueID{NodeID: serverObject.NodeID(), AttributeID: ua.AttributeIDEventNotifier, DataEncoding: &ua.QualifiedName{}},
		MonitoringMode: ua.MonitoringModeReporting,
		RequestedParameters: &ua.MonitoringParameters{Filter: ua.NewExtensionObject(&ua.EventFilter{
			SelectClauses: []*ua.SimpleAttributeOperand{field(0, "Message"), part}, WhereClause: &ua.ContentFilter{Elements: where},
		})},
	}}}
}

// FuzzServe feeds the services with whatever the decoder lets through, on an activated session with a subscription and an
// item: every request has to be answered, once at most, and none may panic.
func FuzzServe(f *testing.F) {
	seeds := append(inSessionRequests(),
		clauses(), &ua.WriteRequest{NodesToWrite: []*ua.WriteValue{{NodeID: targetKey.NodeID(), AttributeID: ua.AttributeIDValue, IndexRange: "0:1,1", Value: dataValue([]int64{1})}}},
		&ua.FindServersRequest{}, &ua.GetEndpointsRequest{EndpointURL: "opc.tcp://host:1"}, &ua.RegisterServer2Request{},
		&ua.CreateSessionRequest{EndpointURL: "opc.tcp://host:1", SessionName: "s"}, &ua.ActivateSessionRequest{UserIdentityToken: ua.NewExtensionObject(&ua.AnonymousIdentityToken{PolicyID: "p"})})
	for _, req := range seeds {
		req.SetHeader(&ua.RequestHeader{AuthenticationToken: ua.NewTwoByteNodeID(0)})
		b, err := wire.AppendMessage(nil, req)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		req, err := wire.DecodeRequest(b, wire.DefaultLimits)
		if err != nil {
			return
		}
		r := newRig(t, Limits{})
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() {
			defer close(done)
			r.v.engine.schedule.run(ctx)
		}()
		defer func() {
			r.v.shutdown()
			cancel()
			<-done
		}()
		auth := r.connect(r.ch)
		r.auth = auth
		r.monitor(r.subscribe().SubscriptionID, levelKey.NodeID(), 2)
		r.ch.take()
		if req.Header() == nil {
			t.Fatal("the decoder made a request without a header")
		}
		r.post(r.ch, auth, req)
		r.emit(fireKey, 500, "flames") // For the where clauses that it may have brought.
		sent := r.ch.take()
		_, publish := req.(*ua.PublishRequest)
		if len(sent) != 1 && !publish {
			t.Fatalf("%T: %d answers", req, len(sent))
		}
		for _, m := range sent {
			if _, err := wire.AppendMessage(nil, m.resp); err != nil {
				t.Fatalf("%T can't be encoded: %v", m.resp, err)
			}
		}
	})
}
