package main

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/gopcua/opcua/ua"
	"quorate/opcua/nodeset/internal/pack"
)

// Reference types that decide how a node is stored (Part 5 annex B).
const (
	hasEncoding       = 38
	hasTypeDefinition = 40
	hasSubtype        = 45
)

// arc is a reference from its source to its target.
type arc struct{ from, refType, to uint16 }

// builder turns the XML nodes into packed ones.
type builder struct {
	aliases map[string]string
	xml     map[uint16]*xmlNode
	ids     []uint16 // in the order of the file
	out     map[uint16][]arc
	in      map[uint16][]arc
}

var classes = map[string]ua.NodeClass{
	"UAObject": ua.NodeClassObject, "UAVariable": ua.NodeClassVariable, "UAMethod": ua.NodeClassMethod,
	"UAObjectType": ua.NodeClassObjectType, "UAVariableType": ua.NodeClassVariableType,
	"UAReferenceType": ua.NodeClassReferenceType, "UADataType": ua.NodeClassDataType, "UAView": ua.NodeClassView,
}

// build returns the packed file of a NodeSet2 document.
func build(document []byte) ([]byte, error) {
	set, err := parse(document)
	if err != nil {
		return nil, err
	}
	b := &builder{aliases: map[string]string{}, xml: map[uint16]*xmlNode{}, out: map[uint16][]arc{}, in: map[uint16][]arc{}}
	for _, a := range set.Aliases {
		b.aliases[a.Name] = a.ID
	}
	for i := range set.Nodes {
		n := &set.Nodes[i]
		id, err := numericID(n.NodeID)
		if err != nil {
			return nil, err
		}
		if classes[n.XMLName.Local] == 0 {
			return nil, fmt.Errorf("%s: unknown element %s", n.NodeID, n.XMLName.Local)
		}
		if b.xml[id] != nil {
			return nil, fmt.Errorf("%s is there twice", n.NodeID)
		}
		b.xml[id] = n
		b.ids = append(b.ids, id)
	}
	if err := b.link(); err != nil {
		return nil, err
	}
	slices.Sort(b.ids)
	nodes := make([]pack.Node, 0, len(b.ids))
	for _, id := range b.ids {
		n, err := b.node(id)
		if err != nil {
			return nil, fmt.Errorf("%s %s: %w", b.xml[id].NodeID, b.xml[id].BrowseName, err)
		}
		nodes = append(nodes, n)
	}
	return pack.Encode(nodes)
}

// link collects the references in the order of the file. The file gives some at one end, some at the other and some at
// both; here each is known once, at both.
func (b *builder) link() error {
	known := map[arc]bool{}
	for _, id := range b.ids {
		for _, r := range b.xml[id].References {
			refType, err := b.id(r.Type)
			if err != nil {
				return fmt.Errorf("i=%d: %w", id, err)
			}
			target, err := numericID(r.Target)
			if err != nil {
				return fmt.Errorf("i=%d: %w", id, err)
			}
			a := arc{id, refType, target}
			if r.IsForward == "false" {
				a = arc{target, refType, id}
			}
			if b.xml[target] == nil || b.xml[refType] == nil {
				return fmt.Errorf("i=%d: a reference of type i=%d leads to i=%d, which is not there", id, refType, target)
			}
			if known[a] {
				continue
			}
			known[a] = true
			b.out[a.from] = append(b.out[a.from], a)
			b.in[a.to] = append(b.in[a.to], a)
		}
	}
	return nil
}

// id reads a NodeId or an alias of one.
func (b *builder) id(s string) (uint16, error) {
	if id, ok := b.aliases[s]; ok {
		s = id
	}
	return numericID(s)
}

