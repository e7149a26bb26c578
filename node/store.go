package node

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"github.com/hashicorp/raft"
	raftboltdb "github.com/hashicorp/raft-boltdb/v2"
	wal "github.com/hashicorp/raft-wal"
	"github.com/hashicorp/raft-wal/metadb"
	"go.etcd.io/bbolt"

	"quorate/mutant"
	"quorate/telemetry"
)

const (
	// snapshotsKept is how many snapshots stay on disk.
	snapshotsKept = 2
	// lockTimeout bounds the wait for another process that has the store open.
	lockTimeout = time.Second
)

// openStorage opens or creates the stores under dir: stable.db for raft's term and vote, snapshots/, and log.db or wal/. The term and the vote have a
// file of their own, so that an election doesn't rewrite the log's pages.
func openStorage(dir, kind string, logger *slog.Logger) (_ *Storage, err error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	if err := checkKind(dir, kind); err != nil {
		return nil, err
	}
	var closers []func() error
	closeAll := func() error {
		var err error
		for _, c := range closers {
			err = errors.Join(err, c())
		}
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, closeAll())
		}
	}()
	stable, err := openBolt(filepath.Join(dir, "stable.db"))
	if err != nil {
		return nil, err
	}
	closers = append(closers, stable.Close)
	s := &Storage{Stable: stable, Close: closeAll}
	switch kind {
	case LogStoreBolt:
		log, err := openBolt(filepath.Join(dir, "log.db"))
		if err != nil {
			return nil, err
		}
		closers, s.Log = append(closers, log.Close), log
	case LogStoreWAL:
		path := filepath.Join(dir, "wal")
		if err := os.MkdirAll(path, 0o700); err != nil {
			return nil, err
		}
		// The log leaves its meta store open, and locked, when it is closed; so it is given one that can be closed here.
		meta := &metadb.BoltMetaDB{}
		log, err := wal.Open(path, wal.WithMetaStore(meta), wal.WithLogger(telemetry.HCLog(logger.With("component", "wal"))))
		if err != nil {
			return nil, errors.Join(fmt.Errorf("open %s: %w", path, err), meta.Close())
		}
		closers, s.Log = append(closers, log.Close, meta.Close), log
	}
	s.Snapshots, err = raft.NewFileSnapshotStoreWithLogger(dir, snapshotsKept, telemetry.HCLog(logger.With("component", "snapshots")))
	return s, err
}

// checkKind refuses a directory whose log is of the other kind: starting with an empty one would forget votes and entries.
func checkKind(dir, kind string) error {
	other, name := "wal", LogStoreWAL
	if kind == LogStoreWAL {
		other, name = "log.db", LogStoreBolt
	}
	if _, err := os.Stat(filepath.Join(dir, other)); err == nil {
		return fmt.Errorf("storage.logStore: %s was asked for, but the data directory holds a log of kind %s", kind, name)
	}
	return nil
}

func openBolt(path string) (*raftboltdb.BoltStore, error) {
	// The free list as a map, and not written with each commit, is what keeps bolt's commits short as the file grows; it is rebuilt at start.
	store, err := raftboltdb.New(raftboltdb.Options{Path: path, NoSync: mutant.NoSync, BoltOptions: &bbolt.Options{
		FreelistType: bbolt.FreelistMapType, NoFreelistSync: true, Timeout: lockTimeout,
	}})
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", path, err)
	}
	return store, nil
}

// guardedLog reports failures: raft on a follower only logs them, and a leader with a full disk would win one election after the other. It also gives
// entries their checksums, and compares them (checksum.go).
type guardedLog struct {
	raft.LogStore
	snapshots raft.SnapshotStore
	fail      func(error)
}

func guardLog(s *Storage, fail func(error)) raft.LogStore {
	return guardedLog{s.Log, s.Snapshots, fail}
}

func (g guardedLog) check(op string, err error) error {
	if err != nil && !errors.Is(err, raft.ErrLogNotFound) {
		g.fail(&Error{Op: op, Kind: StorageFailed, Err: err})
	}
	return err
}

func (g guardedLog) GetLog(index uint64, l *raft.Log) error {
	err := g.LogStore.GetLog(index, l)
	if errors.Is(err, raft.ErrLogNotFound) && g.missing(index) {
		// Entries may have been cut off and written anew meanwhile.
		if err = g.LogStore.GetLog(index, l); errors.Is(err, raft.ErrLogNotFound) {
			err = fmt.Errorf("log entry %d is missing, and others after it are there", index)
		}
	}
	if err == nil {
		err = verify(l)
	}
	if err == nil && l.Index != index {
		err = fmt.Errorf("log entry %d is damaged: in its place is entry %d", index, l.Index)
	}
	return g.check("read log", err)
}

// missing says whether an entry that isn't there should be: the log goes further, and no snapshot has it. A leader would send its snapshot again and again,
// to a member that needs that entry. Below a snapshot there may be holes, since a follower may keep what it had before it took one over.
func (g guardedLog) missing(index uint64) bool {
	first, err := g.FirstIndex()
	if err != nil || index < first {
		return false
	}
	last, err := g.LastIndex()
	if err != nil || index > last {
		return false
	}
	snapshots, err := g.snapshots.List()
	return err == nil && (len(snapshots) == 0 || index > snapshots[0].Index)
}

func (g guardedLog) StoreLog(l *raft.Log) error { return g.StoreLogs([]*raft.Log{l}) }

func (g guardedLog) StoreLogs(logs []*raft.Log) error {
	if err := sealAll(logs); err != nil {
		return g.check("write log", err)
	}
	// Raft compares the first with what is there, and takes the others as they come; a log with a hole is one that no member can start with.
	for i, l := range logs {
		if l.Index != logs[0].Index+uint64(i) {
			return g.check("write log", fmt.Errorf("log entry %d comes after %d", l.Index, logs[i-1].Index))
		}
	}
	return g.check("write log", g.LogStore.StoreLogs(logs))
}

func (g guardedLog) DeleteRange(first, last uint64) error {
	return g.check("shorten log", g.LogStore.DeleteRange(first, last))
}

// IsMonotonic implements raft.MonotonicLogStore, for the write-ahead log.
func (g guardedLog) IsMonotonic() bool {
	m, ok := g.LogStore.(raft.MonotonicLogStore)
	return ok && m.IsMonotonic()
}

// guardedStable does the same for the term and the vote. The vote itself has no checksum: a damaged one is nobody's.
type guardedStable struct {
	raft.StableStore
	fail func(error)
}

func guardStable(s raft.StableStore, fail func(error)) raft.StableStore {
	return guardedStable{s, fail}
}

func (g guardedStable) check(op string, err error) error {
	if err != nil {
		g.fail(&Error{Op: op, Kind: StorageFailed, Err: err})
	}
	return err
}

func (g guardedStable) Set(key, value []byte) error {
	return g.check("write vote", g.StableStore.Set(key, value))
}

func (g guardedStable) SetUint64(key []byte, value uint64) error {
	return g.Set(key, sealNumber(value))
}

func (g guardedStable) GetUint64(key []byte) (uint64, error) {
	b, err := g.Get(key)
	if err != nil {
		return 0, err // That there is none is one as well.
	}
	value, err := openNumber(key, b)
	return value, g.check("read vote", err)
}
