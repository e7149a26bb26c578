package node

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/raft"
	raftboltdb "github.com/hashicorp/raft-boltdb/v2"
	"go.etcd.io/bbolt"
)

// TestDamagedEntryIsNoticed changes each part of an entry in the store: who reads it is told, and the member would stop.
func TestDamagedEntryIsNoticed(t *testing.T) {
	for name, damage := range map[string]func(*raft.Log){
		"":          func(*raft.Log) {},
		"data":      func(l *raft.Log) { l.Data = append([]byte(nil), l.Data...); l.Data[3] ^= 0x10 },
		"shorter":   func(l *raft.Log) { l.Data = l.Data[:len(l.Data)-1] },
		"term":      func(l *raft.Log) { l.Term++ },
		"type":      func(l *raft.Log) { l.Type = raft.LogNoop },
		"sum":       func(l *raft.Log) { l.Extensions = append([]byte(nil), l.Extensions...); l.Extensions[2] ^= 1 },
		"extension": func(l *raft.Log) { l.Extensions = []byte{sumVersion} },
	} {
		t.Run(name, func(t *testing.T) {
			plain := raft.NewInmemStore()
			var failed error
			guarded := guardLog(&Storage{Log: plain}, func(err error) { failed = err })
			if err := guarded.StoreLogs([]*raft.Log{{Index: 1, Term: 2, Type: raft.LogCommand, Data: []byte("a command")}}); err != nil {
				t.Fatal(err)
			}
			var l raft.Log
			if err := plain.GetLog(1, &l); err != nil {
				t.Fatal(err)
			}
			damaged := l
			damage(&damaged)
			if err := plain.StoreLog(&damaged); err != nil {
				t.Fatal(err)
			}
			err := guarded.GetLog(1, &raft.Log{})
			// It is as little taken from another member that sends it.
			sent := guardLog(&Storage{Log: raft.NewInmemStore()}, func(error) {}).StoreLogs([]*raft.Log{&damaged})
			if noticed := err != nil && failed != nil && sent != nil; noticed != (name != "") {
				t.Errorf("read: %v; told: %v; taken from another: %v", err, failed, sent)
			}
		})
	}
}

// TestEveryBitOfAStoredEntryCounts flips each bit of what bolt stores for an entry, the names of its fields and how many there are included: whoever reads it gets
// the entry as it was, or is told.
func TestEveryBitOfAStoredEntryCounts(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log.db")
	open := func() *raftboltdb.BoltStore {
		store, err := openBolt(path)
		if err != nil {
			t.Fatal(err)
		}
		return store
	}
	const first, bits = 100_000, 8 * 200 // More than an entry has.
	var logs []*raft.Log
	for i := range uint64(bits) {
		logs = append(logs, &raft.Log{Index: first + i, Term: 7, Type: raft.LogCommand, Data: []byte("a command"), AppendedAt: time.Unix(1, 0)})
	}
	store := open()
	if err := errors.Join(guardLog(&Storage{Log: store}, func(err error) { t.Error(err) }).StoreLogs(logs), store.Close()); err != nil {
		t.Fatal(err)
	}
	flipped := flipOneBitOfEach(t, path)
	store = open()
	defer func() {
		if err := store.Close(); err != nil {
			t.Error(err)
		}
	}()
	noticed := 0
	for i, want := range logs[:flipped] {
		var failed error
		guarded := guardLog(&Storage{Log: store}, func(err error) { failed = err })
		got := &raft.Log{}
		switch err := guarded.GetLog(want.Index, got); {
		case err != nil && failed != nil:
			noticed++
		case err != nil:
			t.Errorf("bit %d of byte %d: the member isn't told of %v", i%8, i/8, err)
		case got.Index != want.Index || got.Term != want.Term || got.Type != want.Type || string(got.Data) != string(want.Data):
			t.Errorf("bit %d of byte %d: read as %+v", i%8, i/8, got)
		}
	}
	t.Logf("%d of %d flipped bits were noticed, the others say when the entry was made", noticed, flipped)
	if noticed < flipped/2 {
		t.Error("hardly any was noticed")
	}
}

// flipOneBitOfEach flips another bit of each entry of a log, and says how many an entry has.
func flipOneBitOfEach(t *testing.T, path string) (bits int) {
	t.Helper()
	db, err := bbolt.Open(path, 0o600, nil)
	if err != nil {
		t.Fatal(err)
	}
	err = db.Update(func(tx *bbolt.Tx) error {
		entries := tx.Bucket([]byte("logs"))
		cursor := entries.Cursor()
		damaged := map[string][]byte{}
		for key, value := cursor.First(); key != nil && (bits == 0 || len(damaged) < bits); key, value = cursor.Next() {
			bits = 8 * len(value)
			changed := bytes.Clone(value)
			changed[len(damaged)/8] ^= 1 << (len(damaged) % 8)
			damaged[string(key)] = changed
		}
		for key, value := range damaged {
			if err := entries.Put([]byte(key), value); err != nil {
				return err
			}
		}
		return nil
	})
	if err := errors.Join(err, db.Close()); err != nil {
		t.Fatal(err)
	}
	return bits
}

// TestHolesAreRefused: no damage elsewhere makes a hole in this member's log.
func TestHolesAreRefused(t *testing.T) {
	var failed error
	plain := raft.NewInmemStore()
	err := guardLog(&Storage{Log: plain}, func(err error) { failed = err }).StoreLogs([]*raft.Log{{Index: 5, Term: 1}, {Index: 0}, {Index: 7, Term: 1}})
	if last, _ := plain.LastIndex(); err == nil || failed == nil || last != 0 {
		t.Errorf("%v, %v; %d entries were stored", err, failed, last)
	}
}

