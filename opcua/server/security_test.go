package server

import (
	"context"
	"errors"
	"testing"

	"github.com/gopcua/opcua"
	"github.com/gopcua/opcua/ua"
	"github.com/gopcua/opcua/uasc"
)

func sessionConfig() *uasc.SessionConfig {
	cfg := opcua.DefaultSessionConfig()
	cfg.ClientDescription.ApplicationURI = "urn:demo:client"
	cfg.UserIdentityToken = &ua.AnonymousIdentityToken{PolicyID: "anonymous"}
	return cfg
}

// dial opens a channel and makes no session.
func (s *served) dial(t *testing.T, opts ...opcua.Option) *opcua.Client {
	t.Helper()
	c := s.client(t, opts...)
	if err := c.Dial(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close(context.Background()) })
	return c
}

func TestSecuredSessionMovesToANewChannel(t *testing.T) {
	s := serve(t)
	encrypted := secured(ua.MessageSecurityModeSignAndEncrypt)
	first := s.dial(t, encrypted...)
	session, err := first.CreateSession(t.Context(), sessionConfig())
	if err != nil {
		t.Fatal(err)
	}
	stolen := s.dial(t, encrypted...)
	if err := stolen.ActivateSession(t.Context(), session); !errors.Is(err, ua.StatusBadSecureChannelIDInvalid) {
		t.Fatalf("first activation on another channel: %v", err)
	}
	if err := first.ActivateSession(t.Context(), session); err != nil {
		t.Fatal(err)
	}
	var sub uint32
	err = first.Send(t.Context(), &ua.CreateSubscriptionRequest{RequestedPublishingInterval: 20, RequestedLifetimeCount: 10_000, PublishingEnabled: true}, func(resp ua.Response) error {
		sub = resp.(*ua.CreateSubscriptionResponse).SubscriptionID
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if got := send(t, first, &ua.CreateMonitoredItemsRequest{SubscriptionID: sub, ItemsToCreate: []*ua.MonitoredItemCreateRequest{
		opcua.NewMonitoredItemCreateRequestWithDefaults(levelKey.NodeID(), ua.AttributeIDValue, 1)}}); got != ua.StatusOK {
		t.Fatal(got)
	}
	if _, err := first.DetachSession(t.Context()); err != nil {
		t.Fatal(err)
	}

	stranger := clientOf(newIdentity(t, "urn:demo:stranger"), ua.MessageSecurityModeSignAndEncrypt)
	for name, opts := range map[string][]opcua.Option{
		"without security":         nil,
		"with less security":       secured(ua.MessageSecurityModeSign),
		"with another certificate": stranger,
	} {
		if err := s.dial(t, opts...).ActivateSession(t.Context(), session); !errors.Is(err, ua.StatusBadSecurityChecksFailed) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := first.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	s.demo.set(99) // While the client is away.
	next := s.dial(t, encrypted...)
	if err := next.ActivateSession(t.Context(), session); err != nil {
		t.Fatal(err)
	}
	if _, err := next.Node(levelKey.NodeID()).Value(t.Context()); err != nil {
		t.Errorf("on the new channel: %v", err)
	}
	err = next.Send(t.Context(), &ua.PublishRequest{}, func(resp ua.Response) error {
		if got := ints(t, resp); len(got) != 2 || got[1] != 99 {
			t.Errorf("what changed while the client was away: %v", got)
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
	if st := s.Stats(); st != (Stats{Sessions: 1, Subscriptions: 1, MonitoredItems: 1, QueuePlaces: 10}) {
		t.Errorf("%+v", st)
	}
}

func TestSecuredSessionRefusals(t *testing.T) {
	s := serve(t)
	c := s.dial(t, secured(ua.MessageSecurityModeSign)...)
	create := func(change func(*ua.CreateSessionRequest)) ua.StatusCode {
		r := &ua.CreateSessionRequest{
			ClientDescription: sessionConfig().ClientDescription,
			ClientNonce:       make([]byte, 32),
			ClientCertificate: clientIdentity().der,
		}
		change(r)
		return send(t, c, r)
	}
	other := newIdentity(t, "urn:demo:client")
	for name, x := range map[string]struct {
		change func(*ua.CreateSessionRequest)
		want   ua.StatusCode
	}{
		"as it should be":           {func(*ua.CreateSessionRequest) {}, ua.StatusOK},
		"no nonce":                  {func(r *ua.CreateSessionRequest) { r.ClientNonce = nil }, ua.StatusBadNonceInvalid},
		"short nonce":               {func(r *ua.CreateSessionRequest) { r.ClientNonce = make([]byte, 31) }, ua.StatusBadNonceInvalid},
		"no certificate":            {func(r *ua.CreateSessionRequest) { r.ClientCertificate = nil }, ua.StatusBadSecurityChecksFailed},
		"another certificate":       {func(r *ua.CreateSessionRequest) { r.ClientCertificate = other.der }, ua.StatusBadSecurityChecksFailed},
		"a certificate of nonsense": {func(r *ua.CreateSessionRequest) { r.ClientCertificate = []byte("x") }, ua.StatusBadSecurityChecksFailed},
		"another application": {func(r *ua.CreateSessionRequest) {
			d := *r.ClientDescription
			d.ApplicationURI = "urn:demo:other"
			r.ClientDescription = &d
		}, ua.StatusBadCertificateURIInvalid},
	} {
		if got := create(x.change); got != x.want {
			t.Errorf("%s: %v, want %v", name, got, x.want)
		}
	}

	session, err := c.CreateSession(t.Context(), sessionConfig())
	if err != nil {
		t.Fatal(err)
	}
	signature, algorithm, err := c.SecureChannel().NewSessionSignature(serverIdentity().der, make([]byte, 32)) // Of another nonce.
	if err != nil {
		t.Fatal(err)
	}
	// The client sends its token by itself only after it has activated the session, which is what has to fail here.
	for name, sig := range map[string]*ua.SignatureData{
		"none":           {},
		"nonsense":       {Algorithm: algorithm, Signature: []byte("x")},
		"of other nonce": {Algorithm: algorithm, Signature: signature},
	} {
		req := &ua.ActivateSessionRequest{ClientSignature: sig, UserIdentityToken: ua.NewExtensionObject(&ua.AnonymousIdentityToken{PolicyID: "anonymous"}), UserTokenSignature: &ua.SignatureData{}}
		var got error
		err := c.SecureChannel().SendRequest(t.Context(), req, authenticationToken(t, s), func(resp ua.Response) error {
			if status := resp.Header().ServiceResult; status != ua.StatusOK {
				got = status
			}
			return nil
		})
		if got == nil {
			got = err
		}
		if !errors.Is(got, ua.StatusBadApplicationSignatureInvalid) {
			t.Errorf("signature %s: %v", name, got)
		}
	}
	if err := c.ActivateSession(t.Context(), session); err != nil {
		t.Errorf("with the right signature: %v", err)
	}
}

// authenticationToken returns the token of the newest session, which gopcua's Session keeps to itself.
func authenticationToken(t *testing.T, s *served) *ua.NodeID {
	t.Helper()
	var newest *session
	for _, o := range s.services.sessions.all() {
		if newest == nil || o.id.IntID() > newest.id.IntID() {
			newest = o
		}
	}
	id := ua.NewByteStringNodeID(0, nil)
	if err := id.SetStringID(newest.token); err != nil {
		t.Fatal(err)
	}
	return id
}
