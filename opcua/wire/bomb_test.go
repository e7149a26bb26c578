package wire

import (
	"bytes"
	"encoding/binary"
	"errors"
	"math"
	"reflect"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/gopcua/opcua/ua"
)

func u32(values ...uint32) (b []byte) {
	for _, v := range values {
		b = binary.LittleEndian.AppendUint32(b, v)
	}
	return b
}

// write wraps the encoding of a Variant into a WriteRequest.
func write(t testing.TB, variant []byte) []byte {
	t.Helper()
	marker := ua.MustVariant("marker")
	b, err := AppendMessage(nil, &ua.WriteRequest{NodesToWrite: []*ua.WriteValue{{
		Value: &ua.DataValue{EncodingMask: ua.DataValueValue, Value: marker},
	}}})
	if err != nil {
		t.Fatal(err)
	}
	old, err := Append(nil, marker)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.HasSuffix(b, old) {
		t.Fatal("the marker is not where it should be")
	}
	return append(b[:len(b)-len(old)], variant...)
}

// nest repeats a prefix that opens one more level.
func nest(levels int, prefix, end []byte) []byte {
	return append(bytes.Repeat(prefix, levels), end...)
}

// extensionNest nests ExtensionObjects inside the Variants of KeyValuePairs.
func extensionNest(t testing.TB, levels int) []byte {
	t.Helper()
	v := new(ua.Variant)
	for range levels {
		v = ua.MustVariant(ua.NewExtensionObject(&ua.KeyValuePair{Key: &ua.QualifiedName{}, Value: v}))
	}
	b, err := Append(nil, v)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

const (
	arrayFlag = ua.VariantArrayValues
	null      = 0xffffffff
)

// TestBombs decodes what kills the decoder of ua, or would if it were larger
// (opcua.md §1), and proves that it is refused with the right status and for
// next to no memory.
func TestBombs(t *testing.T) {
	const deep = 1_000_000
	array := func(typ ua.TypeID, n uint32) []byte { return append([]byte{byte(typ) | arrayFlag}, u32(n)...) }
	stringBomb := func(n uint32) []byte {
		// GetEndpoints with an array of locale ids.
		b, err := AppendMessage(nil, &ua.GetEndpointsRequest{})
		if err != nil {
			t.Fatal(err)
		}
		binary.LittleEndian.PutUint32(b[len(b)-8:], n)
		return b
	}
	limits, malformed := ua.StatusBadEncodingLimitsExceeded, ua.StatusBadDecodingError
	tests := []struct {
		name   string
		bytes  []byte
		status ua.StatusCode
	}{
		{"variant array of length -2", write(t, array(ua.TypeIDInt32, 0xfffffffe)), malformed},
		{"variant array of length min", write(t, array(ua.TypeIDInt32, 0x80000000)), malformed},
		{"variant array of length max", write(t, array(ua.TypeIDInt32, 0x7fffffff)), limits},
		{"variant array beyond the message", write(t, array(ua.TypeIDInt32, 1000)), malformed},
		{"nested variants", write(t, nest(deep, []byte{byte(ua.TypeIDVariant)}, []byte{0})), limits},
		{"nested variant arrays", write(t, nest(deep, array(ua.TypeIDVariant, 1), []byte{0})), limits},
		{"nested data values", write(t, nest(deep, []byte{byte(ua.TypeIDDataValue), ua.DataValueValue}, []byte{0})), limits},
		{"nested diagnostic infos", write(t, nest(deep, []byte{ua.DiagnosticInfoInnerDiagnosticInfo}, []byte{0})[1:]), malformed},
		{"nested diagnostic infos in a variant", write(t, append([]byte{byte(ua.TypeIDDiagnosticInfo)}, nest(deep, []byte{ua.DiagnosticInfoInnerDiagnosticInfo}, []byte{0})...)), limits},
		{"nested extension objects", write(t, extensionNest(t, 60)), limits},
		{"string array of length max", stringBomb(0x7fffffff), limits},
		{"string array of length -2", stringBomb(0xfffffffe), malformed},
		{"string array beyond the message", stringBomb(3), malformed},
		{"string of length max", write(t, append([]byte{byte(ua.TypeIDString)}, u32(0x7fffffff)...)), limits},
		{"string of length -2", write(t, append([]byte{byte(ua.TypeIDString)}, u32(0xfffffffe)...)), malformed},
		{"string beyond the message", write(t, append([]byte{byte(ua.TypeIDString)}, u32(1000)...)), malformed},
		{"string not UTF-8", write(t, append([]byte{byte(ua.TypeIDString)}, append(u32(2), 0xc3, 0x28)...)), malformed},
		{"byte string of length max", write(t, append([]byte{byte(ua.TypeIDByteString)}, u32(0x7fffffff)...)), limits},
		{"byte string of length -2", write(t, append([]byte{byte(ua.TypeIDByteString)}, u32(0xfffffffe)...)), malformed},
		{"dimensions of length -2", write(t, append([]byte{byte(ua.TypeIDByte) | 0xc0}, u32(0, 0xfffffffe)...)), malformed},
		{"negative dimension", write(t, append([]byte{byte(ua.TypeIDInt32) | 0xc0}, u32(1, 7, 2, null, null)...)), malformed},
		{"dimensions that overflow", write(t, append([]byte{byte(ua.TypeIDInt32) | 0xc0}, u32(1, 7, 3, 0x10000, 0x10000, 0x10000)...)), malformed},
		{"dimensions that are too few", write(t, append([]byte{byte(ua.TypeIDInt32) | 0xc0}, u32(2, 7, 7, 2, 1, 1)...)), malformed},
		{"too many dimensions", write(t, append([]byte{byte(ua.TypeIDInt32) | 0xc0}, u32(1, 7, 9, 1, 1, 1, 1, 1, 1, 1, 1, 1)...)), limits},
		{"dimensions without an array", write(t, []byte{byte(ua.TypeIDInt32) | 0x40, 0, 0, 0, 0}), malformed},
		{"array of nothing", write(t, append([]byte{arrayFlag}, u32(1)...)), malformed},
		{"unknown variant type", write(t, []byte{26}), malformed},
		{"unknown node id type", write(t, []byte{byte(ua.TypeIDNodeID), 6, 0, 0}), malformed},
		{"node id with reserved bits", write(t, []byte{byte(ua.TypeIDNodeID), 0x20, 0, 0}), malformed},
		{"node id with a namespace URI", write(t, append([]byte{byte(ua.TypeIDNodeID), 0x80, 1}, u32(null)...)), malformed},
		{"extension object of an unknown encoding", write(t, []byte{byte(ua.TypeIDExtensionObject), 0, 0, 3}), malformed},
		{"extension object beyond the message", write(t, append([]byte{byte(ua.TypeIDExtensionObject), 0, 0, 1}, u32(5)...)), malformed},
		{"extension object of length -2", write(t, append([]byte{byte(ua.TypeIDExtensionObject), 0, 0, 1}, u32(0xfffffffe)...)), malformed},
		{"two-byte node ids, which take most memory of what is used", write(t, append(array(ua.TypeIDNodeID, 60_000), make([]byte, 120_000)...)), 0},
		{"empty", nil, malformed},
		{"only a type id", []byte{1, 0, 0x77, 2}, malformed},
		{"bytes left over", append(stringBomb(null), 0), malformed},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			req, err := DecodeRequest(tt.bytes, Limits{})
			runtime.ReadMemStats(&after)
			if tt.status == 0 {
				if err != nil || req == nil {
					t.Fatalf("refused: %v", err)
				}
			} else if !errors.Is(err, tt.status) || req != nil {
				t.Fatalf("got %v, want %s", err, StatusName(tt.status))
			}
			const fixed = 200_000 // errors, plans made on the way, other goroutines
			if got, most := after.TotalAlloc-before.TotalAlloc, uint64(DefaultMaxMemory+fixed); got > most {
				t.Errorf("took %d bytes", got)
			} else if tt.status != 0 && got > fixed {
				t.Errorf("took %d bytes to refuse", got)
			}
		})
	}
}

