package space

import (
	"fmt"
	"slices"

	"github.com/gopcua/opcua/ua"
)

// NamespaceUA is the URI of namespace 0.
const NamespaceUA = "http://opcfoundation.org/UA/"

// Space is an address space. It is safe for use by many goroutines.
type Space struct {
	namespaces []string
	sources    []Source
	watchers   watchers
}

// New returns the space of the sources, in the order of precedence. The namespace array begins with NamespaceUA, and has
// the application's URI at index 1 (Part 5 §6.3.1).
func New(namespaces []string, sources ...Source) (*Space, error) {
	if len(namespaces) < 2 || namespaces[0] != NamespaceUA {
		return nil, fmt.Errorf("space: namespaces: want %q, then the application's URI, got %q", NamespaceUA, namespaces)
	}
	for i, n := range namespaces {
		if n == "" || slices.Contains(namespaces[:i], n) {
			return nil, fmt.Errorf("space: namespaces[%d]: %q is empty or there twice", i, n)
		}
	}
	return &Space{namespaces: slices.Clone(namespaces), sources: slices.Clone(sources)}, nil
}

// Namespaces returns the namespace array. It must not be modified.
func (s *Space) Namespaces() []string { return s.namespaces }

// Node returns a node of the space. It must not be modified.
func (s *Space) Node(k Key) (*Node, bool) {
	for _, src := range s.sources {
		if n, ok := src.Node(k); ok {
			return n, true
		}
	}
	return nil, false
}

// Read reads an attribute into dst, with the status codes of Part 4 §5.10.2. dst is overwritten as a whole, its EncodingMask set;
// what it points to may be shared, and must not be modified. ctx.Now becomes the ServerTimestamp where the value has none.
func (s *Space) Read(ctx ReadContext, dst *ua.DataValue, k Key, attr ua.AttributeID, indexRange string, enc *ua.QualifiedName, ts ua.TimestampsToReturn) {
	*dst = ua.DataValue{EncodingMask: ua.DataValueStatusCode, Status: ua.StatusBadNotImplemented}
}

// Position is where a Browse stopped, and where the next one goes on. The zero Position is the beginning.
type Position struct {
	source int // 0: the type definition; i+1: sources[i]
	cursor Cursor
}

// Page is a part of the result of a Browse.
type Page struct {
	References []*ua.ReferenceDescription
	More       bool     // there may be more: go on at Next
	Next       Position // only if More
}

// Browse returns at most max references of a node that fit the description (Part 4 §5.8.2), beginning at from. max is reduced to
// MaxBrowseReferences, and 0 means that too. A page with More may be short, even empty: no call looks at more than
// MaxBrowseScan references. The status is Good, BadNodeIdUnknown, BadReferenceTypeIdInvalid or BadBrowseDirectionInvalid.
func (s *Space) Browse(d *ua.BrowseDescription, from Position, max int) (Page, ua.StatusCode) {
	return Page{}, ua.StatusBadNotImplemented
}

// Translate follows a browse path (Part 4 §5.8.4).
func (s *Space) Translate(start Key, path *ua.RelativePath) ([]*ua.BrowsePathTarget, ua.StatusCode) {
	return nil, ua.StatusBadNotImplemented
}

// IsSubtype reports whether type k is of or a direct or indirect subtype of it.
func (s *Space) IsSubtype(k, of Key) bool { return k == of }

