package rpc

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/grpc-ecosystem/grpc-gateway/v2/runtime"
	"github.com/grpc-ecosystem/grpc-gateway/v2/utilities"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// How the text of a REST request becomes a message. What is not understood is an error that names its field, wherever it
// stands: ignored, it would be answered with something else than was asked for.

// maxQuoted bounds how much of what a caller sent is shown to it again, in bytes.
const maxQuoted = 64

// The fields of errors that no field of the message has.
const (
	fieldBody  = "body"
	fieldQuery = "query"
)

// fieldMark ends the field in the text of a marked error. The generated code keeps nothing of an error but its text, and
// such a character is always quoted where it is of what a caller sent.
const fieldMark = "\x00"

func mark(err error) error {
	var wrong *invalidError
	if errors.As(err, &wrong) {
		return errors.New(wrong.field + fieldMark + wrong.message)
	}
	return err
}

// restError gives what the gateway itself refuses the details that every other refusal of an argument has.
func restError(ctx context.Context, mux *runtime.ServeMux, m runtime.Marshaler, w http.ResponseWriter, r *http.Request, err error) {
	if st := status.Convert(err); st.Code() == codes.InvalidArgument && len(st.Details()) == 0 {
		if field, message, ok := strings.Cut(st.Message(), fieldMark); ok {
			st, _ = toStatus(invalid(field, "%s", message))
		} else {
			st = newStatus(failure{code: codes.InvalidArgument, reason: ReasonInvalidArgument}, st.Message(), nil)
		}
		err = st.Err()
	}
	runtime.DefaultHTTPErrorHandler(ctx, mux, m, w, r, err)
}

// readQueriesStrictly sets the parser of queries. The gateway keeps it in a variable of the package, so that it is set once
// and not with each server, while another one may be reading it.
var readQueriesStrictly = sync.OnceFunc(func() {
	runtime.NewServeMux(runtime.SetQueryParameterParser(strictQuery{}))
})

// strictQuery refuses what the gateway's own parser ignores.
type strictQuery struct{ known runtime.DefaultQueryParser }

// Parse implements runtime.QueryParameterParser.
func (s strictQuery) Parse(message proto.Message, values url.Values, filter *utilities.DoubleArray) error {
	return mark(s.parse(message, values, filter))
}

func (s strictQuery) parse(message proto.Message, values url.Values, filter *utilities.DoubleArray) error {
	seen := make(map[string]bool)
	for _, key := range slices.Sorted(maps.Keys(values)) {
		path, field := queryField(message.ProtoReflect().Descriptor(), key)
		switch {
		case field == nil:
			return unknownParameter(key)
		case filter.HasCommonPrefix(strings.Split(path, ".")):
			return invalid(path, "stands in the path already")
		case seen[path] || len(values[key]) > 1 && !field.IsList():
			return invalid(path, "is given more than once")
		}
		seen[path] = true
		if err := s.known.Parse(message, url.Values{key: values[key]}, filter); err != nil {
			return mistyped(path, field, strings.Join(values[key], ", "))
		}
	}
	return nil
}

// queryField finds the field of a key such as read.maxStaleness, and its path as all errors have it; nil where there is none.
func queryField(message protoreflect.MessageDescriptor, key string) (string, protoreflect.FieldDescriptor) {
	var path []string
	var field protoreflect.FieldDescriptor
	for name := range strings.SplitSeq(key, ".") {
		if field != nil && (field.Message() == nil || field.IsList()) {
			return "", nil
		}
		if field != nil {
			message = field.Message()
		}
		if field = fieldNamed(message, name); field == nil {
			return "", nil
		}
		path = append(path, string(field.Name()))
	}
	return strings.Join(path, "."), field
}

func fieldNamed(message protoreflect.MessageDescriptor, name string) protoreflect.FieldDescriptor {
	if field := message.Fields().ByTextName(name); field != nil {
		return field
	}
	return message.Fields().ByJSONName(name)
}

// mistyped says that a value is not of its field's type. A secret is not shown, not even to whoever sent it: answers end up in logs.
func mistyped(path string, field protoreflect.FieldDescriptor, value string) error {
	if secret(field) {
		return invalid(path, "must be of type %s", typeName(field))
	}
	return invalid(path, "must be of type %s, got %s", typeName(field), quoted(value))
}

// queriedDeletes are the paths below which a DELETE says by its query what its path does not; it has no body.
var queriedDeletes = []string{"/v1/partitions/", "/v1/instances/"}

// refuseQuery refuses any query of a call whose fields are all in its body or its path: nothing reads it.
func refuseQuery(r *http.Request) error {
	below := func(path string) bool { return strings.HasPrefix(r.URL.Path, path) }
	if r.Method == http.MethodGet || r.Method == http.MethodDelete && slices.ContainsFunc(queriedDeletes, below) || r.URL.RawQuery == "" {
		return nil
	}
	values, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil || len(values) == 0 {
		return invalid(fieldQuery, "%s takes none", r.Method)
	}
	return unknownParameter(slices.Sorted(maps.Keys(values))[0])
}

