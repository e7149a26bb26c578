// Package nodeset is namespace 0 of OPC UA: the types of the standard and the instances that every server has, such as
// the Server object.
//
// The nodes are generated from the NodeSet2 file of the standard that the gopcua module carries (OPC 10000-5, version
// 1.05.02) into ns0.bin, which is part of the program. [New] decodes nothing: a node is decoded when it is first asked
// for, its strings point into the file, and the values of variables, which are seldom read, are decoded at every read.
// So the set costs a program neither time at the start nor memory.
//
// The set is a space.Source, and stands last in a space.Space: the program puts a space.Table in front of it, with
// nodes of the same keys that have live values. What the program does not support it takes away with [Options].
// Variables that have no value in the standard's file are null until they are overridden.
//
// Some instances hang nowhere in the standard's file, because only some servers have them: the variables of
// ServerRedundancy (i=11312 to i=11314, i=14415) are such. They are there to be read by their NodeId, so a program
// links the ones that it has, and removes the others.
package nodeset

import (
	_ "embed" // for ns0.bin
	"fmt"
	"strconv"
	"sync/atomic"

	"github.com/gopcua/opcua/ua"
	"quorate/opcua/nodeset/internal/pack"
	"quorate/opcua/space"
)

//go:generate go run ./gen

//go:embed ns0.bin
var ns0 string

// Options say what a server has of namespace 0.
type Options struct {
	// Remove lists objects, variables and methods that the server does not have. What is below one of them, and below
	// nothing else that stays, goes with it. Types cannot be removed.
	Remove []space.Key
}

// Set is namespace 0. It implements space.Source and is safe for use by many goroutines.
type Set struct {
	file    *pack.File
	nodes   []atomic.Pointer[space.Node] // by index in the file; nil until asked for
	removed map[uint16]struct{}
}

// New returns namespace 0. The error names the entry of Remove that is unknown or a type.
func New(o Options) (*Set, error) {
	file, err := pack.Open(ns0)
	if err != nil {
		return nil, fmt.Errorf("nodeset: %w", err)
	}
	s := &Set{file: file, nodes: make([]atomic.Pointer[space.Node], file.Len()), removed: map[uint16]struct{}{}}
	for i, k := range o.Remove {
		index, ok := s.index(k)
		if !ok && !s.isRemoved(k) {
			return nil, fmt.Errorf("nodeset: Remove[%d]: there is no node %s", i, k)
		}
		if !ok {
			continue // It went with another one.
		}
		if !isInstance(ua.NodeClass(file.Node(index).Class)) {
			return nil, fmt.Errorf("nodeset: Remove[%d]: %s is a type", i, k)
		}
		s.remove(index)
	}
	return s, nil
}

// Len returns the number of nodes.
func (s *Set) Len() int { return s.file.Len() - len(s.removed) }

// Keys returns the keys of all nodes, in ascending order.
func (s *Set) Keys() []space.Key {
	keys := make([]space.Key, 0, s.Len())
	for i := range s.file.Len() {
		if _, removed := s.removed[s.file.ID(i)]; !removed {
			keys = append(keys, key(s.file.ID(i)))
		}
	}
	return keys
}

// Node implements space.Source.
func (s *Set) Node(k space.Key) (*space.Node, bool) {
	i, ok := s.index(k)
	if !ok {
		return nil, false
	}
	if n := s.nodes[i].Load(); n != nil {
		return n, true
	}
	n := node(s.file.Node(i))
	if !s.nodes[i].CompareAndSwap(nil, n) {
		n = s.nodes[i].Load() // Another goroutine was faster: everybody gets the same node.
	}
	return n, true
}

// References implements space.Source. The reference to a supertype comes first.
func (s *Set) References(k space.Key, from space.Cursor, max int) (refs []space.Reference, next space.Cursor) {
	i, ok := s.index(k)
	if !ok || max <= 0 {
		return nil, ""
	}
	at, n := 0, s.file.References(i)
	if from != "" {
		var err error
		if at, err = strconv.Atoi(string(from)); err != nil || at < 0 || at > n {
			return nil, ""
		}
	}
	end := at + min(max, n-at)
	refs = make([]space.Reference, 0, end-at)
	for ; at < end; at++ {
		r := s.file.Reference(i, at)
		if _, removed := s.removed[r.Target]; !removed {
			refs = append(refs, space.Reference{Type: key(r.Type), Forward: r.Forward, Target: key(r.Target)})
		}
	}
	if end < n {
		next = space.Cursor(strconv.Itoa(end))
	}
	return refs, next
}

// index returns the place of a node in the file, if the set has it.
func (s *Set) index(k space.Key) (int, bool) {
	id, ok := k.Numeric()
	if !ok || k.Namespace() != 0 || id > 0xffff || s.isRemoved(k) {
		return 0, false
	}
	return s.file.Index(uint16(id))
}

func (s *Set) isRemoved(k space.Key) bool {
	id, ok := k.Numeric()
	if !ok || k.Namespace() != 0 || id > 0xffff {
		return false
	}
	_, removed := s.removed[uint16(id)]
	return removed
}

// parents are the types of the references that lead from an instance to what it consists of, or from a folder to what
// is in it.
var parents = map[uint16]bool{35: true, 46: true, 47: true, 49: true}

// remove removes a node and those below it that are left without a parent.
func (s *Set) remove(index int) {
	queue := []int{index}
	for len(queue) > 0 {
		i := queue[0]
		queue = queue[1:]
		s.removed[s.file.ID(i)] = struct{}{}
		for j := range s.file.References(i) {
			r := s.file.Reference(i, j)
			if !r.Forward || !parents[r.Type] {
				continue
			}
			if child, ok := s.index(key(r.Target)); ok && isInstance(ua.NodeClass(s.file.Node(child).Class)) && !s.hasParent(child) {
				queue = append(queue, child)
			}
		}
	}
}

// hasParent reports whether anything that is not removed leads to a node.
func (s *Set) hasParent(index int) bool {
	for j := range s.file.References(index) {
		r := s.file.Reference(index, j)
		if _, removed := s.removed[r.Target]; !r.Forward && parents[r.Type] && !removed {
			return true
		}
	}
	return false
}

func isInstance(c ua.NodeClass) bool {
	return c == ua.NodeClassObject || c == ua.NodeClassVariable || c == ua.NodeClassMethod
}

func key(id uint16) space.Key { return space.NumericKey(0, uint32(id)) }
