//go:build unix && !linux

package main

import "syscall"

// childAttributes put a child into a process group of its own, so that Ctrl-C in the terminal reaches it once, through its
// parent. There is no parent-death signal here: children of a killed parent stay.
func childAttributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true}
}
