package server

import (
	"math"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gopcua/opcua/ua"

	"quorate/opcua/channel"
)

// inSessionRequests are one of each service that needs an activated session, and some that there are not.
func inSessionRequests() []ua.Request {
	null := ua.NewTwoByteNodeID(0)
	what := &ua.ReadValueID{NodeID: levelKey.NodeID(), AttributeID: ua.AttributeIDValue, DataEncoding: &ua.QualifiedName{}}
	params := &ua.MonitoringParameters{}
	return []ua.Request{
		&ua.ReadRequest{NodesToRead: []*ua.ReadValueID{what}},
		&ua.WriteRequest{NodesToWrite: []*ua.WriteValue{{NodeID: levelKey.NodeID(), AttributeID: ua.AttributeIDValue, Value: dataValue(int64(1))}}},
		&ua.BrowseRequest{View: &ua.ViewDescription{ViewID: null}, NodesToBrowse: []*ua.BrowseDescription{folder()}},
		&ua.BrowseNextRequest{ContinuationPoints: [][]byte{{1}}},
		&ua.TranslateBrowsePathsToNodeIDsRequest{BrowsePaths: []*ua.BrowsePath{{StartingNode: objectsKey.NodeID(), RelativePath: &ua.RelativePath{}}}},
		&ua.RegisterNodesRequest{NodesToRegister: []*ua.NodeID{levelKey.NodeID()}},
		&ua.UnregisterNodesRequest{NodesToUnregister: []*ua.NodeID{levelKey.NodeID()}},
		&ua.CreateSubscriptionRequest{},
		&ua.ModifySubscriptionRequest{},
		&ua.SetPublishingModeRequest{SubscriptionIDs: []uint32{1}},
		&ua.DeleteSubscriptionsRequest{SubscriptionIDs: []uint32{1}},
		&ua.CreateMonitoredItemsRequest{SubscriptionID: 1, ItemsToCreate: []*ua.MonitoredItemCreateRequest{{ItemToMonitor: what, RequestedParameters: params}}},
		&ua.CreateMonitoredItemsRequest{SubscriptionID: 1, ItemsToCreate: []*ua.MonitoredItemCreateRequest{{
			ItemToMonitor: &ua.ReadValueID{NodeID: serverObject.NodeID(), AttributeID: ua.AttributeIDEventNotifier, DataEncoding: &ua.QualifiedName{}},
			RequestedParameters: &ua.MonitoringParameters{Filter: ua.NewExtensionObject(&ua.EventFilter{SelectClauses: []*ua.SimpleAttributeOperand{field(0, "Message")},
				WhereClause: &ua.ContentFilter{Elements: []*ua.ContentFilterElement{clause(ua.FilterOperatorOfType, baseEventType.NodeID())}}})}}}},
		&ua.ModifyMonitoredItemsRequest{SubscriptionID: 1, ItemsToModify: []*ua.MonitoredItemModifyRequest{{RequestedParameters: params}}},
		&ua.SetMonitoringModeRequest{SubscriptionID: 1, MonitoredItemIDs: []uint32{1}},
		&ua.DeleteMonitoredItemsRequest{SubscriptionID: 1, MonitoredItemIDs: []uint32{1}},
		&ua.PublishRequest{},
		&ua.RepublishRequest{SubscriptionID: 1},
		&ua.CancelRequest{},
		&ua.CallRequest{MethodsToCall: []*ua.CallMethodRequest{{ObjectID: null, MethodID: null}}},
		&ua.HistoryReadRequest{HistoryReadDetails: &ua.ExtensionObject{TypeID: ua.NewTwoByteExpandedNodeID(0)}, NodesToRead: []*ua.HistoryReadValueID{{NodeID: levelKey.NodeID(), DataEncoding: &ua.QualifiedName{}}}},
		&ua.HistoryUpdateRequest{HistoryUpdateDetails: []*ua.ExtensionObject{{TypeID: ua.NewTwoByteExpandedNodeID(0)}}},
		&ua.TransferSubscriptionsRequest{SubscriptionIDs: []uint32{1}},
		&ua.SetTriggeringRequest{SubscriptionID: 1, TriggeringItemID: 1, LinksToAdd: []uint32{1, 2}, LinksToRemove: []uint32{1}},
		&ua.AddNodesRequest{},
		&ua.CloseSessionRequest{},
	}
}

