package client

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// Reasons that programs act on; ReasonOf returns them. There are more (docs of the API), all of them stable.
const (
	// ReasonUnknownOutcome: the change may have happened, may still happen, or never will. A call with the same request id finds out.
	ReasonUnknownOutcome = "UNKNOWN_OUTCOME"
	// ReasonNotYetSupported: a member of an older version, or one that joins and has not told its version yet, might not know this change.
	ReasonNotYetSupported  = "COMMAND_NOT_YET_SUPPORTED"
	ReasonNoLeader         = "NO_LEADER"
	ReasonInvalidArgument  = "INVALID_ARGUMENT"
	ReasonPermissionDenied = "PERMISSION_DENIED"
	ReasonCompacted        = "COMPACTED"

	ReasonGenerationConflict = "GENERATION_CONFLICT" // details: current_generation
	ReasonApplyInProgress    = "APPLY_IN_PROGRESS"   // details: server

	ReasonUnknownPartition     = "UNKNOWN_PARTITION"
	ReasonPartitionExists      = "PARTITION_EXISTS"
	ReasonAlreadyMigrating     = "ALREADY_MIGRATING" // details: current_epoch, to
	ReasonNotMigrating         = "NOT_MIGRATING"     // details: current_epoch
	ReasonNotDraining          = "NOT_DRAINING"      // details: current_epoch
	ReasonNotCutover           = "NOT_CUTOVER"       // details: current_epoch
	ReasonSamePlacement        = "SAME_PLACEMENT"
	ReasonStaleEpoch           = "STALE_EPOCH"     // details: current_epoch, phase
	ReasonBarrierPending       = "BARRIER_PENDING" // details: remaining
	ReasonVerificationRequired = "VERIFICATION_REQUIRED"

	ReasonUnknownMember   = "UNKNOWN_MEMBER"
	ReasonUnknownInstance = "UNKNOWN_INSTANCE"
	ReasonStaleSession    = "STALE_SESSION"
	ReasonInstanceTaken   = "INSTANCE_TAKEN"
)

// errClientClosed means that the client was closed.
var errClientClosed = errors.New("client: it is closed")

// FieldViolation is a field of a request that is wrong.
type FieldViolation struct {
	Field, Description, Reason string
}

// Error is a call that members refused, failed, or never answered.
type Error struct {
	Code codes.Code
	// Reason is stable, so that programs can compare it; empty where no member answered.
	Reason  string
	Message string
	// Details has the values that go with the reason, such as current_epoch.
	Details map[string]string
	// Fields says which fields of the request are wrong.
	Fields []FieldViolation
	// RetryDelay is after what time the same call may succeed, 0 where it won't by itself.
	RetryDelay time.Duration
	// Endpoint is the address of the member that was asked last, empty if none was.
	Endpoint string
	// RequestID is that of the change, empty of a read.
	RequestID string
	// OutcomeUnknown says that the change may have happened all the same. A call with the same request id finds out.
	OutcomeUnknown bool

	status *status.Status
	cause  error
}

// AsError returns what is known of a failed call, whatever it was wrapped in; nil if err is none of a call.
func AsError(err error) *Error {
	var e *Error
	if errors.As(err, &e) {
		return e
	}
	var st interface{ GRPCStatus() *status.Status }
	if errors.As(err, &st) {
		return errorFrom(st.GRPCStatus(), err)
	}
	return nil
}

// ReasonOf returns the stable reason of a failed call, empty if there is none.
func ReasonOf(err error) string {
	if e := AsError(err); e != nil {
		return e.Reason
	}
	return ""
}

// errorFrom reads what members put into a status.
func errorFrom(st *status.Status, cause error) *Error {
	e := &Error{Code: st.Code(), Message: st.Message(), status: st, cause: cause}
	for _, detail := range st.Details() {
		switch d := detail.(type) {
		case *errdetails.ErrorInfo:
			e.Reason, e.Details = d.GetReason(), d.GetMetadata()
		case *errdetails.RetryInfo:
			e.RetryDelay = d.GetRetryDelay().AsDuration()
		case *errdetails.BadRequest:
			for _, v := range d.GetFieldViolations() {
				e.Fields = append(e.Fields, FieldViolation{Field: v.GetField(), Description: v.GetDescription(), Reason: v.GetReason()})
			}
		}
	}
	return e
}

// CurrentEpoch returns the epoch that a partition has, where the refusal says so.
func (e *Error) CurrentEpoch() (epoch uint64, known bool) {
	epoch, err := strconv.ParseUint(e.Details["current_epoch"], 10, 64)
	return epoch, err == nil
}

// Remaining returns what is left of the drain barrier, where the refusal says so.
func (e *Error) Remaining() (left time.Duration, known bool) {
	left, err := time.ParseDuration(e.Details["remaining"])
	return left, err == nil
}

// Error implements error: what happened, and what the caller needs to act on it, in one line.
func (e *Error) Error() string {
	var facts []string
	if e.Reason != "" {
		facts = append(facts, "reason "+e.Reason)
	} else {
		facts = append(facts, "code "+e.Code.String())
	}
	for _, v := range e.Fields {
		if !strings.HasPrefix(e.Message, v.Field+": ") {
			facts = append(facts, fmt.Sprintf("field %s: %s", v.Field, v.Description))
		}
	}
	for _, name := range slices.Sorted(maps.Keys(e.Details)) {
		facts = append(facts, name+" "+e.Details[name])
	}
	if e.Endpoint != "" {
		facts = append(facts, "asked "+e.Endpoint)
	}
	if e.RequestID != "" {
		facts = append(facts, "request id "+e.RequestID)
	}
	return fmt.Sprintf("client: %s (%s)", e.Message, strings.Join(facts, ", "))
}

// Unwrap returns what the error was made of; among it the context's error, where that ended the attempts.
func (e *Error) Unwrap() error { return e.cause }

// GRPCStatus lets status.Code and status.Convert see what the member said.
func (e *Error) GRPCStatus() *status.Status { return e.status }

// answered says whether a member gave the error, and not the transport: members always give a reason.
func (e *Error) answered() bool { return e.Reason != "" }

// ended is the error of a call that the context ended, or the closing of the client, before anybody could be asked.
func ended(err error, message string) *Error {
	code := codes.DeadlineExceeded
	switch {
	case errors.Is(err, context.Canceled):
		code = codes.Canceled
	case errors.Is(err, errClientClosed):
		code = codes.Canceled
	}
	return &Error{Code: code, Message: message, status: status.New(code, message), cause: err}
}
