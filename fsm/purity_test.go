package fsm

import (
	"bytes"
	"fmt"
	"go/ast"
	"go/importer"
	"go/parser"
	"go/token"
	"go/types"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// allowedImports are the packages that the state machine may use. Each is pure, or used only in its pure part: see forbidden.
var allowedImports = []string{
	"bufio", "bytes", "cmp", "crypto/sha256", "crypto/subtle", "encoding/binary", "encoding/hex", "errors", "fmt", "hash", "hash/crc32", "io", "iter", "maps",
	"net/netip", "slices", "strconv", "strings", "time",
	"google.golang.org/protobuf/proto",
	"google.golang.org/protobuf/types/known/durationpb",
	"google.golang.org/protobuf/types/known/timestamppb",
	"quorate/fsm/tree",
	"quorate/mutant", // Constants, but in the builds that chaos tests break on purpose.
	"quorate/proto/quorate/log/v1",
	"quorate/proto/quorate/v1",
}

// forbidden are functions of allowed packages, with the reason.
var forbidden = map[string]string{
	"time.Now": "time enters with the entry's stamp", "time.Since": "time enters with the entry's stamp",
	"time.Until": "time enters with the entry's stamp", "time.Sleep": "nothing waits in the state machine",
	"time.After": "nothing waits in the state machine", "time.AfterFunc": "nothing waits in the state machine",
	"time.NewTimer": "nothing waits in the state machine", "time.NewTicker": "nothing waits in the state machine",
	"time.Tick": "nothing waits in the state machine", "time.LoadLocation": "it reads files of the machine",
	"google.golang.org/protobuf/types/known/timestamppb.Now": "time enters with the entry's stamp",
	"fmt.Print": "the state machine does no I/O", "fmt.Printf": "the state machine does no I/O", "fmt.Println": "the state machine does no I/O",
	"maps.Values": "the order of a Go map differs between members", "maps.All": "the order of a Go map differs between members",
}

// TestPurity type-checks the state machine and proves that members can't come to differ: no clock, goroutine, randomness,
// order of a Go map, float, logging or I/O.
func TestPurity(t *testing.T) {
	exports := exportData(t)
	for _, dir := range []string{".", "tree"} {
		fset := token.NewFileSet()
		files := sources(t, fset, dir)
		info := &types.Info{Types: map[ast.Expr]types.TypeAndValue{}, Uses: map[*ast.Ident]types.Object{}}
		conf := types.Config{Importer: importer.ForCompiler(fset, "gc", func(path string) (io.ReadCloser, error) {
			return os.Open(exports[path])
		})}
		if _, err := conf.Check("quorate/fsm", fset, files, info); err != nil {
			t.Fatal(err)
		}
		for _, p := range impurities(files, info) {
			t.Errorf("%s: %s", fset.Position(p.at), p.why)
		}
	}
}

// TestPurityFinds proves that the check above can fail.
func TestPurityFinds(t *testing.T) {
	exports := exportData(t)
	for code, why := range map[string]string{
		`import "os"; var _ = os.Args`:                                       `imports "os"`,
		`import "time"; var _ = time.Now()`:                                  "time.Now",
		`func f(m map[int]int) { for range m {} }`:                           "ranges over a map",
		`import "maps"; func f(m map[int]int) { for range maps.Keys(m) {} }`: "maps.Keys",
		`func f() { go f() }`:                                                "goroutine",
		`func f() { select {} }`:                                             "select",
		`var c chan int`:                                                     "channel",
		`var x = 1.5 * float64(len("x"))`:                                    "float",
		`import "maps"; import "slices"; var _ = slices.Sorted(maps.Keys(map[int]int{}))`: "",
	} {
		fset := token.NewFileSet()
		file, err := parser.ParseFile(fset, "x.go", "package x; "+code, 0)
		if err != nil {
			t.Fatal(err)
		}
		info := &types.Info{Types: map[ast.Expr]types.TypeAndValue{}, Uses: map[*ast.Ident]types.Object{}}
		conf := types.Config{Importer: importer.ForCompiler(fset, "gc", func(path string) (io.ReadCloser, error) {
			if exports[path] == "" {
				return nil, fmt.Errorf("no export data of %s", path)
			}
			return os.Open(exports[path])
		}), Error: func(error) {}}
		// Its error is no matter: a forbidden import may have no export data here.
		_, _ = conf.Check("x", fset, []*ast.File{file}, info)
		found := impurities([]*ast.File{file}, info)
		if why == "" && len(found) > 0 || why != "" && (len(found) == 0 || !strings.Contains(found[0].why, why)) {
			t.Errorf("%s: found %v, want %q", code, found, why)
		}
	}
}

type impurity struct {
	at  token.Pos
	why string
}

func impurities(files []*ast.File, info *types.Info) (found []impurity) {
	add := func(n ast.Node, format string, args ...any) {
		found = append(found, impurity{n.Pos(), fmt.Sprintf(format, args...)})
	}
	sorted := map[ast.Expr]bool{} // Calls whose result is sorted at once.
	for _, file := range files {
		for _, imp := range file.Imports {
			if path, _ := strconv.Unquote(imp.Path.Value); !slices.Contains(allowedImports, path) {
				add(imp, "it imports %q: the state machine uses the standard library's pure packages and the generated protobuf only", path)
			}
		}
		ast.Inspect(file, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.GoStmt:
				add(n, "it starts a goroutine: the order of their work differs between members")
			case *ast.SelectStmt, *ast.SendStmt:
				add(n, "it uses select or a channel: who is ready first differs between members")
			case *ast.ChanType:
				add(n, "it has a channel: who is ready first differs between members")
			case *ast.RangeStmt:
				if typ := info.Types[n.X].Type; typ != nil {
					if _, isMap := typ.Underlying().(*types.Map); isMap {
						add(n, "it ranges over a map: the order of a Go map differs between members")
					}
				}
			case *ast.CallExpr:
				if name(n.Fun, info) == "slices.Sorted" {
					sorted[n.Args[0]] = true
				}
				if fun := name(n.Fun, info); fun == "maps.Keys" && !sorted[n] {
					add(n, "it calls maps.Keys without slices.Sorted: the order of a Go map differs between members")
				}
			case *ast.SelectorExpr:
				if why, is := forbidden[name(n, info)]; is {
					add(n, "it uses %s: %s", name(n, info), why)
				}
			}
			if e, ok := n.(ast.Expr); ok {
				if basic, ok := info.Types[e].Type.(*types.Basic); ok && basic.Info()&(types.IsFloat|types.IsComplex) != 0 {
					add(n, "it uses a float: processors round differently")
				}
			}
			return true
		})
	}
	return found
}

