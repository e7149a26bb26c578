package rpc

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"buf.build/go/protovalidate"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/protoadapt"
	"google.golang.org/protobuf/types/known/durationpb"

	"quorate/fsm"
	"quorate/node"
	"quorate/pki"
	logv1 "quorate/proto/quorate/log/v1"
)

// Domain is that of every google.rpc.ErrorInfo of Quorate.
const Domain = "quorate"

// Reasons of google.rpc.ErrorInfo that this package gives; refusals of the state machine bring their own (package fsm).
// They are stable: clients compare them.
const (
	ReasonInvalidArgument  = "INVALID_ARGUMENT"
	ReasonUnauthenticated  = "UNAUTHENTICATED"
	ReasonPermissionDenied = "PERMISSION_DENIED" // metadata: role, needed
	ReasonCompacted        = "COMPACTED"         // metadata: revision, the one to list from
	ReasonTooManyCalls     = "TOO_MANY_CALLS"
	ReasonTooManyWatches   = "TOO_MANY_WATCHES"
	ReasonTooManyRenewals  = "TOO_MANY_RENEWALS"
	ReasonTooManyStreams   = "TOO_MANY_STREAMS"
	ReasonAnswerTooLarge   = "ANSWER_TOO_LARGE"
	ReasonShuttingDown     = "SHUTTING_DOWN"
	ReasonInternal         = "INTERNAL"
	ReasonCanceled         = "CANCELED"
	ReasonDeadline         = "DEADLINE_EXCEEDED"
	// ReasonUnknownOutcome: the change may have happened, may still happen, or never will. Sending it again with the same
	// request id is safe and finds out.
	ReasonUnknownOutcome = "UNKNOWN_OUTCOME"
	ReasonNoLeader       = "NO_LEADER"
	ReasonOverloaded     = "OVERLOADED"
	ReasonDiverged       = "DIVERGED"
	ReasonNotVoter       = "NOT_VOTER"
	ReasonStale          = "STALE"
	ReasonNotReady       = "NOT_READY"
	ReasonStorage        = "STORAGE"
)

// failure is what a failed call is called in gRPC.
type failure struct {
	code   codes.Code
	reason string
	// retry is after what time asking again makes sense, 0 where it does not.
	retry time.Duration
}

// failures says what each kind of failure of the group is called. Unavailable with a reason means that nothing was
// changed and that asking again, perhaps another member, helps.
var failures = map[node.ErrorKind]failure{
	node.NoLeader:       {codes.Unavailable, ReasonNoLeader, 200 * time.Millisecond},
	node.NotLeader:      {codes.Unavailable, ReasonNoLeader, 200 * time.Millisecond},
	node.UnknownOutcome: {codes.Unknown, ReasonUnknownOutcome, 200 * time.Millisecond},
	node.Overloaded:     {codes.ResourceExhausted, ReasonOverloaded, 100 * time.Millisecond},
	node.Shutdown:       {codes.Unavailable, ReasonShuttingDown, time.Second},
	node.Diverged:       {codes.Unavailable, ReasonDiverged, 0},
	node.Deadline:       {codes.DeadlineExceeded, ReasonDeadline, 0},
	node.NotVoter:       {codes.FailedPrecondition, ReasonNotVoter, 0},
	node.Stale:          {codes.Unavailable, ReasonStale, time.Second},
	node.Invalid:        {codes.InvalidArgument, ReasonInvalidArgument, 0},
	node.NotReady:       {codes.FailedPrecondition, ReasonNotReady, time.Second},
	node.StorageFailed:  {codes.Unavailable, ReasonStorage, 0},
}

// retryRefusal is after what time a refusal may be gone by itself.
var retryRefusal = map[string]time.Duration{
	fsm.ReasonApplyInProgress: time.Second,
	fsm.ReasonGatesNotClosed:  200 * time.Millisecond,
}

// retryAfter is after what time a refusal may be gone by itself, 0 where it will not.
func retryAfter(r *fsm.Refusal) time.Duration {
	if r.GetReason() == fsm.ReasonBarrierPending {
		// It is known exactly. A detail that is no duration is none that this version knows.
		if left, err := time.ParseDuration(r.GetDetails()["remaining"]); err == nil {
			return left
		}
	}
	return retryRefusal[r.GetReason()]
}

// invalidError is a field that the caller got wrong, found before anything was proposed.
type invalidError struct{ field, message string }

func (e *invalidError) Error() string { return e.field + ": " + e.message }

func invalid(field, format string, args ...any) error {
	return &invalidError{field: field, message: fmt.Sprintf(format, args...)}
}

