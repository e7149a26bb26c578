package rpc

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"time"

	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
	"google.golang.org/protobuf/proto"

	"quorate/pki"
	quoratev1 "quorate/proto/quorate/v1"
)

// caller is who makes a call, and from where.
type caller struct {
	name    string
	role    pki.Role
	member  bool
	address string
}

// anonymous is everyone in dev.
func anonymous(address string) caller {
	return caller{name: "anonymous", role: pki.RoleAdministrator, address: address}
}

// callerOf returns the caller that a verified certificate stands for.
func callerOf(certificate *x509.Certificate, address string) (caller, error) {
	identity, err := pki.IdentityOf(certificate)
	if err != nil {
		return caller{}, err
	}
	return caller{name: identity.Name, role: identity.Role, member: identity.Member, address: address}, nil
}

// actor is the caller as commands and records show it.
func (c caller) actor() *quoratev1.Actor {
	role := c.role.String()
	if c.member {
		role = "member"
	}
	return &quoratev1.Actor{Name: c.name, Role: role, Address: c.address}
}

type callerKey struct{}

func withCaller(ctx context.Context, c caller) context.Context {
	return context.WithValue(ctx, callerKey{}, c)
}

// callerFrom returns the caller that the interceptors put there; the zero caller, which may do nothing, without them.
func callerFrom(ctx context.Context) caller {
	c, _ := ctx.Value(callerKey{}).(caller)
	return c
}

// connection is what the handshake of a gRPC connection found out.
type connection struct {
	credentials.CommonAuthInfo
	// inProcess marks the REST gateway's connection: its calls name their caller.
	inProcess bool
	// caller is who opened any other connection, without the address.
	caller caller
	// expires is when the caller's certificate does, zero in dev.
	expires time.Time
}

// AuthType implements credentials.AuthInfo.
func (*connection) AuthType() string { return "quorate" }

// handshaker is the transport credentials of the gRPC server. It tells the connection inside the process, which has a type
// of its own, from those that come over the network.
type handshaker struct {
	tls credentials.TransportCredentials // nil in dev
}

func newHandshaker(c *pki.Credentials) *handshaker {
	if c == nil {
		return &handshaker{}
	}
	return &handshaker{tls: credentials.NewTLS(c.ServerTLS())}
}

// ServerHandshake implements credentials.TransportCredentials.
func (h *handshaker) ServerHandshake(raw net.Conn) (net.Conn, credentials.AuthInfo, error) {
	if _, ok := raw.(*inProcessConn); ok {
		level := credentials.CommonAuthInfo{SecurityLevel: credentials.PrivacyAndIntegrity}
		return raw, &connection{CommonAuthInfo: level, inProcess: true}, nil
	}
	if h.tls == nil {
		level := credentials.CommonAuthInfo{SecurityLevel: credentials.NoSecurity}
		return raw, &connection{CommonAuthInfo: level, caller: anonymous("")}, nil
	}
	conn, info, err := h.tls.ServerHandshake(raw)
	if err != nil {
		return nil, nil, err
	}
	certificate, err := leaf(info)
	if err != nil {
		return nil, nil, errors.Join(err, conn.Close())
	}
	c, err := callerOf(certificate, "")
	if err != nil {
		return nil, nil, errors.Join(err, conn.Close())
	}
	level := credentials.CommonAuthInfo{SecurityLevel: credentials.PrivacyAndIntegrity}
	return conn, &connection{CommonAuthInfo: level, caller: c, expires: certificate.NotAfter}, nil
}

func leaf(info credentials.AuthInfo) (*x509.Certificate, error) {
	verified, ok := info.(credentials.TLSInfo)
	if !ok || len(verified.State.PeerCertificates) == 0 {
		return nil, errors.New("rpc: the caller showed no certificate")
	}
	return verified.State.PeerCertificates[0], nil
}

// ClientHandshake implements credentials.TransportCredentials; a server never dials.
func (h *handshaker) ClientHandshake(context.Context, string, net.Conn) (net.Conn, credentials.AuthInfo, error) {
	return nil, nil, errors.New("rpc: these credentials are a server's")
}

// Info implements credentials.TransportCredentials.
func (h *handshaker) Info() credentials.ProtocolInfo {
	return credentials.ProtocolInfo{SecurityProtocol: "quorate"}
}

// Clone implements credentials.TransportCredentials.
func (h *handshaker) Clone() credentials.TransportCredentials { return &handshaker{tls: h.tls} }

// OverrideServerName implements credentials.TransportCredentials; a server checks no server's name.
func (h *handshaker) OverrideServerName(string) error { return nil }

// actorKey carries the caller of a REST call over the connection inside the process.
const actorKey = "quorate-actor-bin"

// identify returns who makes a gRPC call.
func identify(ctx context.Context, now time.Time) (caller, error) {
	p, ok := peer.FromContext(ctx)
	if !ok {
		return caller{}, unauthenticated("the call came over no known connection")
	}
	c, ok := p.AuthInfo.(*connection)
	if !ok {
		return caller{}, unauthenticated("the call came over no known connection")
	}
	if c.inProcess {
		return forwardedCaller(ctx)
	}
	// A connection outlives its handshake, so that what was verified then is looked at again with each call.
	if !c.expires.IsZero() && now.After(c.expires) {
		return caller{}, unauthenticated("the caller's certificate has expired")
	}
	who := c.caller
	who.address = p.Addr.String()
	return who, nil
}

// forwardedCaller reads what gateway.go wrote.
func forwardedCaller(ctx context.Context) (caller, error) {
	values := metadata.ValueFromIncomingContext(ctx, actorKey)
	if len(values) != 1 {
		return caller{}, unauthenticated("the call names no caller")
	}
	var actor quoratev1.Actor
	if err := proto.Unmarshal([]byte(values[0]), &actor); err != nil {
		return caller{}, unauthenticated("the call names no caller")
	}
	c := caller{name: actor.GetName(), address: actor.GetAddress()}
	if c.member = actor.GetRole() == "member"; c.member {
		c.role = pki.RoleViewer
		return c, nil
	}
	var err error
	if c.role, err = pki.ParseRole(actor.GetRole()); err != nil {
		return caller{}, unauthenticated("the call names no caller")
	}
	return c, nil
}

// forward returns the metadata that tells the server who made a REST call.
func forward(c caller) (metadata.MD, error) {
	actor, err := proto.Marshal(c.actor())
	if err != nil {
		return nil, err
	}
	return metadata.Pairs(actorKey, string(actor)), nil
}

// restCaller returns who makes a REST call, of which TLS has verified the certificate.
func restCaller(state *tls.ConnectionState, secured bool, address string, now time.Time) (caller, error) {
	if !secured {
		return anonymous(address), nil
	}
	if state == nil || len(state.PeerCertificates) == 0 {
		return caller{}, unauthenticated("the caller showed no certificate")
	}
	if now.After(state.PeerCertificates[0].NotAfter) {
		return caller{}, unauthenticated("the caller's certificate has expired")
	}
	c, err := callerOf(state.PeerCertificates[0], address)
	if err != nil {
		return caller{}, unauthenticated(err.Error())
	}
	return c, nil
}
