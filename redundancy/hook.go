package redundancy

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"quorate/fsm"
)

// Limits of an apply hook.
const (
	DefaultHookTimeout = 5 * time.Minute
	MinHookTimeout     = 100 * time.Millisecond
	// MaxHookTimeout leaves the rest of fsm.ApplyMaxDuration, after which the lease is closed whatever the hook does, for its end.
	MaxHookTimeout = fsm.ApplyMaxDuration - time.Minute
	// MaxHookArguments is the most words of the command, and MaxHookArgument the most bytes of one.
	MaxHookArguments = 64
	MaxHookArgument  = 4096

	// hookPipeWait is how long the output of a hook that has ended is waited for: a process that it left behind may hold it open.
	hookPipeWait = 500 * time.Millisecond
)

// inherited are the variables of this process that a hook gets, besides QUORATE_*: others may hold secrets.
var inherited = []string{"PATH", "HOME", "LANG", "TZ", "TMPDIR", "SYSTEMROOT"}

// Hook is an Applier that runs a command of the operator's: an argument vector, with no shell.
type Hook struct {
	command []string
	timeout time.Duration
}

// NewHook checks the command. A timeout of 0 means DefaultHookTimeout. The error names the setting that is wrong.
func NewHook(command []string, timeout time.Duration) (*Hook, error) {
	if timeout == 0 {
		timeout = DefaultHookTimeout
	}
	switch {
	case len(command) == 0 || command[0] == "":
		return nil, errors.New("command[0]: is missing")
	case len(command) > MaxHookArguments:
		return nil, fmt.Errorf("command: has %d words, at most %d are allowed", len(command), MaxHookArguments)
	case timeout < MinHookTimeout || timeout > MaxHookTimeout:
		return nil, fmt.Errorf("timeout: %v is not within %v and %v", timeout, MinHookTimeout, MaxHookTimeout)
	}
	for i, argument := range command {
		if len(argument) > MaxHookArgument || strings.ContainsRune(argument, 0) {
			return nil, fmt.Errorf("command[%d]: must have at most %d bytes, none of them zero", i, MaxHookArgument)
		}
	}
	return &Hook{command: command, timeout: timeout}, nil
}

// Apply runs the command, and returns the end of what it wrote. It fails if the command can't start, ends with another code than 0, or runs for longer than
// the timeout; then it is killed, with all processes that it started.
func (h *Hook) Apply(ctx context.Context, a Apply) (output string, err error) {
	ctx, cancel := context.WithTimeoutCause(ctx, h.timeout, fmt.Errorf("the apply hook ran for longer than %v", h.timeout))
	defer cancel()
	command := exec.CommandContext(ctx, h.command[0], h.command[1:]...)
	var written tailBuffer
	command.Stdout, command.Stderr = &written, &written
	command.Env = append(environment(),
		"QUORATE_GENERATION="+strconv.FormatUint(a.Generation, 10), "QUORATE_SET="+a.Set, "QUORATE_SERVER="+a.Server, "QUORATE_ROLE="+a.Role)
	command.WaitDelay = hookPipeWait
	ownGroup(command)
	if err = command.Run(); errors.Is(err, exec.ErrWaitDelay) {
		err = nil // It ended well; what it left behind does not count.
	}
	if cause := context.Cause(ctx); err != nil && cause != nil {
		err = cause
	} else if err != nil {
		err = fmt.Errorf("apply hook: %w", err)
	}
	return written.String(), err
}

func environment() (variables []string) {
	for _, name := range inherited {
		if value, ok := os.LookupEnv(name); ok {
			variables = append(variables, name+"="+value)
		}
	}
	return variables
}

// tailBuffer keeps the end of what is written to it.
type tailBuffer struct {
	mu   sync.Mutex
	kept []byte
}

func (t *tailBuffer) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(p) >= fsm.MaxOutputBytes {
		t.kept = append(t.kept[:0], p[len(p)-fsm.MaxOutputBytes:]...)
		return len(p), nil
	}
	if over := len(t.kept) + len(p) - fsm.MaxOutputBytes; over > 0 {
		t.kept = append(t.kept[:0], t.kept[over:]...)
	}
	t.kept = append(t.kept, p...)
	return len(p), nil
}

// String returns what is kept as text.
func (t *tailBuffer) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return tail(string(t.kept), fsm.MaxOutputBytes)
}

// tail returns the end of a text, as valid UTF-8: bytes that are none become question marks.
func tail(text string, limit int) string {
	if len(text) > limit {
		text = text[len(text)-limit:]
	}
	for len(text) > 0 && !utf8.RuneStart(text[0]) { // The cut went through a rune.
		text = text[1:]
	}
	return strings.ToValidUTF8(text, "?")
}
