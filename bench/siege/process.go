package main

import (
	"context"
	"errors"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"

	"quorate/bench/process"
)

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

// use is what a process has in use.
type use struct {
	rss     float64 // MB
	files   int     // open files: its connections, and some that it always has
	threads int
}

func useOf(p process.ID) (u use, err error) {
	var rssErr, threadsErr, filesErr error
	u.rss, rssErr = p.RSS()
	u.threads, threadsErr = p.Threads()
	u.files, filesErr = p.Files()
	return u, errors.Join(rssErr, threadsErr, filesErr)
}

// peak is the most that a process has in use until ctx ends.
func peak(ctx context.Context, p process.ID) (most use) {
	for tick := time.NewTicker(settlePoll); ; {
		if u, err := useOf(p); err == nil {
			most.rss, most.files, most.threads = max(most.rss, u.rss), max(most.files, u.files), max(most.threads, u.threads)
		}
		select {
		case <-ctx.Done():
			tick.Stop()
			return most
		case <-tick.C:
		}
	}
}
