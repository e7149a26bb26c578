// Package browser tests the web page in a real browser, Debian's chromium, against real members: that a level which moves is on every open page within a
// second, that changes ask and then happen, that it can be used by keyboard, on a phone, in light and dark, and that what somebody typed stays text. It
// knows members by their public APIs and processes alone. chromedp drives the browser through a pipe; npm brings axe-core, and what admin/static was copied from.
package browser

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/page"
	"github.com/chromedp/chromedp"
	"google.golang.org/grpc"

	"quorate/devgroup"
	quoratev1 "quorate/proto/quorate/v1"
)

func TestMain(m *testing.M) { os.Exit(devgroup.RunTests(m)) }

const (
	// testLimit bounds each test, and stepLimit one thing that is waited for: on a machine that does much else.
	testLimit = 3 * time.Minute
	stepLimit = 20 * time.Second
	// flipLimit is within what time a page shows a level that moved (redundancy.md §8).
	flipLimit = time.Second
)

// missing fails where everything has to be there, and elsewhere skips, naming what is missing.
func missing(t *testing.T, what string) {
	t.Helper()
	if os.Getenv("CI") == "true" {
		t.Fatal(what)
	}
	t.Skip(what)
}

// chromium is Debian's browser.
func chromium(t *testing.T) string {
	t.Helper()
	path, err := exec.LookPath("chromium")
	if err != nil {
		missing(t, "chromium is not installed: apt-get install chromium")
	}
	return path
}

// startBrowser starts a browser of its own, with an empty profile; the context is that of its first tab.
func startBrowser(t *testing.T) context.Context {
	t.Helper()
	path := chromium(t)
	ctx, cancel := context.WithTimeout(context.Background(), testLimit)
	t.Cleanup(cancel)
	ctx, cancel = chromedp.NewExecAllocator(ctx, chromedp.ExecPath(path), chromedp.UserDataDir(t.TempDir()),
		chromedp.Headless, chromedp.NoSandbox, chromedp.DisableGPU, chromedp.NoFirstRun, chromedp.Flag("disable-quic", true),
		chromedp.Flag("disable-background-networking", true), chromedp.Flag("disable-component-update", true), chromedp.Flag("disable-sync", true),
		chromedp.Flag("disable-dev-shm-usage", true))
	t.Cleanup(cancel)
	ctx, cancel = chromedp.NewContext(ctx)
	t.Cleanup(cancel)
	if err := chromedp.Do(ctx); err != nil {
		t.Fatalf("start chromium: %v", err)
	}
	return ctx
}

// tab is one tab of a browser.
type tab struct {
	t   *testing.T
	ctx context.Context

	mu       sync.Mutex
	problems []string
}

// newTab opens a tab in a window of its own, so that it is visible and follows its page.
func newTab(browser context.Context, t *testing.T) *tab {
	t.Helper()
	ctx, cancel := chromedp.NewContext(browser, chromedp.WithNewBrowserContext())
	b := &tab{t: t, ctx: ctx}
	if err := chromedp.Do(ctx); err != nil {
		t.Fatalf("open a tab: %v", err)
	}
	console := chromedp.Console(ctx)
	var listening sync.WaitGroup
	listening.Go(func() {
		for message, err := range console {
			if err != nil {
				return
			}
			if strings.Contains(message.String(), "willReadFrequently") {
				continue // That is about what a test reads.
			}
			b.mu.Lock()
			b.problems = append(b.problems, message.String())
			b.mu.Unlock()
		}
	})
	t.Cleanup(func() {
		cancel()
		listening.Wait()
	})
	return b
}

// quiet fails if the browser complained of anything: of an error in a script, or of what the page's policy forbids.
func (b *tab) quiet() {
	b.t.Helper()
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, problem := range b.problems {
		b.t.Errorf("the browser says: %s", problem)
	}
}

func (b *tab) do(actions ...chromedp.Action[chromedp.Void]) {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.ctx, stepLimit)
	defer cancel()
	if err := chromedp.Do(ctx, actions...); err != nil {
		b.t.Fatalf("%v\nthe page says:\n%s", err, b.text())
	}
}

