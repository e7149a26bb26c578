// Package process starts processes beside the one that measures, and says what a process has in use, as the Linux kernel counts it.
package process

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// tick is the unit of processor time in /proc, which is the same on all machines (man 5 proc, USER_HZ).
const tick = time.Second / 100

// Child is a process that this one started. It takes its end of In for the order to end.
type Child struct {
	*exec.Cmd
	In  io.WriteCloser
	Out io.Reader
}

// Start starts a command. What it has to complain of goes where this program's complaints go, and it is killed when this program dies.
func Start(cmd *exec.Cmd) (*Child, error) {
	cmd.Stderr = os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	return &Child{Cmd: cmd, In: in, Out: out}, nil
}

// Self is a command that runs this program again, with other arguments.
func Self(args ...string) (*exec.Cmd, error) {
	program, err := os.Executable()
	if err != nil {
		return nil, err
	}
	return exec.Command(program, args...), nil
}

// Stop tells the process to end, and waits until it has.
func (c *Child) Stop() error { return errors.Join(c.In.Close(), c.Wait()) }

// Kill ends the process at once. Its end is an error, as that of any process that was killed.
func (c *Child) Kill() error { return errors.Join(c.Process.Kill(), c.Wait()) }

// ID is the id of a process.
type ID int

// CPU is the processor time of the process alone, in user and kernel mode, since it started.
func (id ID) CPU() (time.Duration, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", id))
	if err != nil {
		return 0, err
	}
	// The name of the command, in parentheses, may have spaces. Behind it come the state and so on; utime and stime are the
	// 14th and 15th of all fields (man 5 proc).
	_, rest, _ := strings.Cut(string(b), ") ")
	fields := strings.Fields(rest)
	if len(fields) < 13 {
		return 0, fmt.Errorf("/proc/%d/stat has no processor times", id)
	}
	user, userErr := strconv.ParseInt(fields[11], 10, 64)
	system, systemErr := strconv.ParseInt(fields[12], 10, 64)
	return time.Duration(user+system) * tick, errors.Join(userErr, systemErr)
}

// Ended tells whether the process runs no more. It may not have been waited for yet (man 5 proc, state).
func (id ID) Ended() bool {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", id))
	if err != nil {
		return errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ESRCH)
	}
	_, rest, _ := strings.Cut(string(b), ") ")
	return strings.HasPrefix(rest, "Z") || strings.HasPrefix(rest, "X")
}

// RSS is the memory that the process has in use, in MB.
func (id ID) RSS() (float64, error) {
	kib, err := id.status("VmRSS:")
	return float64(kib) * 1024 / 1e6, err
}

// Threads is how many threads the process has.
func (id ID) Threads() (int, error) { return id.status("Threads:") }

// Files is how many files the process has open: its connections, and some that it always has.
func (id ID) Files() (int, error) {
	files, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", id))
	return len(files), err
}

func (id ID) status(name string) (int, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", id))
	if err != nil {
		return 0, err
	}
	_, rest, _ := strings.Cut(string(b), name)
	fields := strings.Fields(rest)
	if len(fields) == 0 {
		return 0, fmt.Errorf("/proc/%d/status has no %s", id, strings.TrimSuffix(name, ":"))
	}
	return strconv.Atoi(fields[0])
}
