package admin

import (
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"golang.org/x/net/html"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	quoratev1 "quorate/proto/quorate/v1"
)

// hostile is what somebody may type wherever text is free, and more than that where it isn't.
const hostile = `"><script>alert(1)</script><img src=x onerror=alert(2)>' onmouseover=alert(3) x='<hx-partial hx-target="body">javascript:alert(4)`

// poison puts hostile text into every field of a message that holds text, except for those whose words decide what a page is made of.
func poison(m protoreflect.Message, keep map[protoreflect.Name]bool) {
	m.Range(func(field protoreflect.FieldDescriptor, value protoreflect.Value) bool {
		switch {
		case keep[field.Name()] || field.IsMap():
		case field.Message() != nil && field.Message().ParentFile().Package() != "quorate.v1":
		case field.IsList() && field.Message() != nil:
			for i := range value.List().Len() {
				poison(value.List().Get(i).Message(), keep)
			}
		case field.IsList() && field.Kind() == protoreflect.StringKind:
			for i := range value.List().Len() {
				value.List().Set(i, protoreflect.ValueOfString(hostile))
			}
		case field.Message() != nil:
			poison(value.Message(), keep)
		case field.Kind() == protoreflect.StringKind:
			m.Set(field, protoreflect.ValueOfString(hostile))
		}
		return true
	})
}

// full gives every field of a message a value, so that nothing is left out of what is poisoned.
func full(m protoreflect.Message, depth int) {
	fields := m.Descriptor().Fields()
	for i := range fields.Len() {
		field := fields.Get(i)
		oneof := field.ContainingOneof()
		if depth == 0 || m.Has(field) || oneof != nil && !oneof.IsSynthetic() {
			continue
		}
		switch {
		case field.IsMap():
		case field.IsList():
			list := m.Mutable(field).List()
			if field.Message() != nil {
				full(list.AppendMutable().Message(), depth-1)
			} else if field.Kind() == protoreflect.StringKind {
				list.Append(protoreflect.ValueOfString("x"))
			}
		case field.Message() != nil:
			full(m.Mutable(field).Message(), depth-1)
		case field.Kind() == protoreflect.StringKind:
			m.Set(field, protoreflect.ValueOfString("x"))
		case field.Kind() == protoreflect.BoolKind:
			m.Set(field, protoreflect.ValueOfBool(true))
		case field.Kind() == protoreflect.EnumKind:
			m.Set(field, protoreflect.ValueOfEnum(1))
		}
	}
}

// checkInert parses a page as a browser does, and looks for anything that could run or load what is not the page's own.
func checkInert(t *testing.T, where, page string) {
	t.Helper()
	tokens := html.NewTokenizer(strings.NewReader(page))
	for {
		switch tokens.Next() {
		case html.ErrorToken:
			return
		case html.StartTagToken, html.SelfClosingTagToken:
			token := tokens.Token()
			for _, a := range token.Attr {
				switch {
				case strings.HasPrefix(a.Key, "on"), a.Key == "style", a.Key == "srcdoc":
					t.Errorf("%s: <%s %s=%q>", where, token.Data, a.Key, a.Val)
				case a.Key == "src" && !strings.HasPrefix(a.Val, staticPath), a.Key == "action" && !strings.HasPrefix(a.Val, root),
					a.Key == "href" && !strings.HasPrefix(a.Val, root) && a.Val != "#main" && a.Val != "/openapi.json",
					strings.HasPrefix(a.Key, "hx-get") && !strings.HasPrefix(a.Val, root), a.Key == "hx-target" && !strings.HasPrefix(a.Val, "#"):
					t.Errorf("%s: <%s %s=%q>", where, token.Data, a.Key, a.Val)
				}
			}
			if token.Data == "script" && tokens.Next() == html.TextToken {
				t.Errorf("%s: a script with something in it: %s", where, tokens.Raw())
			}
			if token.Data == "style" || token.Data == "iframe" || token.Data == "object" || token.Data == "base" {
				t.Errorf("%s: <%s>", where, token.Data)
			}
		}
	}
}

// eachEvent is an event of every kind, with all its fields.
func eachEvent() (events []*quoratev1.Event) {
	fields := (&quoratev1.Event{}).ProtoReflect().Descriptor().Oneofs().ByName("body").Fields()
	for i := range fields.Len() {
		e := &quoratev1.Event{Revision: uint64(100 - i)}
		full(e.ProtoReflect(), 6)
		full(e.ProtoReflect().Mutable(fields.Get(i)).Message(), 6)
		events = append(events, e)
	}
	return events
}

