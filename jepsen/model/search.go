package model

import (
	"cmp"
	"maps"
	"math"
	"slices"
	"strings"
	"time"

	"quorate/fsm"
)

// The search goes through the calls and returns of a key in the order of time, and keeps every world that can be at that moment: a state, and which of the calls
// under way have taken effect in it. Just before a call returns, each world in which it hasn't taken effect is replaced by all that come of it if some calls under way take effect,
// the one that returns as the last (just-in-time linearization; G. Lowe, Testing for linearizability, 2017). When no world is left there is no order, and that return shows it.
//
// So the work and the memory are by what is under way at one moment, not by the length of the history; and each moment is a cut at which all that can be is carried on.
//
// Where states have a number that only grows, worlds are left out too whose number is above one that was seen later.
//
// Three kinds of worlds are left out, because another one allows all that they allow. A call that changes nothing takes effect as soon as its answer is right: later is no better. A
// write of unknown fate that changed nothing, or without which the same state was reached, has rather not taken effect yet: it still may, and never has to. And of writes of unknown fate
// that ask for the same, the first takes effect first.

const (
	// narrow is how many worlds are kept at first. With fewer than there are an order can be found, but not that there is none.
	narrow = 64
	// MaxWorlds is how many are kept at most.
	MaxWorlds = 1 << 12
	// widen is the factor by which more are kept when those that were kept have led nowhere.
	widen = 8
	// MaxKept bounds the steps that are kept, since a state takes some 10 KiB.
	MaxKept = 1 << 13
	// compareMost bounds the worlds of one state to which a new one is compared, to tell whether one of them allows all that it allows.
	compareMost = 64
)

// edge is a call or a return.
type edge struct {
	at      time.Duration
	returns bool
	call    *call
}

// edges are in the order of time. What was called when another returned is held to have been under way with it.
func edges(calls []*call) []edge {
	all := make([]edge, 0, 2*len(calls))
	for _, c := range calls {
		all = append(all, edge{c.from, false, c})
		if !c.unknown() {
			all = append(all, edge{c.to, true, c})
		}
	}
	slices.SortStableFunc(all, func(a, b edge) int {
		switch {
		case a.at != b.at:
			return cmp.Compare(a.at, b.at)
		case a.returns == b.returns:
			return 0
		case b.returns:
			return -1
		}
		return 1
	})
	return all
}

// ceilings are, for each edge, the least number that is seen by a call which begins then or later. Numbers only grow, so a state that is above is no way to what was seen.
func ceilings(edges []edge) []uint64 {
	least := make([]uint64, len(edges)+1)
	least[len(edges)] = math.MaxUint64
	for i, e := range slices.Backward(edges) {
		least[i] = least[i+1]
		if !e.returns {
			least[i] = min(least[i], e.call.ceiling())
		}
	}
	return least
}

// ceiling is the number that a call saw, where one is known.
func (c *call) ceiling() uint64 {
	if c.number == 0 || c.optional() {
		return math.MaxUint64
	}
	return c.number
}

// branch is a state, and what comes of it by single calls, as far as anybody asked.
type branch struct {
	at
	number uint64
	after  map[*call]*branch
}

// world is what can be at a moment: a state, and the slots of the calls under way that have taken effect.
type world struct {
	branch *branch
	done   bits
}

// search is a way through the history.
type search struct {
	noun  noun
	edges []edge
	// least are the ceilings.
	least []uint64
	dead  func(*fsm.State) bool
	// next is the edge to come, slots are the calls under way (nil is free), and worlds what can be.
	next   int
	slots  []*call
	worlds []world
	// alike has the last slot of the writes without an end that ask for the same, and after, for each slot, that of the one before it; -1 is none.
	alike map[string]int
	after []int
	// width is how many worlds are kept, and complete the search as it was when there were more for the first time; nil is never.
	width    int
	complete *search
	// kept is how many steps are kept to be taken again.
	kept int
	// most is how many there were at once.
	most int
	// deadline is when to give up.
	deadline time.Time
	late     bool
}

