package channel

import (
	"crypto/rsa"
	"errors"
	"net"

	"github.com/gopcua/opcua/ua"
)

// ErrClosed is returned by [Channel.Send] after the channel ended.
var ErrClosed = errors.New("channel: closed")

// ErrSlow is returned by [Channel.Send] when the client's queue was full; the
// client has then been disconnected.
var ErrSlow = errors.New("channel: client is too slow")

// Handler is what stands on the channels.
type Handler interface {
	// Serve handles one request. It is called on the connection's reading
	// goroutine, in the order of the requests, and must not block for long.
	Serve(ch *Channel, requestID uint32, req ua.Request)
	// Closed is called once, after the last Serve, when the secure channel ended
	// for whatever reason.
	Closed(ch *Channel)
}

// Channel is one secure channel, on a connection of its own.
type Channel struct{}

// ID is the SecureChannelId, unique within the server.
func (c *Channel) ID() uint32 { return 0 }

// SecurityPolicyURI is the policy that the channel was opened with.
func (c *Channel) SecurityPolicyURI() string { return "" }

// SecurityMode is the mode that the channel was opened with.
func (c *Channel) SecurityMode() ua.MessageSecurityMode { return 0 }

// DiscoveryOnly says that the channel has no security and that no such endpoint
// is offered: it exists for FindServers and GetEndpoints (Part 4 §5.4), and no
// session may be created on it.
func (c *Channel) DiscoveryOnly() bool { return false }

// ClientCertificate is the certificate of the client (DER, leaf first) as it
// came with the OpenSecureChannel request; nil with policy None.
func (c *Channel) ClientCertificate() []byte { return nil }

// ServerCertificate is the certificate chain (DER, leaf first) and the key that
// the server uses on this channel; with policy None what Config.Certificate gave
// when the channel was opened, which may be nil.
func (c *Channel) ServerCertificate() (chain []byte, key *rsa.PrivateKey) { return nil, nil }

// RemoteAddr is the address of the client.
func (c *Channel) RemoteAddr() net.Addr { return nil }

// LocalAddr is the address that the client connected to.
func (c *Channel) LocalAddr() net.Addr { return nil }

// EndpointURL is the URL that the client connected with, from its Hello message.
// It may be anything.
func (c *Channel) EndpointURL() string { return "" }

// SetInUse says whether a session is bound to the channel. A connection that is
// not in use makes room for new ones when all places are taken.
func (c *Channel) SetInUse(inUse bool) {}

// Send encodes a response and queues it for the client. It never blocks, and may
// be called from any goroutine. A response that exceeds the client's limits is
// replaced by a ServiceFault with BadResponseTooLarge. Errors are [ErrClosed],
// [ErrSlow], or a failure to encode, after which nothing was sent.
func (c *Channel) Send(requestID uint32, resp ua.Response) error { return ErrClosed }

// Close ends the connection. If reason is not ua.StatusOK the client is told it
// in an Error message, unless it does not take it. Close does not wait; the
// Handler's Closed follows.
func (c *Channel) Close(reason ua.StatusCode) {}
