package wire

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"reflect"
	"time"

	"github.com/gopcua/opcua/ua"
)

// Bit patterns that stand for "not a number" (Part 6 §5.2.2.3).
const (
	nan32 = 0xffc00000
	nan64 = 0xfff8000000000000
)

// errTooLong is what an array or string gets whose length does not fit in the
// 31 bits that it has on the wire.
var errTooLong = errors.New("wire: more than 2^31-1 bytes or elements")

func putLength(b []byte, n int) { binary.LittleEndian.PutUint32(b, uint32(n)) }

func appendU16(b []byte, v uint16) []byte { return binary.LittleEndian.AppendUint16(b, v) }
func appendU32(b []byte, v uint32) []byte { return binary.LittleEndian.AppendUint32(b, v) }
func appendU64(b []byte, v uint64) []byte { return binary.LittleEndian.AppendUint64(b, v) }

func appendBool(b []byte, v bool) []byte {
	if v {
		return append(b, 1)
	}
	return append(b, 0)
}

func appendF32(b []byte, v float32) []byte {
	if v != v {
		return appendU32(b, nan32)
	}
	return appendU32(b, math.Float32bits(v))
}

func appendF64(b []byte, v float64) []byte {
	if v != v {
		return appendU64(b, nan64)
	}
	return appendU64(b, math.Float64bits(v))
}

// appendString encodes the empty string as null, as ua does.
func appendString(b []byte, s string) []byte {
	if s == "" {
		return append(b, 0xff, 0xff, 0xff, 0xff)
	}
	return append(appendU32(b, uint32(len(s))), s...)
}

func appendByteString(b, s []byte) []byte {
	if s == nil {
		return append(b, 0xff, 0xff, 0xff, 0xff)
	}
	return append(appendU32(b, uint32(len(s))), s...)
}

// appendCount encodes the length of an array, -1 for nil.
func appendCount(b []byte, n int, isNil bool) ([]byte, error) {
	if n > math.MaxInt32 {
		return b, errTooLong
	}
	if isNil {
		return append(b, 0xff, 0xff, 0xff, 0xff), nil
	}
	return appendU32(b, uint32(n)), nil
}

func appendNodeID(b []byte, n *ua.NodeID) ([]byte, error) { return appendFlaggedNodeID(b, n, 0) }

func appendFlaggedNodeID(b []byte, n *ua.NodeID, flags byte) ([]byte, error) {
	if n == nil {
		return append(b, flags, 0), nil
	}
	switch typ := n.Type(); typ {
	case ua.NodeIDTypeTwoByte:
		return append(b, flags, byte(n.IntID())), nil
	case ua.NodeIDTypeFourByte:
		return appendU16(append(b, flags|byte(typ), byte(n.Namespace())), uint16(n.IntID())), nil
	case ua.NodeIDTypeNumeric:
		return appendU32(appendU16(append(b, flags|byte(typ)), n.Namespace()), n.IntID()), nil
	case ua.NodeIDTypeString:
		if s := n.StringID(); s != "" {
			return appendString(appendU16(append(b, flags|byte(typ)), n.Namespace()), s), nil
		}
	case ua.NodeIDTypeGUID:
		if n.StringID() == "" {
			return b, errors.New("wire: NodeId has no GUID")
		}
	}
	// What is left is rare, and can be got from ua in no other way.
	enc, err := n.Encode()
	if err != nil {
		return b, fmt.Errorf("wire: %w", err)
	}
	enc[0] = enc[0]&maskNodeIDType | flags
	return append(b, enc...), nil
}

