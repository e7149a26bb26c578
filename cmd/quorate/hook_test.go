package main

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"quorate/cmd/quorate/migration"
)

func TestSplitWords(t *testing.T) {
	for command, want := range map[string][]string{
		"":                           nil,
		"  a  b\tc\n":                {"a", "b", "c"},
		`a 'b c' "d e"`:              {"a", "b c", "d e"},
		`a'b'"c"d`:                   {"abcd"},
		`'' ""`:                      {"", ""},
		`a\ b \'c\' \\`:              {"a b", "'c'", `\`},
		`"a\"b\\c\d$x"`:              {`a"b\c\d$x`},
		`'a\b"c'`:                    {`a\b"c`},
		"$HOME *.go `id` é":          {"$HOME", "*.go", "`id`", "é"},
		"seq -f \"progress %g 5\" 5": {"seq", "-f", "progress %g 5", "5"},
	} {
		if got, err := splitWords(command); err != nil || !slices.Equal(got, want) {
			t.Errorf("%q: %q, %v; want %q", command, got, err, want)
		}
	}
	for command, want := range map[string]string{`a "b`: `a " is not closed`, `a 'b`: "a ' is not closed", `a \`: `ends with a \`, "a\x00": "has a NUL character"} {
		if got, err := splitWords(command); err == nil || err.Error() != want {
			t.Errorf("%q: %q, %v", command, got, err)
		}
	}
}

func TestHooksAreBounded(t *testing.T) {
	if _, err := newHook("copy-hook", "true", make([]string, maxHookWords-1), 0, nil); err != nil {
		t.Error(err)
	}
	if _, err := newHook("copy-hook", "true", make([]string, maxHookWords), 0, nil); err == nil || err.Error() != "--copy-hook: more than 1000 words" {
		t.Errorf("error %v", err)
	}
}

// FuzzSplitWords: words that are quoted for a shell come back as they were.
func FuzzSplitWords(f *testing.F) {
	f.Add("a b", "it's")
	f.Add("", "\\ \"\n$")
	f.Fuzz(func(t *testing.T, one, two string) {
		if strings.ContainsRune(one+two, 0) || strings.ToValidUTF8(one+two, "") != one+two {
			return
		}
		got, err := splitWords(quote(one) + "  " + quote(two))
		if err != nil || !slices.Equal(got, []string{one, two}) {
			t.Errorf("%q, %q: %q, %v", one, two, got, err)
		}
	})
}

func TestLinesOfAHookAreBounded(t *testing.T) {
	var lines []string
	w := &lineWriter{line: func(l string) { lines = append(lines, l) }}
	long := strings.Repeat("x", maxHookLine)
	for _, part := range []string{"one\r\ntw", "o\n\n", long, "dropped", "\nnext\n" + long + "y\nlast"} {
		if n, err := w.Write([]byte(part)); n != len(part) || err != nil {
			t.Fatalf("%d, %v", n, err)
		}
	}
	w.end()
	if want := []string{"one", "two", long, "next", long, "last"}; !slices.Equal(lines, want) {
		t.Errorf("%d lines, %.80q", len(lines), lines)
	}
}

// runHook runs a shell as a hook. The shell is the program here: nothing splits or expands what it is given.
func runHook(ctx context.Context, t *testing.T, timeout, grace time.Duration, script string, line func(string)) error {
	t.Helper()
	h := &hookProcess{words: []string{"sh", "-c", script}, timeout: timeout, grace: grace, environment: []string{"QUORATE_ADDR=here:1"}}
	return h.Run(ctx, migration.About{Partition: "p1", From: "east", To: "west", Epoch: 7, Request: "run", Stage: migration.StageCopy}, line)
}

func TestHookRuns(t *testing.T) {
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	var lines []string
	err := runHook(t.Context(), t, 0, time.Second, `env | grep ^QUORATE_ | sort; echo oops >&2; [ -t 0 ] || cat; exit 4`, func(l string) { lines = append(lines, l) })
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != 4 {
		t.Errorf("error %v", err)
	}
	for _, want := range []string{"QUORATE_ADDR=here:1", "QUORATE_HOOK=copy", "QUORATE_PARTITION=p1", "QUORATE_FROM=east", "QUORATE_TO=west", "QUORATE_EPOCH=7", "QUORATE_REQUEST=run", "oops"} {
		if !slices.Contains(lines, want) {
			t.Errorf("it wrote %q, without %s", lines, want)
		}
	}
	if err := runHook(t.Context(), t, 0, time.Second, "exit 0", nil); err != nil {
		t.Error(err)
	}
	// What it leaves in the background keeps its output open for a while, and no longer.
	if err := runHook(t.Context(), t, 0, 50*time.Millisecond, "sleep 60 & echo $! ; exit 0", func(pid string) { killLater(t, pid) }); err != nil {
		t.Error(err)
	}
}

func killLater(t *testing.T, pid string) {
	id, err := strconv.Atoi(pid)
	if err != nil {
		t.Error(err)
		return
	}
	t.Cleanup(func() {
		if p, err := os.FindProcess(id); err == nil {
			_ = p.Kill()
		}
	})
}

// TestStoppedHookIsGone stops hooks, also such that don't want to end, and all that they started is gone.
func TestStoppedHookIsGone(t *testing.T) {
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	for name, script := range map[string]string{
		"ends when asked":      `sleep 300 & echo $! >PIDS; echo ready; wait`,
		"does not want to":     `trap "" TERM; sh -c 'trap "" TERM; echo $$ >PIDS; echo ready; while :; do sleep 1; done'`,
		"ends well when asked": `trap "exit 0" TERM; sleep 300 & echo $! >PIDS; echo ready; wait`,
	} {
		file := filepath.Join(t.TempDir(), "pids")
		ctx, cancel := context.WithCancel(t.Context())
		err := runHook(ctx, t, 0, 300*time.Millisecond, strings.ReplaceAll(script, "PIDS", file), func(l string) {
			if l == "ready" {
				cancel()
			}
		})
		cancel()
		if err == nil {
			t.Errorf("%s: no error, though it was stopped", name)
		}
		raw, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		pid, err := strconv.Atoi(strings.TrimSpace(string(raw)))
		if err != nil {
			t.Fatal(err)
		}
		deadline, done := context.WithTimeout(t.Context(), conditionLimit)
		eventually(deadline, t, name+" is gone", func() bool { return processGone(pid) })
		done()
	}
	err := runHook(t.Context(), t, 100*time.Millisecond, time.Second, "sleep 300", nil)
	if err == nil || err.Error() != "it took longer than 100ms" {
		t.Errorf("error %v", err)
	}
}
