package node

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/raft"
	"google.golang.org/protobuf/proto"

	"quorate/fsm"
	logv1 "quorate/proto/quorate/log/v1"
	quoratev1 "quorate/proto/quorate/v1"
)

func kindOf(err error) ErrorKind {
	var e *Error
	if errors.As(err, &e) {
		return e.Kind
	}
	return 0
}

func expectKind(t *testing.T, err error, want ErrorKind) {
	t.Helper()
	if got := kindOf(err); got != want {
		t.Errorf("error %v is of kind %v, not %v", err, got, want)
	}
}

func TestProposerBoundsItsQueue(t *testing.T) {
	p := newProposer(Limits{WaitingProposals: 3, WaitingBytes: 100, EntryCommands: 2, EntryBytes: 50, EntriesInFlight: 1})
	add := func(size int) error {
		return p.enqueue(&proposal{data: make([]byte, size), done: make(chan answer, 1)})
	}
	for range 3 {
		if err := add(30); err != nil {
			t.Fatal(err)
		}
	}
	expectKind(t, add(1), Overloaded)
	if n := len(p.take()); n != 1 {
		t.Errorf("%d commands in an entry of 50 bytes, each has 30", n)
	}
	expectKind(t, add(60), Overloaded)
	if err := add(40); err != nil {
		t.Error(err)
	}
	if got := []int{len(p.take()), len(p.take()), len(p.take()), len(p.take())}; fmt.Sprint(got) != "[1 1 1 0]" {
		t.Errorf("entries of %v", got)
	}
	for range 3 {
		if err := add(1); err != nil {
			t.Fatal(err)
		}
	}
	if n := len(p.take()); n != 2 {
		t.Errorf("%d commands in an entry, at most 2", n)
	}
	// One that alone is larger than an entry goes alone: Propose bounds the command itself.
	if p.take(); add(70) != nil || len(p.take()) != 1 {
		t.Error("a large command was left behind")
	}
	if p.bytes != 0 {
		t.Errorf("%d bytes wait in an empty queue", p.bytes)
	}
}

func TestProposerWithdraws(t *testing.T) {
	p := newProposer(Limits{}.withDefaults())
	a, b := &proposal{data: []byte("a")}, &proposal{data: []byte("b")}
	if err := errors.Join(p.enqueue(a), p.enqueue(b)); err != nil {
		t.Fatal(err)
	}
	if !p.withdraw(a) || p.withdraw(a) {
		t.Error("withdrawn not exactly once")
	}
	if batch := p.take(); len(batch) != 1 || batch[0] != b {
		t.Error("the wrong one was withdrawn")
	}
	if p.withdraw(b) {
		t.Error("withdrew what is under way")
	}
}

func TestEntryIsWhatTheGeneratedCodeWouldWrite(t *testing.T) {
	cmd := maintenanceCommand("r1", true)
	data, err := proto.Marshal(cmd)
	if err != nil {
		t.Fatal(err)
	}
	n := &Node{cfg: Config{Clock: stillClock(7 * time.Second)}, machine: newMachine(Limits{}.withDefaults(), nil)}
	got := &logv1.Entry{}
	if err := proto.Unmarshal(n.entry(&session{term: 3, base: time.Minute, start: 5 * time.Second}, []*proposal{{data: data}, {data: data}}), got); err != nil {
		t.Fatal(err)
	}
	want := &logv1.Entry{Clock: uint64(62 * time.Second), Term: 3, Commands: []*logv1.Command{cmd, cmd}}
	if !proto.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
}

type stillClock time.Duration

func (c stillClock) Elapsed() time.Duration { return time.Duration(c) }
func (c stillClock) Wall() time.Time        { return time.Unix(0, 0) }

func entryLog(t *testing.T, index, term uint64, e *logv1.Entry) *raft.Log {
	t.Helper()
	data, err := proto.Marshal(e)
	if err != nil {
		t.Fatal(err)
	}
	return &raft.Log{Index: index, Term: term, Type: raft.LogCommand, Data: data}
}

