package interop

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/durationpb"

	quoratev1 "quorate/proto/quorate/v1"
)

const (
	// manyPartitions are browsed by pages of pageSize.
	manyPartitions = 20_000
	pageSize       = 1000
	// createBatch is how many are created at once.
	createBatch = 1000
	// shortBarrier is the drain barrier of the migration.
	shortBarrier = 300 * time.Millisecond
)

// partitionLine is what the client says of partitions.
type partitionLine struct {
	Folder *struct {
		Number, Count, Distinct int
		First, Last             string
	}
	Target, Unknown string
	Event           string
	Name            string
	Value           string
}

// partitions creates many partitions and takes one of them through a migration, while a client browses them and follows that one.
func partitions(t *testing.T, table *compatibility, conn *grpc.ClientConn, options map[string]any) {
	ctx, cancel := context.WithTimeout(t.Context(), scenarioLimit)
	defer cancel()
	service := quoratev1.NewPartitionServiceClient(conn)
	requests := 0
	request := func() string {
		requests++
		return fmt.Sprint("partitions-", requests)
	}
	must := func(_ any, err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(service.SetPartitionSettings(ctx, &quoratev1.SetPartitionSettingsRequest{RequestId: request(), Settings: &quoratev1.PartitionSettings{
		DrainBarrier: durationpb.New(shortBarrier), MinDrainBarrier: durationpb.New(shortBarrier),
	}}))
	listed, err := service.ListPartitions(ctx, &quoratev1.ListPartitionsRequest{})
	must(listed, err)
	demo := listed.GetPartitions() // Those of the demo, whose names come after the others.
	count, last := manyPartitions+len(demo), demo[len(demo)-1].GetId()
	id := func(i int) string { return fmt.Sprintf("line%05d", i) }
	for i := 0; i < manyPartitions; i += createBatch {
		create := &quoratev1.CreatePartitionsRequest{RequestId: request(), Placement: "nas-1"}
		for j := range createBatch {
			create.Ids = append(create.Ids, id(i+j))
		}
		must(service.CreatePartitions(ctx, create))
	}

	moved := id(manyPartitions / 2)
	options["partition"], options["size"] = moved, pageSize
	client := startTalk(ctx, t, "partitions", options, os.Stderr)
	lines := make(chan partitionLine, 100)
	go func() {
		defer close(lines)
		for client.lines.Scan() {
			var line partitionLine
			if err := json.Unmarshal(client.lines.Bytes(), &line); err != nil {
				t.Errorf("the client said %s: %v", client.lines.Text(), err)
			}
			lines <- line
		}
	}()
	w := &partitionWatch{t: t, ctx: ctx, lines: lines}
	first := w.next()
	if f := first.Folder; f == nil || f.Number != (count+pageSize-1)/pageSize || f.Count != count || f.Distinct != count ||
		f.First != "ns=2;s=partitions/"+id(0) || f.Last != "ns=2;s=partitions/"+last {
		t.Errorf("the folder: %+v", f)
	}
	if first.Target != "ns=2;s=partitions/"+moved+"/Phase" || first.Unknown != "BadNodeIdUnknown" {
		t.Errorf("the path leads to %s, and what is not there reads %s", first.Target, first.Unknown)
	}
	event := func(name, phase string, epoch int) string {
		return fmt.Sprintf("ns=2;s=types/%sEventType ns=2;s=partitions/%s %s %d", name, moved, phase, epoch)
	}
	w.expect("Placement nas-1", "Phase Active")
	must(service.BeginMigration(ctx, &quoratev1.BeginMigrationRequest{RequestId: request(), Partition: moved, To: "nas-2"}))
	w.expect("Phase Draining", event("MigrationBegun", "Draining", 2))
	must(service.CutoverMigration(ctx, &quoratev1.CutoverMigrationRequest{RequestId: request(), Partition: moved}))
	w.expect("Phase Cutover", event("MigrationCutOver", "Cutover", 3))
	w.expect(event("BarrierPassed", "Cutover", 3))
	must(service.CompleteMigration(ctx, &quoratev1.CompleteMigrationRequest{RequestId: request(), Partition: moved}))
	w.expect("Placement nas-2", "Phase Active", event("MigrationCompleted", "Active", 4))
	must(service.DeletePartition(ctx, &quoratev1.DeletePartitionRequest{RequestId: request(), Partition: moved}))
	w.expect("Placement BadNodeIdUnknown", "Phase BadNodeIdUnknown", event("PartitionDeleted", "", 4))
	if err := client.in.Close(); err != nil {
		t.Fatal(err)
	}
	for extra := range lines {
		t.Errorf("the client said %+v, which nothing made", extra)
	}
	if err := client.Wait(); err != nil {
		t.Errorf("the client: %v", err)
	}
	if t.Failed() {
		return
	}
	table.ran(nodeOPCUA, step{"View", "BrowseNext", "a folder of 20,000 partitions, page by page"})
	table.ran(nodeOPCUA, step{"View", "TranslateBrowsePathsToNodeIds", "one of 20,000 partitions"})
	table.ran(nodeOPCUA, step{"Subscription", "Publish", "the phases of a migration, and BadNodeIdUnknown once the partition is deleted"})
	table.ran(nodeOPCUA, step{"Subscription", "Publish", "an event for every transition of a partition, in order"})
}

// partitionWatch is what a client says.
type partitionWatch struct {
	t     *testing.T
	ctx   context.Context
	lines <-chan partitionLine
}

func (w *partitionWatch) next() partitionLine {
	w.t.Helper()
	select {
	case line, ok := <-w.lines:
		if ok {
			return line
		}
	case <-w.ctx.Done():
	}
	w.t.Fatal("the client said no more")
	return partitionLine{}
}

// expect wants the next lines to be these, in whatever order: values and events come by different items.
func (w *partitionWatch) expect(want ...string) {
	w.t.Helper()
	missing := make(map[string]bool)
	for _, line := range want {
		missing[line] = true
	}
	for range want {
		line := w.next()
		said := line.Event
		if said == "" {
			said = line.Name + " " + line.Value
		}
		if !missing[said] {
			w.t.Fatalf("the client said %q, want %q", said, want)
		}
		delete(missing, said)
	}
}
