package server

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/gopcua/opcua"
	"github.com/gopcua/opcua/ua"

	"quorate/opcua/space"
)

var floorField = ua.QualifiedName{NamespaceIndex: 1, Name: "Floor"}

func field(ns uint16, names ...string) *ua.SimpleAttributeOperand {
	o := &ua.SimpleAttributeOperand{TypeDefinitionID: baseEventType.NodeID(), AttributeID: ua.AttributeIDValue}
	for _, n := range names {
		o.BrowsePath = append(o.BrowsePath, &ua.QualifiedName{NamespaceIndex: ns, Name: n})
	}
	return o
}

// events makes an item on the events of the Server object, with a field Message and whatever else is selected.
func (r *rig) events(sub uint32, queue uint32, where []*ua.ContentFilterElement, selects ...*ua.SimpleAttributeOperand) *ua.MonitoredItemCreateResult {
	r.t.Helper()
	return r.monitor(sub, serverObject.NodeID(), queue, func(c *ua.MonitoredItemCreateRequest) {
		c.ItemToMonitor.AttributeID = ua.AttributeIDEventNotifier
		c.RequestedParameters.Filter = ua.NewExtensionObject(&ua.EventFilter{
			SelectClauses: append([]*ua.SimpleAttributeOperand{field(0, "Message")}, selects...), WhereClause: &ua.ContentFilter{Elements: where},
		})
	})
}

func (r *rig) emit(typ space.Key, severity uint16, message string) {
	r.t.Helper()
	if err := r.v.engine.emit(Event{Type: typ, Severity: severity, Message: message, SourceName: "demo", Source: levelKey,
		Fields: map[ua.QualifiedName]*ua.Variant{floorField: ua.MustVariant(int32(severity))}}); err != nil {
		r.t.Fatal(err)
	}
}

// told returns the events of a Publish response.
func told(t testing.TB, resp ua.Response) (list []*ua.EventFieldList) {
	t.Helper()
	for _, part := range want[*ua.PublishResponse](t, resp).NotificationMessage.NotificationData {
		if n, ok := part.Value.(*ua.EventNotificationList); ok {
			list = append(list, n.Events...)
		}
	}
	return list
}

func messages(t testing.TB, resp ua.Response) (list []string) {
	t.Helper()
	for _, ev := range told(t, resp) {
		list = append(list, ev.EventFields[0].Value().(*ua.LocalizedText).Text)
	}
	return list
}

func TestEventFields(t *testing.T) {
	inBubble(t, Limits{}, func(t *testing.T, r *rig) {
		sub := r.subscribe().SubscriptionID
		fire := field(1, "Floor")
		fire.TypeDefinitionID = fireKey.NodeID()
		condition := &ua.SimpleAttributeOperand{TypeDefinitionID: alarmKey.NodeID(), AttributeID: ua.AttributeIDNodeID}
		res := r.events(sub, 10, nil, field(0, "EventId"), field(0, "EventType"), field(0, "SourceNode"), field(0, "SourceName"), field(0, "Time"),
			field(0, "ReceiveTime"), field(0, "LocalTime"), field(0, "Severity"), field(1, "Floor"), fire, condition, field(1, "Floor", "Height"))
		if res.StatusCode != ua.StatusOK || res.FilterResult != nil || res.RevisedQueueSize != 10 {
			t.Fatalf("%+v", res)
		}
		at := time.Now()
		r.emit(alarmKey, 7, "smoke")
		r.emit(fireKey, 8, "flames")
		r.publish()
		got := told(t, r.after(105 * time.Millisecond)[0].resp)
		if len(got) != 2 || got[0].ClientHandle != 7 {
			t.Fatalf("%+v", got)
		}
		f := got[0].EventFields
		if id, ok := f[1].Value().([]byte); !ok || len(id) != eventIDLength || slices.Equal(id, got[1].EventFields[1].Value().([]byte)) {
			t.Errorf("EventId: %v", f[1].Value())
		}
		if space.KeyOf(f[2].Value().(*ua.NodeID)) != alarmKey || space.KeyOf(f[3].Value().(*ua.NodeID)) != levelKey || f[4].Value() != "demo" {
			t.Errorf("%v, %v, %v", f[2].Value(), f[3].Value(), f[4].Value())
		}
		if !f[5].Time().Equal(at) || !f[6].Time().Equal(at) || f[7].Value() != nil || f[8].Value() != uint16(7) || f[9].Value() != int32(7) {
			t.Errorf("%v, %v, %v, %v, %v", f[5].Value(), f[6].Value(), f[7].Value(), f[8].Value(), f[9].Value())
		}
		if f[10].Value() != nil || got[1].EventFields[10].Value() != int32(8) {
			t.Errorf("the field of another type: %v and %v", f[10].Value(), got[1].EventFields[10].Value())
		}
		if f[11].Value() != nil || f[12].Value() != nil {
			t.Errorf("what there is not: %v, %v", f[11].Value(), f[12].Value())
		}
	})
}

