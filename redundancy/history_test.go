package redundancy

import (
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"quorate/fsm"
)

// recordedValues returns the values that the log has of m1, oldest first.
func recordedValues(g *group) (list []byte, numbers []uint64) {
	changes := g.Local().State.LevelChanges("m1", fsm.MaxLevelChanges)
	slices.Reverse(changes)
	for _, c := range changes {
		list, numbers = append(list, byte(c.GetAfter())), append(numbers, c.GetNumber())
	}
	return list, numbers
}

func TestEachChangeOfLevelIsRecorded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGroup(t, "m1", "m2")
		_, stop := run(t, g, as("m1", nil))
		g.publish(server("m1", Primary), server("m2", Backup))
		synctest.Wait()
		g.apply(maintain(true))
		time.Sleep(2 * recordInterval)
		if got, numbers := recordedValues(g); !slices.Equal(got, []byte{255, 0}) || !slices.Equal(numbers, []uint64{1, 2}) {
			t.Errorf("recorded %d as %d", got, numbers)
		}
		last := g.Local().State.LevelChanges("m1", 1)[0]
		if last.GetBefore() != 255 || last.GetBand() != "Maintenance" || last.GetRole() != Primary || last.GetSet() != "line-a" || last.GetGeneration() != 1 ||
			!slices.Contains(last.GetReasons(), "maintenance: new disk") || last.GetAt().AsTime().IsZero() {
			t.Errorf("recorded %v", last)
		}
		stop()
		// A restarted member goes on counting.
		start(t, g, newFakeProber())
		g.apply(maintain(false))
		time.Sleep(2*time.Minute + 2*recordInterval)
		got, numbers := recordedValues(g)
		if len(got) < 4 || got[len(got)-1] != 255 || numbers[len(numbers)-1] != uint64(len(numbers)) {
			t.Errorf("recorded %d as %d", got, numbers)
		}
	})
}

func TestHistoryIsBoundedAndBatched(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGroup(t, "m1")
		m := start(t, g, newFakeProber())
		g.set(func() { g.down = true })
		levels := []Level{{Value: 255}, {Value: 230, Band: Isolated, Reasons: slices.Repeat([]string{strings.Repeat("ü", 1000)}, 20)}}
		for i := range maxQueuedChanges + 10 {
			m.history.note(levels[i%2], levels[(i+1)%2], time.Now())
		}
		m.history.note(levels[0], levels[0], time.Now()) // no change
		time.Sleep(time.Minute + recordInterval/2)       // between two attempts
		if n := len(g.changes()); n != 0 {
			t.Errorf("%d changes were recorded without a leader", n)
		}
		g.set(func() { g.down = false })
		// As many batches as that takes are within the budget.
		time.Sleep(recordInterval)
		synctest.Wait()
		if n := len(g.changes()); n != maxQueuedChanges {
			t.Fatalf("%d changes were recorded", n)
		}
		for i, c := range g.changes() {
			if c.GetNumber() != uint64(i+11) { // The gap is at the beginning.
				t.Fatalf("change %d has number %d", i, c.GetNumber())
			}
			for _, reason := range c.GetReasons() {
				if len(reason) != fsm.MaxTextBytes || len(c.GetReasons()) != fsm.MaxLevelReasons {
					t.Fatalf("%d reasons, one of %d bytes", len(c.GetReasons()), len(reason))
				}
			}
		}
		if _, numbers := recordedValues(g); len(numbers) != fsm.MaxLevelChanges || numbers[len(numbers)-1] != maxQueuedChanges+10 {
			t.Errorf("the log has %d", numbers)
		}
	})
}

// What follows upon each other is in the log at once, as long as it is not too much; then once in each interval.
func TestAFewChangesAreRecordedAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGroup(t, "m1")
		m := start(t, g, newFakeProber())
		time.Sleep(2 * recordBurst * recordInterval)
		synctest.Wait()
		before := len(g.changes())
		for i := range 2 * recordBurst {
			m.history.note(Level{Value: byte(i)}, Level{Value: byte(i + 1)}, time.Now())
			synctest.Wait()
		}
		if n := len(g.changes()) - before; n != recordBurst {
			t.Errorf("%d changes at once, want %d", n, recordBurst)
		}
		time.Sleep(recordInterval)
		synctest.Wait()
		if n := len(g.changes()) - before; n != 2*recordBurst {
			t.Errorf("%d changes after the interval, want all that waited", n)
		}
	})
}

// While the group takes nothing the budget is kept for when it does: what is new then is in the log at once.
func TestFailuresCostNoBudget(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGroup(t, "m1")
		m := start(t, g, newFakeProber())
		time.Sleep(2 * recordBurst * recordInterval)
		g.set(func() { g.down = true })
		m.history.note(Level{Value: 1}, Level{Value: 2}, time.Now())
		time.Sleep(2*recordBurst*recordInterval + recordInterval/2)
		g.set(func() { g.down = false })
		time.Sleep(recordInterval)
		synctest.Wait()
		before := len(g.changes())
		for i := range recordBurst - 1 {
			m.history.note(Level{Value: byte(i)}, Level{Value: byte(i + 1)}, time.Now())
			synctest.Wait()
		}
		if n := len(g.changes()) - before; before == 0 || n != recordBurst-1 {
			t.Errorf("%d changes at once after %d, want %d", n, before, recordBurst-1)
		}
	})
}

// A change that the state machine would never take does not keep the others back.
func TestRefusedChangesAreDropped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGroup(t, "m1")
		m := start(t, g, newFakeProber())
		m.history.note(Level{Value: 1}, Level{Value: 2, Set: strings.Repeat("x", 1000)}, time.Now())
		time.Sleep(2 * recordInterval)
		m.history.note(Level{Value: 2}, Level{Value: 3}, time.Now())
		time.Sleep(2 * recordInterval)
		if got, numbers := recordedValues(g); !slices.Equal(got, []byte{3}) || !slices.Equal(numbers, []uint64{2}) {
			t.Errorf("recorded %d as %d", got, numbers)
		}
	})
}
