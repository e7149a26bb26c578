package channel

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"os"
	"sync"
	"time"

	"github.com/gopcua/opcua/ua"

	"quorate/opcua/wire"
)

const (
	// corkBytes is how much the reading goroutine lets gather before it hands
	// responses to the kernel although more requests wait.
	corkBytes = 32 << 10
	// drainPiece is what has to be taken by a slow client within WriteTimeout.
	drainPiece = 64 << 10
	// fairQueue is what may be queued for a client however much there is for others, in bytes.
	fairQueue = 256 << 10
	// keepBuffer is the largest buffer that an idle connection keeps.
	keepBuffer = 4 << 10
	// lastSequence is the highest sequence number before the next starts below
	// firstWrapped again (Part 6 §6.7.2.4).
	lastSequence = math.MaxUint32 - 1024
	firstWrapped = 1024
)

// outgoing is what a channel has yet to send. Chunks are encoded, signed and
// encrypted into buf in the order of their sequence numbers.
type outgoing struct {
	mu       sync.Mutex
	buf      []byte
	messages int // in buf

	draining         bool // a goroutine owns the writing side of the connection
	inflight         int  // bytes that it has taken and not yet written
	inflightMessages int
	room             chan struct{} // signalled as it makes progress
	drainer          sync.WaitGroup

	counted int // what of the server's queued bytes is this client's

	corked bool // the reading goroutine will flush
	closed bool
	cause  ending

	sequence uint32
	token    *token // messages are sent with it
	renewed  *token // will replace it
	raw      directWriter
}

// ending says why a connection ends. The zero value is an end that is nobody's fault.
type ending struct {
	status ua.StatusCode // told to the client, unless it is StatusOK
	reason RejectReason
	text   string
}

func (e ending) Error() string {
	return fmt.Sprintf("channel: %s: %s (%s)", e.reason, e.text, wire.StatusName(e.status))
}

// Send encodes a response and queues it for the client. It never blocks, and may
// be called from any goroutine. A response that exceeds the client's limits is
// replaced by a ServiceFault with BadResponseTooLarge, and one that cannot be encoded by
// one with BadEncodingError; the failure to encode is returned too. Other
// errors are [ErrClosed] and [ErrSlow].
func (c *Channel) Send(requestID uint32, resp ua.Response) error {
	o := &c.out
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.closed {
		return ErrClosed
	}
	err := c.appendMessage(requestID, resp)
	if err != nil {
		status := ua.StatusBadEncodingError
		if errors.Is(err, errTooLarge) {
			status, err = ua.StatusBadResponseTooLarge, nil
		}
		if faultErr := c.appendMessage(requestID, fault(c.server.now(), resp.Header(), status)); faultErr != nil {
			return errors.Join(err, faultErr)
		}
	}
	if o.draining && (o.inflight+len(o.buf) > c.server.limits.MaxQueueBytes ||
		o.inflightMessages+o.messages > c.server.limits.MaxQueueMessages || c.countLocked()) {
		c.breakLocked(ending{ua.StatusOK, RejectSlow, "client does not read what is sent to it"})
		return ErrSlow
	}
	if !o.corked || len(o.buf) >= corkBytes {
		c.flushLocked()
	}
	return err
}

// fault is the answer to a request that failed as a whole (Part 4 §7.34).
func fault(now time.Time, hdr *ua.ResponseHeader, status ua.StatusCode) *ua.ServiceFault {
	f := &ua.ServiceFault{ResponseHeader: &ua.ResponseHeader{Timestamp: now, ServiceResult: status}}
	if hdr != nil {
		f.ResponseHeader.RequestHandle = hdr.RequestHandle
	}
	return f
}

// errTooLarge is returned for a response that exceeds what the client accepts,
// or what may be queued for it.
var errTooLarge = errors.New("channel: response is too large for the client")

