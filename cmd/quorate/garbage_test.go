package main

import (
	"math"
	"os"
	"os/exec"
	"runtime"
	"runtime/debug"
	"strings"
	"testing"
	"time"
)

func TestGarbagePercent(t *testing.T) {
	for _, test := range []struct {
		alive uint64
		want  int
	}{
		{0, 100 * garbageRoom / leastAlive},
		{leastAlive, 100 * garbageRoom / leastAlive},
		{garbageRoom / 2, 200},
		{garbageRoom, leastGarbage},
		{1 << 40, leastGarbage},
		{math.MaxUint64, leastGarbage},
	} {
		if got := garbagePercent(test.alive); got != test.want {
			t.Errorf("%d bytes are alive: %d %%, want %d", test.alive, got, test.want)
		}
	}
}

// garbageEnv makes this test run itself in a process of its own, since the setting is that of a whole process.
const garbageEnv = "QUORATE_TEST_GARBAGE"

func TestCollectSeldomAdapts(t *testing.T) {
	if os.Getenv(garbageEnv) == "" {
		for _, test := range []struct{ gogc, want string }{{"", "adapts"}, {"50", "is left alone"}} {
			cmd := exec.Command(os.Args[0], "-test.run", "^"+t.Name()+"$", "-test.v")
			cmd.Env = append(os.Environ(), garbageEnv+"=1", "GOGC="+test.gogc)
			if out, err := cmd.CombinedOutput(); err != nil || !strings.Contains(string(out), "it "+test.want) {
				t.Errorf("GOGC=%q: %v, want that it %s\n%s", test.gogc, err, test.want, out)
			}
		}
		return
	}
	percent := func() int {
		p := debug.SetGCPercent(-1)
		debug.SetGCPercent(p)
		return p
	}
	if collectSeldom(); percent() == 50 {
		t.Log("it is left alone")
		return
	}
	if got, want := percent(), garbagePercent(0); got != want {
		t.Errorf("%d %% before the first collection, want %d", got, want)
	}
	alive := make([]byte, garbageRoom/2)
	for deadline := time.Now().Add(10 * time.Second); percent() > 200; runtime.Gosched() {
		runtime.GC()
		if time.Now().After(deadline) {
			t.Fatalf("%d %% with %d bytes alive", percent(), len(alive))
		}
	}
	runtime.KeepAlive(alive) // And no longer.
	for deadline := time.Now().Add(10 * time.Second); percent() < garbagePercent(2*leastAlive); runtime.Gosched() {
		runtime.GC()
		if time.Now().After(deadline) {
			t.Fatalf("%d %% with little alive", percent())
		}
	}
	t.Log("it adapts")
}
