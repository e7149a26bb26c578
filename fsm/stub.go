package fsm

import (
	"errors"
	"io"
	"time"

	logv1 "quorate/proto/quorate/log/v1"
	quoratev1 "quorate/proto/quorate/v1"
)

var errUnwritten = errors.New("not written yet")

type topologies struct{ current *quoratev1.Generation }
type leases struct{}
type maintenance struct{}
type members struct{}
type requests struct{}

func newTopologies() topologies              { return topologies{} }
func newLeases() leases                      { return leases{} }
func newMaintenance() maintenance            { return maintenance{} }
func newMembers() members                    { return members{} }
func newRequests() requests                  { return requests{} }
func (t *topologies) snapshot() topologies   { return *t }
func (t *leases) snapshot() leases           { return *t }
func (t *maintenance) snapshot() maintenance { return *t }
func (t *members) snapshot() members         { return *t }
func (t *requests) snapshot() requests       { return *t }

type application struct{ *State }

func checkID(field, id string) *Refusal               { return nil }
func done() *logv1.Outcome                            { return nil }
func (a *application) abandonLeases()                 {}
func (l *leases) nextDeadline() (time.Duration, bool) { return 0, false }

// ApplyEntry applies one entry of the raft log: its stamp, then each command in order. Outcomes has one for each command,
// in order. An entry that was applied before (index ≤ Revision) does nothing and has no outcomes: a snapshot may overlap
// the log. An error means corruption or an unknown command, and the process must stop; nothing was changed then.
func (s *State) ApplyEntry(index uint64, e *logv1.Entry) (outcomes []*logv1.Outcome, events []*quoratev1.Event, err error) {
	return nil, nil, errUnwritten
}

// Accepts says whether a command may be proposed now: a body that this version does not know, or that some member can't apply yet, is refused.
func (s *State) Accepts(c *logv1.Command) *Refusal { return nil }

// CommandVersion returns the command set that every member can apply.
func (s *State) CommandVersion() uint32 { return 0 }

func (s *State) WriteTo(w io.Writer) (int64, error) { return 0, errUnwritten }
func Restore(r io.Reader) (*State, error)           { return nil, errUnwritten }
func (s *State) Digest() [32]byte                   { return [32]byte{} }
func (s *State) Check() error                       { return errUnwritten }

// Generation returns a generation that is still kept; its topology is absent where only the digest is.
func (s *State) Generation(n uint64) (*quoratev1.Generation, bool) { return nil, false }

// WholeGeneration returns a generation with its topology, 0 being the current one, or says why it can't: UNKNOWN_GENERATION, GENERATION_COMPACTED.
func (s *State) WholeGeneration(n uint64) (*quoratev1.Generation, *Refusal) { return nil, nil }

// Generations returns up to limit generations below before (0: from the newest), newest first.
func (s *State) Generations(before uint64, limit int) []*quoratev1.Generation { return nil }

// Server returns the server that a member runs in the current topology, and its set.
func (s *State) Server(member string) (*quoratev1.RedundantSet, *quoratev1.RedundantServer, bool) {
	return nil, nil, false
}

// Leases returns the leases of a server, or of all if it is empty: open ones first.
func (s *State) Leases(server string, includeEnded bool) []*quoratev1.ApplyLease { return nil }
func (s *State) MidApply(server string) bool                                     { return false }
func (s *State) Maintenance(server string) (*quoratev1.Maintenance, bool)        { return nil, false }
func (s *State) AllMaintenance() []*quoratev1.Maintenance                        { return nil }

// Member returns a member. One that left the group while the current topology names it is still returned, with an empty raft address (Departed).
func (s *State) Member(id string) (*logv1.MemberRecord, bool) { return nil, false }
func (s *State) Members() []*logv1.MemberRecord               { return nil }
func Departed(m *logv1.MemberRecord) bool                     { return m.GetRaftAddress() == "" }

// ValidateTopology checks a draft against the state, and returns it in normal form. Plan and publish both use it.
func ValidateTopology(s *State, t *quoratev1.Topology) (*quoratev1.Topology, *Refusal) { return t, nil }

// CheckExpected says whether a generation is still the current one; if not, GENERATION_CONFLICT with current_generation.
func (s *State) CheckExpected(generation uint64) *Refusal { return nil }

// Diff returns the differences between two topologies, ordered by path; nil is the empty topology.
func Diff(a, b *quoratev1.Topology) []*quoratev1.TopologyChange { return nil }

// TopologyDigest returns the SHA-256 of the canonical bytes of a topology, in hex.
func TopologyDigest(t *quoratev1.Topology) string { return "" }
