package main

import (
	"context"
	"crypto/rsa"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/gopcua/opcua/errors"
	"github.com/gopcua/opcua/id"
	"github.com/gopcua/opcua/ua"

	"quorate/opcua/session"
	"quorate/pki"
)

// limitedMember runs one member in this process with settings of the test, until the test ends.
func limitedMember(ctx context.Context, t *testing.T, set ...string) *settings {
	t.Helper()
	base, err := freePorts()
	if err != nil {
		t.Fatal(err)
	}
	plan, err := planDev(&devFlags{members: 1, basePort: base, data: t.TempDir(), set: set})
	if err != nil {
		t.Fatal(err)
	}
	s := plan.members[0].settings
	m, err := openMember(s, newLogger(s, io.Discard))
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(ctx)
	ended := make(chan error, 1)
	go func() { ended <- m.runUntil(ctx) }()
	t.Cleanup(func() {
		http.DefaultClient.CloseIdleConnections()
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	return s
}

// applicationOf makes a client application of that name.
func applicationOf(t *testing.T, name string) (certificate []byte, key *rsa.PrivateKey) {
	t.Helper()
	certificate, key, err := pki.EnsureApplicationCertificate(t.TempDir(), "urn:quorate:test:"+name, []string{"localhost"}, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	return certificate, key
}

// TestLimitsTakeEffect sets limits and meets each as a client does: published, revised or refused.
func TestLimitsTakeEffect(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	s := limitedMember(ctx, t, "opcua.limits.sessionsPerClient=2", "opcua.limits.operations=16", "opcua.limits.messageSize=65536",
		"opcua.limits.subscriptionsPerSession=1", "opcua.limits.minPublishingInterval=200ms", "opcua.limits.maxSessionTimeout=20s",
		"opcua.limits.queueSize=5", "opcua.limits.sessions=77", "opcua.limits.methodsPerCall=3", "opcua.limits.stringLength=2000")
	certificate, key := applicationOf(t, "one")
	open := func() (*session.Session, error) {
		return session.Open(ctx, s.OPCUA.EndpointURL, session.Options{Policy: session.Basic256Sha256, Certificate: certificate, Key: key})
	}
	c, err := open()
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	expect := func(what string, err error, want ua.StatusCode) {
		t.Helper()
		if !errors.Is(err, want) {
			t.Errorf("%s: %v, want %v", what, err, want)
		}
	}

	// What is published follows.
	published := map[uint32]uint32{
		id.Server_ServerCapabilities_OperationLimits_MaxNodesPerRead: 16, id.Server_ServerCapabilities_OperationLimits_MaxNodesPerBrowse: 16,
		id.Server_ServerCapabilities_OperationLimits_MaxNodesPerMethodCall: 3, id.Server_ServerCapabilities_MaxSessions: 77,
		id.Server_ServerCapabilities_MaxSubscriptionsPerSession: 1, id.Server_ServerCapabilities_MaxMonitoredItemsQueueSize: 5,
		id.Server_ServerCapabilities_MaxStringLength: 2000,
	}
	for node, want := range published {
		values, err := c.Read(ctx, ua.NewNumericNodeID(0, node))
		if err != nil {
			t.Fatal(err)
		}
		if got := values[0].Value.Value(); got != want {
			t.Errorf("i=%d is %v, want %d", node, got, want)
		}
	}

	// What a client asks for is revised or refused.
	level := ua.NewNumericNodeID(0, id.Server_ServiceLevel)
	if _, err := c.Read(ctx, slices.Repeat([]*ua.NodeID{level}, 16)...); err != nil {
		t.Errorf("16 nodes: %v", err)
	}
	_, err = c.Read(ctx, slices.Repeat([]*ua.NodeID{level}, 17)...)
	expect("17 nodes", err, ua.StatusBadTooManyOperations)
	sub, err := session.Call[*ua.CreateSubscriptionResponse](ctx, c, &ua.CreateSubscriptionRequest{RequestedPublishingInterval: 50})
	if err != nil {
		t.Fatal(err)
	}
	if sub.RevisedPublishingInterval != 200 {
		t.Errorf("publishing interval %v, want 200", sub.RevisedPublishingInterval)
	}
	_, err = session.Call[*ua.CreateSubscriptionResponse](ctx, c, &ua.CreateSubscriptionRequest{})
	expect("a second subscription", err, ua.StatusBadTooManySubscriptions)
	items, err := session.Call[*ua.CreateMonitoredItemsResponse](ctx, c, &ua.CreateMonitoredItemsRequest{
		SubscriptionID: sub.SubscriptionID, TimestampsToReturn: ua.TimestampsToReturnBoth,
		ItemsToCreate: []*ua.MonitoredItemCreateRequest{{
			ItemToMonitor:  &ua.ReadValueID{NodeID: level, AttributeID: ua.AttributeIDValue, DataEncoding: &ua.QualifiedName{}},
			MonitoringMode: ua.MonitoringModeReporting, RequestedParameters: &ua.MonitoringParameters{QueueSize: 50, Filter: ua.NewExtensionObject(nil)},
		}},
	})
	if err != nil {
		t.Fatal(err)
	}
	if got := items.Results[0].RevisedQueueSize; got != 5 {
		t.Errorf("queue size %d, want 5", got)
	}
	second, err := open()
	if err != nil {
		t.Fatal(err)
	}
	defer second.Close()
	_, err = open()
	expect("a third session", err, ua.StatusBadTooManySessions)
	_, err = second.Read(ctx, ua.NewStringNodeID(1, strings.Repeat("x", 2001)))
	expect("a string of 2001 bytes", err, ua.StatusBadEncodingLimitsExceeded)
	// 40 strings of 1900 bytes are more than a message may have, so that the connection ends.
	_, err = second.Read(ctx, slices.Repeat([]*ua.NodeID{ua.NewStringNodeID(1, strings.Repeat("x", 1900))}, 40)...)
	if err == nil {
		t.Error("a request of 76 KB was answered")
	}
	eventually(ctx, t, "the connection is counted", func() bool {
		now := scrapeMember(ctx, t, s)
		return now.values[`quorate_opcua_connections_rejected_total{reason="too_large"}`] == 1 &&
			now.values[`quorate_opcua_requests_total{result="limited",service="CreateSession"}`] == 1 && now.values[`quorate_opcua_limit{of="sessions"}`] == 77
	})
}
