package admin

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"quorate/pki"
	quoratev1 "quorate/proto/quorate/v1"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience is how long a test waits for what must happen; reaching it is a failure.
const patience = 20 * time.Second

var (
	viewer        = pki.Identity{Name: "vera", Role: pki.RoleViewer}
	operator      = pki.Identity{Name: "otto", Role: pki.RoleOperator}
	administrator = pki.Identity{Name: "anna", Role: pki.RoleAdministrator}
)

// group is the services as a page sees them, of which the test decides the answers. Everything behind them has tests of its own.
type group struct {
	mu       sync.Mutex
	overview *quoratev1.GetOverviewResponse
	events   []*quoratev1.Event
	// answers and failures are for all methods but the two above, by their full names.
	answers  map[string]proto.Message
	failures map[string]error
	calls    []call
	changed  chan struct{}
	fns      map[*func()]bool
	// hold makes each overview wait until it is closed.
	hold chan struct{}
}

// call is a call that was made, and as whom.
type call struct {
	method  string
	who     pki.Identity
	request proto.Message
}

func newGroup() *group {
	return &group{
		overview: demo(), answers: make(map[string]proto.Message), failures: make(map[string]error), changed: make(chan struct{}), fns: make(map[*func()]bool),
	}
}

// caller is a connection on which calls are made for somebody.
type caller struct {
	grpc.ClientConnInterface
	group *group
	who   pki.Identity
}

// Invoke implements grpc.ClientConnInterface.
func (c caller) Invoke(ctx context.Context, method string, args, reply any, _ ...grpc.CallOption) error {
	g := c.group
	g.mu.Lock()
	g.calls = append(g.calls, call{method, c.who, proto.CloneOf(args.(proto.Message))})
	hold := g.hold
	failure := g.failures[method]
	var answer proto.Message
	switch method {
	case quoratev1.OverviewService_GetOverview_FullMethodName:
		o := proto.CloneOf(g.overview)
		choose(o.GetPartitions(), args.(*quoratev1.GetOverviewRequest).GetPartitions())
		answer = o
	case quoratev1.EventService_ListEvents_FullMethodName:
		answer = &quoratev1.ListEventsResponse{Header: g.overview.GetHeader(), Events: g.events, Complete: true, KnownFrom: 1}
	default:
		answer = g.answers[method]
	}
	g.mu.Unlock()
	if hold != nil && method == quoratev1.OverviewService_GetOverview_FullMethodName {
		select {
		case <-hold:
		case <-ctx.Done():
			return status.FromContextError(ctx.Err()).Err()
		}
	}
	if failure != nil {
		return failure
	}
	if answer == nil {
		return status.Errorf(codes.Unimplemented, "the test has no answer for %s", method)
	}
	proto.Merge(reply.(proto.Message), answer)
	return nil
}

// choose leaves what was asked for of the partitions, of which the group has no more than a page.
func choose(o *quoratev1.PartitionOverview, asked *quoratev1.PartitionSelection) {
	for _, p := range append(o.GetPartitions(), o.GetMigrations()...) {
		if asked.GetPartition() != "" && p.GetId() == asked.GetPartition() {
			o.Partition = p
		}
	}
	if asked.GetPartitions() == nil {
		o.Partitions, o.NextPartition = nil, ""
	}
	if asked.GetMigrations() == nil {
		o.Migrations, o.NextMigration = nil, ""
	}
	if asked.GetPlacements() == nil {
		o.Placements, o.NextPlacement = nil, ""
	}
	if asked.GetInstances() == nil {
		o.Instances, o.NextInstance = nil, ""
	}
}

// set changes what the group is, and tells of it.
func (g *group) set(change func(*quoratev1.GetOverviewResponse)) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.overview = proto.CloneOf(g.overview)
	g.overview.Header.Revision++
	change(g.overview)
	close(g.changed)
	g.changed = make(chan struct{})
}

func (g *group) called(method string) (found []call) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, c := range g.calls {
		if c.method == method {
			found = append(found, c)
		}
	}
	return found
}

