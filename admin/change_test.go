package admin

import (
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"

	"quorate/pki"
	quoratev1 "quorate/proto/quorate/v1"
)

// Methods that changes call.
const (
	getTopology = quoratev1.TopologyService_GetTopology_FullMethodName
	planMethod  = quoratev1.TopologyService_PlanTopology_FullMethodName
	publish     = quoratev1.TopologyService_PublishTopology_FullMethodName
	resume      = quoratev1.ApplyService_ResumeApply_FullMethodName
	rollback    = quoratev1.ApplyService_RollbackApply_FullMethodName
	maintenance = quoratev1.MaintenanceService_SetMaintenance_FullMethodName
	transfer    = quoratev1.MemberService_TransferLeadership_FullMethodName
)

// readyToChange is a group that takes every change, with a roll-out that has stopped.
func readyToChange(t *testing.T, who pki.Identity) *site {
	t.Helper()
	s := serve(t, who, Limits{})
	header := &quoratev1.ResponseHeader{Revision: 50, Generation: 4, Member: "m1"}
	levels := []*quoratev1.PlannedLevel{{Set: "line-a", Server: "m1", Role: "Backup", Level: 100}, {Set: "line-a", Server: "m2", Role: "Primary", Level: 255}}
	s.answers[getTopology] = &quoratev1.GetTopologyResponse{Header: header, Generation: s.overview.GetGeneration()}
	s.answers[planMethod] = &quoratev1.PlanTopologyResponse{
		Header: header, NextGeneration: 4, Digest: strings.Repeat("cd", 32),
		Changes: []*quoratev1.TopologyChange{{Path: "sets[line-a].servers[m1].role", Before: "Primary", After: "Backup"}},
		Rollouts: []*quoratev1.PlannedRollout{{Set: "line-a", Steps: []*quoratev1.PlannedStep{
			{Action: "publish", Levels: levels, Clients: []*quoratev1.PlannedClient{{Kind: "standard", Server: "m2", Moved: true}}},
			{Action: "apply m1", Levels: levels, Clients: []*quoratev1.PlannedClient{{Kind: "standard", Server: "m2"}}},
			{Action: "done", Levels: levels, Clients: []*quoratev1.PlannedClient{{Kind: "standard", Server: "m2"}}},
		}}},
	}
	s.answers[publish] = &quoratev1.PublishTopologyResponse{Header: header, Generation: &quoratev1.Generation{Number: 4}}
	s.answers[resume] = &quoratev1.ResumeApplyResponse{Header: header, Rollout: &quoratev1.Rollout{Set: "line-a", Generation: 3}}
	s.answers[rollback] = &quoratev1.RollbackApplyResponse{Header: header, Generation: &quoratev1.Generation{Number: 4}}
	s.answers[maintenance] = &quoratev1.SetMaintenanceResponse{Header: header}
	maps.Copy(s.answers, partitionAnswers())
	s.answers[transfer] = &quoratev1.TransferLeadershipResponse{Header: header, Leader: "m2"}
	s.set(func(o *quoratev1.GetOverviewResponse) {
		o.Rollouts[0].State = quoratev1.RolloutState_ROLLOUT_STATE_STOPPED
		o.Rollouts[0].Servers[0].State, o.Rollouts[0].Servers[0].Outcome = quoratev1.ApplyState_APPLY_STATE_FAILED, "exit status 1"
		o.Rollouts[0].Servers[0].AppliedGeneration = 2
	})
	return s
}

// changeThere is a change, with what its page says, what its form is filled with, and what it does.
type changeThere struct {
	path, method string
	says         []string
	fill         url.Values
	done         string
}

// changesThere are all of them.
var changesThere = append([]changeThere{
	{"/ui/redundancy/line-a/swap", publish, []string{"Draft: make m2 the Primary of line-a", "sets[line-a].servers[m1].role", "moves to m2", "apply m1", "Publish generation 4", "m2 becomes the Primary"},
		nil, "Generation 4 is published"},
	{"/ui/redundancy/line-a/resume", resume, []string{"Resume the roll-out of generation 3", "exit status 1"}, nil, "The roll-out of generation 3 goes on"},
	{"/ui/redundancy/line-a/rollback", rollback, []string{"Roll generation 3 back in line-a", "as it was in generation 2", "Publish generation 4"}, nil, "Generation 4 is published"},
	{"/ui/redundancy/line-a/maintenance?server=m1&active=true", maintenance, []string{"Put m1 into maintenance", "No other server of the set is at 200 or more"},
		url.Values{"reason": {"new disk"}, "minutes": {"30"}}, "m1 is in maintenance"},
	{"/ui/redundancy/line-a/maintenance?server=m1&active=false", maintenance, []string{"End the maintenance of m1"}, nil, "The maintenance of m1 is over"},
	{"/ui/members/transfer?to=m2", transfer, []string{"Transfer leadership to m2", "No ServiceLevel moves"}, nil, "m2 leads the group"},
}, partitionChanges...)

