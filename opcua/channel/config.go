package channel

import (
	"crypto/rsa"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"net"
	"runtime"
	"time"

	"github.com/gopcua/opcua/ua"

	"quorate/opcua/wire"
)

// SecurityOffer is one combination of policy and mode on which sessions may be
// created.
type SecurityOffer struct {
	PolicyURI string                 // one of ua.SecurityPolicyURI…; see Policies
	Mode      ua.MessageSecurityMode // None, Sign or SignAndEncrypt
}

// Config is what a [Server] needs to know. Only Certificate is required, and
// that only if an offer other than None is made.
type Config struct {
	// Offers are the combinations that are accepted for sessions. A channel
	// with policy None is accepted without an offer too, for discovery only.
	Offers []SecurityOffer

	// Certificate gives the server's certificate, as a DER chain with the leaf
	// first, and its key. It is asked at every new channel, so that a
	// certificate can be replaced without a restart; a channel keeps the one it
	// was opened with.
	Certificate func() (chain []byte, key *rsa.PrivateKey)

	// Verify judges a client's certificate (DER, leaf first) before it is used
	// (Part 4 §6.1.3), when a channel is opened and again at each renewal, so that
	// trust can be taken away. At most MaxHandshakes calls run at one time. What it
	// returns other than ua.StatusOK is sent to the client. Nil trusts every
	// well-formed certificate.
	Verify func(clientCertificate []byte) ua.StatusCode

	// Limits bound what clients may cost; the zero value means the defaults.
	Limits Limits

	// Logger gets what an operator wants to know. Nil discards it.
	Logger *slog.Logger

	// Events is told of what happens, for metrics.
	Events Events

	// Now gives the time for timestamps and for the age of tokens. Nil means
	// time.Now. Deadlines of connections follow the clock of the runtime.
	Now func() time.Time
}

// Default limits; see [Limits] for what each one bounds.
const (
	DefaultMaxConnections        = 2_000
	DefaultMaxConnectionsPerHost = 1_200
	DefaultMaxChunkSize          = 65_536
	DefaultMaxMessageSize        = 2 << 20
	DefaultMaxChunkCount         = 256
	DefaultMaxPartialBytes       = 64 << 20
	DefaultMaxQueueBytes         = 8 << 20
	DefaultMaxQueuedBytes        = 64 << 20
	DefaultMaxQueueMessages      = 4_096
	DefaultHandshakeTimeout      = 10 * time.Second
	DefaultMessageTimeout        = 30 * time.Second
	DefaultIdleTimeout           = time.Hour + time.Hour/4
	DefaultWriteTimeout          = 10 * time.Second
	DefaultMinTokenLifetime      = time.Second
	DefaultMaxTokenLifetime      = time.Hour
	DefaultMaxHandshakes         = 1
	DefaultMaxLargeRequests      = 8
)

// MinChunkSize is the smallest chunk size that Part 6 §7.1.2.3 lets a peer ask
// for, in bytes.
const MinChunkSize = 8_192

