package nodeset

import (
	"github.com/gopcua/opcua/ua"
	"quorate/opcua/nodeset/internal/pack"
	"quorate/opcua/space"
)

// node builds the node of the address space from the packed one.
func node(p pack.Node) *space.Node {
	n := &space.Node{
		Key:         key(p.ID),
		Class:       ua.NodeClass(p.Class),
		BrowseName:  ua.QualifiedName{Name: p.BrowseName},
		DisplayName: space.Text(p.DisplayName),
		Description: space.Text(p.Description),
		InverseName: space.Text(p.InverseName),

		TypeDefinition: key(p.TypeDefinition),
		DataType:       key(p.DataType),

		IsAbstract:    p.IsAbstract,
		Symmetric:     p.Symmetric,
		Executable:    p.Executable,
		EventNotifier: p.EventNotifier,

		AccessLevel:             p.AccessLevel &^ space.AccessCurrentWrite, // What is here is for everybody to read.
		ValueRank:               p.ValueRank,
		ArrayDimensions:         p.ArrayDimensions,
		MinimumSamplingInterval: float64(p.SamplingMillis),
	}
	if p.Value != "" {
		n.Value = func(space.ReadContext) *ua.DataValue { return value(p.Value) }
	}
	if p.NoValue {
		n.Value = func(space.ReadContext) *ua.DataValue { return leftOut }
	}
	if p.Definition != "" {
		n.DataTypeDefinition = func() any { return definition(p.Definition) }
	}
	return n
}

// leftOut is the value of the type dictionaries, whose reason the generator gives.
var leftOut = &ua.DataValue{EncodingMask: ua.DataValueStatusCode, Status: ua.StatusBadNotSupported}

// value decodes a Variant. What is decoded is part of the program, and a test decodes all of it, so gopcua's decoder
// may do it.
func value(encoded string) *ua.DataValue {
	v := new(ua.Variant)
	if _, err := v.Decode([]byte(encoded)); err != nil {
		return &ua.DataValue{EncodingMask: ua.DataValueStatusCode, Status: ua.StatusBadInternalError}
	}
	return &ua.DataValue{EncodingMask: ua.DataValueValue, Value: v}
}

// definition decodes a DataTypeDefinition; nil would say that it is damaged, which a test excludes.
func definition(encoded string) any {
	e := new(ua.ExtensionObject)
	if _, err := e.Decode([]byte(encoded)); err != nil {
		return nil
	}
	return e.Value
}
