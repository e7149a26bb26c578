// Package client is the client's side of an OPC UA connection for those who measure servers. It does as little as it can for each
// message, because it shares its machine with the server, and it can send what no good client would: chunk by chunk, byte by byte.
//
// Dial gives a bare connection, Open one with a secure channel, and CreateSession and Activate make a session of an anonymous user on
// it. Nothing is renewed by itself, no time-outs are set but the one of Options, and whoever receives has to want the
// response that comes next: a Conn is for one goroutine.
package client

import (
	"bufio"
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"time"

	"github.com/gopcua/opcua/id"
	"github.com/gopcua/opcua/ua"
	"github.com/gopcua/opcua/uapolicy"

	"quorate/opcua/wire"
)

const (
	// MaxChunk is the largest chunk either way, in bytes.
	MaxChunk = 64 << 10
	// HeaderLength is that of a message's header with the channel id (Part 6 §6.7.2.2); in a chunk with a request the token's id comes
	// next, with 4 bytes.
	HeaderLength = 12
	// SequenceLength is that of sequence number and request id, which come before the body.
	SequenceLength = 8

	// lifetime is that of tokens and sessions: longer than any run, since nothing is renewed by itself.
	lifetime    = 10 * time.Minute
	nonceLength = 32
	policy      = ua.SecurityPolicyURIBasic256Sha256 // with an identity
)

// Options say how to connect, and to what.
type Options struct {
	Endpoint string
	// Name is that of sessions and, behind "urn:quorate:", of the application.
	Name string
	// From is the address of this machine to connect from; empty is any.
	From string
	// Limit is how long it may take to connect. From Open on it bounds everything on the connection, until SetDeadline is called.
	Limit time.Duration
	// MaxMessage is the largest response that is taken, in bytes. Up to MaxChunk no server sends it in chunks.
	MaxMessage uint32
	// Identity is who the client is on a channel with Basic256Sha256 and SignAndEncrypt; nil is a channel without security.
	Identity *Identity
	// Certificate is the server's, in DER, if there is an identity.
	Certificate []byte
}

// ApplicationURI is that of the application of a name.
func ApplicationURI(name string) string { return "urn:quorate:" + name }

// Conn is a connection. What is written to it goes out as it is.
type Conn struct {
	*net.TCPConn
	Options
	// In is what comes in.
	In *bufio.Reader

	in, out            []byte // the message that was received last, and the one that was sent last
	channelID, tokenID uint32
	sequence           uint32
	keys               *uapolicy.EncryptionAlgorithm // of the channel; nil without security
	signing            *uapolicy.EncryptionAlgorithm // of the certificates; nil without security
	session            *ua.NodeID
}

// Dial connects, and sends nothing yet.
func Dial(ctx context.Context, o Options) (*Conn, error) {
	u, err := url.Parse(o.Endpoint)
	if err != nil {
		return nil, err
	}
	d := net.Dialer{Timeout: o.Limit}
	if o.From != "" {
		d.LocalAddr = &net.TCPAddr{IP: net.ParseIP(o.From)}
	}
	nc, err := d.DialContext(ctx, "tcp", u.Host)
	if err != nil {
		return nil, err
	}
	return &Conn{TCPConn: nc.(*net.TCPConn), Options: o, In: bufio.NewReaderSize(nc, 4<<10)}, nil
}

// Open opens a channel on a new connection.
func Open(ctx context.Context, o Options) (*Conn, error) {
	c, err := Dial(ctx, o)
	if err != nil {
		return nil, err
	}
	if err := errors.Join(c.SetDeadline(time.Now().Add(o.Limit)), c.Hello()); err != nil {
		c.Close()
		return nil, fmt.Errorf("hello: %w", err)
	}
	if err := c.OpenChannel(ua.SecurityTokenRequestTypeIssue); err != nil {
		c.Close()
		return nil, fmt.Errorf("open channel: %w", err)
	}
	return c, nil
}

// Close ends the connection. How that went says nothing that matters any more.
func (c *Conn) Close() { _ = c.TCPConn.Close() }

// Hello negotiates the limits (Part 6 §7.1.2.3).
func (c *Conn) Hello() error {
	chunks := uint32(0) // As many as the server likes.
	if c.MaxMessage <= MaxChunk {
		chunks = 1
	}
	if _, err := c.Write(Frame("HELF", Words(0, MaxChunk, MaxChunk, c.MaxMessage, chunks), Field([]byte(c.Endpoint)))); err != nil {
		return err
	}
	_, err := c.message("ACKF")
	return err
}

