//go:build !unix

package channel

import "net"

// directWriter writes nothing where the kernel cannot be asked not to wait, so
// that everything goes through the draining goroutine.
type directWriter struct{}

func newDirectWriter(net.Conn) directWriter { return directWriter{} }

func (*directWriter) try([]byte) (int, error) { return 0, nil }
