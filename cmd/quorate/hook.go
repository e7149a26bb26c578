package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"time"

	"quorate/cmd/quorate/migration"
)

const (
	// maxHookLine is how much of a line that a hook writes is read; the rest of it is dropped.
	maxHookLine = 4096
	// hookGrace is how long a hook may take to end after it was asked to, before it is killed, and how long what it started may keep its output open.
	hookGrace = 10 * time.Second
	// maxHookWords bounds the words of a hook.
	maxHookWords = 1000
)

// hookProcess runs a program of the operator's: an argument vector, with no shell in between.
type hookProcess struct {
	words   []string
	timeout time.Duration
	// environment is added to that of this process.
	environment []string
	grace       time.Duration
}

// newHook returns nil for no command. The command is split into words, and more are appended to them.
func newHook(flag, command string, more []string, timeout time.Duration, environment []string) (migration.Hook, error) {
	if command == "" {
		return nil, nil
	}
	words, err := splitWords(command)
	switch {
	case err != nil:
		return nil, fmt.Errorf("--%s: %w", flag, err)
	case len(words) == 0:
		return nil, fmt.Errorf("--%s: names no program", flag)
	case len(words)+len(more) > maxHookWords:
		return nil, fmt.Errorf("--%s: more than %d words", flag, maxHookWords)
	}
	// Found now rather than when the first partition drains.
	if _, err := exec.LookPath(words[0]); err != nil {
		return nil, fmt.Errorf("--%s: %w", flag, err)
	}
	return &hookProcess{words: append(words, more...), timeout: timeout, environment: environment, grace: hookGrace}, nil
}

// splitWords splits a command into words as a shell does with quotes and backslashes, and expands nothing.
func splitWords(command string) ([]string, error) {
	var words []string
	var word strings.Builder
	inWord, quoted, escaped := false, rune(0), false
	for _, r := range command {
		switch {
		case r == 0:
			return nil, errors.New("has a NUL character")
		case escaped:
			if quoted == '"' && r != '"' && r != '\\' {
				word.WriteByte('\\')
			}
			word.WriteRune(r)
			escaped = false
		case r == '\\' && quoted != '\'':
			escaped, inWord = true, true
		case quoted != 0 && r == quoted:
			quoted = 0
		case quoted != 0:
			word.WriteRune(r)
		case r == '\'' || r == '"':
			quoted, inWord = r, true
		case r == ' ' || r == '\t' || r == '\n':
			if inWord {
				words = append(words, word.String())
				word.Reset()
			}
			inWord = false
		default:
			word.WriteRune(r)
			inWord = true
		}
	}
	switch {
	case quoted != 0:
		return nil, fmt.Errorf("a %c is not closed", quoted)
	case escaped:
		return nil, errors.New(`ends with a \`)
	case inWord:
		words = append(words, word.String())
	}
	return words, nil
}

// Run implements migration.Hook. The program has a process group of its own, so that Ctrl-C reaches it through this process only, and ends with it.
func (h *hookProcess) Run(ctx context.Context, about migration.About, line func(string)) error {
	// The kernel kills the program if the thread that started it ends (prctl(2), PR_SET_PDEATHSIG).
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if h.timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, h.timeout)
		defer cancel()
	}
	out := &lineWriter{line: line}
	cmd := exec.CommandContext(ctx, h.words[0], h.words[1:]...)
	cmd.Stdout, cmd.Stderr = out, out
	cmd.SysProcAttr = childAttributes()
	cmd.WaitDelay = h.grace
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGTERM) }
	cmd.Env = append(append(os.Environ(), h.environment...),
		"QUORATE_HOOK="+about.Stage.String(), "QUORATE_PARTITION="+about.Partition, "QUORATE_FROM="+about.From, "QUORATE_TO="+about.To,
		fmt.Sprintf("QUORATE_EPOCH=%d", about.Epoch), "QUORATE_REQUEST="+about.Request)
	if err := cmd.Start(); err != nil {
		return err
	}
	err := cmd.Wait()
	out.end()
	if ctx.Err() != nil {
		// What it started must not go on copying. Where nothing is left, there is nobody to kill.
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
	}
	switch {
	case err == nil || errors.Is(err, exec.ErrWaitDelay) && ctx.Err() == nil:
		return nil // It has ended well; what it has left in the background keeps only its output open.
	case errors.Is(ctx.Err(), context.DeadlineExceeded):
		return fmt.Errorf("it took longer than %s", h.timeout)
	default:
		return err
	}
}

// lineWriter hands over line by line, and no more of a line than the limit.
type lineWriter struct {
	line    func(string)
	pending []byte
	// rest says that what follows belongs to a line that is too long.
	rest bool
}

func (w *lineWriter) Write(p []byte) (int, error) {
	n := len(p)
	for len(p) > 0 {
		part, after, ended := bytes.Cut(p, []byte{'\n'})
		p = after
		if room := maxHookLine - len(w.pending); !w.rest {
			w.pending = append(w.pending, part[:min(len(part), room)]...)
			w.rest = len(part) > room
		}
		if ended {
			w.end()
		}
	}
	return n, nil
}

// end hands over what is there as a line.
func (w *lineWriter) end() {
	if text := strings.TrimRight(string(w.pending), "\r"); text != "" {
		w.line(text)
	}
	w.pending, w.rest = w.pending[:0], false
}
