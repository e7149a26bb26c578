package browser

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	quoratev1 "quorate/proto/quorate/v1"
)

// recordLevels writes down, in a page, each level that it shows of a server and when, by the clock of the machine, which the members have too.
const recordLevels = `
document.addEventListener("DOMContentLoaded", () => {
  const shown = {};
  window.shown = [];
  const look = () => {
    const at = Date.now();
    for (const server of document.querySelectorAll(".server")) {
      const value = server.querySelector(".server-level .value").textContent;
      if (shown[server.id] !== value) {
        shown[server.id] = value;
        window.shown.push({ at, server: server.id.replace("server-", ""), value });
      }
    }
  };
  look();
  new MutationObserver(look).observe(document.getElementById("main"), { subtree: true, childList: true, characterData: true });
});`

// sight is a level that a page began to show.
type sight struct {
	At     int64  `json:"at"`
	Server string `json:"server"`
	Value  string `json:"value"`
}

// showing opens a page that writes down what it shows.
func showing(browser context.Context, t *testing.T, url string) *tab {
	t.Helper()
	b := newTab(browser, t)
	b.onEachPage(recordLevels)
	b.open(url)
	return b
}

// lags returns, for each change of level, after what time a page showed it, or one that came after it: what lasted less than a page takes may be skipped,
// but what a page shows has to be true.
func lags(sights []sight, server string, changes []*quoratev1.LevelChange) ([]time.Duration, error) {
	var own []sight
	for _, s := range sights {
		if s.Server == server {
			own = append(own, s)
		}
	}
	// Sights are told by the millisecond, and so are changes, lest one comes before the other.
	milli := func(c *quoratev1.LevelChange) int64 { return c.GetAt().AsTime().UnixMilli() }
	var list []time.Duration
	for i, change := range changes {
		seen := int64(-1)
		for j, s := range own {
			for _, later := range changes[i:] {
				at := max(s.At, milli(later))
				gone := j+1 < len(own) && own[j+1].At <= at
				if s.Value == strconv.FormatUint(uint64(later.GetAfter()), 10) && !gone && (seen < 0 || at < seen) {
					seen = at
				}
			}
		}
		if seen < 0 {
			return nil, fmt.Errorf("%s: %d → %d at %d was never shown: %v", server, change.GetBefore(), change.GetAfter(), milli(change), own)
		}
		list = append(list, time.Duration(seen-milli(change))*time.Millisecond)
	}
	return list, nil
}

const (
	// starved is how long a thread that wants to run is held up on a machine on which a second can't be measured: a level goes through six processes.
	starved = 100 * time.Millisecond
	// rounds is how often it is tried there.
	rounds = 3
)

// gauge tells how long a thread had to wait for the machine, at worst.
type gauge struct {
	end   chan struct{}
	worst chan time.Duration
}

func startGauge() *gauge {
	g := &gauge{end: make(chan struct{}), worst: make(chan time.Duration)}
	go func() {
		tick := time.NewTicker(5 * time.Millisecond)
		defer tick.Stop()
		var worst time.Duration
		for last := time.Now(); ; {
			select {
			case <-tick.C:
				now := time.Now()
				worst, last = max(worst, now.Sub(last)), now
			case <-g.end:
				g.worst <- worst
				return
			}
		}
	}()
	return g
}

func (g *gauge) stop() time.Duration {
	close(g.end)
	return <-g.worst
}

// flips does something that moves levels, and looks how soon each page showed each change of those servers' levels. Where the machine was not to be had and
// it took too long, it is done again.
func (p *plant) flips(what string, pages map[string]*tab, witness string, servers []string, do func(round int)) {
	p.t.Helper()
	for round := 1; ; round++ {
		g, begun := startGauge(), time.Now()
		do(round)
		found, told := p.late(pages, begun, witness, servers)
		stall := g.stop()
		p.t.Logf("%s, the machine holding a thread up for %v at most:\n%s", what, stall, told)
		switch {
		case found == "":
			return
		case stall < starved || round == rounds:
			p.t.Errorf("%s: %s", what, found)
			return
		}
	}
}

