package session

import (
	"context"
	"errors"
	"net"
	"testing"
	"time"

	"github.com/gopcua/opcua/id"
	"github.com/gopcua/opcua/ua"

	"quorate/opcua/channel"
	"quorate/opcua/server"
	"quorate/opcua/space"
)

// serve starts a server of ours that has ServiceLevel, and returns it with its URL.
func serve(t *testing.T) (*server.Server, string) {
	t.Helper()
	table := space.NewTable()
	level, err := space.Constant(byte(255))
	if err != nil {
		t.Fatal(err)
	}
	if err := table.Edit(func(e *space.Edit) error {
		e.Put(&space.Node{
			Key: space.NumericKey(0, id.Server_ServiceLevel), Class: ua.NodeClassVariable, BrowseName: ua.QualifiedName{Name: "ServiceLevel"},
			DisplayName: space.Text("ServiceLevel"), DataType: space.NumericKey(0, id.Byte), TypeDefinition: space.NumericKey(0, id.BaseDataVariableType),
			ValueRank: space.RankScalar, AccessLevel: space.AccessCurrentRead, Value: level,
		})
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	nodes, err := space.New([]string{space.NamespaceUA, "urn:test"}, table)
	if err != nil {
		t.Fatal(err)
	}
	s, err := server.New(server.Config{
		ApplicationURI: "urn:test", Space: nodes, Discovery: func() []*ua.ApplicationDescription { return nil },
		Offers: []channel.SecurityOffer{{PolicyURI: ua.SecurityPolicyURINone, Mode: ua.MessageSecurityModeNone}},
	})
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- s.Serve(l) }()
	t.Cleanup(func() {
		if err := errors.Join(s.Shutdown(context.Background()), <-served); err != nil {
			t.Error(err)
		}
	})
	return s, "opc.tcp://" + l.Addr().String()
}

// going is a context that ends just after the first who asks has found that it has not ended yet.
type going struct {
	context.Context
	asked bool
}

func (g *going) Err() error {
	if !g.asked {
		g.asked = true
		return nil
	}
	return g.Context.Err()
}

// TestACallerThatGoesLeavesTheChannelWhole: a request that was numbered and not sent would make the server hang up at the next one, which is
// mostly CloseSession, and what the session has would stay there until it times out.
func TestACallerThatGoesLeavesTheChannelWhole(t *testing.T) {
	at, url := serve(t)
	s, err := Open(t.Context(), url, Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	created, err := Call[*ua.CreateSubscriptionResponse](t.Context(), s, &ua.CreateSubscriptionRequest{
		RequestedPublishingInterval: 1000, RequestedLifetimeCount: 1000, RequestedMaxKeepAliveCount: 100, PublishingEnabled: true,
	})
	if err != nil {
		t.Fatal(err)
	}
	level := ua.NewNumericNodeID(0, id.Server_ServiceLevel)
	made, err := Call[*ua.CreateMonitoredItemsResponse](t.Context(), s, &ua.CreateMonitoredItemsRequest{
		SubscriptionID: created.SubscriptionID,
		ItemsToCreate: []*ua.MonitoredItemCreateRequest{{
			ItemToMonitor:  &ua.ReadValueID{NodeID: level, AttributeID: ua.AttributeIDValue, DataEncoding: &ua.QualifiedName{}},
			MonitoringMode: ua.MonitoringModeReporting, RequestedParameters: &ua.MonitoringParameters{QueueSize: 1},
		}},
	})
	if err != nil || made.Results[0].StatusCode != ua.StatusOK {
		t.Fatal(made, err)
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	for _, gone := range []func() context.Context{
		func() context.Context { return ended },
		func() context.Context { return &going{Context: ended} },
	} {
		for range 20 { // One that goes may find an answer all the same.
			_, _ = Call[*ua.PublishResponse](gone(), s, &ua.PublishRequest{})
			_, _ = s.Read(gone(), level)
		}
		if values, err := s.Read(t.Context(), level); err != nil || values[0].Status != ua.StatusOK {
			t.Fatalf("the next request: %v, %v", values, err)
		}
	}
	if had := at.Stats().MonitoredItems; had != 1 {
		t.Fatalf("%d items, want 1", had)
	}
	s.Close() // It has its answer when it returns, or has waited CloseTimeout for it.
	look := time.NewTicker(time.Millisecond)
	defer look.Stop()
	limit := time.After(time.Second) // Far less than the session's time-out and the subscription's lifetime.
	for at.Stats().MonitoredItems != 0 {
		select {
		case <-look.C:
		case <-limit:
			t.Fatalf("after the session was closed, the server has %d items", at.Stats().MonitoredItems)
		}
	}
}

func TestRequestsUnderWayAreBounded(t *testing.T) {
	s := newSession(nil, "")
	silent := make(chan struct{})
	started := make(chan struct{}, MaxRequests)
	for range MaxRequests {
		ctx, cancel := context.WithCancel(t.Context())
		go func() { <-started; cancel() }()
		if _, err := whole(ctx, s, func(context.Context) (int, error) { started <- struct{}{}; <-silent; return 0, nil }); !errors.Is(err, context.Canceled) {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if _, err := whole(ctx, s, func(context.Context) (int, error) { t.Error("one more was sent"); return 0, nil }); !errors.Is(err, context.DeadlineExceeded) {
		t.Error(err)
	}
	close(silent)
	if got, err := whole(t.Context(), s, func(context.Context) (int, error) { return 7, nil }); got != 7 || err != nil {
		t.Error(got, err)
	}
	if _, err := whole(t.Context(), s, func(context.Context) (int, error) { panic("nil pointer") }); err == nil || err.Error() != "the client panicked: nil pointer" {
		t.Error(err)
	}
}
