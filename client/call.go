package client

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"maps"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	quoratev1 "quorate/proto/quorate/v1"
)

const (
	// pauseLeast and pauseMost are the pauses between two rounds in which each member was asked once; each is twice the one before, and up to a half longer.
	pauseLeast = 20 * time.Millisecond
	pauseMost  = 500 * time.Millisecond
	// leastAttempt is the least time in which a member may answer: with less of it left, a call is not sent once more. The answer would come too
	// late, and tell less than the one that is there.
	leastAttempt = 100 * time.Millisecond
)

// kind is how a call may be repeated, and whom it is sent to.
type kind int

const (
	// read may be sent to any member, again and again.
	read kind = iota
	// change is sent to the leader, and after a failure that leaves its outcome open again under the same request id.
	change
	// once is a change without request id: it is sent again only where it certainly was not done.
	once
	// renewal is the question for a gate lease: it is sent to the leader, which keeps it for a while, and again where that fails.
	renewal
)

func (k kind) toLeader() bool { return k != read }

// kindOf says how a call may be repeated, by the form that all requests of quorate.v1 have.
func kindOf(method string, request any) kind {
	switch method {
	case quoratev1.GateService_RenewGate_FullMethodName:
		return renewal
	case quoratev1.TopologyService_PlanTopology_FullMethodName, healthpb.Health_Check_FullMethodName, healthpb.Health_List_FullMethodName:
		return read
	}
	switch request.(type) {
	case interface{ GetRequestId() string }:
		return change
	case interface{ GetRead() *quoratev1.ReadOptions }:
		return read
	}
	return once
}

// Invoke sends one call, to one member after another until one gives an answer that is final or ctx ends. Its error is an *Error. It implements
// grpc.ClientConnInterface.
func (c *Client) Invoke(ctx context.Context, method string, request, reply any, opts ...grpc.CallOption) error {
	if _, bounded := ctx.Deadline(); !bounded {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, c.options.Timeout)
		defer cancel()
	}
	a := &attempts{client: c, kind: kindOf(method, request), tried: map[*endpoint]bool{}, pause: pauseLeast}
	if a.kind == change {
		request, a.requestID = withRequestID(request)
	}
	for {
		e, err := a.next(ctx)
		if err != nil {
			return a.give(err)
		}
		a.began = time.Now()
		err = a.send(ctx, e, method, request, reply, opts)
		if err == nil {
			c.learn(a.kind, e, reply)
			return nil
		}
		if final := a.judge(ctx, e, err); final != nil {
			return a.give(final)
		}
	}
}

// withRequestID returns the request with its id, which is made up if there is none. The caller's own request stays as it is: if he sends it again, he means
// another change.
func withRequestID(request any) (any, string) {
	if id := request.(interface{ GetRequestId() string }).GetRequestId(); id != "" {
		return request, id
	}
	m, ok := request.(proto.Message)
	if !ok {
		return request, ""
	}
	id := rand.Text()
	m = proto.Clone(m)
	m.ProtoReflect().Set(m.ProtoReflect().Descriptor().Fields().ByName("request_id"), protoreflect.ValueOfString(id))
	return m, id
}

// attempts are those of one call.
type attempts struct {
	client    *Client
	kind      kind
	requestID string
	// tried has the endpoints that were asked since the last pause.
	tried map[*endpoint]bool
	pause time.Duration
	// began is when the last attempt did.
	began time.Time
	// last is the failure that tells the caller most, and delay how long that member asked to wait.
	last  *Error
	delay time.Duration
	// unknown says that an attempt may have done what was asked for.
	unknown bool
}

// next returns whom to ask next, after a pause if everybody was asked.
func (a *attempts) next(ctx context.Context) (*endpoint, error) {
	for {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		if a.client.ctx.Err() != nil {
			return nil, errClientClosed
		}
		if a.last != nil && left(ctx) < leastAttempt {
			return nil, context.DeadlineExceeded
		}
		if e := a.client.pick(a.kind, a.tried); e != nil {
			a.tried[e] = true
			return e, nil
		}
		if len(a.tried) == 0 {
			if err := a.client.awaitReady(ctx); err != nil {
				return nil, err
			}
			continue
		}
		clear(a.tried)
		pause := max(a.pause, min(a.delay, pauseMost))
		a.pause = min(2*a.pause, pauseMost)
		if a.last != nil && left(ctx) < pause+leastAttempt {
			return nil, context.DeadlineExceeded
		}
		rest(ctx, pause)
	}
}

// left is the time until the deadline of a context that has one.
func left(ctx context.Context) time.Duration {
	deadline, ok := ctx.Deadline()
	if !ok {
		return time.Hour
	}
	return time.Until(deadline)
}

// send asks one member.
func (a *attempts) send(ctx context.Context, e *endpoint, method string, request, reply any, opts []grpc.CallOption) error {
	if a.kind != once && a.client.others(e) {
		limit := a.client.options.AttemptTimeout
		if a.kind == read {
			// So a caller in a hurry, too, has time for another member if the first is frozen.
			limit = min(limit, left(ctx)/2)
		}
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, limit)
		defer cancel()
	}
	return e.conn.Invoke(ctx, method, request, reply, opts...)
}

// verdict says what a failed attempt means for the change that it asked for.
type verdict int

const (
	// final: an answer that no other member would give differently.
	final verdict = iota
	// busy: certainly not done, and the member asks to come again.
	busy
	// notDone: certainly not done, and another member may do it.
	notDone
	// ambiguous: may be done.
	ambiguous
)

