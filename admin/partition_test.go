package admin

import (
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	"quorate/pki"
	quoratev1 "quorate/proto/quorate/v1"
)

// Methods that changes of partitions call.
const (
	beginMethod    = quoratev1.PartitionService_BeginMigration_FullMethodName
	cutoverMethod  = quoratev1.PartitionService_CutoverMigration_FullMethodName
	completeMethod = quoratev1.PartitionService_CompleteMigration_FullMethodName
	abortMethod    = quoratev1.PartitionService_AbortMigration_FullMethodName
	settingsMethod = quoratev1.PartitionService_SetPartitionSettings_FullMethodName
)

// partitionAnswers are those of a group that takes every change.
func partitionAnswers() map[string]proto.Message {
	header := &quoratev1.ResponseHeader{Revision: 50, Generation: 4, Member: "m1"}
	p := func(id, placement string, epoch uint64) *quoratev1.Partition {
		return &quoratev1.Partition{Id: id, Placement: placement, Epoch: epoch}
	}
	begun := p("p1", "east", 8)
	begun.Migration = &quoratev1.Migration{From: "east", To: "north"}
	return map[string]proto.Message{
		beginMethod:    &quoratev1.BeginMigrationResponse{Header: header, Partition: begun},
		cutoverMethod:  &quoratev1.CutoverMigrationResponse{Header: header, Partition: p("p2", "east", 4)},
		completeMethod: &quoratev1.CompleteMigrationResponse{Header: header, Partition: p("p3", "west", 5)},
		abortMethod:    &quoratev1.AbortMigrationResponse{Header: header, Partition: p("p4", "east", 5)},
		settingsMethod: &quoratev1.SetPartitionSettingsResponse{Header: header, Settings: demoPartitions().GetSettings()},
	}
}

// partitionChanges are those of changesThere that are about partitions.
var partitionChanges = []changeThere{
	{
		"/ui/partitions/id/p1/begin?to=north&early=on&verify=on", beginMethod,
		[]string{
			"Draft: move p1 back to north", "<strong>Begin</strong> epoch 8", "<strong>Cutover</strong> epoch 9: nobody may write", "45 s <span class=\"muted\">· the partition&#39;s own</span>",
			"<strong>Complete</strong> epoch 10", "1 registered instance", "2.04 s at most", "after 5 s, once all registered instances", "refused until it was reported as verified",
			"is a new placement", "based on epoch 7",
		},
		url.Values{"note": {"back home"}}, "The migration of p1 from east to north has begun. Epoch 8.",
	},
	{
		"/ui/partitions/id/p2/cutover", cutoverMethod,
		[]string{"Cut p2 over", "From epoch 4 on nobody may write", "the drain barrier of 30 s begins", "30 %", "The copy was not reported as complete", "Stop the writes to p2"},
		url.Values{"note": {"quiet hour"}}, "p2 is in cutover",
	},
	{
		"/ui/partitions/id/p3/complete", completeMethod, []string{"Complete the migration of p3", "The drain barrier of 30 s has passed", "Make west the owner"}, nil,
		"p3 is at west. Epoch 5.",
	},
	{
		"/ui/partitions/id/p4/abort", abortMethod, []string{"Abort the migration of p4", "is the only owner", "Another cutover begins another whole barrier"}, nil,
		"The migration is aborted: p4 stays at east. Epoch 5.",
	},
	{
		"/ui/partitions/settings", settingsMethod, []string{"Change what holds for all partitions", "now 30 s", "now 20 s", "now 5 s", "now 2 s"},
		url.Values{"drain_barrier": {"45s"}}, "Drain barrier 30 s, never below 20 s; early floor 5 s; gate leases of 2 s.",
	},
}

