package fsm

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"flag"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	logv1 "quorate/proto/quorate/log/v1"
	quoratev1 "quorate/proto/quorate/v1"
)

var freeze = flag.Bool("freeze", false, "write the last of the frozen snapshots anew; never one that was shipped")

// sample returns a state that has something in every slice.
func sample(t testing.TB) *State {
	t.Helper()
	s := New()
	apply(t, s, 0, sync("m1", "m2", "m3"), &logv1.Command{Body: &logv1.Command_OpenTerm{OpenTerm: &logv1.OpenTerm{Term: 3, Leader: "m1"}}},
		&logv1.Command{Body: &logv1.Command_AnnounceMember{AnnounceMember: &logv1.AnnounceMember{Id: "m1", GrpcAddress: "m1:7101", CommandVersion: 2}}})
	apply(t, s, time.Second, publish("p1", 0, pair("m1", "m2")), publish("p2", 1, pair("m2", "m1")), publish("p3", 1, pair("m2", "m1")),
		endApply("m1", 2, true))
	apply(t, s, time.Minute, begin("b1", "m1"), begin("b2", "m1"), begin("b3", "m2"), end("b4", "m1"), end("b5", "m1"), begin("b6", "m2"),
		&logv1.Command{Body: &logv1.Command_AdoptGeneration{AdoptGeneration: &logv1.AdoptGeneration{Member: "m2", Generation: 2}}},
		public("b7", &logv1.Command{Body: &logv1.Command_SetMaintenance{SetMaintenance: &logv1.SetMaintenance{Server: "m1", Active: true,
			Reason: "disk", EstimatedReturn: timestamppb.New(wallStart)}}}),
		assign("m2", 2), beginApply("m2", 2), recordLevels("m1", 1, 3))
	apply(t, s, time.Minute, sync("m1", "m3"))
	samplePartitions(t, s)
	return s
}

// samplePartitions adds a partition in each state that one can be in, and an instance.
func samplePartitions(t testing.TB, s *State) {
	t.Helper()
	ids := []string{"p-active", "p-moved", "p-draining", "p-cutover", "p-begun", "p-passed", "p-gone"}
	verified := reportMigration("q7", "p-draining", 3, 5)
	verified.GetReportMigration().Verified = true
	draining := beginMigration("q6", "p-draining", "south")
	draining.GetBeginMigration().Servers, draining.GetBeginMigration().Note, draining.GetBeginMigration().VerificationRequired = []string{"m1"}, "n", true
	draining.GetBeginMigration().DrainBarrier = durationpb.New(time.Minute)
	const session, another = "session-0123456789", "session-9876543210"
	apply(t, s, time.Minute, setPartitionSettings("q1", &quoratev1.PartitionSettings{MinDrainBarrier: durationpb.New(time.Second), GateTtl: durationpb.New(time.Second)}),
		createPartitions("q2", "north", ids...), registerInstance("q3", "i-1", session), registerInstance("q4", "i-2", session),
		removeInstance("q5", "i-2", session, true), draining, verified, setPlacement("q8", "p-moved", "south"), deletePartition("q9", "p-gone"),
		beginMigration("q10", "p-passed", "south"), beginMigration("q11", "p-begun", "west"), beginMigration("q12", "p-cutover", "south"), cutoverMigration("q13", "p-passed"))
	applied := s.Revision()
	at := func(clock time.Duration, leaderApplied uint64, commands ...*logv1.Command) {
		t.Helper()
		outcomes, _, err := s.ApplyEntry(s.Revision()+1, &logv1.Entry{Clock: uint64(clock), LeaderApplied: leaderApplied, Commands: commands})
		if err != nil || RefusalOf(outcomes[0]) != nil {
			t.Fatal(err, outcomes)
		}
	}
	at(time.Minute, applied, cutoverMigration("q14", "p-begun"))
	at(2*time.Minute, applied+1, &logv1.Command{Body: &logv1.Command_Pulse{Pulse: &logv1.Pulse{}}})
	at(2*time.Minute, applied+2, registerInstance("q15", "i-1", another), cutoverMigration("q16", "p-cutover"))
}

func createPartitions(id, placement string, ids ...string) *logv1.Command {
	return public(id, &logv1.Command{Body: &logv1.Command_CreatePartitions{CreatePartitions: &logv1.CreatePartitions{Ids: ids, Placement: placement}}})
}

func setPlacement(id, partition, placement string) *logv1.Command {
	return public(id, &logv1.Command{Body: &logv1.Command_SetPlacement{SetPlacement: &logv1.SetPlacement{Partition: partition, Placement: placement, GatesClosed: true}}})
}

