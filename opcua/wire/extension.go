package wire

import (
	"reflect"
	"sync"

	"github.com/gopcua/opcua/ua"
)

// extensionTypes maps the numeric ids of encodings in namespace 0 to the Go
// structures that ua registered for them. Only known ids are kept, so that no
// client can make it grow.
var extensionTypes sync.Map // uint32 → reflect.Type

// extensionType gives the structure type of a binary encoding id, or nil.
//
// The registry of ua is not exported, but its ExtensionObject makes the empty
// structure before it decodes the body. So it is given an empty-handed object,
// one byte long; that the decoding then may fail does not matter.
func extensionType(n *ua.NodeID) reflect.Type {
	if n.Namespace() != 0 {
		return nil
	}
	switch n.Type() {
	case ua.NodeIDTypeTwoByte, ua.NodeIDTypeFourByte, ua.NodeIDTypeNumeric:
	default:
		return nil
	}
	id := n.IntID()
	if t, ok := extensionTypes.Load(id); ok {
		return t.(reflect.Type)
	}
	probe := []byte{
		byte(ua.NodeIDTypeNumeric), 0, 0, byte(id), byte(id >> 8), byte(id >> 16), byte(id >> 24),
		ua.ExtensionObjectBinary, 1, 0, 0, 0, 0,
	}
	var eo ua.ExtensionObject
	_, _ = eo.Decode(probe)
	if eo.Value == nil {
		return nil
	}
	t := reflect.TypeOf(eo.Value).Elem()
	extensionTypes.Store(id, t)
	return t
}

func (d *decoder) newExtensionObject() *ua.ExtensionObject {
	if !d.charge(sizeExtension) {
		return nil
	}
	e := new(extensionBlock)
	d.extensionObject(e)
	return &e.ext
}

// extensionObject decodes an ExtensionObject (Part 6 §5.2.2.15). The body of a
// known type becomes a pointer to its structure, that of an unknown one [Raw].
func (d *decoder) extensionObject(e *extensionBlock) {
	if !d.enter() {
		return
	}
	defer d.leave()
	e.ext.TypeID = &e.id.id
	d.expandedNodeID(&e.id)
	e.ext.EncodingMask = d.u8()
	switch e.ext.EncodingMask {
	case ua.ExtensionObjectEmpty:
	case ua.ExtensionObjectXML:
		x := ua.XMLElement(d.str())
		e.ext.Value = &x
	case ua.ExtensionObjectBinary:
		d.extensionBody(e)
	default:
		d.fail(ua.StatusBadDecodingError, "ExtensionObject has an unknown encoding")
	}
}

func (d *decoder) extensionBody(e *extensionBlock) {
	n := d.length(d.lim.MaxByteStringLength)
	if n < 0 {
		return
	}
	typ := extensionType(&e.id.node)
	if typ == nil {
		if raw := d.take(n); d.charge(n) {
			e.ext.Value = Raw(append(make([]byte, 0, n), raw...))
		}
		return
	}
	p := planOf(typ)
	if n < p.min {
		d.fail(ua.StatusBadDecodingError, "ExtensionObject "+typ.Name()+" is too short")
		return
	}
	if !d.charge(p.mem) {
		return
	}
	whole := d.b
	d.b = d.b[:d.off+n]
	v := reflect.New(typ)
	p.dec(d, v.Elem())
	if d.failed {
		d.within(typ.Name())
	} else if d.left() != 0 {
		d.fail(ua.StatusBadDecodingError, "ExtensionObject "+typ.Name()+" has bytes left over")
	}
	d.b = whole
	e.ext.Value = v.Interface()
}

// appendExtensionObject encodes nil as the null ExtensionObject.
func appendExtensionObject(b []byte, e *ua.ExtensionObject) ([]byte, error) {
	if e == nil {
		return append(b, 0, 0, ua.ExtensionObjectEmpty), nil
	}
	b, err := appendExpandedNodeID(b, e.TypeID)
	if err != nil {
		return b, err
	}
	b = append(b, e.EncodingMask)
	if e.EncodingMask == ua.ExtensionObjectEmpty {
		return b, nil
	}
	if e.Value == nil {
		return append(b, 0xff, 0xff, 0xff, 0xff), nil
	}
	start := len(b)
	b = append(b, 0, 0, 0, 0)
	switch v := e.Value.(type) {
	case Raw:
		b = append(b, v...)
	case *ua.XMLElement:
		b = append(b, *v...)
	case *ua.DataChangeNotification:
		b, err = appendDataChangeNotification(b, v)
	default:
		b, err = Append(b, v)
	}
	if err != nil {
		return b, err
	}
	putLength(b[start:], len(b)-start-4)
	return b, nil
}