// TestLimits reaches every limit from below and from above.
func TestLimits(t *testing.T) {
	nested := func(levels int) *ua.Variant {
		v := ua.MustVariant(int32(1))
		for range levels - 1 {
			v = ua.MustVariant(v)
		}
		return v
	}
	tests := []struct {
		name      string
		limits    Limits
		fits, not any
	}{
		{"array", Limits{MaxArrayLength: 3}, []int32{1, 2, 3}, []int32{1, 2, 3, 4}},
		{"string", Limits{MaxStringLength: 3}, "abc", "abcd"},
		{"byte string", Limits{MaxByteStringLength: 3}, []byte("abc"), []byte("abcd")},
		{"memory", Limits{MaxMemory: 1000}, strings.Repeat("x", 1000-sizeVariant), strings.Repeat("x", 1001-sizeVariant)},
	}
	check := func(t *testing.T, v *ua.Variant, l Limits, fits bool) {
		t.Helper()
		b, err := Append(nil, v)
		if err != nil {
			t.Fatal(err)
		}
		err = Decode(b, new(ua.Variant), l)
		if fits && err != nil || !fits && !errors.Is(err, ua.StatusBadEncodingLimitsExceeded) {
			t.Errorf("fits %v: %v", fits, err)
		}
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			check(t, ua.MustVariant(tt.fits), tt.limits, true)
			check(t, ua.MustVariant(tt.not), tt.limits, false)
		})
	}
	// In proportion to the length of the message, without any limit set.
	empties := func(n int) *ua.Variant {
		values := make([]*ua.DataValue, n)
		for i := range values {
			values[i] = new(ua.DataValue)
		}
		return ua.MustVariant(values)
	}
	check(t, empties(100), Limits{}, true)
	check(t, empties(1000), Limits{}, false)
	check(t, nested(5), Limits{MaxDepth: 5}, true)
	check(t, nested(6), Limits{MaxDepth: 5}, false)
	check(t, nested(DefaultMaxDepth), Limits{}, true)
	check(t, nested(DefaultMaxDepth+1), Limits{}, false)
}

