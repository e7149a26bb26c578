package client

import (
	"hash/maphash"
	"math/bits"
	"sync/atomic"
)

// leastCells is how long the shortest table is.
const leastCells = 1024

// index finds what is remembered of a partition. Readers take no lock; writers are the holder of the gate's. It is a table with open addressing, since each
// answer among 100,000 partitions would otherwise cost a walk through places in memory that no cache holds: a sync.Map takes seven or so, this
// takes two.
//
// A partition stays in its cell for as long as the table is in use, so a reader may look at the cell again to learn whether what it found is still true.
type index struct {
	table atomic.Pointer[table]
	// count is how many cells have an entry, and used how many ever had one.
	count, used int
}

// table has a power of two of cells, of which half are used at most.
type table struct {
	seed  maphash.Seed
	shift int
	cells []cell
}

// cell is the place of one partition. What is in it is true under the lease.
type cell struct {
	// tag is the hash of the partition, never 0; 0 means that the cell was never used, and ends every search. It is set before the entry, and again
	// only when the cell has none.
	tag atomic.Uint64
	now atomic.Pointer[entry]
}

func newTable(cells int) *table {
	return &table{seed: maphash.MakeSeed(), shift: 64 - bits.Len(uint(cells-1)), cells: make([]cell, cells)}
}

func (t *table) hash(partition string) uint64 { return maphash.String(t.seed, partition) | 1 }

// find returns what there is of a partition, and where; nil if there is nothing.
func (t *table) find(partition string) (*cell, *entry) {
	hash := t.hash(partition)
	for i := hash >> t.shift; ; i++ {
		c := &t.cells[i&uint64(len(t.cells)-1)]
		switch c.tag.Load() {
		case 0:
			return nil, nil
		case hash:
			if e := c.now.Load(); e != nil && e.is(partition) {
				return c, e
			}
		}
	}
}

// put adds an entry for a partition of which there is none.
func (t *table) put(e *entry) (used bool) {
	hash := t.hash(e.resolution.GetPartition())
	for i := hash >> t.shift; ; i++ {
		c := &t.cells[i&uint64(len(t.cells)-1)]
		if c.now.Load() != nil {
			continue
		}
		used = c.tag.Load() == 0
		c.tag.Store(hash)
		c.now.Store(e)
		return used
	}
}

// find returns what is remembered of a partition, and where.
func (x *index) find(partition string) (*cell, *entry) { return x.table.Load().find(partition) }

// add adds an entry for a partition of which there is none.
func (x *index) add(e *entry) {
	if t := x.table.Load(); 2*(x.used+1) > len(t.cells) {
		x.grow(t)
	}
	x.count++
	if x.table.Load().put(e) {
		x.used++
	}
}

// grow makes room for as many entries as there are, with what is left over from those that were removed swept away.
func (x *index) grow(old *table) {
	t := newTable(max(leastCells, 1<<bits.Len(uint(4*x.count))))
	for i := range old.cells {
		if e := old.cells[i].now.Load(); e != nil {
			t.put(e)
		}
	}
	x.table.Store(t)
	x.used = x.count
	// Whoever still looks into the old table would not see what is taken out of the new one. So the old one is emptied, and he asks the group instead.
	for i := range old.cells {
		old.cells[i].now.Store(nil)
	}
}

// remove takes out what is remembered of a partition, and returns it; nil if there is nothing.
func (x *index) remove(partition string) *entry {
	c, e := x.find(partition)
	if e != nil {
		c.now.Store(nil)
		x.count--
	}
	return e
}

// clear takes everything out, and calls each with what it was.
func (x *index) clear(each func(*entry)) {
	old := x.table.Load()
	x.table.Store(newTable(leastCells))
	x.count, x.used = 0, 0
	if old == nil {
		return
	}
	for i := range old.cells {
		if e := old.cells[i].now.Swap(nil); e != nil {
			each(e)
		}
	}
}
