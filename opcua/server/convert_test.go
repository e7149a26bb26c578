package server

import (
	"math"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/gopcua/opcua/ua"

	"quorate/opcua/space"
)

func TestConvert(t *testing.T) {
	when := time.Date(2026, 5, 4, 3, 2, 1, 500_000_000, time.UTC)
	const unique = "72962B91-FA75-4AE6-8D28-B404DC7DAF63"
	type failure struct{}
	no := failure{}
	for _, c := range []struct {
		v        any
		to       ua.TypeID
		implicit any // no: only by Cast, or not at all
		cast     any
	}{
		{true, byteT, byte(1), byte(1)},
		{true, doubleT, 1.0, 1.0},
		{true, stringT, no, "true"},
		{true, statusT, no, no},
		{int8(-1), int64T, int64(-1), int64(-1)},
		{int8(-1), uint16T, no, no},
		{int8(7), uint16T, uint16(7), uint16(7)},
		{int8(-1), byteT, no, no},
		{byte(200), sbyteT, no, no},
		{byte(0), boolT, no, false},
		{int16(-5), floatT, float32(-5), float32(-5)},
		{int16(-5), stringT, no, "-5"},
		{uint16(0x8001), statusT, ua.StatusCode(0x80010000), ua.StatusCode(0x80010000)},
		{uint16(40000), int16T, no, no},
		{int32(-2147483648), statusT, no, ua.StatusCode(0x80000000)},
		{int32(300), byteT, no, no},
		{uint32(math.MaxUint32), int32T, no, no},
		{int64(math.MinInt64), doubleT, -9223372036854775808.0, -9223372036854775808.0},
		{int64(math.MinInt64), stringT, no, "-9223372036854775808"},
		{int64(-1), uint64T, no, no},
		{uint64(math.MaxUint64), int64T, no, no},
		{uint64(math.MaxUint64), stringT, no, "18446744073709551615"},
		{float32(2.5), doubleT, 2.5, 2.5},
		{2.5, int32T, no, int32(3)},
		{-2.5, int32T, no, int32(-2)},
		{-2.6, int32T, no, int32(-3)},
		{math.NaN(), int32T, no, no},
		{math.Inf(1), floatT, no, float32(math.Inf(1))},
		{1e300, floatT, no, no},
		{1e300, int64T, no, no},
		{18446744073709551616.0, uint64T, no, no},
		{-9223372036854775808.0, int64T, no, int64(math.MinInt64)},
		{0.5, stringT, no, "0.5"},
		{ua.StatusCode(0x80010000), uint16T, no, uint16(0x8001)},
		{ua.StatusCode(0x80010000), int32T, int32(-2147418112), int32(-2147418112)},
		{ua.StatusCode(0x80010000), uint64T, uint64(0x80010000), uint64(0x80010000)},
		{"12", int16T, int16(12), int16(12)},
		{"12.5", int16T, no, no},
		{"12.5", doubleT, 12.5, 12.5},
		{"x", doubleT, no, no},
		{"true", boolT, true, true},
		{"0", boolT, false, false},
		{"TRUE", boolT, no, no},
		{strings.Repeat("0", maxConvertedText) + "1", int16T, no, no},
		{unique, guidT, ua.NewGUID(unique), ua.NewGUID(unique)},
		{"2026-05-04T03:02:01.5Z", dateT, no, when},
		{"yesterday", dateT, no, no},
		{when, stringT, no, "2026-05-04T03:02:01.5Z"},
		{when, int64T, no, no},
		{"ns=2;s=a", nodeT, no, ua.NewStringNodeID(2, "a")},
		{"ns=x", nodeT, no, no},
		{"a", localT, no, ua.NewLocalizedText("a")},
		{"a", nameT, no, &ua.QualifiedName{Name: "a"}},
		{ua.NewStringNodeID(2, "a"), stringT, "ns=2;s=a", "ns=2;s=a"},
		{ua.NewStringNodeID(2, "a"), farNodeT, &ua.ExpandedNodeID{NodeID: ua.NewStringNodeID(2, "a")}, &ua.ExpandedNodeID{NodeID: ua.NewStringNodeID(2, "a")}},
		{&ua.ExpandedNodeID{NodeID: ua.NewStringNodeID(0, "a"), NamespaceURI: "urn:x;y", ServerIndex: 3}, stringT, "svr=3;nsu=urn:x%3By;s=a", "svr=3;nsu=urn:x%3By;s=a"},
		{&ua.ExpandedNodeID{NodeID: ua.NewStringNodeID(0, "a"), ServerIndex: 3}, nodeT, no, no},
		{&ua.ExpandedNodeID{NodeID: ua.NewStringNodeID(2, "a")}, nodeT, no, ua.NewStringNodeID(2, "a")},
		{ua.NewLocalizedText("a"), stringT, "a", "a"},
		{ua.NewLocalizedText("a"), nameT, no, no},
		{&ua.QualifiedName{NamespaceIndex: 3, Name: "a"}, stringT, "a", "a"},
		{&ua.QualifiedName{NamespaceIndex: 3, Name: "a"}, localT, ua.NewLocalizedText("a"), ua.NewLocalizedText("a")},
		{[]byte{0xAB, 1}, stringT, no, "AB01"},
		{[]byte{1}, guidT, no, no},
		{nil, stringT, no, no},
		{ua.MustVariant([]int32{1, 2}), int32T, no, no},
		{(*ua.NodeID)(nil), stringT, no, no},
	} {
		for i, want := range []any{c.implicit, c.cast} {
			got, ok := convert(c.v, c.to, i == 1)
			if ok != (want != no) || ok && !reflect.DeepEqual(got, want) {
				t.Errorf("%T %v to %d (cast %v): %v, %v, want %v", c.v, c.v, c.to, i == 1, got, ok, want)
			}
		}
	}
	g := ua.NewGUID(unique)
	b, _ := convert(g, bytesT, true)
	if back, ok := convert(b, guidT, true); !ok || back.(*ua.GUID).String() != unique {
		t.Errorf("%v", back)
	}
}

