package opcua

import (
	"errors"
	"fmt"
	"math"
	"runtime"
	"strings"
	"testing"

	gopcua "github.com/gopcua/opcua"
	"github.com/gopcua/opcua/id"
	"github.com/gopcua/opcua/ua"

	"quorate/fsm"
	"quorate/opcua/server"
	"quorate/opcua/space"
	quoratev1 "quorate/proto/quorate/v1"
)

func folderOf(k space.Key) *ua.BrowseDescription {
	return &ua.BrowseDescription{
		NodeID: k.NodeID(), ReferenceTypeID: ua.NewNumericNodeID(0, id.HierarchicalReferences), IncludeSubtypes: true, ResultMask: uint32(ua.BrowseResultMaskAll),
	}
}

// A client that wants everything at once gets what the limits allow, and takes nothing from others.
func TestGreedyBrowsingStaysWithinLimits(t *testing.T) {
	g := newGroup(t, "m1")
	for i := range 30 {
		g.ask(createPartitions("nas-1", named(fmt.Sprint("p-", i, "-"), fsm.MaxPartitionBatch)...))
	}
	_, cfg := serve(t, listen(t), "m1", g, &fitness{})
	greedy, modest := connect(t, cfg.Endpoint), connect(t, cfg.Endpoint)
	kept := browseOne(t, modest, partitionsKey, 10).ContinuationPoint
	limits := server.DefaultLimits

	// As many references as there can be, of one folder and of as many as a request can name.
	if r := browseOne(t, greedy, partitionsKey, math.MaxUint32); len(r.References) != limits.MaxReferencesPerNode || len(r.ContinuationPoint) == 0 {
		t.Errorf("%d references at once, want %d and a continuation point", len(r.References), limits.MaxReferencesPerNode)
	}
	request := &ua.BrowseRequest{RequestedMaxReferencesPerNode: math.MaxUint32}
	for range limits.MaxOperations {
		request.NodesToBrowse = append(request.NodesToBrowse, folderOf(partitionsKey))
	}
	r, err := greedy.Browse(within(t), request)
	if err != nil {
		t.Fatal(err)
	}
	references, points := 0, [][]byte(nil)
	for i, result := range r.Results {
		switch {
		case len(result.ContinuationPoint) > 0:
			references += len(result.References)
			points = append(points, result.ContinuationPoint)
		case result.StatusCode != ua.StatusBadNoContinuationPoints || len(result.References) > 0:
			t.Errorf("result %d: %v, %d references", i, result.StatusCode, len(result.References))
		}
	}
	if len(points) != limits.MaxContinuationPoints || references > len(points)*limits.MaxReferencesPerNode {
		t.Errorf("%d continuation points, %d references", len(points), references)
	}
	request.NodesToBrowse = append(request.NodesToBrowse, folderOf(partitionsKey))
	if _, err := greedy.Browse(within(t), request); !errors.Is(err, ua.StatusBadTooManyOperations) {
		t.Errorf("one folder too many: %v", err)
	}

	// Points that are opened and left make room for others, the oldest first.
	for range 3 * limits.MaxContinuationPoints {
		points = append(points, browseOne(t, greedy, partitionsKey, 1).ContinuationPoint)
	}
	next, err := greedy.BrowseNext(within(t), &ua.BrowseNextRequest{ContinuationPoints: points})
	if err != nil {
		t.Fatal(err)
	}
	for i, result := range next.Results {
		want := ua.StatusBadContinuationPointInvalid
		if i >= len(points)-limits.MaxContinuationPoints {
			want = ua.StatusOK
		}
		if result.StatusCode != want {
			t.Errorf("point %d of %d: %v, want %v", i, len(points), result.StatusCode, want)
		}
	}

	// Nobody else has lost anything.
	after, err := modest.BrowseNext(within(t), &ua.BrowseNextRequest{ContinuationPoints: [][]byte{kept}})
	if err != nil || after.Results[0].StatusCode != ua.StatusOK || len(after.Results[0].References) != 10 {
		t.Errorf("the other client goes on: %+v, %v", after, err)
	}
}

