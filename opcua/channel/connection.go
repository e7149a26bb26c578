package channel

import (
	"bufio"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"time"

	"github.com/gopcua/opcua/ua"

	"quorate/opcua/wire"
)

const (
	// readBuffer is what each connection keeps for reading, in bytes. Chunks up
	// to this size, that is nearly all requests, are handled where they were
	// read to.
	readBuffer = 4 << 10
	// lingerTimeout is how long a connection that ended with an Error message
	// stays half open: closing at once would let the kernel throw the message
	// away if the client has sent more.
	lingerTimeout = 500 * time.Millisecond
	// lingerBytes is how much of what the client still sends is read meanwhile.
	lingerBytes = 1 << 20
	// prefixLength is the part of the header that every message has: type, chunk
	// type and size (Part 6 §7.1.2.2).
	prefixLength = 8
)

// bigChunks keeps buffers for chunks that exceed readBuffer.
var bigChunks = sync.Pool{New: func() any { return new([]byte) }}

// partial gathers the chunks of a request that has not come completely.
type partial struct {
	requestID uint32
	body      []byte
	chunks    int
	since     time.Time
}

// run lives as long as the connection.
func (c *Channel) run() {
	err := c.protect(c.talk)
	c.rest()
	c.dropPartial()
	c.end(c.judge(err))
	c.out.mu.Lock()
	cause := c.out.cause
	c.out.mu.Unlock()
	if cause.reason != "" {
		c.server.rejected(c.nc.RemoteAddr(), cause)
	}
	if c.opened {
		_ = c.protect(func() error { c.server.handler.Closed(c); return nil })
	}
	if cause.status != ua.StatusOK {
		c.linger()
	}
	_ = c.nc.Close()
	c.out.drainer.Wait()
}

// protect confines a panic to the connection.
func (c *Channel) protect(f func() error) (err error) {
	defer func() {
		if r := recover(); r != nil {
			c.server.panicked(c, r)
			err = ending{ua.StatusBadTCPInternalError, RejectPanic, "internal error"}
		}
	}()
	return f()
}

// judge turns the error that ended the reading into what the client is told.
func (c *Channel) judge(err error) ending {
	var e ending
	switch {
	case errors.As(err, &e):
	case errors.Is(err, os.ErrDeadlineExceeded):
		e = ending{ua.StatusBadTimeout, RejectTimeout, "nothing came in time"}
	case err != nil:
		e.text = err.Error()
	}
	return e
}

// linger waits until the client has had the chance to read the Error message.
func (c *Channel) linger() {
	deadline := time.Now().Add(lingerTimeout)
	_ = c.nc.SetReadDeadline(deadline)
	if w, ok := c.nc.(interface{ CloseWrite() error }); ok && !c.stillDraining() {
		_ = w.CloseWrite()
	}
	_, _ = io.CopyN(io.Discard, c.nc, lingerBytes)
}

func (c *Channel) stillDraining() bool {
	c.out.mu.Lock()
	defer c.out.mu.Unlock()
	return c.out.draining
}

// talk handles chunks until the connection ends.
func (c *Channel) talk() error {
	if err := c.hello(); err != nil {
		return err
	}
	for {
		chunk, err := c.readChunk()
		if err != nil {
			return err
		}
		if err := c.takeTurn(len(chunk)); err != nil {
			return err
		}
		c.cork()
		err = c.handleChunk(chunk)
		c.releaseBig()
		if err != nil {
			return err
		}
	}
}

// readChunk returns the next chunk, header included. It is valid until the next
// call.
func (c *Channel) readChunk() ([]byte, error) {
	size, err := c.peekSize()
	if err != nil {
		return nil, err
	}
	if c.br.Buffered() < size {
		c.pause()
		if c.opened && c.partial.chunks == 0 {
			c.setDeadline(time.Now().Add(c.server.limits.MessageTimeout))
		}
	}
	if size <= c.br.Size() {
		chunk, err := c.br.Peek(size)
		if err != nil {
			return nil, err
		}
		// What was peeked stays where it is until the next read.
		_, _ = c.br.Discard(size)
		return chunk, nil
	}
	c.big = bigChunks.Get().(*[]byte)
	if cap(*c.big) < size {
		*c.big = make([]byte, max(size, min(c.receiveChunk, DefaultMaxChunkSize)))
	}
	chunk := (*c.big)[:size]
	_, err = io.ReadFull(c.br, chunk)
	return chunk, err
}

func (c *Channel) releaseBig() {
	if c.big != nil {
		bigChunks.Put(c.big)
		c.big = nil
	}
}