func openTermEntry(term uint64, clock time.Duration, stamped uint64) *logv1.Entry {
	return &logv1.Entry{Clock: uint64(clock), Term: stamped, Commands: []*logv1.Command{
		{Body: &logv1.Command_OpenTerm{OpenTerm: &logv1.OpenTerm{Term: term, Leader: "m1"}}},
	}}
}

// TestReadingOfAnotherTermDoesNotCount: a leader that lost and regained its place may still append an entry that it stamped before.
func TestReadingOfAnotherTermDoesNotCount(t *testing.T) {
	m := newMachine(Limits{}.withDefaults(), func(err error) { t.Error(err) })
	tick := func(index, term, stamped uint64, clock time.Duration) {
		t.Helper()
		e := &logv1.Entry{Clock: uint64(clock), Term: stamped, Commands: []*logv1.Command{{Body: &logv1.Command_Tick{Tick: &logv1.Tick{}}}}}
		if err, ok := m.Apply(entryLog(t, index, term, e)).(error); ok {
			t.Fatal(err)
		}
	}
	if err, ok := m.Apply(entryLog(t, 2, 1, openTermEntry(1, 0, 1))).(error); ok {
		t.Fatal(err)
	}
	tick(3, 1, 1, time.Second)
	if err, ok := m.Apply(entryLog(t, 5, 2, openTermEntry(2, time.Second, 2))).(error); ok {
		t.Fatal(err)
	}
	tick(6, 2, 1, time.Hour)
	if got := m.latest.Load().state.Now(); got != time.Second {
		t.Errorf("cluster time %v after a reading of an earlier term, want 1s", got)
	}
	tick(7, 2, 2, 2*time.Second)
	if got := m.latest.Load().state.Now(); got != 2*time.Second {
		t.Errorf("cluster time %v, want 2s", got)
	}
}

func TestCorruptEntryBreaksTheMachine(t *testing.T) {
	var fatal []error
	m := newMachine(Limits{}.withDefaults(), func(err error) { fatal = append(fatal, err) })
	if err, ok := m.Apply(entryLog(t, 2, 1, openTermEntry(1, 0, 1))).(error); ok {
		t.Fatal(err)
	}
	if _, ok := m.Apply(&raft.Log{Index: 3, Term: 1, Type: raft.LogCommand, Data: []byte{0xff}}).(error); !ok || len(fatal) != 1 {
		t.Fatalf("fatal: %v", fatal)
	}
	if _, ok := m.Apply(entryLog(t, 4, 1, openTermEntry(1, time.Hour, 1))).(error); !ok {
		t.Error("something was applied after corruption")
	}
	if m.latest.Load().state.Revision() != 2 {
		t.Error("the state moved")
	}
	if _, err := m.Snapshot(); err == nil {
		t.Error("a broken machine made a snapshot")
	}
}

func eventsOf(revision uint64, count int) []*quoratev1.Event {
	var events []*quoratev1.Event
	for i := range count {
		events = append(events, &quoratev1.Event{Revision: revision, Sequence: uint32(i)})
	}
	return events
}

// watchOn makes a node of nothing but a history.
func watchOn(limits Limits) *Node {
	limits = limits.withDefaults()
	return &Node{cfg: Config{Limits: limits}, machine: newMachine(limits, nil), stopping: make(chan struct{})}
}

