package node

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"quorate/fsm"
	logv1 "quorate/proto/quorate/log/v1"
	quoratev1 "quorate/proto/quorate/v1"
)

// gateBook is a book of gate leases with what it needs around it: a leadership of term 3 that began long ago, and a state with one instance and partitions.
type gateBook struct {
	*gates
	t       *testing.T
	machine *machine
	session *session
	clock   *testClock
	index   uint64
}

type testClock struct{ start time.Time }

func (c *testClock) Elapsed() time.Duration { return time.Since(c.start) }
func (c *testClock) Wall() time.Time        { return time.Now() }

const gateSession = "0123456789abcdef"

var gateHolder = fsm.InstanceSession{ID: "proxy-1", Session: gateSession}

func newGateBook(t *testing.T) *gateBook {
	clock := &testClock{start: time.Now().Add(-time.Hour)}
	b := &gateBook{
		gates: newGates(0), t: t, clock: clock,
		machine: newMachine(Limits{}.withDefaults(), func(err error) { t.Error(err) }),
	}
	ctx, cancel := context.WithCancel(t.Context())
	t.Cleanup(cancel)
	b.session = &session{term: 3, ctx: ctx, gates: b.gates}
	b.apply(&logv1.Command{RequestId: "i", Body: &logv1.Command_RegisterInstance{RegisterInstance: &logv1.RegisterInstance{Id: gateHolder.ID, Session: gateSession}}})
	b.apply(&logv1.Command{RequestId: "p", Body: &logv1.Command_CreatePartitions{CreatePartitions: &logv1.CreatePartitions{Ids: []string{"p1", "p2"}, Placement: "b1"}}})
	return b
}

// apply applies a command as an entry of its own, and publishes the state.
func (b *gateBook) apply(c *logv1.Command) {
	b.t.Helper()
	b.index++
	outcomes, events, err := b.machine.state.ApplyEntry(b.index, &logv1.Entry{Clock: b.index, Commands: []*logv1.Command{c}})
	if err != nil || outcomes[0].GetRefusal() != nil {
		b.t.Fatal(err, outcomes)
	}
	b.machine.index = b.index
	b.machine.publish()
	b.machine.events.add(b.index, events)
}

// place gives a partition another owner, in the state alone.
func (b *gateBook) place(partition, to string) {
	b.t.Helper()
	b.apply(&logv1.Command{RequestId: fmt.Sprint(partition, to, b.index), Body: &logv1.Command_SetPlacement{SetPlacement: &logv1.SetPlacement{
		Partition: partition, Placement: to, GatesClosed: true,
	}}})
}

// ask asks for a lease, without waiting for news.
func (b *gateBook) ask(term, grant, revision uint64) *quoratev1.RenewGateResponse {
	b.t.Helper()
	req := &quoratev1.RenewGateRequest{Id: gateHolder.ID, Session: gateSession, Term: term, Grant: grant, Revision: revision}
	replaced := b.hear(gateHolder, req, b.session.term, b.clock.Elapsed())
	resp, err := b.grant(b.machine, b.clock, gateHolder, req, b.session.term, replaced)
	if err != nil {
		b.t.Fatal(err)
	}
	return resp
}

// closing closes gates aside, and returns a channel with what came of it.
func (b *gateBook) closing(partition string) <-chan error {
	done := make(chan error, 1)
	go func() { done <- b.close(b.t.Context(), b.session, b.machine, b.clock, partition) }()
	return done
}

func pendingStill(t *testing.T, done <-chan error) {
	t.Helper()
	synctest.Wait()
	select {
	case err := <-done:
		t.Fatalf("the gates are closed, %v, while a lease stands", err)
	default:
	}
}

