package wire

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"reflect"
	"testing"
	"time"

	"github.com/gopcua/opcua/ua"
)

// filler fills structures with random values that both codecs can hold.
type filler struct {
	r *rand.Rand
	// extensions are the structures that ExtensionObjects are filled with.
	extensions []reflect.Type
}

func (f *filler) text() string {
	return []string{"", "a", "Zustand", "圧力", "http://example.com/UA/"}[f.r.IntN(5)]
}

func (f *filler) time() time.Time {
	if f.r.IntN(5) == 0 {
		return time.Time{}
	}
	return time.Unix(f.r.Int64N(4e9), f.r.Int64N(1e7)*100).UTC()
}

func (f *filler) bytes() []byte {
	if f.r.IntN(4) == 0 {
		return nil
	}
	b := make([]byte, 1+f.r.IntN(20))
	for i := range b {
		b[i] = byte(f.r.Uint32())
	}
	return b
}

func (f *filler) guid() string {
	return fmt.Sprintf("%08X-%04X-%04X-%04X-%012X", f.r.Uint32(), f.r.Uint32()&0xffff, f.r.Uint32()&0xffff, f.r.Uint32()&0xffff, f.r.Uint64()&0xffffffffffff)
}

func (f *filler) nodeID() *ua.NodeID {
	ns := uint16(f.r.Uint32())
	switch f.r.IntN(6) {
	case 0:
		return ua.NewTwoByteNodeID(byte(ns))
	case 1:
		return ua.NewFourByteNodeID(byte(ns), uint16(f.r.Uint32()))
	case 2:
		return ua.NewNumericNodeID(ns, f.r.Uint32())
	case 3:
		return ua.NewGUIDNodeID(ns, f.guid())
	case 4:
		return ua.NewByteStringNodeID(ns, f.bytes())
	}
	return ua.NewStringNodeID(ns, "a"+f.text())
}

func (f *filler) expandedNodeID() *ua.ExpandedNodeID {
	return ua.NewExpandedNodeID(f.nodeID(), f.text(), uint32(f.r.IntN(3)))
}

func (f *filler) localizedText() *ua.LocalizedText {
	return ua.NewLocalizedTextWithLocale(f.text(), f.text())
}

func (f *filler) diagnosticInfo(depth int) *ua.DiagnosticInfo {
	d := new(ua.DiagnosticInfo)
	if depth < 4 && f.r.IntN(3) == 0 {
		*d = ua.DiagnosticInfo{
			SymbolicID: f.r.Int32(), NamespaceURI: f.r.Int32(), Locale: f.r.Int32(), LocalizedText: f.r.Int32(),
			AdditionalInfo: f.text(), InnerStatusCode: ua.StatusCode(f.r.Uint32()), InnerDiagnosticInfo: f.diagnosticInfo(depth + 1),
		}
		d.UpdateMask()
	}
	return d
}

func (f *filler) extensionObject(depth int) *ua.ExtensionObject {
	if depth > 3 || f.r.IntN(3) == 0 {
		return ua.NewExtensionObject(nil)
	}
	v := reflect.New(f.extensions[f.r.IntN(len(f.extensions))])
	f.fill(v.Elem(), depth+1)
	if b, err := ua.Encode(v.Interface()); err != nil || len(b) == 0 {
		return ua.NewExtensionObject(nil) // ua reads an empty body as none
	}
	return ua.NewExtensionObject(v.Interface())
}

func (f *filler) dataValue(depth int) *ua.DataValue {
	v := &ua.DataValue{
		Value: f.variant(depth + 1), Status: ua.StatusCode(f.r.Uint32()), SourceTimestamp: f.time(), ServerTimestamp: f.time(),
		SourcePicoseconds: uint16(f.r.IntN(3)), ServerPicoseconds: uint16(f.r.IntN(3)),
	}
	v.UpdateMask()
	return v
}

