package interop

import (
	"context"
	"crypto/rsa"
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

	"quorate/pki"
)

// gopcuaURI is the ApplicationUri of gopcua's client in these tests.
const gopcuaURI = "urn:quorate:interop:gopcua"

// gopcuaIdentity makes the client's application certificate.
func gopcuaIdentity(t *testing.T) (*rsa.PrivateKey, []byte) {
	t.Helper()
	der, key, err := pki.EnsureApplicationCertificate(t.TempDir(), gopcuaURI, []string{"localhost"}, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	return key, der
}

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
func gopcuaMatrix(t *testing.T, table *compatibility, endpoint string) {
	ctx, cancel := context.WithTimeout(t.Context(), scenarioLimit)
	defer cancel()
	endpoints, err := opcua.GetEndpoints(ctx, endpoint)
	if err != nil {
		t.Fatal(err)
	}
	key, certificate := gopcuaIdentity(t)
	var offered []security
	for _, e := range endpoints {
		s := security{Mode: strings.TrimPrefix(e.SecurityMode.String(), "MessageSecurityMode"), Policy: e.SecurityPolicyURI[strings.LastIndex(e.SecurityPolicyURI, "#")+1:]}
		offered = append(offered, s)
		t.Run(s.Policy+"/"+s.Mode, func(t *testing.T) {
			c := gopcuaConnect(ctx, t, endpoint,
				opcua.PrivateKey(key), opcua.Certificate(certificate), opcua.SecurityFromEndpoint(e, ua.UserTokenTypeAnonymous))
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

// cable stands between a client and a server until somebody cuts it.
type cable struct {
	net.Listener
	mu    sync.Mutex
	conns []net.Conn
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
			// How a copy ends is of no interest: it is cut.
			running.Go(func() { _, _ = io.Copy(near, far) })
			running.Go(func() { _, _ = io.Copy(far, near) })
		}
	})
	t.Cleanup(func() {
		c.cut()
		running.Wait()
	})
	return c
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
