package redundancy

import (
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	quoratev1 "quorate/proto/quorate/v1"
)

// Peer returns what this member last saw of another server of its set; ok is false for a server that it does not probe.
func (m *Manager) Peer(server string) (view PeerView, ok bool) {
	for _, v := range m.probes.views() {
		if v.Server == server {
			return v, true
		}
	}
	return PeerView{}, false
}

// Dropped returns how many probe results were dropped because they were of an older generation.
func (m *Manager) Dropped() uint64 { return m.probes.dropped.Load() }

// Peers returns what this member last saw of the other servers of its set, in the order of the topology.
func (m *Manager) Peers() []*quoratev1.PeerStatus {
	now := m.now()
	views := m.probes.views()
	peers := make([]*quoratev1.PeerStatus, 0, len(views))
	for _, v := range views {
		status := &quoratev1.PeerStatus{
			Server:              v.Server,
			Reachable:           v.Reachable,
			ServiceLevel:        uint32(v.ServiceLevel),
			ConsecutiveFailures: uint32(v.Failures),
			LastError:           v.LastError,
			Generation:          v.Generation,
			Digest:              v.Digest,
			Role:                v.Role,
			ApplicationUri:      v.ApplicationURI,
		}
		if v.Known {
			status.LastSeenAge = durationpb.New(max(now.Sub(v.LastSeen), 0))
		}
		peers = append(peers, status)
	}
	return peers
}

// Status returns the part of a member's status that redundancy knows: set, role, level, band, reasons, peers, generation.
func (m *Manager) Status() *quoratev1.Member {
	level := m.Level()
	status := &quoratev1.Member{
		Id:           m.member,
		Set:          level.Set,
		Role:         level.Role,
		ServiceLevel: proto.Uint32(uint32(level.Value)),
		Band:         level.Band.String(),
		Reasons:      level.Reasons,
		Peers:        m.Peers(),
	}
	if record, ok := m.group.Local().State.Member(m.member); ok {
		status.AdoptedGeneration = record.GetAdoptedGeneration()
	}
	status.AppliedGeneration = m.group.Local().State.AppliedGeneration(m.member)
	if left := m.serving.left(m.elapsed()); left > 0 && level.Set != "" {
		status.ServingLease = durationpb.New(left)
	}
	return status
}
