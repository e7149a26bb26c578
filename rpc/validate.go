package rpc

import (
	"fmt"

	"buf.build/go/protovalidate"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"

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
	message, ok := request.(proto.Message)
	if !ok || message.ProtoReflect().Descriptor().ParentFile().Package() != quoratev1.File_quorate_v1_header_proto.Package() {
		return nil
	}
	if err := s.validator.Validate(message); err != nil {
		return err
	}
	if r, ok := request.(interface{ GetRead() *quoratev1.ReadOptions }); ok {
		return validateRead(r.GetRead())
	}
	return nil
}

// validateRead refuses options that would be ignored, because the caller relies on them.
func validateRead(o *quoratev1.ReadOptions) error {
	bounded := o.GetConsistency() == quoratev1.Consistency_CONSISTENCY_BOUNDED
	switch {
	case bounded && o.GetMaxStaleness() == nil:
		return invalid("read.max_staleness", "a bounded read needs it")
	case !bounded && o.GetMaxStaleness() != nil:
		return invalid("read.max_staleness", "only a bounded read has it")
	}
	return nil
}
