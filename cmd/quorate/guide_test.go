package main

import (
	"bufio"
	"bytes"
	"context"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// guideLimit bounds the whole guide, three failed probes of two seconds each included.
const guideLimit = 45 * time.Second

// TestGuideWorksAsTyped types what "quorate dev --processes" prints into a shell, line by line, and looks at what it promises.
func TestGuideWorksAsTyped(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithTimeout(t.Context(), guideLimit)
	defer cancel()
	base, err := freePorts()
	if err != nil {
		t.Fatal(err)
	}
	dev := exec.CommandContext(ctx, "quorate", "dev", "--processes", "--base-port", strconv.Itoa(base), "--data", t.TempDir())
	dev.Stderr = os.Stderr
	stdout, err := dev.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := dev.Start(); err != nil {
		t.Fatal(err)
	}
	steps := readGuide(t, bufio.NewScanner(stdout))

	promised := map[string]string{
		"member list":       `(?m)^m1 +\S+ +reachable +line-a +Primary +255 `,
		"ua read":           `(?m)^i=2267 +255 +Good `,
		"lease begin":       `(?m)^m1 +line-a +1 +open `,
		"lease end":         `(?m)^m1 +line-a +1 +ended `,
		"ua watch":          `(?m)^i=2267 +100 +Good .*\n(?s:.*)^i=2267 +80 +Good `,
		"kill -9":           ``,
		"serve --config":    `(?m)msg="service level moved".* to=180 band=Recovering`,
		"topology plan":     `(?m)^sets\[line-a\]\.servers\[m1\]\.role +Primary +Backup$`,
		"topology publish":  `(?m)^generation 2 is current`,
		"topology history":  `(?m)^2 .*\n1 .* quorate-dev-demo `,
		"partition list":    `(?m)^tank-12 +active +hall-c `,
		"partition migrate": `(?m)^partition tank-1 is at hall-b, epoch 4, after `,
		"partition drain":   `(?m)^tank-9 +active +hall-c +hall-b +1 +5s +nothing$`,
	}
	export := steps[0]
	if !strings.HasPrefix(export, "export QUORATE_ADDR=") {
		t.Fatalf("the first step is %q", export)
	}
	var watch, serve *typed
	for _, step := range steps[1:] {
		verb := ""
		for v := range promised {
			if strings.Contains(step, v) {
				verb = v
			}
		}
		if verb == "" {
			t.Errorf("nothing is promised for %q", step)
			continue
		}
		command := typeIn(ctx, t, export+"; "+step, regexp.MustCompile(promised[verb]))
		delete(promised, verb)
		switch verb {
		case "ua watch":
			watch = command
		case "serve --config":
			serve = command
			serve.shows()
		case "kill -9":
			command.ends()
			watch.shows()
		default:
			command.ends()
		}
	}
	if watch == nil || serve == nil {
		t.Fatal("the guide shows no watch, or no restart")
	}
	watch.interrupt()
	serve.interrupt()
	for verb := range promised {
		t.Errorf("the guide does not show %q", verb)
	}
	if err := dev.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	if err := dev.Wait(); err != nil {
		t.Errorf("dev: %v", err)
	}
}

// readGuide returns the indented lines without their remarks, up to the last line of the guide.
func readGuide(t *testing.T, lines *bufio.Scanner) []string {
	t.Helper()
	var steps []string
	for lines.Scan() {
		line := lines.Text()
		if step, ok := strings.CutPrefix(line, "  "); ok {
			step, _, _ = strings.Cut(step, "  # ")
			steps = append(steps, strings.TrimSpace(step))
		}
		if strings.HasPrefix(line, "Ctrl-C") {
			return steps
		}
	}
	t.Fatal("dev ended before its guide did")
	return nil
}

// typed is a command that was typed into a shell.
type typed struct {
	t       *testing.T
	text    string
	command *exec.Cmd
	pattern *regexp.Regexp
	output  *watchedBuffer
	done    chan error
}

func typeIn(ctx context.Context, t *testing.T, text string, pattern *regexp.Regexp) *typed {
	t.Helper()
	c := &typed{t: t, text: text, command: exec.CommandContext(ctx, "sh", "-c", text), pattern: pattern, done: make(chan error, 1)}
	c.output = &watchedBuffer{matched: make(chan struct{}), pattern: pattern}
	c.command.Stdout, c.command.Stderr = c.output, c.output
	// As a terminal does, an interrupt reaches the shell and what it runs.
	c.command.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := c.command.Start(); err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	go func() { c.done <- c.command.Wait() }()
	return c
}

// ends waits for the command's end, which must be good, and looks at what it printed.
func (c *typed) ends() {
	c.t.Helper()
	if err := <-c.done; err != nil || !c.pattern.Match(c.output.bytes()) {
		c.t.Errorf("%s: %v; it printed, without %s,\n%s", c.text, err, c.pattern, c.output.bytes())
	}
}

// shows waits until a command that stays has printed what is promised.
func (c *typed) shows() {
	c.t.Helper()
	select {
	case <-c.output.matched:
	case err := <-c.done:
		c.t.Errorf("%s: ended with %v; it printed, without %s,\n%s", c.text, err, c.pattern, c.output.bytes())
		c.done <- err
	}
}

func (c *typed) interrupt() {
	c.t.Helper()
	if err := syscall.Kill(-c.command.Process.Pid, syscall.SIGINT); err != nil {
		c.t.Errorf("%s: %v", c.text, err)
	}
	// The shell itself ends by the signal, whatever its command said.
	<-c.done
	if bytes.Contains(c.output.bytes(), []byte("quorate: ")) {
		c.t.Errorf("%s: interrupted, it printed\n%s", c.text, c.output.bytes())
	}
}

// watchedBuffer tells when what was written to it matches.
type watchedBuffer struct {
	pattern *regexp.Regexp
	matched chan struct{}

	mu     sync.Mutex
	buffer bytes.Buffer
	told   bool
}

func (b *watchedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	n, err := b.buffer.Write(p)
	if !b.told && b.pattern.Match(b.buffer.Bytes()) {
		b.told = true
		close(b.matched)
	}
	return n, err
}

func (b *watchedBuffer) bytes() []byte {
	b.mu.Lock()
	defer b.mu.Unlock()
	return bytes.Clone(b.buffer.Bytes())
}
