package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/gopcua/opcua/schema"
	"github.com/gopcua/opcua/ua"
	"go.uber.org/goleak"
	"quorate/opcua/nodeset/internal/pack"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// The committed file is what the generator makes, every time.
func TestCommittedFileIsGenerated(t *testing.T) {
	want, err := os.ReadFile(filepath.Join("..", output))
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		got, err := build(schema.OpcUaNodeSet2)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got, want) {
			t.Fatalf("%s (%d bytes) is not what the generator makes (%d bytes): run go generate ./opcua/nodeset/...", output, len(want), len(got))
		}
	}
}

// document returns a small NodeSet2 document: a few base nodes, and what is added.
func document(nodes string) []byte {
	return []byte(`<UANodeSet xmlns="http://opcfoundation.org/UA/2011/03/UANodeSet.xsd">
<Models><Model ModelUri="http://opcfoundation.org/UA/"/></Models>
<Aliases><Alias Alias="Double">i=11</Alias><Alias Alias="HasSubtype">i=45</Alias><Alias Alias="HasTypeDefinition">i=40</Alias></Aliases>
<UAReferenceType NodeId="i=45" BrowseName="HasSubtype"><DisplayName>HasSubtype</DisplayName></UAReferenceType>
<UAReferenceType NodeId="i=40" BrowseName="HasTypeDefinition"><DisplayName>HasTypeDefinition</DisplayName></UAReferenceType>
<UADataType NodeId="i=11" BrowseName="Double"><DisplayName>Double</DisplayName></UADataType>
<UADataType NodeId="i=22" BrowseName="Structure"><DisplayName>Structure</DisplayName></UADataType>
<UAVariableType NodeId="i=63" BrowseName="BaseDataVariableType" ValueRank="-2"><DisplayName>T</DisplayName></UAVariableType>
` + nodes + `</UANodeSet>`)
}

// variable returns a variable with more attributes and elements.
func variable(attrs, elements string) []byte {
	return document(`<UAVariable NodeId="i=9" BrowseName="0:V" ` + attrs + `><DisplayName> V </DisplayName>
<References><Reference ReferenceType="HasTypeDefinition">i=63</Reference></References>` + elements + `</UAVariable>`)
}

func dataType(elements string) []byte {
	return document(`<UADataType NodeId="i=9" BrowseName="D"><DisplayName>D</DisplayName>
<References><Reference ReferenceType="HasSubtype" IsForward="false">i=22</Reference></References>` + elements + `</UADataType>`)
}

func buildNode(t *testing.T, doc []byte, id uint16) pack.Node {
	t.Helper()
	b, err := build(doc)
	if err != nil {
		t.Fatal(err)
	}
	f, err := pack.Open(string(b))
	if err != nil {
		t.Fatal(err)
	}
	i, ok := f.Index(id)
	if !ok {
		t.Fatalf("i=%d is not there", id)
	}
	n := f.Node(i)
	for j := range f.References(i) {
		n.References = append(n.References, f.Reference(i, j))
	}
	return n
}

func TestBuildVariable(t *testing.T) {
	got := buildNode(t, variable(`DataType="Double" ValueRank="1" ArrayDimensions="2,3" AccessLevel="3" MinimumSamplingInterval="500" ParentNodeId="i=1"`,
		`<Description>about</Description><Category>c</Category><Value><Int32>-7</Int32></Value>`), 9)
	value, err := ua.MustVariant(int32(-7)).Encode()
	if err != nil {
		t.Fatal(err)
	}
	want := pack.Node{
		ID: 9, Class: 2, BrowseName: "V", DisplayName: "V", Description: "about", TypeDefinition: 63, DataType: 11,
		ValueRank: 1, ArrayDimensions: []uint32{2, 3}, AccessLevel: 3, SamplingMillis: 500, Value: string(value),
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	got = buildNode(t, variable("", ""), 9)
	want = pack.Node{ID: 9, Class: 2, BrowseName: "V", DisplayName: "V", TypeDefinition: 63, DataType: 24, ValueRank: -1, AccessLevel: 1}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("the defaults: %s", diff)
	}
	if got = buildNode(t, variable("", ""), 63); !cmp.Equal(got.References, []pack.Reference{{Type: 40, Target: 9}}) {
		t.Errorf("the type's references: %v", got.References)
	}
}

