package space

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/gopcua/opcua/ua"
)

var now = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

func read(s *Space, k Key, attr ua.AttributeID, indexRange, encoding string) ua.DataValue {
	var dv ua.DataValue
	s.Read(ReadContext{Now: now}, &dv, k, attr, indexRange, &ua.QualifiedName{Name: encoding}, ua.TimestampsToReturnNeither)
	return dv
}

func TestReadStatus(t *testing.T) {
	front := NewTable()
	s, _ := world(t, front)
	value, unreadable, array, status, unset := NumericKey(1, 1), NumericKey(1, 2), NumericKey(1, 3), NumericKey(1, 4), NumericKey(1, 5)
	bad := NumericKey(1, 6)
	edit(t, front, func(e *Edit) {
		e.Put(variable(t, value, "Value", 1.5))
		n := variable(t, unreadable, "Unreadable", 1.5)
		n.AccessLevel, n.Write = AccessCurrentWrite, func(WriteContext, *ua.Variant) ua.StatusCode { return ua.StatusOK }
		e.Put(n)
		e.Put(variable(t, array, "Array", []float64{1, 2, 3}))
		n = variable(t, status, "Status", nil)
		n.DataType = structureLike
		e.Put(n)
		e.Put(variable(t, unset, "Unset", nil))
		n = variable(t, bad, "Bad", nil)
		n.Value = func(ReadContext) *ua.DataValue {
			return &ua.DataValue{Status: ua.StatusBadSensorFailure, Value: ua.MustVariant(1.0), SourceTimestamp: now}
		}
		e.Put(n)
	})
	for _, c := range []struct {
		name       string
		key        Key
		attr       ua.AttributeID
		rng, enc   string
		want       ua.StatusCode
		wantsValue bool
	}{
		{name: "value", key: value, attr: ua.AttributeIDValue, want: ua.StatusOK, wantsValue: true},
		{name: "no value yet", key: unset, attr: ua.AttributeIDValue, want: ua.StatusOK, wantsValue: true},
		{name: "unknown node", key: NumericKey(1, 99), attr: ua.AttributeIDValue, want: ua.StatusBadNodeIDUnknown},
		{name: "null node", attr: ua.AttributeIDValue, want: ua.StatusBadNodeIDUnknown},
		{name: "attribute 0", key: value, attr: 0, want: ua.StatusBadAttributeIDInvalid},
		{name: "attribute 28", key: value, attr: 28, want: ua.StatusBadAttributeIDInvalid},
		{name: "attribute of another class", key: value, attr: ua.AttributeIDExecutable, want: ua.StatusBadAttributeIDInvalid},
		{name: "value of an object", key: root, attr: ua.AttributeIDValue, want: ua.StatusBadAttributeIDInvalid},
		{name: "value of a variable type that has none", key: baseVariable, attr: ua.AttributeIDValue, want: ua.StatusBadAttributeIDInvalid},
		{name: "absent description", key: value, attr: ua.AttributeIDDescription, want: ua.StatusBadAttributeIDInvalid},
		{name: "not readable", key: unreadable, attr: ua.AttributeIDValue, want: ua.StatusBadNotReadable},
		{name: "bad value", key: bad, attr: ua.AttributeIDValue, want: ua.StatusBadSensorFailure},
		{name: "range syntax", key: array, attr: ua.AttributeIDValue, rng: "2:1", want: ua.StatusBadIndexRangeInvalid},
		{name: "range beyond", key: array, attr: ua.AttributeIDValue, rng: "3", want: ua.StatusBadIndexRangeNoData},
		{name: "range of a scalar", key: value, attr: ua.AttributeIDValue, rng: "0", want: ua.StatusBadIndexRangeNoData},
		{name: "range of null", key: unset, attr: ua.AttributeIDValue, rng: "0", want: ua.StatusBadIndexRangeNoData},
		{name: "range", key: array, attr: ua.AttributeIDValue, rng: "1:9", want: ua.StatusOK, wantsValue: true},
		{name: "range of a name", key: array, attr: ua.AttributeIDBrowseName, rng: "1", want: ua.StatusBadIndexRangeNoData},
		{name: "binary structure", key: status, attr: ua.AttributeIDValue, enc: "Default Binary", want: ua.StatusOK, wantsValue: true},
		{name: "XML structure", key: status, attr: ua.AttributeIDValue, enc: "Default XML", want: ua.StatusBadDataEncodingUnsupported},
		{name: "unknown encoding", key: status, attr: ua.AttributeIDValue, enc: "Modbus", want: ua.StatusBadDataEncodingInvalid},
		{name: "encoding of a number", key: value, attr: ua.AttributeIDValue, enc: "Default Binary", want: ua.StatusBadDataEncodingInvalid},
		{name: "encoding of a name", key: value, attr: ua.AttributeIDBrowseName, enc: "Default Binary", want: ua.StatusBadDataEncodingInvalid},
	} {
		t.Run(c.name, func(t *testing.T) {
			dv := read(s, c.key, c.attr, c.rng, c.enc)
			if dv.Status != c.want {
				t.Errorf("status %v, want %v", dv.Status, c.want)
			}
			if got := dv.Has(ua.DataValueValue); got != c.wantsValue || got != (dv.Value != nil) {
				t.Errorf("has a value: %v, want %v", got, c.wantsValue)
			}
		})
	}
	if dv := read(s, array, ua.AttributeIDValue, "1:9", ""); !cmp.Equal(dv.Value.Value(), []float64{2, 3}) {
		t.Errorf("array[1:9] is %v", dv.Value.Value())
	}
	var dv ua.DataValue
	s.Read(ReadContext{}, &dv, status, ua.AttributeIDValue, "", &ua.QualifiedName{NamespaceIndex: 1, Name: "Default Binary"}, ua.TimestampsToReturnBoth)
	if dv.Status != ua.StatusBadDataEncodingInvalid {
		t.Errorf("an encoding of another namespace: %v", dv.Status)
	}
}

