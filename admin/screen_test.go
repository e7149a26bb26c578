package admin

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	quoratev1 "quorate/proto/quorate/v1"
)

// everything is every screen.
var everything = []string{
	"/ui/", "/ui/redundancy", "/ui/redundancy/line-a", "/ui/members", "/ui/partitions", "/ui/timeline", "/ui/partitions/id/p1", "/ui/partitions/id/p2", "/ui/partitions/id/p5",
}

// oneRead is how many of them read the overview alone.
const oneRead = 5

func TestScreensShowTheGroup(t *testing.T) {
	s := serve(t, viewer, Limits{})
	at := timestamppb.New(time.Date(2026, 11, 28, 2, 3, 4, 0, time.UTC))
	s.events = []*quoratev1.Event{
		{Revision: 9, Sequence: 1, WallTime: at, Generation: 3, Body: &quoratev1.Event_LevelChanged{LevelChanged: s.overview.GetLevelChanges()[1]}},
		{Revision: 9, WallTime: at, Generation: 3, RequestId: "publish-3", Actor: &quoratev1.Actor{Name: "ada"}, Body: &quoratev1.Event_TopologyPublished{TopologyPublished: s.overview.GetGeneration()}},
	}
	for path, texts := range map[string][]string{
		"/ui/": {"<h1>Overview</h1>", `<a href="/ui/redundancy/line-a">line-a</a>`, `<span class="value">255</span>`, `<span class="value">100</span>`, "3 of 3 reachable",
			"held", "right to Healthy levels", "applied in 500 ms", `<time datetime="2026-11-28T02:03:04.000Z">2026-11-28 02:03:04Z</time>`, "abababababab"},
		"/ui/redundancy":        {"<h1>Redundancy</h1>", "line-a", "WARM"},
		"/ui/redundancy/line-a": {"<h1>line-a</h1>", `data-levels="{&#34;servers&#34;:[{&#34;id&#34;:&#34;m1&#34;`, "2 of 2", "publish-3", "opc.tcp://127.0.0.1:4842"},
		"/ui/members":           {"<h1>Members</h1>", "leader", "voter", "127.0.0.1:7301"},
		"/ui/timeline":          {"<h1>Timeline</h1>", "generation 3 published", "Unconfirmed", "publish-3", `<tr id="event-9-0" class="same">`},
	} {
		page := s.get(t, path)
		page.wants(t, http.StatusOK, append(texts, `aria-current="page"`, "vera", "viewer")...)
		// A viewer is offered nothing.
		page.lacks(t, "Swap roles", "Maintenance…", "Make leader")
	}
}

func TestWhatIsOfferedGoesWithTheRole(t *testing.T) {
	s := serve(t, operator, Limits{})
	s.get(t, "/ui/redundancy/line-a").wants(t, http.StatusOK, "Swap roles", "Maintenance…")
	s.get(t, "/ui/members").lacks(t, "Make leader")
	s.who = administrator
	s.get(t, "/ui/members").wants(t, http.StatusOK, "Make leader")
	s.set(func(o *quoratev1.GetOverviewResponse) {
		o.Rollouts[0].State = quoratev1.RolloutState_ROLLOUT_STATE_STOPPED
		o.Rollouts[0].Servers[1].State = quoratev1.ApplyState_APPLY_STATE_FAILED
	})
	s.get(t, "/ui/redundancy/line-a").wants(t, http.StatusOK, "Resume…", "Roll back…", "Roll-out stopped")
	s.who = viewer
	s.get(t, "/ui/redundancy/line-a").lacks(t, "Resume…", "Roll back…")
}

func TestWithoutALeaderThePageShowsWhatTheMemberKnows(t *testing.T) {
	s := serve(t, administrator, Limits{})
	s.set(func(o *quoratev1.GetOverviewResponse) {
		o.Header.LeaderContactAge = durationpb.New(time.Minute)
		for _, m := range o.Members[1:] {
			m.Reachable, m.ServiceLevel = false, nil
		}
		o.Members[0].ServiceLevel, o.Members[0].Band = new(uint32), "Unconfirmed"
	})
	page := s.get(t, "/ui/")
	page.wants(t, http.StatusOK, "No leader", "since <time", "revision 41", "No change can be made", "1 of 3 reachable", "no answer", "Last recorded: 100 Authoritative", "Nobody is Healthy")
	s.get(t, "/ui/members").lacks(t, "Make leader")
	for _, c := range s.called(quoratev1.OverviewService_GetOverview_FullMethodName) {
		if read := c.request.(*quoratev1.GetOverviewRequest).GetRead(); read.GetConsistency() != quoratev1.Consistency_CONSISTENCY_LOCAL {
			t.Errorf("a read that needs a leader: %v", read)
		}
	}
}

