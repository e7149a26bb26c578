package admin

import (
	"bytes"
	"context"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	quoratev1 "quorate/proto/quorate/v1"
)

// live is the stream of a screen, as its page asks for it.
func (s *site) live(path string) string {
	separator := "?"
	if strings.Contains(path, "?") {
		separator = "&"
	}
	return strings.Replace(path, "/ui/", livePath, 1) + separator + liveQuery("", s.version())
}

// level moves the level of a server.
func (s *site) level(member int, value uint32, band string) {
	s.set(func(o *quoratev1.GetOverviewResponse) {
		o.Members[member].ServiceLevel, o.Members[member].Band = &value, band
	})
}

func TestAStreamSendsWhatMoved(t *testing.T) {
	s := serve(t, viewer, Limits{})
	if page := s.get(t, "/ui/"); !strings.Contains(page.body, `hx-sse:connect="`+s.live("/ui/")+`"`) {
		t.Errorf("the page doesn't follow %s:\n%s", s.live("/ui/"), page.body)
	}
	w := s.watch(t, s.live("/ui/"))
	if w.code != http.StatusOK || w.header.Get("Content-Type") != "text/event-stream" || w.header.Get("Cache-Control") != "no-store" {
		t.Errorf("%d, %v", w.code, w.header)
	}
	if name, data, _ := w.next(); name != "beat" || len(data) < 13 {
		t.Errorf("the first event is %q with %q", name, data)
	}
	whole := w.page()
	for _, text := range []string{`hx-target="#part-0"`, `hx-target="#main"`, `id="part-3"`, `<span class="value">255</span>`, "line-a"} {
		if !strings.Contains(whole, text) {
			t.Errorf("the whole page lacks %q", text)
		}
	}
	s.level(0, 200, "Mid-apply")
	step := w.page()
	if !strings.Contains(step, `hx-target="#part-3"`) || !strings.Contains(step, `<span class="value">200</span>`) || strings.Contains(step, "#main") || strings.Contains(step, "#part-2") {
		t.Errorf("the step is %s", step)
	}
	// A set more is another page.
	s.set(func(o *quoratev1.GetOverviewResponse) {
		o.Generation.Topology.Sets = append(o.Generation.Topology.Sets, &quoratev1.RedundantSet{Id: "line-b", Mode: "NONE"})
	})
	if page := w.page(); !strings.Contains(page, `hx-target="#main"`) || !strings.Contains(page, "line-b") {
		t.Errorf("after a set more: %s", page)
	}
}

// What this member alone knows of moves pages, too: without a leader nothing is in the log.
func TestAStreamFollowsWhatTheMemberItselfSees(t *testing.T) {
	s := serve(t, viewer, Limits{Refresh: time.Hour})
	w := s.watch(t, s.live("/ui/members"))
	w.page()
	s.mu.Lock()
	*s.overview.Members[0].ServiceLevel = 70
	s.overview.Members[0].Band = "Unconfirmed"
	fns := len(s.fns)
	for fn := range s.fns {
		(*fn)()
	}
	s.mu.Unlock()
	if page := w.page(); !strings.Contains(page, "Unconfirmed") || fns != 1 {
		t.Errorf("%d subscriptions; the page is %s", fns, page)
	}
}

// What nothing tells of is looked for.
func TestAStreamLooksAroundByItself(t *testing.T) {
	s := serve(t, viewer, Limits{Refresh: 10 * time.Millisecond})
	w := s.watch(t, s.live("/ui/members"))
	w.page()
	s.mu.Lock()
	s.overview.Members[1].Reachable = false
	s.mu.Unlock()
	if page := w.page(); !strings.Contains(page, "no answer") {
		t.Errorf("the page is %s", page)
	}
}