func TestReadTimestamps(t *testing.T) {
	front := NewTable()
	s, _ := world(t, front)
	k := NumericKey(1, 1)
	source := now.Add(-time.Second)
	shared := &ua.DataValue{Value: ua.MustVariant(1.0), SourceTimestamp: source, SourcePicoseconds: 10}
	n := variable(t, k, "V", nil)
	n.Value = func(ReadContext) *ua.DataValue { return shared }
	edit(t, front, func(e *Edit) { e.Put(n) })

	for _, c := range []struct {
		ts             ua.TimestampsToReturn
		source, server time.Time
		mask           byte
	}{
		{ua.TimestampsToReturnSource, source, time.Time{}, ua.DataValueValue | ua.DataValueSourceTimestamp | ua.DataValueSourcePicoseconds},
		{ua.TimestampsToReturnServer, time.Time{}, now, ua.DataValueValue | ua.DataValueServerTimestamp},
		{ua.TimestampsToReturnBoth, source, now, ua.DataValueValue | ua.DataValueSourceTimestamp | ua.DataValueSourcePicoseconds | ua.DataValueServerTimestamp},
		{ua.TimestampsToReturnNeither, time.Time{}, time.Time{}, ua.DataValueValue},
		{ua.TimestampsToReturnInvalid, time.Time{}, time.Time{}, ua.DataValueStatusCode},
	} {
		var dv ua.DataValue
		s.Read(ReadContext{Now: now}, &dv, k, ua.AttributeIDValue, "", nil, c.ts)
		if !dv.SourceTimestamp.Equal(c.source) || !dv.ServerTimestamp.Equal(c.server) || dv.EncodingMask != c.mask {
			t.Errorf("%v: source %v, server %v, mask %#x, want mask %#x", c.ts, dv.SourceTimestamp, dv.ServerTimestamp, dv.EncodingMask, c.mask)
		}
	}
	if !shared.ServerTimestamp.IsZero() || shared.SourcePicoseconds != 10 {
		t.Error("Read modified the value that it was given")
	}
	var dv ua.DataValue
	s.Read(ReadContext{Now: now}, &dv, k, ua.AttributeIDBrowseName, "", nil, ua.TimestampsToReturnBoth)
	if !dv.SourceTimestamp.IsZero() || !dv.ServerTimestamp.Equal(now) {
		t.Error("an attribute other than Value has a server timestamp only")
	}
}

