package server

import (
	"bytes"
	"encoding/binary"
	"errors"
	"testing"

	"github.com/gopcua/opcua/ua"

	"quorate/opcua/wire"
)

// encoded is a request as it is sent, with no session.
func encoded(t *testing.T, req ua.Request) []byte {
	t.Helper()
	req.SetHeader(&ua.RequestHeader{AuthenticationToken: ua.NewTwoByteNodeID(0), AdditionalHeader: ua.NewExtensionObject(nil)})
	b, err := wire.AppendMessage(nil, req)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// TestBombsOnTheWire sends what kills other servers before anybody has logged in. Package wire has many more of the kind.
func TestBombsOnTheWire(t *testing.T) {
	s := serve(t)
	endpoints := func(length uint32) []byte { // An array of that many locale ids, of which none comes.
		b := encoded(t, &ua.GetEndpointsRequest{})
		binary.LittleEndian.PutUint32(b[len(b)-8:], length)
		return b
	}
	write := func(variant []byte) []byte {
		mark := []byte{byte(ua.TypeIDString), 4, 0, 0, 0, 'm', 'a', 'r', 'k'}
		b := encoded(t, &ua.WriteRequest{NodesToWrite: []*ua.WriteValue{{NodeID: levelKey.NodeID(), AttributeID: ua.AttributeIDValue, Value: dataValue("mark")}}})
		before, _, found := bytes.Cut(b, mark)
		if !found {
			t.Fatal("the value is not where it was looked for")
		}
		return append(bytes.Clone(before), variant...)
	}
	for name, body := range map[string][]byte{
		"a string array of length max":  endpoints(0x7fffffff),
		"a string array of length -2":   endpoints(0xfffffffe),
		"a Variant array of length -2":  write([]byte{byte(ua.TypeIDInt32) | ua.VariantArrayValues, 0xfe, 0xff, 0xff, 0xff}),
		"a Variant array of length max": write([]byte{byte(ua.TypeIDInt32) | ua.VariantArrayValues, 0xff, 0xff, 0xff, 0x7f}),
		"Variants in Variants":          write(bytes.Repeat([]byte{byte(ua.TypeIDVariant)}, 60_000)),
		"half a request":                write(nil),
	} {
		v := newVisitor(t, s)
		if err := v.open(); err != nil {
			t.Fatal(err)
		}
		v.sequence++
		if err := v.send("MSGF", words(v.channelID, v.tokenID, v.sequence, v.sequence), body); err != nil {
			t.Fatal(err)
		}
		answer, err := v.receive()
		if err != nil {
			t.Errorf("%s: %v, want a fault", name, err)
			continue
		}
		var fault ua.ServiceFault
		if err := wire.Decode(answer[16+4:], &fault, wire.DefaultLimits); err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if got := fault.ResponseHeader.ServiceResult; got != ua.StatusBadDecodingError && got != ua.StatusBadEncodingLimitsExceeded {
			t.Errorf("%s: %v", name, got)
		}
		// The connection goes on.
		if err := v.enter(true); err != nil {
			t.Errorf("%s: then %v", name, err)
		}
	}
	wantAlive(t, s)
}

// TestUnknownItemsOnTheWire names items that there are not, in a subscription that there is.
func TestUnknownItemsOnTheWire(t *testing.T) {
	s := serve(t)
	v := newVisitor(t, s)
	if err := errors.Join(v.open(), v.enter(true)); err != nil {
		t.Fatal(err)
	}
	var sub ua.CreateSubscriptionResponse
	if err := v.call(&ua.CreateSubscriptionRequest{RequestedPublishingInterval: 1000}, &sub); err != nil {
		t.Fatal(err)
	}
	unknown := []uint32{0, 1, 77, 1<<32 - 1}
	var deleted ua.DeleteMonitoredItemsResponse
	var moded ua.SetMonitoringModeResponse
	var modified ua.ModifyMonitoredItemsResponse
	modify := &ua.ModifyMonitoredItemsRequest{SubscriptionID: sub.SubscriptionID}
	for _, id := range unknown {
		modify.ItemsToModify = append(modify.ItemsToModify, &ua.MonitoredItemModifyRequest{MonitoredItemID: id, RequestedParameters: &ua.MonitoringParameters{Filter: ua.NewExtensionObject(nil)}})
	}
	err := errors.Join(
		v.call(&ua.DeleteMonitoredItemsRequest{SubscriptionID: sub.SubscriptionID, MonitoredItemIDs: unknown}, &deleted),
		v.call(&ua.SetMonitoringModeRequest{SubscriptionID: sub.SubscriptionID, MonitoredItemIDs: unknown}, &moded),
		v.call(modify, &modified))
	if err != nil {
		t.Fatal(err)
	}
	for i, id := range unknown {
		if a, b, c := deleted.Results[i], moded.Results[i], modified.Results[i].StatusCode; a != ua.StatusBadMonitoredItemIDInvalid || b != a || c != a {
			t.Errorf("%d: %v, %v, %v", id, a, b, c)
		}
	}
	err = v.call(&ua.SetTriggeringRequest{SubscriptionID: sub.SubscriptionID, TriggeringItemID: 77, LinksToAdd: unknown}, &ua.SetTriggeringResponse{})
	if !errors.Is(err, ua.StatusBadMonitoredItemIDInvalid) {
		t.Errorf("%v", err)
	}
	wantAlive(t, s)
}