// name returns the package path and name of what an expression refers to.
func name(e ast.Expr, info *types.Info) string {
	if index, ok := e.(*ast.IndexExpr); ok {
		e = index.X
	}
	selector, ok := e.(*ast.SelectorExpr)
	if !ok {
		return ""
	}
	if obj := info.Uses[selector.Sel]; obj != nil && obj.Pkg() != nil {
		if _, isFunc := obj.(*types.Func); isFunc && obj.Parent() == obj.Pkg().Scope() {
			return obj.Pkg().Path() + "." + obj.Name()
		}
	}
	return ""
}

func sources(t *testing.T, fset *token.FileSet, dir string) (files []*ast.File) {
	t.Helper()
	paths, err := filepath.Glob(filepath.Join(dir, "*.go"))
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range paths {
		if strings.HasSuffix(path, "_test.go") {
			continue
		}
		file, err := parser.ParseFile(fset, path, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, file)
	}
	if len(files) == 0 {
		t.Fatalf("no sources in %s", dir)
	}
	return files
}

// exportData asks the go command where the compiled form of each imported package is.
func exportData(t *testing.T) map[string]string {
	t.Helper()
	var stderr bytes.Buffer
	cmd := exec.Command("go", "list", "-export", "-deps", "-f", "{{.ImportPath}}={{.Export}}", "quorate/fsm/...")
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v\n%s", err, stderr.String())
	}
	exports := map[string]string{}
	for line := range strings.Lines(string(out)) {
		path, file, _ := strings.Cut(strings.TrimSpace(line), "=")
		exports[path] = file
	}
	return exports
}
