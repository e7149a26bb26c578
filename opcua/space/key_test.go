package space

import (
	"slices"
	"testing"

	"github.com/gopcua/opcua/ua"
)

func TestKeyIsTheNodeID(t *testing.T) {
	for _, text := range []string{
		"i=0", "i=85", "i=11314", "i=4294967295", "ns=2;i=7", "ns=300;i=7", "ns=1;i=70000",
		"s=", "ns=2;s=line-a", "ns=2;g=09087E75-8E5E-499B-954F-F2A9603DB28A", "ns=3;b=AQID",
	} {
		id, err := ua.ParseNodeID(text)
		if err != nil {
			t.Fatal(err)
		}
		k := KeyOf(id)
		if got := k.NodeID().String(); got != id.String() || k.String() != id.String() {
			t.Errorf("%s: back as %s, printed as %s", text, got, k)
		}
		if KeyOf(k.NodeID()) != k {
			t.Errorf("%s: its key does not survive the way there and back", text)
		}
	}
}

func TestKeyIgnoresTheEncoding(t *testing.T) {
	want := NumericKey(0, 85)
	for _, id := range []*ua.NodeID{ua.NewTwoByteNodeID(85), ua.NewFourByteNodeID(0, 85), ua.NewNumericNodeID(0, 85)} {
		if KeyOf(id) != want {
			t.Errorf("%v (type %v) has another key", id, id.Type())
		}
	}
	if got := want.NodeID().Type(); got != ua.NodeIDTypeTwoByte {
		t.Errorf("i=85 is encoded as %v, want the shortest", got)
	}
	if NumericKey(1, 5) == NumericKey(2, 5) || StringKey(1, "5") == NumericKey(1, 5) {
		t.Error("different ids have one key")
	}
}

func TestKeyIsNull(t *testing.T) {
	for text, want := range map[string]bool{
		"i=0": true, "s=": true, "b=": true, "g=00000000-0000-0000-0000-000000000000": true,
		"i=1": false, "ns=1;i=0": false, "s=a": false, "g=00000000-0000-0000-0000-000000000001": false,
	} {
		if got := KeyOf(ua.MustParseNodeID(text)).IsNull(); got != want {
			t.Errorf("%s: IsNull is %v", text, got)
		}
	}
	if !KeyOf(nil).IsNull() {
		t.Error("nil is not null")
	}
}

func TestKeyCompareOrders(t *testing.T) {
	want := []Key{NumericKey(0, 2), NumericKey(0, 10), StringKey(0, "a"), StringKey(0, "b"), NumericKey(1, 1)}
	got := []Key{want[4], want[3], want[1], want[2], want[0]}
	slices.SortFunc(got, Key.Compare)
	if !slices.Equal(got, want) {
		t.Errorf("sorted: %v, want %v", got, want)
	}
}

func TestKeyAccessors(t *testing.T) {
	if id, ok := NumericKey(3, 9).Numeric(); id != 9 || !ok {
		t.Error("Numeric of a numeric key")
	}
	if _, ok := StringKey(3, "x").Numeric(); ok {
		t.Error("a string key is not numeric")
	}
	if s, ok := StringKey(3, "x").Text(); s != "x" || !ok {
		t.Error("Text of a string key")
	}
	if _, ok := KeyOf(ua.NewByteStringNodeID(3, []byte("x"))).Text(); ok {
		t.Error("an opaque key has no text")
	}
	if StringKey(3, "x").Namespace() != 3 {
		t.Error("Namespace")
	}
}
