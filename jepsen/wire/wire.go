// Package wire is a network in user space between network namespaces of one machine: every packet between two ends passes through a [Switch], which
// delays, loses, doubles and reorders it as it is told, for each direction by itself. The kernel's own netem isn't needed.
//
// An end is a TUN device in a namespace. What leaves it is an IP packet without a link layer; the switch looks at its destination and nothing else, so
// TCP notices what it would notice on a bad line.
package wire

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// MTU is that of every end, in bytes: large, since each packet costs the switch a system call or two.
	MTU = 9000
	// maxQueued bounds the packets that a slow direction holds back; what comes when they are all taken is lost, as by a full router.
	maxQueued = 4096
	// device is the name of an end's TUN device.
	device = "wire0"
)

// Quality is how well one direction of a line works. The zero value is a perfect line.
type Quality struct {
	// Cut loses everything.
	Cut bool
	// Delay is added to each packet, and up to Jitter more. With Jitter packets overtake each other only as Reorder says.
	Delay, Jitter time.Duration
	// Loss, Double and Reorder are the chances, 0 to 1, that a packet is lost, comes twice, or is let past by those that follow it within Delay.
	Loss, Double, Reorder float64
}

// Counts are what a switch did so far.
type Counts struct {
	Passed, Lost, Delayed, Doubled, Reordered uint64
}

// Switch joins ends.
type Switch struct {
	mu      sync.Mutex
	ends    map[netip.Addr]*end
	quality map[[2]netip.Addr]Quality
	random  *rand.Rand
	closed  bool
	readers sync.WaitGroup
	pending sync.WaitGroup

	passed, lost, delayed, doubled, reordered atomic.Uint64
}

// end is a TUN device.
type end struct {
	file *os.File
	// last is when the newest packet of each sender is due, so that jitter doesn't reorder.
	last   map[netip.Addr]time.Time
	queued atomic.Int64
}

// NewSwitch returns one without ends; the seed decides which packets are unlucky.
func NewSwitch(seed uint64) *Switch {
	return &Switch{ends: map[netip.Addr]*end{}, quality: map[[2]netip.Addr]Quality{}, random: rand.New(rand.NewPCG(seed, 7))}
}

// Join makes an end with an address in a network namespace, given by its path under /run/netns or /proc; empty means this process's own.
func (s *Switch) Join(namespace string, address netip.Prefix) error {
	file, err := openIn(namespace)
	if err != nil {
		return err
	}
	for _, args := range [][]string{
		{"addr", "add", address.String(), "dev", device}, {"link", "set", device, "mtu", fmt.Sprint(MTU), "up"}, {"link", "set", "lo", "up"},
	} {
		cmd := exec.Command("ip", args...)
		if namespace != "" {
			cmd = exec.Command("nsenter", append([]string{"--net=" + namespace, "ip"}, args...)...)
		}
		if out, err := cmd.CombinedOutput(); err != nil {
			return errors.Join(fmt.Errorf("%v: %w: %s", cmd.Args, err, out), file.Close())
		}
	}
	e := &end{file: file, last: map[netip.Addr]time.Time{}}
	s.mu.Lock()
	s.ends[address.Addr()] = e
	s.mu.Unlock()
	s.readers.Go(func() { s.read(e, address.Addr()) })
	return nil
}

// openIn opens a TUN device in a namespace. The thread that went there is not used for anything else if it can't come back.
func openIn(namespace string) (file *os.File, err error) {
	if namespace == "" {
		return open()
	}
	home, err := os.Open("/proc/self/ns/net")
	if err != nil {
		return nil, err
	}
	there, err := os.Open(namespace)
	if err != nil {
		return nil, errors.Join(err, home.Close())
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread()
		if err = unix.Setns(int(there.Fd()), unix.CLONE_NEWNET); err != nil {
			return
		}
		file, err = open()
		if unix.Setns(int(home.Fd()), unix.CLONE_NEWNET) == nil {
			runtime.UnlockOSThread()
		}
	}()
	<-done
	return file, errors.Join(err, there.Close(), home.Close())
}

