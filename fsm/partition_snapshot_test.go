package fsm

import (
	"bufio"
	"bytes"
	"errors"
	"hash/crc32"
	"slices"
	"testing"
	"time"
	"unsafe"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	logv1 "quorate/proto/quorate/log/v1"
	quoratev1 "quorate/proto/quorate/v1"
)

// blockOf is a good block of two partitions at berlin, the second of which was at attic before.
func blockOf(change func(b *logv1.PartitionBlock)) *logv1.SnapshotRecord {
	b := &logv1.PartitionBlock{
		Ids: []string{"p1", "p2"}, Placements: []uint32{0, 0}, Previous: []uint32{0, 2}, Epochs: []uint64{1, 2}, Revisions: []uint64{1, 2},
		DrainBarriers: []uint64{0, uint64(time.Minute)}, Names: []string{"berlin", "attic"},
	}
	change(b)
	return &logv1.SnapshotRecord{Body: &logv1.SnapshotRecord_Partitions{Partitions: b}}
}

// migrationOf is a good migration of p2, in cutover since revision 2, whose barrier began at 3 s and has not passed at 5 s.
func migrationOf(change func(r *logv1.MigrationRecord)) *logv1.SnapshotRecord {
	r := &logv1.MigrationRecord{Partition: "p2", Migration: &quoratev1.Migration{From: "berlin", To: "attic", Begun: durationpb.New(time.Second),
		DrainBarrier: durationpb.New(time.Minute), CutoverEpoch: 2, CutoverRevision: 2, BarrierBegun: durationpb.New(3 * time.Second)}}
	change(r)
	return &logv1.SnapshotRecord{Body: &logv1.SnapshotRecord_Migration{Migration: r}}
}

func groupOf(change func(r *logv1.PartitionsRecord)) *logv1.SnapshotRecord {
	settings := defaultSettings.message()
	r := &logv1.PartitionsRecord{Settings: settings, EpochFloor: 7, FormerGateTtl: durationpb.New(3 * time.Second), GateTtlLowered: durationpb.New(time.Second),
		UndrainedRevision: 4, Gone: durationpb.New(2 * time.Second)}
	change(r)
	return &logv1.SnapshotRecord{Body: &logv1.SnapshotRecord_PartitionsOfGroup{PartitionsOfGroup: r}}
}

func instanceOf(change func(r *logv1.InstanceRecord)) *logv1.SnapshotRecord {
	r := &logv1.InstanceRecord{Instance: &quoratev1.Instance{Id: "i1", Revision: 3}, Session: "session-0123456789"}
	change(r)
	return &logv1.SnapshotRecord{Body: &logv1.SnapshotRecord_Instance{Instance: r}}
}

