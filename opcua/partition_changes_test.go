package opcua

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	gopcua "github.com/gopcua/opcua"
	"github.com/gopcua/opcua/ua"
)

// change is what a subscriber is told.
type change struct {
	Node  string
	Value any // the status, if it is not good
}

// subscription has monitored items of a third-party client, that have all had their first values.
type subscription struct {
	t       testing.TB
	changes chan change
}

// subscribe monitors nodes, reported by exception with a queue of ten values.
func subscribe(t testing.TB, c *gopcua.Client, nodes ...string) *subscription {
	t.Helper()
	notes := make(chan *gopcua.PublishNotificationData, 100)
	sub, err := c.Subscribe(within(t), &gopcua.SubscriptionParameters{Interval: 50 * time.Millisecond}, notes)
	if err != nil {
		t.Fatal(err)
	}
	var items []*ua.MonitoredItemCreateRequest
	for i, n := range nodes {
		nodeID, err := ua.ParseNodeID(n)
		if err != nil {
			t.Fatal(err)
		}
		item := gopcua.NewMonitoredItemCreateRequestWithDefaults(nodeID, ua.AttributeIDValue, uint32(i))
		item.RequestedParameters.QueueSize, item.RequestedParameters.SamplingInterval = 10, 250
		items = append(items, item)
	}
	res, err := sub.Monitor(within(t), ua.TimestampsToReturnBoth, items...)
	if err != nil {
		t.Fatal(err)
	}
	s := &subscription{t, make(chan change, 1000)}
	hear(t, sub, notes, func(list *ua.DataChangeNotification) {
		for _, item := range list.MonitoredItems {
			v := change{Node: nodes[item.ClientHandle]}
			if r := ReadingOf("", item.Value); r.Status != "Good" {
				v.Value = r.Status
			} else {
				v.Value = r.Value
			}
			s.changes <- v
		}
	})
	for i, r := range res.Results {
		if r.StatusCode != ua.StatusOK || r.RevisedSamplingInterval != 0 {
			t.Fatalf("%s: %v, sampled each %v ms: it is pushed, and not polled", nodes[i], r.StatusCode, r.RevisedSamplingInterval)
		}
	}
	return s
}

// expect takes the next changes: these and no others, in the order of their nodes.
func (s *subscription) expect(want ...change) {
	s.t.Helper()
	var got []change
	deadline := within(s.t)
	for range want {
		select {
		case c := <-s.changes:
			got = append(got, c)
		case <-deadline.Done():
			s.t.Fatalf("only %v came, want %v", got, want)
		}
	}
	byNode := func(a, b change) int { return strings.Compare(a.Node, b.Node) }
	slices.SortStableFunc(got, byNode)
	slices.SortStableFunc(want, byNode)
	if diff := cmp.Diff(want, got); diff != "" {
		s.t.Errorf("changes (-want +got):\n%s", diff)
	}
}

func TestPartitionsArePushed(t *testing.T) {
	g := newGroup(t, "m1")
	g.ask(createPartitions("nas-1", "p-1", "p-2"))
	_, cfg := serve(t, listen(t), "m1", g, &fitness{})
	c := connect(t, cfg.Endpoint)
	const (
		placement = "ns=2;s=partitions/p-1/Placement"
		write     = "ns=2;s=partitions/p-1/WritePlacement"
		phase     = "ns=2;s=partitions/p-1/Phase"
		epoch     = "ns=2;s=partitions/p-1/Epoch"
		left      = "ns=2;s=partitions/p-1/BarrierLeft"
		copied    = "ns=2;s=partitions/p-1/CopyProgress"
		other     = "ns=2;s=partitions/p-2/Epoch"
		migrating = "ns=2;s=partitions/MigratingCount"
	)
	s := subscribe(t, c, placement, write, phase, epoch, left, copied, other, migrating)
	s.expect(change{placement, "nas-1"}, change{write, "nas-1"}, change{phase, "Active"}, change{epoch, uint64(1)}, change{left, nil}, change{copied, nil},
		change{other, uint64(1)}, change{migrating, uint32(0)})
	g.ask(beginMigration("p-1", "nas-2"))
	s.expect(change{phase, "Draining"}, change{epoch, uint64(2)}, change{migrating, uint32(1)})
	g.ask(reportMigration("p-1", 1, 2))
	s.expect(change{copied, 50.0})
	g.ask(cutoverMigration("p-1"))
	s.expect(change{write, ""}, change{phase, "Cutover"}, change{epoch, uint64(3)}, change{left, 30_000.0})
	g.pass(0) // The barrier begins, with the whole of it left as before.
	// What is left of the barrier follows cluster time, though nothing else tells of it.
	for i := range 4 {
		g.pass(5 * time.Second)
		s.expectBarrier(left, 25_000-5_000*float64(i))
	}
	g.pass(time.Minute)
	s.expectBarrier(left, 0)
	g.ask(abortMigration("p-1"))
	s.expect(change{write, "nas-1"}, change{phase, "Active"}, change{epoch, uint64(4)}, change{left, nil}, change{copied, nil}, change{migrating, uint32(0)})

	// Deleted while it is watched; and one comes back under its id.
	g.ask(deletePartition("p-1"))
	gone := "BadNodeIdUnknown"
	s.expect(change{placement, gone}, change{write, gone}, change{phase, gone}, change{epoch, gone}, change{left, gone}, change{copied, gone})
	g.ask(createPartitions("nas-3", "p-0", "p-1"))
	s.expect(change{placement, "nas-3"}, change{write, "nas-3"}, change{phase, "Active"}, change{epoch, uint64(5)}, change{left, nil}, change{copied, nil})
	g.ask(setPlacement("p-2", "nas-4"))
	s.expect(change{other, uint64(2)}) // And nothing else has come meanwhile.

	res := monitorOnce(t, c, "ns=2;s=partitions/p-3/Phase", "ns=2;s=partitions/p-3", "ns=2;s=partitions/p-1/phase")
	if diff := cmp.Diff(slices.Repeat([]ua.StatusCode{ua.StatusBadNodeIDUnknown}, 3), res); diff != "" {
		t.Errorf("items of what is not there (-want +got):\n%s", diff)
	}
}

