package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	quoratev1 "quorate/proto/quorate/v1"
)

const plantYAML = `
sets:
  - id: line-a
    mode: WARM
    policies: {max_servers: 2}
    servers:
      - {member: m1, application_uri: "urn:a", endpoint_url: "opc.tcp://127.0.0.1:1", role: Primary}
      - {member: m2, applicationUri: "urn:b", endpointUrl: "opc.tcp://127.0.0.1:2", role: Backup}
`

func TestParsesYAMLAndJSONAlike(t *testing.T) {
	fromYAML, err := parseTopology([]byte(plantYAML))
	if err != nil {
		t.Fatal(err)
	}
	for _, format := range []string{outputYAML, outputJSON} {
		document, err := formatTopology(fromYAML, format)
		if err != nil {
			t.Fatal(err)
		}
		again, err := parseTopology(document)
		if err != nil {
			t.Fatalf("%s: %v", format, err)
		}
		if !proto.Equal(fromYAML, again) {
			t.Errorf("%s comes back as\n%v\nwant\n%v", format, again, fromYAML)
		}
	}
	if got := fromYAML.GetSets()[0].GetServers()[1].GetApplicationUri(); got != "urn:b" {
		t.Errorf("application_uri %q", got)
	}
}

func TestDocumentErrorsNameTheField(t *testing.T) {
	for _, test := range []struct{ document, want string }{
		{"", "the topology document is empty"},
		{"null", "the topology document is empty"},
		{"a: [", "not a YAML or JSON document"},
		{"[1]", "the document: must be a mapping, got a list"},
		{"sets: 3", "sets: must be a list, got 3"},
		{"sets: [null]", "sets[0]: is empty"},
		{"sets: [{id: a, mod: WARM}]", "sets[0].mod: unknown key, known are id, mode, policies, servers"},
		{"sets: [{id: 7}]", "sets[0].id: must be text, got 7"},
		{"sets: [{servers: [{member: m1, rol: x}, {member: m2, port: 1}]}]", "sets[0].servers[0].rol: unknown key"},
		{"sets: [{servers: [{member: m1, rol: x}, {member: m2, port: 1}]}]", "sets[0].servers[1].port: unknown key"},
		{"sets: [{id: a, id: b}]", `mapping key "id" already defined`},
		{"sets: [{policies: {max_servers: -1}}]", "sets[0].policies.max_servers: must be a number from 0 to 4294967295, got -1"},
		{"sets: [{policies: {max_servers: two}}]", "sets[0].policies.max_servers: must be a number"},
		{"sets: []\n---\nsets: []\n", "not a YAML or JSON document"},
	} {
		_, err := parseTopology([]byte(test.document))
		if err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%q: error %v, want %q", test.document, err, test.want)
		}
	}
}

// Whatever is wrong with a long document, the error is a line that people can read.
func TestDocumentErrorsAreShort(t *testing.T) {
	long := strings.Repeat("ä", 2000)
	cut := strings.Repeat("ä", maxQuoted) + "…"
	for _, test := range []struct{ document, want string }{
		{long, "the document: must be a mapping, got the text \"" + strings.Repeat("ä", maxQuoted) + "…\""},
		{"sets: " + long[:2*maxQuoted], "got the text \"" + long[:2*maxQuoted] + "\""},
		{"sets: [{" + long + ": 1}]", "not a YAML or JSON document"},
		{"sets: [{? " + long + " : 1}]", "sets[0]." + cut + ": unknown key"},
		{"sets: *" + strings.Repeat("a", 2000), "unknown anchor"},
		{"? {a: " + long + "}\n: 1", "invalid map key"},
		{"sets: [" + strings.Repeat("{b: 1},", maxProblems+2) + "]", "sets[15].b: unknown key, known are id, mode, policies, servers; and 2 more"},
	} {
		_, err := parseTopology([]byte(test.document))
		if err == nil || !strings.Contains(err.Error(), test.want) || len(err.Error()) > 2000 {
			t.Errorf("%.40s…: error %v, want %q", test.document, err, test.want)
		}
	}
}

func TestDocumentSizeIsBounded(t *testing.T) {
	name := filepath.Join(t.TempDir(), "big.yaml")
	if err := os.WriteFile(name, bytes.Repeat([]byte("#"), maxDocumentBytes+1), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := readTopology(nil, name); err == nil || !strings.Contains(err.Error(), "longer than") {
		t.Errorf("error %v", err)
	}
	// The longest that is read is read whole: what is wrong with it is that it holds nothing.
	if _, err := readTopology(strings.NewReader(strings.Repeat("#", maxDocumentBytes)), "-"); err == nil || !strings.Contains(err.Error(), "is empty") {
		t.Errorf("error %v", err)
	}
}

func FuzzParseTopology(f *testing.F) {
	f.Add([]byte(plantYAML))
	f.Add([]byte(`{"sets":[{"id":"a","policies":{"maxServers":2}}]}`))
	f.Add([]byte("a: &a [*a]"))
	f.Fuzz(func(t *testing.T, raw []byte) {
		topology, err := parseTopology(raw)
		if err != nil {
			return
		}
		document, err := formatTopology(topology, outputYAML)
		if err != nil {
			t.Fatal(err)
		}
		again, err := parseTopology(document)
		if err != nil {
			t.Fatalf("%v\n%s", err, document)
		}
		if !proto.Equal(topology, again) {
			t.Fatalf("%v comes back as %v", topology, again)
		}
	})
}

func TestFormatsAnAbsentTopology(t *testing.T) {
	document, err := formatTopology((*quoratev1.Generation)(nil).GetTopology(), outputTable)
	if err != nil || strings.TrimSpace(string(document)) != "{}" {
		t.Errorf("%q, %v", document, err)
	}
}
