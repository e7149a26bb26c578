package devgroup

import (
	"context"
	"testing"
	"time"

	"quorate/client"
	quoratev1 "quorate/proto/quorate/v1"
)

// barrierSlack is what a barrier may take longer on a busy machine: the first stamp after the cutover, an election, and the way to and fro.
const barrierSlack = 3 * time.Second

// clusterTick is how much of a barrier that has passed may be unknown after the whole group was lost: the leader commits a tick each second.
const clusterTick = time.Second

// left is what is left of a partition's barrier.
func (m *mover) left() time.Duration {
	m.o.t.Helper()
	p, err := m.o.client.Partitions().GetPartition(m.o.ctx, &quoratev1.GetPartitionRequest{Partition: m.partition})
	m.o.must(err)
	return p.GetPartition().GetMigration().GetBarrierLeft().AsDuration()
}

// refusedFor asks for the completion, which must be refused, and returns what is said to be left.
func (m *mover) refusedFor() time.Duration {
	m.o.t.Helper()
	_, err := m.o.client.Partitions().CompleteMigration(m.o.ctx, &quoratev1.CompleteMigrationRequest{Partition: m.partition})
	if client.ReasonOf(err) != client.ReasonBarrierPending {
		m.o.t.Fatalf("completed before the barrier had passed, or refused for another reason: %v", err)
	}
	left, known := client.AsError(err).Remaining()
	if !known {
		m.o.t.Errorf("the refusal does not say what is left: %v", err)
	}
	return left
}

// cutOver takes a partition through a migration up to its cutover.
func (o *ordeal) cutOver(barrier time.Duration) *mover {
	m := o.create(1)[0]
	m.to, m.barrier = "b2", barrier
	for _, step := range []func(*mover) error{(*mover).begin, (*mover).verify, (*mover).cutover} {
		o.must(step(m))
	}
	return m
}

// TestBarrierIsWholeAgainAfterAbort aborts in the middle of a barrier: what had passed of it counts for nothing.
func TestBarrierIsWholeAgainAfterAbort(t *testing.T) {
	const barrier = 2 * time.Second
	ctx, cancel := context.WithTimeout(t.Context(), testLimit)
	defer cancel()
	o := startOrdeal(ctx, t)
	m := o.cutOver(barrier)
	o.must(waitUntil(ctx, "most of the barrier has passed", func() bool { return m.left() < barrier/4 }))
	for _, step := range []func(*mover) error{(*mover).abort, (*mover).begin, (*mover).verify, (*mover).cutover} {
		o.must(step(m))
	}
	if left := m.refusedFor(); left < barrier/2 {
		t.Errorf("%v are left of a barrier of %v that has just begun", left, barrier)
	}
	o.must(m.complete())
	took := time.Since(m.cutoverCalled)
	if took < barrier || took > barrier+barrierSlack {
		t.Errorf("completed %v after the second cutover was asked for, by a barrier of %v", took, barrier)
	}
	for _, problem := range o.ledger.Problems() {
		t.Error(problem)
	}
	t.Logf("completed %v after the second cutover was asked for, by a barrier of %v", took.Round(time.Millisecond), barrier)
}

// TestBarrierGoesOnAfterTheGroupWasLost kills all members in the middle of a barrier, and moves their wall clocks before they come back. The time without a
// leader does not count, and what had passed before does.
func TestBarrierGoesOnAfterTheGroupWasLost(t *testing.T) {
	for name, moved := range map[string]time.Duration{"clocks forward": wallMoves, "clocks back": -wallMoves} {
		t.Run(name, func(t *testing.T) {
			const barrier = 5 * time.Second
			ctx, cancel := context.WithTimeout(t.Context(), testLimit)
			defer cancel()
			o := startOrdeal(ctx, t)
			m := o.cutOver(barrier)
			o.must(waitUntil(ctx, "half of the barrier has passed", func() bool { return m.left() < barrier/2 }))
			before, killed := m.left(), time.Now()
			o.killAll()
			for _, member := range o.Members {
				o.moveWall(member.ID, moved)
			}
			o.restartAll()
			after := m.left()
			answered := time.Now()
			// What was left when the last member died was less than before; and nothing passes until there is a leader.
			if after == 0 || after > before+clusterTick {
				t.Errorf("%v were left before the group was lost, and %v are afterwards", before, after)
			}
			m.refusedFor()
			o.must(m.complete())
			whole, rest := time.Since(m.cutoverCalled), time.Since(answered)
			if whole < barrier {
				t.Errorf("completed %v after the cutover was asked for, by a barrier of %v", whole, barrier)
			}
			if rest > after+barrierSlack || rest > barrier-clusterTick {
				t.Errorf("completed %v after the group was back, with %v left then", rest, after)
			}
			for _, problem := range o.ledger.Problems() {
				t.Error(problem)
			}
			t.Logf("%v left, then %v without the group, %v left, completed %v after that, %v after the cutover was asked for",
				before.Round(time.Millisecond), answered.Sub(killed).Round(time.Millisecond), after.Round(time.Millisecond), rest.Round(time.Millisecond),
				whole.Round(time.Millisecond))
		})
	}
}
