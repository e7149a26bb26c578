package opcua

import (
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	gopcua "github.com/gopcua/opcua"
	"github.com/gopcua/opcua/id"
	"github.com/gopcua/opcua/ua"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	logv1 "quorate/proto/quorate/log/v1"
	quoratev1 "quorate/proto/quorate/v1"
)

// TestEventsOfPartitions takes a partition through all transitions. What is no transition is no event.
func TestEventsOfPartitions(t *testing.T) {
	g := newGroup(t, "m1")
	_, cfg := serve(t, listen(t), "m1", g, &fitness{})
	all, aborted := listenTo(t, cfg.Endpoint, ofType(partitionMoved)), listenTo(t, cfg.Endpoint, ofType(migrationAborted))
	expect := func(name string, severity uint16, phase string, epoch uint64, message string) {
		t.Helper()
		expectEvents(t, all, told{Type: "types/" + name + "EventType", Source: "p-1", Severity: severity, Phase: phase, Epoch: epoch, Message: message})
	}
	g.ask(createPartitions("nas-1", "p-1"))
	expect("PartitionsCreated", severityNotice, "Active", 1, "Partition p-1 was created at placement nas-1.")
	g.ask(setPlacement("p-1", "nas-2"))
	expect("PlacementSet", severityNotice, "Active", 2, "The placement of partition p-1 went from nas-1 to nas-2.")
	g.ask(beginMigration("p-1", "nas-3"), reportMigration("p-1", 1, 2), cutoverMigration("p-1"))
	expect("MigrationBegun", severityNotice, "Draining", 3, "Partition p-1 began to migrate from nas-2 to nas-3.")
	expect("MigrationCutOver", severityWorse, "Cutover", 4, "Partition p-1 is in cutover from nas-2 to nas-3: nobody may write.")
	g.ask(abortMigration("p-1"))
	expect("MigrationAborted", severityNotice, "Active", 5, "The migration of partition p-1 to nas-3 was aborted: it stays at nas-2.")
	g.ask(beginMigration("p-1", "nas-3"), cutoverMigration("p-1"))
	expect("MigrationBegun", severityNotice, "Draining", 6, "Partition p-1 began to migrate from nas-2 to nas-3.")
	expect("MigrationCutOver", severityWorse, "Cutover", 7, "Partition p-1 is in cutover from nas-2 to nas-3: nobody may write.")
	g.pass(0)
	g.pass(time.Minute)
	expect("BarrierPassed", severityNormal, "Cutover", 7, "The drain barrier of partition p-1 has passed: its migration to nas-3 may be completed.")
	g.ask(completeMigration("p-1"))
	expect("MigrationCompleted", severityNormal, "Active", 8, "Partition p-1 has migrated from nas-2 to nas-3.")
	g.ask(deletePartition("p-1"))
	expect("PartitionDeleted", severityNotice, "", 8, "Partition p-1 was deleted; it was at nas-3.")

	// A thousand at once are one event.
	g.ask(createPartitions("nas-1", named("q-", 1000)...), setPlacement("q-0000999", "nas-2"))
	expectEvents(t, all,
		told{Type: "types/PartitionsCreatedEventType", Source: "Partitions", Severity: severityNotice, Phase: "Active", Epoch: uint64(9),
			Message: "1000 partitions were created at placement nas-1: q-0000000 and 999 more."},
		told{Type: "types/PlacementSetEventType", Source: "q-0000999", Severity: severityNotice, Phase: "Active", Epoch: uint64(10),
			Message: "The placement of partition q-0000999 went from nas-1 to nas-2."})
	expectEvents(t, aborted, told{Type: "types/MigrationAbortedEventType", Source: "p-1", Severity: severityNotice, Phase: "Active", Epoch: uint64(5),
		Message: "The migration of partition p-1 to nas-3 was aborted: it stays at nas-2."})
}

