package server

import (
	"math"

	"github.com/gopcua/opcua/id"
	"github.com/gopcua/opcua/ua"

	"quorate/opcua/space"
)

// dataFilter says which changes of a value count (Part 4 §7.22.2).
type dataFilter struct {
	trigger  change
	deadband float64 // a number has to differ by more than this from the one that was queued last; negative: any difference counts
}

// passes reports whether a sample counts. c is how it differs from the sample before; reference is the one that was queued last.
func (f *dataFilter) passes(c change, reference, dv *ua.DataValue) bool {
	if c &= f.trigger; c&^changeValue != 0 || f.deadband < 0 || reference == nil {
		return c != 0
	}
	return c != 0 && exceeds(reference.Value, dv.Value, f.deadband)
}

// exceeds reports whether two values differ by more than a dead-band, or in something that it says nothing of. Arrays do if one
// of their elements does.
func exceeds(a, b *ua.Variant, deadband float64) bool {
	x, xOK := numbers(a)
	y, yOK := numbers(b)
	if !xOK || !yOK || len(x) != len(y) {
		return !sameVariant(a, b)
	}
	for i := range x {
		// Negated, so that what is no number differs from every number; and equals itself.
		if !(math.Abs(x[i]-y[i]) <= deadband) && math.Float64bits(x[i]) != math.Float64bits(y[i]) {
			return true
		}
	}
	return false
}

// numbers returns the numbers of a scalar or of an array of one dimension.
func numbers(v *ua.Variant) ([]float64, bool) {
	if v == nil {
		return nil, false
	}
	switch x := v.Value().(type) {
	case int8:
		return []float64{float64(x)}, true
	case uint8:
		return []float64{float64(x)}, true
	case int16:
		return []float64{float64(x)}, true
	case uint16:
		return []float64{float64(x)}, true
	case int32:
		return []float64{float64(x)}, true
	case uint32:
		return []float64{float64(x)}, true
	case int64:
		return []float64{float64(x)}, true
	case uint64:
		return []float64{float64(x)}, true
	case float32:
		return []float64{float64(x)}, true
	case float64:
		return []float64{x}, true
	case []byte:
		return widen(x), v.Type() == ua.TypeIDByte
	case []int8:
		return widen(x), true
	case []int16:
		return widen(x), true
	case []uint16:
		return widen(x), true
	case []int32:
		return widen(x), true
	case []uint32:
		return widen(x), true
	case []int64:
		return widen(x), true
	case []uint64:
		return widen(x), true
	case []float32:
		return widen(x), true
	case []float64:
		return x, true
	}
	return nil, false
}

func widen[T int8 | uint8 | int16 | uint16 | int32 | uint32 | int64 | uint64 | float32](list []T) []float64 {
	wide := make([]float64, len(list))
	for i, n := range list {
		wide[i] = float64(n)
	}
	return wide
}

// parseFilter returns what a data change filter asks for. Without one, changes of status and value count.
func (e *engine) parseFilter(x *ua.ExtensionObject, key watchKey) (dataFilter, ua.StatusCode) {
	filter := dataFilter{trigger: changeStatus | changeValue, deadband: -1}
	if isNoFilter(x) {
		return filter, ua.StatusOK
	}
	f, ok := x.Value.(*ua.DataChangeFilter)
	_, ofEvents := x.Value.(*ua.EventFilter)
	switch {
	case ofEvents: // A filter that there is, for another attribute.
		return filter, ua.StatusBadFilterNotAllowed
	case !ok:
		return filter, ua.StatusBadMonitoredItemFilterUnsupported
	case key.attribute != ua.AttributeIDValue:
		return filter, ua.StatusBadFilterNotAllowed
	}
	switch f.Trigger {
	case ua.DataChangeTriggerStatus:
		filter.trigger = changeStatus
	case ua.DataChangeTriggerStatusValue:
	case ua.DataChangeTriggerStatusValueTimestamp:
		if f.DeadbandType == uint32(ua.DeadbandTypeNone) { // With a dead-band the timestamp does not count (Part 4 §7.22.2).
			filter.trigger |= changeTimestamp
		}
	default:
		return filter, ua.StatusBadMonitoredItemFilterInvalid
	}
	var status ua.StatusCode
	filter.deadband, status = e.deadband(f, key.node)
	return filter, status
}

// deadband returns the width of a filter's dead-band in units of the value; negative is none.
func (e *engine) deadband(f *ua.DataChangeFilter, node space.Key) (float64, ua.StatusCode) {
	if f.DeadbandType == uint32(ua.DeadbandTypeNone) {
		return -1, ua.StatusOK
	}
	n, ok := e.space.Node(node)
	switch {
	case !ok || !e.space.IsSubtype(n.DataType, space.NumericKey(0, id.Number)):
		return -1, ua.StatusBadFilterNotAllowed // Only numbers have a distance.
	case !(f.DeadbandValue >= 0) || math.IsInf(f.DeadbandValue, 0):
		return -1, ua.StatusBadDeadbandFilterInvalid
	case f.DeadbandType == uint32(ua.DeadbandTypeAbsolute):
		return f.DeadbandValue, ua.StatusOK
	case f.DeadbandType != uint32(ua.DeadbandTypePercent) || f.DeadbandValue > 100:
		return -1, ua.StatusBadDeadbandFilterInvalid
	}
	span, status := e.euRange(node)
	return span * f.DeadbandValue / 100, status
}

// euRange returns the width of the range of values that a variable has by its property EURange (Part 8 §5.3.2).
func (e *engine) euRange(node space.Key) (float64, ua.StatusCode) {
	targets, status := e.space.Translate(node, &ua.RelativePath{Elements: []*ua.RelativePathElement{{
		ReferenceTypeID: space.HasProperty.NodeID(), IncludeSubtypes: true, TargetName: &ua.QualifiedName{Name: "EURange"},
	}}})
	if status != ua.StatusOK || len(targets) == 0 {
		return -1, ua.StatusBadMonitoredItemFilterUnsupported
	}
	var dv ua.DataValue
	e.space.Read(space.ReadContext{Now: e.wall()}, &dv, space.KeyOf(targets[0].TargetID.NodeID), ua.AttributeIDValue, "", nil, ua.TimestampsToReturnNeither)
	var r *ua.Range
	if dv.Value != nil {
		if x, ok := dv.Value.Value().(*ua.ExtensionObject); ok && x != nil {
			r, _ = x.Value.(*ua.Range)
		}
	}
	if r == nil || !(r.High-r.Low >= 0) || math.IsInf(r.High-r.Low, 0) {
		return -1, ua.StatusBadMonitoredItemFilterUnsupported
	}
	return r.High - r.Low, ua.StatusOK
}
