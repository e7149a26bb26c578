package opcua

import (
	"context"
	"crypto/rand"
	"time"

	"github.com/gopcua/opcua/id"
	"github.com/gopcua/opcua/ua"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/timestamppb"

	"quorate/opcua/server"
	"quorate/opcua/space"
	quoratev1 "quorate/proto/quorate/v1"
)

// MaintenanceFunc is the way by which RequestServerStateChange goes through the log: what the gRPC MaintenanceService makes of the
// request, if the caller asks. Its error is a gRPC status.
type MaintenanceFunc func(ctx context.Context, caller server.Identity, request *quoratev1.SetMaintenanceRequest) error

// methods are what clients may call, and whose nodes this server therefore has.
func (e *Endpoint) methods() map[space.Key]server.Method {
	if e.cfg.SetMaintenance == nil {
		return nil
	}
	return map[space.Key]server.Method{standard(id.Server_RequestServerStateChange): e.requestServerStateChange}
}

// requestServerStateChange is the method of Part 5 §9.4, for administrators only. Suspended declares this server to be in
// maintenance and Running withdraws that; no other state can be asked for, and neither can a restart.
func (e *Endpoint) requestServerStateChange(ctx context.Context, caller server.Identity, args []*ua.Variant) ([]*ua.Variant, ua.StatusCode) {
	if caller.Role < server.RoleAdministrator {
		return nil, ua.StatusBadUserAccessDenied
	}
	wanted, _ := args[0].Value().(int32)
	estimated, _ := args[1].Value().(time.Time)
	seconds, _ := args[2].Value().(uint32)
	reason, _ := args[3].Value().(*ua.LocalizedText)
	restart, _ := args[4].Value().(bool)
	request := &quoratev1.SetMaintenanceRequest{RequestId: "opcua-" + rand.Text(), Server: e.cfg.Member}
	switch ua.ServerState(wanted) {
	case ua.ServerStateRunning:
	case ua.ServerStateSuspended:
		request.Active = true
		if reason != nil {
			request.Reason = reason.Text
		}
		if !estimated.IsZero() {
			request.EstimatedReturn = timestamppb.New(estimated)
		}
	default:
		return nil, ua.StatusBadInvalidState
	}
	if restart || seconds != 0 {
		return nil, ua.StatusBadInvalidArgument // Nothing is shut down.
	}
	return nil, statusOf(e.cfg.SetMaintenance(ctx, caller, request))
}

// statusOf is the OPC UA status of what a gRPC service answered.
func statusOf(err error) ua.StatusCode {
	switch status.Code(err) {
	case codes.OK:
		return ua.StatusOK
	case codes.PermissionDenied, codes.Unauthenticated:
		return ua.StatusBadUserAccessDenied
	case codes.InvalidArgument, codes.OutOfRange:
		return ua.StatusBadInvalidArgument
	case codes.NotFound:
		return ua.StatusBadNotFound
	case codes.FailedPrecondition, codes.Aborted, codes.AlreadyExists:
		return ua.StatusBadInvalidState
	case codes.DeadlineExceeded, codes.Canceled:
		return ua.StatusBadTimeout
	case codes.Unavailable:
		return ua.StatusBadResourceUnavailable
	case codes.ResourceExhausted:
		return ua.StatusBadTooManyOperations
	}
	return ua.StatusBadUnexpectedError
}