func TestWatchOfABoundedHistory(t *testing.T) {
	n := watchOn(Limits{WatchEvents: 8, WatchBatch: 3, WatchProgress: time.Millisecond})
	h := n.machine.events
	w, err := n.Watch(1)
	if err != nil {
		t.Fatal(err)
	}
	next := func() (string, uint64, error) {
		events, revision, err := w.Next(t.Context())
		var s []string
		for _, e := range events {
			s = append(s, fmt.Sprintf("%d/%d", e.Revision, e.Sequence))
		}
		return strings.Join(s, " "), revision, err
	}
	h.add(5, eventsOf(5, 4))
	h.add(6, nil)
	if s, revision, err := next(); s != "5/0 5/1 5/2" || revision != 4 || err != nil {
		t.Errorf("%q up to %d, %v", s, revision, err)
	}
	if s, revision, err := next(); s != "5/3" || revision != 6 || err != nil {
		t.Errorf("%q up to %d, %v", s, revision, err)
	}
	if s, revision, err := next(); s != "" || revision != 6 || err != nil {
		t.Errorf("progress: %q up to %d, %v", s, revision, err)
	}
	h.add(7, eventsOf(7, 8))
	h.add(8, eventsOf(8, 1))
	var compacted *CompactedError
	if _, _, err := next(); !errors.As(err, &compacted) || compacted.Revision != 8 {
		t.Errorf("a watch that fell behind: %v", err)
	}
	for from, ok := range map[uint64]bool{1: false, 7: false, 8: true, 100: true, 0: true} {
		if _, err := n.Watch(from); (err == nil) != ok {
			t.Errorf("watch from %d: %v", from, err)
		}
	}
	// A snapshot: even who had seen everything has to list.
	if w, err = n.Watch(0); err != nil {
		t.Fatal(err)
	}
	h.reset(20)
	if _, _, err := next(); !errors.As(err, &compacted) || compacted.Revision != 20 {
		t.Errorf("after a snapshot: %v", err)
	}
	if w, err = n.Watch(21); err != nil {
		t.Fatal(err)
	}
	h.add(21, eventsOf(21, 1))
	if s, revision, err := next(); s != "21/0" || revision != 21 || err != nil {
		t.Errorf("%q up to %d, %v", s, revision, err)
	}
}

// TestWatchOfTheFutureIsNotLedBack resumes from what the progress of a watch says: no event of before the revision asked for may come.
func TestWatchOfTheFutureIsNotLedBack(t *testing.T) {
	n := watchOn(Limits{WatchProgress: time.Millisecond})
	const from = 100
	w, err := n.Watch(from)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	events, revision, err := w.Next(t.Context())
	if err != nil || len(events) > 0 || revision+1 < from {
		t.Errorf("%d events, progress to %d, %v: a watch from %d would resume from before", len(events), revision, err, from)
	}
}

func TestWatchEnds(t *testing.T) {
	n := watchOn(Limits{WatchProgress: time.Hour})
	w, err := n.Watch(0)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error)
	next := func(ctx context.Context) { _, _, err := w.Next(ctx); done <- err }
	go next(cancelled())
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	go next(t.Context())
	w.Close()
	w.Close()
	expectKind(t, <-done, Shutdown)
	if w, err = n.Watch(0); err != nil {
		t.Fatal(err)
	}
	go next(t.Context())
	close(n.stopping)
	expectKind(t, <-done, Shutdown)
	_, err = n.Watch(0)
	expectKind(t, err, Shutdown)
}

func TestReadsAreBounded(t *testing.T) {
	r := newReads(2)
	var wg sync.WaitGroup
	for range 2 {
		wg.Go(func() {
			if revision, err := r.join(t.Context()); revision != 7 || err != nil {
				t.Errorf("revision %d, %v", revision, err)
			}
		})
	}
	eventually(t, "two reads wait", func() bool {
		r.mu.Lock()
		defer r.mu.Unlock()
		return r.open != nil && r.open.waiting == 2
	})
	_, err := r.join(t.Context())
	expectKind(t, err, Overloaded)
	first := r.close()
	_, err = r.join(cancelled())
	expectKind(t, err, Deadline)
	if second := r.close(); second == first || second.waiting != 1 {
		t.Error("a read joined a round that was closed")
	}
	first.revision = 7
	close(first.done)
	wg.Wait()
}

func TestDigestsAreJudgedByTheMajority(t *testing.T) {
	member := func(id, digest string, at uint64) *quoratev1.Member {
		return &quoratev1.Member{Id: id, Digest: digest, DigestRevision: at}
	}
	for name, c := range map[string]struct {
		members  []*quoratev1.Member
		majority string
		odd      string
	}{
		"equal":       {[]*quoratev1.Member{member("a", "x", 9), member("b", "x", 9), member("c", "x", 9)}, "x", ""},
		"one differs": {[]*quoratev1.Member{member("a", "x", 9), member("b", "y", 9), member("c", "x", 9)}, "x", "b"},
		"leader too":  {[]*quoratev1.Member{member("a", "y", 9), member("b", "x", 9), member("c", "x", 9)}, "x", "a"},
		"late":        {[]*quoratev1.Member{member("a", "x", 9), member("b", "y", 8), member("c", "x", 9)}, "x", ""},
		"no majority": {[]*quoratev1.Member{member("a", "x", 9), member("b", "y", 9), member("c", "", 0)}, "", ""},
		"one of two":  {[]*quoratev1.Member{member("a", "x", 9), member("b", "y", 9)}, "", ""},
	} {
		majority, odd := judgeDigests(c.members, 9)
		var ids []string
		for _, m := range odd {
			ids = append(ids, m.Id)
		}
		if majority != c.majority || strings.Join(ids, " ") != c.odd {
			t.Errorf("%s: majority %q, odd %v", name, majority, ids)
		}
	}
}

