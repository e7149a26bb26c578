package admin

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"time"
)

// livePath is where the streams of the screens are: the path of each screen again, below it.
const livePath = root + "live/"

// versionParam is the argument by which a page says which version it was loaded from.
const versionParam = "v"

// liveQuery adds the version to a query.
func liveQuery(query, version string) string {
	if query != "" {
		query += "&"
	}
	return query + versionParam + "=" + url.QueryEscape(version)
}

// stream sends a screen as it moves. It has no queue but a place: the version that was sent last. A browser that is slow gets the newest when it is ready for
// it, and whoever renders never waits for a browser.
func (s *Server) stream(w http.ResponseWriter, r *http.Request, sc screen) {
	a, wrong := argumentsOf(r, r.URL.Query(), sc.params)
	if wrong != nil {
		s.fail(w, r, wrong)
		return
	}
	if !s.rooms.gate.enter(s.config.Limits.MaxStreams) {
		w.Header().Set("Retry-After", "5")
		http.Error(w, fmt.Sprintf("this member has %d live pages open, which is as many as it takes", s.config.Limits.MaxStreams), http.StatusServiceUnavailable)
		return
	}
	defer s.rooms.gate.leave()
	room := s.rooms.join(roomKey{role: visitor(r).Role, path: r.URL.EscapedPath() + "?" + a.query(sc.pattern)}, sc, a)
	if room == nil {
		http.Error(w, "this member is shutting down", http.StatusServiceUnavailable)
		return
	}
	defer s.rooms.leave(room)
	out := newSender(w, s.config.Limits.WriteTimeout)
	if version := r.URL.Query().Get(versionParam); version != s.version() {
		// What this page was loaded from is no longer what is served.
		_ = out.send([]byte("event: reload\ndata: " + s.version() + "\n\n"))
		return
	}
	s.follow(r.Context(), room, out)
}

// follow sends what a room renders until somebody wants the stream to end. Who is gone is no one to tell why.
func (s *Server) follow(ctx context.Context, room *room, out *sender) {
	beat := time.NewTicker(s.config.Limits.Beat)
	defer beat.Stop()
	old := time.NewTimer(s.config.Limits.MaxStreamAge)
	defer old.Stop()
	if out.send(s.beat()) != nil {
		return
	}
	var seen uint64
	for {
		message, version, next := room.since(seen)
		if len(message) > 0 && out.send(message) != nil {
			return
		}
		seen = version
		select {
		case <-ctx.Done():
			return
		case <-s.rooms.closing:
			return
		case <-old.C:
			return
		case <-next:
		case <-beat.C:
			if out.send(s.beat()) != nil {
				return
			}
		}
	}
}

// beat is a sign of life, with the time that it is here, by which the page tells ages. It is an event and not a comment, which a page would not see: a member that
// hangs keeps its connections, and its pages have to say that they are no longer live.
func (s *Server) beat() []byte {
	return fmt.Appendf(nil, "event: beat\ndata: %d\n\n", s.config.Now().UnixMilli())
}

// sender writes the messages of one stream, each with a deadline of its own.
type sender struct {
	w       http.ResponseWriter
	control *http.ResponseController
	timeout time.Duration
}

func newSender(w http.ResponseWriter, timeout time.Duration) *sender {
	control := http.NewResponseController(w)
	// The deadline of reading the request would cut the stream off as well. Where it can't be lifted, it does so.
	_ = control.SetReadDeadline(time.Time{})
	w.Header().Set("Content-Type", "text/event-stream")
	return &sender{w: w, control: control, timeout: timeout}
}

func (s *sender) send(message []byte) error {
	// A connection without deadlines is none of a server's: the write below says if it is gone.
	_ = s.control.SetWriteDeadline(time.Now().Add(s.timeout))
	if _, err := s.w.Write(message); err != nil {
		return err
	}
	return s.control.Flush()
}