func TestTextIsInertWhereverItStands(t *testing.T) {
	s := readyToChange(t, administrator)
	s.set(func(o *quoratev1.GetOverviewResponse) {
		for _, m := range o.Members {
			m.Reasons = []string{"x"}
			m.Diverged = m.Id == "m3"
			for _, p := range m.Peers {
				p.LastError, p.Reachable = "x", false
			}
		}
		o.Leases = []*quoratev1.ApplyLease{{Key: &quoratev1.LeaseKey{Server: "m1", PublishRequestId: "x"}, Actor: &quoratev1.Actor{Name: "x"}, Reason: "x", Outcome: "x"}}
		o.Maintenance = []*quoratev1.Maintenance{{Server: "m1", Active: true, Reason: "x", Actor: &quoratev1.Actor{Name: "x"}}}
		full(o.ProtoReflect(), 8)
		// The words by which a page finds its set and its servers stay in the first round.
		poison(o.ProtoReflect(), map[protoreflect.Name]bool{"id": true, "member": true, "server": true, "set": true, "band": true})
	})
	for _, e := range eachEvent() {
		poison(e.ProtoReflect(), nil)
		s.events = append(s.events, e)
	}
	plan := s.answers[planMethod].(*quoratev1.PlanTopologyResponse)
	full(plan.ProtoReflect(), 6)
	poison(plan.ProtoReflect(), nil)
	see := func() {
		t.Helper()
		for _, path := range everything {
			page := s.get(t, path)
			checkInert(t, path, page.body)
			w := s.watch(t, s.live(path))
			checkInert(t, "the stream of "+path, w.page())
			w.cancel()
		}
		for _, c := range changesThere {
			checkInert(t, c.path, s.get(t, c.path).body)
		}
	}
	see()
	if page := s.get(t, "/ui/timeline"); strings.Count(page.body, "alert(1)") < 4*len(s.events) {
		t.Errorf("the timeline shows less than it should:\n%s", page.body)
	}
	if page := s.get(t, "/ui/redundancy/line-a"); strings.Count(page.body, "alert(1)") < 10 {
		t.Errorf("the set's page shows less than it should:\n%s", page.body)
	}
	// Who began it, a note, and the text of a copy, beside the names of the placements.
	for path, least := range map[string]int{"/ui/partitions/id/p2": 8, "/ui/partitions": 20, "/ui/partitions/id/p2/cutover": 4, "/ui/partitions/id/p1/begin?to=west": 3} {
		if page := s.get(t, path); strings.Count(page.body, "alert(1)") < least {
			t.Errorf("%s shows less than it should:\n%s", path, page.body)
		}
	}
	// And now everything, ids as well.
	s.set(func(o *quoratev1.GetOverviewResponse) { poison(o.ProtoReflect(), nil) })
	see()
	h := url.QueryEscape(hostile)
	for _, path := range []string{
		"/ui/redundancy/" + url.PathEscape(hostile), "/ui/timeline?kind=" + h, "/ui/timeline?set=" + h + "&server=" + h, "/ui/?done=" + h, "/ui/members/transfer?to=" + h,
		"/ui/redundancy/line-a/maintenance?active=true&server=" + h, "/ui/redundancy/line-a/swap?to=" + h, "/ui/" + url.PathEscape(hostile),
		"/ui/partitions?prefix=" + h + "&placement=" + h + "&after=" + h, "/ui/partitions/id/" + url.PathEscape(hostile), "/ui/timeline?partition=" + h,
		"/ui/partitions/id/" + url.PathEscape(hostile) + "/begin?to=" + h + "&barrier=" + h + "&servers=" + h,
	} {
		checkInert(t, path, s.get(t, path).body)
	}
	// What somebody typed comes back when it was not taken.
	s.failures[maintenance] = refused(codes.InvalidArgument, hostile, hostile, map[string]string{"current_generation": hostile})
	s.set(func(o *quoratev1.GetOverviewResponse) { proto.Reset(o); proto.Merge(o, demo()) })
	posted := s.do(t, http.MethodPost, "/ui/redundancy/line-a/maintenance", url.Values{"request": {"x"}, "server": {"m1"}, "active": {"true"}, "reason": {hostile}, "minutes": {hostile[:20]}})
	checkInert(t, "a refused form", posted.body)
	posted = s.do(t, http.MethodPost, "/ui/redundancy/line-a/maintenance", url.Values{"request": {"x"}, "server": {"m1"}, "active": {"true"}, "reason": {hostile}})
	checkInert(t, "a refused form", posted.body)
	posted.wants(t, http.StatusBadRequest, `value="&#34;&gt;&lt;script&gt;alert(1)`)
	s.failures[beginMethod] = refused(codes.Aborted, reasonStaleEpoch, hostile, map[string]string{"current_epoch": hostile, "phase": hostile})
	posted = s.do(t, http.MethodPost, "/ui/partitions/id/p1/begin", url.Values{"request": {"x"}, "based": {"7"}, "to": {"west"}, "barrier": {hostile}, "note": {hostile}})
	checkInert(t, "a draft that is not right", posted.body)
	posted = s.do(t, http.MethodPost, "/ui/partitions/id/p1/begin", url.Values{"request": {"x"}, "based": {"7"}, "to": {"west"}, "note": {hostile}})
	checkInert(t, "a refused draft", posted.body)
	posted.wants(t, http.StatusConflict, `id="note" name="note" maxlength="256" autocomplete="off" value="&#34;&gt;&lt;script&gt;alert(1)`)
}

