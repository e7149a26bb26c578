package interop

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gopcua/opcua"
	"github.com/gopcua/opcua/id"
	"github.com/gopcua/opcua/ua"
)

// gopcuaURI is the ApplicationUri of gopcua's client in these tests.
const gopcuaURI = "urn:quorate:interop:gopcua"

// gopcuaDial connects as an anonymous user.
func gopcuaDial(ctx context.Context, t *testing.T, endpoint string, options ...opcua.Option) *opcua.Client {
	t.Helper()
	c, err := opcua.NewClient(endpoint, append([]opcua.Option{opcua.AutoReconnect(false), opcua.ApplicationURI(gopcuaURI)}, options...)...)
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Connect(ctx); err != nil {
		t.Fatal(err)
	}
	return c
}

// gopcuaConnect connects until the test ends.
func gopcuaConnect(ctx context.Context, t *testing.T, endpoint string, options ...opcua.Option) *opcua.Client {
	t.Helper()
	c := gopcuaDial(ctx, t, endpoint, options...)
	t.Cleanup(func() {
		closing, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		if err := c.Close(closing); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return c
}

// gopcuaMatrix connects in every way that the server offers, reads, and waits for the first value of a subscription.
func gopcuaMatrix(t *testing.T, table *compatibility, endpoint string, application identity) {
	ctx, cancel := context.WithTimeout(t.Context(), scenarioLimit)
	defer cancel()
	endpoints, err := opcua.GetEndpoints(ctx, endpoint)
	if err != nil {
		t.Fatal(err)
	}
	var offered []security
	for _, e := range endpoints {
		s := securityOf(e)
		offered = append(offered, s)
		t.Run(s.Policy+"/"+s.Mode, func(t *testing.T) {
			c := gopcuaConnect(ctx, t, endpoint,
				opcua.PrivateKey(application.key), opcua.Certificate(application.der), opcua.SecurityFromEndpoint(e, ua.UserTokenTypeAnonymous))
			if got := readValue(ctx, t, c, id.Server_ServiceLevel); got != byte(255) {
				t.Errorf("ServiceLevel is %v, want 255", got)
			}
			f := newFlow(ctx, t, c)
			f.monitor(ctx, t, id.Server_ServiceLevel, nil)
			if got := f.next(ctx, t); got[0].Value.Value.Value() != byte(255) {
				t.Errorf("ServiceLevel is notified as %v, want 255", got[0].Value.Value.Value())
			}
			table.connected(gopcua, s)
		})
	}
	wantOffered(t, offered)
	if !slices.ContainsFunc(endpoints, func(e *ua.EndpointDescription) bool { return strings.TrimSuffix(e.EndpointURL, "/") != endpoint }) && !t.Failed() {
		table.ran(gopcua, step{"Discovery", "GetEndpoints", "every policy and mode, at the address that the client used"})
	}
}

func securityOf(e *ua.EndpointDescription) security {
	return security{Mode: strings.TrimPrefix(e.SecurityMode.String(), "MessageSecurityMode"), Policy: e.SecurityPolicyURI[strings.LastIndex(e.SecurityPolicyURI, "#")+1:]}
}

func readValue(ctx context.Context, t *testing.T, c *opcua.Client, node uint32) any {
	t.Helper()
	v, err := c.Node(ua.NewNumericNodeID(0, node)).Value(ctx)
	if err != nil {
		t.Fatal(err)
	}
	return v.Value()
}

// flow is a subscription of gopcua's own, with its notifications.
type flow struct {
	*opcua.Subscription
	notes chan *opcua.PublishNotificationData
}

const flowInterval = 50 * time.Millisecond

func newFlow(ctx context.Context, t *testing.T, c *opcua.Client) *flow {
	t.Helper()
	f := &flow{notes: make(chan *opcua.PublishNotificationData, 100)}
	var err error
	if f.Subscription, err = c.Subscribe(ctx, &opcua.SubscriptionParameters{Interval: flowInterval}, f.notes); err != nil {
		t.Fatal(err)
	}
	return f
}

// monitor adds an item, whose handle is its node's number, unless change makes it another.
func (f *flow) monitor(ctx context.Context, t *testing.T, node uint32, change func(*ua.MonitoredItemCreateRequest)) uint32 {
	t.Helper()
	r := opcua.NewMonitoredItemCreateRequestWithDefaults(ua.NewNumericNodeID(0, node), ua.AttributeIDValue, node)
	if change != nil {
		change(r)
	}
	resp, err := f.Monitor(ctx, ua.TimestampsToReturnBoth, r)
	if err != nil {
		t.Fatal(err)
	}
	if got := resp.Results[0].StatusCode; got != ua.StatusOK {
		t.Fatalf("the item was not created: %v", got)
	}
	return resp.Results[0].MonitoredItemID
}

// next waits for the next notification of values.
func (f *flow) next(ctx context.Context, t *testing.T) []*ua.MonitoredItemNotification {
	t.Helper()
	for {
		select {
		case n := <-f.notes:
			if n.Error != nil {
				t.Fatal(n.Error)
			}
			if change, ok := n.Value.(*ua.DataChangeNotification); ok && len(change.MonitoredItems) > 0 {
				return change.MonitoredItems
			}
		case <-ctx.Done():
			t.Fatal("no notification came")
		}
	}
}

func (f *flow) end(ctx context.Context, t *testing.T) {
	t.Helper()
	if err := f.Cancel(ctx); err != nil {
		t.Error(err)
	}
}

// call sends a request for which gopcua has no method.
func call[R ua.Response](ctx context.Context, c *opcua.Client, req ua.Request) (R, error) {
	var resp R
	err := c.Send(ctx, req, func(r ua.Response) error {
		var ok bool
		if resp, ok = r.(R); !ok {
			return fmt.Errorf("got %T", r)
		}
		return nil
	})
	return resp, err
}

func mustCall[R ua.Response](ctx context.Context, t *testing.T, c *opcua.Client, req ua.Request) R {
	t.Helper()
	resp, err := call[R](ctx, c, req)
	if err != nil {
		t.Fatalf("%T: %v", req, err)
	}
	return resp
}

func wantFault(ctx context.Context, t *testing.T, c *opcua.Client, want ua.StatusCode, req ua.Request) {
	t.Helper()
	if _, err := call[ua.Response](ctx, c, req); !errors.Is(err, want) {
		t.Errorf("%T is answered with %v, want %v", req, err, want)
	}
}

func wantStatus(t *testing.T, got []ua.StatusCode, want ...ua.StatusCode) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Errorf("the results are %v, want %v", got, want)
	}
}

