package space

import (
	"fmt"
	"slices"
	"strconv"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/gopcua/opcua/ua"
)

func TestBrowseFilters(t *testing.T) {
	front := NewTable()
	s, base := world(t, front)
	v := NumericKey(1, 1)
	edit(t, front, func(e *Edit) {
		e.Put(variable(t, v, "V", 1.0))
		e.Put(object(NumericKey(1, 2), "O"))
		e.Link(root, HasComponent, v)
		e.Link(root, Organizes, NumericKey(1, 2))
		e.Link(root, Organizes, NumericKey(1, 404)) // nobody has that node
	})
	// What both sources say is said once.
	edit(t, base, func(e *Edit) { e.Link(root, HasComponent, v) })

	all := []string{"i=40>i=61", "i=47>ns=1;i=1", "i=35>ns=1;i=2"}
	for _, c := range []struct {
		name string
		d    ua.BrowseDescription
		want []string
	}{
		{"everything", ua.BrowseDescription{BrowseDirection: ua.BrowseDirectionBoth}, all},
		{"forward", ua.BrowseDescription{}, all},
		{"inverse", ua.BrowseDescription{BrowseDirection: ua.BrowseDirectionInverse}, nil},
		{"a type without its subtypes", ua.BrowseDescription{ReferenceTypeID: hierarchical.NodeID()}, nil},
		{"a type and its subtypes", ua.BrowseDescription{ReferenceTypeID: hierarchical.NodeID(), IncludeSubtypes: true}, all[1:]},
		{"all subtypes", ua.BrowseDescription{ReferenceTypeID: references.NodeID(), IncludeSubtypes: true}, all},
		{"one type", ua.BrowseDescription{ReferenceTypeID: Organizes.NodeID(), IncludeSubtypes: true}, all[2:]},
		{"variables", ua.BrowseDescription{NodeClassMask: uint32(ua.NodeClassVariable)}, all[1:2]},
		{"variables and types", ua.BrowseDescription{NodeClassMask: uint32(ua.NodeClassVariable | ua.NodeClassObjectType)}, all[:2]},
	} {
		for _, max := range []int{0, 1, 2} {
			c.d.NodeID = root.NodeID()
			if diff := cmp.Diff(c.want, browse(t, s, c.d, max)); diff != "" {
				t.Errorf("%s, %d at a time: %s", c.name, max, diff)
			}
		}
	}
	if got := browse(t, s, ua.BrowseDescription{NodeID: v.NodeID(), BrowseDirection: ua.BrowseDirectionBoth}, 0); !slices.Equal(got, []string{"i=40>i=63", "i=47<i=84"}) {
		t.Errorf("from the other end: %v", got)
	}
}

func TestBrowseStatus(t *testing.T) {
	s, _ := world(t)
	for want, d := range map[ua.StatusCode]ua.BrowseDescription{
		ua.StatusBadNodeIDUnknown:          {NodeID: NumericKey(1, 404).NodeID()},
		ua.StatusBadBrowseDirectionInvalid: {NodeID: root.NodeID(), BrowseDirection: 3},
		ua.StatusBadReferenceTypeIDInvalid: {NodeID: root.NodeID(), ReferenceTypeID: folderType.NodeID()},
	} {
		if page, got := s.Browse(&d, Position{}, 0); got != want || page.More || page.References != nil {
			t.Errorf("%v, want %v; page %v", got, want, page)
		}
	}
	unknown := ua.BrowseDescription{NodeID: root.NodeID(), ReferenceTypeID: NumericKey(1, 404).NodeID()}
	if _, got := s.Browse(&unknown, Position{}, 0); got != ua.StatusBadReferenceTypeIDInvalid {
		t.Errorf("unknown reference type: %v", got)
	}
	if _, got := s.Browse(&ua.BrowseDescription{}, Position{}, 0); got != ua.StatusBadNodeIDUnknown {
		t.Errorf("no node: %v", got)
	}
}

