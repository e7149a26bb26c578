package interop

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// nodeBinary is the Node.js that npm installed beside the client: Debian's is older than node-opcua needs.
const nodeBinary = "node_modules/.bin/node"

func requireClient(t *testing.T) {
	t.Helper()
	if _, err := os.Stat(nodeBinary); err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal("node-opcua is not installed: run `make test`, or `npm ci` in opcua/interop")
		}
		t.Skip("node-opcua is not installed: run `make test`, or `npm ci` in opcua/interop")
	}
}

// client prepares one run of the JavaScript client.
func client(ctx context.Context, t *testing.T, scenario string, options map[string]any) *exec.Cmd {
	t.Helper()
	options = maps.Clone(options)
	// A folder of its own for each run, since the client keeps what it learns in it.
	folder := filepath.Join(t.TempDir(), "pki")
	if application, ok := options["pki"].(string); ok {
		if err := os.CopyFS(folder, os.DirFS(application)); err != nil {
			t.Fatal(err)
		}
	}
	options["pki"] = folder
	b, err := json.Marshal(options)
	if err != nil {
		t.Fatal(err)
	}
	return exec.CommandContext(ctx, nodeBinary, "client.mjs", scenario, string(b))
}

// talk is a run of the JavaScript client that goes on until its standard input ends, and says line by line what it sees.
type talk struct {
	*exec.Cmd
	in    io.WriteCloser
	lines *bufio.Scanner
}

// startTalk starts one; what it complains of goes to errOut.
func startTalk(ctx context.Context, t *testing.T, scenario string, options map[string]any, errOut io.Writer) *talk {
	t.Helper()
	cmd := client(ctx, t, scenario, options)
	cmd.Stderr = errOut
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return &talk{Cmd: cmd, in: in, lines: bufio.NewScanner(out)}
}

// run runs a scenario and decodes the only line that it printed.
func run[R any](t *testing.T, scenario string, options map[string]any) R {
	t.Helper()
	lines := runLines[R](t, scenario, options)
	if len(lines) != 1 {
		t.Fatalf("%s printed %d lines, want one", scenario, len(lines))
	}
	return lines[0]
}

// runLines runs a scenario and decodes the lines that it printed.
func runLines[R any](t *testing.T, scenario string, options map[string]any) []R {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), scenarioLimit)
	defer cancel()
	cmd := client(ctx, t, scenario, options)
	var errOut bytes.Buffer
	cmd.Stderr = &errOut
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s: %v\n%s%s", scenario, err, out, errOut.Bytes())
	}
	var results []R
	for line := range strings.Lines(string(out)) {
		var r R
		if err := json.Unmarshal([]byte(line), &r); err != nil {
			t.Fatalf("%s: %v in %q", scenario, err, line)
		}
		results = append(results, r)
	}
	return results
}
