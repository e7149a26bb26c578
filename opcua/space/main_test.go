package space

import (
	"testing"

	"github.com/gopcua/opcua/ua"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// A small world that is like namespace 0: reference types, a folder type, a folder with variables.
var (
	references    = NumericKey(0, 31)
	hierarchical  = NumericKey(0, 33)
	folderType    = NumericKey(0, 61)
	baseVariable  = NumericKey(0, 63)
	root          = NumericKey(0, 84)
	doubleType    = NumericKey(0, 11)
	propertyType  = NumericKey(0, 68)
	structureLike = NumericKey(0, 862) // a subtype of Structure
)

func typeNode(k Key, class ua.NodeClass, name string) *Node {
	n := &Node{Key: k, Class: class, BrowseName: ua.QualifiedName{Name: name}, DisplayName: Text(name)}
	if class == ua.NodeClassVariableType {
		n.DataType = NumericKey(0, 24)
	}
	return n
}

func object(k Key, name string) *Node {
	n := typeNode(k, ua.NodeClassObject, name)
	n.TypeDefinition = folderType
	return n
}

func variable(t *testing.T, k Key, name string, v any) *Node {
	t.Helper()
	n := typeNode(k, ua.NodeClassVariable, name)
	n.TypeDefinition, n.DataType, n.ValueRank, n.AccessLevel = baseVariable, doubleType, RankScalar, AccessCurrentRead
	if v != nil {
		fn, err := Constant(v)
		if err != nil {
			t.Fatal(err)
		}
		n.Value = fn
	}
	return n
}

// world returns a table with the types, and a space of the sources in front of it.
func world(t *testing.T, front ...Source) (*Space, *Table) {
	t.Helper()
	base := NewTable()
	edit(t, base, func(e *Edit) {
		for _, n := range []*Node{
			typeNode(references, ua.NodeClassReferenceType, "References"),
			typeNode(hierarchical, ua.NodeClassReferenceType, "HierarchicalReferences"),
			typeNode(Organizes, ua.NodeClassReferenceType, "Organizes"),
			typeNode(HasComponent, ua.NodeClassReferenceType, "HasComponent"),
			typeNode(HasTypeDefinition, ua.NodeClassReferenceType, "HasTypeDefinition"),
			typeNode(folderType, ua.NodeClassObjectType, "FolderType"),
			typeNode(baseVariable, ua.NodeClassVariableType, "BaseVariableType"),
			typeNode(propertyType, ua.NodeClassVariableType, "PropertyType"),
			typeNode(structureType, ua.NodeClassDataType, "Structure"),
			typeNode(structureLike, ua.NodeClassDataType, "ServerStatusDataType"),
			object(root, "Root"),
		} {
			e.Put(n)
		}
		e.Link(references, HasSubtype, hierarchical)
		e.Link(references, HasSubtype, HasTypeDefinition)
		e.Link(hierarchical, HasSubtype, Organizes)
		e.Link(hierarchical, HasSubtype, HasComponent)
		e.Link(structureType, HasSubtype, structureLike)
	})
	s, err := New([]string{NamespaceUA, "urn:app"}, append(front, base)...)
	if err != nil {
		t.Fatal(err)
	}
	return s, base
}

func edit(t *testing.T, table *Table, fn func(e *Edit)) {
	t.Helper()
	if err := table.Edit(func(e *Edit) error { fn(e); return nil }); err != nil {
		t.Fatal(err)
	}
}

// browse returns all pages of at most max references, as text "type>target" or "type<target".
func browse(t *testing.T, s *Space, d ua.BrowseDescription, max int) []string {
	t.Helper()
	d.ResultMask = uint32(ua.BrowseResultMaskAll)
	var out []string
	var at Position
	for range 10_000 {
		page, status := s.Browse(&d, at, max)
		if status != ua.StatusOK {
			t.Fatalf("browse %s: %v", d.NodeID, status)
		}
		if max > 0 && len(page.References) > max {
			t.Fatalf("a page of %d references, want at most %d", len(page.References), max)
		}
		for _, r := range page.References {
			arrow := "<"
			if r.IsForward {
				arrow = ">"
			}
			out = append(out, r.ReferenceTypeID.String()+arrow+r.NodeID.NodeID.String())
		}
		if !page.More {
			return out
		}
		at = page.Next
	}
	t.Fatal("the pages do not end")
	return nil
}
