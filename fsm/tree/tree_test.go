package tree

import (
	"cmp"
	"fmt"
	"iter"
	"maps"
	"math/rand/v2"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"

	"pgregory.net/rapid"
)

// check returns what is wrong with the shape of a map, nil if nothing.
func (m *Map[K, V]) check() error {
	if m.root == nil {
		if m.length != 0 {
			return fmt.Errorf("no root, but length %d", m.length)
		}
		return nil
	}
	depth, count := -1, 0
	var walk func(n *node[K, V], level int) error
	walk = func(n *node[K, V], level int) error {
		count += len(n.keys)
		switch {
		case len(n.keys) == 0 || len(n.keys) > maxItems || len(n.vals) != len(n.keys):
			return fmt.Errorf("a node has %d keys and %d values", len(n.keys), len(n.vals))
		case n.leaf() && depth >= 0 && depth != level:
			return fmt.Errorf("leaves at depth %d and %d", depth, level)
		case n.leaf():
			depth = level
			for i, key := range n.keys {
				if m.tag != nil && n.tags[i] != m.tag(key) {
					return fmt.Errorf("key %v has tag %d, and should have %d", key, n.tags[i], m.tag(key))
				}
			}
			return nil
		case len(n.children) != len(n.keys)+1:
			return fmt.Errorf("a node has %d keys and %d children", len(n.keys), len(n.children))
		}
		for _, c := range n.children {
			if err := walk(c, level+1); err != nil {
				return err
			}
		}
		return nil
	}
	if err := walk(m.root, 0); err != nil {
		return err
	}
	if count != m.length {
		return fmt.Errorf("%d items, but length %d", count, m.length)
	}
	return nil
}

func keys[K, V any](seq iter.Seq2[K, V]) []K {
	found := []K{}
	for k := range seq {
		found = append(found, k)
	}
	return found
}

// expect compares a map with a model in every way that it can be read.
func expect(t *rapid.T, what string, m *Map[int, string], model map[int]string, at int) {
	if err := m.check(); err != nil {
		t.Fatalf("%s: %v", what, err)
	}
	sorted := slices.Sorted(maps.Keys(model))
	backward := slices.Clone(sorted)
	slices.Reverse(backward)
	i, _ := slices.BinarySearch(sorted, at)
	before := slices.Clone(sorted[:i])
	slices.Reverse(before)
	for _, c := range []struct {
		name      string
		got, want []int
	}{
		{"All", keys(m.All()), sorted},
		{"Backward", keys(m.Backward()), backward},
		{"From", keys(m.From(at)), sorted[i:]},
		{"Before", keys(m.Before(at)), before},
	} {
		if !slices.Equal(c.got, c.want) {
			t.Fatalf("%s: %s(%d) = %v, want %v", what, c.name, at, c.got, c.want)
		}
	}
	for k, v := range m.All() {
		if got, ok := m.Get(k); !ok || got != v || v != model[k] {
			t.Fatalf("%s: key %d has %q and %q, want %q", what, k, v, got, model[k])
		}
	}
	if _, has := model[at]; m.Has(at) != has || m.Len() != len(model) {
		t.Fatalf("%s: Has(%d) = %t with length %d, want %t with %d", what, at, m.Has(at), m.Len(), has, len(model))
	}
	first, _, some := m.First()
	last, _, _ := m.Last()
	if some != (len(sorted) > 0) || some && (first != sorted[0] || last != backward[0]) {
		t.Fatalf("%s: from %d to %d, want %v", what, first, last, sorted)
	}
}

// TestModel changes several maps, which are snapshots of each other, at random, and compares each with a Go map of its own.
func TestModel(t *testing.T) {
	t.Run("plain", func(t *testing.T) { testModel(t, nil) })
	// A third of the keys of a leaf have one tag.
	t.Run("tagged", func(t *testing.T) { testModel(t, thirds) })
}

func thirds(key int) uint8 { return uint8(key % 3) }

