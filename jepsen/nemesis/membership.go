package nemesis

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"
)

// membership are the faults of who is in the group and who leads it: nothing is broken, but everything moves.
func membership() []Kind {
	return []Kind{
		{"transfer", transfer},
		{"transfer-storm", transferStorm},
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
