package server

import (
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"math/big"
	"net"
	"net/url"
	"sync"
	"testing"
	"time"

	"github.com/gopcua/opcua"
	"github.com/gopcua/opcua/ua"

	"quorate/opcua/channel"
)

// identity is a certificate and its key.
type identity struct {
	der []byte
	key *rsa.PrivateKey
}

func newIdentity(t testing.TB, applicationURI string) identity {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	uri, err := url.Parse(applicationURI)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{
		SerialNumber: big.NewInt(1),
		Subject:      pkix.Name{CommonName: "demo"},
		NotBefore:    time.Now().Add(-time.Hour),
		NotAfter:     time.Now().Add(time.Hour),
		KeyUsage:     x509.KeyUsageDigitalSignature | x509.KeyUsageKeyEncipherment | x509.KeyUsageDataEncipherment | x509.KeyUsageContentCommitment,
		ExtKeyUsage:  []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		URIs:         []*url.URL{uri},
	}, &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "demo"}}, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	return identity{der, key}
}

// Keys take long to make, so all tests have the same.
var (
	serverIdentity = sync.OnceValue(func() identity { return newIdentity(&testing.B{}, demoURI) })
	clientIdentity = sync.OnceValue(func() identity { return newIdentity(&testing.B{}, "urn:demo:client") })
)

// served is a server on loopback.
type served struct {
	*Server
	demo *demo
	url  string
}

func serve(t testing.TB, change ...func(*Config)) *served {
	t.Helper()
	d := newDemo(t)
	cfg := Config{
		ApplicationURI: demoURI,
		Space:          d.space,
		Offers: []channel.SecurityOffer{
			{PolicyURI: ua.SecurityPolicyURINone, Mode: ua.MessageSecurityModeNone},
			{PolicyURI: ua.SecurityPolicyURIBasic256Sha256, Mode: ua.MessageSecurityModeSign},
			{PolicyURI: ua.SecurityPolicyURIBasic256Sha256, Mode: ua.MessageSecurityModeSignAndEncrypt},
		},
		Limits:      Limits{MinPublishingInterval: 10 * time.Millisecond, MinSamplingInterval: 10 * time.Millisecond}, // Tests are in a hurry.
		Certificate: func() ([]byte, *rsa.PrivateKey) { return serverIdentity().der, serverIdentity().key },
	}
	for _, fn := range change {
		fn(&cfg)
	}
	s, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- s.Serve(l) }()
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		if err := s.Shutdown(ctx); err != nil {
			t.Errorf("Shutdown: %v", err)
		}
		if err := <-ended; err != nil {
			t.Errorf("Serve: %v", err)
		}
	})
	return &served{s, d, "opc.tcp://" + l.Addr().String()}
}

// secured are the options of a client that signs, or signs and encrypts.
func secured(mode ua.MessageSecurityMode) []opcua.Option { return clientOf(clientIdentity(), mode) }

func clientOf(who identity, mode ua.MessageSecurityMode) []opcua.Option {
	return []opcua.Option{
		opcua.Certificate(who.der),
		opcua.PrivateKey(who.key),
		opcua.SecurityFromEndpoint(&ua.EndpointDescription{
			SecurityPolicyURI:  ua.SecurityPolicyURIBasic256Sha256,
			SecurityMode:       mode,
			ServerCertificate:  serverIdentity().der,
			UserIdentityTokens: []*ua.UserTokenPolicy{{PolicyID: "anonymous", TokenType: ua.UserTokenTypeAnonymous}},
		}, ua.UserTokenTypeAnonymous),
	}
}

func (s *served) client(t testing.TB, opts ...opcua.Option) *opcua.Client {
	t.Helper()
	c, err := opcua.NewClient(s.url, append([]opcua.Option{opcua.AutoReconnect(false), opcua.RequestTimeout(10 * time.Second)}, opts...)...)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func (s *served) connect(t testing.TB, opts ...opcua.Option) *opcua.Client {
	t.Helper()
	c := s.client(t, opts...)
	if err := c.Connect(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		_ = c.Close(ctx)
	})
	return c
}

// TestThirdPartyClient does with every offer what a client does.
func TestThirdPartyClient(t *testing.T) {
	s := serve(t)
	for name, opts := range map[string][]opcua.Option{
		"None":                          nil,
		"Basic256Sha256 Sign":           secured(ua.MessageSecurityModeSign),
		"Basic256Sha256 SignAndEncrypt": secured(ua.MessageSecurityModeSignAndEncrypt),
	} {
		t.Run(name, func(t *testing.T) {
			c := s.connect(t, opts...)
			ctx := t.Context()
			s.demo.set(41)
			v, err := c.Node(levelKey.NodeID()).Value(ctx)
			if err != nil || v.Int() != 41 {
				t.Fatalf("read %v, %v", v, err)
			}
			children, err := c.Node(folderKey.NodeID()).Children(ctx, 0, 0)
			if err != nil || len(children) != manyChildren {
				t.Fatalf("browsed %d children, %v", len(children), err)
			}
			path, err := c.Node(objectsKey.NodeID()).TranslateBrowsePathInNamespaceToNodeID(ctx, 1, "Many.Child042")
			if err != nil || path.IntID() != 1042 {
				t.Fatalf("translated to %v, %v", path, err)
			}
			wantChanges(t, s, c, 200)
		})
	}
}

