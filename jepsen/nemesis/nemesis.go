// Package nemesis breaks members, their disks, their lines and their group, heals them again, and says each time what of it could be seen from outside: a
// fault without an effect proves nothing.
//
// There is one file for each kind of thing that breaks. A [Kind] injects one [Fault] at a time; several kinds may be at work together, as long as no two of
// them want the same member (World.Take).
package nemesis

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"quorate/jepsen/lab"
)

// seenLimit is how long the effect of a fault may take to be seen.
const seenLimit = 5 * time.Second

// Group is what faults need of the group itself: its public API, through whichever member answers.
type Group interface {
	// Leader returns the id of the leader, empty if no member tells of one.
	Leader(ctx context.Context) string
	// Transfer hands the leadership over; to may be empty.
	Transfer(ctx context.Context, to string) error
	// AddLearner, Promote and Remove change who is in the group.
	AddLearner(ctx context.Context, id, raftAddress string) error
	Promote(ctx context.Context, id string) error
	Remove(ctx context.Context, id string) error
	// Metric reads one series of a member, by its name with labels; 0 if it has none.
	Metric(ctx context.Context, member, series string) (float64, error)
	// WallOffset returns by how much the wall time that a member records is off from this process's.
	WallOffset(ctx context.Context, member string) (time.Duration, error)
	// CommandVersion is the highest command version that a member is known to be able to apply.
	CommandVersion(ctx context.Context, member string) (uint32, error)
	// Lags is nil if the group knows that a member can't apply commands above a version, and refuses them.
	Lags(ctx context.Context, member string, version uint32) error
}

// World is what there is to break.
type World struct {
	Lab   *lab.Lab
	Group Group
	// Random decides; it is used by one goroutine at a time.
	Random *rand.Rand
	// Length is the longest that a fault lasts.
	Length time.Duration

	mu    sync.Mutex
	taken map[string]string
}

// Fault is something broken.
type Fault struct {
	// Kind is the name of its kind, Members whom it concerns, and Text what was done, for people.
	Kind    string   `json:"kind"`
	Members []string `json:"members,omitempty"`
	Text    string   `json:"text"`
	// For is how long it is to last.
	For time.Duration `json:"for"`
	// seen says what of it can be seen from outside; an error means nothing yet.
	seen func(ctx context.Context) (string, error)
	// heal makes it whole again.
	heal func(ctx context.Context) error
}

// Kind is a way to break things.
type Kind struct {
	Name string
	// Inject breaks something. A nil fault means that there is nothing to break now.
	Inject func(ctx context.Context, w *World) (*Fault, error)
}

// Kinds are all of them, in the order of their files.
func Kinds() []Kind {
	return slices.Concat(processes(), lines(), disks(), clocks(), versions(), membership())
}

// Take reserves members for one fault, so that no other breaks what it relies on; false means that one of them is taken.
func (w *World) Take(by string, ids ...string) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, id := range ids {
		if w.taken[id] != "" {
			return false
		}
	}
	if w.taken == nil {
		w.taken = map[string]string{}
	}
	for _, id := range ids {
		w.taken[id] = by
	}
	return true
}

// Give gives them back.
func (w *World) Give(ids ...string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, id := range ids {
		delete(w.taken, id)
	}
}

// release gives back whatever a kind has. Each is at work once at a time.
func (w *World) release(by string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	maps.DeleteFunc(w.taken, func(_, owner string) bool { return owner == by })
}

// length is how long a fault lasts: at least a tenth of the longest.
func (w *World) length() time.Duration {
	return w.Length/10 + time.Duration(w.Random.Int64N(int64(w.Length*9/10)))
}

// victim takes one member: the leader in half of the cases, if it is known.
func (w *World) victim(ctx context.Context, by string) *lab.Member {
	ids := w.voters()
	w.Random.Shuffle(len(ids), func(i, j int) { ids[i], ids[j] = ids[j], ids[i] })
	if leader := w.Group.Leader(ctx); leader != "" && w.Random.IntN(2) == 0 {
		ids = append([]string{leader}, ids...)
	}
	for _, id := range ids {
		if m := w.Lab.Member(id); m != nil && m.Running() && w.Take(by, id) {
			return m
		}
	}
	return nil
}

// wiped is what is taken by faults that may take a member's data away. A group that loses a majority of its disks has lost what it acknowledged, and no group can
// do anything about that.
const wiped = "wiped"

