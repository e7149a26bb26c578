package nemesis

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"quorate/jepsen/lab"
)

// disks are the faults of disks.
func disks() []Kind {
	return []Kind{
		{"power-loss", func(ctx context.Context, w *World) (*Fault, error) {
			return powerLoss(w, one(w.victim(ctx, "power-loss")))
		}},
		{"power-loss-majority", func(_ context.Context, w *World) (*Fault, error) {
			return powerLoss(w, w.majority("power-loss-majority"))
		}},
		{"power-loss-all", func(_ context.Context, w *World) (*Fault, error) { return powerLoss(w, w.all("power-loss-all")) }},
		{"disk-full", diskFull},
		{"disk-stall", diskStall},
		{"fsync-error", fsyncError},
		{"flip-log", func(ctx context.Context, w *World) (*Fault, error) { return damage(ctx, w, "flip-log", flip, logs...) }},
		{"truncate-log", func(ctx context.Context, w *World) (*Fault, error) {
			return damage(ctx, w, "truncate-log", truncate, logs...)
		}},
		{"flip-snapshot", func(ctx context.Context, w *World) (*Fault, error) {
			return damage(ctx, w, "flip-snapshot", flip, snapshots...)
		}},
	}
}

// canary is a file that is written and never synced: what is in it must be gone after the loss of power, or nothing was lost. Its name may be there: when the member
// syncs a file of its own, the journal takes the names of others with it, and not what is in them.
const canary = "canary"

// powerLoss takes the power from members: their processes end, and what was not synced is gone.
func powerLoss(w *World, victims []*lab.Member) (*Fault, error) {
	if victims == nil {
		return nil, nil
	}
	err := each(victims, func(m *lab.Member) error {
		name := filepath.Join(m.Disk.Dir, canary)
		// One that is left of the last time would be synced by now.
		if err := os.RemoveAll(name); err != nil {
			return err
		}
		return errors.Join(os.WriteFile(name, []byte("not synced"), 0o600), m.LosePower())
	})
	if err != nil {
		return nil, err
	}
	return &Fault{
		Members: ids(victims), Text: "no power at " + strings.Join(ids(victims), " "), For: w.length(),
		seen: func(context.Context) (string, error) {
			for _, m := range victims {
				b, err := os.ReadFile(filepath.Join(m.Disk.Dir, canary))
				if err != nil && !errors.Is(err, os.ErrNotExist) {
					return "", err
				}
				if len(bytes.Trim(b, "\x00")) > 0 {
					return "", fmt.Errorf("%s has kept what was not synced", m.ID)
				}
			}
			return "what was not synced is gone", nil
		},
		heal: func(context.Context) error { return each(victims, (*lab.Member).Start) },
	}, nil
}

// fullLeaves is what a full disk has left, in bytes: too little for the next growth of a log.
const fullLeaves = 64 << 10

// diskFull takes all space from a member. It may give the leadership away, or stop; it must lose nothing.
func diskFull(ctx context.Context, w *World) (*Fault, error) {
	m := w.victim(ctx, "disk-full")
	if m == nil {
		return nil, nil
	}
	if err := m.Disk.Fill(fullLeaves); err != nil {
		return nil, err
	}
	return &Fault{
		Members: []string{m.ID}, Text: "the disk of " + m.ID + " is full", For: w.length(),
		seen: func(context.Context) (string, error) {
			free, err := m.Disk.Free()
			if err == nil && free > 2*fullLeaves {
				err = fmt.Errorf("%d bytes are free", free)
			}
			return fmt.Sprintf("%d bytes free", free), err
		},
		// A store that failed stops its member, which takes a moment, and whoever runs it starts it again.
		heal: func(ctx context.Context) error {
			if err := m.Disk.Drain(); err != nil {
				return err
			}
			ending, cancel := context.WithTimeout(ctx, stopMost)
			defer cancel()
			_ = m.AwaitReady(ending) // One that is ready goes on.
			return m.Start()
		},
	}, nil
}