// TestRestoreDistrustsPartitions gives records of partitions and instances that are framed well and make no sense.
func TestRestoreDistrustsPartitions(t *testing.T) {
	clock := &logv1.SnapshotRecord{Body: &logv1.SnapshotRecord_Clock{Clock: &logv1.Clock{Now: uint64(5 * time.Second), Revision: 9}}}
	block, migration, group, registered := blockOf(func(*logv1.PartitionBlock) {}), migrationOf(func(*logv1.MigrationRecord) {}),
		groupOf(func(*logv1.PartitionsRecord) {}), instanceOf(func(*logv1.InstanceRecord) {})
	s, err := Restore(bytes.NewReader(framed(clock, group, block, migration, registered)))
	if err != nil {
		t.Fatalf("the good records are refused: %v", err)
	}
	roundTrip(t, s)
	for what, records := range map[string][]*logv1.SnapshotRecord{
		"no placement of one":           {blockOf(func(b *logv1.PartitionBlock) { b.Placements = b.Placements[:1] })},
		"no previous of one":            {blockOf(func(b *logv1.PartitionBlock) { b.Previous = b.Previous[:1] })},
		"no epoch of one":               {blockOf(func(b *logv1.PartitionBlock) { b.Epochs = b.Epochs[:1] })},
		"no revision of one":            {blockOf(func(b *logv1.PartitionBlock) { b.Revisions = b.Revisions[:1] })},
		"no barrier of one":             {blockOf(func(b *logv1.PartitionBlock) { b.DrainBarriers = b.DrainBarriers[:1] })},
		"an id less":                    {blockOf(func(b *logv1.PartitionBlock) { b.Ids = b.Ids[:1] })},
		"an id more":                    {blockOf(func(b *logv1.PartitionBlock) { b.Ids = append(b.Ids, "p3") })},
		"placement beyond the names":    {blockOf(func(b *logv1.PartitionBlock) { b.Placements[1] = 2 })},
		"placement far beyond":          {blockOf(func(b *logv1.PartitionBlock) { b.Placements[1] = 1<<32 - 1 })},
		"previous beyond the names":     {blockOf(func(b *logv1.PartitionBlock) { b.Previous[1] = 3 })},
		"previous far beyond":           {blockOf(func(b *logv1.PartitionBlock) { b.Previous[1] = 1<<32 - 1 })},
		"no names":                      {blockOf(func(b *logv1.PartitionBlock) { b.Names = nil })},
		"a name that is none":           {blockOf(func(b *logv1.PartitionBlock) { b.Names[0] = "Berlin" })},
		"a previous name that is none":  {blockOf(func(b *logv1.PartitionBlock) { b.Names[1] = "" })},
		"an id twice in a block":        {blockOf(func(b *logv1.PartitionBlock) { b.Ids[1] = "p1" })},
		"an id in two blocks":           {block, block},
		"an id that is none":            {blockOf(func(b *logv1.PartitionBlock) { b.Ids[0] = "P1" })},
		"no epoch":                      {blockOf(func(b *logv1.PartitionBlock) { b.Epochs[0] = 0 })},
		"epoch too high":                {blockOf(func(b *logv1.PartitionBlock) { b.Epochs[0] = MaxEpoch + 1 })},
		"no revision":                   {blockOf(func(b *logv1.PartitionBlock) { b.Revisions[0] = 0 })},
		"revision of the future":        {blockOf(func(b *logv1.PartitionBlock) { b.Revisions[0] = 10 })},
		"barrier too long":              {blockOf(func(b *logv1.PartitionBlock) { b.DrainBarriers[0] = uint64(MaxDrainBarrier) + 1 })},
		"barrier that wraps":            {blockOf(func(b *logv1.PartitionBlock) { b.DrainBarriers[0] = 1<<64 - 1 })},
		"migration before its block":    {migration, block},
		"migration without partition":   {migration},
		"migration twice":               {block, migration, migration},
		"migration without its message": {block, migrationOf(func(r *logv1.MigrationRecord) { r.Migration = nil })},
		"migration from elsewhere":      {block, migrationOf(func(r *logv1.MigrationRecord) { r.Migration.From = "attic" })},
		"migration to where it is":      {block, migrationOf(func(r *logv1.MigrationRecord) { r.Migration.To = "berlin" })},
		"migration to nowhere":          {block, migrationOf(func(r *logv1.MigrationRecord) { r.Migration.To = "" })},
		"cutover of another epoch":      {block, migrationOf(func(r *logv1.MigrationRecord) { r.Migration.CutoverEpoch = 1 })},
		"cutover of another revision":   {block, migrationOf(func(r *logv1.MigrationRecord) { r.Migration.CutoverRevision = 1 })},
		"barrier of one that drains":    {block, migrationOf(func(r *logv1.MigrationRecord) { r.Migration.CutoverEpoch, r.Migration.CutoverRevision = 0, 0 })},
		"barrier begun in the future":   {block, migrationOf(func(r *logv1.MigrationRecord) { r.Migration.BarrierBegun = durationpb.New(6 * time.Second) })},
		"barrier begun before time":     {block, migrationOf(func(r *logv1.MigrationRecord) { r.Migration.BarrierBegun = durationpb.New(-1) })},
		"barrier passed too soon":       {block, migrationOf(func(r *logv1.MigrationRecord) { r.BarrierPassed = true })},
		"barrier below the least":       {block, migrationOf(func(r *logv1.MigrationRecord) { r.Migration.DrainBarrier = durationpb.New(29 * time.Second) })},
		"barrier above the most":        {block, migrationOf(func(r *logv1.MigrationRecord) { r.Migration.DrainBarrier = durationpb.New(MaxDrainBarrier + 1) })},
		"what is left is stored":        {block, migrationOf(func(r *logv1.MigrationRecord) { r.Migration.BarrierLeft = durationpb.New(1) })},
		"migration from the future":     {block, migrationOf(func(r *logv1.MigrationRecord) { r.Migration.Begun = durationpb.New(time.Hour) })},
		"too many servers": {block, migrationOf(func(r *logv1.MigrationRecord) {
			r.Migration.Servers = slices.Repeat([]string{"m1"}, MaxMigrationServers+1)
		})},
		"group twice":                   {group, group},
		"group without settings":        {groupOf(func(r *logv1.PartitionsRecord) { r.Settings = nil })},
		"least above the default":       {groupOf(func(r *logv1.PartitionsRecord) { r.Settings.MinDrainBarrier = durationpb.New(time.Minute) })},
		"least too short":               {groupOf(func(r *logv1.PartitionsRecord) { r.Settings.MinDrainBarrier = durationpb.New(MinDrainBarrier - 1) })},
		"default too long":              {groupOf(func(r *logv1.PartitionsRecord) { r.Settings.DrainBarrier = durationpb.New(MaxDrainBarrier + 1) })},
		"negative floor":                {groupOf(func(r *logv1.PartitionsRecord) { r.Settings.EarlyFloor = durationpb.New(-1) })},
		"floor too long":                {groupOf(func(r *logv1.PartitionsRecord) { r.Settings.EarlyFloor = durationpb.New(MaxDrainBarrier + 1) })},
		"gate TTL too short":            {groupOf(func(r *logv1.PartitionsRecord) { r.Settings.GateTtl = durationpb.New(MinGateTTL - 1) })},
		"gate TTL too long":             {groupOf(func(r *logv1.PartitionsRecord) { r.Settings.GateTtl = durationpb.New(MaxGateTTL + 1) })},
		"former TTL too long":           {groupOf(func(r *logv1.PartitionsRecord) { r.FormerGateTtl = durationpb.New(MaxGateTTL + 1) })},
		"former TTL never lowered":      {groupOf(func(r *logv1.PartitionsRecord) { r.GateTtlLowered = nil })},
		"lowered from no former TTL":    {groupOf(func(r *logv1.PartitionsRecord) { r.FormerGateTtl = nil })},
		"lowered in the future":         {groupOf(func(r *logv1.PartitionsRecord) { r.GateTtlLowered = durationpb.New(time.Hour) })},
		"lowered at two times":          {groupOf(func(r *logv1.PartitionsRecord) { r.GateTtlLoweredRevision = 3 })},
		"floor of epochs too high":      {groupOf(func(r *logv1.PartitionsRecord) { r.EpochFloor = MaxEpoch + 1 })},
		"undrained and none gone":       {groupOf(func(r *logv1.PartitionsRecord) { r.Gone = nil })},
		"gone in the future":            {groupOf(func(r *logv1.PartitionsRecord) { r.Gone = durationpb.New(6 * time.Second) })},
		"gone before time":              {groupOf(func(r *logv1.PartitionsRecord) { r.Gone = durationpb.New(-1) })},
		"gone at a revision to come":    {groupOf(func(r *logv1.PartitionsRecord) { r.Gone, r.GoneRevision = nil, 10 })},
		"undrained longer than a lease": {groupOf(func(r *logv1.PartitionsRecord) { r.Undrained, r.UndrainedRevision = durationpb.New(time.Minute), 0 })},
		"instance twice":                {registered, registered},
		"instance without its message":  {instanceOf(func(r *logv1.InstanceRecord) { r.Instance = nil })},
		"instance without id":           {instanceOf(func(r *logv1.InstanceRecord) { r.Instance.Id = "" })},
		"instance without session":      {instanceOf(func(r *logv1.InstanceRecord) { r.Session = "" })},
		"instance with a bad session":   {instanceOf(func(r *logv1.InstanceRecord) { r.Session = "session 0123456789" })},
		"instance of no revision":       {instanceOf(func(r *logv1.InstanceRecord) { r.Instance.Revision = 0 })},
		"instance from the future":      {instanceOf(func(r *logv1.InstanceRecord) { r.Instance.Revision = 10 })},
	} {
		if s, err := Restore(bytes.NewReader(framed(append([]*logv1.SnapshotRecord{clock}, records...)...))); s != nil || !errors.Is(err, ErrCorrupt) {
			t.Errorf("%s: state %t, error %v", what, s != nil, err)
		}
	}
	// Partitions and names in another order, and names that nobody uses, are odd and harmless: what is written next is in order.
	odd := blockOf(func(b *logv1.PartitionBlock) {
		slices.Reverse(b.Ids)
		b.Names = append([]string{"unused"}, b.Names...)
		b.Placements, b.Previous = []uint32{1, 1}, []uint32{0, 3}
	})
	s, err = Restore(bytes.NewReader(framed(clock, odd)))
	if err != nil {
		t.Fatal(err)
	}
	if _, counted := s.partitions.placements.Get("unused"); counted {
		t.Error("a name that nobody uses is counted")
	}
	roundTrip(t, s)
}