func TestConfigIsRefused(t *testing.T) {
	transport, err := Listen("127.0.0.1:0", "", nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer transport.Close()
	good := Config{ID: "m1", DataDir: "x", Transport: transport}
	two := []BootstrapMember{{"m1", "a:1"}, {"m2", "a:2"}}
	for want, change := range map[string]func(*Config){
		"ID":                  func(c *Config) { c.ID = "" },
		"DataDir":             func(c *Config) { c.DataDir = "" },
		"Transport":           func(c *Config) { c.Transport = nil },
		"LogStore":            func(c *Config) { c.LogStore = "paper" },
		"Bootstrap[1]":        func(c *Config) { c.Bootstrap = append(two[:1:1], BootstrapMember{"m1", "b:1"}) },
		"name this member":    func(c *Config) { c.Bootstrap, c.ID = two, "m3" },
		"address must be":     func(c *Config) { c.Bootstrap = []BootstrapMember{{ID: "m1"}} },
		"id or address given": func(c *Config) { c.Bootstrap = append(two[:1:1], BootstrapMember{"m2", "a:1"}) },
	} {
		c := good
		change(&c)
		if err := c.normalise(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v doesn't say %q", err, want)
		}
	}
	if err := good.normalise(); err != nil {
		t.Error(err)
	}
	if _, err := TimingProfile("moon"); err == nil {
		t.Error("a timing profile was made up")
	}
}

func TestErrorsCrossMembers(t *testing.T) {
	ctx := t.Context()
	for kind := NoLeader; kind <= NotLeader; kind++ {
		want := kind
		if kind == Shutdown || kind == Diverged {
			want = NotLeader
		}
		expectKind(t, fromPeer(ctx, "op", toPeer(&Error{Op: "op", Kind: kind, Err: errors.New("why")})), want)
	}
	expectKind(t, fromPeer(ctx, "op", errors.New("EOF")), UnknownOutcome)
	expectKind(t, fromPeer(ctx, "op", NotSent(errors.New("refused"))), NoLeader)
	refused := &fsm.Refusal{Refusal: &logv1.Refusal{Kind: logv1.Kind_KIND_NOT_FOUND, Reason: fsm.ReasonUnknownMember, Field: "id"}}
	var got *fsm.Refusal
	if err := fromPeer(ctx, "op", toPeer(refused)); !errors.As(err, &got) || !proto.Equal(got.Refusal, refused.Refusal) {
		t.Errorf("a refusal came as %v", err)
	}
	if fromPeer(ctx, "op", nil) != nil || toPeer(nil) != nil {
		t.Error("no error became one")
	}
}

func TestProposeRefusesBadCommands(t *testing.T) {
	g := startGroup(t, 1, func(c *Config) { c.Limits.CommandBytes = 100 })
	n := g.leader()
	_, err := n.Propose(t.Context(), &logv1.Command{RequestId: "r"})
	expectKind(t, err, Invalid)
	_, err = n.Propose(t.Context(), &logv1.Command{RequestId: strings.Repeat("x", 200), Body: &logv1.Command_Tick{Tick: &logv1.Tick{}}})
	expectKind(t, err, Invalid)
	o, err := n.Propose(t.Context(), &logv1.Command{RequestId: "r", Body: &logv1.Command_EndLease{EndLease: &logv1.EndLease{Server: "nobody"}}})
	if err != nil || fsm.RefusalOf(o) == nil {
		t.Errorf("a refusal is an outcome: %v, %v", o, err)
	}
}
