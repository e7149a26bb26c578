package opcua

import (
	"fmt"

	"github.com/gopcua/opcua/id"
	"github.com/gopcua/opcua/ua"

	"quorate/opcua/space"
)

// builder puts nodes into the table. After its first error it does nothing more.
type builder struct {
	edit     *space.Edit
	standard space.Source
	err      error
}

// override gives a node of the standard a value, and whatever else change sets.
func (b *builder) override(nodeID uint32, value space.ValueFunc, change ...func(*space.Node)) {
	if b.err != nil {
		return
	}
	k := standard(nodeID)
	n, ok := b.standard.Node(k)
	if !ok {
		b.err = fmt.Errorf("namespace 0 has no node %s", k)
		return
	}
	own := *n
	if value != nil {
		own.Value = value
		own.MinimumSamplingInterval = 0 // Pushed, or never changing.
	}
	for _, fn := range change {
		fn(&own)
	}
	b.edit.Put(&own)
}

// constant gives a node of the standard a value that never changes.
func (b *builder) constant(nodeID uint32, v any) {
	if b.err != nil {
		return
	}
	value, err := space.Constant(v)
	if err != nil {
		b.err = fmt.Errorf("value of i=%d: %w", nodeID, err)
		return
	}
	b.override(nodeID, value)
}

// sampled says that nobody pushes a value, and how often, in milliseconds, it is worth a look.
func sampled(milliseconds float64) func(*space.Node) {
	return func(n *space.Node) { n.MinimumSamplingInterval = milliseconds }
}

// object adds an object of the state namespace below another node.
func (b *builder) object(parent, refType, k space.Key, name string, typ uint32) {
	b.edit.Put(&space.Node{
		Key: k, Class: ua.NodeClassObject, BrowseName: stateName(name), DisplayName: space.Text(name), TypeDefinition: standard(typ),
	})
	b.edit.Link(parent, refType, k)
}

// variable adds a variable of the state namespace below an object.
func (b *builder) variable(parent, k space.Key, v variable, value space.ValueFunc) {
	rank := space.RankScalar
	if v.array {
		rank = space.RankOneDimension
	}
	b.edit.Put(&space.Node{
		Key: k, Class: ua.NodeClassVariable, BrowseName: stateName(v.name), DisplayName: space.Text(v.name), Description: space.Text(v.description),
		TypeDefinition: standard(id.BaseDataVariableType), DataType: standard(v.dataType), ValueRank: rank,
		AccessLevel: space.AccessCurrentRead, Value: value,
	})
	b.edit.Link(parent, space.HasComponent, k)
}

// variable describes a variable of the state namespace.
type variable struct {
	name, description string
	dataType          uint32
	array             bool
}

func standard(nodeID uint32) space.Key { return space.NumericKey(0, nodeID) }

func stateKey(path string) space.Key { return space.StringKey(stateIndex, path) }

func stateName(name string) ua.QualifiedName {
	return ua.QualifiedName{NamespaceIndex: stateIndex, Name: name}
}

// good is a value of this moment. v is of a type that a Variant takes.
func good(ctx space.ReadContext, v any) *ua.DataValue {
	return &ua.DataValue{Value: ua.MustVariant(v), SourceTimestamp: ctx.Now}
}

// null is the value of a node that has none now.
func null(ctx space.ReadContext) *ua.DataValue { return &ua.DataValue{SourceTimestamp: ctx.Now} }

// bad is the absence of a value, with the reason.
func bad(ctx space.ReadContext, status ua.StatusCode) *ua.DataValue {
	return &ua.DataValue{Status: status, SourceTimestamp: ctx.Now}
}