// TestErrors proves that an error names the field and bears the header.
func TestErrors(t *testing.T) {
	good, err := AppendMessage(nil, &ua.BrowseRequest{
		RequestHeader: &ua.RequestHeader{RequestHandle: 99},
		NodesToBrowse: []*ua.BrowseDescription{{NodeID: ua.NewStringNodeID(1, "abc")}},
	})
	if err != nil {
		t.Fatal(err)
	}
	at := bytes.Index(good, []byte("abc"))
	bad := bytes.Clone(good)
	bad[at] = 0xff
	_, err = DecodeRequest(bad, Limits{})
	var e *Error
	if !errors.As(err, &e) || e.Header == nil || e.Header.RequestHandle != 99 {
		t.Fatalf("got %+v", err)
	}
	if got, want := e.Error(), "wire: NodesToBrowse.NodeID: string is not UTF-8 (BadDecodingError)"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	unknown := bytes.Clone(good)
	unknown[2], unknown[3] = 0xff, 0xff
	if _, err = DecodeRequest(unknown, Limits{}); !errors.As(err, &e) || e.Status != ua.StatusBadServiceUnsupported ||
		e.Header == nil || e.Header.RequestHandle != 99 {
		t.Errorf("unknown service: %+v", err)
	}
	if _, err = DecodeRequest(good[:12], Limits{}); !errors.As(err, &e) || e.Header != nil {
		t.Errorf("half a header: %+v", err)
	}
	for _, b := range [][]byte{{2, 1, 0, 0x77, 2, 0, 0}, {2, 0, 0, 0x77, 2, 1, 0}, {3, 0, 0, 1, 0, 0, 0, 'x'}} {
		if _, err := DecodeRequest(b, Limits{}); !errors.Is(err, ua.StatusBadServiceUnsupported) {
			t.Errorf("type id % x: %v", b, err)
		}
	}
	for _, v := range []any{nil, 5, (*ua.NodeID)(nil), new(chan int), new(struct{ C chan int })} {
		if err := Decode(nil, v, Limits{}); err == nil {
			t.Errorf("decoded into %T", v)
		}
		if _, err := Append(nil, v); err == nil && v != any(5) && v != any((*ua.NodeID)(nil)) {
			t.Errorf("encoded %T", v)
		}
	}
	if _, err := AppendMessage(nil, &ua.Argument{}); err == nil {
		t.Error("a structure passes for a message")
	}
	if got := StatusName(ua.StatusCode(0x12345678)); got != "0x12345678" {
		t.Errorf("unknown status is called %s", got)
	}
}

