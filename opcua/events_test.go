package opcua

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	gopcua "github.com/gopcua/opcua"
	"github.com/gopcua/opcua/id"
	"github.com/gopcua/opcua/ua"

	"quorate/fsm"
	logv1 "quorate/proto/quorate/log/v1"
	"quorate/redundancy"
)

// told is an event as a client sees it.
type told struct {
	Type, Source, Message string
	Severity              uint16
	Level                 any
	Role, Previous        any
	Generation, Outcome   any
	Phase, Epoch          any
}

// listenTo gives the events that a third-party client gets, in their order. It begins to listen before it returns.
func listenTo(t *testing.T, endpoint string, where ...*ua.ContentFilterElement) <-chan told {
	t.Helper()
	c := connect(t, endpoint)
	notes := make(chan *gopcua.PublishNotificationData, 100)
	sub, err := c.Subscribe(within(t), &gopcua.SubscriptionParameters{Interval: 50 * time.Millisecond}, notes)
	if err != nil {
		t.Fatal(err)
	}
	filter := ua.EventFilter{WhereClause: &ua.ContentFilter{Elements: where}}
	for _, name := range []ua.QualifiedName{
		{Name: "EventType"}, {Name: "SourceName"}, {Name: "Message"}, {Name: "Severity"},
		stateName("Level"), stateName("Role"), stateName("PreviousRole"), stateName("Generation"), stateName("Outcome"), stateName("Phase"), stateName("Epoch"),
	} {
		filter.SelectClauses = append(filter.SelectClauses, &ua.SimpleAttributeOperand{
			TypeDefinitionID: ua.NewNumericNodeID(0, id.BaseEventType), AttributeID: ua.AttributeIDValue, BrowsePath: []*ua.QualifiedName{&name},
		})
	}
	res, err := sub.Monitor(within(t), ua.TimestampsToReturnBoth, &ua.MonitoredItemCreateRequest{
		ItemToMonitor:  &ua.ReadValueID{NodeID: ua.NewNumericNodeID(0, id.Server), AttributeID: ua.AttributeIDEventNotifier, DataEncoding: &ua.QualifiedName{}},
		MonitoringMode: ua.MonitoringModeReporting,
		RequestedParameters: &ua.MonitoringParameters{QueueSize: 100, Filter: &ua.ExtensionObject{
			EncodingMask: ua.ExtensionObjectBinary, TypeID: ua.NewFourByteExpandedNodeID(0, id.EventFilter_Encoding_DefaultBinary), Value: filter,
		}},
	})
	if err != nil || res.Results[0].StatusCode != ua.StatusOK {
		t.Fatalf("%+v, %v", res, err)
	}
	events := make(chan told, 100)
	hear(t, sub, notes, func(list *ua.EventNotificationList) {
		for _, ev := range list.Events {
			f := ev.EventFields
			events <- told{f[0].NodeID().StringID(), f[1].String(), f[2].LocalizedText().Text, uint16(f[3].Uint()), f[4].Value(), f[5].Value(), f[6].Value(), f[7].Value(), f[8].Value(), f[9].Value(), f[10].Value()}
		}
	})
	return events
}

// ofType is a where clause for the events of a type.
func ofType(of *eventType) *ua.ContentFilterElement {
	return &ua.ContentFilterElement{FilterOperator: ua.FilterOperatorOfType, FilterOperands: []*ua.ExtensionObject{
		ua.NewExtensionObject(&ua.LiteralOperand{Value: ua.MustVariant(of.key.NodeID())}),
	}}
}

func expectEvents(t *testing.T, events <-chan told, want ...told) {
	t.Helper()
	deadline := within(t)
	for i, w := range want {
		select {
		case got := <-events:
			if diff := cmp.Diff(w, got); diff != "" {
				t.Errorf("event %d (-want +got):\n%s", i, diff)
			}
		case <-deadline.Done():
			t.Fatalf("event %d did not come: %+v", i, w)
		}
	}
}

func TestEventsOfTheServer(t *testing.T) {
	g := newGroup(t, "m1", "m2")
	g.publish("WARM", serverNamed("m1", redundancy.Primary), serverNamed("m2", redundancy.Backup))
	g.adopt("m1", 1)
	g.adopt("m2", 1)
	f := &fitness{}
	f.move(healthyPrimary)
	_, cfg := serve(t, listen(t), "m1", g, f)
	all := listenTo(t, cfg.Endpoint)
	applies := listenTo(t, cfg.Endpoint, ofType(applyMoved))

	lower := healthyPrimary
	lower.MidApply = true
	f.move(lower)
	level := redundancy.Evaluate(lower).Value
	expectEvents(t, all, told{Type: "types/LevelChangedEventType", Source: "m1", Severity: severityWorse, Level: level,
		Message: fmt.Sprintf("The ServiceLevel of m1 went from 255 to %d: Mid-apply.", level)})
	f.move(lower) // Told of again, but not moved.
	f.move(healthyPrimary)
	expectEvents(t, all, told{Type: "types/LevelChangedEventType", Source: "m1", Severity: severityNormal, Level: byte(255),
		Message: fmt.Sprintf("The ServiceLevel of m1 went from %d to 255: Authoritative.", level)})

	g.apply(&logv1.Command{RequestId: "b", Body: &logv1.Command_BeginLease{BeginLease: &logv1.BeginLease{Server: "m1"}}})
	begun := told{Type: "types/ApplyBegunEventType", Source: "m1", Severity: severityNotice, Generation: uint64(1), Outcome: "", Message: "m1 began to apply generation 1."}
	expectEvents(t, all, begun)
	g.apply(&logv1.Command{RequestId: "e", Body: &logv1.Command_EndLease{EndLease: &logv1.EndLease{Server: "m1", Outcome: "disk full"}}})
	ended := told{Type: "types/ApplyEndedEventType", Source: "m1", Severity: severityFailure, Generation: uint64(1), Outcome: "disk full", Message: `m1 ended the apply of generation 1: "disk full".`}
	expectEvents(t, all, ended)
	expectEvents(t, applies, begun, ended)

	// A role counts once the server adopted it; a server that it never had, or leaves, counts at once.
	g.publish("WARM", serverNamed("m1", redundancy.Backup), serverNamed("m2", redundancy.Primary))
	g.adopt("m1", 2)
	expectEvents(t, all, told{Type: "types/RoleChangedEventType", Source: "m1", Severity: severityNotice, Role: "Backup", Previous: "Primary",
		Message: "The role of m1 went from Primary to Backup."})
	g.publish("WARM", serverNamed("m2", redundancy.Primary))
	expectEvents(t, all, told{Type: "types/RoleChangedEventType", Source: "m1", Severity: severityNotice, Role: "", Previous: "Backup", Message: "m1 left the topology."})
}