func TestAPageIsOfOneRevision(t *testing.T) {
	s := serve(t, viewer, Limits{})
	s.get(t, "/ui/timeline?noun=topology&set=line-a")
	lists := s.called(quoratev1.EventService_ListEvents_FullMethodName)
	if len(lists) != 1 {
		t.Fatalf("%d lists", len(lists))
	}
	request := lists[0].request.(*quoratev1.ListEventsRequest)
	if request.GetBeforeRevision() != 41 || request.GetSet() != "line-a" || strings.Join(request.GetKinds(), " ") != "topology_published generation_adopted" {
		t.Errorf("asked for %v", request)
	}
	for _, path := range everything[:oneRead] {
		before := len(s.calls)
		if s.get(t, path); len(s.calls) != before+1 {
			t.Errorf("%s took %d reads", path, len(s.calls)-before)
		}
	}
	if who := s.calls[0].who; who != viewer {
		t.Errorf("read as %v", who)
	}
}

func TestWhatCanNotBeReadIsSaid(t *testing.T) {
	s := serve(t, viewer, Limits{})
	s.get(t, "/ui/nothing").wants(t, http.StatusNotFound, "There is no such page")
	s.get(t, "/ui/redundancy/line-b").wants(t, http.StatusNotFound, "the current topology has no set line-b", "3 of 3 reachable")
	s.get(t, "/ui/redundancy/"+strings.Repeat("x", maxArgument+1)).wants(t, http.StatusBadRequest, "<code>set</code>")
	s.get(t, "/ui/redundancy/a%0Ab").wants(t, http.StatusBadRequest, "<code>set</code>")
	s.get(t, "/ui/redundancy/a%ff").wants(t, http.StatusBadRequest, "<code>set</code>")
	for query, field := range map[string]string{"before=x": "before", "before=0": "before", "before=7&sequence=x": "sequence", "kind=nothing": "kind", "noun=level&kind=topology_published": "kind"} {
		s.get(t, "/ui/timeline?"+query).wants(t, http.StatusBadRequest, "<code>"+field+"</code>")
	}
	s.failures[quoratev1.OverviewService_GetOverview_FullMethodName] = refused(codes.FailedPrecondition, reasonDiverged, "diverged", nil)
	s.get(t, "/ui/").wants(t, http.StatusConflict, "This member is out of service", "is not known to m1")
}

func TestAMemberThatIsSlowIsWaitedFor(t *testing.T) {
	s := serve(t, viewer, Limits{Patience: time.Millisecond})
	s.hold = make(chan struct{})
	done := make(chan answer)
	go func() { done <- s.get(t, "/ui/") }()
	// The second one is the one that waits.
	eventually(t, func() bool { return len(s.called(quoratev1.OverviewService_GetOverview_FullMethodName)) == 2 })
	close(s.hold)
	page := <-done
	page.wants(t, http.StatusOK, "3 of 3 reachable")
}

// eventually waits for a condition that nothing announces.
func eventually(t *testing.T, holds func() bool) {
	t.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(patience); !holds(); <-tick.C {
		if time.Now().After(deadline) {
			t.Fatal("it never came true")
		}
	}
}

func TestHeadersAndFiles(t *testing.T) {
	s := serve(t, viewer, Limits{})
	page := s.get(t, "/ui/")
	for name, want := range map[string]string{
		"Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'",
		"Cache-Control":           "no-store", "X-Content-Type-Options": "nosniff", "Content-Type": "text/html; charset=utf-8",
	} {
		if got := page.header.Get(name); got != want {
			t.Errorf("%s is %q, want %q", name, got, want)
		}
	}
	for name, file := range assets {
		if !strings.Contains(page.body, assetURL(name)) {
			t.Errorf("%s is not used", name)
		}
		got := s.get(t, assetURL(name))
		if got.code != http.StatusOK || got.body != string(file.content) || got.header.Get("Cache-Control") != staticAge || got.header.Get("Content-Type") != file.contentType {
			t.Errorf("%s: %d, %v", name, got.code, got.header)
		}
		// What may have changed since is asked for again.
		if got := s.get(t, staticPath+name+"?old"); got.header.Get("Cache-Control") != "no-store" {
			t.Errorf("%s of another version: %v", name, got.header)
		}
	}
	for _, name := range []string{"NOTICE.txt", "page.html", "..%2Fadmin.go"} {
		if got := s.get(t, staticPath+name); got.code != http.StatusNotFound {
			t.Errorf("%s is served: %d", name, got.code)
		}
	}
}
