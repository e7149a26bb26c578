package main

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
	// maxMessage is the largest message that the client takes, in bytes; it says so in its Hello, and then no server sends chunks.
	maxMessage = 64 << 10
	// connectionLimit bounds the life of a connection, so that a server that stops answering ends the run.
	connectionLimit = 3 * time.Minute
	// lifetime is that of the channel's token and of the session. Nothing is renewed, so it is longer than the connection's.
	lifetime = 10 * time.Minute

	headerLength    = 12 // message header with channel id (Part 6 §6.7.2.2)
	sequenceLength  = 8  // sequence number and request id
	nonceLength     = 32
	clientURI       = "urn:quorate:bench"
	publishingEvery = 100 * time.Millisecond
)

// target is a server and the way to connect to it.
type target struct {
	endpoint string
	// identity is who the client is on a channel with Basic256Sha256 and SignAndEncrypt; nil is a channel without security.
	identity *identity
	// certificate is the server's, if there is an identity.
	certificate []byte
}

// client is a connection with one secure channel and one session. It does as little as it can for each message, because it
// shares its machine with the server that it measures. It is for one goroutine.
type client struct {
	nc                 net.Conn
	in                 *bufio.Reader
	buf                []byte // the message that was received last
	out                []byte // the message that was sent last
	channelID, tokenID uint32
	sequence           uint32
	keys               *uapolicy.EncryptionAlgorithm // of the channel; nil without security
	signing            *uapolicy.EncryptionAlgorithm // of the certificates; nil without security
	session            *ua.NodeID
}

// open connects and opens the secure channel.
func open(ctx context.Context, t target) (*client, error) {
	u, err := url.Parse(t.endpoint)
	if err != nil {
		return nil, err
	}
	var d net.Dialer
	nc, err := d.DialContext(ctx, "tcp", u.Host)
	if err != nil {
		return nil, err
	}
	c := &client{nc: nc, in: bufio.NewReaderSize(nc, 4<<10)}
	if err := errors.Join(nc.SetDeadline(time.Now().Add(connectionLimit)), c.hello(t.endpoint)); err != nil {
		nc.Close()
		return nil, fmt.Errorf("hello: %w", err)
	}
	if err := c.openChannel(t); err != nil {
		nc.Close()
		return nil, fmt.Errorf("open channel: %w", err)
	}
	return c, nil
}

// connect opens a channel and activates a session on it.
func connect(ctx context.Context, t target) (*client, error) {
	c, err := open(ctx, t)
	if err != nil {
		return nil, err
	}
	if err := c.createSession(t); err != nil {
		c.nc.Close()
		return nil, err
	}
	return c, nil
}

// hello negotiates the limits (Part 6 §7.1.2.3).
func (c *client) hello(endpoint string) error {
	b := append(c.out[:0], "HELF\x00\x00\x00\x00"...)
	for _, v := range []uint32{0, maxMessage, maxMessage, maxMessage, 1, uint32(len(endpoint))} {
		b = binary.LittleEndian.AppendUint32(b, v)
	}
	b = append(b, endpoint...)
	binary.LittleEndian.PutUint32(b[4:], uint32(len(b)))
	if _, err := c.nc.Write(b); err != nil {
		return err
	}
	_, err := c.message("ACKF")
	return err
}

// message reads one message, header included; it is valid until the next.
func (c *client) message(kind string) ([]byte, error) {
	head, err := c.in.Peek(8)
	if err != nil {
		return nil, err
	}
	size := int(binary.LittleEndian.Uint32(head[4:]))
	if size < headerLength || size > maxMessage {
		return nil, fmt.Errorf("message of %d bytes", size)
	}
	if cap(c.buf) < size {
		c.buf = make([]byte, size, 2*size)
	}
	c.buf = c.buf[:size]
	if _, err := io.ReadFull(c.in, c.buf); err != nil {
		return nil, err
	}
	switch got := string(c.buf[:4]); got {
	case kind:
		return c.buf, nil
	case "ERRF":
		return nil, fmt.Errorf("the server ended the connection: %w", ua.StatusCode(binary.LittleEndian.Uint32(c.buf[8:])))
	default:
		return nil, fmt.Errorf("got a message %q, want %q", got, kind)
	}
}

// openChannel issues the only token of the channel (Part 4 §5.5.2).
func (c *client) openChannel(t target) (err error) {
	policy, mode := ua.SecurityPolicyURINone, ua.MessageSecurityModeNone
	req := &ua.OpenSecureChannelRequest{RequestHeader: new(ua.RequestHeader), RequestedLifetime: uint32(lifetime.Milliseconds())}
	var certificate, thumbprint []byte
	if t.identity != nil {
		policy, mode = ua.SecurityPolicyURIBasic256Sha256, ua.MessageSecurityModeSignAndEncrypt
		key, err := uapolicy.PublicKey(t.certificate)
		if err != nil {
			return err
		}
		if c.signing, err = uapolicy.Asymmetric(policy, t.identity.key, key); err != nil {
			return err
		}
		certificate, thumbprint = t.identity.certificate, uapolicy.Thumbprint(t.certificate)
		req.ClientNonce = make([]byte, nonceLength)
		rand.Read(req.ClientNonce)
	}
	req.SecurityMode = mode
	header := []byte("OPNF\x00\x00\x00\x00\x00\x00\x00\x00")
	for _, field := range [][]byte{[]byte(policy), certificate, thumbprint} {
		header = appendField(header, field)
	}
	body, err := wire.AppendMessage(nil, req)
	if err != nil {
		return err
	}
	c.sequence++
	if c.out, err = protect(c.signing, append(c.out[:0], header...), c.sequence, body); err != nil {
		return err
	}
	if _, err := c.nc.Write(c.out); err != nil {
		return err
	}
	b, err := c.message("OPNF")
	if err != nil {
		return err
	}
	n := headerLength
	for range 3 {
		if n, err = skipField(b, n); err != nil {
			return err
		}
	}
	if body, err = unprotect(c.signing, b, n); err != nil {
		return err
	}
	var resp ua.OpenSecureChannelResponse
	if err := decode(body, &resp); err != nil {
		return err
	}
	c.channelID, c.tokenID = resp.SecurityToken.ChannelID, resp.SecurityToken.TokenID
	if t.identity != nil {
		c.keys, err = uapolicy.Symmetric(policy, req.ClientNonce, resp.ServerNonce)
	}
	return err
}