// searched is what a search found, and the call at whose return no world was left.
type searched struct {
	result Result
	at     *call
	most   int
	late   bool
}

// search looks for an order, with so many worlds at first.
func (n noun) search(first at, calls []*call, width int, limit time.Duration) searched {
	s := &search{noun: n, edges: edges(calls), worlds: []world{{branch: &branch{at: first}}}, alike: map[string]int{}, width: width, deadline: time.Now().Add(limit)}
	s.least = ceilings(s.edges)
	if n.dead != nil {
		s.dead = n.dead(calls)
	}
	for s.next < len(s.edges) {
		e := s.edges[s.next]
		if !e.returns {
			s.begin(e.call)
			s.next++
			continue
		}
		s.end(e.call)
		s.next++
		switch {
		case s.late || time.Now().After(s.deadline):
			return searched{result: Undecided, most: s.most, late: true}
		case len(s.worlds) > 0:
		case s.complete == nil:
			return searched{result: Broken, at: e.call, most: s.most}
		case s.width >= MaxWorlds:
			return searched{result: Undecided, at: e.call, most: s.most}
		default:
			width, most := min(s.width*widen, MaxWorlds), s.most
			s = s.complete
			s.width, s.most = width, most
		}
	}
	return searched{result: Holds, most: s.most}
}

// lose notes that not all worlds are kept from this return on. It is called before anything of the return is noted.
func (s *search) lose() {
	if s.complete != nil {
		return
	}
	c := *s
	c.slots, c.worlds, c.after, c.alike = slices.Clone(s.slots), slices.Clone(s.worlds), slices.Clone(s.after), maps.Clone(s.alike)
	s.complete = &c
}

// begin puts a call under way.
func (s *search) begin(c *call) {
	slot := slices.Index(s.slots, nil)
	if slot < 0 {
		slot = len(s.slots)
		s.slots, s.after = append(s.slots, nil), append(s.after, -1)
	}
	s.slots[slot], s.after[slot] = c, -1
	if c.unknown() {
		asks := c.asks()
		if last, ok := s.alike[asks]; ok {
			s.after[slot] = last
		}
		s.alike[asks] = slot
	}
	if !c.pure() {
		return
	}
	for i := range s.worlds {
		s.settle(&s.worlds[i], slot)
	}
}

// settle lets a call that changes nothing take effect, if its answer is right.
func (s *search) settle(w *world, slot int) {
	if ok, _ := s.noun.step(w.branch.at, s.slots[slot]); ok {
		w.done = w.done.with(slot)
	}
}

// end lets a call return: only worlds stay in which it has taken effect, or never has to.
func (s *search) end(c *call) {
	slot := slices.Index(s.slots, c)
	if s.kept >= MaxKept {
		s.kept = 0
		for _, w := range s.worlds {
			w.branch.after = nil
		}
	}
	found, seen := newWorlds(s.slots), newWorlds(s.slots)
	level := s.worlds
	for len(level) > 0 {
		var deeper []world
		for _, w := range level {
			if w.done.has(slot) || c.optional() {
				found.add(world{w.branch, w.done.without(slot)})
				continue
			}
			for _, next := range s.steps(w) {
				if seen.add(next) {
					deeper = append(deeper, next)
				}
			}
			if len(deeper) > s.width {
				// The first of them are those in which the fewest calls took effect that didn't have to.
				s.lose()
				deeper = deeper[:s.width]
				break
			}
		}
		if s.late = time.Now().After(s.deadline); s.late {
			return
		}
		level = deeper
	}
	s.most = max(s.most, len(found.worlds))
	if len(found.worlds) > s.width {
		s.lose()
		found.worlds = found.worlds[:s.width]
	}
	s.slots[slot], s.worlds = nil, found.worlds
	for _, w := range s.worlds {
		delete(w.branch.after, c)
	}
}

