package fsm

import (
	"bytes"
	"fmt"
	"io"
	"runtime"
	"testing"
	"time"

	logv1 "quorate/proto/quorate/log/v1"
)

// BenchmarkApplyEntry applies entries of 64 commands of clients, each with a new request id, to a state whose request memory is
// full: the work of the state machine at its busiest. It reports commands, not entries.
func BenchmarkApplyEntry(b *testing.B) {
	s := crowded(b)
	entries := make([]*logv1.Entry, 4096)
	for i := range entries {
		entries[i] = &logv1.Entry{}
		for j := range 64 {
			entries[i].Commands = append(entries[i].Commands, public(fmt.Sprint("n", i, ".", j), &logv1.Command{
				Body: &logv1.Command_SetMaintenance{SetMaintenance: &logv1.SetMaintenance{Server: "m1", Active: j%2 == 0}}}))
		}
	}
	b.ReportAllocs()
	for b.Loop() {
		if _, _, err := s.ApplyEntry(s.Revision()+1, entries[s.Revision()%uint64(len(entries))]); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.N)*64/b.Elapsed().Seconds(), "commands/s")
}

func BenchmarkState(b *testing.B) {
	s := crowded(b)
	snapshot := write(b, s)
	b.Run("Snapshot", func(b *testing.B) {
		for b.Loop() {
			s.Snapshot()
		}
	})
	b.Run("Digest", func(b *testing.B) {
		for b.Loop() {
			s.Digest()
		}
	})
	benchmarkSnapshot(b, s, snapshot)
}

// crowded returns a state that remembers MaxRequests answers.
func crowded(b *testing.B) *State {
	b.Helper()
	s := New()
	e := &logv1.Entry{Commands: []*logv1.Command{sync("m1", "m2"), publish("p", 0, pair("m1", "m2"))}}
	for i := range MaxRequests {
		e.Commands = append(e.Commands, public(fmt.Sprint("r", i), &logv1.Command{
			Body: &logv1.Command_SetMaintenance{SetMaintenance: &logv1.SetMaintenance{Server: "m1", Active: i%2 == 0}}}))
	}
	if _, _, err := s.ApplyEntry(1, e); err != nil {
		b.Fatal(err)
	}
	return s
}

// millionPartitions is how many partitions a group has to hold (partitions.md §5).
const millionPartitions = 1_000_000

// BenchmarkMillionPartitions is what platform.md §9 asks of a million records: a capture in a millisecond (aim 10 µs), a write in a second (300 ms), a restore in
// one and a half (500 ms), and a KiB for each (300 B); and what each look-up and each transition costs at that size.
func BenchmarkMillionPartitions(b *testing.B) {
	before := heap()
	s := million(b)
	made := heap() - before
	snapshot := write(b, s)
	before = heap()
	restored, err := Restore(bytes.NewReader(snapshot))
	if err != nil {
		b.Fatal(err)
	}
	reread := heap() - before
	b.Run("Capture", func(b *testing.B) {
		for b.Loop() {
			s.Snapshot()
		}
		b.ReportMetric(float64(made)/millionPartitions, "B/partition")
		b.ReportMetric(float64(reread)/millionPartitions, "B/restored-partition")
	})
	runtime.KeepAlive(restored)
	benchmarkSnapshot(b, s, snapshot)
	b.Run("Digest", func(b *testing.B) {
		for b.Loop() {
			s.Digest()
		}
	})
	b.Run("Resolve", func(b *testing.B) { benchmarkResolve(b, s) })
	b.Run("SetPlacement", func(b *testing.B) { benchmarkSetPlacement(b, s) })
}

// scattered is the number of the i-th partition in an order that never comes to a neighbour.
func scattered(i int) int { return i * 7919 % millionPartitions }

func benchmarkResolve(b *testing.B, s *State) {
	ids := make([]string, 1<<16)
	for i := range ids {
		ids[i] = partitionID(scattered(i))
	}
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		if s.Resolve(ids[i%len(ids)]).GetEpoch() == 0 {
			b.Fatal("there is no such partition")
		}
	}
}

// benchmarkSetPlacement gives one partition after the other another owner, 64 in an entry, and reports commands. The request memory fills on the way.
func benchmarkSetPlacement(b *testing.B, s *State) {
	entries := make([]*logv1.Entry, 4096)
	for i := range entries {
		entries[i] = &logv1.Entry{}
		for j := range 64 {
			entries[i].Commands = append(entries[i].Commands, setPlacement("", partitionID(scattered(i*64+j)), ""))
		}
	}
	at := 0
	b.ReportAllocs()
	for b.Loop() {
		e := entries[at%len(entries)]
		placement := fmt.Sprint("other-", at/len(entries)%16)
		for j, c := range e.GetCommands() {
			c.RequestId, c.GetSetPlacement().Placement = fmt.Sprint("s", at, ".", j), placement
		}
		at++
		outcomes, _, err := s.ApplyEntry(s.Revision()+1, e)
		if err != nil || RefusalOf(outcomes[0]) != nil {
			b.Fatal(err, outcomes[0])
		}
	}
	b.ReportMetric(float64(b.N)*64/b.Elapsed().Seconds(), "commands/s")
}

// million returns a state with a million partitions at 16 placements, and nothing else that counts.
func million(tb testing.TB) *State {
	tb.Helper()
	s := New()
	for i := 0; i < millionPartitions; i += MaxPartitionBatch {
		fillPartitions(tb, s, i, i+MaxPartitionBatch, fmt.Sprint("historian-", i/MaxPartitionBatch%16))
	}
	apply(tb, s, RequestMemory+time.Second, &logv1.Command{Body: &logv1.Command_Tick{Tick: &logv1.Tick{}}})
	return s
}

// heap returns the bytes of what lives.
func heap() uint64 {
	runtime.GC()
	runtime.GC() // What a finaliser held goes with the second one.
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// benchmarkSnapshot writes a state, and restores what it writes.
func benchmarkSnapshot(b *testing.B, s *State, snapshot []byte) {
	b.Run("WriteTo", func(b *testing.B) {
		b.SetBytes(int64(len(snapshot)))
		for b.Loop() {
			if _, err := s.WriteTo(io.Discard); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("Restore", func(b *testing.B) {
		b.SetBytes(int64(len(snapshot)))
		for b.Loop() {
			if _, err := Restore(bytes.NewReader(snapshot)); err != nil {
				b.Fatal(err)
			}
		}
	})
}
