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
// called on the goroutine of the request, must be cheap, and calls Changed itself. One write is made at a time, since a part of an
// array is written as the whole of it; so it must not write by the space itself.
type WriteFunc func(ctx WriteContext, v *ua.Variant) ua.StatusCode

// statusBadIndexRangeDataMismatch says that what was written is not of the size of the index range (Part 4 §5.10.4.4). The ua
// package does not have it.
const statusBadIndexRangeDataMismatch ua.StatusCode = 0x80EA0000

// Write writes the value of a variable, or a part of it, with the status codes of Part 4 §5.10.4. No other attribute can be written,
// and neither can statuses and timestamps.
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
	var spans Range
	if indexRange != "" {
		if spans, ok = ParseRange(indexRange); !ok {
			return ua.StatusBadIndexRangeInvalid
		}
	}
	switch {
	case dv == nil || dv.Value == nil:
		return ua.StatusBadTypeMismatch
	case dv.Status != ua.StatusOK || !dv.SourceTimestamp.IsZero() || !dv.ServerTimestamp.IsZero():
		return ua.StatusBadWriteNotSupported
	}
	s.writing.Lock()
	defer s.writing.Unlock()
	value := dv.Value
	if spans != nil {
		var current ua.DataValue
		if status := n.readValue(ReadContext{Now: ctx.Now}, &current); isBad(status) {
			return ua.StatusBadIndexRangeNoData // There is nothing of which it could be a part.
		}
		var status ua.StatusCode
		if value, status = replace(current.Value, value, spans); status != ua.StatusOK {
			return status
		}
	}
	if !s.Fits(value, n.DataType, n.ValueRank) {
		return ua.StatusBadTypeMismatch
	}
	return n.Write(ctx, value)
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