func TestNothingIsServedWithoutASession(t *testing.T) {
	inBubble(t, Limits{}, func(t *testing.T, r *rig) {
		other := &fakeChannel{}
		inactive := r.create(other)
		stranger := &fakeChannel{}
		forged, _ := newToken()
		for _, req := range inSessionRequests() {
			for _, token := range []*ua.NodeID{nil, ua.NewTwoByteNodeID(0), ua.NewNumericNodeID(0, 1), ua.NewStringNodeID(0, "x"), forged,
				ua.NewByteStringNodeID(0, nil), ua.NewByteStringNodeID(1, make([]byte, tokenBytes)), ua.NewGUIDNodeID(0, "72962B91-FA75-4AE6-8D28-B404DC7DAF63")} {
				wantFault(t, r.ask(other, token, req), ua.StatusBadSessionIDInvalid)
			}
			if _, closing := req.(*ua.CloseSessionRequest); !closing { // The one that is served before activation.
				wantFault(t, r.ask(other, inactive, req), ua.StatusBadSessionNotActivated)
			}
			wantFault(t, r.ask(stranger, r.auth, req), ua.StatusBadSecureChannelIDInvalid)
			wantFault(t, r.ask(stranger, inactive, req), ua.StatusBadSecureChannelIDInvalid)
		}
		if r.demo.reads.Load() != 0 || r.v.engine.subscriptions.Load() != 0 {
			t.Fatal("something was served")
		}
	})
}

func TestOtherServicesAreUnsupported(t *testing.T) {
	inBubble(t, Limits{}, func(t *testing.T, r *rig) {
		for _, req := range []ua.Request{&ua.AddNodesRequest{}, &ua.DeleteNodesRequest{}, &ua.QueryFirstRequest{}, &ua.QueryNextRequest{},
			&ua.RegisterServerRequest{}, &ua.RegisterServer2Request{}, &ua.FindServersOnNetworkRequest{}} {
			wantFault(t, r.call(req), ua.StatusBadServiceUnsupported)
		}
	})
}

func TestHalfATokenIsNone(t *testing.T) {
	inBubble(t, Limits{}, func(t *testing.T, r *rig) {
		// The public half of a real token finds the session; the secret half has to be right too.
		mine := r.v.sessions.find(r.auth)
		_, other := newToken()
		guess := mine.token[:tokenPublic] + other[tokenPublic:]
		id := ua.NewByteStringNodeID(0, nil)
		if err := id.SetStringID(guess); err != nil {
			t.Fatal(err)
		}
		if r.v.sessions.find(id) != nil {
			t.Fatal("found by the public half alone")
		}
		if r.v.sessions.find(r.auth) != mine {
			t.Fatal("not found by the token")
		}
	})
}

// TestSessionThatIsGoneIsNotRemembered closes a session under a channel that has found it before.
func TestSessionThatIsGoneIsNotRemembered(t *testing.T) {
	inBubble(t, Limits{}, func(t *testing.T, r *rig) {
		want[*ua.ReadResponse](t, r.call(&ua.ReadRequest{NodesToRead: []*ua.ReadValueID{{NodeID: ua.NewNumericNodeID(0, 2258), AttributeID: ua.AttributeIDValue}}}))
		if k, ok := r.ch.Attached().(*known); !ok || k.session != r.v.sessions.find(r.auth) {
			t.Fatal("the session was not remembered")
		}
		r.v.close(r.v.sessions.find(r.auth), endSubscriptions)
		wantFault(t, r.call(&ua.ReadRequest{}), ua.StatusBadSessionIDInvalid)
	})
}

func TestSessionTimeout(t *testing.T) {
	inBubble(t, Limits{}, func(t *testing.T, r *rig) {
		ch := &fakeChannel{}
		for _, c := range []struct{ asked, want float64 }{
			{0, 120_000}, {-5, 120_000}, {math.NaN(), 120_000}, {1, 1000}, {1500.5, 1501}, {math.Inf(1), 3_600_000}, {math.MaxFloat64, 3_600_000},
		} {
			resp := want[*ua.CreateSessionResponse](t, r.ask(ch, nil, &ua.CreateSessionRequest{RequestedSessionTimeout: c.asked}))
			if resp.RevisedSessionTimeout != c.want {
				t.Errorf("%v: revised to %v, want %v", c.asked, resp.RevisedSessionTimeout, c.want)
			}
		}
		auth := want[*ua.CreateSessionResponse](t, r.ask(ch, nil, &ua.CreateSessionRequest{RequestedSessionTimeout: 10_000})).AuthenticationToken
		want[*ua.ActivateSessionResponse](t, r.ask(ch, auth, &ua.ActivateSessionRequest{}))
		want[*ua.CreateSubscriptionResponse](t, r.ask(ch, auth, &ua.CreateSubscriptionRequest{}))
		read := func() ua.Response { return r.ask(ch, auth, inSessionRequests()[0]) }
		for range 5 {
			r.after(9 * time.Second)
			want[*ua.ReadResponse](t, read())
		}
		if !ch.inUse.Load() {
			t.Error("the channel of an active session does not count as in use")
		}
		r.after(9990 * time.Millisecond)
		if r.v.sessions.find(auth) == nil {
			t.Fatal("the session ended before its time-out")
		}
		r.after(20 * time.Millisecond)
		wantFault(t, read(), ua.StatusBadSessionIDInvalid)
		if r.v.engine.subscriptions.Load() != 0 {
			t.Error("its subscription lives on")
		}
		if ch.inUse.Load() {
			t.Error("the channel still counts as in use")
		}
	})
}

