package main

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/gopcua/opcua/ua"
)

// value turns the Value element of a variable into a Variant in the binary encoding.
func value(e *element) (string, error) {
	if len(e.Children) != 1 {
		return "", fmt.Errorf("the Value has %d elements, want 1", len(e.Children))
	}
	v, err := decode(&e.Children[0])
	if err != nil {
		return "", err
	}
	variant, err := ua.NewVariant(v)
	if err != nil {
		return "", err
	}
	b, err := variant.Encode()
	return string(b), err
}

// decode reads a value in the XML encoding (Part 6 §5.3) of the types that namespace 0 uses.
func decode(e *element) (any, error) {
	switch e.XMLName.Local {
	case "Boolean":
		return strconv.ParseBool(e.trimmed())
	case "Int32":
		return integer[int32](e)
	case "UInt32":
		return integer[uint32](e)
	case "String":
		return e.Text, nil
	case "DateTime":
		return time.Parse(time.RFC3339, e.trimmed())
	case "LocalizedText":
		return localText(e)
	case "ExtensionObject":
		return extension(e)
	case "ListOfInt32":
		return list(e, "Int32", integer[int32])
	case "ListOfString":
		return list(e, "String", func(e *element) (string, error) { return e.Text, nil })
	case "ListOfLocalizedText":
		return list(e, "LocalizedText", localText)
	case "ListOfExtensionObject":
		return list(e, "ExtensionObject", extension)
	}
	return nil, fmt.Errorf("unknown kind of value %s", e.XMLName.Local)
}

func list[T any](e *element, name string, item func(*element) (T, error)) ([]T, error) {
	if err := e.only(name); err != nil {
		return nil, err
	}
	out := make([]T, len(e.Children))
	for i := range e.Children {
		var err error
		if out[i], err = item(&e.Children[i]); err != nil {
			return nil, err
		}
	}
	return out, nil
}

func integer[T int32 | uint32 | int64](e *element) (T, error) {
	n, err := strconv.ParseInt(e.trimmed(), 10, 64)
	if err == nil && int64(T(n)) != n {
		err = fmt.Errorf("%s: %d is out of range", e.XMLName.Local, n)
	}
	return T(n), err
}

// localText reads a LocalizedText; a missing element is the empty text.
func localText(e *element) (*ua.LocalizedText, error) {
	if e == nil {
		return &ua.LocalizedText{}, nil
	}
	if err := e.only("Locale", "Text"); err != nil {
		return nil, err
	}
	var locale, words string
	for _, c := range e.Children {
		if c.XMLName.Local == "Locale" {
			locale = c.trimmed()
		} else {
			words = c.trimmed()
		}
	}
	return ua.NewLocalizedTextWithLocale(words, locale), nil
}

// extension reads an ExtensionObject of one of the structures that namespace 0 has values of.
func extension(e *element) (*ua.ExtensionObject, error) {
	body, err := e.child("Body")
	if err != nil {
		return nil, err
	}
	if len(body.Children) != 1 {
		return nil, fmt.Errorf("the Body has %d elements, want 1", len(body.Children))
	}
	var v any
	switch s := &body.Children[0]; s.XMLName.Local {
	case "Argument":
		v, err = argument(s)
	case "EnumValueType":
		v, err = enumValue(s)
	case "EUInformation":
		v, err = engineeringUnit(s)
	default:
		err = fmt.Errorf("unknown structure %s", s.XMLName.Local)
	}
	if err != nil {
		return nil, err
	}
	return ua.NewExtensionObject(v), nil
}

// fields returns the children of those names, in that order; children of other names are an error, absent ones are nil.
func fields(e *element, names ...string) ([]*element, error) {
	if err := e.only(names...); err != nil {
		return nil, err
	}
	out := make([]*element, len(names))
	for i, name := range names {
		var err error
		if out[i], err = e.optional(name); err != nil {
			return nil, err
		}
	}
	return out, nil
}

func argument(e *element) (*ua.Argument, error) {
	f, err := fields(e, "Name", "DataType", "ValueRank", "ArrayDimensions", "Description")
	if err != nil {
		return nil, err
	}
	if f[0] == nil || f[1] == nil || f[2] == nil {
		return nil, fmt.Errorf("an Argument lacks Name, DataType or ValueRank")
	}
	a := &ua.Argument{Name: f[0].trimmed()}
	id, err := f[1].child("Identifier")
	if err != nil {
		return nil, err
	}
	if a.DataType, err = ua.ParseNodeID(id.trimmed()); err != nil {
		return nil, err
	}
	if a.ValueRank, err = integer[int32](f[2]); err != nil {
		return nil, err
	}
	if f[3] != nil && len(f[3].Children) > 0 {
		if a.ArrayDimensions, err = list(f[3], "UInt32", integer[uint32]); err != nil {
			return nil, err
		}
	}
	a.Description, err = localText(f[4])
	return a, err
}

func enumValue(e *element) (*ua.EnumValueType, error) {
	f, err := fields(e, "Value", "DisplayName", "Description")
	if err != nil {
		return nil, err
	}
	if f[0] == nil {
		return nil, fmt.Errorf("an EnumValueType lacks Value")
	}
	v := &ua.EnumValueType{}
	if v.Value, err = integer[int64](f[0]); err != nil {
		return nil, err
	}
	if v.DisplayName, err = localText(f[1]); err != nil {
		return nil, err
	}
	v.Description, err = localText(f[2])
	return v, err
}

func engineeringUnit(e *element) (*ua.EUInformation, error) {
	f, err := fields(e, "NamespaceUri", "UnitId", "DisplayName", "Description")
	if err != nil {
		return nil, err
	}
	if f[0] == nil || f[1] == nil {
		return nil, fmt.Errorf("an EUInformation lacks NamespaceUri or UnitId")
	}
	u := &ua.EUInformation{NamespaceURI: strings.TrimSpace(f[0].Text)}
	if u.UnitID, err = integer[int32](f[1]); err != nil {
		return nil, err
	}
	if u.DisplayName, err = localText(f[2]); err != nil {
		return nil, err
	}
	u.Description, err = localText(f[3])
	return u, err
}