func TestThePageOfPartitions(t *testing.T) {
	s := serve(t, viewer, Limits{})
	page := s.get(t, "/ui/partitions")
	page.wants(t, http.StatusOK,
		"<h1>Partitions</h1>", ">1,000,000</a>", `<tr id="migration-p2">`, "draining", "30 %", `<progress class="progress" max="40000" value="12000"`, "rsync, second pass", "by ada",
		"30 s, passed", "30 s, begins", `data-begun="90000" data-end="120001">20 s left`, `<tr id="partition-p1">`, "north", "45 s", "999,999", "gateway-1", "gwen",
		`data-cluster="100000" data-led="true"`,
	)
	page.lacks(t, "Cut over", "Complete…", "Complete early", "Migrate…", "Change…", "Abort", "<button type=\"button\"", "method=\"post\"")
	reads := s.called(quoratev1.OverviewService_GetOverview_FullMethodName)
	if got := reads[0].request.(*quoratev1.GetOverviewRequest).GetPartitions(); got.GetPartitions().GetSize() != listedPartitions || got.GetMigrations().GetSize() != listedMigrations ||
		got.GetPlacements().GetSize() != listedPlacements || got.GetInstances().GetSize() != listedInstances {
		t.Errorf("asked for %v", got)
	}
	s.get(t, "/ui/").wants(t, http.StatusOK, "1,000,000", `<a class="id" href="/ui/partitions/id/p2">p2</a>`)
}

func TestPartitionsArePagedAndFiltered(t *testing.T) {
	s := serve(t, viewer, Limits{})
	s.set(func(o *quoratev1.GetOverviewResponse) {
		p := o.Partitions
		p.NextPartition, p.NextMigration, p.NextPlacement, p.NextInstance = "p1", "p5", "west", "gateway-1"
	})
	s.get(t, "/ui/partitions?placement=east&prefix=p&after=p0&afterMigration=p0").wants(t, http.StatusOK,
		`href="/ui/partitions?after=p1&amp;afterMigration=p0&amp;placement=east&amp;prefix=p">More`, `href="/ui/partitions?after=p0&amp;afterMigration=p5&amp;placement=east&amp;prefix=p">More`,
		`afterPlacement=west&amp;placement=east`, `afterInstance=gateway-1`, `href="/ui/partitions?afterMigration=p0&amp;placement=east&amp;prefix=p">To the first`,
		`name="prefix" type="search" maxlength="64" autocomplete="off" spellcheck="false" value="p"`, "from or to <span class=\"id\">east</span>")
	got := s.called(quoratev1.OverviewService_GetOverview_FullMethodName)[0].request.(*quoratev1.GetOverviewRequest).GetPartitions()
	if got.GetPlacement() != "east" || got.GetPrefix() != "p" || got.GetPartitions().GetToken() != "p0" || got.GetMigrations().GetToken() != "p0" || got.GetPlacements().GetToken() != "" {
		t.Errorf("asked for %v", got)
	}
	// A page may be empty and not be the last.
	s.set(func(o *quoratev1.GetOverviewResponse) { o.Partitions.Partitions, o.Partitions.Migrations = nil, nil })
	s.get(t, "/ui/partitions?placement=east").wants(t, http.StatusOK, "None of the first 100,000", ">More</a>")
	s.set(func(o *quoratev1.GetOverviewResponse) {
		o.Partitions.NextPartition, o.Partitions.NextMigration = "", ""
	})
	s.get(t, "/ui/partitions?placement=east").wants(t, http.StatusOK, "No partition matches.", "Nothing migrates from or to east.")
	s.set(func(o *quoratev1.GetOverviewResponse) { o.Partitions = &quoratev1.PartitionOverview{} })
	s.get(t, "/ui/partitions").wants(t, http.StatusOK, "There are no partitions yet.", "quorate partition create", "No instance is registered.", "No placement owns a partition.")
	s.get(t, "/ui/").lacks(t, "partitions-title")
	s.get(t, "/ui/partitions/id/p1").wants(t, http.StatusNotFound, "there is no partition p1")
}