// Each class answers to its own attributes, and to no others (Part 3 §5).
func TestReadAttributesOfEachClass(t *testing.T) {
	common := []ua.AttributeID{1, 2, 3, 4, 5, 6, 7}
	definition := &ua.EnumDefinition{Fields: []*ua.EnumField{}}
	full := Node{
		BrowseName: ua.QualifiedName{Name: "N"}, DisplayName: Text("N"), Description: Text("about"), InverseName: Text("NOf"),
		DataType: doubleType, ValueRank: 1, ArrayDimensions: []uint32{3}, AccessLevel: AccessCurrentRead,
		DataTypeDefinition: func() any { return definition },
	}
	constant, err := Constant([]float64{1, 2, 3})
	if err != nil {
		t.Fatal(err)
	}
	for class, own := range map[ua.NodeClass][]ua.AttributeID{
		ua.NodeClassObject:        {12},
		ua.NodeClassVariable:      {13, 14, 15, 16, 17, 18, 19, 20, 27},
		ua.NodeClassMethod:        {21, 22},
		ua.NodeClassObjectType:    {8},
		ua.NodeClassVariableType:  {8, 13, 14, 15, 16},
		ua.NodeClassReferenceType: {8, 9, 10},
		ua.NodeClassDataType:      {8, 23},
		ua.NodeClassView:          {11, 12},
	} {
		n := full
		n.Key, n.Class = NumericKey(1, 1), class
		if class == ua.NodeClassObject || class == ua.NodeClassVariable {
			n.TypeDefinition = folderType
		}
		if class == ua.NodeClassVariable || class == ua.NodeClassVariableType {
			n.Value = constant
		}
		front := NewTable()
		s, _ := world(t, front)
		edit(t, front, func(e *Edit) { e.Put(&n) })
		want := map[ua.AttributeID]bool{}
		for _, a := range append(own, common...) {
			want[a] = true
		}
		for a := ua.AttributeID(0); a < 40; a++ {
			dv := read(s, n.Key, a, "", "")
			if good := dv.Status == ua.StatusOK; good != want[a] {
				t.Errorf("%v, attribute %d: %v", class, a, dv.Status)
			}
			if dv.Status != ua.StatusOK && dv.Status != ua.StatusBadAttributeIDInvalid {
				t.Errorf("%v, attribute %d: %v", class, a, dv.Status)
			}
		}
	}
}

func TestReadAttributeValues(t *testing.T) {
	front := NewTable()
	s, _ := world(t, front)
	k := NumericKey(1, 1)
	n := variable(t, k, "V", []float64{1})
	n.ValueRank, n.ArrayDimensions, n.MinimumSamplingInterval = RankOneDimension, []uint32{0}, 250
	edit(t, front, func(e *Edit) { e.Put(n) })
	for attr, want := range map[ua.AttributeID]any{
		ua.AttributeIDNodeID:                  k.NodeID(),
		ua.AttributeIDNodeClass:               int32(2),
		ua.AttributeIDBrowseName:              &ua.QualifiedName{Name: "V"},
		ua.AttributeIDDisplayName:             ua.NewLocalizedText("V"),
		ua.AttributeIDDataType:                doubleType.NodeID(),
		ua.AttributeIDValueRank:               int32(1),
		ua.AttributeIDArrayDimensions:         []uint32{0},
		ua.AttributeIDAccessLevel:             byte(1),
		ua.AttributeIDAccessLevelEx:           uint32(1),
		ua.AttributeIDMinimumSamplingInterval: 250.0,
		ua.AttributeIDHistorizing:             false,
		ua.AttributeIDWriteMask:               uint32(0),
	} {
		dv := read(s, k, attr, "", "")
		if diff := cmp.Diff(want, dv.Value.Value(), cmp.Comparer(func(a, b *ua.NodeID) bool { return a.Equal(b) })); diff != "" {
			t.Errorf("attribute %d: %s", attr, diff)
		}
	}
}

// The server reads values far more often than anything else, so what it costs here is bounded.
func TestReadOfAValueDoesNotAllocate(t *testing.T) {
	front := NewTable()
	s, _ := world(t, front)
	k := NumericKey(1, 1)
	edit(t, front, func(e *Edit) { e.Put(variable(t, k, "V", 1.5)) })
	id, ctx := k.NodeID(), ReadContext{Now: now}
	var dv ua.DataValue
	allocs := testing.AllocsPerRun(100, func() {
		s.Read(ctx, &dv, KeyOf(id), ua.AttributeIDValue, "", nil, ua.TimestampsToReturnBoth)
	})
	if allocs != 0 || dv.Status != ua.StatusOK {
		t.Errorf("%v allocations per read, status %v", allocs, dv.Status)
	}
}

func BenchmarkReadValue(b *testing.B) {
	front := NewTable()
	s, err := New([]string{NamespaceUA, "urn:app"}, NewTable(), front)
	if err != nil {
		b.Fatal(err)
	}
	k := NumericKey(1, 1)
	fn, _ := Constant(1.5)
	n := &Node{Key: k, Class: ua.NodeClassVariable, BrowseName: ua.QualifiedName{Name: "V"}, DisplayName: Text("V"), TypeDefinition: baseVariable, DataType: doubleType, AccessLevel: 1, Value: fn}
	if err := front.Edit(func(e *Edit) error { e.Put(n); return nil }); err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		var dv ua.DataValue
		for pb.Next() {
			s.Read(ReadContext{Now: now}, &dv, k, ua.AttributeIDValue, "", nil, ua.TimestampsToReturnBoth)
		}
	})
}
