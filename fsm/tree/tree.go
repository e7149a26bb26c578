// Package tree is a persistent ordered map: a B-tree whose snapshots cost nothing to take.
//
// A [Map] is used like any sorted map: [Map.Set], [Map.Get], [Map.Delete], and iteration in key order from either end.
// [Map.Snapshot] returns a second map with the same contents at once, whatever the size. From then on the two share their
// nodes, and whichever is changed first copies only the nodes on the way to the change. This is how the state machine
// hands out immutable views of a million records in microseconds, while commands go on.
//
// Sharing is tracked by ownership: a map holds a token, and every node carries the token of the map that made it. A
// node with the map's own token is reachable from nowhere else and is changed in place; any other is copied first.
// Taking a snapshot makes both sides drop their token, so that neither owns what is now shared. The rejected alternative,
// a path-copying tree without tokens, allocates a new path for each of the thousands of changes between two snapshots.
//
// What a Get in a large map costs is mostly waiting for memory: each key that a binary search looks at is two cache lines that nobody has used lately.
// So a map of strings keeps a tag of each key, one byte, side by side in its leaves, and looks only at keys whose tag is right: one instead of six. That
// halves the time of a Get among a million (FPTree, Oukid et al., SIGMOD 2016, has fingerprints for the same reason). The rejected alternative, a hash index
// beside the tree, would have to be persistent as well, and doubles the cost of every change.
//
// A map is not safe for concurrent use while it is being changed. A map that nobody changes may be read, and
// snapshots of it taken, by any number of goroutines.
package tree

import (
	"bytes"
	"strings"
)

// maxItems is the most items in a node. What a change costs is the copy of its leaf, since the state is published after each entry and the changes of
// one entry are seldom neighbours: with 31 a transition of a partition leaves a third less garbage than with 63, for 2 more bytes an item.
const maxItems = 31

// minItems is the number of items below which a node is joined with, or filled up from, its neighbour.
const minItems = maxItems / 4

// appendSplit is where a full node is split when an item is added at its end: sorted input, such as a restored snapshot,
// then leaves nodes full instead of half empty.
const appendSplit = maxItems - 1

// token marks the nodes that a map may change in place. It has a size, so that every new token has its own address.
type token struct{ _ byte }

type node[K, V any] struct {
	owner    *token
	keys     []K
	vals     []V
	children []*node[K, V]   // Empty in a leaf, else one more than keys.
	tags     [maxItems]uint8 // Of the keys of a leaf, in a map that has tags.
}

// Map is a persistent ordered map. Make one with [New]; the zero value can't be used.
type Map[K, V any] struct {
	compare func(a, b K) int
	tag     func(K) uint8 // Nil in a map without tags.
	root    *node[K, V]
	owner   *token
	length  int
}

// New returns an empty map ordered by compare, which returns a negative number, zero or a positive number, as cmp.Compare does.
func New[K, V any](compare func(a, b K) int) Map[K, V] {
	return Map[K, V]{compare: compare}
}

// NewStrings returns an empty map of strings in the order of their bytes, whose Get is fast where there are many.
func NewStrings[V any]() Map[string, V] {
	return Map[string, V]{compare: strings.Compare, tag: tagOf}
}

// tagOf mixes the length and the last eight bytes of a string: ids that were numbered differ there. Where they don't, a Get is slower and still right.
func tagOf(s string) uint8 {
	sum := uint64(len(s))
	for i := max(len(s)-8, 0); i < len(s); i++ {
		sum = sum<<8 ^ sum>>56 ^ uint64(s[i])
	}
	return uint8(sum * 0x9e3779b97f4a7c15 >> 56) // Fibonacci hashing.
}

// Len returns the number of items.
func (m *Map[K, V]) Len() int { return m.length }

// Snapshot returns a map with the same contents, in constant time. A later change of either is not seen by the other.
func (m *Map[K, V]) Snapshot() Map[K, V] {
	// An unchanged map has no token: it must not be written to here, since others may read it at the same time.
	if m.owner != nil {
		m.owner = nil
	}
	return *m
}

// Get returns the value of a key.
func (m *Map[K, V]) Get(key K) (V, bool) {
	for n := m.root; n != nil; {
		i, found := m.lookUp(n, key)
		if found {
			return n.vals[i], true
		}
		if n.leaf() {
			break
		}
		n = n.children[i]
	}
	var none V
	return none, false
}

// lookUp is search, where it does not matter at which position a key would be in a leaf that does not have it.
func (m *Map[K, V]) lookUp(n *node[K, V], key K) (int, bool) {
	if m.tag == nil || !n.leaf() {
		return m.search(n, key)
	}
	tag := m.tag(key)
	for i := 0; i < len(n.keys); i++ {
		next := bytes.IndexByte(n.tags[i:len(n.keys)], tag)
		if next < 0 {
			break
		}
		if i += next; m.compare(n.keys[i], key) == 0 {
			return i, true
		}
	}
	return 0, false
}

// Has says whether the map has a key.
func (m *Map[K, V]) Has(key K) bool {
	_, ok := m.Get(key)
	return ok
}

// Set gives a key a value, and says whether it replaced one.
func (m *Map[K, V]) Set(key K, val V) (replaced bool) {
	m.own()
	if m.root == nil {
		m.root = m.newNode(true)
	}
	m.root = m.mutable(m.root)
	up, right, replaced := m.insert(m.root, key, val)
	if right != nil {
		root := m.newNode(false)
		root.keys = append(root.keys, up.key)
		root.vals = append(root.vals, up.val)
		root.children = append(root.children, m.root, right)
		m.root = root
	}
	if !replaced {
		m.length++
	}
	return replaced
}

// Delete removes a key, and says whether it was there.
func (m *Map[K, V]) Delete(key K) (removed bool) {
	// Looking first keeps a delete of an absent key from copying shared nodes.
	if !m.Has(key) {
		return false
	}
	m.own()
	m.root = m.mutable(m.root)
	m.remove(m.root, key)
	if len(m.root.keys) == 0 {
		if m.root.leaf() {
			m.root = nil
		} else {
			m.root = m.root.children[0]
		}
	}
	m.length--
	return true
}

func (m *Map[K, V]) own() {
	if m.owner == nil {
		m.owner = new(token)
	}
}

func (n *node[K, V]) leaf() bool { return len(n.children) == 0 }

func (m *Map[K, V]) search(n *node[K, V], key K) (int, bool) {
	lo, hi := 0, len(n.keys)
	for lo < hi {
		mid := int(uint(lo+hi) >> 1)
		switch c := m.compare(n.keys[mid], key); {
		case c == 0:
			return mid, true
		case c < 0:
			lo = mid + 1
		default:
			hi = mid
		}
	}
	return lo, false
}
