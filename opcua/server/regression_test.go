package server

import (
	"context"
	"errors"
	"io"
	"math"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gopcua/opcua"
	"github.com/gopcua/opcua/ua"

	"quorate/opcua/channel"
)

// What kills or hangs other servers, on the wire. After each of these attacks another client has to be served as before.

// send sends a request as it is, and returns the status of its response.
func send(t testing.TB, c *opcua.Client, req ua.Request) ua.StatusCode {
	t.Helper()
	status := ua.StatusOK
	err := c.Send(t.Context(), req, func(resp ua.Response) error {
		status = resp.Header().ServiceResult
		return nil
	})
	if err != nil && !errors.As(err, &status) {
		t.Fatalf("%T: %v", req, err)
	}
	return status
}

func wantAlive(t *testing.T, s *served) {
	t.Helper()
	s.demo.set(77)
	v, err := s.connect(t).Node(levelKey.NodeID()).Value(t.Context())
	if err != nil || v.Int() != 77 {
		t.Fatalf("the server is not what it was: %v, %v", v, err)
	}
}

func TestRequestsWithoutSession(t *testing.T) {
	s := serve(t)
	c := s.client(t)
	if err := c.Dial(t.Context()); err != nil {
		t.Fatal(err)
	}
	defer c.Close(context.Background())
	for _, req := range inSessionRequests() {
		if got := send(t, c, req); got != ua.StatusBadSessionIDInvalid {
			t.Errorf("%T: %v", req, got)
		}
	}
	if s.demo.reads.Load() != 0 {
		t.Error("something was read")
	}
	wantAlive(t, s)
}

func TestPublishingIntervalZero(t *testing.T) {
	s := serve(t)
	c := s.connect(t)
	for _, interval := range []float64{0, -1, math.NaN(), math.Inf(1), math.Inf(-1), math.SmallestNonzeroFloat64} {
		if got := send(t, c, &ua.CreateSubscriptionRequest{RequestedPublishingInterval: interval}); got != ua.StatusOK {
			t.Errorf("%v: %v", interval, got)
		}
	}
	wantAlive(t, s)
}

func TestUnknownIDsOnTheWire(t *testing.T) {
	s := serve(t)
	c := s.connect(t)
	for req, want := range map[ua.Request]ua.StatusCode{
		&ua.DeleteMonitoredItemsRequest{SubscriptionID: 9, MonitoredItemIDs: []uint32{9}}:                        ua.StatusBadSubscriptionIDInvalid,
		&ua.SetMonitoringModeRequest{SubscriptionID: 9, MonitoredItemIDs: []uint32{9}}:                           ua.StatusBadSubscriptionIDInvalid,
		&ua.RepublishRequest{SubscriptionID: 9, RetransmitSequenceNumber: 9}:                                     ua.StatusBadSubscriptionIDInvalid,
		&ua.ModifySubscriptionRequest{SubscriptionID: 9}:                                                         ua.StatusBadSubscriptionIDInvalid,
		&ua.PublishRequest{SubscriptionAcknowledgements: []*ua.SubscriptionAcknowledgement{{SubscriptionID: 9}}}: ua.StatusBadNoSubscription,
		&ua.DeleteSubscriptionsRequest{SubscriptionIDs: []uint32{9}}:                                             ua.StatusOK,
		&ua.BrowseNextRequest{ContinuationPoints: [][]byte{nil, {1}, make([]byte, 8)}}:                           ua.StatusOK,
	} {
		if got := send(t, c, req); got != want {
			t.Errorf("%T: %v, want %v", req, got, want)
		}
	}
	wantAlive(t, s)
}

