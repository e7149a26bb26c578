package server

import (
	"slices"
	"testing"
	"time"

	"github.com/gopcua/opcua/ua"

	"quorate/opcua/space"
)

func (r *rig) callMethod(object, method space.Key, args ...any) *ua.CallMethodResult {
	r.t.Helper()
	m := &ua.CallMethodRequest{ObjectID: object.NodeID(), MethodID: method.NodeID()}
	for _, a := range args {
		m.InputArguments = append(m.InputArguments, ua.MustVariant(a))
	}
	return want[*ua.CallResponse](r.t, r.call(&ua.CallRequest{MethodsToCall: []*ua.CallMethodRequest{m}})).Results[0]
}

func TestCall(t *testing.T) {
	inBubble(t, Limits{MaxMethodsPerCall: 2, MethodTimeout: 3 * time.Second}, func(t *testing.T, r *rig) {
		if res := r.callMethod(serverKey, doubleKey, int64(4)); res.StatusCode != ua.StatusBadUserAccessDenied || res.OutputArguments != nil {
			t.Errorf("nobody in particular: %+v", res)
		}
		r.become("ada")
		if res := r.callMethod(serverKey, doubleKey, int64(4)); res.StatusCode != ua.StatusOK || len(res.OutputArguments) != 1 || res.OutputArguments[0].Int() != 8 {
			t.Errorf("%+v", res)
		}
		for _, c := range []struct {
			name           string
			object, method space.Key
			args           []any
			want           ua.StatusCode
			each           []ua.StatusCode
		}{
			{"unknown object", space.NumericKey(1, 99), doubleKey, []any{int64(1)}, ua.StatusBadNodeIDUnknown, nil},
			{"unknown method", serverKey, space.NumericKey(1, 99), nil, ua.StatusBadMethodInvalid, nil},
			{"no method", serverKey, levelKey, nil, ua.StatusBadMethodInvalid, nil},
			{"another's method", objectsKey, doubleKey, []any{int64(1)}, ua.StatusBadMethodInvalid, nil},
			{"without a function", serverKey, brokenKey, nil, ua.StatusBadNotExecutable, nil},
			{"too few", serverKey, doubleKey, nil, ua.StatusBadArgumentsMissing, nil},
			{"too many", serverKey, doubleKey, []any{int64(1), int64(2)}, ua.StatusBadTooManyArguments, nil},
			{"another type", serverKey, doubleKey, []any{"1"}, ua.StatusBadInvalidArgument, []ua.StatusCode{ua.StatusBadTypeMismatch}},
			{"an array", serverKey, doubleKey, []any{[]int64{1}}, ua.StatusBadInvalidArgument, []ua.StatusCode{ua.StatusBadTypeMismatch}},
		} {
			if res := r.callMethod(c.object, c.method, c.args...); res.StatusCode != c.want || !slices.Equal(res.InputArgumentResults, c.each) {
				t.Errorf("%s: %+v, want %v", c.name, res, c.want)
			}
		}
		wantFault(t, r.call(&ua.CallRequest{}), ua.StatusBadNothingToDo)
		wantFault(t, r.call(&ua.CallRequest{MethodsToCall: make([]*ua.CallMethodRequest, 3)}), ua.StatusBadTooManyOperations)

		// All methods of a call share one deadline.
		before := time.Now()
		slow := &ua.CallMethodRequest{ObjectID: serverKey.NodeID(), MethodID: doubleKey.NodeID(), InputArguments: []*ua.Variant{ua.MustVariant(int64(0))}}
		for _, res := range want[*ua.CallResponse](t, r.call(&ua.CallRequest{MethodsToCall: []*ua.CallMethodRequest{slow, slow}})).Results {
			if res.StatusCode != ua.StatusBadTimeout {
				t.Errorf("%v", res.StatusCode)
			}
		}
		if d := time.Since(before); d != 3*time.Second {
			t.Errorf("took %v, want the limit", d)
		}
	})
}

func TestGetMonitoredItems(t *testing.T) {
	inBubble(t, Limits{}, func(t *testing.T, r *rig) {
		sub := r.subscribe().SubscriptionID
		items := map[uint32]uint32{}
		for i := range uint32(3) {
			items[r.monitor(sub, levelKey.NodeID(), 1, named(i+20, ua.MonitoringModeSampling)).MonitoredItemID] = i + 20
		}
		res := r.callMethod(serverKey, getMonitoredItems, sub)
		if res.StatusCode != ua.StatusOK || len(res.OutputArguments) != 2 {
			t.Fatalf("%+v", res)
		}
		ids, clients := res.OutputArguments[0].Value().([]uint32), res.OutputArguments[1].Value().([]uint32)
		if len(ids) != 3 || len(clients) != 3 {
			t.Fatalf("%v, %v", ids, clients)
		}
		for i, id := range ids {
			if items[id] != clients[i] {
				t.Errorf("item %d has the handle %d, want %d", id, clients[i], items[id])
			}
		}
		for _, m := range []space.Key{getMonitoredItems, resendData} {
			if res := r.callMethod(serverKey, m, sub+1); res.StatusCode != ua.StatusBadSubscriptionIDInvalid {
				t.Errorf("%v", res.StatusCode)
			}
			o := r.other()
			mine, auth := r.ch, r.auth
			r.ch, r.auth = o.ch, o.auth
			if res := r.callMethod(serverKey, m, sub); res.StatusCode != ua.StatusBadUserAccessDenied {
				t.Errorf("of another session: %v", res.StatusCode)
			}
			r.ch, r.auth = mine, auth
		}
	})
}

