package rpc

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"quorate/fsm"
	"quorate/node"
	logv1 "quorate/proto/quorate/log/v1"
)

func refusal(kind logv1.Kind, reason, field string, facts map[string]string) error {
	return &fsm.Refusal{Refusal: &logv1.Refusal{Kind: kind, Reason: reason, Message: "no", Field: field, Details: facts}}
}

// TestErrors is the whole table: what each kind of error is called in gRPC.
func TestErrors(t *testing.T) {
	forwarded := status.Error(codes.Unavailable, "the leader's connection broke")
	for name, test := range map[string]struct {
		err           error
		code          codes.Code
		reason, field string
		retry         bool
	}{
		"invalid":           {refusal(logv1.Kind_KIND_INVALID, "MODE_REFUSED", "topology.sets[0].mode", nil), codes.InvalidArgument, "MODE_REFUSED", "topology.sets[0].mode", false},
		"not found":         {refusal(logv1.Kind_KIND_NOT_FOUND, "UNKNOWN_SERVER", "", nil), codes.NotFound, "UNKNOWN_SERVER", "", false},
		"precondition":      {refusal(logv1.Kind_KIND_PRECONDITION, "GENERATION_CONFLICT", "", nil), codes.FailedPrecondition, "GENERATION_CONFLICT", "", false},
		"apply in progress": {refusal(logv1.Kind_KIND_PRECONDITION, fsm.ReasonApplyInProgress, "", nil), codes.FailedPrecondition, fsm.ReasonApplyInProgress, "", true},
		"conflict":          {refusal(logv1.Kind_KIND_CONFLICT, "REQUEST_ID_REUSED", "", nil), codes.Aborted, "REQUEST_ID_REUSED", "", false},
		"exhausted":         {refusal(logv1.Kind_KIND_EXHAUSTED, "TOO_MANY_LEASES", "", nil), codes.ResourceExhausted, "TOO_MANY_LEASES", "", false},
		"unsupported":       {refusal(logv1.Kind_KIND_UNSUPPORTED, "X", "", nil), codes.Unimplemented, "X", "", false},
		"a kind of later":   {refusal(logv1.Kind(99), "X", "", nil), codes.Internal, "X", "", false},
		"unavailable":       {refusal(logv1.Kind_KIND_UNAVAILABLE, fsm.ReasonGatesNotClosed, "", nil), codes.Unavailable, fsm.ReasonGatesNotClosed, "", true},
		"stale epoch":       {refusal(logv1.Kind_KIND_CONFLICT, fsm.ReasonStaleEpoch, "", nil), codes.Aborted, fsm.ReasonStaleEpoch, "", false},
		"barrier pending":   {refusal(logv1.Kind_KIND_PRECONDITION, fsm.ReasonBarrierPending, "", map[string]string{"remaining": "1.5s"}), codes.FailedPrecondition, fsm.ReasonBarrierPending, "", true},
		"a barrier of when": {refusal(logv1.Kind_KIND_PRECONDITION, fsm.ReasonBarrierPending, "", map[string]string{"remaining": "soon"}), codes.FailedPrecondition, fsm.ReasonBarrierPending, "", false},
		"wrapped refusal":   {fmt.Errorf("remove: %w", refusal(logv1.Kind_KIND_PRECONDITION, "MEMBER_IN_TOPOLOGY", "", nil)), codes.FailedPrecondition, "MEMBER_IN_TOPOLOGY", "", false},

		"no leader":       {&node.Error{Kind: node.NoLeader}, codes.Unavailable, ReasonNoLeader, "", true},
		"not the leader":  {&node.Error{Kind: node.NotLeader}, codes.Unavailable, ReasonNoLeader, "", true},
		"unknown outcome": {&node.Error{Kind: node.UnknownOutcome, Err: forwarded}, codes.Unknown, ReasonUnknownOutcome, "", true},
		"overloaded":      {&node.Error{Kind: node.Overloaded}, codes.ResourceExhausted, ReasonOverloaded, "", true},
		"shutting down":   {&node.Error{Kind: node.Shutdown}, codes.Unavailable, ReasonShuttingDown, "", true},
		"diverged":        {&node.Error{Kind: node.Diverged}, codes.Unavailable, ReasonDiverged, "", false},
		"deadline":        {&node.Error{Kind: node.Deadline, Err: context.DeadlineExceeded}, codes.DeadlineExceeded, ReasonDeadline, "", false},
		"not a voter":     {&node.Error{Kind: node.NotVoter}, codes.FailedPrecondition, ReasonNotVoter, "", false},
		"stale":           {&node.Error{Kind: node.Stale}, codes.Unavailable, ReasonStale, "", true},
		"bad request":     {&node.Error{Kind: node.Invalid}, codes.InvalidArgument, ReasonInvalidArgument, "", false},
		"not ready":       {&node.Error{Kind: node.NotReady}, codes.FailedPrecondition, ReasonNotReady, "", true},
		"storage":         {&node.Error{Kind: node.StorageFailed}, codes.Unavailable, ReasonStorage, "", false},
		"a failure later": {&node.Error{Kind: 99, Err: errors.New("secret")}, codes.Internal, ReasonInternal, "", false},

		"compacted":     {&node.CompactedError{Revision: 7}, codes.OutOfRange, ReasonCompacted, "", false},
		"field":         {invalid("raft_address", "no"), codes.InvalidArgument, ReasonInvalidArgument, "raft_address", false},
		"canceled":      {context.Canceled, codes.Canceled, ReasonCanceled, "", false},
		"late":          {context.DeadlineExceeded, codes.DeadlineExceeded, ReasonDeadline, "", false},
		"anything else": {errors.New("secret"), codes.Internal, ReasonInternal, "", false},
	} {
		t.Run(name, func(t *testing.T) {
			st, known := toStatus(test.err)
			assertRefused(t, st.Err(), test.code, test.reason, test.field)
			if got := detailsOf(st.Err()).retry != nil; got != test.retry {
				t.Errorf("RetryInfo %v, want %v", got, test.retry)
			}
			if strings.Contains(st.Message(), "secret") {
				t.Errorf("the message %q tells what is for the log", st.Message())
			}
			if known != (test.reason != ReasonInternal) {
				t.Errorf("known %v", known)
			}
		})
	}
}

