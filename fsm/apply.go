package fsm

import (
	"strings"

	"quorate/fsm/tree"
	quoratev1 "quorate/proto/quorate/v1"
)

// rollouts holds, for each set of the current topology, how far the last generation that changed it (or was forced) has come: it is
// applied by one server after the other, Backups first (redundancy.md §6).
type rollouts struct {
	bySet tree.Map[string, *quoratev1.Rollout]
}

func newRollouts() rollouts {
	return rollouts{bySet: tree.New[string, *quoratev1.Rollout](strings.Compare)}
}

func (r *rollouts) snapshot() rollouts { return rollouts{bySet: r.bySet.Snapshot()} }

// Rollout returns the roll-out of a set.
func (s *State) Rollout(set string) (*quoratev1.Rollout, bool) { return s.rollouts.bySet.Get(set) }

// Rollouts returns the roll-out of every set, in order of the sets.
func (s *State) Rollouts() []*quoratev1.Rollout {
	var all []*quoratev1.Rollout
	for _, r := range s.rollouts.bySet.All() {
		all = append(all, r)
	}
	return all
}

// serverApply returns a server's part in the roll-out of its set, nil if there is none.
func (s *State) serverApply(server string) (*quoratev1.Rollout, *quoratev1.ServerApply) {
	r, _ := s.Rollout(s.setOf(server))
	for _, a := range r.GetServers() {
		if a.GetServer() == server {
			return r, a
		}
	}
	return r, nil
}

// AppliedGeneration returns the last generation that a server applied well, 0 if none.
func (s *State) AppliedGeneration(server string) uint64 {
	_, a := s.serverApply(server)
	return a.GetAppliedGeneration()
}

// LastApplied returns the last generation that every server of a set has applied: what RollbackApply goes back to.
func (s *State) LastApplied(set string) (generation uint64, ok bool) {
	r, ok := s.Rollout(set)
	for i, a := range r.GetServers() {
		if i == 0 || a.GetAppliedGeneration() < generation {
			generation = a.GetAppliedGeneration()
		}
	}
	return generation, ok && generation != 0
}

// MayApply says whether it is a server's turn to apply, and which generation: BeginApply would be accepted. It is so, too, for a
// server that has begun and not ended, which a restarted one begins again. Where it has to wait, waitingFor is the server that it
// waits for: itself if its own apply failed and nobody has resumed. Both are empty where it has nothing to apply.
func (s *State) MayApply(server string) (generation uint64, waitingFor string, ok bool) {
	return 0, "", false
}

// HandOverDue says whether the Primary of a set has to hand its role to a Backup before it applies, and the Backups have applied: to
// is the Backup to propose, generation the current one, which SwapRoles has to expect. The Backup proposes it once it is Authoritative
// again.
func (s *State) HandOverDue(set string) (to string, generation uint64, ok bool) {
	return "", 0, false
}
