package nodeset

import (
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/gopcua/opcua/ua"
	"go.uber.org/goleak"
	"quorate/opcua/space"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func id(n uint32) space.Key { return space.NumericKey(0, n) }

func open(t *testing.T, o Options, front ...space.Source) (*Set, *space.Space) {
	t.Helper()
	set, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	s, err := space.New([]string{space.NamespaceUA, "urn:test"}, append(front, set)...)
	if err != nil {
		t.Fatal(err)
	}
	return set, s
}

// end is a reference as a client sees it.
type end struct {
	refType, target space.Key
	forward         bool
	d               *ua.ReferenceDescription
}

func browse(t *testing.T, s *space.Space, k space.Key) []end {
	t.Helper()
	d := &ua.BrowseDescription{NodeID: k.NodeID(), BrowseDirection: ua.BrowseDirectionBoth, ResultMask: uint32(ua.BrowseResultMaskAll)}
	var ends []end
	var at space.Position
	for more := true; more; {
		page, status := s.Browse(d, at, 0)
		if status != ua.StatusOK {
			t.Fatalf("browse %s: %v", k, status)
		}
		for _, r := range page.References {
			ends = append(ends, end{space.KeyOf(r.ReferenceTypeID), space.KeyOf(r.NodeID.NodeID), r.IsForward, r})
		}
		at, more = page.Next, page.More
	}
	return ends
}

func read(s *space.Space, k space.Key, attr ua.AttributeID) ua.DataValue {
	var dv ua.DataValue
	s.Read(space.ReadContext{}, &dv, k, attr, "", nil, ua.TimestampsToReturnNeither)
	return dv
}

// Every reference leads to a node, is of a known type, is there once, and has its other end; every object and variable
// has exactly one type definition, of the right class; every type but the base of its class has one supertype, of its
// own class.
func TestIntegrity(t *testing.T) {
	set, s := open(t, Options{})
	if set.Len() != 4912 || len(set.Keys()) != set.Len() {
		t.Errorf("%d nodes, %d keys; the file of version 1.05.02 has 4912", set.Len(), len(set.Keys()))
	}
	type arc struct{ from, refType, to space.Key }
	forward, inverse := map[arc]int{}, map[arc]int{}
	total := 0
	for _, k := range set.Keys() {
		n, ok := s.Node(k)
		if !ok || n.Key != k || n.BrowseName.Name == "" || n.DisplayName.Text == "" {
			t.Fatalf("node %s: %+v", k, n)
		}
		var types, supertypes int
		for _, e := range browse(t, s, k) {
			total++
			if e.forward {
				forward[arc{k, e.refType, e.target}]++
			} else {
				inverse[arc{e.target, e.refType, k}]++
			}
			rt, ok := s.Node(e.refType)
			if !ok || rt.Class != ua.NodeClassReferenceType || rt.IsAbstract {
				t.Errorf("%s: a reference of type %s", k, e.refType)
			}
			if e.refType == space.HasTypeDefinition && e.forward {
				types++
				want := ua.NodeClassObjectType
				if n.Class == ua.NodeClassVariable {
					want = ua.NodeClassVariableType
				}
				if e.d.NodeClass != want {
					t.Errorf("%s: its type is a %v", k, e.d.NodeClass)
				}
			}
			if e.refType == space.HasSubtype && !e.forward {
				supertypes++
				if e.d.NodeClass != n.Class {
					t.Errorf("%s: its supertype is a %v", k, e.d.NodeClass)
				}
			}
		}
		base := slices.Contains([]space.Key{id(24), id(31), id(58), id(62)}, k) // one base per class of types
		switch isType := !isInstance(n.Class); {
		case (n.Class == ua.NodeClassObject || n.Class == ua.NodeClassVariable) && types != 1, n.Class == ua.NodeClassMethod && types != 0:
			t.Errorf("%s: %d type definitions", k, types)
		case isType && !base && supertypes != 1, (!isType || base) && supertypes != 0:
			t.Errorf("%s: %d supertypes", k, supertypes)
		}
	}
	for a, n := range forward {
		if n != 1 || inverse[a] != 1 {
			t.Errorf("%v: %d times forward, %d times inverse", a, n, inverse[a])
		}
	}
	if len(forward) != len(inverse) || total != 2*len(forward) || len(forward) != 11698 {
		t.Errorf("%d forward, %d inverse, %d in all; the file has 11698 references", len(forward), len(inverse), total)
	}
}

// The value of each variable is of its data type and rank, and each of its attributes can be read.
func TestValuesAreOfTheirTypes(t *testing.T) {
	set, s := open(t, Options{})
	values := 0
	for _, k := range set.Keys() {
		n, _ := s.Node(k)
		if n.Class != ua.NodeClassVariable && n.Class != ua.NodeClassVariableType {
			continue
		}
		if dt, ok := s.Node(n.DataType); !ok || dt.Class != ua.NodeClassDataType {
			t.Errorf("%s: data type %s", k, n.DataType)
		}
		if n.Class == ua.NodeClassVariable && n.AccessLevel&space.AccessCurrentRead == 0 {
			t.Errorf("%s: access level %d", k, n.AccessLevel)
		}
		if n.Value == nil {
			continue
		}
		dv := read(s, k, ua.AttributeIDValue)
		if k == id(7617) || k == id(8252) {
			if dv.Status != ua.StatusBadNotSupported {
				t.Errorf("type dictionary %s: %v", k, dv.Status)
			}
			continue
		}
		values++
		if dv.Status != ua.StatusOK || dv.Value.Value() == nil {
			t.Errorf("%s: %v, %v", k, dv.Status, dv.Value)
			continue
		}
		isArray := dv.Value.Has(ua.VariantArrayValues)
		if isArray && n.ValueRank < 0 && n.ValueRank != space.RankAny || !isArray && n.ValueRank >= 0 {
			t.Errorf("%s: rank %d, is an array: %v", k, n.ValueRank, isArray)
		}
		if want := builtin(s, n.DataType); want != 0 && want != dv.Value.Type() {
			t.Errorf("%s %s: a value of type %d, its data type %s is %d", k, n.BrowseName.Name, dv.Value.Type(), n.DataType, want)
		}
	}
	if values != 1179 {
		t.Errorf("%d values; the file has 1181, of which two are left out", values)
	}
}

// builtin returns the built-in type of the values of a data type, or 0 where it may be one of several.
func builtin(s *space.Space, dataType space.Key) ua.TypeID {
	switch {
	case s.IsSubtype(dataType, id(29)):
		return ua.TypeIDInt32
	case s.IsSubtype(dataType, id(22)):
		return ua.TypeIDExtensionObject
	}
	for t := uint32(1); t <= 21; t++ {
		if s.IsSubtype(dataType, id(t)) {
			return ua.TypeID(t)
		}
	}
	return 0
}

// What the standard says has a DataTypeDefinition has one, and all fields are of data types that exist (Part 3 §5.8.3).
func TestDataTypeDefinitions(t *testing.T) {
	set, s := open(t, Options{})
	structures, enums := 0, 0
	for _, k := range set.Keys() {
		n, _ := s.Node(k)
		if n.Class != ua.NodeClassDataType || n.DataTypeDefinition == nil {
			if n.Class == ua.NodeClassDataType && k != id(22) && (s.IsSubtype(k, id(22)) || s.IsSubtype(k, id(29)) && !n.IsAbstract) {
				t.Errorf("%s %s has no definition", k, n.BrowseName.Name)
			}
			continue
		}
		dv := read(s, k, ua.AttributeIDDataTypeDefinition)
		if dv.Status != ua.StatusOK {
			t.Errorf("%s: %v", k, dv.Status)
			continue
		}
		switch d := dv.Value.Value().(*ua.ExtensionObject).Value.(type) {
		case *ua.StructureDefinition:
			structures++
			for _, f := range d.Fields {
				if dt, ok := s.Node(space.KeyOf(f.DataType)); !ok || dt.Class != ua.NodeClassDataType || f.Name == "" {
					t.Errorf("%s: field %q of type %s", k, f.Name, f.DataType)
				}
			}
			if encoding := space.KeyOf(d.DefaultEncodingID); n.IsAbstract != encoding.IsNull() {
				t.Errorf("%s %s: abstract %v, default encoding %s", k, n.BrowseName.Name, n.IsAbstract, encoding)
			}
			if !slices.ContainsFunc(browse(t, s, k), func(e end) bool {
				return e.refType == space.HasSubtype && !e.forward && e.target == space.KeyOf(d.BaseDataType)
			}) {
				t.Errorf("%s: %s is not its supertype", k, d.BaseDataType)
			}
		case *ua.EnumDefinition:
			enums++
			for _, f := range d.Fields {
				if f.Name == "" || f.DisplayName.Text == "" {
					t.Errorf("%s: field %+v", k, f)
				}
			}
		default:
			t.Errorf("%s: a definition of type %T", k, d)
		}
	}
	if structures < 150 || enums < 50 {
		t.Errorf("%d structures, %d enumerations", structures, enums)
	}
}

func TestKnownNodes(t *testing.T) {
	_, s := open(t, Options{})
	for k, want := range map[uint32]string{84: "Root", 85: "Objects", 2253: "Server", 2256: "ServerStatus", 2267: "ServiceLevel", 2296: "ServerRedundancy", 3709: "RedundancySupport", 2039: "NonTransparentRedundancyType", 15957: "http://opcfoundation.org/UA/"} {
		if n, ok := s.Node(id(k)); !ok || n.BrowseName != (ua.QualifiedName{Name: want}) || n.DisplayName.Text != want {
			t.Errorf("i=%d is %+v, want %s", k, n, want)
		}
	}
	for _, absent := range []space.Key{{}, id(32751), id(65536 + 84), space.NumericKey(1, 84), space.StringKey(0, "84")} {
		if n, ok := s.Node(absent); ok {
			t.Errorf("%s is %s", absent, n.BrowseName.Name)
		}
	}
	level, _ := s.Node(id(2267))
	if level.DataType != id(3) || level.ValueRank != space.RankScalar || level.AccessLevel != space.AccessCurrentRead || level.MinimumSamplingInterval != 1000 || level.TypeDefinition != id(68) {
		t.Errorf("ServiceLevel: %+v", level)
	}
	server, _ := s.Node(id(2253))
	if server.EventNotifier != 1 || server.TypeDefinition != id(2004) {
		t.Errorf("Server: %+v", server)
	}
	folder, _ := s.Node(id(35))
	if folder.InverseName.Text != "OrganizedBy" || folder.Symmetric || folder.IsAbstract {
		t.Errorf("Organizes: %+v", folder)
	}
	if m, _ := s.Node(id(12886)); m.Class != ua.NodeClassMethod || !m.Executable {
		t.Errorf("RequestServerStateChange: %+v", m)
	}
	for derived, base := range map[uint32]uint32{2039: 2034, 47: 33, 35: 33, 46: 33, 853: 22, 851: 29, 294: 13, 2138: 63} {
		if !s.IsSubtype(id(derived), id(base)) {
			t.Errorf("i=%d is no subtype of i=%d", derived, base)
		}
	}
}

func TestKnownValues(t *testing.T) {
	_, s := open(t, Options{})
	texts := read(s, id(7611), ua.AttributeIDValue).Value.Value().([]*ua.LocalizedText) // EnumStrings of RedundancySupport
	var names []string
	for _, l := range texts {
		names = append(names, l.Text)
	}
	if got := strings.Join(names, " "); got != "None Cold Warm Hot Transparent HotAndMirrored" {
		t.Errorf("RedundancySupport: %q", got)
	}
	args := read(s, id(12887), ua.AttributeIDValue).Value.Value().([]*ua.ExtensionObject) // InputArguments of RequestServerStateChange
	names = nil
	for _, a := range args {
		names = append(names, a.Value.(*ua.Argument).Name+" "+a.Value.(*ua.Argument).DataType.String())
	}
	if got := strings.Join(names, ", "); got != "State i=852, EstimatedReturnTime i=13, SecondsTillShutdown i=7, Reason i=21, Restart i=1" {
		t.Errorf("RequestServerStateChange(%s)", got)
	}
	n, _ := s.Node(id(853))
	def := n.DataTypeDefinition().(*ua.StructureDefinition)
	names = nil
	for _, f := range def.Fields {
		names = append(names, f.Name+" "+f.DataType.String())
	}
	if got := strings.Join(names, ", "); got != "ServerId i=12, ServiceLevel i=3, ServerState i=852" || def.DefaultEncodingID.String() != "i=855" {
		t.Errorf("RedundantServerDataType: %s, encoding %s", got, def.DefaultEncodingID)
	}
	// The fields of a subtype begin with those of its supertype.
	n, _ = s.Node(id(322)) // UserNameIdentityToken
	if def = n.DataTypeDefinition().(*ua.StructureDefinition); def.Fields[0].Name != "PolicyId" || def.Fields[1].Name != "UserName" {
		t.Errorf("UserNameIdentityToken begins with %s, %s", def.Fields[0].Name, def.Fields[1].Name)
	}
}

func TestBrowsePaths(t *testing.T) {
	_, s := open(t, Options{})
	for text, want := range map[string]uint32{
		"Objects":                                         85,
		"Objects/Server":                                  2253,
		"Objects/Server/ServerStatus":                     2256,
		"Objects/Server/ServerStatus/BuildInfo":           2260,
		"Objects/Server/ServiceLevel":                     2267,
		"Objects/Server/ServerRedundancy":                 2296,
		"Objects/Server/ServerCapabilities":               2268,
		"Types/DataTypes/BaseDataType/Structure/Argument": 296,
		"Types/ReferenceTypes/References":                 31,
		"Views":                                           87,
	} {
		path := &ua.RelativePath{}
		for name := range strings.SplitSeq(text, "/") {
			path.Elements = append(path.Elements, &ua.RelativePathElement{ReferenceTypeID: id(33).NodeID(), IncludeSubtypes: true, TargetName: &ua.QualifiedName{Name: name}})
		}
		targets, status := s.Translate(id(84), path)
		if status != ua.StatusOK || len(targets) != 1 || space.KeyOf(targets[0].TargetID.NodeID) != id(want) {
			t.Errorf("%s: %v %v, want i=%d", text, status, targets, want)
		}
	}
}

func TestRemove(t *testing.T) {
	// ServerDiagnostics goes with all that is below it; 11312 and 14415 hang nowhere.
	set, s := open(t, Options{Remove: []space.Key{id(2274), id(2275), id(11312), id(14415)}})
	for _, gone := range []uint32{2274, 2275, 2276, 2294, 2289, 11312, 14415} {
		if _, ok := s.Node(id(gone)); ok {
			t.Errorf("i=%d is still there", gone)
		}
		if refs, next := set.References(id(gone), "", 10); len(refs) != 0 || next != "" {
			t.Errorf("i=%d still has references", gone)
		}
	}
	for _, stays := range []uint32{2253, 2020, 11314, 68} {
		if _, ok := s.Node(id(stays)); !ok {
			t.Errorf("i=%d is gone", stays)
		}
	}
	for _, k := range set.Keys() {
		for cursor, first := space.Cursor(""), true; first || cursor != ""; first = false {
			var refs []space.Reference
			refs, cursor = set.References(k, cursor, 100)
			for _, r := range refs {
				if _, ok := s.Node(r.Target); !ok {
					t.Errorf("%s still refers to %s", k, r.Target)
				}
			}
		}
	}
	for _, bad := range []space.Key{id(2004), id(40000), space.NumericKey(1, 2253), {}} {
		if _, err := New(Options{Remove: []space.Key{id(11312), bad}}); err == nil || !strings.Contains(err.Error(), "Remove[1]") {
			t.Errorf("removing %s: %v", bad, err)
		}
	}
}

func TestUnknownCursorsAreTheEnd(t *testing.T) {
	set, _ := open(t, Options{})
	for _, c := range []space.Cursor{"x", "-1", "99999", "99999999999999999999"} {
		if refs, next := set.References(id(85), c, 10); len(refs) != 0 || next != "" {
			t.Errorf("cursor %q: %v %q", c, refs, next)
		}
	}
}

// ServerRedundancy becomes what redundant servers have, as a program does it: with a table in front.
func TestOverridingServerRedundancy(t *testing.T) {
	front := space.NewTable()
	set, s := open(t, Options{Remove: []space.Key{id(11312), id(14415)}}, front)
	redundancy, _ := set.Node(id(2296))
	uris, _ := set.Node(id(11314))
	servers, _ := set.Node(id(11313))
	value, err := space.Constant([]string{"urn:a", "urn:b"})
	if err != nil {
		t.Fatal(err)
	}
	if err := front.Edit(func(e *space.Edit) error {
		r, u, a := *redundancy, *uris, *servers
		r.TypeDefinition = id(2039)
		u.Value = value
		e.Put(&r)
		e.Put(&u)
		e.Put(&a)
		e.Link(r.Key, space.HasProperty, u.Key)
		e.Link(r.Key, space.HasProperty, a.Key)
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, e := range browse(t, s, id(2296)) {
		got = append(got, e.d.BrowseName.Name)
	}
	slices.Sort(got)
	if want := []string{"NonTransparentRedundancyType", "RedundancySupport", "RedundantServerArray", "Server", "ServerUriArray"}; !slices.Equal(got, want) {
		t.Errorf("ServerRedundancy: %v", got)
	}
	if v := read(s, id(11314), ua.AttributeIDValue).Value.Value(); !slices.Equal(v.([]string), []string{"urn:a", "urn:b"}) {
		t.Errorf("ServerUriArray is %v", v)
	}
	instances := func(of uint32) (n int) {
		for _, e := range browse(t, s, id(of)) {
			if e.target == id(2296) {
				n++
			}
		}
		return n
	}
	if instances(2034) != 0 || instances(2039) != 1 {
		t.Errorf("the types have %d and %d references to it", instances(2034), instances(2039))
	}
	// i=11314 is in both sources, of one type: PropertyType has it once.
	n := 0
	for _, e := range browse(t, s, id(68)) {
		if e.target == id(11314) {
			n++
		}
	}
	if n != 1 {
		t.Errorf("PropertyType has it %d times", n)
	}
}

func TestEverybodyGetsTheSameNode(t *testing.T) {
	set, _ := open(t, Options{})
	var nodes [8]*space.Node
	var wg sync.WaitGroup
	for i := range nodes {
		wg.Go(func() { nodes[i], _ = set.Node(id(2253)) })
	}
	wg.Wait()
	for _, n := range nodes {
		if n == nil || n != nodes[0] {
			t.Error("two goroutines got different nodes")
		}
	}
}

// Opening decodes nothing, and the whole of namespace 0 in memory stays small.
func TestCost(t *testing.T) {
	if allocs := testing.AllocsPerRun(10, func() {
		if _, err := New(Options{}); err != nil {
			t.Error(err)
		}
	}); allocs > 10 {
		t.Errorf("New makes %v allocations", allocs)
	}
	set, s := open(t, Options{})
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	for _, k := range set.Keys() {
		browse(t, s, k)
		read(s, k, ua.AttributeIDValue)
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	const limit = 4 << 20
	if grown := int64(after.HeapAlloc) - int64(before.HeapAlloc); grown > limit {
		t.Errorf("all nodes take %d bytes, want at most %d", grown, limit)
	} else {
		t.Logf("all nodes take %d bytes", grown)
	}
	runtime.KeepAlive(set)
}

func BenchmarkBrowseServer(b *testing.B) {
	set, err := New(Options{})
	if err != nil {
		b.Fatal(err)
	}
	s, err := space.New([]string{space.NamespaceUA, "urn:test"}, set)
	if err != nil {
		b.Fatal(err)
	}
	d := &ua.BrowseDescription{NodeID: id(2253).NodeID(), ReferenceTypeID: id(33).NodeID(), IncludeSubtypes: true, ResultMask: uint32(ua.BrowseResultMaskAll)}
	b.ReportAllocs()
	for b.Loop() {
		if page, _ := s.Browse(d, space.Position{}, 0); len(page.References) < 10 {
			b.Fatal("too few references")
		}
	}
}