// open loads a page and waits until it is live, or, where it isn't, until it is there.
func (b *tab) open(url string) {
	b.t.Helper()
	b.do(chromedp.Navigate(url))
	b.until(`document.readyState === "complete" && (!document.getElementById("live") || document.getElementById("live").dataset.state === "on")`)
}

// until waits for an expression to be true. While a page gives way to the next there is nothing to ask.
func (b *tab) until(expression string) {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.ctx, stepLimit)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		holds, err := chromedp.Run(ctx, chromedp.Evaluate[bool]("!!("+expression+")"))
		if err == nil && holds {
			return
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			b.t.Fatalf("waiting until %s: %v\nthe page says:\n%s", expression, err, b.text())
		}
	}
}

// shows waits until the page has a text.
func (b *tab) shows(text string) {
	b.t.Helper()
	b.until(fmt.Sprintf("document.body.innerText.includes(%q)", text))
}

// text is what the page and the browser say, for messages.
func (b *tab) text() string {
	b.mu.Lock()
	problems := strings.Join(b.problems, "\n")
	b.mu.Unlock()
	ctx, cancel := context.WithTimeout(b.ctx, time.Second)
	defer cancel()
	text, err := chromedp.Run(ctx, chromedp.Evaluate[string]("document.body.innerText"))
	if err != nil {
		return err.Error()
	}
	return text + "\nand the browser:\n" + problems
}

// eval returns the value of an expression.
func eval[T any](b *tab, expression string) T {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.ctx, stepLimit)
	defer cancel()
	value, err := chromedp.Run(ctx, chromedp.Evaluate[T](expression, chromedp.EvalAwaitPromise))
	if err != nil {
		b.t.Fatalf("%s: %v", expression, err)
	}
	return value
}

// look sets how wide the window is and whether the reader wants it dark.
func (b *tab) look(width int64, scheme string) {
	b.t.Helper()
	b.do(chromedp.EmulateViewport(width, 900))
	_, err := chromedp.Call(b.ctx, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{
		Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: scheme}}, //nolint:misspell // A name that others gave.
	})
	if err != nil {
		b.t.Fatal(err)
	}
}

// onEachPage has a script run in every page that the tab opens, before the page's own.
func (b *tab) onEachPage(script string) {
	b.t.Helper()
	if _, err := chromedp.Call(b.ctx, page.AddScriptToEvaluateOnNewDocument, page.AddScriptToEvaluateOnNewDocumentParams{Source: script}); err != nil {
		b.t.Fatal(err)
	}
}

// plant is a group of three members with the demo topology: m1 Primary, m2 Backup, m3 in no set.
type plant struct {
	*devgroup.Group
	t     *testing.T
	ctx   context.Context
	conns map[string]*grpc.ClientConn
}

func startPlant(t *testing.T) *plant {
	t.Helper()
	chromium(t)
	binary, err := devgroup.Built()
	if err != nil {
		t.Fatal(err)
	}
	base, err := freePorts()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), testLimit)
	t.Cleanup(cancel)
	var log devgroup.Output
	g, err := devgroup.Start(ctx, devgroup.Options{
		Binary: binary, Data: filepath.Join(t.TempDir(), "group"), BasePort: base, Log: &log,
		Set: []string{"redundancy.probeInterval=250ms", "redundancy.recoverDwell=1s"},
	})
	if err != nil {
		t.Fatalf("%v\n%s", err, log.String())
	}
	p := &plant{Group: g, t: t, ctx: ctx, conns: make(map[string]*grpc.ClientConn)}
	t.Cleanup(func() {
		if err := g.Stop(); err != nil {
			t.Error(err)
		}
		if t.Failed() {
			t.Logf("the members said:\n%s", log.String())
		}
	})
	for _, m := range g.Members {
		conn, err := devgroup.Dial(m)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close() })
		p.conns[m.ID] = conn
	}
	// The demo topology is there already when the group is.
	answer, err := quoratev1.NewTopologyServiceClient(p.conns["m1"]).GetTopology(ctx, &quoratev1.GetTopologyRequest{})
	if err != nil || answer.GetGeneration() == nil {
		t.Fatalf("the demo topology: %v, %v", answer, err)
	}
	return p
}