func TestBuildStructure(t *testing.T) {
	doc := dataType(`<Definition Name="D"><Field Name="A" DataType="Double"/><Field Name="B" DataType="i=22" ValueRank="1" AllowSubTypes="true"><Description>b</Description></Field></Definition>`)
	n := buildNode(t, doc, 9)
	var e ua.ExtensionObject
	if _, err := e.Decode([]byte(n.Definition)); err != nil {
		t.Fatal(err)
	}
	def := e.Value.(*ua.StructureDefinition)
	if def.StructureType != ua.StructureTypeStructureWithSubtypedValues || def.BaseDataType.String() != "i=22" || len(def.Fields) != 2 {
		t.Fatalf("%+v", def)
	}
	if a, b := def.Fields[0], def.Fields[1]; a.IsOptional || a.ValueRank != -1 || !b.IsOptional || b.ValueRank != 1 || b.Description.Text != "b" || b.DataType.String() != "i=22" {
		t.Errorf("fields %+v, %+v", a, b)
	}
}

// What the generator does not understand must not be left out in silence.
func TestBuildRefuses(t *testing.T) {
	node := func(s string) []byte { return document(s) }
	for want, doc := range map[string][]byte{
		"EOF":                            []byte("<UANodeSet>"),
		"unknown attribute Historizing":  variable(`Historizing="true"`, ""),
		"unknown element RolePermission": variable("", "<RolePermissions/>"),
		"DisplayName":                    node(`<UAObjectType NodeId="i=9" BrowseName="X"/>`),
		"not numeric":                    node(`<UAObjectType NodeId="s=x" BrowseName="X"><DisplayName>X</DisplayName></UAObjectType>`),
		"there twice":                    node(`<UADataType NodeId="i=11" BrowseName="X"><DisplayName>X</DisplayName></UADataType>`),
		"unknown element UAThing":        node(`<UAThing NodeId="i=9" BrowseName="X"><DisplayName>X</DisplayName></UAThing>`),
		"have a type definition":         node(`<UAObject NodeId="i=9" BrowseName="X"><DisplayName>X</DisplayName></UAObject>`),
		"which is not there":             variable("", `<References><Reference ReferenceType="i=45">i=99</Reference></References>`),
		"more than one supertype": node(`<UADataType NodeId="i=9" BrowseName="X"><DisplayName>X</DisplayName><References>
			<Reference ReferenceType="HasSubtype" IsForward="false">i=11</Reference><Reference ReferenceType="HasSubtype" IsForward="false">i=22</Reference></References></UADataType>`),
		"more than one type definition":        variable("", `<References><Reference ReferenceType="HasTypeDefinition">i=22</Reference></References>`),
		"ValueRank":                            variable(`ValueRank="x"`, ""),
		"ArrayDimensions":                      variable(`ArrayDimensions="1,,2"`, ""),
		"AccessLevel":                          variable(`AccessLevel="256"`, ""),
		"unknown kind of value Float":          variable("", "<Value><Float>1</Float></Value>"),
		"Value has 2 elements":                 variable("", "<Value><Int32>1</Int32><Int32>1</Int32></Value>"),
		"out of range":                         variable("", "<Value><Int32>2147483648</Int32></Value>"),
		"unknown String":                       variable("", "<Value><ListOfInt32><String>1</String></ListOfInt32></Value>"),
		"unknown structure Range":              variable("", "<Value><ExtensionObject><Body><Range/></Body></ExtensionObject></Value>"),
		"has no Body":                          variable("", "<Value><ExtensionObject/></Value>"),
		"lacks Name":                           variable("", "<Value><ExtensionObject><Body><Argument/></Body></ExtensionObject></Value>"),
		"has two Name":                         variable("", "<Value><ExtensionObject><Body><Argument><Name/><Name/></Argument></Body></ExtensionObject></Value>"),
		"lacks Value":                          variable("", "<Value><ExtensionObject><Body><EnumValueType/></Body></ExtensionObject></Value>"),
		"lacks NamespaceUri":                   variable("", "<Value><ExtensionObject><Body><EUInformation/></Body></ExtensionObject></Value>"),
		"there is no data type i=99":           dataType(`<Definition><Field Name="A" DataType="i=99"/></Definition>`),
		"optional fields together":             dataType(`<Definition IsUnion="true"><Field Name="A" DataType="Double" IsOptional="true"/></Definition>`),
		"in Definition: unknown attribute New": dataType(`<Definition New="1"/>`),
		"field A: unknown attributes":          dataType(`<Definition><Field Name="A" New="1"/></Definition>`),
		"neither structure":                    node(`<UADataType NodeId="i=9" BrowseName="X"><DisplayName>X</DisplayName><Definition/></UADataType>`),
	} {
		if _, err := build(doc); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("want %q: %v", want, err)
		}
	}
}
