package redundancy

import (
	"context"
	"slices"
	"sync"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"quorate/fsm"
	logv1 "quorate/proto/quorate/log/v1"
	quoratev1 "quorate/proto/quorate/v1"
)

const (
	// maxQueuedChanges is how many changes of level wait to be recorded, while the group has no leader. The oldest make room, and leave a gap in
	// the numbers.
	maxQueuedChanges = 256
	// recordInterval is between two batches: a level that flaps must not fill the log.
	recordInterval = time.Second
	// recordBurst is how many batches may follow each other at once after a quiet time. A publish moves a level several times within moments, and
	// every member's page shows what the log says.
	recordBurst = 8
)

// history holds the changes of level that are not yet recorded in the log. It is for people and decides nothing.
type history struct {
	news chan struct{}

	mu     sync.Mutex
	queue  []*quoratev1.LevelChange // numbered from 1 since the start of this process
	number uint64
}

func newHistory() history { return history{news: make(chan struct{}, 1)} }

// note queues a change. That only the reasons, the role or the generation are other ones is none.
func (h *history) note(before, after Level, at time.Time) {
	if before.Value == after.Value && before.Band == after.Band {
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.number++
	if len(h.queue) == maxQueuedChanges {
		h.queue = slices.Delete(h.queue, 0, 1)
	}
	change := &quoratev1.LevelChange{
		Number: h.number, Before: uint32(before.Value), After: uint32(after.Value), Band: after.Band.String(), Role: after.Role, Set: after.Set,
		Generation: after.Generation, At: timestamppb.New(at),
	}
	for _, reason := range after.Reasons[:min(len(after.Reasons), fsm.MaxLevelReasons)] {
		change.Reasons = append(change.Reasons, bounded(reason, fsm.MaxTextBytes))
	}
	h.queue = append(h.queue, change)
	select {
	case h.news <- struct{}{}:
	default: // The last word was not taken yet.
	}
}

// count returns how many changes there were since the start of this process.
func (h *history) count() uint64 {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.number
}

// batch returns the oldest changes as they are recorded for a server that has recorded that many before this process, and the number of the last one to
// settle them by.
func (h *history) batch(server string, recorded uint64) (changes []*quoratev1.LevelChange, last uint64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, queued := range h.queue[:min(len(h.queue), fsm.MaxLevelBatch)] {
		changes = append(changes, &quoratev1.LevelChange{
			Server: server, Number: recorded + queued.GetNumber(), Before: queued.GetBefore(), After: queued.GetAfter(), Band: queued.GetBand(),
			Role: queued.GetRole(), Set: queued.GetSet(), Generation: queued.GetGeneration(), Reasons: queued.GetReasons(), At: queued.GetAt(),
		})
		last = queued.GetNumber()
	}
	return changes, last
}

// settle drops what was recorded.
func (h *history) settle(last uint64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.queue = slices.DeleteFunc(h.queue, func(c *quoratev1.LevelChange) bool { return c.GetNumber() <= last })
}

// record proposes the changes of level in batches, once it is known how many were recorded before this process began. Each batch takes one off a budget, which
// grows by one with each interval; what fails is tried again an interval later.
func (m *Manager) record(ctx context.Context) {
	if !m.awaitReady(ctx) {
		return
	}
	recorded := lastRecorded(m.group.Local().State, m.member)
	pace := time.NewTicker(recordInterval)
	defer pace.Stop()
	for budget := recordBurst; ; {
		changes, last := m.history.batch(m.member, recorded)
		if len(changes) > 0 && budget > 0 {
			budget--
			if m.recordBatch(ctx, changes) {
				m.history.settle(last)
				continue
			}
		}
		news := m.history.news
		if len(changes) > 0 {
			news = nil // They wait for the budget, or for the group.
		}
		select {
		case <-ctx.Done():
			return
		case <-pace.C:
			budget = min(budget+1, recordBurst)
		case <-news:
		}
	}
}

// recordBatch tells whether the changes are recorded, or never will be.
func (m *Manager) recordBatch(ctx context.Context, changes []*quoratev1.LevelChange) bool {
	_, err := m.propose(ctx, &logv1.Command{Body: &logv1.Command_RecordLevels{RecordLevels: &logv1.RecordLevels{Changes: changes}}})
	switch {
	case err == nil:
		return true
	case refusedAs(err, logv1.Kind_KIND_INVALID):
		m.log.Warn("changes of level are refused, and dropped", "changes", len(changes), "error", err)
		return true
	default:
		m.log.Debug("changes of level not recorded yet", "changes", len(changes), "error", err)
		return false
	}
}

// lastRecorded returns the number of the last change of a server's level in the log, 0 if there is none.
func lastRecorded(state *fsm.State, server string) uint64 {
	if last := state.LevelChanges(server, 1); len(last) > 0 {
		return last[0].GetNumber()
	}
	return 0
}

// awaitReady waits until the state of the group is known; false means that ctx ended before.
func (m *Manager) awaitReady(ctx context.Context) bool {
	for {
		st, next := m.standings.get()
		if st.ready {
			return true
		}
		select {
		case <-ctx.Done():
			return false
		case <-next:
		}
	}
}
