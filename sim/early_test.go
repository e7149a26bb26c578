package sim

import (
	"context"
	"errors"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"quorate/node"
	logv1 "quorate/proto/quorate/log/v1"
)

// slowDisk is how long the leader's disk takes in these tests.
const slowDisk = time.Second

// slowLeader starts a group in which the disk of the leader has become slow, and of whose followers only the first is reached by it.
func slowLeader(t *testing.T) (w *World, leader, near, far string) {
	t.Helper()
	var slow atomic.Value
	slow.Store("")
	w = NewWorld(3, node.LAN, node.Limits{})
	w.Logger = logger()
	w.DiskDelay = func(id string) time.Duration {
		if id == slow.Load() {
			return slowDisk
		}
		return 0
	}
	for _, id := range w.IDs() {
		if err := w.Start(id, NewClock(0, 1, 0)); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() {
		slow.Store("")
		if err := w.Close(); err != nil {
			t.Error(err)
		}
	})
	if !w.Ready(10 * time.Second) {
		t.Fatal("not ready")
	}
	leader = w.Leader(time.Second)
	others := slices.DeleteFunc(w.IDs(), func(id string) bool { return id == leader })
	// What a new leader does by itself is over by then.
	time.Sleep(5 * time.Second)
	w.Network.Cut(leader, others[1])
	w.Network.Cut(others[1], leader)
	slow.Store(leader)
	return w, leader, others[0], others[1]
}

// entries is how far a member's disk has come.
func (w *World) entries(id string) uint64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	last, _ := w.members[id].disk.LastIndex()
	return last
}

// commit proposes something, and returns how long it took to be acknowledged.
func commit(w *World, id, request string) <-chan time.Duration {
	acknowledged := make(chan time.Duration, 1)
	n, began := w.Node(id), time.Now()
	go func() {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		var failed *node.Error
		if _, err := n.Propose(ctx, withID(request, tick())); err == nil {
			acknowledged <- time.Since(began)
		} else if !errors.As(err, &failed) {
			panic(err)
		}
		close(acknowledged)
	}()
	return acknowledged
}

// TestEntriesLeaveBeforeTheLeaderHasWrittenThem shows both sides: another member has an entry long before the leader's own disk, and until that has it too
// nobody is told that it is committed.
func TestEntriesLeaveBeforeTheLeaderHasWrittenThem(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, leader, near, _ := slowLeader(t)
		before, began := w.entries(leader), time.Now()
		acknowledged := commit(w, leader, "r1")
		if !Until(slowDisk/2, func() bool { return w.entries(near) > before }) {
			t.Error("the entry waited for the leader's disk")
		}
		if w.entries(leader) > before {
			t.Fatal("the leader's disk is not slow: this test shows nothing")
		}
		took, ok := <-acknowledged
		if !ok || took < slowDisk || took > 2*slowDisk {
			t.Errorf("acknowledged after %v (%v), and the leader's disk takes %v", took, ok, slowDisk)
		}
		if w.entries(leader) == before || time.Since(began) < slowDisk {
			t.Error("acknowledged before the leader had written it")
		}
	})
}

// TestKilledLeaderHadAcknowledgedNothingThatIsLost kills a leader whose disk is behind, and goes on without the only other member that has the entry.
func TestKilledLeaderHadAcknowledgedNothingThatIsLost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, leader, near, far := slowLeader(t)
		before := w.entries(leader)
		acknowledged := commit(w, leader, "r1")
		if !Until(slowDisk/2, func() bool { return w.entries(near) > before }) {
			t.Fatal("nobody else has the entry")
		}
		time.Sleep(slowDisk / 4) // Answers have been on their way long enough.
		w.Kill(leader)
		if took, ok := <-acknowledged; ok && took < slowDisk {
			t.Errorf("acknowledged after %v, by a leader that had not written it and was killed", took)
		}
		w.Kill(near)
		w.Network.Heal()
		if err := w.Start(leader, NewClock(0, 1, 0)); err != nil {
			t.Fatal(err)
		}
		if w.entries(leader) != before {
			t.Errorf("the killed leader has entries up to %d, and had %d on its disk", w.entries(leader), before)
		}
		if !Until(10*time.Second, func() bool { return w.Node(far).Ready() == nil }) {
			t.Fatal("the other two can't go on")
		}
		propose(t, w.Node(far), withID("r2", tick()))
		// The member that has the entry comes back, gives it up, and agrees with the others.
		if err := w.Start(near, NewClock(0, 1, 0)); err != nil {
			t.Fatal(err)
		}
		want := w.Node(far).Local().State.Digest()
		if !Until(10*time.Second, func() bool { return w.Node(near).Local().State.Digest() == want }) {
			t.Error("the members do not agree")
		}
	})
}

// TestLeaderThatRemovesTheOnlyOtherVoterWritesFirst removes the member whose acknowledgement an entry waits for, after which the leader's word is enough.
func TestLeaderThatRemovesTheOnlyOtherVoterWritesFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, leader, near, far := slowLeader(t)
		if err := w.Node(leader).Remove(t.Context(), far); err != nil {
			t.Fatal(err)
		}
		before := w.entries(near)
		acknowledged := commit(w, leader, "r1")
		if !Until(slowDisk/2, func() bool { return w.entries(near) > before }) {
			t.Fatal("the entry waited for the leader's disk")
		}
		if err := w.Node(leader).Remove(t.Context(), near); err != nil {
			t.Fatal(err)
		}
		if took, ok := <-acknowledged; !ok || took < slowDisk {
			t.Errorf("acknowledged after %v (%v), and the leader's disk takes %v", took, ok, slowDisk)
		}
	})
}

// TestOnlyVoterWritesFirst lets a leader commit by its own word alone.
func TestOnlyVoterWritesFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var slow atomic.Bool
		w := NewWorld(1, node.LAN, node.Limits{})
		w.DiskDelay = func(string) time.Duration {
			if slow.Load() {
				return slowDisk
			}
			return 0
		}
		if err := w.Start("m1", NewClock(0, 1, 0)); err != nil {
			t.Fatal(err)
		}
		defer func() {
			slow.Store(false)
			if err := w.Close(); err != nil {
				t.Error(err)
			}
		}()
		if !w.Ready(10 * time.Second) {
			t.Fatal("not ready")
		}
		time.Sleep(time.Second)
		slow.Store(true)
		began := time.Now()
		propose(t, w.Node("m1"), &logv1.Command{RequestId: "r1", Body: tick().Body})
		if took := time.Since(began); took < slowDisk {
			t.Errorf("acknowledged after %v, and the only disk takes %v", took, slowDisk)
		}
	})
}
