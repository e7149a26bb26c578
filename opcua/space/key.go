package space

import (
	"cmp"
	"encoding/base64"
	"strconv"

	"github.com/gopcua/opcua/ua"
)

type keyKind uint8

const (
	numericKey keyKind = iota
	stringKey
	guidKey
	opaqueKey
)

// Key is a NodeId in a form that can be compared and used as a map key (Part 3 §8.2). The zero Key is the null NodeId.
//
// ua.NodeID cannot be compared: it holds pointers, and one numeric id has up to three encodings.
type Key struct {
	text string // the identifier of the other kinds: the string, the GUID's text form, or the bytes in base64
	num  uint32
	ns   uint16
	kind keyKind
}

// NumericKey returns the key of a numeric NodeId.
func NumericKey(ns uint16, id uint32) Key { return Key{ns: ns, num: id} }

// StringKey returns the key of a string NodeId.
func StringKey(ns uint16, id string) Key { return Key{ns: ns, kind: stringKey, text: id} }

// KeyOf returns the key of a NodeId. It allocates for string, GUID and opaque identifiers only. The key of nil is the
// null NodeId's.
func KeyOf(id *ua.NodeID) Key {
	if id == nil {
		return Key{}
	}
	k := Key{ns: id.Namespace()}
	switch id.Type() {
	case ua.NodeIDTypeString:
		k.kind, k.text = stringKey, id.StringID()
	case ua.NodeIDTypeGUID:
		k.kind, k.text = guidKey, id.StringID()
	case ua.NodeIDTypeByteString:
		k.kind, k.text = opaqueKey, id.StringID()
	default:
		k.num = id.IntID()
	}
	return k
}

// NodeID returns the NodeId in its shortest encoding (Part 6 §5.2.2.9).
func (k Key) NodeID() *ua.NodeID {
	switch k.kind {
	case stringKey:
		return ua.NewStringNodeID(k.ns, k.text)
	case guidKey:
		return ua.NewGUIDNodeID(k.ns, k.text)
	case opaqueKey:
		// The text is our own encoding of bytes, so it always decodes.
		b, _ := base64.StdEncoding.DecodeString(k.text)
		return ua.NewByteStringNodeID(k.ns, b)
	}
	switch {
	case k.ns == 0 && k.num <= 0xff:
		return ua.NewTwoByteNodeID(uint8(k.num))
	case k.ns <= 0xff && k.num <= 0xffff:
		return ua.NewFourByteNodeID(uint8(k.ns), uint16(k.num))
	}
	return ua.NewNumericNodeID(k.ns, k.num)
}

// Namespace returns the namespace index.
func (k Key) Namespace() uint16 { return k.ns }

// Numeric returns the identifier of a numeric NodeId, and whether it is one.
func (k Key) Numeric() (id uint32, ok bool) { return k.num, k.kind == numericKey }

// Text returns the identifier of a string NodeId, and whether it is one.
func (k Key) Text() (id string, ok bool) {
	if k.kind != stringKey {
		return "", false
	}
	return k.text, true
}

// IsNull reports whether k is a null NodeId: namespace 0, and an identifier that is 0 or empty (Part 3 §8.2.4).
func (k Key) IsNull() bool {
	return k.ns == 0 && k.num == 0 && (k.text == "" || k.kind == guidKey && k.text == nullGUID)
}

const nullGUID = "00000000-0000-0000-0000-000000000000"

// Compare orders keys by namespace, kind and identifier.
func (k Key) Compare(o Key) int {
	return cmp.Or(cmp.Compare(k.ns, o.ns), cmp.Compare(k.kind, o.kind), cmp.Compare(k.num, o.num), cmp.Compare(k.text, o.text))
}

// String returns the text form of the NodeId, such as "i=2253" or "ns=2;s=line-a" (Part 6 §5.3.1.10).
func (k Key) String() string {
	s := ""
	if k.ns != 0 {
		s = "ns=" + strconv.Itoa(int(k.ns)) + ";"
	}
	switch k.kind {
	case stringKey:
		return s + "s=" + k.text
	case guidKey:
		return s + "g=" + k.text
	case opaqueKey:
		return s + "b=" + k.text
	}
	return s + "i=" + strconv.FormatUint(uint64(k.num), 10)
}
