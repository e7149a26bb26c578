package browser

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"
	"google.golang.org/protobuf/types/known/timestamppb"

	quoratev1 "quorate/proto/quorate/v1"
)

func stamp(ms int64) *timestamppb.Timestamp { return timestamppb.New(time.UnixMilli(ms)) }

// click clicks on an element, as soon as it is there to be clicked on.
func (b *tab) click(selector string) {
	b.t.Helper()
	b.do(chromedp.Click(chromedp.CSS(selector), chromedp.NodeVisible))
}

func (b *tab) press(keys string) {
	b.t.Helper()
	b.do(chromedp.KeyEvent(keys))
}

// focus says what has the focus: its tag and id, and its text.
func (b *tab) focus() string {
	b.t.Helper()
	return eval[string](b, `(() => { const e = document.activeElement; return e.tagName + "#" + e.id + " " + e.textContent.trim().slice(0, 40); })()`)
}

// screens are all pages that can be looked at.
var screens = []string{"/ui/", "/ui/redundancy", "/ui/redundancy/line-a", "/ui/members", "/ui/timeline",
	"/ui/redundancy/line-a/swap", "/ui/redundancy/line-a/maintenance?server=m1&active=true", "/ui/members/transfer?to=m2", "/ui/nothing"}

// TestThePageInUse looks at everything in one browser and one group, since starting them is what takes time.
func TestThePageInUse(t *testing.T) {
	p := startPlant(t)
	browser := startBrowser(t)
	script := axe(t)
	for name, part := range map[string]func(*plant, *tab){
		"text stays text": textStaysText, "keyboard": keyboard, "focus stays": focusStays, "maintenance": maintenanceByForm, "transfer": transferByDialog, "chart": chartIsDrawn,
	} {
		t.Run(name, func(t *testing.T) {
			q := *p
			q.t = t
			b := newTab(browser, t)
			b.look(1280, "light")
			part(&q, b)
		})
	}
	t.Run("everybody can use it", func(t *testing.T) {
		q := *p
		q.t = t
		b := newTab(browser, t)
		everybodyCanUseIt(&q, b, script)
	})
	t.Run("phone", func(t *testing.T) {
		b := newTab(browser, t)
		for _, width := range []int64{400, 320} {
			b.look(width, "dark")
			for _, path := range screens {
				b.open(p.url("m1", path))
				if over := eval[int](b, "document.documentElement.scrollWidth - innerWidth"); over > 0 {
					t.Errorf("%s is %d pixels wider than a window of %d", path, over, width)
				}
			}
		}
	})
}

// hostile is a reason that somebody gives.
const hostile = `<script>window.pwned = 1</script><img src=x onerror="window.pwned = 2">"'><b id=pwned>`

func textStaysText(p *plant, b *tab) {
	maintenance := quoratev1.NewMaintenanceServiceClient(p.conns["m1"])
	lease := quoratev1.NewLeaseServiceClient(p.conns["m1"])
	b.open(p.url("m2", "/ui/"))
	if _, err := maintenance.SetMaintenance(p.ctx, &quoratev1.SetMaintenanceRequest{RequestId: "a" + hostile, Server: "m2", Active: true, Reason: hostile}); err != nil {
		p.t.Fatal(err)
	}
	if _, err := lease.BeginLease(p.ctx, &quoratev1.BeginLeaseRequest{RequestId: "b" + hostile, Server: "m2", Reason: hostile}); err != nil {
		p.t.Fatal(err)
	}
	// By the stream, and then in whole pages.
	b.shows(hostile)
	for _, path := range []string{"/ui/", "/ui/redundancy/line-a", "/ui/timeline", "/ui/redundancy/line-a/maintenance?server=m2&active=false"} {
		b.open(p.url("m2", path))
		b.shows(hostile)
		if pwned := eval[bool](b, `"pwned" in window`); pwned {
			p.t.Errorf("%s ran what somebody typed", path)
		}
	}
	if _, err := lease.EndLease(p.ctx, &quoratev1.EndLeaseRequest{RequestId: "c" + hostile, Server: "m2", Outcome: "ok"}); err != nil {
		p.t.Fatal(err)
	}
	if _, err := maintenance.SetMaintenance(p.ctx, &quoratev1.SetMaintenanceRequest{RequestId: "d" + hostile, Server: "m2"}); err != nil {
		p.t.Fatal(err)
	}
	// Their ids are in the timeline, too.
	b.open(p.url("m2", "/ui/timeline"))
	b.until(fmt.Sprintf(`[...document.querySelectorAll(".request")].some((e) => e.textContent === %q)`, "d"+hostile))
	b.quiet()
}

