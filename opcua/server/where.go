package server

import (
	"bytes"
	"cmp"
	"time"

	"github.com/gopcua/opcua/ua"

	"quorate/opcua/space"
)

// contentFilter is a where clause: elements of which the first decides, and which refer to others behind them (Part 4 §7.7).
// The empty one lets everything pass.
type contentFilter []element

type element struct {
	op       ua.FilterOperator
	operands []operand
}

// operand is a field of the event, another element, or else a literal.
type operand struct {
	field   *selection
	element int // 0: none, since no element refers to the first
	literal *ua.Variant
}

// operandCounts are the operators that there are, with the number of operands that they take; -1 is two or more.
var operandCounts = map[ua.FilterOperator]int{
	ua.FilterOperatorEquals: 2, ua.FilterOperatorIsNull: 1, ua.FilterOperatorGreaterThan: 2, ua.FilterOperatorLessThan: 2,
	ua.FilterOperatorGreaterThanOrEqual: 2, ua.FilterOperatorLessThanOrEqual: 2, ua.FilterOperatorNot: 1, ua.FilterOperatorBetween: 3,
	ua.FilterOperatorInList: -1, ua.FilterOperatorAnd: 2, ua.FilterOperatorOr: 2, ua.FilterOperatorOfType: 1,
}

// parseWhere checks a where clause. The result has a status for every element and operand.
func (e *engine) parseWhere(elements []*ua.ContentFilterElement) (contentFilter, *ua.ContentFilterResult, ua.StatusCode) {
	result := &ua.ContentFilterResult{}
	total := 0
	for _, c := range elements {
		if total++; c != nil {
			total += len(c.FilterOperands)
		}
	}
	if total > e.limits.MaxWhereOperands {
		return nil, result, ua.StatusBadTooManyOperations
	}
	filter, status := make(contentFilter, len(elements)), ua.StatusOK
	for i, c := range elements {
		r := &ua.ContentFilterElementResult{}
		result.ElementResults = append(result.ElementResults, r)
		if filter[i] = e.parseElement(c, i, len(elements), r); r.StatusCode != ua.StatusOK {
			status = ua.StatusBadEventFilterInvalid
		}
	}
	return filter, result, status
}

func (e *engine) parseElement(c *ua.ContentFilterElement, index, elements int, r *ua.ContentFilterElementResult) element {
	if c == nil {
		r.StatusCode = ua.StatusBadFilterElementInvalid
		return element{}
	}
	count, known := operandCounts[c.FilterOperator]
	switch {
	case c.FilterOperator > ua.FilterOperatorBitwiseOr:
		r.StatusCode = ua.StatusBadFilterOperatorInvalid
		return element{}
	case !known:
		r.StatusCode = ua.StatusBadFilterOperatorUnsupported
		return element{}
	case count >= 0 && len(c.FilterOperands) != count, count < 0 && len(c.FilterOperands) < 2:
		r.StatusCode = ua.StatusBadFilterOperandCountMismatch
		return element{}
	}
	el := element{op: c.FilterOperator, operands: make([]operand, len(c.FilterOperands))}
	r.OperandStatusCodes = make([]ua.StatusCode, len(c.FilterOperands))
	for i, x := range c.FilterOperands {
		el.operands[i], r.OperandStatusCodes[i] = e.parseOperand(x, index, elements)
		if r.OperandStatusCodes[i] != ua.StatusOK {
			r.StatusCode = ua.StatusBadFilterOperandInvalid
		}
	}
	if el.op == ua.FilterOperatorOfType && r.StatusCode == ua.StatusOK {
		k, ok := nodeKey(el.operands[0].literal)
		if !ok || !e.space.IsSubtype(k, baseEventType) {
			r.StatusCode, r.OperandStatusCodes[0] = ua.StatusBadFilterOperandInvalid, ua.StatusBadTypeDefinitionInvalid
		}
	}
	return el
}

