package tree

import "slices"

// item is what a split sends up to the parent.
type item[K, V any] struct {
	key K
	val V
}

func (m *Map[K, V]) newNode(leaf bool) *node[K, V] {
	n := &node[K, V]{owner: m.owner}
	if !leaf {
		n.children = make([]*node[K, V], 0, maxItems+1)
	}
	return n
}

// mutable returns n if the map owns it, else a copy that it owns.
func (m *Map[K, V]) mutable(n *node[K, V]) *node[K, V] {
	if n.owner == m.owner {
		return n
	}
	c := m.newNode(n.leaf())
	c.keys = append(make([]K, 0, room(len(n.keys))), n.keys...)
	c.vals = append(make([]V, 0, room(len(n.vals))), n.vals...)
	c.children = append(c.children, n.children...)
	c.tags = n.tags
	return c
}

// room is the capacity for n items with space for a few more: a full-size slice for each copied leaf would waste a third.
func room(n int) int { return min(n+n/8+1, maxItems) }

// insert puts an item into the subtree of n, which the map owns. If n had to be split, right is its new right neighbour
// and up the item between them.
func (m *Map[K, V]) insert(n *node[K, V], key K, val V) (up item[K, V], right *node[K, V], replaced bool) {
	i, found := len(n.keys), false
	// What comes in order, such as a restored snapshot, goes to the end.
	if i > 0 && m.compare(n.keys[i-1], key) >= 0 {
		i, found = m.search(n, key)
	}
	if found {
		n.vals[i] = val
		return up, nil, true
	}
	if n.leaf() {
		return m.place(n, i, item[K, V]{key, val}, nil)
	}
	n.children[i] = m.mutable(n.children[i])
	up, right, replaced = m.insert(n.children[i], key, val)
	if right == nil {
		return up, nil, replaced
	}
	return m.place(n, i, up, right)
}

// place puts an item, and in an inner node the child on its right, at position i; a full node is split first.
func (m *Map[K, V]) place(n *node[K, V], i int, it item[K, V], child *node[K, V]) (up item[K, V], right *node[K, V], replaced bool) {
	if len(n.keys) < maxItems {
		m.put(n, i, it, child)
		return up, nil, false
	}
	at := maxItems / 2
	if i == maxItems {
		at = appendSplit
	}
	up, right = m.split(n, at)
	if i <= at {
		m.put(n, i, it, child)
	} else {
		m.put(right, i-at-1, it, child)
	}
	return up, right, false
}

func (m *Map[K, V]) put(n *node[K, V], i int, it item[K, V], child *node[K, V]) {
	if m.tag != nil {
		copy(n.tags[i+1:], n.tags[i:len(n.keys)])
		n.tags[i] = m.tag(it.key)
	}
	n.keys = slices.Insert(grown(n.keys), i, it.key)
	n.vals = slices.Insert(grown(n.vals), i, it.val)
	if child != nil {
		n.children = slices.Insert(n.children, i+1, child)
	}
}

// cut takes item i out of a leaf.
func (m *Map[K, V]) cut(n *node[K, V], i int) {
	copy(n.tags[i:], n.tags[i+1:len(n.keys)])
	n.keys = slices.Delete(n.keys, i, i+1)
	n.vals = slices.Delete(n.vals, i, i+1)
}

// retag makes the tags of a leaf anew, after items were moved between nodes.
func (m *Map[K, V]) retag(n *node[K, V]) {
	if m.tag == nil || !n.leaf() {
		return
	}
	for i, key := range n.keys {
		n.tags[i] = m.tag(key)
	}
}

// grown makes space for an item. It grows by half instead of doubling, and never beyond a full node.
func grown[T any](s []T) []T {
	if len(s) < cap(s) {
		return s
	}
	return append(make([]T, 0, min(len(s)+len(s)/2+4, maxItems)), s...)
}

