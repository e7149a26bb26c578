package opcua

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	gopcua "github.com/gopcua/opcua"
	"github.com/gopcua/opcua/id"
	"github.com/gopcua/opcua/ua"
	"google.golang.org/protobuf/types/known/durationpb"

	"quorate/fsm"
	"quorate/node"
	"quorate/opcua/space"
	logv1 "quorate/proto/quorate/log/v1"
	quoratev1 "quorate/proto/quorate/v1"
)

// The commands of partitions, as the gRPC service would propose them.

func createPartitions(placement string, ids ...string) *logv1.Command {
	return &logv1.Command{Body: &logv1.Command_CreatePartitions{CreatePartitions: &logv1.CreatePartitions{Ids: ids, Placement: placement}}}
}

func setPlacement(partition, placement string) *logv1.Command {
	return &logv1.Command{Body: &logv1.Command_SetPlacement{SetPlacement: &logv1.SetPlacement{Partition: partition, Placement: placement}}}
}

func deletePartition(partition string) *logv1.Command {
	return &logv1.Command{Body: &logv1.Command_DeletePartition{DeletePartition: &logv1.DeletePartition{Partition: partition}}}
}

func beginMigration(partition, to string) *logv1.Command {
	return &logv1.Command{Body: &logv1.Command_BeginMigration{BeginMigration: &logv1.BeginMigration{Partition: partition, To: to, Note: "new disks"}}}
}

func reportMigration(partition string, done, total uint64) *logv1.Command {
	return &logv1.Command{Body: &logv1.Command_ReportMigration{ReportMigration: &logv1.ReportMigration{
		Partition: partition, Copy: &quoratev1.CopyProgress{Done: done, Total: total},
	}}}
}

func cutoverMigration(partition string) *logv1.Command {
	return &logv1.Command{Body: &logv1.Command_CutoverMigration{CutoverMigration: &logv1.CutoverMigration{Partition: partition}}}
}

func completeMigration(partition string) *logv1.Command {
	return &logv1.Command{Body: &logv1.Command_CompleteMigration{CompleteMigration: &logv1.CompleteMigration{Partition: partition}}}
}

func abortMigration(partition string) *logv1.Command {
	return &logv1.Command{Body: &logv1.Command_AbortMigration{AbortMigration: &logv1.AbortMigration{Partition: partition}}}
}

// ask applies commands of clients, each as a new request.
func (g *group) ask(commands ...*logv1.Command) {
	g.t.Helper()
	for _, c := range commands {
		g.mu.Lock()
		c.RequestId = fmt.Sprint("request-", g.index)
		g.mu.Unlock()
		c.Actor = &quoratev1.Actor{Name: "ada", Role: "operator"}
		g.apply(c)
	}
}

// named gives count ids.
func named(prefix string, count int) (ids []string) {
	for i := range count {
		ids = append(ids, fmt.Sprintf("%s%07d", prefix, i))
	}
	return ids
}

// pages browses a node forwards and returns what is below it, with the number of pages.
func pages(t testing.TB, c *gopcua.Client, k space.Key, most uint32) (names []string, count int) {
	t.Helper()
	r, err := c.Browse(within(t), &ua.BrowseRequest{
		RequestedMaxReferencesPerNode: most,
		NodesToBrowse: []*ua.BrowseDescription{{
			NodeID: k.NodeID(), ReferenceTypeID: ua.NewNumericNodeID(0, id.HierarchicalReferences), IncludeSubtypes: true, ResultMask: uint32(ua.BrowseResultMaskAll),
		}},
	})
	if err != nil {
		t.Fatal(err)
	}
	page := r.Results[0]
	for {
		count++
		if page.StatusCode != ua.StatusOK || most > 0 && len(page.References) > int(most) {
			t.Fatalf("page %d: %v, %d references", count, page.StatusCode, len(page.References))
		}
		for _, ref := range page.References {
			names = append(names, ref.NodeID.NodeID.String())
		}
		if len(page.ContinuationPoint) == 0 {
			return names, count
		}
		next, err := c.BrowseNext(within(t), &ua.BrowseNextRequest{ContinuationPoints: [][]byte{page.ContinuationPoint}})
		if err != nil {
			t.Fatal(err)
		}
		page = next.Results[0]
	}
}

