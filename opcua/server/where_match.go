package server

import (
	"bytes"
	"cmp"
	"math"
	"time"

	"github.com/gopcua/opcua/ua"

	"quorate/opcua/space"
)

// evaluation is what a where clause makes of one event.
type evaluation struct {
	filter  contentFilter
	event   *happening
	types   typeTests
	space   *space.Space
	results []any // of the elements
	steps   int   // that are left of maxFilterSteps
}

// matches reports whether an event passes. The elements are evaluated once each, from the last to the first, since many may refer
// to one. What is neither true nor false, such as a comparison with null, does not pass.
func (f contentFilter) matches(h *happening, types typeTests, sp *space.Space) bool {
	if len(f) == 0 {
		return true
	}
	ev := evaluation{filter: f, event: h, types: types, space: sp, results: make([]any, len(f)), steps: maxFilterSteps}
	for i := len(f) - 1; i >= 0; i-- {
		ev.results[i] = ev.evaluate(&f[i])
	}
	return truth(ev.results[0]) == true
}

// value is that of an operand; nil is null.
func (ev *evaluation) value(o *operand) any {
	switch {
	case o.field != nil:
		v, status := o.field.of(ev.event, ev.types, ev.space)
		if status != ua.StatusOK {
			return nil // A status in place of a value is null (Part 4 §7.7.3, IsNull).
		}
		return scalar(v)
	case o.element > 0:
		return ev.results[o.element]
	}
	return o.literal
}

// evaluate returns the value of an element. It is true, false, or nil for neither, but of Cast and the bitwise operators, which
// give values for other elements.
func (ev *evaluation) evaluate(el *element) any {
	value := func(i int) any { return ev.value(&el.operands[i]) }
	switch el.op {
	case ua.FilterOperatorIsNull:
		return value(0) == nil
	case ua.FilterOperatorNot:
		return not(truth(value(0)))
	case ua.FilterOperatorAnd:
		return and(truth(value(0)), truth(value(1)))
	case ua.FilterOperatorOr:
		return not(and(not(truth(value(0))), not(truth(value(1)))))
	case ua.FilterOperatorOfType:
		k, _ := nodeKey(value(0))
		return ev.types.is(ev.space, ev.event.typ, k)
	case ua.FilterOperatorBetween:
		v := value(0)
		return and(ordered(v, value(1), func(c int) bool { return c >= 0 }), ordered(v, value(2), func(c int) bool { return c <= 0 }))
	case ua.FilterOperatorInList:
		v := value(0)
		for i := range el.operands[1:] {
			if equal(v, value(i+1)) == true {
				return true
			}
		}
		return false
	case ua.FilterOperatorEquals:
		return equal(value(0), value(1))
	case ua.FilterOperatorGreaterThan:
		return ordered(value(0), value(1), func(c int) bool { return c > 0 })
	case ua.FilterOperatorLessThan:
		return ordered(value(0), value(1), func(c int) bool { return c < 0 })
	case ua.FilterOperatorGreaterThanOrEqual:
		return ordered(value(0), value(1), func(c int) bool { return c >= 0 })
	case ua.FilterOperatorLessThanOrEqual:
		return ordered(value(0), value(1), func(c int) bool { return c <= 0 })
	case ua.FilterOperatorLike:
		return ev.like(value(0), value(1))
	case ua.FilterOperatorCast:
		return ev.cast(value(0), value(1))
	case ua.FilterOperatorBitwiseAnd:
		return bitwise(value(0), value(1), func(a, b uint64) uint64 { return a & b })
	case ua.FilterOperatorBitwiseOr:
		return bitwise(value(0), value(1), func(a, b uint64) uint64 { return a | b })
	}
	return nil
}

// truth is a value as And, Or and Not take it. What is no Boolean is null (Part 4 §7.7.3).
func truth(v any) any {
	if b, ok := convert(v, boolT, false); ok {
		return b
	}
	return nil
}

// not and and are those of three-valued logic (Part 4 §7.7.3, tables of And and Or).
func not(v any) any {
	if b, ok := v.(bool); ok {
		return !b
	}
	return nil
}

func and(a, b any) any {
	if a == false || b == false {
		return false
	}
	if a == true && b == true {
		return true
	}
	return nil
}

// like is false of what is no text, nor converted to one.
func (ev *evaluation) like(v, pattern any) any {
	s, ok := convert(v, stringT, false)
	p, also := convert(pattern, stringT, false)
	if !ok || !also {
		return false
	}
	matches, decided := like(s.(string), p.(string), &ev.steps)
	if !decided {
		return nil
	}
	return matches
}