// TestPartitionsInManyBlocks brings partitions with all kinds of columns through a snapshot of several blocks. Their placements share one copy of each name.
func TestPartitionsInManyBlocks(t *testing.T) {
	s := New()
	const count = 3*partitionsInBlock + 17
	for i := 0; i < count; i += MaxPartitionBatch {
		ids := make([]string, 0, MaxPartitionBatch)
		for j := i; j < min(i+MaxPartitionBatch, count); j++ {
			ids = append(ids, partitionID(j))
		}
		apply(t, s, 0, createPartitions(partitionID(i), "north", ids...))
	}
	for i := 0; i < count; i += 5 {
		apply(t, s, 0, setPlacement("s"+partitionID(i), partitionID(i), []string{"south", "west", "east"}[i%3]))
	}
	for i := 0; i < count; i += 1000 {
		apply(t, s, 0, beginMigration("b"+partitionID(i), partitionID(i), "far"))
	}
	restored := roundTrip(t, s)
	for _, s := range []*State{s, restored} {
		copies := map[string]*byte{}
		for id, p := range s.partitions.byID.All() {
			for _, name := range []string{p.placement, p.previous} {
				if name == "" {
					continue
				}
				if first := unsafe.StringData(name); copies[name] == nil {
					copies[name] = first
				} else if copies[name] != first {
					t.Fatalf("partition %s has a copy of its own of the name %s", id, name)
				}
			}
		}
		if len(copies) != 4 {
			t.Errorf("%d names", len(copies))
		}
	}
	blocks := 0
	for _, r := range recordsOf(t, write(t, s)) {
		if b := r.GetPartitions(); b != nil {
			blocks++
			if len(b.GetIds()) > partitionsInBlock || !slices.IsSorted(b.GetIds()) {
				t.Errorf("a block of %d partitions, in order %t", len(b.GetIds()), slices.IsSorted(b.GetIds()))
			}
		}
	}
	if blocks != 4 {
		t.Errorf("%d blocks", blocks)
	}
}

