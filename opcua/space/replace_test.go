package space

import (
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/gopcua/opcua/id"
	"github.com/gopcua/opcua/ua"
)

var noData, mismatch, otherType = ua.StatusBadIndexRangeNoData, statusBadIndexRangeDataMismatch, ua.StatusBadTypeMismatch

func TestReplace(t *testing.T) {
	matrix := [][]int32{{1, 2, 3}, {4, 5, 6}}
	for _, c := range []struct {
		value any
		rng   string
		part  any
		want  any // the whole, or a status
	}{
		{[]int32{1, 2, 3}, "1", []int32{9}, []int32{1, 9, 3}},
		{[]int32{1, 2, 3}, "1:2", []int32{8, 9}, []int32{1, 8, 9}},
		{[]int32{1, 2, 3}, "0:2", []int32{7, 8, 9}, []int32{7, 8, 9}},
		{[]int32{1, 2, 3}, "1:2", []int32{9}, mismatch},
		{[]int32{1, 2, 3}, "1", []int32{8, 9}, mismatch},
		{[]int32{1, 2, 3}, "1", []int32{}, mismatch},
		{[]int32{1, 2, 3}, "1", int32(9), otherType},
		{[]int32{1, 2, 3}, "1", []int64{9}, otherType},
		{[]int32{1, 2, 3}, "3", []int32{9}, noData},
		{[]int32{1, 2, 3}, "2:3", []int32{8, 9}, noData},
		{[]int32{1, 2, 3}, "0:4294967295", []int32{9}, noData},
		{[]int32{}, "0", []int32{9}, noData},
		{[]int32{1, 2, 3}, "0,0", []int32{9}, noData},
		{int32(1), "0", int32(9), noData},
		{matrix, "1,1:2", [][]int32{{8, 9}}, [][]int32{{1, 2, 3}, {4, 8, 9}}},
		{matrix, "0:1,2", [][]int32{{8}, {9}}, [][]int32{{1, 2, 8}, {4, 5, 9}}},
		{matrix, "0:1,2", [][]int32{{8, 9}}, mismatch},
		{matrix, "0,1:2", [][]int32{{8}}, mismatch},
		{matrix, "0", [][]int32{{7, 8, 9}}, noData},
		{matrix, "0,0", []int32{9}, otherType},
		{matrix, "0,3", [][]int32{{9}}, noData},
		{matrix, "2,0", [][]int32{{9}}, noData},
		{"Wäßrig", "1:2", "ae", "Waerig"},
		{"Wäßrig", "1:2", "a", mismatch},
		{"Wäßrig", "5:6", "ab", noData},
		{"abc", "0,0", "x", noData},
		{"abc", "0", []string{"x"}, otherType},
		{[]byte{1, 2, 3}, "1:2", []byte{8, 9}, []byte{1, 8, 9}},
		{[]byte{1, 2, 3}, "1:2", []byte{8}, mismatch},
		{[]byte{1, 2, 3}, "1", ua.ByteArray{9}, otherType},
		{[]byte{1, 2, 3}, "3", []byte{9}, noData},
		{ua.ByteArray{1, 2, 3}, "1", ua.ByteArray{9}, ua.ByteArray{1, 9, 3}},
		{[]string{"alpha", "beta"}, "1", []string{"b"}, []string{"alpha", "b"}},
		{[]string{"alpha", "beta"}, "0:1,1:2", []string{"LP", "ET"}, []string{"aLPha", "bETa"}},
		{[]string{"alpha", "b"}, "0:1,1:2", []string{"LP", "ET"}, noData},
	} {
		name := strings.Join([]string{cmp.Diff(nil, c.value), c.rng, cmp.Diff(nil, c.part)}, " ")
		spans, ok := ParseRange(c.rng)
		if !ok {
			t.Fatal(c.rng)
		}
		before := cmp.Diff(nil, c.value)
		got, status := replace(ua.MustVariant(c.value), ua.MustVariant(c.part), spans)
		if want, refused := c.want.(ua.StatusCode); refused {
			if status != want || got != nil {
				t.Errorf("%s: %v, %v, want %v", name, got, status, want)
			}
			continue
		}
		if status != ua.StatusOK {
			t.Errorf("%s: %v", name, status)
			continue
		}
		if diff := cmp.Diff(c.want, got.Value()); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
		if cmp.Diff(nil, c.value) != before {
			t.Errorf("%s: the value itself was modified", name)
		}
		// What was written is what the same range reads.
		if back, status := slice(got, c.rng); status != ua.StatusOK || cmp.Diff(c.part, back.Value()) != "" {
			t.Errorf("%s: read back as %v, %v", name, back, status)
		}
	}
	for _, v := range []*ua.Variant{nil, {}} {
		if _, status := replace(v, ua.MustVariant([]int32{1}), Range{{0, 0}}); status != noData {
			t.Errorf("a part of nothing: %v", status)
		}
	}
}

