package main

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"time"

	"github.com/gopcua/opcua/id"
	"github.com/gopcua/opcua/ua"

	"quorate/opcua/wire"
)

const (
	// maxMessage is the largest response that a connection takes, in bytes, and maxChunk the largest chunk either way.
	maxMessage = 16 << 20
	maxChunk   = 64 << 10
	// channelLifetime is that of tokens and sessions: longer than any attack.
	channelLifetime = 10 * time.Minute
	// answerLimit is how long an attacker waits for an answer before it takes its connection for dead.
	answerLimit = 10 * time.Second

	headerLength   = 12 // message header with channel id (Part 6 §6.7.2.2)
	sequenceLength = 8  // sequence number and request id
)

// conn is a connection that sends whatever it is told to, on a channel without security. It is for one goroutine.
type conn struct {
	nc                 net.Conn
	in                 *bufio.Reader
	endpoint           string
	buf, out           []byte
	channelID, tokenID uint32
	sequence           uint32
	session            *ua.NodeID
}

// dial connects from an address of this machine, an empty one being any.
func dial(ctx context.Context, endpoint, from string) (*conn, error) {
	u, err := url.Parse(endpoint)
	if err != nil {
		return nil, err
	}
	d := net.Dialer{Timeout: answerLimit}
	if from != "" {
		d.LocalAddr = &net.TCPAddr{IP: net.ParseIP(from)}
	}
	nc, err := d.DialContext(ctx, "tcp", u.Host)
	if err != nil {
		return nil, err
	}
	return &conn{nc: nc, in: bufio.NewReaderSize(nc, 8<<10), endpoint: endpoint}, nil
}

// open opens a channel on a new connection.
func open(ctx context.Context, endpoint, from string) (*conn, error) {
	c, err := dial(ctx, endpoint, from)
	if err != nil {
		return nil, err
	}
	if err := errors.Join(c.patience(), c.hello(), c.openChannel(ua.SecurityTokenRequestTypeIssue)); err != nil {
		c.nc.Close()
		return nil, err
	}
	return c, nil
}

// connect opens a channel and activates a session of an anonymous user on it.
func connect(ctx context.Context, endpoint, from string) (*conn, error) {
	c, err := open(ctx, endpoint, from)
	if err != nil {
		return nil, err
	}
	if _, err := c.createSession(); err != nil {
		c.nc.Close()
		return nil, fmt.Errorf("create session: %w", err)
	}
	activate := &ua.ActivateSessionRequest{
		RequestHeader: c.header(), ClientSignature: &ua.SignatureData{},
		UserIdentityToken: ua.NewExtensionObject(&ua.AnonymousIdentityToken{PolicyID: "anonymous"}),
	}
	if err := c.call(activate, new(ua.ActivateSessionResponse)); err != nil {
		c.nc.Close()
		return nil, fmt.Errorf("activate session: %w", err)
	}
	return c, nil
}

// patience bounds what follows on the connection.
func (c *conn) patience() error { return c.nc.SetDeadline(time.Now().Add(answerLimit)) }

func (c *conn) write(b []byte) error {
	_, err := c.nc.Write(b)
	return err
}

// helloMessage is a Hello (Part 6 §7.1.2.3).
func helloMessage(endpoint string) []byte {
	return frame("HELF", words(0, maxChunk, maxChunk, maxMessage, 0, uint32(len(endpoint))), []byte(endpoint))
}

func (c *conn) hello() error {
	if err := c.write(helloMessage(c.endpoint)); err != nil {
		return err
	}
	_, err := c.message("ACKF")
	return err
}

// words puts numbers one after the other, as Part 6 §5.2.2.2 has them.
func words(values ...uint32) (b []byte) {
	for _, v := range values {
		b = binary.LittleEndian.AppendUint32(b, v)
	}
	return b
}

// frame puts the header of a message in front of its parts.
func frame(kind string, parts ...[]byte) []byte {
	b := append([]byte(kind), 0, 0, 0, 0)
	for _, part := range parts {
		b = append(b, part...)
	}
	binary.LittleEndian.PutUint32(b[4:], uint32(len(b)))
	return b
}

// message reads one message, header included; it is valid until the next.
func (c *conn) message(kind string) ([]byte, error) {
	head, err := c.in.Peek(8)
	if err != nil {
		return nil, err
	}
	size := int(binary.LittleEndian.Uint32(head[4:]))
	if size < headerLength || size > maxMessage {
		return nil, fmt.Errorf("message of %d bytes", size)
	}
	if cap(c.buf) < size {
		c.buf = make([]byte, size)
	}
	c.buf = c.buf[:size]
	if _, err := io.ReadFull(c.in, c.buf); err != nil {
		return nil, err
	}
	switch got := string(c.buf[:4]); {
	case got == kind, kind == "MSGF" && got == "MSGC":
		return c.buf, nil
	case got == "ERRF":
		return nil, fmt.Errorf("the server ended the connection: %w", ua.StatusCode(binary.LittleEndian.Uint32(c.buf[8:])))
	default:
		return nil, fmt.Errorf("got a message %q, want %q", got, kind)
	}
}

