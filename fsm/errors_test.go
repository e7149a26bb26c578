package fsm_test

import (
	"testing"

	"github.com/gopcua/opcua/ua"
	"google.golang.org/grpc/codes"

	"quorate/fsm"
	logv1 "quorate/proto/quorate/log/v1"
)

// TestCodes holds the plain numbers of the table to the packages that define them, and the table to the kinds.
func TestCodes(t *testing.T) {
	want := map[logv1.Kind]struct {
		grpc   codes.Code
		status ua.StatusCode
		exit   int
	}{
		logv1.Kind_KIND_UNSPECIFIED:  {codes.Internal, ua.StatusBadInternalError, 2},
		logv1.Kind_KIND_INVALID:      {codes.InvalidArgument, ua.StatusBadInvalidArgument, 2},
		logv1.Kind_KIND_NOT_FOUND:    {codes.NotFound, ua.StatusBadNotFound, 2},
		logv1.Kind_KIND_PRECONDITION: {codes.FailedPrecondition, ua.StatusBadInvalidState, 3},
		logv1.Kind_KIND_CONFLICT:     {codes.Aborted, ua.StatusBadInvalidState, 3},
		logv1.Kind_KIND_EXHAUSTED:    {codes.ResourceExhausted, ua.StatusBadResourceUnavailable, 2},
		logv1.Kind_KIND_UNSUPPORTED:  {codes.Unimplemented, ua.StatusBadNotSupported, 2},
		logv1.Kind_KIND_UNAVAILABLE:  {codes.Unavailable, ua.StatusBadOutOfService, 3},
	}
	kinds := logv1.Kind(0).Descriptor().Values()
	for i := range kinds.Len() {
		kind := logv1.Kind(kinds.Get(i).Number())
		w, ok := want[kind]
		if !ok {
			t.Errorf("%v has no codes", kind)
		}
		got := fsm.Codes(kind)
		if codes.Code(got.GRPC) != w.grpc || ua.StatusCode(got.StatusCode) != w.status || got.Exit != w.exit {
			t.Errorf("%v has gRPC code %v, status %v, exit code %d; want %v", kind, codes.Code(got.GRPC), ua.StatusCode(got.StatusCode), got.Exit, w)
		}
	}
	if fsm.Codes(99) != fsm.Codes(logv1.Kind_KIND_UNSPECIFIED) {
		t.Error("a kind that is not known has codes of its own")
	}
}
