package process

import (
	"errors"
	"os"
	"strconv"
	"strings"
	"syscall"
)

// Prioritise gives this process priority, or takes it, against others of its session, and the session against others where the kernel
// schedules sessions (man 7 sched, autogroup). restore undoes the latter.
func Prioritise(nice int) (restore func() error, err error) {
	const autogroup = "/proc/self/autogroup"
	before := 0
	text, err := os.ReadFile(autogroup)
	if err != nil {
		return func() error { return nil }, Renice(nice) // There are no autogroups.
	}
	if _, after, ok := strings.Cut(string(text), " nice "); ok {
		if before, err = strconv.Atoi(strings.TrimSpace(after)); err != nil {
			return nil, err
		}
	}
	set := func(n int) error { return os.WriteFile(autogroup, []byte(strconv.Itoa(n)), 0) }
	if err := errors.Join(set(nice), Renice(nice)); err != nil {
		return nil, err
	}
	return func() error { return set(before) }, nil
}

// Renice gives this process, and those that it starts from then on, a priority. Linux has one for each thread, and new threads
// take that of who makes them.
func Renice(nice int) error {
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
