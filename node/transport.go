package node

import (
	"crypto/tls"

	"github.com/hashicorp/raft"

	peerv1 "quorate/proto/quorate/peer/v1"
)

// Transport carries raft's traffic and the members' questions to each other.
type Transport interface {
	raft.Transport
	raft.WithPreVote
	raft.WithClose
	// Peer returns a client for the member with that id at that raft address. It doesn't wait for a connection.
	Peer(id, address string) (peerv1.PeerServiceClient, error)
	// ServePeers answers the other members' questions. It is called once, before the first of them can be answered.
	ServePeers(peerv1.PeerServiceServer)
	// Retain forgets every member that isn't named.
	Retain(ids []string)
}

// Credentials is what the raft port needs to know of certificates; *pki.Credentials is one.
type Credentials interface {
	// MemberServerTLS accepts only clients that prove to be a member.
	MemberServerTLS() *tls.Config
	// MemberClientTLS accepts only a server that proves to be the expected member.
	MemberClientTLS(expectMember string) *tls.Config
}
