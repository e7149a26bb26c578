package main

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// tick is the unit of processor time in /proc, which is the same on all machines (man 5 proc, USER_HZ).
const tick = time.Second / 100

// prioritise gives this process priority, or takes it, against others of its session, and the session against others where the kernel
// schedules sessions (man 7 sched, autogroup). restore undoes the latter.
func prioritise(nice int) (restore func() error, err error) {
	const autogroup = "/proc/self/autogroup"
	before := 0
	text, err := os.ReadFile(autogroup)
	if err != nil {
		return func() error { return nil }, renice(nice) // There are no autogroups.
	}
	if _, after, ok := strings.Cut(string(text), " nice "); ok {
		if before, err = strconv.Atoi(strings.TrimSpace(after)); err != nil {
			return nil, err
		}
	}
	set := func(n int) error { return os.WriteFile(autogroup, []byte(strconv.Itoa(n)), 0) }
	if err := errors.Join(set(nice), renice(nice)); err != nil {
		return nil, err
	}
	return func() error { return set(before) }, nil
}

// renice gives this process, and those that it starts from then on, a priority. Linux has one for each thread, and new threads
// take that of who makes them.
func renice(nice int) error {
	threads, err := os.ReadDir("/proc/self/task")
	if err != nil {
		return err
	}
	var errs []error
	for _, t := range threads {
		id, err := strconv.Atoi(t.Name())
		if err == nil {
			err = syscall.Setpriority(syscall.PRIO_PROCESS, id, nice)
		}
		// A thread may have ended meanwhile.
		if !errors.Is(err, syscall.ESRCH) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// process is a member as the kernel sees it.
type process struct{ pid int }

// use is what a process has in use.
type use struct {
	rss     float64 // MB
	files   int     // open files: its connections, and some that it always has
	threads int
	cpu     time.Duration // since it started
}

func (p process) use() (u use, err error) {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.pid))
	if err != nil {
		return u, err
	}
	kib, rssErr := number(string(status), "VmRSS:")
	u.rss = float64(kib) * 1024 / 1e6
	var threadsErr error
	u.threads, threadsErr = number(string(status), "Threads:")
	files, filesErr := os.ReadDir(fmt.Sprintf("/proc/%d/fd", p.pid))
	u.files = len(files)
	var cpuErr error
	u.cpu, cpuErr = p.cpu()
	return u, errors.Join(rssErr, threadsErr, filesErr, cpuErr)
}

func number(status, name string) (int, error) {
	_, rest, _ := strings.Cut(status, name)
	fields := strings.Fields(rest)
	if len(fields) == 0 {
		return 0, fmt.Errorf("the process has no %s", name)
	}
	return strconv.Atoi(fields[0])
}

// cpu is the processor time of the process, in user and kernel mode.
func (p process) cpu() (time.Duration, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.pid))
	if err != nil {
		return 0, err
	}
	// The name of the command, in parentheses, may have spaces. Behind it come the state and so on; utime and stime are the
	// 14th and 15th of all fields (man 5 proc).
	_, rest, _ := strings.Cut(string(b), ") ")
	fields := strings.Fields(rest)
	if len(fields) < 13 {
		return 0, fmt.Errorf("/proc/%d/stat has no processor times", p.pid)
	}
	user, userErr := strconv.ParseInt(fields[11], 10, 64)
	system, systemErr := strconv.ParseInt(fields[12], 10, 64)
	return time.Duration(user+system) * tick, errors.Join(userErr, systemErr)
}
