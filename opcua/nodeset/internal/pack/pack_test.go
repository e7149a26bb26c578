package pack

import (
	"bytes"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var sample = []Node{
	{ID: 1, Class: 64, BrowseName: "Boolean", DisplayName: "Boolean", Description: "äöü", IsAbstract: true, Definition: "\x00def"},
	{ID: 35, Class: 32, BrowseName: "Organizes", DisplayName: "Organizes", InverseName: "OrganizedBy", Symmetric: true, References: []Reference{{45, false, 33}}},
	{
		ID: 2267, Class: 2, BrowseName: "ServiceLevel", DisplayName: "ServiceLevel", TypeDefinition: 68, DataType: 3, ValueRank: -1, AccessLevel: 1,
		SamplingMillis: 1000, Value: "\x03\xff", NoValue: true, References: []Reference{{46, false, 2253}, {40, true, 68}, {46, true, 65535}},
	},
	{ID: 11314, Class: 2, BrowseName: "ServerUriArray", DisplayName: "Boolean", ValueRank: 1, ArrayDimensions: []uint32{0, 4000000000}},
	{ID: 65535, Class: 4, BrowseName: "M", DisplayName: "M", ValueRank: -3, ArrayDimensions: []uint32{}, Executable: true, EventNotifier: 1},
}

func TestEncodeAndOpen(t *testing.T) {
	b, err := Encode(sample)
	if err != nil {
		t.Fatal(err)
	}
	f, err := Open(string(b))
	if err != nil {
		t.Fatal(err)
	}
	if f.Len() != len(sample) {
		t.Fatalf("%d nodes, want %d", f.Len(), len(sample))
	}
	for i, want := range sample {
		if j, ok := f.Index(want.ID); j != i || !ok || f.ID(i) != want.ID {
			t.Errorf("index of i=%d is %d, %v, want %d", want.ID, j, ok, i)
		}
		got := f.Node(i)
		for j := range f.References(i) {
			got.References = append(got.References, f.Reference(i, j))
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("i=%d: %s", want.ID, diff)
		}
	}
	for _, id := range []uint16{0, 2, 36, 65534} {
		if _, ok := f.Index(id); ok {
			t.Errorf("i=%d is there", id)
		}
	}
	again, err := Encode(sample)
	if err != nil || !bytes.Equal(b, again) {
		t.Error("equal nodes give different files")
	}
}

func TestEncodeRefuses(t *testing.T) {
	if _, err := Encode([]Node{{ID: 2}, {ID: 2}}); err == nil {
		t.Error("an id that is there twice is accepted")
	}
	n := Node{ID: 1}
	for i := range maxTypes + 1 {
		n.References = append(n.References, Reference{Type: uint16(i)})
	}
	if _, err := Encode([]Node{n}); err == nil {
		t.Errorf("more than %d reference types are accepted", maxTypes)
	}
	n.References = n.References[:maxTypes]
	if _, err := Encode([]Node{n}); err != nil {
		t.Errorf("%d reference types: %v", maxTypes, err)
	}
}

func TestOpenRefusesWhatIsCutOff(t *testing.T) {
	b, err := Encode(sample)
	if err != nil {
		t.Fatal(err)
	}
	for n := range len(b) {
		if _, err := Open(string(b[:n])); err == nil {
			t.Fatalf("cut off after %d of %d bytes, and accepted", n, len(b))
		}
	}
	if _, err := Open("UANODES\x02" + string(b[8:])); err == nil {
		t.Error("another version is accepted")
	}
}
