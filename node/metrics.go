package node

import (
	"errors"
	"math"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"

	"quorate/fsm"
	logv1 "quorate/proto/quorate/log/v1"
	quoratev1 "quorate/proto/quorate/v1"
	"quorate/telemetry"
)

// How proposals and reads end, as label values.
const (
	resultAccepted = iota
	resultRefused
	resultFailed
	resultUnknown
	resultCount
)

var resultNames = [resultCount]string{"accepted", "refused", "failed", "unknown"}

// readKinds are the consistencies of reads, as label values.
var readKinds = [...]string{"linearizable", "bounded", "local"}

// proposalBounds are the buckets of the latency of proposals, in seconds: a commit takes a millisecond or a few, an election some hundred.
var proposalBounds = []float64{.0005, .001, .002, .005, .01, .02, .05, .1, .2, .5, 1, 2, 5, 10}

// counts are what a member counts of itself.
type counts struct {
	proposals    [resultCount]atomic.Uint64
	proposalTime *telemetry.Histogram
	entries      atomic.Uint64 // that this member formed as leader
	commands     atomic.Uint64 // in those entries
	leaderships  atomic.Uint64 // that this member opened the term of
	reads        [len(readKinds)][2]atomic.Uint64
	watches      atomic.Int64
	compacted    atomic.Uint64 // watches that lost their place
	gateGrants   atomic.Uint64 // gate leases that this member granted as leader
	gateWait     *telemetry.Histogram
}

func (c *counts) proposed(outcome *logv1.Outcome, err error, took time.Duration) {
	result := resultAccepted
	var e *Error
	switch {
	case errors.As(err, &e) && e.Kind == UnknownOutcome:
		result = resultUnknown
	case err != nil:
		result = resultFailed
	case outcome.GetRefusal() != nil:
		result = resultRefused
	}
	c.proposals[result].Add(1)
	c.proposalTime.Observe(took)
}

func (c *counts) read(consistency quoratev1.Consistency, err error) {
	kind := 0
	switch consistency {
	case quoratev1.Consistency_CONSISTENCY_BOUNDED:
		kind = 1
	case quoratev1.Consistency_CONSISTENCY_LOCAL:
		kind = 2
	}
	c.reads[kind][telemetry.Bit(err != nil)].Add(1)
}

// compaction counts the end of a watch, if that was because it lost its place.
func (c *counts) compaction(err error) {
	var lost *CompactedError
	if errors.As(err, &lost) {
		c.compacted.Add(1)
	}
}

// snapshots are what was done with snapshots since the start.
type snapshots struct {
	written, failed, restored atomic.Uint64
	// Of the newest that was written or restored.
	revision, bytes atomic.Int64
	// How long the last of each kind took, in nanoseconds.
	capture, write, restore atomic.Int64
}

// measure registers what a member counts, and what raft knows.
func (n *Node) measure(m *telemetry.Metrics) (err error) {
	n.counts.proposalTime, err = m.Histogram("quorate_proposal_duration_seconds",
		"Time from a proposal at this member to its answer, whatever that is.", proposalBounds...)
	if err != nil {
		return err
	}
	n.counts.gateWait, err = m.Histogram("quorate_gate_wait_duration_seconds",
		"Time that a transition of a partition waited at the leader until no gate lease stood against it.", proposalBounds...)
	if err != nil {
		return err
	}
	return errors.Join(n.measureGroup(m), n.measureUse(m), n.measurePartitions(m))
}

// measureGroup registers where this member stands in its group.
func (n *Node) measureGroup(m *telemetry.Metrics) error {
	type from = *Node
	return telemetry.Register(m, func() from { return n },
		telemetry.Gauge("quorate_raft_term", "Current term of raft.", func(n from) uint64 { return n.raft.CurrentTerm() }),
		telemetry.Gauge("quorate_raft_leader", "1 while this member leads and has opened its term.", func(n from) int { return telemetry.Bit(n.IsLeader()) }),
		telemetry.Counter("quorate_raft_leaderships_total", "Terms that this member opened as leader.", func(n from) uint64 { return n.counts.leaderships.Load() }),
		telemetry.Gauge("quorate_raft_commit_index", "Index of the last log entry that this member knows to be committed.", func(n from) uint64 { return n.raft.CommitIndex() }),
		telemetry.Gauge("quorate_raft_applied_index", "Index of the last log entry that the state machine has applied.", func(n from) uint64 { return n.machine.latest.Load().index }),
		telemetry.Gauge("quorate_raft_last_contact_seconds",
			"Time since this member was certainly in contact with the group: 0 on a confirmed leader, +Inf before the first contact.",
			func(n from) float64 {
				if age := n.QuorumContact(); age < NeverHeard {
					return age.Seconds()
				}
				return math.Inf(1)
			}),
		telemetry.GaugeBy("quorate_raft_members", "Members in the configuration that this member has, by suffrage: voter, learner.",
			[]string{"suffrage"}, func(n from, report telemetry.Report) { n.countMembers(report) }),
		telemetry.Gauge("quorate_ready", "1 while this member can serve, as /readyz says.", func(n from) int { return telemetry.Bit(n.Ready() == nil) }),
		telemetry.Gauge("quorate_diverged", "1 once this member's state was found to differ from the majority's.", func(n from) int { return telemetry.Bit(n.Diverged()) }),
		telemetry.Gauge("quorate_storage_tight", "1 while less space is free in the data directory than this member needs to lead.", func(n from) int { return telemetry.Bit(n.tight.Load()) }),
		telemetry.Gauge("quorate_state_revision", "Revision of the replicated state here.", func(n from) uint64 { return n.machine.latest.Load().state.Revision() }),
		telemetry.Gauge("quorate_state_generation", "Current generation of the topology here.",
			func(n from) uint64 { return n.machine.latest.Load().state.CurrentGeneration().GetNumber() }),
	)
}