func TestPartsOfEventFields(t *testing.T) {
	inBubble(t, Limits{}, func(t *testing.T, r *rig) {
		part := func(o *ua.SimpleAttributeOperand, indexRange string) *ua.SimpleAttributeOperand {
			o.IndexRange = indexRange
			return o
		}
		list, matrix := ua.QualifiedName{NamespaceIndex: 1, Name: "List"}, ua.QualifiedName{NamespaceIndex: 1, Name: "Matrix"}
		sub := r.subscribe().SubscriptionID
		res := r.events(sub, 10, nil, part(field(0, "SourceName"), "1:2"), part(field(1, "List"), "1:9"), part(field(1, "List"), "7"), part(field(1, "Matrix"), "0:1,1"),
			part(field(0, "Severity"), "0"), part(field(0, "EventId"), "0:3"), part(field(1, "Nothing"), "0"))
		if res.StatusCode != ua.StatusOK || res.FilterResult != nil {
			t.Fatalf("%+v", res)
		}
		err := r.v.engine.emit(Event{Type: alarmKey, Severity: 1, Message: "smoke", SourceName: "demo", Source: levelKey, Fields: map[ua.QualifiedName]*ua.Variant{
			list: ua.MustVariant([]string{"a", "b", "c"}), matrix: ua.MustVariant([][]int32{{1, 2}, {3, 4}}),
		}})
		if err != nil {
			t.Fatal(err)
		}
		r.publish()
		f := told(t, r.after(105 * time.Millisecond)[0].resp)[0].EventFields
		if f[1].Value() != "em" || !slices.Equal(f[2].Value().([]string), []string{"b", "c"}) {
			t.Errorf("%v, %v", f[1].Value(), f[2].Value())
		}
		if m := f[4].Value().([][]int32); len(m) != 2 || m[0][0] != 2 || m[1][0] != 4 {
			t.Errorf("%v", m)
		}
		for _, i := range []int{3, 5} {
			if f[i].Value() != ua.StatusBadIndexRangeNoData {
				t.Errorf("%d: %v, want the status in place of the value", i, f[i].Value())
			}
		}
		if b := f[6].Value().([]byte); len(b) != 4 || f[7].Value() != nil {
			t.Errorf("%v, %v", b, f[7].Value())
		}
	})
}