func TestOneRenderingServesAllWithTheSameRole(t *testing.T) {
	s := serve(t, viewer, Limits{Refresh: time.Hour})
	const visitors = 20
	var watches []*watch
	for range visitors {
		w := s.watch(t, s.live("/ui/"))
		w.page()
		watches = append(watches, w)
	}
	s.who = operator
	other := s.watch(t, s.live("/ui/"))
	other.page()
	reads := func() int { return len(s.called(quoratev1.OverviewService_GetOverview_FullMethodName)) }
	before := reads()
	s.level(0, 230, "Isolated")
	for _, w := range append(watches, other) {
		if page := w.page(); !strings.Contains(page, "Isolated") {
			t.Fatalf("the page is %s", page)
		}
	}
	if n := reads() - before; n != 2 {
		t.Errorf("%d reads for %d visitors of one role and one of another", n, visitors)
	}
	for _, c := range s.called(quoratev1.OverviewService_GetOverview_FullMethodName) {
		if c.who.Name != "page" {
			t.Errorf("read as %v", c.who)
		}
	}
	for _, w := range append(watches, other) {
		w.cancel()
	}
	eventually(t, func() bool {
		s.rooms.mu.Lock()
		defer s.rooms.mu.Unlock()
		return len(s.rooms.open) == 0
	})
}

func TestStreamsHaveALimit(t *testing.T) {
	s := serve(t, viewer, Limits{MaxStreams: 2})
	first := s.watch(t, s.live("/ui/"))
	first.page()
	s.watch(t, s.live("/ui/members")).page()
	if w := s.watch(t, s.live("/ui/")); w.code != http.StatusServiceUnavailable || w.header.Get("Retry-After") == "" {
		t.Errorf("one stream more: %d, %v", w.code, w.header)
	}
	first.cancel()
	eventually(t, func() bool { return s.watch(t, s.live("/ui/")).code == http.StatusOK })
}

func TestAStreamOfAnotherVersionLoadsThePageAnew(t *testing.T) {
	s := serve(t, viewer, Limits{})
	w := s.watch(t, livePath+"?v=old")
	if name, _, ok := w.next(); !ok || name != "reload" {
		t.Errorf("got %q", name)
	}
	if _, _, ok := w.next(); ok {
		t.Error("the stream goes on")
	}
}

func TestStreamsEndWithTheServer(t *testing.T) {
	s := serve(t, viewer, Limits{})
	w := s.watch(t, s.live("/ui/"))
	w.page()
	s.Close()
	for {
		if _, _, ok := w.next(); !ok {
			break
		}
	}
	if late := s.watch(t, s.live("/ui/")); late.code != http.StatusServiceUnavailable {
		t.Errorf("after the end: %d", late.code)
	}
	s.Close() // It may be closed more than once.
}

func TestAStreamEndsWhenItIsOld(t *testing.T) {
	s := serve(t, viewer, Limits{MaxStreamAge: 20 * time.Millisecond})
	w := s.watch(t, s.live("/ui/"))
	for {
		if _, _, ok := w.next(); !ok {
			return
		}
	}
}

// A stream beats while nothing moves, so that a page knows that it is live; the beats are 5 s apart.
func TestAStreamBeats(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &Server{config: Config{Now: time.Now, Limits: Limits{}.withDefaults()}}
		s.rooms = &rooms{server: s, open: make(map[roomKey]*room), closing: make(chan struct{})}
		ctx, cancel := context.WithTimeout(t.Context(), 31*time.Second)
		defer cancel()
		w := &recorder{}
		s.follow(ctx, &room{next: make(chan struct{})}, newSender(w, time.Second))
		if n := strings.Count(w.written.String(), "event: beat\ndata: "); n != 7 {
			t.Errorf("%d beats in 31 s:\n%s", n, w.written.String())
		}
	})
}

// recorder is a connection that takes everything, until it is stuck.
type recorder struct {
	header  http.Header
	written bytes.Buffer
}

func (r *recorder) Header() http.Header {
	if r.header == nil {
		r.header = http.Header{}
	}
	return r.header
}
func (r *recorder) WriteHeader(int)                  {}
func (r *recorder) Flush()                           {}
func (r *recorder) SetWriteDeadline(time.Time) error { return nil }
func (r *recorder) SetReadDeadline(time.Time) error  { return nil }
func (r *recorder) Write(b []byte) (int, error)      { return r.written.Write(b) }

