package fsm

import (
	"fmt"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	logv1 "quorate/proto/quorate/log/v1"
	quoratev1 "quorate/proto/quorate/v1"
)

// Limits of partitions that no transcript reaches, since they take too many records. The others are in testdata/partition and testdata/gate.

// partitionID is one of many ids that are in the order of their numbers and have much in common, as those of a plant do.
func partitionID(i int) string { return fmt.Sprintf("plant-7.tag-%07d", i) }

// fillPartitions creates partitions with consecutive numbers at a placement, in as few commands as can be.
func fillPartitions(t testing.TB, s *State, from, to int, placement string) {
	t.Helper()
	ids := make([]string, 0, MaxPartitionBatch)
	for from < to {
		ids = ids[:0]
		for ; from < to && len(ids) < MaxPartitionBatch; from++ {
			ids = append(ids, partitionID(from))
		}
		outcomes, _ := apply(t, s, s.Now(), createPartitions("fill "+ids[0], placement, ids...))
		if r := RefusalOf(outcomes[0]); r != nil {
			t.Fatal(r)
		}
	}
}

// reasonOf is the reason for which a command is refused, empty if it is accepted.
func reasonOf(t testing.TB, s *State, c *logv1.Command) string {
	t.Helper()
	outcomes, _, err := s.ApplyEntry(s.Revision()+1, &logv1.Entry{Clock: uint64(s.Now()), LeaderApplied: s.Revision(), Commands: []*logv1.Command{c}})
	if err != nil {
		t.Fatal(err)
	}
	return RefusalOf(outcomes[0]).GetReason()
}

// TestPartitionsAreBounded creates as many partitions as there may be.
func TestPartitionsAreBounded(t *testing.T) {
	s := New()
	fillPartitions(t, s, 0, MaxPartitions-1, "north")
	for i, step := range []struct {
		c    *logv1.Command
		want string
	}{
		{createPartitions("a", "north", "a-1", "a-2"), ReasonTooManyPartitions},
		{createPartitions("b", "north", "a-1"), ""},
		{createPartitions("c", "north", "a-2"), ReasonTooManyPartitions},
		{deletePartition("d", "a-1"), ""},
		{createPartitions("e", "north", "a-2"), ""},
	} {
		if got := reasonOf(t, s, step.c); got != step.want {
			t.Errorf("step %d is refused for %q, want %q", i, got, step.want)
		}
	}
	if all, _ := s.PartitionCount(); all != MaxPartitions {
		t.Errorf("%d partitions", all)
	}
	if err := s.Check(); err != nil {
		t.Error(err)
	}
}

