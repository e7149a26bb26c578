package fsm

import "time"

// Limits of the replicated state. They are constants and not settings, because every member must judge alike: a change
// of one is a new command version.
const (
	// ApplyMaxDuration is the cluster time after which the watchdog closes an apply lease as abandoned.
	ApplyMaxDuration = 10 * time.Minute

	// MaxGenerationsWhole is how many of the last generations are kept with their document.
	MaxGenerationsWhole = 64
	// MaxGenerationDigests is how many older generations are kept by digest.
	MaxGenerationDigests = 4096

	// MaxSets is the most redundant sets in a topology.
	MaxSets = 128
	// MaxServers is the most servers that a set may be allowed by its policy max_servers.
	MaxServers = 8
	// DefaultMaxServers is the most servers in a set whose policy says nothing.
	DefaultMaxServers = 2
	// MaxTopologyBytes is the most canonical bytes of a topology.
	MaxTopologyBytes = 256 << 10

	// MaxIDBytes is the longest id of a set, member or server.
	MaxIDBytes = 64
	// MaxURLBytes is the longest URL or ApplicationUri.
	MaxURLBytes = 1024
	// MaxAddressBytes is the longest HOST:PORT address.
	MaxAddressBytes = 256
	// MaxTextBytes is the longest free text: a reason, an outcome, the name of an actor.
	MaxTextBytes = 256
	// MaxVersionBytes is the longest version that a member announces.
	MaxVersionBytes = 64
	// MaxRequestIDBytes is the longest request id.
	MaxRequestIDBytes = 128

	// MaxOpenLeases is the most open apply leases, by key, of one server.
	MaxOpenLeases = 16
	// MaxLeaseWindows is the most windows of one apply lease.
	MaxLeaseWindows = 1024
	// MaxEndedLeases is how many ended leases of one server are kept for people to look at.
	MaxEndedLeases = 64

	// MaxOutputBytes is the longest output of an apply that is kept; the end of it is the most telling.
	MaxOutputBytes = 4096

	// MaxServing is the most serving rights. Those of servers that have left their sets count until they are released or have lapsed.
	MaxServing = 256

	// MaxLevelChanges is how many changes of level are kept for each server.
	MaxLevelChanges = 256
	// MaxLevelBatch is the most changes of level in one command.
	MaxLevelBatch = 64
	// MaxLevelReasons is the most reasons of one change of level.
	MaxLevelReasons = 8

	// MinFailoverAfter and MaxFailoverAfter bound the policy failover_after.
	MinFailoverAfter = time.Second
	MaxFailoverAfter = time.Hour
	// MinStandIn and MaxStandIn bound the policy stand_in: Healthy, and below the Authoritative level of a Primary.
	MinStandIn = 200
	MaxStandIn = 254

	// MaxMembers is the most members of the group, learners included.
	MaxMembers = 256

	// MaxPartitions is the most partitions of the group. One takes some 110 bytes.
	MaxPartitions = 1 << 21
	// MaxPartitionBatch is the most partitions in one command, and the most keys that one call resolves or checks.
	MaxPartitionBatch = 1000
	// MaxEpoch is the highest epoch that a snapshot may hold. No log is long enough to come near; a higher one is corruption, and would let the next
	// transition begin again at 0.
	MaxEpoch = 1 << 62
	// MaxPlacements is the most placements that own a partition or are to get one.
	MaxPlacements = 10_000
	// MaxMigrations is the most partitions that migrate at one time.
	MaxMigrations = 1 << 16
	// MaxMigrationServers is the most servers that a migration may name.
	MaxMigrationServers = 8
	// MaxPartitionScan is the most partitions that one page of a list looks at.
	MaxPartitionScan = 100_000

	// DefaultDrainBarrier is the drain barrier, and the least one, until an administrator sets others (partitions.md §2). It has to be at least as
	// long as the longest time-out of any write.
	DefaultDrainBarrier = 30 * time.Second
	// MinDrainBarrier and MaxDrainBarrier bound what can be set.
	MinDrainBarrier = 100 * time.Millisecond
	MaxDrainBarrier = 24 * time.Hour
	// DefaultEarlyFloor is the least time between a cutover and its early completion.
	DefaultEarlyFloor = 5 * time.Second
	// DefaultGateTTL is for how long a gate lease lasts, counted by its holder from before it asked; MinGateTTL and MaxGateTTL bound what can be set.
	DefaultGateTTL = 2 * time.Second
	MinGateTTL     = 200 * time.Millisecond
	MaxGateTTL     = 10 * time.Second

	// MaxInstances is the most registered instances.
	MaxInstances = 4096
	// MinSessionBytes and MaxSessionBytes bound the session of an instance.
	MinSessionBytes = 16
	MaxSessionBytes = 64

	// RequestMemory is the cluster time for which the answer to a request id is remembered.
	RequestMemory = 10 * time.Minute
	// MaxRequests is the most answers that are remembered; the oldest is forgotten first. One takes about 400 bytes, that of a migration up to 1.2 KiB. Above 218
	// commands a second this limit comes before RequestMemory; at 20,000 a second an answer is still known for 6.5 s, which is
	// longer than a client retries.
	MaxRequests = 1 << 17
	// MaxForgetPerEntry is the most outdated answers that one entry removes, so that no entry after a long silence is
	// slow. An answer counts as forgotten from its time on, removed or not.
	MaxForgetPerEntry = 1024

	// MaxClock is the greatest reading of cluster time, 146 years. A stamp above it is corruption.
	MaxClock = time.Duration(1) << 62

	// MaxRecordBytes is the longest record of a snapshot.
	MaxRecordBytes = 4 << 20
)

// CommandVersion is the highest command set that this package can apply (see State.CommandVersion).
const CommandVersion = 3

// partitionVersion is the command version that brought partitions.
const partitionVersion = 3
