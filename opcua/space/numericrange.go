package space

import (
	"reflect"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/gopcua/opcua/ua"
)

// MaxRangeDimensions bounds the dimensions of an index range; more make it invalid. Arrays of more are not used in
// practice.
const MaxRangeDimensions = 8

// maxIndexDigits is the length of the largest index, 4294967295.
const maxIndexDigits = 10

// span is one dimension of a NumericRange: the indexes from lo to hi, both included.
type span struct{ lo, hi uint32 }

// Range is a NumericRange: one span for each dimension.
type Range []span

// ParseRange reads a NumericRange such as "2", "0:9" or "1:2,0:3" (Part 4 §7.27). ok is false if it is not one: "1:1",
// "2:1", signs and blanks are not.
func ParseRange(s string) (spans Range, ok bool) {
	for part := range strings.SplitSeq(s, ",") {
		if len(spans) == MaxRangeDimensions {
			return nil, false
		}
		low, high, isSpan := strings.Cut(part, ":")
		lo, ok := parseIndex(low)
		if !ok {
			return nil, false
		}
		hi := lo
		if isSpan {
			if hi, ok = parseIndex(high); !ok || hi <= lo {
				return nil, false
			}
		}
		spans = append(spans, span{lo, hi})
	}
	return spans, true
}

func parseIndex(s string) (uint32, bool) {
	if s == "" || len(s) > maxIndexDigits || s[0] < '0' || s[0] > '9' { // ParseUint alone would refuse signs too, but say so here.
		return 0, false
	}
	n, err := strconv.ParseUint(s, 10, 32)
	return uint32(n), err == nil
}

// Slice returns the part of an array, string or byte string that a range asks for. The result has as many
// dimensions as the value. A range may reach beyond the end; if nothing at all lies within it, or its dimensions are
// not the value's, there is no data. For arrays of strings a last dimension may cut the strings themselves (Part 4
// §7.27).
func (r Range) Slice(v *ua.Variant) (*ua.Variant, ua.StatusCode) {
	if v == nil || v.Value() == nil {
		return nil, ua.StatusBadIndexRangeNoData
	}
	part, ok := cut(reflect.ValueOf(v.Value()), r)
	if !ok {
		return nil, ua.StatusBadIndexRangeNoData
	}
	va, err := ua.NewVariant(part.Interface())
	if err != nil {
		// ua.NewVariant takes no array of byte strings of different lengths; the whole value can still be read.
		return nil, ua.StatusBadIndexRangeNoData
	}
	return va, ua.StatusOK
}

// slice is Range.Slice of a range that has yet to be read.
func slice(v *ua.Variant, indexRange string) (*ua.Variant, ua.StatusCode) {
	r, ok := ParseRange(indexRange)
	if !ok {
		return nil, ua.StatusBadIndexRangeInvalid
	}
	return r.Slice(v)
}

var byteStringType = reflect.TypeFor[[]byte]()

// cut applies spans to a value; ok is false if nothing lies within them.
func cut(v reflect.Value, spans Range) (part reflect.Value, ok bool) {
	if v.Type() == byteStringType || v.Kind() == reflect.String {
		return cutString(v, spans)
	}
	if v.Kind() != reflect.Slice {
		return reflect.Value{}, false
	}
	lo, hi, ok := spans[0].within(v.Len())
	if !ok {
		return reflect.Value{}, false
	}
	if len(spans) == 1 {
		elem := v.Type().Elem()
		if elem.Kind() == reflect.Slice && elem != byteStringType {
			return reflect.Value{}, false // Fewer dimensions than the array has.
		}
		return v.Slice3(lo, hi, hi), true
	}
	out := reflect.MakeSlice(v.Type(), hi-lo, hi-lo)
	found := false
	for i := lo; i < hi; i++ {
		if e, ok := cut(v.Index(i), spans[1:]); ok {
			out.Index(i - lo).Set(e)
			found = true
		}
	}
	return out, found
}

// cutString cuts a string by characters, and a byte string by bytes.
func cutString(v reflect.Value, spans Range) (part reflect.Value, ok bool) {
	if len(spans) != 1 {
		return reflect.Value{}, false
	}
	if v.Kind() == reflect.Slice {
		lo, hi, ok := spans[0].within(v.Len())
		if !ok {
			return reflect.Value{}, false
		}
		return v.Slice3(lo, hi, hi), true
	}
	s := v.String()
	lo, hi, ok := spans[0].within(utf8.RuneCountInString(s))
	if !ok {
		return reflect.Value{}, false
	}
	from, to, n := len(s), len(s), 0
	for i := range s {
		if n == lo {
			from = i
		}
		if n == hi {
			to = i
			break
		}
		n++
	}
	return reflect.ValueOf(s[from:to]).Convert(v.Type()), true
}

// within returns the half-open range of indexes below length, and whether there are any.
func (p span) within(length int) (lo, hi int, ok bool) {
	if uint64(p.lo) >= uint64(length) {
		return 0, 0, false
	}
	return int(p.lo), int(min(uint64(p.hi)+1, uint64(length))), true
}
