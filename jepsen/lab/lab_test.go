package lab

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestMain runs the tests inside namespaces of their own. A machine that can't have them skips the tests, and fails where CI=true says that it has to.
func TestMain(m *testing.M) {
	if err := Missing(); err != nil {
		if os.Getenv("CI") == "true" {
			panic(err)
		}
		println("skipped:", err.Error())
		return
	}
	if err := Enter(); err != nil {
		panic(err)
	}
	os.Exit(m.Run())
}

// binary builds the quorate command.
func binary(t *testing.T) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "quorate")
	if out, err := exec.Command("go", "build", "-o", file, "quorate/cmd/quorate").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return file
}

// TestLab sets a group up, takes the power from one member, freezes and fills its disk, and looks at what that does.
func TestLab(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	out := t.TempDir()
	t.Cleanup(func() {
		if log, err := os.ReadFile(filepath.Join(out, "m1.log")); err == nil && t.Failed() {
			t.Logf("%s", log)
		}
	})
	l, err := Open(ctx, Options{Binary: binary(t), Out: out, Members: 3, LogStore: "bolt", Seed: 1})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	}()
	m := l.Members[0]

	file := filepath.Join(m.Disk.Dir, "unsynced")
	if err := os.WriteFile(file, []byte("gone"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := m.LosePower(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(file); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("what was not synced is there after the loss of power: %v", err)
	}
	if m.Running() {
		t.Error("it runs without power")
	}
	if err := errors.Join(m.Start(), m.AwaitReady(ctx)); err != nil {
		t.Fatal(err)
	}

	if err := m.Disk.Freeze(); err != nil {
		t.Fatal(err)
	}
	wrote := make(chan error, 1)
	go func() { wrote <- os.WriteFile(file, []byte("late"), 0o600) }()
	select {
	case err := <-wrote:
		t.Errorf("a write on a frozen disk returned %v", err)
	case <-time.After(200 * time.Millisecond):
	}
	if err := m.Disk.Thaw(); err != nil {
		t.Fatal(err)
	}
	if err := <-wrote; err != nil {
		t.Error(err)
	}

	if err := m.Disk.Fill(1 << 20); err != nil {
		t.Fatal(err)
	}
	if free, err := m.Disk.Free(); err != nil || free > 2<<20 {
		t.Errorf("%d bytes are free on a full disk, %v", free, err)
	}
	unix.Sync() // The file that fills it is there for good.
	if err := errors.Join(m.Disk.Drain(), m.LosePower(), m.Start()); err != nil {
		t.Fatal(err)
	}
	if free, err := m.Disk.Free(); err != nil || free < 100<<20 {
		t.Errorf("%d bytes are free after a loss of power on a disk that was full before it, %v", free, err)
	}
	if _, err := m.OnBadFS(ctx); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(m.OffBadFS(), m.LosePower()); err != nil {
		t.Fatal(err)
	}
	if log, err := os.Stat(filepath.Join(m.DataDir(), "raft", "log.db")); err != nil || log.Size() == 0 {
		t.Errorf("after a loss of power the data is not where it was: %v", err)
	}
	if err := m.Start(); err != nil {
		t.Fatal(err)
	}
	if err := l.Heal(); err != nil {
		t.Fatal(err)
	}
	if err := m.AwaitReady(ctx); err != nil {
		t.Fatal(err)
	}
}
