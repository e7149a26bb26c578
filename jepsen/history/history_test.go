package history

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
)

// TestHistoryIsKept writes operations and marks, and reads them back from the file: what is under way at the end is unknown.
func TestHistoryIsKept(t *testing.T) {
	name := filepath.Join(t.TempDir(), "history.jsonl")
	l, err := Create(name)
	if err != nil {
		t.Fatal(err)
	}
	done := l.Begin(Op{Client: "c1", Noun: "partition", Kind: "begin", Key: "p1"}, map[string]string{"to": "b2"})
	l.Begin(Op{Client: "c2", Noun: "partition", Kind: "cutover", Key: "p2"}, nil)
	l.End(done, Refused, nil, errors.New("ALREADY_MIGRATING"))
	l.Mark(Mark{Kind: "fault", Member: "m1", Text: "SIGKILL"}, nil)
	now := l.History()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	read, err := Read(f)
	if err != nil {
		t.Fatal(err)
	}
	for _, h := range []History{now, read} {
		if len(h.Ops) != 2 || len(h.Marks) != 1 || h.Marks[0].Text != "SIGKILL" {
			t.Fatalf("%+v", h)
		}
		ended, open := h.Ops[0], h.Ops[1]
		if ended.Outcome != Refused || ended.Error != "ALREADY_MIGRATING" || string(ended.Input) != `{"to":"b2"}` || ended.Return < ended.Call || ended.Return == 0 {
			t.Errorf("%+v", ended)
		}
		if open.Outcome != Unknown || open.Return != 0 || len(h.Of("partition")) != 2 || len(h.Of("topology")) != 0 {
			t.Errorf("%+v", open)
		}
	}
}
