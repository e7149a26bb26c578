package fsm

import (
	"cmp"
	"slices"
	"strings"

	"quorate/fsm/tree"
	quoratev1 "quorate/proto/quorate/v1"
)

// levels holds how the level of each server changed, as the servers recorded it: the last MaxLevelChanges of each. It is for people
// to look at and decides nothing.
type levels struct {
	changes tree.Map[levelKey, *quoratev1.LevelChange]
}

// levelKey orders the changes of a server by the number that it gave them.
type levelKey struct {
	server string
	number uint64
}

func (k levelKey) compare(l levelKey) int {
	return cmp.Or(strings.Compare(k.server, l.server), cmp.Compare(k.number, l.number))
}

func newLevels() levels {
	return levels{changes: tree.New[levelKey, *quoratev1.LevelChange](levelKey.compare)}
}

func (l *levels) snapshot() levels { return levels{changes: l.changes.Snapshot()} }

// LevelChanges returns at most limit of the recorded changes of a server's level, newest first; of every server if it is empty,
// then in order of their wall time. The first of one server has the number from which that server has to go on.
func (s *State) LevelChanges(server string, limit int) []*quoratev1.LevelChange {
	if server != "" {
		return s.levels.of(server, limit)
	}
	var all []*quoratev1.LevelChange
	for _, m := range s.Members() {
		all = append(all, s.levels.of(m.GetId(), limit)...)
	}
	slices.SortStableFunc(all, func(a, b *quoratev1.LevelChange) int {
		return cmp.Or(
			cmp.Compare(b.GetAt().GetSeconds(), a.GetAt().GetSeconds()),
			cmp.Compare(b.GetAt().GetNanos(), a.GetAt().GetNanos()),
		)
	})
	return all[:min(len(all), max(limit, 0))]
}

// of returns at most limit changes of one server, newest first.
func (l *levels) of(server string, limit int) []*quoratev1.LevelChange {
	var found []*quoratev1.LevelChange
	// No server has a name that continues another's with a zero byte, so what is before this key is the server's own.
	for key, c := range l.changes.Before(levelKey{server: server + "\x00"}) {
		if key.server != server || len(found) >= limit {
			break
		}
		found = append(found, c)
	}
	return found
}