// stopMost is the longest that a member takes to stop whose store has failed.
const stopMost = 12 * time.Second

// stallMost is the longest that a disk stalls.
const stallMost = 3 * time.Second

// diskStall lets all writes of a member wait.
func diskStall(ctx context.Context, w *World) (*Fault, error) {
	m := w.victim(ctx, "disk-stall")
	if m == nil {
		return nil, nil
	}
	if err := m.Disk.Freeze(); err != nil {
		return nil, err
	}
	began := time.Now()
	return &Fault{
		Members: []string{m.ID}, Text: "the disk of " + m.ID + " takes no writes", For: min(w.length(), stallMost),
		seen: func(context.Context) (string, error) {
			// What waits for a frozen file system is in uninterruptible sleep.
			state, err := waiting(m.PID())
			if err != nil {
				return "", err
			}
			return fmt.Sprintf("%s after %v", state, time.Since(began).Round(time.Millisecond)), nil
		},
		heal: func(context.Context) error { return m.Disk.Thaw() },
	}, nil
}

// waiting says how many threads of a process wait for a disk; an error if none does.
func waiting(pid int) (string, error) {
	threads, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", pid))
	if err != nil {
		return "", err
	}
	stuck := 0
	for _, thread := range threads {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%s/stat", pid, thread.Name()))
		if err != nil {
			continue // It has ended.
		}
		if rest := strings.Fields(string(text[strings.LastIndexByte(string(text), ')')+1:])); rest[0] == "D" {
			stuck++
		}
	}
	if stuck == 0 {
		return "", errors.New("no thread waits for the disk")
	}
	return fmt.Sprintf("%d threads wait for the disk", stuck), nil
}

// fsyncError puts a member onto a file system that lets fsync fail, for a while. The member must not go on as if nothing were: it stops.
func fsyncError(ctx context.Context, w *World) (*Fault, error) {
	m := w.victim(ctx, "fsync-error")
	if m == nil {
		return nil, nil
	}
	bad, err := m.OnBadFS(ctx)
	if err != nil {
		return nil, errors.Join(err, m.OffBadFS(), m.Start())
	}
	bad.FailSync(true)
	return &Fault{
		Members: []string{m.ID}, Text: "every fsync of " + m.ID + " fails", For: max(w.length(), 2*time.Second),
		seen: func(context.Context) (string, error) {
			switch failed := bad.Failed(); {
			case failed == 0:
				return "", errors.New("nothing was synced")
			case m.Running():
				return "", fmt.Errorf("%s runs after %d fsyncs have failed", m.ID, failed)
			default:
				return fmt.Sprintf("%d fsyncs failed, and it stopped", failed), nil
			}
		},
		heal: func(context.Context) error { return errors.Join(m.OffBadFS(), m.Start()) },
	}, nil
}

// logs and snapshots are the files of a member that have what must not be lost.
var (
	logs      = []string{"raft/log.db", "raft/wal/*.wal"}
	snapshots = []string{"raft/snapshots/*/state.bin"}
)

// noticeLimit is how long a member may take to notice that its files are damaged.
const noticeLimit = 3 * time.Second

