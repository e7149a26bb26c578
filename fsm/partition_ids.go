package fsm

import (
	"iter"

	"quorate/fsm/tree"
)

// The cheapest queries of partitions: who shows a page of a million wants ids, and looks at few of the records.

// PartitionIDs returns the ids of the partitions that come after one, in order; of all of them if it is empty.
func (s *State) PartitionIDs(after string) iter.Seq[string] {
	return idsAfter(&s.partitions.byID, after)
}

// HasPartition says whether there is a partition.
func (s *State) HasPartition(id string) bool { return s.partitions.byID.Has(id) }

// MigratingIDs is PartitionIDs for those that migrate.
func (s *State) MigratingIDs(after string) iter.Seq[string] {
	return idsAfter(&s.partitions.migrating, after)
}

// Migrates says whether a partition migrates.
func (s *State) Migrates(id string) bool { return s.partitions.migrating.Has(id) }

// RunningBarriers returns the ids of the partitions whose drain barrier has begun and not passed, in the order in which they will.
func (s *State) RunningBarriers() iter.Seq[string] {
	return func(yield func(string) bool) {
		for end := range s.partitions.barriers.ends.All() {
			if !yield(end.id) {
				return
			}
		}
	}
}

func idsAfter[V any](m *tree.Map[string, V], after string) iter.Seq[string] {
	return func(yield func(string) bool) {
		for id := range m.From(after) {
			if id != after && !yield(id) {
				return
			}
		}
	}
}
