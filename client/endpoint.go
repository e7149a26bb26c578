package client

import (
	"context"
	"fmt"
	"log/slog"
	mathrand "math/rand/v2"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/keepalive"
)

const (
	// maxAnswerBytes bounds one answer. Members bound theirs at 2 MiB and one item.
	maxAnswerBytes = 16 << 20
	// keepaliveTime and keepaliveTimeout find out a peer that has vanished. Members refuse those that ask more often than every 5 s.
	keepaliveTime    = 10 * time.Second
	keepaliveTimeout = 3 * time.Second
	// redialLeast and redialMost are the pauses between two attempts to connect to a member.
	redialLeast = 50 * time.Millisecond
	redialMost  = time.Second
	// restLeast is for how long a member is not preferred after it failed a call; it is doubled with each further one, up to restMost.
	restLeast = 200 * time.Millisecond
	restMost  = 5 * time.Second
)

// endpoint is one member, at one address, and the one connection to it. Its state belongs to the client's lock.
type endpoint struct {
	address string
	// given says that the user named it, so that it is kept whatever the group says.
	given bool
	conn  *grpc.ClientConn
	stop  context.CancelFunc

	// member is its id, empty while that is not known.
	member string
	// ready says that the connection stands, and unreached that the last attempt to make one failed.
	ready, unreached bool
	// failures counts the calls in a row that it failed; until rested it is asked only where there is no other.
	failures int
	rested   time.Time
}

// startAt is where among some endpoints a client begins.
func startAt(endpoints int) int { return mathrand.IntN(endpoints) }

// addEndpoint begins to connect to a member.
func (c *Client) addEndpoint(address, member string, given bool) error {
	// A proxy from the environment is not used: members are in the plant's own network.
	conn, err := grpc.NewClient("passthrough:///"+address,
		grpc.WithTransportCredentials(c.transport),
		grpc.WithNoProxy(),
		grpc.WithDisableServiceConfig(),
		grpc.WithIdleTimeout(0),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxAnswerBytes)),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: keepaliveTime, Timeout: keepaliveTimeout, PermitWithoutStream: true}),
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           backoff.Config{BaseDelay: redialLeast, Multiplier: 1.6, Jitter: 0.2, MaxDelay: redialMost},
			MinConnectTimeout: c.options.DialTimeout,
		}))
	if err != nil {
		return fmt.Errorf("client: endpoint %s: %w", address, err)
	}
	e := &endpoint{address: address, given: given, conn: conn, member: member}
	ctx, stop := context.WithCancel(c.ctx)
	e.stop = stop
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return e.close()
	}
	c.endpoints = append(c.endpoints, e)
	c.done.Go(func() { c.keepConnected(ctx, e) })
	return nil
}

// close ends the connection.
func (e *endpoint) close() error {
	e.stop()
	return e.conn.Close()
}

// keepConnected keeps the connection to a member up, and notes whether it stands.
func (c *Client) keepConnected(ctx context.Context, e *endpoint) {
	for {
		state := e.conn.GetState()
		if state == connectivity.Idle {
			e.conn.Connect()
		}
		c.mu.Lock()
		was := e.ready
		e.ready = state == connectivity.Ready
		switch {
		case e.ready:
			e.unreached = false
		case state == connectivity.TransientFailure:
			e.unreached = true
		}
		if was != e.ready {
			close(c.changed)
			c.changed = make(chan struct{})
		}
		c.mu.Unlock()
		if was != e.ready {
			c.options.Logger.Info("a connection to the group changed", slog.String("endpoint", e.address), slog.Bool("ready", e.ready))
		}
		if !e.conn.WaitForStateChange(ctx, state) {
			return
		}
	}
}

// pick returns the endpoint to ask next, of those that can be asked and were not tried; nil if there is none. Those that have failed are asked last.
func (c *Client) pick(k kind, tried map[*endpoint]bool) *endpoint {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := time.Now()
	usable := func(e *endpoint) bool { return e.ready && !tried[e] && !now.Before(e.rested) }
	if k.toLeader() && c.leader != "" {
		for _, e := range c.endpoints {
			if e.member == c.leader && usable(e) {
				return e
			}
		}
	}
	start := 0
	for i, e := range c.endpoints {
		if e == c.current {
			start = i
		}
	}
	var second *endpoint
	for i := range c.endpoints {
		e := c.endpoints[(start+i)%len(c.endpoints)]
		if usable(e) {
			if !k.toLeader() {
				c.current = e
			}
			return e
		}
		if e.ready && !tried[e] && (second == nil || e.rested.Before(second.rested)) {
			second = e
		}
	}
	if len(tried) > 0 {
		// Somebody was asked in this round already, and those that rest may rest.
		return nil
	}
	return second
}

// others says whether another endpoint than this one could be asked.
func (c *Client) others(than *endpoint) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, e := range c.endpoints {
		if e != than && e.ready {
			return true
		}
	}
	return false
}

// awaitReady waits until a connection stands.
func (c *Client) awaitReady(ctx context.Context) error {
	for {
		c.mu.Lock()
		changed, closed := c.changed, c.closed
		for _, e := range c.endpoints {
			if e.ready && !closed {
				c.mu.Unlock()
				return nil
			}
		}
		c.mu.Unlock()
		if closed {
			return errClientClosed
		}
		select {
		case <-changed:
		case <-c.ctx.Done():
			return errClientClosed
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// succeeded notes that a member answered.
func (c *Client) succeeded(e *endpoint) {
	c.mu.Lock()
	e.failures, e.rested = 0, time.Time{}
	c.mu.Unlock()
}

// failed notes that a member did not.
func (c *Client) failed(e *endpoint) {
	c.mu.Lock()
	defer c.mu.Unlock()
	rest := min(restLeast<<min(e.failures, 10), restMost)
	e.failures++
	e.rested = time.Now().Add(rest)
	if e.member != "" && e.member == c.leader {
		c.leader = ""
	}
}

// EndpointStatus is what a client knows of one endpoint.
type EndpointStatus struct {
	Address string
	// Member is the id of the member there, empty while that is not known.
	Member string
	// Ready says that the connection stands, and Leader that the member leads, as far as is known.
	Ready, Leader bool
	// Failures counts the calls in a row that it failed.
	Failures int
}

// Endpoints returns what the client knows of its endpoints.
func (c *Client) Endpoints() []EndpointStatus {
	c.mu.Lock()
	defer c.mu.Unlock()
	var all []EndpointStatus
	for _, e := range c.endpoints {
		all = append(all, EndpointStatus{
			Address: e.address, Member: e.member, Ready: e.ready, Leader: e.member != "" && e.member == c.leader, Failures: e.failures,
		})
	}
	return all
}