func TestChangesAreShownAndThenMade(t *testing.T) {
	s := readyToChange(t, administrator)
	for _, c := range changesThere {
		page := s.get(t, c.path)
		page.wants(t, http.StatusOK, c.says...)
		form := hiddenFields(page.body)
		if len(form.Get("request")) < 20 {
			t.Errorf("%s: request id %q", c.path, form.Get("request"))
		}
		if n := len(s.called(c.method)); n != 0 && c.method != maintenance {
			t.Errorf("%s was called before it was confirmed", c.method)
		}
		for name, value := range c.fill {
			form[name] = value
		}
		// Posting twice asks for the same twice, which the group answers once.
		path, _, _ := strings.Cut(c.path, "?")
		var to string
		for range 2 {
			posted := s.do(t, http.MethodPost, path, form)
			if posted.code != http.StatusSeeOther {
				t.Fatalf("%s: %d\n%s", c.path, posted.code, posted.body)
			}
			to = posted.header.Get("Location")
		}
		made := s.called(c.method)
		first, second := made[len(made)-2], made[len(made)-1]
		if fmt.Sprint(first.request) != fmt.Sprint(second.request) || first.who != administrator {
			t.Errorf("%s: %v and then %v, as %v", c.path, first.request, second.request, first.who)
		}
		if r, ok := first.request.(interface{ GetRequestId() string }); ok && r.GetRequestId() != form.Get("request") {
			t.Errorf("%s: request id %q, want %q", c.path, r.GetRequestId(), form.Get("request"))
		}
		s.get(t, to).wants(t, http.StatusOK, c.done)
		// The page shows the change: it is of its revision or a later one.
		reads := s.called(quoratev1.OverviewService_GetOverview_FullMethodName)
		if least := reads[len(reads)-1].request.(*quoratev1.GetOverviewRequest).GetRead().GetMinRevision(); least != 50 {
			t.Errorf("%s leads to a page of revision %d or later", c.path, least)
		}
		// What somebody else did is not shown.
		s.who = viewer
		s.get(t, to).lacks(t, c.done)
		s.who = administrator
	}
}

func TestChangesAskForWhatTheyShow(t *testing.T) {
	s := readyToChange(t, administrator)
	post := func(path string, form url.Values) { t.Helper(); s.do(t, http.MethodPost, path, form) }
	post("/ui/redundancy/line-a/swap", url.Values{"request": {"r1"}, "based": {"3"}, "to": {"m2"}})
	published := s.called(publish)[0].request.(*quoratev1.PublishTopologyRequest)
	if published.GetExpectedGeneration() != 3 || published.GetTopology().GetSets()[0].GetServers()[1].GetRole() != "Primary" || published.GetTopology().GetSets()[0].GetServers()[0].GetRole() != "Backup" {
		t.Errorf("published %v", published)
	}
	if read := s.called(getTopology)[0].request.(*quoratev1.GetTopologyRequest); read.GetGeneration() != 3 {
		t.Errorf("the draft is made of %v", read)
	}
	post("/ui/redundancy/line-a/rollback", url.Values{"request": {"r2"}, "based": {"3"}})
	if r := s.called(rollback)[0].request.(*quoratev1.RollbackApplyRequest); r.GetExpectedGeneration() != 3 || r.GetSet() != "line-a" {
		t.Errorf("rolled back %v", r)
	}
	post("/ui/redundancy/line-a/maintenance", url.Values{"request": {"r3"}, "server": {"m1"}, "active": {"true"}, "reason": {"new disk"}, "minutes": {"30"}, "made": {"1000"}})
	m := s.called(maintenance)[0].request.(*quoratev1.SetMaintenanceRequest)
	if m.GetServer() != "m1" || !m.GetActive() || m.GetReason() != "new disk" || !m.GetEstimatedReturn().AsTime().Equal(time.Unix(1000+30*60, 0)) {
		t.Errorf("maintenance %v", m)
	}
}