func deletePartition(id, partition string) *logv1.Command {
	return public(id, &logv1.Command{Body: &logv1.Command_DeletePartition{DeletePartition: &logv1.DeletePartition{Partition: partition, GatesClosed: true}}})
}

func beginMigration(id, partition, to string) *logv1.Command {
	return public(id, &logv1.Command{Body: &logv1.Command_BeginMigration{BeginMigration: &logv1.BeginMigration{
		Partition: partition, To: to, EarlyCompletion: true, GatesClosed: true}}})
}

func reportMigration(id, partition string, done, total uint64) *logv1.Command {
	return public(id, &logv1.Command{Body: &logv1.Command_ReportMigration{ReportMigration: &logv1.ReportMigration{
		Partition: partition, Copy: &quoratev1.CopyProgress{Done: done, Total: total, Text: "files"}}}})
}

func cutoverMigration(id, partition string) *logv1.Command {
	return public(id, &logv1.Command{Body: &logv1.Command_CutoverMigration{CutoverMigration: &logv1.CutoverMigration{Partition: partition, GatesClosed: true}}})
}

func completeMigration(id, partition string, drained bool) *logv1.Command {
	return public(id, &logv1.Command{Body: &logv1.Command_CompleteMigration{CompleteMigration: &logv1.CompleteMigration{
		Partition: partition, Drained: drained, GatesClosed: true}}})
}

func abortMigration(id, partition string) *logv1.Command {
	return public(id, &logv1.Command{Body: &logv1.Command_AbortMigration{AbortMigration: &logv1.AbortMigration{Partition: partition, GatesClosed: true}}})
}

func setPartitionSettings(id string, p *quoratev1.PartitionSettings) *logv1.Command {
	return public(id, &logv1.Command{Body: &logv1.Command_SetPartitionSettings{SetPartitionSettings: &logv1.SetPartitionSettings{Settings: p}}})
}

func registerInstance(id, instance, session string) *logv1.Command {
	return public(id, &logv1.Command{Body: &logv1.Command_RegisterInstance{RegisterInstance: &logv1.RegisterInstance{Id: instance, Session: session}}})
}

func removeInstance(id, instance, session string, drained bool) *logv1.Command {
	return public(id, &logv1.Command{Body: &logv1.Command_RemoveInstance{RemoveInstance: &logv1.RemoveInstance{Id: instance, Session: session, Drained: drained}}})
}

func forgetInstance(instance, session string) *logv1.Command {
	return &logv1.Command{Body: &logv1.Command_ForgetInstance{ForgetInstance: &logv1.ForgetInstance{Id: instance, Session: session}}}
}

// apply applies commands as one entry at the next index.
func apply(t testing.TB, s *State, clock time.Duration, commands ...*logv1.Command) ([]*logv1.Outcome, []*quoratev1.Event) {
	t.Helper()
	outcomes, events, err := s.ApplyEntry(s.Revision()+1, &logv1.Entry{Clock: uint64(clock), Commands: commands})
	if err != nil {
		t.Fatal(err)
	}
	return outcomes, events
}

func public(id string, c *logv1.Command) *logv1.Command {
	c.RequestId, c.Actor, c.WallTime = id, &quoratev1.Actor{Name: "ann", Role: "operator", Address: "10.0.0.7:5511"}, timestamppb.New(wallStart)
	return c
}

func sync(ids ...string) *logv1.Command {
	c := &logv1.SyncMembers{}
	for _, id := range ids {
		c.Members = append(c.Members, &logv1.SyncMembers_Member{Id: id, RaftAddress: id + ":7301", Voter: true})
	}
	return &logv1.Command{Body: &logv1.Command_SyncMembers{SyncMembers: c}}
}

func announce(id string, version uint32) *logv1.Command {
	return &logv1.Command{Body: &logv1.Command_AnnounceMember{AnnounceMember: &logv1.AnnounceMember{Id: id, GrpcAddress: id + ":7101", CommandVersion: version}}}
}

func assign(server string, generation uint64, lapsed ...string) *logv1.Command {
	return &logv1.Command{Body: &logv1.Command_AssignServing{AssignServing: &logv1.AssignServing{Server: server, Generation: generation, Lapsed: lapsed}}}
}

func beginApply(server string, generation uint64) *logv1.Command {
	return &logv1.Command{Body: &logv1.Command_BeginApply{BeginApply: &logv1.BeginApply{Server: server, Generation: generation}}}
}

func endApply(server string, generation uint64, succeeded bool) *logv1.Command {
	return &logv1.Command{Body: &logv1.Command_EndApply{EndApply: &logv1.EndApply{Server: server, Generation: generation, Succeeded: succeeded}}}
}

