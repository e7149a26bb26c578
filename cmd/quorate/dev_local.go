package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
)

// localGroup runs all members in this process.
type localGroup struct {
	plan     *devPlan
	failures chan error
	watchers sync.WaitGroup
	ended    chan struct{}

	members []*member
	logs    []*os.File
}

func newLocalGroup(plan *devPlan) *localGroup {
	return &localGroup{plan: plan, failures: make(chan error, len(plan.members)), ended: make(chan struct{})}
}

func (g *localGroup) failed() <-chan error { return g.failures }

func (g *localGroup) settled() {}

func (g *localGroup) start() error {
	for _, m := range g.plan.members {
		log, err := os.OpenFile(m.logFile(), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
		if err != nil {
			return fmt.Errorf("log of %s: %w", m.ID, err)
		}
		g.logs = append(g.logs, log)
		running, err := openMember(m.settings, newLogger(m.settings, log))
		if err != nil {
			return fmt.Errorf("member %s: %w", m.ID, err)
		}
		g.members = append(g.members, running)
		g.watchers.Go(func() {
			select {
			case err := <-running.failed():
				g.failures <- fmt.Errorf("member %s: %w", m.ID, err)
			case <-g.ended:
			}
		})
	}
	return nil
}

// stop stops the members at the same time: one by one, each would first hand its leadership to the next.
func (g *localGroup) stop() error {
	close(g.ended)
	g.watchers.Wait()
	ctx, cancel := context.WithTimeout(context.Background(), devStopLimit)
	defer cancel()
	errs := make([]error, len(g.members))
	var stopping sync.WaitGroup
	for i, running := range g.members {
		stopping.Go(func() { errs[i] = running.stop(ctx) })
	}
	stopping.Wait()
	for _, log := range g.logs {
		errs = append(errs, log.Close())
	}
	return errors.Join(errs...)
}
