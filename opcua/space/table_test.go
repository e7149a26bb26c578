package space

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/gopcua/opcua/ua"
)

func TestTableRefusesBadNodes(t *testing.T) {
	good := func() *Node { return variable(t, NumericKey(1, 1), "V", 1.0) }
	for field, spoil := range map[string]func(n *Node){
		"Key":            func(n *Node) { n.Key = Key{} },
		"Class":          func(n *Node) { n.Class = 3 },
		"Class is 0":     func(n *Node) { n.Class = 0 },
		"Class is 256":   func(n *Node) { n.Class = 256 },
		"BrowseName":     func(n *Node) { n.BrowseName.Name = "" },
		"DisplayName":    func(n *Node) { n.DisplayName = ua.LocalizedText{Text: "no mask"} },
		"TypeDefinition": func(n *Node) { n.TypeDefinition = Key{} },
		"TypeDefinition is set": func(n *Node) {
			n.Class, n.Value = ua.NodeClassMethod, nil
		},
		"DataType": func(n *Node) { n.DataType = Key{} },
		"Value":    func(n *Node) { n.Class = ua.NodeClassObject },
	} {
		table := NewTable()
		n := good()
		spoil(n)
		err := table.Edit(func(e *Edit) error {
			e.Put(good())
			e.Put(n)
			e.Link(root, Organizes, good().Key)
			return nil
		})
		if err == nil || !strings.Contains(err.Error(), field) {
			t.Errorf("%s: %v", field, err)
		}
		if _, ok := table.Node(good().Key); ok {
			t.Errorf("%s: the good node is there although the edit failed", field)
		}
	}
	if err := NewTable().Edit(func(e *Edit) error { e.Put(nil); return nil }); err == nil {
		t.Error("a nil node is accepted")
	}
}

func TestTableEditIsAllOrNothing(t *testing.T) {
	table := NewTable()
	stop := errors.New("stop")
	a, b := NumericKey(1, 1), NumericKey(1, 2)
	edit(t, table, func(e *Edit) { e.Link(a, Organizes, b) })
	for _, fn := range []func(e *Edit) error{
		func(e *Edit) error { e.Unlink(a, Organizes, b); return stop },
		func(e *Edit) error { e.Remove(a); e.Link(a, HasTypeDefinition, b); return nil },
		func(e *Edit) error { e.Unlink(a, Organizes, b); e.Link(Key{}, Organizes, b); return nil },
		func(e *Edit) error { e.Link(a, HasComponent, b); e.Put(nil); e.Link(b, HasComponent, a); return nil },
	} {
		if err := table.Edit(fn); err == nil {
			t.Error("no error")
		}
	}
	var kept *Edit
	edit(t, table, func(e *Edit) { kept = e })
	kept.Unlink(a, Organizes, b)
	kept.Remove(a)
	refs, next := table.References(b, "", 10)
	if diff := cmp.Diff([]Reference{{Organizes, false, a}}, refs, cmp.AllowUnexported(Key{})); diff != "" || next != "" {
		t.Errorf("after failed edits: %s %q", diff, next)
	}
}

func TestTableKeepsBothEndsAlike(t *testing.T) {
	table := NewTable()
	a, b, c := object(NumericKey(1, 1), "A"), object(NumericKey(1, 2), "B"), object(NumericKey(1, 3), "C")
	edit(t, table, func(e *Edit) {
		e.Put(a)
		e.Put(b)
		e.Put(c)
		e.Link(a.Key, Organizes, b.Key)
		e.Link(a.Key, Organizes, b.Key) // again: nothing
		e.Link(b.Key, Organizes, c.Key)
		e.Link(c.Key, Organizes, c.Key) // to itself
	})
	count := func(k Key) int { refs, _ := table.References(k, "", 100); return len(refs) }
	check := func(step string, want ...int) {
		t.Helper()
		if got := []int{count(a.Key), count(b.Key), count(c.Key), count(folderType), count(propertyType)}; !cmp.Equal(got, want) {
			t.Errorf("%s: references of a, b, c, the old and the new type: %v, want %v", step, got, want)
		}
	}
	check("linked", 1, 2, 3, 3, 0)
	if !table.Linked(a.Key, Reference{Organizes, true, b.Key}) || !table.Linked(b.Key, Reference{Organizes, false, a.Key}) || table.Linked(b.Key, Reference{Organizes, true, a.Key}) {
		t.Error("Linked does not say what References says")
	}
	other := *a
	other.TypeDefinition = propertyType
	edit(t, table, func(e *Edit) { e.Put(&other) })
	check("another type", 1, 2, 3, 2, 1)
	edit(t, table, func(e *Edit) { e.Remove(c.Key); e.Remove(NumericKey(1, 99)) })
	check("c removed", 1, 1, 0, 1, 1)
	edit(t, table, func(e *Edit) { e.Unlink(a.Key, Organizes, b.Key); e.Unlink(b.Key, Organizes, a.Key) })
	check("unlinked", 0, 0, 0, 1, 1)
	edit(t, table, func(e *Edit) { e.Remove(a.Key); e.Remove(b.Key) })
	check("empty", 0, 0, 0, 0, 0)
	if st := table.state.Load(); len(st.nodes)+len(st.links)+len(st.known) != 0 {
		t.Errorf("left behind: %+v", st)
	}
}

