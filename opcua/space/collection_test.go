package space

import (
	"fmt"
	"iter"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/gopcua/opcua/ua"
)

// herd is what a collection is made of in these tests: ids in order, of which some are marked.
type herd struct {
	mu     sync.Mutex
	ids    []string
	marked map[string]bool
	looked int // ids that were given out
}

func newHerd(n int) *herd {
	h := &herd{marked: map[string]bool{}}
	for i := range n {
		h.ids = append(h.ids, fmt.Sprintf("cow-%06d", i))
	}
	return h
}

func (h *herd) has(id string) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	_, found := slices.BinarySearch(h.ids, id)
	return found
}

func (h *herd) add(id string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	i, _ := slices.BinarySearch(h.ids, id)
	h.ids = slices.Insert(h.ids, i, id)
}

func (h *herd) remove(id string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if i, found := slices.BinarySearch(h.ids, id); found {
		h.ids = slices.Delete(slices.Clone(h.ids), i, i+1)
	}
}

func (h *herd) hasMarked(id string) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.marked[id]
}

func (h *herd) after(wanted func(id string) bool) func(string) iter.Seq[string] {
	return func(after string) iter.Seq[string] {
		h.mu.Lock()
		ids := h.ids
		h.mu.Unlock()
		i, found := slices.BinarySearch(ids, after)
		if found {
			i++
		}
		return func(yield func(string) bool) {
			for _, id := range ids[i:] {
				if h.looked++; wanted(id) && !yield(id) {
					return
				}
			}
		}
	}
}

var (
	herdFolder   = StringKey(1, "herd")
	markedFolder = StringKey(1, "marked")
)

func (h *herd) member() Member {
	return Member{Namespace: 1, Prefix: "herd/", Type: folderType, Variables: []MemberVariable{
		{Name: "Name", Description: "What it is called.", DataType: NumericKey(0, 12), ValueRank: RankScalar, Value: func(_ ReadContext, id string) *ua.DataValue {
			return &ua.DataValue{Value: ua.MustVariant(strings.ToUpper(id))}
		}},
		{Name: "Weight", DataType: doubleType, ValueRank: RankScalar, Value: func(ReadContext, string) *ua.DataValue {
			return &ua.DataValue{Value: ua.MustVariant(512.5)}
		}},
	}}
}

func (h *herd) listings() []Listing {
	return []Listing{
		{Folder: herdFolder, Has: h.has, IDs: h.after(func(string) bool { return true })},
		{Folder: markedFolder, Has: h.hasMarked, IDs: h.after(h.hasMarked)},
	}
}

// graze returns a space with the herd's folders below the root, beside one other thing in the folder of all.
func graze(t *testing.T, h *herd) (*Space, *Collection) {
	t.Helper()
	c, err := NewCollection(h.member(), h.listings()...)
	if err != nil {
		t.Fatal(err)
	}
	front := NewTable()
	s, _ := world(t, front, c)
	edit(t, front, func(e *Edit) {
		e.Put(object(herdFolder, "Herd"))
		e.Put(object(markedFolder, "Marked"))
		e.Put(variable(t, StringKey(1, "herd/Count"), "Count", 1.0))
		e.Link(root, Organizes, herdFolder)
		e.Link(root, Organizes, markedFolder)
		e.Link(herdFolder, HasComponent, StringKey(1, "herd/Count"))
	})
	return s, c
}

