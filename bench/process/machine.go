package process

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"
	"time"
)

// Busy is the processor time that all processes of the machine and its kernel have taken since it started.
func Busy() (time.Duration, error) {
	b, err := os.ReadFile("/proc/stat")
	if err != nil {
		return 0, err
	}
	return busy(string(b))
}

// busy adds up the first line of /proc/stat: user, nice, system, idle, iowait, irq, softirq, steal (man 5 proc). The last is what other machines on the same
// host took.
func busy(stat string) (time.Duration, error) {
	line, _, _ := strings.Cut(stat, "\n")
	fields := strings.Fields(line)
	if len(fields) < 9 || fields[0] != "cpu" {
		return 0, fmt.Errorf("/proc/stat begins with %q", line)
	}
	var sum int64
	var errs []error
	for i, f := range fields[1:9] {
		n, err := strconv.ParseInt(f, 10, 64)
		if errs = append(errs, err); i != 3 && i != 4 {
			sum += n
		}
	}
	return time.Duration(sum) * tick, errors.Join(errs...)
}

// Share is what a processor time is of all that the machine has in a time.
func Share(busy, elapsed time.Duration) float64 {
	return busy.Seconds() / (elapsed.Seconds() * float64(runtime.NumCPU()))
}