func TestEventQueueOverflow(t *testing.T) {
	for _, c := range []struct {
		discardOldest bool
		want          []string
	}{
		{true, []string{"lost", "3", "4"}},
		{false, []string{"0", "4", "lost"}},
	} {
		inBubble(t, Limits{}, func(t *testing.T, r *rig) {
			sub := r.subscribe(func(q *ua.CreateSubscriptionRequest) { q.MaxNotificationsPerPublish = 2 }).SubscriptionID
			it := r.events(sub, 2, nil, field(0, "EventType")).MonitoredItemID
			res := want[*ua.ModifyMonitoredItemsResponse](t, r.call(&ua.ModifyMonitoredItemsRequest{SubscriptionID: sub, ItemsToModify: []*ua.MonitoredItemModifyRequest{{
				MonitoredItemID: it, RequestedParameters: &ua.MonitoringParameters{QueueSize: 2, DiscardOldest: c.discardOldest,
					Filter: ua.NewExtensionObject(&ua.EventFilter{SelectClauses: []*ua.SimpleAttributeOperand{field(0, "Message"), field(0, "EventType")}})}}}}))
			if res.Results[0].StatusCode != ua.StatusOK {
				t.Fatal(res.Results[0].StatusCode)
			}
			for i := range 5 {
				r.emit(alarmKey, 1, fmt.Sprint(i))
			}
			r.publish()
			r.publish()
			var got []string
			for _, m := range r.after(105 * time.Millisecond) {
				for _, ev := range told(t, m.resp) {
					text := ev.EventFields[0].Value().(*ua.LocalizedText).Text
					if space.KeyOf(ev.EventFields[1].Value().(*ua.NodeID)) == overflowEventType {
						text = "lost"
					}
					got = append(got, text)
				}
			}
			if !slices.Equal(got, c.want) {
				t.Errorf("%v, want %v", got, c.want)
			}
			r.emit(alarmKey, 1, "after")
			r.publish()
			if got := messages(t, r.after(105 * time.Millisecond)[0].resp); !slices.Equal(got, []string{"after"}) {
				t.Errorf("the loss is told again: %v", got)
			}
		})
	}
}

func TestEventItemsLive(t *testing.T) {
	inBubble(t, Limits{MaxEventItems: 2, DefaultEventQueueSize: 3}, func(t *testing.T, r *rig) {
		sub := r.subscribe().SubscriptionID
		first := r.events(sub, 0, nil)
		if first.RevisedQueueSize != 3 {
			t.Errorf("queue of %d, want the default", first.RevisedQueueSize)
		}
		r.events(sub, 1, nil)
		if res := r.events(sub, 1, nil); res.StatusCode != ua.StatusBadTooManyMonitoredItems {
			t.Errorf("one more than there may be: %+v", res)
		}
		mode := func(m ua.MonitoringMode) {
			want[*ua.SetMonitoringModeResponse](t, r.call(&ua.SetMonitoringModeRequest{SubscriptionID: sub, MonitoringMode: m, MonitoredItemIDs: []uint32{first.MonitoredItemID}}))
		}
		r.emit(alarmKey, 1, "lost with the mode")
		mode(ua.MonitoringModeDisabled)
		r.emit(alarmKey, 1, "not heard")
		mode(ua.MonitoringModeReporting)
		r.emit(alarmKey, 1, "heard")
		r.publish()
		n := 0
		for _, text := range messages(t, r.after(105 * time.Millisecond)[0].resp) {
			if text == "lost with the mode" {
				t.Error("disabling has not emptied the queue")
			}
			n++
		}
		if n != 3 { // One of the first, and of the other, whose queue holds one, the last and the loss.
			t.Errorf("%d events", n)
		}
		want[*ua.DeleteMonitoredItemsResponse](t, r.call(&ua.DeleteMonitoredItemsRequest{SubscriptionID: sub, MonitoredItemIDs: []uint32{first.MonitoredItemID}}))
		if res := r.events(sub, 1, nil); res.StatusCode != ua.StatusOK {
			t.Errorf("after one was deleted: %+v", res)
		}
	})
}

func TestListened(t *testing.T) {
	inBubble(t, Limits{}, func(t *testing.T, r *rig) {
		s := &Server{services: r.v}
		if s.Listened() {
			t.Error("listened to, before anybody does")
		}
		item := r.events(r.subscribe().SubscriptionID, 1, nil)
		if item.StatusCode != ua.StatusOK || !s.Listened() {
			t.Errorf("%+v, and nobody listens", item)
		}
	})
}