// peekSize waits for the next chunk and returns its size, checked.
func (c *Channel) peekSize() (int, error) {
	if c.br.Buffered() < prefixLength {
		c.pause()
		c.awaitRequest()
	}
	b, err := c.br.Peek(prefixLength)
	if err != nil {
		return 0, err
	}
	size := binary.LittleEndian.Uint32(b[4:])
	switch {
	case size < prefixLength:
		return 0, ending{ua.StatusBadTCPMessageTypeInvalid, RejectMalformed, "message size is too small"}
	case size > uint32(c.receiveChunk):
		return 0, ending{ua.StatusBadTCPMessageTooLarge, RejectTooLarge, "chunk is larger than was negotiated"}
	}
	return int(size), nil
}

// pause comes before the reading goroutine waits for more input: what was
// answered leaves, and a client that does not read it is not read either.
func (c *Channel) pause() {
	c.flush()
	c.rest()
	c.waitForRoom()
}

// awaitRequest sets the deadline for the time until the next request. It is a
// sixteenth later than it has to be, and may come to be an eighth, so that it need
// not be set for each request: neither while now moves on, nor while the end of
// the token comes nearer.
func (c *Channel) awaitRequest() {
	if !c.opened {
		return // the deadline of the handshake stays
	}
	if c.partial.chunks > 0 {
		c.setDeadline(c.partial.since.Add(c.server.limits.MessageTimeout))
		return
	}
	now := time.Now()
	idle := min(c.server.limits.IdleTimeout, max(0, c.tokenEnds.Sub(now)))
	until := now.Add(idle)
	if late := c.deadline.Sub(until); late < 0 || late > idle/8 {
		c.setDeadline(until.Add(idle / 16))
	}
}

// setDeadline sets the read deadline, unless the connection is being ended.
func (c *Channel) setDeadline(t time.Time) {
	c.out.mu.Lock()
	defer c.out.mu.Unlock()
	if !c.out.closed {
		c.deadline = t
		_ = c.nc.SetReadDeadline(t)
	}
}

// errBye ends a connection as the client wished.
var errBye = errors.New("channel: closed by the client")

func (c *Channel) handleChunk(chunk []byte) error {
	kind, final := string(chunk[:3]), chunk[3]
	switch {
	case kind == "ERR":
		return errBye
	case kind == "OPN" && final == 'F' && len(chunk) >= headerLength:
		return c.handleOpen(chunk)
	case kind == "CLO" && final == 'F', kind == "MSG" && (final == 'F' || final == 'C' || final == 'A'):
	case kind == "RHE":
		return ending{ua.StatusBadTCPMessageTypeInvalid, RejectReverse, "reverse connections are not accepted"}
	default:
		return ending{ua.StatusBadTCPMessageTypeInvalid, RejectMalformed, "unexpected message type"}
	}
	plain, err := c.openSymmetric(chunk)
	if err != nil {
		return err
	}
	requestID, body := binary.LittleEndian.Uint32(plain[4:]), plain[sequenceLength:]
	switch {
	case kind == "CLO":
		return errBye
	case final == 'A':
		// The client gave the request up; what it says of the reason is of no use.
		c.dropPartial()
		return nil
	case final == 'C' || c.partial.chunks > 0:
		if err := c.gather(requestID, body); err != nil || final == 'C' {
			return err
		}
		body = c.partial.body
		defer c.dropPartial()
	}
	return c.handleRequest(requestID, body)
}

// openSymmetric checks everything about a MSG or CLO chunk and returns it from
// its sequence number on.
func (c *Channel) openSymmetric(chunk []byte) ([]byte, error) {
	if len(chunk) < symmetricHeader {
		return nil, ending{ua.StatusBadTCPMessageTypeInvalid, RejectMalformed, "chunk is too short"}
	}
	if !c.opened || binary.LittleEndian.Uint32(chunk[8:]) != c.id {
		return nil, ending{ua.StatusBadTCPSecureChannelUnknown, RejectSecurity, "unknown secure channel"}
	}
	tokenID := binary.LittleEndian.Uint32(chunk[headerLength:])
	t := c.current
	if c.next != nil && c.next.id == tokenID {
		t = c.next
	}
	if t.id != tokenID || c.server.now().Sub(t.created) > t.grace() {
		return nil, ending{ua.StatusBadSecureChannelTokenUnknown, RejectSecurity, "unknown or expired security token"}
	}
	plain, ok := t.receive.open(chunk)
	if !ok {
		return nil, ending{ua.StatusBadSecurityChecksFailed, RejectSecurity, "signature or padding is wrong"}
	}
	if err := c.checkSequence(binary.LittleEndian.Uint32(plain)); err != nil {
		return nil, err
	}
	if t == c.next {
		// The client has the new token, so the old one has served its time in
		// both directions (Part 4 §5.5.2.1).
		c.current, c.next = t, nil
		c.out.mu.Lock()
		c.out.token, c.out.renewed = t, nil
		c.out.mu.Unlock()
	}
	return plain, nil
}

