package wire

import (
	"unsafe"

	"github.com/gopcua/opcua/ua"
)

// Flags that an ExpandedNodeId carries in the first byte of its NodeId
// (Part 6 §5.2.2.10).
const (
	flagServerIndex  = 0x40
	flagNamespaceURI = 0x80
	maskNodeIDType   = 0x0f
)

// Sizes in memory of what is decoded, for the memory budget.
const (
	sizeNodeID         = int(unsafe.Sizeof(ua.NodeID{}))
	sizeExpandedNodeID = int(unsafe.Sizeof(expandedBlock{}))
	sizeVariant        = int(unsafe.Sizeof(ua.Variant{})) + sizeBoxed
	sizeDataValue      = int(unsafe.Sizeof(dataValueBlock{})) + sizeBoxed
	sizeDiagnosticInfo = int(unsafe.Sizeof(ua.DiagnosticInfo{}))
	sizeExtension      = int(unsafe.Sizeof(extensionBlock{}))
	sizeLocalizedText  = int(unsafe.Sizeof(ua.LocalizedText{}))
	sizeQualifiedName  = int(unsafe.Sizeof(ua.QualifiedName{}))
	sizeGUID           = int(unsafe.Sizeof(ua.GUID{})) + 8
	sizePointer        = int(unsafe.Sizeof(uintptr(0)))
	sizeBoxed          = 16 // a scalar inside an interface value, at most
)

// The blocks below let a value be allocated together with what it points to.
type (
	expandedBlock struct {
		id   ua.ExpandedNodeID
		node ua.NodeID
	}
	extensionBlock struct {
		ext ua.ExtensionObject
		id  expandedBlock
	}
	dataValueBlock struct {
		dv ua.DataValue
		v  ua.Variant
	}
)

// nodeID decodes a NodeId without the flags of an ExpandedNodeId.
func (d *decoder) nodeID(n *ua.NodeID) {
	if flags := d.flaggedNodeID(n); flags != 0 {
		d.fail(ua.StatusBadDecodingError, "NodeId has the flags of an ExpandedNodeId")
	}
}

// flaggedNodeID decodes the NodeId part of an ExpandedNodeId and returns its
// flags, which are not yet set in n.
func (d *decoder) flaggedNodeID(n *ua.NodeID) (flags byte) {
	start := d.off
	mask := d.u8()
	flags = mask & (flagServerIndex | flagNamespaceURI)
	switch mask &^ flags {
	case byte(ua.NodeIDTypeTwoByte):
		*n = *ua.NewTwoByteNodeID(d.u8())
	case byte(ua.NodeIDTypeFourByte):
		ns := d.u8()
		*n = *ua.NewFourByteNodeID(ns, d.u16())
	case byte(ua.NodeIDTypeNumeric):
		ns := d.u16()
		*n = *ua.NewNumericNodeID(ns, d.u32())
	case byte(ua.NodeIDTypeString):
		ns := d.u16()
		if s := d.str(); s != "" {
			*n = *ua.NewStringNodeID(ns, s)
		} else {
			d.plainNodeID(n, start)
		}
	case byte(ua.NodeIDTypeByteString):
		ns := d.u16()
		if s := d.byteString(); len(s) > 0 {
			*n = *ua.NewByteStringNodeID(ns, s)
		} else {
			d.plainNodeID(n, start)
		}
	case byte(ua.NodeIDTypeGUID):
		if d.take(2+16) != nil && d.charge(sizeGUID) {
			d.plainNodeID(n, start)
		}
	default:
		d.fail(ua.StatusBadDecodingError, "NodeId has an unknown type")
	}
	return flags
}

// plainNodeID lets ua decode the NodeId between start and here: some forms of
// it can be made in no other way. The bounds have been checked by then, and it
// gets a copy, as ua keeps references to its input.
func (d *decoder) plainNodeID(n *ua.NodeID, start int) {
	if d.failed {
		return
	}
	b := append(make([]byte, 0, d.off-start), d.b[start:d.off]...)
	b[0] &= maskNodeIDType
	if _, err := n.Decode(b); err != nil {
		d.fail(ua.StatusBadDecodingError, "NodeId is malformed")
	}
}