func TestEventFilterRefusals(t *testing.T) {
	inBubble(t, Limits{MaxSelectClauses: 3, MaxWhereOperands: 5}, func(t *testing.T, r *rig) {
		sub := r.subscribe().SubscriptionID
		monitor := func(node space.Key, filter any) *ua.MonitoredItemCreateResult {
			return r.monitor(sub, node.NodeID(), 1, func(c *ua.MonitoredItemCreateRequest) {
				c.ItemToMonitor.AttributeID = ua.AttributeIDEventNotifier
				if filter != nil {
					c.RequestedParameters.Filter = ua.NewExtensionObject(filter)
				}
			})
		}
		selects := func(list ...*ua.SimpleAttributeOperand) *ua.EventFilter { return &ua.EventFilter{SelectClauses: list} }
		unknownType, wrongAttribute, ranged := field(0, "Message"), field(0, "Message"), field(0, "Message")
		unknownType.TypeDefinitionID = objectsKey.NodeID()
		wrongAttribute.AttributeID = ua.AttributeIDDisplayName
		ranged.IndexRange = "1:0"
		for name, c := range map[string]struct {
			got  *ua.MonitoredItemCreateResult
			want ua.StatusCode
		}{
			"no filter":        {monitor(serverObject, nil), ua.StatusBadEventFilterInvalid},
			"another filter":   {monitor(serverObject, &ua.DataChangeFilter{}), ua.StatusBadFilterNotAllowed},
			"no fields":        {monitor(serverObject, selects()), ua.StatusBadEventFilterInvalid},
			"too many fields":  {monitor(serverObject, selects(field(0, "a"), field(0, "b"), field(0, "c"), field(0, "d"))), ua.StatusBadTooManyOperations},
			"nothing possible": {monitor(serverObject, selects(unknownType, field(0))), ua.StatusBadEventFilterInvalid},
			"another object":   {monitor(folderKey, selects(field(0, "a"))), ua.StatusBadNotSupported},
			"a variable":       {monitor(levelKey, selects(field(0, "a"))), ua.StatusBadAttributeIDInvalid},
			"long clause": {r.events(sub, 1, []*ua.ContentFilterElement{clause(ua.FilterOperatorInList, field(0, "Message"), "a", "b", "c", "d")}),
				ua.StatusBadTooManyOperations},
		} {
			if c.got.StatusCode != c.want || c.got.MonitoredItemID != 0 {
				t.Errorf("%s: %+v, want %v", name, c.got, c.want)
			}
		}
		some := monitor(serverObject, selects(field(0, "Message"), wrongAttribute, ranged))
		if some.StatusCode != ua.StatusOK || some.FilterResult == nil {
			t.Fatalf("%+v", some)
		}
		if got := some.FilterResult.Value.(*ua.EventFilterResult).SelectClauseResults; !slices.Equal(got, []ua.StatusCode{ua.StatusOK, ua.StatusBadAttributeIDInvalid, ua.StatusBadIndexRangeInvalid}) {
			t.Errorf("%v", got)
		}

		self := &ua.ElementOperand{Index: 0}
		for name, c := range map[string]struct {
			el   *ua.ContentFilterElement
			want ua.StatusCode
		}{
			"unknown operator":  {clause(99, "a"), ua.StatusBadFilterOperatorInvalid},
			"views":             {clause(ua.FilterOperatorInView, objectsKey.NodeID()), ua.StatusBadFilterOperatorUnsupported},
			"relations":         {clause(ua.FilterOperatorRelatedTo, objectsKey.NodeID(), objectsKey.NodeID()), ua.StatusBadFilterOperatorUnsupported},
			"a long literal":    {clause(ua.FilterOperatorLike, field(0, "Message"), strings.Repeat("%", maxLiteralBytes)), ua.StatusBadFilterOperandInvalid},
			"a pattern too few": {clause(ua.FilterOperatorLike, "a"), ua.StatusBadFilterOperandCountMismatch},
			"too few":           {clause(ua.FilterOperatorEquals, "a"), ua.StatusBadFilterOperandCountMismatch},
			"too many":          {clause(ua.FilterOperatorNot, true, false), ua.StatusBadFilterOperandCountMismatch},
			"empty list":        {clause(ua.FilterOperatorInList, "a"), ua.StatusBadFilterOperandCountMismatch},
			"itself":            {clause(ua.FilterOperatorNot, self), ua.StatusBadFilterOperandInvalid},
			"beyond the end":    {clause(ua.FilterOperatorNot, &ua.ElementOperand{Index: 1 << 31}), ua.StatusBadFilterOperandInvalid},
			"attribute operand": {clause(ua.FilterOperatorNot, &ua.AttributeOperand{NodeID: ua.NewTwoByteNodeID(0), BrowsePath: &ua.RelativePath{}}), ua.StatusBadFilterOperandInvalid},
			"no type":           {clause(ua.FilterOperatorOfType, "a"), ua.StatusBadFilterOperandInvalid},
			"type of no event":  {clause(ua.FilterOperatorOfType, objectsKey.NodeID()), ua.StatusBadFilterOperandInvalid},
			"type by a field":   {clause(ua.FilterOperatorOfType, field(0, "EventType")), ua.StatusBadFilterOperandInvalid},
		} {
			res := r.events(sub, 1, []*ua.ContentFilterElement{c.el})
			if res.StatusCode != ua.StatusBadEventFilterInvalid || res.FilterResult == nil {
				t.Errorf("%s: %+v", name, res)
				continue
			}
			if got := res.FilterResult.Value.(*ua.EventFilterResult).WhereClauseResult.ElementResults[0].StatusCode; got != c.want {
				t.Errorf("%s: %v, want %v", name, got, c.want)
			}
		}
		for name, ev := range map[string]Event{
			"Type":     {Type: objectsKey, Severity: 1, Message: "m"},
			"Severity": {Type: alarmKey, Severity: 1001, Message: "m"},
			"Message":  {Type: alarmKey, Severity: 1},
		} {
			if err := r.v.engine.emit(ev); err == nil || !strings.HasPrefix(err.Error(), "Event."+name) {
				t.Errorf("%s: %v", name, err)
			}
		}
	})
}

