package failover

import (
	"math"
	"slices"
	"time"

	"github.com/gopcua/opcua/ua"
)

const (
	// seenWindow is how many source timestamps of each node are remembered, to know duplicates by: more than two servers can
	// differ by at usual rates.
	seenWindow = 128
	// rhythmWindow is how many intervals between samples tell whether a node has a rhythm; fewer than rhythmLeast tell nothing.
	rhythmWindow = 8
	rhythmLeast  = 4
)

// flow knows which values are duplicates, and how many are missing across a cut-over. It has no clock: it goes by the
// timestamps of the source.
type flow struct {
	nodes []track
	// awaited is the number of nodes of which no value has come since the cut.
	awaited int
}

// track is what is remembered of one node.
type track struct {
	seen   [seenWindow]int64 // source timestamps that were handed on, in ns; a ring
	handed int               // of them ever
	last   time.Time         // the newest of them
	deltas [rhythmWindow]time.Duration
	count  int // of deltas ever

	cutting bool          // no value has come since the cut
	before  time.Time     // last at the cut; zero: nothing to compare with
	gap     time.Duration // from before to the first newer value
	told    bool          // whether gap says anything
	old     int           // how many older values may still be left out
}

func newFlow(nodes int) *flow { return &flow{nodes: make([]track, nodes)} }

// cut begins a cut-over. backlog is how many values of each node the new server may have queued from before it: those that are
// older than what was handed on are left out.
func (f *flow) cut(backlog int) {
	f.awaited = len(f.nodes)
	for i := range f.nodes {
		t := &f.nodes[i]
		t.cutting, t.told, t.gap, t.before, t.old = true, false, 0, t.last, backlog
	}
}

// take says whether to hand a value on. fresh says that it is from the server in use, which is the one that was cut over to.
func (f *flow) take(node int, v *ua.DataValue, fresh bool) bool {
	t := &f.nodes[node]
	if fresh && t.cutting {
		t.cutting = false
		f.awaited--
		t.before = t.last // The old server may have gone on until now.
		t.told = !t.last.IsZero() && !v.SourceTimestamp.IsZero()
	}
	at := v.SourceTimestamp
	if at.IsZero() {
		return true // Nothing tells whether it is a duplicate.
	}
	if slices.Contains(t.seen[:min(t.handed, seenWindow)], at.UnixNano()) {
		return false
	}
	if !at.After(t.last) {
		if fresh && t.old > 0 {
			t.old--
			return false
		}
		t.remember(at)
		return true // Late, yet no duplicate: a gap is filled, or a clock is behind.
	}
	switch since := at.Sub(t.last); {
	case t.last.IsZero():
	case fresh && t.told && t.gap == 0 && t.last.Equal(t.before):
		t.gap = since
	default:
		t.deltas[t.count%rhythmWindow] = since
		t.count++
	}
	t.last, t.old = at, 0
	t.remember(at)
	return true
}

func (t *track) remember(at time.Time) {
	t.seen[t.handed%seenWindow] = at.UnixNano()
	t.handed++
}

// lost estimates how many samples are missing across the cut, over all nodes: a gap of three intervals lacks two samples. A node without a
// rhythm, or of which nothing has come since the cut, is uncounted; one that never had a value isn't missed.
func (f *flow) lost() (samples, uncounted int) {
	for i := range f.nodes {
		t := &f.nodes[i]
		interval, regular := t.rhythm()
		switch {
		case t.before.IsZero():
		case !t.told:
			uncounted++
		case t.gap == 0: // What came was the same sample, or the backlog's end: nothing was sampled meanwhile.
		case !regular:
			uncounted++
		default:
			samples += max(int(math.Round(float64(t.gap)/float64(interval)))-1, 0)
		}
	}
	return samples, uncounted
}

// rhythm returns the usual interval between samples, if three quarters of the last ones were within a half of it.
func (t *track) rhythm() (time.Duration, bool) {
	n := min(t.count, rhythmWindow)
	if n < rhythmLeast {
		return 0, false
	}
	sorted := slices.Sorted(slices.Values(t.deltas[:n]))
	median, near := sorted[n/2], 0
	for _, d := range sorted {
		if d >= median/2 && d <= median+median/2 {
			near++
		}
	}
	return median, 4*near >= 3*n
}