func (e *engine) parseOperand(x *ua.ExtensionObject, index, elements int) (operand, ua.StatusCode) {
	if x == nil {
		return operand{}, ua.StatusBadFilterOperandInvalid
	}
	switch o := x.Value.(type) {
	case *ua.LiteralOperand:
		if o.Value == nil {
			return operand{literal: nullVariant}, ua.StatusOK
		}
		return operand{literal: o.Value}, ua.StatusOK
	case *ua.ElementOperand:
		// Elements refer to those behind them only, so that there are no loops (Part 4 §7.7.4.2).
		if int64(o.Index) <= int64(index) || int64(o.Index) >= int64(elements) {
			return operand{}, ua.StatusBadFilterOperandInvalid
		}
		return operand{element: int(o.Index)}, ua.StatusOK
	case *ua.SimpleAttributeOperand:
		s, status := e.parseSelection(o)
		return operand{field: &s}, status
	}
	return operand{}, ua.StatusBadFilterOperandInvalid
}

// matches reports whether an event passes. The elements are evaluated once each, from the last to the first, since many may refer
// to one. What is neither true nor false, such as a comparison with null, does not pass.
func (f contentFilter) matches(h *happening, types typeTests, sp *space.Space) bool {
	if len(f) == 0 {
		return true
	}
	results := make([]any, len(f))
	for i := len(f) - 1; i >= 0; i-- {
		results[i] = f[i].evaluate(results, h, types, sp)
	}
	return results[0] == true
}

// evaluate returns true, false, or nil for neither.
func (el *element) evaluate(results []any, h *happening, types typeTests, sp *space.Space) any {
	value := func(i int) any {
		switch o := &el.operands[i]; {
		case o.field != nil:
			return plain(o.field.of(h, types, sp))
		case o.element > 0:
			return results[o.element]
		default:
			return plain(o.literal)
		}
	}
	switch el.op {
	case ua.FilterOperatorIsNull:
		return value(0) == nil
	case ua.FilterOperatorNot:
		return not(value(0))
	case ua.FilterOperatorAnd:
		return and(value(0), value(1))
	case ua.FilterOperatorOr:
		return not(and(not(value(0)), not(value(1))))
	case ua.FilterOperatorOfType:
		k, _ := nodeKey(el.operands[0].literal)
		return types.is(sp, h.typ, k)
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

// plain gives what a value is compared as: numbers as float64, texts as string, node ids as keys.
func plain(v *ua.Variant) any {
	if v == nil {
		return nil
	}
	switch x := v.Value().(type) {
	case bool, string, time.Time, []byte:
		return x
	case *ua.LocalizedText:
		return x.Text
	case *ua.NodeID:
		return space.KeyOf(x)
	case *ua.ExpandedNodeID:
		return space.KeyOf(x.NodeID)
	case *ua.QualifiedName:
		return *x
	case ua.StatusCode:
		return float64(x)
	}
	if list, ok := numbers(v); ok && len(list) == 1 && !v.Has(ua.VariantArrayValues) {
		return list[0]
	}
	return nil
}

// equal reports whether two values are the same: nil if they can't be compared.
func equal(a, b any) any {
	switch x := a.(type) {
	case space.Key:
		if y, ok := b.(space.Key); ok {
			return x == y
		}
		return nil
	case ua.QualifiedName:
		if y, ok := b.(ua.QualifiedName); ok {
			return x == y
		}
		return nil
	case bool:
		if y, ok := b.(bool); ok {
			return x == y
		}
		return nil
	}
	return ordered(a, b, func(c int) bool { return c == 0 })
}

// ordered says how two values compare: nil if they can't be.
func ordered(a, b any, is func(int) bool) any {
	switch x := a.(type) {
	case float64:
		if y, ok := b.(float64); ok {
			return is(cmp.Compare(x, y))
		}
	case string:
		if y, ok := b.(string); ok {
			return is(cmp.Compare(x, y))
		}
	case time.Time:
		if y, ok := b.(time.Time); ok {
			return is(x.Compare(y))
		}
	case []byte:
		if y, ok := b.([]byte); ok {
			return is(bytes.Compare(x, y))
		}
	}
	return nil
}

// nodeKey returns the node id that a literal is.
func nodeKey(v *ua.Variant) (space.Key, bool) {
	k, ok := plain(v).(space.Key)
	return k, ok
}
