package nemesis

import (
	"context"
	"errors"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"quorate/jepsen/lab"
	"quorate/jepsen/wire"
)

// group is a group of which only the leader matters.
type group struct {
	Group
	mu     sync.Mutex
	leader string
	// next is who leads after a transfer to nobody in particular.
	next  string
	asked int
}

func (g *group) Leader(context.Context) string {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.asked++
	return g.leader
}

func (g *group) Transfer(_ context.Context, to string) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if to == "" {
		to = g.next
	}
	g.leader = to
	return nil
}

// world has three members, none of which runs, on a switch without ends: enough for all that breaks lines.
func world(t *testing.T) (*World, *group) {
	t.Helper()
	l := &lab.Lab{Options: lab.Options{Members: 3}, Switch: wire.NewSwitch(1)}
	t.Cleanup(func() {
		if err := l.Switch.Close(); err != nil {
			t.Error(err)
		}
	})
	for i, id := range []string{"m1", "m2", "m3"} {
		l.Members = append(l.Members, &lab.Member{ID: id, Address: netip.AddrFrom4([4]byte{10, 77, 0, byte(i + 1)})})
	}
	g := &group{leader: "m1", next: "m2"}
	return &World{Lab: l, Group: g, Random: rand.New(rand.NewPCG(1, 1)), Length: 8 * time.Second}, g
}

// TestNoTwoFaultsOnOneMember: a fault gets all of the members that it wants or none, and others get them when it has ended.
func TestNoTwoFaultsOnOneMember(t *testing.T) {
	w, _ := world(t)
	if !w.Take("isolate", "m2") || w.Take("pause", "m2") || w.Take("pause", "m1", "m2") {
		t.Fatal("m2 is taken twice")
	}
	if !w.Take("pause", "m1") {
		t.Error("one that could not be had in full was kept in part")
	}
	w.release("isolate")
	if w.Take("kill", "m1") || !w.Take("kill", "m2") {
		t.Error("the end of one fault gives back its own members alone")
	}
	w.Give("m1")
	if w.all("halves") != nil || !w.Take("halves", "m1") {
		t.Error("halves wants all of them, and one is taken")
	}
	w.release("halves")
	w.release("kill")
	if got := w.majority("kill-majority"); len(got) != 2 || w.all("halves") != nil {
		t.Errorf("a majority of three is %v", ids(got))
	}
}

// TestOneMemberAtATimeLosesItsData: as long as one fault may take a member's data away, no other that may do so even looks for a victim.
func TestOneMemberAtATimeLosesItsData(t *testing.T) {
	w, g := world(t)
	kinds, err := Only(Kinds(), []string{"flip-log", "truncate-log", "flip-snapshot", "replace", "snapshot-install"})
	if err != nil {
		t.Fatal(err)
	}
	since := func() time.Duration { return 0 }
	for _, k := range kinds {
		if !w.Take("test", wiped) {
			t.Fatalf("what came before %s has not given it back", k.Name)
		}
		if r := Once(t.Context(), w, k, since); r.Text != "" || r.Error != "" || g.asked != 0 {
			t.Errorf("%s: %+v; it looked for a leader %d times", k.Name, r, g.asked)
		}
		w.release("test")
		// Alone it looks for one, and finds that nobody runs.
		if r := Once(t.Context(), w, k, since); r.Text != "" || r.Error != "" || g.asked != 1 {
			t.Errorf("%s alone: %+v; it looked for a leader %d times", k.Name, r, g.asked)
		}
		g.asked = 0
	}
}

// TestOnly names kinds, and one that is none.
func TestOnly(t *testing.T) {
	names := Names(Kinds())
	for i, name := range names {
		if slices.Contains(names[:i], name) {
			t.Errorf("two kinds are called %s", name)
		}
	}
	only, err := Only(Kinds(), []string{"pause", "late-hand-over"})
	if err != nil || !slices.Equal(Names(only), []string{"pause", "late-hand-over"}) {
		t.Errorf("%v, %v", Names(only), err)
	}
	if _, err := Only(Kinds(), []string{"pause", "earthquake"}); err == nil || !strings.Contains(err.Error(), `"earthquake"`) {
		t.Errorf("%v", err)
	}
}

// TestReports has faults that are seen, that are seen by nobody, that can't be made and that can't be healed. Whatever became of one, it has healed and keeps no member.
func TestReports(t *testing.T) {
	unseen, unmade, unhealed := errors.New("nothing moved"), errors.New("no tools"), errors.New("it is stuck")
	for name, c := range map[string]struct {
		made, seen, healed error
		over               bool
		want               Report
	}{
		"seen":         {want: Report{Effect: "it moved", Healed: 7 * time.Second}},
		"unseen":       {seen: unseen, want: Report{Error: "no effect was seen: nothing moved", Healed: 7 * time.Second}},
		"unmade":       {made: unmade, want: Report{Error: "no tools"}},
		"unhealed":     {healed: unhealed, want: Report{Effect: "it moved", Unhealed: "it is stuck", Healed: 7 * time.Second}},
		"the run ends": {over: true, want: Report{Effect: "it moved", Healed: time.Second}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w, began := &World{}, time.Now()
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				if c.over {
					time.AfterFunc(time.Second, cancel)
				}
				healed := false
				kind := Kind{"quake", func(context.Context, *World) (*Fault, error) {
					if !w.Take("quake", "m1") {
						t.Error("m1 is taken")
					}
					if c.made != nil {
						return nil, c.made
					}
					return &Fault{
						Members: []string{"m1"}, Text: "m1 shakes", For: 7 * time.Second,
						seen: func(context.Context) (string, error) { return "it moved", c.seen },
						heal: func(ctx context.Context) error {
							healed = ctx.Err() == nil
							return c.healed
						},
					}, nil
				}}
				r := Once(ctx, w, kind, func() time.Duration { return time.Since(began) })
				if r.Kind != "quake" || r.Effect != c.want.Effect || r.Error != c.want.Error || r.Unhealed != c.want.Unhealed || r.Healed != c.want.Healed {
					t.Errorf("%+v, want %+v", r, c.want)
				}
				if healed != (c.made == nil) {
					t.Errorf("healed: %v", healed)
				}
				if !w.Take("another", "m1") {
					t.Error("it keeps its member")
				}
			})
		})
	}
}

// TestHandOversAreCounted: a hand-over counts where the member led and another does after it, and none is made once that is stopped.
func TestHandOversAreCounted(t *testing.T) {
	for name, c := range map[string]struct {
		next string
		want bool
	}{
		"another leads after it": {"m2", true},
		"nobody does":            {"", false},
		"it leads all the same":  {"m1", false},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := &World{Group: &group{leader: "m3", next: c.next}}
				given, stop := w.handOvers(t.Context(), "m1")
				time.Sleep(10*lateTerm + lateTerm/2)
				stop()
				if got := given.Load(); c.want && got != 10 || !c.want && got != 0 {
					t.Errorf("%d hand-overs were counted", got)
				}
				time.Sleep(10 * lateTerm)
				if got := given.Load(); got > 10 {
					t.Errorf("it goes on: %d", got)
				}
			})
		})
	}
}
