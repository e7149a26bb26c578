package fsm

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	logv1 "quorate/proto/quorate/log/v1"
)

// TestPartitionIDs has five partitions: one active, one draining, and three in cutover whose barriers have not begun, run, and have passed.
func TestPartitionIDs(t *testing.T) {
	s := New()
	index, at := uint64(0), time.Second
	apply := func(applied uint64, commands ...*logv1.Command) {
		t.Helper()
		index++
		for i, c := range commands {
			c.RequestId = fmt.Sprint("r", index, ".", i)
			GatesClosed(c, true)
		}
		outcomes, _, err := s.ApplyEntry(index, &logv1.Entry{Clock: uint64(at), LeaderApplied: applied, Commands: commands})
		if err != nil {
			t.Fatal(err)
		}
		for _, o := range outcomes {
			if o.GetRefusal() != nil {
				t.Fatal(o)
			}
		}
		if err := s.Check(); err != nil {
			t.Fatal(err)
		}
	}
	create := &logv1.Command{Body: &logv1.Command_CreatePartitions{CreatePartitions: &logv1.CreatePartitions{Ids: []string{"e", "a", "d", "b", "c"}, Placement: "x"}}}
	begin := func(id string, barrier time.Duration) *logv1.Command {
		return &logv1.Command{Body: &logv1.Command_BeginMigration{BeginMigration: &logv1.BeginMigration{Partition: id, To: "y", DrainBarrier: durationpb.New(barrier)}}}
	}
	cutover := func(id string) *logv1.Command {
		return &logv1.Command{Body: &logv1.Command_CutoverMigration{CutoverMigration: &logv1.CutoverMigration{Partition: id}}}
	}
	ids := func(want, got []string) {
		t.Helper()
		if !slices.Equal(got, want) {
			t.Errorf("%q, want %q", got, want)
		}
	}
	ids(nil, slices.Collect(s.PartitionIDs("")))
	apply(0, create)
	apply(0, begin("b", time.Minute), begin("c", time.Minute), begin("d", 3*time.Minute), begin("e", 2*time.Minute))
	ids(nil, slices.Collect(s.RunningBarriers()))
	apply(0, cutover("d"), cutover("e"))
	apply(0, cutover("c"))
	ids(nil, slices.Collect(s.RunningBarriers()))
	apply(index-1, &logv1.Command{Body: &logv1.Command_Tick{Tick: &logv1.Tick{}}})
	ids([]string{"e", "d"}, slices.Collect(s.RunningBarriers())) // In the order in which they will have passed.
	at += 2 * time.Minute
	apply(0, &logv1.Command{Body: &logv1.Command_Pulse{Pulse: &logv1.Pulse{}}})
	ids([]string{"d"}, slices.Collect(s.RunningBarriers()))
	for id := range s.RunningBarriers() {
		ids([]string{"d"}, []string{id})
		break
	}

	ids([]string{"a", "b", "c", "d", "e"}, slices.Collect(s.PartitionIDs("")))
	ids([]string{"c", "d", "e"}, slices.Collect(s.PartitionIDs("b")))
	ids([]string{"c", "d", "e"}, slices.Collect(s.PartitionIDs("bb")))
	ids(nil, slices.Collect(s.PartitionIDs("e")))
	ids([]string{"b", "c", "d", "e"}, slices.Collect(s.MigratingIDs("")))
	ids([]string{"d", "e"}, slices.Collect(s.MigratingIDs("c")))
	for id := range s.PartitionIDs("") {
		ids([]string{"a"}, []string{id})
		break
	}
	for id, want := range map[string][2]bool{"a": {true, false}, "b": {true, true}, "d": {true, true}, "f": {false, false}} {
		if got := [2]bool{s.HasPartition(id), s.Migrates(id)}; got != want {
			t.Errorf("%s is there, and migrates: %v, want %v", id, got, want)
		}
	}
}
