package interop

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"sync"
	"testing"
	"time"
)

// seen is what the client said of a server at a moment: its level, or that it has none, and why.
type seen struct {
	Server, Status, Error string
	Value                 int
	At                    int64 // milliseconds by the client's clock, the same for all servers
}

// watcher is a client that is subscribed to the ServiceLevel of several servers, and keeps what it saw.
type watcher struct {
	t *testing.T

	mu      sync.Mutex
	all     []seen
	changed chan struct{}
}

func watchLevels(ctx context.Context, t *testing.T, endpoints map[string]string) *watcher {
	t.Helper()
	client := startTalk(ctx, t, "levels", map[string]any{"endpoints": endpoints}, os.Stderr)
	w := &watcher{t: t, changed: make(chan struct{})}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for client.lines.Scan() {
			var s seen
			if err := json.Unmarshal(client.lines.Bytes(), &s); err != nil {
				t.Errorf("the client said %s (%v)", client.lines.Text(), err)
				continue
			}
			w.mu.Lock()
			w.all = append(w.all, s)
			close(w.changed)
			w.changed = make(chan struct{})
			w.mu.Unlock()
		}
	}()
	t.Cleanup(func() {
		_ = client.in.Close()
		<-done
		_ = client.Wait()
		if t.Failed() {
			for _, s := range w.all {
				t.Logf("%s: %s %d %s", time.UnixMilli(s.At).UTC().Format("15:04:05.000"), s.Server, s.Value, s.Error)
			}
		}
	})
	return w
}

// mark is how much was seen until now.
func (w *watcher) mark() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.all)
}

// since returns what was seen of a server since a mark.
func (w *watcher) since(mark int, server string) (list []seen) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, s := range w.all[mark:] {
		if s.Server == server {
			list = append(list, s)
		}
	}
	return list
}

// await waits until a condition holds that depends on what was seen.
func (w *watcher) await(ctx context.Context, what string, holds func() bool) {
	w.t.Helper()
	for {
		w.mu.Lock()
		changed := w.changed
		w.mu.Unlock()
		if holds() {
			return
		}
		select {
		case <-changed:
		case <-ctx.Done():
			w.t.Fatalf("the client never saw that %s", what)
		}
	}
}

// level is what the client sees of a server now, -1 if it sees nothing.
func (w *watcher) level(server string) int {
	list := w.since(0, server)
	if len(list) == 0 || list[len(list)-1].Error != "" {
		return -1
	}
	return list[len(list)-1].Value
}

// are waits until the servers have those levels, m1's first.
func (w *watcher) are(ctx context.Context, why string, m1, m2 int) {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(ctx, levelLimit)
	defer cancel()
	began := time.Now()
	defer func() { w.t.Logf("%s: after %v", why, time.Since(began).Round(time.Millisecond)) }()
	w.await(ctx, fmt.Sprintf("m1 is at %d and m2 at %d: %s", m1, m2, why), func() bool { return w.level("m1") == m1 && w.level("m2") == m2 })
}

// never wants that no two servers were seen at certain levels for the same time. A notification may come later than the change by the publishing interval
// and a bit, and so two may seem to overlap for that long.
func (w *watcher) never(mark int, what string, one func(server string, level int) bool) {
	w.t.Helper()
	w.mu.Lock()
	defer w.mu.Unlock()
	since := map[string]int64{} // when each server came to such a level
	for _, s := range w.all[mark:] {
		began, was := since[s.Server]
		is := s.Error == "" && one(s.Server, s.Value)
		if !is && was {
			for other, at := range since {
				if overlap := s.At - max(at, began); other != s.Server && overlap > notificationSlack.Milliseconds() {
					w.t.Errorf("%s: both for %d ms until %s", what, overlap, time.UnixMilli(s.At).UTC().Format("15:04:05.000"))
				}
			}
			delete(since, s.Server)
		}
		if is && !was {
			since[s.Server] = s.At
		}
	}
	if len(since) > 1 {
		w.t.Errorf("%s: both, at the end", what)
	}
}
