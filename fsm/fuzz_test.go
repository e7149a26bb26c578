package fsm

import (
	"bufio"
	"bytes"
	"hash/crc32"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	logv1 "quorate/proto/quorate/log/v1"
	quoratev1 "quorate/proto/quorate/v1"
)

// FuzzApplyEntry decodes anything as an entry and applies it to an empty and to a full state. Nothing panics, every invariant holds, two
// states that got the same are equal, and the result goes through a snapshot.
func FuzzApplyEntry(f *testing.F) {
	for _, c := range []*logv1.Command{
		sync("m1", "m2", "m4"), publish("f1", 2, pair("m1", "m3")), publish("p1", 0, pair("m1", "m2")), begin("f2", "m2"), end("f3", "m2"),
		begin("", "m1"), {}, {Body: &logv1.Command_Pulse{}}, {Body: &logv1.Command_PublishTopology{}},
		{Body: &logv1.Command_AdoptGeneration{AdoptGeneration: &logv1.AdoptGeneration{Member: "m1", Generation: 1}}},
		public("f4", &logv1.Command{Body: &logv1.Command_RollbackTopology{RollbackTopology: &logv1.RollbackTopology{ExpectedGeneration: 2, To: 1}}}),
		public("f5", &logv1.Command{Body: &logv1.Command_SetMaintenance{SetMaintenance: &logv1.SetMaintenance{Server: "m1"}}}),
		assign("m2", 2), assign("m1", 2, "m2"), beginApply("m1", 2), endApply("m2", 2, true), endApply("m2", 2, false), resumeApply("f7", "line-a"),
		swapRoles("line-a", "m1", SwapFailover, 2), recordLevels("m1", 2, 4), publish("f8", 2, withPolicies("m1", "m3")),
		{Body: &logv1.Command_ReleaseServing{ReleaseServing: &logv1.ReleaseServing{Server: "m2", Generation: 2}}},
		createPartitions("g1", "north", "p-new", "p-gone"), setPlacement("g2", "p-active", "west"), deletePartition("g3", "p-moved"),
		beginMigration("g4", "p-active", "m1"), reportMigration("g5", "p-draining", 5, 5), cutoverMigration("g6", "p-draining"),
		completeMigration("g7", "p-begun", true), completeMigration("g8", "p-passed", false), abortMigration("g9", "p-cutover"),
		setPartitionSettings("g10", &quoratev1.PartitionSettings{DrainBarrier: durationpb.New(time.Hour), MinDrainBarrier: durationpb.New(time.Hour),
			EarlyFloor: &durationpb.Duration{}, GateTtl: durationpb.New(MinGateTTL)}),
		registerInstance("g11", "i-1", "session-0000000000"), removeInstance("g12", "i-1", "session-9876543210", true), forgetInstance("i-1", "session-9876543210"),
		publish("f6", 2, &quoratev1.Topology{Sets: []*quoratev1.RedundantSet{{}, {Id: "x", Mode: "TRANSPARENT"}}}),
	} {
		b, err := proto.Marshal(&logv1.Entry{Clock: uint64(11 * time.Minute), LeaderApplied: 9, Commands: []*logv1.Command{c, c, {Body: &logv1.Command_Pulse{Pulse: &logv1.Pulse{}}}}})
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	full := sample(f)
	authorised := full.Snapshot()
	apply(f, authorised, time.Minute, sync("m1", "m2", "m3"), publish("f0", 2, withPolicies("m1", "m2")))
	f.Fuzz(func(t *testing.T, b []byte) {
		e := &logv1.Entry{}
		if proto.Unmarshal(b, e) != nil {
			return
		}
		for _, s := range []*State{New(), full.Snapshot(), authorised.Snapshot()} {
			twin, before, index := s.Snapshot(), s.Digest(), s.Revision()+1
			outcomes, _, err := s.ApplyEntry(index, e)
			if err != nil {
				if s.Digest() != before {
					t.Fatalf("an entry that failed changed the state: %v", err)
				}
				continue
			}
			if len(outcomes) != len(e.GetCommands()) {
				t.Fatalf("%d outcomes of %d commands", len(outcomes), len(e.GetCommands()))
			}
			for _, o := range outcomes {
				if o.GetResult() == nil {
					t.Fatal("a command has no answer")
				}
			}
			if err := s.Check(); err != nil {
				t.Fatal(err)
			}
			if _, _, err := twin.ApplyEntry(index, e); err != nil || twin.Digest() != s.Digest() {
				t.Fatalf("two states that applied the same differ, %v", err)
			}
			roundTrip(t, s)
		}
		if full.Check() != nil {
			t.Fatal("the state that was forked has changed")
		}
	})
}

// withPolicies is a pair whose policies let the group swap its roles.
func withPolicies(primary, backup string) *quoratev1.Topology {
	top := pair(primary, backup)
	top.Sets[0].Policies = &quoratev1.RedundancyPolicies{Apply: ApplyHandover, StandIn: 210, Failover: FailoverAutomatic,
		Levels: []*quoratev1.BandLevel{{Band: BandRecovering, Primary: 170}}}
	return top
}

// FuzzRestore reads anything as a snapshot. The frame is made right, so that the fuzzer reaches the records behind the checksum. What
// restores keeps every invariant, and can be written again.
func FuzzRestore(f *testing.F) {
	whole := write(f, sample(f))
	f.Add(whole)
	f.Add(write(f, New()))
	f.Add(whole[:len(whole)/2])
	clock := &logv1.SnapshotRecord{Body: &logv1.SnapshotRecord_Clock{Clock: &logv1.Clock{Now: uint64(5 * time.Second), Revision: 9}}}
	f.Add(framed(clock, groupOf(func(*logv1.PartitionsRecord) {}), blockOf(func(*logv1.PartitionBlock) {}), migrationOf(func(*logv1.MigrationRecord) {}),
		instanceOf(func(*logv1.InstanceRecord) {})))
	f.Add(framed(clock, blockOf(func(b *logv1.PartitionBlock) { b.Epochs = b.Epochs[1:] })))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		tries := [][]byte{b}
		if len(b) > 12 {
			tries = append(tries, seal(bytes.Clone(b[:len(b)-12]), countRecords(b)))
		}
		for _, try := range tries {
			s, err := Restore(bytes.NewReader(try))
			if (s == nil) == (err == nil) {
				t.Fatalf("state %t, error %v", s != nil, err)
			}
			if err != nil {
				continue
			}
			if err := s.Check(); err != nil {
				t.Fatal(err)
			}
			roundTrip(t, s)
			if _, _, err := s.ApplyEntry(s.Revision()+1, &logv1.Entry{Clock: uint64(min(s.Now()+time.Hour, MaxClock)), LeaderApplied: s.Revision(), Commands: []*logv1.Command{
				sync("m1", "m2"), announce("m1", CommandVersion), publish("new", s.generationNumber(), pair("m1", "m2")), begin("new2", "m1"),
				endApply("m2", s.generationNumber()+1, true), assign("m1", s.generationNumber()+1, "m2"), recordLevels("m1", 9),
				createPartitions("new3", "north", "p-new", "p-gone"), beginMigration("new4", "p-active", "far"), cutoverMigration("new5", "p-draining"),
				completeMigration("new6", "p-passed", true), completeMigration("new7", "p-begun", true), setPlacement("new8", "p-moved", "far"),
				setPartitionSettings("new9", &quoratev1.PartitionSettings{DrainBarrier: durationpb.New(MaxDrainBarrier), MinDrainBarrier: durationpb.New(MaxDrainBarrier)}),
				registerInstance("new10", "i-1", "session-0000000000"), {Body: &logv1.Command_Pulse{}}}}); err != nil {
				t.Fatal(err)
			}
			if err := s.Check(); err != nil {
				t.Fatalf("after more commands: %v", err)
			}
		}
	})
}

// countRecords counts the records of a snapshot as far as they go.
func countRecords(b []byte) int {
	in := &snapshotReader{in: bufio.NewReader(bytes.NewReader(b[min(len(b), len(snapshotMagic)+4):])), sum: crc32.New(castagnoli)}
	for {
		if body, err := in.next(); body == nil || err != nil {
			return int(in.records)
		}
	}
}
