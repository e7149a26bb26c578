package rpc

import (
	"context"
	"fmt"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"

	"quorate/pki"
)

// InProcess returns a connection to the services on which every call is made for who, whom another endpoint of this member has
// identified: OPC UA methods change state by it, so that roles, validation and audit stand at one door (architecture.md). Address
// says where the caller came from; it is for the records. The connection is the server's and ends with it.
func (s *Server) InProcess(who pki.Identity, address string) (grpc.ClientConnInterface, error) {
	md, err := forward(caller{name: who.Name, role: who.Role, member: who.Member, address: address})
	if err != nil {
		return nil, fmt.Errorf("rpc: %w", err)
	}
	return &callerConn{ClientConnInterface: s.gateway, caller: md}, nil
}

// callerConn names one caller in all calls. What the context already carries is dropped, so that no second caller comes with it.
type callerConn struct {
	grpc.ClientConnInterface
	caller metadata.MD
}

// Invoke implements grpc.ClientConnInterface.
func (c *callerConn) Invoke(ctx context.Context, method string, args, reply any, opts ...grpc.CallOption) error {
	return c.ClientConnInterface.Invoke(metadata.NewOutgoingContext(ctx, c.caller), method, args, reply, opts...)
}

// NewStream implements grpc.ClientConnInterface.
func (c *callerConn) NewStream(ctx context.Context, desc *grpc.StreamDesc, method string, opts ...grpc.CallOption) (grpc.ClientStream, error) {
	return c.ClientConnInterface.NewStream(metadata.NewOutgoingContext(ctx, c.caller), desc, method, opts...)
}