// A browser that reads nothing is left behind: it holds up neither the room nor the other streams, and is cut off.
func TestASlowBrowserHoldsUpNobody(t *testing.T) {
	s := serve(t, viewer, Limits{MinPause: time.Millisecond, WriteTimeout: 200 * time.Millisecond})
	s.set(func(o *quoratev1.GetOverviewResponse) {
		// So much that it doesn't fit into the buffers of a connection.
		for _, m := range o.Members {
			m.Reasons = []string{strings.Repeat("much to say ", 200_000)}
		}
	})
	address := strings.TrimPrefix(s.url, "http://")
	slow, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer slow.Close()
	if err := slow.(*net.TCPConn).SetReadBuffer(4 << 10); err != nil {
		t.Fatal(err)
	}
	if _, err := slow.Write([]byte("GET " + s.live("/ui/") + " HTTP/1.1\r\nHost: " + address + "\r\n\r\n")); err != nil {
		t.Fatal(err)
	}
	eventually(t, func() bool {
		s.rooms.mu.Lock()
		defer s.rooms.mu.Unlock()
		return len(s.rooms.open) == 1
	})
	quick := s.watch(t, s.live("/ui/members"))
	quick.page()
	for i := range uint32(20) {
		s.level(2, i+1, "InvalidTopology")
		quick.page()
	}
	eventually(t, func() bool {
		s.rooms.gate.mu.Lock()
		defer s.rooms.gate.mu.Unlock()
		return s.rooms.gate.open == 1 // The slow one is gone.
	})
}

// Who is one step behind gets the step, and who is further behind the whole: no queue has to hold what lies between.
func TestWhoIsFarBehindGetsTheWhole(t *testing.T) {
	r := &room{next: make(chan struct{})}
	parts := func(list ...string) (out rendering) {
		for _, html := range append([]string{"status", "alerts"}, list...) {
			out.parts = append(out.parts, rendered{key: "part", html: html})
		}
		return out
	}
	expect := func(seen uint64, version uint64, want ...string) {
		t.Helper()
		message, got, _ := r.since(seen)
		if got != version || (len(message) == 0) != (len(want) == 0) {
			t.Errorf("since %d: version %d, %q", seen, got, message)
		}
		for _, text := range want {
			if !strings.Contains(string(message), text) {
				t.Errorf("since %d: %q lacks %q", seen, message, text)
			}
		}
	}
	expect(0, 0)
	r.publish(parts("a", "b"))
	expect(0, 1, "#main", ">a<", ">b<")
	expect(1, 1)
	_, _, next := r.since(1)
	r.publish(parts("a", "b")) // nothing new
	select {
	case <-next:
		t.Error("told of nothing new")
	default:
	}
	r.publish(parts("a", "c"))
	select {
	case <-next:
	default:
		t.Error("not told")
	}
	expect(1, 2, `#part-3`, ">c<")
	if message, _, _ := r.since(1); strings.Contains(string(message), ">a<") || strings.Contains(string(message), "#part-0") {
		t.Errorf("the step is %q", message)
	}
	expect(0, 2, "#main", ">a<", ">c<")
	r.publish(parts("a", "d"))
	expect(1, 3, "#main", ">a<", ">d<")
	r.publish(parts("a"))
	expect(3, 4, "#main", ">a<")
}

// A carriage return in what somebody typed would end the line of a message, and begin another field of it.
func TestTextCanNotBreakOutOfAMessage(t *testing.T) {
	s := serve(t, viewer, Limits{})
	s.set(func(o *quoratev1.GetOverviewResponse) {
		o.Members[0].Reasons = []string{"x\rdata: <b>\r\revent: reload\n\nevent: reload\r\n\r\nid: 7"}
	})
	w := s.watch(t, s.live("/ui/"))
	page := w.page() // It fails on any line that is not ours.
	if !strings.Contains(page, "x&#13;data: &lt;b&gt;&#13;&#13;event: reload") {
		t.Errorf("the page is %s", page)
	}
	if strings.Contains(page, "\r") {
		t.Error("a carriage return is left")
	}
}

func TestWriteErrorsEndAStream(t *testing.T) {
	s := serve(t, viewer, Limits{})
	broken := &breaking{}
	var wg sync.WaitGroup
	room := &room{next: make(chan struct{})}
	wg.Go(func() { s.follow(t.Context(), room, newSender(broken, time.Second)) })
	wg.Wait() // It returns, although nothing else ends it.
}

type breaking struct{ recorder }

func (*breaking) Write([]byte) (int, error) { return 0, os.ErrDeadlineExceeded }