func (f *filler) scalar(depth int) any {
	choice := f.r.IntN(25)
	if depth > 3 {
		choice = f.r.IntN(20)
	}
	switch choice {
	case 0:
		return f.r.IntN(2) == 0
	case 1:
		return int8(f.r.Uint32())
	case 2:
		return byte(f.r.Uint32())
	case 3:
		return int16(f.r.Uint32())
	case 4:
		return uint16(f.r.Uint32())
	case 5:
		return f.r.Int32()
	case 6:
		return f.r.Uint32()
	case 7:
		return f.r.Int64()
	case 8:
		return f.r.Uint64()
	case 9:
		return f.r.Float32()
	case 10:
		return f.r.NormFloat64()
	case 11:
		return f.text()
	case 12:
		return f.time()
	case 13:
		return ua.NewGUID(f.guid())
	case 14:
		return f.bytes()
	case 15:
		return ua.XMLElement(f.text())
	case 16:
		return f.nodeID()
	case 17:
		return f.expandedNodeID()
	case 18:
		return ua.StatusCode(f.r.Uint32())
	case 19:
		return &ua.QualifiedName{NamespaceIndex: uint16(f.r.Uint32()), Name: f.text()}
	case 20:
		return f.localizedText()
	case 21:
		return f.extensionObject(depth + 1)
	case 22:
		return f.dataValue(depth + 1)
	case 23:
		return f.variant(depth + 1)
	}
	return f.diagnosticInfo(depth + 1)
}

func (f *filler) variant(depth int) *ua.Variant {
	shape := f.r.IntN(10)
	if shape == 0 {
		return new(ua.Variant)
	}
	v := f.scalar(depth)
	if _, ok := v.([]byte); ok || shape < 6 {
		// ua encodes arrays of ByteString without their elements;
		// TestByteStringArray has them.
		return ua.MustVariant(v)
	}
	// An array of the same value, and a matrix of such arrays.
	typ := reflect.TypeOf(v)
	sliceType := reflect.SliceOf(typ)
	if typ.Kind() == reflect.Uint8 {
		sliceType = reflect.TypeFor[ua.ByteArray]()
	}
	row := reflect.MakeSlice(sliceType, 0, 3)
	for range f.r.IntN(4) {
		row = reflect.Append(row, reflect.ValueOf(v))
	}
	if shape < 8 || row.Len() == 0 {
		return ua.MustVariant(row.Interface())
	}
	return ua.MustVariant(reflect.Append(reflect.MakeSlice(reflect.SliceOf(sliceType), 0, 2), row, row).Interface())
}

func (f *filler) fill(v reflect.Value, depth int) {
	switch v.Interface().(type) {
	case *ua.NodeID:
		v.Set(reflect.ValueOf(f.nodeID()))
	case *ua.ExpandedNodeID:
		v.Set(reflect.ValueOf(f.expandedNodeID()))
	case *ua.LocalizedText:
		v.Set(reflect.ValueOf(f.localizedText()))
	case *ua.DiagnosticInfo:
		v.Set(reflect.ValueOf(f.diagnosticInfo(depth)))
	case *ua.ExtensionObject:
		v.Set(reflect.ValueOf(f.extensionObject(depth)))
	case *ua.DataValue:
		v.Set(reflect.ValueOf(f.dataValue(depth)))
	case *ua.Variant:
		v.Set(reflect.ValueOf(f.variant(depth)))
	case *ua.GUID:
		v.Set(reflect.ValueOf(ua.NewGUID(f.guid())))
	case time.Time:
		v.Set(reflect.ValueOf(f.time()))
	case []byte:
		v.SetBytes(f.bytes())
	default:
		f.fillKind(v, depth)
	}
}