func TestWritesAreRefused(t *testing.T) {
	s := serve(t)
	s.demo.set(5)
	write := &ua.WriteRequest{NodesToWrite: []*ua.WriteValue{{NodeID: levelKey.NodeID(), AttributeID: ua.AttributeIDValue, Value: dataValue(int64(1))}}}
	err := s.connect(t).Send(t.Context(), write, func(resp ua.Response) error {
		if got := resp.(*ua.WriteResponse).Results[0]; got != ua.StatusBadNotWritable {
			t.Errorf("%v", got)
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
	if s.demo.level.Load() != 5 {
		t.Error("the value has changed")
	}
}

func TestCreateAndDeleteStormOnTheWire(t *testing.T) {
	s := serve(t)
	stop := make(chan struct{})
	var changer, clients sync.WaitGroup
	changer.Go(func() {
		for i := int64(0); ; i++ {
			select {
			case <-stop:
				return
			default:
				s.demo.set(i)
			}
		}
	})
	// Requests as they are: the client's own Subscription hangs itself when subscriptions come and go this fast.
	for range 4 {
		c := s.connect(t)
		clients.Go(func() {
			for range 25 {
				if err := comeAndGo(t.Context(), c); err != nil {
					t.Error(err)
				}
			}
		})
	}
	clients.Wait()
	close(stop)
	changer.Wait()
	if st := s.Stats(); st.Subscriptions != 0 || st.MonitoredItems != 0 {
		t.Errorf("left behind: %+v", st)
	}
	wantAlive(t, s)
}

// comeAndGo makes a subscription with items, publishes, and takes it all away again.
func comeAndGo(ctx context.Context, c *opcua.Client) error {
	var sub uint32
	err := c.Send(ctx, &ua.CreateSubscriptionRequest{RequestedPublishingInterval: 10, PublishingEnabled: true}, func(resp ua.Response) error {
		sub = resp.(*ua.CreateSubscriptionResponse).SubscriptionID
		return nil
	})
	if err != nil {
		return err
	}
	for range 4 {
		create := &ua.CreateMonitoredItemsRequest{SubscriptionID: sub, ItemsToCreate: []*ua.MonitoredItemCreateRequest{
			opcua.NewMonitoredItemCreateRequestWithDefaults(levelKey.NodeID(), ua.AttributeIDValue, 1),
			opcua.NewMonitoredItemCreateRequestWithDefaults(clockKey.NodeID(), ua.AttributeIDValue, 2),
		}}
		var items []uint32
		err := c.Send(ctx, create, func(resp ua.Response) error {
			for _, res := range resp.(*ua.CreateMonitoredItemsResponse).Results {
				items = append(items, res.MonitoredItemID)
			}
			return nil
		})
		if err != nil {
			return err
		}
		if err := c.Send(ctx, &ua.PublishRequest{}, func(ua.Response) error { return nil }); err != nil {
			return err
		}
		if err := c.Send(ctx, &ua.DeleteMonitoredItemsRequest{SubscriptionID: sub, MonitoredItemIDs: items[1:]}, func(ua.Response) error { return nil }); err != nil {
			return err
		}
	}
	return c.Send(ctx, &ua.DeleteSubscriptionsRequest{SubscriptionIDs: []uint32{sub}}, func(ua.Response) error { return nil })
}

// stallable is a TCP relay to a server. While it is stalled it takes what clients send, and nothing that the server sends.
type stallable struct {
	url     string
	stalled atomic.Bool
	wake    chan struct{}
}

func newStallable(t *testing.T, s *served) *stallable {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r := &stallable{url: "opc.tcp://" + l.Addr().String(), wake: make(chan struct{})}
	var relays sync.WaitGroup
	relays.Go(func() {
		for {
			client, err := l.Accept()
			if err != nil {
				return
			}
			server, err := net.Dial("tcp", strings.TrimPrefix(s.url, "opc.tcp://"))
			if err != nil {
				client.Close()
				return
			}
			relays.Go(func() {
				_, _ = io.Copy(server, client)
				server.Close()
			})
			relays.Go(func() {
				_, _ = io.Copy(client, stallingReader{server, r})
				client.Close()
			})
		}
	})
	t.Cleanup(func() {
		close(r.wake)
		l.Close()
		relays.Wait()
	})
	return r
}

type stallingReader struct {
	net.Conn
	relay *stallable
}

func (r stallingReader) Read(b []byte) (int, error) {
	if r.relay.stalled.Load() {
		<-r.relay.wake
	}
	return r.Conn.Read(b)
}

func TestStalledSubscriberOnTheWire(t *testing.T) {
	var slow atomic.Int64
	s := serve(t, func(c *Config) {
		c.ChannelLimits.MaxQueueBytes = 256 << 10
		c.ChannelLimits.WriteTimeout = time.Second
		c.ChannelEvents.Rejected = func(_ net.Addr, reason channel.RejectReason, _ ua.StatusCode) {
			if reason == channel.RejectSlow {
				slow.Add(1)
			}
		}
	})
	// It connects while nobody floods: gopcua's subscriptions sleep for ever if a goroutine that its Connect begins first runs after Subscribe.
	healthy := s.connect(t)
	relay := newStallable(t, s)
	stalled, err := opcua.NewClient(relay.url, opcua.AutoReconnect(false), opcua.RequestTimeout(time.Minute))
	if err != nil {
		t.Fatal(err)
	}
	if err := stalled.Connect(t.Context()); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var flood sync.WaitGroup
	t.Cleanup(func() {
		cancel()
		flood.Wait()
		closing, end := context.WithTimeout(context.Background(), time.Millisecond) // Nobody will answer.
		defer end()
		_ = stalled.Close(closing)
	})
	if _, err := stalled.Subscribe(ctx, &opcua.SubscriptionParameters{Interval: 10 * time.Millisecond}, make(chan *opcua.PublishNotificationData, 1000)); err != nil {
		t.Fatal(err)
	}
	relay.stalled.Store(true)
	// It goes on asking for more than the buffers on the way can hold, and reads no answer. No request is given up while it is sent:
	// gopcua would leave out a sequence number, for which the server closes the connection.
	for range 200 {
		flood.Go(func() {
			_, _ = stalled.Browse(ctx, &ua.BrowseRequest{NodesToBrowse: []*ua.BrowseDescription{folder(), folder(), folder()}})
		})
	}
	wantChanges(t, s, healthy, 300)
	eventually(t, "the stalled client to be disconnected", func() bool { return slow.Load() == 1 })
}
