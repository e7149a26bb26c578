package sim

import (
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"quorate/node"
)

// TestVoteForOneWhoHadNone takes the leader away while another voter has not yet heard that a third member was given a vote, or not even that it was added. That third one alone has all
// that was committed, so nobody else can lead, and it needs the vote of a member in whose configuration it has none (Raft thesis §4.1).
func TestVoteForOneWhoHadNone(t *testing.T) {
	for _, missed := range []string{"its promotion", "all of it"} {
		t.Run(missed, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				voters := 2
				if missed == "all of it" {
					voters = 3
				}
				w := start(t, voters, node.LAN, node.Limits{})
				leader := w.Leader(time.Second)
				others := slices.DeleteFunc(w.IDs(), func(id string) bool { return id == leader })
				behind := others[0]
				cut := func() {
					for _, other := range append([]string{"new"}, w.IDs()...) {
						w.Network.Cut(behind, other)
						w.Network.Cut(other, behind)
					}
				}
				if missed == "all of it" {
					cut()
				}
				if err := w.Start("new", NewClock(0, 1, 0)); err != nil {
					t.Fatal(err)
				}
				if err := w.Node(leader).AddLearner(t.Context(), "new", addressOf("new")); err != nil {
					t.Fatal(err)
				}
				propose(t, w.Node("new"), tick())
				cut()
				if err := w.Node(leader).Promote(t.Context(), "new"); err != nil {
					t.Fatal(err)
				}
				// Whoever else knows the new one leaves.
				for _, id := range others[1:] {
					if err := w.Node(leader).Remove(t.Context(), id); err != nil {
						t.Fatal(err)
					}
				}
				w.Kill(leader)
				w.Network.Heal()
				if now := w.Leader(5 * time.Second); now != "new" {
					t.Fatalf("%q leads, and only the new member has all that was committed", now)
				}
				propose(t, w.Node(behind), withID("r1", tick()))
			})
		})
	}
}
