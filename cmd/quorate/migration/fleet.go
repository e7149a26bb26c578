package migration

import (
	"context"
	"sync"
	"sync/atomic"
)

// MaxParallel bounds how many migrations one command drives at a time. Each asks the group once a second.
const MaxParallel = 256

// RunAll drives the jobs that feed yields, so many at a time, and hands over the end of each, one after the other. A failure of one doesn't stop the
// others; with failFast no more are begun after it, and those that run are carried to their end, since one that is left in cutover lets nobody
// write. Once ctx ends, no more are begun and all that run end as Run does. feed ends when yield returns false.
func (d *Driver) RunAll(ctx context.Context, parallel int, failFast bool, feed func(yield func(Job) bool) error, ended func(Outcome)) error {
	jobs := make(chan Job)
	var failed atomic.Bool
	var mu sync.Mutex
	var workers sync.WaitGroup
	enough := make(chan struct{})
	var once sync.Once
	for range parallel {
		workers.Go(func() {
			for job := range jobs {
				outcome := d.Run(ctx, job)
				if outcome.Result == Failed && failFast {
					failed.Store(true)
					once.Do(func() { close(enough) })
				}
				mu.Lock()
				ended(outcome)
				mu.Unlock()
			}
		})
	}
	err := feed(func(job Job) bool {
		if failed.Load() || ctx.Err() != nil {
			return false
		}
		select {
		case jobs <- job:
			return true
		case <-enough:
			return false
		case <-ctx.Done():
			return false
		}
	})
	close(jobs)
	workers.Wait()
	return err
}