// late returns what pages showed too late of the changes since a moment, empty if nothing, and tells everything.
func (p *plant) late(pages map[string]*tab, since time.Time, witness string, servers []string) (found, told string) {
	p.t.Helper()
	for _, server := range servers {
		var changes []*quoratev1.LevelChange
		all, revision := p.levels(witness, server)
		for _, change := range all {
			if change.GetAt().AsTime().After(since) {
				changes = append(changes, change)
			}
		}
		if len(changes) == 0 {
			found += fmt.Sprintf("no change of the level of %s; ", server)
		}
		for member, b := range pages {
			b.until(fmt.Sprintf(`Number([...document.querySelectorAll(".facts dt")].find((e) => e.textContent === "Revision").nextElementSibling.textContent) >= %d`, revision))
			list, err := lags(eval[[]sight](b, "window.shown"), server, changes)
			if err != nil {
				found += fmt.Sprintf("the page of %s: %v; ", member, err)
				continue
			}
			told += fmt.Sprintf("the page of %s showed the %d changes of %s after %v\n", member, len(changes), server, list)
			if worst := slices.Max(append(list, 0)); worst > flipLimit {
				found += fmt.Sprintf("the page of %s showed a change of %s after %v; ", member, server, worst)
			}
		}
	}
	return found, told
}

// until waits for a level of a server on a page.
func (b *tab) untilLevel(server, value string) {
	b.t.Helper()
	b.until(fmt.Sprintf(`document.querySelector("#server-%s .server-level .value")?.textContent === %q`, server, value))
}

// TestEveryPageShowsAFlipWithinASecond swaps the roles, in the browser, while a page of each member is open; then it kills the Primary; then everybody else.
func TestEveryPageShowsAFlipWithinASecond(t *testing.T) {
	p := startPlant(t)
	browser := startBrowser(t)
	pages := make(map[string]*tab)
	for _, m := range p.Members {
		pages[m.ID] = showing(browser, t, p.url(m.ID, "/ui/"))
		pages[m.ID].untilLevel("m1", "255")
		pages[m.ID].untilLevel("m2", "100")
	}

	// Everything is swapped back in an even round.
	primary, backup := "m1", "m2"
	p.flips("a swap of the roles", pages, "m1", []string{"m1", "m2"}, func(round int) {
		swapRoles(browser, t, p.url("m3", "/ui/redundancy/line-a"), primary, backup, round)
		primary, backup = backup, primary
		p.rolledOut("m1", uint64(round+1))
		for _, b := range pages {
			b.untilLevel(primary, "255")
			b.untilLevel(backup, "100")
			b.shows(fmt.Sprintf("Generation %d", round+1))
		}
	})

	// A lease, which is a flip that nothing else comes with.
	lease := quoratev1.NewLeaseServiceClient(p.conns["m3"])
	p.flips("an apply lease", pages, "m3", []string{primary}, func(round int) {
		if _, err := lease.BeginLease(p.ctx, &quoratev1.BeginLeaseRequest{RequestId: fmt.Sprint("begin-", round), Server: primary}); err != nil {
			t.Fatal(err)
		}
		for _, b := range pages {
			b.untilLevel(primary, "200")
		}
		if _, err := lease.EndLease(p.ctx, &quoratev1.EndLeaseRequest{RequestId: fmt.Sprint("end-", round), Server: primary}); err != nil {
			t.Fatal(err)
		}
		for _, b := range pages {
			b.untilLevel(primary, "255")
		}
	})

	gone := pages[primary]
	delete(pages, primary)
	back := func() {
		if err := p.Restart(primary); err != nil {
			t.Fatal(err)
		}
		gone.until(`document.getElementById("live").dataset.state === "on"`)
		for _, b := range pages {
			b.untilLevel(primary, "255")
		}
	}
	p.flips("the death of the Primary", pages, "m3", []string{backup}, func(round int) {
		if round > 1 {
			back()
		}
		if err := p.Kill(p.ctx, primary); err != nil {
			t.Fatal(err)
		}
		for _, b := range pages {
			b.untilLevel(primary, "–")
			b.untilLevel(backup, "80")
			b.shows(primary + " does not answer")
		}
	})
	// The page of a member that died says that it is no longer live, and is again once the member is back.
	gone.until(`document.getElementById("live").dataset.state === "off"`)
	back()
	gone.untilLevel(primary, "255")

	// Of three voters one is left: it says so, and shows what it knows.
	for _, member := range []string{primary, backup} {
		if err := p.Kill(p.ctx, member); err != nil {
			t.Fatal(err)
		}
	}
	last := pages["m3"]
	last.shows("No leader")
	last.shows("No change can be made until a majority of the voters is back")
	last.shows("1 of 3 reachable")
	last.shows("Last recorded: ")
	last.quiet()
}