// TestMigrationsAreBounded lets as many partitions migrate as may, cuts them all over, and raises the least barrier: the worst that one command does.
func TestMigrationsAreBounded(t *testing.T) {
	s := New()
	fillPartitions(t, s, 0, MaxMigrations+1, "north")
	e := &logv1.Entry{}
	for i := range MaxMigrations {
		e.Commands = append(e.Commands, beginMigration(fmt.Sprint("b", i), partitionID(i), "south"))
	}
	if _, _, err := s.ApplyEntry(s.Revision()+1, e); err != nil {
		t.Fatal(err)
	}
	for i, step := range []struct {
		c    *logv1.Command
		want string
	}{
		{beginMigration("x", partitionID(MaxMigrations), "south"), ReasonTooManyMigrations},
		{abortMigration("y", partitionID(7)), ""},
		{beginMigration("z", partitionID(MaxMigrations), "south"), ""},
		{beginMigration("w", partitionID(7), "south"), ReasonTooManyMigrations},
	} {
		if got := reasonOf(t, s, step.c); got != step.want {
			t.Errorf("step %d is refused for %q, want %q", i, got, step.want)
		}
	}
	if _, migrating := s.PartitionCount(); migrating != MaxMigrations {
		t.Errorf("%d partitions migrate", migrating)
	}
	for i, c := range e.GetCommands() {
		c.Body = cutoverMigration("", partitionID(i)).GetBody()
		c.RequestId = fmt.Sprint("k", i)
	}
	apply(t, s, 0, e.GetCommands()...)

	_, events, err := s.ApplyEntry(s.Revision()+1, &logv1.Entry{LeaderApplied: s.Revision(), Commands: []*logv1.Command{setPartitionSettings("s",
		&quoratev1.PartitionSettings{DrainBarrier: durationpb.New(time.Hour), MinDrainBarrier: durationpb.New(time.Hour)})}})
	if err != nil || len(events) != MaxMigrations {
		t.Errorf("%d events, %v", len(events), err)
	}
	if at, ok := s.NextDeadline(); !ok || at != time.Hour {
		t.Errorf("the next deadline is %v", at)
	}
	if err := s.Check(); err != nil {
		t.Error(err)
	}
	// All of them are to be completed early, and an instance is told of no more than it can report.
	early := s.EarlyCutovers()
	if len(early) != MaxPartitionBatch || early[0].GetPartition() != partitionID(0) || early[0].GetEpoch() != 3 {
		t.Errorf("%d early cutovers, the first %v", len(early), early[0])
	}
	// As they are completed, the others get their turn.
	apply(t, s, DefaultEarlyFloor, completeMigration("c", partitionID(0), true))
	if next := s.EarlyCutovers(); len(next) != MaxPartitionBatch || next[0].GetPartition() != partitionID(1) {
		t.Errorf("%d early cutovers then, the first %v", len(next), next[0])
	}
}

// TestPageScanIsBounded lists what is rare among many: a page looks at no more than MaxPartitionScan partitions, and the next goes on behind them.
func TestPageScanIsBounded(t *testing.T) {
	s := New()
	const count = 2*MaxPartitionScan + 500
	fillPartitions(t, s, 0, count-500, "north")
	fillPartitions(t, s, count-500, count, "south")
	pages, after := 0, ""
	var found []*quoratev1.Partition
	for {
		page, last, more := s.PartitionPage(after, "", "south", 1000)
		pages++
		found = append(found, page...)
		if !more {
			break
		}
		if want := partitionID(pages*MaxPartitionScan - 1); last != want {
			t.Fatalf("page %d ends at %s, want %s", pages, last, want)
		}
		after = last
	}
	if pages != 3 || len(found) != 500 {
		t.Errorf("%d pages with %d partitions", pages, len(found))
	}
	// With as many as one page may look at, and not one more, there is no other.
	s = New()
	fillPartitions(t, s, 0, MaxPartitionScan, "north")
	if _, _, more := s.PartitionPage("", "", "south", 1000); more {
		t.Error("another page of nothing is promised")
	}
}

// TestPartitionsWaitForEveryMember refuses each command of partitions and instances while a member knows only the version before.
func TestPartitionsWaitForEveryMember(t *testing.T) {
	s := New()
	apply(t, s, 0, sync("m1", "m2"), announce("m1", CommandVersion), announce("m2", partitionVersion-1))
	commands := []*logv1.Command{
		createPartitions("a", "north", "p"), setPlacement("b", "p", "south"), deletePartition("c", "p"), beginMigration("d", "p", "south"), reportMigration("e", "p", 1, 2),
		cutoverMigration("f", "p"), completeMigration("g", "p", false), abortMigration("h", "p"), setPartitionSettings("i", nil), registerInstance("j", "i", "s"),
		removeInstance("k", "i", "s", true), forgetInstance("i", "s"),
	}
	for _, c := range commands {
		if r := s.Accepts(c); r.GetReason() != ReasonNotYetSupported {
			t.Errorf("%v is accepted: %v", c, r)
		}
	}
	apply(t, s, 0, announce("m2", partitionVersion))
	for _, c := range commands {
		if r := s.Accepts(c); r != nil {
			t.Errorf("%v is refused: %v", c, r)
		}
	}
}
