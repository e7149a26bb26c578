package space

import "github.com/gopcua/opcua/ua"

// Reference is one end of a reference, as seen from the node that it was asked of (Part 3 §5.3).
type Reference struct {
	Type    Key
	Forward bool // false: the node is the target, and Target is the source
	Target  Key
}

// Cursor is a place in the references of a node, given and understood by one Source. The empty Cursor is the beginning
// when given to a source, and the end when given by one.
type Cursor string

// Source gives some nodes and some references of the address space. It is used by many goroutines at once.
type Source interface {
	// Node returns the node, or false if this source has none of that key. The node must not be modified.
	Node(k Key) (*Node, bool)

	// References returns at most max (at least 1) references of node k that follow the cursor, and the cursor for the
	// rest. k may be a node of another source. Every reference appears at both its ends, once; the order is stable, and
	// references that exist throughout a sequence of calls are each returned exactly once, whatever is added or removed
	// in between. The forward HasTypeDefinition reference is not among them: it is Node.TypeDefinition; the inverse
	// ones may be. An unknown cursor is the end.
	References(k Key, from Cursor, max int) (refs []Reference, next Cursor)
}

// Linker is implemented by a Source that can say quickly whether it has a reference. What it has, the sources behind it
// need not repeat: duplicates are dropped.
type Linker interface {
	Linked(k Key, r Reference) bool
}

// Finder is implemented by a Source with so many references that TranslateBrowsePathsToNodeIds must not look at each.
type Finder interface {
	// Find returns the references of k whose target has that BrowseName. ok is false if the source has no index for k,
	// and its references must be looked at one by one.
	Find(k Key, name ua.QualifiedName) (refs []Reference, ok bool)
}

// Alike is what references have in common, and the nodes that they lead to.
type Alike struct {
	Type    Key
	Forward bool
	Class   ua.NodeClass
}

// Uniform is implemented by a Source that has nodes with so many references that a Browse must not look at each to find that none is wanted.
type Uniform interface {
	// Uniform returns what all references of k that this source has are like, false if they differ or there are few.
	Uniform(k Key) (alike Alike, ok bool)
}
