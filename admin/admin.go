// Package admin is the web page of a member: what `quorate status`, `topology`, `apply`, `maintenance` and `member` show and do, for those who would rather
// look at it (platform.md §8). Every member serves it on its HTTP port, and building it needs nothing but Go.
//
// The page has no way of its own into the group. It reads and changes through the gRPC services, over the connection inside the process and as whoever asks
// (Config.Connect), so that roles, validation, request ids and the audit stand at one door. What it imports of Quorate is the protocol alone.
//
// A noun has one file here and one template: [nouns] lists them. A noun has screens, which are looked at, and changes, which are made. A screen (screen.go) makes
// one read, which is of one revision, and returns the parts of its page. Whoever only asks gets them as a whole page, also without JavaScript. Whoever
// stays is sent the parts that moved, as server-sent events (room.go, stream.go): one room renders for all who look at the same screen with the same role.
// A change (change.go) is first shown, with what will happen and a request id, and made when that form is posted.
package admin

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"sync"
	"time"

	"google.golang.org/grpc"

	"quorate/pki"
)

// root is where the page is on the HTTP port.
const root = "/ui/"

// Config is what a Server needs. Everything but Logger, Now and Limits is required.
type Config struct {
	// Member is the id of the member that serves the page.
	Member string
	// Version is that of the member; an open page is loaded anew where it differs.
	Version string
	// Connect returns a connection to the services on which every call is made for who.
	Connect func(who pki.Identity, address string) (grpc.ClientConnInterface, error)
	// May tells whether a role may call a method. It decides what is offered; what is allowed, the services decide.
	May func(role pki.Role, method string) bool
	// Changed returns a channel that is closed when the replicated state moves.
	Changed func() <-chan struct{}
	// Subscribe has fn called when what this member itself knows moves, its level and what it sees of its peers, until cancel is called. Fn doesn't block.
	Subscribe func(fn func()) (cancel func())
	// Logger is told of failures; nil means slog.Default.
	Logger *slog.Logger
	// Now is the wall clock; nil means time.Now.
	Now func() time.Time
	// Limits may be lowered or raised; a zero one means its default.
	Limits Limits
}

// Limits bound what visitors can make this member spend.
type Limits struct {
	// MaxStreams bounds the open pages that are live, on this member: 128. One more shows what it was loaded with, and tries again.
	MaxStreams int
	// WriteTimeout is how long a browser may take to accept one message of a stream: 10 s. Then the stream ends, and the browser may come back.
	WriteTimeout time.Duration
	// MaxStreamAge is after what time a stream ends, so that its visitor's certificate is looked at again: 15 min.
	MaxStreamAge time.Duration
	// Beat is between two signs of life on a stream: 5 s.
	Beat time.Duration
	// Refresh is after what time a live page is rendered again although nothing has said that anything changed: 2 s. It is for what nobody tells of, such as
	// a member that died.
	Refresh time.Duration
	// Patience is how long a live page waits for members that don't answer: 400 ms.
	Patience time.Duration
	// MinPause and MaxPause bound the time between two renderings of a live page, which is longer where rendering takes long: 50 ms and 100 ms.
	MinPause, MaxPause time.Duration
	// MaxOutcomes is how many of the last changes made here are remembered, to be shown once their form was left: 256.
	MaxOutcomes int
	// MaxFormBytes bounds a form that is posted: 64 KiB.
	MaxFormBytes int64
}

func (l Limits) withDefaults() Limits {
	setDefault(&l.MaxStreams, 128)
	setDefault(&l.WriteTimeout, 10*time.Second)
	setDefault(&l.MaxStreamAge, 15*time.Minute)
	setDefault(&l.Beat, 5*time.Second)
	setDefault(&l.Refresh, 2*time.Second)
	setDefault(&l.Patience, 400*time.Millisecond)
	setDefault(&l.MinPause, 50*time.Millisecond)
	setDefault(&l.MaxPause, 100*time.Millisecond)
	setDefault(&l.MaxOutcomes, 256)
	setDefault(&l.MaxFormBytes, 64<<10)
	return l
}

func setDefault[T comparable](value *T, otherwise T) {
	var zero T
	if *value == zero {
		*value = otherwise
	}
}

// Server serves the page. Make it with New and end it with Close.
type Server struct {
	config   Config
	mux      *http.ServeMux
	rooms    *rooms
	outcomes *outcomes
}

// New makes a server, which is able to serve once Config.Connect is.
func New(config Config) (*Server, error) {
	switch {
	case config.Member == "":
		return nil, errors.New("admin: Config.Member is missing")
	case config.Connect == nil, config.May == nil, config.Changed == nil, config.Subscribe == nil:
		return nil, errors.New("admin: Config.Connect, May, Changed and Subscribe are required")
	}
	if config.Logger == nil {
		config.Logger = slog.Default()
	}
	if config.Now == nil {
		config.Now = time.Now
	}
	config.Limits = config.Limits.withDefaults()
	s := &Server{config: config, mux: http.NewServeMux(), outcomes: newOutcomes(config.Limits.MaxOutcomes)}
	s.rooms = &rooms{server: s, open: make(map[roomKey]*room), closing: make(chan struct{})}
	s.mux.HandleFunc("GET "+staticPath+"{file}", s.static)
	for _, noun := range nouns {
		for _, screen := range noun.screens {
			s.mux.HandleFunc("GET "+root+screen.pattern, func(w http.ResponseWriter, r *http.Request) { s.show(w, r, screen) })
			s.mux.HandleFunc("GET "+livePath+screen.pattern, func(w http.ResponseWriter, r *http.Request) { s.stream(w, r, screen) })
		}
		for _, change := range noun.changes {
			s.mux.HandleFunc("GET "+root+change.pattern, func(w http.ResponseWriter, r *http.Request) { s.propose(w, r, change) })
			s.mux.HandleFunc("POST "+root+change.pattern, func(w http.ResponseWriter, r *http.Request) { s.commit(w, r, change) })
		}
	}
	s.mux.HandleFunc("GET "+root, func(w http.ResponseWriter, r *http.Request) {
		s.fail(w, r, &trouble{Title: "There is no such page", Code: http.StatusNotFound})
	})
	return s, nil
}

// Close ends all streams and what renders for them, and waits for the latter.
func (s *Server) Close() { s.rooms.close() }

// contentSecurityPolicy lets a page load what this member serves, and nothing else; least of all anything that stands in the page itself.
const contentSecurityPolicy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; " +
	"form-action 'self'; frame-ancestors 'none'; base-uri 'none'"

type visitorKey struct{}

// ServePage answers a request of whoever the connection's certificate names.
func (s *Server) ServePage(w http.ResponseWriter, r *http.Request, who pki.Identity) {
	h := w.Header()
	h.Set("Content-Security-Policy", contentSecurityPolicy)
	h.Set("Referrer-Policy", "same-origin")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Cache-Control", "no-store")
	s.mux.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), visitorKey{}, who)))
}

// visitor is who made a request; the zero identity, which may do nothing, without ServePage.
func visitor(r *http.Request) pki.Identity {
	who, _ := r.Context().Value(visitorKey{}).(pki.Identity)
	return who
}

// gate counts what is open at once.
type gate struct {
	mu   sync.Mutex
	open int
}

// enter counts one in, unless as many are in as there may be.
func (g *gate) enter(limit int) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.open >= limit {
		return false
	}
	g.open++
	return true
}

func (g *gate) leave() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.open--
}
