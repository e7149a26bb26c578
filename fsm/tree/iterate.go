package tree

import "iter"

// All returns the items in key order. As with every iteration, the map must not be changed meanwhile: iterate over a snapshot
// where it has to be.
func (m *Map[K, V]) All() iter.Seq2[K, V] {
	root := m.root
	return func(yield func(K, V) bool) {
		if root != nil {
			root.ascend(yield)
		}
	}
}

// From returns the items whose key is not less than from, in key order.
func (m *Map[K, V]) From(from K) iter.Seq2[K, V] {
	root := m.root
	return func(yield func(K, V) bool) {
		if root != nil {
			m.ascendFrom(root, from, yield)
		}
	}
}

// Backward returns the items in reverse key order.
func (m *Map[K, V]) Backward() iter.Seq2[K, V] {
	root := m.root
	return func(yield func(K, V) bool) {
		if root != nil {
			root.descend(yield)
		}
	}
}

// Before returns the items whose key is less than before, in reverse key order.
func (m *Map[K, V]) Before(before K) iter.Seq2[K, V] {
	root := m.root
	return func(yield func(K, V) bool) {
		if root != nil {
			m.descendBefore(root, before, yield)
		}
	}
}

// First returns the item with the least key.
func (m *Map[K, V]) First() (key K, val V, ok bool) {
	for key, val = range m.All() {
		return key, val, true
	}
	return key, val, false
}

// Last returns the item with the greatest key.
func (m *Map[K, V]) Last() (key K, val V, ok bool) {
	for key, val = range m.Backward() {
		return key, val, true
	}
	return key, val, false
}

func (n *node[K, V]) ascend(yield func(K, V) bool) bool {
	for i, key := range n.keys {
		if !n.leaf() && !n.children[i].ascend(yield) || !yield(key, n.vals[i]) {
			return false
		}
	}
	return n.leaf() || n.children[len(n.keys)].ascend(yield)
}

func (m *Map[K, V]) ascendFrom(n *node[K, V], from K, yield func(K, V) bool) bool {
	i, found := m.search(n, from)
	// The child left of the position holds keys on both sides of from, unless from itself stands at the position.
	if !found && !n.leaf() && !m.ascendFrom(n.children[i], from, yield) {
		return false
	}
	for ; i < len(n.keys); i++ {
		if !yield(n.keys[i], n.vals[i]) || !n.leaf() && !n.children[i+1].ascend(yield) {
			return false
		}
	}
	return true
}

func (n *node[K, V]) descend(yield func(K, V) bool) bool {
	for i := len(n.keys) - 1; i >= 0; i-- {
		if !n.leaf() && !n.children[i+1].descend(yield) || !yield(n.keys[i], n.vals[i]) {
			return false
		}
	}
	return n.leaf() || n.children[0].descend(yield)
}

func (m *Map[K, V]) descendBefore(n *node[K, V], before K, yield func(K, V) bool) bool {
	i, found := m.search(n, before)
	if !n.leaf() {
		if found && !n.children[i].descend(yield) {
			return false
		}
		if !found && !m.descendBefore(n.children[i], before, yield) {
			return false
		}
	}
	for i--; i >= 0; i-- {
		if !yield(n.keys[i], n.vals[i]) || !n.leaf() && !n.children[i].descend(yield) {
			return false
		}
	}
	return true
}