// TestNull proves that nil is encoded as the null of its type, and that decoding
// leaves no nil pointer.
func TestNull(t *testing.T) {
	for _, tt := range []struct {
		v    any
		want []byte
	}{
		{(*ua.NodeID)(nil), []byte{0, 0}},
		{(*ua.ExpandedNodeID)(nil), []byte{0, 0}},
		{&ua.ExpandedNodeID{}, []byte{0, 0}},
		{(*ua.QualifiedName)(nil), []byte{0, 0, 0xff, 0xff, 0xff, 0xff}},
		{(*ua.LocalizedText)(nil), []byte{0}},
		{(*ua.Variant)(nil), []byte{0}},
		{(*ua.DataValue)(nil), []byte{0}},
		{(*ua.DiagnosticInfo)(nil), []byte{0}},
		{(*ua.ExtensionObject)(nil), []byte{0, 0, 0}},
		{(*ua.GUID)(nil), make([]byte, 16)},
		{(*ua.ReadValueID)(nil), append([]byte{0, 0, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff}, 0, 0, 0xff, 0xff, 0xff, 0xff)},
		{&ua.ExtensionObject{EncodingMask: ua.ExtensionObjectBinary}, []byte{0, 0, 1, 0xff, 0xff, 0xff, 0xff}},
		{&ua.LocalizedText{Text: "t", Locale: "l"}, []byte{3, 1, 0, 0, 0, 'l', 1, 0, 0, 0, 't'}},
		{ua.NewStringNodeID(1, ""), []byte{3, 1, 0, 0, 0, 0, 0}},
		{float32(math.NaN()), u32(0xffc00000)},
	} {
		got, err := Append(nil, tt.v)
		if err != nil || !bytes.Equal(got, tt.want) {
			t.Errorf("%T: % x, want % x (%v)", tt.v, got, tt.want, err)
		}
	}
	for _, m := range messages {
		b, err := AppendMessage(nil, newOf(m))
		if err != nil {
			t.Errorf("empty %T: %v", m, err)
			continue
		}
		if _, _, err := ua.DecodeService(b); err != nil {
			t.Errorf("ua cannot decode an empty %T: %v", m, err)
		}
		if _, ok := m.(ua.Request); ok {
			req, err := DecodeRequest(b, Limits{})
			if err != nil {
				t.Errorf("empty %T: %v", m, err)
				continue
			}
			noNil(t, reflect.TypeOf(m).String(), reflect.ValueOf(req))
		}
	}
}

// noNil proves that a decoded structure has no nil pointers.
func noNil(t *testing.T, path string, v reflect.Value) {
	t.Helper()
	switch v.Kind() {
	case reflect.Pointer:
		if v.IsNil() {
			t.Errorf("%s is nil", path)
			return
		}
		noNil(t, path, v.Elem())
	case reflect.Struct:
		for i := range v.NumField() {
			// The inner DiagnosticInfo is optional, and NodeIds are opaque.
			if f := v.Type().Field(i); f.IsExported() && f.Name != "InnerDiagnosticInfo" {
				noNil(t, path+"."+f.Name, v.Field(i))
			}
		}
	}
}

// TestUnknownExtension proves that bodies that are not known are kept as they are.
func TestUnknownExtension(t *testing.T) {
	b := append(append([]byte{1, 1, 0x10, 0x27, ua.ExtensionObjectBinary}, u32(3)...), "abc"...)
	var e ua.ExtensionObject
	if err := Decode(b, &e, Limits{}); err != nil {
		t.Fatal(err)
	}
	if raw, ok := e.Value.(Raw); !ok || string(raw) != "abc" {
		t.Errorf("value is %T %v", e.Value, e.Value)
	}
	if again, err := Append(nil, &e); err != nil || !bytes.Equal(again, b) {
		t.Errorf("% x, want % x (%v)", again, b, err)
	}
	b = append(append([]byte{1, 0, 0x10, 0x27, ua.ExtensionObjectXML}, u32(4)...), "<a/>"...)
	if err := Decode(b, &e, Limits{}); err != nil {
		t.Fatal(err)
	}
	if x, ok := e.Value.(*ua.XMLElement); !ok || *x != "<a/>" {
		t.Errorf("value is %T %v", e.Value, e.Value)
	}
	if again, err := Append(nil, &e); err != nil || !bytes.Equal(again, b) {
		t.Errorf("% x, want % x (%v)", again, b, err)
	}
}

