package server

import (
	"reflect"
	"time"

	"github.com/gopcua/opcua/id"
	"github.com/gopcua/opcua/ua"

	"quorate/opcua/space"
)

// The values of where clauses are those of ua.Variant, without the Variant: nil is null. An array of one element is that element
// (Part 4 §7.7.3); other arrays stay Variants, which convert to nothing.

// typeSet is a set of built-in types.
type typeSet uint32

func typesOf(list ...ua.TypeID) (set typeSet) {
	for _, t := range list {
		set |= 1 << t
	}
	return set
}

func (s typeSet) has(t ua.TypeID) bool { return s&(1<<t) != 0 }

// conversion says into which types values of one type are converted without being asked, and into which only by Cast.
type conversion struct{ implicit, explicit typeSet }

const (
	boolT, sbyteT, byteT     = ua.TypeIDBoolean, ua.TypeIDSByte, ua.TypeIDByte
	int16T, uint16T, int32T  = ua.TypeIDInt16, ua.TypeIDUint16, ua.TypeIDInt32
	uint32T, int64T          = ua.TypeIDUint32, ua.TypeIDInt64
	uint64T, floatT, doubleT = ua.TypeIDUint64, ua.TypeIDFloat, ua.TypeIDDouble
	stringT, dateT, guidT    = ua.TypeIDString, ua.TypeIDDateTime, ua.TypeIDGUID
	bytesT, nodeT, farNodeT  = ua.TypeIDByteString, ua.TypeIDNodeID, ua.TypeIDExpandedNodeID
	statusT, nameT, localT   = ua.TypeIDStatusCode, ua.TypeIDQualifiedName, ua.TypeIDLocalizedText
)

// conversions is the table of conversion rules of Part 4 §7.7.3.
var conversions = map[ua.TypeID]conversion{
	boolT:    {typesOf(sbyteT, byteT, int16T, uint16T, int32T, uint32T, int64T, uint64T, floatT, doubleT), typesOf(stringT)},
	sbyteT:   {typesOf(int16T, uint16T, int32T, uint32T, int64T, uint64T, floatT, doubleT), typesOf(boolT, byteT, stringT)},
	byteT:    {typesOf(sbyteT, int16T, uint16T, int32T, uint32T, int64T, uint64T, floatT, doubleT), typesOf(boolT, stringT)},
	int16T:   {typesOf(int32T, uint32T, int64T, uint64T, floatT, doubleT), typesOf(boolT, sbyteT, byteT, uint16T, stringT)},
	uint16T:  {typesOf(int16T, int32T, uint32T, int64T, uint64T, floatT, doubleT, statusT), typesOf(boolT, sbyteT, byteT, stringT)},
	int32T:   {typesOf(int64T, uint64T, floatT, doubleT), typesOf(boolT, sbyteT, byteT, int16T, uint16T, uint32T, statusT, stringT)},
	uint32T:  {typesOf(int32T, int64T, uint64T, floatT, doubleT), typesOf(boolT, sbyteT, byteT, int16T, uint16T, statusT, stringT)},
	int64T:   {typesOf(floatT, doubleT), typesOf(boolT, sbyteT, byteT, int16T, uint16T, int32T, uint32T, uint64T, statusT, stringT)},
	uint64T:  {typesOf(int64T, floatT, doubleT), typesOf(boolT, sbyteT, byteT, int16T, uint16T, int32T, uint32T, statusT, stringT)},
	floatT:   {typesOf(doubleT), typesOf(boolT, sbyteT, byteT, int16T, uint16T, int32T, uint32T, int64T, uint64T, stringT)},
	doubleT:  {0, typesOf(boolT, sbyteT, byteT, int16T, uint16T, int32T, uint32T, int64T, uint64T, floatT, stringT)},
	statusT:  {typesOf(int32T, uint32T, int64T, uint64T), typesOf(uint16T)},
	stringT:  {typesOf(boolT, sbyteT, byteT, int16T, uint16T, int32T, uint32T, int64T, uint64T, floatT, doubleT, guidT), typesOf(dateT, nodeT, farNodeT, localT, nameT)},
	dateT:    {0, typesOf(stringT)},
	guidT:    {0, typesOf(stringT, bytesT)},
	bytesT:   {0, typesOf(guidT, stringT)},
	nodeT:    {typesOf(farNodeT, stringT), 0},
	farNodeT: {typesOf(stringT), typesOf(nodeT)},
	localT:   {typesOf(stringT), 0},
	nameT:    {typesOf(stringT, localT), 0},
}

