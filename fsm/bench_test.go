package fsm

import (
	"bytes"
	"fmt"
	"io"
	"testing"

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
