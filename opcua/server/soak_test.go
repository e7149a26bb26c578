package server

import (
	"bytes"
	"encoding/binary"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gopcua/opcua/id"
	"github.com/gopcua/opcua/ua"

	"quorate/opcua/wire"
)

// soakVisits is how many clients come and go: `go test -run TestSoak -soak 200000 ./opcua/server` is the long form.
var soakVisits = flag.Int("soak", 2000, "visits of TestSoak")

// soakHeap is how much more memory may be in use at the end: what is left of a visit would add up to more.
const soakHeap = 2 << 20

// soakTimeout is that of everything. Visitors that a busy machine makes slower than that are turned out, as they should be.
const soakTimeout = 1500 * time.Millisecond

// turnedOut are what such a visitor is told.
var turnedOut = []ua.StatusCode{ua.StatusBadTimeout, ua.StatusBadTCPServerTooBusy, ua.StatusBadSessionIDInvalid, ua.StatusBadSubscriptionIDInvalid}

// visitor is a client without security that does no more than it has to, and leaves as it likes.
type visitor struct {
	net.Conn
	channelID, tokenID, sequence uint32
	auth                         *ua.NodeID
}

func newVisitor(t *testing.T, s *served) *visitor {
	t.Helper()
	conn, err := net.Dial("tcp", strings.TrimPrefix(s.url, "opc.tcp://"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
	return &visitor{Conn: conn}
}

func words(values ...uint32) (b []byte) {
	for _, v := range values {
		b = binary.LittleEndian.AppendUint32(b, v)
	}
	return b
}

func (v *visitor) send(kind string, parts ...[]byte) error {
	body := bytes.Join(parts, nil)
	_, err := v.Write(append(append([]byte(kind), words(uint32(8+len(body)))...), body...))
	return err
}

func (v *visitor) receive() ([]byte, error) {
	var head [8]byte
	if _, err := io.ReadFull(v, head[:]); err != nil {
		return nil, err
	}
	rest := make([]byte, binary.LittleEndian.Uint32(head[4:])-8)
	if _, err := io.ReadFull(v, rest); err != nil {
		return nil, err
	}
	if string(head[:3]) == "ERR" {
		return nil, ua.StatusCode(binary.LittleEndian.Uint32(rest))
	}
	return rest, nil
}

// open opens a channel.
func (v *visitor) open() error {
	const url, policy = "opc.tcp://soak", ua.SecurityPolicyURINone
	if err := v.send("HELF", words(0, 65536, 65536, 0, 0, uint32(len(url))), []byte(url)); err != nil {
		return err
	}
	if _, err := v.receive(); err != nil {
		return err
	}
	body, err := wire.AppendMessage(nil, &ua.OpenSecureChannelRequest{
		RequestHeader: &ua.RequestHeader{AuthenticationToken: ua.NewTwoByteNodeID(0), AdditionalHeader: ua.NewExtensionObject(nil)},
		SecurityMode:  ua.MessageSecurityModeNone, RequestedLifetime: 3_600_000,
	})
	if err != nil {
		return err
	}
	v.sequence = 1
	if err := v.send("OPNF", words(0, uint32(len(policy))), []byte(policy), words(0xffffffff, 0xffffffff, 1, 1), body); err != nil {
		return err
	}
	rest, err := v.receive()
	if err != nil {
		return err
	}
	var resp ua.OpenSecureChannelResponse
	if err := wire.Decode(rest[4+4+len(policy)+8+8+4:], &resp, wire.DefaultLimits); err != nil {
		return err
	}
	v.channelID, v.tokenID = resp.SecurityToken.ChannelID, resp.SecurityToken.TokenID
	return nil
}

// post sends a request and waits for nothing.
func (v *visitor) post(kind string, req ua.Request) error {
	req.SetHeader(&ua.RequestHeader{AuthenticationToken: v.auth, AdditionalHeader: ua.NewExtensionObject(nil)})
	body, err := wire.AppendMessage(nil, req)
	if err != nil {
		return err
	}
	v.sequence++
	return v.send(kind, words(v.channelID, v.tokenID, v.sequence, v.sequence), body)
}

// call sends a request and decodes its response.
func (v *visitor) call(req ua.Request, resp ua.Response) error {
	if err := v.post("MSGF", req); err != nil {
		return err
	}
	rest, err := v.receive()
	if err != nil {
		return err
	}
	if binary.LittleEndian.Uint16(rest[16+2:]) == id.ServiceFault_Encoding_DefaultBinary {
		resp = &ua.ServiceFault{}
	}
	if err := wire.Decode(rest[16+4:], resp, wire.DefaultLimits); err != nil {
		return fmt.Errorf("%T: %w", resp, err)
	}
	if status := resp.Header().ServiceResult; status != ua.StatusOK {
		return fmt.Errorf("%T: %w", resp, status)
	}
	return nil
}

// enter makes a session, and activates it unless it is to be left half made.
func (v *visitor) enter(activate bool) error {
	v.auth = ua.NewTwoByteNodeID(0)
	var created ua.CreateSessionResponse
	err := v.call(&ua.CreateSessionRequest{ClientDescription: &ua.ApplicationDescription{ApplicationName: &ua.LocalizedText{}}}, &created)
	if err != nil {
		return err
	}
	v.auth = created.AuthenticationToken
	if !activate {
		return nil
	}
	return v.call(&ua.ActivateSessionRequest{ClientSignature: &ua.SignatureData{}, UserTokenSignature: &ua.SignatureData{}, UserIdentityToken: ua.NewExtensionObject(nil)},
		&ua.ActivateSessionResponse{})
}

// watch makes a subscription, whose lifetime is about that long, with an item, a Publish request that waits, and a place where a Browse stopped.
func (v *visitor) watch() error {
	var sub ua.CreateSubscriptionResponse
	if err := v.call(&ua.CreateSubscriptionRequest{RequestedPublishingInterval: 10, RequestedMaxKeepAliveCount: 50}, &sub); err != nil {
		return err
	}
	items := &ua.CreateMonitoredItemsRequest{SubscriptionID: sub.SubscriptionID}
	for _, k := range []*ua.NodeID{levelKey.NodeID(), clockKey.NodeID()} {
		items.ItemsToCreate = append(items.ItemsToCreate, &ua.MonitoredItemCreateRequest{
			ItemToMonitor:       &ua.ReadValueID{NodeID: k, AttributeID: ua.AttributeIDValue, DataEncoding: &ua.QualifiedName{}},
			MonitoringMode:      ua.MonitoringModeReporting,
			RequestedParameters: &ua.MonitoringParameters{QueueSize: 10, Filter: ua.NewExtensionObject(nil)},
		})
	}
	if err := v.call(items, &ua.CreateMonitoredItemsResponse{}); err != nil {
		return err
	}
	browse := &ua.BrowseRequest{View: &ua.ViewDescription{ViewID: ua.NewTwoByteNodeID(0)}, RequestedMaxReferencesPerNode: 2, NodesToBrowse: []*ua.BrowseDescription{folder()}}
	if err := v.call(browse, &ua.BrowseResponse{}); err != nil {
		return err
	}
	return v.post("MSGF", &ua.PublishRequest{})
}

// The ways to leave.
var departures = []struct {
	name string
	stay bool // the connection is left open
	do   func(v *visitor) error
}{
	{"never a word", true, nil},
	{"proper", false, func(v *visitor) error {
		return errors.Join(v.enter(true), v.call(&ua.CloseSessionRequest{DeleteSubscriptions: true}, &ua.CloseSessionResponse{}), v.post("CLOF", &ua.CloseSecureChannelRequest{}))
	}},
	{"channel only", false, func(v *visitor) error {
		return errors.Join(v.enter(true), v.watch(), v.post("CLOF", &ua.CloseSecureChannelRequest{}))
	}},
	{"session without its subscriptions", false, func(v *visitor) error {
		return errors.Join(v.enter(true), v.watch(), v.post("MSGF", &ua.CloseSessionRequest{}))
	}},
	{"end of stream", false, func(v *visitor) error { return errors.Join(v.enter(true), v.watch()) }},
	{"reset", false, func(v *visitor) error {
		return errors.Join(v.enter(true), v.watch(), v.Conn.(*net.TCPConn).SetLinger(0))
	}},
	{"half a session", false, func(v *visitor) error { return v.enter(false) }},
	{"abandoned session", true, func(v *visitor) error { return errors.Join(v.enter(true), v.watch()) }},
	{"abandoned channel", true, func(*visitor) error { return nil }},
	{"half a message", true, func(v *visitor) error { return v.send("MSGF", words(v.channelID, v.tokenID)) }},
}

// TestSoak has clients come and go in all the ways that there are, and then, after the time-outs, wants everything to be as it was.
func TestSoak(t *testing.T) {
	s := serve(t, func(c *Config) {
		c.Limits.MinSessionTimeout, c.Limits.MaxSessionTimeout, c.Limits.DefaultSessionTimeout = soakTimeout, soakTimeout, soakTimeout
		c.Limits.MaxSessionsPerClient, c.Limits.MaxDetachedPerClient = 50_000, 500
		c.Limits.MaxSessions, c.Limits.MaxSubscriptions = 50_000, 50_000
		c.ChannelLimits.MaxConnections, c.ChannelLimits.MaxConnectionsPerHost = 5000, 5000
		c.ChannelLimits.HandshakeTimeout, c.ChannelLimits.MessageTimeout, c.ChannelLimits.IdleTimeout = soakTimeout, soakTimeout, soakTimeout+200*time.Millisecond
	})
	visits(t, s, 200) // Pools and tables have their size then.
	rest(t, s)
	heap, goroutines, files := inUse(), runtime.NumGoroutine(), openFiles()
	visits(t, s, *soakVisits)
	rest(t, s)
	eventually(t, "goroutines to be as few as before", func() bool { return runtime.NumGoroutine() <= goroutines })
	eventually(t, "open files to be as few as before", func() bool { return openFiles() <= files })
	if now := inUse(); now > heap+soakHeap {
		t.Errorf("%d bytes of heap after %d visits, %d before", now, *soakVisits, heap)
	}
}

// visits has n clients visit, several at a time. Connections that are left open are closed after the server has.
func visits(t *testing.T, s *served, n int) {
	t.Helper()
	var visitors sync.WaitGroup
	next := make(chan int)
	var slow atomic.Int64
	for range 4 {
		visitors.Go(func() {
			var left []net.Conn
			for i := range next {
				d := departures[i%len(departures)]
				conn, err := visit(s.url, d.do)
				if slices.ContainsFunc(turnedOut, func(s ua.StatusCode) bool { return errors.Is(err, s) }) {
					slow.Add(1)
				} else if err != nil {
					t.Errorf("%s: %v", d.name, err)
				}
				if conn == nil {
					continue
				}
				if !d.stay {
					conn.Close()
				} else if left = append(left, conn); len(left) > 20 {
					left[0].Close() // Too many would use up what the test may open.
					left = left[1:]
				}
			}
			for _, conn := range left {
				_ = conn.SetReadDeadline(time.Now().Add(10 * time.Second))
				if _, err := io.Copy(io.Discard, conn); errors.Is(err, os.ErrDeadlineExceeded) {
					t.Error("a silent connection is still open")
				}
				conn.Close()
			}
		})
	}
	for i := range n {
		next <- i
	}
	close(next)
	visitors.Wait()
	if turned := int(slow.Load()); turned > n/4 {
		t.Errorf("%d of %d visitors were turned out", turned, n)
	}
}

func visit(url string, do func(v *visitor) error) (net.Conn, error) {
	conn, err := net.Dial("tcp", strings.TrimPrefix(url, "opc.tcp://"))
	if err != nil {
		return nil, err
	}
	_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
	if do == nil {
		return conn, nil
	}
	v := &visitor{Conn: conn}
	if err := v.open(); err != nil {
		return conn, err
	}
	return conn, do(v)
}

// rest waits until the server has nothing more of its clients.
func rest(t *testing.T, s *served) {
	t.Helper()
	e, sessions := s.services.engine, s.services.sessions
	eventually(t, "sessions, subscriptions and items to time out", func() bool { return s.Stats() == Stats{} })
	eventually(t, "all counts to be zero", func() bool {
		e.hub.mu.Lock()
		e.registry.mu.Lock()
		sessions.mu.Lock()
		defer e.hub.mu.Unlock()
		defer e.registry.mu.Unlock()
		defer sessions.mu.Unlock()
		return e.queued.Load() == 0 && e.links.Load() == 0 && e.eventItems.Load() == 0 && len(e.hub.watches) == 0 && e.hub.rate == 0 &&
			len(e.registry.subs) == 0 && len(e.registry.detached) == 0 &&
			len(sessions.byToken) == 0 && len(sessions.byChannel) == 0 && len(sessions.perClient) == 0
	})
}

// inUse is the heap that is reachable.
func inUse() int {
	var m runtime.MemStats
	for range 3 { // What pools hold goes with the second.
		runtime.GC()
	}
	runtime.ReadMemStats(&m)
	return int(m.HeapAlloc)
}

// openFiles counts file descriptors, where the system shows them; elsewhere it is always 0.
func openFiles() int {
	list, _ := os.ReadDir("/proc/self/fd")
	return len(list)
}