func TestSessionLimits(t *testing.T) {
	inBubble(t, Limits{MaxSessions: 5, MaxSessionsPerClient: 3}, func(t *testing.T, r *rig) {
		// The rig's own session is the first of this client.
		idle := r.create(r.ch)
		r.after(time.Millisecond)
		r.connect(r.ch)
		third := r.create(r.ch) // In the place of the one that was never activated.
		wantFault(t, r.ask(r.ch, idle, &ua.ActivateSessionRequest{}), ua.StatusBadSessionIDInvalid)
		want[*ua.ActivateSessionResponse](t, r.ask(r.ch, third, &ua.ActivateSessionRequest{}))
		wantFault(t, r.call(&ua.CreateSessionRequest{}), ua.StatusBadTooManySessions)

		other := &fakeChannel{addr: "127.0.0.2"}
		r.connect(other)
		r.connect(other)
		third2 := &fakeChannel{addr: "127.0.0.3"}
		wantFault(t, r.ask(third2, nil, &ua.CreateSessionRequest{}), ua.StatusBadTooManySessions)
		if n := r.v.sessions.count(); n != 5 {
			t.Fatalf("%d sessions, want 5", n)
		}
		want[*ua.CloseSessionResponse](t, r.call(&ua.CloseSessionRequest{}))
		r.create(third2)
		wantFault(t, r.ask(r.ch, nil, &ua.CreateSessionRequest{SessionName: string(make([]byte, 513))}), ua.StatusBadEncodingLimitsExceeded)
		wantFault(t, r.ask(r.ch, nil, &ua.CreateSessionRequest{EndpointURL: string(make([]byte, 5000))}), ua.StatusBadEncodingLimitsExceeded)
	})
}

func TestCloseSession(t *testing.T) {
	inBubble(t, Limits{}, func(t *testing.T, r *rig) {
		r.subscribe()
		parked := r.publish()
		r.post(r.ch, r.auth, &ua.CloseSessionRequest{DeleteSubscriptions: true})
		got := r.ch.take()
		if len(got) != 2 || got[0].id != parked {
			t.Fatalf("%+v", got)
		}
		wantFault(t, got[0].resp, ua.StatusBadSessionClosed)
		want[*ua.CloseSessionResponse](t, got[1].resp)
		wantFault(t, r.call(&ua.CloseSessionRequest{}), ua.StatusBadSessionIDInvalid)

		never := r.create(r.ch)
		want[*ua.CloseSessionResponse](t, r.ask(r.ch, never, &ua.CloseSessionRequest{}))
	})
}

func TestSessionOutlivesItsChannel(t *testing.T) {
	inBubble(t, Limits{}, func(t *testing.T, r *rig) {
		never := r.create(r.ch)
		sub := r.subscribe().SubscriptionID
		r.monitor(sub, levelKey.NodeID(), 10)
		r.publish()
		r.ch.gone = true
		r.v.closed(r.ch)
		r.demo.set(1)
		r.after(time.Second)

		next := &fakeChannel{}
		wantFault(t, r.ask(next, never, &ua.ActivateSessionRequest{}), ua.StatusBadSessionIDInvalid)
		wantFault(t, r.ask(next, r.auth, &ua.PublishRequest{}), ua.StatusBadSecureChannelIDInvalid)
		want[*ua.ActivateSessionResponse](t, r.ask(next, r.auth, &ua.ActivateSessionRequest{}))
		p := r.ask(next, r.auth, &ua.PublishRequest{})
		if got := ints(t, p); len(got) != 2 || got[1] != 1 {
			t.Fatalf("what changed while the client was away: %v", got)
		}
		if r.ch.inUse.Load() || !next.inUse.Load() {
			t.Error("the wrong channel counts as in use")
		}
	})
}