func TestPartitionsAreBrowsedByPages(t *testing.T) {
	g := newGroup(t, "m1", "m2", "m3")
	all := named("p-", 2500)
	g.ask(createPartitions("nas-1", all[:1000]...), createPartitions("nas-2", all[1000:2000]...), createPartitions("nas-1", all[2000:]...))
	g.ask(beginMigration("p-0000003", "nas-9"), beginMigration("p-0002400", "nas-9"))
	want := []string{"ns=2;s=partitions/PartitionCount", "ns=2;s=partitions/MigratingCount"}
	for _, id := range all {
		want = append(want, "ns=2;s=partitions/"+id)
	}
	for _, member := range []string{"m1", "m2", "m3"} { // The same on all.
		_, cfg := serve(t, listen(t), member, g, &fitness{})
		c := connect(t, cfg.Endpoint)
		for most, number := range map[uint32]int{0: 3, 1000: 3, 999: 3, 250: 11, 1 << 31: 3} {
			got, n := pages(t, c, partitionsKey, most)
			if diff := cmp.Diff(want, got); diff != "" || n != number {
				t.Errorf("%s, pages of %d: %d pages, want %d (-want +got):\n%s", member, most, n, number, diff)
			}
		}
		got, _ := pages(t, c, migrationsKey, 0)
		if diff := cmp.Diff([]string{"ns=2;s=partitions/p-0000003", "ns=2;s=partitions/p-0002400"}, got); diff != "" {
			t.Errorf("%s, migrations (-want +got):\n%s", member, diff)
		}
		if got, _ = pages(t, c, quorateKey, 0); !slices.Contains(got, "ns=2;s=partitions") || !slices.Contains(got, "ns=2;s=migrations") {
			t.Errorf("%s: the folders are not among %q", member, got)
		}
		got, _ = pages(t, c, partitionSource("p-0002400").key, 3)
		var variables []string
		for _, name := range []string{"Placement", "WritePlacement", "Phase", "Epoch", "Revision", "MigratingTo", "BarrierLeft", "CopyProgress"} {
			variables = append(variables, "ns=2;s=partitions/p-0002400/"+name)
		}
		if diff := cmp.Diff(variables, got); diff != "" {
			t.Errorf("%s, a partition (-want +got):\n%s", member, diff)
		}
		objects := c.Node(ua.NewNumericNodeID(0, id.ObjectsFolder))
		for path, want := range map[string]any{
			"Quorate.Partitions.p-0002499.Phase":         "ns=2;s=partitions/p-0002499/Phase",
			"Quorate.Migrations.p-0000003.MigratingTo":   "ns=2;s=partitions/p-0000003/MigratingTo",
			"Quorate.Partitions.PartitionCount":          "ns=2;s=partitions/PartitionCount",
			"Quorate.Partitions.p-0002500":               ua.StatusBadNoMatch,
			"Quorate.Migrations.p-0000004":               ua.StatusBadNoMatch,
			"Quorate.Partitions.p-0002499.Phase.p-00000": ua.StatusBadNoMatch,
		} {
			target, err := objects.TranslateBrowsePathInNamespaceToNodeID(within(t), stateIndex, path)
			var got any = err
			if err == nil {
				got = target.String()
			}
			if got != want {
				t.Errorf("%s: %s leads to %v, %v, want %v", member, path, target, err, want)
			}
		}
	}
}

// partitionNodes are the NodeIds of all variables of a partition.
func partitionNodes(id string) (list []string) {
	for _, v := range partitionVariables {
		list = append(list, "ns=2;s=partitions/"+id+"/"+v.name)
	}
	return list
}

