package fsm

import (
	"bufio"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"hash/crc32"
	"io"
	"time"

	"google.golang.org/protobuf/proto"

	logv1 "quorate/proto/quorate/log/v1"
	quoratev1 "quorate/proto/quorate/v1"
)

// Restore reads a snapshot to its end and returns the state in it. It is all or nothing: whatever is wrong with the
// snapshot, the error is an ErrCorrupt (or that of the reader) and there is no state. Memory is bounded by what the snapshot
// holds; no length in it is believed beyond MaxRecordBytes.
func Restore(r io.Reader) (*State, error) {
	in := &snapshotReader{in: bufio.NewReaderSize(r, 64<<10), sum: crc32.New(castagnoli)}
	if err := in.header(); err != nil {
		return nil, err
	}
	s := New()
	if err := s.readRecords(in); err != nil {
		return nil, err
	}
	if err := in.trailer(); err != nil {
		return nil, err
	}
	_, newest, _ := s.topology.kept.Last()
	s.topology.setCurrent(newest)
	if err := s.Check(); err != nil {
		return nil, fmt.Errorf("snapshot: %w: %w", ErrCorrupt, err)
	}
	return s, nil
}

func corrupt(format string, args ...any) error {
	return fmt.Errorf("snapshot: %w: %s", ErrCorrupt, fmt.Sprintf(format, args...))
}

// snapshotReader reads the frame of a snapshot.
type snapshotReader struct {
	in      *bufio.Reader
	sum     hash.Hash32
	buffer  []byte
	records uint64
}

// read fills b. The end of the input is corruption here, since the trailer tells where a snapshot ends.
func (r *snapshotReader) read(b []byte) error {
	if _, err := io.ReadFull(r.in, b); err != nil {
		return r.failed(err)
	}
	r.sum.Write(b)
	return nil
}

func (r *snapshotReader) failed(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return corrupt("it ends in the middle, after %d records", r.records)
	}
	return fmt.Errorf("snapshot: %w", err)
}

func (r *snapshotReader) header() error {
	var head [len(snapshotMagic) + 4]byte
	if err := r.read(head[:]); err != nil {
		return err
	}
	if string(head[:len(snapshotMagic)]) != snapshotMagic {
		return corrupt("it does not begin with %s", snapshotMagic)
	}
	if version := binary.BigEndian.Uint32(head[len(snapshotMagic):]); version == 0 || version > snapshotVersion {
		return corrupt("its format version is %d, and this program knows 1 to %d", version, snapshotVersion)
	}
	return nil
}

// next returns the bytes of the next record, nil after the last. They are valid until the next call.
func (r *snapshotReader) next() ([]byte, error) {
	length, err := r.length()
	if err != nil || length == 0 {
		return nil, err
	}
	if length > MaxRecordBytes {
		return nil, corrupt("record %d has %d bytes, more than the %d allowed", r.records, length, MaxRecordBytes)
	}
	if uint64(cap(r.buffer)) < length {
		r.buffer = make([]byte, length)
	}
	body := r.buffer[:length]
	if err := r.read(body); err != nil {
		return nil, err
	}
	r.records++
	return body, nil
}

func (r *snapshotReader) length() (uint64, error) {
	var length [binary.MaxVarintLen64]byte
	for i := range length {
		if err := r.read(length[i : i+1]); err != nil {
			return 0, err
		}
		if length[i] < 0x80 {
			value, n := binary.Uvarint(length[:i+1])
			if n <= 0 {
				break
			}
			return value, nil
		}
	}
	return 0, corrupt("the length of record %d is no number", r.records)
}

func (r *snapshotReader) trailer() error {
	var count [8]byte
	if err := r.read(count[:]); err != nil {
		return err
	}
	if n := binary.BigEndian.Uint64(count[:]); n != r.records {
		return corrupt("it has %d records and says %d", r.records, n)
	}
	computed := r.sum.Sum32()
	var sum [4]byte
	if err := r.read(sum[:]); err != nil {
		return err
	}
	if stored := binary.BigEndian.Uint32(sum[:]); stored != computed {
		return corrupt("its checksum is %08x and should be %08x", stored, computed)
	}
	switch _, err := r.in.ReadByte(); {
	case err == nil:
		return corrupt("something follows its end")
	case !errors.Is(err, io.EOF):
		return r.failed(err)
	}
	return nil
}

