package admin

import (
	"context"
	"crypto/rand"
	"errors"
	"html/template"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"unicode/utf8"

	"google.golang.org/grpc/codes"

	"quorate/pki"
)

// change is something to do. Its page shows what will happen and has the form that does it.
type change struct {
	// pattern is its path below root, as in http.ServeMux.
	pattern string
	// params are the arguments that it understands, from the path, the query and, when it is made, the form.
	params []string
	// method is the call that makes it, whose role is the least that is offered the form.
	method string
	// plan reads what will happen. Nothing is changed by it. A draft that is not right may come with the error, to be made better.
	plan func(context.Context, *reader) (plan, error)
	// make makes it, and returns what was done.
	make func(context.Context, *reader, order) (done, error)
}

// plan is what a change will do.
type plan struct {
	Title string
	// Template shows Data: what will happen.
	Template string
	Data     any
	// Button is what the form's button says, in the words of what it does. Without one there is nothing to do.
	Button string
	// Danger marks what takes something away from clients.
	Danger bool
	// Back is where who doesn't want it goes.
	Back string
	// Based is the generation that the plan is based on, if it depends on it, or the number of what BasedOn names instead.
	Based   uint64
	BasedOn string
	// Inputs is a template of fields to fill in, which is given inputs; empty if there are none.
	Inputs string
	// Ask is what is asked once more before the form of a page, which may be long, is posted; empty where the form itself is the question.
	Ask string
	// Wide marks a plan that needs room.
	Wide bool
}

// order is a form that was posted.
type order struct {
	// id is the request id, made when the form was rendered: who posts it twice gets the first answer again.
	id string
	// based is the number of what the plan was based on.
	based uint64
	form  url.Values
}

// done is what a change did.
type done struct {
	text string
	// revision is that of the change, from which on pages show it.
	revision uint64
	// back is where to look at it.
	back string
}

// Names of form fields and query parameters that all changes have.
const (
	requestField = "request"
	basedField   = "based"
	outcomeParam = "done"
)

// confirmation is the page of a change, or the inside of a dialog.
type confirmation struct {
	plan
	Dialog          bool
	Action, Request string
	// Body is what will happen, and Fields are to be filled in.
	Body, Fields template.HTML
	Hidden       []field
	Trouble      *trouble
	// Refused is why who asks may not do it; empty if they may.
	Refused string
	// Form is what was filled in before.
	Form url.Values
	// Retry marks a form that is to be sent again as it is.
	Retry bool
}

// inputs is what a template of fields to fill in has.
type inputs struct {
	Plan any
	Form url.Values
}

type field struct{ Name, Value string }

// propose shows what a change will do.
func (s *Server) propose(w http.ResponseWriter, r *http.Request, c change) {
	a, wrong := argumentsOf(r, r.URL.Query(), c.params)
	if wrong != nil {
		s.fail(w, r, wrong)
		return
	}
	s.confirm(w, r, c, a, confirmation{Request: rand.Text(), Form: url.Values{}})
}

// confirm shows the form of a change, and with it what became of an attempt before.
func (s *Server) confirm(w http.ResponseWriter, r *http.Request, c change, a arguments, conf confirmation) {
	rd, err := s.reader(r, a)
	if err != nil {
		s.fail(w, r, troubleOf(err))
		return
	}
	conf.plan, err = c.plan(r.Context(), rd)
	if err != nil {
		// What was tried before is the better reason.
		if conf.Trouble == nil {
			conf.Trouble = troubleOf(err)
		}
		if conf.Template == "" {
			s.fail(w, r, conf.Trouble)
			return
		}
	}
	code := http.StatusOK
	if !s.config.May(visitor(r).Role, c.method) {
		code, conf.Refused = http.StatusForbidden, "Your role, "+visitor(r).Role.String()+", may look at this and not do it."
	}
	if conf.Trouble != nil {
		code = conf.Trouble.Code
	}
	conf.Action = r.URL.EscapedPath()
	for _, name := range c.params {
		if value, ok := a[name]; ok && r.PathValue(name) == "" {
			conf.Hidden = append(conf.Hidden, field{name, value})
		}
	}
	conf.Body = s.fragment(conf.Template, conf.Data)
	if conf.Inputs != "" {
		conf.Fields = s.fragment(conf.Inputs, inputs{conf.Data, conf.Form})
	}
	if inDialog(r) {
		conf.Dialog = true
		s.write(w, r, code, "confirmation", conf)
		return
	}
	l := s.layout(r, conf.Title)
	l.Confirmation = &conf
	s.write(w, r, code, "page", l)
}

