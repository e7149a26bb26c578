package opcua

import (
	"encoding/json"
	"fmt"
	"math"
	"reflect"
	"strings"
	"time"

	"github.com/gopcua/opcua/ua"

	"quorate/opcua/wire"
)

// ReadingOf makes a Reading of a value, under the name that the caller has for its node.
func ReadingOf(node string, v *ua.DataValue) Reading {
	r := Reading{Node: node, Status: statusName(v.Status)}
	if v.Value != nil {
		r.Value = plain(v.Value.Value())
	}
	r.SourceTimestamp, r.ServerTimestamp = instant(v.SourceTimestamp), instant(v.ServerTimestamp)
	return r
}

// lastInstant is the latest that JSON has a text for, and the standard's own end of time (Part 6 §5.2.2.5).
var lastInstant = time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC)

// instant is nil for the null DateTime, and the end of time for what is beyond it.
func instant(t time.Time) *time.Time {
	switch {
	case t.IsZero():
		return nil
	case t.After(lastInstant):
		return &lastInstant
	}
	return &t
}

// standardNames undoes gopcua's spelling of the standard's names.
var standardNames = strings.NewReplacer("ID", "Id", "URI", "Uri", "URL", "Url", "TCP", "Tcp")

// statusName is the standard's name of a status code (Part 6 annex A.2), without the info bits.
func statusName(s ua.StatusCode) string {
	const infoBits = 0xFFFF
	if s &^= infoBits; s == ua.StatusOK {
		return "Good"
	}
	return standardNames.Replace(wire.StatusName(s))
}

// plain turns a value of a Variant into what JSON, and people, can take.
func plain(v any) any {
	switch x := v.(type) {
	case nil:
		return nil
	case string, bool, int8, byte, int16, uint16, int32, uint32, int64, uint64, []byte, []string:
		return x
	case float32:
		return number(float64(x))
	case float64:
		return number(x)
	case time.Time:
		if at := instant(x); at != nil {
			return *at
		}
		return nil
	case ua.StatusCode:
		return statusName(x)
	case *ua.LocalizedText:
		return x.Text
	case *ua.QualifiedName:
		return fmt.Sprintf("%d:%s", x.NamespaceIndex, x.Name)
	case *ua.NodeID:
		return x.String()
	case *ua.ExpandedNodeID:
		return x.String()
	case *ua.GUID:
		return x.String()
	case ua.XMLElement:
		return string(x)
	case *ua.ExtensionObject:
		return structure(x)
	case *ua.DataValue:
		return ReadingOf("", x)
	case *ua.Variant:
		return plain(x.Value())
	}
	if list := reflect.ValueOf(v); list.Kind() == reflect.Slice {
		all := make([]any, list.Len())
		for i := range all {
			all[i] = plain(list.Index(i).Interface())
		}
		return all
	}
	return fmt.Sprint(v)
}

// number keeps what JSON has no number for as a word.
func number(f float64) any {
	if math.IsNaN(f) || math.IsInf(f, 0) {
		return fmt.Sprint(f)
	}
	return f
}

// structure gives the fields of a structure, if its type is known here.
func structure(x *ua.ExtensionObject) any {
	if x == nil || x.Value == nil {
		return nil
	}
	if _, err := json.Marshal(x.Value); err != nil {
		return fmt.Sprintf("%T", x.Value)
	}
	return x.Value
}