func TestOnePartition(t *testing.T) {
	s := serve(t, operator, Limits{})
	s.events = []*quoratev1.Event{{Revision: 31, Body: &quoratev1.Event_PartitionChanged{PartitionChanged: &quoratev1.PartitionChange{
		Transition: quoratev1.PartitionTransition_PARTITION_TRANSITION_SET_PLACEMENT, Partition: demoPartitions().GetPartitions()[0], Note: "by hand",
	}}}}
	page := s.get(t, "/ui/partitions/id/p1")
	page.wants(t, http.StatusOK, "<h1>p1</h1>", "active", "epoch 7", "of revision 31", "45 s", "its own", "placed at east, before at north, epoch 7", "by hand", "Migrate…", "Reverse to north…",
		`href="/ui/partitions/id/p1/begin?to=north"`)
	page.lacks(t, "Migration</h2>", "Abort…")
	list := s.called(quoratev1.EventService_ListEvents_FullMethodName)[0].request.(*quoratev1.ListEventsRequest)
	if list.GetPartition() != "p1" || list.GetBeforeRevision() != 41 || list.GetLimit() != listedEvents {
		t.Errorf("asked for %v", list)
	}
	for id, texts := range map[string][]string{
		"p2": {"<h1>p2</h1>", "Cut over…", "Abort…", "off the old rack", "12,000 of 40,000", "not required", "ahead: writes go on at"},
		"p3": {"Complete…", "Abort…", "may be done now", "nobody may write", "30 s, passed"},
		"p4": {"disabled>Complete: 30 s, begins</button>", "Abort…"},
		"p5": {"Complete early…", "may be completed early", `<progress class="progress" max="1" value="0" aria-label="Drain barrier" data-begun="90000" data-end="120001">`},
	} {
		s.get(t, "/ui/partitions/id/"+id).wants(t, http.StatusOK, texts...)
	}
	s.who = viewer
	for _, id := range []string{"p1", "p2", "p3", "p4", "p5"} {
		s.get(t, "/ui/partitions/id/"+id).lacks(t, "…</a>", "<button", "<form")
	}
}

// TestATransitionThatHasToWait is shown, with what for, and is not offered.
func TestATransitionThatHasToWait(t *testing.T) {
	s := readyToChange(t, operator)
	migration := func(o *quoratev1.GetOverviewResponse, i int) *quoratev1.Migration {
		return o.Partitions.Migrations[i].Migration
	}
	s.set(func(o *quoratev1.GetOverviewResponse) {
		migration(o, 0).VerificationRequired = true
		migration(o, 3).EarlyCompletion = false
	})
	see := func(path string, texts ...string) {
		t.Helper()
		page := s.get(t, path)
		page.wants(t, http.StatusOK, texts...)
		page.lacks(t, `<form method="post"`)
	}
	s.get(t, "/ui/partitions").wants(t, http.StatusOK, `id="cutover-p2" disabled>Cut over…</button>`, "waits until the copy is verified",
		`id="complete-p5" disabled>Complete: <span class="countdown" role="timer" data-begun="90000" data-end="120001">20 s left</span></button>`)
	see("/ui/partitions/id/p2/cutover", "The cutover is refused until the copy was reported as verified", "to be verified")
	see("/ui/partitions/id/p5/complete", "20 s left", "It can't be completed before.")
	see("/ui/partitions/id/p4/complete", "30 s, begins", "It can't be completed before.")
	// Of who is mid-apply, each server that the migration touches counts.
	for i, touch := range []func(*quoratev1.Migration){
		func(m *quoratev1.Migration) { m.From = "m1" }, func(m *quoratev1.Migration) { m.To = "m1" }, func(m *quoratev1.Migration) { m.Servers = []string{"m2", "m1"} },
	} {
		s.set(func(o *quoratev1.GetOverviewResponse) {
			o.Partitions = demoPartitions()
			o.Leases = []*quoratev1.ApplyLease{{Key: &quoratev1.LeaseKey{Server: "m3"}}, {Key: &quoratev1.LeaseKey{Server: "m1", Generation: 3}}}
			touch(migration(o, 0))
		})
		see("/ui/partitions/id/p2/cutover", `<span class="id">m1</span> holds an apply lease, generation 3`)
		if page := s.get(t, "/ui/partitions/id/p2"); !strings.Contains(page.body, "holds an apply lease") || strings.Contains(page.body, "Cut over…</a>") {
			t.Errorf("%d: the cutover is offered: %s", i, page.body)
		}
	}
	s.get(t, "/ui/partitions/id/p1/begin?to=west&servers=m3,m9").wants(t, http.StatusOK, `<span class="id">m3</span> holds an apply lease`, "Begin the migration")
	// What can't be at all.
	see("/ui/partitions/id/p1/cutover", "there is nothing to cut over")
	see("/ui/partitions/id/p1/complete", "there is nothing to complete")
	see("/ui/partitions/id/p1/abort", "there is nothing to abort")
	see("/ui/partitions/id/p3/cutover", "It is in cutover already")
	see("/ui/partitions/id/p2/complete", "It is still draining")
	see("/ui/partitions/id/p2/begin?to=west", "It migrates already")
	s.get(t, "/ui/partitions/id/p9/abort").wants(t, http.StatusNotFound, "there is no partition p9")
	// An instance has to be there to say that no write is in flight, and the floor has to have passed.
	s.set(func(o *quoratev1.GetOverviewResponse) {
		o.Partitions, o.Leases = demoPartitions(), nil
		o.Partitions.InstanceCount = 0
	})
	see("/ui/partitions/id/p5/complete", "It can't be completed before.")
	s.get(t, "/ui/partitions/id/p1/begin?to=west&early=on").wants(t, http.StatusOK, "the whole barrier has to pass")
	s.set(func(o *quoratev1.GetOverviewResponse) {
		o.Partitions = demoPartitions()
		o.Partitions.Settings.EarlyFloor = durationpb.New(11 * time.Second)
	})
	see("/ui/partitions/id/p5/complete", "It can't be completed before.")
}

