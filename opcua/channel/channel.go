// Package channel is the transport of an OPC UA server: it accepts connections,
// negotiates their limits (Part 6 §7.1), opens and renews secure channels (Part 4
// §5.5, Part 6 §6.7), and carries requests to a [Handler] and responses back.
//
// It stands between a server that has more important things to do and clients
// that may be slow, broken or hostile, and is built so that a client can harm
// nobody but itself:
//
//   - Accepting never waits for a client. Places are limited, in total and per
//     host; when all are taken, the oldest connection without a session makes room.
//   - Every phase has a deadline: handshake, request, silence, and reading what is
//     sent.
//   - A connection has one goroutine, which reads, decodes and calls the handler.
//     Responses go straight to the kernel as long as it takes them without
//     waiting. When it does not, they are queued up to a limit, and a second
//     goroutine drains the queue. A client whose queue is full is disconnected.
//     So [Channel.Send] never blocks, and nobody ever waits for a slow client.
//   - While a client leaves half of its queue unread, no more of its requests are
//     read.
//   - Incomplete requests are limited in size, in chunks, in time, and over all
//     connections in memory.
//   - The asymmetric cryptography of opening channels is limited in the number
//     that may run at a time.
//   - A panic is confined to its connection, and counted.
package channel

import (
	"bufio"
	"crypto/rsa"
	"crypto/sha1"
	"errors"
	"net"
	"sync/atomic"
	"time"

	"github.com/gopcua/opcua/ua"

	"quorate/opcua/wire"
)

// ErrClosed is returned by [Channel.Send] after the channel ended.
var ErrClosed = errors.New("channel: closed")

// ErrSlow is returned by [Channel.Send] when the client's queue was full; the
// client has then been disconnected.
var ErrSlow = errors.New("channel: client is too slow")

// Handler is what stands on the channels.
type Handler interface {
	// Serve handles one request. It is called on the connection's reading
	// goroutine, in the order of the requests, and must not block for long: what
	// is sent on the channel meanwhile may wait for its return, so that the
	// responses to several requests leave together.
	Serve(ch *Channel, requestID uint32, req ua.Request)
	// Closed is called once, after the last Serve, when the secure channel ended
	// for whatever reason.
	Closed(ch *Channel)
}

// Channel is one secure channel, on a connection of its own.
type Channel struct {
	server *Server
	nc     net.Conn
	host   string // remote address without port, for the limit per host
	order  uint64 // grows with each accepted connection
	inUse  atomic.Bool

	// Set by the handshake, before the Handler sees the channel.
	endpointURL    string
	sendChunkSize  int
	peerMaxMessage int // 0 means no limit
	peerMaxChunks  int // 0 means no limit
	id             uint32
	policy         *policy
	mode           ua.MessageSecurityMode
	discoveryOnly  bool
	clientChain    []byte
	clientKey      *rsa.PublicKey
	clientPrint    [sha1.Size]byte
	serverChain    []byte
	serverKey      *rsa.PrivateKey

	// Used by the reading goroutine only.
	br           *bufio.Reader
	big          *[]byte // the chunk that is too large for br, while it is handled
	receiveChunk int     // largest chunk that may come
	opened       bool
	current      *token    // messages are accepted with it
	next         *token    // renewed, not yet used by the client
	tokenEnds    time.Time // when the newest token will no longer be accepted
	sequence     uint32
	sequenced    bool // a sequence number has been seen
	partial      partial
	deadline     time.Time
	corkedHere   bool
	tokens       wire.Tokens
	attached     any
	work         work

	out outgoing
}

// ID is the SecureChannelId, unique within the server.
func (c *Channel) ID() uint32 { return c.id }

// SecurityPolicyURI is the policy that the channel was opened with.
func (c *Channel) SecurityPolicyURI() string { return c.policy.uri }

// SecurityMode is the mode that the channel was opened with.
func (c *Channel) SecurityMode() ua.MessageSecurityMode { return c.mode }

// DiscoveryOnly says that the channel has no security and that no such endpoint
// is offered: it exists for FindServers and GetEndpoints (Part 4 §5.4), and no
// session may be created on it.
func (c *Channel) DiscoveryOnly() bool { return c.discoveryOnly }

// ClientCertificate is the certificate of the client (DER, leaf first) as it
// came with the OpenSecureChannel request; nil with policy None.
func (c *Channel) ClientCertificate() []byte { return c.clientChain }

// ServerCertificate is the certificate chain (DER, leaf first) and the key that
// the server uses on this channel; with policy None what Config.Certificate gave
// when the channel was opened, which may be nil.
func (c *Channel) ServerCertificate() (chain []byte, key *rsa.PrivateKey) {
	return c.serverChain, c.serverKey
}

// RemoteAddr is the address of the client.
func (c *Channel) RemoteAddr() net.Addr { return c.nc.RemoteAddr() }

// LocalAddr is the address that the client connected to.
func (c *Channel) LocalAddr() net.Addr { return c.nc.LocalAddr() }

// EndpointURL is the URL that the client connected with, from its Hello message.
// It may be anything.
func (c *Channel) EndpointURL() string { return c.endpointURL }

// Attach keeps a value of the Handler's with the channel, for its next requests. Attach and Attached are for [Handler.Serve] only.
//
// The authentication token of a request is the same pointer as that of the request before it if the client sent the same bytes, so a
// Handler that keeps what it found for a token need not look for it again.
func (c *Channel) Attach(v any) { c.attached = v }

// Attached returns what was attached last, nil if nothing was.
func (c *Channel) Attached() any { return c.attached }

// SetInUse says whether a session is bound to the channel. A connection that is
// not in use makes room for new ones when all places are taken.
func (c *Channel) SetInUse(inUse bool) { c.inUse.Store(inUse) }

// Crowded says whether the channel is not in use and has a spare place, since all others are in use: it is for those to be put to use for whom
// such places are kept (see [Limits].SpareConnections).
func (c *Channel) Crowded() bool {
	if c.inUse.Load() {
		return false
	}
	c.server.mu.Lock()
	defer c.server.mu.Unlock()
	return len(c.server.channels) > c.server.limits.MaxConnections || c.server.perHost[c.host] > c.server.limits.MaxConnectionsPerHost
}
