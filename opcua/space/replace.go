package space

import (
	"reflect"
	"unicode/utf8"

	"github.com/gopcua/opcua/ua"
)

// replace returns a value with a part of it replaced, as a Write with an index range asks for. The part is of the value's type, has
// as many dimensions, and is of the size of the range, all of which has to be there: a write makes nothing longer (Part 4 §7.27).
// Neither argument is modified.
func replace(value, part *ua.Variant, spans Range) (*ua.Variant, ua.StatusCode) {
	switch {
	case value == nil || value.Value() == nil:
		return nil, ua.StatusBadIndexRangeNoData
	case part.Type() != value.Type() || part.Value() == nil:
		return nil, ua.StatusBadTypeMismatch
	}
	whole, status := put(reflect.ValueOf(value.Value()), reflect.ValueOf(part.Value()), spans)
	if status != ua.StatusOK {
		return nil, status
	}
	v, err := ua.NewVariant(whole.Interface())
	if err != nil {
		// ua.NewVariant takes no array of byte strings of different lengths; the whole value can still be written.
		return nil, ua.StatusBadWriteNotSupported
	}
	return v, ua.StatusOK
}

// put returns v with what lies within spans replaced by part.
func put(v, part reflect.Value, spans Range) (reflect.Value, ua.StatusCode) {
	if v.Type() == byteStringType || v.Kind() == reflect.String {
		return putString(v, part, spans)
	}
	if v.Kind() != reflect.Slice {
		return v, ua.StatusBadIndexRangeNoData
	}
	if part.Type() != v.Type() {
		return v, ua.StatusBadTypeMismatch
	}
	lo, hi, ok := spans[0].inside(v.Len())
	elem := v.Type().Elem()
	if !ok || len(spans) == 1 && elem.Kind() == reflect.Slice && elem != byteStringType {
		return v, ua.StatusBadIndexRangeNoData // Beyond the end, or fewer dimensions than the array has.
	}
	if part.Len() != hi-lo {
		return v, statusBadIndexRangeDataMismatch
	}
	out := reflect.MakeSlice(v.Type(), v.Len(), v.Len())
	reflect.Copy(out, v)
	if len(spans) == 1 {
		reflect.Copy(out.Slice(lo, hi), part)
		return out, ua.StatusOK
	}
	for i := lo; i < hi; i++ {
		e, status := put(v.Index(i), part.Index(i-lo), spans[1:])
		if status != ua.StatusOK {
			return v, status
		}
		out.Index(i).Set(e)
	}
	return out, ua.StatusOK
}

// putString replaces characters of a string, or bytes of a byte string.
func putString(v, part reflect.Value, spans Range) (reflect.Value, ua.StatusCode) {
	if len(spans) != 1 {
		return v, ua.StatusBadIndexRangeNoData
	}
	if part.Type() != v.Type() {
		return v, ua.StatusBadTypeMismatch
	}
	if v.Kind() == reflect.Slice {
		lo, hi, ok := spans[0].inside(v.Len())
		switch {
		case !ok:
			return v, ua.StatusBadIndexRangeNoData
		case part.Len() != hi-lo:
			return v, statusBadIndexRangeDataMismatch
		}
		out := reflect.MakeSlice(v.Type(), v.Len(), v.Len())
		reflect.Copy(out, v)
		reflect.Copy(out.Slice(lo, hi), part)
		return out, ua.StatusOK
	}
	text := []rune(v.String())
	lo, hi, ok := spans[0].inside(len(text))
	switch {
	case !ok:
		return v, ua.StatusBadIndexRangeNoData
	case utf8.RuneCountInString(part.String()) != hi-lo:
		return v, statusBadIndexRangeDataMismatch
	}
	return reflect.ValueOf(string(text[:lo]) + part.String() + string(text[hi:])).Convert(v.Type()), ua.StatusOK
}

// inside returns the half-open range of indexes, and whether all of them are below length.
func (p span) inside(length int) (lo, hi int, ok bool) {
	if uint64(p.hi) >= uint64(length) {
		return 0, 0, false
	}
	return int(p.lo), int(p.hi) + 1, true
}