func open() (*os.File, error) {
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("/dev/net/tun: %w", err)
	}
	request, err := unix.NewIfreq(device)
	if err == nil {
		request.SetUint16(unix.IFF_TUN | unix.IFF_NO_PI)
		err = unix.IoctlIfreq(fd, unix.TUNSETIFF, request)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("make a TUN device: %w", err), unix.Close(fd))
	}
	return os.NewFile(uintptr(fd), device), nil
}

// Set sets the quality of the line from one address to another, in this direction only.
func (s *Switch) Set(from, to netip.Addr, q Quality) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if q == (Quality{}) {
		delete(s.quality, [2]netip.Addr{from, to})
		return
	}
	s.quality[[2]netip.Addr{from, to}] = q
}

// Heal makes every line perfect.
func (s *Switch) Heal() {
	s.mu.Lock()
	defer s.mu.Unlock()
	clear(s.quality)
}

// Counts returns what the switch did so far.
func (s *Switch) Counts() Counts {
	return Counts{Passed: s.passed.Load(), Lost: s.lost.Load(), Delayed: s.delayed.Load(), Doubled: s.doubled.Load(), Reordered: s.reordered.Load()}
}

// Close ends all ends, and returns when nothing of the switch runs any more.
func (s *Switch) Close() error {
	s.mu.Lock()
	s.closed = true
	var errs []error
	for _, e := range s.ends {
		errs = append(errs, e.file.Close())
	}
	s.mu.Unlock()
	s.readers.Wait()
	s.pending.Wait()
	return errors.Join(errs...)
}

// read takes packets out of an end until that is closed.
func (s *Switch) read(e *end, from netip.Addr) {
	buffer := make([]byte, MTU+64)
	for {
		n, err := e.file.Read(buffer)
		if err != nil {
			return
		}
		to, ok := destination(buffer[:n])
		if !ok {
			continue // Such as what IPv6 says of itself when a device comes up.
		}
		s.pass(from, to, buffer[:n])
	}
}

// destination returns where an IPv4 packet goes (RFC 791 §3.1).
func destination(packet []byte) (netip.Addr, bool) {
	if len(packet) < 20 || packet[0]>>4 != 4 {
		return netip.Addr{}, false
	}
	return netip.AddrFrom4([4]byte(packet[16:20])), true
}

// pass brings a packet to where it goes, or not.
func (s *Switch) pass(from, to netip.Addr, packet []byte) {
	s.mu.Lock()
	target, q := s.ends[to], s.quality[[2]netip.Addr{from, to}]
	if target == nil || s.closed || q.Cut || q.Loss > 0 && s.random.Float64() < q.Loss {
		s.mu.Unlock()
		s.lost.Add(1)
		return
	}
	copies := 1
	if q.Double > 0 && s.random.Float64() < q.Double {
		copies = 2
		s.doubled.Add(1)
	}
	wait := q.Delay
	if q.Jitter > 0 {
		wait += time.Duration(s.random.Int64N(int64(q.Jitter)))
	}
	due := time.Now().Add(wait)
	switch late := q.Reorder > 0 && s.random.Float64() < q.Reorder; {
	case late:
		due = due.Add(q.Delay + time.Millisecond)
		s.reordered.Add(1)
	case due.Before(target.last[from]):
		due = target.last[from]
	default:
		target.last[from] = due
	}
	s.mu.Unlock()
	left := time.Until(due)
	if left <= 0 && copies == 1 {
		s.deliver(target, packet)
		return
	}
	s.delayed.Add(1)
	kept := append([]byte(nil), packet...)
	for range copies {
		if target.queued.Add(1) > maxQueued {
			target.queued.Add(-1)
			s.lost.Add(1)
			continue
		}
		s.pending.Add(1)
		time.AfterFunc(left, func() {
			defer s.pending.Done()
			defer target.queued.Add(-1)
			s.deliver(target, kept)
		})
	}
}

func (s *Switch) deliver(target *end, packet []byte) {
	if _, err := target.file.Write(packet); err != nil {
		s.lost.Add(1) // The end was closed, or its queue is full.
		return
	}
	s.passed.Add(1)
}
