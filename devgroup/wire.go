package devgroup

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"
)

const (
	// wireBuffer is how much a wire carries at once.
	wireBuffer = 32 << 10
	// maxDelayed is how many pieces may be under way on a wire with a delay; then the sender waits, as it would for a real line.
	maxDelayed = 256
)

// Wire is a line between a member and those who connect to it: a proxy on loopback that can be cut or made slow. A cut wire neither takes connections nor
// keeps them.
type Wire struct {
	target    string
	listener  net.Listener
	processes func() map[string]int // of those who may connect, by their names
	running   sync.WaitGroup

	mu     sync.Mutex
	closed bool
	cut    func(from string) bool
	delay  time.Duration
	open   map[*lineage]struct{}
}

// lineage is one connection through a wire.
type lineage struct {
	near, to net.Conn
}

func (l *lineage) close() {
	_ = l.near.Close()
	_ = l.to.Close()
}

// NewWire listens on an address and leads to the target. The processes are those that can be told from each other when it is cut.
func NewWire(listen, target string, processes func() map[string]int) (*Wire, error) {
	l, err := net.Listen("tcp", listen)
	if err != nil {
		return nil, err
	}
	w := &Wire{target: target, listener: l, processes: processes, open: make(map[*lineage]struct{})}
	w.running.Go(w.accept)
	return w, nil
}

// Cut cuts the wire for those whom the function names, by the names of their processes, empty for all others; nil mends it. Connections of theirs
// break at once.
func (w *Wire) Cut(from func(from string) bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.cut = from
	for l := range w.open {
		if w.refuses(l.near) {
			l.close()
		}
	}
}

// refuses tells whether a connection is cut. Whose it is takes a look at the system, which a wire that is whole does not need.
func (w *Wire) refuses(near net.Conn) bool {
	return w.closed || w.cut != nil && w.cut(ownerOf(near, w.processes()))
}

// Delay lets everything that the target says arrive later by that time.
func (w *Wire) Delay(d time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.delay = d
}

// Close ends the wire and waits for its goroutines.
func (w *Wire) Close() error {
	w.mu.Lock()
	w.closed = true
	for l := range w.open {
		l.close()
	}
	w.mu.Unlock()
	err := w.listener.Close()
	w.running.Wait()
	return err
}

func (w *Wire) accept() {
	for {
		c, err := w.listener.Accept()
		if err != nil {
			return
		}
		w.running.Go(func() { w.carry(c) })
	}
}

func (w *Wire) carry(near net.Conn) {
	defer near.Close()
	to, err := net.Dial("tcp", w.target)
	if err != nil {
		return
	}
	defer to.Close()
	l := &lineage{near: near, to: to}
	if !w.enter(l) {
		return
	}
	defer w.leave(l)
	var both sync.WaitGroup
	both.Go(func() { defer l.close(); w.pump(to, near, false) })
	both.Go(func() { defer l.close(); w.pump(near, to, true) })
	both.Wait()
}

func (w *Wire) enter(l *lineage) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.refuses(l.near) {
		return false
	}
	w.open[l] = struct{}{}
	return true
}

func (w *Wire) leave(l *lineage) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.open, l)
}

func (w *Wire) latency() time.Duration {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.delay
}

// pump carries one direction until it ends. Pieces are delayed one by one, so that the line is slow and not narrow.
func (w *Wire) pump(to, from net.Conn, delayed bool) {
	type piece struct {
		at   time.Time
		data []byte
	}
	pieces := make(chan piece, maxDelayed)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for p := range pieces {
			time.Sleep(time.Until(p.at))
			if _, err := to.Write(p.data); err != nil {
				_ = from.Close()
			}
		}
	}()
	for {
		b := make([]byte, wireBuffer)
		n, err := from.Read(b)
		if n > 0 {
			p := piece{data: b[:n]}
			if delayed {
				p.at = time.Now().Add(w.latency())
			}
			pieces <- p
		}
		if err != nil {
			break
		}
	}
	close(pieces)
	<-done
}

// ownerOf returns which of some processes has the other end of a connection from this machine, empty if none has (man 5 proc).
func ownerOf(c net.Conn, processes map[string]int) string {
	remote, ok := c.RemoteAddr().(*net.TCPAddr)
	if !ok {
		return ""
	}
	inode, err := inodeOf(remote.Port)
	if err != nil {
		return ""
	}
	for name, pid := range processes {
		if has(pid, inode) {
			return name
		}
	}
	return ""
}

// inodeOf is the inode of the socket that is bound to a port and connected.
func inodeOf(port int) (string, error) {
	table, err := os.ReadFile("/proc/net/tcp")
	if err != nil {
		return "", err
	}
	local := fmt.Sprintf(":%04X", port)
	for line := range strings.Lines(string(table)) {
		fields := strings.Fields(line)
		// Column 1 is the local address, 3 the state, which is 01 for a connection that is established, and 9 the inode.
		if len(fields) > 9 && strings.HasSuffix(fields[1], local) && fields[3] == "01" && fields[9] != "0" {
			return fields[9], nil
		}
	}
	return "", errors.New("no such socket")
}

func has(pid int, inode string) bool {
	folder := fmt.Sprintf("/proc/%d/fd", pid)
	entries, err := os.ReadDir(folder)
	if err != nil {
		return false
	}
	for _, e := range entries {
		if link, err := os.Readlink(filepath.Join(folder, e.Name())); err == nil && link == "socket:["+inode+"]" {
			return true
		}
	}
	return false
}
