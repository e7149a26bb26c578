package nemesis

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"quorate/jepsen/wire"
)

// membership are the faults of who is in the group and who leads it: nothing is broken, but everything moves.
func membership() []Kind {
	return []Kind{
		{"transfer", transfer},
		{"transfer-storm", transferStorm},
		{"late-hand-over", lateHandOver},
		{"join-and-leave", joinAndLeave},
		{"replace", replace},
		{"snapshot-install", snapshotInstall},
	}
}

// transfer hands the leadership over, once.
func transfer(ctx context.Context, w *World) (*Fault, error) {
	before := w.Group.Leader(ctx)
	if before == "" {
		return nil, nil
	}
	if err := w.Group.Transfer(ctx, ""); err != nil {
		return nil, nil // Some other fault keeps it from happening.
	}
	return &Fault{
		Text: "the leadership is handed over from " + before,
		seen: func(ctx context.Context) (string, error) {
			now := w.Group.Leader(ctx)
			if now == "" || now == before {
				return "", fmt.Errorf("the leader is %q", now)
			}
			return now + " leads", nil
		},
		heal: func(context.Context) error { return nil },
	}, nil
}

// transferStorm hands it over all the time.
func transferStorm(ctx context.Context, w *World) (*Fault, error) {
	members := w.all("transfer-storm")
	if members == nil {
		return nil, nil
	}
	storm, stop := context.WithCancel(ctx)
	done := make(chan struct{})
	changes := make(chan int, 1)
	changes <- 0
	go func() {
		defer close(done)
		for storm.Err() == nil {
			if w.Group.Transfer(storm, "") == nil {
				changes <- <-changes + 1
			}
			select {
			case <-time.After(100 * time.Millisecond):
			case <-storm.Done():
			}
		}
	}()
	return &Fault{
		Members: ids(members), Text: "the leadership is handed over ten times a second", For: w.length(),
		seen: func(context.Context) (string, error) {
			n := <-changes
			changes <- n
			if n < 3 {
				return "", fmt.Errorf("%d changes of leader", n)
			}
			return fmt.Sprintf("%d changes of leader", n), nil
		},
		heal: func(context.Context) error {
			stop()
			<-done
			return nil
		},
	}, nil
}

const (
	// lateLeast and lateMost bound how much later a member hears the others: less than what a leader may go without hearing of them, so that it stays one.
	lateLeast = 100 * time.Millisecond
	lateMost  = 200 * time.Millisecond
	// lateTerm is how long it leads each time, so that it has something to answer for.
	lateTerm = 300 * time.Millisecond
)

// lateHandOver lets a member hear the others late, and has it take over the leadership and give it away again and again. A hand-over asks nobody to wait for the
// leader's lease: until the former leader hears of the new one, there are two that take themselves for it, and nothing tells them apart but a question to the others.
func lateHandOver(ctx context.Context, w *World) (*Fault, error) {
	m := w.victim(ctx, "late-hand-over")
	if m == nil {
		return nil, nil
	}
	late := lateLeast + time.Duration(w.Random.Int64N(int64(lateMost-lateLeast)))
	set := func(q wire.Quality) {
		for _, other := range w.Lab.Members {
			if other != m {
				w.Lab.Switch.Set(other.Address, m.Address, q)
			}
		}
	}
	before := w.Lab.Switch.Counts().Delayed
	set(wire.Quality{Delay: late})
	given, stop := w.handOvers(ctx, m.ID)
	return &Fault{
		Members: []string{m.ID}, Text: fmt.Sprintf("%s hears the others %v late, leads, and gives that away, again and again", m.ID, late.Round(time.Millisecond)), For: max(w.length(), 2*time.Second),
		seen: func(context.Context) (string, error) {
			n, delayed := given.Load(), w.Lab.Switch.Counts().Delayed-before
			if n == 0 || delayed == 0 {
				return "", fmt.Errorf("it gave the leadership away %d times, and %d packets were late", n, delayed)
			}
			return fmt.Sprintf("it gave the leadership away %d times, and %d packets were late", n, delayed), nil
		},
		heal: func(context.Context) error {
			stop()
			set(wire.Quality{})
			return nil
		},
	}, nil
}