func TestBrowseResultMask(t *testing.T) {
	s, _ := world(t)
	d := ua.BrowseDescription{NodeID: folderType.NodeID(), BrowseDirection: ua.BrowseDirectionInverse}
	for _, mask := range []ua.BrowseResultMask{0, 1, 2, 4, 8, 16, 32, 63} {
		d.ResultMask = uint32(mask)
		page, status := s.Browse(&d, Position{}, 0)
		if status != ua.StatusOK || len(page.References) != 1 {
			t.Fatalf("%v, %d references", status, len(page.References))
		}
		r := page.References[0]
		got := []bool{!KeyOf(r.ReferenceTypeID).IsNull(), r.NodeClass != 0, r.BrowseName.Name != "", r.DisplayName.Text != "", !KeyOf(r.TypeDefinition.NodeID).IsNull()}
		want := []bool{mask&1 != 0, mask&4 != 0, mask&8 != 0, mask&16 != 0, mask&32 != 0}
		if !slices.Equal(got, want) || KeyOf(r.NodeID.NodeID) != root || r.IsForward {
			t.Errorf("mask %d: fields %v, want %v", mask, got, want)
		}
	}
}

// A source in front may give a node another type: then the old type no longer counts it among its instances.
func TestOverridingANodeChangesItsType(t *testing.T) {
	front := NewTable()
	s, base := world(t, front)
	k := NumericKey(0, 2296)
	edit(t, base, func(e *Edit) { e.Put(object(k, "ServerRedundancy")); e.Link(root, HasComponent, k) })
	before := browse(t, s, ua.BrowseDescription{NodeID: k.NodeID(), BrowseDirection: ua.BrowseDirectionBoth}, 0)
	n := object(k, "ServerRedundancy")
	n.TypeDefinition = baseVariable
	edit(t, front, func(e *Edit) { e.Put(n) })
	after := browse(t, s, ua.BrowseDescription{NodeID: k.NodeID(), BrowseDirection: ua.BrowseDirectionBoth}, 0)
	if !slices.Equal(before, []string{"i=40>i=61", "i=47<i=84"}) || !slices.Equal(after, []string{"i=40>i=63", "i=47<i=84"}) {
		t.Errorf("before %v, after %v", before, after)
	}
	inverse := func(k Key) []string {
		return browse(t, s, ua.BrowseDescription{NodeID: k.NodeID(), BrowseDirection: ua.BrowseDirectionInverse}, 0)
	}
	if got := inverse(folderType); !slices.Equal(got, []string{"i=40<i=84"}) {
		t.Errorf("the old type: %v", got)
	}
	if got := inverse(baseVariable); !slices.Equal(got, []string{"i=40<i=2296"}) {
		t.Errorf("the new type: %v", got)
	}
}

// crowd is a folder of many children that exist only when they are asked for.
type crowd struct {
	folder  Key
	n       int
	largest int // the largest page that was asked for
	looked  int // references that were given out
}

func (c *crowd) Node(k Key) (*Node, bool) {
	if k == c.folder {
		return object(k, "Crowd"), true
	}
	id, ok := k.Numeric()
	if !ok || k.Namespace() != 2 || int(id) >= c.n {
		return nil, false
	}
	return object(k, "Child"+strconv.Itoa(int(id))), true
}

func (c *crowd) References(k Key, from Cursor, max int) (refs []Reference, next Cursor) {
	if k != c.folder {
		return nil, ""
	}
	if max > c.largest {
		c.largest = max
	}
	i, _ := strconv.Atoi(string(from))
	for ; i < c.n && len(refs) < max; i++ {
		refs = append(refs, Reference{Organizes, true, NumericKey(2, uint32(i))})
	}
	c.looked += len(refs)
	if i < c.n {
		next = Cursor(strconv.Itoa(i))
	}
	return refs, next
}

func (c *crowd) find(k Key, name ua.QualifiedName) ([]Reference, bool) {
	var i int
	if _, err := fmt.Sscanf(name.Name, "Child%d", &i); k != c.folder || err != nil || i >= c.n {
		return nil, k == c.folder
	}
	return []Reference{{Organizes, true, NumericKey(2, uint32(i))}}, true
}