func TestPartitionValues(t *testing.T) {
	g := newGroup(t, "m1")
	_, cfg := serve(t, listen(t), "m1", g, &fitness{})
	counts := []string{"ns=2;s=partitions/PartitionCount", "ns=2;s=partitions/MigratingCount"}
	nodes := append(partitionNodes("p-1"), counts...)
	expect := func(want ...any) {
		t.Helper()
		expectValues(t, cfg, want, nodes...)
	}
	unknown := slices.Repeat([]any{"BadNodeIdUnknown"}, 8)
	expect(append(slices.Clone(unknown), uint32(0), uint32(0))...)
	g.ask(createPartitions("nas-1", "p-1", "p-2"))
	revision := g.Local().State.Revision()
	expect("nas-1", "nas-1", "Active", uint64(1), revision, "", nil, nil, uint32(2), uint32(0))
	g.ask(beginMigration("p-1", "nas-2"))
	revision++
	expect("nas-1", "nas-1", "Draining", uint64(2), revision, "nas-2", nil, nil, uint32(2), uint32(1))
	g.ask(reportMigration("p-1", 5, 0)) // Of a total that is not known.
	expect("nas-1", "nas-1", "Draining", uint64(2), revision, "nas-2", nil, nil, uint32(2), uint32(1))
	g.ask(reportMigration("p-1", 1, 8))
	expect("nas-1", "nas-1", "Draining", uint64(2), revision, "nas-2", nil, 12.5, uint32(2), uint32(1))
	g.ask(cutoverMigration("p-1"))
	revision = g.Local().State.Revision()
	expect("nas-1", "", "Cutover", uint64(3), revision, "nas-2", 30_000.0, 12.5, uint32(2), uint32(1))
	g.pass(0)
	g.pass(20 * time.Second)
	expect("nas-1", "", "Cutover", uint64(3), revision, "nas-2", 9_999.0, 12.5, uint32(2), uint32(1))
	g.pass(time.Minute)
	expect("nas-1", "", "Cutover", uint64(3), revision, "nas-2", 0.0, 12.5, uint32(2), uint32(1))
	g.ask(completeMigration("p-1"))
	revision = g.Local().State.Revision()
	expect("nas-2", "nas-2", "Active", uint64(4), revision, "", nil, nil, uint32(2), uint32(0))
	g.ask(deletePartition("p-1"))
	expect(append(slices.Clone(unknown), uint32(1), uint32(0))...)

	// What is not there, however much it looks like it.
	expectValues(t, cfg, slices.Repeat([]any{"BadNodeIdUnknown"}, 6), "ns=2;s=partitions/p-2/phase", "ns=2;s=partitions/p-2/Phase/", "ns=2;s=partitions//Phase",
		"ns=2;s=partitions/p-3", "ns=1;s=partitions/p-2/Phase", "ns=2;s=migrations/p-2/Phase")
	c := connect(t, cfg.Endpoint)
	n := c.Node(partitionSource("p-2").key.NodeID())
	class, err := n.NodeClass(within(t))
	if err != nil || class != ua.NodeClassObject {
		t.Errorf("%v, %v", class, err)
	}
	w, err := c.Write(within(t), &ua.WriteRequest{NodesToWrite: []*ua.WriteValue{{
		NodeID: ua.NewStringNodeID(stateIndex, "partitions/p-2/Placement"), AttributeID: ua.AttributeIDValue,
		Value: &ua.DataValue{EncodingMask: ua.DataValueValue, Value: ua.MustVariant("nas-3")},
	}}})
	if err != nil || w.Results[0] != ua.StatusBadNotWritable {
		t.Errorf("a write: %v, %v", w, err)
	}
}

// restless is a group that moves a partition on whenever somebody looks.
type restless struct{ *group }

func (r restless) Local() node.View {
	v := r.group.Local()
	r.ask(setPlacement("p-1", fmt.Sprint("nas-", v.State.Revision())))
	return v
}

