package fsm

import (
	"errors"
	"fmt"

	logv1 "quorate/proto/quorate/log/v1"
)

// Reasons of refusals. They are stable: clients compare them.
const (
	ReasonRequestIDRequired = "REQUEST_ID_REQUIRED"
	ReasonRequestIDReused   = "REQUEST_ID_REUSED"
	ReasonTooLong           = "TOO_LONG"
	ReasonInvalidTime       = "INVALID_TIME"
	ReasonNotYetSupported   = "COMMAND_NOT_YET_SUPPORTED"

	ReasonGenerationConflict  = "GENERATION_CONFLICT"  // details: current_generation
	ReasonStaleGeneration     = "STALE_GENERATION"     // details: current_generation
	ReasonUnknownGeneration   = "UNKNOWN_GENERATION"   // details: current_generation
	ReasonGenerationCompacted = "GENERATION_COMPACTED" // details: oldest_generation

	ReasonUnknownMember = "UNKNOWN_MEMBER"
	ReasonUnknownServer = "UNKNOWN_SERVER"

	ReasonApplyInProgress = "APPLY_IN_PROGRESS" // details: server
	ReasonLeaseNotOpen    = "LEASE_NOT_OPEN"
	ReasonLeaseAmbiguous  = "LEASE_AMBIGUOUS"
	ReasonTooManyLeases   = "TOO_MANY_LEASES"
	ReasonTooManyWindows  = "TOO_MANY_WINDOWS"

	ReasonUnknownSet      = "UNKNOWN_SET"
	ReasonApplyNotDue     = "APPLY_NOT_DUE"   // details: waiting_for
	ReasonApplyNotBegun   = "APPLY_NOT_BEGUN" // An EndApply without its BeginApply.
	ReasonApplyNotStopped = "APPLY_NOT_STOPPED"
	ReasonHandOverNotDue  = "HAND_OVER_NOT_DUE"
	ReasonNotAuthorised   = "NOT_AUTHORISED" // The policy of the set does not allow it.
	ReasonWrongRole       = "WRONG_ROLE"
	ReasonStaleAttempt    = "STALE_ATTEMPT"
	ReasonServingHeld     = "SERVING_HELD" // details: server
	ReasonTooManyServing  = "TOO_MANY_SERVING"
	ReasonInvalidLevel    = "INVALID_LEVEL"

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
	ReasonGatesNotClosed       = "GATES_NOT_CLOSED"
	ReasonPartitionBatch       = "PARTITION_BATCH" // Too many in one command, or none.
	ReasonInvalidPartitionID   = "INVALID_PARTITION_ID"
	ReasonDuplicatePartition   = "DUPLICATE_PARTITION"
	ReasonInvalidPlacement     = "INVALID_PLACEMENT"
	ReasonInvalidDrainBarrier  = "INVALID_DRAIN_BARRIER"
	ReasonInvalidProgress      = "INVALID_PROGRESS"
	ReasonInvalidSetting       = "INVALID_SETTING"
	ReasonTooManyPartitions    = "TOO_MANY_PARTITIONS"
	ReasonTooManyPlacements    = "TOO_MANY_PLACEMENTS"
	ReasonTooManyMigrations    = "TOO_MANY_MIGRATIONS"

	ReasonUnknownInstance  = "UNKNOWN_INSTANCE"
	ReasonInstanceTaken    = "INSTANCE_TAKEN"
	ReasonStaleSession     = "STALE_SESSION"
	ReasonInvalidInstance  = "INVALID_INSTANCE"
	ReasonTooManyInstances = "TOO_MANY_INSTANCES"

	ReasonInvalidMembers = "INVALID_MEMBERS"
	// ReasonMemberInTopology (details: set) is refused by the node, which changes Raft's configuration.
	ReasonMemberInTopology = "MEMBER_IN_TOPOLOGY"

	// Of a topology that is not valid; all have a field.
	ReasonTopologyRequired        = "TOPOLOGY_REQUIRED"
	ReasonTopologyTooLarge        = "TOPOLOGY_TOO_LARGE"
	ReasonTooManySets             = "TOO_MANY_SETS"
	ReasonInvalidSetID            = "INVALID_SET_ID"
	ReasonDuplicateSetID          = "DUPLICATE_SET_ID"
	ReasonModeRefused             = "MODE_REFUSED"
	ReasonInvalidPolicy           = "INVALID_POLICY"
	ReasonInvalidMaxServers       = "INVALID_MAX_SERVERS"
	ReasonNoServers               = "NO_SERVERS"
	ReasonTooManyServers          = "TOO_MANY_SERVERS"
	ReasonDuplicateMember         = "DUPLICATE_MEMBER"
	ReasonMemberInTwoSets         = "MEMBER_IN_TWO_SETS"
	ReasonInvalidApplicationURI   = "INVALID_APPLICATION_URI"
	ReasonDuplicateApplicationURI = "DUPLICATE_APPLICATION_URI"
	ReasonInvalidEndpointURL      = "INVALID_ENDPOINT_URL"
	ReasonDuplicateEndpointURL    = "DUPLICATE_ENDPOINT_URL"
	ReasonInvalidHealthURL        = "INVALID_HEALTH_URL"
	ReasonInvalidRole             = "INVALID_ROLE"
	ReasonTwoPrimaries            = "TWO_PRIMARIES"
	ReasonNoPrimary               = "NO_PRIMARY"
)