// damage stops a member, damages its files, and starts it: it must notice, or be right nevertheless. One that can't go on is replaced by itself with an empty disk, as an
// operator would: removed, and joined anew.
func damage(ctx context.Context, w *World, name string, do func(*World, []string) (string, error), patterns ...string) (*Fault, error) {
	m := w.wipeable(ctx, name)
	if m == nil {
		return nil, nil
	}
	if files, err := matching(m, patterns); err != nil || len(files) == 0 {
		return nil, err // There is nothing to damage yet.
	}
	text, err := damageFiles(w, m, do, patterns)
	if err != nil {
		return nil, errors.Join(err, m.Start())
	}
	began := time.Now()
	return &Fault{
		Members: []string{m.ID}, Text: m.ID + ": " + text, For: 5 * time.Second,
		seen: func(ctx context.Context) (string, error) {
			if !m.Running() {
				return "it refused to run", nil
			}
			ctx, cancel := context.WithTimeout(ctx, time.Second)
			defer cancel()
			// Without a majority nobody is ready, whatever his files are like.
			if err := m.AwaitReady(ctx); err != nil && time.Since(began) < noticeLimit {
				return "", err
			}
			return "it runs: what was damaged was not in use, or was mended by the others", nil
		},
		heal: func(ctx context.Context) error {
			if m.Running() {
				return nil
			}
			return rejoin(ctx, w, m)
		},
	}, nil
}

// damageFiles damages files of a member between two of its lives.
func damageFiles(w *World, m *lab.Member, do func(*World, []string) (string, error), patterns []string) (string, error) {
	if err := m.Kill(); err != nil {
		return "", err
	}
	files, err := matching(m, patterns)
	if err != nil {
		return "", err
	}
	if len(files) == 0 {
		return "", errors.New("the files have gone")
	}
	text, err := do(w, files)
	if err != nil {
		return "", err
	}
	return text, m.Start()
}

// rejoin gives a member an empty disk and joins it anew: as a learner, and with a vote once it has caught up.
func rejoin(ctx context.Context, w *World, m *lab.Member) error {
	// Nobody may forget before the group knows that he has: a voter without a memory votes twice.
	if err := retry(ctx, func() error { return w.Group.Remove(ctx, m.ID) }); err != nil {
		return fmt.Errorf("remove %s: %w", m.ID, err)
	}
	if err := m.Forget(); err != nil {
		return err
	}
	if err := retry(ctx, func() error { return w.Group.AddLearner(ctx, m.ID, m.Raft) }); err != nil {
		return fmt.Errorf("add %s: %w", m.ID, err)
	}
	if err := m.Start(); err != nil {
		return err
	}
	return retry(ctx, func() error { return w.Group.Promote(ctx, m.ID) })
}

// retry tries again until it works: the group may be without a leader, or the member not caught up.
func retry(ctx context.Context, try func() error) error {
	every := time.NewTicker(200 * time.Millisecond)
	defer every.Stop()
	for {
		err := try()
		if err == nil {
			return nil
		}
		select {
		case <-every.C:
		case <-ctx.Done():
			return errors.Join(err, ctx.Err())
		}
	}
}

// flip changes one bit of one of some files.
func flip(w *World, files []string) (string, error) {
	name := files[w.Random.IntN(len(files))]
	b, err := os.ReadFile(name)
	if err != nil {
		return "", err
	}
	// Files are longer than what is written in them; a bit among zeros proves little.
	var used []int
	for i, v := range b {
		if v != 0 {
			used = append(used, i)
		}
	}
	if len(used) == 0 {
		return "", fmt.Errorf("%s is empty", name)
	}
	at := used[w.Random.IntN(len(used))]
	b[at] ^= 1 << w.Random.IntN(8)
	return fmt.Sprintf("bit flipped in byte %d of %s", at, filepath.Base(name)), os.WriteFile(name, b, 0o600)
}

// truncate cuts the last of some files short, as a file system that lost the end of it.
func truncate(_ *World, files []string) (string, error) {
	name := files[len(files)-1]
	info, err := os.Stat(name)
	if err != nil {
		return "", err
	}
	to := info.Size() / 2
	return fmt.Sprintf("%s cut to %d of %d bytes", filepath.Base(name), to, info.Size()), os.Truncate(name, to)
}

func matching(m *lab.Member, patterns []string) (files []string, err error) {
	for _, pattern := range patterns {
		found, err := filepath.Glob(filepath.Join(m.DataDir(), pattern))
		if err != nil {
			return nil, err
		}
		files = append(files, found...)
	}
	return files, nil
}
