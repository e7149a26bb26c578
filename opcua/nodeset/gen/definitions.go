package main

import (
	"cmp"
	"fmt"
	"strconv"
	"strings"

	"github.com/gopcua/opcua/ua"
	"quorate/opcua/nodeset/internal/pack"
)

// Data types whose subtypes have a DataTypeDefinition (Part 3 §5.8.3).
const (
	structure   = 22
	enumeration = 29
	union       = 12756
)

// define sets the DataTypeDefinition of a data type, if it has one: subtypes of Structure, of Enumeration, and option
// sets.
func (b *builder) define(n *pack.Node) error {
	d := b.xml[n.ID].Definition
	var v any
	var err error
	switch {
	case d != nil && d.IsOptionSet || n.ID != enumeration && b.isSubtype(n.ID, enumeration):
		if d == nil {
			return nil // An abstract enumeration without values of its own.
		}
		v = enumDefinition(d)
	case n.ID != structure && b.isSubtype(n.ID, structure):
		v, err = b.structureDefinition(n)
	case d != nil && n.ID != structure && n.ID != enumeration: // These two are what definitions are made of.
		err = fmt.Errorf("a definition, but neither structure nor enumeration nor option set")
	default:
		return nil
	}
	if err != nil {
		return err
	}
	encoded, err := ua.NewExtensionObject(v).Encode()
	n.Definition = string(encoded)
	return err
}

// enumDefinition is that of an enumeration, or of an option set, whose values are the numbers of the bits (Part 3
// §8.50, §8.52).
func enumDefinition(d *definition) *ua.EnumDefinition {
	out := &ua.EnumDefinition{Fields: make([]*ua.EnumField, len(d.Fields))}
	for i, f := range d.Fields {
		out.Fields[i] = &ua.EnumField{
			Name: f.Name, Value: f.Value,
			DisplayName: ua.NewLocalizedText(f.Name), // the default, where the file has none
			Description: ua.NewLocalizedText(strings.TrimSpace(f.Description.Text)),
		}
	}
	return out
}

// structureDefinition is that of a structure; its fields begin with those of its supertype (Part 3 §8.48).
func (b *builder) structureDefinition(n *pack.Node) (*ua.StructureDefinition, error) {
	base := b.supertype(n.ID)
	out := &ua.StructureDefinition{
		DefaultEncodingID: ua.NewTwoByteNodeID(0),
		BaseDataType:      nodeID(base),
		StructureType:     ua.StructureTypeStructure,
		Fields:            []*ua.StructureField{},
	}
	if !n.IsAbstract {
		for _, a := range b.out[n.ID] {
			if a.refType == hasEncoding && b.xml[a.to].BrowseName == "Default Binary" {
				out.DefaultEncodingID = nodeID(a.to)
			}
		}
	}
	isUnion, optional, subtypes := b.isSubtype(n.ID, union), false, false
	for _, id := range b.lineage(n.ID) {
		d := b.xml[id].Definition
		if d == nil {
			continue
		}
		isUnion = isUnion || d.IsUnion
		for _, f := range d.Fields {
			dataType, err := b.id(cmp.Or(f.DataType, "i=24"))
			if err != nil {
				return nil, fmt.Errorf("field %s: %w", f.Name, err)
			}
			rank, err := strconv.ParseInt(cmp.Or(f.ValueRank, "-1"), 10, 32)
			if err != nil {
				return nil, fmt.Errorf("field %s: ValueRank: %w", f.Name, err)
			}
			dims, err := dimensions(f.ArrayDimensions)
			if err != nil {
				return nil, fmt.Errorf("field %s: %w", f.Name, err)
			}
			if b.xml[dataType] == nil {
				return nil, fmt.Errorf("field %s: there is no data type i=%d", f.Name, dataType)
			}
			optional, subtypes = optional || f.IsOptional, subtypes || f.AllowSubTypes
			out.Fields = append(out.Fields, &ua.StructureField{
				Name: f.Name, DataType: nodeID(dataType), ValueRank: int32(rank), ArrayDimensions: dims, MaxStringLength: f.MaxStringLength,
				Description: ua.NewLocalizedText(strings.TrimSpace(f.Description.Text)),
				IsOptional:  f.IsOptional || f.AllowSubTypes, // The type of the structure says which of the two it means (Part 3 §8.49).
			})
		}
	}
	switch {
	case optional && (subtypes || isUnion):
		return nil, fmt.Errorf("optional fields together with subtypes or a union cannot be described")
	case isUnion && subtypes:
		out.StructureType = ua.StructureTypeUnionWithSubtypedValues
	case isUnion:
		out.StructureType = ua.StructureTypeUnion
	case subtypes:
		out.StructureType = ua.StructureTypeStructureWithSubtypedValues
	case optional:
		out.StructureType = ua.StructureTypeStructureWithOptionalFields
	}
	return out, nil
}

// supertype returns the type that id is a subtype of, or 0.
func (b *builder) supertype(id uint16) uint16 {
	for _, a := range b.in[id] {
		if a.refType == hasSubtype {
			return a.from
		}
	}
	return 0
}

// lineage returns the type and all it is a subtype of, the most general first.
func (b *builder) lineage(id uint16) []uint16 {
	var line []uint16
	for ; id != 0 && len(line) < len(b.ids); id = b.supertype(id) {
		line = append([]uint16{id}, line...)
	}
	return line
}

func (b *builder) isSubtype(id, of uint16) bool {
	for _, t := range b.lineage(id) {
		if t == of {
			return true
		}
	}
	return false
}

func nodeID(id uint16) *ua.NodeID {
	if id < 256 {
		return ua.NewTwoByteNodeID(uint8(id))
	}
	return ua.NewFourByteNodeID(0, id)
}