// TestLeasesBetweenTwoLooks has more happen than one look sees as it happens.
func TestLeasesBetweenTwoLooks(t *testing.T) {
	g := newGroup(t, "m1", "m2")
	g.publish("WARM", serverNamed("m1", redundancy.Primary), serverNamed("m2", redundancy.Backup))
	var s seen
	g.apply(&logv1.Command{RequestId: "b0", Body: &logv1.Command_BeginLease{BeginLease: &logv1.BeginLease{Server: "m2"}}})
	if n := len(s.look(g.Local().State)); n != 0 {
		t.Fatalf("%d news at the first look", n)
	}
	for _, c := range []*logv1.Command{
		{RequestId: "e0", Body: &logv1.Command_EndLease{EndLease: &logv1.EndLease{Server: "m2", Outcome: "ok"}}},
		{RequestId: "b1", Body: &logv1.Command_BeginLease{BeginLease: &logv1.BeginLease{Server: "m1"}}},
		{RequestId: "e1", Body: &logv1.Command_EndLease{EndLease: &logv1.EndLease{Server: "m1", Outcome: "ok"}}},
	} {
		g.apply(c)
	}
	list := s.look(g.Local().State)
	if len(list) != 3 || !slices.IsSortedFunc(list, func(a, b news) int { return int(a.at - b.at) }) {
		t.Fatalf("%d news, want a beginning and two ends in their order", len(list))
	}
	if n := len(s.look(g.Local().State)); n != 0 {
		t.Fatalf("%d news of nothing", n)
	}
	// The first publish of all: every server is new.
	s = seen{}
	s.look(fsm.New())
	if n := len(s.look(g.Local().State)); n != 6 {
		t.Fatalf("%d news, want two beginnings, two ends and two servers", n)
	}
}

// TestWatchdogIsNews has the watchdog close an apply: seen as it happens, and between two looks.
func TestWatchdogIsNews(t *testing.T) {
	g := newGroup(t, "m1", "m2")
	g.publish("WARM", serverNamed("m1", redundancy.Primary), serverNamed("m2", redundancy.Backup))
	begin := func(id, member string) {
		g.apply(&logv1.Command{RequestId: id, Body: &logv1.Command_BeginLease{BeginLease: &logv1.BeginLease{Server: member}}})
	}
	var s seen
	s.look(g.Local().State)
	begin("b1", "m1")
	if n := len(s.look(g.Local().State)); n != 1 {
		t.Fatalf("%d news of a beginning", n)
	}
	g.pass(fsm.ApplyMaxDuration - time.Second)
	if n := len(s.look(g.Local().State)); n != 0 {
		t.Fatalf("%d news before the deadline", n)
	}
	g.pass(time.Second)
	if list := s.look(g.Local().State); len(list) != 1 {
		t.Fatalf("%d news of the watchdog, want one", len(list))
	}
	begin("b2", "m2")
	g.pass(fsm.ApplyMaxDuration)
	if list := s.look(g.Local().State); len(list) != 2 || list[1].at-list[0].at < fsm.ApplyMaxDuration {
		t.Fatalf("%d news, want a beginning and an end in their order", len(list))
	}
	if n := len(s.look(g.Local().State)); n != 0 {
		t.Fatalf("%d news of nothing", n)
	}
}

func TestAbandonedApplyIsTold(t *testing.T) {
	g := newGroup(t, "m1", "m2")
	g.publish("WARM", serverNamed("m1", redundancy.Primary), serverNamed("m2", redundancy.Backup))
	f := &fitness{}
	f.move(healthyPrimary)
	_, cfg := serve(t, listen(t), "m1", g, f)
	everything := listenTo(t, cfg.Endpoint)
	abandoned := listenTo(t, cfg.Endpoint, ofType(applyAbandoned))
	g.apply(&logv1.Command{RequestId: "b", Body: &logv1.Command_BeginLease{BeginLease: &logv1.BeginLease{Server: "m2"}}})
	expectEvents(t, everything, told{Type: "types/ApplyBegunEventType", Source: "m2", Severity: severityNotice, Generation: uint64(1), Outcome: "", Message: "m2 began to apply generation 1."})
	g.pass(fsm.ApplyMaxDuration)
	want := told{Type: "types/ApplyAbandonedEventType", Source: "m2", Severity: severityFailure, Generation: uint64(1), Outcome: "", Message: "The watchdog closed the apply of generation 1 by m2."}
	expectEvents(t, everything, want)
	expectEvents(t, abandoned, want)
}
