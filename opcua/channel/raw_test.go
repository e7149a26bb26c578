package channel

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"testing"
	"time"

	"github.com/gopcua/opcua/ua"

	"quorate/opcua/wire"
)

// raw is a client that sends whatever a test wants, without security.
type raw struct {
	t testing.TB
	net.Conn
	channelID, tokenID, sequence uint32
}

func dialRaw(t testing.TB, addr string) *raw {
	t.Helper()
	nc, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { nc.Close() })
	_ = nc.SetDeadline(time.Now().Add(patience))
	return &raw{t: t, Conn: nc}
}

func u32s(values ...uint32) (b []byte) {
	for _, v := range values {
		b = binary.LittleEndian.AppendUint32(b, v)
	}
	return b
}

// frame puts a message header in front.
func frame(kind string, parts ...[]byte) []byte {
	body := bytes.Join(parts, nil)
	return append(append([]byte(kind), u32s(uint32(8+len(body)))...), body...)
}

func helloFrame(receive, send, maxMessage, maxChunks uint32, url string) []byte {
	return frame("HELF", u32s(0, receive, send, maxMessage, maxChunks, uint32(len(url))), []byte(url))
}

func (r *raw) send(b []byte) {
	r.t.Helper()
	if _, err := r.Write(b); err != nil {
		r.t.Fatalf("write: %v", err)
	}
}

// receive reads one message and returns its four-byte type and the rest.
func (r *raw) receive() (kind string, rest []byte, err error) {
	var head [8]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return "", nil, err
	}
	rest = make([]byte, binary.LittleEndian.Uint32(head[4:])-8)
	_, err = io.ReadFull(r, rest)
	return string(head[:4]), rest, err
}

func (r *raw) expect(want string) []byte {
	r.t.Helper()
	kind, rest, err := r.receive()
	if err != nil {
		r.t.Fatalf("waiting for %s: %v", want, err)
	}
	if kind != want {
		r.t.Fatalf("got %s %q, want %s", kind, rest, want)
	}
	return rest
}

// expectError reads the Error message and the end of the connection.
func (r *raw) expectError(want ua.StatusCode) {
	r.t.Helper()
	rest := r.expect("ERRF")
	if got := ua.StatusCode(binary.LittleEndian.Uint32(rest)); got != want {
		r.t.Fatalf("got %s %q, want %s", wire.StatusName(got), rest[8:], wire.StatusName(want))
	}
	r.expectEnd()
}

func (r *raw) expectEnd() {
	r.t.Helper()
	if _, _, err := r.receive(); !ended(err) {
		r.t.Fatalf("connection did not end: %v", err)
	}
}

// ended says whether an error of reading means that the peer closed.
func ended(err error) bool {
	var timeout net.Error
	return err != nil && !(errors.As(err, &timeout) && timeout.Timeout())
}

func (r *raw) hello() *raw {
	r.t.Helper()
	r.send(helloFrame(65536, 65536, 0, 0, "opc.tcp://test"))
	r.expect("ACKF")
	return r
}

func (r *raw) nextSequence() uint32 {
	r.sequence++
	return r.sequence
}

func encode(t testing.TB, msg any) []byte {
	t.Helper()
	b, err := wire.AppendMessage(nil, msg)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// openFrame is an OpenSecureChannel request with policy None.
func (r *raw) openFrame(typ ua.SecurityTokenRequestType, policyURI string, mode ua.MessageSecurityMode, lifetime time.Duration) []byte {
	body := encode(r.t, &ua.OpenSecureChannelRequest{
		RequestHeader: &ua.RequestHeader{RequestHandle: 77}, RequestType: typ, SecurityMode: mode, RequestedLifetime: uint32(lifetime / time.Millisecond),
	})
	security := append(appendField(nil, []byte(policyURI)), u32s(0xffffffff, 0xffffffff)...)
	return frame("OPNF", u32s(r.channelID), security, u32s(r.nextSequence(), 1), body)
}

// open issues or renews the token with policy None.
func (r *raw) open(typ ua.SecurityTokenRequestType, lifetime time.Duration) *ua.OpenSecureChannelResponse {
	r.t.Helper()
	r.send(r.openFrame(typ, ua.SecurityPolicyURINone, ua.MessageSecurityModeNone, lifetime))
	rest := r.expect("OPNF")
	_, v, err := ua.DecodeService(rest[4+4+len(ua.SecurityPolicyURINone)+4+4+8:])
	resp, ok := v.(*ua.OpenSecureChannelResponse)
	if err != nil || !ok {
		r.t.Fatalf("got %T, %v", v, err)
	}
	r.channelID, r.tokenID = resp.SecurityToken.ChannelID, resp.SecurityToken.TokenID
	return resp
}

// connect opens a channel with policy None.
func connect(t testing.TB, addr string) *raw {
	t.Helper()
	r := dialRaw(t, addr).hello()
	r.open(ua.SecurityTokenRequestTypeIssue, time.Hour)
	return r
}

func (r *raw) chunk(kind string, requestID uint32, body []byte) []byte {
	return frame(kind, u32s(r.channelID, r.tokenID, r.nextSequence(), requestID), body)
}

func readRequest(t testing.TB, handle uint32, nodes ...string) []byte {
	req := &ua.ReadRequest{RequestHeader: &ua.RequestHeader{RequestHandle: handle}}
	for _, n := range nodes {
		req.NodesToRead = append(req.NodesToRead, &ua.ReadValueID{NodeID: ua.MustParseNodeID(n), AttributeID: ua.AttributeIDValue})
	}
	return encode(t, req)
}

// response reads one message of one chunk.
func (r *raw) response() (requestID uint32, msg any) {
	r.t.Helper()
	rest := r.expect("MSGF")
	_, v, err := ua.DecodeService(rest[16:])
	if err != nil {
		r.t.Fatal(err)
	}
	return binary.LittleEndian.Uint32(rest[12:]), v
}

func (r *raw) expectFault(requestID, handle uint32, status ua.StatusCode) {
	r.t.Helper()
	id, msg := r.response()
	f, ok := msg.(*ua.ServiceFault)
	if !ok || id != requestID || f.ResponseHeader.RequestHandle != handle || f.ResponseHeader.ServiceResult != status {
		r.t.Fatalf("request %d answered with %T %+v, want a fault with %s and handle %d", id, msg, msg, wire.StatusName(status), handle)
	}
}

// alive proves that the server serves a new client.
func alive(t testing.TB, addr string) {
	t.Helper()
	connect(t, addr).alive()
}

// alive proves that the channel answers.
func (r *raw) alive() {
	r.t.Helper()
	r.send(r.chunk("MSGF", 5, readRequest(r.t, 6, "i=2258")))
	id, msg := r.response()
	if resp, ok := msg.(*ua.ReadResponse); !ok || id != 5 || resp.ResponseHeader.RequestHandle != 6 {
		r.t.Fatalf("request %d answered with %T", id, msg)
	}
}

// rejects is an event function that remembers.
type rejects chan string

func (r rejects) events() Events {
	return Events{Rejected: func(_ net.Addr, reason RejectReason, status ua.StatusCode) {
		r <- fmt.Sprint(reason, " ", wire.StatusName(status))
	}}
}

func (r rejects) expect(t testing.TB, want string) {
	t.Helper()
	timeout := time.NewTimer(patience)
	defer timeout.Stop()
	select {
	case got := <-r:
		if got != want {
			t.Errorf("rejected with %q, want %q", got, want)
		}
	case <-timeout.C:
		t.Errorf("not rejected, want %q", want)
	}
}
