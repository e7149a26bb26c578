package devgroup

import (
	"context"
	"os"
	"sync"
	"testing"
)

// buildFolder holds the binary of this tree, which is built once for all tests.
var buildFolder string

var built = sync.OnceValues(func() (string, error) { return Build(context.Background(), buildFolder) })

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "quorate-devgroup-")
	if err != nil {
		panic(err)
	}
	buildFolder = dir
	code := m.Run()
	if err := os.RemoveAll(dir); err != nil {
		panic(err)
	}
	os.Exit(code)
}