func TestEveryKindOfFailureHasARow(t *testing.T) {
	kinds := 0
	for kind := node.ErrorKind(1); !strings.HasPrefix(kind.String(), "kind "); kind++ {
		kinds++
		if failures[kind].reason == "" {
			t.Errorf("failure %q has no row", kind)
		}
	}
	if kinds != len(failures) {
		t.Errorf("%d kinds, %d rows", kinds, len(failures))
	}
}

func TestDetailsCarryTheFacts(t *testing.T) {
	st, _ := toStatus(refusal(logv1.Kind_KIND_PRECONDITION, fsm.ReasonGenerationConflict, "", map[string]string{"current_generation": "4"}))
	if got := detailsOf(st.Err()).info.GetMetadata()["current_generation"]; got != "4" {
		t.Errorf("current_generation %q", got)
	}
	st, _ = toStatus(refusal(logv1.Kind_KIND_PRECONDITION, fsm.ReasonBarrierPending, "", map[string]string{"remaining": "27.000000125s"}))
	if d := detailsOf(st.Err()); d.info.GetMetadata()["remaining"] != "27.000000125s" || d.retry.GetRetryDelay().AsDuration() != 27*time.Second+125 {
		t.Errorf("remaining %q, retry after %v", d.info.GetMetadata()["remaining"], d.retry)
	}
	st, _ = toStatus(&node.CompactedError{Revision: 7})
	if got := detailsOf(st.Err()).info.GetMetadata()["revision"]; got != "7" {
		t.Errorf("revision %q", got)
	}
	st, _ = toStatus(&node.Error{Op: "propose", Kind: node.UnknownOutcome})
	if !strings.Contains(st.Message(), "may have happened") || !strings.Contains(st.Message(), "same request id") {
		t.Errorf("message %q", st.Message())
	}
	// Text that can't be encoded costs the details and not the code.
	st, _ = toStatus(refusal(logv1.Kind_KIND_INVALID, "X", "\xff", nil))
	if st.Code() != codes.InvalidArgument {
		t.Errorf("code %v", st.Code())
	}
}
