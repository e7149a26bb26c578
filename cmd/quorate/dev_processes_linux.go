package main

import "syscall"

// childAttributes put a child into a process group of its own, so that Ctrl-C in the terminal reaches it once, through its
// parent, and make the kernel kill it if the parent dies without stopping it.
func childAttributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}