func resumeApply(id, set string) *logv1.Command {
	return public(id, &logv1.Command{Body: &logv1.Command_ResumeApply{ResumeApply: &logv1.ResumeApply{Set: set}}})
}

func swapRoles(set, to, why string, expected uint64) *logv1.Command {
	return &logv1.Command{Body: &logv1.Command_SwapRoles{SwapRoles: &logv1.SwapRoles{Set: set, To: to, Why: why, ExpectedGeneration: expected}}}
}

func adopt(member string, generation uint64) *logv1.Command {
	return &logv1.Command{Body: &logv1.Command_AdoptGeneration{AdoptGeneration: &logv1.AdoptGeneration{Member: member, Generation: generation}}}
}

func recordLevels(server string, numbers ...uint64) *logv1.Command {
	c := &logv1.RecordLevels{}
	for _, n := range numbers {
		c.Changes = append(c.Changes, &quoratev1.LevelChange{Server: server, Number: n, After: 255, Generation: 1, Reasons: []string{"fit"}})
	}
	return &logv1.Command{Body: &logv1.Command_RecordLevels{RecordLevels: c}}
}

func publish(id string, expected uint64, top *quoratev1.Topology) *logv1.Command {
	return public(id, &logv1.Command{Body: &logv1.Command_PublishTopology{
		PublishTopology: &logv1.PublishTopology{ExpectedGeneration: expected, Topology: top}}})
}

func begin(id, server string) *logv1.Command {
	return public(id, &logv1.Command{Body: &logv1.Command_BeginLease{BeginLease: &logv1.BeginLease{Server: server}}})
}

func end(id, server string) *logv1.Command {
	return public(id, &logv1.Command{Body: &logv1.Command_EndLease{EndLease: &logv1.EndLease{Server: server}}})
}

func pair(primary, backup string) *quoratev1.Topology {
	set := &quoratev1.RedundantSet{Id: "line-a", Mode: ModeWarm}
	for _, s := range []struct{ id, role string }{{primary, RolePrimary}, {backup, RoleBackup}} {
		set.Servers = append(set.Servers, &quoratev1.RedundantServer{Member: s.id, Role: s.role, ApplicationUri: "urn:plant:" + s.id,
			EndpointUrl: "opc.tcp://" + s.id + ":4841", HealthUrl: "http://" + s.id + ":7201/healthz"})
	}
	return &quoratev1.Topology{Sets: []*quoratev1.RedundantSet{set}}
}