// TestPrecedence compares values of different types: the one of less precedence is converted, if it can be.
func TestPrecedence(t *testing.T) {
	for _, c := range []struct {
		a, b          any
		equal, before any
	}{
		{int64(math.MaxInt64), int64(math.MaxInt64 - 1), false, false}, // Equal as floats.
		{uint64(math.MaxUint64), int64(1), false, false},               // No Int64, so there is no order.
		{int32(-1), uint32(1), false, true},
		{uint16(7), int8(7), true, false},
		{int8(-1), uint16(1), false, false}, // To UInt16, which has precedence, and to which -1 can't be converted.
		{"10", int32(9), false, false},
		{int32(9), "10", false, true},
		{2.5, float32(2.5), true, false},
		{math.NaN(), math.NaN(), false, false},
		{math.NaN(), 1.0, false, false},
		{true, "1", true, false},
		{true, byte(1), true, false},
		{true, false, false, false},
		{ua.StatusBad, uint32(0x80000000), true, false},
		{ua.StatusBad, uint16(0x8000), true, false},
		{ua.StatusBad, int16(1), false, false},
		{"b", ua.NewLocalizedText("c"), false, true},
		{&ua.QualifiedName{NamespaceIndex: 1, Name: "b"}, ua.NewLocalizedText("b"), true, false},
		{&ua.QualifiedName{NamespaceIndex: 1, Name: "b"}, &ua.QualifiedName{Name: "b"}, false, false},
		{ua.NewNumericNodeID(0, 85), ua.NewTwoByteNodeID(85), true, false},
		{ua.NewNumericNodeID(0, 85), &ua.ExpandedNodeID{NodeID: ua.NewTwoByteNodeID(85)}, true, false},
		{ua.NewNumericNodeID(0, 85), "i=85", true, false},
		{time.Unix(1, 0), "1970-01-01T00:00:01Z", false, false}, // Only by Cast.
		{time.Unix(1, 0), time.Unix(2, 0), false, true},
		{[]byte{1}, []byte{1, 2}, false, true},
		{[]byte{1}, "01", false, false},
		{nil, int32(1), nil, nil},
		{int32(1), nil, nil, nil},
		{ua.MustVariant([]int32{1, 2}), ua.MustVariant([]int32{1, 2}), true, false},
		{ua.MustVariant([]int32{1, 2}), ua.MustVariant([]int32{1, 3}), false, false},
		{ua.MustVariant([]int32{1, 2}), int32(1), false, false},
	} {
		if got := equal(c.a, c.b); got != c.equal {
			t.Errorf("%T %v = %T %v: %v", c.a, c.a, c.b, c.b, got)
		}
		if got := equal(c.b, c.a); got != c.equal {
			t.Errorf("%T %v = %T %v: %v", c.b, c.b, c.a, c.a, got)
		}
		if got := ordered(c.a, c.b, func(c int) bool { return c < 0 }); got != c.before {
			t.Errorf("%T %v < %T %v: %v", c.a, c.a, c.b, c.b, got)
		}
	}
	for from, c := range conversions {
		if both := c.implicit & c.explicit; both != 0 {
			t.Errorf("%d: %b are both implicit and explicit", from, both)
		}
		if c.implicit.has(from) || c.explicit.has(from) {
			t.Errorf("%d is converted to itself", from)
		}
	}
}

