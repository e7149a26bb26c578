package space

import (
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
)

func TestChangedCallsWhoSubscribed(t *testing.T) {
	s, _ := world(t)
	a, b, c := NumericKey(1, 1), StringKey(1, "b"), StringKey(1, "c")
	var gotA, gotA2, gotB int
	cancelA := s.Subscribe(a, func() { gotA++ })
	cancelA2 := s.Subscribe(a, func() { gotA2++ })
	s.Subscribe(b, func() { gotB++ })

	s.Changed(a)
	s.Changed(a, b, c)
	if gotA != 2 || gotA2 != 2 || gotB != 1 {
		t.Errorf("calls %d, %d, %d, want 2, 2, 1", gotA, gotA2, gotB)
	}
	cancelA()
	cancelA()
	s.Changed(a)
	if gotA != 2 || gotA2 != 3 {
		t.Errorf("after cancelling the first: %d, %d, want 2, 3", gotA, gotA2)
	}
	cancelA2()
	s.Changed(a)
	if gotA2 != 3 {
		t.Error("called after cancel")
	}
	if sh := s.watchers.shard(a); len(sh.nodes) != 0 && sh != s.watchers.shard(b) {
		t.Errorf("%d nodes are still watched", len(sh.nodes))
	}
}

// A function that is called may itself subscribe, cancel and announce changes.
func TestChangedHoldsNoLock(t *testing.T) {
	s, _ := world(t)
	a := NumericKey(1, 1)
	calls := 0
	var cancel func()
	cancel = s.Subscribe(a, func() {
		calls++
		cancel()
		s.Subscribe(a, func() { calls += 10 })
		s.Changed(a)
	})
	s.Changed(a)
	if calls != 11 {
		t.Errorf("calls add up to %d, want 11", calls)
	}
}

func TestChangedDoesNotAllocate(t *testing.T) {
	s, _ := world(t)
	a := NumericKey(1, 1)
	n := 0
	for range 1000 {
		s.Subscribe(a, func() { n++ })
	}
	s.Changed(a)
	if allocs := testing.AllocsPerRun(10, func() { s.Changed(a) }); allocs != 0 {
		t.Errorf("%v allocations per change", allocs)
	}
	if n != 1000*12 {
		t.Errorf("%d calls, want %d", n, 1000*12)
	}
}

// A change that begins after Subscribe has returned is always heard of, whatever others do meanwhile.
func TestNoChangeIsLost(t *testing.T) {
	s, _ := world(t)
	var wg sync.WaitGroup
	for i := range uint32(8) {
		wg.Go(func() {
			k := NumericKey(1, i%4)
			for range 500 {
				var heard atomic.Int64
				cancel := s.Subscribe(k, func() { heard.Add(1) })
				s.Changed(k)
				if heard.Load() == 0 {
					t.Error("a change was lost")
				}
				cancel()
			}
		})
	}
	wg.Wait()
	for i := range s.watchers {
		if n := len(s.watchers[i].nodes); n != 0 {
			t.Errorf("shard %d still watches %d nodes", i, n)
		}
	}
}

func TestChangedWhere(t *testing.T) {
	s, _ := world(t)
	var told []string
	for i := range 200 {
		k := StringKey(uint16(i%2), "n"+strconv.Itoa(i))
		defer s.Subscribe(k, func() { told = append(told, k.String()) })()
	}
	s.Subscribe(StringKey(1, "gone"), func() { t.Error("told though it is cancelled") })()
	s.ChangedWhere(func(k Key) bool { return k.Namespace() == 1 })
	slices.Sort(told)
	if len(told) != 100 || len(slices.Compact(told)) != 100 || slices.ContainsFunc(told, func(k string) bool { return !strings.HasPrefix(k, "ns=1;") }) {
		t.Errorf("%d were told: %q", len(told), told)
	}
}
