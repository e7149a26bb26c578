package node

import (
	"errors"
	"path/filepath"
	"strings"
	"testing"

	"github.com/hashicorp/raft"
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
			guarded := guardLog(plain, func(err error) { failed = err })
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
			sent := guardLog(raft.NewInmemStore(), func(error) {}).StoreLogs([]*raft.Log{&damaged})
			if noticed := err != nil && failed != nil && sent != nil; noticed != (name != "") {
				t.Errorf("read: %v; told: %v; taken from another: %v", err, failed, sent)
			}
		})
	}
}

// TestEntriesWithoutChecksum reads what older versions wrote.
func TestEntriesWithoutChecksum(t *testing.T) {
	plain := raft.NewInmemStore()
	if err := plain.StoreLog(&raft.Log{Index: 1, Term: 1, Data: []byte("old")}); err != nil {
		t.Fatal(err)
	}
	var l raft.Log
	if err := guardLog(plain, func(err error) { t.Error(err) }).GetLog(1, &l); err != nil || string(l.Data) != "old" {
		t.Errorf("%q, %v", l.Data, err)
	}
}

// TestDamagedVoteIsNoticed does the same for the numbers of the stable store, and reads those of older versions.
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
	if v, err := guarded.GetUint64(key); v != 41 || err != nil {
		t.Errorf("of an older version: %d, %v", v, err)
	}
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