func (d *decoder) newNodeID() *ua.NodeID {
	if !d.charge(sizeNodeID) {
		return nil
	}
	n := new(ua.NodeID)
	d.nodeID(n)
	return n
}

func (d *decoder) expandedNodeID(e *expandedBlock) {
	e.id.NodeID = &e.node
	flags := d.flaggedNodeID(&e.node)
	if flags&flagNamespaceURI != 0 {
		e.node.SetURIFlag()
		e.id.NamespaceURI = d.str()
	}
	if flags&flagServerIndex != 0 {
		e.node.SetIndexFlag()
		e.id.ServerIndex = d.u32()
	}
}

func (d *decoder) newExpandedNodeID() *ua.ExpandedNodeID {
	if !d.charge(sizeExpandedNodeID) {
		return nil
	}
	e := new(expandedBlock)
	d.expandedNodeID(e)
	return &e.id
}

func (d *decoder) qualifiedName(q *ua.QualifiedName) {
	q.NamespaceIndex = d.u16()
	q.Name = d.str()
}

func (d *decoder) newQualifiedName() *ua.QualifiedName {
	if !d.charge(sizeQualifiedName) {
		return nil
	}
	q := new(ua.QualifiedName)
	d.qualifiedName(q)
	return q
}

func (d *decoder) newLocalizedText() *ua.LocalizedText {
	if !d.charge(sizeLocalizedText) {
		return nil
	}
	t := &ua.LocalizedText{EncodingMask: d.u8()}
	if t.Has(ua.LocalizedTextLocale) {
		t.Locale = d.str()
	}
	if t.Has(ua.LocalizedTextText) {
		t.Text = d.str()
	}
	return t
}

func (d *decoder) newGUID() *ua.GUID {
	if !d.charge(sizeGUID) {
		return nil
	}
	g := &ua.GUID{Data1: d.u32(), Data2: d.u16(), Data3: d.u16()}
	g.Data4 = append(make([]byte, 0, 8), d.take(8)...)
	return g
}

// newDataValue leaves Value non-nil, as ua does, even if there is none.
func (d *decoder) newDataValue() *ua.DataValue {
	if !d.charge(sizeDataValue) || !d.enter() {
		return nil
	}
	defer d.leave()
	block := new(dataValueBlock)
	v := &block.dv
	v.Value = &block.v
	v.EncodingMask = d.u8()
	if v.Has(ua.DataValueValue) {
		d.variant(v.Value)
	}
	if v.Has(ua.DataValueStatusCode) {
		v.Status = ua.StatusCode(d.u32())
	}
	if v.Has(ua.DataValueSourceTimestamp) {
		v.SourceTimestamp = d.time()
	}
	if v.Has(ua.DataValueSourcePicoseconds) {
		v.SourcePicoseconds = d.u16()
	}
	if v.Has(ua.DataValueServerTimestamp) {
		v.ServerTimestamp = d.time()
	}
	if v.Has(ua.DataValueServerPicoseconds) {
		v.ServerPicoseconds = d.u16()
	}
	return v
}

func (d *decoder) newDiagnosticInfo() *ua.DiagnosticInfo {
	if !d.charge(sizeDiagnosticInfo) || !d.enter() {
		return nil
	}
	defer d.leave()
	v := &ua.DiagnosticInfo{EncodingMask: d.u8()}
	if v.Has(ua.DiagnosticInfoSymbolicID) {
		v.SymbolicID = int32(d.u32())
	}
	if v.Has(ua.DiagnosticInfoNamespaceURI) {
		v.NamespaceURI = int32(d.u32())
	}
	if v.Has(ua.DiagnosticInfoLocale) {
		v.Locale = int32(d.u32())
	}
	if v.Has(ua.DiagnosticInfoLocalizedText) {
		v.LocalizedText = int32(d.u32())
	}
	if v.Has(ua.DiagnosticInfoAdditionalInfo) {
		v.AdditionalInfo = d.str()
	}
	if v.Has(ua.DiagnosticInfoInnerStatusCode) {
		v.InnerStatusCode = ua.StatusCode(d.u32())
	}
	if v.Has(ua.DiagnosticInfoInnerDiagnosticInfo) {
		v.InnerDiagnosticInfo = d.newDiagnosticInfo()
	}
	return v
}