func TestCollectionNodes(t *testing.T) {
	h := newHerd(3)
	h.marked["cow-000001"] = true
	s, c := graze(t, h)
	cow := c.Key("cow-000001")
	if cow != StringKey(1, "herd/cow-000001") || c.VariableKey("cow-000001", "Name") != StringKey(1, "herd/cow-000001/Name") {
		t.Errorf("keys %s, %s", cow, c.VariableKey("cow-000001", "Name"))
	}
	if keys := c.Keys("x"); !slices.Equal(keys, []Key{StringKey(1, "herd/x"), StringKey(1, "herd/x/Name"), StringKey(1, "herd/x/Weight")}) {
		t.Errorf("keys %v", keys)
	}
	n, ok := s.Node(cow)
	if !ok || n.Class != ua.NodeClassObject || n.BrowseName != (ua.QualifiedName{NamespaceIndex: 1, Name: "cow-000001"}) || n.DisplayName.Text != "cow-000001" || n.TypeDefinition != folderType {
		t.Errorf("%v %+v", ok, n)
	}
	n, ok = s.Node(c.VariableKey("cow-000001", "Name"))
	if !ok || n.Class != ua.NodeClassVariable || n.BrowseName.Name != "Name" || n.Description.Text != "What it is called." || n.TypeDefinition != baseVariable ||
		n.ValueRank != RankScalar || n.AccessLevel != AccessCurrentRead || n.MinimumSamplingInterval != 0 {
		t.Errorf("%v %+v", ok, n)
	}
	for _, n := range []*Node{mustNode(t, s, cow), n} {
		if err := n.validate(); err != nil {
			t.Error(err) // A table would not take it.
		}
	}
	var dv ua.DataValue
	s.Read(ReadContext{}, &dv, c.VariableKey("cow-000001", "Name"), ua.AttributeIDValue, "", nil, ua.TimestampsToReturnNeither)
	if dv.Status != ua.StatusOK || dv.Value.Value() != "COW-000001" {
		t.Errorf("%v", dv.Value)
	}
	// What is not of the collection, and members that there are not.
	for k, owned := range map[Key]bool{
		StringKey(1, "herd/cow-000003"): true, StringKey(1, "herd/cow-000003/Name"): true, StringKey(1, "herd/cow-000001/name"): false,
		StringKey(1, "herd/cow-000001/"): false, StringKey(1, "herd/cow-000001/Name/"): false, StringKey(1, "herd/"): false, StringKey(1, "herd//Name"): false,
		StringKey(1, "herd"): false, StringKey(2, "herd/cow-000001"): false, NumericKey(1, 1): false, StringKey(1, "erd/cow-000001"): false, {}: false,
	} {
		if _, ok := c.Node(k); ok || c.Owns(k) != owned {
			t.Errorf("%q: a node %v, owned %v", k, ok, c.Owns(k))
		}
		if k != herdFolder {
			if refs, next := c.References(k, "", 10); len(refs) != 0 || next != "" {
				t.Errorf("%q has references %v", k, refs)
			}
		}
	}
	if !c.Owns(cow) {
		t.Error("a member is not the collection's")
	}
}

func mustNode(t *testing.T, s *Space, k Key) *Node {
	t.Helper()
	n, ok := s.Node(k)
	if !ok {
		t.Fatalf("no node %s", k)
	}
	return n
}

// Every reference appears at both its ends, whatever the size of the pages.
// TestCollectionChanged tells those who wait for a member or a variable of it, and makes no key where nobody waits for anything of its namespace.
func TestCollectionChanged(t *testing.T) {
	s, c := graze(t, newHerd(2))
	if allocations := testing.AllocsPerRun(100, func() { c.Changed(s, "cow-000001") }); allocations != 0 {
		t.Errorf("%v allocations with nobody waiting", allocations)
	}
	var told []string
	for _, k := range []Key{c.Key("cow-000001"), c.VariableKey("cow-000001", "Weight"), c.Key("cow-000002"), StringKey(7, "none")} {
		cancel := s.Subscribe(k, func() { told = append(told, k.String()) })
		defer cancel()
		c.Changed(s, "cow-000001")
		cancel()
		cancel() // Counts once.
		c.Changed(s, "cow-000001")
	}
	if want := []string{c.Key("cow-000001").String(), c.VariableKey("cow-000001", "Weight").String()}; !slices.Equal(told, want) {
		t.Errorf("told %q, want %q", told, want)
	}
	for ns := range s.subscribed {
		if n := s.subscribed[ns].Load(); n != 0 {
			t.Errorf("%d wait in namespace %d", n, ns)
		}
	}
}