func verdictOf(e *Error) verdict {
	switch {
	case e.Reason == ReasonUnknownOutcome:
		return ambiguous
	case e.Code == codes.Unavailable && e.answered():
		return notDone
	case e.Code == codes.Unavailable, e.Code == codes.DeadlineExceeded, e.Code == codes.Canceled:
		return ambiguous
	case e.Code == codes.ResourceExhausted && e.RetryDelay > 0:
		return busy
	}
	return final
}

// judge notes a failed attempt, and returns the error if there is to be no other.
func (a *attempts) judge(ctx context.Context, e *endpoint, err error) error {
	failure := errorFrom(status.Convert(err), err)
	failure.Endpoint = e.address
	v := verdictOf(failure)
	if v == final && a.unknown && failure.Reason == ReasonNotYetSupported {
		// The group says so before it looks for the request id, as while a member that joins has not told its version yet: of the attempt before it says nothing.
		v = notDone
	}
	if v == final {
		a.unknown = false
		a.last = failure
		a.client.succeeded(e)
		return failure
	}
	if ctx.Err() == nil && v == ambiguous && !failure.answered() && failure.Code != codes.Unavailable {
		failure.Message = "the member did not answer in time"
	}
	a.delay = failure.RetryDelay
	if a.last == nil || failure.answered() || !a.last.answered() || v == ambiguous && a.kind != read {
		// An answer says more than the lack of one from a later member, unless that leaves a change open.
		a.last = failure
	}
	// A caller who had no time to wait for an answer knows nothing of the member.
	hurried := ctx.Err() != nil && (errors.Is(ctx.Err(), context.Canceled) || time.Since(a.began) < leastAttempt)
	if v != busy && !hurried {
		a.client.failed(e)
	}
	if v == ambiguous && (a.kind == change || a.kind == once) {
		a.unknown = true
		if a.kind == once || a.requestID == "" {
			return failure
		}
	}
	return nil
}

// give returns what the caller is told.
func (a *attempts) give(err error) error {
	e := a.last
	var none *Error
	switch {
	case errors.As(err, &none):
		e = none
	case e == nil:
		e = ended(err, a.client.unreachable(err))
	default:
		e.cause = errors.Join(err, e.cause)
	}
	if a.kind == change {
		e.RequestID = a.requestID
	}
	if a.unknown {
		e.OutcomeUnknown = true
		e.Code, e.Reason = codes.Unknown, ReasonUnknownOutcome
		e.Message = "the outcome is unknown, the change may have happened: " + e.Message
		e.status = status.New(e.Code, e.Message)
	}
	return e
}

// unreachable says why nobody could be asked.
func (c *Client) unreachable(err error) string {
	if errors.Is(err, errClientClosed) {
		return "the client is closed"
	}
	c.mu.Lock()
	var e *endpoint
	for _, candidate := range c.endpoints {
		if e == nil || candidate.unreached {
			e = candidate
		}
	}
	unreached := e.unreached
	c.mu.Unlock()
	cause := "no connection yet"
	if unreached {
		// The reason is known only to a call: one that does not wait returns it without being sent.
		ctx, cancel := context.WithTimeout(context.Background(), leastAttempt)
		defer cancel()
		_, err := healthpb.NewHealthClient(e.conn).Check(ctx, &healthpb.HealthCheckRequest{})
		cause = status.Convert(err).Message()
	}
	return fmt.Sprintf("no member could be reached, such as %s: %s", e.address, cause)
}

// NewStream opens a stream at the first member that can be reached. One that breaks is for the caller to open again: only he knows how far he was.
// It implements grpc.ClientConnInterface.
func (c *Client) NewStream(ctx context.Context, desc *grpc.StreamDesc, method string, opts ...grpc.CallOption) (grpc.ClientStream, error) {
	stream, _, err := c.stream(ctx, nil, desc, method, opts...)
	return stream, err
}

// stream opens a stream at the first member that can be reached and is not one of those.
func (c *Client) stream(ctx context.Context, but map[*endpoint]bool, desc *grpc.StreamDesc, method string, opts ...grpc.CallOption) (grpc.ClientStream, *endpoint, error) {
	opening, cancel := ctx, context.CancelFunc(func() {})
	if _, bounded := ctx.Deadline(); !bounded {
		opening, cancel = context.WithTimeout(ctx, c.options.Timeout)
	}
	defer cancel()
	a := &attempts{client: c, kind: read, tried: maps.Clone(but), pause: pauseLeast}
	if a.tried == nil {
		a.tried = map[*endpoint]bool{}
	}
	for {
		e, err := a.next(opening)
		if err != nil {
			return nil, nil, a.give(err)
		}
		stream, err := e.conn.NewStream(ctx, desc, method, opts...)
		if err == nil {
			return &clientStream{ClientStream: stream, caller: ctx, client: c, endpoint: e}, e, nil
		}
		a.began = time.Now()
		if final := a.judge(ctx, e, err); final != nil {
			return nil, nil, a.give(final)
		}
	}
}

// clientStream makes an *Error of what ends a stream, and remembers of which member it is.
type clientStream struct {
	grpc.ClientStream
	// caller is the context that the stream was opened with; its own ends with it.
	caller   context.Context
	client   *Client
	endpoint *endpoint
}

// RecvMsg implements grpc.ClientStream.
func (s *clientStream) RecvMsg(m any) error {
	err := s.ClientStream.RecvMsg(m)
	if err == nil {
		s.client.succeeded(s.endpoint)
		return nil
	}
	st, ok := status.FromError(err)
	if !ok {
		return err // io.EOF: the end.
	}
	e := errorFrom(st, err)
	e.Endpoint = s.endpoint.address
	if v := verdictOf(e); v != final && v != busy && s.caller.Err() == nil {
		s.client.failed(s.endpoint)
	}
	return e
}