// keyboard does without a mouse: the skip link, the focus that is seen, a dialog that keeps the focus and gives it back.
func keyboard(p *plant, b *tab) {
	t := p.t
	b.open(p.url("m1", "/ui/redundancy/line-a"))
	b.press(kb.Tab)
	if got := b.focus(); got != "A# Skip to the content" {
		t.Errorf("the first stop is %s", got)
	}
	if left := eval[float64](b, "document.activeElement.getBoundingClientRect().left"); left < 0 {
		t.Error("the skip link is out of sight with the focus on it")
	}
	b.press(kb.Enter)
	b.until(`document.activeElement.id === "main" || location.hash === "#main"`)
	// Every stop is seen, until the maintenance of m1.
	for i := 0; !strings.HasPrefix(b.focus(), "A#maintenance-m1"); i++ {
		if i > 20 {
			t.Fatalf("the maintenance of m1 can't be reached by keyboard; the focus is on %s", b.focus())
		}
		b.press(kb.Tab)
		if seen := eval[bool](b, `(() => { const s = getComputedStyle(document.activeElement); return s.outlineStyle !== "none" && parseFloat(s.outlineWidth) >= 2; })()`); !seen {
			t.Errorf("the focus on %s is not seen", b.focus())
		}
	}
	b.press(kb.Enter)
	b.until(`document.getElementById("dialog").open`)
	b.shows("Put m1 into maintenance")
	for range 12 {
		b.press(kb.Tab)
		// BODY is the browser's own stop between the last and the first: nothing of the page behind has it.
		if inside := eval[bool](b, `document.getElementById("dialog").contains(document.activeElement) || document.activeElement === document.body`); !inside {
			t.Errorf("the focus left the dialog for %s", b.focus())
		}
	}
	b.press(kb.Escape)
	b.until(`!document.getElementById("dialog").open`)
	if got := b.focus(); !strings.HasPrefix(got, "A#maintenance-m1") {
		t.Errorf("after the dialog the focus is on %s", got)
	}
	b.quiet()
}

// focusStays where it is while the page moves under it.
func focusStays(p *plant, b *tab) {
	b.open(p.url("m3", "/ui/redundancy/line-a"))
	b.do(chromedp.Focus(chromedp.CSS("#maintenance-m2")))
	b.do(chromedp.Click(chromedp.CSS(".legend summary")))
	b.do(chromedp.Focus(chromedp.CSS("#maintenance-m2")))
	lease := quoratev1.NewLeaseServiceClient(p.conns["m1"])
	if _, err := lease.BeginLease(p.ctx, &quoratev1.BeginLeaseRequest{RequestId: "focus-1", Server: "m2"}); err != nil {
		p.t.Fatal(err)
	}
	b.untilLevel("m2", "50")
	if _, err := lease.EndLease(p.ctx, &quoratev1.EndLeaseRequest{RequestId: "focus-2", Server: "m2"}); err != nil {
		p.t.Fatal(err)
	}
	b.untilLevel("m2", "100")
	if got := b.focus(); !strings.HasPrefix(got, "A#maintenance-m2") {
		p.t.Errorf("the focus went to %s", got)
	}
	if open := eval[bool](b, `document.querySelector(".legend").open`); !open {
		p.t.Error("what was opened is closed")
	}
	b.quiet()
}

