package node

import (
	"context"
	"errors"
	"io"
	"net"
	"syscall"
	"time"
)

const (
	// lifelineRetry is the pause before a lifeline that broke is tied again: a process that ends closes its listener a moment after its connections.
	lifelineRetry = 5 * time.Millisecond
	// lifelinePause is the pause while it can't be told whether the other process lives.
	lifelinePause = time.Second
)

// keepOpen answers a lifeline and holds it until either side ends. It always returns an error, so that the caller closes the connection.
func (t *NetTransport) keepOpen(conn net.Conn) error {
	stop := context.AfterFunc(t.ctx, func() { _ = conn.Close() })
	defer stop()
	if _, err := conn.Write([]byte{streamLife}); err != nil {
		return err
	}
	_, err := conn.Read(make([]byte, 1))
	if err == nil {
		err = errors.New("a lifeline says nothing")
	}
	return err
}

// Gone implements Transport. It holds a connection to the other process. When that breaks and the next one is refused, the process has ended.
func (t *NetTransport) Gone(ctx context.Context, id, target string) error {
	return t.gone(ctx, id, target, func() {})
}

// gone calls answered whenever the other process has shown that it lives. Only one that did can be told to have ended: a port that refused from the
// beginning may be a wrong address.
func (t *NetTransport) gone(ctx context.Context, id, target string, answered func()) error {
	for tied := false; ; {
		err := t.lifeline(ctx, id, target, func() { tied = true; answered() })
		if tied && errors.Is(err, syscall.ECONNREFUSED) {
			return nil
		}
		pause := lifelineRetry
		if !tied || errors.Is(err, context.DeadlineExceeded) {
			pause = lifelinePause
		}
		timer := time.NewTimer(pause)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return ctx.Err()
		case <-t.ctx.Done():
			timer.Stop()
			return net.ErrClosed
		}
	}
}

// lifeline ties one connection and returns when it breaks.
func (t *NetTransport) lifeline(ctx context.Context, id, target string, answered func()) error {
	dialling, cancel := context.WithTimeout(ctx, handshakeTimeout)
	conn, err := t.dial(dialling, id, target, streamLife)
	cancel()
	if err != nil {
		return err
	}
	defer context.AfterFunc(ctx, func() { _ = conn.Close() })()
	defer context.AfterFunc(t.ctx, func() { _ = conn.Close() })()
	defer func() { _ = conn.Close() }()
	if err := conn.SetReadDeadline(time.Now().Add(handshakeTimeout)); err != nil {
		return err
	}
	var b [1]byte
	if _, err := io.ReadFull(conn, b[:]); err != nil {
		return err
	}
	answered()
	if err := conn.SetReadDeadline(time.Time{}); err != nil {
		return err
	}
	_, err = conn.Read(b[:])
	return err
}