func TestADialogHasTheSameForm(t *testing.T) {
	s := readyToChange(t, administrator)
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, s.url+"/ui/members/transfer?to=m2", nil)
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("HX-Request", "true")
	w := &recorder{}
	s.ServePage(w, request, administrator)
	if got := w.written.String(); !strings.Contains(got, `<h2 id="dialog-title">`) || !strings.Contains(got, `action="/ui/members/transfer"`) || strings.Contains(got, "<html") {
		t.Errorf("the dialog is %s", got)
	}
}

func TestAViewerIsShownNoForm(t *testing.T) {
	s := readyToChange(t, viewer)
	for _, c := range changesThere {
		page := s.get(t, c.path)
		page.wants(t, http.StatusForbidden, "Your role, viewer, may look at this and not do it.")
		page.lacks(t, "<form method=\"post\"")
	}
}

// What a service refuses is shown, whoever offered it.
func TestARefusalIsShown(t *testing.T) {
	s := readyToChange(t, viewer)
	s.failures[maintenance] = refused(codes.PermissionDenied, "PERMISSION_DENIED", `viewer "vera" may not; it takes the role operator`, nil)
	posted := s.do(t, http.MethodPost, "/ui/redundancy/line-a/maintenance", url.Values{"request": {"r1"}, "server": {"m1"}, "active": {"true"}})
	posted.wants(t, http.StatusForbidden, "Your role may not do that", "it takes the role operator", "PERMISSION_DENIED")
}

func TestALostCompareNamesTheCurrentGeneration(t *testing.T) {
	s := readyToChange(t, operator)
	s.failures[publish] = refused(codes.Aborted, "GENERATION_CONFLICT", "generation 5 is current, not 3", map[string]string{"current_generation": "5"})
	posted := s.do(t, http.MethodPost, "/ui/redundancy/line-a/swap", url.Values{"request": {"r1"}, "based": {"3"}, "to": {"m2"}})
	posted.wants(t, http.StatusConflict, "Another generation was published meanwhile", "Generation 5 is current. Nothing was changed.", "Draft: make m2 the Primary")
	if form := hiddenFields(posted.body); form.Get("request") == "r1" || form.Get("request") == "" {
		t.Errorf("the new draft has request id %q", form.Get("request"))
	}
}

// Where the outcome isn't known, the same form finds out.
func TestAnUnknownOutcomeKeepsTheRequestID(t *testing.T) {
	s := readyToChange(t, operator)
	s.failures[maintenance] = refused(codes.Unknown, reasonUnknownOutcome, "it may have happened", nil)
	form := url.Values{"request": {"r1"}, "server": {"m1"}, "active": {"true"}, "reason": {"new <disk>"}, "minutes": {"30"}, "made": {"1000"}}
	posted := s.do(t, http.MethodPost, "/ui/redundancy/line-a/maintenance", form)
	posted.wants(t, http.StatusServiceUnavailable, "It is not known whether that was done", "Send the form again as it is", "Send again: Put m1 into maintenance", `value="new &lt;disk&gt;"`, `value="30"`)
	again := hiddenFields(posted.body)
	for _, name := range []string{"request", "server", "active", "made"} {
		if again.Get(name) != form.Get(name) {
			t.Errorf("%s is %q the second time", name, again.Get(name))
		}
	}
	delete(s.failures, maintenance)
	if posted := s.do(t, http.MethodPost, "/ui/redundancy/line-a/maintenance", again); posted.code != http.StatusSeeOther {
		t.Errorf("the second time: %d", posted.code)
	}
}

