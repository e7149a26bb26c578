package migration

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/durationpb"

	"quorate/fsm"
	logv1 "quorate/proto/quorate/log/v1"
	quoratev1 "quorate/proto/quorate/v1"
)

// group is the state machine of a real group with nothing in between: what it answers, refuses and remembers is what a group does. Its cluster time
// is that of the test. Calls get lost as the test says.
type group struct {
	t     *testing.T
	began time.Time

	mu    sync.Mutex
	state *fsm.State
	calls []call
	// fate says what becomes of a call, counted from 1, before it is made; nil is answered.
	fate func(n int, method string) fate
	// drained is the leader's word on early completion.
	drained bool
}

type call struct {
	method, id string
	at         time.Duration
}

type fate int

const (
	answered fate = iota
	// lost: it never arrives, and that there is no answer is said at once, as without a leader.
	lost
	// answerLost: it arrives, and its answer does not.
	answerLost
	// hangs: there is no answer for as long as the caller waits.
	hangs
)

// silence is what a caller sees that gets no final answer.
type silence struct{ why string }

func (s *silence) Error() string { return s.why }

func newGroup(t *testing.T) *group {
	g := &group{t: t, began: time.Now(), state: fsm.New()}
	g.apply(&logv1.Command{Body: &logv1.Command_SyncMembers{SyncMembers: &logv1.SyncMembers{Members: []*logv1.SyncMembers_Member{
		{Id: "m1", RaftAddress: "m1:7301", Voter: true}, {Id: "m2", RaftAddress: "m2:7301", Voter: true},
	}}}})
	for _, m := range []string{"m1", "m2"} {
		g.apply(&logv1.Command{Body: &logv1.Command_AnnounceMember{AnnounceMember: &logv1.AnnounceMember{Id: m, CommandVersion: fsm.CommandVersion}}})
	}
	g.must("settings", &logv1.Command{Body: &logv1.Command_SetPartitionSettings{SetPartitionSettings: &logv1.SetPartitionSettings{
		Settings: &quoratev1.PartitionSettings{
			DrainBarrier: durationpb.New(10 * time.Second), MinDrainBarrier: durationpb.New(5 * time.Second), EarlyFloor: durationpb.New(3 * time.Second),
		},
	}}})
	g.must("create", &logv1.Command{Body: &logv1.Command_CreatePartitions{CreatePartitions: &logv1.CreatePartitions{Ids: []string{"p1", "p2", "p3"}, Placement: "east"}}})
	return g
}

// apply commits one command, with the word that no gate lease stands.
func (g *group) apply(c *logv1.Command) *logv1.Outcome {
	g.t.Helper()
	fsm.GatesClosed(c, true)
	if complete := c.GetCompleteMigration(); complete != nil {
		complete.Drained = g.drained
	}
	outcomes, _, err := g.state.ApplyEntry(g.state.Revision()+1, &logv1.Entry{
		Clock: uint64(time.Since(g.began)), LeaderApplied: g.state.Revision(), Commands: []*logv1.Command{c},
	})
	if err != nil {
		g.t.Fatal(err)
	}
	if err := g.state.Check(); err != nil {
		g.t.Fatal(err)
	}
	return outcomes[0]
}

// must makes a change that somebody else makes.
func (g *group) must(id string, c *logv1.Command) {
	g.t.Helper()
	c.RequestId, c.Actor = "somebody-"+id, &quoratev1.Actor{Name: "somebody"}
	if r := fsm.RefusalOf(g.apply(c)); r != nil {
		g.t.Fatalf("%s: %v", id, r)
	}
}

func (g *group) somebody(id string, c *logv1.Command) {
	g.t.Helper()
	g.mu.Lock()
	defer g.mu.Unlock()
	g.must(id, c)
}

func abortOf(p string) *logv1.Command {
	return &logv1.Command{Body: &logv1.Command_AbortMigration{AbortMigration: &logv1.AbortMigration{Partition: p}}}
}

func cutoverOf(p string) *logv1.Command {
	return &logv1.Command{Body: &logv1.Command_CutoverMigration{CutoverMigration: &logv1.CutoverMigration{Partition: p}}}
}

