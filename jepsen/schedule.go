package main

import (
	"context"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"quorate/jepsen/nemesis"
)

const (
	// together is how many faults there are at once.
	together = 2
	// pauseMost is the longest pause after a fault of a series.
	pauseMost = 1500 * time.Millisecond
	// busyPause is the pause before another kind is tried where there was nothing to break.
	busyPause = 100 * time.Millisecond
)

// schedule breaks things until its context ends. All kinds come in turn, in an order that is new each time, and one for which there was nothing to break
// comes again soon.
type schedule struct {
	world *nemesis.World
	since func() time.Duration
	done  func(nemesis.Report)

	mu     sync.Mutex
	random *rand.Rand
	kinds  []nemesis.Kind
	queue  []nemesis.Kind
	// working are the kinds that are at work: each is once at a time.
	working map[string]bool
}

// run returns when all faults are healed.
func (s *schedule) run(ctx context.Context) {
	if len(s.kinds) == 0 {
		return
	}
	var working sync.WaitGroup
	for range min(together, len(s.kinds)) {
		working.Go(func() {
			for ctx.Err() == nil {
				kind, free := s.next()
				pause := busyPause
				var report nemesis.Report
				if free {
					report = nemesis.Once(ctx, s.world, kind, s.since)
					s.ended(kind)
				}
				if report.Text == "" && report.Error == "" {
					s.again(kind)
				} else {
					s.done(report)
					pause = s.pause()
				}
				select {
				case <-time.After(pause):
				case <-ctx.Done():
				}
			}
		})
	}
	working.Wait()
}

// next is the kind whose turn it is; false means that it is at work still.
func (s *schedule) next() (nemesis.Kind, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.queue) == 0 {
		s.queue = slices.Clone(s.kinds)
		s.random.Shuffle(len(s.queue), func(i, j int) { s.queue[i], s.queue[j] = s.queue[j], s.queue[i] })
	}
	kind := s.queue[0]
	s.queue = s.queue[1:]
	if s.working[kind.Name] {
		return kind, false
	}
	if s.working == nil {
		s.working = map[string]bool{}
	}
	s.working[kind.Name] = true
	return kind, true
}

func (s *schedule) ended(kind nemesis.Kind) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.working, kind.Name)
}

// again puts a kind behind the one that comes next.
func (s *schedule) again(kind nemesis.Kind) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.queue = slices.Insert(s.queue, min(1, len(s.queue)), kind)
}

func (s *schedule) pause() time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	return time.Duration(s.random.Int64N(int64(pauseMost)))
}

// sharedSource makes a source of chance that may be used from many goroutines.
type sharedSource struct {
	mu     sync.Mutex
	source rand.Source
}

// Uint64 implements rand.Source.
func (s *sharedSource) Uint64() uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.source.Uint64()
}
