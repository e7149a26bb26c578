//go:build unix

package channel

import (
	"net"
	"syscall"
)

// directWriter writes to a connection without ever waiting for it. The zero
// value writes nothing.
type directWriter struct {
	raw syscall.RawConn
	buf []byte
	n   int
	err error
	fn  func(fd uintptr) bool
}

func newDirectWriter(nc net.Conn) (w directWriter) {
	if sc, ok := nc.(syscall.Conn); ok {
		if raw, err := sc.SyscallConn(); err == nil {
			w.raw = raw
		}
	}
	return w
}

// try writes as much of b as the kernel takes at once. Nobody else may be
// writing meanwhile.
func (w *directWriter) try(b []byte) (int, error) {
	if w.raw == nil {
		return 0, nil
	}
	if w.fn == nil {
		w.fn = w.write // made once, as a method value is an allocation
	}
	w.buf, w.n, w.err = b, 0, nil
	err := w.raw.Write(w.fn)
	w.buf = nil
	if err == nil {
		err = w.err
	}
	return w.n, err
}

// write is called with the descriptor; true tells the runtime not to wait.
func (w *directWriter) write(fd uintptr) bool {
	for w.n < len(w.buf) {
		n, err := syscall.Write(int(fd), w.buf[w.n:])
		switch {
		case err == syscall.EINTR:
			continue
		case err == syscall.EAGAIN:
			return true
		case err != nil:
			w.err = err
			return true
		}
		w.n += n
	}
	return true
}