func appendExpandedNodeID(b []byte, e *ua.ExpandedNodeID) ([]byte, error) {
	if e == nil || e.NodeID == nil {
		return append(b, 0, 0), nil
	}
	flags := byte(e.NodeID.EncodingMask()) & (flagNamespaceURI | flagServerIndex)
	if e.NamespaceURI != "" {
		flags |= flagNamespaceURI
	}
	if e.ServerIndex != 0 {
		flags |= flagServerIndex
	}
	b, err := appendFlaggedNodeID(b, e.NodeID, flags)
	if err != nil {
		return b, err
	}
	if flags&flagNamespaceURI != 0 {
		b = appendString(b, e.NamespaceURI)
	}
	if flags&flagServerIndex != 0 {
		b = appendU32(b, e.ServerIndex)
	}
	return b, nil
}

func appendQualifiedName(b []byte, q *ua.QualifiedName) []byte {
	if q == nil {
		return append(b, 0, 0, 0xff, 0xff, 0xff, 0xff)
	}
	return appendString(appendU16(b, q.NamespaceIndex), q.Name)
}

// appendLocalizedText encodes what is there, even if the mask does not say so.
func appendLocalizedText(b []byte, t *ua.LocalizedText) []byte {
	if t == nil {
		return append(b, 0)
	}
	mask := t.EncodingMask & (ua.LocalizedTextLocale | ua.LocalizedTextText)
	if t.Locale != "" {
		mask |= ua.LocalizedTextLocale
	}
	if t.Text != "" {
		mask |= ua.LocalizedTextText
	}
	b = append(b, mask)
	if mask&ua.LocalizedTextLocale != 0 {
		b = appendString(b, t.Locale)
	}
	if mask&ua.LocalizedTextText != 0 {
		b = appendString(b, t.Text)
	}
	return b
}

// appendGUID encodes nil as the null GUID.
func appendGUID(b []byte, g *ua.GUID) ([]byte, error) {
	if g == nil {
		return append(b, make([]byte, minGUID)...), nil
	}
	if len(g.Data4) != 8 {
		return b, fmt.Errorf("wire: Data4 of a GUID has %d bytes instead of 8", len(g.Data4))
	}
	b = appendU32(b, g.Data1)
	b = appendU16(appendU16(b, g.Data2), g.Data3)
	return append(b, g.Data4...), nil
}

// appendDataValue encodes the fields that the mask names, as ua does.
func appendDataValue(b []byte, v *ua.DataValue) ([]byte, error) {
	if v == nil {
		return append(b, 0), nil
	}
	b = append(b, v.EncodingMask)
	if v.Has(ua.DataValueValue) {
		var err error
		if b, err = appendVariant(b, v.Value); err != nil {
			return b, err
		}
	}
	if v.Has(ua.DataValueStatusCode) {
		b = appendU32(b, uint32(v.Status))
	}
	if v.Has(ua.DataValueSourceTimestamp) {
		b = appendTime(b, v.SourceTimestamp)
	}
	if v.Has(ua.DataValueSourcePicoseconds) {
		b = appendU16(b, v.SourcePicoseconds)
	}
	if v.Has(ua.DataValueServerTimestamp) {
		b = appendTime(b, v.ServerTimestamp)
	}
	if v.Has(ua.DataValueServerPicoseconds) {
		b = appendU16(b, v.ServerPicoseconds)
	}
	return b, nil
}

func appendDiagnosticInfo(b []byte, v *ua.DiagnosticInfo) []byte {
	if v == nil {
		return append(b, 0)
	}
	b = append(b, v.EncodingMask)
	if v.Has(ua.DiagnosticInfoSymbolicID) {
		b = appendU32(b, uint32(v.SymbolicID))
	}
	if v.Has(ua.DiagnosticInfoNamespaceURI) {
		b = appendU32(b, uint32(v.NamespaceURI))
	}
	if v.Has(ua.DiagnosticInfoLocale) {
		b = appendU32(b, uint32(v.Locale))
	}
	if v.Has(ua.DiagnosticInfoLocalizedText) {
		b = appendU32(b, uint32(v.LocalizedText))
	}
	if v.Has(ua.DiagnosticInfoAdditionalInfo) {
		b = appendString(b, v.AdditionalInfo)
	}
	if v.Has(ua.DiagnosticInfoInnerStatusCode) {
		b = appendU32(b, uint32(v.InnerStatusCode))
	}
	if v.Has(ua.DiagnosticInfoInnerDiagnosticInfo) {
		b = appendDiagnosticInfo(b, v.InnerDiagnosticInfo)
	}
	return b
}