// Limits bound what clients may cost the server. A zero value means the default.
type Limits struct {
	// MaxConnections bounds the connections of the server, those that are not
	// yet or no longer a secure channel included. When it is reached, the oldest
	// connection that is not in use (see [Channel.SetInUse]) makes room, as
	// Part 4 §5.5.2.1 asks; if all are in use, the new one is refused with
	// BadTcpServerTooBusy.
	MaxConnections int
	// MaxConnectionsPerHost bounds the connections from one address, in the same
	// way.
	MaxConnectionsPerHost int
	// SpareConnections is how many more there may be where all are in use, in total and from one address: for those whom the Handler
	// wants to let in all the same (see [Channel.Crowded]). One that is not put to use makes room for the next. There are none by default.
	SpareConnections int
	// MaxChunkSize is the largest chunk that is received or sent, in bytes, from
	// MinChunkSize on.
	MaxChunkSize int
	// MaxMessageSize is the largest request, in bytes, over all its chunks.
	MaxMessageSize int
	// MaxChunkCount is the largest number of chunks of one request.
	MaxChunkCount int
	// MaxPartialBytes bounds the memory that requests of which not all chunks
	// have come may hold, in bytes, over all connections.
	MaxPartialBytes int
	// MaxQueueBytes bounds what is queued for one slow client, in bytes; one
	// response may have half of it. A client that exceeds it is disconnected.
	MaxQueueBytes int
	// MaxQueuedBytes bounds what is queued for all slow clients together, in bytes. When it is reached, those of them that
	// have more than 256 KiB queued, and ask for more, are disconnected.
	MaxQueuedBytes int
	// MaxQueueMessages bounds the number of messages that are queued for one
	// slow client.
	MaxQueueMessages int
	// HandshakeTimeout is how long a new connection may take until its secure
	// channel is open.
	HandshakeTimeout time.Duration
	// MessageTimeout is how long a request may take from its first byte to its
	// last.
	MessageTimeout time.Duration
	// IdleTimeout is how long a connection may stay silent at least; it is ended
	// at the latest an eighth after that. It has to be longer than the longest
	// session time-out. A token that is not renewed ends the connection too.
	IdleTimeout time.Duration
	// WriteTimeout is how long a client may leave queued messages unread.
	WriteTimeout time.Duration
	// MinTokenLifetime and MaxTokenLifetime bound the life time of a security
	// token that a client may ask for.
	MinTokenLifetime, MaxTokenLifetime time.Duration
	// MaxHandshakes is how many channels may be in asymmetric cryptography at one
	// time; it bounds the processor time that opening channels can take.
	MaxHandshakes int
	// MaxLargeRequests is how many requests of more than 4 KiB may be decoded and
	// handled at one time; others wait for their turn. It bounds the memory that
	// they take once decoded, see wire.Limits.
	MaxLargeRequests int
	// MaxTurns is how many connections that are always at work, or at a large or costly request, may be so at one time; the
	// others of them wait for their turn, in the order of coming. It keeps a processor free for all else that the process
	// does. The default is one less than the processors that the runtime uses, and at least one.
	MaxTurns int
	// Decoding bounds what one request may contain.
	Decoding wire.Limits
}

// DefaultLimits are the limits of a server that sets none.
var DefaultLimits = Limits{Decoding: wire.DefaultLimits}.withDefaults()

func orDefault[T int | time.Duration](v, d T) T {
	if v == 0 {
		return d
	}
	return v
}

func (l Limits) withDefaults() Limits {
	return Limits{
		MaxConnections:        orDefault(l.MaxConnections, DefaultMaxConnections),
		MaxConnectionsPerHost: orDefault(l.MaxConnectionsPerHost, DefaultMaxConnectionsPerHost),
		SpareConnections:      l.SpareConnections,
		MaxChunkSize:          orDefault(l.MaxChunkSize, DefaultMaxChunkSize),
		MaxMessageSize:        orDefault(l.MaxMessageSize, DefaultMaxMessageSize),
		MaxChunkCount:         orDefault(l.MaxChunkCount, DefaultMaxChunkCount),
		MaxPartialBytes:       orDefault(l.MaxPartialBytes, DefaultMaxPartialBytes),
		MaxQueueBytes:         orDefault(l.MaxQueueBytes, DefaultMaxQueueBytes),
		MaxQueuedBytes:        orDefault(l.MaxQueuedBytes, DefaultMaxQueuedBytes),
		MaxQueueMessages:      orDefault(l.MaxQueueMessages, DefaultMaxQueueMessages),
		HandshakeTimeout:      orDefault(l.HandshakeTimeout, DefaultHandshakeTimeout),
		MessageTimeout:        orDefault(l.MessageTimeout, DefaultMessageTimeout),
		IdleTimeout:           orDefault(l.IdleTimeout, DefaultIdleTimeout),
		WriteTimeout:          orDefault(l.WriteTimeout, DefaultWriteTimeout),
		MinTokenLifetime:      orDefault(l.MinTokenLifetime, DefaultMinTokenLifetime),
		MaxTokenLifetime:      orDefault(l.MaxTokenLifetime, DefaultMaxTokenLifetime),
		MaxHandshakes:         orDefault(l.MaxHandshakes, DefaultMaxHandshakes),
		MaxLargeRequests:      orDefault(l.MaxLargeRequests, DefaultMaxLargeRequests),
		MaxTurns:              orDefault(l.MaxTurns, max(1, runtime.GOMAXPROCS(0)-1)),
		Decoding:              l.Decoding,
	}
}

