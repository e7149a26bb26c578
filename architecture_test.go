// Package quorate holds no code: its tests keep the rules of the whole tree, each with its reason.
package quorate

import (
	"bufio"
	"encoding/json"
	"errors"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// listed is what `go list` says of one package.
type listed struct {
	ImportPath  string
	Dir         string
	Imports     []string
	Deps        []string
	GoFiles     []string
	TestGoFiles []string
}

func packages(t *testing.T) []listed {
	t.Helper()
	out, err := exec.Command("go", "list", "-deps=false", "-json=ImportPath,Dir,Imports,Deps,GoFiles,TestGoFiles", "./...").Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	var all []listed
	for dec := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p listed
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		all = append(all, p)
	}
	if len(all) < 10 {
		t.Fatalf("go list found only %d packages", len(all))
	}
	return all
}

// under says whether a package is one of the trees, or inside one.
func under(path string, trees ...string) bool {
	for _, tree := range trees {
		if path == "quorate/"+tree || strings.HasPrefix(path, "quorate/"+tree+"/") {
			return true
		}
	}
	return false
}

// The arrows of the architecture: who may import which other trees of this module. A tree may always import itself.
var arrows = []struct {
	tree    string
	may     []string
	because string
}{
	{"proto", nil, "generated code is the bottom of everything"},
	{"mutant", nil, "it names rules that only builds for chaos tests may break"},
	{"fsm", []string{"proto", "mutant"}, "the state machine is pure: not even raft may be known to it"},
	{"telemetry", nil, "it is a leaf that everyone may use"},
	{"pki", nil, "it is a leaf that everyone may use"},
	{"node", []string{"proto", "fsm", "mutant", "telemetry", "pki"}, "raft wiring stands on the state machine alone"},
	{"client", []string{"proto"}, "programs of others use it: it knows the public API alone"},
	{"sim", []string{"proto", "fsm", "node", "telemetry", "redundancy", "client"}, "it simulates a group of nodes, the levels of their servers, and instances that hold gate leases"},
	{"redundancy", []string{"proto", "fsm", "mutant", "node", "telemetry", "opcua/session"}, "it probes peers with a light client session, which knows nothing of Quorate, so that no arrow runs back up to opcua"},
	{"opcua/wire", nil, "the OPC UA runtime knows nothing of Quorate"},
	{"opcua/channel", []string{"opcua/wire"}, "the OPC UA runtime knows nothing of Quorate"},
	{"opcua/space", []string{"opcua/wire"}, "the OPC UA runtime knows nothing of Quorate"},
	{"opcua/nodeset", []string{"opcua/wire", "opcua/space"}, "the OPC UA runtime knows nothing of Quorate"},
	{"opcua/server", []string{"opcua/wire", "opcua/space", "opcua/channel"}, "the OPC UA runtime knows nothing of Quorate"},
	{"opcua/certstore", nil, "the OPC UA runtime knows nothing of Quorate"},
	{"opcua/login", nil, "the OPC UA runtime knows nothing of Quorate"},
	{"opcua/session", nil, "the OPC UA client knows nothing of Quorate"},
	{"opcua/failover", []string{"opcua/session"}, "the OPC UA client knows nothing of Quorate"},
	{"opcua/interop", []string{"proto", "devgroup", "pki"}, "interop tests know members by their public APIs only"},
	{"opcua", []string{"proto", "fsm", "node", "redundancy", "telemetry", "pki"}, "rpc, opcua and admin do not import each other"},
	{"rpc", []string{"proto", "fsm", "node", "redundancy", "telemetry", "pki"}, "rpc, opcua and admin do not import each other"},
	{"admin", []string{"proto", "pki"}, "the page knows the group by its services alone, like everybody else, and its visitors by who they are; rpc, opcua and admin do not import each other"},
	{"admin/browser", []string{"proto", "devgroup", "pki"}, "browser tests know members by their public APIs only"},
	{"devgroup", []string{"proto"}, "it knows members by their public APIs and processes alone"},
	{"jepsen/wire", nil, "it knows packets"},
	{"jepsen/history", nil, "it knows what was done and when"},
	{"jepsen/badfs", nil, "it knows files"},
	{"jepsen/model", []string{"jepsen/history", "proto", "fsm"}, "it judges what was recorded by the state machine itself"},
	{"jepsen/validate", []string{"jepsen/history", "jepsen/model", "proto"}, "it judges what was recorded, and nothing else"},
	{"jepsen/report", []string{"jepsen/history", "jepsen/validate"}, "it shows what was recorded and judged"},
	{"jepsen/nemesis", []string{"jepsen/wire", "jepsen/lab"}, "it breaks what is around members, and asks the group by an interface"},
	{"jepsen/traffic", []string{"jepsen/history", "jepsen/lab", "jepsen/nemesis", "client", "proto"}, "clients know members by their public APIs only"},
	{"jepsen/lab", []string{"jepsen/wire", "jepsen/badfs"}, "it knows members as an operator does: a binary, a configuration, addresses"},
	{"jepsen", []string{"proto", "client"}, "the runner puts together what is under it, and knows Quorate by its public API only"},
	{"bench", []string{"proto", "devgroup"}, "benchmarks know members by their public APIs only"},
	{"bench/failover", []string{"proto", "devgroup", "opcua/failover"}, "it knows members by their public APIs only, and measures the failover client against them"},
	{"bench/client", []string{"opcua/wire", "pki"}, "it knows servers by what they say on the wire, which it codes with the same codec, as that is the cheapest"},
	{"bench/process", nil, "it knows processes as the kernel does"},
	{"bench/etcd", []string{"proto", "devgroup", "bench/process", "client"}, "it knows members by their public APIs only, and measures the client's gate, which answers from memory, in this process"},
	{"bench/opcua", []string{"devgroup", "bench/client", "bench/process", "opcua/wire"}, "it knows members by what they say on the wire"},
	{"bench/siege", []string{"proto", "devgroup", "bench/client", "bench/process", "opcua/wire"}, "it knows members by what they say on the wire, and by their public APIs"},
	{"cmd/quorate/migration", []string{"proto"}, "it drives migrations through the partition service alone, and knows no terminal, connection or process"},
	{"cmd", []string{"proto", "fsm", "mutant", "node", "redundancy", "opcua", "rpc", "admin", "telemetry", "pki"}, "the command wires everything together"},
}