// TestGatesWaitForAcknowledgement: a grant that names the closed partition has to be acknowledged, not only made.
func TestGatesWaitForAcknowledgement(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newGateBook(t)
		first := b.ask(0, 0, 0)
		done := b.closing("p1")
		pendingStill(t, done)
		second := b.ask(3, first.GetGrant(), first.GetRevision())
		if len(second.GetClosed()) != 1 || second.GetClosed()[0] != "p1" {
			t.Errorf("closed are %v", second.GetClosed())
		}
		pendingStill(t, done)
		// Another leader's grant of that number, and one that was never made, say nothing.
		b.ask(2, second.GetGrant(), second.GetRevision())
		b.ask(3, 1000, second.GetRevision())
		pendingStill(t, done)
		b.ask(3, second.GetGrant(), second.GetRevision())
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		b.place("p1", "b2")
		b.open("p1")
		last := b.ask(3, second.GetGrant(), second.GetRevision())
		if len(last.GetClosed()) != 0 || len(last.GetChanged()) != 1 || last.GetChanged()[0].GetWritePlacement() != "b2" || last.GetReset_() {
			t.Errorf("after the transition: %v", last)
		}
	})
}

// TestGatesWaitForTheEndOfALease: without a word the lease has to run out, with room for a slow clock.
func TestGatesWaitForTheEndOfALease(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newGateBook(t)
		b.ask(0, 0, 0)
		began := time.Now()
		time.Sleep(time.Second)
		if err := <-b.closing("p1"); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(began); took != fsm.DefaultGateTTL+fsm.DefaultGateTTL/50 {
			t.Errorf("closed %v after the grant", took)
		}
	})
}

// TestGatesDoNotWaitForALeaseThatWasGivenBack also shows that a question which was on its way when the lease was given back gets none.
func TestGatesDoNotWaitForALeaseThatWasGivenBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newGateBook(t)
		b.ask(0, 0, 0)
		late := &quoratev1.RenewGateRequest{Id: gateHolder.ID, Session: gateSession}
		replaced := b.hear(gateHolder, late, 3, b.clock.Elapsed())
		b.hear(gateHolder, &quoratev1.RenewGateRequest{Id: gateHolder.ID, Session: gateSession, GiveBack: true}, 3, b.clock.Elapsed())
		began := time.Now()
		if err := <-b.closing("p1"); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(began); took > 0 {
			t.Errorf("closed after %v", took)
		}
		if resp, err := b.grant(b.machine, b.clock, gateHolder, late, 3, replaced); err == nil {
			t.Errorf("a question that was replaced gets %v", resp)
		}
	})
}

// TestGatesEndWithTheLeadership: what waits is told to ask the next leader, and what waits for a caller who has left changes nothing.
func TestGatesEndWithTheLeadership(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newGateBook(t)
		ctx, cancel := context.WithCancel(context.Background())
		b.session.ctx = ctx
		b.ask(0, 0, 0)
		done := b.closing("p1")
		left, leave := context.WithCancel(t.Context())
		gone := make(chan error, 1)
		go func() { gone <- b.close(left, b.session, b.machine, b.clock, "p2") }()
		synctest.Wait()
		leave()
		if err := <-gone; err == nil || !strings.Contains(err.Error(), "deadline") {
			t.Errorf("after its caller has left: %v", err)
		}
		cancel()
		if err := <-done; err == nil || !strings.Contains(err.Error(), "not the leader") {
			t.Errorf("after the leadership: %v", err)
		}
		if len(b.closed) != 0 || len(b.slots) != 0 {
			t.Errorf("%v are closed still, %d slots taken", b.closed, len(b.slots))
		}
	})
}

// TestClosedGatesAreBounded closes as many as may be closed at a time.
func TestClosedGatesAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newGateBook(t)
		for i := range maxClosedGates {
			if err := b.close(t.Context(), b.session, b.machine, b.clock, fmt.Sprint("q", i)); err != nil {
				t.Fatal(err)
			}
		}
		done := b.closing("p1")
		pendingStill(t, done)
		b.open("q0")
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		if named := len(b.ask(0, 0, 0).GetClosed()); named != maxClosedGates {
			t.Errorf("a grant names %d", named)
		}
	})
}