// wantChanges asserts that a client sees each of many changes.
func wantChanges(t *testing.T, s *served, c *opcua.Client, changes int64) {
	t.Helper()
	s.demo.set(0)
	got := make(chan *opcua.PublishNotificationData, 100)
	sub, err := c.Subscribe(t.Context(), &opcua.SubscriptionParameters{Interval: 20 * time.Millisecond}, got)
	if err != nil {
		t.Fatal(err)
	}
	req := opcua.NewMonitoredItemCreateRequestWithDefaults(levelKey.NodeID(), ua.AttributeIDValue, 1)
	req.RequestedParameters.QueueSize = uint32(changes) + 1
	res, err := sub.Monitor(t.Context(), ua.TimestampsToReturnBoth, req)
	if err != nil || res.Results[0].StatusCode != ua.StatusOK {
		t.Fatalf("Monitor: %+v, %v", res, err)
	}
	timeout := time.After(20 * time.Second)
	next, last := int64(0), int64(0) // to be seen, and set
	for next <= changes {
		select {
		case n := <-got:
			if n.Error != nil {
				t.Fatalf("after %d changes: %v", next, n.Error)
			}
			data, ok := n.Value.(*ua.DataChangeNotification)
			if !ok {
				continue
			}
			for _, item := range data.MonitoredItems {
				if v := item.Value.Value.Int(); v != next {
					t.Fatalf("saw %d, want %d", v, next)
				}
				next++
			}
			// Up to three changes for each message that arrives: so they meet the cycles at all phases. None goes back to a value
			// that was set before a message which came between two changes.
			for last < min(next+2, changes) {
				last++
				s.demo.set(last)
			}
		case <-timeout:
			t.Fatalf("saw %d of %d changes", next, changes)
		}
	}
}

func TestDiscoveryByThirdPartyClient(t *testing.T) {
	s := serve(t, func(c *Config) {
		c.Offers = c.Offers[1:] // No session without security, but discovery works.
		c.Discovery = func() []*ua.ApplicationDescription {
			return []*ua.ApplicationDescription{{ApplicationURI: "urn:peer", ApplicationName: ua.NewLocalizedText("peer"), DiscoveryURLs: []string{"opc.tcp://peer:4840"}}}
		}
	})
	endpoints, err := opcua.GetEndpoints(t.Context(), s.url)
	if err != nil || len(endpoints) != 2 || endpoints[0].EndpointURL != s.url {
		t.Fatalf("%+v, %v", endpoints, err)
	}
	servers, err := opcua.FindServers(t.Context(), s.url)
	if err != nil || len(servers) != 2 || servers[0].ApplicationURI != demoURI || servers[1].ApplicationURI != "urn:peer" {
		t.Fatalf("%+v, %v", servers, err)
	}
	c := s.client(t)
	if err := c.Connect(t.Context()); err == nil {
		t.Fatal("a session without security, though none is offered")
	}
	s.connect(t, secured(ua.MessageSecurityModeSignAndEncrypt)...)
	if n := s.Stats().Sessions; n != 1 {
		t.Fatalf("%d sessions, want the secured one", n)
	}
}

func TestWrongApplicationURIIsRefused(t *testing.T) {
	s := serve(t)
	c := s.client(t, append(secured(ua.MessageSecurityModeSignAndEncrypt), opcua.ApplicationURI("urn:someone:else"))...)
	if err := c.Connect(t.Context()); err == nil {
		t.Fatal("a client with another's name was let in")
	}
	if n := s.Stats().Sessions; n != 0 {
		t.Fatalf("%d sessions", n)
	}
}

func TestSessionsEndWithTheirClients(t *testing.T) {
	s := serve(t)
	for range 20 {
		c := s.client(t)
		if err := c.Connect(t.Context()); err != nil {
			t.Fatal(err)
		}
		if _, err := c.Subscribe(t.Context(), &opcua.SubscriptionParameters{Interval: 20 * time.Millisecond}, make(chan *opcua.PublishNotificationData, 10)); err != nil {
			t.Fatal(err)
		}
		if err := c.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, "all sessions and subscriptions to be gone", func() bool { return s.Stats() == Stats{} })
}