func browseOne(t testing.TB, c *gopcua.Client, k space.Key, most uint32) *ua.BrowseResult {
	t.Helper()
	r, err := c.Browse(within(t), &ua.BrowseRequest{RequestedMaxReferencesPerNode: most, NodesToBrowse: []*ua.BrowseDescription{folderOf(k)}})
	if err != nil || r.Results[0].StatusCode != ua.StatusOK {
		t.Fatalf("browse %s: %+v, %v", k, r, err)
	}
	return r.Results[0]
}

// FuzzPartitionNode reads, browses and follows whatever NodeIds a client may send. What is there is what the state has, under one NodeId.
func FuzzPartitionNode(f *testing.F) {
	g := newGroup(f, "m1")
	g.ask(createPartitions("nas-1", "p-1", "p-1.a", "0"), beginMigration("p-1", "nas-2"), cutoverMigration("p-1"))
	e, _ := serve(f, listen(f), "m1", g, &fitness{})
	there := map[string]bool{"partitions": true, "partitions/PartitionCount": true, "partitions/MigratingCount": true, "migrations": true}
	for id := range g.Local().State.PartitionIDs("") {
		for _, k := range e.partitions.Keys(id) {
			text, _ := k.Text()
			there[text] = true
		}
	}
	for text := range there {
		f.Add(text, uint8(stateIndex))
	}
	for _, text := range []string{"partitions/", "partitions//", "partitions/p-1/", "partitions/p-1/Phase/", "partitions/p-1/phase", "partitions/P-1", "partitions/p-1\x00", "migrations/p-1", "/"} {
		f.Add(text, uint8(stateIndex))
		f.Add(text, uint8(0))
	}
	f.Fuzz(func(t *testing.T, text string, ns uint8) {
		for _, nodeID := range []*ua.NodeID{ua.NewStringNodeID(uint16(ns), text), ua.NewByteStringNodeID(uint16(ns), []byte(text))} {
			k := space.KeyOf(nodeID)
			var dv ua.DataValue
			e.space.Read(space.ReadContext{Shared: new(any)}, &dv, k, ua.AttributeIDBrowseName, "", nil, ua.TimestampsToReturnNeither)
			known := there[text] && ns == stateIndex && nodeID.Type() == ua.NodeIDTypeString
			mine := strings.HasPrefix(text, "partitions") || strings.HasPrefix(text, "migrations")
			if known && dv.Status != ua.StatusOK || !known && mine && dv.Status != ua.StatusBadNodeIDUnknown {
				t.Errorf("%s is there: %v, and reads %v", k, known, dv.Status)
			}
			page, status := e.space.Browse(&ua.BrowseDescription{NodeID: nodeID, BrowseDirection: ua.BrowseDirectionBoth}, space.Position{}, 0)
			if (status == ua.StatusOK) != (dv.Status == ua.StatusOK) || known && len(page.References) == 0 {
				t.Errorf("%s: %v, %d references, and reads %v", k, status, len(page.References), dv.Status)
			}
			e.space.Read(space.ReadContext{}, &dv, k, ua.AttributeIDValue, "", nil, ua.TimestampsToReturnNeither)
			e.space.Translate(partitionsKey, &ua.RelativePath{Elements: []*ua.RelativePathElement{{
				ReferenceTypeID: ua.NewTwoByteNodeID(0), TargetName: &ua.QualifiedName{NamespaceIndex: uint16(ns), Name: text},
			}}})
		}
	})
}

// million is an endpoint whose state has a million partitions.
func million(b *testing.B) (*Endpoint, *group, ClientConfig) {
	g := newGroup(b, "m1")
	for i := range 1000 {
		g.ask(createPartitions(fmt.Sprint("nas-", i%50), named(fmt.Sprintf("plant-%03d-", i), fsm.MaxPartitionBatch)...))
	}
	g.mu.Lock()
	g.events = nil
	g.mu.Unlock()
	e, cfg := serve(b, listen(b), "m1", g, &fitness{})
	return e, g, cfg
}

