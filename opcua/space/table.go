package space

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"

	"github.com/gopcua/opcua/ua"
)

// Limits of a Table. Its edits copy it, so what is larger than this wants a Source of its own.
const (
	MaxTableNodes      = 50_000
	MaxTableReferences = 200_000
)

// ErrTableFull is returned by an edit that would take a Table over MaxTableNodes or MaxTableReferences.
var ErrTableFull = errors.New("space: table is full")

// errEditOver keeps an Edit that was kept beyond its function from changing what readers see.
var errEditOver = errors.New("space: the edit is over")

// Table is a Source that the program fills and changes. Readers take no lock: an edit makes a new state and then puts
// it in the place of the old one. An edit therefore costs time in proportion to the table, and many changes are best
// made in one.
type Table struct {
	edit  sync.Mutex // held by the one edit that is under way
	state atomic.Pointer[tableState]
}

// tableState is never modified once it is published.
type tableState struct {
	nodes map[Key]*Node
	links map[Key]*links
	known map[arc]struct{}
	last  uint64 // the highest sequence number given to a link so far
}

// links are the references of one node in the order in which they were made. The numbers rise, and make cursors that
// stay right whatever is added or removed.
type links struct {
	refs    []Reference
	numbers []uint64
}

// arc is a reference seen from its source.
type arc struct{ from, refType, to Key }

// NewTable returns an empty table.
func NewTable() *Table {
	t := &Table{}
	t.state.Store(&tableState{nodes: map[Key]*Node{}, links: map[Key]*links{}, known: map[arc]struct{}{}})
	return t
}

// Node implements Source.
func (t *Table) Node(k Key) (*Node, bool) {
	n, ok := t.state.Load().nodes[k]
	return n, ok
}

// References implements Source.
func (t *Table) References(k Key, from Cursor, max int) (refs []Reference, next Cursor) {
	l := t.state.Load().links[k]
	if l == nil || max <= 0 {
		return nil, ""
	}
	i := 0
	if from != "" {
		n, err := strconv.ParseUint(string(from), 10, 64)
		if err != nil {
			return nil, ""
		}
		var found bool
		if i, found = slices.BinarySearch(l.numbers, n); found {
			i++
		}
	}
	end := min(i+max, len(l.refs))
	if end < len(l.refs) {
		next = Cursor(strconv.FormatUint(l.numbers[end-1], 10))
	}
	return l.refs[i:end:end], next
}

// Linked implements Linker.
func (t *Table) Linked(k Key, r Reference) bool {
	a := arc{k, r.Type, r.Target}
	if !r.Forward {
		a = arc{r.Target, r.Type, k}
	}
	_, ok := t.state.Load().known[a]
	return ok
}

// Edit changes the table: fn makes the changes, and they become visible together when it has returned nil. After an
// error, fn's or that of one of the changes, nothing has changed. fn must not call the table's Edit.
func (t *Table) Edit(fn func(e *Edit) error) error {
	t.edit.Lock()
	defer t.edit.Unlock()
	old := t.state.Load()
	e := &Edit{
		state: &tableState{nodes: maps.Clone(old.nodes), links: maps.Clone(old.links), known: maps.Clone(old.known), last: old.last},
		owned: map[Key]struct{}{},
	}
	err := cmp.Or(fn(e), e.err)
	if err == nil {
		t.state.Store(e.state)
	}
	e.err = errEditOver
	return err
}

// Edit is a change of a Table that is under way. After the first error its methods do nothing, and Table.Edit returns
// that error.
type Edit struct {
	state *tableState
	owned map[Key]struct{} // whose links are this edit's own copy
	err   error
}

// Put adds a node, or replaces the one of the same key; references stay. The reference to its type definition comes
// from the node itself.
func (e *Edit) Put(n *Node) {
	if e.err != nil {
		return
	}
	if e.err = n.validate(); e.err != nil {
		return
	}
	if old, ok := e.state.nodes[n.Key]; ok {
		e.unlink(arc{n.Key, HasTypeDefinition, old.TypeDefinition})
	} else if len(e.state.nodes) >= MaxTableNodes {
		e.err = fmt.Errorf("%w: node %s would be one more than %d", ErrTableFull, n.Key, MaxTableNodes)
		return
	}
	e.state.nodes[n.Key] = n
	if !n.TypeDefinition.IsNull() {
		e.link(arc{n.Key, HasTypeDefinition, n.TypeDefinition})
	}
}

// Remove removes a node, if the table has it, and all references to and from it that the table has.
func (e *Edit) Remove(k Key) {
	if e.err != nil {
		return
	}
	if n, ok := e.state.nodes[k]; ok {
		e.unlink(arc{k, HasTypeDefinition, n.TypeDefinition})
		delete(e.state.nodes, k)
	}
	l := e.state.links[k]
	if l == nil {
		return
	}
	delete(e.state.links, k)
	delete(e.owned, k)
	for _, r := range l.refs {
		if r.Forward {
			delete(e.state.known, arc{k, r.Type, r.Target})
		} else {
			delete(e.state.known, arc{r.Target, r.Type, k})
		}
		e.drop(r.Target, Reference{Type: r.Type, Forward: !r.Forward, Target: k})
	}
}