func (s *State) readRecords(in *snapshotReader) error {
	for {
		body, err := in.next()
		if err != nil {
			return err
		}
		if body == nil {
			break
		}
		record := &logv1.SnapshotRecord{}
		// Fields that this version does not know would be in the state, but in no digest.
		if err := (proto.UnmarshalOptions{DiscardUnknown: true}).Unmarshal(body, record); err != nil {
			return corrupt("record %d can't be decoded", in.records-1)
		}
		if _, isClock := record.GetBody().(*logv1.SnapshotRecord_Clock); isClock != (in.records == 1) {
			return corrupt("the clock must be the first record, and only that")
		}
		if err := s.restoreRecord(record); err != nil {
			return fmt.Errorf("snapshot: record %d: %w", in.records-1, err)
		}
	}
	if in.records == 0 {
		return corrupt("it has no records")
	}
	return nil
}

// restoreRecord puts one record into the state. That the whole makes sense is for Check to say.
func (s *State) restoreRecord(record *logv1.SnapshotRecord) error {
	twice := false
	switch b := record.GetBody().(type) {
	case *logv1.SnapshotRecord_Clock:
		if b.Clock.GetNow() > uint64(MaxClock) {
			return fmt.Errorf("%w: cluster time %d is out of range", ErrCorrupt, b.Clock.GetNow())
		}
		s.clock = clock{
			now: time.Duration(b.Clock.GetNow()), revision: b.Clock.GetRevision(), term: b.Clock.GetTerm(), leader: b.Clock.GetLeader(),
		}
	case *logv1.SnapshotRecord_Generation:
		twice = s.topology.kept.Set(b.Generation.GetNumber(), b.Generation)
	case *logv1.SnapshotRecord_Lease:
		return s.leases.restore(b.Lease)
	case *logv1.SnapshotRecord_Maintenance:
		twice = s.maintenance.active.Set(b.Maintenance.GetServer(), b.Maintenance)
	case *logv1.SnapshotRecord_Member:
		twice = s.members.byID.Set(b.Member.GetId(), b.Member)
	case *logv1.SnapshotRecord_Request:
		return s.requests.restore(b.Request)
	case *logv1.SnapshotRecord_Serving:
		twice = s.servings.byServer.Set(b.Serving.GetServer(), b.Serving)
	case *logv1.SnapshotRecord_Rollout:
		twice = s.rollouts.bySet.Set(b.Rollout.GetSet(), b.Rollout)
	case *logv1.SnapshotRecord_Level:
		twice = s.levels.changes.Set(levelKey{b.Level.GetServer(), b.Level.GetNumber()}, b.Level)
	case *logv1.SnapshotRecord_PartitionsOfGroup:
		return s.restorePartitionsRecord(b.PartitionsOfGroup)
	case *logv1.SnapshotRecord_Partitions:
		return s.restorePartitions(b.Partitions)
	case *logv1.SnapshotRecord_Migration:
		return s.restoreMigration(b.Migration)
	case *logv1.SnapshotRecord_Instance:
		twice = s.restoreInstance(b.Instance)
	default:
		return fmt.Errorf("%w: it is of a kind that this program does not know", ErrCorrupt)
	}
	if twice {
		return fmt.Errorf("%w: it is there twice", ErrCorrupt)
	}
	return nil
}

// restore puts back an open or ended lease; ended ones of a server come oldest first.
func (l *leases) restore(lease *quoratev1.ApplyLease) error {
	key := keyOf(lease)
	if lease.GetState() != quoratev1.LeaseState_LEASE_STATE_OPEN {
		if len(l.endedOf(key.server)) >= MaxEndedLeases {
			return fmt.Errorf("%w: server %s has too many ended leases", ErrCorrupt, quote(key.server))
		}
		l.keepEnded(lease)
		return nil
	}
	if l.open.Set(key, lease) {
		return fmt.Errorf("%w: an open lease of server %s is there twice", ErrCorrupt, quote(key.server))
	}
	l.deadlines.Set(deadlineOf(lease), struct{}{})
	return nil
}

// restore puts back a remembered answer; they come oldest first.
func (q *requests) restore(r *logv1.RememberedRequest) error {
	if len(r.GetFingerprint()) != sha256.Size || q.byKey.Has(r.GetKey()) || q.byAge.Len() >= MaxRequests {
		return fmt.Errorf("%w: a remembered request is one of too many, there twice, or has no fingerprint", ErrCorrupt)
	}
	q.remember(r.GetKey(), [sha256.Size]byte(r.GetFingerprint()), r.GetOutcome())
	return nil
}