// TestDamagedVoteIsNoticed does the same for the numbers of the stable store.
func TestDamagedVoteIsNoticed(t *testing.T) {
	plain, err := openBolt(filepath.Join(t.TempDir(), "stable.db"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := plain.Close(); err != nil {
			t.Error(err)
		}
	}()
	var failed error
	guarded := guardStable(plain, func(err error) { failed = err })
	key := []byte("CurrentTerm")
	if _, err := guarded.GetUint64(key); err == nil || err.Error() != "not found" || failed != nil {
		t.Errorf("raft looks for this very text where there is none: %v, %v", err, failed)
	}
	if err := plain.SetUint64(key, 41); err != nil {
		t.Fatal(err)
	}
	if v, err := guarded.GetUint64(key); err == nil || failed == nil {
		t.Errorf("without a checksum: %d", v)
	}
	failed = nil
	if err := guarded.SetUint64(key, 42); err != nil {
		t.Fatal(err)
	}
	if v, err := guarded.GetUint64(key); v != 42 || err != nil {
		t.Errorf("%d, %v", v, err)
	}
	stored, err := plain.Get(key)
	if err != nil {
		t.Fatal(err)
	}
	for i := range stored {
		damaged := append([]byte(nil), stored...)
		damaged[i] ^= 4
		if err := plain.Set(key, damaged); err != nil {
			t.Fatal(err)
		}
		failed = nil
		if v, err := guarded.GetUint64(key); err == nil || failed == nil || !strings.Contains(err.Error(), "damaged") {
			t.Errorf("with another byte %d it is %d, %v, %v", i, v, err, failed)
		}
	}
	if err := plain.Set(key, stored[:5]); err != nil {
		t.Fatal(err)
	}
	if _, err := guarded.GetUint64(key); err == nil || errors.Is(err, raft.ErrLogNotFound) {
		t.Errorf("cut short: %v", err)
	}
}

// swapped gives each of two entries for the other, as a damaged index does.
type swapped struct{ raft.LogStore }

func (s swapped) GetLog(index uint64, l *raft.Log) error { return s.LogStore.GetLog(3-index, l) }

func TestAnEntryInThePlaceOfAnotherIsNoticed(t *testing.T) {
	var failed error
	guarded := guardLog(&Storage{Log: swapped{raft.NewInmemStore()}}, func(err error) { failed = err })
	if err := guarded.StoreLogs([]*raft.Log{{Index: 1, Term: 1}, {Index: 2, Term: 1}}); err != nil {
		t.Fatal(err)
	}
	if err := guarded.GetLog(1, &raft.Log{}); err == nil || failed == nil {
		t.Errorf("%v, %v", err, failed)
	}
}

// TestAMissingEntryIsNoticed: one that lies between others, and that no snapshot has, is gone; one that a snapshot has need not be there.
func TestAMissingEntryIsNoticed(t *testing.T) {
	plain, snapshots := raft.NewInmemStore(), raft.NewInmemSnapshotStore()
	var failed error
	guarded := guardLog(&Storage{Log: plain, Snapshots: snapshots}, func(err error) { failed = err })
	for i := range uint64(5) {
		if err := guarded.StoreLog(&raft.Log{Index: i + 11, Term: 1}); err != nil {
			t.Fatal(err)
		}
	}
	if err := plain.DeleteRange(13, 13); err != nil {
		t.Fatal(err)
	}
	for _, index := range []uint64{0, 10, 16} {
		if err := guarded.GetLog(index, &raft.Log{}); !errors.Is(err, raft.ErrLogNotFound) || failed != nil {
			t.Errorf("entry %d: %v; told: %v", index, err, failed)
		}
	}
	if err := guarded.GetLog(13, &raft.Log{}); err == nil || errors.Is(err, raft.ErrLogNotFound) || failed == nil {
		t.Errorf("missing: %v; told: %v", err, failed)
	}
	sink, err := snapshots.Create(raft.SnapshotVersionMax, 13, 1, raft.Configuration{}, 1, nil)
	if err := errors.Join(err, sink.Close()); err != nil {
		t.Fatal(err)
	}
	failed = nil
	if err := guarded.GetLog(13, &raft.Log{}); !errors.Is(err, raft.ErrLogNotFound) || failed != nil {
		t.Errorf("in the snapshot: %v; told: %v", err, failed)
	}
}

// TestADamagedLogIsAnErrorAtTheStart: raft would panic.
func TestADamagedLogIsAnErrorAtTheStart(t *testing.T) {
	g := startGroup(t, 1, nil)
	g.ready()
	for i := range uint64(3) {
		if _, err := g.leader().Propose(t.Context(), publishCommand(fmt.Sprint("r", i), i)); err != nil {
			t.Fatal(err)
		}
	}
	n := g.leader()
	if err := n.Shutdown(t.Context()); err != nil {
		t.Fatal(err)
	}
	db, err := bbolt.Open(filepath.Join(n.cfg.DataDir, "log.db"), 0o600, nil)
	if err != nil {
		t.Fatal(err)
	}
	err = db.Update(func(tx *bbolt.Tx) error {
		return tx.Bucket([]byte("logs")).Delete(binary.BigEndian.AppendUint64(nil, 3))
	})
	if err := errors.Join(err, db.Close()); err != nil {
		t.Fatal(err)
	}
	cfg := g.configs[n.ID()]
	if cfg.Transport, err = Listen("127.0.0.1:0", "", nil, testLogger()); err != nil {
		t.Fatal(err)
	}
	if opened, err := Open(cfg); err == nil || !strings.Contains(err.Error(), "log entry 3 is missing") {
		t.Errorf("opened %v: %v", opened, err)
	}
}
