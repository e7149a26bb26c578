package interop

import (
	"bytes"
	"cmp"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"
)

var update = flag.Bool("update", false, "write docs/compatibility.md anew from what the tests ran")

const compatibilityFile = "../../docs/compatibility.md"

// The clients, as the columns of the tables name them.
const (
	nodeOPCUA = "node-opcua"
	gopcua    = "gopcua"
)

// What the tables are sorted by: the order of Part 4, and that of strength.
var (
	serviceSets = []string{"Discovery", "SecureChannel", "Session", "NodeManagement", "View", "Query", "Attribute", "Method", "MonitoredItem", "Subscription"}
	policies    = []string{"None", "Basic256Sha256", "Aes128_Sha256_RsaOaep", "Aes256_Sha256_RsaPss"}
	modes       = []string{"None", "Sign", "SignAndEncrypt"}
)

// step is something that was done with a service.
type step struct{ Set, Service, What string }

// compatibility gathers what ran and went well, by client.
type compatibility struct {
	mu         sync.Mutex
	steps      map[step]map[string]bool
	securities map[security]map[string]bool
}

func newCompatibility() *compatibility {
	return &compatibility{steps: make(map[step]map[string]bool), securities: make(map[security]map[string]bool)}
}

func (c *compatibility) ran(client string, s step) {
	c.mu.Lock()
	defer c.mu.Unlock()
	mark(c.steps, s, client)
}

func (c *compatibility) connected(client string, s security) {
	c.mu.Lock()
	defer c.mu.Unlock()
	mark(c.securities, s, client)
}

func mark[K comparable](m map[K]map[string]bool, k K, client string) {
	if m[k] == nil {
		m[k] = make(map[string]bool)
	}
	m[k][client] = true
}

// markdown writes the tables.
func (c *compatibility) markdown(t *testing.T) []byte {
	t.Helper()
	var b bytes.Buffer
	fmt.Fprintf(&b, `# What other OPC UA clients were seen to do

`+"`make test-interop`"+` wrote this from what it ran against members of a group: node-opcua's client %s and gopcua's client %s, both driven
by the tests in `+"`opcua/interop`"+`. A mark says that the test ran and found what the standard (OPC 10000-4) asks for; no mark says that
no test ran, and nothing about the client. The test fails when this file is not what it ran; with `+"`ARGS=-update`"+` it writes it.

## Security policies and modes

In each way that GetEndpoints offers, the client opened a channel and a session, read a value, and was notified of one by a subscription.

| policy | mode | %s | %s |
|---|---|---|---|
`, nodeOPCUAVersion(t), gopcuaVersion(t), nodeOPCUA, gopcua)
	for _, s := range sorted(c.securities, func(a, b security) int {
		return cmp.Or(place(t, policies, a.Policy)-place(t, policies, b.Policy), place(t, modes, a.Mode)-place(t, modes, b.Mode))
	}) {
		fmt.Fprintf(&b, "| %s | %s | %s |\n", s.Policy, s.Mode, marks(c.securities[s]))
	}
	fmt.Fprintf(&b, "\n## Services\n\n| service set | service | what was done | %s | %s |\n|---|---|---|---|---|\n", nodeOPCUA, gopcua)
	for _, s := range sorted(c.steps, func(a, b step) int {
		return cmp.Or(place(t, serviceSets, a.Set)-place(t, serviceSets, b.Set), cmp.Compare(a.Service, b.Service), cmp.Compare(a.What, b.What))
	}) {
		fmt.Fprintf(&b, "| %s | %s | %s | %s |\n", s.Set, s.Service, s.What, marks(c.steps[s]))
	}
	return b.Bytes()
}

func sorted[K comparable](m map[K]map[string]bool, compare func(a, b K) int) []K {
	keys := make([]K, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.SortFunc(keys, compare)
	return keys
}

func place(t *testing.T, names []string, name string) int {
	i := slices.Index(names, name)
	if i < 0 {
		t.Fatalf("%q is not among %v", name, names)
	}
	return i
}

func marks(by map[string]bool) string {
	cells := make([]string, 0, 2)
	for _, client := range []string{nodeOPCUA, gopcua} {
		if by[client] {
			cells = append(cells, "✓")
		} else {
			cells = append(cells, " ")
		}
	}
	return strings.Join(cells, " | ")
}

func nodeOPCUAVersion(t *testing.T) string {
	t.Helper()
	b, err := os.ReadFile("package.json")
	if err != nil {
		t.Fatal(err)
	}
	var p struct{ Dependencies map[string]string }
	if err := json.Unmarshal(b, &p); err != nil {
		t.Fatal(err)
	}
	return p.Dependencies["node-opcua-client"]
}

func gopcuaVersion(t *testing.T) string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "go", "list", "-m", "-f", "{{.Version}}", "github.com/gopcua/opcua").Output()
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(out))
}

// check compares the tables with the file, or writes it.
func (c *compatibility) check(t *testing.T) {
	got := c.markdown(t)
	if *update {
		if err := os.WriteFile(compatibilityFile, got, 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(compatibilityFile)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("docs/compatibility.md is not what ran; `make test-interop ARGS=-update` writes it:\n%s", got)
	}
}
