package traffic

import (
	"context"
	"encoding/json"
	"errors"
	"math/rand/v2"
	"time"

	"quorate/client"
	"quorate/jepsen/history"
	quoratev1 "quorate/proto/quorate/v1"
)

func watches() Workload {
	return Workload{Name: "watch", Setup: nothing, Run: runWatches, Quiet: nothingQuiet, Final: nothingQuiet}
}

func nothingQuiet(context.Context, *Env, string) error { return nil }

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
		w.env.Log.Mark(history.Mark{Kind: "note", Member: w.member, Text: "watch"}, watchNote{Watch: w.name, From: w.next, Resumed: resumed})
		err := w.once(ctx, r)
		var compacted *client.CompactedError
		switch {
		case errors.As(err, &compacted):
			w.env.Log.Mark(history.Mark{Kind: "note", Member: w.member, Text: "compacted"}, watchNote{Watch: w.name, Revision: compacted.Revision})
			w.next, w.watch = max(w.next, compacted.Revision), nil
		case err != nil && ctx.Err() == nil && !errors.Is(err, context.DeadlineExceeded):
			w.env.Log.Mark(history.Mark{Kind: "note", Member: w.member, Text: "watch failed"}, watchNote{Watch: w.name, Error: err.Error()})
		}
		if err != nil {
			Rest(ctx, 50*time.Millisecond)
		}
	}
	return nil
}

// once watches until the watch fails or its life is over.
func (w *watcher) once(ctx context.Context, r *rand.Rand) (err error) {
	if w.lives > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, between(r, w.lives/4, w.lives))
		defer cancel()
	}
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