func TestBitwise(t *testing.T) {
	and := func(a, b uint64) uint64 { return a & b }
	for _, c := range []struct{ a, b, want any }{
		{byte(6), byte(3), byte(2)},
		{byte(6), int32(-1), int32(6)},
		{int8(-1), uint32(math.MaxUint32), uint32(math.MaxUint32)},
		{int64(-1), uint64(5), int64(5)},
		{uint64(math.MaxUint64), int8(-2), uint64(math.MaxUint64 - 1)},
		{1.0, byte(1), nil},
		{byte(1), "1", nil},
		{nil, byte(1), nil},
	} {
		if got := bitwise(c.a, c.b, and); got != c.want {
			t.Errorf("%v & %v: %v, want %v", c.a, c.b, got, c.want)
		}
	}
}

func TestScalar(t *testing.T) {
	list := ua.MustVariant([]int32{1, 2})
	for _, c := range []struct {
		v    *ua.Variant
		want any
	}{
		{nil, nil}, {nullVariant, nil}, {ua.MustVariant("a"), "a"}, {ua.MustVariant([]string{"a"}), "a"}, {list, list},
		{ua.MustVariant(ua.ByteArray{7}), byte(7)},
	} {
		if got := scalar(c.v); got != c.want {
			t.Errorf("%v: %v", c.v, got)
		}
	}
	for _, v := range []*ua.Variant{ua.MustVariant([]int32{}), ua.MustVariant([][]int32{{1}}), ua.MustVariant([]*ua.Variant{list})} {
		if got := scalar(v); got != v {
			t.Errorf("%v: %v", v, got)
		}
	}
}

func TestBuiltIn(t *testing.T) {
	d := newDemo(t)
	for k, want := range map[space.Key]ua.TypeID{
		space.NumericKey(0, 12): stringT, space.NumericKey(0, 26): 0, space.NumericKey(0, 24): 0, space.NumericKey(0, 29): int32T,
		objectsKey: 0, space.NumericKey(1, 12): 0, space.StringKey(0, "12"): 0,
	} {
		if got, _ := builtIn(d.space, k); got != want {
			t.Errorf("%s: %d, want %d", k, got, want)
		}
	}
}

// FuzzConvert converts whatever a literal may be into everything: nothing panics, and what can be converted is of the type.
func FuzzConvert(f *testing.F) {
	f.Add("12.5", int64(-3), 1e20, []byte{1, 2, 3})
	f.Add("ns=2;g=72962B91-FA75-4AE6-8D28-B404DC7DAF63", int64(math.MinInt64), math.Inf(-1), make([]byte, 16))
	f.Add("svr=1;nsu=urn:x;i=5", int64(7), 0.5, []byte(nil))
	f.Fuzz(func(t *testing.T, s string, n int64, x float64, b []byte) {
		for _, v := range []any{
			nil, n != 0, int8(n), byte(n), int16(n), uint16(n), int32(n), uint32(n), n, uint64(n), float32(x), x, s, time.Unix(0, n), b, ua.StatusCode(n),
			ua.NewGUID(s), ua.NewStringNodeID(uint16(n), s), &ua.ExpandedNodeID{NodeID: ua.NewByteStringNodeID(0, b), NamespaceURI: s},
			&ua.ExpandedNodeID{}, &ua.QualifiedName{Name: s}, ua.NewLocalizedText(s), ua.MustVariant([]string{s, s}),
		} {
			for to := range ua.TypeID(26) {
				for _, cast := range []bool{false, true} {
					if got, ok := convert(v, to, cast); ok && typeOf(got) != to {
						t.Fatalf("%T %v to %d: %T", v, v, to, got)
					}
				}
			}
			equal(v, s)
			ordered(v, n, func(int) bool { return true })
			ordered(x, v, func(int) bool { return true })
			bitwise(v, n, func(a, b uint64) uint64 { return a | b })
		}
	})
}
