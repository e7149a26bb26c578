package wire

import (
	"fmt"
	"reflect"
	"sync"
	"time"

	"github.com/gopcua/opcua/ua"
)

// Least sizes on the wire, in bytes, of the types whose least size is not one.
const (
	minString        = 4
	minGUID          = 16
	minNodeID        = 2
	minQualifiedName = 6
	minExtension     = 3
)

// plan is how values of one type are coded.
type plan struct {
	min int // least size on the wire, in bytes
	mem int // size in memory of the value itself, for the memory budget
	dec func(d *decoder, v reflect.Value)
	enc func(b []byte, v reflect.Value) ([]byte, error)
}

// plans keeps every plan that was made: reflect.Type → *plan. The types are those of
// ua, so their number is bounded.
var plans sync.Map

var (
	typeByteString = reflect.TypeFor[[]byte]()
	typeTime       = reflect.TypeFor[time.Time]()
)

// planOf gives the plan of a type. It panics for a type that cannot be coded,
// which a test excludes for every type that can come from outside.
func planOf(t reflect.Type) *plan {
	if p, ok := plans.Load(t); ok {
		return p.(*plan)
	}
	p, _ := plans.LoadOrStore(t, makePlan(t))
	return p.(*plan)
}

func makePlan(t reflect.Type) *plan {
	if p, ok := builtinPlans[t]; ok {
		return p
	}
	switch t.Kind() {
	case reflect.Struct:
		return structPlan(t)
	case reflect.Pointer:
		return pointerPlan(t)
	case reflect.Slice:
		return slicePlan(t)
	}
	if p, ok := kindPlans[t.Kind()]; ok {
		return p
	}
	panic(fmt.Sprintf("wire: no encoding for %s", t))
}

// builtin makes the plan of a pointer to a built-in type, which is coded by hand.
func builtin[T any](minSize int, dec func(*decoder) *T, enc func([]byte, *T) ([]byte, error)) *plan {
	return &plan{
		min: minSize,
		dec: func(d *decoder, v reflect.Value) { v.Set(reflect.ValueOf(dec(d))) },
		enc: func(b []byte, v reflect.Value) ([]byte, error) { return enc(b, v.Interface().(*T)) },
	}
}

// sure adapts an append function that cannot fail.
func sure[T any](enc func([]byte, T) []byte) func([]byte, T) ([]byte, error) {
	return func(b []byte, v T) ([]byte, error) { return enc(b, v), nil }
}

var builtinPlans map[reflect.Type]*plan

// The table refers to functions that refer to the table, so it is filled here.
func init() {
	builtinPlans = map[reflect.Type]*plan{
		reflect.TypeFor[*ua.NodeID]():          builtin(minNodeID, (*decoder).newNodeID, appendNodeID),
		reflect.TypeFor[*ua.ExpandedNodeID]():  builtin(minNodeID, (*decoder).newExpandedNodeID, appendExpandedNodeID),
		reflect.TypeFor[*ua.QualifiedName]():   builtin(minQualifiedName, (*decoder).newQualifiedName, sure(appendQualifiedName)),
		reflect.TypeFor[*ua.LocalizedText]():   builtin(1, (*decoder).newLocalizedText, sure(appendLocalizedText)),
		reflect.TypeFor[*ua.Variant]():         builtin(1, (*decoder).newVariant, appendVariant),
		reflect.TypeFor[*ua.DataValue]():       builtin(1, (*decoder).newDataValue, appendDataValue),
		reflect.TypeFor[*ua.DiagnosticInfo]():  builtin(1, (*decoder).newDiagnosticInfo, sure(appendDiagnosticInfo)),
		reflect.TypeFor[*ua.ExtensionObject](): builtin(minExtension, (*decoder).newExtensionObject, appendExtensionObject),
		reflect.TypeFor[*ua.GUID]():            builtin(minGUID, (*decoder).newGUID, appendGUID),
		reflect.TypeFor[*ua.RequestHeader]():   builtin(minRequestHeader, (*decoder).newRequestHeader, appendRequestHeader),
		reflect.TypeFor[*ua.ResponseHeader]():  builtin(minResponseHeader, (*decoder).newResponseHeader, appendResponseHeader),
		typeTime: {
			min: 8,
			dec: func(d *decoder, v reflect.Value) { v.Set(reflect.ValueOf(d.time())) },
			enc: func(b []byte, v reflect.Value) ([]byte, error) {
				return appendTime(b, v.Interface().(time.Time)), nil
			},
		},
		typeByteString: {
			min: minString,
			dec: func(d *decoder, v reflect.Value) { v.SetBytes(d.byteString()) },
			enc: func(b []byte, v reflect.Value) ([]byte, error) { return appendByteString(b, v.Bytes()), nil },
		},
	}
}

// fixed makes the plan of a kind of number.
func fixed(size int, dec func(*decoder, reflect.Value), enc func([]byte, reflect.Value) []byte) *plan {
	return &plan{min: size, dec: dec, enc: sure(enc)}
}