func TestResendData(t *testing.T) {
	inBubble(t, Limits{}, func(t *testing.T, r *rig) {
		sub := r.subscribe().SubscriptionID
		r.monitor(sub, levelKey.NodeID(), 10, named(1, ua.MonitoringModeReporting))
		r.monitor(sub, analogKey.NodeID(), 10, named(2, ua.MonitoringModeSampling))
		r.publish()
		r.after(105 * time.Millisecond)
		r.publish()
		if res := r.callMethod(serverKey, resendData, sub); res.StatusCode != ua.StatusOK {
			t.Fatal(res.StatusCode)
		}
		got := r.after(105 * time.Millisecond)
		if len(got) != 1 || !slices.Equal(handles(t, got[0].resp), []uint32{1}) {
			t.Fatalf("%+v", got)
		}
		// What is queued already is not followed by itself.
		r.demo.set(5)
		r.callMethod(serverKey, resendData, sub)
		r.publish()
		if got := ints(t, r.after(105 * time.Millisecond)[0].resp); !slices.Equal(got, []int64{5}) {
			t.Fatalf("%v", got)
		}
	})
}

func TestWrite(t *testing.T) {
	inBubble(t, Limits{MaxOperations: 20}, func(t *testing.T, r *rig) {
		write := func(list ...*ua.WriteValue) []ua.StatusCode {
			return want[*ua.WriteResponse](t, r.call(&ua.WriteRequest{NodesToWrite: list})).Results
		}
		at := func(k space.Key, attr ua.AttributeID, v *ua.DataValue) *ua.WriteValue {
			return &ua.WriteValue{NodeID: k.NodeID(), AttributeID: attr, Value: v}
		}
		const value = ua.AttributeIDValue
		if got := write(at(targetKey, value, dataValue(int64(4)))); got[0] != ua.StatusBadUserAccessDenied || r.demo.target.Load() != 0 {
			t.Errorf("nobody in particular: %v", got)
		}
		r.become("ada")
		ranged := at(targetKey, value, dataValue(int64(5)))
		ranged.IndexRange = "0:1"
		wrong := at(targetKey, value, dataValue(int64(5)))
		wrong.IndexRange = "1:0"
		got := write(
			at(targetKey, value, dataValue(int64(4))),
			at(levelKey, value, dataValue(int64(5))),
			at(targetKey, value, dataValue("5")),
			at(targetKey, value, dataValue([]int64{5})),
			at(targetKey, value, &ua.DataValue{}),
			at(targetKey, value, &ua.DataValue{Value: ua.MustVariant(int64(5)), SourceTimestamp: time.Now()}),
			at(targetKey, value, &ua.DataValue{Value: ua.MustVariant(int64(5)), Status: ua.StatusUncertain}),
			ranged, wrong,
			at(targetKey, ua.AttributeIDDisplayName, dataValue("x")),
			at(targetKey, ua.AttributeIDExecutable, dataValue(true)),
			at(objectsKey, value, dataValue(int64(5))),
			at(space.NumericKey(1, 99), value, dataValue(int64(5))),
		)
		if w := []ua.StatusCode{
			ua.StatusOK, ua.StatusBadNotWritable, ua.StatusBadTypeMismatch, ua.StatusBadTypeMismatch, ua.StatusBadTypeMismatch,
			ua.StatusBadWriteNotSupported, ua.StatusBadWriteNotSupported, ua.StatusBadIndexRangeNoData, ua.StatusBadIndexRangeInvalid,
			ua.StatusBadNotWritable, ua.StatusBadAttributeIDInvalid, ua.StatusBadAttributeIDInvalid, ua.StatusBadNodeIDUnknown,
		}; !slices.Equal(got, w) {
			t.Errorf("got\n%v\nwant\n%v", got, w)
		}
		if n := r.demo.target.Load(); n != 4 {
			t.Errorf("the value is %d, want 4", n)
		}
		wantFault(t, r.call(&ua.WriteRequest{}), ua.StatusBadNothingToDo)
		wantFault(t, r.call(&ua.WriteRequest{NodesToWrite: make([]*ua.WriteValue, 21)}), ua.StatusBadTooManyOperations)
	})
}

func TestNoHistory(t *testing.T) {
	inBubble(t, Limits{}, func(t *testing.T, r *rig) {
		read := want[*ua.HistoryReadResponse](t, r.call(&ua.HistoryReadRequest{NodesToRead: []*ua.HistoryReadValueID{
			{NodeID: levelKey.NodeID()}, {NodeID: space.NumericKey(1, 99).NodeID()},
		}}))
		if a, b := read.Results[0].StatusCode, read.Results[1].StatusCode; a != ua.StatusBadHistoryOperationUnsupported || b != ua.StatusBadNodeIDUnknown {
			t.Errorf("%v, %v", a, b)
		}
		update := want[*ua.HistoryUpdateResponse](t, r.call(&ua.HistoryUpdateRequest{HistoryUpdateDetails: []*ua.ExtensionObject{{}}}))
		if got := update.Results[0].StatusCode; got != ua.StatusBadHistoryOperationUnsupported {
			t.Errorf("%v", got)
		}
		wantFault(t, r.call(&ua.HistoryReadRequest{}), ua.StatusBadNothingToDo)
		wantFault(t, r.call(&ua.HistoryUpdateRequest{}), ua.StatusBadNothingToDo)
		wantFault(t, r.call(&ua.HistoryReadRequest{TimestampsToReturn: 4, NodesToRead: []*ua.HistoryReadValueID{{}}}), ua.StatusBadTimestampsToReturnInvalid)
	})
}