func TestTransitionsAskForWhatTheyShow(t *testing.T) {
	s := readyToChange(t, administrator)
	post := func(path string, form url.Values) proto.Message {
		t.Helper()
		before := len(s.calls)
		if posted := s.do(t, http.MethodPost, path, form); posted.code != http.StatusSeeOther {
			t.Fatalf("%s: %d\n%s", path, posted.code, posted.body)
		}
		return s.calls[before].request
	}
	seconds := func(n int) *durationpb.Duration { return durationpb.New(time.Duration(n) * time.Second) }
	form := url.Values{"request": {"r1"}, "based": {"7"}, "note": {"n <1>"}}
	draft := url.Values{
		"request": {"r1"}, "based": {"7"}, "note": {"n <1>"}, "to": {"west"}, "barrier": {"1m 30s"}, "servers": {" m1, m2  m3"}, "early": {"on"}, "verify": {"on"},
	}
	for _, c := range []struct{ got, want proto.Message }{
		{post("/ui/partitions/id/p1/begin", draft), &quoratev1.BeginMigrationRequest{
			RequestId: "r1", Partition: "p1", To: "west", ExpectedEpoch: 7, DrainBarrier: seconds(90), EarlyCompletion: true, VerificationRequired: true,
			Servers: []string{"m1", "m2", "m3"}, Note: "n <1>",
		}},
		{post("/ui/partitions/id/p1/begin", url.Values{"request": {"r1"}, "based": {"7"}, "to": {"west"}}), &quoratev1.BeginMigrationRequest{
			RequestId: "r1", Partition: "p1", To: "west", ExpectedEpoch: 7,
		}},
		{post("/ui/partitions/id/p2/cutover", form), &quoratev1.CutoverMigrationRequest{RequestId: "r1", Partition: "p2", ExpectedEpoch: 7, Note: "n <1>"}},
		{post("/ui/partitions/id/p3/complete", form), &quoratev1.CompleteMigrationRequest{RequestId: "r1", Partition: "p3", ExpectedEpoch: 7, Note: "n <1>"}},
		{post("/ui/partitions/id/p4/abort", form), &quoratev1.AbortMigrationRequest{RequestId: "r1", Partition: "p4", ExpectedEpoch: 7, Note: "n <1>"}},
		// What was not filled in is not asked for.
		{post("/ui/partitions/settings", url.Values{"request": {"r1"}, "early_floor": {"0s"}, "gate_ttl": {"500ms"}, "drain_barrier": {""}}), &quoratev1.SetPartitionSettingsRequest{
			RequestId: "r1", Settings: &quoratev1.PartitionSettings{EarlyFloor: seconds(0), GateTtl: durationpb.New(500 * time.Millisecond)},
		}},
	} {
		if !proto.Equal(c.got, c.want) {
			t.Errorf("asked for %v, want %v", c.got, c.want)
		}
	}
}