type indexedCrowd struct{ crowd }

func (c *indexedCrowd) Find(k Key, name ua.QualifiedName) ([]Reference, bool) { return c.find(k, name) }

func TestBigFoldersArePaged(t *testing.T) {
	c := &crowd{folder: NumericKey(1, 1), n: 100_000}
	s, _ := world(t, c)
	got := browse(t, s, ua.BrowseDescription{NodeID: c.folder.NodeID(), ReferenceTypeID: hierarchical.NodeID(), IncludeSubtypes: true}, 0)
	if len(got) != c.n {
		t.Fatalf("%d children, want %d", len(got), c.n)
	}
	slices.Sort(got)
	if len(slices.Compact(got)) != c.n {
		t.Error("children are there twice")
	}
	if c.largest > MaxBrowseReferences {
		t.Errorf("asked for %d at once, want at most %d", c.largest, MaxBrowseReferences)
	}
}

// A filter that nothing fits must not let one request look at 100,000 references.
func TestBrowseScanIsBounded(t *testing.T) {
	c := &crowd{folder: NumericKey(1, 1), n: 100_000}
	s, _ := world(t, c)
	d := ua.BrowseDescription{NodeID: c.folder.NodeID(), BrowseDirection: ua.BrowseDirectionInverse}
	var at Position
	calls := 0
	for more := true; more; calls++ {
		c.looked = 0
		page, status := s.Browse(&d, at, 10)
		if status != ua.StatusOK || len(page.References) != 0 {
			t.Fatalf("%v, %d references", status, len(page.References))
		}
		if c.looked > MaxBrowseScan {
			t.Fatalf("one call looked at %d references", c.looked)
		}
		at, more = page.Next, page.More
	}
	if calls < 10 || calls > 20 {
		t.Errorf("%d calls, want 10 and a few", calls)
	}
}

func TestLastPageSaysSo(t *testing.T) {
	c := &crowd{folder: NumericKey(1, 1), n: 10}
	s, _ := world(t, c)
	d := ua.BrowseDescription{NodeID: c.folder.NodeID(), ReferenceTypeID: Organizes.NodeID()}
	page, _ := s.Browse(&d, Position{}, 10)
	if len(page.References) != 10 || page.More {
		t.Errorf("%d references, more %v: a page that happens to be full at the end is the last", len(page.References), page.More)
	}
	page, _ = s.Browse(&d, Position{}, 9)
	if len(page.References) != 9 || !page.More {
		t.Errorf("%d references, more %v: one is left", len(page.References), page.More)
	}
}

func TestIsSubtype(t *testing.T) {
	s, base := world(t)
	for _, c := range []struct {
		k, of Key
		want  bool
	}{
		{Organizes, Organizes, true},
		{Organizes, hierarchical, true},
		{Organizes, references, true},
		{hierarchical, Organizes, false},
		{HasTypeDefinition, hierarchical, false},
		{NumericKey(1, 404), references, false},
	} {
		if got := s.IsSubtype(c.k, c.of); got != c.want {
			t.Errorf("IsSubtype(%s, %s) = %v", c.k, c.of, got)
		}
	}
	// A loop, and a chain that is longer than any type tree.
	edit(t, base, func(e *Edit) { e.Link(Organizes, HasSubtype, references) })
	if s.IsSubtype(Organizes, folderType) {
		t.Error("a loop of types ends at FolderType")
	}
	edit(t, base, func(e *Edit) {
		for i := range uint32(MaxTypeDepth + 1) {
			e.Put(typeNode(NumericKey(1, i), ua.NodeClassDataType, "T"))
			if i > 0 {
				e.Link(NumericKey(1, i-1), HasSubtype, NumericKey(1, i))
			}
		}
	})
	if !s.IsSubtype(NumericKey(1, MaxTypeDepth-1), NumericKey(1, 0)) || s.IsSubtype(NumericKey(1, MaxTypeDepth), NumericKey(1, 0)) {
		t.Errorf("the depth of types is not bounded at MaxTypeDepth")
	}
}