func testModel(t *testing.T, tag func(int) uint8) {
	rapid.Check(t, func(t *rapid.T) {
		type pair struct {
			m     *Map[int, string]
			model map[int]string
		}
		fresh := New[int, string](cmp.Compare[int])
		fresh.tag = tag
		pairs := []pair{{&fresh, map[int]string{}}}
		key := rapid.IntRange(0, 400)
		pick := func(t *rapid.T) pair { return pairs[rapid.IntRange(0, len(pairs)-1).Draw(t, "map")] }
		t.Repeat(map[string]func(*rapid.T){
			"fill": func(t *rapid.T) {
				p, from, step := pick(t), key.Draw(t, "from"), rapid.SampledFrom([]int{1, -1, 7}).Draw(t, "step")
				for i := range 150 {
					k := ((from+i*step)%401 + 401) % 401
					p.m.Set(k, "filled")
					p.model[k] = "filled"
				}
			},
			"clear": func(t *rapid.T) {
				p, from := pick(t), key.Draw(t, "from")
				for k := from; k < from+150; k++ {
					_, had := p.model[k]
					if p.m.Delete(k) != had {
						t.Fatalf("Delete(%d) = %t", k, !had)
					}
					delete(p.model, k)
				}
			},
			"set": func(t *rapid.T) {
				p, k, v := pick(t), key.Draw(t, "key"), rapid.StringN(0, 2, 8).Draw(t, "value")
				_, had := p.model[k]
				if p.m.Set(k, v) != had {
					t.Fatalf("Set(%d) = %t", k, !had)
				}
				p.model[k] = v
			},
			"delete": func(t *rapid.T) {
				p, k := pick(t), key.Draw(t, "key")
				p.m.Delete(k)
				delete(p.model, k)
			},
			"snapshot": func(t *rapid.T) {
				p := pick(t)
				if len(pairs) < 4 {
					s := p.m.Snapshot()
					pairs = append(pairs, pair{&s, maps.Clone(p.model)})
				}
			},
			"": func(t *rapid.T) {
				for i, p := range pairs {
					expect(t, fmt.Sprintf("map %d", i), p.m, p.model, key.Draw(t, "at"))
				}
			},
		})
	})
}

// TestDrain empties a deep map from both ends and at random, so that every way of refilling a node is taken.
func TestDrain(t *testing.T) {
	const n = 20_000
	random := rand.New(rand.NewPCG(1, 2))
	for name, order := range map[string][]int{
		"forward":  slices.Collect(count(0, n, 1)),
		"backward": slices.Collect(count(n-1, -1, -1)),
		"random":   random.Perm(n),
	} {
		m := New[int, int](cmp.Compare[int])
		m.tag = thirds
		for _, k := range random.Perm(n) {
			m.Set(k, k)
		}
		whole := m.Snapshot()
		for i, k := range order {
			if !m.Delete(k) {
				t.Fatalf("%s: %d was not there", name, k)
			}
			if i%997 == 0 || m.Len() < 100 {
				if err := m.check(); err != nil {
					t.Fatalf("%s: after %d deletions: %v", name, i+1, err)
				}
			}
		}
		if m.Len() != 0 || m.root != nil {
			t.Fatalf("%s: %d items left", name, m.Len())
		}
		if got := keys(whole.All()); !slices.Equal(got, slices.Collect(count(0, n, 1))) || whole.check() != nil {
			t.Fatalf("%s: the snapshot changed: %d items, %v", name, len(got), whole.check())
		}
	}
}

func count(from, to, step int) iter.Seq[int] {
	return func(yield func(int) bool) {
		for i := from; i != to && yield(i); i += step {
		}
	}
}

// TestStrings compares a map of strings of all lengths, many of which differ only where no tag looks, with a Go map.
func TestStrings(t *testing.T) {
	random := rand.New(rand.NewPCG(5, 6))
	m, model := NewStrings[int](), map[string]int{}
	key := func() string {
		return fmt.Sprint(random.IntN(50)) + strings.Repeat("x", random.IntN(30)) + fmt.Sprint(random.IntN(3))[:random.IntN(2)]
	}
	for i := range 20_000 {
		k := key()
		if random.IntN(3) == 0 {
			_, had := model[k]
			if m.Delete(k) != had {
				t.Fatalf("Delete(%q) = %t", k, !had)
			}
			delete(model, k)
		} else {
			m.Set(k, i)
			model[k] = i
		}
		other := key()
		want, has := model[other]
		if got, ok := m.Get(other); ok != has || got != want {
			t.Fatalf("Get(%q) = %d %t, want %d %t", other, got, ok, want, has)
		}
	}
	if err := m.check(); err != nil || !slices.Equal(keys(m.All()), slices.Sorted(maps.Keys(model))) {
		t.Errorf("%d keys, want %d; %v", m.Len(), len(model), err)
	}
	tags := map[uint8]int{}
	for i := range 10_000 {
		tags[tagOf(fmt.Sprintf("plant-7.tag-%07d", i))]++
	}
	for tag, n := range tags {
		if len(tags) != 256 || n > 100 {
			t.Fatalf("%d tags, and %d of 10000 ids have %d", len(tags), n, tag)
		}
	}
}

