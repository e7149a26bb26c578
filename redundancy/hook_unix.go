//go:build unix

package redundancy

import (
	"os/exec"
	"syscall"
)

// ownGroup has a command run in a process group of its own, and be killed with all that is in it.
func ownGroup(command *exec.Cmd) {
	command.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	command.Cancel = func() error { return syscall.Kill(-command.Process.Pid, syscall.SIGKILL) }
}
