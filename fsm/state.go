package fsm

import "time"

// State is the whole replicated state. Only ApplyEntry changes it; it must not be called while another goroutine uses the
// same State. Readers use a Snapshot instead. Whatever a query returns is shared and must not be modified.
type State struct {
	clock       clock
	topology    topologies
	leases      leases
	maintenance maintenance
	members     members
	requests    requests
	servings    servings
	rollouts    rollouts
	levels      levels
	partitions  partitions
	instances   instances
}

// New returns the state before the first entry.
func New() *State {
	return &State{
		topology:    newTopologies(),
		leases:      newLeases(),
		maintenance: newMaintenance(),
		members:     newMembers(),
		requests:    newRequests(),
		servings:    newServings(),
		rollouts:    newRollouts(),
		levels:      newLevels(),
		partitions:  newPartitions(),
		instances:   newInstances(),
	}
}

// Snapshot returns a view of the state that never changes, in constant time. Any goroutine may read it for as long as it
// likes. Take it where ApplyEntry is called, or from another snapshot.
func (s *State) Snapshot() *State {
	return &State{
		clock:       s.clock,
		topology:    s.topology.snapshot(),
		leases:      s.leases.snapshot(),
		maintenance: s.maintenance.snapshot(),
		members:     s.members.snapshot(),
		requests:    s.requests.snapshot(),
		servings:    s.servings.snapshot(),
		rollouts:    s.rollouts.snapshot(),
		levels:      s.levels.snapshot(),
		partitions:  s.partitions.snapshot(),
		instances:   s.instances.snapshot(),
	}
}

// Revision returns the Raft index of the last entry applied, 0 before the first.
func (s *State) Revision() uint64 { return s.clock.revision }

// Now returns cluster time: the time that the group has had a leader, since it began.
func (s *State) Now() time.Duration { return s.clock.now }

// Term returns the term of the last OpenTerm applied.
func (s *State) Term() uint64 { return s.clock.term }

// Leader returns the member that opened the term.
func (s *State) Leader() string { return s.clock.leader }

// NextDeadline returns the earliest cluster time at which a pulse would do something; false means that nothing waits. The
// request memory does not count: it is pruned by whatever entry comes next.
func (s *State) NextDeadline() (time.Duration, bool) {
	lease, leased := s.leases.nextDeadline()
	barrier, waiting := s.partitions.barriers.nextDeadline(s.clock.now)
	if !leased || waiting && barrier < lease {
		return barrier, waiting
	}
	return lease, leased
}