func TestImportsPointOneWay(t *testing.T) {
	for _, p := range packages(t) {
		if p.ImportPath == "quorate" {
			continue
		}
		// The longest tree that matches is the package's own: opcua/wire before opcua.
		own := -1
		for i, a := range arrows {
			if under(p.ImportPath, a.tree) && (own < 0 || len(a.tree) > len(arrows[own].tree)) {
				own = i
			}
		}
		if own < 0 {
			t.Errorf("%s is in no tree of the architecture: add its arrows to this test, with the reason", p.ImportPath)
			continue
		}
		a := arrows[own]
		for _, imported := range p.Imports {
			if strings.HasPrefix(imported, "quorate/") && !under(imported, a.tree) && !under(imported, a.may...) {
				t.Errorf("%s imports %s; %s may import only %v, because %s", p.ImportPath, imported, a.tree, a.may, a.because)
			}
		}
	}
}

func TestStateMachineImportsNothingFromOutside(t *testing.T) {
	for _, p := range packages(t) {
		if !under(p.ImportPath, "fsm") {
			continue
		}
		for _, imported := range p.Imports {
			outside := strings.Contains(strings.SplitN(imported, "/", 2)[0], ".")
			if outside && !strings.HasPrefix(imported, "google.golang.org/protobuf/") {
				t.Errorf("%s imports %s; it may import the standard library and protobuf only, so that what varies can come in by commands alone", p.ImportPath, imported)
			}
		}
	}
}

func TestUnfitServerPackageIsNotLinked(t *testing.T) {
	for _, p := range packages(t) {
		if slices.Contains(p.Deps, "github.com/gopcua/opcua/server") {
			t.Errorf("%s links gopcua's server package, which a few unauthenticated bytes can kill (docs of opcua/server)", p.ImportPath)
		}
	}
}

func TestEveryPackageHasOneComment(t *testing.T) {
	for _, p := range packages(t) {
		if under(p.ImportPath, "proto") {
			continue
		}
		files := p.GoFiles
		if len(files) == 0 {
			files = p.TestGoFiles
		}
		var commented []string
		for _, name := range files {
			f, err := parser.ParseFile(token.NewFileSet(), filepath.Join(p.Dir, name), nil, parser.ParseComments|parser.PackageClauseOnly)
			if err != nil {
				t.Fatal(err)
			}
			if f.Doc != nil {
				commented = append(commented, name)
			}
		}
		if len(commented) != 1 {
			t.Errorf("%s has package comments in %v; it wants exactly one, from which a newcomer can start", p.ImportPath, commented)
		}
		switch name := filepath.Base(p.Dir); name {
		case "util", "utils", "common", "helpers", "misc":
			t.Errorf("%s: a package called %s says nothing of what is in it", p.ImportPath, name)
		}
	}
}

// tracked calls visit for every file that git tracks.
func tracked(t *testing.T, visit func(path string)) {
	t.Helper()
	out, err := exec.Command("git", "ls-files").Output()
	if err != nil {
		t.Fatalf("git ls-files: %v", err)
	}
	for lines := bufio.NewScanner(strings.NewReader(string(out))); lines.Scan(); {
		if _, err := os.Stat(lines.Text()); !errors.Is(err, fs.ErrNotExist) {
			visit(lines.Text())
		}
	}
}

func TestNoTestSleeps(t *testing.T) {
	tracked(t, func(path string) {
		if !strings.HasSuffix(path, "_test.go") || strings.HasPrefix(path, "jepsen/") {
			return
		}
		fset := token.NewFileSet()
		f, err := parser.ParseFile(fset, path, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		// In a synctest bubble a sleep is virtual, costs nothing, and is exact.
		virtual := false
		for _, i := range f.Imports {
			virtual = virtual || i.Path.Value == `"testing/synctest"`
		}
		ast.Inspect(f, func(n ast.Node) bool {
			call, ok := n.(*ast.CallExpr)
			if !ok {
				return true
			}
			if sel, ok := call.Fun.(*ast.SelectorExpr); ok && sel.Sel.Name == "Sleep" && !virtual {
				if pkg, ok := sel.X.(*ast.Ident); ok && pkg.Name == "time" {
					t.Errorf("%s: a test waits for a condition or in virtual time, and never sleeps for luck", fset.Position(call.Pos()))
				}
			}
			return true
		})
	})
}

func TestRepositorySpeaksOfQuorateAlone(t *testing.T) {
	// Split, so that this file does not trip over itself.
	forbidden := []string{"proxy." + "golang.org", "registry." + "npmjs", "/" + "work/", "deb." + "debian.org"}
	tracked(t, func(path string) {
		if strings.HasSuffix(path, ".sum") {
			return
		}
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range forbidden {
			if strings.Contains(string(b), f) {
				t.Errorf("%s names %q: no path of a machine and no host of a registry belongs in the repository", path, f)
			}
		}
	})
}
