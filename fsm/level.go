package fsm

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"quorate/fsm/tree"
	logv1 "quorate/proto/quorate/log/v1"
	quoratev1 "quorate/proto/quorate/v1"
)

// levels holds how the level of each server changed, as the servers recorded it: the last MaxLevelChanges of each. It is for people
// to look at and decides nothing.
type levels struct {
	changes tree.Map[levelKey, *quoratev1.LevelChange]
}

// maxServiceLevel is the greatest ServiceLevel, a Byte.
const maxServiceLevel = 255

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

// recordLevels keeps changes of level. One whose number is not above the last that is kept of its server was recorded before: a
// server that does not know whether its command was applied sends it again.
func (a *application) recordLevels(c *logv1.RecordLevels) (*logv1.Outcome, *Refusal) {
	if n := len(c.GetChanges()); n > MaxLevelBatch {
		return nil, invalid(ReasonInvalidLevel, "changes", "%d changes are more than the %d allowed", n, MaxLevelBatch)
	}
	for i, change := range c.GetChanges() {
		field := fmt.Sprintf("changes[%d]", i)
		if _, r := a.present(field+".server", change.GetServer()); r != nil {
			return nil, r
		}
		if r := a.checkLevelChange(field, change); r != nil {
			return nil, r
		}
	}
	for _, change := range c.GetChanges() {
		a.recordLevel(&quoratev1.LevelChange{
			Server: change.GetServer(), Number: change.GetNumber(), Before: change.GetBefore(), After: change.GetAfter(),
			Band: change.GetBand(), Role: change.GetRole(), Set: change.GetSet(), Generation: change.GetGeneration(),
			Reasons: slices.Clone(change.GetReasons()), At: copyTime(change.GetAt()),
		})
	}
	return done(), nil
}

// checkLevelChange checks one change, of a server that is known.
func (s *State) checkLevelChange(field string, c *quoratev1.LevelChange) *Refusal {
	switch {
	case c.GetNumber() == 0:
		return invalid(ReasonInvalidLevel, field+".number", "changes are numbered from 1")
	case c.GetBefore() > maxServiceLevel:
		return invalid(ReasonInvalidLevel, field+".before", "%d is no ServiceLevel", c.GetBefore())
	case c.GetAfter() > maxServiceLevel:
		return invalid(ReasonInvalidLevel, field+".after", "%d is no ServiceLevel", c.GetAfter())
	case c.GetGeneration() > s.generationNumber():
		return s.wrongGeneration(logv1.Kind_KIND_NOT_FOUND, ReasonUnknownGeneration, field+".generation",
			"there is no generation %d, the current one is %d", c.GetGeneration(), s.generationNumber())
	case len(c.GetReasons()) > MaxLevelReasons:
		return invalid(ReasonInvalidLevel, field+".reasons", "%d reasons are more than the %d allowed", len(c.GetReasons()), MaxLevelReasons)
	case c.GetAt() != nil && !c.GetAt().IsValid():
		return invalid(ReasonInvalidTime, field+".at", "it must lie in the years 1 to 9999")
	}
	for i, reason := range c.GetReasons() {
		if r := checkText(fmt.Sprintf("%s.reasons[%d]", field, i), reason, MaxTextBytes); r != nil {
			return r
		}
	}
	return firstRefusal(
		checkText(field+".band", c.GetBand(), MaxIDBytes),
		checkText(field+".role", c.GetRole(), MaxIDBytes),
		checkText(field+".set", c.GetSet(), MaxIDBytes),
	)
}

func (a *application) recordLevel(c *quoratev1.LevelChange) {
	if last := a.levels.of(c.GetServer(), 1); len(last) > 0 && c.GetNumber() <= last[0].GetNumber() {
		return
	}
	a.levels.changes.Set(levelKey{c.GetServer(), c.GetNumber()}, c)
	if kept := a.levels.of(c.GetServer(), MaxLevelChanges+1); len(kept) > MaxLevelChanges {
		a.levels.changes.Delete(levelKey{c.GetServer(), kept[MaxLevelChanges].GetNumber()})
	}
	a.emit(&quoratev1.Event{Body: &quoratev1.Event_LevelChanged{LevelChanged: c}})
}

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

// forget drops the changes of a server.
func (l *levels) forget(server string) {
	for _, c := range l.of(server, MaxLevelChanges) {
		l.changes.Delete(levelKey{server, c.GetNumber()})
	}
}

// checkLevels is the invariant of the level history.
func (s *State) checkLevels() error {
	count, last := 0, ""
	for key, c := range s.levels.changes.All() {
		if key.server != last {
			count, last = 0, key.server
		}
		if count++; count > MaxLevelChanges {
			return fmt.Errorf("of server %s more than %d changes are kept", key.server, MaxLevelChanges)
		}
		if c.GetServer() != key.server || c.GetNumber() != key.number {
			return fmt.Errorf("change %d of server %q is misplaced", key.number, key.server)
		}
		if _, ok := s.Member(key.server); !ok {
			return fmt.Errorf("server %q, whose changes are kept, has no member", key.server)
		}
		if r := s.checkLevelChange("change", c); r != nil {
			return fmt.Errorf("change %d of server %q: %w", key.number, key.server, r)
		}
	}
	return nil
}