func appendVariant(b []byte, v *ua.Variant) ([]byte, error) {
	if v == nil || v.Type() == ua.TypeIDNull {
		return append(b, 0), nil
	}
	b = append(b, v.EncodingMask())
	if !v.Has(ua.VariantArrayValues) {
		return appendScalar(b, v.Value())
	}
	b = appendU32(b, uint32(v.ArrayLength()))
	b, err := appendElements(b, v.Value())
	if err != nil {
		return b, err
	}
	if v.Has(ua.VariantArrayDimensions) {
		dims := v.ArrayDimensions()
		b = appendU32(b, uint32(len(dims)))
		for _, n := range dims {
			b = appendU32(b, uint32(n))
		}
	}
	return b, nil
}

// appendElements encodes the elements of an array without its length; those of
// a multi-dimensional one in row-major order.
func appendElements(b []byte, v any) ([]byte, error) {
	switch s := v.(type) {
	case ua.ByteArray:
		return append(b, s...), nil
	case []string:
		for _, x := range s {
			b = appendString(b, x)
		}
		return b, nil
	case []int32:
		for _, x := range s {
			b = appendU32(b, uint32(x))
		}
		return b, nil
	case []uint32:
		for _, x := range s {
			b = appendU32(b, x)
		}
		return b, nil
	case []float64:
		for _, x := range s {
			b = appendF64(b, x)
		}
		return b, nil
	}
	rv := reflect.ValueOf(v)
	if rv.Kind() != reflect.Slice {
		return b, fmt.Errorf("wire: Variant has %T for an array", v)
	}
	nested := rv.Type().Elem().Kind() == reflect.Slice && rv.Type().Elem() != typeByteString
	var err error
	for i := range rv.Len() {
		if nested {
			b, err = appendElements(b, rv.Index(i).Interface())
		} else {
			b, err = appendScalar(b, rv.Index(i).Interface())
		}
		if err != nil {
			return b, err
		}
	}
	return b, nil
}

func appendScalar(b []byte, v any) ([]byte, error) {
	switch x := v.(type) {
	case bool:
		return appendBool(b, x), nil
	case int8:
		return append(b, byte(x)), nil
	case byte:
		return append(b, x), nil
	case int16:
		return appendU16(b, uint16(x)), nil
	case uint16:
		return appendU16(b, x), nil
	case int32:
		return appendU32(b, uint32(x)), nil
	case uint32:
		return appendU32(b, x), nil
	case int64:
		return appendU64(b, uint64(x)), nil
	case uint64:
		return appendU64(b, x), nil
	case float32:
		return appendF32(b, x), nil
	case float64:
		return appendF64(b, x), nil
	case string:
		return appendString(b, x), nil
	case time.Time:
		return appendTime(b, x), nil
	case []byte:
		return appendByteString(b, x), nil
	case ua.XMLElement:
		return appendString(b, string(x)), nil
	case ua.StatusCode:
		return appendU32(b, uint32(x)), nil
	case *ua.QualifiedName:
		return appendQualifiedName(b, x), nil
	case *ua.LocalizedText:
		return appendLocalizedText(b, x), nil
	case *ua.DiagnosticInfo:
		return appendDiagnosticInfo(b, x), nil
	case *ua.GUID:
		return appendGUID(b, x)
	case *ua.NodeID:
		return appendNodeID(b, x)
	case *ua.ExpandedNodeID:
		return appendExpandedNodeID(b, x)
	case *ua.ExtensionObject:
		return appendExtensionObject(b, x)
	case *ua.DataValue:
		return appendDataValue(b, x)
	case *ua.Variant:
		return appendVariant(b, x)
	}
	return b, fmt.Errorf("wire: Variant has a %T", v)
}
