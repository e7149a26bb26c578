package server

import (
	"encoding/hex"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/gopcua/opcua/ua"
)

// maxConvertedText bounds, in bytes, a text that is converted to a number, a date or a Guid: none is longer.
const maxConvertedText = 64

// bounded is a text that is short enough to be parsed, or one that is nothing.
func bounded(s string) string {
	if len(s) > maxConvertedText {
		return ""
	}
	return s
}

func toBoolean(v any) (any, bool) {
	if s, ok := v.(string); ok {
		switch s {
		case "true", "1":
			return true, true
		case "false", "0":
			return false, true
		}
		return nil, false
	}
	f, ok := toFloat(v, doubleT)
	return f != 0.0, ok
}

func toFloat(v any, to ua.TypeID) (any, bool) {
	var f float64
	switch x := v.(type) {
	case float32:
		f = float64(x)
	case float64:
		f = x
	case string:
		var err error
		if f, err = strconv.ParseFloat(bounded(x), 64); err != nil {
			return nil, false
		}
	default:
		n, ok := integerOf(v)
		if !ok {
			return nil, false
		}
		if f = float64(n.abs); n.negative {
			f = -f
		}
	}
	if to == doubleT {
		return f, true
	}
	narrow := float32(f)
	return narrow, math.IsInf(f, 0) || !math.IsInf(float64(narrow), 0)
}

// integer is any whole number of up to 64 bits.
type integer struct {
	negative bool
	abs      uint64
}

func signed(n int64) integer {
	if n < 0 {
		return integer{true, -uint64(n)}
	}
	return integer{abs: uint64(n)}
}

// integerOf is the whole number that a value is, or is rounded to.
func integerOf(v any) (integer, bool) {
	switch x := v.(type) {
	case bool:
		if x {
			return integer{abs: 1}, true
		}
		return integer{}, true
	case int8:
		return signed(int64(x)), true
	case int16:
		return signed(int64(x)), true
	case int32:
		return signed(int64(x)), true
	case int64:
		return signed(x), true
	case uint8:
		return integer{abs: uint64(x)}, true
	case uint16:
		return integer{abs: uint64(x)}, true
	case uint32:
		return integer{abs: uint64(x)}, true
	case uint64:
		return integer{abs: x}, true
	case ua.StatusCode:
		return integer{abs: uint64(x)}, true
	case float32:
		return rounded(float64(x))
	case float64:
		return rounded(x)
	case string:
		if n, err := strconv.ParseInt(bounded(x), 10, 64); err == nil {
			return signed(n), true
		}
		n, err := strconv.ParseUint(bounded(x), 10, 64)
		return integer{abs: n}, err == nil
	}
	return integer{}, false
}

// rounded adds a half and cuts off what is behind the point, as Part 4 §7.7.3 says.
func rounded(f float64) (integer, bool) {
	f = math.Floor(f + 0.5)
	switch {
	case f >= 0 && f < 1<<64:
		return integer{abs: uint64(f)}, true
	case f < 0 && f >= -1<<63:
		return integer{true, uint64(-f)}, true
	}
	return integer{}, false
}

// toInteger converts to whole numbers and status codes. What is out of range has no conversion.
func toInteger(v any, to ua.TypeID) (any, bool) {
	n, ok := integerOf(v)
	if !ok {
		return nil, false
	}
	fits := func(least, most uint64) bool { return n.negative && n.abs <= least || !n.negative && n.abs <= most }
	i := int64(n.abs)
	if n.negative {
		i = -i
	}
	_, isCode := v.(ua.StatusCode)
	switch to {
	case sbyteT:
		return int8(i), fits(1<<7, math.MaxInt8)
	case byteT:
		return uint8(i), fits(0, math.MaxUint8)
	case int16T:
		return int16(i), fits(1<<15, math.MaxInt16)
	case uint16T:
		if isCode { // The upper half says what the status is (Part 4 §7.7.3).
			return uint16(n.abs >> 16), true
		}
		return uint16(i), fits(0, math.MaxUint16)
	case int32T:
		if isCode {
			return int32(uint32(n.abs)), true
		}
		return int32(i), fits(1<<31, math.MaxInt32)
	case uint32T:
		return uint32(i), fits(0, math.MaxUint32)
	case int64T:
		return i, fits(1<<63, math.MaxInt64)
	case uint64T:
		return n.abs, fits(0, math.MaxUint64)
	case statusT:
		if _, half := v.(uint16); half {
			return ua.StatusCode(n.abs << 16), true
		}
		if x, bits := v.(int32); bits {
			return ua.StatusCode(uint32(x)), true
		}
		return ua.StatusCode(n.abs), fits(0, math.MaxUint32)
	}
	return nil, false
}

func toText(v any) (any, bool) {
	switch x := v.(type) {
	case bool:
		return strconv.FormatBool(x), true
	case float32:
		return strconv.FormatFloat(float64(x), 'g', -1, 32), true
	case float64:
		return strconv.FormatFloat(x, 'g', -1, 64), true
	case time.Time:
		return x.UTC().Format(time.RFC3339Nano), true
	case *ua.GUID:
		return x.String(), true
	case []byte:
		return strings.ToUpper(hex.EncodeToString(x)), true
	case *ua.NodeID:
		return x.String(), true
	case *ua.ExpandedNodeID:
		return farText(x), true
	case *ua.LocalizedText:
		return x.Text, true
	case *ua.QualifiedName:
		return x.Name, true
	}
	n, ok := integerOf(v)
	s := strconv.FormatUint(n.abs, 10)
	if n.negative {
		s = "-" + s
	}
	return s, ok
}

// farText is the syntax of Part 6 §5.3.1.11.
func farText(x *ua.ExpandedNodeID) string {
	var s strings.Builder
	if x.ServerIndex != 0 {
		s.WriteString("svr=" + strconv.FormatUint(uint64(x.ServerIndex), 10) + ";")
	}
	id := ""
	if x.NodeID != nil {
		id = x.NodeID.String()
	}
	if x.NamespaceURI != "" {
		if _, rest, ok := strings.Cut(id, ";"); ok && strings.HasPrefix(id, "ns=") {
			id = rest
		}
		s.WriteString("nsu=" + strings.NewReplacer("%", "%25", ";", "%3B").Replace(x.NamespaceURI) + ";")
	}
	return s.String() + id
}

func toGUID(v any) (any, bool) {
	s, ok := v.(string)
	if !ok {
		b := v.([]byte)
		g := new(ua.GUID)
		if len(b) != 16 {
			return nil, false
		}
		_, err := g.Decode(b)
		return g, err == nil
	}
	g := ua.NewGUID(bounded(s))
	return g, g != nil
}

func toNode(v any, to ua.TypeID) (any, bool) {
	switch x := v.(type) {
	case *ua.NodeID:
		return &ua.ExpandedNodeID{NodeID: x}, true
	case *ua.ExpandedNodeID:
		return x.NodeID, x.NodeID != nil && x.NamespaceURI == "" && x.ServerIndex == 0
	case string:
		n, err := ua.ParseNodeID(x)
		if err != nil {
			return nil, false
		}
		if to == nodeT {
			return n, true
		}
		return &ua.ExpandedNodeID{NodeID: n}, true
	}
	return nil, false
}
