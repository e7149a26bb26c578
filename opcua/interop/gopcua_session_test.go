package interop

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/gopcua/opcua"
	"github.com/gopcua/opcua/id"
	"github.com/gopcua/opcua/ua"
)

// gopcuaRenew reads through several renewals of the channel's token, which are counted on the way.
func gopcuaRenew(t *testing.T, table *compatibility, endpoint string, s security, application identity) {
	ctx, cancel := context.WithTimeout(t.Context(), scenarioLimit)
	defer cancel()
	endpoints, err := opcua.GetEndpoints(ctx, endpoint)
	if err != nil {
		t.Fatal(err)
	}
	options := []opcua.Option{opcua.Lifetime(tokenLife)}
	if s.Policy != "None" {
		options = append(options, opcua.PrivateKey(application.key), opcua.Certificate(application.der))
	}
	for _, e := range endpoints {
		if securityOf(e) == s {
			options = append(options, opcua.SecurityFromEndpoint(e, ua.UserTokenTypeAnonymous))
		}
	}
	way := newCable(t, strings.TrimPrefix(endpoint, "opc.tcp://"))
	c := gopcuaConnect(ctx, t, way.url(), options...)
	pause := time.NewTicker(20 * time.Millisecond)
	defer pause.Stop()
	for end := time.Now().Add(renewFor); time.Now().Before(end); <-pause.C {
		if got := readValue(ctx, t, c, id.Server_ServerStatus_State); got != int32(ua.ServerStateRunning) {
			t.Fatalf("State is %v", got)
		}
	}
	if got, want := way.opened()-1, int(renewFor/tokenLife)-1; got < want {
		t.Errorf("the token was renewed %d times, want %d or more", got, want)
	}
	if !t.Failed() {
		table.ran(gopcua, step{"SecureChannel", "OpenSecureChannel", "reads go on through renewals of the token, " + s.Mode})
	}
}

// gopcuaSessions are the services on sessions. Each step has a client of its own.
var gopcuaSessions = []gopcuaStep{
	{step{"Session", "CloseSession", "and nothing after it"}, func(ctx context.Context, t *testing.T, c *opcua.Client) {
		mustCall[*ua.CloseSessionResponse](ctx, t, c, &ua.CloseSessionRequest{DeleteSubscriptions: true})
		_, err := c.Read(ctx, &ua.ReadRequest{NodesToRead: []*ua.ReadValueID{valueOf(id.Server_ServiceLevel)}})
		if !errors.Is(err, ua.StatusBadSessionIDInvalid) && !errors.Is(err, ua.StatusBadSessionClosed) {
			t.Errorf("a read is answered with %v", err)
		}
	}},
	{step{"Session", "Cancel", "a parked Publish request"}, func(ctx context.Context, t *testing.T, c *opcua.Client) {
		created := mustCall[*ua.CreateSubscriptionResponse](ctx, t, c, &ua.CreateSubscriptionRequest{
			RequestedPublishingInterval: 60_000, RequestedLifetimeCount: 600, RequestedMaxKeepAliveCount: 100, PublishingEnabled: true,
		})
		// gopcua numbers its requests one after the other, and the first Publish of a subscription is answered when its first cycle ends.
		handle := created.ResponseHeader.RequestHandle + 1
		ended := make(chan error, 1)
		go func() {
			_, err := call[*ua.PublishResponse](ctx, c, &ua.PublishRequest{})
			ended <- err
		}()
		again := time.NewTicker(10 * time.Millisecond)
		defer again.Stop()
		for cancelled := uint32(0); cancelled == 0; <-again.C {
			// One that came before the Publish request has cancelled nothing, and has taken its number.
			r := mustCall[*ua.CancelResponse](ctx, t, c, &ua.CancelRequest{RequestHandle: handle})
			if cancelled = r.CancelCount; cancelled == 0 && r.ResponseHeader.RequestHandle == handle {
				handle++
			}
		}
		if err := <-ended; !errors.Is(err, ua.StatusBadRequestCancelledByClient) && !errors.Is(err, ua.StatusBadRequestCancelledByRequest) {
			t.Errorf("the Publish request ended with %v", err)
		}
	}},
}

// gopcuaResume takes a session from a channel that is cut to another one.
func gopcuaResume(ctx context.Context, t *testing.T, table *compatibility, endpoint string) {
	way := newCable(t, strings.TrimPrefix(endpoint, "opc.tcp://"))
	lost := gopcuaDial(ctx, t, way.url())
	sub, _ := published(ctx, t, lost)
	session, err := lost.DetachSession(ctx)
	if err != nil {
		t.Fatal(err)
	}
	way.cut()
	// What a client that is cut off can still tell is of no interest.
	_ = lost.Close(ctx)
	next, err := opcua.NewClient(endpoint, opcua.AutoReconnect(false), opcua.ApplicationURI(gopcuaURI))
	if err != nil {
		t.Fatal(err)
	}
	defer next.Close(ctx)
	if err := next.Dial(ctx); err != nil {
		t.Fatal(err)
	}
	if err := next.ActivateSession(ctx, session); err != nil {
		t.Fatal(err)
	}
	// It is the same session: it has the subscription.
	r := mustCall[*ua.DeleteSubscriptionsResponse](ctx, t, next, &ua.DeleteSubscriptionsRequest{SubscriptionIDs: []uint32{sub}})
	wantStatus(t, r.Results, ua.StatusOK)
	table.ran(gopcua, step{"Session", "ActivateSession", "on another channel after a broken connection"})
}

// gopcuaTransfer breaks a client's connection and hands its subscription to another's session.
func gopcuaTransfer(ctx context.Context, t *testing.T, table *compatibility, endpoint string, c *opcua.Client) {
	cable := newCable(t, strings.TrimPrefix(endpoint, "opc.tcp://"))
	lost := gopcuaDial(ctx, t, "opc.tcp://"+cable.Addr().String())
	sub, message := published(ctx, t, lost)
	cable.cut()
	r := mustCall[*ua.TransferSubscriptionsResponse](ctx, t, c, &ua.TransferSubscriptionsRequest{SubscriptionIDs: []uint32{sub}, SendInitialValues: true})
	if got := r.Results[0]; got.StatusCode != ua.StatusOK || !slices.Equal(got.AvailableSequenceNumbers, []uint32{message.SequenceNumber}) {
		t.Fatalf("%v with messages %v, want message %d", got.StatusCode, got.AvailableSequenceNumbers, message.SequenceNumber)
	}
	initial := mustCall[*ua.PublishResponse](ctx, t, c, &ua.PublishRequest{})
	if initial.SubscriptionID != sub || len(initial.NotificationMessage.NotificationData) == 0 {
		t.Errorf("the initial values did not come: %+v", initial)
	}
	// What the session of a client that is cut off can still tell is of no interest.
	_ = lost.Close(ctx)
	table.ran(gopcua, step{"Subscription", "TransferSubscriptions", "after a broken connection, to another session"})
}
