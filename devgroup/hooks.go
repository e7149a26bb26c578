package devgroup

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// hook is an apply hook that tells, by a file, that it has begun, and ends when nothing holds it any more. There may be a file by which it fails.
const hook = `#!/bin/sh
dir=$(dirname "$0")
echo "$QUORATE_GENERATION $QUORATE_ROLE" >> "$dir/begun-$QUORATE_SERVER"
while [ -e "$dir/hold-$QUORATE_SERVER" ]; do sleep 0.02; done
[ ! -e "$dir/fail-$QUORATE_SERVER" ]
`

// Hooks are the apply hooks of all servers of a group, which a test holds and lets go.
type Hooks struct{ dir string }

// NewHooks makes the hook in a folder that holds nothing else.
func NewHooks(dir string) (*Hooks, error) {
	h := &Hooks{dir: dir}
	return h, os.WriteFile(h.Command(), []byte(hook), 0o700)
}

// Command is the setting redundancy.applyHook.command.
func (h *Hooks) Command() string { return filepath.Join(h.dir, "hook") }

// Hold makes the applies of a server last until Release.
func (h *Hooks) Hold(server string) error { return h.put("hold-" + server) }

// Release lets the applies of a server end.
func (h *Hooks) Release(server string) error { return h.remove("hold-" + server) }

// Fail makes the applies of a server fail, and Heal undoes that.
func (h *Hooks) Fail(server string) error { return h.put("fail-" + server) }

// Heal lets the applies of a server end well again.
func (h *Hooks) Heal(server string) error { return h.remove("fail-" + server) }

// Begun is how often the hook of a server began.
func (h *Hooks) Begun(server string) int {
	b, err := os.ReadFile(filepath.Join(h.dir, "begun-"+server))
	if err != nil {
		return 0 // It has not.
	}
	return strings.Count(string(b), "\n")
}

func (h *Hooks) put(name string) error {
	return os.WriteFile(filepath.Join(h.dir, name), nil, 0o600)
}

func (h *Hooks) remove(name string) error {
	if err := os.Remove(filepath.Join(h.dir, name)); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}