func TestCollectionReferences(t *testing.T) {
	h := newHerd(3)
	h.marked["cow-000001"] = true
	s, c := graze(t, h)
	cow, other := c.Key("cow-000001"), c.Key("cow-000002")
	for _, max := range []int{1, 2, 3, 0} {
		for k, want := range map[Key][]string{
			herdFolder: {"i=40>i=61", "i=35<i=84", "i=47>ns=1;s=herd/Count",
				"i=35>ns=1;s=herd/cow-000000", "i=35>ns=1;s=herd/cow-000001", "i=35>ns=1;s=herd/cow-000002"},
			markedFolder: {"i=40>i=61", "i=35<i=84", "i=35>ns=1;s=herd/cow-000001"},
			cow: {"i=40>i=61", "i=35<ns=1;s=herd", "i=35<ns=1;s=marked",
				"i=47>ns=1;s=herd/cow-000001/Name", "i=47>ns=1;s=herd/cow-000001/Weight"},
			other:                               {"i=40>i=61", "i=35<ns=1;s=herd", "i=47>ns=1;s=herd/cow-000002/Name", "i=47>ns=1;s=herd/cow-000002/Weight"},
			c.VariableKey("cow-000001", "Name"): {"i=40>i=63", "i=47<ns=1;s=herd/cow-000001"},
		} {
			if got := browse(t, s, ua.BrowseDescription{NodeID: k.NodeID(), BrowseDirection: ua.BrowseDirectionBoth}, max); !slices.Equal(got, want) {
				t.Errorf("%s by %d: %q, want %q", k, max, got, want)
			}
		}
	}
	for _, cursor := range []Cursor{"-1", "x", "999", "1"} {
		if refs, next := c.References(c.VariableKey("cow-000001", "Name"), cursor, 10); len(refs) != 0 || next != "" {
			t.Errorf("a variable at %q: %v, %q", cursor, refs, next)
		}
	}
	for _, cursor := range []Cursor{"-1", "x", "999"} {
		if refs, next := c.References(cow, cursor, 10); len(refs) != 0 || next != "" {
			t.Errorf("a member at %q: %v, %q", cursor, refs, next)
		}
	}
	if refs, next := c.References(herdFolder, "", 0); len(refs) != 0 || next != "" {
		t.Errorf("none were asked for: %v, %q", refs, next)
	}
}

// Pages neither repeat nor leave out what is there all the time, whatever comes and goes.
func TestCollectionPagesSurviveEdits(t *testing.T) {
	h := newHerd(1000)
	s, c := graze(t, h)
	d := ua.BrowseDescription{NodeID: herdFolder.NodeID(), ReferenceTypeID: Organizes.NodeID(), ResultMask: uint32(ua.BrowseResultMaskAll)}
	seen := map[string]int{}
	var at Position
	for i, more := 0, true; more; i++ {
		page, status := s.Browse(&d, at, 10)
		if status != ua.StatusOK {
			t.Fatal(status)
		}
		for _, r := range page.References {
			seen[r.NodeID.NodeID.StringID()]++
		}
		at, more = page.Next, page.More
		// The one that the page ended with goes, and so does one that is yet to come; some come at both sides.
		h.remove(fmt.Sprintf("cow-%06d", 10*i+9))
		h.remove(fmt.Sprintf("cow-%06d", 999-i))
		h.add(fmt.Sprintf("cow-%06d-calf", 5*i))
		h.add(fmt.Sprintf("cow-%06d-calf", 500+3*i))
	}
	for _, id := range h.ids {
		if n := seen[c.member.Prefix+id]; n != 1 && !strings.HasSuffix(id, "calf") || n > 1 {
			t.Errorf("%s was there %d times", id, n)
		}
	}
}

// What is not wanted of a large folder is not looked at.
func TestUniformFoldersArePassedOver(t *testing.T) {
	h := newHerd(100_000)
	s, c := graze(t, h)
	for name, d := range map[string]ua.BrowseDescription{
		"backwards":         {BrowseDirection: ua.BrowseDirectionInverse},
		"components":        {ReferenceTypeID: HasComponent.NodeID()},
		"components below":  {ReferenceTypeID: HasComponent.NodeID(), IncludeSubtypes: true},
		"variables":         {NodeClassMask: uint32(ua.NodeClassVariable)},
		"variables, of all": {NodeClassMask: uint32(ua.NodeClassVariable), BrowseDirection: ua.BrowseDirectionBoth},
	} {
		d.NodeID = herdFolder.NodeID()
		h.looked = 0
		page, status := s.Browse(&d, Position{}, 0)
		if status != ua.StatusOK || len(page.References) != 1 || page.More || h.looked != 0 || page.Scanned > 20 {
			t.Errorf("%s: %v, %d references, more %v, %d looked at, %d scanned", name, status, len(page.References), page.More, h.looked, page.Scanned)
		}
	}
	// And what is, is.
	for name, d := range map[string]ua.BrowseDescription{
		"all":          {BrowseDirection: ua.BrowseDirectionBoth},
		"hierarchical": {ReferenceTypeID: hierarchical.NodeID(), IncludeSubtypes: true},
		"objects":      {NodeClassMask: uint32(ua.NodeClassObject | ua.NodeClassMethod)},
	} {
		d.NodeID = herdFolder.NodeID()
		if page, status := s.Browse(&d, Position{}, 0); status != ua.StatusOK || len(page.References) != MaxBrowseReferences || !page.More {
			t.Errorf("%s: %v, %d references, more %v", name, status, len(page.References), page.More)
		}
	}
	h.looked = 0
	calf := step(hierarchical, "cow-099999")
	calf.TargetName.NamespaceIndex = 1
	weight := step(HasComponent, "Weight")
	weight.TargetName.NamespaceIndex = 1
	targets, status := s.Translate(herdFolder, path(calf, weight))
	if status != ua.StatusOK || len(targets) != 1 || KeyOf(targets[0].TargetID.NodeID) != c.VariableKey("cow-099999", "Weight") || h.looked > 0 {
		t.Errorf("%v, %v, %d looked at", status, targets, h.looked)
	}
	calf.TargetName.NamespaceIndex = 2
	if _, status := s.Translate(herdFolder, path(calf)); status != ua.StatusBadNoMatch || h.looked > 0 {
		t.Errorf("of another namespace: %v, %d looked at", status, h.looked)
	}
	calf.TargetName.NamespaceIndex, calf.IsInverse = 1, true
	if _, status := s.Translate(herdFolder, path(calf)); status != ua.StatusBadNoMatch || h.looked > 0 {
		t.Errorf("backwards: %v, %d looked at", status, h.looked)
	}
}

