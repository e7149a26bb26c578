package fsm

import (
	quoratev1 "quorate/proto/quorate/v1"
)

// PlacementCount returns how many placements own a partition or are to get one.
func (s *State) PlacementCount() int { return s.partitions.placements.Len() }

// PlacementPage returns the placements that come after the given one, at most limit, in order of their ids, and whether there are more.
func (s *State) PlacementPage(after string, limit int) (found []*quoratev1.Placement, more bool) {
	for name, c := range s.partitions.placements.From(after) {
		switch {
		case name == after:
			continue
		case len(found) == limit:
			return found, true
		}
		found = append(found, &quoratev1.Placement{Id: name, Partitions: c.owned, Leaving: c.leaving, Coming: c.coming})
	}
	return found, false
}

// InstancePage is PlacementPage for the registered instances.
func (s *State) InstancePage(after string, limit int) (found []*quoratev1.Instance, more bool) {
	for id, i := range s.instances.byID.From(after) {
		switch {
		case id == after:
			continue
		case len(found) == limit:
			return found, true
		}
		found = append(found, i.record)
	}
	return found, false
}