func (b *builder) node(id uint16) (pack.Node, error) {
	x := b.xml[id]
	class := classes[x.XMLName.Local]
	n := pack.Node{
		ID: id, Class: uint8(class),
		DisplayName: strings.TrimSpace(x.DisplayName.Text), Description: strings.TrimSpace(x.Description.Text), InverseName: strings.TrimSpace(x.InverseName.Text),
		IsAbstract: x.IsAbstract, Symmetric: x.Symmetric, Executable: class == ua.NodeClassMethod,
		EventNotifier: x.EventNotifier, SamplingMillis: x.MinimumSamplingInterval,
	}
	n.BrowseName = strings.TrimPrefix(x.BrowseName, "0:") // All other colons belong to the names themselves.
	if n.BrowseName == "" || n.DisplayName == "" {
		return n, errors.New("no BrowseName or DisplayName")
	}
	if err := b.references(&n); err != nil {
		return n, err
	}
	if class == ua.NodeClassVariable || class == ua.NodeClassVariableType {
		if err := b.data(&n, x); err != nil {
			return n, err
		}
	}
	if class == ua.NodeClassDataType {
		return n, b.define(&n)
	}
	return n, nil
}

// references sets the references of a node: the one to its supertype first, because it is looked for most often.
func (b *builder) references(n *pack.Node) error {
	for _, a := range b.in[n.ID] {
		if a.refType == hasSubtype {
			n.References = append(n.References, pack.Reference{Type: a.refType, Target: a.from})
		}
	}
	if len(n.References) > 1 {
		return errors.New("more than one supertype")
	}
	for _, a := range b.out[n.ID] {
		if a.refType != hasTypeDefinition {
			n.References = append(n.References, pack.Reference{Type: a.refType, Forward: true, Target: a.to})
			continue
		}
		if n.TypeDefinition != 0 {
			return errors.New("more than one type definition")
		}
		n.TypeDefinition = a.to
	}
	for _, a := range b.in[n.ID] {
		if a.refType != hasSubtype {
			n.References = append(n.References, pack.Reference{Type: a.refType, Target: a.from})
		}
	}
	instance := ua.NodeClass(n.Class) == ua.NodeClassObject || ua.NodeClass(n.Class) == ua.NodeClassVariable
	if instance != (n.TypeDefinition != 0) {
		return errors.New("objects and variables, and only they, have a type definition")
	}
	return nil
}

// data sets what variables and their types have, with the defaults of the schema (Part 6 annex F.7, F.8).
func (b *builder) data(n *pack.Node, x *xmlNode) (err error) {
	if n.DataType, err = b.id(cmp.Or(x.DataType, "i=24")); err != nil {
		return err
	}
	rank, err := strconv.ParseInt(cmp.Or(x.ValueRank, "-1"), 10, 32)
	if err != nil {
		return fmt.Errorf("ValueRank: %w", err)
	}
	n.ValueRank = int32(rank)
	if n.ArrayDimensions, err = dimensions(x.ArrayDimensions); err != nil {
		return err
	}
	if ua.NodeClass(n.Class) == ua.NodeClassVariable {
		level, err := strconv.ParseUint(cmp.Or(x.AccessLevel, "1"), 10, 8)
		if err != nil {
			return fmt.Errorf("AccessLevel: %w", err)
		}
		n.AccessLevel = uint8(level)
	}
	if x.Value == nil {
		return nil
	}
	if n.TypeDefinition == dataTypeDictionaryType {
		n.NoValue = true
		return nil
	}
	n.Value, err = value(x.Value)
	return err
}

// dataTypeDictionaryType is the type of the two type dictionaries of namespace 0. Their values, 470 kB of XML, are left
// out: the standard has deprecated them in favour of the DataTypeDefinition attribute, and a client that reads one a
// thousand times in one request must not make the server build an answer of hundreds of megabytes.
const dataTypeDictionaryType = 72

// dimensions reads ArrayDimensions: numbers with commas between them.
func dimensions(s string) ([]uint32, error) {
	if s == "" {
		return nil, nil
	}
	var dims []uint32
	for part := range strings.SplitSeq(s, ",") {
		d, err := strconv.ParseUint(strings.TrimSpace(part), 10, 32)
		if err != nil {
			return nil, fmt.Errorf("ArrayDimensions: %w", err)
		}
		dims = append(dims, uint32(d))
	}
	return dims, nil
}