func TestEventsOnTheWire(t *testing.T) {
	s := serve(t)
	c := s.connect(t)
	notes := make(chan *opcua.PublishNotificationData, 10)
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	sub, err := c.Subscribe(ctx, &opcua.SubscriptionParameters{Interval: 10 * time.Millisecond}, notes)
	if err != nil {
		t.Fatal(err)
	}
	defer sub.Cancel(context.Background())
	res, err := sub.Monitor(ctx, ua.TimestampsToReturnBoth, &ua.MonitoredItemCreateRequest{
		ItemToMonitor:  &ua.ReadValueID{NodeID: serverObject.NodeID(), AttributeID: ua.AttributeIDEventNotifier, DataEncoding: &ua.QualifiedName{}},
		MonitoringMode: ua.MonitoringModeReporting,
		RequestedParameters: &ua.MonitoringParameters{ClientHandle: 3, QueueSize: 10, DiscardOldest: true, Filter: &ua.ExtensionObject{
			EncodingMask: ua.ExtensionObjectBinary, TypeID: ua.NewFourByteExpandedNodeID(0, 727), Value: ua.EventFilter{
				SelectClauses: []*ua.SimpleAttributeOperand{field(0, "EventId"), field(0, "Message"), field(0, "LocalTime")}, WhereClause: &ua.ContentFilter{},
			}}},
	})
	if err != nil || res.Results[0].StatusCode != ua.StatusOK {
		t.Fatalf("%+v, %v", res, err)
	}
	if err := s.Emit(Event{Type: fireKey, Severity: 900, Message: "flames"}); err != nil {
		t.Fatal(err)
	}
	for {
		select {
		case n := <-notes:
			list, ok := n.Value.(*ua.EventNotificationList)
			if !ok {
				continue
			}
			f := list.Events[0].EventFields
			if list.Events[0].ClientHandle != 3 || len(f) != 3 || len(f[0].ByteString()) != eventIDLength || f[1].LocalizedText().Text != "flames" || f[2].Value() != nil {
				t.Errorf("%+v", f)
			}
			return
		case <-ctx.Done():
			t.Fatal("no event came")
		}
	}
}

