package space

import (
	"reflect"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/gopcua/opcua/ua"
)

func TestParseRange(t *testing.T) {
	for text, want := range map[string]Range{
		"0":               {{0, 0}},
		"7:9":             {{7, 9}},
		"1:2,0:3":         {{1, 2}, {0, 3}},
		"4294967295":      {{4294967295, 4294967295}},
		"0,1,2,3,4,5,6,7": {{0, 0}, {1, 1}, {2, 2}, {3, 3}, {4, 4}, {5, 5}, {6, 6}, {7, 7}},
	} {
		got, ok := ParseRange(text)
		if !ok || !reflect.DeepEqual(got, want) {
			t.Errorf("%q: %v, %v", text, got, ok)
		}
	}
	for _, text := range []string{
		"", ":", "1:", ":1", "1:1", "2:1", "-1", "+1", " 1", "1 ", "a", "1:2:3", "1,", ",1", "0x1", "4294967296", "00000000001", "99999999999999999999",
		strings.Repeat("0,", MaxRangeDimensions) + "0",
	} {
		if got, ok := ParseRange(text); ok {
			t.Errorf("%q is accepted as %v", text, got)
		}
	}
}

func TestSlice(t *testing.T) {
	matrix := [][]int32{{1, 2, 3}, {4, 5, 6}}
	for _, c := range []struct {
		value any
		rng   string
		want  any // nil: BadIndexRangeNoData
	}{
		{[]int32{1, 2, 3}, "0", []int32{1}},
		{[]int32{1, 2, 3}, "1:2", []int32{2, 3}},
		{[]int32{1, 2, 3}, "2:4294967295", []int32{3}},
		{[]int32{1, 2, 3}, "3", nil},
		{[]int32{}, "0", nil},
		{[]int32{1, 2, 3}, "0,0", nil},
		{int32(1), "0", nil},
		{matrix, "1,1:2", [][]int32{{5, 6}}},
		{matrix, "0:1,2:9", [][]int32{{3}, {6}}},
		{matrix, "0", nil},
		{matrix, "2,0", nil},
		{matrix, "0,3", nil},
		{matrix, "0,0,0", nil},
		{"Wäßrig", "1:2", "äß"},
		{"Wäßrig", "5", "g"},
		{"Wäßrig", "4:99", "ig"},
		{"Wäßrig", "6", nil},
		{"", "0", nil},
		{"abc", "0,0", nil},
		{[]byte{1, 2, 3}, "1:2", []byte{2, 3}},
		{[]byte{1, 2, 3}, "3", nil},
		{ua.ByteArray{1, 2, 3}, "1:2", ua.ByteArray{2, 3}},
		{[]string{"alpha", "beta"}, "1", []string{"beta"}},
		{[]string{"alpha", "beta", "x"}, "0:2,1:2", []string{"lp", "et", ""}},
		{[]string{"a", "b"}, "0:1,5", nil},
		{[][]byte{{1, 2}, {3, 4}}, "1", [][]byte{{3, 4}}},
		{[][]byte{{1, 2}, {3, 4}}, "0:1,1", [][]byte{{2}, {4}}},
	} {
		got, status := slice(ua.MustVariant(c.value), c.rng)
		switch {
		case c.want == nil && status != ua.StatusBadIndexRangeNoData:
			t.Errorf("%v[%s]: status %v, want no data", c.value, c.rng, status)
		case c.want != nil && status != ua.StatusOK:
			t.Errorf("%v[%s]: %v", c.value, c.rng, status)
		case c.want != nil:
			if diff := cmp.Diff(c.want, got.Value()); diff != "" {
				t.Errorf("%v[%s]: %s", c.value, c.rng, diff)
			}
			if want := ua.MustVariant(c.want); got.EncodingMask() != want.EncodingMask() {
				t.Errorf("%v[%s]: encoding %#x, want %#x", c.value, c.rng, got.EncodingMask(), want.EncodingMask())
			}
		}
	}
	if _, status := slice(nil, "0"); status != ua.StatusBadIndexRangeNoData {
		t.Errorf("nothing: %v", status)
	}
	if !reflect.DeepEqual(matrix, [][]int32{{1, 2, 3}, {4, 5, 6}}) {
		t.Error("the value was modified")
	}
}

// What comes back can be asked for again with the range that covers it, whatever bytes the range was made of.
func FuzzSlice(f *testing.F) {
	for _, s := range []string{"0", "1:2", "0:1,2:3", "-1", "9999999999", "0,0,0,0,0,0,0,0,0"} {
		f.Add(s)
	}
	values := []*ua.Variant{
		ua.MustVariant([]int32{1, 2, 3}), ua.MustVariant([][]int32{{1, 2}, {3, 4}}), ua.MustVariant("äöü"),
		ua.MustVariant([]string{"ab", "c"}), ua.MustVariant([]byte{1, 2}), ua.MustVariant(int32(1)), {},
	}
	f.Fuzz(func(t *testing.T, s string) {
		spans, ok := ParseRange(s)
		for _, v := range values {
			got, status := slice(v, s)
			if !ok && status != ua.StatusBadIndexRangeInvalid {
				t.Fatalf("%q is no range, but gives %v", s, status)
			}
			if (status == ua.StatusOK) != (got != nil) {
				t.Fatalf("%q: %v with %v", s, status, got)
			}
		}
		if len(spans) > MaxRangeDimensions {
			t.Fatalf("%q: %d dimensions", s, len(spans))
		}
	})
}