// swapRoles goes from the page of a set over the draft to the publish, as an operator would.
func swapRoles(browser context.Context, t *testing.T, url, from, to string, generation int) {
	t.Helper()
	b := newTab(browser, t)
	b.open(url)
	b.click("#swap")
	b.shows(fmt.Sprintf("Draft: make %s the Primary of line-a", to))
	for _, text := range []string{"sets[line-a].servers[m1].role", "apply m1", "moves to " + to, fmt.Sprint("based on generation ", generation)} {
		b.shows(text)
	}
	b.click("[data-ask]")
	b.until(`document.getElementById("ask").open`)
	b.shows(fmt.Sprintf("%s becomes the Primary of line-a, and %s a Backup", to, from))
	b.click("#ask button[type=submit]")
	b.shows(fmt.Sprintf("Generation %d is published.", generation+1))
	b.until(`document.getElementById("live")?.dataset.state === "on"`)
	b.quiet()
}

// rolledOut waits until every server has applied a generation.
func (p *plant) rolledOut(member string, generation uint64) {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(p.ctx, stepLimit)
	defer cancel()
	stream, err := quoratev1.NewEventServiceClient(p.conns[member]).WatchEvents(ctx, &quoratev1.WatchEventsRequest{FromRevision: 1, Kinds: []string{"rollout_changed"}})
	if err != nil {
		p.t.Fatal(err)
	}
	for {
		message, err := stream.Recv()
		if err != nil {
			p.t.Fatalf("waiting until generation %d is rolled out: %v", generation, err)
		}
		for _, event := range message.GetEvents() {
			if r := event.GetRolloutChanged(); r.GetGeneration() == generation && r.GetState() == quoratev1.RolloutState_ROLLOUT_STATE_DONE {
				return
			}
		}
	}
}

func TestLagsAreTold(t *testing.T) {
	changes := func(values ...uint32) (list []*quoratev1.LevelChange) {
		for i, value := range values {
			list = append(list, proto.CloneOf(&quoratev1.LevelChange{After: value, At: stamp(int64(i) * 100)}))
		}
		return list
	}
	sights := []sight{{0, "m1", "1"}, {50, "m1", "100"}, {140, "m2", "200"}, {290, "m1", "255"}}
	for _, c := range []struct {
		values []uint32
		want   string
	}{
		{[]uint32{100, 200, 255}, "[50ms 190ms 90ms]"},
		// What went and came back unseen is true again.
		{[]uint32{100, 200, 100}, "[50ms 100ms 0s]"},
	} {
		if list, err := lags(sights, "m1", changes(c.values...)); err != nil || fmt.Sprint(list) != c.want {
			t.Errorf("%v: %v, %v; want %s", c.values, list, err, c.want)
		}
	}
	if _, err := lags(sights, "m1", changes(100, 200)); err == nil {
		t.Error("what was never shown was found")
	}
}