// maintenanceByForm declares maintenance in the dialog, and posts the form twice: once by the button, and once more by going back.
func maintenanceByForm(p *plant, b *tab) {
	before := len(p.events("m1", "maintenance_changed"))
	b.open(p.url("m1", "/ui/redundancy/line-a"))
	b.click("#maintenance-m2")
	b.until(`document.getElementById("dialog").open`)
	b.do(chromedp.SendKeys(chromedp.CSS("#reason"), "new disk"), chromedp.SendKeys(chromedp.CSS("#minutes"), "30"))
	// What a form is when it is sent, to be sent again.
	form := eval[string](b, `new URLSearchParams(new FormData(document.querySelector("#dialog form"))).toString()`)
	b.click("#dialog button[type=submit]")
	b.shows("m2 is in maintenance.")
	b.untilLevel("m2", "0")
	b.shows("new disk")
	again := eval[string](b, fmt.Sprintf(`fetch("/ui/redundancy/line-a/maintenance", {method: "POST", headers: {"Content-Type": "application/x-www-form-urlencoded"}, body: %q}).then((r) => r.text())`, form))
	if !strings.Contains(again, "m2 is in maintenance.") {
		p.t.Errorf("the second time the answer is %s", again)
	}
	if n := len(p.events("m1", "maintenance_changed")) - before; n != 1 {
		p.t.Errorf("two posts of one form made %d changes", n)
	}
	b.click("#maintenance-m2")
	b.shows("End the maintenance of m2")
	b.click("#dialog button[type=submit]")
	b.shows("The maintenance of m2 is over.")
	b.untilLevel("m2", "100")
	b.quiet()
}

func transferByDialog(p *plant, b *tab) {
	leader, err := p.Leader(p.ctx)
	if err != nil {
		p.t.Fatal(err)
	}
	to := "m1"
	if leader.ID == to {
		to = "m2"
	}
	b.open(p.url("m3", "/ui/members"))
	b.click("#lead-" + to)
	b.until(`document.getElementById("dialog").open`)
	b.shows("No ServiceLevel moves")
	b.click("#dialog button[type=submit]")
	b.shows(to + " leads the group.")
	b.until(fmt.Sprintf(`document.querySelector(".facts dd").textContent === %q`, to))
	b.quiet()
}

// chartIsDrawn looks for ink: the lines of both servers, in the colours of the page.
func chartIsDrawn(p *plant, b *tab) {
	b.open(p.url("m1", "/ui/redundancy/line-a"))
	const ink = `(() => {
		const canvas = document.querySelector("#levels-chart canvas");
		const pixels = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data;
		const count = (hex) => {
			const [r, g, b] = [1, 3, 5].map((i) => parseInt(hex.slice(i, i + 2), 16));
			let n = 0;
			for (let i = 0; i < pixels.length; i += 4) if (Math.abs(pixels[i] - r) + Math.abs(pixels[i + 1] - g) + Math.abs(pixels[i + 2] - b) < 30 && pixels[i + 3] > 200) n++;
			return n;
		};
		const style = getComputedStyle(document.documentElement);
		return Math.min(count(style.getPropertyValue("--line-1").trim()), count(style.getPropertyValue("--line-2").trim()));
	})()`
	b.until(`document.querySelector("#levels-chart canvas") !== null && ` + ink + ` > 200`)
	b.look(1280, "dark")
	b.until(ink + ` > 200`)
	b.quiet()
}

// violation is what axe-core finds.
type violation struct {
	ID     string `json:"id"`
	Impact string `json:"impact"`
	Help   string `json:"help"`
	Nodes  []struct {
		HTML    string `json:"html"`
		Summary string `json:"failureSummary"`
	} `json:"nodes"`
}

func everybodyCanUseIt(p *plant, b *tab, script string) {
	judge := func(where string) {
		p.t.Helper()
		if !eval[bool](b, `typeof axe !== "undefined"`) {
			// Its last expression has no value that could be sent back.
			eval[int](b, script+"; 0")
		}
		raw := eval[string](b, `axe.run(document, {resultTypes: ["violations"]}).then((r) => JSON.stringify(r.violations))`)
		var found []violation
		if err := json.Unmarshal([]byte(raw), &found); err != nil {
			p.t.Fatal(err)
		}
		for _, v := range found {
			p.t.Errorf("%s: %s (%s): %s: %v", where, v.ID, v.Impact, v.Help, v.Nodes)
		}
	}
	for _, look := range []struct {
		width  int64
		scheme string
	}{{1280, "light"}, {1280, "dark"}, {390, "dark"}} {
		b.look(look.width, look.scheme)
		for _, path := range screens {
			if look.width < 400 && path != "/ui/redundancy/line-a" && path != "/ui/timeline" {
				continue // What a phone changes is how tables look.
			}
			b.open(p.url("m1", path))
			judge(fmt.Sprint(path, " ", look))
		}
		b.open(p.url("m1", "/ui/redundancy/line-a"))
		b.click("#maintenance-m1")
		b.until(`document.getElementById("dialog").open`)
		judge(fmt.Sprint("the dialog ", look))
	}
}