// checkSequence lets sequence numbers grow by one, and start again below 1024
// near the end of their range (Part 6 §6.7.2.4). The first one may be any.
func (c *Channel) checkSequence(n uint32) error {
	last := c.sequence
	ok := !c.sequenced || n == last+1 && n != 0 || last >= lastSequence && n < firstWrapped
	if !ok {
		return ending{ua.StatusBadSequenceNumberInvalid, RejectSecurity, "sequence number does not follow"}
	}
	c.sequence, c.sequenced = n, true
	return nil
}

// gather adds a chunk to the incomplete request.
func (c *Channel) gather(requestID uint32, body []byte) error {
	p, l := &c.partial, &c.server.limits
	switch {
	case p.chunks > 0 && p.requestID != requestID:
		return ending{ua.StatusBadTCPMessageTypeInvalid, RejectMalformed, "chunks of two requests are mixed"}
	case p.chunks == l.MaxChunkCount:
		return ending{ua.StatusBadTCPMessageTooLarge, RejectTooLarge, "request has too many chunks"}
	case len(p.body)+len(body) > l.MaxMessageSize:
		return ending{ua.StatusBadTCPMessageTooLarge, RejectTooLarge, "request is too large"}
	case c.server.partialBytes.Add(int64(len(body))) > int64(l.MaxPartialBytes):
		c.server.partialBytes.Add(-int64(len(body)))
		return ending{ua.StatusBadTCPNotEnoughResources, RejectTooLarge, "too many incomplete requests"}
	}
	if p.chunks == 0 {
		p.requestID, p.since = requestID, time.Now()
	}
	p.chunks++
	p.body = append(p.body, body...)
	return nil
}

func (c *Channel) dropPartial() {
	c.server.partialBytes.Add(-int64(len(c.partial.body)))
	c.partial = partial{}
}

// handleRequest decodes a request and gives it to the handler, or answers it
// with a fault if it cannot be decoded.
func (c *Channel) handleRequest(requestID uint32, body []byte) error {
	if len(body) > c.server.limits.MaxMessageSize {
		return ending{ua.StatusBadTCPMessageTooLarge, RejectTooLarge, "request is too large"}
	}
	if len(body) > readBuffer {
		// Decoded requests take a multiple of their length in memory, so only so
		// many large ones are handled at a time.
		release, err := c.server.enterLarge()
		if err != nil {
			return err
		}
		defer release()
	}
	req, err := c.tokens.DecodeRequest(body, c.server.limits.Decoding)
	switch req.(type) {
	case *ua.OpenSecureChannelRequest, *ua.CloseSecureChannelRequest:
		err = &wire.Error{Status: ua.StatusBadServiceUnsupported, Header: req.Header(), Reason: "has a message type of its own"}
	}
	if err == nil && costly(req) {
		if err := c.needTurn(); err != nil {
			return err
		}
	}
	if err == nil {
		c.server.handler.Serve(c, requestID, req)
	} else {
		c.refuse(requestID, err)
	}
	closed, crowded := c.state()
	if closed {
		return net.ErrClosed
	}
	if crowded {
		c.pause()
	}
	return nil
}

func (c *Channel) refuse(requestID uint32, err error) {
	status, hdr := ua.StatusBadDecodingError, new(ua.ResponseHeader)
	var e *wire.Error
	if errors.As(err, &e) {
		status = e.Status
		if e.Header != nil {
			hdr.RequestHandle = e.Header.RequestHandle
		}
	}
	c.server.log.Debug("request refused", "remote", c.nc.RemoteAddr(), "error", err)
	_ = c.Send(requestID, fault(c.server.now(), hdr, status))
}

func newChannel(s *Server, nc net.Conn, host string, order uint64) *Channel {
	c := &Channel{
		server: s, nc: nc, host: host, order: order,
		br:           bufio.NewReaderSize(nc, readBuffer),
		receiveChunk: maxHelloSize,
	}
	c.out.room = make(chan struct{}, 1)
	c.out.raw = newDirectWriter(nc)
	return c
}
