package migration

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	logv1 "quorate/proto/quorate/log/v1"
)

// countingHook counts how many of it run at a time.
type countingHook struct {
	g             *group
	running, most int
	fails         map[string]bool
}

func (h *countingHook) Run(ctx context.Context, about About, _ func(string)) error {
	h.g.mu.Lock()
	h.running++
	h.most = max(h.most, h.running)
	h.g.mu.Unlock()
	defer func() {
		h.g.mu.Lock()
		h.running--
		h.g.mu.Unlock()
	}()
	if !sleep(ctx, time.Second) {
		return ctx.Err()
	}
	if h.fails[about.Partition] {
		return errors.New("exit status 1")
	}
	return nil
}

const fleetSize = 12

func fleet(t *testing.T, fails ...string) (*group, *countingHook, *Driver, func(yield func(Job) bool) error) {
	g := newGroup(t)
	create := &logv1.CreatePartitions{Placement: "east"}
	var jobs []Job
	for i := range fleetSize {
		create.Ids = append(create.Ids, fmt.Sprintf("q%02d", i))
		jobs = append(jobs, Job{Partition: create.Ids[i], To: "west"})
	}
	g.must("more", &logv1.Command{Body: &logv1.Command_CreatePartitions{CreatePartitions: create}})
	h := &countingHook{g: g, fails: map[string]bool{}}
	for _, id := range fails {
		h.fails[id] = true
	}
	d, _ := g.driver(Options{Copy: h})
	return g, h, d, func(yield func(Job) bool) error {
		for _, j := range jobs {
			if !yield(j) {
				return nil
			}
		}
		return nil
	}
}

func count(ctx context.Context, t *testing.T, d *Driver, failFast bool, feed func(yield func(Job) bool) error) map[Result]int {
	t.Helper()
	results := map[Result]int{}
	if err := d.RunAll(ctx, 4, failFast, feed, func(o Outcome) { results[o.Result]++ }); err != nil {
		t.Fatal(err)
	}
	return results
}

func TestManyAtOnceWithALimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, h, d, feed := fleet(t, "q03", "q07")
		results := count(t.Context(), t, d, false, feed)
		if results[Done] != fleetSize-2 || results[Failed] != 2 || h.most != 4 {
			t.Errorf("%v, %d at a time", results, h.most)
		}
	})
}

func TestFailFastBeginsNoMoreAndEndsWhatRuns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g, _, d, feed := fleet(t, "q01")
		results := count(t.Context(), t, d, true, feed)
		if results[Failed] != 1 || results[Done] != 3 || len(g.ids("begin")) != 4 {
			t.Errorf("%v, %d were begun", results, len(g.ids("begin")))
		}
	})
}

func TestInterruptionEndsAll(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g, h, d, feed := fleet(t)
		ctx, cancel := context.WithTimeout(t.Context(), 14*time.Second)
		defer cancel()
		results := count(ctx, t, d, false, feed)
		if results[Done] != 4 || results[Interrupted] != 4 || h.running != 0 || len(g.ids("begin")) != 8 {
			t.Errorf("%v, %d were begun, %d hooks run", results, len(g.ids("begin")), h.running)
		}
		d, _ = g.driver(Options{Copy: h})
		results = count(t.Context(), t, d, false, func(yield func(Job) bool) error {
			return feed(func(j Job) bool { return yield(resumed(j)) })
		})
		if results[Done] != fleetSize {
			t.Errorf("resumed: %v", results)
		}
	})
}

func TestAFeedThatFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, _, d, feed := fleet(t)
		broken := errors.New("the list broke off")
		results := map[Result]int{}
		err := d.RunAll(t.Context(), 4, false, func(yield func(Job) bool) error {
			n := 0
			_ = feed(func(j Job) bool { n++; return n <= 5 && yield(j) })
			return broken
		}, func(o Outcome) { results[o.Result]++ })
		if !errors.Is(err, broken) || results[Done] != 5 {
			t.Errorf("%v, %v", err, results)
		}
	})
}
