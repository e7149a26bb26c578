package devgroup

import (
	"context"
	"fmt"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"quorate/client"
	quoratev1 "quorate/proto/quorate/v1"
	"quorate/sim"
)

// mover moves one partition to and fro, step by step, as its operator: it copies, cuts over and completes.
type mover struct {
	o             *ordeal
	partition     string
	from, to      string
	barrier       time.Duration // 0 is that of the settings
	early         bool
	script        []func(*mover) error
	steps         int
	cutoverCalled time.Time
}

// scripts are the ways that a migration goes. At each of their steps a member is killed.
var scripts = [][]func(*mover) error{
	{(*mover).begin, (*mover).report, (*mover).verify, (*mover).cutover, (*mover).awaitBarrier, (*mover).complete},
	{(*mover).begin, (*mover).report, (*mover).abort, (*mover).begin, (*mover).verify, (*mover).cutover, (*mover).awaitBarrier, (*mover).complete},
	{(*mover).begin, (*mover).verify, (*mover).cutover, (*mover).abort, (*mover).begin, (*mover).verify, (*mover).cutover, (*mover).awaitBarrier, (*mover).complete},
	{(*mover).begin, (*mover).report, (*mover).verify, (*mover).cutover, (*mover).complete},
	{(*mover).begin, (*mover).report, (*mover).verify, (*mover).cutover, (*mover).complete},
}

// earlyScript is the one whose barrier would take longer than the test, so that it must be completed early.
const earlyScript = 3

// next makes the next step, of a new migration if the last one has ended; false means that there is none to make.
func (m *mover) next() (bool, error) {
	if len(m.script) == 0 {
		number := int(m.o.begun.Add(1)) - 1
		if number >= m.o.migrations {
			return false, nil
		}
		way := number % len(scripts)
		m.script, m.early, m.barrier = scripts[way], way == earlyScript, 0
		switch {
		case m.early:
			m.barrier = time.Hour
		case number%2 == 1:
			m.barrier = longBarrier
		}
		m.to = map[string]string{"b1": "b2", "b2": "b3", "b3": "b1"}[m.from]
	}
	step := m.script[0]
	m.script = m.script[1:]
	return true, step(m)
}

// transition makes one that must be made, however often it has to be asked for, and notes it in the ledger.
func (m *mover) transition(what string, call func(ctx context.Context, p quoratev1.PartitionServiceClient, requestID string) (answer, error)) error {
	m.steps++
	called := time.Now()
	// The client sends it again, under the same request id, until a member answers.
	answer, err := call(m.o.ctx, m.o.client.Partitions(), fmt.Sprintf("%s-%d", m.partition, m.steps))
	if err != nil {
		return fmt.Errorf("%s of %s: %w", what, m.partition, err)
	}
	p := answer.GetPartition()
	m.o.ledger.Entered(m.partition, sim.Stay{
		Epoch: p.GetEpoch(), Owner: p.GetPlacement(), Writable: p.GetPhase() != cutover, Called: called, Returned: time.Now(),
	})
	m.o.transitions.Add(1)
	if p.GetMigration().GetCutoverAt() != nil {
		m.o.sawWall(p.GetMigration().GetCutoverAt())
	} else {
		m.o.sawWall(p.GetMigration().GetBegunAt())
	}
	return nil
}

// answer is that of any transition.
type answer interface{ GetPartition() *quoratev1.Partition }

func (m *mover) begin() error {
	m.o.stores.copyTo(place{m.partition, m.from}, m.to)
	return m.transition("begin", func(ctx context.Context, p quoratev1.PartitionServiceClient, id string) (answer, error) {
		request := &quoratev1.BeginMigrationRequest{
			RequestId: id, Partition: m.partition, To: m.to, EarlyCompletion: m.early, VerificationRequired: true,
		}
		if m.barrier != 0 {
			request.DrainBarrier = durationpb.New(m.barrier)
		}
		return p.BeginMigration(ctx, request)
	})
}