func TestTransferToAnotherChannel(t *testing.T) {
	inBubble(t, Limits{}, func(t *testing.T, r *rig) {
		r.subscribe()
		r.publish()
		r.after(200 * time.Millisecond)
		parked := r.publish()
		next := &fakeChannel{}
		want[*ua.ActivateSessionResponse](t, r.ask(next, r.auth, &ua.ActivateSessionRequest{}))
		got := r.ch.take()
		if len(got) != 1 || got[0].id != parked {
			t.Fatalf("%+v", got)
		}
		wantFault(t, got[0].resp, ua.StatusBadSecureChannelClosed)
		wantFault(t, r.call(inSessionRequests()[0]), ua.StatusBadSecureChannelIDInvalid)
		want[*ua.ReadResponse](t, r.ask(next, r.auth, inSessionRequests()[0]))
	})
}

func TestFirstActivationIsOnTheSameChannel(t *testing.T) {
	inBubble(t, Limits{}, func(t *testing.T, r *rig) {
		auth := r.create(r.ch)
		wantFault(t, r.ask(&fakeChannel{}, auth, &ua.ActivateSessionRequest{}), ua.StatusBadSecureChannelIDInvalid)
	})
}

func TestDiscoveryOnlyChannel(t *testing.T) {
	inBubble(t, Limits{}, func(t *testing.T, r *rig) {
		ch := &fakeChannel{discovery: true}
		wantFault(t, r.ask(ch, nil, &ua.CreateSessionRequest{}), ua.StatusBadSecurityPolicyRejected)
		wantFault(t, r.ask(ch, r.auth, &ua.ActivateSessionRequest{}), ua.StatusBadSecurityChecksFailed)
		want[*ua.GetEndpointsResponse](t, r.ask(ch, nil, &ua.GetEndpointsRequest{}))
		want[*ua.FindServersResponse](t, r.ask(ch, nil, &ua.FindServersRequest{}))
	})
}

func TestSignaturesTakeTurns(t *testing.T) {
	server, client := serverIdentity(), clientIdentity() // Outside the bubble, whose clock their validity does not know.
	inBubble(t, Limits{MaxSignatures: 1}, func(t *testing.T, r *rig) {
		ch := &fakeChannel{policy: ua.SecurityPolicyURIBasic256Sha256, mode: ua.MessageSecurityModeSign, client: client.der, chain: server.der, key: server.key}
		r.v.signing <- struct{}{} // Another connection is at it.
		done := make(chan struct{})
		go func() {
			defer close(done)
			r.post(ch, nil, &ua.CreateSessionRequest{ClientDescription: sessionConfig().ClientDescription, ClientNonce: make([]byte, nonceLength), ClientCertificate: client.der})
		}()
		synctest.Wait()
		if sent := ch.take(); len(sent) != 0 {
			t.Fatalf("signed out of turn: %+v", sent)
		}
		<-r.v.signing
		<-done
		resp := want[*ua.CreateSessionResponse](t, ch.take()[0].resp)
		if err := channel.Verify(ch.policy, server.der, slices.Concat(client.der, make([]byte, nonceLength)), resp.ServerSignature); err != nil {
			t.Errorf("the server's signature: %v", err)
		}
	})
}