// cable stands between a client and a server until somebody cuts it. It hears with which status the server ends a connection: a
// client that others wrote may drop it.
type cable struct {
	net.Listener
	mu    sync.Mutex
	conns []net.Conn
	last  ua.StatusCode
	opens int
}

func newCable(t *testing.T, server string) *cable {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	c := &cable{Listener: l}
	var running sync.WaitGroup
	running.Go(func() {
		for {
			near, err := l.Accept()
			if err != nil {
				return
			}
			far, err := net.Dial("tcp", server)
			if err != nil {
				near.Close()
				return
			}
			c.mu.Lock()
			c.conns = append(c.conns, near, far)
			c.mu.Unlock()
			// How a copy ends is of no interest: one end or the other is gone, or it is cut.
			running.Go(func() { _, _ = io.Copy(io.MultiWriter(&ear{cable: c}, near), far); near.Close() })
			running.Go(func() { _, _ = io.Copy(far, near); far.Close() })
		}
	})
	t.Cleanup(func() {
		c.cut()
		running.Wait()
	})
	return c
}

func (c *cable) url() string { return "opc.tcp://" + c.Addr().String() }

// ended is the status of the last error message (Part 6 §7.1.2.5) that the server sent.
func (c *cable) ended() ua.StatusCode {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.last
}

// opened is how often the server answered that a channel is open, or its token renewed.
func (c *cable) opened() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.opens
}

// ear hears one connection.
type ear struct {
	cable *cable
	rest  []byte // of a message that is not complete
}

func (e *ear) Write(heard []byte) (int, error) {
	const header = 8
	e.rest = append(e.rest, heard...)
	for len(e.rest) >= header {
		size := int(binary.LittleEndian.Uint32(e.rest[4:]))
		if size < header {
			return 0, fmt.Errorf("a message of %d bytes", size)
		}
		if len(e.rest) < size {
			break
		}
		e.cable.mu.Lock()
		switch kind := string(e.rest[:3]); {
		case kind == "OPN":
			e.cable.opens++
		case kind == "ERR" && size >= header+4:
			e.cable.last = ua.StatusCode(binary.LittleEndian.Uint32(e.rest[header:]))
		}
		e.cable.mu.Unlock()
		e.rest = e.rest[size:]
	}
	return len(heard), nil
}

// cut ends all connections at once, and lets no new one through.
func (c *cable) cut() {
	c.Close()
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, conn := range c.conns {
		conn.Close()
	}
}