// precedence is that of the types, the highest first (Part 4 §7.7.3): of two values, the one whose type comes later is converted.
var precedence = [...]ua.TypeID{
	doubleT, floatT, int64T, uint64T, int32T, uint32T, statusT, int16T, uint16T, sbyteT, byteT, boolT, guidT, stringT, farNodeT, nodeT, localT, nameT,
}

// scalar is the value of a Variant as where clauses use it.
func scalar(v *ua.Variant) any {
	if v == nil || v.Type() == ua.TypeIDNull || v.Value() == nil {
		return nil
	}
	if !v.Has(ua.VariantArrayValues) {
		return v.Value()
	}
	list := reflect.ValueOf(v.Value())
	if v.Type() == ua.TypeIDVariant || len(v.ArrayDimensions()) > 1 || list.Kind() != reflect.Slice || list.Len() != 1 {
		return v
	}
	return list.Index(0).Interface()
}

// typeOf is the built-in type of a value; 0 is one that converts to nothing.
func typeOf(v any) ua.TypeID {
	switch x := v.(type) {
	case bool:
		return boolT
	case int8:
		return sbyteT
	case uint8:
		return byteT
	case int16:
		return int16T
	case uint16:
		return uint16T
	case int32:
		return int32T
	case uint32:
		return uint32T
	case int64:
		return int64T
	case uint64:
		return uint64T
	case float32:
		return floatT
	case float64:
		return doubleT
	case string:
		return stringT
	case time.Time:
		return dateT
	case []byte:
		return bytesT
	case ua.StatusCode:
		return statusT
	case *ua.GUID:
		return present(x, guidT)
	case *ua.NodeID:
		return present(x, nodeT)
	case *ua.ExpandedNodeID:
		return present(x, farNodeT)
	case *ua.QualifiedName:
		return present(x, nameT)
	case *ua.LocalizedText:
		return present(x, localT)
	}
	return 0
}

func present[T any](v *T, t ua.TypeID) ua.TypeID {
	if v == nil {
		return 0
	}
	return t
}

// common brings two values to one type: that of them which has precedence.
func common(a, b any) (x, y any, ok bool) {
	s, t := typeOf(a), typeOf(b)
	if s == t {
		return a, b, s != 0
	}
	for _, p := range precedence {
		switch p {
		case s:
			y, ok = convert(b, s, false)
			return a, y, ok
		case t:
			x, ok = convert(a, t, false)
			return x, b, ok
		}
	}
	return nil, nil, false
}

// convert converts a value, by Cast or without being asked. It reports false if there is no such conversion, or this value has none.
func convert(v any, to ua.TypeID, cast bool) (any, bool) {
	from := typeOf(v)
	if from == to {
		return v, from != 0
	}
	c := conversions[from]
	if !c.implicit.has(to) && !(cast && c.explicit.has(to)) {
		return nil, false
	}
	switch to {
	case boolT:
		return toBoolean(v)
	case floatT, doubleT:
		return toFloat(v, to)
	case stringT:
		return toText(v)
	case dateT:
		t, err := time.Parse(time.RFC3339Nano, bounded(v.(string)))
		return t, err == nil
	case guidT:
		return toGUID(v)
	case bytesT:
		b, err := v.(*ua.GUID).Encode()
		return b, err == nil
	case nodeT, farNodeT:
		return toNode(v, to)
	case localT:
		if q, ok := v.(*ua.QualifiedName); ok {
			return ua.NewLocalizedText(q.Name), true
		}
		return ua.NewLocalizedText(v.(string)), true
	case nameT:
		return &ua.QualifiedName{Name: v.(string)}, true
	}
	return toInteger(v, to)
}

// builtIn returns the built-in type by which values of a data type are encoded (Part 3 §8), and how many types were looked up. 0 is
// none: the data type is abstract, or there is none.
func builtIn(sp *space.Space, dataType space.Key) (t ua.TypeID, lookups int) {
	for ; lookups < space.MaxTypeDepth; lookups++ {
		if n, ok := dataType.Numeric(); ok && dataType.Namespace() == 0 {
			switch {
			case n == id.Enumeration:
				return int32T, lookups
			case n >= uint32(boolT) && n <= uint32(localT):
				return ua.TypeID(n), lookups
			}
		}
		var ok bool
		if dataType, ok = sp.Supertype(dataType); !ok {
			break
		}
	}
	return 0, lookups
}