// openChannel issues or renews the token of the channel (Part 4 §5.5.2).
func (c *conn) openChannel(kind ua.SecurityTokenRequestType) error {
	body, err := wire.AppendMessage(nil, &ua.OpenSecureChannelRequest{
		RequestHeader: new(ua.RequestHeader), RequestType: kind, SecurityMode: ua.MessageSecurityModeNone,
		RequestedLifetime: uint32(channelLifetime.Milliseconds()),
	})
	if err != nil {
		return err
	}
	c.sequence++
	if err := c.write(frame("OPNF", words(c.channelID), field([]byte(ua.SecurityPolicyURINone)), field(nil), field(nil),
		words(c.sequence, c.sequence), body)); err != nil {
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
	var resp ua.OpenSecureChannelResponse
	if err := decode(b[n+sequenceLength:], &resp); err != nil {
		return err
	}
	c.channelID, c.tokenID = resp.SecurityToken.ChannelID, resp.SecurityToken.TokenID
	return nil
}

// field is a ByteString, null if it is nil (Part 6 §5.2.2.7).
func field(b []byte) []byte {
	if b == nil {
		return words(0xffffffff)
	}
	return append(words(uint32(len(b))), b...)
}

// skipField returns where the ByteString ends that begins at n.
func skipField(b []byte, n int) (int, error) {
	if len(b) < n+4 {
		return 0, io.ErrUnexpectedEOF
	}
	n += 4 + max(int(int32(binary.LittleEndian.Uint32(b[n:]))), 0)
	if n+sequenceLength > len(b) {
		return 0, io.ErrUnexpectedEOF
	}
	return n, nil
}

// append adds a chunk with a request's body to what will be sent. All requests have their sequence number for an id.
func (c *conn) append(b []byte, kind string, body []byte) []byte {
	c.sequence++
	start := len(b)
	b = append(append(b, kind...), 0, 0, 0, 0)
	for _, v := range []uint32{c.channelID, c.tokenID, c.sequence, c.sequence} {
		b = binary.LittleEndian.AppendUint32(b, v)
	}
	b = append(b, body...)
	binary.LittleEndian.PutUint32(b[start+4:], uint32(len(b)-start))
	return b
}

// send sends a request whose body is encoded already.
func (c *conn) send(body []byte) error {
	c.out = c.append(c.out[:0], "MSGF", body)
	return c.write(c.out)
}

// receive returns the body of the next response; it is valid until the one after it.
func (c *conn) receive() ([]byte, error) {
	var whole []byte
	for {
		b, err := c.message("MSGF")
		if err != nil {
			return nil, err
		}
		if len(b) < headerLength+4+sequenceLength {
			return nil, io.ErrUnexpectedEOF
		}
		part := b[headerLength+4+sequenceLength:]
		if b[3] == 'F' && whole == nil {
			return part, nil
		}
		if whole = append(whole, part...); b[3] == 'F' {
			return whole, nil
		}
	}
}

// call sends a request and waits for its response, when no other is under way.
func (c *conn) call(req ua.Request, resp ua.Response) error {
	body, err := wire.AppendMessage(nil, req)
	if err != nil {
		return err
	}
	if err := errors.Join(c.patience(), c.send(body)); err != nil {
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

func (c *conn) header() *ua.RequestHeader {
	return &ua.RequestHeader{AuthenticationToken: c.session, Timestamp: time.Now()}
}

// createSession creates a session, not yet activated.
func (c *conn) createSession() (*ua.CreateSessionResponse, error) {
	req := &ua.CreateSessionRequest{
		RequestHeader:           c.header(),
		ClientDescription:       &ua.ApplicationDescription{ApplicationURI: clientURI, ApplicationType: ua.ApplicationTypeClient},
		EndpointURL:             c.endpoint,
		SessionName:             "siege",
		RequestedSessionTimeout: float64(channelLifetime.Milliseconds()),
	}
	var created ua.CreateSessionResponse
	if err := c.call(req, &created); err != nil {
		return nil, err
	}
	c.session = created.AuthenticationToken
	return &created, nil
}

// closeSession ends the session, its subscriptions with it, and the connection.
func (c *conn) closeSession() error {
	defer c.nc.Close()
	return c.call(&ua.CloseSessionRequest{RequestHeader: c.header(), DeleteSubscriptions: true}, new(ua.CloseSessionResponse))
}