func TestAStaleEpochIsShownWithWhatIsNow(t *testing.T) {
	s := readyToChange(t, operator)
	for method, path := range map[string]string{
		beginMethod: "/ui/partitions/id/p1/begin", cutoverMethod: "/ui/partitions/id/p2/cutover", completeMethod: "/ui/partitions/id/p3/complete", abortMethod: "/ui/partitions/id/p4/abort",
	} {
		s.failures[method] = refused(codes.Aborted, reasonStaleEpoch, "partition is at epoch 9, not 2", map[string]string{"current_epoch": "9", "phase": "cutover"})
		posted := s.do(t, http.MethodPost, path, url.Values{"request": {"r1"}, "based": {"2"}, "to": {"west"}, "note": {"kept <"}})
		posted.wants(t, http.StatusConflict, "The partition has moved on meanwhile", "It is at epoch 9 now, cutover. Nothing was changed.", "at epoch "+map[string]string{
			beginMethod: "7", cutoverMethod: "3", completeMethod: "4", abortMethod: "4",
		}[method], `value="kept &lt;"`)
		// The form below is another one, based on what is now.
		if form := hiddenFields(posted.body); form.Get("request") == "r1" || form.Get("based") == "2" || form.Get("request") == "" {
			t.Errorf("%s: the form has %v", path, form)
		}
	}
	// Where somebody else did it already, there is nothing left to do, and that is shown.
	s.failures[abortMethod] = refused(codes.FailedPrecondition, "NOT_MIGRATING", "partition p1 doesn't migrate", map[string]string{"current_epoch": "7"})
	s.do(t, http.MethodPost, "/ui/partitions/id/p1/abort", url.Values{"request": {"r1"}, "based": {"6"}}).wants(t, http.StatusConflict, "doesn&#39;t migrate", "there is nothing to abort")
	s.failures[completeMethod] = refused(codes.FailedPrecondition, "BARRIER_PENDING", "the drain barrier of partition p5 lasts 12s longer", map[string]string{"remaining": "12s"})
	s.do(t, http.MethodPost, "/ui/partitions/id/p5/complete", url.Values{"request": {"r1"}, "based": {"4"}}).wants(t, http.StatusConflict, "lasts 12s longer", "BARRIER_PENDING", "20 s left")
}

func TestDraftsAndSettingsThatAreNotRight(t *testing.T) {
	s := readyToChange(t, administrator)
	for query, want := range map[string]string{
		"to=East": "<code>to</code>", "to=east": "p1 is at east already", "to=west&barrier=soon": "<code>barrier</code>", "to=west&barrier=1s": "must be at least 20 s",
		"to=" + strings.Repeat("x", 65): "<code>to</code>",
	} {
		page := s.get(t, "/ui/partitions/id/p1/begin?"+query)
		page.wants(t, http.StatusBadRequest, want, `<form method="get" action="/ui/partitions/id/p1/begin"`)
		page.lacks(t, `<form method="post"`, "What will happen")
	}
	s.get(t, "/ui/partitions/id/p1/begin").wants(t, http.StatusOK, `<option value="west">`, `<option value="m1">`)
	s.get(t, "/ui/partitions/id/p1/begin?to=west").lacks(t, "is a new placement", `<option value="east">`)
	s.get(t, "/ui/partitions/id/p1/begin?servers="+strings.Repeat("x", maxArgument+1)).wants(t, http.StatusBadRequest, "<code>servers</code>")
	for _, c := range []struct {
		path, field string
		form        url.Values
	}{
		{"/ui/partitions/id/p1/begin", "based", url.Values{"to": {"west"}}},
		{"/ui/partitions/id/p1/begin", "barrier", url.Values{"to": {"west"}, "based": {"7"}, "barrier": {"x"}}},
		{"/ui/partitions/id/p2/cutover", "based", nil},
		{"/ui/partitions/id/p3/complete", "based", url.Values{"based": {"0"}}},
		{"/ui/partitions/id/p4/abort", "based", url.Values{"based": {"-1"}}},
		{"/ui/partitions/id/p4/abort", "note", url.Values{"based": {"4"}, "note": {"\xff"}}},
		{"/ui/partitions/settings", "drain_barrier", nil},
		{"/ui/partitions/settings", "gate_ttl", url.Values{"gate_ttl": {"2 fortnights"}}},
	} {
		form := url.Values{"request": {"r1"}}
		for name, value := range c.form {
			form[name] = value
		}
		posted := s.do(t, http.MethodPost, c.path, form)
		posted.wants(t, http.StatusBadRequest, "<code>"+c.field+"</code>")
	}
	for _, method := range []string{beginMethod, cutoverMethod, completeMethod, abortMethod, settingsMethod} {
		if n := len(s.called(method)); n != 0 {
			t.Errorf("%s was called %d times", method, n)
		}
	}
	// A setting that the group doesn't take comes back, as it was typed.
	s.failures[settingsMethod] = invalid("settings.gate_ttl", "it is not 200ms to 10s")
	s.do(t, http.MethodPost, "/ui/partitions/settings", url.Values{"request": {"r1"}, "gate_ttl": {"11s"}}).wants(t, http.StatusBadRequest, "settings.gate_ttl", `name="gate_ttl" maxlength="16" autocomplete="off" value="11s"`)
}

