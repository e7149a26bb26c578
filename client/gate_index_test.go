package client

import (
	"fmt"
	"sync"
	"sync/atomic"
	"testing"

	"pgregory.net/rapid"

	quoratev1 "quorate/proto/quorate/v1"
)

func entryOf(partition string) *entry {
	e := &entry{resolution: &quoratev1.Resolution{Partition: partition}}
	e.length = uint8(copy(e.id[:], partition))
	return e
}

// TestIndexAgainstMap compares the index with a map, through growth and sweeping.
func TestIndexAgainstMap(t *testing.T) {
	ids := names(1200)
	rapid.Check(t, func(t *rapid.T) {
		var x index
		x.clear(nil)
		model := map[string]*entry{}
		many := func(t *rapid.T, do func(id string)) {
			from, step := rapid.IntRange(0, len(ids)-1).Draw(t, "from"), rapid.IntRange(1, len(ids)-1).Draw(t, "step")
			for i := range rapid.IntRange(1, 700).Draw(t, "many") {
				do(ids[(from+i*step)%len(ids)])
			}
		}
		t.Repeat(map[string]func(*rapid.T){
			"add many": func(t *rapid.T) {
				many(t, func(id string) {
					if model[id] == nil {
						e := entryOf(id)
						x.add(e)
						model[id] = e
					}
				})
			},
			"remove many": func(t *rapid.T) {
				many(t, func(id string) {
					if x.remove(id) != model[id] {
						t.Fatalf("%s was removed, and it was another one", id)
					}
					delete(model, id)
				})
			},
			"clear": func(t *rapid.T) {
				if rapid.IntRange(0, 4).Draw(t, "clear") > 0 {
					return
				}
				x.clear(func(e *entry) {
					if id := e.resolution.GetPartition(); model[id] != e {
						t.Fatalf("%s was not there", id)
					} else {
						delete(model, id)
					}
				})
				if len(model) > 0 {
					t.Fatalf("%d were not cleared", len(model))
				}
			},
			"": func(t *rapid.T) {
				for _, id := range ids {
					if at, e := x.find(id); e != model[id] || e != nil && at.now.Load() != e {
						t.Fatalf("%s: found %p, want %p", id, e, model[id])
					}
				}
				if cells := len(x.table.Load().cells); x.count != len(model) || x.count > x.used || 2*x.used > cells || cells > max(leastCells, 16*len(ids)) {
					t.Fatalf("%d of %d cells have an entry, %d were used, %d entries", x.count, cells, x.used, len(model))
				}
			},
		})
	})
}

// TestIndexThatHasGrown looks into a table that has been replaced, as a reader does who took it up before.
func TestIndexThatHasGrown(t *testing.T) {
	var x index
	x.clear(nil)
	x.add(entryOf("p"))
	old := x.table.Load()
	at, e := old.find("p")
	for _, id := range names(leastCells) {
		x.add(entryOf(id))
	}
	if x.table.Load() == old {
		t.Fatal("it has not grown")
	}
	x.remove("p")
	if at.now.Load() == e {
		t.Error("an entry that was taken out is still in force where a reader looks")
	}
	if _, e := old.find("p"); e != nil {
		t.Error("an entry that was taken out is found")
	}
}

// TestIndexReadWhileItChanges lets readers look while a writer adds, removes, replaces, grows and clears: whoever finds an entry, and still finds it in its cell
// after counting himself, is counted by the writer who takes it out.
func TestIndexReadWhileItChanges(t *testing.T) {
	const partitions, rounds = 1000, 100
	var x index
	x.clear(nil)
	// An entry is over once it was taken out and nobody was counted: the revision, which nothing else looks at here, says so.
	over := func(e *entry) {
		if e.inFlight.Load() == 0 {
			atomic.StoreUint64(&e.resolution.Revision, 1)
		}
	}
	var stop atomic.Bool
	var readers sync.WaitGroup
	var found atomic.Int64
	for reader := range 2 {
		readers.Go(func() {
			for i := reader; !stop.Load(); i++ {
				id := fmt.Sprint("p", i%partitions)
				at, e := x.find(id)
				if e == nil {
					continue
				}
				e.inFlight.Add(1)
				if at.now.Load() == e {
					if !e.is(id) || atomic.LoadUint64(&e.resolution.Revision) != 0 {
						t.Errorf("%s: the entry of %s is in force, and was taken out when nobody was counted", id, e.id[:e.length])
					}
					found.Add(1)
				}
				e.inFlight.Add(-1)
			}
		})
	}
	for round := range rounds {
		for i := range partitions {
			id := fmt.Sprint("p", i)
			old := x.remove(id)
			if old != nil {
				over(old)
			}
			if old == nil || round%3 > 0 {
				x.add(entryOf(id))
			}
		}
		if round%20 == 19 {
			x.clear(over)
		}
	}
	stop.Store(true)
	readers.Wait()
	if found.Load() == 0 {
		t.Error("the readers found nothing, so this proves nothing")
	}
}