// check names the field that makes no sense.
func (l Limits) check() error {
	for name, v := range map[string]int64{
		"MaxConnections":        int64(l.MaxConnections),
		"MaxConnectionsPerHost": int64(l.MaxConnectionsPerHost),
		"SpareConnections":      int64(l.SpareConnections),
		"MaxMessageSize":        int64(l.MaxMessageSize),
		"MaxChunkCount":         int64(l.MaxChunkCount),
		"MaxPartialBytes":       int64(l.MaxPartialBytes),
		"MaxQueueBytes":         int64(l.MaxQueueBytes),
		"MaxQueueMessages":      int64(l.MaxQueueMessages),
		"MaxQueuedBytes":        int64(l.MaxQueuedBytes),
		"HandshakeTimeout":      int64(l.HandshakeTimeout),
		"MessageTimeout":        int64(l.MessageTimeout),
		"IdleTimeout":           int64(l.IdleTimeout),
		"WriteTimeout":          int64(l.WriteTimeout),
		"MinTokenLifetime":      int64(l.MinTokenLifetime),
		"MaxTokenLifetime":      int64(l.MaxTokenLifetime),
		"MaxHandshakes":         int64(l.MaxHandshakes),
		"MaxLargeRequests":      int64(l.MaxLargeRequests),
		"MaxTurns":              int64(l.MaxTurns),
	} {
		if v < 0 {
			return fmt.Errorf("channel: Limits.%s is negative", name)
		}
	}
	switch {
	case l.MaxChunkSize < MinChunkSize || l.MaxChunkSize > math.MaxInt32:
		return fmt.Errorf("channel: Limits.MaxChunkSize is %d; it has to be at least %d", l.MaxChunkSize, MinChunkSize)
	case l.MinTokenLifetime > l.MaxTokenLifetime:
		return errors.New("channel: Limits.MinTokenLifetime is longer than MaxTokenLifetime")
	case l.MaxTokenLifetime > math.MaxUint32*time.Millisecond:
		return errors.New("channel: Limits.MaxTokenLifetime does not fit in 32 bits of milliseconds")
	}
	return nil
}

// RejectReason says why a connection was refused or ended by the server.
type RejectReason string

// Reasons for which the server refuses or ends a connection.
const (
	RejectTooMany     RejectReason = "too_many"      // all places taken, or evicted for another connection
	RejectTimeout     RejectReason = "timeout"       // handshake, request or silence took too long
	RejectSlow        RejectReason = "slow"          // did not read what was sent to it
	RejectMalformed   RejectReason = "malformed"     // broke the protocol
	RejectSecurity    RejectReason = "security"      // policy, certificate, signature, token or sequence number
	RejectTooLarge    RejectReason = "too_large"     // chunk, message or number of chunks
	RejectPanic       RejectReason = "panic"         // a fault in the server, confined to this connection
	RejectReverse     RejectReason = "reverse_hello" // asked the server to dial out
	RejectByHandler   RejectReason = "handler"       // Channel.Close was called
	RejectServerClose RejectReason = "shutdown"      // the server is shutting down
)

// Events are called as things happen; each may be nil. They are called on the
// goroutines of connections, must not block, and must not call back into the
// channel.
type Events struct {
	// Accepted is called for each connection that was accepted and got a place.
	Accepted func(remote net.Addr)
	// Closed is called once for each connection of which Accepted was told.
	Closed func(remote net.Addr)
	// Rejected is called when the server refuses or ends a connection.
	Rejected func(remote net.Addr, reason RejectReason, status ua.StatusCode)
	// Opened is called after a secure channel was opened (renewed is false) or
	// its token was renewed.
	Opened func(remote net.Addr, policyURI string, mode ua.MessageSecurityMode, renewed bool)
	// Panicked is called when a panic was confined to its connection.
	Panicked func(remote net.Addr, value any)
}
