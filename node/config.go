package node

import (
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/hashicorp/raft"

	logv1 "quorate/proto/quorate/log/v1"
	quoratev1 "quorate/proto/quorate/v1"
	"quorate/telemetry"
)

// The log stores that a member can have.
const (
	LogStoreBolt = "bolt"
	LogStoreWAL  = "wal"
)

// BootstrapMember is one voter of the group's first configuration, the same list on every member.
type BootstrapMember struct {
	ID          string
	RaftAddress string
}

// Timing holds the durations that depend on the links between members. Use a profile: TimingProfile.
type Timing struct {
	// Heartbeat is how long a follower waits for its leader before it stands for election; the leader beats ten times as often.
	Heartbeat time.Duration
	// Election is how long a candidate waits for votes; more than two round trips.
	Election time.Duration
	// LeaderLease is how long a leader stays one without hearing from a majority; at most Heartbeat.
	LeaderLease time.Duration
	// Commit is the pause after which the leader tells followers the commit index when no entry flows.
	Commit time.Duration
	// RPC bounds one exchange between members, and one dial.
	RPC time.Duration
	// Confirm bounds one confirmation of the term by a majority.
	Confirm time.Duration
}

// LAN suits members whose round trip is a few milliseconds, and goes on working when 100 ms are added in each direction: the lease is longer than
// such a round trip, or a new leader would give up before the first answer. A leader whose process ended is missed at once (see Transport.Gone); one
// that is paused or cut off costs some 700 ms.
var LAN = Timing{
	Heartbeat: 300 * time.Millisecond, Election: 400 * time.Millisecond, LeaderLease: 300 * time.Millisecond,
	Commit: 5 * time.Millisecond, RPC: 2 * time.Second, Confirm: 500 * time.Millisecond,
}

// WAN suits round trips of up to 500 ms, and machines that stall as long: a lost leader costs some three seconds.
var WAN = Timing{
	Heartbeat: time.Second, Election: 2 * time.Second, LeaderLease: time.Second,
	Commit: 5 * time.Millisecond, RPC: 10 * time.Second, Confirm: 2 * time.Second,
}

// TimingProfile returns the profile of a name: lan (also the empty name) or wan.
func TimingProfile(name string) (Timing, error) {
	switch name {
	case "", "lan":
		return LAN, nil
	case "wan":
		return WAN, nil
	}
	return Timing{}, fmt.Errorf("raft.timing: %q is not one of lan, wan", name)
}

// Limits bounds every queue and wait of a member. A zero field means its default.
type Limits struct {
	// EntryCommands and EntryBytes bound what is committed together in one log entry.
	EntryCommands int
	EntryBytes    int
	// CommandBytes bounds one command.
	CommandBytes int
	// WaitingProposals and WaitingBytes bound what waits for an entry; beyond it a proposal is refused as Overloaded.
	WaitingProposals int
	WaitingBytes     int
	// EntriesInFlight is how many entries may be on their way to commitment at a time.
	EntriesInFlight int
	// WaitingReads bounds the linearizable reads that wait for one confirmation.
	WaitingReads int
	// Propose and Read bound a call whose context has no earlier deadline.
	Propose time.Duration
	Read    time.Duration
	// WatchEvents is how many events are kept for watches that lag or resume.
	WatchEvents int
	// WatchBatch is how many events Watch.Next returns at most.
	WatchBatch int
	// WatchProgress is the silence after which a watch tells its progress.
	WatchProgress time.Duration
	// DigestInterval is the time between comparisons of the members' digests.
	DigestInterval time.Duration
	// FreeBytes is the free space of the data directory below which a leader hands over and the member isn't ready.
	FreeBytes uint64
	// SnapshotEntries is how many log entries are written before the next snapshot, and how many are kept behind it.
	SnapshotEntries uint64
}

// DefaultSnapshotEntries is Limits.SnapshotEntries where it is not given; MinSnapshotEntries and MaxSnapshotEntries bound what operators can set. Fewer make a
// member busy with snapshots, more make its restart long.
const (
	DefaultSnapshotEntries = 8192
	MinSnapshotEntries     = 128
	MaxSnapshotEntries     = 1 << 20
)

