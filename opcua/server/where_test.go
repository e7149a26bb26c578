package server

import (
	"strings"
	"testing"
	"time"

	"github.com/gopcua/opcua/ua"
)

// clause makes an element of a where clause. An operand that is no operand is a literal.
func clause(op ua.FilterOperator, operands ...any) *ua.ContentFilterElement {
	el := &ua.ContentFilterElement{FilterOperator: op}
	for _, o := range operands {
		switch x := o.(type) {
		case *ua.SimpleAttributeOperand, *ua.ElementOperand, *ua.AttributeOperand:
			el.FilterOperands = append(el.FilterOperands, ua.NewExtensionObject(x))
		default:
			el.FilterOperands = append(el.FilterOperands, ua.NewExtensionObject(&ua.LiteralOperand{Value: ua.MustVariant(x)}))
		}
	}
	return el
}

func TestWhereClause(t *testing.T) {
	at := func(i uint32) *ua.ElementOperand { return &ua.ElementOperand{Index: i} }
	stringType := ua.NewNumericNodeID(0, 12)
	part := func(o *ua.SimpleAttributeOperand, indexRange string) *ua.SimpleAttributeOperand {
		return &ua.SimpleAttributeOperand{TypeDefinitionID: o.TypeDefinitionID, AttributeID: o.AttributeID, BrowsePath: o.BrowsePath, IndexRange: indexRange}
	}
	severity, message, none := field(0, "Severity"), field(0, "Message"), field(0, "Nothing")
	type where = []*ua.ContentFilterElement
	const (
		equals, isNull, greater, less = ua.FilterOperatorEquals, ua.FilterOperatorIsNull, ua.FilterOperatorGreaterThan, ua.FilterOperatorLessThan
		like, cast                    = ua.FilterOperatorLike, ua.FilterOperatorCast
		and, or, not, ofType          = ua.FilterOperatorAnd, ua.FilterOperatorOr, ua.FilterOperatorNot, ua.FilterOperatorOfType
	)
	for _, c := range []struct {
		name  string
		where where
		want  string // the messages that pass
	}{
		{"nothing", nil, "smoke flames rain"},
		{"type", where{clause(ofType, alarmKey.NodeID())}, "smoke flames"},
		{"subtype", where{clause(ofType, fireKey.NodeID())}, "flames"},
		{"every type", where{clause(ofType, baseEventType.NodeID())}, "smoke flames rain"},
		{"number", where{clause(equals, severity, int64(500))}, "flames"},
		{"text", where{clause(equals, message, "rain")}, "rain"},
		{"node", where{clause(equals, field(0, "EventType"), fireKey.NodeID())}, "flames"},
		{"greater", where{clause(greater, severity, uint16(100))}, "flames rain"},
		{"less", where{clause(less, severity, 100.5)}, "smoke"},
		{"at least", where{clause(ua.FilterOperatorGreaterThanOrEqual, severity, uint16(500))}, "flames rain"},
		{"at most", where{clause(ua.FilterOperatorLessThanOrEqual, severity, uint16(500))}, "smoke flames"},
		{"between", where{clause(ua.FilterOperatorBetween, severity, uint16(100), uint16(500))}, "smoke flames"},
		{"in", where{clause(ua.FilterOperatorInList, message, "rain", "smoke")}, "smoke rain"},
		{"not", where{clause(not, at(1)), clause(equals, message, "rain")}, "smoke flames"},
		{"and", where{clause(and, at(1), at(2)), clause(greater, severity, uint16(100)), clause(ofType, alarmKey.NodeID())}, "flames"},
		{"or", where{clause(or, at(1), at(2)), clause(equals, message, "rain"), clause(equals, message, "smoke")}, "smoke rain"},
		{"null", where{clause(isNull, none)}, "smoke flames rain"},
		{"not null", where{clause(isNull, severity)}, ""},
		{"null is neither equal", where{clause(equals, none, int64(1))}, ""},
		{"nor unequal", where{clause(not, at(1)), clause(equals, none, int64(1))}, ""},
		{"null or true", where{clause(or, at(1), at(2)), clause(equals, none, int64(1)), clause(equals, message, "rain")}, "rain"},
		{"null and false", where{clause(not, at(1)), clause(and, at(2), at(3)), clause(equals, none, int64(1)), clause(equals, message, "rain")}, "smoke flames"},
		{"what can't be compared", where{clause(equals, message, int64(1))}, ""},
		{"is not equal", where{clause(not, at(1)), clause(equals, message, int64(1))}, "smoke flames rain"},
		{"number in a text", where{clause(equals, severity, "500")}, "flames"},
		{"node in a text", where{clause(equals, field(0, "EventType"), fireKey.NodeID().String())}, "flames"},
		{"like", where{clause(like, message, "%m%")}, "smoke flames"},
		{"like by a field", where{clause(like, message, message)}, "smoke flames rain"},
		{"like a number", where{clause(like, severity, "%")}, ""},
		{"like null", where{clause(like, none, "%")}, ""},
		{"like a number that is cast", where{clause(like, at(1), "_00"), clause(cast, severity, stringType)}, "smoke flames"},
		{"a cast that fails", where{clause(isNull, at(1)), clause(cast, message, ua.NewNumericNodeID(0, 8))}, "smoke flames rain"},
		{"a cast into no type", where{clause(isNull, at(1)), clause(cast, severity, objectsKey.NodeID())}, "smoke flames rain"},
		{"a cast into an abstract type", where{clause(isNull, at(1)), clause(cast, severity, ua.NewNumericNodeID(0, 26))}, "smoke flames rain"},
		{"a cast by a field", where{clause(isNull, at(1)), clause(cast, severity, field(0, "EventType"))}, "smoke flames rain"},
		{"a cast of null", where{clause(isNull, at(1)), clause(cast, none, stringType)}, "smoke flames rain"},
		{"a bit", where{clause(equals, at(1), uint16(4)), clause(ua.FilterOperatorBitwiseAnd, severity, byte(4))}, "smoke flames"},
		{"bits", where{clause(equals, at(1), uint16(1001)), clause(ua.FilterOperatorBitwiseOr, severity, byte(1))}, "rain"},
		{"bits of a text", where{clause(isNull, at(1)), clause(ua.FilterOperatorBitwiseOr, message, byte(1))}, "smoke flames rain"},
		{"a text that is true", where{clause(and, "true", at(1)), clause(equals, message, "rain")}, "rain"},
		{"a number that is not", where{clause(or, int64(1), at(1)), clause(equals, message, "rain")}, "rain"},
		{"part of a text", where{clause(equals, part(message, "1:2"), "ai")}, ""},
		{"part of a name", where{clause(equals, part(field(0, "SourceName"), "1:2"), "em")}, "smoke flames rain"},
		{"part that is not there", where{clause(isNull, part(field(0, "SourceName"), "99"))}, "smoke flames rain"},
		{"a list of one", where{clause(equals, severity, []uint16{500})}, "flames"},
		{"a list of two", where{clause(equals, severity, []uint16{500, 500})}, ""},
		{"time", where{clause(less, field(0, "Time"), time.Now().AddDate(100, 0, 0))}, "smoke flames rain"},
	} {
		t.Run(c.name, func(t *testing.T) {
			inBubble(t, Limits{}, func(t *testing.T, r *rig) {
				sub := r.subscribe().SubscriptionID
				if res := r.events(sub, 10, c.where); res.StatusCode != ua.StatusOK {
					t.Fatalf("%+v", res)
				}
				r.emit(alarmKey, 100, "smoke")
				r.emit(fireKey, 500, "flames")
				r.emit(baseEventType, 1000, "rain")
				r.publish()
				if got := strings.Join(messages(t, r.after(105 * time.Millisecond)[0].resp), " "); got != c.want {
					t.Fatalf("%q, want %q", got, c.want)
				}
			})
		})
	}
}

// TestSharedElementsAreEvaluatedOnce gives a clause that doubles with each element: 2^80 steps if they were not.
func TestSharedElementsAreEvaluatedOnce(t *testing.T) {
	inBubble(t, Limits{MaxWhereOperands: 300}, func(t *testing.T, r *rig) {
		var where []*ua.ContentFilterElement
		for i := range uint32(80) {
			next := &ua.ElementOperand{Index: i + 1}
			where = append(where, clause(ua.FilterOperatorAnd, next, next))
		}
		where = append(where, clause(ua.FilterOperatorEquals, field(0, "Message"), "smoke"))
		sub := r.subscribe().SubscriptionID
		if res := r.events(sub, 10, where); res.StatusCode != ua.StatusOK {
			t.Fatalf("%+v", res)
		}
		r.emit(alarmKey, 1, "smoke")
		r.publish()
		if got := messages(t, r.after(105 * time.Millisecond)[0].resp); len(got) != 1 {
			t.Fatalf("%v", got)
		}
	})
}