// message reads one message, header included; it is valid until the next.
func (c *Conn) message(kind string) ([]byte, error) {
	head, err := c.In.Peek(8)
	if err != nil {
		return nil, err
	}
	size := int(binary.LittleEndian.Uint32(head[4:]))
	if size < HeaderLength || size > int(c.MaxMessage) {
		return nil, fmt.Errorf("message of %d bytes", size)
	}
	if cap(c.in) < size {
		c.in = make([]byte, size, 2*size)
	}
	c.in = c.in[:size]
	if _, err := io.ReadFull(c.In, c.in); err != nil {
		return nil, err
	}
	switch got := string(c.in[:4]); {
	case got == kind, kind == "MSGF" && got == "MSGC":
		return c.in, nil
	case got == "ERRF":
		return nil, fmt.Errorf("the server ended the connection: %w", ua.StatusCode(binary.LittleEndian.Uint32(c.in[8:])))
	default:
		return nil, fmt.Errorf("got a message %q, want %q", got, kind)
	}
}

// OpenChannel issues or renews the token of the channel (Part 4 §5.5.2).
func (c *Conn) OpenChannel(kind ua.SecurityTokenRequestType) (err error) {
	req := newOpenRequest(c.Identity, kind)
	c.sequence++
	b, signing, err := appendOpen(c.out[:0], c.Identity, c.Certificate, c.channelID, c.sequence, req)
	if err != nil {
		return err
	}
	c.out, c.signing = b, signing
	if _, err := c.Write(c.out); err != nil {
		return err
	}
	if b, err = c.message("OPNF"); err != nil {
		return err
	}
	n := HeaderLength
	for range 3 { // Policy, certificate and thumbprint.
		if n, err = skipField(b, n); err != nil {
			return err
		}
	}
	body, err := unprotect(c.signing, b, n)
	if err != nil {
		return err
	}
	var resp ua.OpenSecureChannelResponse
	if err := Decode(body, &resp); err != nil {
		return err
	}
	c.channelID, c.tokenID = resp.SecurityToken.ChannelID, resp.SecurityToken.TokenID
	if c.Identity != nil {
		c.keys, err = uapolicy.Symmetric(policy, req.ClientNonce, resp.ServerNonce)
	}
	return err
}

// Append appends a chunk to b, "MSGF" or "MSGC", with the body of a request. All requests have their sequence number for an id.
func (c *Conn) Append(b []byte, kind string, body []byte) ([]byte, error) {
	start := len(b)
	b = append(append(b, kind...), 0, 0, 0, 0)
	b = binary.LittleEndian.AppendUint32(b, c.channelID)
	b = binary.LittleEndian.AppendUint32(b, c.tokenID)
	c.sequence++
	return protect(c.keys, b, start, c.sequence, body)
}

// Send sends a request whose body is encoded already.
func (c *Conn) Send(body []byte) (err error) {
	if c.out, err = c.Append(c.out[:0], "MSGF", body); err != nil {
		return err
	}
	_, err = c.Write(c.out)
	return err
}

// Receive returns the body of the next response; it is valid until the one after it.
func (c *Conn) Receive() ([]byte, error) {
	var whole []byte
	for {
		b, err := c.message("MSGF")
		if err != nil {
			return nil, err
		}
		final := b[3] == 'F'
		part, err := unprotect(c.keys, b, HeaderLength+4)
		if err != nil || final && whole == nil {
			return part, err
		}
		if len(whole)+len(part) > int(c.MaxMessage) {
			return nil, fmt.Errorf("message of more than %d bytes", c.MaxMessage)
		}
		if whole = append(whole, part...); final {
			return whole, nil
		}
	}
}

// Call sends a request and waits for its response, when no other is under way.
func (c *Conn) Call(req ua.Request, resp ua.Response) error {
	body, err := wire.AppendMessage(nil, req)
	if err != nil {
		return err
	}
	if err := c.Send(body); err != nil {
		return err
	}
	if body, err = c.Receive(); err != nil {
		return err
	}
	return Decode(body, resp)
}

// TypeOf gives the id of a message's type; servers write it in the four-byte form (Part 6 §5.2.2.9).
func TypeOf(body []byte) uint16 {
	if len(body) < 4 || body[0] != byte(ua.NodeIDTypeFourByte) || body[1] != 0 {
		return 0
	}
	return binary.LittleEndian.Uint16(body[2:])
}

