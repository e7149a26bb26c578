package traffic

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"quorate/client"
	"quorate/jepsen/history"
	quoratev1 "quorate/proto/quorate/v1"
)

func watches() Workload {
	return Workload{Name: "watch", Setup: nothing, Run: runWatches, Quiet: nothingQuiet, Final: finalWatches}
}

func nothingQuiet(context.Context, *Env, string) error { return nil }

// toldLimit is how long a watch may take to be told all that was committed, and toldWithin is within what time a member says how far it is if nothing happens: each 5 s.
const (
	toldLimit  = 30 * time.Second
	toldWithin = 6 * time.Second
)

// watcher is one who watches.
type watcher struct {
	env    *Env
	name   string
	member string
	at     *client.Client
	// lives is how long it watches before it begins anew from where it was; 0 means for ever.
	lives time.Duration
	next  uint64
	watch *client.Watch
}

// runWatches has one watch at each member, one that goes wherever it can, and one that ends and resumes all the time. All are of all events, from one revision on.
func runWatches(ctx context.Context, e *Env) error {
	from, err := firstRevision(ctx, e)
	if err != nil {
		return err
	}
	watchers := []*watcher{{name: "watch-group", at: e.Group}, {name: "watch-resuming", at: e.Group, lives: 3 * time.Second}}
	for _, m := range e.shape.members {
		watchers = append(watchers, &watcher{name: "watch-" + m.ID, member: m.ID, at: e.At[m.ID]})
	}
	var all []func(context.Context) error
	e.watcher = watchers[0]
	for _, w := range watchers {
		w.env, w.next = e, from
		all = append(all, w.run)
	}
	return together(ctx, all...)
}

func firstRevision(ctx context.Context, e *Env) (uint64, error) {
	for {
		resp, err := e.Group.Partitions().GetPartitionSettings(ctx, &quoratev1.GetPartitionSettingsRequest{})
		if err == nil {
			return resp.GetHeader().GetRevision() + 1, nil
		}
		if !Rest(ctx, 100*time.Millisecond) {
			return 0, errors.Join(err, ctx.Err())
		}
	}
}

// watchNote is what a history has of a watch beside its events.
type watchNote struct {
	Watch    string `json:"watch"`
	From     uint64 `json:"from,omitempty"`
	Resumed  bool   `json:"resumed,omitempty"`
	Revision uint64 `json:"revision,omitempty"`
	Error    string `json:"error,omitempty"`
}

// watchEvent is an event as a watch told it.
type watchEvent struct {
	Watch    string          `json:"watch"`
	Revision uint64          `json:"revision"`
	Seq      uint32          `json:"seq"`
	Event    json.RawMessage `json:"event"`
}

func (w *watcher) run(ctx context.Context) error {
	r := w.env.random(w.name)
	for resumed := false; ctx.Err() == nil; resumed = true {
		if w.lives == 0 {
			w.live(ctx, resumed)
			continue
		}
		life, cancel := context.WithTimeout(ctx, between(r, w.lives/4, w.lives))
		w.live(life, resumed)
		cancel()
	}
	return nil
}

// finalWatches lets one watch, of the group, go on until it was told all that was committed: what others saw last may be younger than what any watch was told before the
// run was over, and then nothing would explain it.
func finalWatches(ctx context.Context, e *Env, _ string) error {
	w := e.watcher
	if w == nil {
		return nil // It never ran.
	}
	next, err := firstRevision(ctx, e)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, toldLimit)
	defer cancel()
	for w.next < next {
		if ctx.Err() != nil {
			return fmt.Errorf("%s was told nothing from revision %d on, and %d is committed", w.name, w.next, next-1)
		}
		life, end := context.WithTimeout(ctx, toldWithin)
		w.live(life, true)
		end()
	}
	return nil
}

// live watches until the context ends or the watch fails, and notes how far it came.
func (w *watcher) live(ctx context.Context, resumed bool) {
	w.env.Log.Mark(history.Mark{Kind: "note", Member: w.member, Text: "watch"}, watchNote{Watch: w.name, From: w.next, Resumed: resumed})
	err := w.once(ctx)
	var compacted *client.CompactedError
	switch {
	case errors.As(err, &compacted):
		w.env.Log.Mark(history.Mark{Kind: "note", Member: w.member, Text: "compacted"}, watchNote{Watch: w.name, Revision: compacted.Revision})
		w.next, w.watch = max(w.next, compacted.Revision), nil
	case err != nil && ctx.Err() == nil:
		w.env.Log.Mark(history.Mark{Kind: "note", Member: w.member, Text: "watch failed"}, watchNote{Watch: w.name, Error: err.Error()})
	}
	if err != nil {
		Rest(ctx, 50*time.Millisecond)
	}
}

// once watches until the watch fails or the context ends.
func (w *watcher) once(ctx context.Context) (err error) {
	if w.watch == nil {
		w.watch = w.at.Watch(client.WatchOptions{FromRevision: w.next})
	}
	defer func() {
		w.next = w.watch.Revision() + 1
		w.env.Log.Mark(history.Mark{Kind: "note", Member: w.member, Text: "progress"}, watchNote{Watch: w.name, Revision: w.watch.Revision()})
	}()
	for event, failure := range w.watch.Events(ctx) {
		if failure != nil {
			return failure
		}
		w.env.Log.Mark(history.Mark{Kind: "event", Member: w.member},
			watchEvent{Watch: w.name, Revision: event.GetRevision(), Seq: event.GetSequence(), Event: encode(event)})
	}
	return nil
}