// appendMessage encodes a message into the buffer. After an error, and after a
// panic of the encoder, the buffer is as it was.
func (c *Channel) appendMessage(requestID uint32, msg any) (err error) {
	o := &c.out
	base := len(o.buf)
	if o.buf == nil {
		o.buf = make([]byte, 0, keepBuffer/4)
	}
	defer func() {
		if r := recover(); r != nil {
			c.server.panicked(c, r)
			err = fmt.Errorf("channel: encoding %T: %v", msg, r)
		}
		if err != nil {
			o.buf = o.buf[:base]
		}
	}()
	t := o.sendToken(c.server.now)
	var header [symmetricHeader]byte
	buf, err := wire.AppendMessage(append(o.buf, header[:]...), msg)
	if err != nil {
		return err
	}
	size, room := len(buf)-base-symmetricHeader, t.send.maxBody(c.sendChunkSize)
	chunks := max(1, (size+room-1)/room)
	if size > c.server.limits.MaxQueueBytes/2 || c.peerMaxMessage > 0 && size > c.peerMaxMessage ||
		c.peerMaxChunks > 0 && chunks > c.peerMaxChunks {
		return errTooLarge
	}
	if chunks == 1 {
		c.putHeader(buf[base:], 'F', t.id, requestID)
		o.buf = t.send.seal(buf, base)
	} else {
		body := append([]byte(nil), buf[base+symmetricHeader:]...)
		buf = buf[:base]
		for len(body) > 0 {
			n, final := min(room, len(body)), byte('C')
			if n == len(body) {
				final = 'F'
			}
			start := len(buf)
			buf = append(append(buf, header[:]...), body[:n]...)
			c.putHeader(buf[start:], final, t.id, requestID)
			buf, body = t.send.seal(buf, start), body[n:]
		}
		o.buf = buf
	}
	o.messages++
	return nil
}

func (c *Channel) putHeader(b []byte, final byte, tokenID, requestID uint32) {
	copy(b, "MSG")
	b[3] = final
	binary.LittleEndian.PutUint32(b[8:], c.id)
	binary.LittleEndian.PutUint32(b[12:], tokenID)
	binary.LittleEndian.PutUint32(b[16:], c.out.nextSequence())
	binary.LittleEndian.PutUint32(b[20:], requestID)
}

func (o *outgoing) nextSequence() uint32 {
	if o.sequence >= lastSequence {
		o.sequence = 0
	}
	o.sequence++
	return o.sequence
}

// sendToken chooses the token. After a renewal the old one is used until the
// client was seen to use the new one, or the old one expires (Part 4 §5.5.2.1).
func (o *outgoing) sendToken(now func() time.Time) *token {
	if o.renewed != nil && o.token.expired(now()) {
		o.token, o.renewed = o.renewed, nil
	}
	return o.token
}

// cork makes responses gather until flush. Only the reading goroutine may call it.
func (c *Channel) cork() {
	if c.corkedHere {
		return
	}
	c.corkedHere = true
	c.out.mu.Lock()
	c.out.corked = true
	c.out.mu.Unlock()
}

// flush sends what has gathered since cork.
func (c *Channel) flush() {
	if !c.corkedHere {
		return
	}
	c.corkedHere = false
	c.out.mu.Lock()
	c.out.corked = false
	c.flushLocked()
	c.out.mu.Unlock()
}

// flushLocked gives the kernel what it takes at once, and leaves the rest to a
// goroutine.
func (c *Channel) flushLocked() {
	o := &c.out
	if o.draining || len(o.buf) == 0 {
		return
	}
	n, err := o.raw.try(o.buf)
	if err != nil {
		c.breakLocked(ending{text: err.Error()})
		return
	}
	if n == len(o.buf) {
		o.messages = 0
		o.buf = o.buf[:0]
		if cap(o.buf) > keepBuffer {
			o.buf = nil
		}
		return
	}
	o.buf = o.buf[:copy(o.buf, o.buf[n:])]
	o.draining = true
	if c.countLocked() {
		o.draining = false
		c.breakLocked(ending{ua.StatusOK, RejectSlow, "too much waits for clients that do not read"})
		return
	}
	o.drainer.Go(c.drain)
}

