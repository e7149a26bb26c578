package lab

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"syscall"

	"golang.org/x/sys/unix"
)

// insideVariable tells the second life of the program that it is inside.
const insideVariable = "QUORATE_CHAOS_INSIDE"

// tools are the programs that a laboratory needs, with the Debian package that has each.
var tools = map[string]string{
	"ip": "iproute2", "mkfs.ext4": "e2fsprogs", "mount": "mount", "umount": "mount", "nsenter": "util-linux",
}

// Enter runs the program again inside namespaces of its own and ends with its exit code; inside it returns. Whatever the program makes there, processes, mounts, loop devices,
// networks, ends with it, even if it is killed: its process is the first of a process namespace, and dies with the one outside.
func Enter() error {
	if os.Getenv(insideVariable) != "" {
		return prepare()
	}
	if missing := Missing(); missing != nil {
		return missing
	}
	// The parent-death signal is sent when the thread that started the child ends.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Env = append(os.Environ(), insideVariable+"=1")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: unix.CLONE_NEWNS | unix.CLONE_NEWPID | unix.CLONE_NEWNET | unix.CLONE_NEWIPC, Pdeathsig: syscall.SIGKILL,
	}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("namespaces: %w", err)
	}
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	go func() {
		for s := range signals {
			_ = cmd.Process.Signal(s) // It may have ended already.
		}
	}()
	var failed *exec.ExitError
	if err := cmd.Wait(); err != nil && !errors.As(err, &failed) {
		return err
	}
	os.Exit(cmd.ProcessState.ExitCode())
	return nil
}

// Missing says what this machine lacks; nil if nothing.
func Missing() error {
	var errs []error
	if os.Geteuid() != 0 {
		errs = append(errs, errors.New("root is needed, for namespaces and mounts"))
	}
	for _, device := range []string{"/dev/net/tun", "/dev/fuse", "/dev/loop-control"} {
		if _, err := os.Stat(device); err != nil {
			errs = append(errs, fmt.Errorf("%s is missing", device))
		}
	}
	for tool, from := range tools {
		if _, err := exec.LookPath(tool); err != nil {
			errs = append(errs, fmt.Errorf("%s is missing (Debian package %s)", tool, from))
		}
	}
	return errors.Join(errs...)
}

// prepare makes the namespaces fit to live in: mounts that nobody outside sees, and /proc and /run that are those of in here.
func prepare() error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("private mounts: %w", err)
	}
	if err := unix.Mount("proc", "/proc", "proc", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, ""); err != nil {
		return fmt.Errorf("/proc: %w", err)
	}
	if err := unix.Mount("none", "/run", "tmpfs", 0, ""); err != nil {
		return fmt.Errorf("/run: %w", err)
	}
	return nil
}

// run runs a tool, and has what it said in the error.
func run(name string, args ...string) error {
	if out, err := exec.Command(name, args...).CombinedOutput(); err != nil {
		return fmt.Errorf("%s %v: %w: %s", name, args, err, out)
	}
	return nil
}
