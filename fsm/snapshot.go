package fsm

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"hash"
	"hash/crc32"
	"io"

	"google.golang.org/protobuf/proto"

	logv1 "quorate/proto/quorate/log/v1"
)

// A snapshot is, in this order:
//
//	8 bytes   snapshotMagic
//	4 bytes   format version, big endian
//	records   each: its length as a varint, then a logv1.SnapshotRecord; the clock is the first
//	1 byte    0, the length that ends the records
//	8 bytes   the number of records, big endian
//	4 bytes   CRC-32C of all that comes before, big endian
//
// The checksum finds accidents, not forgery: who can write a member's files is trusted. CRC-32C costs a tenth of SHA-256,
// and a state of a million records is written and read at each restart. Whether two states are equal is asked of
// State.Digest.
//
// Every version ever shipped restores. A change that an old reader would misread takes a new number; a new kind of record
// does not, since an old reader stops at what it does not know.
const (
	snapshotMagic   = "QUORSNAP"
	snapshotVersion = 1
)

// castagnoli is the polynomial of CRC-32C, which processors compute.
var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// snapshotWriter writes records and keeps count; its first error stops it.
type snapshotWriter struct {
	out     *bufio.Writer
	sum     hash.Hash32
	buffer  []byte
	records uint64
	written int64
	err     error
}

// WriteTo writes the state as a snapshot and returns the bytes written. It takes its time with a large state: call it on
// a Snapshot, while commands go on.
func (s *State) WriteTo(w io.Writer) (int64, error) {
	out := &snapshotWriter{out: bufio.NewWriterSize(w, 64<<10), sum: crc32.New(castagnoli)}
	out.write(binary.BigEndian.AppendUint32([]byte(snapshotMagic), snapshotVersion))
	s.writeRecords(out)
	out.write([]byte{0})
	out.write(binary.BigEndian.AppendUint64(nil, out.records))
	out.write(out.sum.Sum(nil))
	if out.err == nil {
		out.err = out.out.Flush()
	}
	return out.written, out.err
}

// writeRecords writes every record, in the order in which the digest takes them.
func (s *State) writeRecords(out *snapshotWriter) {
	out.record(&logv1.SnapshotRecord{Body: &logv1.SnapshotRecord_Clock{Clock: &logv1.Clock{
		Now: uint64(s.clock.now), Revision: s.clock.revision, Term: s.clock.term, Leader: s.clock.leader,
	}}})
	for _, g := range s.topology.kept.All() {
		out.record(&logv1.SnapshotRecord{Body: &logv1.SnapshotRecord_Generation{Generation: g}})
	}
	for _, l := range s.leases.open.All() {
		out.record(&logv1.SnapshotRecord{Body: &logv1.SnapshotRecord_Lease{Lease: l}})
	}
	for _, l := range s.leases.ended.All() {
		out.record(&logv1.SnapshotRecord{Body: &logv1.SnapshotRecord_Lease{Lease: l}})
	}
	for _, m := range s.maintenance.active.All() {
		out.record(&logv1.SnapshotRecord{Body: &logv1.SnapshotRecord_Maintenance{Maintenance: m}})
	}
	for _, m := range s.members.byID.All() {
		out.record(&logv1.SnapshotRecord{Body: &logv1.SnapshotRecord_Member{Member: m}})
	}
	for _, r := range s.requests.byAge.All() {
		out.record(&logv1.SnapshotRecord{Body: &logv1.SnapshotRecord_Request{Request: &logv1.RememberedRequest{
			Key: r.key, Fingerprint: r.fingerprint[:], Outcome: r.outcome,
		}}})
	}
	for _, v := range s.servings.byServer.All() {
		out.record(&logv1.SnapshotRecord{Body: &logv1.SnapshotRecord_Serving{Serving: v}})
	}
	for _, r := range s.rollouts.bySet.All() {
		out.record(&logv1.SnapshotRecord{Body: &logv1.SnapshotRecord_Rollout{Rollout: r}})
	}
	for _, c := range s.levels.changes.All() {
		out.record(&logv1.SnapshotRecord{Body: &logv1.SnapshotRecord_Level{Level: c}})
	}
	s.writePartitions(out)
}

func (w *snapshotWriter) record(record *logv1.SnapshotRecord) {
	if w.err != nil {
		return
	}
	body, err := proto.MarshalOptions{Deterministic: true}.MarshalAppend(w.buffer[:0], record)
	if err != nil {
		w.err = fmt.Errorf("snapshot record %d: %w", w.records, err)
		return
	}
	if len(body) > MaxRecordBytes {
		w.err = fmt.Errorf("snapshot record %d has %d bytes, more than the %d allowed", w.records, len(body), MaxRecordBytes)
		return
	}
	w.buffer = body
	var length [binary.MaxVarintLen64]byte
	w.write(length[:binary.PutUvarint(length[:], uint64(len(body)))])
	w.write(body)
	w.records++
}

func (w *snapshotWriter) write(b []byte) {
	if w.err != nil {
		return
	}
	n, err := w.out.Write(b)
	w.sum.Write(b[:n]) // A hash never fails.
	w.written += int64(n)
	w.err = err
}
