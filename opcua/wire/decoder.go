package wire

import (
	"encoding/binary"
	"math"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/gopcua/opcua/ua"
)

// decoder reads one message. Its first failure sticks: from then on everything
// reads as zero, so callers need not look at each step.
type decoder struct {
	b     []byte // what may be read; cut shorter while inside an ExtensionObject
	off   int
	depth int
	mem   int // bytes of lim.MaxMemory that are left
	lim   Limits
	// tokens is what the connection remembers, nil if there is none.
	tokens *Tokens

	failed bool
	status ua.StatusCode
	reason string
	path   string // the field that failed, outermost name first
}

// decoders keeps decoders for reuse: they would escape to the heap at every
// message, because the plans are called through function values.
var decoders = sync.Pool{New: func() any { return new(decoder) }}

func newDecoder(b []byte, lim Limits) *decoder {
	d := decoders.Get().(*decoder)
	lim = lim.orDefault()
	*d = decoder{b: b, lim: lim, mem: min(lim.MaxMemory, baseMemory+memoryPerByte*len(b))}
	return d
}

// release gives d back. It may not be used afterwards.
func (d *decoder) release() {
	*d = decoder{}
	decoders.Put(d)
}

// err gives the failure, or nil. It returns the type, not the interface, so that the
// header can be added; callers must not return it unless the decoder failed.
func (d *decoder) err() *Error {
	if !d.failed {
		return nil
	}
	reason := d.reason
	if d.path != "" {
		reason = d.path + ": " + reason
	}
	return &Error{Status: d.status, Reason: reason}
}

func (d *decoder) fail(status ua.StatusCode, reason string) {
	if d.failed {
		return
	}
	d.failed, d.status, d.reason = true, status, reason
}

// within puts the name of a field in front of the path of a failure that just
// happened in it.
func (d *decoder) within(field string) {
	if d.path == "" {
		d.path = field
	} else {
		d.path = field + "." + d.path
	}
}

func (d *decoder) left() int { return len(d.b) - d.off }

// take returns the next n bytes, which alias the input.
func (d *decoder) take(n int) []byte {
	if d.failed || n > d.left() {
		d.fail(ua.StatusBadDecodingError, "message ends too early")
		return nil
	}
	d.off += n
	return d.b[d.off-n : d.off : d.off]
}

// charge takes n bytes from the memory that the decoded message may occupy.
func (d *decoder) charge(n int) bool {
	if d.failed {
		return false
	}
	if n > d.mem {
		d.fail(ua.StatusBadEncodingLimitsExceeded, "message takes too much memory")
		return false
	}
	d.mem -= n
	return true
}

// enter counts one level of nesting; leave has to follow if it returns true.
func (d *decoder) enter() bool {
	if d.failed {
		return false
	}
	if d.depth >= d.lim.MaxDepth {
		d.fail(ua.StatusBadEncodingLimitsExceeded, "nested too deeply")
		return false
	}
	d.depth++
	return true
}

func (d *decoder) leave() { d.depth-- }

func (d *decoder) u8() byte {
	if d.failed || d.off >= len(d.b) {
		d.fail(ua.StatusBadDecodingError, "message ends too early")
		return 0
	}
	d.off++
	return d.b[d.off-1]
}

func (d *decoder) boolean() bool { return d.u8() != 0 }

func (d *decoder) u16() uint16 {
	if b := d.take(2); b != nil {
		return binary.LittleEndian.Uint16(b)
	}
	return 0
}

func (d *decoder) u32() uint32 {
	if b := d.take(4); b != nil {
		return binary.LittleEndian.Uint32(b)
	}
	return 0
}

func (d *decoder) u64() uint64 {
	if b := d.take(8); b != nil {
		return binary.LittleEndian.Uint64(b)
	}
	return 0
}

func (d *decoder) f32() float32 { return math.Float32frombits(d.u32()) }
func (d *decoder) f64() float64 { return math.Float64frombits(d.u64()) }

// length reads the length of a string or byte string; -1 stands for null, and
// any other negative number is an error (Part 6 §5.2.2.4).
func (d *decoder) length(limit int) int {
	n := int(int32(d.u32()))
	switch {
	case d.failed:
		return -1
	case n < -1:
		d.fail(ua.StatusBadDecodingError, "length is negative")
		return -1
	case n > limit:
		d.fail(ua.StatusBadEncodingLimitsExceeded, "string is too long")
		return -1
	case n > d.left():
		d.fail(ua.StatusBadDecodingError, "length exceeds the message")
		return -1
	}
	return n
}

// count reads the length of an array whose elements take at least minSize bytes
// on the wire and memSize bytes in memory; -1 stands for null (Part 6 §5.2.5).
func (d *decoder) count(minSize, memSize int) int {
	n := int(int32(d.u32()))
	switch {
	case d.failed:
		return -1
	case n < -1:
		d.fail(ua.StatusBadDecodingError, "array length is negative")
		return -1
	case n > d.lim.MaxArrayLength:
		d.fail(ua.StatusBadEncodingLimitsExceeded, "array is too long")
		return -1
	case n > d.left()/max(minSize, 1):
		// An element without content would make the length unbounded by the
		// message, so it counts as one byte.
		d.fail(ua.StatusBadDecodingError, "array length exceeds the message")
		return -1
	case n > 0 && !d.charge(n*memSize):
		return -1
	}
	return n
}

func (d *decoder) str() string {
	n := d.length(d.lim.MaxStringLength)
	if n <= 0 || !d.charge(n) {
		return ""
	}
	b := d.take(n)
	if !utf8.Valid(b) {
		d.fail(ua.StatusBadDecodingError, "string is not UTF-8")
		return ""
	}
	return string(b)
}

// byteString keeps the difference between null (nil) and empty.
func (d *decoder) byteString() []byte {
	n := d.length(d.lim.MaxByteStringLength)
	if n < 0 || !d.charge(n) {
		return nil
	}
	return append(make([]byte, 0, n), d.take(n)...)
}

// Part 6 §5.2.2.5: a DateTime counts intervals of 100 ns since 1601. Zero stands
// for the earliest time, and the largest number for the latest.
const (
	ticksPerSecond = 10_000_000
	secondsToUnix  = 11_644_473_600 // from 1601 to 1970
	maxTicks       = math.MaxInt64
)

// maxTime is what every DateTime from the year 10000 on decodes to and encodes
// from: Part 6 lets no later one be told.
var maxTime = time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC)

func (d *decoder) time() time.Time {
	ticks := int64(d.u64())
	if ticks <= 0 {
		return time.Time{}
	}
	t := time.Unix(ticks/ticksPerSecond-secondsToUnix, ticks%ticksPerSecond*100).UTC()
	if t.After(maxTime) {
		return maxTime
	}
	return t
}

func appendTime(b []byte, t time.Time) []byte {
	var ticks int64
	switch {
	case t.IsZero():
	case !t.Before(maxTime):
		ticks = maxTicks
	default:
		ticks = max(0, (t.Unix()+secondsToUnix)*ticksPerSecond+int64(t.Nanosecond()/100))
	}
	return binary.LittleEndian.AppendUint64(b, uint64(ticks))
}
