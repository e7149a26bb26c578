package admin

import (
	"cmp"
	"context"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	quoratev1 "quorate/proto/quorate/v1"
)

// nouns are what the page is made of, in the order of its navigation. Who adds one writes its file and its template, and a line here.
var nouns = []noun{overviewNoun, redundancyNoun, partitionNoun, memberNoun, timelineNoun}

// noun is one entry of the navigation.
type noun struct {
	title   string
	path    string // below root
	screens []screen
	changes []change
}

// screen is something to look at, live.
type screen struct {
	// pattern is its path below root, as in http.ServeMux.
	pattern string
	// params are the arguments that it understands: those in the pattern, and those of the query. Others are ignored.
	params []string
	title  func(arguments) string
	// read makes one read and returns the parts of the page that belong to this screen, after those that all pages have. An error that it returns beside
	// an overview leaves the latter on the page.
	read func(context.Context, *reader) ([]part, error)
	// pause is the least time between two renderings while it is live, where Limits.MinPause is not enough: of what costs more, and moves more often.
	pause time.Duration
}

// arguments are the parameters of a request, each a printable line of modest length.
type arguments map[string]string

// maxArgument is the longest argument, in bytes: of the servers of a migration, eight ids.
const maxArgument = 8 * 65

// isLine tells whether text is one line of modest length. Bytes that are no text decode as U+FFFD.
func isLine(text string) bool {
	return len(text) <= maxArgument && !strings.ContainsFunc(text, func(c rune) bool { return c < ' ' || c == 0x7f || c == utf8.RuneError })
}

// argumentsOf reads those parameters from the path, and then from the values. The trouble names the first one that is wrong.
func argumentsOf(r *http.Request, values url.Values, params []string) (arguments, *trouble) {
	a := make(arguments)
	for _, name := range params {
		value := r.PathValue(name)
		if value == "" {
			value = values.Get(name)
		}
		if !isLine(value) {
			return nil, &trouble{Title: "The address of this page is not right", Field: name, Code: http.StatusBadRequest,
				Message: "it is too long, or not one line of text"}
		}
		if value != "" {
			a[name] = value
		}
	}
	return a, nil
}

// address is a page below root with the same arguments, but for those that are changed; one that is empty is left out.
func (r *reader) address(path string, changes map[string]string) string {
	a := maps.Clone(r.arguments)
	for name, value := range changes {
		if delete(a, name); value != "" {
			a[name] = value
		}
	}
	u := url.URL{Path: root + path, RawQuery: a.query("")}
	return u.String()
}

// query is the arguments that are not in the path, sorted.
func (a arguments) query(pattern string) string {
	values := url.Values{}
	for name, value := range a {
		if !strings.Contains(pattern, "{"+name+"}") {
			values.Set(name, value)
		}
	}
	return values.Encode()
}

// reader reads for a page.
type reader struct {
	arguments
	conn grpc.ClientConnInterface
	// least is the revision that the page has to reflect, 0 for any.
	least uint64
	// patience is how long it waits for members that don't answer.
	patience time.Duration
	now      time.Time
	// group is what every page shows of the group; overview sets it.
	group *quoratev1.GetOverviewResponse
	may   func(method string) bool
}

// local is how pages read: without a leader they show what this member knows.
func (r *reader) local() *quoratev1.ReadOptions {
	return &quoratev1.ReadOptions{Consistency: quoratev1.Consistency_CONSISTENCY_LOCAL, MinRevision: r.least}
}

// overview reads everything at one revision; of one set's levels and roll-out, with as many changes of level, if it is named.
func (r *reader) overview(ctx context.Context, set string, changes uint32) (*quoratev1.GetOverviewResponse, error) {
	return r.ask(ctx, &quoratev1.GetOverviewRequest{Set: set, LevelChanges: changes})
}

// ask reads an overview.
func (r *reader) ask(ctx context.Context, request *quoratev1.GetOverviewRequest) (*quoratev1.GetOverviewResponse, error) {
	client := quoratev1.NewOverviewServiceClient(r.conn)
	request.Read = r.local()
	hurried, cancel := context.WithTimeout(ctx, r.patience)
	defer cancel()
	answer, err := client.GetOverview(hurried, request)
	if status.Code(err) == codes.DeadlineExceeded && ctx.Err() == nil {
		// It was this member that took too long: late is better than nothing.
		answer, err = client.GetOverview(ctx, request)
	}
	if err != nil {
		return nil, err
	}
	r.group = answer
	return answer, nil
}

// part is what is rendered by itself, and sent by itself when it moved.
type part struct {
	// template is its template, and what it is recognised by where key is empty.
	template string
	key      string
	data     any
}

// rendered is a part as HTML.
type rendered struct{ key, html string }

// rendering is a whole screen: the parts that every page has, and then its own.
type rendering struct{ parts []rendered }

// groupParts is how many parts every page has before its own: the state of the group, and what is wrong with it.
const groupParts = 2

// sameParts tells whether the parts are the same, though what is in them may have moved.
func (r rendering) sameParts(other rendering) bool {
	return slices.EqualFunc(r.parts, other.parts, func(a, b rendered) bool { return a.key == b.key })
}

// render reads a screen and renders its parts. Where it can't be read, the page says why, and code is the status of that.
func (s *Server) render(ctx context.Context, sc screen, r *reader) (rendering, int) {
	parts, err := sc.read(ctx, r)
	code := http.StatusOK
	if err != nil {
		t := troubleOf(err)
		code, parts = t.Code, []part{{template: "trouble", data: t}}
		if r.group == nil {
			// It may be only this screen that can't be read.
			_, _ = r.overview(ctx, "", 0)
		}
	}
	group := newGroupView(s.config.Member, r.group, r.now)
	all := append([]part{{template: "status", data: group}, {template: "alerts", data: group}}, parts...)
	var out rendering
	for _, p := range all {
		out.parts = append(out.parts, rendered{cmp.Or(p.key, p.template), string(s.fragment(p.template, p.data))})
	}
	return out, code
}

// reader returns what reads for a request.
func (s *Server) reader(r *http.Request, a arguments) (*reader, error) {
	who := visitor(r)
	conn, err := s.config.Connect(who, r.RemoteAddr)
	if err != nil {
		return nil, err
	}
	return &reader{
		arguments: a, conn: conn, now: s.config.Now(), patience: s.config.Limits.Patience,
		may: func(method string) bool { return s.config.May(who.Role, method) },
	}, nil
}

// show answers with a whole page.
func (s *Server) show(w http.ResponseWriter, r *http.Request, sc screen) {
	a, wrong := argumentsOf(r, r.URL.Query(), sc.params)
	if wrong != nil {
		s.fail(w, r, wrong)
		return
	}
	rd, err := s.reader(r, a)
	if err != nil {
		s.fail(w, r, troubleOf(err))
		return
	}
	done := s.outcomes.of(r.URL.Query().Get(outcomeParam), visitor(r))
	if done != nil {
		rd.least = done.revision
	}
	page, code := s.render(r.Context(), sc, rd)
	l := s.layout(r, sc.title(a))
	l.Live = livePath + strings.TrimPrefix(r.URL.EscapedPath(), root) + "?" + liveQuery(a.query(sc.pattern), s.version())
	if done != nil {
		l.Done = done.text
	}
	l.fill(page)
	s.write(w, r, code, "page", l)
}
