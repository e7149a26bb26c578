//go:build unix

package redundancy

import (
	"bufio"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"quorate/fsm"
)

var someApply = Apply{Generation: 7, Set: "line-a", Server: "m1", Role: Primary}

// shell is a hook that is a script; only tests go through a shell.
func shell(t *testing.T, timeout time.Duration, script string, arguments ...string) *Hook {
	t.Helper()
	h, err := NewHook(append([]string{"/bin/sh", "-c", script, "sh"}, arguments...), timeout)
	if err != nil {
		t.Fatal(err)
	}
	return h
}

func TestHookIsToldWhatItAppliesAndNothingElse(t *testing.T) {
	t.Setenv("QUORATE_KEY", "secret")
	t.Setenv("AWS_SECRET", "secret")
	h, err := NewHook([]string{"env"}, 0)
	if err != nil {
		t.Fatal(err)
	}
	output, err := h.Apply(t.Context(), someApply)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"QUORATE_GENERATION=7\n", "QUORATE_SET=line-a\n", "QUORATE_SERVER=m1\n", "QUORATE_ROLE=Primary\n", "PATH="} {
		if !strings.Contains(output, want) {
			t.Errorf("%q is not in %q", want, output)
		}
	}
	if strings.Contains(output, "secret") {
		t.Errorf("a secret of this process is in %q", output)
	}
}

func TestHookRunsNoShell(t *testing.T) {
	h, err := NewHook([]string{"echo", "$QUORATE_SET; echo b", "*"}, 0)
	if err != nil {
		t.Fatal(err)
	}
	if output, err := h.Apply(t.Context(), someApply); err != nil || output != "$QUORATE_SET; echo b *\n" {
		t.Errorf("%q, %v", output, err)
	}
}

func TestHookFails(t *testing.T) {
	for script, want := range map[string]string{"echo half; exit 3": "apply hook: exit status 3", "kill -9 $$": "apply hook: signal: killed"} {
		output, err := shell(t, 0, script).Apply(t.Context(), someApply)
		if err == nil || err.Error() != want {
			t.Errorf("%s: %v, want %s", script, err, want)
		}
		if strings.Contains(script, "half") && output != "half\n" {
			t.Errorf("%s: output %q", script, output)
		}
	}
	h, err := NewHook([]string{filepath.Join(t.TempDir(), "nothing")}, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := h.Apply(t.Context(), someApply); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a command that is not there: %v", err)
	}
}

// alive tells whether a process that a hook wrote into a file still runs. A process that was killed and not yet waited for by init counts as gone.
func alive(t *testing.T, file string) bool {
	t.Helper()
	raw, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(raw)))
	if err != nil {
		t.Fatal(err)
	}
	if syscall.Kill(pid, 0) != nil {
		return false
	}
	stat, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "stat"))
	return err == nil && !strings.Contains(string(stat), ") Z ")
}

func TestHookIsKilledWithAllThatItStarted(t *testing.T) {
	for name, end := range map[string]func(h *Hook, started string) error{
		"time-out": func(h *Hook, _ string) error {
			_, err := h.Apply(context.Background(), someApply)
			return err
		},
		"shutdown": func(h *Hook, started string) error {
			ctx, cancel := context.WithCancelCause(context.Background())
			go func() {
				// The hook says that it runs by opening the pipe.
				if f, err := os.Open(started); err == nil {
					_, _ = bufio.NewReader(f).ReadString('\n')
					f.Close()
				}
				cancel(errors.New("shutting down"))
			}()
			h.timeout = time.Minute
			_, err := h.Apply(ctx, someApply)
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			child, started := filepath.Join(dir, "child"), filepath.Join(dir, "started")
			if err := syscall.Mkfifo(started, 0o600); err != nil {
				t.Fatal(err)
			}
			// The child ignores that it is asked to end, and holds the output open.
			script := `sh -c 'trap "" TERM; sleep 1000' & echo $! >"$1"; if [ "$2" = shutdown ]; then echo now >"$3"; fi; wait`
			err := end(shell(t, 300*time.Millisecond, script, child, name, started), started)
			want := map[string]string{"time-out": "the apply hook ran for longer than 300ms", "shutdown": "shutting down"}[name]
			if err == nil || err.Error() != want {
				t.Errorf("%v, want %s", err, want)
			}
			look, late := time.NewTicker(time.Millisecond), time.After(5*time.Second)
			defer look.Stop()
			for alive(t, child) {
				select {
				case <-look.C:
				case <-late:
					t.Fatal("a child of the hook is still there")
				}
			}
		})
	}
}

func TestEndOfTheHooksOutputIsKept(t *testing.T) {
	output, err := shell(t, time.Minute, `i=0; while [ $i -lt 3000 ]; do echo "line $i"; i=$((i+1)); done; echo last >&2`).Apply(t.Context(), someApply)
	if err != nil {
		t.Fatal(err)
	}
	if len(output) != fsm.MaxOutputBytes || !strings.HasSuffix(output, "line 2999\nlast\n") {
		t.Errorf("%d bytes, ending in %q", len(output), output[max(0, len(output)-40):])
	}
	// What is no text becomes one.
	if output, err = shell(t, 0, `printf 'a\377b\nü'`).Apply(t.Context(), someApply); err != nil || output != "a?b\nü" {
		t.Errorf("%q, %v", output, err)
	}
}

// A daemon that a hook leaves behind does not keep the apply from ending.
func TestHookEndsThoughAChildHoldsItsOutputOpen(t *testing.T) {
	file := filepath.Join(t.TempDir(), "child")
	output, err := shell(t, time.Minute, `sleep 1000 & echo $! >"$1"; echo done`, file).Apply(t.Context(), someApply)
	if err != nil || output != "done\n" {
		t.Errorf("%q, %v", output, err)
	}
	raw, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if pid, err := strconv.Atoi(strings.TrimSpace(string(raw))); err == nil {
		_ = syscall.Kill(pid, syscall.SIGKILL)
	}
}
