package sim

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/hashicorp/raft"
)

// snapshotsKept is how many snapshots a disk holds.
const snapshotsKept = 2

// errNotFound has the text that raft looks for.
var errNotFound = errors.New("not found")

// Disk is a member's log, term, vote and snapshots. What was written is durable once the call returns, and not before: a write under way is lost when the
// member is killed.
type Disk struct {
	// delay is how long the next write of entries takes; nil means no time.
	delay     func() time.Duration
	mu        sync.Mutex
	logs      map[uint64]*raft.Log
	low, high uint64
	values    map[string][]byte
	numbers   map[string]uint64
	snapshots []*snapshot
	made      int
}

type snapshot struct {
	meta raft.SnapshotMeta
	data []byte
}

// NewDisk returns an empty disk.
func NewDisk() *Disk {
	return &Disk{logs: map[uint64]*raft.Log{}, values: map[string][]byte{}, numbers: map[string]uint64{}}
}

// Clone returns the image of this instant.
func (d *Disk) Clone() *Disk {
	d.mu.Lock()
	defer d.mu.Unlock()
	return &Disk{
		delay: d.delay, logs: maps.Clone(d.logs), low: d.low, high: d.high, values: maps.Clone(d.values), numbers: maps.Clone(d.numbers),
		snapshots: slices.Clone(d.snapshots), made: d.made,
	}
}

// FirstIndex implements raft.LogStore.
func (d *Disk) FirstIndex() (uint64, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.low, nil
}

// LastIndex implements raft.LogStore.
func (d *Disk) LastIndex() (uint64, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.high, nil
}

// GetLog implements raft.LogStore.
func (d *Disk) GetLog(index uint64, l *raft.Log) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	have, ok := d.logs[index]
	if !ok {
		return raft.ErrLogNotFound
	}
	*l = *have
	return nil
}

// StoreLog implements raft.LogStore.
func (d *Disk) StoreLog(l *raft.Log) error { return d.StoreLogs([]*raft.Log{l}) }

// StoreLogs implements raft.LogStore.
func (d *Disk) StoreLogs(logs []*raft.Log) error {
	if d.delay != nil {
		time.Sleep(d.delay())
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, l := range logs {
		copied := *l
		d.logs[l.Index] = &copied
		if d.low == 0 {
			d.low = l.Index
		}
		d.high = max(d.high, l.Index)
	}
	return nil
}

// DeleteRange implements raft.LogStore.
func (d *Disk) DeleteRange(first, last uint64) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	for i := first; i <= last; i++ {
		delete(d.logs, i)
	}
	if first <= d.low {
		d.low = last + 1
	}
	if last >= d.high {
		d.high = first - 1
	}
	if d.low > d.high {
		d.low, d.high = 0, 0
	}
	return nil
}

// Set implements raft.StableStore.
func (d *Disk) Set(key, value []byte) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.values[string(key)] = bytes.Clone(value)
	return nil
}

// Get implements raft.StableStore.
func (d *Disk) Get(key []byte) ([]byte, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if v, ok := d.values[string(key)]; ok {
		return v, nil
	}
	return nil, errNotFound
}

// SetUint64 implements raft.StableStore.
func (d *Disk) SetUint64(key []byte, value uint64) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.numbers[string(key)] = value
	return nil
}

// GetUint64 implements raft.StableStore.
func (d *Disk) GetUint64(key []byte) (uint64, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if v, ok := d.numbers[string(key)]; ok {
		return v, nil
	}
	return 0, errNotFound
}

// Create implements raft.SnapshotStore.
func (d *Disk) Create(version raft.SnapshotVersion, index, term uint64, c raft.Configuration, cIndex uint64, _ raft.Transport) (raft.SnapshotSink, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.made++
	return &sink{disk: d, snapshot: &snapshot{meta: raft.SnapshotMeta{
		Version: version, ID: fmt.Sprintf("%d-%d-%d", term, index, d.made), Index: index, Term: term, Configuration: c, ConfigurationIndex: cIndex,
	}}}, nil
}

// List implements raft.SnapshotStore.
func (d *Disk) List() ([]*raft.SnapshotMeta, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	var metas []*raft.SnapshotMeta
	for _, s := range d.snapshots {
		meta := s.meta
		metas = append(metas, &meta)
	}
	return metas, nil
}

// Open implements raft.SnapshotStore.
func (d *Disk) Open(id string) (*raft.SnapshotMeta, io.ReadCloser, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, s := range d.snapshots {
		if s.meta.ID == id {
			meta := s.meta
			return &meta, io.NopCloser(bytes.NewReader(s.data)), nil
		}
	}
	return nil, nil, errNotFound
}

// Snapshots returns how many snapshots were ever begun.
func (d *Disk) Snapshots() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.made
}

type sink struct {
	disk     *Disk
	snapshot *snapshot
	buffer   bytes.Buffer
	closed   bool
}

func (s *sink) Write(p []byte) (int, error) { return s.buffer.Write(p) }
func (s *sink) ID() string                  { return s.snapshot.meta.ID }
func (s *sink) Cancel() error               { s.closed = true; return nil }

// Close makes the snapshot visible, whole. Raft closes a sink that the state machine closed already.
func (s *sink) Close() error {
	if s.closed {
		return nil
	}
	s.closed = true
	s.snapshot.data = bytes.Clone(s.buffer.Bytes())
	s.snapshot.meta.Size = int64(len(s.snapshot.data))
	s.disk.mu.Lock()
	defer s.disk.mu.Unlock()
	s.disk.snapshots = append([]*snapshot{s.snapshot}, s.disk.snapshots...)
	slices.SortStableFunc(s.disk.snapshots, func(a, b *snapshot) int { return int(b.meta.Index) - int(a.meta.Index) })
	if len(s.disk.snapshots) > snapshotsKept {
		s.disk.snapshots = s.disk.snapshots[:snapshotsKept]
	}
	return nil
}
