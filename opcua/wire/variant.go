package wire

import (
	"reflect"
	"time"

	"github.com/gopcua/opcua/ua"
)

// maxDimensions bounds the dimensions of an array. Each number of them is a Go
// type of its own, and the runtime never forgets a type.
const maxDimensions = 8

// maskVariantType are the bits of a Variant's first byte that hold its type.
const maskVariantType = 0x3f

func (d *decoder) newVariant() *ua.Variant {
	if !d.charge(sizeVariant) {
		return nil
	}
	v := new(ua.Variant)
	d.variant(v)
	return v
}

// variant decodes a Variant (Part 6 §5.2.2.16).
func (d *decoder) variant(v *ua.Variant) {
	if !d.enter() {
		return
	}
	defer d.leave()
	start := d.off
	mask := d.u8()
	typ := ua.TypeID(mask & maskVariantType)
	isArray, isMatrix := mask&ua.VariantArrayValues != 0, mask&ua.VariantArrayDimensions != 0
	var value any
	switch {
	case mask == byte(ua.TypeIDNull):
		return
	case typ == ua.TypeIDNull || typ > ua.TypeIDDiagnosticInfo || isMatrix && !isArray:
		d.fail(ua.StatusBadDecodingError, "Variant has an unknown type")
	case isArray:
		value = d.array(typ)
		if isMatrix {
			value = d.matrix(value)
		}
	default:
		value = d.scalar(typ)
	}
	if d.failed {
		return
	}
	if isArray && typ == ua.TypeIDByteString && reflect.ValueOf(value).Len() > 0 {
		d.byteStrings(v, start)
		return
	}
	made, err := ua.NewVariant(value)
	if err != nil {
		d.fail(ua.StatusBadDecodingError, "Variant is malformed")
		return
	}
	*v = *made
}

// byteStrings lets ua decode the array of ByteStrings between start and here,
// which has been found well-formed: ua takes such an array for a matrix of bytes
// when it is asked to make a Variant of it. The copy is because ua keeps
// references to its input.
func (d *decoder) byteStrings(v *ua.Variant, start int) {
	if !d.charge(d.off - start) {
		return
	}
	if _, err := v.Decode(append(make([]byte, 0, d.off-start), d.b[start:d.off]...)); err != nil {
		d.fail(ua.StatusBadDecodingError, "array of ByteStrings is malformed")
	}
}

func (d *decoder) scalar(typ ua.TypeID) any {
	switch typ {
	case ua.TypeIDBoolean:
		return d.boolean()
	case ua.TypeIDSByte:
		return int8(d.u8())
	case ua.TypeIDByte:
		return d.u8()
	case ua.TypeIDInt16:
		return int16(d.u16())
	case ua.TypeIDUint16:
		return d.u16()
	case ua.TypeIDInt32:
		return int32(d.u32())
	case ua.TypeIDUint32:
		return d.u32()
	case ua.TypeIDInt64:
		return int64(d.u64())
	case ua.TypeIDUint64:
		return d.u64()
	case ua.TypeIDFloat:
		return d.f32()
	case ua.TypeIDDouble:
		return d.f64()
	case ua.TypeIDString:
		return d.str()
	case ua.TypeIDDateTime:
		return d.time()
	case ua.TypeIDGUID:
		return d.newGUID()
	case ua.TypeIDByteString:
		return d.byteString()
	case ua.TypeIDXMLElement:
		return ua.XMLElement(d.str())
	case ua.TypeIDNodeID:
		return d.newNodeID()
	case ua.TypeIDExpandedNodeID:
		return d.newExpandedNodeID()
	case ua.TypeIDStatusCode:
		return ua.StatusCode(d.u32())
	case ua.TypeIDQualifiedName:
		return d.newQualifiedName()
	case ua.TypeIDLocalizedText:
		return d.newLocalizedText()
	case ua.TypeIDExtensionObject:
		return d.newExtensionObject()
	case ua.TypeIDDataValue:
		return d.newDataValue()
	case ua.TypeIDVariant:
		return d.newVariant()
	case ua.TypeIDDiagnosticInfo:
		return d.newDiagnosticInfo()
	}
	d.fail(ua.StatusBadDecodingError, "Variant has an unknown type")
	return nil
}

// elements decodes an array of which every element takes at least minSize bytes
// on the wire. A null array becomes a nil slice.
func elements[S ~[]E, E any](d *decoder, minSize int, next func() E) S {
	var zero E
	n := d.count(minSize, int(reflect.TypeOf(&zero).Elem().Size()))
	if n < 0 {
		return nil
	}
	s := make(S, n)
	for i := range s {
		s[i] = next()
		if d.failed {
			return nil
		}
	}
	return s
}