func (l Limits) withDefaults() Limits {
	setDefault(&l.EntryCommands, 1024)
	setDefault(&l.EntryBytes, 1<<20)
	setDefault(&l.CommandBytes, 512<<10)
	setDefault(&l.WaitingProposals, 8192)
	setDefault(&l.WaitingBytes, 64<<20)
	setDefault(&l.EntriesInFlight, 1)
	setDefault(&l.WaitingReads, 8192)
	setDefault(&l.Propose, 10*time.Second)
	setDefault(&l.Read, 10*time.Second)
	setDefault(&l.WatchEvents, 16384)
	setDefault(&l.WatchBatch, 256)
	setDefault(&l.WatchProgress, 5*time.Second)
	setDefault(&l.DigestInterval, 30*time.Second)
	setDefault(&l.FreeBytes, 64<<20)
	setDefault(&l.SnapshotEntries, DefaultSnapshotEntries)
	return l
}

func setDefault[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}

// Storage is where a member keeps its log and snapshots. Tests give one in memory; a process leaves it nil.
type Storage struct {
	Log       raft.LogStore
	Stable    raft.StableStore
	Snapshots raft.SnapshotStore
	Close     func() error
}

// Config is what a member is made of.
type Config struct {
	// ID is the member's name in the group.
	ID string
	// DataDir holds the log and the snapshots. It is unused when Storage is given.
	DataDir string
	// LogStore is bolt (also when empty) or wal.
	LogStore string
	// Bootstrap is the first list of voters. It is used once, when DataDir is empty; a member that is to join a running group has none.
	Bootstrap []BootstrapMember
	// Timing is a profile; the zero value means LAN.
	Timing    Timing
	Transport Transport
	// Clock gives the time that is stamped on entries. Nil means the machine's.
	Clock Clock
	// Logger gets everything that the member and raft have to say. Nil discards it.
	Logger *slog.Logger
	// Announce is what this member says of itself in the replicated state; its id is set by Open.
	Announce *logv1.AnnounceMember
	// SelfStatus adds to Members what only the layers above know of this member: level, band, reasons and peers. May be nil.
	SelfStatus func() *quoratev1.Member
	// FreeSpace returns the free bytes where the log is. Nil means those of DataDir's file system; with Storage nothing is guarded.
	FreeSpace func() (uint64, error)
	// Metrics get what this member measures; nobody may scrape them before Open has returned. Nil means that nobody asks.
	Metrics *telemetry.Metrics
	Limits  Limits
	Storage *Storage
}

func (c *Config) normalise() error {
	switch {
	case c.ID == "":
		return errors.New("node: Config.ID is empty")
	case c.Transport == nil:
		return errors.New("node: Config.Transport is nil")
	case c.Storage == nil && c.DataDir == "":
		return errors.New("node: Config.DataDir is empty")
	}
	setDefault(&c.LogStore, LogStoreBolt)
	if c.LogStore != LogStoreBolt && c.LogStore != LogStoreWAL {
		return fmt.Errorf("node: Config.LogStore: %q is not one of bolt, wal", c.LogStore)
	}
	if len(c.Bootstrap) > 0 {
		seen := map[string]bool{}
		for i, m := range c.Bootstrap {
			if m.ID == "" || m.RaftAddress == "" {
				return fmt.Errorf("node: Config.Bootstrap[%d]: id and address must be given", i)
			}
			if seen[m.ID] || seen["@"+m.RaftAddress] {
				return fmt.Errorf("node: Config.Bootstrap[%d]: id or address given twice", i)
			}
			seen[m.ID], seen["@"+m.RaftAddress] = true, true
		}
		if !seen[c.ID] {
			return fmt.Errorf("node: Config.Bootstrap doesn't name this member, %s", c.ID)
		}
	}
	setDefault(&c.Timing, LAN)
	if c.Clock == nil {
		c.Clock = NewSystemClock()
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	c.Limits = c.Limits.withDefaults()
	if c.FreeSpace == nil && c.Storage == nil {
		c.FreeSpace = func() (uint64, error) { return freeBytes(c.DataDir) }
	}
	return nil
}