// What is read together belongs together: else a client could be told of a new owner under an old epoch.
func TestValuesOfOneReadAreOfOneState(t *testing.T) {
	g := newGroup(t, "m1")
	g.ask(createPartitions("nas-1", "p-1"))
	_, cfg := serve(t, listen(t), "m1", restless{g}, &fitness{})
	got := values(t, cfg, append(partitionNodes("p-1"), partitionNodes("p-1")...)...)
	if diff := cmp.Diff(got[:8], got[8:]); diff != "" {
		t.Errorf("read at two moments:\n%s", diff)
	}
	epoch, revision := got[3].(uint64), got[4].(uint64)
	if later := values(t, cfg, partitionNodes("p-1")...); later[3].(uint64) <= epoch || later[4].(uint64) <= revision {
		t.Errorf("epoch %v and revision %v, then %v and %v: nothing moved", epoch, revision, later[3], later[4])
	}
}

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
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			select {
			case n := <-notes:
				list, _ := n.Value.(*ua.DataChangeNotification)
				if list == nil {
					continue
				}
				for _, item := range list.MonitoredItems {
					v := change{Node: nodes[item.ClientHandle]}
					if r := ReadingOf("", item.Value); r.Status != "Good" {
						v.Value = r.Status
					} else {
						v.Value = r.Value
					}
					s.changes <- v
				}
			case <-ctx.Done():
				return
			}
		}
	}()
	t.Cleanup(func() {
		closing, end := context.WithTimeout(context.Background(), 5*time.Second)
		defer end()
		_ = sub.Cancel(closing)
		cancel()
		<-done
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

func asRequest(c *logv1.Command, request string) *logv1.Command {
	c.RequestId = request
	return c
}

// TestMigrationOfARealMember takes a partition through a migration in a group with a real log, under the eyes of a client.
func TestMigrationOfARealMember(t *testing.T) {
	n := startNode(t)
	propose := func(c *logv1.Command) {
		t.Helper()
		c.RequestId, c.Actor = fmt.Sprint("request-", n.Local().State.Revision()), &quoratev1.Actor{Name: "ada", Role: "administrator"}
		outcome, err := n.Propose(within(t), c)
		if err != nil || outcome.GetRefusal() != nil {
			t.Fatalf("propose %T: %v, %v", c.GetBody(), err, outcome.GetRefusal())
		}
	}
	propose(&logv1.Command{Body: &logv1.Command_SetPartitionSettings{SetPartitionSettings: &logv1.SetPartitionSettings{Settings: &quoratev1.PartitionSettings{
		DrainBarrier: durationpb.New(300 * time.Millisecond), MinDrainBarrier: durationpb.New(300 * time.Millisecond),
	}}}})
	all := named("p-", 3000)
	for i := 0; i < len(all); i += 1000 {
		propose(createPartitions("nas-1", all[i:i+1000]...))
	}
	_, cfg := serve(t, listen(t), "m1", GroupOf(n), &fitness{})
	c := connect(t, cfg.Endpoint)
	if names, count := pages(t, c, partitionsKey, 500); len(names) != len(all)+2 || count != 7 {
		t.Errorf("%d references on %d pages", len(names), count)
	}
	const placement, phase = "ns=2;s=partitions/p-0001234/Placement", "ns=2;s=partitions/p-0001234/Phase"
	s := subscribe(t, c, placement, phase)
	s.expect(change{placement, "nas-1"}, change{phase, "Active"})
	events := listenTo(t, cfg.Endpoint, ofType(barrierPassed))
	propose(beginMigration("p-0001234", "nas-2"))
	s.expect(change{phase, "Draining"})
	if names, _ := pages(t, c, migrationsKey, 0); !slices.Equal(names, []string{"ns=2;s=partitions/p-0001234"}) {
		t.Errorf("migrations %q", names)
	}
	propose(cutoverMigration("p-0001234"))
	s.expect(change{phase, "Cutover"})
	expectEvents(t, events, told{Type: "types/BarrierPassedEventType", Source: "p-0001234", Severity: severityNormal, Phase: "Cutover", Epoch: uint64(3),
		Message: "The drain barrier of partition p-0001234 has passed: its migration to nas-2 may be completed."})
	expectValues(t, cfg, []any{0.0}, "ns=2;s=partitions/p-0001234/BarrierLeft")
	propose(completeMigration("p-0001234"))
	s.expect(change{phase, "Active"}, change{placement, "nas-2"})
	propose(deletePartition("p-0001234"))
	s.expect(change{phase, "BadNodeIdUnknown"}, change{placement, "BadNodeIdUnknown"})
}

// startNode runs a group of one real member, which leads when it returns.
func startNode(t testing.TB) *node.Node {
	t.Helper()
	transport, err := node.Listen("127.0.0.1:0", "", nil, quiet)
	if err != nil {
		t.Fatal(err)
	}
	n, err := node.Open(node.Config{
		ID: "m1", DataDir: t.TempDir(), Bootstrap: []node.BootstrapMember{{ID: "m1", RaftAddress: transport.Advertised()}}, Transport: transport, Logger: quiet,
		Announce:  &logv1.AnnounceMember{GrpcAddress: "127.0.0.1:1", Version: "test", CommandVersion: fsm.CommandVersion},
		FreeSpace: func() (uint64, error) { return 1 << 40, nil },
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		if err := n.Shutdown(ctx); err != nil {
			t.Errorf("shutdown: %v", err)
		}
	})
	ready := within(t)
	for {
		changed := n.Changed()
		if member, _ := n.Local().State.Member("m1"); member.GetCommandVersion() == fsm.CommandVersion {
			return n
		}
		select {
		case <-changed:
		case <-ready.Done():
			t.Fatal("the member has not announced itself")
		}
	}
}

// deaf is a group whose events can't be had, or end.
type deaf struct {
	*group
	watch  error // of Watch, where it is not nil
	closed chan struct{}
}

func (d deaf) Watch(uint64) (EventStream, error) {
	if d.watch != nil {
		return nil, d.watch
	}
	return d, nil
}

func (d deaf) Next(context.Context) ([]*quoratev1.Event, uint64, error) {
	return nil, 0, &node.Error{Op: "watch", Kind: node.Diverged}
}

func (d deaf) Close() { close(d.closed) }

func TestEventsThatCannotBeHad(t *testing.T) {
	g := newGroup(t, "m1")
	shutdown := &node.Error{Op: "watch", Kind: node.Shutdown}
	e, err := New(Config{
		Member: "m1", ApplicationURI: uriOf("m1"), Group: deaf{group: g, watch: shutdown}, Redundancy: &fitness{}, AllowNone: true, AllowAnonymous: true,
		Certificate: certificateOf(t, uriOf("m1")).give, Logger: quiet,
	})
	if e != nil || !errors.Is(err, shutdown) {
		t.Errorf("%v, %v", e, err)
	}
	// A member that has diverged gives no events any more. What it has can be read.
	g.ask(createPartitions("nas-1", "p-1"))
	d := deaf{group: g, closed: make(chan struct{})}
	_, cfg := serve(t, listen(t), "m1", d, &fitness{})
	<-d.closed
	expectValues(t, cfg, []any{"nas-1"}, "ns=2;s=partitions/p-1/Placement")
}