func TestUserTokens(t *testing.T) {
	inBubble(t, Limits{}, func(t *testing.T, r *rig) {
		token := func(v any) *ua.ActivateSessionRequest {
			return &ua.ActivateSessionRequest{UserIdentityToken: &ua.ExtensionObject{EncodingMask: ua.ExtensionObjectBinary, Value: v}}
		}
		auth := r.create(r.ch)
		ask := func(req *ua.ActivateSessionRequest) ua.Response { return r.ask(r.ch, auth, req) }
		wantFault(t, ask(token(&ua.UserNameIdentityToken{PolicyID: "anonymous", UserName: "root"})), ua.StatusBadIdentityTokenRejected)
		wantFault(t, ask(token(&ua.X509IdentityToken{})), ua.StatusBadIdentityTokenRejected)
		wantFault(t, ask(token(&ua.Argument{})), ua.StatusBadIdentityTokenInvalid)
		wantFault(t, ask(token(nil)), ua.StatusBadIdentityTokenInvalid)
		wantFault(t, r.ask(r.ch, auth, inSessionRequests()[0]), ua.StatusBadSessionNotActivated)
		want[*ua.ActivateSessionResponse](t, ask(token(&ua.AnonymousIdentityToken{PolicyID: "anonymous"})))

		r.v.cfg.UserTokens = []*ua.UserTokenPolicy{{PolicyID: "user", TokenType: ua.UserTokenTypeUserName, SecurityPolicyURI: ua.SecurityPolicyURINone}}
		r.v.cfg.Authenticate = func(c Credentials) (Identity, ua.StatusCode) {
			if c.Kind != ua.UserTokenTypeUserName || string(c.Password) != "right" {
				return Identity{}, ua.StatusBadUserAccessDenied
			}
			return Identity{Name: c.UserName}, ua.StatusOK
		}
		auth = r.create(r.ch)
		wantFault(t, ask(&ua.ActivateSessionRequest{}), ua.StatusBadIdentityTokenRejected)
		wantFault(t, ask(token(&ua.UserNameIdentityToken{PolicyID: "user", UserName: "a", Password: []byte("wrong")})), ua.StatusBadUserAccessDenied)
		ok := func(name string) *ua.ActivateSessionRequest {
			return token(&ua.UserNameIdentityToken{PolicyID: "user", UserName: name, Password: []byte("right")})
		}
		want[*ua.ActivateSessionResponse](t, ask(ok("a")))
		wantFault(t, r.ask(&fakeChannel{}, auth, ok("b")), ua.StatusBadIdentityTokenRejected)
		want[*ua.ActivateSessionResponse](t, r.ask(&fakeChannel{}, auth, ok("a")))
	})
}

func TestDiscoveryAnswersByTheNameThatWasUsed(t *testing.T) {
	inBubble(t, Limits{}, func(t *testing.T, r *rig) {
		r.v.cfg.Offers = append(r.v.cfg.Offers, channel.SecurityOffer{PolicyURI: ua.SecurityPolicyURIBasic256Sha256, Mode: ua.MessageSecurityModeSignAndEncrypt})
		r.v.cfg.Discovery = func() []*ua.ApplicationDescription {
			return []*ua.ApplicationDescription{
				{ApplicationURI: "urn:peer", DiscoveryURLs: []string{"opc.tcp://peer:4840"}},
				{ApplicationURI: demoURI, DiscoveryURLs: []string{"opc.tcp://some-other-name:4840"}},
			}
		}
		for _, c := range []struct{ asked, want string }{
			{"opc.tcp://alias.plant:14840", "opc.tcp://alias.plant:14840"},
			{"opc.tcp://[::1]:4840/path", "opc.tcp://[::1]:4840/path"},
			{"", "opc.tcp://from-hello:4840"},
			{"http://elsewhere", "opc.tcp://from-hello:4840"},
			{"opc.tcp://%zz", "opc.tcp://from-hello:4840"},
			{"opc.tcp://" + string(make([]byte, 5000)), "opc.tcp://from-hello:4840"},
		} {
			list := want[*ua.GetEndpointsResponse](t, r.ask(r.ch, nil, &ua.GetEndpointsRequest{EndpointURL: c.asked})).Endpoints
			if len(list) != 2 || list[0].EndpointURL != c.want || list[1].EndpointURL != c.want || list[0].SecurityLevel >= list[1].SecurityLevel {
				t.Errorf("%.40q: %+v", c.asked, list)
			}
			servers := want[*ua.FindServersResponse](t, r.ask(r.ch, nil, &ua.FindServersRequest{EndpointURL: c.asked})).Servers
			if len(servers) != 2 || servers[0].DiscoveryURLs[0] != c.want || servers[1].ApplicationURI != "urn:peer" {
				t.Errorf("%.40q: %+v", c.asked, servers)
			}
		}
		if list := want[*ua.GetEndpointsResponse](t, r.ask(r.ch, nil, &ua.GetEndpointsRequest{ProfileURIs: []string{"http://https"}})).Endpoints; len(list) != 0 {
			t.Errorf("endpoints of another profile: %+v", list)
		}
		servers := want[*ua.FindServersResponse](t, r.ask(r.ch, nil, &ua.FindServersRequest{ServerURIs: []string{"urn:peer"}})).Servers
		if len(servers) != 1 || servers[0].ApplicationURI != "urn:peer" {
			t.Errorf("%+v", servers)
		}
	})
}
