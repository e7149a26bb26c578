package devgroup

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
)

// Build builds the quorate command into dir, for tests that want the one of this tree, and returns its path.
func Build(ctx context.Context, dir string) (string, error) {
	binary := filepath.Join(dir, "quorate")
	out, err := exec.CommandContext(ctx, "go", "build", "-o", binary, "quorate/cmd/quorate").CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("build quorate: %w\n%s", err, out)
	}
	return binary, nil
}

// builds holds the binary that Built made, if anybody asked for it.
var builds string

// Built is the quorate command of this tree, built once for all tests of a package whose TestMain calls RunTests.
var Built = sync.OnceValues(func() (string, error) {
	var err error
	if builds, err = os.MkdirTemp("", "quorate-test-"); err != nil {
		return "", err
	}
	return Build(context.Background(), builds)
})

// RunTests runs the tests of a package, a *testing.M, and removes what Built made. It returns what the process is to exit with.
func RunTests(tests interface{ Run() int }) (code int) {
	code = tests.Run()
	if builds == "" {
		return code
	}
	if err := os.RemoveAll(builds); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return code
}
