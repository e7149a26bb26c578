package client

import (
	"os"
	"testing"

	"go.uber.org/goleak"

	"quorate/devgroup"
)

func TestMain(m *testing.M) { os.Exit(devgroup.RunTests(leakFree{m})) }

// leakFree runs the tests of the package, and fails if they leave a goroutine behind.
type leakFree struct{ m *testing.M }

// Run implements what devgroup.RunTests runs.
func (l leakFree) Run() int {
	code := l.m.Run()
	if code == 0 {
		if err := goleak.Find(); err != nil {
			println(err.Error())
			return 1
		}
	}
	return code
}
