package node

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"

	"github.com/hashicorp/raft"
)

// A disk gives back other bits than were written more often than one thinks, and bolt checks none of those that it stores. Entries therefore carry a checksum from the leader
// that made them, through every log and over every line: a member that finds one wrong stops, and neither applies nor sends it. Snapshots have their own.

// sumVersion is the first byte of an entry's extension, before the checksum.
const sumVersion = 1

// sumBytes is the length of such an extension.
const sumBytes = 1 + 4

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// sumOf is the checksum of all of an entry that matters.
func sumOf(l *raft.Log) uint32 {
	var head [17]byte
	binary.BigEndian.PutUint64(head[:], l.Index)
	binary.BigEndian.PutUint64(head[8:], l.Term)
	head[16] = byte(l.Type)
	return crc32.Update(crc32.Checksum(head[:], castagnoli), castagnoli, l.Data)
}

// seal gives an entry its checksum, or compares it with the one that it has.
func seal(l *raft.Log) error {
	if len(l.Extensions) > 0 {
		return verify(l)
	}
	l.Extensions = binary.BigEndian.AppendUint32([]byte{sumVersion}, sumOf(l))
	return nil
}

// sealAll seals entries, up to the first that is damaged.
func sealAll(logs []*raft.Log) error {
	for _, l := range logs {
		if err := seal(l); err != nil {
			return err
		}
	}
	return nil
}

// verify refuses an entry that is not as it was made. One without a checksum has lost it: a single bit decides how many fields of a stored entry are read.
func verify(l *raft.Log) error {
	if len(l.Extensions) == 0 {
		return fmt.Errorf("log entry %d is damaged: it has no checksum", l.Index)
	}
	if len(l.Extensions) != sumBytes || l.Extensions[0] != sumVersion {
		return fmt.Errorf("log entry %d has an extension that this version does not know", l.Index)
	}
	if stored, computed := binary.BigEndian.Uint32(l.Extensions[1:]), sumOf(l); stored != computed {
		return fmt.Errorf("log entry %d is damaged: its checksum is %08x and should be %08x", l.Index, computed, stored)
	}
	return nil
}

// sealNumber is a number of the stable store, the term or that of the vote, with its checksum.
func sealNumber(value uint64) []byte {
	b := binary.BigEndian.AppendUint64(nil, value)
	return binary.BigEndian.AppendUint32(b, crc32.Checksum(b, castagnoli))
}

// openNumber is the reverse.
func openNumber(key, b []byte) (uint64, error) {
	switch len(b) {
	case 0:
		return 0, nil
	case 12:
		if stored, computed := binary.BigEndian.Uint32(b[8:]), crc32.Checksum(b[:8], castagnoli); stored != computed {
			return 0, fmt.Errorf("%s is damaged: its checksum is %08x and should be %08x", key, computed, stored)
		}
		return binary.BigEndian.Uint64(b), nil
	}
	return 0, fmt.Errorf("%s is damaged: it has %d bytes", key, len(b))
}