// recordsOf returns the records of a snapshot.
func recordsOf(t *testing.T, snapshot []byte) (records []*logv1.SnapshotRecord) {
	in := &snapshotReader{in: bufio.NewReader(bytes.NewReader(snapshot)), sum: crc32.New(castagnoli)}
	if err := in.header(); err != nil {
		t.Fatal(err)
	}
	for {
		body, err := in.next()
		if err != nil {
			t.Fatal(err)
		}
		if body == nil {
			return records
		}
		r := &logv1.SnapshotRecord{}
		if err := proto.Unmarshal(body, r); err != nil {
			t.Fatal(err)
		}
		records = append(records, r)
	}
}

// TestLongestBlockFits writes a block of the longest ids and names: it stays below MaxRecordBytes.
func TestLongestBlockFits(t *testing.T) {
	b := &logv1.PartitionBlock{}
	long := func(i int) string {
		return "x" + partitionID(i) + string(bytes.Repeat([]byte("y"), MaxIDBytes-1-len(partitionID(i))))
	}
	for i := range partitionsInBlock {
		b.Ids, b.Names = append(b.Ids, long(i)), append(b.Names, long(i), long(i+partitionsInBlock))
		b.Placements, b.Previous = append(b.Placements, uint32(2*i)), append(b.Previous, uint32(2*i+2))
		b.Epochs, b.Revisions, b.DrainBarriers = append(b.Epochs, 1<<63), append(b.Revisions, 1<<63), append(b.DrainBarriers, uint64(MaxDrainBarrier))
	}
	if n := proto.Size(b); n > MaxRecordBytes/2 {
		t.Errorf("the longest block has %d bytes, and a record at most %d", n, MaxRecordBytes)
	}
}
