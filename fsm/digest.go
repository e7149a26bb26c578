package fsm

import (
	"crypto/sha256"
	"encoding/hex"

	logv1 "quorate/proto/quorate/log/v1"
	quoratev1 "quorate/proto/quorate/v1"
)

// TopologyDigest returns the SHA-256 of the canonical bytes of a topology, in hex. Two topologies have the same digest
// exactly if they do not differ by Diff; give it the normal form that ValidateTopology returns.
func TopologyDigest(t *quoratev1.Topology) string {
	var c canonical
	c.str(domainTopology)
	c.topology(t)
	sum := sha256.Sum256(c)
	return hex.EncodeToString(sum[:])
}

// fingerprint tells whether two commands with the same request id are the same.
func fingerprint(cmd *logv1.Command) [sha256.Size]byte {
	var c canonical
	c.str(domainCommand)
	c.command(cmd)
	return sha256.Sum256(c)
}

// Digest returns the SHA-256 of the canonical bytes of the whole state. Members at the same revision have the same digest,
// or one of them is wrong. It reads everything, so for a large state take it from a Snapshot, away from the apply loop.
func (s *State) Digest() [32]byte {
	h := sha256.New()
	var c canonical
	flush := func() {
		h.Write(c)
		c = c[:0]
	}
	c.str(domainState)
	c.int(int64(s.clock.now))
	c.uint(s.clock.revision)
	c.uint(s.clock.term)
	c.str(s.clock.leader)
	c.uint(uint64(s.topology.kept.Len()))
	for _, g := range s.topology.kept.All() {
		c.generation(g)
		flush()
	}
	c.uint(uint64(s.leases.open.Len()))
	for _, l := range s.leases.open.All() {
		c.lease(l)
		flush()
	}
	c.uint(uint64(s.leases.ended.Len()))
	for _, l := range s.leases.ended.All() {
		c.lease(l)
		flush()
	}
	c.uint(uint64(s.maintenance.active.Len()))
	for _, m := range s.maintenance.active.All() {
		c.maintenance(m)
		flush()
	}
	c.uint(uint64(s.members.byID.Len()))
	for _, m := range s.members.byID.All() {
		c.member(m)
		flush()
	}
	c.uint(uint64(s.requests.byAge.Len()))
	for _, r := range s.requests.byAge.All() {
		c.str(r.key)
		c = append(c, r.fingerprint[:]...)
		c.outcome(r.outcome)
		flush()
	}
	flush()
	// What came later is left out where there is none: a state without it has the digest that older versions give it.
	if n := s.servings.byServer.Len(); n > 0 {
		c.uint(7)
		c.uint(uint64(n))
		for _, v := range s.servings.byServer.All() {
			c.serving(v)
			flush()
		}
	}
	if n := s.rollouts.bySet.Len(); n > 0 {
		c.uint(8)
		c.uint(uint64(n))
		for _, r := range s.rollouts.bySet.All() {
			c.rollout(r)
			flush()
		}
	}
	if n := s.levels.changes.Len(); n > 0 {
		c.uint(9)
		c.uint(uint64(n))
		for _, l := range s.levels.changes.All() {
			c.level(l)
			flush()
		}
	}
	s.digestPartitions(&c, flush)
	return [32]byte(h.Sum(nil))
}
