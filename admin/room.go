package admin

import (
	"bytes"
	"context"
	"strconv"
	"strings"
	"sync"
	"time"

	"quorate/pki"
)

// roomKey names a room: what is looked at, and with which role.
type roomKey struct {
	role pki.Role
	path string
}

// rooms holds a room for each screen that somebody looks at.
type rooms struct {
	server  *Server
	running sync.WaitGroup
	closing chan struct{}
	gate    gate

	mu     sync.Mutex
	closed bool
	open   map[roomKey]*room
}

// room renders one screen for all who look at it with the same role, and keeps the last rendering alone: there is no queue that a slow visitor could fill.
type room struct {
	key  roomKey
	stop context.CancelFunc
	poke chan struct{}
	// visitors is guarded by rooms.
	visitors int

	mu sync.Mutex
	// version counts the renderings that differ from the one before; 0 means that there is none yet.
	version uint64
	page    rendering
	// whole is the page as a message, and delta what turned the version before into this one.
	whole, delta []byte
	next         chan struct{} // closed when the version moves
}

// join enters a room, which begins to render with its first visitor. It returns nil once the server closes.
func (rs *rooms) join(key roomKey, sc screen, a arguments) *room {
	rs.mu.Lock()
	defer rs.mu.Unlock()
	if rs.closed {
		return nil
	}
	r := rs.open[key]
	if r == nil {
		ctx, cancel := context.WithCancel(context.Background())
		r = &room{key: key, stop: cancel, poke: make(chan struct{}, 1), next: make(chan struct{})}
		rs.open[key] = r
		rs.running.Go(func() { r.run(ctx, rs.server, sc, a) })
	}
	r.visitors++
	return r
}

// leave leaves a room, which ends with its last visitor.
func (rs *rooms) leave(r *room) {
	rs.mu.Lock()
	defer rs.mu.Unlock()
	if r.visitors--; r.visitors == 0 {
		r.stop()
		delete(rs.open, r.key)
	}
}

// close ends all rooms and waits for them. The streams end by themselves.
func (rs *rooms) close() {
	rs.mu.Lock()
	if !rs.closed {
		rs.closed = true
		close(rs.closing)
	}
	for _, r := range rs.open {
		r.stop()
	}
	rs.mu.Unlock()
	rs.running.Wait()
}

// pauseShare is how many times as long as a rendering took the pause after it is, so that a page costs a member a quarter of one core at most while everything
// moves. What takes really long is no work, but waiting for a member that hangs: so there is a longest pause.
const pauseShare = 3

// run renders whenever something moved, until ctx ends.
//
// What moves a page is pushed: Changed tells of everything in the log, which has every member's changes of level within a moment of their happening; Subscribe
// tells of this member's own level, also while there is no leader to record it.
func (r *room) run(ctx context.Context, s *Server, sc screen, a arguments) {
	defer s.config.Subscribe(func() {
		select {
		case r.poke <- struct{}{}:
		default: // It was not taken yet.
		}
	})()
	limits := s.config.Limits
	alarm := time.NewTimer(0)
	defer alarm.Stop()
	for ctx.Err() == nil {
		changed := s.config.Changed() // Before reading, so that no change falls between.
		begun := s.config.Now()
		r.refresh(ctx, s, sc, a)
		took := s.config.Now().Sub(begun)
		least, most := limits.MinPause, limits.MaxPause
		if sc.pause > least {
			least, most = sc.pause, max(2*sc.pause, most)
		}
		alarm.Reset(min(max(pauseShare*took, least), most))
		select {
		case <-ctx.Done():
			return
		case <-alarm.C:
		}
		alarm.Reset(limits.Refresh)
		select {
		case <-ctx.Done():
		case <-changed:
		case <-r.poke:
		case <-alarm.C:
		}
	}
}

// refresh renders once. It reads as no visitor in particular, but with the role that all of them have.
func (r *room) refresh(ctx context.Context, s *Server, sc screen, a arguments) {
	who := pki.Identity{Name: "page", Role: r.key.role}
	conn, err := s.config.Connect(who, s.config.Member)
	if err != nil {
		s.config.Logger.Error("a live page can't be rendered", "page", r.key.path, "error", err)
		return
	}
	page, _ := s.render(ctx, sc, &reader{
		arguments: a, conn: conn, now: s.config.Now(), patience: s.config.Limits.Patience,
		may: func(method string) bool { return s.config.May(r.key.role, method) },
	})
	if ctx.Err() == nil {
		r.publish(page)
	}
}

// publish makes a rendering the current one, if it differs.
func (r *room) publish(page rendering) {
	r.mu.Lock()
	defer r.mu.Unlock()
	var delta []byte
	if r.version > 0 {
		if page.sameParts(r.page) {
			delta = page.changedSince(r.page)
			if len(delta) == 0 {
				return
			}
		} else {
			delta = page.message()
		}
	}
	r.page, r.delta, r.whole = page, delta, page.message()
	r.version++
	close(r.next)
	r.next = make(chan struct{})
}

// since returns what somebody has to be sent who has seen a version: nothing, the last step, or, to whoever is further behind, the whole. Next is closed when
// there is more.
func (r *room) since(seen uint64) (message []byte, version uint64, next <-chan struct{}) {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case seen == r.version:
	case seen+1 == r.version && seen > 0:
		message = r.delta
	default:
		message = r.whole
	}
	return message, r.version, r.next
}

// partID is the element that holds a part.
func partID(i int) string { return "part-" + strconv.Itoa(i) }

// changedSince is the message that turns another rendering of the same parts into this one; empty if they are the same.
func (r rendering) changedSince(before rendering) []byte {
	var b strings.Builder
	for i, p := range r.parts {
		if p.html != before.parts[i].html {
			writePartial(&b, partID(i), p.html)
		}
	}
	return message(b.String())
}

// message is the whole page as a message, whatever the browser has.
func (r rendering) message() []byte {
	var b strings.Builder
	for i, p := range r.parts[:groupParts] {
		writePartial(&b, partID(i), p.html)
	}
	writePartial(&b, "main", r.main())
	return message(b.String())
}

// main is the inside of the page's main element: each part in an element of its own.
func (r rendering) main() string {
	var b strings.Builder
	for i, p := range r.parts[groupParts:] {
		b.WriteString(`<div class="part" id="` + partID(groupParts+i) + `">`)
		b.WriteString(p.html)
		b.WriteString("</div>")
	}
	return b.String()
}

// writePartial writes what htmx puts into the element of that id, by changing what differs: so the focus, and what is open or selected, stays.
func writePartial(b *strings.Builder, id, html string) {
	b.WriteString(`<hx-partial hx-target="#` + id + `" hx-swap="innerMorph">`)
	b.WriteString(html)
	b.WriteString("</hx-partial>")
}

// message makes a server-sent event of HTML. A carriage return would end a line of it, and what follows could be another field.
func message(html string) []byte {
	if html == "" {
		return nil
	}
	html = strings.ReplaceAll(html, "\r", "&#13;")
	var b bytes.Buffer
	for line := range strings.Lines(html) {
		b.WriteString("data: ")
		b.WriteString(strings.TrimSuffix(line, "\n"))
		b.WriteByte('\n')
	}
	b.WriteByte('\n')
	return b.Bytes()
}