// url is a page of a member.
func (p *plant) url(member, path string) string {
	p.t.Helper()
	m, err := p.Member(member)
	if err != nil {
		p.t.Fatal(err)
	}
	return "http://" + m.HTTP + path
}

// levels are the recorded changes of a server's level, oldest first, as one member has them at a revision.
func (p *plant) levels(member, server string) (changes []*quoratev1.LevelChange, revision uint64) {
	p.t.Helper()
	answer, err := quoratev1.NewServingServiceClient(p.conns[member]).ListLevelChanges(p.ctx, &quoratev1.ListLevelChangesRequest{Server: server, Limit: 256})
	if err != nil {
		p.t.Fatal(err)
	}
	slices.Reverse(answer.GetChanges())
	return answer.GetChanges(), answer.GetHeader().GetRevision()
}

// events are all events that a member remembers of a kind, oldest last.
func (p *plant) events(member, kind string) []*quoratev1.Event {
	p.t.Helper()
	answer, err := quoratev1.NewEventServiceClient(p.conns[member]).ListEvents(p.ctx, &quoratev1.ListEventsRequest{Kinds: []string{kind}, Limit: 1000})
	if err != nil {
		p.t.Fatal(err)
	}
	return answer.GetEvents()
}

// freePorts returns a base such that base+1 to base+40 were free a moment ago, below the range that the system hands out by itself.
func freePorts() (int, error) {
	for base := 19300; base < 30000; base += 40 {
		if portsAreFree(base) {
			return base, nil
		}
	}
	return 0, errors.New("no 40 free ports in a row")
}

func portsAreFree(base int) bool {
	for port := base + 1; port <= base+40; port++ {
		listener, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port))
		if err != nil {
			return false
		}
		listener.Close()
	}
	return true
}

// axe is the script that judges whether everybody can use a page.
func axe(t *testing.T) string {
	t.Helper()
	script, err := os.ReadFile("node_modules/axe-core/axe.min.js")
	if err != nil {
		missing(t, "axe-core is not installed: run `make test`, or `npm ci` in admin/browser")
	}
	return string(script)
}

// What others wrote is what they published, and nothing else.
func TestVendoredFilesAreThoseOfTheirPackages(t *testing.T) {
	notice, err := os.ReadFile("../static/NOTICE.txt")
	if err != nil {
		t.Fatal(err)
	}
	for vendored, original := range map[string]string{
		"htmx.min.js": "htmx.org/dist/htmx.min.js", "hx-sse.min.js": "htmx.org/dist/ext/hx-sse.min.js",
		"uPlot.iife.min.js": "uplot/dist/uPlot.iife.min.js", "uPlot.min.css": "uplot/dist/uPlot.min.css",
	} {
		want, err := os.ReadFile(filepath.Join("node_modules", original))
		if err != nil {
			missing(t, "the packages of the page are not installed: run `make test`, or `npm ci` in admin/browser")
		}
		got, err := os.ReadFile(filepath.Join("../static", vendored))
		if err != nil {
			t.Fatal(err)
		}
		if string(got) != string(want) {
			t.Errorf("%s differs from %s: run `make vendor-page`", vendored, original)
		}
		if !strings.Contains(string(notice), vendored) {
			t.Errorf("NOTICE.txt says nothing of %s", vendored)
		}
	}
	for _, licence := range []string{"htmx.org/LICENSE", "uplot/LICENSE"} {
		text, err := os.ReadFile(filepath.Join("node_modules", licence))
		if err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(string(notice), strings.TrimSpace(string(text))) {
			t.Errorf("NOTICE.txt lacks %s", licence)
		}
	}
}