// cast is null of what can't be converted, or not into that.
func (ev *evaluation) cast(v, dataType any) any {
	k, ok := nodeKey(dataType)
	if !ok || v == nil || ev.steps <= 0 {
		return nil
	}
	t, lookups := builtIn(ev.space, k)
	ev.steps -= lookups
	if x, ok := convert(v, t, true); ok {
		return x
	}
	return nil
}

// bitwise gives an integer of the size of the larger operand, by the bits of both. The smaller one is converted to it, so a
// negative one keeps its sign.
func bitwise(a, b any, op func(a, b uint64) uint64) any {
	s, t := integerSize(a), integerSize(b)
	if s == 0 || t == 0 {
		return nil
	}
	wide := a
	if t > s {
		wide = b
	}
	n := op(bits(a), bits(b))
	switch wide.(type) {
	case int8:
		return int8(n)
	case uint8:
		return uint8(n)
	case int16:
		return int16(n)
	case uint16:
		return uint16(n)
	case int32:
		return int32(n)
	case uint32:
		return uint32(n)
	case int64:
		return int64(n)
	}
	return n
}

// integerSize is that of an integer in bytes; 0 is none.
func integerSize(v any) int {
	switch v.(type) {
	case int8, uint8:
		return 1
	case int16, uint16:
		return 2
	case int32, uint32:
		return 4
	case int64, uint64:
		return 8
	}
	return 0
}

func bits(v any) uint64 {
	n, _ := integerOf(v)
	if n.negative {
		return -n.abs
	}
	return n.abs
}

// equal reports whether two values are the same, once they are of one type: nil if one is null.
func equal(a, b any) any {
	if a == nil || b == nil {
		return nil
	}
	if x, ok := a.(*ua.Variant); ok {
		y, ok := b.(*ua.Variant)
		return ok && sameVariant(x, y)
	}
	x, y, ok := common(a, b)
	if !ok {
		return false
	}
	if c, ok := order(x, y); ok {
		return c == 0
	}
	switch x := x.(type) {
	case bool:
		return x == y.(bool)
	case *ua.GUID:
		return x.String() == y.(*ua.GUID).String()
	case *ua.NodeID:
		return space.KeyOf(x) == space.KeyOf(y.(*ua.NodeID))
	case *ua.ExpandedNodeID:
		y := y.(*ua.ExpandedNodeID)
		return x.NamespaceURI == y.NamespaceURI && x.ServerIndex == y.ServerIndex && space.KeyOf(x.NodeID) == space.KeyOf(y.NodeID)
	case *ua.QualifiedName:
		return *x == *y.(*ua.QualifiedName)
	case *ua.LocalizedText:
		return x.Text == y.(*ua.LocalizedText).Text // An event's texts are of one locale.
	}
	return false
}

// ordered says how two values compare, once they are of one type: nil if one is null, false if there is no order between them.
func ordered(a, b any, is func(int) bool) any {
	if a == nil || b == nil {
		return nil
	}
	x, y, ok := common(a, b)
	if !ok {
		return false
	}
	c, ok := order(x, y)
	return ok && is(c)
}

// order compares values of one type. It reports false where the type has no order, and for what is no number.
func order(a, b any) (int, bool) {
	switch x := a.(type) {
	case int8:
		return cmp.Compare(x, b.(int8)), true
	case uint8:
		return cmp.Compare(x, b.(uint8)), true
	case int16:
		return cmp.Compare(x, b.(int16)), true
	case uint16:
		return cmp.Compare(x, b.(uint16)), true
	case int32:
		return cmp.Compare(x, b.(int32)), true
	case uint32:
		return cmp.Compare(x, b.(uint32)), true
	case int64:
		return cmp.Compare(x, b.(int64)), true
	case uint64:
		return cmp.Compare(x, b.(uint64)), true
	case float32:
		return orderFloats(float64(x), float64(b.(float32)))
	case float64:
		return orderFloats(x, b.(float64))
	case ua.StatusCode:
		return cmp.Compare(x, b.(ua.StatusCode)), true
	case string:
		return cmp.Compare(x, b.(string)), true
	case time.Time:
		return x.Compare(b.(time.Time)), true
	case []byte:
		return bytes.Compare(x, b.([]byte)), true
	}
	return 0, false
}

func orderFloats(a, b float64) (int, bool) {
	return cmp.Compare(a, b), !math.IsNaN(a) && !math.IsNaN(b)
}
