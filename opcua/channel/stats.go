package channel

import (
	"slices"
	"sync/atomic"
)

// RejectReasons are all reasons for which the server refuses or ends a connection.
var RejectReasons = []RejectReason{
	RejectTooMany, RejectTimeout, RejectSlow, RejectMalformed, RejectSecurity, RejectTooLarge, RejectPanic, RejectReverse, RejectByHandler, RejectServerClose,
}

// Stats are numbers of a server. What is counted is counted since its start.
type Stats struct {
	// Connections is how many there are now, those included that are not yet or no longer a secure channel.
	Connections int
	// Accepted counts connections that got a place.
	Accepted uint64
	// Rejected counts connections that the server refused or ended, by reason: every one of RejectReasons is there.
	Rejected map[RejectReason]uint64
	// Channels counts secure channels, in the order of Policies.
	Channels []PolicyStats
	// Panics counts those that were confined to their connection.
	Panics uint64
	// PartialBytes is what requests of which not all chunks have come hold now, in bytes.
	PartialBytes int64
}

// PolicyStats counts the secure channels of one policy.
type PolicyStats struct {
	PolicyURI       string
	Opened, Renewed uint64
}

// counts is what Stats are made from. No request touches it: connections and channels do.
type counts struct {
	panics   atomic.Uint64
	rejected []atomic.Uint64    // in the order of RejectReasons
	channels [][2]atomic.Uint64 // in the order of policies: opened, renewed
}

func newCounts() counts {
	return counts{rejected: make([]atomic.Uint64, len(RejectReasons)), channels: make([][2]atomic.Uint64, len(policies))}
}

func (c *counts) reject(reason RejectReason) {
	if i := slices.Index(RejectReasons, reason); i >= 0 {
		c.rejected[i].Add(1)
	}
}

func (c *counts) open(p *policy, renewed bool) {
	kind := 0
	if renewed {
		kind = 1
	}
	c.channels[slices.Index(policies, p)][kind].Add(1)
}

// Stats returns the numbers as they are now.
func (s *Server) Stats() Stats {
	s.mu.Lock()
	connections, accepted := len(s.channels), s.accepted
	s.mu.Unlock()
	stats := Stats{
		Connections:  connections,
		Accepted:     accepted,
		Rejected:     make(map[RejectReason]uint64, len(RejectReasons)),
		Panics:       s.counts.panics.Load(),
		PartialBytes: s.partialBytes.Load(),
	}
	for i, reason := range RejectReasons {
		stats.Rejected[reason] = s.counts.rejected[i].Load()
	}
	for i, p := range policies {
		stats.Channels = append(stats.Channels, PolicyStats{p.uri, s.counts.channels[i][0].Load(), s.counts.channels[i][1].Load()})
	}
	return stats
}