// TestGateViewIsForgottenWhereTheHistoryEnds lets more change than an answer can tell, and than the history keeps.
func TestGateViewIsForgottenWhereTheHistoryEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newGateBook(t)
		first := b.ask(0, 0, 0)
		for i := range len(b.machine.events.ring) + 1 {
			b.place("p1", []string{"b2", "b1"}[i%2])
		}
		if next := b.ask(3, first.GetGrant(), first.GetRevision()); !next.GetReset_() || next.GetRevision() != b.index {
			t.Errorf("the view of revision %d is kept: %v", first.GetRevision(), next)
		}
		if fresh := b.ask(0, 0, 0); fresh.GetReset_() || fresh.GetChanged() != nil {
			t.Errorf("who remembers nothing is told to forget it: %v", fresh)
		}
	})
}

// TestGateQuestionsWaitForNews: an answer comes at once when there is something to learn, and otherwise after a quarter of the TTL.
func TestGateQuestionsWaitForNews(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newGateBook(t)
		wait := func(grant uint64) time.Duration {
			began := time.Now()
			req := &quoratev1.RenewGateRequest{Id: gateHolder.ID, Session: gateSession, Term: 3, Grant: grant}
			replaced := b.hear(gateHolder, req, 3, b.clock.Elapsed())
			if !b.awaitNews(t.Context(), gateHolder, req, b.session, fsm.DefaultGateTTL/4, replaced) {
				t.Fatal("not to be answered")
			}
			return time.Since(began)
		}
		if took := wait(0); took != gateGather {
			t.Errorf("the first question waits %v", took)
		}
		first := b.ask(0, 0, 0)
		if took := wait(first.GetGrant()); took != fsm.DefaultGateTTL/4 {
			t.Errorf("a question without news waits %v", took)
		}
		time.AfterFunc(100*time.Millisecond, func() { b.shut("p1", b.clock.Elapsed()) })
		if took := wait(first.GetGrant()); took != 100*time.Millisecond+gateGather {
			t.Errorf("a question waits %v for gates that close after 100 ms", took)
		}
	})
}

// TestDrainedNeedsEverybody: the leader gives its word only once every registered session has reported the very cutover.
func TestDrainedNeedsEverybody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newGateBook(t)
		b.apply(&logv1.Command{RequestId: "b", Body: &logv1.Command_BeginMigration{BeginMigration: &logv1.BeginMigration{Partition: "p1", To: "b2", EarlyCompletion: true, GatesClosed: true}}})
		b.apply(&logv1.Command{RequestId: "c", Body: &logv1.Command_CutoverMigration{CutoverMigration: &logv1.CutoverMigration{Partition: "p1", GatesClosed: true}}})
		report := func(epoch uint64) {
			b.hear(gateHolder, &quoratev1.RenewGateRequest{Drained: []*quoratev1.PartitionEpoch{{Partition: "p1", Epoch: epoch}}}, 3, b.clock.Elapsed())
		}
		state := func() *fsm.State { return b.machine.latest.Load().state }
		if b.drained(state(), "p1") {
			t.Error("nobody has reported")
		}
		if report(2); b.drained(state(), "p1") {
			t.Error("another epoch was reported")
		}
		if report(3); !b.drained(state(), "p1") {
			t.Error("everybody has reported")
		}
		b.apply(&logv1.Command{RequestId: "i2", Body: &logv1.Command_RegisterInstance{RegisterInstance: &logv1.RegisterInstance{Id: "proxy-2", Session: gateSession}}})
		if b.drained(state(), "p1") {
			t.Error("proxy-2 has not reported")
		}
		b.apply(&logv1.Command{RequestId: "r1", Body: &logv1.Command_RemoveInstance{RemoveInstance: &logv1.RemoveInstance{Id: "proxy-1", Session: gateSession, Drained: true}}})
		b.apply(&logv1.Command{RequestId: "r2", Body: &logv1.Command_RemoveInstance{RemoveInstance: &logv1.RemoveInstance{Id: "proxy-2", Session: gateSession, Drained: true}}})
		if b.drained(state(), "p1") {
			t.Error("nobody is registered who could have reported")
		}
	})
}
