package main

import (
	"os"
	"path/filepath"
	"testing"
	"time"
)

// TestWallTimeIsShifted moves the wall time of a member's clock to and fro; its monotonic reading takes no notice.
func TestWallTimeIsShifted(t *testing.T) {
	file := filepath.Join(t.TempDir(), "offset")
	c := memberClock(file)
	if off := time.Until(c.Wall()); off.Abs() > time.Minute {
		t.Errorf("without a file the wall time is off by %v", off)
	}
	for text, want := range map[string]time.Duration{"1h\n": time.Hour, "-90m": -90 * time.Minute, "an hour": 0} {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if off := time.Until(c.Wall()) - want; off.Abs() > time.Minute {
			t.Errorf("with %q the wall time is off by %v", text, off+want)
		}
		if c.Elapsed() > time.Minute {
			t.Errorf("with %q the monotonic reading is %v", text, c.Elapsed())
		}
	}
}
