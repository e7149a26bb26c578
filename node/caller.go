package node

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"sync/atomic"

	grpccredentials "google.golang.org/grpc/credentials"
	"google.golang.org/grpc/peer"

	"quorate/pki"
)

// caller is who is at the other end of a connection of the peer service.
type caller struct {
	grpccredentials.CommonAuthInfo
	// member is the id in its certificate, empty where there are none.
	member string
	// conn tells connections apart: none gets the number of an earlier one. 0 is no connection, but this process or a test.
	conn uint64
}

// AuthType implements grpccredentials.AuthInfo.
func (caller) AuthType() string { return "member" }

// callerOf returns who asks.
func callerOf(ctx context.Context) caller {
	if p, ok := peer.FromContext(ctx); ok {
		if c, ok := p.AuthInfo.(caller); ok {
			return c
		}
	}
	return caller{}
}

// callers tells the peer service who is on each connection: identify has done the handshake by then.
type callers struct{ last *atomic.Uint64 }

// ServerHandshake implements grpccredentials.TransportCredentials.
func (c callers) ServerHandshake(conn net.Conn) (net.Conn, grpccredentials.AuthInfo, error) {
	who := caller{conn: c.last.Add(1)}
	inner := conn
	if tracked, ok := conn.(*trackedConn); ok {
		inner = tracked.Conn
	}
	if secured, ok := inner.(*tls.Conn); ok {
		chain := secured.ConnectionState().PeerCertificates
		if len(chain) == 0 {
			return nil, nil, errors.New("no certificate")
		}
		identity, err := pki.IdentityOf(chain[0])
		if err != nil {
			return nil, nil, err
		}
		who.member, who.SecurityLevel = identity.Name, grpccredentials.PrivacyAndIntegrity
	}
	return conn, who, nil
}

// ClientHandshake implements grpccredentials.TransportCredentials: this side only accepts.
func (callers) ClientHandshake(context.Context, string, net.Conn) (net.Conn, grpccredentials.AuthInfo, error) {
	return nil, nil, errors.ErrUnsupported
}

// Info implements grpccredentials.TransportCredentials.
func (callers) Info() grpccredentials.ProtocolInfo {
	return grpccredentials.ProtocolInfo{SecurityProtocol: "member"}
}

// Clone implements grpccredentials.TransportCredentials.
func (c callers) Clone() grpccredentials.TransportCredentials { return c }

// OverrideServerName implements grpccredentials.TransportCredentials.
func (callers) OverrideServerName(string) error { return errors.ErrUnsupported }