// measureUse registers what is done with this member.
func (n *Node) measureUse(m *telemetry.Metrics) error {
	type from = *Node
	return telemetry.Register(m, func() from { return n },
		telemetry.CounterBy("quorate_proposals_total",
			"Proposals at this member, by result: accepted; refused by the state machine; failed before anything changed; unknown, when they may still take effect.",
			[]string{"result"}, func(n from, report telemetry.Report) {
				for i := range n.counts.proposals {
					report(float64(n.counts.proposals[i].Load()), resultNames[i])
				}
			}),
		telemetry.Gauge("quorate_proposals_waiting", "Proposals that wait for an entry on this leader.", func(n from) int { return n.proposer.waiting() }),
		telemetry.Counter("quorate_entries_total", "Log entries that this member formed as leader.", func(n from) uint64 { return n.counts.entries.Load() }),
		telemetry.Counter("quorate_entry_commands_total", "Commands in the entries that this member formed as leader.", func(n from) uint64 { return n.counts.commands.Load() }),
		telemetry.CounterBy("quorate_reads_total", "Reads at this member, by consistency and result: ok, failed.",
			[]string{"consistency", "result"}, func(n from, report telemetry.Report) {
				for i := range n.counts.reads {
					report(float64(n.counts.reads[i][0].Load()), readKinds[i], "ok")
					report(float64(n.counts.reads[i][1].Load()), readKinds[i], "failed")
				}
			}),
		telemetry.Gauge("quorate_watches", "Watches of events that are open.", func(n from) int64 { return n.counts.watches.Load() }),
		telemetry.Counter("quorate_watches_compacted_total", "Watches that ended or did not begin because events were no longer kept.",
			func(n from) uint64 { return n.counts.compacted.Load() }),
		telemetry.CounterBy("quorate_snapshots_total", "Snapshots, by result: written, failed to be written, restored.",
			[]string{"result"}, func(n from, report telemetry.Report) {
				s := &n.machine.snapshots
				report(float64(s.written.Load()), "written")
				report(float64(s.failed.Load()), "failed")
				report(float64(s.restored.Load()), "restored")
			}),
		telemetry.Gauge("quorate_snapshot_revision", "Revision of the newest snapshot that was written or restored since the start, 0 if none was.",
			func(n from) int64 { return n.machine.snapshots.revision.Load() }),
		telemetry.Gauge("quorate_snapshot_size_bytes", "Size of the newest snapshot that was written since the start.",
			func(n from) int64 { return n.machine.snapshots.bytes.Load() }),
		telemetry.Gauge("quorate_snapshot_write_duration_seconds", "Time that it took to write the newest snapshot since the start.",
			func(n from) float64 { return time.Duration(n.machine.snapshots.write.Load()).Seconds() }),
		telemetry.Gauge("quorate_snapshot_capture_duration_seconds", "Time for which commands waited while the state of the newest snapshot since the start was captured.",
			func(n from) float64 { return time.Duration(n.machine.snapshots.capture.Load()).Seconds() }),
		telemetry.Gauge("quorate_snapshot_restore_duration_seconds", "Time that it took to restore the newest snapshot that was restored since the start.",
			func(n from) float64 { return time.Duration(n.machine.snapshots.restore.Load()).Seconds() }),
	)
}

// measurePartitions registers what there is of partitions and gates.
func (n *Node) measurePartitions(m *telemetry.Metrics) error {
	type from = *fsm.State
	return errors.Join(
		telemetry.Register(m, func() from { return n.machine.latest.Load().state },
			telemetry.Gauge("quorate_partitions", "Partitions in the replicated state here.", func(s from) int { all, _ := s.PartitionCount(); return all }),
			telemetry.Gauge("quorate_partitions_migrating", "Partitions that migrate.", func(s from) int { _, migrating := s.PartitionCount(); return migrating }),
			telemetry.Gauge("quorate_instances", "Registered instances, which may hold gate leases.", func(s from) int { return s.InstanceCount() }),
		),
		telemetry.Register(m, func() *Node { return n },
			telemetry.Counter("quorate_gate_grants_total", "Gate leases that this member granted as leader.", func(n *Node) uint64 { return n.counts.gateGrants.Load() }),
			telemetry.Gauge("quorate_gates_closed", "Partitions whose gates are closed by this leader, while a transition of them is under way.", func(n *Node) int {
				if s := n.session.Load(); s != nil {
					return len(s.gates.slots)
				}
				return 0
			}),
		),
	)
}

// countMembers reports the members of the configuration by suffrage.
func (n *Node) countMembers(report telemetry.Report) {
	voters, learners := 0, 0
	for _, s := range n.raft.GetConfiguration().Configuration().Servers {
		if s.Suffrage == raft.Voter {
			voters++
		} else {
			learners++
		}
	}
	report(float64(voters), "voter")
	report(float64(learners), "learner")
}
