package rpc

import (
	"fmt"

	"buf.build/go/protovalidate"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"

	"quorate/fsm"
	quoratev1 "quorate/proto/quorate/v1"
)

// newValidator compiles the rules of every request of the given services, so that no call waits for it and a rule that
// doesn't compile is found at the start. Messages of other services are not validated.
func newValidator(services []*grpc.ServiceDesc) (protovalidate.Validator, error) {
	var requests []protoreflect.MessageDescriptor
	for _, service := range services {
		descriptor, err := protoregistry.GlobalFiles.FindDescriptorByName(protoreflect.FullName(service.ServiceName))
		if err != nil {
			return nil, fmt.Errorf("rpc: %w", err)
		}
		methods := descriptor.(protoreflect.ServiceDescriptor).Methods()
		for i := range methods.Len() {
			requests = append(requests, methods.Get(i).Input())
		}
	}
	validator, err := protovalidate.New(protovalidate.WithMessageDescriptors(requests...), protovalidate.WithDisableLazy())
	if err != nil {
		return nil, fmt.Errorf("rpc: compile the validation rules: %w", err)
	}
	return validator, nil
}

// validate checks a request against the rules in its .proto file, and what those can't say.
func (s *Server) validate(request any) error {
	if !plain(request) {
		message, ok := request.(proto.Message)
		if !ok || message.ProtoReflect().Descriptor().ParentFile().Package() != quoratev1.File_quorate_v1_header_proto.Package() {
			return nil
		}
		if err := s.validator.Validate(message); err != nil {
			return err
		}
	}
	switch r := request.(type) {
	case interface{ GetRead() *quoratev1.ReadOptions }:
		return validateRead("read", r.GetRead())
	case *quoratev1.StreamResolveRequest:
		return validateRead("request.read", r.GetRequest().GetRead())
	case *quoratev1.StreamGatesRequest:
		return validateRead("request.read", r.GetRequest().GetRead())
	}
	return nil
}

// validateRead refuses options that would be ignored, because the caller relies on them.
func validateRead(field string, o *quoratev1.ReadOptions) error {
	bounded := o.GetConsistency() == quoratev1.Consistency_CONSISTENCY_BOUNDED
	switch {
	case bounded && o.GetMaxStaleness() == nil:
		return invalid(field+".max_staleness", "a bounded read needs it")
	case !bounded && o.GetMaxStaleness() != nil:
		return invalid(field+".max_staleness", "only a bounded read has it")
	}
	return nil
}

// plain says that a request keeps all rules of its .proto file; false means that the validator has to look, which is also who says what is wrong. It
// knows the requests that are made by the ten thousand a second, for which the validator takes longer than all the rest: it interprets its rules, for
// each of a hundred keys. A test holds the two together.
func plain(request any) bool {
	switch r := request.(type) {
	case *quoratev1.ResolveRequest:
		return plainResolve(r)
	case *quoratev1.StreamResolveRequest:
		return r.GetRequest() != nil && plainResolve(r.GetRequest())
	case *quoratev1.CheckGatesRequest:
		return plainChecks(r)
	case *quoratev1.StreamGatesRequest:
		return r.GetRequest() != nil && plainChecks(r.GetRequest())
	case *quoratev1.CheckGateRequest:
		return plainRead(r.GetRead()) && plainKey(r.GetPartition())
	case *quoratev1.GetPartitionRequest:
		return plainRead(r.GetRead()) && plainID(r.GetPartition())
	case *quoratev1.RenewGateRequest:
		return plainRenewal(r)
	case *quoratev1.SetPlacementRequest:
		return usableID(r.GetRequestId()) && plainID(r.GetPartition()) && plainID(r.GetPlacement()) && len(r.GetNote()) <= fsm.MaxTextBytes
	}
	return false
}

func plainResolve(r *quoratev1.ResolveRequest) bool {
	for _, key := range r.GetPartitions() {
		if !plainKey(key) {
			return false
		}
	}
	return plainRead(r.GetRead()) && plainCount(len(r.GetPartitions()))
}

func plainChecks(r *quoratev1.CheckGatesRequest) bool {
	for _, check := range r.GetChecks() {
		if !plainKey(check.GetPartition()) {
			return false
		}
	}
	return plainRead(r.GetRead()) && plainCount(len(r.GetChecks()))
}

func plainRenewal(r *quoratev1.RenewGateRequest) bool {
	for _, drained := range r.GetDrained() {
		if !plainKey(drained.GetPartition()) {
			return false
		}
	}
	return len(r.GetDrained()) <= fsm.MaxPartitionBatch && plainID(r.GetId()) && plainSession(r.GetSession())
}

// plainRead leaves bounded reads to the validator.
func plainRead(o *quoratev1.ReadOptions) bool {
	return o.GetMaxStaleness() == nil && o.GetConsistency() >= 0 && o.GetConsistency() <= quoratev1.Consistency_CONSISTENCY_LOCAL
}

func plainCount(n int) bool { return n >= 1 && n <= fsm.MaxPartitionBatch }

// plainKey is 1 to 64 bytes.
func plainKey(key string) bool { return key != "" && len(key) <= fsm.MaxIDBytes }

// plainID is ^[a-z0-9][a-z0-9._-]{0,63}$.
func plainID(id string) bool {
	for i := range len(id) {
		c := id[i]
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') && (i == 0 || c != '.' && c != '_' && c != '-') {
			return false
		}
	}
	return plainKey(id)
}

// plainSession is ^[!-~]{16,64}$.
func plainSession(session string) bool {
	for i := range len(session) {
		if session[i] < '!' || session[i] > '~' {
			return false
		}
	}
	return len(session) >= fsm.MinSessionBytes && len(session) <= fsm.MaxSessionBytes
}
