package space

import (
	"time"

	"github.com/gopcua/opcua/id"
	"github.com/gopcua/opcua/ua"
)

// WriteContext is what a write function may know of the write that calls it.
type WriteContext struct {
	// Now is the time of the request by the server's clock.
	Now time.Time
	// User is who writes, in the terms of whoever serves the space.
	User any
}

// WriteFunc sets the value of a variable. v fits the variable's DataType and ValueRank, and must not be modified. The status is
// what the Write service answers: BadUserAccessDenied if the user may not, BadOutOfRange if the value is not one. It is
// called on the goroutine of the request, without any lock held, must be cheap, and calls Changed itself.
type WriteFunc func(ctx WriteContext, v *ua.Variant) ua.StatusCode

// Write writes the whole value of a variable, with the status codes of Part 4 §5.10.4. No other attribute can be written, and neither
// can statuses, timestamps and parts of arrays.
func (s *Space) Write(ctx WriteContext, k Key, attr ua.AttributeID, indexRange string, dv *ua.DataValue) ua.StatusCode {
	n, ok := s.Node(k)
	if !ok {
		return ua.StatusBadNodeIDUnknown
	}
	if attr != ua.AttributeIDValue {
		if _, status := n.attribute(attr); status != ua.StatusOK {
			return status
		}
		return ua.StatusBadNotWritable
	}
	if n.Class != ua.NodeClassVariable {
		return ua.StatusBadAttributeIDInvalid
	}
	if n.AccessLevel&AccessCurrentWrite == 0 || n.Write == nil {
		return ua.StatusBadNotWritable
	}
	if indexRange != "" {
		if _, ok := parseRange(indexRange); !ok {
			return ua.StatusBadIndexRangeInvalid
		}
		return ua.StatusBadWriteNotSupported
	}
	switch {
	case dv == nil || dv.Value == nil || !s.Fits(dv.Value, n.DataType, n.ValueRank):
		return ua.StatusBadTypeMismatch
	case dv.Status != ua.StatusOK || !dv.SourceTimestamp.IsZero() || !dv.ServerTimestamp.IsZero():
		return ua.StatusBadWriteNotSupported
	}
	return n.Write(ctx, dv.Value)
}

// Fits reports whether a value is of a data type and a ValueRank. A null is a value of BaseDataType alone.
func (s *Space) Fits(v *ua.Variant, dataType Key, rank int32) bool {
	base := NumericKey(0, id.BaseDataType)
	if v == nil || v.Type() == ua.TypeIDNull || v.Type() == ua.TypeIDVariant {
		return dataType == base // What is in an array of Variants can be anything.
	}
	array := v.Has(ua.VariantArrayValues)
	dimensions := max(len(v.ArrayDimensions()), 1)
	switch {
	case rank == RankAny, rank == RankScalarOrOneDimension && (!array || dimensions == 1):
	case rank == RankScalar && !array:
	case rank == RankOneOrMoreDimensions && array:
	case rank > 0 && array && dimensions == int(rank):
	default:
		return false
	}
	builtIn := NumericKey(0, uint32(v.Type())) // The data types of the built-in types have their ids (Part 6 §5.1.2).
	switch {
	case dataType == base, s.IsSubtype(dataType, builtIn), s.IsSubtype(builtIn, dataType):
		return true
	case v.Type() == ua.TypeIDInt32:
		return s.IsSubtype(dataType, NumericKey(0, id.Enumeration))
	}
	return false
}
