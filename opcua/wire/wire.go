// Package wire turns OPC UA binary messages (Part 6 §5.2) into the types of the
// gopcua `ua` package, and back.
//
// The decoder stands at a security boundary: its input comes from anybody who
// can open a connection. It therefore never trusts a length. Before anything is
// allocated, a length is compared with the bytes that are left of the message,
// with the named [Limits], and with a budget of memory for the whole message;
// nesting is counted, so that no input can exhaust the stack. Decoded values
// never share memory with the input, so the input buffer can be used again at
// once. What a decoder of `ua` leaves non-nil, this one leaves non-nil too:
// whoever handles a decoded request meets no nil pointers in it.
//
// The encoder appends to a buffer that the caller owns. A nil pointer is
// encoded as the null form of its type, so responses may leave out what they
// don't use.
//
// The messages of the hot paths (Read, Publish with its notifications) and all
// built-in types are coded by hand; every other structure goes by a plan that
// is derived by reflection once per type and then kept.
package wire

import (
	"fmt"
	"strings"

	"github.com/gopcua/opcua/ua"
)

// Default limits of the decoder; see [Limits] for what each one bounds.
const (
	DefaultMaxArrayLength      = 65_536
	DefaultMaxStringLength     = 65_536
	DefaultMaxByteStringLength = 1 << 20
	DefaultMaxDepth            = 100
	DefaultMaxMemory           = 16 << 20
)

// A message may take baseMemory and memoryPerByte for each byte of its length in
// memory. What needs most for its length in practice are arrays of two-byte
// NodeIds, with 28 times.
const (
	baseMemory    = 16 << 10
	memoryPerByte = 32
)

// DefaultLimits are the limits of a server that nobody configured otherwise.
var DefaultLimits = Limits{
	MaxArrayLength:      DefaultMaxArrayLength,
	MaxStringLength:     DefaultMaxStringLength,
	MaxByteStringLength: DefaultMaxByteStringLength,
	MaxDepth:            DefaultMaxDepth,
	MaxMemory:           DefaultMaxMemory,
}

// Limits bound what one message may contain. A value that is zero or less means
// the default of that limit. What exceeds a limit is refused with
// BadEncodingLimitsExceeded.
type Limits struct {
	// MaxArrayLength is the largest number of elements of one array, all
	// dimensions together.
	MaxArrayLength int
	// MaxStringLength is the largest length of one String, LocalizedText part or
	// XmlElement, in bytes of UTF-8.
	MaxStringLength int
	// MaxByteStringLength is the largest length of one ByteString, in bytes.
	MaxByteStringLength int
	// MaxDepth is how deep Variants, DiagnosticInfos, DataValues and
	// ExtensionObjects may be nested; Part 6 §5.2.2 asks decoders for 100.
	MaxDepth int
	// MaxMemory is how many bytes the decoded message may take. A message may
	// also not take more than 16 KiB and 32 times its length, which bounds the
	// amplification of tiny elements: an empty DataValue is one byte on the wire
	// and more than a hundred in memory.
	MaxMemory int
}

func (l Limits) orDefault() Limits {
	pick := func(v, d int) int {
		if v <= 0 {
			return d
		}
		return v
	}
	return Limits{
		MaxArrayLength:      pick(l.MaxArrayLength, DefaultMaxArrayLength),
		MaxStringLength:     pick(l.MaxStringLength, DefaultMaxStringLength),
		MaxByteStringLength: pick(l.MaxByteStringLength, DefaultMaxByteStringLength),
		MaxDepth:            pick(l.MaxDepth, DefaultMaxDepth),
		MaxMemory:           pick(l.MaxMemory, DefaultMaxMemory),
	}
}

// Error says why a message could not be decoded.
type Error struct {
	// Status is BadDecodingError, BadEncodingLimitsExceeded or
	// BadServiceUnsupported.
	Status ua.StatusCode
	// Header is the header of the request if that much could be decoded, else
	// nil. It gives the RequestHandle for a ServiceFault.
	Header *ua.RequestHeader
	// Reason says what was wrong, for people.
	Reason string
}

// Error implements error.
func (e *Error) Error() string {
	return fmt.Sprintf("wire: %s (%s)", e.Reason, StatusName(e.Status))
}

// Unwrap gives the status code, so that errors.Is(err, ua.StatusBadDecodingError)
// and the like hold.
func (e *Error) Unwrap() error { return e.Status }

// StatusName gives the symbolic name of a status code, as "BadDecodingError",
// or its number where gopcua knows none.
func StatusName(s ua.StatusCode) string {
	if d, ok := ua.StatusCodes[s]; ok {
		return strings.TrimPrefix(d.Name, "Status")
	}
	return fmt.Sprintf("0x%08X", uint32(s))
}

// Raw is the body of an ExtensionObject of a type that is not known here,
// exactly as it was received. It is the Value of such an ExtensionObject, and is
// written back as it is.
type Raw []byte