// Decode decodes a response and makes an error of one that is not good.
func Decode(body []byte, resp ua.Response) error {
	if TypeOf(body) == id.ServiceFault_Encoding_DefaultBinary {
		resp = new(ua.ServiceFault)
	}
	if got, want := TypeOf(body), ua.ServiceTypeID(resp); got != want {
		return fmt.Errorf("got a message of type %d, want %d", got, want)
	}
	if err := wire.Decode(body[4:], resp, wire.DefaultLimits); err != nil {
		return err
	}
	if status := resp.Header().ServiceResult; status != ua.StatusOK {
		return status
	}
	return nil
}

// Header is that of a request in the session.
func (c *Conn) Header() *ua.RequestHeader {
	return &ua.RequestHeader{AuthenticationToken: c.session, Timestamp: time.Now()}
}

// CreateSession creates a session, not yet activated (Part 4 §5.7.2).
func (c *Conn) CreateSession() (*ua.CreateSessionResponse, error) {
	req := &ua.CreateSessionRequest{
		RequestHeader:           c.Header(),
		ClientDescription:       &ua.ApplicationDescription{ApplicationURI: ApplicationURI(c.Name), ApplicationType: ua.ApplicationTypeClient},
		EndpointURL:             c.Endpoint,
		SessionName:             c.Name,
		ClientNonce:             newNonce(),
		RequestedSessionTimeout: float64(lifetime.Milliseconds()),
	}
	if c.Identity != nil {
		req.ClientCertificate = c.Identity.Certificate
	}
	var created ua.CreateSessionResponse
	if err := c.Call(req, &created); err != nil {
		return nil, fmt.Errorf("create session: %w", err)
	}
	c.session = created.AuthenticationToken
	return &created, nil
}

// Activate activates the session that was created, for an anonymous user (Part 4 §5.7.3).
func (c *Conn) Activate(created *ua.CreateSessionResponse) error {
	signature, mode := &ua.SignatureData{}, ua.MessageSecurityModeNone
	if c.Identity != nil {
		mode = ua.MessageSecurityModeSignAndEncrypt
		sig, err := c.signing.Signature(append(append([]byte(nil), created.ServerCertificate...), created.ServerNonce...))
		if err != nil {
			return err
		}
		signature = &ua.SignatureData{Algorithm: c.signing.SignatureURI(), Signature: sig}
	}
	user, err := anonymous(created.ServerEndpoints, mode)
	if err != nil {
		return err
	}
	activate := &ua.ActivateSessionRequest{RequestHeader: c.Header(), ClientSignature: signature, UserIdentityToken: user}
	if err := c.Call(activate, new(ua.ActivateSessionResponse)); err != nil {
		return fmt.Errorf("activate session: %w", err)
	}
	return nil
}

// anonymous makes the user token that an endpoint wants of an anonymous user.
func anonymous(endpoints []*ua.EndpointDescription, mode ua.MessageSecurityMode) (*ua.ExtensionObject, error) {
	for _, e := range endpoints {
		if e.SecurityMode != mode {
			continue
		}
		for _, p := range e.UserIdentityTokens {
			if p.TokenType == ua.UserTokenTypeAnonymous {
				return ua.NewExtensionObject(&ua.AnonymousIdentityToken{PolicyID: p.PolicyID}), nil
			}
		}
	}
	return nil, fmt.Errorf("no endpoint with mode %v takes anonymous users", mode)
}

// Certificate asks a server for its certificate, in DER.
func Certificate(ctx context.Context, o Options) ([]byte, error) {
	c, err := Open(ctx, o)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	var resp ua.GetEndpointsResponse
	if err := c.Call(&ua.GetEndpointsRequest{RequestHeader: c.Header(), EndpointURL: c.Endpoint}, &resp); err != nil {
		return nil, err
	}
	for _, e := range resp.Endpoints {
		if e.SecurityPolicyURI == policy && e.SecurityMode == ua.MessageSecurityModeSignAndEncrypt {
			return e.ServerCertificate, nil
		}
	}
	return nil, errors.New("the server offers no endpoint with Basic256Sha256 and SignAndEncrypt")
}

func newNonce() []byte {
	nonce := make([]byte, nonceLength)
	rand.Read(nonce)
	return nonce
}
