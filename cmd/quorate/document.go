package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"sort"
	"strings"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/reflect/protoreflect"

	quoratev1 "quorate/proto/quorate/v1"
)

// maxDocumentBytes bounds a topology document before it is parsed. A member has a limit of its own, on the parsed form.
const maxDocumentBytes = 4 << 20

// An error is one line that people read, however large the document is.
const (
	// maxQuoted is how many characters of a wrong key or value an error shows.
	maxQuoted = 64
	// maxParserText is how many characters it shows of what the parser says, which quotes as well.
	maxParserText = 256
	// maxProblems is how many wrong fields it names.
	maxProblems = 16
)

// readTopology reads a topology document, in YAML or JSON, from a file or, for "-", from standard input.
func readTopology(stdin io.Reader, name string) (*quoratev1.Topology, error) {
	if name == "" {
		return nil, errors.New("--file: missing; name a topology document, or - for standard input")
	}
	source := stdin
	if name != "-" {
		file, err := os.Open(name)
		if err != nil {
			return nil, fmt.Errorf("--file: %w", err)
		}
		defer closeQuietly(file)
		source = file
	}
	raw, err := io.ReadAll(io.LimitReader(source, maxDocumentBytes+1))
	if err != nil {
		return nil, fmt.Errorf("--file %s: %w", name, err)
	}
	if len(raw) > maxDocumentBytes {
		return nil, fmt.Errorf("--file %s: longer than %d bytes", name, maxDocumentBytes)
	}
	topology, err := parseTopology(raw)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return topology, nil
}

// parseTopology parses a document whose schema is the protobuf message. JSON is YAML too, so there is one way for both.
// Keys are snake_case or lowerCamelCase, as protobuf's JSON form has it; any other key is an error that names it.
func parseTopology(raw []byte) (*quoratev1.Topology, error) {
	tree, err := parseYAML(raw)
	if err != nil {
		return nil, fmt.Errorf("not a YAML or JSON document: %s", clip(err.Error(), maxParserText))
	}
	if tree == nil {
		return nil, errors.New("the topology document is empty")
	}
	topology := &quoratev1.Topology{}
	var problems []string
	checkMessage("", tree, topology.ProtoReflect().Descriptor(), &problems)
	if more := len(problems) - maxProblems; more > 0 {
		problems = append(problems[:maxProblems], fmt.Sprintf("and %d more", more))
	}
	if len(problems) > 0 {
		return nil, errors.New(strings.Join(problems, "; "))
	}
	asJSON, err := json.Marshal(tree)
	if err != nil {
		return nil, fmt.Errorf("not a topology document: %w", err)
	}
	if err := protojson.Unmarshal(asJSON, topology); err != nil {
		return nil, fmt.Errorf("not a topology document: %w", err)
	}
	return topology, nil
}

// parseYAML parses one YAML document, nil where there is nothing in it. A key given twice and a second document are errors:
// either would be silently dropped.
func parseYAML(raw []byte) (any, error) {
	decoder := yaml.NewDecoder(bytes.NewReader(raw))
	var tree, more any
	if err := decoder.Decode(&tree); err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	if err := decoder.Decode(&more); !errors.Is(err, io.EOF) {
		return nil, errors.New("more than one document")
	}
	return tree, nil
}

// checkMessage compares the tree with the message's fields, so that every wrong key and value is named by its path. The
// parser behind it would name one, by its place in a text that the user never saw.
func checkMessage(path string, tree any, message protoreflect.MessageDescriptor, problems *[]string) {
	if tree == nil {
		return
	}
	fields, ok := tree.(map[string]any)
	if !ok {
		*problems = append(*problems, fmt.Sprintf("%s: must be a mapping, got %s", orTop(path), describe(tree)))
		return
	}
	keys := make([]string, 0, len(fields))
	for key := range fields {
		keys = append(keys, key)
	}
	sort.Strings(keys)
	for _, key := range keys {
		at := join(path, clip(key, maxQuoted))
		field := message.Fields().ByJSONName(key)
		if field == nil {
			field = message.Fields().ByTextName(key)
		}
		if field == nil {
			*problems = append(*problems, fmt.Sprintf("%s: unknown key, known are %s", at, knownKeys(message)))
			continue
		}
		checkField(at, fields[key], field, problems)
	}
}

func checkField(path string, value any, field protoreflect.FieldDescriptor, problems *[]string) {
	if !field.IsList() {
		checkValue(path, value, field, problems)
		return
	}
	if value == nil {
		return
	}
	list, ok := value.([]any)
	if !ok {
		*problems = append(*problems, fmt.Sprintf("%s: must be a list, got %s", path, describe(value)))
		return
	}
	for i, element := range list {
		at := fmt.Sprintf("%s[%d]", path, i)
		if element == nil {
			*problems = append(*problems, at+": is empty")
			continue
		}
		checkValue(at, element, field, problems)
	}
}

func checkValue(path string, value any, field protoreflect.FieldDescriptor, problems *[]string) {
	if value == nil {
		return
	}
	switch field.Kind() {
	case protoreflect.MessageKind:
		checkMessage(path, value, field.Message(), problems)
	case protoreflect.StringKind:
		if _, ok := value.(string); !ok {
			*problems = append(*problems, fmt.Sprintf("%s: must be text, got %s", path, describe(value)))
		}
	case protoreflect.Uint32Kind:
		if n, ok := value.(int); !ok || n < 0 || n > math.MaxUint32 {
			*problems = append(*problems, fmt.Sprintf("%s: must be a number from 0 to %d, got %s", path, uint32(math.MaxUint32), describe(value)))
		}
	}
}

func orTop(path string) string {
	if path == "" {
		return "the document"
	}
	return path
}

func describe(value any) string {
	switch v := value.(type) {
	case map[string]any, map[any]any:
		return "a mapping"
	case []any:
		return "a list"
	case string:
		return fmt.Sprintf("the text %q", clip(v, maxQuoted))
	default:
		return fmt.Sprint(v)
	}
}

// clip cuts a text of a document or of its parser, which may be as long as the document, to what fits into an error.
func clip(text string, limit int) string {
	if shown := []rune(text[:min(len(text), (limit+1)*utf8.UTFMax)]); len(shown) > limit {
		return string(shown[:limit]) + "…"
	}
	return text
}

func knownKeys(message protoreflect.MessageDescriptor) string {
	names := make([]string, message.Fields().Len())
	for i := range names {
		names[i] = message.Fields().Get(i).TextName()
	}
	return strings.Join(names, ", ")
}

// formatTopology writes a topology as the document that readTopology reads, with the names that the schema has.
func formatTopology(topology *quoratev1.Topology, format string) ([]byte, error) {
	raw, err := protojson.MarshalOptions{UseProtoNames: true}.Marshal(topology)
	if err != nil {
		return nil, fmt.Errorf("write the topology: %w", err)
	}
	var text bytes.Buffer
	if format != outputJSON {
		format = outputYAML
	}
	if err := writeDocument(&text, format, raw); err != nil {
		return nil, err
	}
	return text.Bytes(), nil
}