func TestBadCollections(t *testing.T) {
	h := newHerd(1)
	for want, change := range map[string]func(m *Member, l []Listing) []Listing{
		"Prefix is empty":             func(m *Member, l []Listing) []Listing { m.Prefix = ""; return l },
		"Type is null":                func(m *Member, l []Listing) []Listing { m.Type = Key{}; return l },
		"there is no listing":         func(*Member, []Listing) []Listing { return nil },
		`Variables[1]: "" is no`:      func(m *Member, l []Listing) []Listing { m.Variables[1].Name = ""; return l },
		`Variables[0]: "a/b" is no`:   func(m *Member, l []Listing) []Listing { m.Variables[0].Name = "a/b"; return l },
		`Variables[1]: "Name" is`:     func(m *Member, l []Listing) []Listing { m.Variables[1].Name = "Name"; return l },
		`Variables[0]: "Name" has no`: func(m *Member, l []Listing) []Listing { m.Variables[0].DataType = Key{}; return l },
		`Variables[1]: "Weight" has`:  func(m *Member, l []Listing) []Listing { m.Variables[1].Value = nil; return l },
		"listings[0] has no Folder":   func(_ *Member, l []Listing) []Listing { l[0].Folder = Key{}; return l },
		"listings[1] has no":          func(_ *Member, l []Listing) []Listing { l[1].Has = nil; return l },
		"listings[0] has":             func(_ *Member, l []Listing) []Listing { l[0].IDs = nil; return l },
	} {
		m, l := h.member(), h.listings()
		if _, err := NewCollection(m, change(&m, l)...); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
}

func FuzzCollectionNode(f *testing.F) {
	h := newHerd(2)
	for _, s := range []string{"herd/cow-000001", "herd/cow-000001/Name", "herd/cow-000001/", "herd//", "herd", "marked", "", "/", "herd/cow-000001/Weight/x", "herd/\x00"} {
		f.Add(uint16(1), s, "")
		f.Add(uint16(2), s, "1")
	}
	c, err := NewCollection(h.member(), h.listings()...)
	if err != nil {
		f.Fatal(err)
	}
	there := map[Key]bool{}
	for _, id := range h.ids {
		for _, k := range c.Keys(id) {
			there[k] = true
		}
	}
	f.Fuzz(func(t *testing.T, ns uint16, text, cursor string) {
		for _, k := range []Key{StringKey(ns, text), KeyOf(ua.NewByteStringNodeID(ns, []byte(text)))} {
			n, ok := c.Node(k)
			if ok != there[k] {
				t.Fatalf("%s is there: %v", k, ok)
			}
			if ok && (n.Key != k || n.validate() != nil || !c.Owns(k)) {
				t.Errorf("%s: %+v, %v", k, n, n.validate())
			}
			if refs, next := c.References(k, Cursor(cursor), 2); !ok && c.listing(k) == nil && (len(refs) > 0 || next != "") || len(refs) > 2 {
				t.Errorf("%s at %q: %v, %q", k, cursor, refs, next)
			}
			c.Find(k, ua.QualifiedName{NamespaceIndex: ns, Name: cursor})
		}
	})
}
