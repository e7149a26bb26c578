package fsm

import (
	"time"

	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	logv1 "quorate/proto/quorate/log/v1"
	quoratev1 "quorate/proto/quorate/v1"
)

// trial applies entries to three states and the model. One state is used as it comes; one goes through a snapshot file now and then, one through
// State.Snapshot. All must agree with the model, equal each other, keep every invariant, and no snapshot taken on the way may change.
type trial struct {
	model                   *model
	index                   uint64
	plain, restored, forked *State
	kept                    []keptSnapshot
	events                  []*quoratev1.Event // Of the last entry.
	clock                   time.Duration
}

type keptSnapshot struct {
	state  *State
	digest [32]byte
}

// newTrial begins with a group of all servers.
func newTrial(t *rapid.T) *trial {
	r := &trial{model: newModel(), plain: New(), restored: New(), forked: New()}
	all := &logv1.SyncMembers{}
	for _, id := range servers {
		all.Members = append(all.Members, &logv1.SyncMembers_Member{Id: id, RaftAddress: id + ":1"})
	}
	r.apply(t, 0, 1, func() *logv1.Command { return &logv1.Command{Body: &logv1.Command_SyncMembers{SyncMembers: all}} })
	return r
}

// elapse moves the leader's clock, mostly forward, sometimes back as under a new leader.
func (r *trial) elapse(t *rapid.T, steps ...time.Duration) {
	r.clock = max(r.clock+rapid.SampledFrom(steps).Draw(t, "elapsed"), 0)
}

// apply applies one entry, whose leader had applied everything up to applied when it took the stamp. Each of its n commands is drawn when the model has applied
// those before.
func (r *trial) apply(t *rapid.T, applied uint64, n int, draw func() *logv1.Command) {
	r.index += uint64(rapid.IntRange(1, 3).Draw(t, "skip")) // Raft's own entries take indexes too.
	e, want := &logv1.Entry{Clock: uint64(r.clock), LeaderApplied: applied}, make([]string, n)
	r.model.stamp(r.clock, applied, r.index)
	for i := range want {
		e.Commands = append(e.Commands, draw())
		want[i] = r.model.apply(e.GetCommands()[i])
	}
	wire, err := proto.Marshal(e)
	if err != nil {
		t.Fatal(err)
	}
	var first []*logv1.Outcome
	for i, s := range []*State{r.plain, r.restored, r.forked} {
		decoded := &logv1.Entry{}
		if err := proto.Unmarshal(wire, decoded); err != nil {
			t.Fatal(err)
		}
		outcomes, events, err := s.ApplyEntry(r.index, decoded)
		if err != nil {
			t.Fatal(err)
		}
		if again, events, err := s.ApplyEntry(r.index, decoded); again != nil || events != nil || err != nil {
			t.Fatal("an entry was applied twice")
		}
		if i == 0 {
			first, r.events = outcomes, events
		}
		for j, o := range outcomes {
			answer := "ok"
			if r := RefusalOf(o); r != nil {
				answer = r.GetReason()
			}
			if answer != want[j] || !proto.Equal(o, first[j]) {
				t.Fatalf("state %d answers %v to %v, want %s", i, o, e.GetCommands()[j], want[j])
			}
		}
		if s.Revision() != r.index || s.Digest() != r.plain.Digest() {
			t.Fatalf("state %d differs at revision %d", i, r.index)
		}
		if err := s.Check(); err != nil {
			t.Fatal(err)
		}
	}
	r.model.partitions.compare(t, r.plain, r.events)
	r.model.compare(t, r.plain)
}

// repeat does the given actions, and in between takes snapshots in every way.
func (r *trial) repeat(t *rapid.T, actions map[string]func(*rapid.T)) {
	keep := func(s *State) *State {
		snapshot := s.Snapshot()
		r.kept = append(r.kept, keptSnapshot{snapshot, snapshot.Digest()})
		return snapshot
	}
	actions["snapshot"] = func(t *rapid.T) {
		switch rapid.SampledFrom([]string{"restore", "fork", "keep"}).Draw(t, "how") {
		case "restore":
			r.restored = roundTrip(t, r.restored)
		case "fork":
			r.forked = keep(r.forked).Snapshot()
		default:
			keep(r.plain)
		}
	}
	t.Repeat(actions)
	for _, k := range r.kept {
		if k.state.Digest() != k.digest {
			t.Fatalf("the snapshot at revision %d changed later", k.state.Revision())
		}
	}
}
