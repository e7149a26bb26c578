package space

import (
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
)

// NamespaceUA is the URI of namespace 0.
const NamespaceUA = "http://opcfoundation.org/UA/"

// Space is an address space. It is safe for use by many goroutines.
type Space struct {
	namespaces []string
	sources    []Source
	watchers   watchers
	subscribed []atomic.Int64 // subscriptions by namespace
	writing    sync.Mutex     // held while a value is written; the outermost of all locks
}

// New returns the space of the sources, in the order of precedence. The namespace array begins with NamespaceUA, and
// has the application's URI at index 1 (Part 5 §6.3.1).
func New(namespaces []string, sources ...Source) (*Space, error) {
	if len(namespaces) < 2 || namespaces[0] != NamespaceUA {
		return nil, fmt.Errorf("space: namespaces: want %q, then the application's URI, got %q", NamespaceUA, namespaces)
	}
	for i, n := range namespaces {
		if n == "" || slices.Contains(namespaces[:i], n) {
			return nil, fmt.Errorf("space: namespaces[%d]: %q is empty or there twice", i, n)
		}
	}
	for i, src := range sources {
		if src == nil {
			return nil, fmt.Errorf("space: sources[%d] is nil", i)
		}
	}
	return &Space{namespaces: slices.Clone(namespaces), sources: slices.Clone(sources), subscribed: make([]atomic.Int64, len(namespaces)+1)}, nil
}

// Namespaces returns the namespace array. It must not be modified.
func (s *Space) Namespaces() []string { return s.namespaces }

// Node returns a node of the space, from the first source that has it. It must not be modified.
func (s *Space) Node(k Key) (*Node, bool) {
	for _, src := range s.sources {
		if n, ok := src.Node(k); ok {
			return n, true
		}
	}
	return nil, false
}