// TestStopEarly breaks out of every iteration after a few items.
func TestStopEarly(t *testing.T) {
	m := New[int, int](cmp.Compare[int])
	for i := range 1000 {
		m.Set(i, i)
	}
	for name, c := range map[string]struct {
		seq  iter.Seq2[int, int]
		want []int
	}{
		"All":      {m.All(), []int{0, 1, 2}},
		"Backward": {m.Backward(), []int{999, 998, 997}},
		"From":     {m.From(500), []int{500, 501, 502}},
		"Before":   {m.Before(500), []int{499, 498, 497}},
	} {
		for n := 1; n <= 3; n++ {
			var got []int
			for k := range c.seq {
				if got = append(got, k); len(got) == n {
					break
				}
			}
			if !slices.Equal(got, c.want[:n]) {
				t.Errorf("%s gave %v, want %v", name, got, c.want[:n])
			}
		}
	}
}

// TestSnapshotConcurrently reads a snapshot, and takes snapshots of it, in several goroutines while the map changes. The race
// detector is the judge.
func TestSnapshotConcurrently(t *testing.T) {
	m := New[int, int](cmp.Compare[int])
	for i := range 5000 {
		m.Set(i, i)
	}
	snapshot := m.Snapshot()
	var readers sync.WaitGroup
	for range 4 {
		readers.Go(func() {
			own := snapshot.Snapshot()
			sum := 0
			for _, v := range own.All() {
				sum += v
			}
			own.Set(7, 0) // A fork of a snapshot changes nothing of it.
			if sum != 5000*4999/2 {
				t.Errorf("the snapshot's values add up to %d", sum)
			}
		})
	}
	for i := range 5000 {
		m.Set(i, -1)
		m.Delete(i / 2)
	}
	readers.Wait()
	if v, _ := snapshot.Get(7); v != 7 {
		t.Errorf("the snapshot's key 7 is %d", v)
	}
}

// TestMemory holds the map to its promise of being lean: what a million records may cost is a requirement (platform.md §9).
func TestMemory(t *testing.T) {
	const n = 100_000
	ids := make([]string, n)
	for i := range ids {
		ids[i] = fmt.Sprintf("device-%06d", i)
	}
	for name, c := range map[string]struct {
		order []int
		limit uint64 // Bytes an item, of which 24 are the key and the value themselves.
	}{
		"sorted": {slices.Collect(count(0, n, 1)), 32},
		"random": {rand.New(rand.NewPCG(3, 4)).Perm(n), 48},
	} {
		m := New[string, *int](strings.Compare)
		before := heap()
		for _, i := range c.order {
			m.Set(ids[i], nil)
		}
		per := (heap() - before) / n
		if per > c.limit {
			t.Errorf("%s: %d bytes an item, at most %d wanted", name, per, c.limit)
		}
		t.Logf("%s: %d bytes an item", name, per)
		runtime.KeepAlive(&m)
	}
}

func heap() uint64 {
	runtime.GC()
	var stats runtime.MemStats
	runtime.ReadMemStats(&stats)
	return stats.HeapAlloc
}

func BenchmarkGet(b *testing.B) {
	m, ids := million()
	for i := 0; b.Loop(); i++ {
		m.Get(ids[i*7919%len(ids)])
	}
}

func BenchmarkSet(b *testing.B) {
	m, ids := million()
	for i := 0; b.Loop(); i++ {
		m.Set(ids[i*7919%len(ids)], nil)
	}
}

// BenchmarkSetAfterSnapshot takes a snapshot before every change: the worst case of copying.
func BenchmarkSetAfterSnapshot(b *testing.B) {
	m, ids := million()
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		m.Snapshot()
		m.Set(ids[i*7919%len(ids)], nil)
	}
}

func BenchmarkSnapshot(b *testing.B) {
	m, _ := million()
	for b.Loop() {
		m.Snapshot()
	}
}

func BenchmarkAll(b *testing.B) {
	m, _ := million()
	for b.Loop() {
		for range m.All() {
		}
	}
}

func million() (Map[string, *int], []string) {
	m := NewStrings[*int]()
	ids := make([]string, 1_000_000)
	for i := range ids {
		ids[i] = fmt.Sprintf("device-%07d", i)
		m.Set(ids[i], nil)
	}
	return m, ids
}
