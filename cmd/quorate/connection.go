package main

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"

	"quorate/pki"
	"quorate/rpc"
)

const (
	// maxEndpoints bounds --addr.
	maxEndpoints = 32
	// maxAttempts bounds how often one call is sent, whatever --timeout allows.
	maxAttempts = 200
	// maxUnreachedRounds bounds the rounds over endpoints of which none can even be connected to: nothing runs there.
	maxUnreachedRounds = 3
	// reachTimeout is how long one endpoint may take to accept a connection before the next is tried. A frozen process
	// still has its connections accepted by the kernel; only its missing HTTP/2 settings give it away.
	reachTimeout = 2 * time.Second
	// attemptTimeout is how long one endpoint may take to answer where there are others to ask.
	attemptTimeout = 4 * time.Second
	// leastAttempt is the least time in which one may answer: with less of it left, the call is not sent once more. Its answer
	// would come too late, and tell less than the one that is there.
	leastAttempt = 200 * time.Millisecond
	// firstPause and maxPause are the waits between two rounds over all endpoints; each is twice the one before.
	firstPause = 50 * time.Millisecond
	maxPause   = 500 * time.Millisecond
	// maxAnswerBytes bounds one answer. Members bound theirs at 2 MiB and one item (rpc.Limits).
	maxAnswerBytes = 16 << 20
)

// connection is a group as a client sees it: any of its members. It is a grpc.ClientConnInterface, so that the generated
// clients send each call to the first member that answers, and repeat what is safe to repeat.
type connection struct {
	endpoints []string
	members   []*grpc.ClientConn
	// current is the member that is asked first: the one that answered last. Many goroutines may call at a time.
	current atomic.Int64
	timeout time.Duration
	// pause is the wait after the first round over all endpoints.
	pause time.Duration
}

// connect prepares the connections; none is opened before the first call.
func (o *options) connect() (*connection, error) {
	transport, err := o.transportCredentials()
	if err != nil {
		return nil, err
	}
	c := &connection{endpoints: o.endpoints, timeout: o.timeout, pause: firstPause}
	for _, endpoint := range o.endpoints {
		// A proxy from the environment is not used: members are in the plant's own network.
		member, err := grpc.NewClient("passthrough:///"+endpoint,
			grpc.WithTransportCredentials(transport),
			grpc.WithNoProxy(),
			grpc.WithDisableServiceConfig(),
			grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxAnswerBytes)))
		if err != nil {
			c.Close()
			return nil, fmt.Errorf("--addr %s: %w", endpoint, err)
		}
		c.members = append(c.members, member)
	}
	return c, nil
}

// transportCredentials returns mutual TLS where certificates are given, and plain text, which only dev accepts, where
// none is.
func (o *options) transportCredentials() (credentials.TransportCredentials, error) {
	if o.caFile == "" && o.certFile == "" && o.keyFile == "" {
		return insecure.NewCredentials(), nil
	}
	for _, f := range []struct{ flag, value string }{{"cacert", o.caFile}, {"cert", o.certFile}, {"key", o.keyFile}} {
		if f.value == "" {
			return nil, fmt.Errorf("--%s: missing; --cacert, --cert and --key are given together", f.flag)
		}
	}
	loaded, err := pki.Load(o.certFile, o.keyFile, o.caFile)
	if err != nil {
		return nil, fmt.Errorf("load the certificates: %w", err)
	}
	return credentials.NewTLS(loaded.ClientTLS()), nil
}

// Close ends all connections.
func (c *connection) Close() {
	for _, member := range c.members {
		_ = member.Close()
	}
}

// Invoke sends one call, to one member after another until one gives an answer that is final.
func (c *connection) Invoke(ctx context.Context, method string, request, reply any, opts ...grpc.CallOption) error {
	ctx, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	failure := &remoteError{repeat: repeatFlags(request)}
	changes := !isRead(request)
	pause := c.pause
	at := int(c.current.Load())
	defer func() { c.current.Store(int64(at)) }()
	for attempt := 1; ; attempt++ {
		member, endpoint := c.members[at], c.endpoints[at]
		reached, err := c.attempt(ctx, member, method, request, reply, opts)
		if err == nil {
			return nil
		}
		outcome := judge(reached, err)
		if failure.err == nil || failure.unreached || reached && (answered(err) || !answered(failure.err) || outcome == ambiguous && changes) {
			// An answer says more than "no connection" or "no answer" of a later endpoint does, unless that leaves a change open.
			failure.endpoint, failure.err, failure.unreached = endpoint, err, !reached
		}
		mayRepeat := true
		switch outcome {
		case final:
			failure.unknown = false
			return failure
		case ambiguous:
			failure.unknown = failure.unknown || changes
			mayRepeat = !changes || failure.repeat != ""
		case notDone:
		}
		at = (at + 1) % len(c.members)
		round, complete := attempt/len(c.members), attempt%len(c.members) == 0
		if !mayRepeat || attempt == maxAttempts || (failure.unreached && round == maxUnreachedRounds) {
			return failure
		}
		next := leastAttempt
		if complete {
			next += pause
		}
		if ctx.Err() != nil || (!failure.unreached && left(ctx) < next) {
			return failure
		}
		if complete {
			if !sleep(ctx, pause) {
				return failure
			}
			pause = min(2*pause, maxPause)
		}
	}
}