// TestFieldsOfPartitionEvents selects what an event has beside its message.
func TestFieldsOfPartitionEvents(t *testing.T) {
	g := newGroup(t, "m1")
	_, cfg := serve(t, listen(t), "m1", g, &fitness{})
	notes := make(chan *gopcua.PublishNotificationData, 100)
	sub, err := connect(t, cfg.Endpoint).Subscribe(within(t), &gopcua.SubscriptionParameters{Interval: 50 * time.Millisecond}, notes)
	if err != nil {
		t.Fatal(err)
	}
	var filter ua.EventFilter
	filter.WhereClause = &ua.ContentFilter{}
	for _, name := range []ua.QualifiedName{
		{Name: "SourceNode"}, {Name: "Time"}, stateName("Partition"), stateName("Placement"), stateName("MigratingTo"), stateName("Note"), stateName("Count"), stateName("Early"),
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
	expect := func(want ...any) {
		t.Helper()
		deadline := within(t)
		for {
			select {
			case n := <-notes:
				list, _ := n.Value.(*ua.EventNotificationList)
				if n.Error != nil {
					t.Fatal(n.Error)
				}
				if list == nil {
					continue
				}
				var got []any
				for i, f := range list.Events[0].EventFields {
					if v := f.Value(); i == 0 {
						got = append(got, f.NodeID().String())
					} else {
						got = append(got, v)
					}
				}
				if diff := cmp.Diff(want, got); diff != "" || len(list.Events) != 1 {
					t.Errorf("%d events, fields (-want +got):\n%s", len(list.Events), diff)
				}
				return
			case <-deadline.Done():
				t.Fatal("no event came")
			}
		}
	}
	at := time.Date(2031, 2, 3, 4, 5, 6, 0, time.UTC)
	wall := func(c *logv1.Command) *logv1.Command {
		at = at.Add(time.Second)
		c.WallTime = timestamppb.New(at)
		return c
	}
	settings := &quoratev1.PartitionSettings{EarlyFloor: durationpb.New(0)}
	g.ask(&logv1.Command{Body: &logv1.Command_SetPartitionSettings{SetPartitionSettings: &logv1.SetPartitionSettings{Settings: settings}}})
	c := createPartitions("nas-1", "p-1", "p-2")
	c.GetCreatePartitions().Note = "line 7"
	g.ask(wall(c))
	expect("ns=2;s=partitions", at, "", "nas-1", "", "line 7", uint32(2), nil)
	c = beginMigration("p-1", "nas-2")
	c.GetBeginMigration().EarlyCompletion = true
	g.ask(wall(c))
	expect("ns=2;s=partitions/p-1", at, "p-1", "nas-1", "nas-2", "new disks", nil, nil)
	g.ask(wall(cutoverMigration("p-1")))
	expect("ns=2;s=partitions/p-1", at, "p-1", "nas-1", "nas-2", "", nil, nil)
	g.pass(0)
	c = completeMigration("p-1")
	c.GetCompleteMigration().Drained = true
	g.ask(wall(c))
	expect("ns=2;s=partitions/p-1", at, "p-1", "nas-2", "", "", nil, true)
}

// Every kind of transition is told of, or is known not to be.
func TestAllTransitionsAreKnown(t *testing.T) {
	silent := map[quoratev1.PartitionTransition]bool{
		quoratev1.PartitionTransition_PARTITION_TRANSITION_UNSPECIFIED: true, quoratev1.PartitionTransition_PARTITION_TRANSITION_REPORT: true,
		quoratev1.PartitionTransition_PARTITION_TRANSITION_BARRIER_BEGUN: true,
	}
	g := newGroup(t, "m1")
	e, cfg := serve(t, listen(t), "m1", g, &fitness{})
	events := listenTo(t, cfg.Endpoint)
	for number := range int32(len(quoratev1.PartitionTransition_name)) {
		transition := quoratev1.PartitionTransition(number)
		e.partitionChanged(&quoratev1.Event{}, &quoratev1.PartitionChange{Transition: transition, Partition: &quoratev1.Partition{Id: fmt.Sprint("t-", number)}})
		if silent[transition] {
			continue
		}
		select {
		case got := <-events:
			if got.Source != fmt.Sprint("t-", number) {
				t.Errorf("%v: %+v", transition, got)
			}
		case <-within(t).Done():
			t.Fatalf("%v is not told of", transition)
		}
	}
}
