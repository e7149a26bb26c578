package devgroup

import (
	"maps"
	"sync"
	"time"

	"quorate/sim"
)

// stores are the placements as a real upstream has them: whoever writes may write anywhere at any time, and nothing but the gates keeps him from doing so
// in the wrong place. They know by when a write has to land, and refuse what comes later.
type stores struct {
	ledger *sim.Ledger

	mu   sync.Mutex
	data map[place]map[uint64]bool
	// mirror has, by where they are copied from, the partitions that are.
	mirror map[place]string
	// cut has the partitions of which the cutover has returned.
	cut                   map[string]bool
	landed, late, drained int
}

// place is a partition at a placement.
type place struct{ partition, placement string }

func newStores(ledger *sim.Ledger) *stores {
	return &stores{ledger: ledger, data: map[place]map[uint64]bool{}, mirror: map[place]string{}, cut: map[string]bool{}}
}

// land writes a key, and says whether that came in time. Once it has, it is acknowledged.
func (s *stores) land(who string, at place, epoch, key uint64, deadline time.Time) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	if !now.Before(deadline) {
		s.late++
		return false
	}
	s.put(at, key)
	if to := s.mirror[at]; to != "" {
		s.put(place{at.partition, to}, key)
	}
	s.landed++
	if s.cut[at.partition] {
		s.drained++
	}
	s.ledger.Landed(who, at.partition, at.placement, epoch, now)
	return true
}

func (s *stores) put(at place, key uint64) {
	if s.data[at] == nil {
		s.data[at] = map[uint64]bool{}
	}
	s.data[at][key] = true
}

// copyTo copies a partition, and from then on whatever comes, as an operator's tool does.
func (s *stores) copyTo(at place, to string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.mirror[at] = to
	s.data[place{at.partition, to}] = maps.Clone(s.data[at])
}

// endCopy ends that: what comes to the old placement from now on is lost.
func (s *stores) endCopy(at place) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.mirror, at)
}

// cutOver notes that nobody may be let in any more, so that whatever lands was in flight.
func (s *stores) cutOver(partition string, cut bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.cut[partition] = cut
}

// drop takes away what a placement has of a partition that is not, or no longer, its own.
func (s *stores) drop(at place) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.data, at)
}

// lost counts the keys that are not where their partition lives.
func (s *stores) lost(at place, keys []uint64) (n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, key := range keys {
		if !s.data[at][key] {
			n++
		}
	}
	return n
}
