package main

import (
	"context"
	"errors"
	"time"

	"quorate/bench/process"
)

// use is what a process has in use.
type use struct {
	rss     float64 // MB
	files   int     // open files: its connections, and some that it always has
	threads int
}

func useOf(p process.ID) (u use, err error) {
	var rssErr, threadsErr, filesErr error
	u.rss, rssErr = p.RSS()
	u.threads, threadsErr = p.Threads()
	u.files, filesErr = p.Files()
	return u, errors.Join(rssErr, threadsErr, filesErr)
}

// peak is the most that a process has in use until ctx ends.
func peak(ctx context.Context, p process.ID) (most use) {
	for tick := time.NewTicker(settlePoll); ; {
		if u, err := useOf(p); err == nil {
			most.rss, most.files, most.threads = max(most.rss, u.rss), max(most.files, u.files), max(most.threads, u.threads)
		}
		select {
		case <-ctx.Done():
			tick.Stop()
			return most
		case <-tick.C:
		}
	}
}
