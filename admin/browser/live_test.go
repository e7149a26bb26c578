package browser

import (
	"context"
	"fmt"
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

// lags returns, for each change of level, after what time a page showed it, or one that came after it: what lasted less than a page takes may be skipped.
func lags(sights []sight, server string, changes []*quoratev1.LevelChange) (list []time.Duration, err error) {
	for i, change := range changes {
		at, seen := change.GetAt().AsTime(), time.Duration(-1)
		for _, s := range sights {
			if s.Server != server || s.At < at.UnixMilli() || seen >= 0 {
				continue
			}
			for _, later := range changes[i:] {
				// A page may not show what is yet to come.
				if s.Value == strconv.FormatUint(uint64(later.GetAfter()), 10) && s.At >= later.GetAt().AsTime().UnixMilli() {
					seen = time.UnixMilli(s.At).Sub(at)
				}
			}
		}
		if seen < 0 {
			return nil, fmt.Errorf("%s: %d → %d at %v was never shown: %v", server, change.GetBefore(), change.GetAfter(), at, sights)
		}
		list = append(list, seen)
	}
	return list, nil
}

// checkLags looks at what pages showed of the changes of a server's level since a moment.
func (p *plant) checkLags(pages map[string]*tab, since time.Time, witness, server string) {
	p.t.Helper()
	var changes []*quoratev1.LevelChange
	for _, change := range p.levels(witness, server) {
		if change.GetAt().AsTime().After(since) {
			changes = append(changes, change)
		}
	}
	if len(changes) == 0 {
		p.t.Errorf("no change of the level of %s", server)
	}
	for member, b := range pages {
		list, err := lags(eval[[]sight](b, "window.shown"), server, changes)
		if err != nil {
			p.t.Errorf("the page of %s: %v", member, err)
			continue
		}
		for i, lag := range list {
			if lag > flipLimit {
				p.t.Errorf("the page of %s showed %s: %d → %d after %v, want at most %v", member, server, changes[i].GetBefore(), changes[i].GetAfter(), lag, flipLimit)
			}
		}
		p.t.Logf("the page of %s showed the %d changes of %s after %v", member, len(changes), server, list)
	}
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

	begun := time.Now()
	swapRoles(browser, t, p.url("m3", "/ui/redundancy/line-a"))
	for _, b := range pages {
		b.untilLevel("m1", "100")
		b.untilLevel("m2", "255")
		b.shows("Generation 2")
	}
	p.rolledOut("m1")
	for _, b := range pages {
		b.untilLevel("m1", "100")
		b.untilLevel("m2", "255")
	}
	for _, server := range []string{"m1", "m2"} {
		p.checkLags(pages, begun, "m1", server)
	}

	// A lease, which is a flip that nothing else comes with.
	begun = time.Now()
	lease := quoratev1.NewLeaseServiceClient(p.conns["m3"])
	if _, err := lease.BeginLease(p.ctx, &quoratev1.BeginLeaseRequest{RequestId: "lease-1", Server: "m2"}); err != nil {
		t.Fatal(err)
	}
	for _, b := range pages {
		b.untilLevel("m2", "200")
	}
	if _, err := lease.EndLease(p.ctx, &quoratev1.EndLeaseRequest{RequestId: "lease-2", Server: "m2"}); err != nil {
		t.Fatal(err)
	}
	for _, b := range pages {
		b.untilLevel("m2", "255")
	}
	p.checkLags(pages, begun, "m3", "m2")

	begun = time.Now()
	if err := p.Kill(p.ctx, "m2"); err != nil {
		t.Fatal(err)
	}
	gone := pages["m2"]
	delete(pages, "m2")
	for _, b := range pages {
		b.untilLevel("m2", "–")
		b.untilLevel("m1", "80")
		b.shows("m2 does not answer")
	}
	p.checkLags(pages, begun, "m3", "m1")
	// The page of a member that died says that it is no longer live, and is again once the member is back.
	gone.until(`document.getElementById("live").dataset.state === "off"`)
	if err := p.Restart("m2"); err != nil {
		t.Fatal(err)
	}
	gone.until(`document.getElementById("live").dataset.state === "on"`)
	gone.untilLevel("m2", "255")
	if err := p.Kill(p.ctx, "m2"); err != nil {
		t.Fatal(err)
	}

	// Of three voters one is left: it says so, and shows what it knows.
	if err := p.Kill(p.ctx, "m1"); err != nil {
		t.Fatal(err)
	}
	last := pages["m3"]
	last.shows("No leader")
	last.shows("No change can be made until a majority of the voters is back")
	last.shows("1 of 3 reachable")
	last.shows("Last recorded: ")
	last.quiet()
}

// swapRoles goes from the page of a set over the draft to the publish, as an operator would.
func swapRoles(browser context.Context, t *testing.T, url string) {
	t.Helper()
	b := newTab(browser, t)
	b.open(url)
	b.click("#swap")
	b.shows("Draft: make m2 the Primary of line-a")
	for _, text := range []string{"sets[line-a].servers[m1].role", "apply m1", "moves to m2", "based on generation 1"} {
		b.shows(text)
	}
	b.click("[data-ask]")
	b.until(`document.getElementById("ask").open`)
	b.shows("m2 becomes the Primary of line-a, and m1 a Backup")
	b.click("#ask button[type=submit]")
	b.shows("Generation 2 is published.")
	b.until(`document.getElementById("live")?.dataset.state === "on"`)
	b.quiet()
}

// rolledOut waits until every server has applied the current generation.
func (p *plant) rolledOut(member string) {
	p.t.Helper()
	events := quoratev1.NewEventServiceClient(p.conns[member])
	stream, err := events.WatchEvents(p.ctx, &quoratev1.WatchEventsRequest{FromRevision: 1, Kinds: []string{"rollout_changed"}})
	if err != nil {
		p.t.Fatal(err)
	}
	for {
		message, err := stream.Recv()
		if err != nil {
			p.t.Fatal(err)
		}
		for _, event := range message.GetEvents() {
			if r := event.GetRolloutChanged(); r.GetGeneration() == 2 && r.GetState() == quoratev1.RolloutState_ROLLOUT_STATE_DONE {
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
	if list, err := lags(sights, "m1", changes(100, 200, 255)); err != nil || fmt.Sprint(list) != "[50ms 190ms 90ms]" {
		t.Errorf("%v, %v", list, err)
	}
	if _, err := lags(sights, "m1", changes(100, 200)); err == nil {
		t.Error("what was never shown was found")
	}
}