// send sends a request whose body is encoded already. All requests are sent with the sequence number for a request id.
func (c *client) send(body []byte) (err error) {
	b := append(c.out[:0], "MSGF\x00\x00\x00\x00"...)
	b = binary.LittleEndian.AppendUint32(b, c.channelID)
	b = binary.LittleEndian.AppendUint32(b, c.tokenID)
	c.sequence++
	if c.out, err = protect(c.keys, b, c.sequence, body); err != nil {
		return err
	}
	_, err = c.nc.Write(c.out)
	return err
}

// receive returns the body of the next response; it is valid until the one after it.
func (c *client) receive() ([]byte, error) {
	b, err := c.message("MSGF")
	if err != nil {
		return nil, err
	}
	return unprotect(c.keys, b, headerLength+4)
}

// call sends a request and waits for its response, when no other is under way.
func (c *client) call(req ua.Request, resp ua.Response) error {
	body, err := wire.AppendMessage(nil, req)
	if err != nil {
		return err
	}
	if err := c.send(body); err != nil {
		return err
	}
	if body, err = c.receive(); err != nil {
		return err
	}
	return decode(body, resp)
}

// typeOf gives the id of a message's type; servers write it in the four-byte form (Part 6 §5.2.2.9).
func typeOf(body []byte) uint16 {
	if len(body) < 4 || body[0] != byte(ua.NodeIDTypeFourByte) || body[1] != 0 {
		return 0
	}
	return binary.LittleEndian.Uint16(body[2:])
}

// decode decodes a response and makes an error of one that is not good.
func decode(body []byte, resp ua.Response) error {
	if typeOf(body) == id.ServiceFault_Encoding_DefaultBinary {
		resp = new(ua.ServiceFault)
	}
	if got, want := typeOf(body), ua.ServiceTypeID(resp); got != want {
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

func (c *client) header() *ua.RequestHeader {
	return &ua.RequestHeader{AuthenticationToken: c.session, Timestamp: time.Now()}
}

// createSession creates and activates a session of an anonymous user (Part 4 §5.7.2, §5.7.3).
func (c *client) createSession(t target) error {
	nonce := make([]byte, nonceLength)
	rand.Read(nonce)
	req := &ua.CreateSessionRequest{
		RequestHeader:           c.header(),
		ClientDescription:       &ua.ApplicationDescription{ApplicationURI: clientURI, ApplicationType: ua.ApplicationTypeClient},
		EndpointURL:             t.endpoint,
		SessionName:             "bench",
		ClientNonce:             nonce,
		RequestedSessionTimeout: float64(lifetime.Milliseconds()),
	}
	mode := ua.MessageSecurityModeNone
	if t.identity != nil {
		req.ClientCertificate, mode = t.identity.certificate, ua.MessageSecurityModeSignAndEncrypt
	}
	var created ua.CreateSessionResponse
	if err := c.call(req, &created); err != nil {
		return fmt.Errorf("create session: %w", err)
	}
	c.session = created.AuthenticationToken
	signature := &ua.SignatureData{}
	if t.identity != nil {
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
	activate := &ua.ActivateSessionRequest{RequestHeader: c.header(), ClientSignature: signature, UserIdentityToken: user}
	if err := c.call(activate, new(ua.ActivateSessionResponse)); err != nil {
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

// certificateOf asks a server for its certificate.
func certificateOf(ctx context.Context, endpoint string) ([]byte, error) {
	c, err := open(ctx, target{endpoint: endpoint})
	if err != nil {
		return nil, err
	}
	defer c.nc.Close()
	var resp ua.GetEndpointsResponse
	if err := c.call(&ua.GetEndpointsRequest{RequestHeader: c.header(), EndpointURL: endpoint}, &resp); err != nil {
		return nil, err
	}
	for _, e := range resp.Endpoints {
		if e.SecurityPolicyURI == ua.SecurityPolicyURIBasic256Sha256 && e.SecurityMode == ua.MessageSecurityModeSignAndEncrypt {
			return e.ServerCertificate, nil
		}
	}
	return nil, errors.New("the server offers no endpoint with Basic256Sha256 and SignAndEncrypt")
}

// close ends the session with its subscriptions, and the connection. Responses that are still under way are dropped.
func (c *client) close() error {
	defer c.nc.Close()
	body, err := wire.AppendMessage(nil, &ua.CloseSessionRequest{RequestHeader: c.header(), DeleteSubscriptions: true})
	if err != nil {
		return err
	}
	if err := c.send(body); err != nil {
		return err
	}
	for {
		body, err := c.receive()
		if err != nil {
			return fmt.Errorf("close session: %w", err)
		}
		if typeOf(body) == id.CloseSessionResponse_Encoding_DefaultBinary {
			return decode(body, new(ua.CloseSessionResponse))
		}
	}
}
