package main

import (
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"strings"
	"testing"
	"time"
)

func TestGarbageRoom(t *testing.T) {
	for _, test := range []struct {
		memory uint64
		want   garbageRoom
	}{
		{0, leastGarbageRoom},
		{2 << 30, leastGarbageRoom},
		{4 << 30, 128 << 20},
		{16 << 30, mostGarbageRoom},
		{math.MaxInt64, mostGarbageRoom}, // Nothing is known, and GOMEMLIMIT isn't set.
	} {
		if got := roomIn(test.memory); got != test.want {
			t.Errorf("%d bytes of memory: room for %d, want %d", test.memory, got, test.want)
		}
	}
}

func TestGarbagePercent(t *testing.T) {
	const room = garbageRoom(128 << 20)
	for _, test := range []struct {
		alive uint64
		want  int
	}{
		{0, 100 * int(room) / leastAlive},
		{leastAlive, 100 * int(room) / leastAlive},
		{uint64(room) / 2, 200},
		{uint64(room), leastGarbage},
		{1 << 40, leastGarbage},
		{math.MaxUint64, leastGarbage},
	} {
		if got := room.percent(test.alive); got != test.want {
			t.Errorf("%d bytes are alive: %d %%, want %d", test.alive, got, test.want)
		}
	}
}

// TestMemory takes the least of the limits that there are.
func TestMemory(t *testing.T) {
	files := memoryLimits
	defer func() { memoryLimits = files }()
	dir := t.TempDir()
	memoryLimits = []string{filepath.Join(dir, "none"), filepath.Join(dir, "max"), filepath.Join(dir, "limit")}
	for name, text := range map[string]string{"max": "max\n", "limit": "9223372036854771712\n"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if got := memory(); got < 1<<28 || got > 1<<46 {
		t.Errorf("this machine has %d bytes", got)
	}
	if err := os.WriteFile(memoryLimits[2], []byte("268435456\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if got := memory(); got != 1<<28 {
		t.Errorf("the group of processes may have %d bytes, want %d", got, 1<<28)
	}
	defer debug.SetMemoryLimit(debug.SetMemoryLimit(1 << 27))
	if got := memory(); got != 1<<27 {
		t.Errorf("GOMEMLIMIT is %d, want %d", got, 1<<27)
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
	room := roomIn(memory())
	if got, want := percent(), room.percent(0); got != want {
		t.Errorf("%d %% before the first collection, want %d", got, want)
	}
	alive := make([]byte, room/2)
	for deadline := time.Now().Add(10 * time.Second); percent() > 200; runtime.Gosched() {
		runtime.GC()
		if time.Now().After(deadline) {
			t.Fatalf("%d %% with %d bytes alive", percent(), len(alive))
		}
	}
	runtime.KeepAlive(alive) // And no longer.
	for deadline := time.Now().Add(10 * time.Second); percent() < room.percent(2*leastAlive); runtime.Gosched() {
		runtime.GC()
		if time.Now().After(deadline) {
			t.Fatalf("%d %% with little alive", percent())
		}
	}
	t.Log("it adapts")
}