// steps are the worlds that come of one by a single call that changes something.
func (s *search) steps(w world) []world {
	var next []world
	for slot, c := range s.slots {
		if c == nil || c.pure() || w.done.has(slot) || s.after[slot] >= 0 && !w.done.has(s.after[slot]) {
			continue
		}
		b := s.follow(w.branch, c)
		if b == nil {
			continue
		}
		n := world{b, w.done.with(slot)}
		if b.number > s.ceiling(n) {
			continue
		}
		for other, o := range s.slots {
			if o != nil && o.pure() && !n.done.has(other) {
				s.settle(&n, other)
			}
		}
		next = append(next, n)
	}
	return next
}

// ceiling is the least number that was seen by a call that has not taken effect in a world.
func (s *search) ceiling(w world) uint64 {
	least := s.least[s.next]
	for slot, c := range s.slots {
		if c != nil && c.number != 0 && !w.done.has(slot) {
			least = min(least, c.ceiling())
		}
	}
	return least
}

// follow is what comes of a state by a call; nil if that can't be, or need not be looked at.
func (s *search) follow(b *branch, c *call) *branch {
	next, known := b.after[c]
	if known {
		return next
	}
	if ok, to := s.noun.step(b.at, c); ok && (!c.optional() || to.view != b.view && (s.dead == nil || !s.dead(to.state))) {
		next = &branch{at: to}
		if s.noun.number != nil {
			next.number = s.noun.number(to.state)
		}
	}
	if s.kept < MaxKept {
		if b.after == nil {
			b.after = map[*call]*branch{}
		}
		b.after[c] = next
		s.kept++
	}
	return next
}

// worlds are those that were found, without those that others make needless.
type worlds struct {
	worlds []world
	known  map[place]bool
	// byView are the first of each state.
	byView map[string][]bits
	// optional are the slots of writes of unknown fate.
	optional bits
}

// place is what makes a world another one.
type place struct {
	view string
	done bits
}

func newWorlds(slots []*call) *worlds {
	w := &worlds{known: map[place]bool{}, byView: map[string][]bits{}}
	for slot, c := range slots {
		if c != nil && c.optional() {
			w.optional = w.optional.with(slot)
		}
	}
	return w
}

// add says whether a world is new, and no other allows all that it allows.
func (all *worlds) add(w world) bool {
	view := w.branch.view
	if all.known[place{view, w.done}] {
		return false
	}
	for _, other := range all.byView[view] {
		if other.allows(w.done, all.optional) {
			return false
		}
	}
	all.known[place{view, w.done}] = true
	if len(all.byView[view]) < compareMost {
		all.byView[view] = append(all.byView[view], w.done)
	}
	all.worlds = append(all.worlds, w)
	return true
}

// bits is a set of small numbers, with no zero byte at the end, so that equal sets are equal strings.
type bits string

func (b bits) byte(i int) byte {
	if i < len(b) {
		return b[i]
	}
	return 0
}

func (b bits) has(n int) bool { return b.byte(n/8)>>(n%8)&1 == 1 }

func (b bits) with(n int) bits {
	changed := make([]byte, max(len(b), n/8+1))
	copy(changed, b)
	changed[n/8] |= 1 << (n % 8)
	return bits(changed)
}

func (b bits) without(n int) bits {
	if !b.has(n) {
		return b
	}
	changed := []byte(b)
	changed[n/8] &^= 1 << (n % 8)
	return bits(strings.TrimRight(string(changed), "\x00"))
}

// allows says whether a world of the same state in which these have taken effect allows all that one allows in which those have: no other writes of unknown fate, and
// of all others the same.
func (b bits) allows(those, optional bits) bool {
	for i := range max(len(b), len(those)) {
		here, there, may := b.byte(i), those.byte(i), optional.byte(i)
		if here&^may != there&^may || here&^there != 0 {
			return false
		}
	}
	return true
}