func write(t testing.TB, s *State) []byte {
	t.Helper()
	var b bytes.Buffer
	if _, err := s.WriteTo(&b); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// frozen are the snapshots in testdata/snapshot, oldest first: one for each format version, and for each kind of record that came later without one. Only the
// last may be frozen anew, and that only before it was shipped.
var frozen = []string{"v1", "v1-partitions"}

// TestFrozenSnapshots restores every snapshot that was ever frozen. It has the digest that it had, and is written again byte for byte: so a state that holds
// nothing of what came later, such as partitions, is the same to members that don't know of it.
func TestFrozenSnapshots(t *testing.T) {
	path := func(name string) string { return "testdata/snapshot/" + name + ".txt" }
	if *freeze {
		s := sample(t)
		text := fmt.Sprintf("%x\n%s", s.Digest(), hex.Dump(write(t, s)))
		if err := os.WriteFile(path(frozen[len(frozen)-1]), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if files, err := os.ReadDir("testdata/snapshot"); err != nil || len(files) != len(frozen) {
		t.Errorf("there are %d files of frozen snapshots, %v; want %v", len(files), err, frozen)
	}
	for _, name := range frozen {
		text, err := os.ReadFile(path(name))
		if err != nil {
			t.Fatal(err)
		}
		digest, dump, _ := strings.Cut(string(text), "\n")
		var raw []byte
		for line := range strings.Lines(dump) {
			b, err := hex.DecodeString(strings.ReplaceAll(strings.TrimSpace(line[8:min(len(line), 59)]), " ", ""))
			if err != nil {
				t.Fatal(err)
			}
			raw = append(raw, b...)
		}
		s, err := Restore(bytes.NewReader(raw))
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if got := fmt.Sprintf("%x", s.Digest()); got != digest {
			t.Errorf("%s restores with digest %s, and had %s", name, got, digest)
		}
		if again := write(t, s); !bytes.Equal(again, raw) {
			t.Errorf("%s is written again as %d bytes, and had %d", name, len(again), len(raw))
		}
	}
}

// TestRestoreIsAllOrNothing damages a snapshot in every place: each time there is an error that says corrupt, and no state.
func TestRestoreIsAllOrNothing(t *testing.T) {
	whole := write(t, sample(t))
	refuse := func(what string, damaged []byte) {
		t.Helper()
		if s, err := Restore(bytes.NewReader(damaged)); s != nil || !errors.Is(err, ErrCorrupt) {
			t.Errorf("%s: state %t, error %v", what, s != nil, err)
		}
	}
	for i := range whole {
		refuse(fmt.Sprintf("cut to %d bytes", i), whole[:i])
		damaged := bytes.Clone(whole)
		damaged[i] ^= 0x10
		refuse(fmt.Sprintf("byte %d flipped", i), damaged)
	}
	refuse("something follows", append(bytes.Clone(whole), 0))
	if _, err := Restore(iotest.ErrReader(errors.New("disk on fire"))); err == nil || errors.Is(err, ErrCorrupt) ||
		!strings.Contains(err.Error(), "disk on fire") {
		t.Errorf("a failing reader gave %v", err)
	}
}

// framed returns a snapshot with the given records, in a frame that is right.
func framed(records ...*logv1.SnapshotRecord) []byte {
	b := binary.BigEndian.AppendUint32([]byte(snapshotMagic), snapshotVersion)
	for _, r := range records {
		body, err := proto.Marshal(r)
		if err != nil {
			panic(err)
		}
		b = append(binary.AppendUvarint(b, uint64(len(body))), body...)
	}
	return seal(append(b, 0), len(records))
}

func seal(b []byte, records int) []byte {
	b = binary.BigEndian.AppendUint64(b, uint64(records))
	return binary.BigEndian.AppendUint32(b, crc32.Checksum(b, castagnoli))
}

// TestRestoreDistrustsRecords gives records that are framed well and make no sense.
func TestRestoreDistrustsRecords(t *testing.T) {
	clock := &logv1.SnapshotRecord{Body: &logv1.SnapshotRecord_Clock{Clock: &logv1.Clock{Now: 5, Revision: 9}}}
	member := &logv1.SnapshotRecord{Body: &logv1.SnapshotRecord_Member{Member: &logv1.MemberRecord{Id: "m1", RaftAddress: "m1:1"}}}
	lease := func(l *quoratev1.ApplyLease) *logv1.SnapshotRecord {
		l.Key = &quoratev1.LeaseKey{Server: "m1", Generation: 1, PublishRequestId: "p"}
		return &logv1.SnapshotRecord{Body: &logv1.SnapshotRecord_Lease{Lease: l}}
	}
	open := &quoratev1.ApplyLease{State: quoratev1.LeaseState_LEASE_STATE_OPEN, Windows: 1, Begun: &durationpb.Duration{},
		Deadline: durationpb.New(ApplyMaxDuration), Set: "line-a"}
	request := func(key string, print int, o *logv1.Outcome) *logv1.SnapshotRecord {
		return &logv1.SnapshotRecord{Body: &logv1.SnapshotRecord_Request{Request: &logv1.RememberedRequest{
			Key: key, Fingerprint: make([]byte, print), Outcome: o}}}
	}
	answer := &logv1.Outcome{Revision: 1, Result: &logv1.Outcome_Done{Done: &logv1.Done{}}}
	serving := &logv1.SnapshotRecord{Body: &logv1.SnapshotRecord_Serving{Serving: &quoratev1.Serving{Server: "m1", Set: "line-a", Generation: 1}}}
	rollout := &logv1.SnapshotRecord{Body: &logv1.SnapshotRecord_Rollout{Rollout: &quoratev1.Rollout{Set: "line-a", Generation: 1}}}
	level := &logv1.SnapshotRecord{Body: &logv1.SnapshotRecord_Level{Level: &quoratev1.LevelChange{Server: "m1", Number: 1}}}
	if _, err := Restore(bytes.NewReader(framed(clock, member, level, request("3:annx", 32, answer)))); err != nil {
		t.Fatalf("the good records are refused: %v", err)
	}
	var many []*logv1.SnapshotRecord
	for range MaxEndedLeases + 1 {
		many = append(many, lease(&quoratev1.ApplyLease{State: quoratev1.LeaseState_LEASE_STATE_ENDED}))
	}
	for what, records := range map[string][]*logv1.SnapshotRecord{
		"no records":                   {},
		"no clock":                     {member},
		"clock not first":              {member, clock},
		"clock twice":                  {clock, clock},
		"clock out of range":           {{Body: &logv1.SnapshotRecord_Clock{Clock: &logv1.Clock{Now: 1 << 63}}}},
		"record of unknown kind":       {clock, {}},
		"member twice":                 {clock, member, member},
		"member without id":            {clock, {Body: &logv1.SnapshotRecord_Member{Member: &logv1.MemberRecord{RaftAddress: "x"}}}},
		"departed and not in topology": {clock, {Body: &logv1.SnapshotRecord_Member{Member: &logv1.MemberRecord{Id: "m2"}}}},
		"generation that skips one":    {clock, {Body: &logv1.SnapshotRecord_Generation{Generation: &quoratev1.Generation{Number: 2}}}},
		"generation without document":  {clock, {Body: &logv1.SnapshotRecord_Generation{Generation: &quoratev1.Generation{Number: 1}}}},
		"document with another digest": {clock, {Body: &logv1.SnapshotRecord_Generation{Generation: &quoratev1.Generation{Number: 1,
			Digest: "x", Topology: &quoratev1.Topology{}}}}},
		"lease of no generation":   {clock, member, lease(open)},
		"lease twice":              {clock, member, lease(open), lease(open)},
		"too many ended leases":    append([]*logv1.SnapshotRecord{clock, member}, many...),
		"maintenance of nobody":    {clock, {Body: &logv1.SnapshotRecord_Maintenance{Maintenance: &quoratev1.Maintenance{Server: "x", Active: true}}}},
		"serving twice":            {clock, serving, serving},
		"serving of no generation": {clock, serving},
		"roll-out twice":           {clock, rollout, rollout},
		"roll-out of no set":       {clock, rollout},
		"level twice":              {clock, member, level, level},
		"level of nobody":          {clock, level},
		"request twice":            {clock, request("k", 32, answer), request("k", 32, answer)},
		"request, bad fingerprint": {clock, request("k", 31, answer)},
		"request without answer":   {clock, request("k", 32, nil)},
		"request from the future":  {clock, request("k", 32, &logv1.Outcome{Revision: 10, Result: answer.GetResult()})},
	} {
		if s, err := Restore(bytes.NewReader(framed(records...))); s != nil || !errors.Is(err, ErrCorrupt) {
			t.Errorf("%s: state %t, error %v", what, s != nil, err)
		}
	}
}

// TestRecordSize reaches MaxRecordBytes from both sides.
func TestRecordSize(t *testing.T) {
	s := sample(t)
	s.members.byID.Set("m3", &logv1.MemberRecord{Id: "m3", RaftAddress: strings.Repeat("x", MaxRecordBytes)})
	if _, err := s.WriteTo(io.Discard); err == nil || !strings.Contains(err.Error(), "more than") {
		t.Errorf("a record that is too long was written: %v", err)
	}
	long := binary.BigEndian.AppendUint32([]byte(snapshotMagic), snapshotVersion)
	long = binary.AppendUvarint(long, MaxRecordBytes+1)
	if _, err := Restore(io.MultiReader(bytes.NewReader(long), neverRead{t})); !errors.Is(err, ErrCorrupt) {
		t.Errorf("a record that is too long was read: %v", err)
	}
	endless := append(binary.BigEndian.AppendUint32([]byte(snapshotMagic), snapshotVersion), bytes.Repeat([]byte{0xff}, 20)...)
	if _, err := Restore(bytes.NewReader(endless)); !errors.Is(err, ErrCorrupt) {
		t.Errorf("a length without end was read: %v", err)
	}
	newer := seal(append(binary.BigEndian.AppendUint32([]byte(snapshotMagic), snapshotVersion+1), 0), 0)
	if _, err := Restore(bytes.NewReader(newer)); !errors.Is(err, ErrCorrupt) || !strings.Contains(err.Error(), "format version is 2") {
		t.Errorf("a newer format gave %v", err)
	}
}

// neverRead fails the test when as much as a record is read.
type neverRead struct{ t *testing.T }

func (r neverRead) Read(p []byte) (int, error) {
	if len(p) > 1<<20 {
		r.t.Errorf("%d bytes were asked for", len(p))
	}
	return 0, io.EOF
}

// TestWriteFails returns the error of the writer, wherever it comes.
func TestWriteFails(t *testing.T) {
	s := sample(t)
	whole := len(write(t, s))
	for limit := range whole {
		if _, err := s.WriteTo(&shortWriter{left: limit}); !errors.Is(err, errFull) {
			t.Fatalf("with space for %d of %d bytes: %v", limit, whole, err)
		}
	}
}

var errFull = errors.New("no space left on device")

type shortWriter struct{ left int }

func (w *shortWriter) Write(p []byte) (int, error) {
	if len(p) > w.left {
		return w.left, errFull
	}
	w.left -= len(p)
	return len(p), nil
}
