// Package session is a light OPC UA session on gopcua's client: it opens with the best security that the server offers,
// reads, sends, and closes. Probes of peers use it, and so do the client commands.
//
// It exists because some ways of that client need a guard. [Open] builds the session step by step instead of calling
// Connect, which starts goroutines that reconnect behind our back, and which dereferences nil when a server's signature is
// wrong. Nothing here reconnects: a session that failed is closed, and its user opens a new one. Every call takes its
// deadline from its context, and [Session.Close] ends within CloseTimeout, so that a peer that hangs for hours holds
// one connection at most. A caller whose context ends goes, and its request does not: that client numbers a request before it
// looks at the context, and one that is numbered and never sent is a gap for which the server hangs up (Part 6 §6.7.2.4), with
// the session and its subscriptions left there until they time out.
package session

import (
	"context"
	"crypto/rsa"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/gopcua/opcua"
	"github.com/gopcua/opcua/ua"
	"github.com/gopcua/opcua/uasc"
)

const (
	// CloseTimeout bounds Close: the server's answer is a courtesy that is not worth waiting for longer.
	CloseTimeout = 500 * time.Millisecond
	// DefaultRequestTimeout bounds each request where Options.RequestTimeout is 0.
	DefaultRequestTimeout = 10 * time.Second
	// MaxRequests bounds the requests of a session that are under way, those included whose callers have gone. Further ones wait.
	MaxRequests = 256
	// Timeout is what is asked for as the session's time-out: after a crash of ours, a server soon forgets the session.
	Timeout = 30 * time.Second
)

// Options say how a session is opened. The zero Options is anonymous, with no certificate.
type Options struct {
	// Policy is one of PolicyNames. Empty is the strongest that the server offers; without a certificate that is None where
	// it is offered.
	Policy string
	// Mode is one of ModeNames, for every policy but None. Empty is SignAndEncrypt where the server offers it, else Sign.
	Mode string
	// PreferNone takes None where the server offers it, if Policy is empty: for who asks about nothing secret, and can't have the
	// answer depend on whether the server trusts this application yet.
	PreferNone bool
	// Certificate (DER) and Key are this application's; needed for every policy but None.
	Certificate []byte
	Key         *rsa.PrivateKey
	// User and Password log in by user name; an empty User is anonymous. A password never goes over an endpoint that
	// doesn't encrypt it.
	User, Password string
	// UserCertificate (DER) and UserKey log in by certificate, instead of User.
	UserCertificate []byte
	UserKey         *rsa.PrivateKey
	// Verify decides whether the server is the one that is meant, before anything is said to it: by its certificate (DER, with its issuers behind it where the
	// server shows them), nil at an endpoint without security. The channel proves that the server has the key. Nil is whatever answers.
	Verify func(endpointURL string, certificate []byte) error
	// Name is the session's name, for people who look at the server.
	Name string
	// RequestTimeout bounds each request, whatever its context allows; 0 means the default. A Publish may have to wait long.
	RequestTimeout time.Duration
}

// Session is an open session. It may be used by many goroutines.
type Session struct {
	client *opcua.Client
	policy string
	slots  chan struct{} // one for each request under way
}

func newSession(client *opcua.Client, policy string) *Session {
	return &Session{client: client, policy: policy, slots: make(chan struct{}, MaxRequests)}
}

// Open connects and opens a session. The deadline of ctx bounds all of it.
func Open(ctx context.Context, endpointURL string, o Options) (s *Session, err error) {
	defer guard(&err)
	if o.RequestTimeout == 0 {
		o.RequestTimeout = DefaultRequestTimeout
	}
	if err := o.check(); err != nil {
		return nil, err
	}
	endpoints, err := opcua.GetEndpoints(ctx, endpointURL, opcua.RequestTimeout(o.RequestTimeout))
	if err != nil {
		return nil, fmt.Errorf("get endpoints of %s: %w", endpointURL, err)
	}
	endpoint, err := o.choose(endpoints)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", endpointURL, err)
	}
	if o.Verify != nil {
		var shown []byte
		if endpoint.SecurityPolicyURI != ua.SecurityPolicyURINone {
			shown = endpoint.ServerCertificate
		}
		if err := o.Verify(endpointURL, shown); err != nil {
			return nil, fmt.Errorf("%s: %w", endpointURL, err)
		}
	}
	login, err := o.login(endpoint)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", endpointURL, err)
	}
	options, err := o.channel(endpoint)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", endpointURL, err)
	}
	client, err := opcua.NewClient(endpointURL, options...)
	if err != nil {
		return nil, fmt.Errorf("options for %s: %w", endpointURL, err)
	}
	s = newSession(client, endpoint.SecurityPolicyURI)
	if err := s.open(ctx, login); err != nil {
		s.Close()
		return nil, fmt.Errorf("open a session at %s: %w", endpointURL, err)
	}
	return s, nil
}