// site is a page that is served to whomever the test says.
type site struct {
	*group
	*Server
	url string
	who pki.Identity
}

func serve(t *testing.T, who pki.Identity, limits Limits) *site {
	t.Helper()
	g := newGroup()
	return serveGroup(t, g, who, limits)
}

func serveGroup(t *testing.T, g *group, who pki.Identity, limits Limits) *site {
	t.Helper()
	s := &site{group: g, who: who}
	var err error
	s.Server, err = New(Config{
		Member: "m1", Version: "test", Limits: limits, Logger: slog.New(slog.DiscardHandler),
		Connect: func(who pki.Identity, _ string) (grpc.ClientConnInterface, error) {
			return caller{group: g, who: who}, nil
		},
		May: func(role pki.Role, method string) bool { return role >= least(method) },
		Changed: func() <-chan struct{} {
			g.mu.Lock()
			defer g.mu.Unlock()
			return g.changed
		},
		Subscribe: func(fn func()) func() {
			g.mu.Lock()
			defer g.mu.Unlock()
			g.fns[&fn] = true
			return func() {
				g.mu.Lock()
				defer g.mu.Unlock()
				delete(g.fns, &fn)
			}
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	listener := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { s.ServePage(w, r, s.who) }))
	s.url = listener.URL
	t.Cleanup(func() {
		s.Close()
		http.DefaultClient.CloseIdleConnections()
		listener.Close()
	})
	return s
}

// least is the role that a method takes; the table itself is rpc's.
func least(method string) pki.Role {
	switch {
	case strings.Contains(method, "TransferLeadership"), strings.Contains(method, "SetPartitionSettings"):
		return pki.RoleAdministrator
	case strings.Contains(method, "Publish"), strings.Contains(method, "Resume"), strings.Contains(method, "Rollback"), strings.Contains(method, "SetMaintenance"),
		strings.Contains(method, "Migration") && strings.HasPrefix(method, "/quorate.v1.PartitionService/") && !strings.Contains(method, "List"):
		return pki.RoleOperator
	}
	return pki.RoleViewer
}

// answer is what a browser was given.
type answer struct {
	code   int
	header http.Header
	body   string
}

func (s *site) do(t *testing.T, method, path string, form url.Values) answer {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, method, s.url+path, strings.NewReader(form.Encode()))
	if err != nil {
		t.Fatal(err)
	}
	if form != nil {
		request.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	client := &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	response, err := client.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return answer{response.StatusCode, response.Header, string(body)}
}

func (s *site) get(t *testing.T, path string) answer {
	t.Helper()
	return s.do(t, http.MethodGet, path, nil)
}

// hiddenFields are the fields that a form carries along.
func hiddenFields(body string) url.Values {
	form := url.Values{}
	for _, m := range regexp.MustCompile(`<input type="hidden" name="([^"]*)" value="([^"]*)">`).FindAllStringSubmatch(body, -1) {
		form.Set(m[1], m[2])
	}
	return form
}

// wants fails unless the page says all of it.
func (a answer) wants(t *testing.T, code int, texts ...string) {
	t.Helper()
	if a.code != code {
		t.Errorf("status %d, want %d", a.code, code)
	}
	for _, text := range texts {
		if !strings.Contains(a.body, text) {
			t.Errorf("the page lacks %q:\n%s", text, a.body)
		}
	}
}

// lacks fails if the page says any of it.
func (a answer) lacks(t *testing.T, texts ...string) {
	t.Helper()
	for _, text := range texts {
		if strings.Contains(a.body, text) {
			t.Errorf("the page says %q:\n%s", text, a.body)
		}
	}
}

// demo is a group of three with a set of two servers.
func demo() *quoratev1.GetOverviewResponse {
	at := timestamppb.New(time.Date(2026, 11, 28, 2, 3, 4, 0, time.UTC))
	actor := &quoratev1.Actor{Name: "ada", Role: "operator"}
	o := &quoratev1.GetOverviewResponse{
		Header: &quoratev1.ResponseHeader{Revision: 40, Generation: 3, Member: "m1", LeaderContactAge: durationpb.New(time.Millisecond), ClusterTime: durationpb.New(100 * time.Second)},
		Generation: &quoratev1.Generation{
			Number: 3, Digest: strings.Repeat("ab", 32), Actor: actor, PublishedAt: at, PublishRequestId: "publish-3",
			Topology: &quoratev1.Topology{Sets: []*quoratev1.RedundantSet{{Id: "line-a", Mode: "WARM", Servers: []*quoratev1.RedundantServer{
				{Member: "m1", Role: "Primary", EndpointUrl: "opc.tcp://127.0.0.1:4841"}, {Member: "m2", Role: "Backup", EndpointUrl: "opc.tcp://127.0.0.1:4842"},
			}}}},
		},
		Rollouts: []*quoratev1.Rollout{{Set: "line-a", Generation: 3, State: quoratev1.RolloutState_ROLLOUT_STATE_DONE, Apply: "inPlace", Servers: []*quoratev1.ServerApply{
			{Server: "m2", State: quoratev1.ApplyState_APPLY_STATE_APPLIED, AppliedGeneration: 3, Attempts: 1, Begun: durationpb.New(time.Second),
				Ended: durationpb.New(1500 * time.Millisecond), BegunAt: at, Outcome: "ok"},
			{Server: "m1", State: quoratev1.ApplyState_APPLY_STATE_APPLIED, AppliedGeneration: 3, Attempts: 1, BegunAt: at, Outcome: "ok"},
		}}},
		Partitions: demoPartitions(),
		Serving:    []*quoratev1.Serving{{Server: "m1", Set: "line-a", Generation: 3}},
		LevelChanges: []*quoratev1.LevelChange{
			{Server: "m1", Number: 2, Before: 190, After: 255, Band: "Authoritative", Role: "Primary", Set: "line-a", Generation: 3, At: at},
			{Server: "m1", Number: 1, Before: 1, After: 190, Band: "Unconfirmed", Role: "Primary", Set: "line-a", Generation: 3, At: at, Reasons: []string{"unconfirmed"}},
			{Server: "m2", Number: 1, Before: 1, After: 100, Band: "Authoritative", Role: "Backup", Set: "line-a", Generation: 3, At: at},
		},
	}
	for i, role := range []string{"Primary", "Backup", ""} {
		m := &quoratev1.Member{
			Id: fmt.Sprint("m", i+1), Suffrage: quoratev1.Suffrage_SUFFRAGE_VOTER, Reachable: true, Leader: i == 2, Term: 2, AppliedRevision: 40, Version: "test",
			Role: role, ServiceLevel: proto.Uint32([]uint32{255, 100, 1}[i]), Band: []string{"Authoritative", "Authoritative", "NoData"}[i], AdoptedGeneration: 3,
			LeaderContactAge: durationpb.New(time.Millisecond), GrpcAddress: "127.0.0.1:7101", HttpAddress: "127.0.0.1:7201", RaftAddress: "127.0.0.1:7301",
		}
		if role != "" {
			m.Set, m.ServingLease = "line-a", durationpb.New(4*time.Second)
			m.Peers = []*quoratev1.PeerStatus{{Server: fmt.Sprint("m", 2-i), Reachable: true, ServiceLevel: 100, LastSeenAge: durationpb.New(time.Second)}}
		}
		o.Members = append(o.Members, m)
	}
	return o
}

// demoPartitions are one that is active and was elsewhere before, and four that migrate: one drains, and three are in cutover, of which one's barrier has
// passed, one's has not begun, and one may be completed early.
func demoPartitions() *quoratev1.PartitionOverview {
	at := timestamppb.New(time.Date(2026, 11, 28, 2, 3, 4, 0, time.UTC))
	o := &quoratev1.PartitionOverview{
		PartitionCount: 1_000_000, PlacementCount: 3, MigrationCount: 4, InstanceCount: 1,
		Settings: &quoratev1.PartitionSettings{
			DrainBarrier: durationpb.New(30 * time.Second), MinDrainBarrier: durationpb.New(20 * time.Second), EarlyFloor: durationpb.New(5 * time.Second),
			GateTtl: durationpb.New(2 * time.Second),
		},
		Placements: []*quoratev1.Placement{{Id: "east", Partitions: 999_999, Leaving: 4}, {Id: "m1", Partitions: 1}, {Id: "west", Coming: 4}},
		Instances:  []*quoratev1.Instance{{Id: "gateway-1", Actor: &quoratev1.Actor{Name: "gwen", Role: "viewer"}, RegisteredAt: at, Revision: 12}},
	}
	active := &quoratev1.Partition{
		Id: "p1", Phase: quoratev1.PartitionPhase_PARTITION_PHASE_ACTIVE, Placement: "east", PreviousPlacement: "north", Epoch: 7, Revision: 31,
		DrainBarrier: durationpb.New(45 * time.Second),
	}
	o.Partitions = []*quoratev1.Partition{active}
	for i, id := range []string{"p2", "p3", "p4", "p5"} {
		m := &quoratev1.Migration{
			From: "east", To: "west", Actor: &quoratev1.Actor{Name: "ada", Role: "operator"}, BegunAt: at, Note: "off the old rack", DrainBarrier: durationpb.New(30 * time.Second),
			Copy: &quoratev1.CopyProgress{Done: 12_000, Total: 40_000, Text: "rsync, second pass", At: at},
		}
		p := &quoratev1.Partition{Id: id, Phase: quoratev1.PartitionPhase_PARTITION_PHASE_DRAINING, Placement: "east", Epoch: 3, Revision: 33, Migration: m}
		if i > 0 {
			p.Phase, p.Epoch = quoratev1.PartitionPhase_PARTITION_PHASE_CUTOVER, 4
			m.CutoverEpoch, m.CutoverRevision, m.CutoverAt = 4, 34, at
		}
		switch id {
		case "p3":
			m.BarrierBegun, m.BarrierLeft = durationpb.New(60*time.Second), durationpb.New(0)
		case "p4":
			m.BarrierLeft = durationpb.New(30 * time.Second)
		case "p5":
			m.EarlyCompletion, m.BarrierBegun, m.BarrierLeft = true, durationpb.New(90*time.Second), durationpb.New(20*time.Second)
		}
		o.Migrations = append(o.Migrations, p)
	}
	return o
}

// refused is an error as the services give it.
func refused(code codes.Code, reason, message string, facts map[string]string) error {
	st, err := status.New(code, message).WithDetails(&errdetails.ErrorInfo{Reason: reason, Domain: "quorate", Metadata: facts})
	if err != nil {
		panic(err)
	}
	return st.Err()
}

// watch is an open stream, read event by event.
type watch struct {
	t      *testing.T
	lines  *bufio.Scanner
	cancel context.CancelFunc
	header http.Header
	code   int
}

func (s *site) watch(t *testing.T, path string) *watch {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, s.url+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		cancel()
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cancel()
		response.Body.Close()
	})
	lines := bufio.NewScanner(response.Body)
	lines.Buffer(nil, 4<<20)
	return &watch{t: t, lines: lines, cancel: cancel, header: response.Header, code: response.StatusCode}
}

// next returns the next event, its name and data; ok is false at the end of the stream.
func (w *watch) next() (name, data string, ok bool) {
	w.t.Helper()
	for w.lines.Scan() {
		line := w.lines.Text()
		switch {
		case line == "":
			return name, data, true
		case strings.HasPrefix(line, "event: "):
			name = strings.TrimPrefix(line, "event: ")
		case strings.HasPrefix(line, "data: "):
			data += strings.TrimPrefix(line, "data: ") + "\n"
		default:
			w.t.Fatalf("a line that is no field: %q", line)
		}
	}
	return "", "", false
}

// page returns the next message that changes the page.
func (w *watch) page() string {
	w.t.Helper()
	for {
		name, data, ok := w.next()
		if !ok {
			w.t.Fatal("the stream ended")
		}
		if name == "" {
			return data
		}
	}
}