// commit makes a change, and then leads to where it is seen, so that loading that page again does nothing.
func (s *Server) commit(w http.ResponseWriter, r *http.Request, c change) {
	r.Body = http.MaxBytesReader(w, r.Body, s.config.Limits.MaxFormBytes)
	if err := r.ParseForm(); err != nil {
		code := http.StatusBadRequest
		var large *http.MaxBytesError
		if errors.As(err, &large) {
			code = http.StatusRequestEntityTooLarge
		}
		s.fail(w, r, &trouble{Title: "The form can't be read", Message: err.Error(), Code: code})
		return
	}
	a, wrong := argumentsOf(r, r.PostForm, c.params)
	var o order
	if wrong == nil {
		o, wrong = orderOf(r.PostForm)
	}
	if wrong != nil {
		s.fail(w, r, wrong)
		return
	}
	rd, err := s.reader(r, a)
	if err != nil {
		s.fail(w, r, troubleOf(err))
		return
	}
	made, err := c.make(r.Context(), rd, o)
	if err != nil {
		s.refuse(w, r, c, a, o, err)
		return
	}
	s.outcomes.add(o.id, outcome{who: visitor(r).Name, text: made.text, revision: made.revision})
	http.Redirect(w, r, made.back+"?"+url.Values{outcomeParam: {o.id}}.Encode(), http.StatusSeeOther)
}

// refuse shows the form again, with why it was not done. Where that isn't known, the form keeps its request id, so that sending it again finds out.
func (s *Server) refuse(w http.ResponseWriter, r *http.Request, c change, a arguments, o order, err error) {
	t := troubleOf(err)
	switch t.status {
	case codes.PermissionDenied, codes.Unauthenticated:
		s.fail(w, r, t)
		return
	}
	conf := confirmation{Trouble: t, Form: o.form, Request: o.id, Retry: t.again()}
	if !conf.Retry {
		conf.Request = rand.Text()
	}
	s.confirm(w, r, c, a, conf)
}

// orderOf reads what all forms have.
func orderOf(form url.Values) (order, *trouble) {
	o := order{id: form.Get(requestField), form: form}
	if o.id == "" {
		return o, wrongField(requestField, "is missing")
	}
	if !isLine(o.id) {
		return o, wrongField(requestField, "is no request id")
	}
	for name, values := range form {
		// The services take text alone.
		if !utf8.ValidString(strings.Join(values, "")) {
			return o, wrongField(name, "is not text")
		}
	}
	if text := form.Get(basedField); text != "" {
		var err error
		if o.based, err = strconv.ParseUint(text, 10, 64); err != nil {
			return o, wrongField(basedField, "is not the number of what the form is based on")
		}
	}
	return o, nil
}

// outcomes remembers the last changes that were made here, to show each to who made it. It is no record: the audit and the log are.
type outcomes struct {
	limit int

	mu   sync.Mutex
	byID map[string]outcome
	ids  []string // in order of their making
}

type outcome struct {
	who, text string
	revision  uint64
}

func newOutcomes(limit int) *outcomes { return &outcomes{limit: limit, byID: make(map[string]outcome)} }

func (o *outcomes) add(id string, made outcome) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if _, ok := o.byID[id]; !ok {
		if len(o.ids) == o.limit {
			delete(o.byID, o.ids[0])
			o.ids = o.ids[1:]
		}
		o.ids = append(o.ids, id)
	}
	o.byID[id] = made
}

// of returns what a visitor's change did, nil if that is not remembered, or somebody else's.
func (o *outcomes) of(id string, who pki.Identity) *outcome {
	o.mu.Lock()
	defer o.mu.Unlock()
	if made, ok := o.byID[id]; ok && made.who == who.Name {
		return &made
	}
	return nil
}