// TestEventsWhileItemsComeAndGo is for the race detector: events are handed out while items appear, change and vanish.
func TestEventsWhileItemsComeAndGo(t *testing.T) {
	s := serve(t)
	stop := make(chan struct{})
	emitted := make(chan struct{})
	go func() {
		defer close(emitted)
		for {
			select {
			case <-stop:
				return
			default:
				if err := s.Emit(Event{Type: alarmKey, Severity: 1, Message: "smoke"}); err != nil {
					t.Error(err)
				}
			}
		}
	}()
	filter := func() *ua.ExtensionObject {
		return &ua.ExtensionObject{EncodingMask: ua.ExtensionObjectBinary, TypeID: ua.NewFourByteExpandedNodeID(0, 727), Value: ua.EventFilter{
			SelectClauses: []*ua.SimpleAttributeOperand{field(0, "Message")}, WhereClause: &ua.ContentFilter{},
		}}
	}
	c := s.connect(t)
	for range 20 {
		var sub, it uint32
		steps := []struct {
			req  ua.Request
			take func(ua.Response)
		}{
			{&ua.CreateSubscriptionRequest{RequestedPublishingInterval: 10, PublishingEnabled: true}, func(r ua.Response) { sub = r.(*ua.CreateSubscriptionResponse).SubscriptionID }},
			{&ua.CreateMonitoredItemsRequest{ItemsToCreate: []*ua.MonitoredItemCreateRequest{{
				ItemToMonitor:  &ua.ReadValueID{NodeID: serverObject.NodeID(), AttributeID: ua.AttributeIDEventNotifier, DataEncoding: &ua.QualifiedName{}},
				MonitoringMode: ua.MonitoringModeReporting, RequestedParameters: &ua.MonitoringParameters{QueueSize: 2, Filter: filter()},
			}}}, func(r ua.Response) { it = r.(*ua.CreateMonitoredItemsResponse).Results[0].MonitoredItemID }},
			{&ua.PublishRequest{}, func(ua.Response) {}},
			{&ua.ModifyMonitoredItemsRequest{ItemsToModify: []*ua.MonitoredItemModifyRequest{{RequestedParameters: &ua.MonitoringParameters{QueueSize: 5, Filter: filter()}}}}, func(r ua.Response) {
				if got := r.(*ua.ModifyMonitoredItemsResponse).Results[0].StatusCode; got != ua.StatusOK {
					t.Errorf("modify: %v", got)
				}
			}},
			{&ua.PublishRequest{}, func(ua.Response) {}},
			{&ua.DeleteSubscriptionsRequest{}, func(ua.Response) {}},
		}
		for _, step := range steps {
			switch req := step.req.(type) {
			case *ua.CreateMonitoredItemsRequest:
				req.SubscriptionID = sub
			case *ua.ModifyMonitoredItemsRequest:
				req.SubscriptionID, req.ItemsToModify[0].MonitoredItemID = sub, it
			case *ua.DeleteSubscriptionsRequest:
				req.SubscriptionIDs = []uint32{sub}
			}
			if err := c.Send(t.Context(), step.req, func(r ua.Response) error { step.take(r); return nil }); err != nil {
				t.Fatalf("%T: %v", step.req, err)
			}
		}
	}
	close(stop)
	<-emitted
	if st := s.Stats(); st.MonitoredItems != 0 {
		t.Errorf("left behind: %+v", st)
	}
}
