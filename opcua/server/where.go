package server

import (
	"github.com/gopcua/opcua/ua"

	"quorate/opcua/space"
	"quorate/opcua/wire"
)

// maxLiteralBytes bounds one literal of a where clause, as it is encoded: it is compared with every event.
const maxLiteralBytes = 4 << 10

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
	literal any // as scalar gives it
}

// operandCounts are the operators that there are, with the number of operands that they take; -1 is two or more.
//
// InView and RelatedTo are not among them, and are answered with BadFilterOperatorUnsupported, which Part 4 §7.7.2 has for operators
// that exist and that a server does not support. Both ask where the node that is filtered stands among others: InView whether it
// is in a View, of which there are none, and RelatedTo which path of references leads from it to another. They are for queries
// (Part 4 Annex B); what is filtered here is an event, which is no node and has no references.
var operandCounts = map[ua.FilterOperator]int{
	ua.FilterOperatorEquals: 2, ua.FilterOperatorIsNull: 1, ua.FilterOperatorGreaterThan: 2, ua.FilterOperatorLessThan: 2,
	ua.FilterOperatorGreaterThanOrEqual: 2, ua.FilterOperatorLessThanOrEqual: 2, ua.FilterOperatorNot: 1, ua.FilterOperatorBetween: 3,
	ua.FilterOperatorInList: -1, ua.FilterOperatorAnd: 2, ua.FilterOperatorOr: 2, ua.FilterOperatorOfType: 1,
	ua.FilterOperatorLike: 2, ua.FilterOperatorCast: 2, ua.FilterOperatorBitwiseAnd: 2, ua.FilterOperatorBitwiseOr: 2,
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
		if b, err := wire.Append(nil, o.Value); o.Value != nil && (err != nil || len(b) > maxLiteralBytes) {
			return operand{}, ua.StatusBadFilterLiteralInvalid
		}
		return operand{literal: scalar(o.Value)}, ua.StatusOK
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

// nodeKey returns the node that a value names.
func nodeKey(v any) (space.Key, bool) {
	switch x := v.(type) {
	case *ua.NodeID:
		return space.KeyOf(x), x != nil
	case *ua.ExpandedNodeID:
		if x == nil || x.NodeID == nil || x.NamespaceURI != "" || x.ServerIndex != 0 {
			return space.Key{}, false
		}
		return space.KeyOf(x.NodeID), true
	}
	return space.Key{}, false
}
