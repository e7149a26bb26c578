package space

import (
	"time"

	"github.com/gopcua/opcua/ua"
)

// Read reads an attribute into dst, with the status codes of Part 4 §5.10.2. dst is overwritten as a whole, its
// EncodingMask set; what it points to may be shared, and must not be modified. The timestamps are those asked for: a
// value's own source timestamp, and its own server timestamp or ctx.Now. An enc with an empty name asks for no
// particular encoding.
func (s *Space) Read(ctx ReadContext, dst *ua.DataValue, k Key, attr ua.AttributeID, indexRange string, enc *ua.QualifiedName, ts ua.TimestampsToReturn) {
	*dst = ua.DataValue{}
	dst.Status = s.read(ctx, dst, k, attr, indexRange, enc)
	if isBad(dst.Status) {
		dst.Value = nil // A bad status has no value (Part 4 §7.11).
	}
	stamp(dst, ctx.Now, ts)
	dst.UpdateMask()
}

func (s *Space) read(ctx ReadContext, dst *ua.DataValue, k Key, attr ua.AttributeID, indexRange string, enc *ua.QualifiedName) ua.StatusCode {
	n, ok := s.Node(k)
	if !ok {
		return ua.StatusBadNodeIDUnknown
	}
	var status ua.StatusCode
	if attr == ua.AttributeIDValue {
		status = n.readValue(ctx, dst)
	} else {
		status = n.readAttribute(dst, attr)
	}
	if isBad(status) {
		return status
	}
	if enc != nil && enc.Name != "" {
		if st := s.checkEncoding(n, attr, enc, dst.Value); st != ua.StatusOK {
			return st
		}
	}
	if indexRange != "" {
		v, st := slice(dst.Value, indexRange)
		if st != ua.StatusOK {
			return st
		}
		dst.Value = v
	}
	return status
}

// readValue reads the Value attribute of a Variable or VariableType into dst.
func (n *Node) readValue(ctx ReadContext, dst *ua.DataValue) ua.StatusCode {
	switch n.Class {
	case ua.NodeClassVariable:
		if n.AccessLevel&AccessCurrentRead == 0 {
			return ua.StatusBadNotReadable
		}
	case ua.NodeClassVariableType:
		if n.Value == nil {
			return ua.StatusBadAttributeIDInvalid
		}
	default:
		return ua.StatusBadAttributeIDInvalid
	}
	if n.Value != nil {
		if v := n.Value(ctx); v != nil {
			*dst = *v
		}
	}
	if dst.Value == nil {
		dst.Value = nullVariant
	}
	return dst.Status
}

// nullVariant is the value of a variable that has none; on the wire it is one byte, and means more than an absent
// value.
var nullVariant = &ua.Variant{}

func (n *Node) readAttribute(dst *ua.DataValue, attr ua.AttributeID) ua.StatusCode {
	v, status := n.attribute(attr)
	if status != ua.StatusOK {
		return status
	}
	va, err := ua.NewVariant(v)
	if err != nil {
		return ua.StatusBadInternalError
	}
	dst.Value = va
	return ua.StatusOK
}

// checkEncoding says whether the value can be given in the data encoding that was asked for: structures can, in the
// binary one (Part 4 §5.10.2.4).
func (s *Space) checkEncoding(n *Node, attr ua.AttributeID, enc *ua.QualifiedName, v *ua.Variant) ua.StatusCode {
	if attr != ua.AttributeIDValue {
		return ua.StatusBadDataEncodingInvalid
	}
	if v.Type() != ua.TypeIDExtensionObject && !s.IsSubtype(n.DataType, structureType) {
		return ua.StatusBadDataEncodingInvalid
	}
	if enc.NamespaceIndex != 0 {
		return ua.StatusBadDataEncodingInvalid
	}
	switch enc.Name {
	case "Default Binary":
		return ua.StatusOK
	case "Default XML", "Default JSON":
		return ua.StatusBadDataEncodingUnsupported
	}
	return ua.StatusBadDataEncodingInvalid
}

// stamp leaves the timestamps that were asked for (Part 4 §7.40). Only values have a source timestamp, and the value
// functions of other attributes do not exist, so nothing has to be removed there.
func stamp(dst *ua.DataValue, now time.Time, ts ua.TimestampsToReturn) {
	switch ts {
	case ua.TimestampsToReturnSource, ua.TimestampsToReturnNeither:
		dst.ServerTimestamp, dst.ServerPicoseconds = time.Time{}, 0
	case ua.TimestampsToReturnServer, ua.TimestampsToReturnBoth:
		if dst.ServerTimestamp.IsZero() {
			dst.ServerTimestamp = now
		}
	default:
		*dst = ua.DataValue{Status: ua.StatusBadTimestampsToReturnInvalid}
		return
	}
	if ts == ua.TimestampsToReturnServer || ts == ua.TimestampsToReturnNeither {
		dst.SourceTimestamp, dst.SourcePicoseconds = time.Time{}, 0
	}
}

// isBad reports whether the severity of a status code is Bad (Part 4 §7.39: the two highest bits are 10).
func isBad(c ua.StatusCode) bool { return c>>30 >= 2 }
