package channel

import (
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"math/big"
	"net"
	"net/url"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gopcua/opcua/ua"
	"github.com/gopcua/opcua/uacp"
	"github.com/gopcua/opcua/uapolicy"
	"github.com/gopcua/opcua/uasc"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience is how long a test waits for what has to happen.
const patience = 20 * time.Second

// identity is a key with a self-signed certificate.
type identity struct {
	key  *rsa.PrivateKey
	cert []byte
}

var identities sync.Map // name/bits → func() identity

// newIdentity makes an identity, once per name and length of the key.
func newIdentity(t testing.TB, name string, bits int) identity {
	t.Helper()
	made, _ := identities.LoadOrStore(fmt.Sprint(name, bits), sync.OnceValue(func() identity {
		key, err := rsa.GenerateKey(rand.Reader, bits)
		if err != nil {
			panic(err)
		}
		uri, _ := url.Parse("urn:test:" + name)
		template := &x509.Certificate{
			SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, URIs: []*url.URL{uri},
			NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		}
		cert, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
		if err != nil {
			panic(err)
		}
		return identity{key, cert}
	}))
	return made.(func() identity)()
}

// echo answers every ReadRequest with as many results as it has nodes, and
// counts what it sees.
type echo struct {
	serve  func(ch *Channel, requestID uint32, req ua.Request) // replaces the usual answer if set
	served atomic.Int64
	closed atomic.Int64
	last   atomic.Pointer[Channel]
}

func (e *echo) Serve(ch *Channel, requestID uint32, req ua.Request) {
	e.served.Add(1)
	e.last.Store(ch)
	if e.serve != nil {
		e.serve(ch, requestID, req)
		return
	}
	_ = ch.Send(requestID, readResponse(req))
}

func (e *echo) Closed(*Channel) { e.closed.Add(1) }

func readResponse(req ua.Request) *ua.ReadResponse {
	resp := &ua.ReadResponse{ResponseHeader: &ua.ResponseHeader{Timestamp: time.Now(), RequestHandle: req.Header().RequestHandle}}
	if r, ok := req.(*ua.ReadRequest); ok {
		for _, n := range r.NodesToRead {
			resp.Results = append(resp.Results, &ua.DataValue{EncodingMask: ua.DataValueValue, Value: ua.MustVariant(n.NodeID.String())})
		}
	}
	return resp
}

// allOffers are all policies with all modes.
func allOffers() []SecurityOffer {
	offers := []SecurityOffer{{ua.SecurityPolicyURINone, ua.MessageSecurityModeNone}}
	for _, p := range Policies()[1:] {
		offers = append(offers, SecurityOffer{p, ua.MessageSecurityModeSign}, SecurityOffer{p, ua.MessageSecurityModeSignAndEncrypt})
	}
	return offers
}

// start runs a server on a loopback port until the test ends.
func start(t testing.TB, cfg Config, h Handler) (s *Server, addr string) {
	t.Helper()
	if cfg.Certificate == nil {
		id := newIdentity(t, "server", 2048)
		cfg.Certificate = func() ([]byte, *rsa.PrivateKey) { return id.cert, id.key }
	}
	if cfg.Offers == nil {
		cfg.Offers = allOffers()
	}
	s, err := NewServer(cfg, h)
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
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		if err := s.Shutdown(ctx); err != nil {
			t.Errorf("Shutdown: %v", err)
		}
		if err := <-served; err != nil {
			t.Errorf("Serve: %v", err)
		}
	})
	return s, l.Addr().String()
}

// client is gopcua's own client channel.
type client struct {
	*uasc.SecureChannel
	errs chan error
}

// dial opens a secure channel with gopcua's client.
func dial(t testing.TB, addr, policyURI string, mode ua.MessageSecurityMode, lifetime time.Duration, id, server identity) (*client, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	conn, err := uacp.Dial(ctx, "opc.tcp://"+addr)
	if err != nil {
		return nil, err
	}
	cfg := &uasc.Config{SecurityPolicyURI: policyURI, SecurityMode: mode, Lifetime: uint32(lifetime / time.Millisecond), RequestTimeout: patience}
	if mode != ua.MessageSecurityModeNone {
		cfg.Certificate, cfg.LocalKey = id.cert, id.key
		cfg.RemoteCertificate, cfg.Thumbprint = server.cert, uapolicy.Thumbprint(server.cert)
	}
	c := &client{errs: make(chan error, 100)}
	c.SecureChannel, err = uasc.NewSecureChannel("opc.tcp://"+addr, conn, cfg, c.errs)
	if err != nil {
		conn.Close()
		return nil, err
	}
	if err := c.Open(ctx); err != nil {
		conn.Close()
		return nil, err
	}
	t.Cleanup(func() {
		c.Close()
		conn.Close()
	})
	return c, nil
}

func mustDial(t testing.TB, addr, policyURI string, mode ua.MessageSecurityMode, lifetime time.Duration) *client {
	t.Helper()
	c, err := dial(t, addr, policyURI, mode, lifetime, newIdentity(t, "client", 2048), newIdentity(t, "server", 2048))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// read asks for the nodes and checks the answer.
func (c *client) read(nodes ...string) error {
	req := &ua.ReadRequest{NodesToRead: []*ua.ReadValueID{}}
	for _, n := range nodes {
		req.NodesToRead = append(req.NodesToRead, &ua.ReadValueID{NodeID: ua.MustParseNodeID(n), AttributeID: ua.AttributeIDValue, DataEncoding: &ua.QualifiedName{}})
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	return c.SendRequest(ctx, req, nil, func(r ua.Response) error {
		resp, ok := r.(*ua.ReadResponse)
		if !ok || len(resp.Results) != len(nodes) {
			return fmt.Errorf("got %T", r)
		}
		for i, n := range nodes {
			if got := resp.Results[i].Value.Value(); got != n {
				return fmt.Errorf("node %s answered as %v", n, got)
			}
		}
		return nil
	})
}

// eventually waits until a condition holds.
func eventually(t testing.TB, what string, cond func() bool) {
	t.Helper()
	deadline := time.NewTimer(patience)
	defer deadline.Stop()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for !cond() {
		select {
		case <-deadline.C:
			t.Fatalf("never happened: %s", what)
		case <-tick.C:
		}
	}
}

func (id identity) certificate() ([]byte, *rsa.PrivateKey) { return id.cert, id.key }

// opened gives an event function that signals renewals.
func opened(renewed chan struct{}) func(net.Addr, string, ua.MessageSecurityMode, bool) {
	return func(_ net.Addr, _ string, _ ua.MessageSecurityMode, again bool) {
		if again {
			renewed <- struct{}{}
		}
	}
}
