package opcua

import (
	"context"
	"crypto/x509"
	"errors"
	"net/url"
	"testing"
	"time"

	gopcua "github.com/gopcua/opcua"
	"github.com/gopcua/opcua/id"
	"github.com/gopcua/opcua/ua"

	"quorate/redundancy"
)

// anonymous reads ServiceLevel as an application without a user.
func (s *guarded) anonymous(t *testing.T, app certificate, opts ...gopcua.Option) error {
	t.Helper()
	return s.connect(t, app, basic, encrypt, ua.UserTokenTypeAnonymous, opts...)
}

// TestOnlyMembersReadWithoutAUser has allowAnonymous off: who proves to be a server of the topology may read, and nobody else.
func TestOnlyMembersReadWithoutAUser(t *testing.T) {
	s := guard(t, func(c *Config) { c.AllowNone = true })
	m1, m2, m3, client := certificateOf(t, uriOf("m1")), certificateOf(t, uriOf("m2")), certificateOf(t, uriOf("m3")), certificateOf(t, "urn:demo:client")
	// Two names, one of which is a member's: an authority that is careless about the second one makes no member.
	both := variant(t, client, func(c *x509.Certificate) { c.URIs = append(c.URIs, &url.URL{Scheme: "urn", Opaque: "demo:m2"}) })
	self := gopcua.ApplicationURI("urn:demo:client")
	for _, c := range []certificate{m2, m3, client, both} {
		trust(t, s.applications, c)
	}
	if err := s.anonymous(t, m2); !errors.Is(err, ua.StatusBadIdentityTokenRejected) {
		t.Errorf("m2, before it is in the topology: %v", err)
	}
	s.group.publish("WARM", serverNamed("m1", redundancy.Primary), serverNamed("m2", redundancy.Backup))
	for name, x := range map[string]struct {
		app  certificate
		want error
	}{
		"a server of the topology": {m2, nil},
		"the member itself":        {m1, nil},
		"a trusted client":         {client, ua.StatusBadIdentityTokenRejected},
		"a member without a role":  {m3, ua.StatusBadIdentityTokenRejected},
		"one of two names":         {both, ua.StatusBadIdentityTokenRejected},
		// Whoever likes makes a certificate of a member's name.
		"a name without trust": {variant(t, client, func(c *x509.Certificate) { c.URIs = []*url.URL{{Scheme: "urn", Opaque: "demo:m2"}} }), ua.StatusBadSecurityChecksFailed},
	} {
		var opts []gopcua.Option
		if name == "one of two names" {
			opts = append(opts, self)
		}
		if err := s.anonymous(t, x.app, opts...); !errors.Is(err, x.want) {
			t.Errorf("%s: %v, want %v", name, err, x.want)
		}
	}
	if err := s.connect(t, m2, ua.SecurityPolicyURINone, ua.MessageSecurityModeNone, ua.UserTokenTypeAnonymous); !errors.Is(err, ua.StatusBadIdentityTokenRejected) {
		t.Errorf("m2, without security: %v", err)
	}

	// m2 is known until m1 has adopted the topology without it, and m3 from the first moment.
	s.group.adopt("m1", 1)
	s.group.publish("WARM", serverNamed("m1", redundancy.Primary), serverNamed("m3", redundancy.Backup))
	for name, app := range map[string]certificate{"m2": m2, "m3": m3} {
		if err := s.anonymous(t, app); err != nil {
			t.Errorf("%s, while the topology changes: %v", name, err)
		}
	}
	s.group.adopt("m1", 2)
	if err := s.anonymous(t, m2); !errors.Is(err, ua.StatusBadIdentityTokenRejected) {
		t.Errorf("m2, after it left: %v", err)
	}
}

// TestMembersReadAndDoNothingElse goes through the services with a member's certificate, and then as a user.
func TestMembersReadAndDoNothingElse(t *testing.T) {
	s := guard(t)
	m2 := certificateOf(t, uriOf("m2"))
	trust(t, s.applications, m2)
	s.group.publish("WARM", serverNamed("m1", redundancy.Primary), serverNamed("m2", redundancy.Backup))
	c, err := gopcua.NewClient(s.url, gopcua.AutoReconnect(false), gopcua.RequestTimeout(10*time.Second), gopcua.Certificate(m2.der), gopcua.PrivateKey(m2.key),
		gopcua.SecurityFromEndpoint(&ua.EndpointDescription{SecurityPolicyURI: basic, SecurityMode: encrypt, ServerCertificate: certificateOf(t, uriOf("m1")).der,
			UserIdentityTokens: []*ua.UserTokenPolicy{{PolicyID: "anonymous", TokenType: ua.UserTokenTypeAnonymous}}}, ua.UserTokenTypeAnonymous))
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Connect(within(t)); err != nil {
		t.Fatal(err)
	}
	defer c.Close(context.Background())
	level := ua.NewNumericNodeID(0, id.Server_ServiceLevel)
	for _, req := range []ua.Request{
		&ua.WriteRequest{NodesToWrite: []*ua.WriteValue{{NodeID: level, AttributeID: ua.AttributeIDValue, Value: &ua.DataValue{Value: ua.MustVariant(byte(1))}}}},
		&ua.CallRequest{MethodsToCall: []*ua.CallMethodRequest{{ObjectID: ua.NewNumericNodeID(0, id.Server), MethodID: ua.NewNumericNodeID(0, id.Server_ResendData)}}},
		&ua.BrowseRequest{View: &ua.ViewDescription{ViewID: ua.NewTwoByteNodeID(0)}, NodesToBrowse: []*ua.BrowseDescription{{NodeID: level, ReferenceTypeID: ua.NewTwoByteNodeID(0)}}},
		&ua.BrowseNextRequest{ContinuationPoints: [][]byte{{1}}},
		&ua.TranslateBrowsePathsToNodeIDsRequest{BrowsePaths: []*ua.BrowsePath{{StartingNode: level, RelativePath: &ua.RelativePath{}}}},
		&ua.HistoryReadRequest{HistoryReadDetails: ua.NewExtensionObject(nil), NodesToRead: []*ua.HistoryReadValueID{{NodeID: level, DataEncoding: &ua.QualifiedName{}}}},
		&ua.RegisterNodesRequest{NodesToRegister: []*ua.NodeID{level}},
		&ua.CreateSubscriptionRequest{RequestedPublishingInterval: 100},
		&ua.CreateMonitoredItemsRequest{SubscriptionID: 1},
		&ua.TransferSubscriptionsRequest{SubscriptionIDs: []uint32{1}},
		&ua.PublishRequest{},
	} {
		if err := c.Send(within(t), req, func(ua.Response) error { return nil }); !errors.Is(err, ua.StatusBadUserAccessDenied) {
			t.Errorf("%T: %v", req, err)
		}
	}
	if v, err := c.Node(level).Value(within(t)); err != nil || v == nil {
		t.Errorf("Read: %v, %v", v, err)
	}
}