// toStatus is the one place where errors become gRPC statuses. What it doesn't know is an internal error, whose text
// stays in the log (known is false).
func toStatus(err error) (st *status.Status, known bool) {
	var (
		refusal   *fsm.Refusal
		failed    *node.Error
		compacted *node.CompactedError
		field     *invalidError
		fields    *protovalidate.ValidationError
		own       interface{ GRPCStatus() *status.Status }
	)
	switch {
	case errors.As(err, &refusal):
		return refusalStatus(refusal), true
	case errors.As(err, &compacted):
		return newStatus(failure{code: codes.OutOfRange, reason: ReasonCompacted}, err.Error(),
			map[string]string{"revision": strconv.FormatUint(compacted.Revision, 10)}), true
	case errors.As(err, &field):
		return newStatus(failure{code: codes.InvalidArgument, reason: ReasonInvalidArgument}, err.Error(), nil,
			violation(field.field, field.message, ReasonInvalidArgument)), true
	case errors.As(err, &fields):
		return validationStatus(fields), true
	case errors.As(err, &failed) && failures[failed.Kind].reason != "":
		return newStatus(failures[failed.Kind], failureMessage(failed), nil), true
	case errors.As(err, &own):
		// This comes after the group's failures, because one of those may wrap the status of a call between members.
		return own.GRPCStatus(), true
	case errors.Is(err, context.Canceled):
		return newStatus(failure{code: codes.Canceled, reason: ReasonCanceled}, err.Error(), nil), true
	case errors.Is(err, context.DeadlineExceeded):
		return newStatus(failure{code: codes.DeadlineExceeded, reason: ReasonDeadline}, err.Error(), nil), true
	}
	return newStatus(failure{code: codes.Internal, reason: ReasonInternal}, "internal error; the member's log has more", nil), false
}

func failureMessage(e *node.Error) string {
	if e.Kind == node.UnknownOutcome {
		return e.Error() + ": the change may have happened; send it again with the same request id to find out"
	}
	return e.Error()
}

func refusalStatus(r *fsm.Refusal) *status.Status {
	f := failure{
		code: codes.Code(fsm.Codes(r.GetKind()).GRPC), reason: r.GetReason(), retry: retryAfter(r),
	}
	if r.GetField() == "" {
		return newStatus(f, r.Error(), r.GetDetails())
	}
	return newStatus(f, r.Error(), r.GetDetails(), violation(r.GetField(), r.GetMessage(), r.GetReason()))
}

func validationStatus(e *protovalidate.ValidationError) *status.Status {
	var violations []*errdetails.BadRequest_FieldViolation
	for _, v := range e.Violations {
		violations = append(violations,
			violation(protovalidate.FieldPathString(v.Proto.GetField()), v.Proto.GetMessage(), ReasonInvalidArgument))
	}
	message := "the request is not valid"
	if len(violations) > 0 {
		message = violations[0].GetField() + ": " + violations[0].GetDescription()
	}
	return newStatus(failure{code: codes.InvalidArgument, reason: ReasonInvalidArgument}, message, nil, violations...)
}

func violation(field, description, reason string) *errdetails.BadRequest_FieldViolation {
	return &errdetails.BadRequest_FieldViolation{Field: field, Description: description, Reason: reason}
}

func newStatus(f failure, message string, facts map[string]string, fields ...*errdetails.BadRequest_FieldViolation) *status.Status {
	details := []protoadapt.MessageV1{&errdetails.ErrorInfo{Reason: f.reason, Domain: Domain, Metadata: facts}}
	if len(fields) > 0 {
		details = append(details, &errdetails.BadRequest{FieldViolations: fields})
	}
	if f.retry > 0 {
		details = append(details, &errdetails.RetryInfo{RetryDelay: durationpb.New(f.retry)})
	}
	st := status.New(f.code, message)
	if detailed, err := st.WithDetails(details...); err == nil {
		return detailed
	}
	// Details that don't encode, such as text that is not UTF-8, shall not cost the caller the code.
	return st
}

func unauthenticated(message string) error {
	return newStatus(failure{code: codes.Unauthenticated, reason: ReasonUnauthenticated}, message, nil).Err()
}

func permissionDenied(c caller, method string, needed pki.Role) error {
	return newStatus(failure{code: codes.PermissionDenied, reason: ReasonPermissionDenied},
		fmt.Sprintf("%s: %s %q may not; it takes the role %s", method, c.actor().GetRole(), c.name, needed),
		map[string]string{"role": c.role.String(), "needed": needed.String()}).Err()
}

func exhausted(reason, message string) error {
	return newStatus(failure{code: codes.ResourceExhausted, reason: reason, retry: 100 * time.Millisecond}, message, nil).Err()
}

func shuttingDown() error {
	return newStatus(failures[node.Shutdown], "this member is shutting down", nil).Err()
}

// refused returns the refusal in an outcome as an error, nil if there is none.
func refused(o *logv1.Outcome) error {
	if r := fsm.RefusalOf(o); r != nil {
		return r
	}
	return nil
}