// writable is a list that can be written.
func writable(t *testing.T, list ...int32) (*Space, *[]int32) {
	t.Helper()
	held := &list
	n := variable(t, NumericKey(1, 1), "List", 0.0)
	n.DataType, n.ValueRank, n.AccessLevel = NumericKey(0, id.Int32), RankOneDimension, AccessCurrentRead|AccessCurrentWrite
	n.Value = func(ReadContext) *ua.DataValue {
		return &ua.DataValue{EncodingMask: ua.DataValueValue, Value: ua.MustVariant(slices.Clone(*held))}
	}
	n.Write = func(_ WriteContext, v *ua.Variant) ua.StatusCode {
		*held = v.Value().([]int32)
		return ua.StatusOK
	}
	table := NewTable()
	if err := table.Edit(func(e *Edit) error { e.Put(n); return nil }); err != nil {
		t.Fatal(err)
	}
	s, _ := world(t, table)
	return s, held
}

func TestWriteOfAPart(t *testing.T) {
	s, list := writable(t, 1, 2, 3)
	write := func(rng string, v any) ua.StatusCode {
		return s.Write(WriteContext{Now: time.Now()}, NumericKey(1, 1), ua.AttributeIDValue, rng, &ua.DataValue{Value: ua.MustVariant(v)})
	}
	for _, c := range []struct {
		rng  string
		v    any
		want ua.StatusCode
	}{
		{"1:2", []int32{8, 9}, ua.StatusOK},
		{"1:2", []int32{8}, mismatch},
		{"0", []string{"x"}, otherType},
		{"3", []int32{9}, noData},
		{"2:1", []int32{9}, ua.StatusBadIndexRangeInvalid},
	} {
		if got := write(c.rng, c.v); got != c.want {
			t.Errorf("[%s] = %v: %v, want %v", c.rng, c.v, got, c.want)
		}
	}
	if !slices.Equal(*list, []int32{1, 8, 9}) {
		t.Errorf("%v", *list)
	}
}

// TestPartsWrittenAtOnceAllCount has many write a place each: none may undo what another wrote.
func TestPartsWrittenAtOnceAllCount(t *testing.T) {
	s, list := writable(t, make([]int32, 16)...)
	var writers sync.WaitGroup
	for i := range 16 {
		writers.Go(func() {
			for n := range int32(100) {
				dv := &ua.DataValue{Value: ua.MustVariant([]int32{n + 1})}
				if status := s.Write(WriteContext{}, NumericKey(1, 1), ua.AttributeIDValue, strconv.Itoa(i), dv); status != ua.StatusOK {
					t.Error(status)
				}
			}
		})
	}
	writers.Wait()
	for i, n := range *list {
		if n != 100 {
			t.Errorf("[%d] is %d", i, n)
		}
	}
}

// FuzzReplace writes parts of whatever size to wherever: what is accepted changes what the range says, and nothing else.
func FuzzReplace(f *testing.F) {
	for _, s := range []string{"0", "1:2", "0:1,1:2", "9", "-1", "0,0,0"} {
		f.Add(s, uint8(2), uint64(1))
	}
	f.Fuzz(func(t *testing.T, rng string, size uint8, seed uint64) {
		spans, ok := ParseRange(rng)
		if !ok {
			return
		}
		rnd := rand.New(rand.NewPCG(seed, 0))
		list, matrix := make([]int32, size%5), make([][]int32, size%5)
		for i := range matrix {
			list[i] = rnd.Int32()
			matrix[i] = []int32{rnd.Int32(), rnd.Int32()}
		}
		whole := []any{[]int32{1, 2, 3, 4}, [][]int32{{1, 2}, {3, 4}}, "äöüß", []byte{1, 2, 3, 4}, []string{"abc", "def"}}
		parts := []any{list, matrix, strings.Repeat("x", int(size%5)), make([]byte, size%5), make([]string, size%5), int32(1)}
		for _, w := range whole {
			for _, p := range parts {
				part, err := ua.NewVariant(p)
				if err != nil {
					continue
				}
				got, status := replace(ua.MustVariant(w), part, spans)
				if (status == ua.StatusOK) != (got != nil) {
					t.Fatalf("%v with %v", got, status)
				}
				if got == nil {
					continue
				}
				if back, status := slice(got, rng); status != ua.StatusOK || cmp.Diff(p, back.Value()) != "" {
					t.Fatalf("%v[%s] = %v reads %v, %v", w, rng, p, back, status)
				}
			}
		}
	})
}