func completeOf(p string) *logv1.Command {
	return &logv1.Command{Body: &logv1.Command_CompleteMigration{CompleteMigration: &logv1.CompleteMigration{Partition: p}}}
}

func (g *group) partition(id string) *quoratev1.Partition {
	g.t.Helper()
	g.mu.Lock()
	defer g.mu.Unlock()
	p, r := g.state.Partition(id)
	if r != nil {
		g.t.Fatal(r)
	}
	return p
}

// ids returns the request ids of the calls whose method begins so.
func (g *group) ids(method string) []string {
	g.mu.Lock()
	defer g.mu.Unlock()
	var ids []string
	for _, c := range g.calls {
		if strings.HasPrefix(c.method, method) {
			ids = append(ids, c.id)
		}
	}
	return ids
}

// arrive counts a call in and lets its fate be done: do is what the call is for.
func (g *group) arrive(ctx context.Context, method, id string, do func() error) error {
	g.mu.Lock()
	g.calls = append(g.calls, call{method, id, time.Since(g.began)})
	n := len(g.calls)
	g.mu.Unlock()
	what := answered
	if g.fate != nil {
		what = g.fate(n, method)
	}
	switch what {
	case lost:
		return &silence{"no leader"}
	case hangs:
		<-ctx.Done()
		return &silence{"no answer"}
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	err := do()
	if what == answerLost {
		return &silence{"the answer was lost"}
	}
	return err
}

func (g *group) change(ctx context.Context, method, id string, c *logv1.Command) (outcome *logv1.Outcome, err error) {
	err = g.arrive(ctx, method, id, func() error {
		c.RequestId, c.Actor = id, &quoratev1.Actor{Name: "driver"}
		outcome = g.apply(c)
		if r := fsm.RefusalOf(outcome); r != nil {
			return r
		}
		return nil
	})
	return outcome, err
}

func (g *group) GetPartition(ctx context.Context, r *quoratev1.GetPartitionRequest, _ ...grpc.CallOption) (*quoratev1.GetPartitionResponse, error) {
	var p *quoratev1.Partition
	err := g.arrive(ctx, "get", "", func() error {
		// While a barrier waits for it, the leader moves cluster time on.
		g.apply(&logv1.Command{Body: &logv1.Command_Tick{Tick: &logv1.Tick{}}})
		found, refusal := g.state.Partition(r.GetPartition())
		if refusal != nil {
			return refusal
		}
		p = found
		return nil
	})
	if err != nil {
		return nil, err
	}
	return &quoratev1.GetPartitionResponse{Partition: p}, nil
}

func (g *group) BeginMigration(ctx context.Context, r *quoratev1.BeginMigrationRequest, _ ...grpc.CallOption) (*quoratev1.BeginMigrationResponse, error) {
	o, err := g.change(ctx, "begin", r.GetRequestId(), &logv1.Command{Body: &logv1.Command_BeginMigration{BeginMigration: &logv1.BeginMigration{
		Partition: r.GetPartition(), To: r.GetTo(), ExpectedEpoch: r.GetExpectedEpoch(), DrainBarrier: r.GetDrainBarrier(), Note: r.GetNote(),
		EarlyCompletion: r.GetEarlyCompletion(), VerificationRequired: r.GetVerificationRequired(), Servers: r.GetServers(),
	}}})
	if err != nil {
		return nil, err
	}
	return &quoratev1.BeginMigrationResponse{Partition: o.GetPartitionMoved().GetPartition()}, nil
}

func (g *group) ReportMigration(ctx context.Context, r *quoratev1.ReportMigrationRequest, _ ...grpc.CallOption) (*quoratev1.ReportMigrationResponse, error) {
	o, err := g.change(ctx, "report", r.GetRequestId(), &logv1.Command{Body: &logv1.Command_ReportMigration{ReportMigration: &logv1.ReportMigration{
		Partition: r.GetPartition(), ExpectedEpoch: r.GetExpectedEpoch(), Copy: r.GetCopy(), Verified: r.GetVerified(),
	}}})
	if err != nil {
		return nil, err
	}
	return &quoratev1.ReportMigrationResponse{Partition: o.GetPartitionMoved().GetPartition()}, nil
}

func (g *group) CutoverMigration(ctx context.Context, r *quoratev1.CutoverMigrationRequest, _ ...grpc.CallOption) (*quoratev1.CutoverMigrationResponse, error) {
	o, err := g.change(ctx, "cutover", r.GetRequestId(), &logv1.Command{Body: &logv1.Command_CutoverMigration{CutoverMigration: &logv1.CutoverMigration{
		Partition: r.GetPartition(), ExpectedEpoch: r.GetExpectedEpoch(), Note: r.GetNote(),
	}}})
	if err != nil {
		return nil, err
	}
	return &quoratev1.CutoverMigrationResponse{Partition: o.GetPartitionMoved().GetPartition()}, nil
}

func (g *group) CompleteMigration(ctx context.Context, r *quoratev1.CompleteMigrationRequest, _ ...grpc.CallOption) (*quoratev1.CompleteMigrationResponse, error) {
	o, err := g.change(ctx, "complete", r.GetRequestId(), &logv1.Command{Body: &logv1.Command_CompleteMigration{CompleteMigration: &logv1.CompleteMigration{
		Partition: r.GetPartition(), ExpectedEpoch: r.GetExpectedEpoch(), Note: r.GetNote(),
	}}})
	if err != nil {
		return nil, err
	}
	moved := o.GetPartitionMoved()
	return &quoratev1.CompleteMigrationResponse{Partition: moved.GetPartition(), Early: moved.GetEarly()}, nil
}

// refusal is how a driver tells a refusal from silence.
func refusal(err error) *Refusal {
	var r *fsm.Refusal
	if !errors.As(err, &r) {
		return nil
	}
	return &Refusal{Reason: r.GetReason(), Facts: r.GetDetails(), Err: err}
}

// scriptedHook writes its lines, one every half second, and ends with its error.
type scriptedHook struct {
	lines []string
	err   error

	mu                sync.Mutex
	begun, done, gone int
	abouts            []About
}

func (h *scriptedHook) Run(ctx context.Context, about About, line func(string)) error {
	h.mu.Lock()
	h.begun++
	h.abouts = append(h.abouts, about)
	h.mu.Unlock()
	for _, l := range h.lines {
		if !sleep(ctx, 500*time.Millisecond) {
			h.mu.Lock()
			h.gone++
			h.mu.Unlock()
			return ctx.Err()
		}
		line(l)
	}
	if h.err == nil {
		h.mu.Lock()
		h.done++
		h.mu.Unlock()
	}
	return h.err
}

func copyLines() []string {
	lines := []string{"begins"}
	for i := range 10 {
		lines = append(lines, fmt.Sprintf("progress %d 10 rows", i+1))
	}
	return lines
}

// told collects events.
type told struct {
	mu     sync.Mutex
	events []Event
}

func (e *told) tell(event Event) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.events = append(e.events, event)
}