func unknownParameter(key string) error {
	if nameLike(key) {
		return invalid(key, "no such parameter")
	}
	return invalid(fieldQuery, "no such parameter: %s", quoted(key))
}

// nameLike says whether what a caller sent may stand where the name of a field stands.
func nameLike(key string) bool {
	for _, c := range key {
		if (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && c != '_' && c != '.' {
			return false
		}
	}
	return key != "" && len(key) <= maxQuoted
}

func quoted(text string) string {
	if len(text) > maxQuoted {
		return strconv.QuoteToASCII(text[:maxQuoted]) + "…"
	}
	return strconv.QuoteToASCII(text)
}

func typeName(field protoreflect.FieldDescriptor) string {
	switch {
	case field.Message() != nil:
		return string(field.Message().FullName())
	case field.Enum() != nil:
		return string(field.Enum().FullName())
	}
	return field.Kind().String()
}

// jsonForm is the JSON of proto3. Its decoder says which field it could not read.
type jsonForm struct{ *runtime.JSONPb }

// NewDecoder implements runtime.Marshaler. The body is bounded by Server.rest.
func (*jsonForm) NewDecoder(body io.Reader) runtime.Decoder {
	return runtime.DecoderFunc(func(into any) error { return mark(readBody(body, into)) })
}

func readBody(body io.Reader, into any) error {
	message, ok := into.(proto.Message)
	if !ok {
		return fmt.Errorf("rpc: a body is read into a message, not into %T", into)
	}
	raw, err := io.ReadAll(body)
	if err != nil {
		return invalid(fieldBody, "%v", err)
	}
	if len(bytes.TrimSpace(raw)) == 0 {
		return io.EOF // A body that is not there is an empty message.
	}
	if err := protojson.Unmarshal(raw, message); err != nil {
		return misreadJSON(message.ProtoReflect().Type(), "", raw)
	}
	return nil
}

// misreadJSON finds the first field, in order of their names, that makes an object unreadable: it reads each by itself.
// What is wrong with the parser's own word is that it names a place in the text, in a form that changes.
func misreadJSON(message protoreflect.MessageType, path string, raw []byte) error {
	var object map[string]json.RawMessage
	if err := json.Unmarshal(raw, &object); err != nil || object == nil {
		if path == "" {
			return invalid(fieldBody, "is not a JSON object")
		}
		return invalid(path, "must be a JSON object, got %s", quoted(string(raw)))
	}
	for _, key := range slices.Sorted(maps.Keys(object)) {
		field := fieldNamed(message.Descriptor(), key)
		if field == nil && !nameLike(key) {
			return invalid(orBody(path), "unknown field %s", quoted(key))
		}
		if field == nil {
			return invalid(joinPath(path, key), "unknown field")
		}
		at := joinPath(path, string(field.Name()))
		if err := readField(message, field, object[key]); err != nil {
			return misreadField(message, field, at, object[key])
		}
	}
	// Each is readable alone: there are two of one, as a key that is there twice or under both of its names.
	return invalid(orBody(path), "a field is given more than once, or is not text in UTF-8")
}

// readField reads one field as if the object had no other.
func readField(message protoreflect.MessageType, field protoreflect.FieldDescriptor, raw json.RawMessage) error {
	alone, err := json.Marshal(map[string]json.RawMessage{field.TextName(): raw})
	if err != nil {
		return err
	}
	return protojson.Unmarshal(alone, message.New().Interface())
}

// misreadField goes on into the elements of a list and the fields of a message of ours.
func misreadField(message protoreflect.MessageType, field protoreflect.FieldDescriptor, path string, raw json.RawMessage) error {
	var elements []json.RawMessage
	if field.IsList() && json.Unmarshal(raw, &elements) == nil {
		for i, element := range elements {
			list, err := json.Marshal([]json.RawMessage{element})
			if err != nil || readField(message, field, list) == nil {
				continue
			}
			return misreadValue(message, field, fmt.Sprintf("%s[%d]", path, i), element)
		}
	}
	if field.IsList() {
		return invalid(path, "must be a list, got %s", quoted(string(raw)))
	}
	return misreadValue(message, field, path, raw)
}

func misreadValue(message protoreflect.MessageType, field protoreflect.FieldDescriptor, path string, raw json.RawMessage) error {
	if field.Message() != nil && field.Message().ParentFile().Package() == message.Descriptor().ParentFile().Package() {
		return misreadJSON(elementType(message, field), path, raw)
	}
	return mistyped(path, field, string(raw))
}

func elementType(message protoreflect.MessageType, field protoreflect.FieldDescriptor) protoreflect.MessageType {
	value := message.New().NewField(field)
	if field.IsList() {
		return value.List().NewElement().Message().Type()
	}
	return value.Message().Type()
}

func joinPath(path, name string) string {
	if path == "" {
		return name
	}
	return path + "." + name
}

func orBody(path string) string {
	if path == "" {
		return fieldBody
	}
	return path
}
