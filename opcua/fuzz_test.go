package opcua

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/gopcua/opcua/ua"

	"quorate/opcua/wire"
)

// Whatever a server answers, it can be shown as JSON.
func FuzzReading(f *testing.F) {
	for _, v := range []any{
		byte(255), []string{"a", ""}, 1.5, ua.NewLocalizedText("x"), ua.NewExtensionObject(&ua.RedundantServerDataType{ServerID: "m1"}),
		ua.NewExtensionObject(&ua.ServerStatusDataType{}), []*ua.Variant{ua.MustVariant(int8(1))}, ua.NewStringNodeID(2, "x"), []byte("bytes"),
		time.Date(20000, 1, 1, 0, 0, 0, 0, time.UTC),
	} {
		b, err := wire.Append(nil, &ua.DataValue{EncodingMask: ua.DataValueValue | ua.DataValueStatusCode, Value: ua.MustVariant(v), Status: 0x480})
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		var v ua.DataValue
		if err := wire.Decode(b, &v, wire.DefaultLimits); err != nil {
			return
		}
		r := ReadingOf("n", &v)
		if _, err := json.Marshal(r); err != nil {
			t.Errorf("%+v: %v", r, err)
		}
		if r.Status == "" {
			t.Errorf("%+v has no status", r)
		}
	})
}

func FuzzParseNode(f *testing.F) {
	for _, s := range []string{"ServiceLevel", "i=2267", "ns=2;s=servers/m1/Role", "ns=1;g=5ac1750b-1e32-4b0d-8b5a-5b5b5b5b5b5b", "b=AA==", "="} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		n, err := ParseNode(s)
		if (err == nil) == (n == nil) {
			t.Errorf("%v, %v", n, err)
		}
	})
}