func (d *decoder) array(typ ua.TypeID) any {
	switch typ {
	case ua.TypeIDBoolean:
		return elements[[]bool](d, 1, d.boolean)
	case ua.TypeIDSByte:
		return elements[[]int8](d, 1, func() int8 { return int8(d.u8()) })
	case ua.TypeIDByte:
		return elements[ua.ByteArray](d, 1, d.u8)
	case ua.TypeIDInt16:
		return elements[[]int16](d, 2, func() int16 { return int16(d.u16()) })
	case ua.TypeIDUint16:
		return elements[[]uint16](d, 2, d.u16)
	case ua.TypeIDInt32:
		return elements[[]int32](d, 4, func() int32 { return int32(d.u32()) })
	case ua.TypeIDUint32:
		return elements[[]uint32](d, 4, d.u32)
	case ua.TypeIDInt64:
		return elements[[]int64](d, 8, func() int64 { return int64(d.u64()) })
	case ua.TypeIDUint64:
		return elements[[]uint64](d, 8, d.u64)
	case ua.TypeIDFloat:
		return elements[[]float32](d, 4, d.f32)
	case ua.TypeIDDouble:
		return elements[[]float64](d, 8, d.f64)
	case ua.TypeIDString:
		return elements[[]string](d, minString, d.str)
	case ua.TypeIDByteString:
		return elements[[][]byte](d, minString, d.byteString)
	case ua.TypeIDXMLElement:
		return elements[[]ua.XMLElement](d, minString, func() ua.XMLElement { return ua.XMLElement(d.str()) })
	case ua.TypeIDStatusCode:
		return elements[[]ua.StatusCode](d, 4, func() ua.StatusCode { return ua.StatusCode(d.u32()) })
	}
	return d.arrayOfPointers(typ)
}

func (d *decoder) arrayOfPointers(typ ua.TypeID) any {
	switch typ {
	case ua.TypeIDDateTime:
		return elements[[]time.Time](d, 8, d.time)
	case ua.TypeIDGUID:
		return elements[[]*ua.GUID](d, minGUID, d.newGUID)
	case ua.TypeIDNodeID:
		return elements[[]*ua.NodeID](d, minNodeID, d.newNodeID)
	case ua.TypeIDExpandedNodeID:
		return elements[[]*ua.ExpandedNodeID](d, minNodeID, d.newExpandedNodeID)
	case ua.TypeIDQualifiedName:
		return elements[[]*ua.QualifiedName](d, minQualifiedName, d.newQualifiedName)
	case ua.TypeIDLocalizedText:
		return elements[[]*ua.LocalizedText](d, 1, d.newLocalizedText)
	case ua.TypeIDExtensionObject:
		return elements[[]*ua.ExtensionObject](d, minExtension, d.newExtensionObject)
	case ua.TypeIDDataValue:
		return elements[[]*ua.DataValue](d, 1, d.newDataValue)
	case ua.TypeIDVariant:
		return elements[[]*ua.Variant](d, 1, d.newVariant)
	case ua.TypeIDDiagnosticInfo:
		return elements[[]*ua.DiagnosticInfo](d, 1, d.newDiagnosticInfo)
	}
	d.fail(ua.StatusBadDecodingError, "Variant has an unknown type")
	return nil
}

// matrix reads the dimensions of an array and turns it into nested slices, as
// ua has multi-dimensional arrays. Arrays of one dimension, and empty ones,
// stay as they are, as ua cannot hold the dimensions of an empty array.
func (d *decoder) matrix(flat any) any {
	dims := elements[[]int32](d, 4, func() int32 { return int32(d.u32()) })
	if d.failed {
		return nil
	}
	if len(dims) > maxDimensions {
		d.fail(ua.StatusBadEncodingLimitsExceeded, "array has too many dimensions")
		return nil
	}
	vals := reflect.ValueOf(flat)
	product := int64(1)
	for _, n := range dims {
		// No product can overflow: each factor has 31 bits, and the product so
		// far is no larger than the array.
		if product *= int64(n); n < 0 || product > int64(vals.Len()) {
			d.fail(ua.StatusBadDecodingError, "array dimensions do not match its length")
			return nil
		}
	}
	if len(dims) > 0 && product != int64(vals.Len()) {
		d.fail(ua.StatusBadDecodingError, "array dimensions do not match its length")
		return nil
	}
	if len(dims) < 2 || vals.Len() == 0 {
		return flat
	}
	for i := len(dims) - 1; i > 0; i-- {
		size := int(dims[i])
		rows := vals.Len() / size
		if !d.charge(rows * int(vals.Type().Size())) {
			return nil
		}
		out := reflect.MakeSlice(reflect.SliceOf(vals.Type()), rows, rows)
		for k := range rows {
			out.Index(k).Set(vals.Slice3(k*size, (k+1)*size, (k+1)*size))
		}
		vals = out
	}
	return vals.Interface()
}
