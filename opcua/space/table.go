package space

// Table is a Source that is filled and changed by the program. Readers take no lock: every edit makes a new state.
type Table struct{}

// NewTable returns an empty table.
func NewTable() *Table { return &Table{} }

// Edit is a change of a Table under way.
type Edit struct{}

// Edit changes the table: fn makes the changes, and they become visible together after it returned nil. After an error,
// fn's or that of a change, nothing has changed.
func (t *Table) Edit(fn func(e *Edit) error) error { return nil }

// Put adds a node, or replaces the one of the same key.
func (e *Edit) Put(n *Node) {}

// Remove removes a node and all references to and from it that this table has.
func (e *Edit) Remove(k Key) {}

// Link adds a reference from one node to another, and its inverse. The nodes may be of other sources.
func (e *Edit) Link(from, refType, to Key) {}

// Unlink removes a reference and its inverse.
func (e *Edit) Unlink(from, refType, to Key) {}