func (m *mover) report() error {
	return m.progress(&quoratev1.ReportMigrationRequest{Copy: &quoratev1.CopyProgress{Done: 1, Total: 2, Text: "half"}})
}

func (m *mover) verify() error {
	return m.progress(&quoratev1.ReportMigrationRequest{Copy: &quoratev1.CopyProgress{Done: 2, Total: 2}, Verified: true})
}

func (m *mover) progress(request *quoratev1.ReportMigrationRequest) error {
	request.Partition = m.partition
	answer, err := m.o.client.Partitions().ReportMigration(m.o.ctx, request)
	m.o.sawWall(answer.GetPartition().GetMigration().GetCopy().GetAt())
	return err
}

func (m *mover) cutover() error {
	m.cutoverCalled = time.Now()
	err := m.transition("cutover", func(ctx context.Context, p quoratev1.PartitionServiceClient, id string) (answer, error) {
		return p.CutoverMigration(ctx, &quoratev1.CutoverMigrationRequest{RequestId: id, Partition: m.partition})
	})
	m.o.stores.cutOver(m.partition, true)
	return err
}

func (m *mover) abort() error {
	m.o.stores.cutOver(m.partition, false)
	if err := m.transition("abort", func(ctx context.Context, p quoratev1.PartitionServiceClient, id string) (answer, error) {
		return p.AbortMigration(ctx, &quoratev1.AbortMigrationRequest{RequestId: id, Partition: m.partition})
	}); err != nil {
		return err
	}
	m.o.stores.endCopy(place{m.partition, m.from})
	m.o.stores.drop(place{m.partition, m.to})
	m.o.aborted.Add(1)
	return nil
}

// awaitBarrier waits until the barrier has passed, and ends the copy: no write that was let in before the cutover may land any more.
func (m *mover) awaitBarrier() error {
	var failed error
	err := waitUntil(m.o.ctx, "the barrier of "+m.partition+" has passed", func() bool {
		p, err := m.o.client.Partitions().GetPartition(m.o.ctx, &quoratev1.GetPartitionRequest{Partition: m.partition})
		failed = err
		return err != nil || p.GetPartition().GetMigration().GetBarrierLeft().AsDuration() == 0
	})
	if took := time.Since(m.cutoverCalled); failed == nil && took < m.whole() {
		m.o.ledger.Report("%s: the barrier of %v has passed %v after the cutover was asked for", m.partition, m.whole(), took)
	}
	if m.o.stores.endCopy(place{m.partition, m.from}); failed != nil {
		return failed
	}
	return err
}

// whole is how long the barrier lasts at least.
func (m *mover) whole() time.Duration {
	if m.barrier == 0 {
		return leastBarrier
	}
	return m.barrier
}

// complete asks until the barrier has passed, or all gates have drained.
func (m *mover) complete() error {
	var pending bool
	for {
		err := m.transition("completion", func(ctx context.Context, p quoratev1.PartitionServiceClient, id string) (answer, error) {
			return p.CompleteMigration(ctx, &quoratev1.CompleteMigrationRequest{RequestId: id, Partition: m.partition})
		})
		if err == nil {
			break
		}
		if pending = client.ReasonOf(err) == client.ReasonBarrierPending; !pending {
			return err
		}
		if err := m.o.pause(pollInterval); err != nil {
			return err
		}
	}
	took := time.Since(m.cutoverCalled)
	switch {
	case m.early && took >= m.barrier:
		m.o.ledger.Report("%s: it was to be completed early, and took %v", m.partition, took)
	case !m.early && took < m.whole():
		m.o.ledger.Report("%s: completed %v after the cutover was asked for, by a barrier of %v", m.partition, took, m.whole())
	case m.early:
		m.o.early.Add(1)
	}
	m.o.stores.cutOver(m.partition, false)
	m.o.stores.endCopy(place{m.partition, m.from})
	m.o.stores.drop(place{m.partition, m.from})
	m.from = m.to
	m.o.completed.Add(1)
	return nil
}
