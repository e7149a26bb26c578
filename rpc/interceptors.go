package rpc

import (
	"context"
	"crypto/rand"
	"log/slog"
	"runtime/debug"
	"sync/atomic"
	"time"
	"unicode/utf8"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"

	"quorate/fsm"
)

// requestIDKey is the metadata that carries a request id where the request has no field for it, for the audit and the log;
// the id is echoed in the header of the answer, as is one that was made here. In REST it is the header X-Request-Id, which also
// fills a field that the body leaves empty (fillRequestID), and every answer has it.
const requestIDKey = "x-request-id"

// call is what the interceptors found out about a call.
type call struct {
	method string
	// rule is the method's row in the table of roles, the zero one if it has none.
	rule      rule
	caller    caller
	requestID string
}

// unary is the way of every unary call. Its steps are in this order for a reason: what is outside sees what the inside
// answers, so recovery covers all, errors are statuses before they are audited, and a caller who may not is in the audit.
func (s *Server) unary(ctx context.Context, request any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (response any, err error) {
	c := &call{method: info.FullMethod, rule: rules[info.FullMethod]}
	defer func() {
		err = s.answer(c, err)
		if c.rule.changes {
			s.audit(c, request, response, err)
		}
	}()
	defer s.recover(c, &err)

	inFlight, err := s.acquire(c.rule.kind)
	if err != nil {
		return nil, err
	}
	defer inFlight.Add(-1)
	ctx, cancel := s.deadline(ctx)
	defer cancel()
	var news bool
	if c.requestID, news = requestID(ctx, request, c.rule.changes); news {
		// It fails only where there is no stream to set it on, which no caller could be told anyway.
		_ = grpc.SetHeader(ctx, metadata.Pairs(requestIDKey, c.requestID))
	}
	if ctx, err = s.admit(ctx, c); err != nil {
		return nil, err
	}
	if err := s.validate(request); err != nil {
		return nil, err
	}
	return handler(ctx, request)
}

// stream is the way of every streaming call. It has no deadline of its own, ends when the server stops, and changes
// nothing.
func (s *Server) stream(server any, raw grpc.ServerStream, info *grpc.StreamServerInfo, handler grpc.StreamHandler) (err error) {
	c := &call{method: info.FullMethod, rule: rules[info.FullMethod]}
	defer func() { err = s.answer(c, err) }()
	defer s.recover(c, &err)

	inFlight, err := s.acquire(c.rule.kind)
	if err != nil {
		return err
	}
	defer inFlight.Add(-1)
	ctx, cancel := context.WithCancelCause(raw.Context())
	defer cancel(nil)
	defer context.AfterFunc(s.stopping, func() { cancel(shuttingDown()) })()
	if ctx, err = s.admit(ctx, c); err != nil {
		return err
	}
	err = handler(server, &checkedStream{ServerStream: raw, ctx: ctx, server: s})
	if s.stopping.Err() != nil && raw.Context().Err() == nil {
		// Whatever the handler made of its end, this is why.
		return shuttingDown()
	}
	return err
}

// admit finds out who calls, and whether they may.
func (s *Server) admit(ctx context.Context, c *call) (context.Context, error) {
	var err error
	if c.caller, err = identify(ctx, s.config.Now()); err != nil {
		return nil, err
	}
	if err := c.authorize(); err != nil {
		return nil, err
	}
	return withCaller(ctx, c.caller), nil
}

// A call ends here this long before the deadline of its caller, so that the answer, which says what it waited for in vain,
// is there in time: for a caller who gave up first it would be a broken call with an unknown outcome. Of a short deadline it
// is one part in answerShare at most.
const (
	answerMargin = 100 * time.Millisecond
	answerShare  = 4
)

// deadline gives a call without one the default, and shortens one that is too far away.
func (s *Server) deadline(ctx context.Context) (context.Context, context.CancelFunc) {
	limit := s.config.Limits.MaxDeadline
	if deadline, ok := ctx.Deadline(); ok {
		left := time.Until(deadline)
		limit = min(limit, left-min(answerMargin, left/answerShare))
	} else {
		limit = min(limit, s.config.Limits.DefaultDeadline)
	}
	return context.WithTimeout(ctx, limit)
}

// recover turns a panic into an internal error: one call's bug shall not take a member out of the group.
func (s *Server) recover(c *call, err *error) {
	cause := recover()
	if cause == nil {
		return
	}
	s.panics.Add(1)
	s.config.Logger.Error("a call panicked", slog.String("method", c.method), slog.String("requestId", c.requestID),
		slog.Any("cause", cause), slog.String("stack", string(debug.Stack())))
	*err = newStatus(failure{code: codes.Internal, reason: ReasonInternal}, "internal error; the member's log has more", nil).Err()
}

// answer makes a status of an error, and logs what callers are not told.
func (s *Server) answer(c *call, err error) error {
	if err == nil {
		return nil
	}
	st, known := toStatus(err)
	if !known {
		s.config.Logger.Error("a call failed", slog.String("method", c.method), slog.String("requestId", c.requestID), slog.Any("error", err))
	}
	return st.Err()
}

// acquire counts a call in, among those of its kind, and returns the count, which is to be lowered at its end.
func (s *Server) acquire(k kind) (inFlight *atomic.Int64, err error) {
	limits := &s.config.Limits
	inFlight, limit, reason := &s.calls, limits.MaxCalls, ReasonTooManyCalls
	switch k {
	case kindWatch:
		inFlight, limit, reason = &s.watches, limits.MaxWatches, ReasonTooManyWatches
	case kindRenewal:
		inFlight, limit, reason = &s.renewals, limits.MaxRenewals, ReasonTooManyRenewals
	case kindQuestions:
		inFlight, limit, reason = &s.questions, limits.MaxQuestionStreams, ReasonTooManyStreams
	}
	if inFlight.Add(1) > int64(limit) {
		inFlight.Add(-1)
		return nil, exhausted(reason, "this member has as many calls of this sort in flight as it takes")
	}
	return inFlight, nil
}

// requestID returns the id in the request, or else in the metadata. A change always has one, so that its audit record
// can be found again. It is news, and echoed, unless the request alone had it: a header for each answer costs both sides more than it tells.
func requestID(ctx context.Context, request any, changes bool) (id string, news bool) {
	values := metadata.ValueFromIncomingContext(ctx, requestIDKey)
	if r, ok := request.(interface{ GetRequestId() string }); ok && usableID(r.GetRequestId()) {
		return r.GetRequestId(), len(values) > 0
	}
	if len(values) == 1 && usableID(values[0]) {
		return values[0], true
	}
	if changes {
		return rand.Text(), true
	}
	return "", false
}

// usableID says whether an id may go into metadata and logs, as the rules of the messages have it (^[ -~]{1,128}$); what else is wrong with it, validation says.
func usableID(id string) bool {
	if id == "" || len(id) > fsm.MaxRequestIDBytes || !utf8.ValidString(id) {
		return false
	}
	for i := range len(id) {
		if id[i] < ' ' || id[i] > '~' {
			return false
		}
	}
	return true
}

// checkedStream validates what comes in, and has the context that ends when the server stops.
type checkedStream struct {
	grpc.ServerStream
	ctx    context.Context
	server *Server
}

// Context implements grpc.ServerStream.
func (s *checkedStream) Context() context.Context { return s.ctx }

// RecvMsg implements grpc.ServerStream.
func (s *checkedStream) RecvMsg(message any) error {
	if err := s.ServerStream.RecvMsg(message); err != nil {
		return err
	}
	// A stream may go on for long, and each of its questions is as a call of its own to whoever may no longer ask.
	if _, err := identify(s.ctx, s.server.config.Now()); err != nil {
		return err
	}
	return s.server.validate(message)
}