// countLocked counts what is queued for this client in with all others. It says whether that is too much, and this client has
// more than the little that everybody may have.
func (c *Channel) countLocked() (tooMuch bool) {
	o, n := &c.out, 0
	if o.draining {
		n = o.inflight + len(o.buf)
	}
	all := c.server.queuedBytes.Add(int64(n - o.counted))
	o.counted = n
	return all > int64(c.server.limits.MaxQueuedBytes) && n > fairQueue
}

// drain writes what the client did not take at once, until nothing is left.
func (c *Channel) drain() {
	o := &c.out
	for {
		o.mu.Lock()
		buf := o.buf
		o.buf = nil
		o.inflight, o.inflightMessages, o.messages = len(buf), o.messages, 0
		if len(buf) == 0 {
			o.draining = false
			_ = c.nc.SetWriteDeadline(time.Time{})
		}
		c.countLocked()
		o.mu.Unlock()
		o.signal()
		if len(buf) == 0 {
			return
		}
		for len(buf) > 0 {
			_ = c.nc.SetWriteDeadline(time.Now().Add(c.server.limits.WriteTimeout))
			n, err := c.nc.Write(buf[:min(len(buf), drainPiece)])
			buf = buf[n:]
			o.mu.Lock()
			o.inflight = len(buf)
			c.countLocked()
			if err != nil {
				o.draining = false
				e := ending{text: err.Error()}
				if errors.Is(err, os.ErrDeadlineExceeded) {
					e = ending{ua.StatusOK, RejectSlow, "client does not read what is sent to it"}
				}
				c.breakLocked(e)
			}
			o.mu.Unlock()
			o.signal()
			if err != nil {
				return
			}
		}
	}
}

func (o *outgoing) signal() {
	select {
	case o.room <- struct{}{}:
	default:
	}
}

// waitForRoom blocks the reading goroutine while the client leaves half of its
// queue unread. It ends at the latest when the write deadline breaks the
// connection.
func (c *Channel) waitForRoom() {
	o := &c.out
	for {
		if _, crowded := c.state(); !crowded {
			return
		}
		<-o.room
	}
}

// state says whether the channel is being ended, and whether half of its queue
// is full.
func (c *Channel) state() (closed, crowded bool) {
	o, l := &c.out, &c.server.limits
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.closed, o.draining && !o.closed &&
		(o.inflight+len(o.buf) > l.MaxQueueBytes/2 || o.inflightMessages+o.messages > l.MaxQueueMessages/2)
}

// Close ends the connection. If reason is not ua.StatusOK the client is told it
// in an Error message, unless it does not take it. Close does not wait; the
// Handler's Closed follows.
func (c *Channel) Close(reason ua.StatusCode) {
	c.end(ending{reason, RejectByHandler, "closed by the server"})
}

// end lets nothing be sent any more but the Error message, and wakes the
// reading goroutine, which does the rest. The first end of a channel counts.
func (c *Channel) end(e ending) {
	o := &c.out
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.closed {
		return
	}
	o.closed, o.cause, o.corked = true, e, false
	if e.status != ua.StatusOK {
		o.buf = appendError(o.buf, e.status, e.text)
	}
	c.flushLocked()
	_ = c.nc.SetReadDeadline(time.Unix(1, 0))
	o.signal()
}

// breakLocked ends a connection that nothing can be written to any more.
func (c *Channel) breakLocked(e ending) {
	o := &c.out
	if !o.closed {
		o.closed, o.cause = true, e
	}
	o.buf, o.messages = nil, 0
	c.countLocked()
	_ = c.nc.Close()
}

// appendError encodes an Error message (Part 6 §7.1.2.5).
func appendError(b []byte, status ua.StatusCode, reason string) []byte {
	b = append(b, "ERRF"...)
	b = binary.LittleEndian.AppendUint32(b, uint32(8+4+4+len(reason)))
	b = binary.LittleEndian.AppendUint32(b, uint32(status))
	b = binary.LittleEndian.AppendUint32(b, uint32(len(reason)))
	return append(b, reason...)
}