func (f *filler) fillKind(v reflect.Value, depth int) {
	switch v.Kind() {
	case reflect.Bool:
		v.SetBool(f.r.IntN(2) == 0)
	case reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		v.SetInt(f.r.Int64() >> (64 - v.Type().Bits()))
	case reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		v.SetUint(f.r.Uint64() >> (64 - v.Type().Bits()))
	case reflect.Float32, reflect.Float64:
		v.SetFloat(float64(f.r.Float32()))
	case reflect.String:
		v.SetString(f.text())
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		f.fill(v.Elem(), depth+1)
	case reflect.Slice:
		n := f.r.IntN(4) - 1
		if n < 0 {
			return
		}
		v.Set(reflect.MakeSlice(v.Type(), n, n))
		for i := range n {
			f.fill(v.Index(i), depth+1)
		}
	case reflect.Struct:
		for i := range v.NumField() {
			f.fill(v.Field(i), depth+1)
		}
	default:
		panic("cannot fill " + v.Type().String())
	}
}

// highestExtensionID is above every id that ua registers.
const highestExtensionID = 40_000

// allExtensions lists every structure that an ExtensionObject may have.
func allExtensions() (types []reflect.Type) {
	seen := map[reflect.Type]bool{}
	for i := range uint32(highestExtensionID) {
		if t := extensionType(ua.NewNumericNodeID(0, i)); t != nil && !seen[t] {
			seen[t] = true
			types = append(types, t)
		}
	}
	return types
}

// TestRoundTrip proves, for every service message and every structure that an
// ExtensionObject can carry, that this package and ua agree on the bytes, both
// ways.
func TestRoundTrip(t *testing.T) {
	extensions := allExtensions()
	if len(extensions) < 250 {
		t.Fatalf("found only %d registered structures", len(extensions))
	}
	types := extensions
	for _, m := range messages {
		types = append(types, reflect.TypeOf(m).Elem())
	}
	const seeds = 10
	for _, typ := range types {
		for seed := range uint64(seeds) {
			f := &filler{rand.New(rand.NewPCG(seed, 1)), extensions}
			v := reflect.New(typ)
			f.fill(v.Elem(), 0)
			want, err := ua.Encode(v.Interface())
			if err != nil {
				t.Fatalf("%s seed %d: ua.Encode: %v", typ, seed, err)
			}
			got, err := Append([]byte("x"), v.Interface())
			if err != nil {
				t.Fatalf("%s seed %d: Append: %v", typ, seed, err)
			}
			if !bytes.Equal(got[1:], want) {
				t.Fatalf("%s seed %d: encoded\n% x, ua has\n% x", typ, seed, got[1:], want)
			}
			back := reflect.New(typ)
			if err := Decode(want, back.Interface(), Limits{}); err != nil {
				t.Fatalf("%s seed %d: Decode: %v\n% x", typ, seed, err, want)
			}
			again, err := ua.Encode(back.Interface())
			if err != nil || !bytes.Equal(again, want) {
				t.Fatalf("%s seed %d: decoded differently (%v):\n% x, want\n% x", typ, seed, err, again, want)
			}
		}
	}
}

// TestRequests proves that DecodeRequest and AppendMessage fit together and
// agree with ua, type id included.
func TestRequests(t *testing.T) {
	f := &filler{rand.New(rand.NewPCG(7, 7)), allExtensions()}
	for _, m := range messages {
		v := reflect.New(reflect.TypeOf(m).Elem())
		f.fill(v.Elem(), 0)
		b, err := AppendMessage(nil, v.Interface())
		if err != nil {
			t.Fatalf("%T: %v", m, err)
		}
		_, theirs, err := ua.DecodeService(b)
		if err != nil || reflect.TypeOf(theirs) != reflect.TypeOf(m) {
			t.Fatalf("ua decodes %T as %T: %v", m, theirs, err)
		}
		req, err := DecodeRequest(b, Limits{})
		if _, ok := m.(ua.Request); !ok {
			if req != nil || !errors.Is(err, ua.StatusBadServiceUnsupported) {
				t.Errorf("%T is taken for a request: %v, %v", m, req, err)
			}
			continue
		}
		if err != nil || reflect.TypeOf(req) != reflect.TypeOf(m) {
			t.Fatalf("%T: decoded as %T: %v", m, req, err)
		}
		again, err := AppendMessage(nil, req)
		if err != nil || !bytes.Equal(again, b) {
			t.Fatalf("%T: % x, want % x (%v)", m, again, b, err)
		}
	}
}