// attempt sends the call to one member. reached tells whether the call may have arrived there.
func (c *connection) attempt(ctx context.Context, member *grpc.ClientConn, method string, request, reply any, opts []grpc.CallOption) (reached bool, err error) {
	if err := reach(ctx, member); err != nil {
		return false, err
	}
	if len(c.members) > 1 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, attemptTimeout)
		defer cancel()
	}
	limit := left(ctx)
	err = member.Invoke(ctx, method, request, reply, opts...)
	if err != nil && !answered(err) && outOfTime(ctx, err) {
		err = status.Errorf(codes.DeadlineExceeded, "no answer within %s", limit.Round(10*time.Millisecond))
	}
	return true, err
}

// left is the time until the deadline of a context that has one.
func left(ctx context.Context) time.Duration {
	deadline, _ := ctx.Deadline()
	return time.Until(deadline)
}

// answered says whether a member gave the error, and not the transport: members always give a reason.
func answered(err error) bool { return reasonOf(err) != "" }

// outOfTime says whether a call ended because its time was up. The transport words this in many ways, of which one is the
// server's: it resets the stream at the deadline, a moment before the client notices.
func outOfTime(ctx context.Context, err error) bool {
	code := status.Code(err)
	return code == codes.DeadlineExceeded || code == codes.Canceled && !errors.Is(ctx.Err(), context.Canceled)
}

// reach waits until the member's connection stands, so that a call that was never sent is told apart from one that was.
func reach(ctx context.Context, member *grpc.ClientConn) error {
	ctx, cancel := context.WithTimeout(ctx, reachTimeout)
	defer cancel()
	member.Connect()
	for {
		switch state := member.GetState(); state {
		case connectivity.Ready:
			return nil
		case connectivity.TransientFailure, connectivity.Shutdown:
			// The reason is known only to a call: one that does not wait returns it without being sent.
			_, err := healthpb.NewHealthClient(member).Check(ctx, &healthpb.HealthCheckRequest{})
			member.ResetConnectBackoff()
			return err
		default:
			if !member.WaitForStateChange(ctx, state) {
				return status.Error(codes.Unavailable, "no answer to the connection")
			}
		}
	}
}

// NewStream opens a stream at the first member that can be reached. A broken stream is for the caller to resume, at another member: each stream
// begins its search one further.
func (c *connection) NewStream(ctx context.Context, desc *grpc.StreamDesc, method string, opts ...grpc.CallOption) (grpc.ClientStream, error) {
	first := int(c.current.Load())
	var last error
	for i := range c.members {
		at := (first + i) % len(c.members)
		if last = reach(ctx, c.members[at]); last == nil {
			c.current.Store(int64((at + 1) % len(c.members)))
			return c.members[at].NewStream(ctx, desc, method, opts...)
		}
	}
	return nil, &remoteError{endpoint: c.endpoints[(first+len(c.members)-1)%len(c.members)], unreached: true, err: last}
}

// verdict says what a failed attempt means for the change that it asked for.
type verdict int

const (
	// final: an answer that no other member would give differently.
	final verdict = iota
	// notDone: certainly not done, and another attempt may succeed.
	notDone
	// ambiguous: may be done. It is repeated only under the same request id.
	ambiguous
)

func judge(reached bool, err error) verdict {
	if !reached {
		return notDone
	}
	st := status.Convert(err)
	reason := errorInfo(st).GetReason()
	switch {
	case reason == rpc.ReasonUnknownOutcome:
		return ambiguous
	case st.Code() == codes.Unavailable && reason == "":
		return ambiguous
	case st.Code() == codes.Unavailable:
		return notDone
	case st.Code() == codes.DeadlineExceeded || st.Code() == codes.Canceled:
		return ambiguous
	case st.Code() == codes.ResourceExhausted && asksToRetry(st):
		return notDone
	default:
		return final
	}
}

func asksToRetry(st *status.Status) bool {
	for _, detail := range st.Details() {
		if _, ok := detail.(*errdetails.RetryInfo); ok {
			return true
		}
	}
	return false
}

// repeatFlags returns the flags under which a change may be sent once more without being done twice; empty where there is
// no such way.
func repeatFlags(request any) string {
	r, ok := request.(interface{ GetRequestId() string })
	if !ok || r.GetRequestId() == "" {
		return ""
	}
	flags := "--request-id " + r.GetRequestId()
	if e, ok := request.(interface{ GetExpectedGeneration() uint64 }); ok {
		flags += fmt.Sprintf(" --expect %d", e.GetExpectedGeneration())
	}
	if e, ok := request.(interface{ GetExpectedEpoch() uint64 }); ok && e.GetExpectedEpoch() != 0 {
		flags += fmt.Sprintf(" --expect-epoch %d", e.GetExpectedEpoch())
	}
	return flags
}

// sleep waits, and returns false if the context ended first.
func sleep(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}