func (e *told) texts() string {
	e.mu.Lock()
	defer e.mu.Unlock()
	var lines []string
	for _, event := range e.events {
		if event.Text != "" {
			lines = append(lines, event.Stage.String()+": "+event.Text)
		}
	}
	return strings.Join(lines, "\n")
}

var drivers int

// driver returns one of a run of its own.
func (g *group) driver(o Options) (*Driver, *told) {
	events := &told{}
	drivers++
	return &Driver{Group: g, Refusal: refusal, Tell: events.tell, Options: o, Request: fmt.Sprintf("run%d", drivers)}, events
}

// transitions returns the names of the changes that took effect, whoever made them.
func (g *group) checkWhole(id string) {
	g.t.Helper()
	p := g.partition(id)
	if p.GetPhase() != active || p.GetPlacement() != "west" || p.GetPreviousPlacement() != "east" || p.GetEpoch() != 4 {
		g.t.Errorf("%s is %v; want it at west after three transitions", id, p)
	}
}

func has(t *testing.T, text string, wants ...string) {
	t.Helper()
	for _, want := range wants {
		if !strings.Contains(text, want) {
			t.Errorf("it says\n%s\nwithout %q", text, want)
		}
	}
}

func unique(ids []string) []string { return slices.Compact(slices.Clone(ids)) }