// wipeable takes one member whose data may go.
func (w *World) wipeable(ctx context.Context, by string) *lab.Member {
	if !w.Take(by, wiped) {
		return nil
	}
	return w.victim(ctx, by)
}

// voters are the first members of the laboratory; those that joined later come and go by the faults of membership.
func (w *World) voters() []string {
	ids := make([]string, 0, w.Lab.Options.Members)
	for _, m := range w.Lab.Members[:w.Lab.Options.Members] {
		ids = append(ids, m.ID)
	}
	return ids
}

// majority takes as many members as a group can't do without; nil if some fault has one of those already.
func (w *World) majority(by string) []*lab.Member {
	ids := w.voters()
	w.Random.Shuffle(len(ids), func(i, j int) { ids[i], ids[j] = ids[j], ids[i] })
	return w.take(by, ids[:len(ids)/2+1])
}

// all takes every first member.
func (w *World) all(by string) []*lab.Member { return w.take(by, w.voters()) }

func (w *World) take(by string, ids []string) []*lab.Member {
	if !w.Take(by, ids...) {
		return nil
	}
	members := make([]*lab.Member, len(ids))
	for i, id := range ids {
		members[i] = w.Lab.Member(id)
	}
	return members
}

func ids(members []*lab.Member) []string {
	list := make([]string, len(members))
	for i, m := range members {
		list[i] = m.ID
	}
	return list
}

// each does something to every member, to all at one moment.
func each(members []*lab.Member, do func(*lab.Member) error) error {
	done := make(chan error, len(members))
	for _, m := range members {
		go func() {
			err := do(m)
			if err != nil {
				err = fmt.Errorf("%s: %w", m.ID, err)
			}
			done <- err
		}()
	}
	var errs []error
	for range members {
		errs = append(errs, <-done)
	}
	return errors.Join(errs...)
}

// Report is what became of a fault.
type Report struct {
	Fault
	// Begun and Healed are since the run began; so are Seen, from when on its effect is known, and Healing, until when that lasts for certain.
	Begun   time.Duration `json:"begun"`
	Seen    time.Duration `json:"seen,omitempty"`
	Healing time.Duration `json:"healing,omitempty"`
	Healed  time.Duration `json:"healed"`
	// Effect is what was seen of it; empty if nothing was.
	Effect string `json:"effect"`
	// Error is why it could not be made, or why nothing was seen of it; Unhealed is why it could not be healed.
	Error    string `json:"error,omitempty"`
	Unhealed string `json:"unhealed,omitempty"`
}

// Once injects one fault of a kind, waits, and heals it. A report without a text means that there was nothing to break.
func Once(ctx context.Context, w *World, k Kind, since func() time.Duration) Report {
	r := Report{Begun: since()}
	// Whatever became of it, the kind keeps nothing.
	defer w.release(k.Name)
	f, err := k.Inject(ctx, w)
	if err != nil || f == nil {
		r.Kind = k.Name
		if err != nil && ctx.Err() == nil { // What the end of the run broke off is nobody's trouble.
			r.Error = err.Error()
		}
		return r
	}
	r.Fault = *f
	r.Kind = k.Name
	ended := time.NewTimer(f.For)
	defer ended.Stop()
	if r.Effect, err = see(ctx, f); err != nil {
		r.Error = err.Error()
	} else {
		r.Seen = since()
	}
	select {
	case <-ended.C:
	case <-ctx.Done():
	}
	// What is healed is healed even if the run is over.
	healing, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Minute)
	defer cancel()
	r.Healing = since()
	if err := f.heal(healing); err != nil {
		r.Unhealed = err.Error()
	}
	r.Healed = since()
	return r
}

// see looks for the effect of a fault until it is there.
func see(ctx context.Context, f *Fault) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, max(seenLimit, f.For))
	defer cancel()
	every := time.NewTicker(50 * time.Millisecond)
	defer every.Stop()
	var last error
	for {
		effect, err := f.seen(ctx)
		if err == nil {
			return effect, nil
		}
		if ctx.Err() == nil || last == nil {
			last = err // That time ran out is no reason.
		}
		select {
		case <-every.C:
		case <-ctx.Done():
			return "", fmt.Errorf("no effect was seen: %w", last)
		}
	}
}