func (s *Session) open(ctx context.Context, login *uasc.SessionConfig) (err error) {
	defer guard(&err)
	if err := s.client.Dial(ctx); err != nil {
		if errors.Is(err, io.EOF) && s.policy != ua.SecurityPolicyURINone {
			// The client drops the status that a server sends before it hangs up (Part 6 §7.1.2.5).
			return fmt.Errorf("the server hung up on the secure channel; most likely it does not trust this client's certificate: %w", err)
		}
		return err
	}
	created, err := s.client.CreateSession(ctx, login)
	if err != nil {
		return err
	}
	if created == nil { // The client only logs that the signature did not verify.
		return ua.StatusBadApplicationSignatureInvalid
	}
	if err := s.client.ActivateSession(ctx, created); err != nil {
		return err
	}
	if s.client.Session() == nil { // The client only logs that it could not sign.
		return ua.StatusBadSecurityChecksFailed
	}
	return nil
}

// Discover asks a server for the servers that it knows, and for its own endpoints. That needs no session and no security
// (Part 4 §5.5), so nothing of the answer can be trusted.
func Discover(ctx context.Context, endpointURL string) (servers []*ua.ApplicationDescription, endpoints []*ua.EndpointDescription, err error) {
	defer guard(&err)
	client, err := opcua.NewClient(endpointURL, opcua.AutoReconnect(false), opcua.RequestTimeout(DefaultRequestTimeout))
	if err != nil {
		return nil, nil, fmt.Errorf("options for %s: %w", endpointURL, err)
	}
	s := newSession(client, ua.SecurityPolicyURINone)
	defer s.Close()
	if err := client.Dial(ctx); err != nil {
		return nil, nil, fmt.Errorf("connect to %s: %w", endpointURL, err)
	}
	found, err := Call[*ua.FindServersResponse](ctx, s, &ua.FindServersRequest{EndpointURL: endpointURL})
	if err != nil {
		return nil, nil, fmt.Errorf("find servers at %s: %w", endpointURL, err)
	}
	offered, err := Call[*ua.GetEndpointsResponse](ctx, s, &ua.GetEndpointsRequest{EndpointURL: endpointURL})
	if err != nil {
		return nil, nil, fmt.Errorf("get endpoints of %s: %w", endpointURL, err)
	}
	return found.Servers, offered.Endpoints, nil
}

// Policy returns the URI of the security policy that the session is under.
func (s *Session) Policy() string { return s.policy }

// Read reads the values of nodes, in one request, with both timestamps.
func (s *Session) Read(ctx context.Context, nodes ...*ua.NodeID) ([]*ua.DataValue, error) {
	request := &ua.ReadRequest{TimestampsToReturn: ua.TimestampsToReturnBoth}
	for _, n := range nodes {
		request.NodesToRead = append(request.NodesToRead, &ua.ReadValueID{NodeID: n, AttributeID: ua.AttributeIDValue})
	}
	response, err := whole(ctx, s, func(ctx context.Context) (*ua.ReadResponse, error) { return s.client.Read(ctx, request) })
	if err != nil {
		return nil, err
	}
	if len(response.Results) != len(nodes) {
		return nil, fmt.Errorf("read of %d nodes gave %d results: %w", len(nodes), len(response.Results), ua.StatusBadUnknownResponse)
	}
	return response.Results, nil
}

// Call sends a request of any other service and returns its response, which is of type R or an error. The request belongs to
// the session from then on: it may be read even after the context has ended.
func Call[R ua.Response](ctx context.Context, s *Session, request ua.Request) (R, error) {
	return whole(ctx, s, func(ctx context.Context) (response R, err error) {
		err = s.client.Send(ctx, request, func(got ua.Response) error {
			r, ok := got.(R)
			if !ok {
				return fmt.Errorf("%T answered with %T: %w", request, got, ua.StatusBadUnknownResponse)
			}
			response = r
			return nil
		})
		return response, err
	})
}

// whole makes a request that is sent wholly or not at all, whenever ctx ends: see the package. One whose caller has gone
// ends with its answer, the request time-out, or Close.
func whole[R any](ctx context.Context, s *Session, request func(context.Context) (R, error)) (R, error) {
	type answer struct {
		response R
		err      error
	}
	var none R
	if err := ctx.Err(); err != nil {
		return none, err
	}
	select {
	case s.slots <- struct{}{}:
	case <-ctx.Done():
		return none, ctx.Err()
	}
	answered := make(chan answer, 1)
	go func() {
		var a answer
		defer func() {
			<-s.slots
			answered <- a
		}()
		defer guard(&a.err)
		a.response, a.err = request(context.WithoutCancel(ctx))
	}()
	select {
	case a := <-answered:
		return a.response, a.err
	case <-ctx.Done():
		return none, ctx.Err()
	}
}

// Close ends the session and the connection, whatever state they are in, within CloseTimeout.
func (s *Session) Close() {
	var err error
	defer guard(&err)
	ctx, cancel := context.WithTimeout(context.Background(), CloseTimeout)
	defer cancel()
	_ = s.client.Close(ctx) // It has nothing to say: everything in it is best effort.
}

// guard turns a panic of the client into an error: what a server answers must never end this process.
func guard(err *error) {
	if r := recover(); r != nil {
		*err = fmt.Errorf("the client panicked: %v", r)
	}
}