// Link adds a reference from one node to another, and its inverse. Either may be a node of another source. One that the
// table has already is left as it is.
func (e *Edit) Link(from, refType, to Key) {
	if e.err != nil {
		return
	}
	switch {
	case from.IsNull() || refType.IsNull() || to.IsNull():
		e.err = fmt.Errorf("space: reference from %s of type %s to %s: null NodeId", from, refType, to)
	case refType == HasTypeDefinition:
		e.err = fmt.Errorf("space: reference from %s to %s: HasTypeDefinition is the node's TypeDefinition", from, to)
	default:
		e.link(arc{from, refType, to})
	}
}

// Unlink removes a reference and its inverse, if the table has them.
func (e *Edit) Unlink(from, refType, to Key) {
	if e.err == nil && refType != HasTypeDefinition {
		e.unlink(arc{from, refType, to})
	}
}

func (e *Edit) link(a arc) {
	if _, ok := e.state.known[a]; ok {
		return
	}
	if len(e.state.known) >= MaxTableReferences {
		e.err = fmt.Errorf("%w: reference from %s to %s would be one more than %d", ErrTableFull, a.from, a.to, MaxTableReferences)
		return
	}
	e.state.known[a] = struct{}{}
	if a.refType != HasTypeDefinition { // Its forward end is Node.TypeDefinition.
		e.add(a.from, Reference{Type: a.refType, Forward: true, Target: a.to})
	}
	e.add(a.to, Reference{Type: a.refType, Target: a.from})
}

func (e *Edit) unlink(a arc) {
	if _, ok := e.state.known[a]; !ok {
		return
	}
	delete(e.state.known, a)
	e.drop(a.from, Reference{Type: a.refType, Forward: true, Target: a.to})
	e.drop(a.to, Reference{Type: a.refType, Target: a.from})
}

func (e *Edit) add(k Key, r Reference) {
	l := e.own(k)
	e.state.last++
	l.refs = append(l.refs, r)
	l.numbers = append(l.numbers, e.state.last)
}

func (e *Edit) drop(k Key, r Reference) {
	if e.state.links[k] == nil {
		return
	}
	l := e.own(k)
	i := slices.Index(l.refs, r)
	if i < 0 {
		return
	}
	l.refs = slices.Delete(l.refs, i, i+1)
	l.numbers = slices.Delete(l.numbers, i, i+1)
	if len(l.refs) == 0 {
		delete(e.state.links, k)
		delete(e.owned, k)
	}
}

// own returns the links of k as a copy that this edit may modify.
func (e *Edit) own(k Key) *links {
	l := e.state.links[k]
	if _, ok := e.owned[k]; ok {
		return l
	}
	if l == nil {
		l = &links{}
	} else {
		l = &links{refs: slices.Clone(l.refs), numbers: slices.Clone(l.numbers)}
	}
	e.state.links[k] = l
	e.owned[k] = struct{}{}
	return l
}

// validate names the field that makes a node unfit for an address space.
func (n *Node) validate() error {
	if n == nil {
		return errors.New("space: node is nil")
	}
	bad := func(field, why string) error { return fmt.Errorf("space: node %s: %s %s", n.Key, field, why) }
	instance := n.Class == ua.NodeClassObject || n.Class == ua.NodeClassVariable
	switch {
	case n.Key.IsNull():
		return bad("Key", "is null")
	case n.Class&^ua.NodeClassAll != 0 || n.Class <= 0 || n.Class&(n.Class-1) != 0:
		return bad("Class", fmt.Sprintf("is %d, not one of the eight", n.Class))
	case n.BrowseName.Name == "":
		return bad("BrowseName", "is empty")
	case n.DisplayName.Text == "" || !n.DisplayName.Has(ua.LocalizedTextText):
		return bad("DisplayName", "is empty: make it with Text")
	case instance && n.TypeDefinition.IsNull():
		return bad("TypeDefinition", "is null, but every object and variable has one")
	case !instance && !n.TypeDefinition.IsNull():
		return bad("TypeDefinition", "is set, but only objects and variables have one")
	case (n.Class == ua.NodeClassVariable || n.Class == ua.NodeClassVariableType) && n.DataType.IsNull():
		return bad("DataType", "is null")
	case n.Value != nil && n.Class != ua.NodeClassVariable && n.Class != ua.NodeClassVariableType:
		return bad("Value", "is set, but only variables and their types have one")
	case (n.Write != nil) != (n.Class == ua.NodeClassVariable && n.AccessLevel&AccessCurrentWrite != 0):
		return bad("Write", "goes with AccessCurrentWrite of a variable")
	}
	return nil
}