// Errors of ApplyEntry and Restore. All are wrapped with what was found; the process must stop.
var (
	// ErrUnknownCommand means that the log holds a command of a newer version, or none at all.
	ErrUnknownCommand = errors.New("unknown command")
	// ErrCorrupt means that the log or a snapshot says what no member ever wrote.
	ErrCorrupt = errors.New("corrupt")
)

// Refusal is a command's answer when it changed nothing. It is a value, never a failure of the machinery.
type Refusal struct{ *logv1.Refusal }

// Error returns the message, after the field if there is one.
func (r *Refusal) Error() string {
	if r.GetField() != "" {
		return r.GetField() + ": " + r.GetMessage()
	}
	return r.GetMessage()
}

// RefusalOf returns the refusal in an outcome, nil if the command was accepted.
func RefusalOf(o *logv1.Outcome) *Refusal {
	if r := o.GetRefusal(); r != nil {
		return &Refusal{r}
	}
	return nil
}

// KindCodes is what a kind of refusal is called at the edges. They are plain integers, because this package knows neither
// gRPC nor OPC UA.
type KindCodes struct {
	GRPC       uint32 // google.golang.org/grpc/codes
	StatusCode uint32 // OPC 10000-6 Annex A.2
	Exit       int    // of the quorate command: 2 refused, 3 precondition failed
}

// Codes returns the codes of a kind. A kind that this version does not know is an internal error at the edges.
func Codes(kind logv1.Kind) KindCodes {
	switch kind {
	case logv1.Kind_KIND_INVALID:
		return KindCodes{GRPC: 3, StatusCode: 0x80AB0000, Exit: 2} // InvalidArgument, BadInvalidArgument
	case logv1.Kind_KIND_NOT_FOUND:
		return KindCodes{GRPC: 5, StatusCode: 0x803E0000, Exit: 2} // NotFound, BadNotFound
	case logv1.Kind_KIND_PRECONDITION:
		return KindCodes{GRPC: 9, StatusCode: 0x80AF0000, Exit: 3} // FailedPrecondition, BadInvalidState
	case logv1.Kind_KIND_CONFLICT:
		return KindCodes{GRPC: 10, StatusCode: 0x80AF0000, Exit: 3} // Aborted, BadInvalidState
	case logv1.Kind_KIND_EXHAUSTED:
		return KindCodes{GRPC: 8, StatusCode: 0x80040000, Exit: 2} // ResourceExhausted, BadResourceUnavailable
	case logv1.Kind_KIND_UNSUPPORTED:
		return KindCodes{GRPC: 12, StatusCode: 0x803D0000, Exit: 2} // Unimplemented, BadNotSupported
	case logv1.Kind_KIND_UNAVAILABLE:
		return KindCodes{GRPC: 14, StatusCode: 0x808D0000, Exit: 3} // Unavailable, BadOutOfService
	default:
		return KindCodes{GRPC: 13, StatusCode: 0x80020000, Exit: 2} // Internal, BadInternalError
	}
}

// refuse makes a refusal. Messages are part of the replicated answer, so nothing that varies between members, such as the
// text of a library's error, may go into one.
func refuse(kind logv1.Kind, reason, field, format string, args ...any) *Refusal {
	return &Refusal{&logv1.Refusal{Kind: kind, Reason: reason, Field: field, Message: fmt.Sprintf(format, args...)}}
}

func invalid(reason, field, format string, args ...any) *Refusal {
	return refuse(logv1.Kind_KIND_INVALID, reason, field, format, args...)
}

// with adds a detail.
func (r *Refusal) with(name, value string) *Refusal {
	if r.Details == nil {
		r.Details = make(map[string]string, 1)
	}
	r.Details[name] = value
	return r
}
