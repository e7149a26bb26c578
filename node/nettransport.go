package node

import (
	"log/slog"

	peerv1 "quorate/proto/quorate/peer/v1"
)

// NetTransport is the Transport over one TCP port.
type NetTransport struct{ Transport }

// Listen opens the raft port.
func Listen(address, advertise string, creds Credentials, logger *slog.Logger) (*NetTransport, error) {
	return nil, &Error{Op: "listen", Kind: NotReady}
}

// Advertised returns the address that other members reach this one at.
func (t *NetTransport) Advertised() string { return "" }

// ServePeers implements Transport.
func (t *NetTransport) ServePeers(peerv1.PeerServiceServer) {}