// handOvers hands the leadership to a member and away from it until that is stopped, and counts how often the member gave it away.
func (w *World) handOvers(ctx context.Context, id string) (given *atomic.Int64, stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	given = &atomic.Int64{}
	var working sync.WaitGroup
	working.Go(func() {
		for ctx.Err() == nil {
			// What Transfer says is not asked: with late answers it often takes effect when its time is up.
			_ = w.Group.Transfer(ctx, id)
			select {
			case <-time.After(lateTerm):
			case <-ctx.Done():
				return
			}
			led := w.Group.Leader(ctx) == id
			_ = w.Group.Transfer(ctx, "")
			if now := w.Group.Leader(ctx); led && now != "" && now != id {
				given.Add(1)
			}
		}
	})
	return given, func() {
		cancel()
		working.Wait()
	}
}

// joinAndLeave adds a member, gives it a vote, and takes it out of the group again.
func joinAndLeave(ctx context.Context, w *World) (*Fault, error) {
	id := fmt.Sprintf("m%d", w.Lab.Options.Members+1)
	if !w.Take("join-and-leave", id) {
		return nil, nil
	}
	m := w.Lab.Member(id)
	if m == nil {
		var err error
		if m, err = w.Lab.Add(id, false); err != nil {
			return nil, err
		}
	}
	if err := m.Forget(); err != nil {
		return nil, err
	}
	join, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	if err := retry(join, func() error { return w.Group.AddLearner(join, id, m.Raft) }); err != nil {
		return nil, nil // There is no leader for so long.
	}
	if err := m.Start(); err != nil {
		return nil, err
	}
	return &Fault{
		Members: []string{id}, Text: id + " joins, gets a vote, and leaves", For: max(w.length(), 5*time.Second),
		seen: func(ctx context.Context) (string, error) {
			if err := w.Group.Promote(ctx, id); err != nil {
				return "", err
			}
			return id + " has a vote", nil
		},
		heal: func(ctx context.Context) error {
			return errors.Join(retry(ctx, func() error { return w.Group.Remove(ctx, id) }), m.Kill())
		},
	}, nil
}

// replace takes a member out of the group and joins it anew with an empty disk.
func replace(ctx context.Context, w *World) (*Fault, error) {
	m := w.wipeable(ctx, "replace")
	if m == nil {
		return nil, nil
	}
	if err := m.Kill(); err != nil {
		return nil, err
	}
	return &Fault{
		Members: []string{m.ID}, Text: m.ID + " is replaced with an empty disk", For: w.length(),
		seen: func(context.Context) (string, error) {
			if m.Running() {
				return "", fmt.Errorf("%s runs", m.ID)
			}
			return "it is gone", nil
		},
		heal: func(ctx context.Context) error { return rejoin(ctx, w, m) },
	}, nil
}

// joinLimit is how long a member may take to begin anew while other things break, before that is tried once more.
const joinLimit = 40 * time.Second

// restored is the series that counts the snapshots which a member took over.
const restored = `quorate_snapshots_total{result="restored"}`

// snapshotInstall starts a member with an empty disk under load, once the logs of all others are shorter than the group's: so it gets a snapshot.
func snapshotInstall(ctx context.Context, w *World) (*Fault, error) {
	m := w.wipeable(ctx, "snapshot-install")
	if m == nil {
		return nil, nil
	}
	for _, other := range w.Lab.Members[:w.Lab.Options.Members] {
		if files, err := matching(other, snapshots); other != m && (err != nil || len(files) == 0) {
			return nil, err // The others have all that ever happened.
		}
	}
	if err := m.Kill(); err != nil {
		return nil, err
	}
	join, cancel := context.WithTimeout(ctx, joinLimit)
	defer cancel()
	joined := rejoin(join, w, m)
	return &Fault{
		Members: []string{m.ID}, Text: m.ID + " begins anew and gets a snapshot",
		seen: func(ctx context.Context) (string, error) {
			if joined != nil {
				return "", joined
			}
			n, err := w.Group.Metric(ctx, m.ID, restored)
			if err == nil && n < 1 {
				err = errors.New("it took over no snapshot")
			}
			return fmt.Sprintf("%v snapshots taken over", n), err
		},
		heal: func(ctx context.Context) error {
			if joined == nil {
				return nil
			}
			return rejoin(ctx, w, m)
		},
	}, nil
}

// Names are the names of kinds.
func Names(kinds []Kind) []string {
	names := make([]string, len(kinds))
	for i, k := range kinds {
		names[i] = k.Name
	}
	return names
}

// Only returns the kinds with the given names, and an error naming one that is none.
func Only(kinds []Kind, names []string) ([]Kind, error) {
	var only []Kind
	for _, name := range names {
		i := slices.IndexFunc(kinds, func(k Kind) bool { return k.Name == name })
		if i < 0 {
			return nil, fmt.Errorf("nemesis: %q is none of %v", name, Names(kinds))
		}
		only = append(only, kinds[i])
	}
	return only, nil
}
