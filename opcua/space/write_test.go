package space

import (
	"testing"

	"github.com/gopcua/opcua/id"
	"github.com/gopcua/opcua/ua"
)

func TestFits(t *testing.T) {
	s, _ := world(t, NewTable())
	matrix := ua.MustVariant([][]int32{{1, 2}, {3, 4}})
	for _, c := range []struct {
		name     string
		v        *ua.Variant
		dataType uint32
		rank     int32
		want     bool
	}{
		{"the type itself", ua.MustVariant(int32(1)), id.Int32, RankScalar, true},
		{"another type", ua.MustVariant(int64(1)), id.Int32, RankScalar, false},
		{"a scalar for an array", ua.MustVariant(int32(1)), id.Int32, RankOneDimension, false},
		{"an array for a scalar", ua.MustVariant([]int32{1}), id.Int32, RankScalar, false},
		{"an array", ua.MustVariant([]int32{1}), id.Int32, RankOneDimension, true},
		{"either", ua.MustVariant([]int32{1}), id.Int32, RankScalarOrOneDimension, true},
		{"any array", matrix, id.Int32, RankOneOrMoreDimensions, true},
		{"a matrix", matrix, id.Int32, 2, true},
		{"a matrix for a list", matrix, id.Int32, RankOneDimension, false},
		{"anything", ua.MustVariant("x"), id.BaseDataType, RankAny, true},
		{"null", &ua.Variant{}, id.Int32, RankScalar, false},
		{"nothing", nil, id.Int32, RankScalar, false},
		{"null for anything", &ua.Variant{}, id.BaseDataType, RankScalar, true},
		{"Variants for numbers", ua.MustVariant([]*ua.Variant{ua.MustVariant(int32(1))}), id.Int32, RankOneDimension, false},
		{"Variants for anything", ua.MustVariant([]*ua.Variant{ua.MustVariant(int32(1))}), id.BaseDataType, RankOneDimension, true},
	} {
		if got := s.Fits(c.v, NumericKey(0, c.dataType), c.rank); got != c.want {
			t.Errorf("%s: %v", c.name, got)
		}
	}
}

func TestWriteGoesWithItsAccess(t *testing.T) {
	table := NewTable()
	n := variable(t, NumericKey(1, 1), "Value", 1.5)
	n.AccessLevel |= AccessCurrentWrite
	if err := table.Edit(func(e *Edit) error { e.Put(n); return nil }); err == nil {
		t.Error("a variable says that it can be written, and it can't")
	}
	n = variable(t, NumericKey(1, 1), "Value", 1.5)
	n.Write = func(WriteContext, *ua.Variant) ua.StatusCode { return ua.StatusOK }
	if err := table.Edit(func(e *Edit) error { e.Put(n); return nil }); err == nil {
		t.Error("a variable can be written, and doesn't say so")
	}
}