// A placement is called new only where it is certain that it is not on a later page.
func TestAPlacementOnALaterPageIsNotNew(t *testing.T) {
	s := readyToChange(t, operator)
	s.set(func(o *quoratev1.GetOverviewResponse) { o.Partitions.NextPlacement = "m1" })
	s.get(t, "/ui/partitions/id/p1/begin?to=zulu").lacks(t, "is a new placement")
}

// With a thousand transitions a second, a live page of partitions is rendered four times a second.
func TestALivePageOfPartitionsIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var next atomic.Pointer[chan struct{}]
		first := make(chan struct{})
		next.Store(&first)
		g := newGroup()
		s, err := New(Config{
			Member: "m1", Version: "test", May: func(pki.Role, string) bool { return true },
			Connect: func(who pki.Identity, _ string) (grpc.ClientConnInterface, error) {
				return caller{group: g, who: who}, nil
			},
			Changed:   func() <-chan struct{} { return *next.Load() },
			Subscribe: func(func()) func() { return func() {} },
		})
		if err != nil {
			t.Fatal(err)
		}
		r := s.rooms.join(roomKey{path: "x"}, partitionNoun.screens[0], arguments{})
		const transitions = 10_000
		for range transitions {
			time.Sleep(time.Millisecond)
			before := next.Load()
			after := make(chan struct{})
			next.Store(&after)
			close(*before)
		}
		synctest.Wait()
		reads := len(g.called(quoratev1.OverviewService_GetOverview_FullMethodName))
		s.rooms.leave(r)
		s.Close()
		if most := int(transitions*time.Millisecond/partitionPause) + 1; reads > most || reads < most-2 {
			t.Errorf("%d transitions in 10 s made %d renderings, want about %d", transitions, reads, most)
		}
	})
}