// Whatever is removed and added between two pages, what stays is returned exactly once (the contract of Source).
func TestTableCursorsBearChanges(t *testing.T) {
	table := NewTable()
	folder := NumericKey(1, 0)
	child := func(i int) Key { return NumericKey(2, uint32(i)) }
	edit(t, table, func(e *Edit) {
		for i := range 20 {
			e.Link(folder, Organizes, child(i))
		}
	})
	var got []Reference
	refs, next := table.References(folder, "", 5)
	got = append(got, refs...)
	edit(t, table, func(e *Edit) {
		for _, i := range []int{0, 4, 5, 9} { // the cursor's own reference (4) too
			e.Unlink(folder, Organizes, child(i))
		}
		e.Link(folder, Organizes, child(100))
	})
	for next != "" {
		refs, next = table.References(folder, next, 5)
		got = append(got, refs...)
	}
	seen := map[Key]int{}
	for _, r := range got {
		seen[r.Target]++
	}
	for i := range 20 {
		want := 1
		if i == 5 || i == 9 {
			want = 0
		}
		if seen[child(i)] != want {
			t.Errorf("child %d was returned %d times", i, seen[child(i)])
		}
	}
	if seen[child(100)] != 1 {
		t.Error("the added child is missing")
	}
	for _, c := range []Cursor{"x", "-1", "99999999999999999999", "1e3", "4000"} {
		if refs, next := table.References(folder, c, 5); len(refs) != 0 || next != "" {
			t.Errorf("cursor %q: %v, %q", c, refs, next)
		}
	}
}

func TestTableLimits(t *testing.T) {
	table := NewTable()
	edit(t, table, func(e *Edit) {
		for i := range MaxTableNodes {
			e.Put(&Node{Key: NumericKey(1, uint32(i)), Class: ua.NodeClassMethod, BrowseName: ua.QualifiedName{Name: "N"}, DisplayName: Text("N")})
		}
		for i := range MaxTableReferences {
			e.Link(NumericKey(2, 0), Organizes, NumericKey(3, uint32(i)+1))
		}
	})
	again := typeNode(NumericKey(1, 0), ua.NodeClassMethod, "Again")
	more := typeNode(NumericKey(1, MaxTableNodes), ua.NodeClassMethod, "More")
	if err := table.Edit(func(e *Edit) error { e.Put(again); return nil }); err != nil {
		t.Errorf("replacing in a full table: %v", err)
	}
	if err := table.Edit(func(e *Edit) error { e.Put(more); return nil }); !errors.Is(err, ErrTableFull) {
		t.Errorf("one node too many: %v", err)
	}
	if err := table.Edit(func(e *Edit) error { e.Link(root, Organizes, folderType); return nil }); !errors.Is(err, ErrTableFull) {
		t.Errorf("one reference too many: %v", err)
	}
	edit(t, table, func(e *Edit) { e.Remove(NumericKey(2, 0)) })
	if st := table.state.Load(); len(st.links)+len(st.known) != 0 {
		t.Errorf("removing the node of all references leaves %d", len(st.known))
	}
}

func TestTableIsReadWhileItChanges(t *testing.T) {
	front := NewTable()
	s, _ := world(t, front)
	a := NumericKey(1, 1)
	var wg sync.WaitGroup
	stop := make(chan struct{})
	for range 4 {
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				dv := read(s, a, ua.AttributeIDValue, "", "")
				page, status := s.Browse(&ua.BrowseDescription{NodeID: a.NodeID(), BrowseDirection: ua.BrowseDirectionInverse}, Position{}, 0)
				if dv.Status == ua.StatusBadNodeIDUnknown && status == ua.StatusBadNodeIDUnknown {
					continue
				}
				if dv.Status == ua.StatusOK && status == ua.StatusOK && len(page.References) > 1 {
					t.Errorf("%d parents", len(page.References))
				}
			}
		})
	}
	n := variable(t, a, "A", 1.0)
	for range 500 {
		edit(t, front, func(e *Edit) { e.Put(n); e.Link(root, Organizes, a) })
		edit(t, front, func(e *Edit) { e.Remove(a) })
	}
	close(stop)
	wg.Wait()
	if _, ok := s.Node(a); ok {
		t.Error("the node is still there")
	}
}

func TestNewRefusesBadNamespaces(t *testing.T) {
	for _, ns := range [][]string{nil, {NamespaceUA}, {"urn:app", NamespaceUA}, {NamespaceUA, ""}, {NamespaceUA, "urn:a", "urn:a"}} {
		if _, err := New(ns); err == nil {
			t.Errorf("%q is accepted", ns)
		}
	}
	if _, err := New([]string{NamespaceUA, "urn:a"}, nil); err == nil {
		t.Error("a nil source is accepted")
	}
	s, err := New([]string{NamespaceUA, "urn:a"})
	if err != nil || fmt.Sprint(s.Namespaces()) != "["+NamespaceUA+" urn:a]" {
		t.Errorf("%v %v", s, err)
	}
}