func TestFormsThatAreNotRight(t *testing.T) {
	s := readyToChange(t, administrator)
	swap, maintain := "/ui/redundancy/line-a/swap", "/ui/redundancy/line-a/maintenance"
	for _, c := range []struct {
		path  string
		form  url.Values
		field string
	}{
		{swap, url.Values{"based": {"3"}, "to": {"m2"}}, "request"},
		{swap, url.Values{"request": {strings.Repeat("x", maxArgument+1)}, "based": {"3"}}, "request"},
		{swap, url.Values{"request": {"a\nb"}, "based": {"3"}}, "request"},
		{swap, url.Values{"request": {"r"}, "based": {"three"}}, "based"},
		{swap, url.Values{"request": {"r"}, "to": {"m2"}}, "based"},
		{swap, url.Values{"request": {"r"}, "based": {"3"}, "to": {"m1"}}, "to"},
		{swap, url.Values{"request": {"r"}, "based": {"3"}, "to": {"m9"}}, "to"},
		{swap, url.Values{"request": {"r"}, "based": {"3"}, "to": {"\xff"}}, "to"},
		{maintain, url.Values{"request": {"r"}, "server": {"m1"}, "active": {"true"}, "minutes": {"0"}}, "minutes"},
		{maintain, url.Values{"request": {"r"}, "server": {"m1"}, "active": {"true"}, "minutes": {"43201"}}, "minutes"},
		{maintain, url.Values{"request": {"r"}, "server": {"m1"}, "active": {"true"}, "minutes": {"5"}, "made": {"now"}}, "made"},
		{maintain, url.Values{"request": {"r"}, "server": {"m1"}, "active": {"true"}, "reason": {"\xff"}}, "reason"},
		{"/ui/members/transfer", url.Values{"request": {"r"}}, "to"},
	} {
		posted := s.do(t, http.MethodPost, c.path, c.form)
		if posted.code != http.StatusBadRequest && posted.code != http.StatusNotFound || !strings.Contains(posted.body, "<code>"+c.field+"</code>") {
			t.Errorf("%v: %d\n%s", c.form, posted.code, posted.body)
		}
	}
	for _, method := range []string{publish, maintenance, transfer} {
		if n := len(s.called(method)); n != 0 {
			t.Errorf("%s was called %d times", method, n)
		}
	}
	large := s.do(t, http.MethodPost, maintain, url.Values{"request": {"r"}, "reason": {strings.Repeat("x", 64<<10)}})
	large.wants(t, http.StatusRequestEntityTooLarge, "The form can&#39;t be read")
	s.get(t, "/ui/redundancy/line-a/maintenance?server=m9&active=true").wants(t, http.StatusNotFound, "set line-a has no server")
	s.get(t, "/ui/redundancy/line-b/swap").wants(t, http.StatusNotFound, "no set line-b")
	s.get(t, "/ui/members/transfer?to=m9").wants(t, http.StatusNotFound, "is no member of the group")
}

// The roles of a set of more than two go to the fittest, or to whom the operator names.
func TestTheDraftCanNameAnotherPrimary(t *testing.T) {
	s := readyToChange(t, operator)
	s.set(func(o *quoratev1.GetOverviewResponse) {
		set := o.Generation.Topology.Sets[0]
		set.Servers = append(set.Servers, &quoratev1.RedundantServer{Member: "m3", Role: "Backup"})
		o.Members[1].Reachable, o.Members[2].Band = false, "Authoritative"
	})
	s.get(t, "/ui/redundancy/line-a/swap").wants(t, http.StatusOK, "Draft: make m3 the Primary", "<option selected>m3</option>", "<option>m2</option>")
	s.get(t, "/ui/redundancy/line-a/swap?to=m2").wants(t, http.StatusOK, "Draft: make m2 the Primary", `name="to" value="m2"`)
}

func TestNothingToResumeOrToGiveUp(t *testing.T) {
	s := serve(t, operator, Limits{})
	s.get(t, "/ui/redundancy/line-a/resume").wants(t, http.StatusOK, "there is nothing to resume")
	s.get(t, "/ui/redundancy/line-a/rollback").wants(t, http.StatusOK, "there is nothing to give up")
	s.set(func(o *quoratev1.GetOverviewResponse) {
		o.Rollouts[0].State = quoratev1.RolloutState_ROLLOUT_STATE_STOPPED
		o.Rollouts[0].Servers[0].AppliedGeneration = 0
	})
	page := s.get(t, "/ui/redundancy/line-a/rollback")
	page.wants(t, http.StatusOK, "there is nothing to go back to")
	page.lacks(t, `<form method="post"`)
}

func TestOutcomesAreBounded(t *testing.T) {
	o := newOutcomes(2)
	for _, id := range []string{"a", "b", "b", "c"} {
		o.add(id, outcome{who: "ada", text: id})
	}
	ada := pki.Identity{Name: "ada"}
	if o.of("a", ada) != nil || o.of("b", ada) == nil || o.of("c", ada).text != "c" || o.of("c", viewer) != nil || len(o.ids) != 2 || len(o.byID) != 2 {
		t.Errorf("%v, %v", o.ids, o.byID)
	}
}