// kindPlans codes basic kinds, and so all enumerations.
var kindPlans = map[reflect.Kind]*plan{
	reflect.Bool: fixed(1,
		func(d *decoder, v reflect.Value) { v.SetBool(d.boolean()) },
		func(b []byte, v reflect.Value) []byte { return appendBool(b, v.Bool()) }),
	reflect.Int8: fixed(1,
		func(d *decoder, v reflect.Value) { v.SetInt(int64(int8(d.u8()))) },
		func(b []byte, v reflect.Value) []byte { return append(b, byte(v.Int())) }),
	reflect.Uint8: fixed(1,
		func(d *decoder, v reflect.Value) { v.SetUint(uint64(d.u8())) },
		func(b []byte, v reflect.Value) []byte { return append(b, byte(v.Uint())) }),
	reflect.Int16: fixed(2,
		func(d *decoder, v reflect.Value) { v.SetInt(int64(int16(d.u16()))) },
		func(b []byte, v reflect.Value) []byte { return appendU16(b, uint16(v.Int())) }),
	reflect.Uint16: fixed(2,
		func(d *decoder, v reflect.Value) { v.SetUint(uint64(d.u16())) },
		func(b []byte, v reflect.Value) []byte { return appendU16(b, uint16(v.Uint())) }),
	reflect.Int32: fixed(4,
		func(d *decoder, v reflect.Value) { v.SetInt(int64(int32(d.u32()))) },
		func(b []byte, v reflect.Value) []byte { return appendU32(b, uint32(v.Int())) }),
	reflect.Uint32: fixed(4,
		func(d *decoder, v reflect.Value) { v.SetUint(uint64(d.u32())) },
		func(b []byte, v reflect.Value) []byte { return appendU32(b, uint32(v.Uint())) }),
	reflect.Int64: fixed(8,
		func(d *decoder, v reflect.Value) { v.SetInt(int64(d.u64())) },
		func(b []byte, v reflect.Value) []byte { return appendU64(b, uint64(v.Int())) }),
	reflect.Uint64: fixed(8,
		func(d *decoder, v reflect.Value) { v.SetUint(d.u64()) },
		func(b []byte, v reflect.Value) []byte { return appendU64(b, v.Uint()) }),
	reflect.Float32: fixed(4,
		func(d *decoder, v reflect.Value) { v.SetFloat(float64(d.f32())) },
		func(b []byte, v reflect.Value) []byte { return appendF32(b, float32(v.Float())) }),
	reflect.Float64: fixed(8,
		func(d *decoder, v reflect.Value) { v.SetFloat(d.f64()) },
		func(b []byte, v reflect.Value) []byte { return appendF64(b, v.Float()) }),
	reflect.String: fixed(minString,
		func(d *decoder, v reflect.Value) { v.SetString(d.str()) },
		func(b []byte, v reflect.Value) []byte { return appendString(b, v.String()) }),
}

func structPlan(t reflect.Type) *plan {
	type field struct {
		name string
		plan *plan
	}
	p := &plan{mem: int(t.Size())}
	fields := make([]field, t.NumField())
	for i := range fields {
		f := planOf(t.Field(i).Type)
		fields[i] = field{t.Field(i).Name, f}
		p.min += f.min
	}
	p.dec = func(d *decoder, v reflect.Value) {
		for i, f := range fields {
			f.plan.dec(d, v.Field(i))
			if d.failed {
				d.within(f.name)
				return
			}
		}
	}
	p.enc = func(b []byte, v reflect.Value) ([]byte, error) {
		var err error
		for i, f := range fields {
			if b, err = f.plan.enc(b, v.Field(i)); err != nil {
				return b, fmt.Errorf("%s: %w", f.name, err)
			}
		}
		return b, nil
	}
	return p
}

// pointerPlan codes a pointer as what it points to; nil as its zero value.
func pointerPlan(t reflect.Type) *plan {
	elem := t.Elem()
	to := planOf(elem)
	return &plan{
		min: to.min,
		dec: func(d *decoder, v reflect.Value) {
			if d.charge(to.mem) {
				p := reflect.New(elem)
				to.dec(d, p.Elem())
				v.Set(p)
			}
		},
		enc: func(b []byte, v reflect.Value) ([]byte, error) {
			if v.IsNil() {
				return to.enc(b, reflect.Zero(elem))
			}
			return to.enc(b, v.Elem())
		},
	}
}

func slicePlan(t reflect.Type) *plan {
	p := &plan{min: minString}
	elem := planOf(t.Elem())
	p.enc = func(b []byte, v reflect.Value) ([]byte, error) {
		b, err := appendCount(b, v.Len(), v.IsNil())
		for i := 0; i < v.Len() && err == nil; i++ {
			b, err = elem.enc(b, v.Index(i))
		}
		return b, err
	}
	if _, ok := builtinPlans[t.Elem()]; !ok && t.Elem().Kind() == reflect.Pointer {
		p.dec = decodeStructs(t)
		return p
	}
	memSize := int(t.Elem().Size())
	p.dec = func(d *decoder, v reflect.Value) {
		n := d.count(elem.min, memSize)
		if n < 0 {
			return
		}
		s := reflect.MakeSlice(t, n, n)
		for i := 0; i < n && !d.failed; i++ {
			elem.dec(d, s.Index(i))
		}
		v.Set(s)
	}
	return p
}

// decodeStructs decodes a slice of pointers to structures, which are allocated
// together.
func decodeStructs(t reflect.Type) func(*decoder, reflect.Value) {
	typ := t.Elem().Elem()
	to := planOf(typ)
	block := reflect.SliceOf(typ)
	return func(d *decoder, v reflect.Value) {
		n := d.count(to.min, sizePointer+to.mem)
		if n < 0 {
			return
		}
		s, structs := reflect.MakeSlice(t, n, n), reflect.MakeSlice(block, n, n)
		for i := 0; i < n && !d.failed; i++ {
			to.dec(d, structs.Index(i))
			s.Index(i).Set(structs.Index(i).Addr())
		}
		v.Set(s)
	}
}
