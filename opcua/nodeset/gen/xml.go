package main

import (
	"encoding/xml"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// nodeSet is the UANodeSet element (Part 6 annex F.2).
type nodeSet struct {
	Aliases []struct {
		Name string `xml:"Alias,attr"`
		ID   string `xml:",chardata"`
	} `xml:"Aliases>Alias"`
	Models struct{}  `xml:"Models"`
	Nodes  []xmlNode `xml:",any"`
}

// xmlNode is any of the UANode elements (annex F.3 to F.11).
type xmlNode struct {
	XMLName                 xml.Name
	NodeID                  string     `xml:"NodeId,attr"`
	BrowseName              string     `xml:",attr"`
	EventNotifier           uint8      `xml:",attr"`
	IsAbstract              bool       `xml:",attr"`
	Symmetric               bool       `xml:",attr"`
	DataType                string     `xml:",attr"`
	ValueRank               string     `xml:",attr"`
	ArrayDimensions         string     `xml:",attr"`
	AccessLevel             string     `xml:",attr"`
	MinimumSamplingInterval uint32     `xml:",attr"`
	Attrs                   []xml.Attr `xml:",any,attr"`

	DisplayName text
	Description text
	InverseName text
	References  []struct {
		Type      string `xml:"ReferenceType,attr"`
		IsForward string `xml:",attr"`
		Target    string `xml:",chardata"`
	} `xml:"References>Reference"`
	Definition *definition
	Value      *element
	Extra      []element `xml:",any"`
}

// definition is the DataTypeDefinition of a UADataType (annex F.12).
type definition struct {
	IsUnion     bool       `xml:",attr"`
	IsOptionSet bool       `xml:",attr"`
	Attrs       []xml.Attr `xml:",any,attr"`
	Fields      []struct {
		Name            string     `xml:",attr"`
		DataType        string     `xml:",attr"`
		ValueRank       string     `xml:",attr"`
		ArrayDimensions string     `xml:",attr"`
		MaxStringLength uint32     `xml:",attr"`
		Value           int64      `xml:",attr"`
		IsOptional      bool       `xml:",attr"`
		AllowSubTypes   bool       `xml:",attr"`
		Attrs           []xml.Attr `xml:",any,attr"`
		Description     text
		Extra           []element `xml:",any"`
	} `xml:"Field"`
	Extra []element `xml:",any"`
}

// text is a LocalizedText. Namespace 0 has no locales.
type text struct {
	Text  string     `xml:",chardata"`
	Attrs []xml.Attr `xml:",any,attr"`
}

// element is any element: values are in the XML encoding, whose element names are those of the types.
type element struct {
	XMLName  xml.Name
	Text     string    `xml:",chardata"`
	Children []element `xml:",any"`
}

// What the address space has no attribute for.
var (
	ignoredAttrs    = []string{"ParentNodeId", "SymbolicName", "ReleaseStatus", "MethodDeclarationId"}
	ignoredElements = []string{"Category", "Documentation"}
)

func parse(b []byte) (*nodeSet, error) {
	var set nodeSet
	if err := xml.Unmarshal(b, &set); err != nil {
		return nil, err
	}
	for i := range set.Nodes {
		n := &set.Nodes[i]
		if err := n.strict(); err != nil {
			return nil, fmt.Errorf("%s %s: %w", n.XMLName.Local, n.NodeID, err)
		}
	}
	return &set, nil
}

// strict refuses what would be left out.
func (n *xmlNode) strict() error {
	for _, a := range n.Attrs {
		if !slices.Contains(ignoredAttrs, a.Name.Local) {
			return fmt.Errorf("unknown attribute %s", a.Name.Local)
		}
	}
	for _, e := range n.Extra {
		if !slices.Contains(ignoredElements, e.XMLName.Local) {
			return fmt.Errorf("unknown element %s", e.XMLName.Local)
		}
	}
	texts := []text{n.DisplayName, n.Description, n.InverseName}
	if d := n.Definition; d != nil {
		for _, a := range d.Attrs {
			if a.Name.Local != "Name" && a.Name.Local != "SymbolicName" {
				return fmt.Errorf("in Definition: unknown attribute %s", a.Name.Local)
			}
		}
		if len(d.Extra) > 0 {
			return fmt.Errorf("in Definition: unknown element %s", d.Extra[0].XMLName.Local)
		}
		for _, f := range d.Fields {
			if len(f.Attrs) > 0 || len(f.Extra) > 0 {
				return fmt.Errorf("field %s: unknown attributes %v or elements", f.Name, f.Attrs)
			}
			texts = append(texts, f.Description)
		}
	}
	for _, t := range texts {
		if len(t.Attrs) > 0 {
			return fmt.Errorf("text %q: unknown attributes %v", t.Text, t.Attrs)
		}
	}
	return nil
}

// child returns the only child of that name.
func (e *element) child(name string) (*element, error) {
	c, err := e.optional(name)
	if err == nil && c == nil {
		err = fmt.Errorf("%s has no %s", e.XMLName.Local, name)
	}
	return c, err
}

// optional returns the only child of that name, or nil.
func (e *element) optional(name string) (found *element, err error) {
	for i := range e.Children {
		if e.Children[i].XMLName.Local != name {
			continue
		}
		if found != nil {
			return nil, fmt.Errorf("%s has two %s", e.XMLName.Local, name)
		}
		found = &e.Children[i]
	}
	return found, nil
}

// only refuses children other than these.
func (e *element) only(names ...string) error {
	for _, c := range e.Children {
		if !slices.Contains(names, c.XMLName.Local) {
			return fmt.Errorf("%s has an unknown %s", e.XMLName.Local, c.XMLName.Local)
		}
	}
	return nil
}

func (e *element) trimmed() string { return strings.TrimSpace(e.Text) }

// numericID reads a NodeId such as "i=2253".
func numericID(s string) (uint16, error) {
	digits, ok := strings.CutPrefix(strings.TrimSpace(s), "i=")
	if !ok {
		return 0, fmt.Errorf("NodeId %q is not numeric", s)
	}
	n, err := strconv.ParseUint(digits, 10, 16)
	if err != nil {
		return 0, fmt.Errorf("NodeId %q: %w", s, err)
	}
	return uint16(n), nil
}
