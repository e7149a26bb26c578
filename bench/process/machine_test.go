package process

import (
	"os"
	"runtime"
	"testing"
	"time"
)

func TestBusyAddsAllButIdleAndWaiting(t *testing.T) {
	got, err := busy("cpu  1 2 4 1000 1000 8 16 32 64 64\ncpu0 1 2 4 1000 1000 8 16 32 64 64\n")
	if want := 63 * tick; err != nil || got != want {
		t.Errorf("%v, %v, want %v", got, err, want)
	}
	for _, bad := range []string{"", "cpu 1 2 3", "intr 1 2 3 4 5 6 7 8", "cpu 1 2 x 4 5 6 7 8"} {
		if _, err := busy(bad); err == nil {
			t.Errorf("%q is understood", bad)
		}
	}
}

func TestBusyIsThatOfThisMachine(t *testing.T) {
	before, err := Busy()
	if err != nil {
		t.Fatal(err)
	}
	own, err := ID(os.Getpid()).CPU()
	if err != nil {
		t.Fatal(err)
	}
	if before < own {
		t.Errorf("the machine was busy for %v, and this process alone for %v", before, own)
	}
}

func TestShare(t *testing.T) {
	if got := Share(time.Duration(runtime.NumCPU())*time.Second, 2*time.Second); got != 0.5 {
		t.Errorf("%v", got)
	}
}