// split moves what follows item at into a new node, and returns that item and the node.
func (m *Map[K, V]) split(n *node[K, V], at int) (item[K, V], *node[K, V]) {
	up := item[K, V]{n.keys[at], n.vals[at]}
	right := m.newNode(n.leaf())
	if at == appendSplit {
		// It is going to be full as well.
		right.keys, right.vals = make([]K, 0, maxItems), make([]V, 0, maxItems)
	}
	right.keys = append(right.keys, n.keys[at+1:]...)
	right.vals = append(right.vals, n.vals[at+1:]...)
	copy(right.tags[:], n.tags[at+1:])
	// What moved is cleared, so that the left node does not keep it from the garbage collector.
	clear(n.keys[at:])
	clear(n.vals[at:])
	n.keys, n.vals = n.keys[:at], n.vals[:at]
	if !n.leaf() {
		right.children = append(right.children, n.children[at+1:]...)
		clear(n.children[at+1:])
		n.children = n.children[:at+1]
	}
	return up, right
}

// remove takes a key, which is there, out of the subtree of n, which the map owns.
func (m *Map[K, V]) remove(n *node[K, V], key K) {
	i, found := m.search(n, key)
	if n.leaf() {
		m.cut(n, i)
		return
	}
	n.children[i] = m.mutable(n.children[i])
	if found {
		// The greatest item of the left subtree takes the place of the removed one.
		last := m.removeLast(n.children[i])
		n.keys[i], n.vals[i] = last.key, last.val
	} else {
		m.remove(n.children[i], key)
	}
	m.refill(n, i)
}

// removeLast takes the greatest item out of the subtree of n, which the map owns and which is not empty.
func (m *Map[K, V]) removeLast(n *node[K, V]) item[K, V] {
	last := len(n.keys) - 1
	if n.leaf() {
		it := item[K, V]{n.keys[last], n.vals[last]}
		m.cut(n, last)
		return it
	}
	n.children[last+1] = m.mutable(n.children[last+1])
	it := m.removeLast(n.children[last+1])
	m.refill(n, last+1)
	return it
}

// refill brings child i of n back to size after a removal: joined with a neighbour if both fit into one node, else by
// moving items over from it.
func (m *Map[K, V]) refill(n *node[K, V], i int) {
	if len(n.children[i].keys) >= minItems {
		return
	}
	if i == len(n.keys) {
		i--
	}
	// From here on the pair is children i and i+1, with item i of n between them.
	left, right := m.mutable(n.children[i]), m.mutable(n.children[i+1])
	n.children[i], n.children[i+1] = left, right
	if len(left.keys)+len(right.keys) < maxItems {
		left.keys = append(append(left.keys, n.keys[i]), right.keys...)
		left.vals = append(append(left.vals, n.vals[i]), right.vals...)
		left.children = append(left.children, right.children...)
		m.retag(left)
		n.keys = slices.Delete(n.keys, i, i+1)
		n.vals = slices.Delete(n.vals, i, i+1)
		n.children = slices.Delete(n.children, i+1, i+2)
		return
	}
	for len(left.keys) < minItems {
		m.rotateLeft(n, i, left, right)
	}
	for len(right.keys) < minItems {
		m.rotateRight(n, i, left, right)
	}
	m.retag(left)
	m.retag(right)
}

// rotateLeft moves the first item of right up into n, and the item that was there to the end of left.
func (m *Map[K, V]) rotateLeft(n *node[K, V], i int, left, right *node[K, V]) {
	left.keys, left.vals = append(left.keys, n.keys[i]), append(left.vals, n.vals[i])
	n.keys[i], n.vals[i] = right.keys[0], right.vals[0]
	right.keys, right.vals = slices.Delete(right.keys, 0, 1), slices.Delete(right.vals, 0, 1)
	if !right.leaf() {
		left.children = append(left.children, right.children[0])
		right.children = slices.Delete(right.children, 0, 1)
	}
}

// rotateRight moves the last item of left up into n, and the item that was there to the front of right.
func (m *Map[K, V]) rotateRight(n *node[K, V], i int, left, right *node[K, V]) {
	last := len(left.keys) - 1
	right.keys, right.vals = slices.Insert(right.keys, 0, n.keys[i]), slices.Insert(right.vals, 0, n.vals[i])
	n.keys[i], n.vals[i] = left.keys[last], left.vals[last]
	left.keys, left.vals = slices.Delete(left.keys, last, last+1), slices.Delete(left.vals, last, last+1)
	if !left.leaf() {
		right.children = slices.Insert(right.children, 0, left.children[last+1])
		left.children = slices.Delete(left.children, last+1, last+2)
	}
}