// The policy lets nothing run or look as it stands in a page, so nothing may be written that way: it would only not work.
func TestTemplatesHaveNoInlineScriptsOrStyles(t *testing.T) {
	files, err := filepath.Glob("templates/*.html")
	if err != nil || len(files) != len(nouns)+1 {
		t.Fatalf("%d templates for %d nouns and the page around them, %v", len(files), len(nouns), err)
	}
	inline := regexp.MustCompile(`\sstyle=|\son[a-z]+=|<style|hx-on|javascript:|hx-vals=.js|<script(?: src="[^"]+\}\}")?>[^<]`)
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if found := inline.FindString(string(text)); found != "" {
			t.Errorf("%s has %q", file, found)
		}
		// So that no noun's templates overwrite another's.
		name := strings.TrimSuffix(filepath.Base(file), ".html")
		for _, defined := range regexp.MustCompile(`\{\{define "([^"]+)"`).FindAllStringSubmatch(string(text), -1) {
			if name != "page" && !strings.HasPrefix(defined[1], name+".") {
				t.Errorf("%s defines %q", file, defined[1])
			}
		}
	}
}

// FuzzPage asks for any page and posts any form: it is answered, and what comes back of it is inert.
func FuzzPage(f *testing.F) {
	for _, path := range everything {
		f.Add(path, "", "")
	}
	for _, c := range changesThere {
		f.Add(c.path, "request=r&based=3&to=m2&server=m1&active=true&reason=x&minutes=5&made=7", "true")
	}
	f.Add("/ui/timeline?before=7&sequence=x&kind="+url.QueryEscape(hostile), "request="+url.QueryEscape(hostile), "")
	f.Add("/ui/redundancy/%2e%2e/swap", "%zz&request=a;b", "")
	f.Fuzz(func(t *testing.T, path, form, dialog string) {
		if !strings.HasPrefix(path, root) {
			return
		}
		target, err := url.ParseRequestURI(path)
		if err != nil || strings.HasPrefix(target.Path, livePath) || strings.HasPrefix(target.Path, staticPath) {
			return
		}
		s := readyToChange(t, administrator)
		defer s.Close()
		for _, method := range []string{http.MethodGet, http.MethodPost} {
			request := &http.Request{Method: method, URL: target, Header: http.Header{"Content-Type": {"application/x-www-form-urlencoded"}, "Hx-Request": {dialog}}, RequestURI: path}
			request.Body = http.NoBody
			if method == http.MethodPost {
				r, err := http.NewRequest(method, "/", strings.NewReader(form))
				if err != nil {
					t.Fatal(err)
				}
				request.Body = r.Body
			}
			w := &answered{}
			s.ServePage(w, request.WithContext(t.Context()), administrator)
			if w.code == http.StatusInternalServerError {
				t.Errorf("%s %q, %q: %s", method, path, form, w.written.String())
			}
			checkInert(t, method+" "+path, w.written.String())
		}
	})
}

// answered is a recorder that keeps the status.
type answered struct {
	recorder
	code int
}

func (a *answered) WriteHeader(code int) { a.code = code }