// TestByteStringArray proves what ua cannot do by itself: arrays of ByteStrings
// of different lengths, flat, as a matrix, and empty.
func TestByteStringArray(t *testing.T) {
	elems := append(append(u32(2), "ab"...), append(u32(null), append(u32(1), append([]byte("c"), u32(null)...)...)...)...)
	for _, b := range [][]byte{
		append(append([]byte{0x8f}, u32(4)...), elems...),
		append(append(append([]byte{0xcf}, u32(4)...), elems...), u32(2, 2, 2)...),
		append([]byte{0x8f}, u32(0)...),
		append([]byte{0x8f}, u32(null)...),
	} {
		var v ua.Variant
		if err := Decode(b, &v, Limits{}); err != nil {
			t.Errorf("% x: %v", b, err)
			continue
		}
		if got, err := Append(nil, &v); err != nil || !bytes.Equal(got, b) {
			t.Errorf("% x became % x (%v)", b, got, err)
		}
	}
	var v ua.Variant
	if err := Decode(append(append([]byte{0x8f}, u32(4)...), elems...), &v, Limits{}); err != nil {
		t.Fatal(err)
	}
	if got := v.Value().([][]byte); len(got) != 4 || string(got[0]) != "ab" || string(got[2]) != "c" {
		t.Errorf("got %q", got)
	}
}

// TestTime proves the ends of the range of DateTime (Part 6 §5.2.2.5).
func TestTime(t *testing.T) {
	for _, tt := range []struct {
		t     time.Time
		ticks uint64
		back  time.Time
	}{
		{time.Time{}, 0, time.Time{}},
		{time.Date(1500, 1, 1, 0, 0, 0, 0, time.UTC), 0, time.Time{}},
		{time.Date(1601, 1, 1, 0, 0, 0, 100, time.UTC), 1, time.Date(1601, 1, 1, 0, 0, 0, 100, time.UTC)},
		{time.Unix(0, 0), 116444736000000000, time.Unix(0, 0).UTC()},
		{time.Date(1969, 12, 31, 23, 59, 59, 999_999_900, time.UTC), 116444735999999999, time.Date(1969, 12, 31, 23, 59, 59, 999_999_900, time.UTC)},
		{time.Date(2500, 6, 7, 8, 9, 10, 1100, time.UTC), 283832933500000011, time.Date(2500, 6, 7, 8, 9, 10, 1100, time.UTC)},
		{time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC), math.MaxInt64, maxTime},
		{time.Date(12000, 1, 1, 0, 0, 0, 0, time.UTC), math.MaxInt64, maxTime},
	} {
		b := appendTime(nil, tt.t)
		if got := binary.LittleEndian.Uint64(b); got != tt.ticks {
			t.Errorf("%v: %d ticks, want %d", tt.t, got, tt.ticks)
		}
		var back time.Time
		if err := Decode(b, &back, Limits{}); err != nil || !back.Equal(tt.back) {
			t.Errorf("%v: back as %v, want %v (%v)", tt.t, back, tt.back, err)
		}
	}
	var back time.Time
	if err := Decode(bytes.Repeat([]byte{0xff}, 8), &back, Limits{}); err != nil || !back.IsZero() {
		t.Errorf("a time before 1601 is %v (%v)", back, err)
	}
}

// TestNoAliasing proves that decoded values survive their input.
func TestNoAliasing(t *testing.T) {
	f := newFiller(3)
	for range 200 {
		v := &ua.WriteRequest{RequestHeader: &ua.RequestHeader{}, NodesToWrite: []*ua.WriteValue{{NodeID: f.nodeID(), Value: f.dataValue(0)}}}
		want, err := AppendMessage(nil, v)
		if err != nil {
			t.Fatal(err)
		}
		input := bytes.Clone(want)
		req, err := DecodeRequest(input, Limits{})
		if err != nil {
			t.Fatal(err)
		}
		clear(input)
		if got, err := AppendMessage(nil, req); err != nil || !bytes.Equal(got, want) {
			t.Fatalf("changed with its input (%v):\n% x, want\n% x", err, got, want)
		}
	}
}
