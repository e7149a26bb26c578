package rpc

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/descriptorpb"

	quoratev1 "quorate/proto/quorate/v1"
)

// Outcome says how a change went.
type Outcome string

// The outcomes of a change.
const (
	// Accepted: it was made.
	Accepted Outcome = "accepted"
	// Refused: it was not made, because of who asked, or what for, or the state that it met.
	Refused Outcome = "refused"
	// Failed: it was not made, because the group could not.
	Failed Outcome = "failed"
	// Unknown: whether it was made is not known.
	Unknown Outcome = "unknown"
)

// AuditRecord is one change that was asked for.
type AuditRecord struct {
	// Time is wall time when the answer was known.
	Time time.Time
	// Actor is who asked and from where; its name is empty if that could not be found out.
	Actor *quoratev1.Actor
	// Method is the full name of the gRPC method, for REST as well.
	Method string
	// Request is what was asked for, without its secrets. It must not be modified.
	Request proto.Message
	// RequestID is the client's, or one made here where the request has none.
	RequestID string
	Outcome   Outcome
	// Generation is the current one after the change or at its refusal, as far as this member knows; 0 before the first.
	Generation uint64
	// Revision is that of the change, 0 if there was none.
	Revision uint64
	// Code, Reason and Message are those of the error; OK and empty if there was none.
	Code            codes.Code
	Reason, Message string
}

func auditTo(logger *slog.Logger) func(AuditRecord) {
	return func(r AuditRecord) {
		level := slog.LevelInfo
		if r.Outcome != Accepted {
			level = slog.LevelWarn
		}
		attributes := append(make([]slog.Attr, 0, 11), slog.String("outcome", string(r.Outcome)), slog.String("method", r.Method),
			slog.String("actor", r.Actor.GetName()), slog.String("role", r.Actor.GetRole()), slog.String("from", r.Actor.GetAddress()),
			slog.String("requestId", r.RequestID), slog.Uint64("generation", r.Generation), slog.Uint64("revision", r.Revision))
		if r.Outcome != Accepted {
			attributes = append(attributes, slog.String("code", r.Code.String()), slog.String("reason", r.Reason), slog.String("message", r.Message))
		}
		logger.LogAttrs(context.Background(), level, "change", attributes...)
	}
}

// audit records a change that was asked for, with the answer that the caller is about to get.
func (s *Server) audit(c *call, request, response any, err error) {
	record := AuditRecord{
		Time: s.config.Now(), Actor: c.caller.actor(), Method: c.method, RequestID: c.requestID, Outcome: Accepted,
		Generation: s.config.Node.Local().State.CurrentGeneration().GetNumber(),
	}
	if message, ok := request.(proto.Message); ok {
		record.Request = withoutSecrets(message)
	}
	if answer, ok := response.(interface {
		GetHeader() *quoratev1.ResponseHeader
	}); ok && err == nil {
		record.Revision, record.Generation = answer.GetHeader().GetRevision(), answer.GetHeader().GetGeneration()
	}
	if err != nil {
		st := status.Convert(err)
		record.Code, record.Message, record.Reason = st.Code(), st.Message(), reasonOf(st)
		record.Outcome = outcomeOf(record.Code, record.Reason)
	}
	s.config.Audit(record)
}

// redacted stands where a secret was, so that it can be seen that there was one.
const redacted = "[redacted]"

// secret says whether the protocol marks a field as one that nobody may be shown (debug_redact). Such fields are single strings, and no map holds
// messages: a test says so.
func secret(field protoreflect.FieldDescriptor) bool {
	options, _ := field.Options().(*descriptorpb.FieldOptions)
	return options.GetDebugRedact()
}

// withoutSecrets returns a message as records may hold it: a copy, if it has secrets.
func withoutSecrets(m proto.Message) proto.Message {
	if !mayHaveSecrets(m.ProtoReflect().Descriptor()) {
		return m
	}
	found := false
	eachSecret(m.ProtoReflect(), func(protoreflect.Message, protoreflect.FieldDescriptor) { found = true })
	if !found {
		return m
	}
	m = proto.Clone(m)
	eachSecret(m.ProtoReflect(), func(in protoreflect.Message, field protoreflect.FieldDescriptor) {
		in.Set(field, protoreflect.ValueOfString(redacted))
	})
	return m
}

// secretive remembers mayHaveSecrets, by message descriptor.
var secretive sync.Map

// mayHaveSecrets says whether a message, or one that it can hold, has a field that nobody may be shown.
func mayHaveSecrets(d protoreflect.MessageDescriptor) bool {
	if known, ok := secretive.Load(d); ok {
		return known.(bool)
	}
	may := hasSecret(d, map[protoreflect.FullName]bool{})
	secretive.Store(d, may)
	return may
}

func hasSecret(d protoreflect.MessageDescriptor, seen map[protoreflect.FullName]bool) bool {
	if seen[d.FullName()] {
		return false
	}
	seen[d.FullName()] = true
	for i := range d.Fields().Len() {
		field := d.Fields().Get(i)
		if secret(field) || field.Message() != nil && hasSecret(field.Message(), seen) {
			return true
		}
	}
	return false
}

// eachSecret visits the secrets that are set in a message and in those that it holds.
func eachSecret(m protoreflect.Message, visit func(in protoreflect.Message, field protoreflect.FieldDescriptor)) {
	m.Range(func(field protoreflect.FieldDescriptor, value protoreflect.Value) bool {
		switch {
		case secret(field):
			visit(m, field)
		case field.Message() == nil || field.IsMap():
		case field.IsList():
			for i := range value.List().Len() {
				eachSecret(value.List().Get(i).Message(), visit)
			}
		default:
			eachSecret(value.Message(), visit)
		}
		return true
	})
}

func outcomeOf(code codes.Code, reason string) Outcome {
	if reason == ReasonUnknownOutcome {
		return Unknown
	}
	switch code {
	case codes.InvalidArgument, codes.NotFound, codes.AlreadyExists, codes.PermissionDenied, codes.Unauthenticated,
		codes.FailedPrecondition, codes.Aborted, codes.OutOfRange, codes.Unimplemented, codes.ResourceExhausted:
		return Refused
	case codes.Canceled, codes.Internal:
		// The caller went away, or the handler died, while the change was under way.
		return Unknown
	}
	return Failed
}

func reasonOf(st *status.Status) string {
	for _, detail := range st.Details() {
		if info, ok := detail.(*errdetails.ErrorInfo); ok {
			return info.GetReason()
		}
	}
	return ""
}