// expectBarrier takes changes until the barrier is at a time, or at most a second before: each command makes a millisecond pass.
func (s *subscription) expectBarrier(node string, want float64) {
	s.t.Helper()
	deadline := within(s.t)
	for {
		select {
		case c := <-s.changes:
			left, ok := c.Value.(float64)
			if c.Node != node || !ok || left < want-1000 || left > 30_000 {
				s.t.Fatalf("%v, want %s on its way to %v", c, node, want)
			}
			if left <= want {
				return
			}
		case <-deadline.Done():
			s.t.Fatalf("the barrier did not come to %v", want)
		}
	}
}

// monitorOnce tries to make items, and returns what became of it.
func monitorOnce(t testing.TB, c *gopcua.Client, nodes ...string) (list []ua.StatusCode) {
	t.Helper()
	sub, err := c.Subscribe(within(t), &gopcua.SubscriptionParameters{Interval: 50 * time.Millisecond}, make(chan *gopcua.PublishNotificationData, 10))
	if err != nil {
		t.Fatal(err)
	}
	for i, n := range nodes {
		nodeID, err := ua.ParseNodeID(n)
		if err != nil {
			t.Fatal(err)
		}
		res, err := sub.Monitor(within(t), ua.TimestampsToReturnBoth, gopcua.NewMonitoredItemCreateRequestWithDefaults(nodeID, ua.AttributeIDValue, uint32(i)))
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, res.Results[0].StatusCode)
	}
	if err := sub.Cancel(within(t)); err != nil {
		t.Error(err)
	}
	return list
}

// Who falls behind the events, or takes over a snapshot, shows what is and says that it told not all of it.
func TestPartitionsAfterLostEvents(t *testing.T) {
	g := newGroup(t, "m1")
	g.ask(createPartitions("nas-1", "p-1", "p-2"))
	_, cfg := serve(t, listen(t), "m1", g, &fitness{})
	events := listenTo(t, cfg.Endpoint)
	const placement, epoch = "ns=2;s=partitions/p-1/Placement", "ns=2;s=partitions/p-2/Epoch"
	s := subscribe(t, connect(t, cfg.Endpoint), placement, epoch)
	s.expect(change{placement, "nas-1"}, change{epoch, uint64(1)})
	g.compact(asRequest(setPlacement("p-1", "nas-2"), "x"), asRequest(setPlacement("p-1", "nas-3"), "y"), asRequest(deletePartition("p-2"), "z"))
	revision := g.Local().State.Revision()
	s.expect(change{placement, "nas-3"}, change{epoch, "BadNodeIdUnknown"})
	expectEvents(t, events, told{
		Type: "types/PartitionsMissedEventType", Source: "Partitions", Severity: severityFailure, Phase: "", Epoch: uint64(0),
		Message: fmt.Sprintf("Not all transitions of partitions up to revision %d were told: read what they are.", revision),
	})
	// And goes on.
	g.ask(setPlacement("p-1", "nas-4"))
	s.expect(change{placement, "nas-4"})
	expectEvents(t, events, told{
		Type: "types/PlacementSetEventType", Source: "p-1", Severity: severityNotice, Phase: "Active", Epoch: uint64(4),
		Message: "The placement of partition p-1 went from nas-3 to nas-4.",
	})
}