// Each kind of event of partitions and instances is told in words, and what somebody wrote goes with it.
func TestEventsOfPartitionsAreTold(t *testing.T) {
	o := demoPartitions()
	active, moving := o.GetPartitions()[0], o.GetMigrations()[0]
	change := func(transition quoratev1.PartitionTransition, p *quoratev1.Partition) *quoratev1.Event {
		return &quoratev1.Event{Body: &quoratev1.Event_PartitionChanged{PartitionChanged: &quoratev1.PartitionChange{
			Transition: transition, Partition: p, Note: "noted", Ended: moving.GetMigration(), Early: true,
		}}}
	}
	created := func(ids ...string) *quoratev1.Event {
		return &quoratev1.Event{Body: &quoratev1.Event_PartitionsCreated{PartitionsCreated: &quoratev1.PartitionsCreated{Ids: ids, Placement: "east", Epoch: 1, Note: "noted"}}}
	}
	instance := func(change string) *quoratev1.Event {
		return &quoratev1.Event{Body: &quoratev1.Event_InstanceChanged{InstanceChanged: &quoratev1.InstanceChange{Instance: o.GetInstances()[0], Change: change}}}
	}
	for _, c := range []struct {
		event *quoratev1.Event
		want  string
	}{
		{created("p1"), "good p1: created at east, epoch 1 [noted]"},
		{created("a", "b", "c", "d", "e", "f"), "good : 6 partitions created at east, epoch 1 [a, b, c, d, e, … noted]"},
		{change(quoratev1.PartitionTransition_PARTITION_TRANSITION_SET_PLACEMENT, active), "standby p1: placed at east, before at north, epoch 7 [noted]"},
		{change(quoratev1.PartitionTransition_PARTITION_TRANSITION_DELETE, active), "off p1: deleted, was at east, epoch 7 [noted]"},
		{change(quoratev1.PartitionTransition_PARTITION_TRANSITION_BEGIN, moving), "standby p2: migration begun: east → west, epoch 3 [noted]"},
		{change(quoratev1.PartitionTransition_PARTITION_TRANSITION_CUTOVER, moving), "warn p2: cutover: nobody may write; east → west, epoch 3 [noted]"},
		{change(quoratev1.PartitionTransition_PARTITION_TRANSITION_COMPLETE, active), "good p1: migration completed: at east, epoch 7 [before the barrier had passed: all instances had reported noted]"},
		{change(quoratev1.PartitionTransition_PARTITION_TRANSITION_ABORT, active), "off p1: migration to west aborted: stays at east, epoch 7 [noted]"},
		{change(quoratev1.PartitionTransition_PARTITION_TRANSITION_REPORT, moving), "unknown p2: copy 30 %: 12,000 of 40,000 [rsync, second pass noted]"},
		{change(quoratev1.PartitionTransition_PARTITION_TRANSITION_BARRIER_BEGUN, moving), "standby p2: drain barrier of 30 s begun [noted]"},
		{change(quoratev1.PartitionTransition_PARTITION_TRANSITION_BARRIER_PASSED, moving), "good p2: drain barrier passed: the migration may be completed [noted]"},
		{change(99, moving), "standby p2: partition changed [noted]"},
		{&quoratev1.Event{Body: &quoratev1.Event_PartitionSettingsChanged{PartitionSettingsChanged: o.GetSettings()}},
			"standby : drain barrier 30 s, never below 20 s; early floor 5 s; gate leases of 2 s []"},
		{instance("registered"), "good : instance gateway-1 registered []"},
		{instance("left"), "off : instance gateway-1 left []"},
		{instance("forgotten"), "warn : instance gateway-1 forgotten []"},
	} {
		v := newEventView(c.event)
		if got := fmt.Sprintf("%s %s: %s %v", v.Tone, v.Partition, v.Text, v.Notes); got != c.want {
			t.Errorf("%s\nwant %s", got, c.want)
		}
		if v.Kind.Noun != "partition" && v.Kind.Noun != "instance" {
			t.Errorf("%s is of the noun %s", v.Kind.Name, v.Kind.Noun)
		}
	}
	s := serve(t, viewer, Limits{})
	s.events = []*quoratev1.Event{created("p1")}
	s.get(t, "/ui/timeline?partition=p1&noun=partition").wants(t, http.StatusOK, `<a class="id" href="/ui/partitions/id/p1">p1</a>`, `name="partition" maxlength="64" autocomplete="off" spellcheck="false" value="p1"`)
	list := s.called(quoratev1.EventService_ListEvents_FullMethodName)[0].request.(*quoratev1.ListEventsRequest)
	if list.GetPartition() != "p1" || strings.Join(list.GetKinds(), " ") != "partitions_created partition_changed partition_settings_changed" {
		t.Errorf("asked for %v", list)
	}
}

func TestTimesAndNumbersAreWritten(t *testing.T) {
	for d, want := range map[time.Duration]string{
		0: "0 s", 250 * time.Millisecond: "250 ms", 1500 * time.Microsecond: "1.5 ms", 2040 * time.Millisecond: "2.04 s", 30 * time.Second: "30 s", 90 * time.Second: "90 s",
		5 * time.Minute: "5 min", 24 * time.Hour: "24 h", 150 * time.Second: "2m30s",
	} {
		if got := lasts(d); got != want {
			t.Errorf("%v is %q, want %q", d, got, want)
		}
	}
	for n, want := range map[uint64]string{0: "0", 999: "999", 1000: "1,000", 1_234_567: "1,234,567"} {
		if got := count(n); got != want {
			t.Errorf("%d is %q, want %q", n, got, want)
		}
	}
	// What is not all is not 100 %, whatever is next to it.
	for copied, want := range map[*quoratev1.CopyProgress]string{
		nil: "not reported", {Done: 5}: "5", {Done: 999, Total: 1000}: "99 %: 999 of 1,000", {Done: 1000, Total: 1000}: "100 %: 1,000 of 1,000",
		{Done: 1<<64 - 2, Total: 1<<64 - 1}: "99 %: 18,446,744,073,709,551,614 of 18,446,744,073,709,551,615",
	} {
		if got := newProgress(copied).text(); got != want {
			t.Errorf("%v is %q, want %q", copied, got, want)
		}
	}
}
