// Package pack is the file format of the generated namespace 0: small, and read in place. Opening a file decodes
// nothing; a node is decoded when it is asked for, and its strings point into the file. Both directions stand here, so
// that the generator and the reader cannot disagree.
//
// A file is a header of fixed-width tables, all numbers little-endian, and three sections:
//
//	magic     8 bytes, with the version of the format
//	counts    uint32 each: nodes, strings, reference types, references, bytes of records
//	ids       uint16 per node, ascending
//	records   uint32 per node: its offset in the record section
//	links     uint32 per node, and one more: the number of its first reference
//	strings   uint32 per string, and one more: its offset in the string section
//	types     uint16 per reference type
//	references, 3 bytes each: number of the type * 2 + forward, target as uint16
//	records, of varints; see Node
//	strings
//
// Every string is there once; number 0 is the empty one.
package pack

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
)

const (
	magic         = "UANODES\x01"
	headerSize    = len(magic) + 5*4
	referenceSize = 3
	maxTypes      = 128 // reference types that fit into a byte beside the direction
)

// Node is a node of namespace 0 whose NodeId is numeric and below 65,536. What the class does not have is zero.
type Node struct {
	ID          uint16
	Class       uint8
	BrowseName  string
	DisplayName string
	Description string
	InverseName string

	TypeDefinition uint16
	DataType       uint16

	IsAbstract, Symmetric, Executable, NoValue bool // NoValue: there is a value, but it is left out

	EventNotifier   uint8
	AccessLevel     uint8
	ValueRank       int32
	ArrayDimensions []uint32
	SamplingMillis  uint32 // MinimumSamplingInterval, in milliseconds

	Value      string // a Variant in the binary encoding; empty if there is none
	Definition string // an ExtensionObject in the binary encoding, with the DataTypeDefinition; empty if there is none

	References []Reference // only for Encode; File.References gives them
}

// Reference is one end of a reference.
type Reference struct {
	Type    uint16
	Forward bool
	Target  uint16
}

const (
	flagAbstract = 1 << iota
	flagSymmetric
	flagExecutable
	flagNoValue
)

// Encode returns the file of these nodes, whose ids must ascend. Equal nodes give equal files.
func Encode(nodes []Node) ([]byte, error) {
	w := writer{numbers: map[string]uint64{"": 0}, texts: []string{""}}
	var ids, recordAt, linkAt []byte
	le := binary.LittleEndian
	for i, n := range nodes {
		if i > 0 && nodes[i-1].ID >= n.ID {
			return nil, fmt.Errorf("pack: ids do not ascend at i=%d", n.ID)
		}
		ids = le.AppendUint16(ids, n.ID)
		recordAt = le.AppendUint32(recordAt, uint32(len(w.records)))
		linkAt = le.AppendUint32(linkAt, uint32(len(w.references)/referenceSize))
		w.node(&n)
		for _, r := range n.References {
			if err := w.reference(r); err != nil {
				return nil, fmt.Errorf("pack: i=%d: %w", n.ID, err)
			}
		}
	}
	count := len(w.references) / referenceSize
	linkAt = le.AppendUint32(linkAt, uint32(count))

	out := []byte(magic)
	for _, n := range []int{len(nodes), len(w.texts), len(w.types), count, len(w.records)} {
		out = le.AppendUint32(out, uint32(n))
	}
	out = append(append(append(out, ids...), recordAt...), linkAt...)
	at := 0
	for _, s := range w.texts {
		out = le.AppendUint32(out, uint32(at))
		at += len(s)
	}
	out = le.AppendUint32(out, uint32(at))
	for _, t := range w.types {
		out = le.AppendUint16(out, t)
	}
	out = append(append(out, w.references...), w.records...)
	out = append(out, strings.Join(w.texts, "")...)
	if len(out) > math.MaxInt32 {
		return nil, errors.New("pack: larger than 2 GiB")
	}
	return out, nil
}

type writer struct {
	numbers    map[string]uint64
	texts      []string
	types      []uint16
	records    []byte
	references []byte
}

func (w *writer) node(n *Node) {
	flags := byte(0)
	for flag, on := range map[byte]bool{flagAbstract: n.IsAbstract, flagSymmetric: n.Symmetric, flagExecutable: n.Executable, flagNoValue: n.NoValue} {
		if on {
			flags |= flag
		}
	}
	w.records = append(w.records, n.Class, flags, n.EventNotifier, n.AccessLevel)
	for _, s := range []string{n.BrowseName, n.DisplayName, n.Description, n.InverseName, n.Value, n.Definition} {
		w.text(s)
	}
	w.number(uint64(n.TypeDefinition))
	w.number(uint64(n.DataType))
	w.records = binary.AppendVarint(w.records, int64(n.ValueRank))
	w.number(uint64(n.SamplingMillis))
	if n.ArrayDimensions == nil {
		w.number(0)
		return
	}
	w.number(uint64(len(n.ArrayDimensions)) + 1)
	for _, d := range n.ArrayDimensions {
		w.number(uint64(d))
	}
}

func (w *writer) number(n uint64) { w.records = binary.AppendUvarint(w.records, n) }

func (w *writer) text(s string) {
	n, ok := w.numbers[s]
	if !ok {
		n = uint64(len(w.texts))
		w.numbers[s] = n
		w.texts = append(w.texts, s)
	}
	w.number(n)
}

func (w *writer) reference(r Reference) error {
	t := slices.Index(w.types, r.Type)
	if t < 0 {
		if t = len(w.types); t == maxTypes {
			return fmt.Errorf("more than %d reference types", maxTypes)
		}
		w.types = append(w.types, r.Type)
	}
	b := byte(t) << 1
	if r.Forward {
		b |= 1
	}
	w.references = binary.LittleEndian.AppendUint16(append(w.references, b), r.Target)
	return nil
}
