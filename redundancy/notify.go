package redundancy

import (
	"context"
	"log/slog"
	"maps"
	"slices"
	"time"
)

// Subscribe calls fn after the level moved, and after what is known of a peer changed, until cancel is called. fn must not
// block; it runs on a goroutine of the manager, without locks. It may be called once more while it is cancelled.
func (m *Manager) Subscribe(fn func()) (cancel func()) {
	id := &fn
	m.notifying.Lock()
	defer m.notifying.Unlock()
	m.subscribers[id] = struct{}{}
	return func() {
		m.notifying.Lock()
		defer m.notifying.Unlock()
		delete(m.subscribers, id)
	}
}

// notify tells the subscribers if something moved since they were told last.
func (m *Manager) notify() {
	m.notifying.Lock()
	level, peers := m.Level(), m.probes.version.Load()
	before := m.advertised
	moved := !level.Equal(before)
	if !moved && peers == m.peersSeen {
		m.notifying.Unlock()
		return
	}
	m.advertised, m.peersSeen = level, peers
	if moved {
		m.history.note(before, level, m.now())
	}
	subscribers := slices.Collect(maps.Keys(m.subscribers))
	m.notifying.Unlock()
	if moved {
		what := "service level moved"
		if level.Value == before.Value {
			what = "service level stays, for other reasons"
		}
		m.log.Log(context.Background(), logLevel(before, level), what, "from", before.Value, "to", level.Value, "band", level.Band.String(),
			"reasons", level.Reasons, "generation", level.Generation, "set", level.Set, "role", level.Role)
	}
	for _, fn := range subscribers {
		(*fn)()
	}
}

// logLevel is a warning where the server became less fit.
func logLevel(before, after Level) slog.Level {
	if after.Value < before.Value {
		return slog.LevelWarn
	}
	return slog.LevelInfo
}

// watchdog tells the subscribers that the level ran out when Run, which would, is the one that hangs.
func (m *Manager) watchdog(ctx context.Context) {
	tick := time.NewTicker(watchdogInterval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			// While Run turns it tells everything itself, and waits until everybody was told.
			if m.stalled(m.now()) {
				m.notify()
			}
		}
	}
}