// lastPage is where the last page of the folder of all partitions begins.
func lastPage(b *testing.B, e *Endpoint) (at space.Position, pages int) {
	for next, more := (space.Position{}), true; more; pages++ {
		at = next
		page, status := e.space.Browse(folderOf(partitionsKey), at, 0)
		if status != ua.StatusOK {
			b.Fatal(status)
		}
		next, more = page.Next, page.More
	}
	return at, pages
}

// BenchmarkMillionPartitions is what clients do with a million partitions. The first are of the address space alone, without transport.
func BenchmarkMillionPartitions(b *testing.B) {
	e, g, cfg := million(b)
	last, count := lastPage(b, e)
	if count != 1001 {
		b.Fatalf("%d pages", count)
	}
	for name, at := range map[string]space.Position{"FirstPage": {}, "LastPage": last} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if page, status := e.space.Browse(folderOf(partitionsKey), at, 0); status != ua.StatusOK || len(page.References) == 0 {
					b.Fatal(status, len(page.References))
				}
			}
		})
	}
	b.Run("Read", func(b *testing.B) {
		b.ReportAllocs()
		keys := e.partitions.Keys("plant-617-0000233")[1:]
		var dv ua.DataValue
		for i := 0; b.Loop(); i++ {
			if e.space.Read(space.ReadContext{}, &dv, keys[i%len(keys)], ua.AttributeIDValue, "", nil, ua.TimestampsToReturnBoth); dv.Status != ua.StatusOK {
				b.Fatal(dv.Status)
			}
		}
	})
	b.Run("Translate", func(b *testing.B) {
		b.ReportAllocs()
		path := &ua.RelativePath{}
		for _, name := range []string{"Quorate", "Partitions", "plant-999-0000999", "Phase"} {
			target := stateName(name)
			path.Elements = append(path.Elements, &ua.RelativePathElement{ReferenceTypeID: ua.NewNumericNodeID(0, id.HierarchicalReferences), IncludeSubtypes: true, TargetName: &target})
		}
		for b.Loop() {
			if targets, status := e.space.Translate(standard(id.ObjectsFolder), path); status != ua.StatusOK || len(targets) != 1 {
				b.Fatal(status)
			}
		}
	})
	b.Run("PushUnwatched", func(b *testing.B) { // A thousand partitions that a command created.
		b.ReportAllocs()
		ids := named("plant-500-", fsm.MaxPartitionBatch)
		for b.Loop() {
			for _, id := range ids {
				e.partitions.Changed(e.space, id)
			}
		}
	})
	b.Run("Emit", func(b *testing.B) { // Without anybody who listens.
		b.ReportAllocs()
		p, _ := g.Local().State.Partition("plant-500-0000000")
		change := &quoratev1.PartitionChange{Transition: quoratev1.PartitionTransition_PARTITION_TRANSITION_SET_PLACEMENT, Partition: p}
		for b.Loop() {
			e.partitionChanged(&quoratev1.Event{}, change)
		}
	})
	b.Run("WholeFolderByAClient", func(b *testing.B) {
		c := connect(b, cfg.Endpoint)
		before, most := live(), uint64(0)
		for b.Loop() {
			page, names := browseOne(b, c, partitionsKey, 0), 0
			for count := 1; ; count++ {
				if names += len(page.References); len(page.ContinuationPoint) == 0 {
					break
				}
				next, err := c.BrowseNext(b.Context(), &ua.BrowseNextRequest{ContinuationPoints: [][]byte{page.ContinuationPoint}})
				if err != nil {
					b.Fatal(err)
				}
				if page = next.Results[0]; count%250 == 0 {
					most = max(most, live())
				}
			}
			if names != 1_000_002 {
				b.Fatalf("%d references", names)
			}
		}
		b.ReportMetric(float64(int64(most-before))/(1<<20), "MiB-kept")
	})
}

// live is what the heap keeps.
func live() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}
