package opcua

import (
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	gopcua "github.com/gopcua/opcua"
	"github.com/gopcua/opcua/id"
	"github.com/gopcua/opcua/ua"

	"quorate/node"
	"quorate/opcua/space"
	logv1 "quorate/proto/quorate/log/v1"
	quoratev1 "quorate/proto/quorate/v1"
)

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

// restless is a group that moves a partition on whenever somebody looks: one at a time, since the server looks from several goroutines,
// and two that saw the same revision would move it to the same place.
type restless struct {
	*group
	looks sync.Mutex
}

func (r *restless) Local() node.View {
	r.looks.Lock()
	defer r.looks.Unlock()
	v := r.group.Local()
	r.ask(setPlacement("p-1", fmt.Sprint("nas-", v.State.Revision())))
	return v
}

// What is read together belongs together: else a client could be told of a new owner under an old epoch.
func TestValuesOfOneReadAreOfOneState(t *testing.T) {
	g := newGroup(t, "m1")
	g.ask(createPartitions("nas-1", "p-1"))
	_, cfg := serve(t, listen(t), "m1", &restless{group: g}, &fitness{})
	got := values(t, cfg, append(partitionNodes("p-1"), partitionNodes("p-1")...)...)
	if diff := cmp.Diff(got[:8], got[8:]); diff != "" {
		t.Errorf("read at two moments:\n%s", diff)
	}
	epoch, revision := got[3].(uint64), got[4].(uint64)
	if later := values(t, cfg, partitionNodes("p-1")...); later[3].(uint64) <= epoch || later[4].(uint64) <= revision {
		t.Errorf("epoch %v and revision %v, then %v and %v: nothing moved", epoch, revision, later[3], later[4])
	}
}
