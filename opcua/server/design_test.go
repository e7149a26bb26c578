package server

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestRegressionsAreTested keeps the table of DESIGN.md honest: what it names has to be there.
func TestRegressionsAreTested(t *testing.T) {
	page, err := os.ReadFile("DESIGN.md")
	if err != nil {
		t.Fatal(err)
	}
	_, table, found := strings.Cut(string(page), "| What | Tests |\n|---|---|\n")
	if !found {
		t.Fatal("there is no table")
	}
	named := regexp.MustCompile("`([a-z]+)\\.(Test[A-Za-z0-9]+)`")
	sources := make(map[string]string)
	rows := 0
	for line := range strings.Lines(table) {
		if !strings.HasPrefix(line, "|") {
			break
		}
		rows++
		tests := named.FindAllStringSubmatch(line, -1)
		if len(tests) == 0 || strings.Count(line, "`") != 2*len(tests) {
			t.Errorf("no tests, or something that is none: %s", line)
		}
		for _, m := range tests {
			if _, read := sources[m[1]]; !read {
				sources[m[1]] = testsOf(t, m[1])
			}
			if !strings.Contains(sources[m[1]], "\nfunc "+m[2]+"(t *testing.T) {") {
				t.Errorf("there is no test %s", m[0])
			}
		}
	}
	if rows < 20 {
		t.Errorf("%d rows were found", rows)
	}
}

// testsOf returns the test files of a package.
func testsOf(t *testing.T, pkg string) string {
	t.Helper()
	dir := filepath.Join("..", pkg)
	if pkg == "opcua" {
		dir = ".."
	}
	files, err := filepath.Glob(filepath.Join(dir, "*_test.go"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no tests in %s: %v", dir, err)
	}
	var all strings.Builder
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		all.Write(b)
	}
	return all.String()
}
